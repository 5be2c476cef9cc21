"""course/layers/leaky_relu.py: (1) against NumPy, (2) against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import LeakyReLU, leaky_relu_backward, leaky_relu_forward

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SLOPES = pytest.mark.parametrize("slope", [0.01, 0.0, 1.0, 2.0, -0.5])


@DTYPES
@SLOPES
def test_forward_bends_at_zero(dtype, slope, rng):
    x = rng.normal(size=(3, 5)).astype(dtype)
    y = leaky_relu_forward(x, slope)
    assert y.dtype == dtype
    expected = np.maximum(x, 0) + dtype(slope) * np.minimum(x, 0)
    np.testing.assert_array_equal(y, expected)


@SLOPES
def test_backward_is_the_slope(slope, rng):
    check_layer(LeakyReLU(slope), rng.normal(size=(3, 5)), rng)


def test_default_slope_is_a_hundredth():
    assert leaky_relu_forward(np.array([-100.0])) == -1
    assert leaky_relu_backward(np.array([100.0]), np.array([-1.0])) == 1
    assert LeakyReLU()(np.array([-100.0])) == -1


@DTYPES
def test_gradient_at_zero_is_the_slope(dtype):
    x = np.array([0.0, -0.0, 1e-40, 3.0], dtype)
    dx = leaky_relu_backward(np.full(4, 8, dtype), x, 0.25)
    np.testing.assert_array_equal(dx, [2, 2, 8, 8])


@DTYPES
def test_nan_and_infinity_stay(dtype):
    x = np.array([np.nan, np.inf, -np.inf], dtype)
    np.testing.assert_array_equal(leaky_relu_forward(x, 0.5), x)


@pytest.mark.parametrize(
    "slope, error, says",
    [
        ("0.1", TypeError, "negative_slope must be a number, not '0.1'"),
        (None, TypeError, "negative_slope must be a number, not None"),
        (True, TypeError, "negative_slope must be a number, not True"),
        (np.ones(2), TypeError, "negative_slope must be a number, not array"),
        (np.nan, ValueError, "negative_slope must be finite, not nan"),
        (np.inf, ValueError, "negative_slope must be finite, not inf"),
    ],
)
def test_impossible_slope_is_refused(slope, error, says):
    x = np.ones(2)
    for refuse in (
        lambda: LeakyReLU(slope),
        lambda: leaky_relu_forward(x, slope),
        lambda: leaky_relu_backward(x, x, slope),
    ):
        with pytest.raises(error, match=says):
            refuse()
