"""course/layers/gelu.py: (1) against SciPy, (2) against slopes."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from course.checks import check_layer
from course.layers import GELU, gelu_backward, gelu_forward

DTYPES = pytest.mark.parametrize(
    "dtype, tolerance", [(np.float32, 5e-7), (np.float64, 1e-15)]
)
APPROXIMATE = pytest.mark.parametrize("approximate", ["none", "tanh"])


def oracle(x, approximate):
    """Return y and its derivative in float64."""
    x = x.astype(float)
    if approximate == "none":
        return x * norm.cdf(x), norm.cdf(x) + x * norm.pdf(x)
    u = 0.7978845608028654 * (x + 0.044715 * x**3)
    du = 0.7978845608028654 * (1 + 0.134145 * x**2)
    return x * expit(2 * u), expit(2 * u) + x * 2 * du * expit(2 * u) * expit(-2 * u)


@APPROXIMATE
@DTYPES
def test_forward_is_the_definition(approximate, dtype, tolerance, rng):
    x = rng.normal(scale=2, size=(5, 7, 30)).astype(dtype)
    y = gelu_forward(x, approximate)
    assert y.dtype == dtype
    expected, _ = oracle(x, approximate)
    np.testing.assert_allclose(y, expected, 1e-12, 2 * tolerance)


@DTYPES
def test_negative_keeps_its_digits(dtype, tolerance):
    """(1 + erf(x / sqrt(2))) / 2 would have none left from about -6 on, in float32."""
    x = -np.arange(0, 12, 0.25).astype(dtype)
    expected, _ = oracle(x, "none")
    np.testing.assert_allclose(gelu_forward(x), expected, 50 * tolerance)


@APPROXIMATE
def test_backward_is_the_slope(approximate, rng):
    check_layer(GELU(approximate), rng.normal(scale=2, size=(3, 5)), rng)


@APPROXIMATE
@DTYPES
def test_backward_is_the_definition(approximate, dtype, tolerance, rng):
    x, dy = rng.normal(scale=2, size=(2, 50)).astype(dtype)
    dx = gelu_backward(dy, x, approximate)
    assert dx.dtype == dtype
    _, slope = oracle(x, approximate)
    np.testing.assert_allclose(dx, dy * slope, 1e-12, 8 * tolerance)


@APPROXIMATE
@DTYPES
def test_far_out_it_is_zero_or_the_identity(approximate, dtype, tolerance):
    most = np.finfo(dtype).max
    x = np.array([-most, -1e4, -50, 0, 50, 1e4, most], dtype)
    y = gelu_forward(x, approximate)
    np.testing.assert_array_equal(y, [0, 0, 0, 0, 50, 1e4, most])
    dx = gelu_backward(np.ones_like(x), x, approximate)
    np.testing.assert_array_equal(dx, [0, 0, 0, 0.5, 1, 1, 1])


@APPROXIMATE
@DTYPES
def test_what_is_not_finite(approximate, dtype, tolerance):
    x = np.array([-np.inf, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(gelu_forward(x, approximate), [np.nan, np.inf, np.nan])
    assert np.isnan(gelu_backward(np.ones_like(x), x, approximate)).all()


def test_the_approximation_is_near(rng):
    x = np.linspace(-6, 6, 1001)
    apart = np.abs(gelu_forward(x) - gelu_forward(x, "tanh"))
    assert 1e-4 < apart.max() < 5e-4  # the figure of the paper is drawn with both


@pytest.mark.parametrize("approximate", ["erf", None, True])
def test_unknown_approximation_is_refused(approximate):
    x = np.ones(2)
    for refuse in (
        lambda: GELU(approximate),
        lambda: gelu_forward(x, approximate),
        lambda: gelu_backward(x, x, approximate),
    ):
        with pytest.raises(ValueError, match='approximate must be "none" or "tanh", not'):
            refuse()
