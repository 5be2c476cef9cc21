"""GoogLeNet: nine inception modules, and one small dense layer after an average.

Layers of googlenet, for images of 3 x 224 x 224, and how many numbers each learns

    conv1          conv 7x7, 64 filters, stride 2, padding 3     64 x 112 x 112      9 472
    maxpool1       max pool 3x3, stride 2, rounded up            64 x 56 x 56
    conv2          conv 1x1, 64 filters                          64 x 56 x 56        4 160
    conv3          conv 3x3, 192 filters, padding 1             192 x 56 x 56      110 784
    maxpool2       max pool 3x3, stride 2, rounded up           192 x 28 x 28
    inception3a    inception 64, 96-128, 16-32, 32              256 x 28 x 28      163 696
    inception3b    inception 128, 128-192, 32-96, 64            480 x 28 x 28      388 736
    maxpool3       max pool 3x3, stride 2, rounded up           480 x 14 x 14
    inception4a    inception 192, 96-208, 16-48, 64             512 x 14 x 14      376 176
    inception4b    inception 160, 112-224, 24-64, 64            512 x 14 x 14      449 160
    inception4c    inception 128, 128-256, 24-64, 64            512 x 14 x 14      510 104
    inception4d    inception 112, 144-288, 32-64, 64            528 x 14 x 14      605 376
    inception4e    inception 256, 160-320, 32-128, 128          832 x 14 x 14      868 352
    maxpool4       max pool 3x3, stride 2, rounded up           832 x 7 x 7
    inception5a    inception 256, 160-320, 32-128, 128          832 x 7 x 7      1 043 456
    inception5b    inception 384, 192-384, 48-128, 128         1024 x 7 x 7      1 444 080
    avgpool        global average                              1024 x 1 x 1
    fc             linear 1024 -> 1000                         1000              1 025 000
                                                                                 6 998 552

An inception module is four branches side by side: a 1x1 convolution; a 1x1 that leaves few
channels and a 3x3; the same with a 5x5; a 3x3 pool and a 1x1. The table has their filters
in this order. The two auxiliary classifiers, which helped training only, are left out.
Local response normalisation stands where figure 3 of the paper has it, around conv2 and
conv3. torchvision's network of this name is another one: it has batch normalisation, and
3x3 in place of 5x5.

Lecture: lectures/15_architectures.ipynb.
Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, table 1 and figure 3.
"""

from typing import Any

import numpy as np

from course.layers import (
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
)
from course.model import Branches, Sequential
from course.zoo.base import fresh, sees

INCEPTION = {  # 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, after the pool
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOL_BEFORE = {"4a": "maxpool3", "5a": "maxpool4"}


@sees(3, 224, 224)
def googlenet(
    classes: int = 1000, *, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> Sequential:
    """Return GoogLeNet with fresh weights for 3 x 224 x 224 images, or larger ones."""
    new = fresh(rng, dtype)
    layers = {
        "conv1": _convolution(3, 64, 7, new, stride=2, padding=3),
        "maxpool1": _half(),
        "norm1": LocalResponseNorm(5),
        "conv2": _convolution(64, 64, 1, new),
        "conv3": _convolution(64, 192, 3, new, padding=1),
        "norm2": LocalResponseNorm(5),
        "maxpool2": _half(),
    }
    C = 192
    for name, filters in INCEPTION.items():
        if name in POOL_BEFORE:
            layers[POOL_BEFORE[name]] = _half()
        layers[f"inception{name}"] = _inception(C, *filters, new)
        C = sum(filters[k] for k in (0, 2, 4, 5))
    return Sequential(
        **layers,
        avgpool=GlobalAvgPool2d(),
        flatten=Flatten(),
        dropout=Dropout(0.4, rng=new["rng"]),
        fc=Linear(C, classes, **new),
    )


def _convolution(C: int, F: int, kernel: int, new: dict, **window: int) -> Sequential:
    """Return a convolution and its ReLU."""
    return Sequential(conv=Conv2d(C, F, kernel, **window, **new), relu=ReLU())


def _half() -> MaxPool2d:
    """Return the pool that halves height and width."""
    return MaxPool2d(3, 2, ceil_mode=True)


def _inception(
    C: int, one: int, few3: int, three: int, few5: int, five: int, pooled: int, new: dict
) -> Branches:
    """Return the four branches; the numbers are a row of the table."""
    return Branches(
        branch1=_convolution(C, one, 1, new),
        branch2=Sequential(
            _convolution(C, few3, 1, new), _convolution(few3, three, 3, new, padding=1)
        ),
        branch3=Sequential(
            _convolution(C, few5, 1, new), _convolution(few5, five, 5, new, padding=2)
        ),
        branch4=Sequential(MaxPool2d(3, 1, 1), _convolution(C, pooled, 1, new)),
    )
