"""course/layers/silu.py: (1) against SciPy, (2) against slopes."""

import numpy as np
import pytest
from scipy.special import expit

from course.checks import check_layer
from course.layers import SiLU, silu_backward, silu_forward

DTYPES = pytest.mark.parametrize(
    "dtype, tolerance", [(np.float32, 5e-7), (np.float64, 1e-15)]
)


@DTYPES
def test_forward_is_the_definition(dtype, tolerance, rng):
    x = rng.normal(scale=5, size=(5, 7, 3)).astype(dtype)
    y = silu_forward(x)
    assert y.dtype == dtype
    exact = x.astype(float)
    np.testing.assert_allclose(y, exact * expit(exact), tolerance)


def test_backward_is_the_slope(rng):
    check_layer(SiLU(), rng.normal(scale=3, size=(3, 5)), rng)


@DTYPES
def test_backward_is_the_definition(dtype, tolerance, rng):
    x, dy = rng.normal(scale=5, size=(2, 50)).astype(dtype)
    exact = x.astype(float)
    slope = expit(exact) + exact * expit(exact) * expit(-exact)
    dx = silu_backward(dy, x)
    assert dx.dtype == dtype
    np.testing.assert_allclose(dx, dy * slope, 2 * tolerance, 4 * tolerance)


@DTYPES
def test_far_out_it_is_zero_or_the_identity(dtype, tolerance):
    most = np.finfo(dtype).max
    x = np.array([-most, -1e4, 0, 1e4, most], dtype)
    np.testing.assert_array_equal(silu_forward(x), [0, 0, 0, *x[3:]])
    np.testing.assert_array_equal(silu_backward(np.ones_like(x), x), [0, 0, 0.5, 1, 1])


@DTYPES
def test_what_is_not_finite(dtype, tolerance):
    x = np.array([-np.inf, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(silu_forward(x), [np.nan, np.inf, np.nan])
    assert np.isnan(silu_backward(np.ones_like(x), x)).all()


@DTYPES
def test_the_lowest_point(dtype, tolerance):
    """It lies at -1.278465 and is -0.278465: y = -1 - x there, and the slope is 0."""
    x = np.array([-1.2784645427610738], dtype)
    np.testing.assert_allclose(silu_forward(x), [-0.2784645427610738], tolerance)
    np.testing.assert_allclose(silu_backward(np.ones_like(x), x), 0, 0, tolerance)
