"""course/layers/global_avgpool2d.py: (1) against NumPy, (2) against slopes, and PyTorch."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import (
    GlobalAvgPool2d,
    global_avgpool2d_backward,
    global_avgpool2d_forward,
)

SHAPES = pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 4, 5), (1, 2, 1, 7), (2, 1, 7, 1), (1, 3, 17, 33)]
)
DTYPES = pytest.mark.parametrize("dtype, close", [(np.float32, 2e-6), (np.float64, 1e-12)])


@SHAPES
@DTYPES
def test_forward_is_the_mean_and_backward_shares(shape, dtype, close, rng):
    x = rng.random(shape).astype(dtype)
    y = global_avgpool2d_forward(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, np.float64(x).mean(axis=(2, 3), keepdims=True), close)
    dx = global_avgpool2d_backward(y, shape)
    assert dx.dtype == dtype
    pixels = shape[2] * shape[3]
    np.testing.assert_allclose(dx, np.broadcast_to(np.float64(y) / pixels, shape), close)


@SHAPES
def test_backward_is_the_slope(shape, rng):
    check_layer(GlobalAvgPool2d(), rng.normal(size=shape), rng)


def test_a_large_image_keeps_its_digits(rng):
    """A million float32 pixels: one running sum would lose three more digits."""
    x = (1e4 * rng.random((1, 1, 1000, 1000))).astype(np.float32)
    y = global_avgpool2d_forward(x)
    np.testing.assert_allclose(y.item(), np.float64(x).mean(), 2e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_channel(value):
    x = np.ones((2, 2, 3, 3), np.float32)
    x[1, 0, 2, 2] = value
    y = global_avgpool2d_forward(x)
    np.testing.assert_array_equal(y[..., 0, 0], [[1, 1], [value, 1]])


def test_pytorch_computes_the_same(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = rng.normal(size=(2, 3, 6, 7))
    leaf = torch.tensor(x, requires_grad=True)
    expected = torch.nn.AdaptiveAvgPool2d(1)(leaf)
    np.testing.assert_allclose(global_avgpool2d_forward(x), expected.detach(), 1e-12)
    dy = rng.normal(size=expected.shape)
    (expected_dx,) = torch.autograd.grad(expected, leaf, torch.from_numpy(dy))
    np.testing.assert_allclose(global_avgpool2d_backward(dy, x.shape), expected_dx, 1e-12)


def test_empty_batch():
    y = global_avgpool2d_forward(np.empty((0, 2, 3, 3)))
    assert y.shape == (0, 2, 1, 1)
    assert global_avgpool2d_backward(y, (0, 2, 3, 3)).shape == (0, 2, 3, 3)


X, Y = np.zeros((1, 2, 3, 4)), np.zeros((1, 2, 1, 1))


@pytest.mark.parametrize(
    "x, error, says",
    [
        (X[0], ValueError, r"x has shape \(2, 3, 4\); it must be \(N, C, H, W\)"),
        (X.astype(int), TypeError, "x has dtype int64"),
        (X[:, :, :0], ValueError, "x is .1, 2, 0, 4.: its images have no pixels"),
    ],
)
def test_what_cannot_be_is_refused(x, error, says):
    with pytest.raises(error, match=says):
        global_avgpool2d_forward(x)


@pytest.mark.parametrize(
    "dy, input_shape, error, says",
    [
        (Y, (1, 3, 3, 4), ValueError, "dy has shape .* y for this input_shape"),
        (X, X.shape, ValueError, "dy has shape .* y for this input_shape"),
        (Y, (2, 3, 4), ValueError, r"input_shape is \(2, 3, 4\); it must be"),
        (Y, (1, 2, 3, 0), ValueError, "input_shape is .*: its images have no pixels"),
        (Y, (1, 2, 3.0, 4), TypeError, "input_shape must be a whole number"),
        (Y.astype(int), X.shape, TypeError, "dy has dtype int64"),
    ],
)
def test_backward_refuses_what_does_not_belong_together(dy, input_shape, error, says):
    with pytest.raises(error, match=says):
        global_avgpool2d_backward(dy, input_shape)
