"""course/layers/relu.py: (1) against NumPy, (2) against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import ReLU, relu_backward, relu_forward

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@DTYPES
def test_forward_cuts_at_zero(dtype, rng):
    x = rng.normal(size=(3, 5)).astype(dtype)
    np.testing.assert_array_equal(relu_forward(x), np.maximum(x, 0))


def test_backward_is_the_slope(rng):
    check_layer(ReLU(), rng.normal(size=(3, 5)), rng)


@DTYPES
def test_gradient_at_zero_is_zero(dtype):
    x = np.array([0.0, -0.0, 1e-40, -1e-40, 3.0], dtype)
    dx = relu_backward(np.full(5, 7, dtype), x)
    np.testing.assert_array_equal(dx, [0, 0, 7, 0, 7])


@DTYPES
def test_nan_stays_and_infinity_is_cut_below(dtype):
    y = relu_forward(np.array([np.nan, np.inf, -np.inf], dtype))
    np.testing.assert_array_equal(y, [np.nan, np.inf, 0])
