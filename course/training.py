"""Training: batch after batch, forward, loss, backward, step.

The order of the images is drawn anew for each epoch, from the seed and the number of the
epoch; what `augment` draws, from those and the number of the batch. No generator lives
longer than that: so a training that goes on from a checkpoint draws what it would have
drawn anyway, and ends in the same bits.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from course import checkpoints
from course.device import Array, assign, host, to
from course.interrupts import Interrupts
from course.layers.base import Layer
from course.losses import log_softmax, softmax_cross_entropy
from course.model import Container
from course.optimizers import Optimizer
from course.regularization import penalties
from course.shapes import integer

Loss = Callable[[Array, Array], tuple[float, Array]]

# An evaluation takes so many images at once, fewer if they are large: fixed, so that a
# result never depends on a training option.
EVALUATION_BATCH = 500
EVALUATION_NUMBERS = 1 << 19


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a set of images.

    The last three are None where the targets are not classes.

    Attributes
    ----------
    loss : mean loss over the images; of cross-entropy in nats
    accuracy : share of images whose largest score is the right class, 0 to 1
    predictions : (N,) int, the class with the largest score
    probabilities : (N, C) float, softmax of the scores
    """

    loss: float
    accuracy: float | None = None
    predictions: np.ndarray | None = field(default=None, repr=False)
    probabilities: np.ndarray | None = field(default=None, repr=False)


@dataclass
class History:
    """What happened during training. Two are equal if all but the seconds are.

    Attributes
    ----------
    batch_loss : the loss of every batch, before its step
    train_loss : the mean of batch_loss over each epoch
    test_loss, test_accuracy : after each epoch, if there was a validation set; accuracy
        if its targets are classes
    learning_rate : of every batch
    epoch_ends : how many batches there had been when each epoch ended
    seconds : that each epoch took, with its validation
    stopped : why training ended before its last epoch, or ""
    """

    batch_loss: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    epoch_ends: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list, compare=False)
    stopped: str = ""

    @property
    def best_epoch(self) -> int:
        """Return the epoch, from 1, after which test_loss was lowest, or 0."""
        return int(np.argmin(self.test_loss)) + 1 if self.test_loss else 0


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the indices of each batch of one shuffled epoch; the last may be smaller.

    >>> [len(batch) for batch in batches(10, 4, np.random.default_rng(0))]
    [4, 4, 2]
    """
    order = rng.permutation(count)
    for start in range(0, count, size):
        yield order[start : start + size]


def evaluate(
    model: Container,
    x: Array,
    t: Array,
    loss: Loss = softmax_cross_entropy,
    *,
    device: str | None = None,
) -> Evaluation:
    """Return how well the model does on images x (N, ...) with targets t, one an image.

    Targets are classes, (N,) whole numbers, or whatever the loss takes. The model computes
    in eval mode, and afterwards is in the mode it was in. With a device, "cpu" or "cuda",
    it moves there first, and stays there; the loss is computed on the CPU.
    """
    x, t = _set("x", x, "t", t)
    place = _place(model, device)
    size = min(EVALUATION_BATCH, max(1, EVALUATION_NUMBERS * len(x) // max(1, x.size)))
    with model.unchanged():
        model.eval()
        parts = range(0, len(x), size)
        y = [host(model.forward(to(place, x[k : k + size]))) for k in parts]
    y = np.concatenate(y)
    value, _ = loss(y, t)
    if not are_classes(t):
        return Evaluation(value)
    predictions = y.argmax(axis=1)
    accuracy = float((predictions == t).mean())
    return Evaluation(value, accuracy, predictions, np.exp(log_softmax(y)))


def fit(
    model: Container,
    x: Array,
    t: Array,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer,
    seed: int,
    loss: Loss = softmax_cross_entropy,
    validation: tuple[Array, Array] | None = None,
    schedule: Callable[[float], float] | None = None,
    augment: Callable[[Array, np.random.Generator], Array] | None = None,
    regularization: Sequence[Any] = (),
    patience: int | None = None,
    restore_best: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    after_step: Callable[[History], Any] | None = None,
    after_epoch: Callable[[History], Any] | None = None,
    progress: bool = True,
    device: str | None = None,
) -> History:
    """Train the model on images x (N, ...) with targets t, and return what happened.

    loss : a function of (outputs, targets) that returns the loss and its gradient
    validation : (x, t) that are evaluated after each epoch, and train nothing
    schedule : gives the learning rate at each step as a share of the optimizer's, from the
        share of training that is over: `lambda done: 1 - done` lets it fall to 0
    augment : changes each batch before it is used: augment(x, rng) returns images
    regularization : penalties and limits of `course.regularization`; a batch's loss
        contains the penalties
    patience : training ends when the validation loss was not lower than its lowest for so
        many epochs
    restore_best : at the end the model gets the weights of its best epoch back
    checkpoint : a file that holds all that it takes to go on, after every epoch and after
        every `checkpoint_every` steps. If it exists, training goes on where it was, to the
        same bits as if nothing had happened; a finished training is not done again, but
        its weights and history are given back. It must have had the same settings.
    after_step, after_epoch : are called with the history so far; if they return something
        true, training ends
    device : "cpu" or "cuda", where the model moves before it is trained, and stays; None
        is where it is. Batches are cut and augmented on the CPU, and then follow it

    The order of the images and all that is drawn at random depend on the seed alone. A
    progress bar shows loss and accuracy unless `progress` is False. A model in eval mode
    is set to train mode; layers that are in eval mode one by one stay so.

    Interrupt (Ctrl-C, or the stop button of a notebook) ends training: KeyboardInterrupt
    is raised as usual. Model and optimizer are then as after the last full step, and so
    is the checkpoint. (A step that already changes the weights is finished first. Only a
    second interrupt meanwhile leaves a half changed model; the checkpoint is never so.)

    Raises FloatingPointError when the loss or a gradient is no longer finite, which says
    where that began; the model is as before that step. Raises ValueError for settings that
    cannot be, and for a checkpoint of other settings.
    """
    x, t = _set("x", x, "t", t)
    if validation is not None:
        validation = _set("validation x", validation[0], "validation t", validation[1])
    elif patience is not None or restore_best:
        raise ValueError("patience and restore_best need images: validation=(x, t)")
    if checkpoint is None and checkpoint_every is not None:
        raise ValueError("checkpoint_every needs a file: checkpoint='run.safetensors'")
    integer("epochs", epochs, 1)
    integer("batch_size", batch_size, 1)
    integer("seed", seed, 0)
    for name, value in (("patience", patience), ("checkpoint_every", checkpoint_every)):
        if value is not None:
            integer(name, value, 1)
    place = _place(model, device)
    if not model.training:
        model.train()
    per_epoch = -(-len(x) // batch_size)  # the last batch may be smaller
    steps, peak = epochs * per_epoch, optimizer.learning_rate
    run = _Run(model, optimizer, loss, augment, tuple(regularization), x, t, seed, place)
    if checkpoint is not None:
        settings = {"seed": seed, "batch_size": batch_size, "optimizer": optimizer}
        settings |= {"loss": loss, "augment": augment}
        settings |= {"regularization": run.regularization}
        settings |= {"patience": patience, "restore_best": restore_best, "schedule": None}
        if schedule is not None:  # a step's learning rate depends on how many there are
            settings |= {"schedule": [schedule(k / 8) for k in range(8)], "epochs": epochs}
        settings |= {"x": x, "t": t, "validation": validation}
        run.keep(Path(checkpoint), settings, steps)
        if progress and run.ended(epochs):
            print(_ENDED.format(path=checkpoint), file=sys.stderr)
    history = run.history
    with run.interrupts, _bar(steps, len(history.batch_loss), progress) as bar:
        try:
            while not run.ended(epochs):
                epoch = len(history.train_loss) + 1
                order = batches(len(x), batch_size, np.random.default_rng([seed, epoch]))
                done = len(history.batch_loss) - (epoch - 1) * per_epoch
                for number, images in enumerate(order, 1):
                    if number <= done:  # before the checkpoint
                        continue
                    if schedule is not None:
                        share = len(history.batch_loss) / steps
                        optimizer.learning_rate = peak * schedule(share)
                    run.step(images, epoch, number)
                    bar.update()
                    if after_step is not None and after_step(history):
                        history.stopped = "after_step said so"
                        break
                    if len(history.batch_loss) % (checkpoint_every or steps) == 0:
                        run.save()
                else:
                    result = validation and evaluate(model, *validation, loss)
                    run.end_epoch(result, per_epoch, patience, restore_best)
                    bar.set_postfix(_told(history))
                    if after_epoch is not None and after_epoch(history):
                        history.stopped = "after_epoch said so"
                run.save()
        except KeyboardInterrupt:
            if not run.interrupts.held:  # else the model is half changed
                run.save()
            raise
        finally:
            optimizer.learning_rate = peak
    for name, array in run.best.items():
        assign(model.state_dict()[name], array)
    return history


_ENDED = (
    "{path} is the checkpoint of a training that has ended: its weights and its history "
    "are given back. Remove the file to train anew"
)


@dataclass(eq=False)
class _Run:
    """A training under way: its steps, and its checkpoint."""

    model: Container
    optimizer: Optimizer
    loss: Loss
    augment: Callable[[Array, np.random.Generator], Array] | None
    regularization: tuple[Any, ...]
    x: Array
    t: Array
    seed: int
    device: str
    path: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)
    history: History = field(default_factory=History)
    best: dict[str, Array] = field(default_factory=dict)
    interrupts: Interrupts = field(default_factory=Interrupts)

    def __post_init__(self) -> None:
        self.leaves = list(self.model.leaves())
        self.layers = [leaf for _, leaf in self.leaves]
        self.clock = perf_counter()

    def ended(self, epochs: int) -> bool:
        """Say whether there is nothing left to do."""
        return len(self.history.train_loss) >= epochs or bool(self.history.stopped)

    def keep(self, path: Path, settings: Mapping[str, Any], steps: int) -> None:
        """Keep a checkpoint there; if there is one already, go on where it was."""
        self.path = path
        self.settings = {name: checkpoints.described(a) for name, a in settings.items()}
        self.settings |= checkpoints.architecture(self.leaves)
        state = checkpoints.resumed(path, self.settings)
        if state is None:
            self.save()  # now we know that it can be written
            return
        told = {name: np.asarray(a).tolist() for name, a in state["history"].items()}
        if len(told["batch_loss"]) > steps:
            raise ValueError(
                f"{path} holds a training of {len(told['train_loss'])} epochs already: ask "
                "for as many or more, or remove it to train anew"
            )
        self.optimizer.load_state_dict(state["optimizer"])
        for name, array in self.model.state_dict().items():
            assign(array, state["weights"][name])
        for (_, leaf), kept in zip(self.leaves, state["layers"], strict=True):
            vars(leaf).update(kept)
        self.history, self.best = History(**told), state["best"]
        self.clock = perf_counter() - state["seconds"]

    def save(self) -> None:
        """Write the checkpoint, if there is to be one."""
        if self.path is None:
            return
        self.interrupts.hold()
        history = vars(self.history).items()
        state = {
            "weights": self.model.state_dict(),
            "layers": [_counts(leaf) for leaf in self.layers],
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "history": {k: np.array(a) if isinstance(a, list) else a for k, a in history},
            "seconds": perf_counter() - self.clock,
        }
        checkpoints.write(self.path, self.settings, state)
        self.interrupts.release()

    def step(self, images: Array, epoch: int, number: int) -> None:
        """Do one step on a batch, given as indices: all of it, or nothing."""
        undo = self._remember()
        try:
            given, t = self.x[images], self.t[images]
            x = given
            if self.augment is not None:
                x = self.augment(x, np.random.default_rng([self.seed, epoch, number]))
            y = self.model.forward(to(self.device, x))
            value, dy = self.loss(y, to(self.device, t))
            value += sum(one.penalty(self.layers) for one in self.regularization)
            if not isfinite(value):
                undo()
                why = self._first_not_finite(x, t, given, images)
            else:
                self.model.learn(dy)
                for one in self.regularization:
                    one.add_gradients(self.layers)
                why = self._gradient_not_finite()
            if why:
                raise FloatingPointError(
                    f"the loss is {value:g} in epoch {epoch}, batch {number}: {why}. The "
                    "model is as it was before this batch"
                )
            self.interrupts.hold()
            self.optimizer.step(self.layers)
            for one in self.regularization:
                one.project(self.layers)
            self.history.batch_loss.append(float(value))
            self.history.learning_rate.append(float(self.optimizer.learning_rate))
        except BaseException:
            undo()
            raise
        self.interrupts.release()

    def _remember(self) -> Callable[[], None]:
        """Return what puts back all of the model that a forward changes for good."""
        buffers = [(a, a.copy()) for leaf in self.layers for a in leaf.buffers.values()]
        counts = [(leaf, _counts(leaf)) for leaf in self.layers if leaf.kept]

        def undo() -> None:
            for array, before in buffers:
                assign(array, before)
            for leaf, before in counts:
                vars(leaf).update(before)

        return undo

    def end_epoch(
        self, result: Evaluation | None, batches: int, patience: int | None, keep: bool
    ) -> None:
        """Note what an epoch of so many batches came to, and stop if patience is over."""
        if name := _not_finite(self.model.params):
            raise FloatingPointError(
                f"the last step of epoch {len(self.history.train_loss) + 1} left {name} "
                f"not finite. {self._remedy()}"
            )
        self.interrupts.hold()
        history = self.history
        history.train_loss.append(float(np.mean(history.batch_loss[-batches:])))
        history.epoch_ends.append(len(history.batch_loss))
        if result is not None:
            history.test_loss.append(result.loss)
            if result.accuracy is not None:
                history.test_accuracy.append(result.accuracy)
        best, epoch = history.best_epoch, len(history.train_loss)
        if patience is not None and epoch - best >= patience:
            history.stopped = f"not better than after epoch {best}"
        if keep and best == epoch:
            self.best = {name: a.copy() for name, a in self.model.state_dict().items()}
        now = perf_counter()
        history.seconds.append(now - self.clock)
        self.clock = now
        self.interrupts.release()

    def _first_not_finite(self, x: Array, t: Array, given: Array, images: Array) -> str:
        """Say where NaN or infinity first is on the way to the loss, and what helps."""
        with np.errstate(all="ignore"):
            for name, batch, remedy in (
                ("x has", given, "repair it, or leave it out"),
                ("t has", t, "repair it, or leave it out"),
                ("augment made", x, "that is a mistake of its own"),
            ):
                bad = ~np.isfinite(batch.reshape(len(batch), -1)).all(axis=1)
                if bad.any():
                    return (
                        f"{name} NaN or infinity in image {images[bad.argmax()]}; {remedy}"
                    )
            if name := _not_finite(self.model.params):
                if self.history.batch_loss:
                    return f"the step before left {name} not finite. {self._remedy()}"
                return f"{name} is not finite from the start; begin with other weights"
            for name, layer, seen, y in self.model.trace(to(self.device, x)):
                if not np.isfinite(host(y)).all():
                    several = seen if isinstance(seen, list | tuple) else [seen]
                    most = max(float(np.abs(host(a)).max()) for a in several)
                    return (
                        f"{_called(name, layer)} was the first whose output is not finite; "
                        f"its input reaches {most:.2g}. {self._remedy()}"
                    )
            if self.device == "cuda":  # where losses do not check what they are given
                self.loss(host(y), t)
            return (
                f"every layer's output is finite, the loss of it is not. {self._remedy()}"
            )

    def _gradient_not_finite(self) -> str:
        """Say, if it is so, where NaN or infinity first appears on the way back."""
        if self.device == "cuda":  # the sum of |dw| of all layers is quick
            grads = [dw for leaf in self.layers for dw in leaf.grads.values()]
            if isfinite(sum(penalties(grads, 1.0, 0.0))):
                return ""
        for name, leaf in reversed(self.leaves):
            if key := _not_finite(leaf.grads):
                called = _called(name, leaf)
                return (
                    f"on the way back {called} was the first with a gradient that is not "
                    f"finite, that of its {key}. {self._remedy()}"
                )
        return ""

    def _remedy(self) -> str:
        """Say what helps against numbers that grow too large."""
        rate = self.optimizer.learning_rate
        if self.history.batch_loss:
            return f"Training has diverged: try a learning rate below {rate:g}"
        return (
            "Nothing was learned yet, so that the images or the first weights are too "
            "large: images are best between -1 and 1"
        )


def _counts(leaf: Layer) -> dict[str, Any]:
    """Return the numbers of a layer that a checkpoint keeps besides the arrays."""
    return {name: getattr(leaf, name) for name in leaf.kept}


def _called(name: str, layer: Layer) -> str:
    """Return how a message calls a layer."""
    return f"layer {name} ({type(layer).__name__})"


def _not_finite(arrays: Mapping[str, Array]) -> str:
    """Return the name of the first array with NaN or infinity, or ""."""
    with np.errstate(all="ignore"):
        for name, a in arrays.items():
            a = host(a)
            if not isfinite(a.sum()) and not np.isfinite(a).all():  # the sum is quick
                return name
    return ""


def are_classes(t: Array) -> bool:
    """Say whether targets are the number of a class for each image."""
    return t.ndim == 1 and t.dtype.kind in "iu"


def _place(model: Container, device: str | None) -> str:
    """Return where the model computes, after it has moved there."""
    if device is None:
        return model.device
    model.to(device)
    return device


def _set(x_name: str, x: Array, t_name: str, t: Array) -> tuple[Array, Array]:
    """Return both as arrays; raise ValueError unless each image has its target."""
    x, t = np.asarray(x), np.asarray(t)
    if not x.ndim or not t.ndim or len(x) == 0 or len(x) != len(t):
        raise ValueError(
            f"{x_name} has {len(np.atleast_1d(x))} images and {t_name} has "
            f"{len(np.atleast_1d(t))} labels; there must be one label for each of at least "
            "one image"
        )
    return x, t


def _told(history: History) -> dict[str, Any]:
    """Return what the progress bar says after an epoch."""
    told = {"epoch": len(history.train_loss), "loss": f"{history.train_loss[-1]:.3f}"}
    if history.test_accuracy:
        told["accuracy"] = f"{history.test_accuracy[-1]:.2%}"
    elif history.test_loss:
        told["validation loss"] = f"{history.test_loss[-1]:.3f}"
    return told


def _bar(steps: int, done: int, shown: bool) -> Any:
    """Return a progress bar over the steps: a widget in a notebook, text in a terminal."""
    from tqdm.auto import tqdm

    return tqdm(total=steps, initial=done, unit="batch", disable=not shown)
