"""course/layers/global_maxpool2d.py: (1) against NumPy, (2) against slopes, and PyTorch."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import (
    GlobalMaxPool2d,
    global_maxpool2d_backward,
    global_maxpool2d_forward,
)
from course.layers.global_maxpool2d import _y_cpu

SHAPES = pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 4, 5), (1, 2, 1, 7), (2, 1, 7, 1), (1, 3, 17, 33)]
)


@SHAPES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [3, 1000])  # of grey: many ties, few ties
def test_forward_is_the_maximum_and_backward_moves(shape, dtype, levels, rng):
    x = rng.integers(-levels, levels, shape).astype(dtype)
    y, argmax = global_maxpool2d_forward(x)
    assert y.dtype == dtype and argmax.dtype == np.int32
    flat = x.reshape(*shape[:2], -1)
    np.testing.assert_array_equal(y[..., 0, 0], flat.max(axis=2))
    np.testing.assert_array_equal(argmax[..., 0, 0], flat.argmax(axis=2))
    dy = rng.normal(size=y.shape).astype(dtype)
    dx = global_maxpool2d_backward(dy, argmax, shape)
    assert dx.dtype == dtype
    expected = np.zeros(shape)
    for n, c in np.ndindex(shape[:2]):
        expected[n, c].flat[flat[n, c].argmax()] = dy[n, c, 0, 0]
    np.testing.assert_array_equal(dx, expected)


@SHAPES
def test_backward_is_the_slope(shape, rng):
    x = rng.permutation(np.prod(shape)).reshape(shape).astype(float)
    check_layer(GlobalMaxPool2d(), x, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", range(4))
def test_nan_wins(place, dtype):
    x = np.array([[[[np.inf, 1], [-np.inf, 2]]]], dtype)
    x.flat[place] = np.nan
    y, argmax = global_maxpool2d_forward(x)
    assert np.isnan(y).all() and argmax.item() == place


def test_first_nan_wins():
    x = np.array([1, np.nan, np.nan, 2, np.nan, 3]).reshape(1, 1, 2, 3)
    y, argmax = global_maxpool2d_forward(x)
    assert np.isnan(y).all() and argmax.item() == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fast_loops_see_what_the_plain_ones_see(dtype, rng):
    """Zeros of both signs, infinities, and NaN in some planes and not in others."""
    values = np.array([0.0, -0.0, 1, np.inf, -np.inf], dtype)
    for size in (32, 33, 47, 64, 100, 225):
        x = rng.choice(values, (90, size))
        x[rng.random((90, size)) < 1 / size] = np.nan
        x[:9] = np.where(rng.random((9, size)) < 0.5, -np.inf, np.nan)
        x[9] = -np.inf
        y, argmax = global_maxpool2d_forward(x.reshape(90, 1, 1, size))
        expected_y, expected_argmax = np.empty(90, dtype), np.empty(90, np.int32)
        _y_cpu(expected_y, expected_argmax, x, 0, 90)
        np.testing.assert_array_equal(y.reshape(-1), expected_y)
        np.testing.assert_array_equal(np.signbit(y.reshape(-1)), np.signbit(expected_y))
        np.testing.assert_array_equal(argmax.reshape(-1), expected_argmax)


def test_minus_infinity_can_be_the_maximum():
    y, argmax = global_maxpool2d_forward(np.full((1, 1, 2, 2), -np.inf))
    assert y.item() == -np.inf and argmax.item() == 0


def test_pytorch_computes_the_same(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = rng.normal(size=(2, 3, 6, 7))
    leaf = torch.tensor(x, requires_grad=True)
    expected, places = torch.nn.AdaptiveMaxPool2d(1, return_indices=True)(leaf)
    y, argmax = global_maxpool2d_forward(x)
    np.testing.assert_array_equal(y, expected.detach())
    np.testing.assert_array_equal(argmax, places)
    dy = rng.normal(size=expected.shape)
    (expected_dx,) = torch.autograd.grad(expected, leaf, torch.from_numpy(dy))
    dx = global_maxpool2d_backward(dy, argmax, x.shape)
    np.testing.assert_array_equal(dx, expected_dx)


def test_empty_batch():
    y, argmax = global_maxpool2d_forward(np.empty((0, 2, 3, 3)))
    assert y.shape == argmax.shape == (0, 2, 1, 1)
    assert global_maxpool2d_backward(y, argmax, (0, 2, 3, 3)).shape == (0, 2, 3, 3)


X, Y, PLACES = np.zeros((1, 2, 3, 4)), np.zeros((1, 2, 1, 1)), np.zeros((1, 2, 1, 1), int)


@pytest.mark.parametrize(
    "x, error, says",
    [
        (X[0], ValueError, r"x has shape \(2, 3, 4\); it must be \(N, C, H, W\)"),
        (X.astype(int), TypeError, "x has dtype int64"),
        (X[..., :0], ValueError, "x is .1, 2, 3, 0.: its images have no pixels"),
    ],
)
def test_what_cannot_be_is_refused(x, error, says):
    with pytest.raises(error, match=says):
        global_maxpool2d_forward(x)


@pytest.mark.parametrize(
    "dy, argmax, input_shape, error, says",
    [
        (Y, PLACES, (1, 3, 3, 4), ValueError, "dy has shape .* y for this input_shape"),
        (Y, PLACES, (2, 3, 4), ValueError, r"input_shape is \(2, 3, 4\); it must be"),
        (Y, PLACES, (1, 2, 3, 0), ValueError, "input_shape is .*: its images have no pix"),
        (Y, PLACES[0], X.shape, ValueError, "argmax has shape"),
        (
            Y,
            PLACES + 12,
            X.shape,
            ValueError,
            "argmax names pixel 12, but a plane of 3 x 4",
        ),
        (Y, PLACES - 1, X.shape, ValueError, "argmax names pixel -1, but a plane of 3 x 4"),
        (
            Y,
            Y,
            X.shape,
            TypeError,
            "argmax must be the int32 array of forward, not float64",
        ),
        (Y.astype(int), PLACES, X.shape, TypeError, "dy has dtype int64"),
    ],
)
def test_backward_refuses_what_does_not_belong_together(
    dy, argmax, input_shape, error, says
):
    with pytest.raises(error, match=says):
        global_maxpool2d_backward(dy, argmax, input_shape)
