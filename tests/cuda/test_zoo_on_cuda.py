"""The layers that only networks of the zoo have, on the GPU, or in the simulator."""

import numpy as np
import pytest

from course.zoo.identity_shortcut import (
    identity_shortcut_backward,
    identity_shortcut_forward,
)
from course.zoo.lenet5_1998 import ChosenConv2d, Distance, ScaledTanh
from tests.cuda.every import close, every_place, moved, on_cuda


@every_place
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (0, 3, 5, 4)])
@pytest.mark.parametrize("channels, stride", [(3, 1), (3, 2), (8, 2), (6, 3)])
def test_identity_shortcut_is_the_same_on_cuda(place, shape, channels, stride, rng):
    x = rng.normal(size=shape).astype(np.float32)
    x.flat[3:4] = np.nan
    y = identity_shortcut_forward(x, channels, stride)
    dy = rng.normal(size=y.shape).astype(np.float32)
    dx = identity_shortcut_backward(dy, shape, channels, stride)

    def both():
        forward = identity_shortcut_forward(moved(x), channels, stride)
        return forward, identity_shortcut_backward(moved(dy), shape, channels, stride)

    np.testing.assert_equal(on_cuda(place, both), (y, dx))


LAYERS = pytest.mark.parametrize(
    "make, shape",
    [
        (lambda **_: ScaledTanh(), (2, 3, 5)),
        (lambda **new: ChosenConv2d([[1, 0, 1], [0, 1, 0]], 3, **new), (2, 3, 5, 4)),
        (lambda **new: Distance([[1, -1, 1], [-1, -1, 1]], dtype=new["dtype"]), (5, 3)),
    ],
    ids=["ScaledTanh", "ChosenConv2d", "Distance"],
)


@every_place
@LAYERS
def test_layer_is_the_same_on_cuda(place, make, shape, rng):
    x = rng.normal(size=shape).astype(np.float32)
    layer = make(rng=np.random.default_rng(1), dtype=np.float64)
    y = layer.forward(np.float64(x))
    dy = rng.normal(size=y.shape).astype(np.float32)
    dx = layer.backward(np.float64(dy))

    def both():
        layer = make(rng=np.random.default_rng(1), dtype=np.float32).to("cuda")
        forward = layer.forward(moved(x))
        return [forward, layer.backward(moved(dy)), *layer.grads.values()]

    close(on_cuda(place, both), [y, dx, *layer.grads.values()])
