"""ZFNet: AlexNet with a first layer that looks closer: windows of 7 pixels, 2 apart.

Layers of zfnet, for images of 3 x 224 x 224, and how many numbers each learns

    features.0      conv 7x7, 96 filters, stride 2, padding 1    96 x 110 x 110     14 208
    features.2      max pool 3x3, stride 2, rounded up           96 x 55 x 55
    features.3      local response normalisation                 96 x 55 x 55
    features.4      conv 5x5, 256 filters, stride 2             256 x 26 x 26      614 656
    features.6      max pool 3x3, stride 2, rounded up          256 x 13 x 13
    features.7      local response normalisation                256 x 13 x 13
    features.8      conv 3x3, 384 filters, padding 1            384 x 13 x 13      885 120
    features.10     conv 3x3, 384 filters, padding 1            384 x 13 x 13    1 327 488
    features.12     conv 3x3, 256 filters, padding 1            256 x 13 x 13      884 992
    features.14     max pool 3x3, stride 2                      256 x 6 x 6
    classifier.0    linear 9216 -> 4096                         4096            37 752 832
    classifier.3    linear 4096 -> 4096                         4096            16 781 312
    classifier.6    linear 4096 -> 1000                         1000             4 097 000
                                                                                62 357 608

With filters=(512, 1024, 512), which the paper found better still, there are 107 627 624.
The paper's figure 3 gives the sizes 110, 55, 26, 13 and 6; the padding of 1 and the pools
that round up are what leads there. Its contrast normalisation is AlexNet's here.

Lecture: lectures/15_architectures.ipynb.
Source: Zeiler & Fergus, ECCV 2014, figure 3 and table 3.
"""

from typing import Any

import numpy as np

from course.layers import Conv2d, Flatten, LocalResponseNorm, MaxPool2d, ReLU
from course.model import Sequential
from course.zoo.base import classifier, fresh, sees


@sees(3, 224, 224)
def zfnet(
    classes: int = 1000,
    *,
    filters: tuple[int, int, int] = (384, 384, 256),
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> Sequential:
    """Return ZFNet with fresh weights for 3 x 224 x 224 images.

    `filters` are those of its last three convolutions.
    """
    new, (third, fourth, fifth) = fresh(rng, dtype), filters
    constants = {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0}
    return Sequential(
        features=Sequential(
            *(Conv2d(3, 96, 7, 2, 1, **new), ReLU(), MaxPool2d(3, 2, ceil_mode=True)),
            LocalResponseNorm(**constants),
            *(Conv2d(96, 256, 5, 2, **new), ReLU(), MaxPool2d(3, 2, ceil_mode=True)),
            LocalResponseNorm(**constants),
            *(Conv2d(256, third, 3, padding=1, **new), ReLU()),
            *(Conv2d(third, fourth, 3, padding=1, **new), ReLU()),
            *(Conv2d(fourth, fifth, 3, padding=1, **new), ReLU(), MaxPool2d(3, 2)),
        ),
        flatten=Flatten(),
        classifier=classifier(36 * fifth, classes, new),
    )
