"""course/layers/maxpool2d.py: (1) against NumPy, (2) against slopes."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from course.checks import check_layer
from course.layers import MaxPool2d, maxpool2d_backward, maxpool2d_forward
from course.layers.maxpool2d import _y_cpu
from course.shapes import pool_geometry

NONE = (0, 0), (0, 0)


def case(name, shape, kernel, frame=NONE, **keywords):
    """Return a row: shape of x, the window, what the function is told, and the frame.

    The frame ((top, bottom), (left, right)) is worked out by hand: the padding, and with
    ceil_mode what the last window hangs over.
    """
    return pytest.param(shape, kernel, keywords, frame, id=name)


GEOMETRY = pytest.mark.parametrize(
    "shape, kernel, keywords, frame",
    [  # one line for each way a window can meet an edge
        case("one-window", (1, 1, 2, 2), 2),
        case("one-pixel", (1, 1, 1, 1), 1),
        case("one-tap", (2, 3, 4, 3), 1),
        case("tiles-exactly", (2, 3, 4, 6), 2),
        case("window-is-the-image", (2, 2, 4, 3), (4, 3)),
        case("remainder-is-dropped", (2, 1, 5, 7), 2),
        case("overlap", (1, 2, 5, 4), 3, stride=1),
        case("keeps-size", (1, 2, 5, 4), 3, ((1, 1), (1, 1)), stride=1, padding=1),
        case("gaps-between-windows", (1, 1, 7, 5), 2, stride=3),
        case("stride-padding", (1, 2, 5, 6), 3, ((1, 1), (1, 1)), stride=2, padding=1),
        case(
            "height-first",
            (1, 1, 7, 8),
            (2, 3),
            ((1, 1), (0, 0)),
            stride=(3, 2),
            padding=(1, 0),
            dilation=(2, 1),
        ),
        case(
            "asymmetric",
            (1, 2, 4, 5),
            3,
            ((0, 2), (1, 0)),
            stride=2,
            padding=((0, 2), (1, 0)),
        ),
        case("valid", (1, 1, 5, 5), 2, stride=1, padding="valid"),
        case("same", (1, 1, 5, 6), 2, ((0, 1), (0, 1)), stride=1, padding="same"),
        case("same-stride", (1, 1, 5, 6), 3, ((1, 1), (0, 1)), stride=2, padding="same"),
        case("dilation", (1, 2, 6, 7), 2, stride=1, dilation=(2, 3)),
        case(
            "dilation-padding",
            (1, 1, 6, 6),
            3,
            ((2, 2), (2, 2)),
            stride=2,
            padding=2,
            dilation=2,
        ),
        case("ceil", (2, 1, 5, 7), 2, ((0, 1), (0, 1)), ceil_mode=True),
        case("ceil-fits-anyway", (1, 1, 4, 6), 2, ceil_mode=True),
        case("ceil-one-axis", (1, 1, 4, 7), 2, ((0, 0), (0, 1)), ceil_mode=True),
        case(  # a third window would start in the padding below: it is not made
            "ceil-starts-outside",
            (1, 1, 4, 4),
            2,
            ((1, 1), (1, 1)),
            stride=3,
            padding=1,
            ceil_mode=True,
        ),
        case(
            "ceil-padding",
            (1, 1, 6, 5),
            3,
            ((1, 2), (1, 1)),
            stride=2,
            padding=1,
            ceil_mode=True,
        ),
        case(  # one window, and even that hangs over
            "ceil-small-image", (1, 1, 2, 4), 3, ((0, 1), (0, 1)), stride=2, ceil_mode=True
        ),
        # from here on rows that are longer than the vectors of any machine
        case("wide-tiles", (2, 2, 4, 64), 2),
        case("wide-tiles-remainder", (2, 2, 5, 75), 2),
        case("wide-ceil", (2, 1, 5, 75), 2, ((0, 1), (0, 1)), ceil_mode=True),
        case("wide-stride-1", (2, 1, 4, 70), 3, ((1, 1), (1, 1)), stride=1, padding=1),
        case("wide-stride-2", (2, 2, 5, 70), 3, ((1, 1), (1, 1)), stride=2, padding=1),
        case(
            "wide-odd-frame",
            (2, 1, 5, 73),
            (2, 3),
            ((0, 1), (2, 0)),
            stride=(1, 2),
            padding=((0, 1), (2, 0)),
        ),
        case("wide-stride-3", (1, 2, 5, 71), 3, stride=3),
        case("wide-dilation", (1, 2, 5, 71), 2, stride=2, dilation=3),
    ],
)


def oracle(x, kernel, frame, stride=None, dilation=1, **_):
    """Equation (1) in NumPy and where the maximum was, sharing no line with the course."""
    KH, KW = np.broadcast_to(kernel, 2)
    SH, SW = np.broadcast_to(kernel if stride is None else stride, 2)
    DH, DW = np.broadcast_to(dilation, 2)

    def windows(a, outside):
        padded = np.pad(a, ((0, 0), (0, 0), *frame), constant_values=outside)
        reach = (KH - 1) * DH + 1, (KW - 1) * DW + 1
        view = sliding_window_view(padded, reach, axis=(2, 3))
        view = view[:, :, ::SH, ::SW, ::DH, ::DW]
        return view.reshape(*view.shape[:4], KH * KW)

    places = np.arange(x.shape[2] * x.shape[3]).reshape(1, 1, *x.shape[2:])
    places = windows(np.broadcast_to(places, x.shape), -1)
    pixels = windows(x, -np.inf)
    # Before any other pixel, padding loses against a pixel of minus infinity.
    pixels = np.where((places >= 0) & (pixels == -np.inf), np.finfo(x.dtype).min, pixels)
    first = pixels.argmax(axis=4, keepdims=True)
    argmax = np.take_along_axis(places, first, 4)[..., 0]
    planes = x.reshape(*x.shape[:2], -1)
    y = np.take_along_axis(planes, argmax.reshape(*x.shape[:2], -1), 2)
    return y.reshape(argmax.shape), argmax


def distinct(shape, rng):
    """Return pixels at least 1/64 apart, so that no small step changes the winner."""
    return rng.permutation(np.prod(shape)).reshape(shape) / 64


@GEOMETRY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [3, 1000])  # of grey: many ties, few ties
def test_forward_is_the_maximum(shape, kernel, keywords, frame, dtype, levels, rng):
    x = rng.integers(-levels, levels, shape).astype(dtype)
    y, argmax = maxpool2d_forward(x, kernel, **keywords)
    assert y.dtype == dtype and argmax.dtype == np.int32
    expected_y, expected_argmax = oracle(x, kernel, frame, **keywords)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(argmax, expected_argmax)


def plain(x, kernel, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Return y and argmax of the plain loops."""
    geometry = pool_geometry(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    kernel, stride, ((top, _), (left, _)), dilation, size = geometry
    y = np.empty((*x.shape[:2], *size), x.dtype)
    argmax = np.empty(y.shape, np.int32)
    window = *kernel, *stride, top, left, *dilation
    _y_cpu(y, argmax, x, *window, 0, x.shape[0] * x.shape[1])
    return y, argmax


@GEOMETRY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_plain_loops_are_the_maximum_too(shape, kernel, keywords, frame, dtype, rng):
    x = rng.integers(-3, 3, shape).astype(dtype)
    y, argmax = plain(x, kernel, **keywords)
    expected_y, expected_argmax = oracle(x, kernel, frame, **keywords)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(argmax, expected_argmax)


@GEOMETRY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fast_loops_see_what_the_plain_ones_see(shape, kernel, keywords, frame, dtype, rng):
    """Zeros of both signs, infinities, and NaN in some planes and not in others."""
    values = np.array([0.0, -0.0, 1, np.inf, -np.inf], dtype)
    x = rng.choice(values, (3, 4, *shape[2:]))
    x[0, 1].flat[rng.integers(x[0, 1].size)] = np.nan
    x[2] = rng.choice([np.nan, 1, -np.inf], x[2].shape)
    y, argmax = maxpool2d_forward(x, kernel, **keywords)
    expected_y, expected_argmax = plain(x, kernel, **keywords)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(np.signbit(y[0, 0]), np.signbit(expected_y[0, 0]))
    np.testing.assert_array_equal(argmax, expected_argmax)


@GEOMETRY
def test_backward_is_the_slope(shape, kernel, keywords, frame, rng):
    check_layer(MaxPool2d(kernel, **keywords), distinct(shape, rng), rng)


@GEOMETRY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_backward_moves_the_gradient(shape, kernel, keywords, frame, dtype, rng):
    """Nothing is lost, nothing is added, and it lands where the maximum was."""
    x = distinct(shape, rng).astype(dtype)
    _, argmax = maxpool2d_forward(x, kernel, **keywords)
    _, places = oracle(x, kernel, frame, **keywords)
    dy = rng.integers(1, 9, places.shape).astype(dtype)  # whole numbers: exact sums
    expected = np.zeros(shape)
    for (n, c, i, j), place in np.ndenumerate(places):
        expected[n, c].flat[place] += dy[n, c, i, j]
    keywords = {k: v for k, v in keywords.items() if k != "ceil_mode"}
    dx = maxpool2d_backward(dy, argmax, shape, kernel, **keywords)
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_windows_that_see_far_apart(dtype, rng):
    """Of 3 x 3 taps only the one in the middle meets the image, and no frame is made."""
    x = rng.normal(size=(2, 3, 5, 5)).astype(dtype)
    window = {"stride": 1, "padding": 10**5, "dilation": 10**5}
    y, argmax = maxpool2d_forward(x, 3, **window)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(argmax[1, 2].reshape(-1), np.arange(25))
    np.testing.assert_array_equal(maxpool2d_backward(y, argmax, x.shape, 3, **window), x)


def test_first_of_equal_pixels_wins():
    _, argmax = maxpool2d_forward(np.ones((1, 1, 3, 3)), 2, stride=1)
    np.testing.assert_array_equal(argmax[0, 0], [[0, 1], [3, 4]])


def test_padding_never_wins(rng):
    x = -1 - rng.random((1, 2, 4, 4))
    y, _ = maxpool2d_forward(x, 3, stride=1, padding=1)
    assert y.max() < -1
    x[:] = -np.inf
    y, argmax = maxpool2d_forward(x, 3, stride=1, padding=1)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(
        argmax[0, 0], [[0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", range(4))
def test_nan_wins(place, dtype):
    x = np.array([[[[np.inf, 1], [-np.inf, 2]]]], dtype)
    x.flat[place] = np.nan
    y, argmax = maxpool2d_forward(x, 2)
    assert np.isnan(y).all()
    assert argmax.item() == place


def test_first_nan_wins():
    x = np.array([1, np.nan, np.nan, 2, np.nan, 3, 0, 0, 9]).reshape(1, 1, 3, 3)
    y, argmax = maxpool2d_forward(x, 3)
    assert np.isnan(y).all()
    assert argmax.item() == 1


def test_empty_batch():
    x = np.empty((0, 2, 4, 4))
    y, argmax = maxpool2d_forward(x, 2)
    assert y.shape == argmax.shape == (0, 2, 2, 2)
    assert maxpool2d_backward(y, argmax, x.shape, 2).shape == x.shape


X = np.zeros((1, 2, 5, 6))


@pytest.mark.parametrize(
    "x, kernel, keywords, error, says",
    [
        (X[0], 2, {}, ValueError, r"x has shape \(2, 5, 6\); it must be \(N, C, H, W\)"),
        (X.astype(int), 2, {}, TypeError, "x has dtype int64"),
        (X > 0, 2, {}, TypeError, "x has dtype bool"),
        (X.tolist(), 2, {}, TypeError, "x is a list"),
        (X, 0, {}, ValueError, "kernel_size must be at least 1, not 0"),
        (X, 2.0, {}, TypeError, "kernel_size must be a whole number, not 2.0"),
        (X, True, {}, TypeError, "kernel_size must be a whole number, not True"),
        (X, (2, 2, 2), {}, ValueError, r"kernel_size must be an int or \(height"),
        (X, 2, {"stride": 0}, ValueError, "stride must be at least 1, not 0"),
        (X, 2, {"stride": (1, 0)}, ValueError, "stride must be at least 1, not 0"),
        (X, 2, {"dilation": 0}, ValueError, "dilation must be at least 1, not 0"),
        (X, 2, {"padding": -1}, ValueError, "padding must be at least 0, not -1"),
        (X, 2, {"padding": "sam"}, ValueError, 'padding must be "same" or "valid"'),
        (X, 2, {"padding": 2}, ValueError, "window 0 along the height sees padding onl"),
        (X, 2, {"padding": ((0, 0), (0, 2))}, ValueError, "window 3 along the width"),
        (X, 6, {}, ValueError, "spans 6 pixels does not fit in 5"),
        (X, 3, {"dilation": 3}, ValueError, "spans 7 pixels does not fit in 5"),
        (X[:, :, :0], 1, {}, ValueError, "does not fit in 0"),
    ],
)
def test_what_cannot_be_is_refused(x, kernel, keywords, error, says):
    with pytest.raises(error, match=says):
        maxpool2d_forward(x, kernel, **keywords)


Y, PLACES = np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 2, 3), np.int32)


@pytest.mark.parametrize(
    "dy, argmax, input_shape, error, says",
    [
        (Y, PLACES, (1, 2, 5, 8), ValueError, "dy has shape .* y for this input_shape"),
        (Y, PLACES, (2, 2, 5, 6), ValueError, "dy has shape .* y for this input_shape"),
        (Y, PLACES, (2, 5, 6), ValueError, r"input_shape is \(2, 5, 6\); it must be"),
        (Y, PLACES[:, :, :1], X.shape, ValueError, "argmax has shape"),
        (Y, PLACES + 30, X.shape, ValueError, "argmax names pixel 30, but a plane of 5"),
        (
            Y,
            PLACES - [1, 0, -9],
            X.shape,
            ValueError,
            "argmax names pixel -1, but a plane of 5",
        ),
        (
            Y,
            PLACES + 0.5,
            X.shape,
            TypeError,
            "argmax must be the int32 array of forward, not float64",
        ),
        (
            Y,
            PLACES.tolist(),
            X.shape,
            TypeError,
            "argmax must be the int32 array of forward, not list",
        ),
        (Y.astype(int), PLACES, X.shape, TypeError, "dy has dtype int64"),
        (Y[0], PLACES, X.shape, ValueError, "dy has shape .* it must be .N, C, HO, WO."),
    ],
)
def test_backward_refuses_what_does_not_belong_together(
    dy, argmax, input_shape, error, says
):
    with pytest.raises(error, match=says):
        maxpool2d_backward(dy, argmax, input_shape, 2)


@pytest.mark.parametrize(
    "keywords, says",
    [
        ({"kernel_size": 0}, "kernel_size must be at least 1"),
        ({"kernel_size": 2, "stride": 0}, "stride must be at least 1"),
        ({"kernel_size": 2, "dilation": 0}, "dilation must be at least 1"),
        ({"kernel_size": 2, "padding": "sam"}, 'must be "same" or "valid"'),
        ({"kernel_size": 2, "padding": -1}, "padding must be at least 0"),
    ],
)
def test_impossible_layer_is_refused(keywords, says):
    with pytest.raises(ValueError, match=says):
        MaxPool2d(**keywords)
