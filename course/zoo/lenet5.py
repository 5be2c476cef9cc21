"""LeNet-5 as it is built today: ReLU and max pooling in place of tanh and sub-sampling.

Layers of lenet5, for images of 1 x 28 x 28, and how many numbers each learns

    0     conv 5x5, 6 filters, padding 2    6 x 28 x 28        156
    2     max pool 2x2                      6 x 14 x 14
    3     conv 5x5, 16 filters             16 x 10 x 10      2 416
    5     max pool 2x2                     16 x 5 x 5
    7     linear 400 -> 120                120              48 120
    9     linear 120 -> 84                 84               10 164
    11    linear 84 -> 10                  10                  850
                                                            61 706

The network of the paper is `course.zoo.lenet5_1998`.

Lecture: lectures/13_build_and_train.ipynb.
Source: LeCun, Bottou, Bengio & Haffner, Proc. IEEE 86 (1998), section II.B.
"""

from typing import Any

import numpy as np

from course.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU
from course.model import Sequential
from course.zoo.base import fresh, sees


@sees(1, 28, 28)
def lenet5(
    classes: int = 10, *, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> Sequential:
    """Return LeNet-5 with fresh weights for 28 x 28 images of one channel.

    >>> model = lenet5(rng=np.random.default_rng(0))
    >>> sum(array.size for array in model.params.values())
    61706
    """
    new = fresh(rng, dtype)
    return Sequential(
        Conv2d(1, 6, 5, padding=2, **new),
        ReLU(),
        MaxPool2d(2),
        Conv2d(6, 16, 5, **new),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(400, 120, **new),
        ReLU(),
        Linear(120, 84, **new),
        ReLU(),
        Linear(84, classes, **new),
    )
