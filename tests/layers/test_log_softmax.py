"""course/layers/log_softmax.py: (1) against SciPy, (2) against slopes."""

import numpy as np
import pytest
from scipy import special

from course.checks import check_layer
from course.layers import LogSoftmax, log_softmax_backward, log_softmax_forward

DTYPES = pytest.mark.parametrize(
    "dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-12)]
)
GEOMETRY = pytest.mark.parametrize(
    "shape, dim",
    [
        ((5, 7), 1),
        ((5, 7), 0),
        ((5, 7), -1),
        ((5, 7), -2),
        ((3, 1), 1),
        ((1, 40), 1),
        ((2, 5, 3, 4), 1),
        ((2, 5, 3, 4), 3),
        ((2, 5, 3, 4), 0),
        ((6,), 0),
    ],
)


@GEOMETRY
@DTYPES
def test_forward_is_the_definition(shape, dim, dtype, tolerance, rng):
    x = rng.normal(scale=3, size=shape).astype(dtype)
    y = log_softmax_forward(x, dim)
    assert y.dtype == dtype
    expected = special.log_softmax(x.astype(float), dim)
    np.testing.assert_allclose(y, expected, tolerance, tolerance)


@GEOMETRY
def test_backward_is_the_slope(shape, dim, rng):
    check_layer(LogSoftmax(dim), rng.normal(size=shape), rng)


@GEOMETRY
@DTYPES
def test_backward_is_the_jacobian(shape, dim, dtype, tolerance, rng):
    """The Jacobian of a row is I - 1 softmax(x)^T."""
    y = special.log_softmax(rng.normal(size=shape), dim).astype(dtype)
    dy = rng.normal(size=shape).astype(dtype)
    dx = log_softmax_backward(dy, y, dim)
    assert dx.dtype == dtype
    rows = np.exp(np.moveaxis(y.astype(float), dim, -1))
    jacobian = np.eye(shape[dim]) - rows[..., None]
    expected = np.einsum("...kc,...c->...k", jacobian, np.moveaxis(dy, dim, -1))
    np.testing.assert_allclose(np.moveaxis(dx, dim, -1), expected, tolerance, 4 * tolerance)


@DTYPES
def test_large_scores_keep_their_difference(dtype, tolerance):
    """Softmax is 0 here, and its logarithm would be minus infinity."""
    x = np.array([[1e4, -1e4], [-1e4, -1e4], [1e4, 1e4]], dtype)
    expected = [[0, -2e4], [-np.log(2)] * 2, [-np.log(2)] * 2]
    np.testing.assert_allclose(log_softmax_forward(x), expected, tolerance)


@DTYPES
def test_a_constant_changes_nothing(dtype, tolerance, rng):
    x = rng.integers(-9, 9, (4, 20)).astype(dtype)  # whole numbers: exact sums
    np.testing.assert_array_equal(log_softmax_forward(x), log_softmax_forward(x - 8192))


@DTYPES
def test_what_is_not_finite(dtype, tolerance):
    nan, inf = np.nan, np.inf
    x = np.array([[0, -inf, 0], [0, inf, 0], [0, 1, nan], [-inf] * 3], dtype)
    half = -np.log(dtype(2))
    expected = [[half, -inf, half], [nan] * 3, [nan] * 3, [nan] * 3]
    np.testing.assert_allclose(log_softmax_forward(x), expected, tolerance)


def test_empty_batch():
    x = np.empty((0, 3))
    assert log_softmax_forward(x).shape == log_softmax_backward(x, x).shape == (0, 3)


X = np.zeros((2, 3))


@pytest.mark.parametrize(
    "x, dim, error, says",
    [
        (X, 2, ValueError, r"dim=2 is no axis of ., which has shape \(2, 3\)"),
        (X, -3, ValueError, "dim must be at least -2, not -3"),
        (X, 1.0, TypeError, "dim must be a whole number, not 1.0"),
        (X[:, :0], 1, ValueError, "there is nothing along dim=1"),
        (np.array(1.0), 0, ValueError, "dim=0 is no axis"),
        (X.astype(int), 1, TypeError, "has dtype int64"),
    ],
)
def test_what_cannot_be_is_refused(x, dim, error, says):
    with pytest.raises(error, match=says):
        log_softmax_forward(x, dim)
    with pytest.raises(error, match=says):
        log_softmax_backward(x, x, dim)


@pytest.mark.parametrize("dim", [1.5, None, "1"])
def test_impossible_layer_is_refused(dim):
    with pytest.raises(TypeError, match="dim must be a whole number"):
        LogSoftmax(dim)
