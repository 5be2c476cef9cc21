"""course/layers/prelu.py: (1) against NumPy, (2) and (3) against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import PReLU, prelu_backward, prelu_forward

DTYPES = pytest.mark.parametrize(
    "dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-12)]
)
GEOMETRY = pytest.mark.parametrize(
    "shape, slopes",
    [  # one line for each way in which slopes go with channels
        ((5, 7), 7),
        ((5, 7), 1),
        ((3, 4, 5, 6), 4),
        ((3, 4, 5, 6), 1),
        ((3, 1, 5), 1),
        ((2, 3, 1, 1), 3),
        ((2, 3, 2, 3, 2), 3),
        ((6,), 1),
        ((), 1),
    ],
)


def distinct(shape, rng):
    """Return numbers of both signs that are at least 0.1 away from the kink at 0."""
    return np.asarray(rng.choice([-1, 1], shape) * rng.uniform(0.1, 3, shape))


def along_channels(w, ndim):
    """Return w in a shape that NumPy spreads over the channels of x."""
    return w.reshape(1, -1, *[1] * (ndim - 2)) if ndim > 1 else w.reshape([1] * ndim)


@GEOMETRY
@DTYPES
def test_forward_is_the_definition(shape, slopes, dtype, tolerance, rng):
    x, w = distinct(shape, rng).astype(dtype), rng.normal(size=slopes).astype(dtype)
    y = prelu_forward(x, w)
    assert y.dtype == dtype
    w = along_channels(w.astype(float), len(shape))
    np.testing.assert_allclose(y, np.maximum(x, 0) + w * np.minimum(x, 0), tolerance)


@GEOMETRY
def test_backward_is_the_slope(shape, slopes, rng):
    layer = PReLU(slopes, dtype=np.float64)
    layer.params["weight"] = rng.normal(size=slopes)
    check_layer(layer, distinct(shape, rng), rng)


@GEOMETRY
@DTYPES
def test_backward_is_the_definition(shape, slopes, dtype, tolerance, rng):
    x, dy = distinct(shape, rng).astype(dtype), rng.normal(size=shape).astype(dtype)
    w = rng.normal(size=slopes).astype(dtype)
    dx, dw = prelu_backward(dy, x, w)
    assert dx.dtype == dw.dtype == dtype
    exact, wide = dy.astype(float), along_channels(w.astype(float), len(shape))
    np.testing.assert_allclose(dx, exact * np.where(x > 0, 1, wide), tolerance)
    gradient = exact * np.minimum(x, 0)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1 or slopes == 1)
    np.testing.assert_allclose(
        dw, np.atleast_1d(gradient.sum(axes)), tolerance, tolerance * np.abs(gradient).sum()
    )


@DTYPES
def test_gradient_at_zero_is_the_slope(dtype, tolerance):
    dx, dw = prelu_backward(
        np.ones((1, 2), dtype), np.zeros((1, 2), dtype), np.ones(1, dtype)
    )
    np.testing.assert_array_equal(dx, [[1, 1]])
    np.testing.assert_array_equal(dw, [0])


@DTYPES
def test_extremes(dtype, tolerance):
    x = np.array([[-np.inf, -1e4, 1e4, np.inf, np.nan]], dtype)
    w = np.full(1, 0.5, dtype)
    np.testing.assert_array_equal(
        prelu_forward(x, w)[0], [-np.inf, -5e3, 1e4, np.inf, np.nan]
    )
    dx, dw = prelu_backward(np.ones_like(x), x, w)
    np.testing.assert_array_equal(dx[0], [0.5, 0.5, 1, 1, 0.5])
    assert np.isnan(dw).all()
    _, dw = prelu_backward(np.ones((1, 3), dtype), x[:, 1:4], w)
    np.testing.assert_array_equal(dw, [-1e4])


def test_empty_batch():
    for shape in ((0, 3), (0, 3, 2, 2), (2, 3, 0)):
        x = np.empty(shape)
        for slopes in (1, 3):
            dx, dw = prelu_backward(prelu_forward(x, np.ones(slopes)), x, np.ones(slopes))
            assert dx.shape == shape
            np.testing.assert_array_equal(dw, np.zeros(slopes))


def test_starts_as_told():
    layer = PReLU(3)
    assert layer.params["weight"].dtype == np.float32
    np.testing.assert_array_equal(layer.params["weight"], [0.25] * 3)
    np.testing.assert_array_equal(PReLU(init=-1).params["weight"], [-1])


X = np.zeros((2, 3, 4))


@pytest.mark.parametrize(
    "x, w, error, says",
    [
        (X, np.ones(4), ValueError, "weight has 4 slopes and x has 3 channels; give one"),
        (X, np.ones(0), ValueError, "weight has 0 slopes and x has 3 channels"),
        (X[0, 0], np.ones(4), ValueError, "weight has 4 slopes and x has 1 channels"),
        (X, np.ones((1, 3)), ValueError, r"weight has shape \(1, 3\); it must be \(C,\)"),
        (X, np.ones(3, np.float32), TypeError, "weight is float32 but the other arrays"),
        (X, 0.25, TypeError, "weight is a float; it must be a NumPy array"),
        (X.astype(int), np.ones(3), TypeError, "x has dtype int64"),
    ],
)
def test_what_cannot_be_is_refused(x, w, error, says):
    with pytest.raises(error, match=says):
        prelu_forward(x, w)
    with pytest.raises(error, match=says):
        prelu_backward(x, x, w)


@pytest.mark.parametrize(
    "arguments, error, says",
    [
        ((0,), ValueError, "num_parameters must be at least 1, not 0"),
        ((2.0,), TypeError, "num_parameters must be a whole number, not 2.0"),
        ((1, "a"), TypeError, "init must be a number, not 'a'"),
        ((1, np.inf), ValueError, "init must be finite, not inf"),
    ],
)
def test_impossible_layer_is_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        PReLU(*arguments)
