"""A training with everything that changes from step to step, for tests that break it off.

`python -m tests.trainee DIGITS CHECKPOINT WEIGHTS` trains on the file that `digits` wrote,
or goes on, and writes the other two.
"""

import sys
from pathlib import Path

import numpy as np

from course.data import load
from course.layers import BatchNorm2d, Conv2d, Dropout, Dropout2d, Flatten, Linear, ReLU
from course.model import Sequential
from course.optimizers import Adam
from course.regularization import L1, MaxNorm
from course.schedules import one_cycle
from course.training import History, fit
from course.vision.augmentation import Shift

EPOCHS, BATCH = 3, 12


def digits(path: Path) -> None:
    """Write 300 digits to learn from and 100 to test on, which load at once."""
    data = load("digits", size=8)
    learned = {"x": data.x_train[:300], "t": data.t_train[:300]}
    np.savez(path, **learned, x_test=data.x_test[:100], t_test=data.t_test[:100])


def network(seed: int = 0) -> Sequential:
    """Return a small network with batch normalisation and both kinds of dropout."""
    rng = np.random.default_rng(seed)
    return Sequential(
        Conv2d(1, 4, 3, rng=rng),
        BatchNorm2d(4),
        ReLU(),
        Dropout2d(0.1, rng=rng),
        Flatten(),
        Linear(144, 16, rng=rng),
        ReLU(),
        Dropout(0.3, rng=rng),
        Linear(16, 10, rng=rng),
    )


def train(path: Path, model: Sequential, **changes) -> History:
    """Train it on those digits, and write a checkpoint after every step."""
    with np.load(path) as file:
        data = dict(file)
    settings = {
        **{"epochs": EPOCHS, "batch_size": BATCH, "optimizer": Adam(0.01), "seed": 3},
        **{"schedule": one_cycle(), "augment": Shift(1), "checkpoint_every": 1},
        **{"regularization": (L1(1e-4), MaxNorm(3)), "restore_best": True},
        **{"validation": (data["x_test"], data["t_test"]), "progress": False},
    }
    settings |= changes
    if settings.get("checkpoint") is None:
        settings["checkpoint_every"] = None
    return fit(model, data["x"], data["t"], **settings)


if __name__ == "__main__":
    trained = network()
    train(Path(sys.argv[1]), trained, checkpoint=sys.argv[2])
    trained.save(sys.argv[3])
