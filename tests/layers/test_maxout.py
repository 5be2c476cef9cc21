"""course/layers/maxout.py: (1) against NumPy, (2) against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import Maxout, maxout_backward, maxout_forward

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
GEOMETRY = pytest.mark.parametrize(
    "shape, pieces",
    [
        ((3, 12), 1),
        ((3, 12), 2),
        ((3, 12), 12),
        ((1, 1), 1),
        ((2, 6, 4, 5), 3),
        ((2, 4, 1, 1), 2),
        ((2, 4, 3), 2),
        ((2, 4, 2, 3, 2), 2),
    ],
)


def oracle(x, pieces):
    """Equation (1) in NumPy, and where the maximum was."""
    groups = x.reshape(len(x), -1, pieces, *x.shape[2:])
    return groups.max(axis=2), groups.argmax(axis=2)


@GEOMETRY
@DTYPES
@pytest.mark.parametrize("levels", [3, 1000])  # many ties, few ties
def test_forward_is_the_maximum(shape, pieces, dtype, levels, rng):
    x = rng.integers(-levels, levels, shape).astype(dtype)
    y, argmax = maxout_forward(x, pieces)
    assert y.dtype == dtype and argmax.dtype == np.int32
    expected_y, expected_argmax = oracle(x, pieces)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(argmax, expected_argmax)


@GEOMETRY
def test_backward_is_the_slope(shape, pieces, rng):
    x = rng.permutation(np.prod(shape)).reshape(shape).astype(float)
    check_layer(Maxout(pieces), x, rng)


@GEOMETRY
@DTYPES
def test_backward_moves_the_gradient(shape, pieces, dtype, rng):
    x = rng.integers(-2, 3, shape).astype(dtype)
    expected_y, places = oracle(x, pieces)
    dy = rng.normal(size=expected_y.shape).astype(dtype)
    dx = maxout_backward(dy, maxout_forward(x, pieces)[1], pieces)
    expected = np.zeros(shape)
    for (n, o, *pixel), j in np.ndenumerate(places):
        expected[(n, o * pieces + j, *pixel)] = dy[(n, o, *pixel)]
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx, expected)


def test_first_of_equal_features_wins():
    _, argmax = maxout_forward(np.ones((1, 6)), 3)
    np.testing.assert_array_equal(argmax, [[0, 0]])


@DTYPES
@pytest.mark.parametrize("place", range(3))
def test_nan_wins_and_the_first_of_them(dtype, place):
    x = np.array([[np.inf, 1, -np.inf]], dtype)
    x[0, place:] = np.nan
    y, argmax = maxout_forward(x, 3)
    assert np.isnan(y).all()
    assert argmax.item() == place
    x[0, place + 1 :] = np.inf
    y, argmax = maxout_forward(x, 3)
    assert np.isnan(y).all()
    assert argmax.item() == place


@DTYPES
def test_infinities(dtype):
    x = np.array([[-np.inf, -np.inf, -1e4, np.inf, 1e4, -np.inf]], dtype)
    y, argmax = maxout_forward(x, 2)
    np.testing.assert_array_equal(y, [[-np.inf, np.inf, 1e4]])
    np.testing.assert_array_equal(argmax, [[0, 1, 0]])


def test_empty():
    for shape in ((0, 4), (0, 4, 2), (2, 4, 0), (2, 0)):
        x = np.empty(shape)
        y, argmax = maxout_forward(x, 2)
        assert y.shape == argmax.shape == (shape[0], shape[1] // 2, *shape[2:])
        assert maxout_backward(y, argmax, 2).shape == shape


X = np.zeros((2, 6, 3))


@pytest.mark.parametrize(
    "x, pieces, error, says",
    [
        (X, 4, ValueError, r"x has shape \(2, 6, 3\); .* multiple of pieces=4 features"),
        (X[0, 0], 3, ValueError, r"x has shape \(3,\); it must be \(N, features, ...\)"),
        (X, 0, ValueError, "pieces must be at least 1, not 0"),
        (X, 2.0, TypeError, "pieces must be a whole number, not 2.0"),
        (X.astype(int), 2, TypeError, "x has dtype int64"),
    ],
)
def test_what_cannot_be_is_refused(x, pieces, error, says):
    with pytest.raises(error, match=says):
        maxout_forward(x, pieces)


Y, PLACES = np.zeros((2, 3)), np.zeros((2, 3), np.int32)


@pytest.mark.parametrize(
    "dy, argmax, pieces, error, says",
    [
        (Y, PLACES[:1], 2, ValueError, r"dy has shape \(2, 3\); the shape of argmax is"),
        (
            Y,
            PLACES + 2,
            2,
            ValueError,
            "argmax names piece 2 of 2: it belongs to another x",
        ),
        (Y, PLACES - 1, 2, ValueError, "argmax names piece -1 of 2"),
        (Y, Y, 2, TypeError, "argmax must be the int32 array of forward, not float64"),
        (Y, PLACES.tolist(), 2, TypeError, "argmax must be .* of forward, not list"),
        (Y[0], PLACES[0], 2, ValueError, r"dy has shape \(3,\); it must be \(N, features"),
        (Y, PLACES, 0, ValueError, "pieces must be at least 1, not 0"),
        (Y.astype(int), PLACES, 2, TypeError, "dy has dtype int64"),
    ],
)
def test_backward_refuses_what_does_not_belong_together(dy, argmax, pieces, error, says):
    with pytest.raises(error, match=says):
        maxout_backward(dy, argmax, pieces)


@pytest.mark.parametrize("pieces, error", [(0, ValueError), (1.5, TypeError)])
def test_impossible_layer_is_refused(pieces, error):
    with pytest.raises(error, match="pieces must be"):
        Maxout(pieces)
