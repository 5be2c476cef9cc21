"""AlexNet: the convolutional network that won ILSVRC in 2012, and with it the field.

Layers of alexnet, for images of 3 x 227 x 227, and how many numbers each learns

    features.0      conv 11x11, 96 filters, stride 4             96 x 55 x 55       34 944
    features.2      local response normalisation                 96 x 55 x 55
    features.3      max pool 3x3, stride 2                       96 x 27 x 27
    features.4      conv 5x5, 256 filters, padding 2, 2 groups  256 x 27 x 27      307 456
    features.6      local response normalisation                256 x 27 x 27
    features.7      max pool 3x3, stride 2                      256 x 13 x 13
    features.8      conv 3x3, 384 filters, padding 1            384 x 13 x 13      885 120
    features.10     conv 3x3, 384 filters, padding 1, 2 groups  384 x 13 x 13      663 936
    features.12     conv 3x3, 256 filters, padding 1, 2 groups  256 x 13 x 13      442 624
    features.14     max pool 3x3, stride 2                      256 x 6 x 6
    classifier.0    linear 9216 -> 4096                         4096            37 752 832
    classifier.3    linear 4096 -> 4096                         4096            16 781 312
    classifier.6    linear 4096 -> 1000                         1000             4 097 000
                                                                                60 965 224

The groups are the two GPUs that shared the work. "ungrouped" is one for a single GPU, with
62 378 344 parameters; "torchvision" is that of Krizhevsky's later note: 64, 192, 384, 256
and 256 filters, no normalisation, padding 2 before the first, 61 100 840.

The paper says that images are 224 x 224. Then (224 - 11) / 4 + 1 = 54.25 windows would fit,
and not 55: 227 is what works. PyTorch's variant takes 224 x 224.

Lecture: lectures/15_architectures.ipynb.
Source: Krizhevsky, Sutskever & Hinton, NIPS 2012; arXiv:1404.5997 for "torchvision", with
the keys of torchvision.models.alexnet.
"""

from typing import Any

import numpy as np

from course.layers import (
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
)
from course.model import Sequential
from course.zoo.base import classifier, fresh, sees

VARIANTS = "grouped", "ungrouped", "torchvision"


@sees(3, 227, 227)
def alexnet(
    classes: int = 1000,
    *,
    variant: str = "grouped",
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> Sequential:
    """Return AlexNet with fresh weights, for 3 x 227 x 227 images ("torchvision": 224).

    Raises ValueError for another variant than "grouped", "ungrouped" and "torchvision".
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}; it must be one of {', '.join(VARIANTS)}")
    new = fresh(rng, dtype)
    if variant == "torchvision":
        return _torchvision(classes, new)
    G = 2 if variant == "grouped" else 1
    return Sequential(
        features=Sequential(
            *(Conv2d(3, 96, 11, 4, **new), ReLU(), _normalise(), MaxPool2d(3, 2)),
            *(Conv2d(96, 256, 5, padding=2, groups=G, **new), ReLU(), _normalise()),
            MaxPool2d(3, 2),
            *(Conv2d(256, 384, 3, padding=1, **new), ReLU()),
            *(Conv2d(384, 384, 3, padding=1, groups=G, **new), ReLU()),
            *(Conv2d(384, 256, 3, padding=1, groups=G, **new), ReLU(), MaxPool2d(3, 2)),
        ),
        flatten=Flatten(),
        classifier=classifier(9216, classes, new),
    )


def _normalise() -> LocalResponseNorm:
    """Return the paper's n=5, k=2, alpha=1e-4, beta=0.75; the layer divides alpha by n."""
    return LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


@sees(3, 224, 224)
def _torchvision(classes: int, new: dict[str, Any]) -> Sequential:
    """Return torchvision's variant; its dropout comes before the dense layers."""
    return Sequential(
        features=Sequential(
            *(Conv2d(3, 64, 11, 4, 2, **new), ReLU(), MaxPool2d(3, 2)),
            *(Conv2d(64, 192, 5, padding=2, **new), ReLU(), MaxPool2d(3, 2)),
            *(Conv2d(192, 384, 3, padding=1, **new), ReLU()),
            *(Conv2d(384, 256, 3, padding=1, **new), ReLU()),
            *(Conv2d(256, 256, 3, padding=1, **new), ReLU(), MaxPool2d(3, 2)),
        ),
        flatten=Flatten(),
        classifier=Sequential(
            *(Dropout(0.5, rng=new["rng"]), Linear(9216, 4096, **new), ReLU()),
            *(Dropout(0.5, rng=new["rng"]), Linear(4096, 4096, **new), ReLU()),
            Linear(4096, classes, **new),
        ),
    )
