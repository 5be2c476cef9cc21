"""course/layers/residual_sum.py: (1) number by number, (2) and (3) against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import ResidualSum, residual_sum_backward, residual_sum_forward

SHAPES = pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3), (2, 3, 4, 5)])


@SHAPES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_adds_and_backward_gives_to_both(shape, dtype, rng):
    a, b = np.asarray(rng.normal(size=(2, *shape)), dtype)
    a, b = np.asarray(a), np.asarray(b)
    y = residual_sum_forward(a, b)
    assert y.dtype == dtype and y.shape == shape
    for index in np.ndindex(shape):
        assert y[index] == a[index] + b[index]
    da, db = residual_sum_backward(y)
    np.testing.assert_array_equal(da, y)
    np.testing.assert_array_equal(db, y)


@SHAPES
def test_backward_is_the_slope(shape, rng):
    a, b = (np.asarray(rng.normal(size=shape)) for _ in range(2))
    check_layer(ResidualSum(), (a, b), rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinity_add_as_numbers_do(dtype):
    a = np.array([np.nan, np.inf, -np.inf, np.inf, 1e4, -1e4], dtype)
    b = np.array([1, 1, 1, -np.inf, 1e4, 1e4], dtype)
    y = residual_sum_forward(a, b)
    np.testing.assert_array_equal(y, [np.nan, np.inf, -np.inf, np.nan, 2e4, 0])


def test_x_may_be_added_to_itself(rng):
    x = rng.normal(size=(2, 3))
    np.testing.assert_array_equal(residual_sum_forward(x, x), 2 * x)


def test_a_list_will_do(rng):
    a, b = rng.normal(size=(2, 3, 4))
    layer = ResidualSum()
    np.testing.assert_array_equal(layer([a, b]), a + b)
    assert len(layer.backward(a)) == 2


X = np.zeros((2, 3))


@pytest.mark.parametrize(
    "refuse, error, says",
    [
        (
            lambda: residual_sum_forward(X, X[0]),
            ValueError,
            "b has shape .* the shape of a",
        ),
        (
            lambda: residual_sum_forward(X, X[:1]),
            ValueError,
            "b has shape .* the shape of a",
        ),
        (lambda: residual_sum_forward(X, np.float32(X)), TypeError, "b is float32 but"),
        (lambda: residual_sum_forward(X.astype(int), X), TypeError, "a has dtype int64"),
        (lambda: residual_sum_forward(1.0, X), TypeError, "a is a float"),
        (lambda: residual_sum_backward(X.astype(int)), TypeError, "dy has dtype int64"),
        (lambda: ResidualSum()(X), TypeError, r"a pair \(a, b\) of arrays, not a ndarray$"),
        (lambda: ResidualSum()((X, X, X)), TypeError, "not a tuple of 3"),
    ],
)
def test_what_cannot_be_is_refused(refuse, error, says):
    with pytest.raises(error, match=says):
        refuse()
