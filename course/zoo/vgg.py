"""VGG: nothing but 3x3 convolutions and 2x2 pools, 11 to 19 layers deep.

The paper's networks A, B, D and E: in each of five blocks, so many convolutions

                 64    128    256    512    512 filters    parameters
    vgg11   A     1      1      2      2      2           132 863 336
    vgg13   B     2      2      2      2      2           133 047 848
    vgg16   D     2      2      3      3      3           138 357 544
    vgg19   E     2      2      4      4      4           143 667 240

Layers of vgg16, for images of 3 x 224 x 224, and how many numbers each learns

    features.0      conv 3x3, 64 filters      64 x 224 x 224          1 792
    features.2      conv 3x3, 64 filters      64 x 224 x 224         36 928
    features.4      max pool 2x2              64 x 112 x 112
    features.5      conv 3x3, 128 filters    128 x 112 x 112         73 856
    features.7      conv 3x3, 128 filters    128 x 112 x 112        147 584
    features.9      max pool 2x2             128 x 56 x 56
    features.10     conv 3x3, 256 filters    256 x 56 x 56          295 168
    features.12     conv 3x3, 256 filters    256 x 56 x 56          590 080
    features.14     conv 3x3, 256 filters    256 x 56 x 56          590 080
    features.16     max pool 2x2             256 x 28 x 28
    features.17     conv 3x3, 512 filters    512 x 28 x 28        1 180 160
    features.19     conv 3x3, 512 filters    512 x 28 x 28        2 359 808
    features.21     conv 3x3, 512 filters    512 x 28 x 28        2 359 808
    features.23     max pool 2x2             512 x 14 x 14
    features.24     conv 3x3, 512 filters    512 x 14 x 14        2 359 808
    features.26     conv 3x3, 512 filters    512 x 14 x 14        2 359 808
    features.28     conv 3x3, 512 filters    512 x 14 x 14        2 359 808
    features.30     max pool 2x2             512 x 7 x 7
    classifier.0    linear 25088 -> 4096     4096               102 764 544
    classifier.3    linear 4096 -> 4096      4096                16 781 312
    classifier.6    linear 4096 -> 1000      1000                 4 097 000
                                                                138 357 544

Three quarters of the parameters are in the first dense layer. `batch_norm=True` puts a
batch normalisation after every convolution, which the paper of 2014 could not yet do.

Lecture: lectures/15_architectures.ipynb.
Source: Simonyan & Zisserman, ICLR 2015, tables 1 and 2; the keys of torchvision.models.vgg.
"""

from typing import Any

import numpy as np

from course.layers import BatchNorm2d, Conv2d, Flatten, MaxPool2d, ReLU
from course.layers.base import Layer
from course.model import Sequential
from course.zoo.base import classifier, fresh, sees

FILTERS = 64, 128, 256, 512, 512
CONVOLUTIONS = {  # in each block
    "A": (1, 1, 2, 2, 2),
    "B": (2, 2, 2, 2, 2),
    "D": (2, 2, 3, 3, 3),
    "E": (2, 2, 4, 4, 4),
}


@sees(3, 224, 224)
def vgg11(
    classes: int = 1000,
    *,
    batch_norm: bool = False,
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> Sequential:
    """Return VGG-11, the paper's A, with fresh weights for 3 x 224 x 224 images."""
    return _vgg("A", classes, batch_norm, fresh(rng, dtype))


@sees(3, 224, 224)
def vgg13(
    classes: int = 1000,
    *,
    batch_norm: bool = False,
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> Sequential:
    """Return VGG-13, the paper's B, with fresh weights for 3 x 224 x 224 images."""
    return _vgg("B", classes, batch_norm, fresh(rng, dtype))


@sees(3, 224, 224)
def vgg16(
    classes: int = 1000,
    *,
    batch_norm: bool = False,
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> Sequential:
    """Return VGG-16, the paper's D, with fresh weights for 3 x 224 x 224 images."""
    return _vgg("D", classes, batch_norm, fresh(rng, dtype))


@sees(3, 224, 224)
def vgg19(
    classes: int = 1000,
    *,
    batch_norm: bool = False,
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> Sequential:
    """Return VGG-19, the paper's E, with fresh weights for 3 x 224 x 224 images."""
    return _vgg("E", classes, batch_norm, fresh(rng, dtype))


def _vgg(letter: str, classes: int, batch_norm: bool, new: dict[str, Any]) -> Sequential:
    """Return the network of that column of the table."""
    layers: list[Layer] = []
    channels = 3
    for F, count in zip(FILTERS, CONVOLUTIONS[letter], strict=True):
        for _ in range(count):
            layers.append(Conv2d(channels, F, 3, padding=1, **new))
            if batch_norm:
                layers.append(BatchNorm2d(F, dtype=new["dtype"]))
            layers.append(ReLU())
            channels = F
        layers.append(MaxPool2d(2))
    return Sequential(
        features=Sequential(*layers),
        flatten=Flatten(),
        classifier=classifier(7 * 7 * 512, classes, new),
    )
