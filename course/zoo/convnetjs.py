"""The network that learned CIFAR-10 in the browser, in Karpathy's ConvNetJS demo.

Layers of convnetjs, for images of 3 x 32 x 32, and how many numbers each learns

    0     conv 5x5, 16 filters, padding 2    16 x 32 x 32     1 216
    2     max pool 2x2                       16 x 16 x 16
    3     conv 5x5, 20 filters, padding 2    20 x 16 x 16     8 020
    5     max pool 2x2                       20 x 8 x 8
    6     conv 5x5, 20 filters, padding 2    20 x 8 x 8      10 020
    8     max pool 2x2                       20 x 4 x 4
    10    linear 320 -> 10                   10               3 210
                                                             22 466

Lecture: lectures/13_build_and_train.ipynb.
Source: Karpathy, ConvNetJS, demo/cifar10.html (2014).
"""

from typing import Any

import numpy as np

from course.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU
from course.model import Sequential
from course.zoo.base import fresh, sees


@sees(3, 32, 32)
def convnetjs(
    classes: int = 10, *, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> Sequential:
    """Return the ConvNetJS network with fresh weights for 3 x 32 x 32 images."""
    new = fresh(rng, dtype)
    return Sequential(
        *(Conv2d(3, 16, 5, padding=2, **new), ReLU(), MaxPool2d(2)),
        *(Conv2d(16, 20, 5, padding=2, **new), ReLU(), MaxPool2d(2)),
        *(Conv2d(20, 20, 5, padding=2, **new), ReLU(), MaxPool2d(2)),
        Flatten(),
        Linear(320, classes, **new),
    )
