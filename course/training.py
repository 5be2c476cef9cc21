"""Training: batch after batch, forward, loss, backward, step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from course.device import Array
from course.losses import log_softmax, softmax_cross_entropy
from course.model import Sequential
from course.optimizers import Optimizer

EVALUATION_BATCH = 500  # images; fixed, so that a result never depends on a training option


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a set of images.

    Attributes
    ----------
    loss : mean cross-entropy in nats
    accuracy : share of images whose largest score is the right class, 0 to 1
    predictions : (N,) int, the class with the largest score
    probabilities : (N, C) float, softmax of the scores
    """

    loss: float
    accuracy: float
    predictions: np.ndarray = field(repr=False)
    probabilities: np.ndarray = field(repr=False)


@dataclass
class History:
    """What happened during training.

    Attributes
    ----------
    batch_loss : the loss of every batch, before its step, in nats
    train_loss : the mean of batch_loss over each epoch
    test_loss, test_accuracy : after each epoch, if there was a validation set
    """

    batch_loss: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the indices of each batch of one shuffled epoch; the last may be smaller.

    >>> [len(batch) for batch in batches(10, 4, np.random.default_rng(0))]
    [4, 4, 2]
    """
    order = rng.permutation(count)
    for start in range(0, count, size):
        yield order[start : start + size]


def evaluate(model: Sequential, x: Array, t: Array) -> Evaluation:
    """Return loss and accuracy of the model on images x (N, ...) with labels t (N,)."""
    _check_set("x", x, "t", t)
    parts = range(0, len(x), EVALUATION_BATCH)
    scores = np.concatenate([model.forward(x[k : k + EVALUATION_BATCH]) for k in parts])
    loss, _ = softmax_cross_entropy(scores, t)
    predictions = scores.argmax(axis=1)
    return Evaluation(
        loss=loss,
        accuracy=float((predictions == t).mean()),
        predictions=predictions,
        probabilities=np.exp(log_softmax(scores)),
    )


def fit(
    model: Sequential,
    x: Array,
    t: Array,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer,
    seed: int,
    validation: tuple[Array, Array] | None = None,
    schedule: Callable[[float], float] | None = None,
    after_epoch: Callable[[History], Any] | None = None,
    progress: bool = True,
) -> History:
    """Train the model on images x (N, ...) with labels t (N,), and return what happened.

    Batches are drawn in an order that `seed` alone decides. `schedule` gives the learning
    rate at each step as a share of the optimizer's, from the share of training that is
    over: `lambda done: 1 - done` lets it fall to 0. `after_epoch` is called with the
    history so far. A progress bar shows loss and accuracy unless `progress` is False.

    Interrupt (Ctrl-C, or the stop button of a notebook) ends training: KeyboardInterrupt
    is raised as usual, and the model keeps the weights of the last full step.
    Raises FloatingPointError when the loss is no longer finite.
    """
    _check_set("x", x, "t", t)
    if validation is not None:
        _check_set("validation x", validation[0], "validation t", validation[1])
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    rng, history, peak = np.random.default_rng(seed), History(), optimizer.learning_rate
    per_epoch = -(-len(x) // batch_size)  # the last batch may be smaller
    steps, step = epochs * per_epoch, 0
    try:
        with _bar(steps, progress) as bar:
            for epoch in range(epochs):
                for batch in batches(len(x), batch_size, rng):
                    if schedule is not None:
                        optimizer.learning_rate = peak * schedule(step / steps)
                    history.batch_loss.append(_step(model, x[batch], t[batch], optimizer))
                    step += 1
                    bar.update()
                here = history.batch_loss[step - per_epoch :]
                history.train_loss.append(float(np.mean(here)))
                told = {"epoch": epoch + 1, "loss": f"{history.train_loss[-1]:.3f}"}
                if validation is not None:
                    result = evaluate(model, *validation)
                    history.test_loss.append(result.loss)
                    history.test_accuracy.append(result.accuracy)
                    told["accuracy"] = f"{result.accuracy:.2%}"
                bar.set_postfix(told)
                if after_epoch is not None:
                    after_epoch(history)
    finally:
        optimizer.learning_rate = peak
    return history


def _step(model: Sequential, x: Array, t: Array, optimizer: Optimizer) -> float:
    """Do one step on one batch; return the loss before it."""
    loss, dscores = softmax_cross_entropy(model.forward(x), t)
    if not np.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss}: training has diverged; "
            f"try a learning rate below {optimizer.learning_rate:g}"
        )
    model.learn(dscores)
    optimizer.step(model.layers)
    return loss


def _check_set(x_name: str, x: Array, t_name: str, t: Array) -> None:
    """Raise ValueError unless there are images and a label for each."""
    if len(x) == 0 or len(x) != len(t):
        raise ValueError(
            f"{x_name} has {len(x)} images and {t_name} has {len(t)} labels; "
            "there must be one label for each of at least one image"
        )


def _bar(steps: int, shown: bool) -> Any:
    """Return a progress bar over the steps: a widget in a notebook, text in a terminal."""
    from tqdm.auto import tqdm

    return tqdm(total=steps, unit="batch", disable=not shown)
