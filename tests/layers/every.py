"""Every layer of the course, on every shape that could matter: add rows for yours.

tests/layers/test_every_layer.py and tests/test_device.py run each row: slopes, float32,
threads, memory layouts, samples one by one, NaN and infinity.
"""

import inspect
from math import prod

import numpy as np
import pytest

import course.layers
from course.layers import (
    ELU,
    GELU,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Concat,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Dropout2d,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    GroupNorm,
    InstanceNorm2d,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocallyConnected2d,
    LocalResponseNorm,
    LogSoftmax,
    LPPool2d,
    Maxout,
    MaxPool2d,
    PReLU,
    ReLU,
    Reshape,
    ResidualSum,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Subsampling2d,
    Tanh,
    Upsample,
    ZeroPad2d,
)
from tests.test_house import NO_LOOPS

IMAGES, ROWS = (3, 4, 7, 6), (5, 12)
WIDE = 3, 1, 5, 35  # a row of windows of two pixels fills a vector of any machine
ODD = (1, 2), (0, 1)  # padding: top and bottom, left and right

# How to make it (new has rng and dtype), and the shape of an x that suits it; a tuple of
# shapes for a layer of several inputs.
LAYERS = [
    (lambda **new: Conv2d(4, 6, (3, 2), padding=1, groups=2, **new), IMAGES),
    (lambda **new: Conv2d(4, 3, 3, stride=2, padding="same", **new), IMAGES),
    (lambda **new: Conv2d(4, 5, 1, **new), IMAGES),
    (lambda **new: Conv2d(4, 8, 3, groups=4, padding=ODD, bias=False, **new), IMAGES),
    (lambda **new: Conv2d(4, 2, (2, 3), (2, 1), ODD, (3, 2), **new), IMAGES),
    (lambda **new: Conv2d(17, 19, 3, padding=1, **new), (2, 17, 5, 3)),
    (lambda **new: Linear(12, 5, **new), ROWS),
    (lambda **new: Linear(33, 17, bias=False, **new), (3, 33)),
    (lambda **_: MaxPool2d(2), IMAGES),
    (lambda **_: MaxPool2d(3, 2, 1), IMAGES),
    (lambda **_: MaxPool2d((2, 3), 2, ((1, 0), (0, 1)), ceil_mode=True), IMAGES),
    (lambda **_: MaxPool2d(2, 1, "same", dilation=(1, 2)), IMAGES),
    (lambda **_: MaxPool2d(2), WIDE),
    (lambda **_: MaxPool2d(3, 2, 1), WIDE),
    (lambda **_: AvgPool2d(2), IMAGES),
    (lambda **_: AvgPool2d(2), WIDE),
    (lambda **_: AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=True), IMAGES),
    (lambda **_: AvgPool2d((2, 3), (1, 2), ((1, 0), (0, 1))), IMAGES),
    (lambda **_: GlobalAvgPool2d(), IMAGES),
    (lambda **_: GlobalMaxPool2d(), IMAGES),
    (lambda **_: LPPool2d(2, 2), IMAGES),
    (lambda **_: LPPool2d(2, 2), WIDE),
    (lambda **_: LPPool2d(2, 3, 2, ceil_mode=True, padding="same"), IMAGES),
    (lambda **_: LPPool2d(2, 2, 1, padding=((0, 1), (0, 0)), dilation=(2, 1)), IMAGES),
    (lambda **new: Subsampling2d(4, dtype=new["dtype"]), IMAGES),
    (lambda **new: Subsampling2d(4, (3, 2), dtype=new["dtype"]), IMAGES),
    (lambda **_: ReLU(), IMAGES),
    (lambda **_: LeakyReLU(), IMAGES),
    (lambda **_: ELU(), IMAGES),
    (lambda **_: Sigmoid(), IMAGES),
    (lambda **_: Tanh(), IMAGES),
    (lambda **_: Flatten(), IMAGES),
    (lambda **new: PReLU(4, dtype=new["dtype"]), IMAGES),
    (lambda **new: PReLU(dtype=new["dtype"]), IMAGES),
    (lambda **new: PReLU(12, dtype=new["dtype"]), ROWS),
    (lambda **_: Maxout(2), IMAGES),
    (lambda **_: Maxout(3), ROWS),
    (lambda **_: GELU(), IMAGES),
    (lambda **_: GELU(approximate="tanh"), IMAGES),
    (lambda **_: SiLU(), IMAGES),
    (lambda **_: Softplus(), IMAGES),
    (lambda **_: Softplus(beta=2, threshold=3), IMAGES),
    (lambda **_: Softmax(), IMAGES),
    (lambda **_: Softmax(-1), ROWS),
    (lambda **_: LogSoftmax(), ROWS),
    (lambda **_: LogSoftmax(2), IMAGES),
    (lambda **new: Dropout(0.4, rng=new["rng"]), IMAGES),
    (lambda **new: Dropout(0.4, rng=new["rng"]).eval(), IMAGES),
    (lambda **new: Dropout2d(rng=new["rng"]), IMAGES),
    (lambda **new: Conv1d(4, 6, 3, padding="same", dilation=2, **new), (3, 4, 9)),
    (lambda **new: Conv1d(4, 6, 2, 3, (2, 1), groups=2, **new), (3, 4, 10)),
    (lambda **new: ConvTranspose2d(4, 6, (3, 2), 2, 1, 1, 2, **new), IMAGES),
    (lambda **new: ConvTranspose2d(4, 3, 3, (1, 3), ODD, dilation=2, **new), IMAGES),
    (lambda **new: LocallyConnected2d(4, 5, (7, 6), (3, 2), 2, ODD, **new), IMAGES),
    (lambda **_: Upsample(2), IMAGES),
    (lambda **_: Upsample(2), WIDE),
    (lambda **_: Upsample((1.7, 0.6)), IMAGES),
    (lambda **_: Upsample((2.5, 3), "bilinear"), IMAGES),
    (lambda **_: Upsample(2, "bilinear", align_corners=True), IMAGES),
    (lambda **_: Reshape(6, -1), IMAGES),
    (lambda **_: Reshape(3, 2, 2), ROWS),
    (lambda **_: ZeroPad2d(ODD), IMAGES),
    (lambda **_: Concat(), (IMAGES, (3, 2, 7, 6), (3, 1, 7, 6))),
    (lambda **_: Concat(2), (IMAGES, IMAGES)),
    (lambda **_: ResidualSum(), (IMAGES, IMAGES)),
    (lambda **new: BatchNorm2d(4, dtype=new["dtype"]), IMAGES),
    (lambda **new: BatchNorm2d(4, dtype=new["dtype"]).eval(), IMAGES),
    (lambda **new: BatchNorm2d(4, affine=False, dtype=new["dtype"]), IMAGES),
    (lambda **new: BatchNorm1d(12, dtype=new["dtype"]), (6, 12)),
    (lambda **new: BatchNorm1d(4, dtype=new["dtype"]), (3, 4, 5)),
    (lambda **new: LayerNorm((7, 6), dtype=new["dtype"]), IMAGES),
    (lambda **new: LayerNorm(12, dtype=new["dtype"]), ROWS),
    (lambda **new: GroupNorm(2, 4, dtype=new["dtype"]), IMAGES),
    (lambda **new: GroupNorm(3, 12, dtype=new["dtype"]), ROWS),
    (lambda **new: InstanceNorm2d(4, affine=True, dtype=new["dtype"]), IMAGES),
    (lambda **_: InstanceNorm2d(4), IMAGES),
    (lambda **_: LocalResponseNorm(3, alpha=0.5), IMAGES),
    (lambda **_: LocalResponseNorm(2, alpha=0.5, beta=0.5, k=2), IMAGES),
]


def name(entry):
    """Return the name of the layer that an entry makes."""
    return type(entry[0](rng=np.random.default_rng(0), dtype=np.float32)).__name__


every_layer = pytest.mark.parametrize(
    "make, shape", [pytest.param(*entry, id=name(entry)) for entry in LAYERS]
)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def classes():
    """Return the name of every layer that course.layers exports."""
    return {
        name
        for name, value in vars(course.layers).items()
        if inspect.isclass(value) and issubclass(value, Layer) and value is not Layer
    }


def without_loops(layer):
    """Say whether the layer only renames axes and moves numbers."""
    return type(layer).__module__.rpartition(".")[2] in NO_LOOPS


def new(make, dtype=np.float64):
    """Return a layer with parameters drawn at random, so that no bias is 0.

    They are rounded to float32, and so the same in both types.
    """
    rng = np.random.default_rng(1)
    layer = make(rng=rng, dtype=dtype)
    for key, value in layer.params.items():
        layer.params[key] = rng.normal(size=value.shape).astype(np.float32).astype(dtype)
    return layer


def each(change, x):
    """Return change(x), or of several arrays the changed ones."""
    return tuple(map(change, x)) if isinstance(x, tuple) else change(x)


def several(x):
    """Return the arrays of which x consists: one, or those of a tuple."""
    return x if isinstance(x, tuple) else (x,)


def distinct(shape, rng, dtype=np.float64):
    """Return numbers from -2 to 2, no two alike, none near 0: no small step meets a kink.

    They are rounded to float32, and so the same in both types.
    """
    if isinstance(shape[0], tuple):
        return tuple(distinct(one, rng, dtype) for one in shape)
    count = prod(shape)
    numbers = (rng.permutation(count) + 0.25) * 3.8 / max(count, 1) - 1.9
    numbers += np.copysign(0.1, numbers)
    return numbers.reshape(shape).astype(np.float32).astype(dtype)


def run(make, x, dy=None):
    """Return y, dx and the gradients of a new layer, and the dy that was sent back."""
    layer = new(make, several(x)[0].dtype)
    y = layer.forward(x)
    if dy is None:
        dy = np.random.default_rng(2).normal(size=y.shape).astype(np.float32)
        dy = dy.astype(y.dtype)
    dx = several(layer.backward(dy))
    return [y, *dx, *(layer.grads[key] for key in layer.params)], dy
