"""course/layers/sigmoid.py: (1) against NumPy and SciPy, (2) against slopes."""

import numpy as np
import pytest
from scipy.special import expit

from course.checks import check_layer
from course.layers import Sigmoid, sigmoid_backward, sigmoid_forward

DTYPES = pytest.mark.parametrize(
    "dtype, tolerance", [(np.float32, 5e-7), (np.float64, 1e-15)]
)


@DTYPES
def test_forward_is_the_definition(dtype, tolerance, rng):
    x = rng.normal(scale=3, size=(5, 7)).astype(dtype)
    y = sigmoid_forward(x)
    assert y.dtype == dtype
    expected = 1 / (1 + np.exp(-x.astype(float)))
    np.testing.assert_allclose(y, expected, tolerance, 0)


def test_backward_is_the_slope(rng):
    check_layer(Sigmoid(), rng.normal(size=(3, 5)), rng)


@DTYPES
def test_very_negative_keeps_its_digits(dtype, tolerance):
    """1 - sigmoid(-x) would have none left from -17 on."""
    x = -np.arange(0, 87, 0.5).astype(dtype)
    np.testing.assert_allclose(sigmoid_forward(x), expit(x.astype(float)), tolerance, 0)


@pytest.mark.parametrize("dtype, x", [(np.float32, -95), (np.float64, -720)])
def test_down_to_the_smallest_numbers_there_are(dtype, x):
    """1 / (1 + exp(-x)) gives 0 here, for exp(-x) has overflowed."""
    y = sigmoid_forward(np.array([x], dtype))
    np.testing.assert_allclose(y, np.exp(float(x)), rtol=1e-4)


@DTYPES
def test_extremes(dtype, tolerance):
    x = np.array([-np.inf, -1000, 1000, np.inf, np.nan], dtype)
    y = sigmoid_forward(x)
    np.testing.assert_array_equal(y, [0, 0, 1, 1, np.nan])
    dx = sigmoid_backward(np.ones_like(y), y)
    np.testing.assert_array_equal(dx, [0, 0, 0, 0, np.nan])
    assert y.dtype == dx.dtype == dtype


@DTYPES
def test_sigmoid_of_minus_x_is_the_rest(dtype, tolerance, rng):
    x = rng.normal(size=50).astype(dtype)
    total = sigmoid_forward(x) + sigmoid_forward(-x)
    np.testing.assert_allclose(total, 1, 2 * tolerance)
