"""course/layers/elu.py: (1) against NumPy, (2) against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import ELU, elu_backward, elu_forward

DTYPES = pytest.mark.parametrize(
    "dtype, tolerance", [(np.float32, 1e-6), (np.float64, 1e-15)]
)
ALPHAS = pytest.mark.parametrize("alpha", [1.0, 0.3, 2.0, 0.0])


@DTYPES
@ALPHAS
def test_forward_is_the_definition(dtype, tolerance, alpha, rng):
    x = rng.normal(scale=3, size=(5, 7)).astype(dtype)
    y = elu_forward(x, alpha)
    assert y.dtype == dtype
    exact = x.astype(float)
    expected = np.where(x > 0, exact, alpha * (np.exp(exact) - 1))
    np.testing.assert_allclose(y, expected, tolerance, tolerance)


@ALPHAS
def test_backward_is_the_slope(alpha, rng):
    check_layer(ELU(alpha), rng.normal(size=(3, 5)), rng)


@DTYPES
def test_a_small_x_keeps_its_digits(dtype, tolerance):
    """exp(x) - 1 would have none left: exp(1e-20) is 1."""
    x = -np.logspace(-30, -5, 26).astype(dtype)
    np.testing.assert_allclose(elu_forward(x), np.expm1(x.astype(float)), tolerance)


@DTYPES
def test_far_below_zero_it_is_flat(dtype, tolerance):
    x = np.array([-1000, -np.inf, 1000, np.inf, np.nan], dtype)
    y = elu_forward(x, 2.0)
    np.testing.assert_array_equal(y, [-2, -2, 1000, np.inf, np.nan])
    dx = elu_backward(np.ones_like(x), x, 2.0)
    np.testing.assert_array_equal(dx[:4], [0, 0, 1, 1])
    assert y.dtype == dx.dtype == dtype


@DTYPES
def test_gradient_at_zero_is_alpha(dtype, tolerance):
    x = np.zeros(1, dtype)
    assert elu_backward(np.full(1, 8, dtype), x, 0.25) == 2


@pytest.mark.parametrize(
    "alpha, error, says",
    [
        ("1", TypeError, "alpha must be a number, not '1'"),
        (None, TypeError, "alpha must be a number, not None"),
        (1j, TypeError, "alpha must be a number, not 1j"),
        (np.nan, ValueError, "alpha must be finite, not nan"),
    ],
)
def test_impossible_alpha_is_refused(alpha, error, says):
    x = np.ones(2)
    for refuse in (
        lambda: ELU(alpha),
        lambda: elu_forward(x, alpha),
        lambda: elu_backward(x, x, alpha),
    ):
        with pytest.raises(error, match=says):
            refuse()
