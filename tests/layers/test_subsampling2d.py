"""course/layers/subsampling2d.py: (1) to (4) against NumPy and against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import Subsampling2d, subsampling2d_backward, subsampling2d_forward

GEOMETRY = pytest.mark.parametrize(
    "shape, kernel",
    [
        ((1, 1, 2, 2), 2),
        ((1, 1, 1, 1), 1),
        ((2, 3, 4, 6), 2),
        ((2, 2, 4, 3), (4, 3)),
        ((2, 1, 5, 7), 2),  # a remainder below and to the right
        ((1, 4, 7, 8), (2, 3)),
        ((3, 2, 6, 5), (1, 4)),
        ((2, 6, 28, 28), 2),  # LeNet-5, S2
    ],
)
DTYPES = pytest.mark.parametrize("dtype, close", [(np.float32, 2e-6), (np.float64, 1e-12)])


def oracle(x, w, b, dy, kernel):
    """Return y, dx, dw, db by cutting x into tiles, in float64."""
    x, w, b, dy = (np.float64(a) for a in (x, w, b, dy))
    KH, KW = np.broadcast_to(kernel, 2)
    N, C, HO, WO = dy.shape
    tiles = x[:, :, : HO * KH, : WO * KW].reshape(N, C, HO, KH, WO, KW)
    y = np.einsum("nciujv,c->ncij", tiles, w) + b[:, None, None]
    dx = np.zeros_like(x)
    given = np.einsum("ncij,c->ncij", dy, w)
    dx[:, :, : HO * KH, : WO * KW] = np.kron(given, np.ones((KH, KW)))
    return y, dx, np.einsum("ncij,nciujv->c", dy, tiles), dy.sum(axis=(0, 2, 3))


def size(shape, kernel):
    """Return the shape of y: how many whole windows fit."""
    KH, KW = np.broadcast_to(kernel, 2)
    return *shape[:2], shape[2] // KH, shape[3] // KW


@GEOMETRY
@DTYPES
def test_both_ways_as_defined(shape, kernel, dtype, close, rng):
    x, dy = (rng.normal(size=one).astype(dtype) for one in (shape, size(shape, kernel)))
    w, b = (rng.normal(size=shape[1]).astype(dtype) for _ in range(2))
    found = (
        subsampling2d_forward(x, w, b, kernel),
        *subsampling2d_backward(dy, x, w, kernel),
    )
    expected = oracle(x, w, b, dy, kernel)
    for name, a, e in zip(("y", "dx", "dw", "db"), found, expected, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, e, 0, close * np.abs(e).max(), err_msg=name)


@GEOMETRY
def test_backward_is_the_slope(shape, kernel, rng):
    if np.prod(shape) > 1000:
        shape = (1, *shape[1:2], 4, 4)
    layer = Subsampling2d(shape[1], kernel, dtype=np.float64)
    layer.params = {key: rng.normal(size=shape[1]) for key in layer.params}
    check_layer(layer, rng.normal(size=shape), rng)


def test_lenet5_has_12_and_32_parameters():
    for channels, expected in ((6, 12), (16, 32)):
        layer = Subsampling2d(channels)
        assert sum(a.size for a in layer.params.values()) == expected


def test_starts_as_the_mean_of_each_window(rng):
    x = rng.normal(size=(2, 3, 6, 6)).astype(np.float32)
    y = Subsampling2d(3, (2, 3))(x)
    np.testing.assert_allclose(y, x.reshape(2, 3, 3, 2, 2, 3).mean(axis=(3, 5)), 0, 1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_window(value):
    x = np.ones((1, 2, 4, 4))
    x[0, 1, 2, 3] = value
    y = subsampling2d_forward(x, np.ones(2), np.zeros(2))
    np.testing.assert_array_equal(y[0], [[[4, 4], [4, 4]], [[4, 4], [4, value]]])


def test_large_numbers_stay_finite():
    x = np.full((1, 1, 4, 4), 1e4, np.float32)
    y = subsampling2d_forward(x, np.float32([1e4]), np.float32([-1e4]))
    np.testing.assert_allclose(y, np.full((1, 1, 2, 2), 4e8 - 1e4), 1e-6)


def test_empty_batch():
    x, w = np.empty((0, 2, 4, 4)), np.ones(2)
    y = subsampling2d_forward(x, w, w)
    assert y.shape == (0, 2, 2, 2)
    dx, dw, db = subsampling2d_backward(y, x, w)
    assert dx.shape == x.shape
    np.testing.assert_array_equal([dw, db], np.zeros((2, 2)))


X, W = np.zeros((1, 2, 5, 6)), np.zeros(2)


@pytest.mark.parametrize(
    "x, w, b, kernel, error, says",
    [
        (X[0], W, W, 2, ValueError, r"x has shape \(2, 5, 6\); it must be"),
        (X.astype(int), W, W, 2, TypeError, "x has dtype int64"),
        (X, W[:1], W, 2, ValueError, r"w has shape \(1,\); one weight for each channel"),
        (X, W, W[:1], 2, ValueError, r"b has shape \(1,\); one bias for each channel"),
        (X, X, W, 2, ValueError, r"w has shape .* it must be \(C,\)"),
        (X, np.float32(W), W, 2, TypeError, "w is float32 but the other arrays are"),
        (X, W, W, 0, ValueError, "kernel_size must be at least 1, not 0"),
        (X, W, W, 6, ValueError, "spans 6 pixels does not fit in 5"),
    ],
)
def test_what_cannot_be_is_refused(x, w, b, kernel, error, says):
    with pytest.raises(error, match=says):
        subsampling2d_forward(x, w, b, kernel)


def test_backward_refuses_a_dy_that_is_no_y():
    with pytest.raises(ValueError, match=r"dy has shape .* the shape of y for this x"):
        subsampling2d_backward(np.zeros((1, 2, 2, 2)), X, W)
    with pytest.raises(TypeError, match="dy is float32 but the other arrays are float64"):
        subsampling2d_backward(np.zeros((1, 2, 2, 3), np.float32), X, W)


@pytest.mark.parametrize("arguments", [(0,), (2, 0), (2, (1, 0))])
def test_impossible_layer_is_refused(arguments):
    with pytest.raises(ValueError, match="must be at least 1, not 0"):
        Subsampling2d(*arguments)
