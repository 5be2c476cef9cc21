"""course/layers/softplus.py: (1) against NumPy, (2) against slopes."""

import numpy as np
import pytest
from scipy.special import expit

from course.checks import check_layer
from course.layers import Softplus, softplus_backward, softplus_forward

DTYPES = pytest.mark.parametrize(
    "dtype, tolerance", [(np.float32, 5e-7), (np.float64, 1e-15)]
)
BENDS = pytest.mark.parametrize(
    "beta, threshold", [(1, 20), (2.5, 20), (0.1, 3), (1, -5), (-2, 20)]
)


@DTYPES
@BENDS
def test_forward_is_the_definition(dtype, tolerance, beta, threshold, rng):
    x = rng.normal(scale=5, size=(5, 7, 3)).astype(dtype)
    y = softplus_forward(x, beta, threshold)
    assert y.dtype == dtype
    z = float(dtype(beta)) * x.astype(float)
    expected = np.where(z > threshold, x, np.logaddexp(0, z) / float(dtype(beta)))
    np.testing.assert_allclose(y, expected, 2 * tolerance)


@BENDS
def test_backward_is_the_slope(beta, threshold, rng):
    check_layer(Softplus(beta, threshold), rng.normal(scale=2, size=(3, 5)), rng)


@DTYPES
@BENDS
def test_backward_is_the_definition(dtype, tolerance, beta, threshold, rng):
    x, dy = rng.normal(scale=5, size=(2, 50)).astype(dtype)
    z = float(dtype(beta)) * x.astype(float)
    dx = softplus_backward(dy, x, beta, threshold)
    assert dx.dtype == dtype
    expected = dy * np.where(z > threshold, 1, expit(z))
    np.testing.assert_allclose(dx, expected, 8 * tolerance)


@DTYPES
def test_very_negative_keeps_its_digits(dtype, tolerance):
    """log(1 + e^x) would have none left where e^x is below half an ulp of 1."""
    x = -np.arange(0, 87, 0.5).astype(dtype)
    expected = np.log1p(np.exp(x.astype(float)))
    np.testing.assert_allclose(softplus_forward(x), expected, tolerance)


@DTYPES
def test_above_the_threshold_it_is_the_identity(dtype, tolerance):
    x = np.array([2.0, 2.5], dtype)
    y = softplus_forward(x, 1, 2)
    assert y[0] > 2.1 and y[1] == 2.5
    np.testing.assert_array_equal(softplus_backward(x, x, 1, 2)[1], 2.5)


@DTYPES
def test_extremes(dtype, tolerance):
    x = np.array([-np.inf, -1e4, 1e4, np.inf, np.nan], dtype)
    for threshold in (20, 1e9):
        y = softplus_forward(x, 1, threshold)
        np.testing.assert_array_equal(y, [0, 0, 1e4, np.inf, np.nan])
        dx = softplus_backward(np.ones_like(x), x, 1, threshold)
        np.testing.assert_array_equal(dx, [0, 0, 1, 1, np.nan])


@pytest.mark.parametrize(
    "bend, error, says",
    [
        ((0,), ValueError, "beta must not be 0: softplus divides by it"),
        (("1",), TypeError, "beta must be a number, not '1'"),
        ((np.nan,), ValueError, "beta must be finite, not nan"),
        ((1, np.inf), ValueError, "threshold must be finite, not inf"),
        ((1, None), TypeError, "threshold must be a number, not None"),
    ],
)
def test_impossible_bend_is_refused(bend, error, says):
    x = np.ones(2)
    for refuse in (
        lambda: Softplus(*bend),
        lambda: softplus_forward(x, *bend),
        lambda: softplus_backward(x, x, *bend),
    ):
        with pytest.raises(error, match=says):
            refuse()
