"""Every row of tests/layers/every.py on the GPU, or in the simulator."""

import numpy as np
import pytest

from course.cuda import native
from course.layers import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    GlobalAvgPool2d,
    LayerNorm,
    Linear,
    MaxPool2d,
    ReLU,
    Softmax,
)
from tests.cuda.every import RUNS, close, every_layer, every_place, on_cuda, run_on_cuda
from tests.layers.every import distinct, each, name, new, several


def expected(make, x, dy):
    """Return what the CPU answers in float64: y, dx, gradients and buffers."""
    layer = new(make, np.float64)
    y = layer.forward(each(np.float64, x))
    dx = several(layer.backward(np.float64(dy)))
    buffers = [a for a in layer.buffers.values() if a.ndim]
    return [y, *dx, *(layer.grads[key] for key in layer.params), *buffers]


@every_place
@every_layer
def test_layer_is_the_same_on_cuda(place, make, shape, rng):
    x = distinct(shape, rng, np.float32)
    size = new(make, np.float32).forward(x).shape
    dy = rng.normal(size=size).astype(np.float32)
    found = on_cuda(place, lambda: run_on_cuda(make, x, dy))
    assert {a.dtype for a in found} == {np.dtype(np.float32)}
    close(found, expected(make, x, dy))


FULL = [  # what a student trains with
    (lambda **new: Conv2d(3, 64, 7, 2, 3, **new), (32, 3, 224, 224)),
    (lambda **new: Conv2d(64, 64, 3, padding=1, **new), (32, 64, 56, 56)),
    (lambda **new: Conv2d(256, 128, 1, 2, **new), (32, 256, 56, 56)),
    (lambda **new: Conv2d(6, 16, 5, **new), (256, 6, 14, 14)),
    (lambda **new: Conv2d(128, 128, 3, padding=1, groups=128, **new), (32, 128, 28, 28)),
    (lambda **new: ConvTranspose2d(128, 64, 4, 2, 1, **new), (16, 128, 16, 16)),
    (lambda **new: Linear(4096, 1000, **new), (256, 4096)),
    (lambda **_: MaxPool2d(3, 2, 1), (32, 64, 112, 112)),
    (lambda **_: GlobalAvgPool2d(), (64, 512, 14, 14)),
    (lambda **_: ReLU(), (64, 64, 112, 112)),
    (lambda **_: Softmax(), (1024, 1000)),
    (lambda **new: BatchNorm2d(64, dtype=new["dtype"]), (64, 64, 56, 56)),
    (lambda **new: LayerNorm(768, dtype=new["dtype"]), (4096, 768)),
    (lambda **new: Dropout(0.5, rng=new["rng"]), (4096, 4096)),
]


@pytest.mark.gpu
@pytest.mark.skipif(bool(native.why_not()), reason=native.why_not() or "-")
@pytest.mark.parametrize("make, shape", [pytest.param(*f, id=name(f)) for f in FULL])
def test_full_size_is_the_same_on_a_gpu(make, shape, rng):
    x = rng.normal(size=shape).astype(np.float32)
    size = new(make, np.float32).forward(x).shape
    dy = rng.normal(size=size).astype(np.float32)
    found = on_cuda("gpu", lambda: run_on_cuda(make, x, dy))
    close(found, expected(make, x, dy), tolerance=2e-5)  # sums of 100 000 numbers


@every_place
@every_layer
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_go_where_they_go_on_the_cpu(place, make, shape, wrong, rng):
    x = distinct(shape, rng, np.float32)
    arrays = each(np.copy, x)
    several(arrays)[0].flat[3] = wrong
    layer = new(make, np.float32)
    with np.errstate(all="ignore"):
        y = layer.forward(arrays)
        dy = rng.normal(size=y.shape).astype(np.float32)
        dx = several(layer.backward(dy))
        cpu = [y, *dx, *(layer.grads[key] for key in layer.params)]
        found = on_cuda(place, lambda: run_on_cuda(make, arrays, dy), RUNS[:1])
    for k, (a, b) in enumerate(zip(found[: len(cpu)], cpu, strict=True)):
        if isinstance(layer, ConvTranspose2d) and k == 2:  # dw: there it meets a frame of 0
            b = np.where(np.isnan(b), a, b)
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), f"answer {k}")
        np.testing.assert_array_equal(np.isposinf(a), np.isposinf(b), f"answer {k}")
        np.testing.assert_array_equal(np.isneginf(a), np.isneginf(b), f"answer {k}")


@every_place
@every_layer
def test_empty_batch_on_cuda(place, make, shape, rng):
    x = each(lambda a: a[:0], distinct(shape, rng, np.float32))
    dy = np.empty(new(make, np.float32).forward(x).shape, np.float32)
    found = on_cuda(place, lambda: run_on_cuda(make, x, dy), RUNS[:1])
    assert len(found[0]) == 0
