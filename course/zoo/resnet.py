"""ResNet for large images, 18 to 152 layers: blocks that add to what goes round them.

Blocks in each stage

                              18    34    50    101    152
    layer1     56 x 56         2     3     3      3      3
    layer2     28 x 28         2     4     4      4      8
    layer3     14 x 14         2     6     6     23     36
    layer4      7 x 7          2     3     3      3      3

    parameters      resnet18   11 689 512
                    resnet34   21 797 672
                    resnet50   25 557 032
                    resnet101  44 549 160
                    resnet152  60 192 808

In 18 and 34 a block is two 3x3 convolutions. From 50 on it is a bottleneck: 1x1 to few
channels, 3x3, and 1x1 to four times as many. Where a stage begins, its first block halves
height and width (not in layer1), and a 1x1 convolution carries what goes round.

Layers of resnet18, for images of 3 x 224 x 224, and how many numbers each learns

    conv1      conv 7x7, 64 filters, stride 2, padding 3     64 x 112 x 112       9 408
    bn1        batch normalisation                           64 x 112 x 112         128
    maxpool    max pool 3x3, stride 2, padding 1             64 x 56 x 56
    layer1     2 blocks                                      64 x 56 x 56       147 968
    layer2     2 blocks                                     128 x 28 x 28       525 568
    layer3     2 blocks                                     256 x 14 x 14     2 099 712
    layer4     2 blocks                                     512 x 7 x 7       8 393 728
    avgpool    global average                               512 x 1 x 1
    fc         linear 512 -> 1000                           1000                513 000
                                                                             11 689 512

Layers of resnet50, for images of 3 x 224 x 224, and how many numbers each learns

    conv1      conv 7x7, 64 filters, stride 2, padding 3     64 x 112 x 112       9 408
    bn1        batch normalisation                           64 x 112 x 112         128
    maxpool    max pool 3x3, stride 2, padding 1             64 x 56 x 56
    layer1     3 bottlenecks                                256 x 56 x 56       215 808
    layer2     4 bottlenecks                                512 x 28 x 28     1 219 584
    layer3     6 bottlenecks                               1024 x 14 x 14     7 098 368
    layer4     3 bottlenecks                               2048 x 7 x 7      14 964 736
    avgpool    global average                              2048 x 1 x 1
    fc         linear 2048 -> 1000                         1000               2 049 000
                                                                             25 557 032

The stride of a bottleneck is in its 3x3 convolution, as in torchvision; the paper has it in
the first 1x1, which then never sees three of four pixels. The counts are the same.

Lecture: lectures/15_architectures.ipynb.
Source: He, Zhang, Ren & Sun, CVPR 2016, table 1; the keys of torchvision.models.resnet.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from course.layers import (
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
)
from course.model import Residual, Sequential
from course.zoo.base import fresh, sees


@sees(3, 224, 224)
def resnet18(
    classes: int = 1000, *, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> Sequential:
    """Return ResNet-18 with fresh weights for 3 x 224 x 224 images, or larger ones."""
    return _resnet(_basic, (2, 2, 2, 2), classes, fresh(rng, dtype))


@sees(3, 224, 224)
def resnet34(
    classes: int = 1000, *, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> Sequential:
    """Return ResNet-34 with fresh weights for 3 x 224 x 224 images, or larger ones."""
    return _resnet(_basic, (3, 4, 6, 3), classes, fresh(rng, dtype))


@sees(3, 224, 224)
def resnet50(
    classes: int = 1000, *, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> Sequential:
    """Return ResNet-50 with fresh weights for 3 x 224 x 224 images, or larger ones."""
    return _resnet(_bottleneck, (3, 4, 6, 3), classes, fresh(rng, dtype))


@sees(3, 224, 224)
def resnet101(
    classes: int = 1000, *, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> Sequential:
    """Return ResNet-101 with fresh weights for 3 x 224 x 224 images, or larger ones."""
    return _resnet(_bottleneck, (3, 4, 23, 3), classes, fresh(rng, dtype))


@sees(3, 224, 224)
def resnet152(
    classes: int = 1000, *, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> Sequential:
    """Return ResNet-152 with fresh weights for 3 x 224 x 224 images, or larger ones."""
    return _resnet(_bottleneck, (3, 8, 36, 3), classes, fresh(rng, dtype))


def _resnet(
    block: Callable, counts: tuple[int, ...], classes: int, new: dict[str, Any]
) -> Sequential:
    """Return the network with so many blocks in each stage."""
    stages, C = {}, 64
    for k, count in enumerate(counts):
        blocks = []
        for first in [True] + [False] * (count - 1):
            added, out = block(C, 64 * 2**k, 2 if first and k else 1, new)
            blocks.append(added)
            C = out
        stages[f"layer{k + 1}"] = Sequential(*blocks)
    return Sequential(
        conv1=Conv2d(3, 64, 7, 2, 3, bias=False, **new),
        bn1=BatchNorm2d(64, dtype=new["dtype"]),
        relu=ReLU(),
        maxpool=MaxPool2d(3, 2, 1),
        **stages,
        avgpool=GlobalAvgPool2d(),
        flatten=Flatten(),
        fc=Linear(C, classes, **new),
    )


def _basic(C: int, F: int, stride: int, new: dict[str, Any]) -> tuple[Residual, int]:
    """Return a block of two convolutions, and how many channels leave it."""
    body = Sequential(
        conv1=Conv2d(C, F, 3, stride, 1, bias=False, **new),
        bn1=BatchNorm2d(F, dtype=new["dtype"]),
        relu=ReLU(),
        conv2=Conv2d(F, F, 3, 1, 1, bias=False, **new),
        bn2=BatchNorm2d(F, dtype=new["dtype"]),
    )
    return _added(body, C, F, stride, new), F


def _bottleneck(C: int, F: int, stride: int, new: dict[str, Any]) -> tuple[Residual, int]:
    """Return a block of three convolutions, and how many channels leave it."""
    body = Sequential(
        conv1=Conv2d(C, F, 1, bias=False, **new),
        bn1=BatchNorm2d(F, dtype=new["dtype"]),
        relu1=ReLU(),
        conv2=Conv2d(F, F, 3, stride, 1, bias=False, **new),
        bn2=BatchNorm2d(F, dtype=new["dtype"]),
        relu2=ReLU(),
        conv3=Conv2d(F, 4 * F, 1, bias=False, **new),
        bn3=BatchNorm2d(4 * F, dtype=new["dtype"]),
    )
    return _added(body, C, 4 * F, stride, new), 4 * F


def _added(body: Sequential, C: int, F: int, stride: int, new: dict) -> Residual:
    """Return the body with what goes round it, which changes shape as the body does."""
    if (F, stride) == (C, 1):
        return Residual(body, after=ReLU())
    round_it = Sequential(
        Conv2d(C, F, 1, stride, bias=False, **new), BatchNorm2d(F, dtype=new["dtype"])
    )
    return Residual(body, round_it, ReLU(), name="downsample")
