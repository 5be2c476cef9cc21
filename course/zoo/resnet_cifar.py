"""ResNet for the small images of CIFAR-10, and the plain network that it was compared with.

Of 6n + 2 layers: a convolution, three stages of n blocks with two convolutions each, and a
dense layer. n is 3 in resnet20 and plain20, 9 in resnet56, which has 853 018 parameters.

Layers of resnet20, for images of 3 x 32 x 32, and how many numbers each learns

    conv1      conv 3x3, 16 filters, padding 1    16 x 32 x 32        432
    bn1        batch normalisation                16 x 32 x 32         32
    layer1     3 blocks                           16 x 32 x 32     14 016
    layer2     3 blocks                           32 x 16 x 16     51 072
    layer3     3 blocks                           64 x 8 x 8      203 520
    avgpool    global average                     64 x 1 x 1
    linear     linear 64 -> 10                    10                  650
                                                                  269 722

Where a stage begins, its first block halves height and width and doubles the channels. What
goes round it has to follow: with shortcut="A" it is every other pixel, with channels of
zeros, and nothing to learn; with "B" a 1x1 convolution, which makes 272 474 for resnet20.

With preactivation=True, normalisation and ReLU come before each convolution, none after
the sum, and once before the average: what goes round is never changed but where a stage
begins. plain20 is resnet20 with nothing going round.

Lecture: lectures/15_architectures.ipynb.
Source: He, Zhang, Ren & Sun, CVPR 2016, section 4.2; preactivation: ECCV 2016, figure 4(e).
The keys are those of the usual code for CIFAR-10.
"""

from functools import partial
from typing import Any

import numpy as np

from course.layers import BatchNorm2d, Conv2d, Flatten, GlobalAvgPool2d, Linear, ReLU
from course.layers.base import Layer
from course.model import Residual, Sequential
from course.zoo.base import fresh, sees
from course.zoo.identity_shortcut import IdentityShortcut


@sees(3, 32, 32)
def cifar_resnet(
    depth: int,
    classes: int = 10,
    *,
    shortcut: str | None = "A",
    preactivation: bool = False,
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> Sequential:
    """Return the ResNet of so many layers with fresh weights for 3 x 32 x 32 images.

    Raises ValueError for a depth that is not 6n + 2, as 8, 14, 20, ..., and for another
    shortcut than "A", "B" and None.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth is {depth}; it must be 6n + 2: 8, 14, 20, ...")
    if shortcut not in ("A", "B", None):
        raise ValueError(f'shortcut is {shortcut!r}; it must be "A", "B" or None')
    new = fresh(rng, dtype)
    norm = partial(BatchNorm2d, dtype=new["dtype"])
    stages, C = {}, 16
    for k, F in enumerate((16, 32, 64), 1):
        blocks = []
        for _ in range((depth - 2) // 6):
            stride = 1 if C == F else 2
            body = (_before if preactivation else _after)(C, F, stride, new)
            blocks.append(_block(body, shortcut, preactivation, C, F, stride, new))
            C = F
        stages[f"layer{k}"] = Sequential(*blocks)
    conv1 = Conv2d(3, 16, 3, padding=1, bias=False, **new)
    head = {"avgpool": GlobalAvgPool2d(), "flatten": Flatten()}
    head["linear"] = Linear(C, classes, **new)
    if preactivation:
        return Sequential(conv1=conv1, **stages, bn=norm(C), relu=ReLU(), **head)
    return Sequential(conv1=conv1, bn1=norm(16), relu=ReLU(), **stages, **head)


@sees(3, 32, 32)
def resnet20(
    classes: int = 10,
    *,
    shortcut: str | None = "A",
    preactivation: bool = False,
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> Sequential:
    """Return ResNet-20 with fresh weights for 3 x 32 x 32 images.

    Raises ValueError for another shortcut than "A", "B" and None, which is plain20.
    """
    how = {"shortcut": shortcut, "preactivation": preactivation}
    return cifar_resnet(20, classes, **how, rng=rng, dtype=dtype)


@sees(3, 32, 32)
def resnet56(
    classes: int = 10,
    *,
    shortcut: str | None = "A",
    preactivation: bool = False,
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> Sequential:
    """Return ResNet-56 with fresh weights for 3 x 32 x 32 images.

    Raises ValueError for another shortcut than "A", "B" and None.
    """
    how = {"shortcut": shortcut, "preactivation": preactivation}
    return cifar_resnet(56, classes, **how, rng=rng, dtype=dtype)


@sees(3, 32, 32)
def plain20(
    classes: int = 10, *, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> Sequential:
    """Return ResNet-20 without shortcuts, with fresh weights for 3 x 32 x 32 images."""
    return cifar_resnet(20, classes, shortcut=None, rng=rng, dtype=dtype)


def _after(C: int, F: int, stride: int, new: dict[str, Any]) -> Sequential:
    """Return the body of a block in which normalisation comes after the convolutions."""
    return Sequential(
        conv1=Conv2d(C, F, 3, stride, 1, bias=False, **new),
        bn1=BatchNorm2d(F, dtype=new["dtype"]),
        relu=ReLU(),
        conv2=Conv2d(F, F, 3, 1, 1, bias=False, **new),
        bn2=BatchNorm2d(F, dtype=new["dtype"]),
    )


def _before(C: int, F: int, stride: int, new: dict[str, Any]) -> Sequential:
    """Return the body of a block in which it comes before them."""
    return Sequential(
        bn1=BatchNorm2d(C, dtype=new["dtype"]),
        relu1=ReLU(),
        conv1=Conv2d(C, F, 3, stride, 1, bias=False, **new),
        bn2=BatchNorm2d(F, dtype=new["dtype"]),
        relu2=ReLU(),
        conv2=Conv2d(F, F, 3, 1, 1, bias=False, **new),
    )


def _block(
    body: Sequential,
    shortcut: str | None,
    preactivation: bool,
    C: int,
    F: int,
    stride: int,
    new: dict[str, Any],
) -> Layer:
    """Return the body with what goes round it, if anything does."""
    after = None if preactivation else ReLU()
    if shortcut is None:
        return Sequential(**body.children, **({} if after is None else {"after": after}))
    if stride == 1:
        return Residual(body, after=after)
    if shortcut == "A":
        return Residual(body, IdentityShortcut(F, stride), after)
    convolution = Conv2d(C, F, 1, stride, bias=False, **new)
    return Residual(
        body, Sequential(convolution, BatchNorm2d(F, dtype=new["dtype"])), after
    )
