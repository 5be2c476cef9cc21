"""ResNet-8, the image classifier of the MLPerf Tiny benchmark for microcontrollers.

Layers of resnet8, for images of 3 x 32 x 32, and how many numbers each learns

    conv1      conv 3x3, 16 filters      16 x 32 x 32       448
    bn1        batch normalisation       16 x 32 x 32        32
    layer1     block                     16 x 32 x 32     4 704
    layer2     block, stride 2           32 x 16 x 16    14 560
    layer3     block, stride 2           64 x 8 x 8      57 792
    avgpool    global average            64 x 1 x 1
    linear     linear 64 -> 10           10                 650
                                                         78 186

It is Keras's: padding is "same", which at stride 2 is one row below and one column to the
right; convolutions have biases although batch normalisation follows; its eps is 1e-3. What
goes round the blocks with stride 2 is a 1x1 convolution without normalisation. It takes
pixels as they are, 0 to 255. `course.zoo.load_keras` brings the trained weights into it.

Lecture: lectures/15_architectures.ipynb.
Source: Banbury et al., "MLPerf Tiny Benchmark", NeurIPS 2021, image classification.
"""

from typing import Any

import numpy as np

from course.layers import BatchNorm2d, Conv2d, Flatten, GlobalAvgPool2d, Linear, ReLU
from course.model import Residual, Sequential
from course.zoo.base import fresh, sees


@sees(3, 32, 32)
def resnet8(
    classes: int = 10, *, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> Sequential:
    """Return ResNet-8 with fresh weights for 3 x 32 x 32 images with pixels 0 to 255."""
    new = fresh(rng, dtype)
    return Sequential(
        conv1=_convolution(3, 16, 3, 1, new),
        bn1=_norm(16, new),
        relu=ReLU(),
        layer1=_block(16, 16, 1, new),
        layer2=_block(16, 32, 2, new),
        layer3=_block(32, 64, 2, new),
        avgpool=GlobalAvgPool2d(),
        flatten=Flatten(),
        linear=Linear(64, classes, **new),
    )


def _convolution(C: int, F: int, kernel: int, stride: int, new: dict[str, Any]) -> Conv2d:
    """Return a convolution with Keras's padding."""
    return Conv2d(C, F, kernel, stride, "same", **new)


def _norm(C: int, new: dict[str, Any]) -> BatchNorm2d:
    """Return a batch normalisation with Keras's constants; its momentum 0.99 is 0.01."""
    return BatchNorm2d(C, eps=1e-3, momentum=0.01, dtype=new["dtype"])


def _block(C: int, F: int, stride: int, new: dict[str, Any]) -> Residual:
    """Return two convolutions and what goes round them."""
    body = Sequential(
        conv1=_convolution(C, F, 3, stride, new),
        bn1=_norm(F, new),
        relu=ReLU(),
        conv2=_convolution(F, F, 3, 1, new),
        bn2=_norm(F, new),
    )
    round_it = None if stride == 1 else _convolution(C, F, 1, stride, new)
    return Residual(body, round_it, ReLU())
