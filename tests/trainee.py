"""A training with everything that changes from step to step, for tests that break it off.

python tests/trainee.py CHECKPOINT WEIGHTS        trains, or goes on, and writes both
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

EPOCHS, BATCH = 3, 8


def network(seed=0):
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


def train(model, **changes) -> History:
    """Train it on 300 digits, and write a checkpoint after every step."""
    data = load("digits", size=8)
    settings = {
        **{"epochs": EPOCHS, "batch_size": BATCH, "optimizer": Adam(0.01), "seed": 3},
        **{"schedule": one_cycle(), "augment": Shift(1), "checkpoint_every": 1},
        **{"regularization": (L1(1e-4), MaxNorm(3)), "restore_best": True},
        **{"validation": (data.x_test[:100], data.t_test[:100]), "progress": False},
    }
    settings |= changes
    if settings.get("checkpoint") is None:
        settings["checkpoint_every"] = None
    return fit(model, data.x_train[:300], data.t_train[:300], **settings)


if __name__ == "__main__":
    trained = network()
    train(trained, checkpoint=Path(sys.argv[1]))
    trained.save(sys.argv[2])
