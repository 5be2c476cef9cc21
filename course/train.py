"""`course train`: train a named network on a named data set, and keep what came of it."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from course.data import NAMES

NETWORKS = ("lenet5",)
HELD_OUT = 12  # one training image in so many chooses the best epoch, and trains nothing


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
    verb.add_argument("--learning-rate", type=float, default=0.03)
    verb.add_argument("--momentum", type=float, default=0.9)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--out", type=Path, default=Path("runs"), help="folder for results")
    verb.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Train as the arguments say; return 0, or 2 if they cannot be used."""
    try:
        return train(chosen)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"course train: {error}", file=sys.stderr)
        return 2


def train(chosen: argparse.Namespace) -> int:
    """Train, evaluate on the test images, and write weights and pictures."""
    from course.data import load
    from course.optimizers import SGD
    from course.training import History, evaluate, fit
    from course.viz.training import confused, learning_curve
    from course.zoo.lenet5 import lenet5

    data = load(chosen.data)
    rng = np.random.default_rng(chosen.seed)
    model = lenet5(len(data.classes), rng=rng)
    optimizer = SGD(chosen.learning_rate, chosen.momentum)
    order = rng.permutation(len(data.x_train))
    held_out, kept = np.split(order, [len(order) // HELD_OUT])
    validation = data.x_train[held_out], data.t_train[held_out]

    folder = chosen.out / f"{chosen.network}-{chosen.data}-seed{chosen.seed}"
    weights = folder / "weights.safetensors"
    seen, best = History(), float("inf")

    def keep_best(history: History) -> None:
        nonlocal seen, best
        seen = history
        if history.test_loss[-1] < best:
            best = history.test_loss[-1]
            model.save(weights)

    print(f"{chosen.network} on {chosen.data}: {len(kept)} images to learn from, ", end="")
    print(f"{len(held_out)} to choose the best epoch, {len(data.x_test)} to test")
    stopped = False
    try:
        fit(
            model,
            data.x_train[kept],
            data.t_train[kept],
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            optimizer=optimizer,
            seed=chosen.seed,
            validation=validation,
            schedule=lambda done: 1 - done,
            after_epoch=keep_best,
        )
    except KeyboardInterrupt:
        stopped = True
        if best == float("inf"):  # no epoch is complete: what there is, is the best
            model.save(weights)
    model.load(weights)
    result = evaluate(model, data.x_test, data.t_test)
    if seen.batch_loss:
        learning_curve(seen).save(folder / "learning_curve.png")
    confused(data.x_test, data.t_test, result, data.classes).save(folder / "confused.png")
    print("stopped early; the best weights so far are kept" if stopped else "done")
    print(f"test accuracy {result.accuracy:.2%}, test loss {result.loss:.4f} nats")
    print(f"weights and pictures are in {folder}")
    return 130 if stopped else 0
