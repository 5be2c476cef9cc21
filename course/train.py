"""`course train`: train a named network on a named data set, and keep what came of it."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from course.data import NAMES

NETWORKS = (  # those of course.zoo for images as small as those of course.data
    *("lenet5", "lenet5_1998", "convnetjs"),
    *("resnet8", "resnet20", "resnet56", "plain20"),
)
OPTIMIZERS = {  # of course.optimizers, with a learning rate that suits most networks
    **{"sgd": ("SGD", 0.03), "nesterov": ("SGD", 0.03), "adagrad": ("Adagrad", 0.01)},
    **{"rmsprop": ("RMSprop", 0.001), "adadelta": ("Adadelta", 1.0)},
    **{"adam": ("Adam", 0.001), "adamw": ("AdamW", 0.001)},
}
SCHEDULES = ("constant", "linear", "cosine", "step", "one-cycle")
AUGMENTATIONS = ("flip", "shift", "crop", "color")
HELD_OUT = 12  # one training image in so many chooses the best epoch, and trains nothing
MOMENTUM = 0.9


def add_parsers(subparsers: Any) -> None:
    """Add the verb `train`."""
    verb = subparsers.add_parser(
        "train",
        help="train a network on your own machine",
        description="Train a network, show its test accuracy, save weights and pictures.",
    )
    verb.add_argument("network", choices=NETWORKS)
    verb.add_argument("--data", choices=NAMES, default="digits")
    verb.add_argument("--epochs", type=int, default=3)
    verb.add_argument("--batch-size", type=int, default=32)
    verb.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    verb.add_argument("--learning-rate", type=float, help="the optimizer's, if not given")
    verb.add_argument("--momentum", type=float, help=f"of sgd, nesterov ({MOMENTUM})")
    verb.add_argument("--weight-decay", type=float)
    verb.add_argument("--schedule", choices=SCHEDULES, default="linear")
    verb.add_argument(
        "--augment", choices=AUGMENTATIONS, nargs="+", default=[], help="one or more"
    )
    verb.add_argument("--patience", type=int, help="epochs without progress until it ends")
    verb.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--out", type=Path, default=Path("runs"), help="folder for results")
    verb.add_argument("--resume", action="store_true", help="go on where it was stopped")
    verb.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Train as the arguments say; return 0, or 2 if they cannot be used."""
    from course.cuda.native import NoGPU
    from course.device import to

    try:
        to(chosen.device, np.zeros(1))  # raises at once where there is no GPU
        return train(chosen)
    except (ValueError, OSError, FloatingPointError, NoGPU) as error:
        print(f"course train: {error}", file=sys.stderr)
        return 2


def train(chosen: argparse.Namespace) -> int:
    """Train, evaluate on the test images, and write weights and pictures."""
    from course.data import load
    from course.training import History, evaluate, fit
    from course.viz.training import confused, learning_curve

    folder = chosen.out / f"{chosen.network}-{chosen.data}-seed{chosen.seed}"
    weights, checkpoint = folder / "weights.safetensors", folder / "checkpoint.safetensors"
    if checkpoint.exists() != chosen.resume:
        raise ValueError(
            f"{checkpoint} is not there: leave out --resume to begin"
            if chosen.resume
            else f"{checkpoint} is of a training that was stopped: add --resume to go on "
            "with it, or remove it to begin anew"
        )
    data = load(chosen.data)
    shape = data.x_train.shape[1:]
    rng = np.random.default_rng(chosen.seed)
    model = _network(chosen.network, len(data.classes), shape, rng)
    order = rng.permutation(len(data.x_train))
    held_out, learned = np.split(order, [len(order) // HELD_OUT])
    optimizer, augment = _optimizer(chosen), _augment(chosen.augment, shape)
    seen, kept = History(), chosen.resume and weights.exists()

    def keep_best(history: History) -> None:
        nonlocal seen, kept
        seen = history
        if history.best_epoch == len(history.test_loss):
            model.save(weights)
            kept = True

    print(
        f"{chosen.network} on {chosen.data}: {len(learned)} images to learn from, ", end=""
    )
    print(
        f"{len(held_out)} to choose the best epoch, {len(data.x_test)} to test", flush=True
    )
    stopped = False
    try:
        seen = fit(
            model,
            data.x_train[learned],
            data.t_train[learned],
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            optimizer=optimizer,
            seed=chosen.seed,
            validation=(data.x_train[held_out], data.t_train[held_out]),
            schedule=_schedule(chosen.schedule),
            augment=augment,
            patience=chosen.patience,
            checkpoint=checkpoint,
            after_epoch=keep_best,
            device=chosen.device,
        )
        checkpoint.unlink()
    except KeyboardInterrupt:
        stopped = True
        if not kept:  # no epoch is complete: what there is, is the best
            model.save(weights)
    model.load(weights)
    result = evaluate(model, data.x_test, data.t_test)
    if seen.batch_loss:
        learning_curve(seen).save(folder / "learning_curve.png")
    confused(data.x_test, data.t_test, result, data.classes).save(folder / "confused.png")
    print("stopped early; the best weights so far are kept" if stopped else "done")
    print(f"test accuracy {result.accuracy:.2%}, test loss {result.loss:.4f} nats")
    print(f"weights and pictures are in {folder}")
    if stopped:
        print("the same command with --resume goes on")
    return 130 if stopped else 0


def _network(name: str, classes: int, shape: tuple, rng: np.random.Generator) -> Any:
    """Return a network for images of this shape, or say which others there are."""
    from course import zoo

    def build(name: str, rng: np.random.Generator) -> Any:
        model = getattr(zoo, name)(classes, rng=rng)
        model.trace(np.zeros((1, *shape), np.float32))
        return model

    def takes(other: str) -> bool:
        try:
            return bool(build(other, np.random.default_rng(0)))
        except ValueError:
            return False

    try:
        return build(name, rng)
    except ValueError as error:
        others = ", ".join(filter(takes, NETWORKS)) or "none"
        raise ValueError(
            f"{name} is not for images of {' x '.join(map(str, shape))} in {classes} "
            f"classes ({error}); these networks are: {others}"
        ) from None


def _optimizer(chosen: argparse.Namespace) -> Any:
    """Return the optimizer that the arguments say."""
    from course import optimizers

    kind, rate = OPTIMIZERS[chosen.optimizer]
    more = {}
    if kind == "SGD":
        more["momentum"] = MOMENTUM if chosen.momentum is None else chosen.momentum
        more["nesterov"] = chosen.optimizer == "nesterov"
    elif chosen.momentum is not None:
        raise ValueError(f"--momentum is for sgd and nesterov, not for {chosen.optimizer}")
    if chosen.learning_rate is not None:
        rate = chosen.learning_rate
    if chosen.weight_decay is not None:
        more["weight_decay"] = chosen.weight_decay
    return getattr(optimizers, kind)(rate, **more)


def _schedule(name: str) -> Callable[[float], float] | None:
    """Return the schedule of this name."""
    from course import schedules

    return {
        "constant": None,
        "linear": schedules.linear(),
        "cosine": schedules.cosine(),
        "step": schedules.step([1 / 2, 3 / 4]),
        "one-cycle": schedules.one_cycle(),
    }[name]


def _augment(names: list[str], shape: tuple[int, ...]) -> Callable | None:
    """Return what changes each batch of images of this shape, if anything does."""
    from course.vision.augmentation import Augment, Color, Crop, Flip, Shift

    kinds = {
        "flip": Flip(),
        "shift": Shift(2),
        "crop": Crop(shape[1:], padding=4),
        "color": Color(0.2, 0.2, 0.2),
    }
    return Augment(*(kinds[name] for name in names)) if names else None
