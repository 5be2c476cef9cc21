"""course/layers/tanh.py: (1) against NumPy, (2) against slopes."""

from fractions import Fraction

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import Tanh, tanh_backward, tanh_forward

DTYPES = pytest.mark.parametrize(
    "dtype, tolerance", [(np.float32, 5e-7), (np.float64, 1e-15)]
)


@DTYPES
def test_forward_is_the_definition(dtype, tolerance, rng):
    x = rng.normal(scale=2, size=(5, 7)).astype(dtype)
    y = tanh_forward(x)
    assert y.dtype == dtype
    grown = np.exp(2 * x.astype(float))
    expected = (grown - 1) / (grown + 1)
    np.testing.assert_allclose(y, expected, tolerance, tolerance)


def test_backward_is_the_slope(rng):
    check_layer(Tanh(), rng.normal(size=(3, 5)), rng)


@DTYPES
def test_a_small_x_keeps_its_digits(dtype, tolerance):
    x = np.logspace(-30, -8, 23).astype(dtype)
    np.testing.assert_allclose(tanh_forward(x), x, tolerance)


@DTYPES
def test_gradient_near_one_keeps_its_digits(dtype, tolerance):
    """(1 - y) * (1 + y) is exact where 1 - y*y has lost half its digits."""
    y = 1 - np.finfo(dtype).eps * np.arange(1, 20).astype(dtype)
    dx = tanh_backward(np.ones_like(y), y)
    exact = [float(1 - Fraction(float(value)) ** 2) for value in y]
    np.testing.assert_allclose(dx, exact, tolerance)


@DTYPES
def test_extremes(dtype, tolerance):
    x = np.array([-np.inf, -1000, 1000, np.inf, np.nan], dtype)
    y = tanh_forward(x)
    np.testing.assert_array_equal(y, [-1, -1, 1, 1, np.nan])
    dx = tanh_backward(np.ones_like(y), y)
    np.testing.assert_array_equal(dx, [0, 0, 0, 0, np.nan])
    assert y.dtype == dx.dtype == dtype
