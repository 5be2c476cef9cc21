"""course/layers/locally_connected2d.py: (1) against NumPy, (2) to (4) against slopes."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from course.checks import check_layer
from course.layers import (
    LocallyConnected2d,
    conv2d_backward,
    conv2d_forward,
    linear_forward,
    locally_connected2d_backward,
    locally_connected2d_forward,
)

NONE = (0, 0), (0, 0)


def case(name, x, units, kernel, frame=NONE, **keywords):
    """Return a row: shape of x, output units (F, HO, WO), window, keywords, the frame."""
    return pytest.param(x, units, kernel, keywords, frame, id=name)


GEOMETRY = pytest.mark.parametrize(
    "x_shape, units, kernel, keywords, frame",
    [
        case("one-window", (1, 1, 3, 3), (1, 1, 1), (3, 3)),
        case("one-pixel", (1, 1, 1, 1), (2, 1, 1), (1, 1)),
        case("one-tap", (2, 3, 5, 4), (2, 5, 4), (1, 1)),
        case("one-row", (1, 2, 1, 6), (2, 1, 4), (1, 3)),
        case("window-is-the-image", (3, 2, 4, 3), (3, 1, 1), (4, 3)),
        case("keeps-size", (2, 2, 4, 5), (3, 4, 5), (3, 3), ((1, 1), (1, 1)), padding=1),
        case("remainder-is-dropped", (1, 2, 6, 7), (2, 2, 3), (3, 3), stride=2),
        case("gaps-between-windows", (1, 1, 8, 5), (2, 3, 2), (2, 2), stride=3),
        case(
            "windows-wholly-in-padding",
            (1, 2, 4, 4),
            (2, 4, 4),
            (3, 3),
            ((3, 3), (3, 3)),
            padding=3,
            stride=2,
        ),
        case(
            "height-first",
            (2, 1, 5, 8),
            (1, 3, 3),
            (2, 4),
            ((1, 1), (2, 2)),
            stride=(2, 3),
            padding=(1, 2),
        ),
        case(
            "asymmetric",
            (2, 1, 5, 4),
            (2, 5, 7),
            (3, 2),
            ((0, 2), (3, 1)),
            padding=((0, 2), (3, 1)),
        ),
        case("valid", (1, 2, 5, 6), (2, 3, 5), (3, 2), padding="valid"),
        case("same", (1, 1, 5, 6), (1, 5, 6), (2, 4), ((0, 1), (1, 2)), padding="same"),
        case("huge-stride", (2, 1, 4, 4), (2, 1, 1), (3, 2), stride=1000000),
    ],
)


def oracle(x, w, b, frame, stride=1, **_):
    """Equation (1) in NumPy, sharing no line with the course."""
    SH, SW = np.broadcast_to(stride, 2)
    padded = np.pad(x, ((0, 0), (0, 0), *frame))
    windows = sliding_window_view(padded, w.shape[2:4], axis=(2, 3))[:, :, ::SH, ::SW]
    return np.einsum("fcuvij,ncijuv->nfij", w, windows) + b


def arrays(x_shape, units, kernel, rng, dtype=np.float64):
    """Return x, w, b, normally distributed."""
    F, HO, WO = units
    shapes = x_shape, (F, x_shape[1], *kernel, HO, WO), units
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


@GEOMETRY
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_forward_has_weights_for_every_window(
    x_shape, units, kernel, keywords, frame, dtype, tolerance, rng
):
    x, w, b = arrays(x_shape, units, kernel, rng, dtype)
    y = locally_connected2d_forward(x, w, b, **keywords)
    assert y.dtype == dtype
    expected = oracle(*(a.astype(float) for a in (x, w, b)), frame, **keywords)
    np.testing.assert_allclose(y, expected, tolerance, tolerance * np.abs(expected).max())


@GEOMETRY
def test_backward_is_the_slope(x_shape, units, kernel, keywords, frame, rng):
    _, C, H, W = x_shape
    layer = LocallyConnected2d(
        C, units[0], (H, W), kernel, **keywords, rng=rng, dtype=np.float64
    )
    assert layer.params["weight"].shape == (units[0], C, *kernel, *units[1:])
    layer.params["bias"] = rng.normal(size=units)  # away from its initial 0
    check_layer(layer, rng.normal(size=x_shape), rng)


@GEOMETRY
def test_float32_gradients_are_the_float64_ones(
    x_shape, units, kernel, keywords, frame, rng
):
    x, w, _ = arrays(x_shape, units, kernel, rng, np.float32)
    dy = rng.normal(size=(len(x), *units)).astype(np.float32)
    rough = locally_connected2d_backward(dy, x, w, **keywords)
    exact = locally_connected2d_backward(*(a.astype(float) for a in (dy, x, w)), **keywords)
    for name, a, r in zip(["dx", "dw", "db"], exact, rough, strict=True):
        assert r.dtype == np.float32
        np.testing.assert_allclose(r, a, 0, 2e-6 * np.abs(a).max(), err_msg=name)


@GEOMETRY
def test_equal_weights_make_it_a_convolution(x_shape, units, kernel, keywords, frame, rng):
    x, w, b = arrays(x_shape, units, kernel, rng)
    w, b = w[..., :1, :1], b[:, :1, :1]
    dy = rng.normal(size=(len(x), *units))
    everywhere = np.broadcast_to(w, (*w.shape[:4], *units[1:])), np.broadcast_to(b, units)
    y = locally_connected2d_forward(x, *everywhere, **keywords)
    shared = w[..., 0, 0]
    expected = conv2d_forward(x, shared, b[:, 0, 0], **keywords)
    np.testing.assert_allclose(y, expected, 1e-12, 1e-12)
    dx, dw, db = locally_connected2d_backward(dy, x, everywhere[0], **keywords)
    expected = conv2d_backward(dy, x, shared, **keywords)
    found = dx, dw.sum(axis=(4, 5)), db.sum(axis=(1, 2))
    for a, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, e, 1e-12, 1e-12)


def test_one_window_makes_it_a_linear_layer(rng):
    x, w, b = arrays((3, 2, 4, 5), (6, 1, 1), (4, 5), rng)
    y = locally_connected2d_forward(x, w, b)
    expected = linear_forward(x.reshape(3, 40), w.reshape(6, 40), b.reshape(6))
    np.testing.assert_allclose(y.reshape(3, 6), expected, 1e-12, 1e-12)


def test_weights_of_one_window_move_one_output(rng):
    x, w, b = arrays((2, 1, 4, 4), (2, 3, 3), (2, 2), rng)
    before = locally_connected2d_forward(x, w, b)
    w[1, :, :, :, 2, 0] += 1
    moved = locally_connected2d_forward(x, w, b) != before
    assert np.argwhere(moved).tolist() == [[0, 1, 2, 0], [1, 1, 2, 0]]


def test_worked_example_by_hand():
    x = np.array([[[[1.0, 2.0, 3.0]]]])
    w = np.array([[1.0, 0.0], [1.0, 10.0]]).reshape(1, 1, 1, 2, 1, 2)
    b = np.array([[[100.0, 200.0]]])
    y = locally_connected2d_forward(x, w, b)
    np.testing.assert_array_equal(y, [[[[103, 230]]]])


def test_nan_and_infinity_stay_where_they_are(rng):
    x, w, b = arrays((1, 1, 4, 4), (1, 3, 3), (2, 2), rng)
    x[0, 0, 0, 0], x[0, 0, 3, 3] = np.nan, np.inf
    y = locally_connected2d_forward(x, w, b)[0, 0]
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0]]
    assert np.argwhere(np.isinf(y)).tolist() == [[2, 2]]


def test_empty_batch(rng):
    _, w, b = arrays((1, 2, 5, 5), (3, 3, 3), (3, 3), rng)
    x = np.empty((0, 2, 5, 5))
    y = locally_connected2d_forward(x, w, b)
    assert y.shape == (0, 3, 3, 3)
    dx, dw, db = locally_connected2d_backward(y, x, w)
    assert dx.shape == x.shape
    np.testing.assert_array_equal(dw, np.zeros_like(w))
    np.testing.assert_array_equal(db, np.zeros_like(b))


def test_no_bias_is_a_bias_of_zero(rng):
    x, w, b = arrays((2, 2, 5, 5), (3, 3, 3), (3, 3), rng)
    expected = locally_connected2d_forward(x, w, np.zeros_like(b))
    np.testing.assert_array_equal(locally_connected2d_forward(x, w), expected)
    layer = LocallyConnected2d(2, 3, 5, 3, bias=False, rng=rng, dtype=np.float64)
    assert layer.params.keys() == {"weight"}
    check_layer(layer, x, rng)


def test_weight_starts_as_he_says(rng):
    weight = LocallyConnected2d(8, 16, 8, 5, rng=rng).params["weight"]
    assert weight.shape == (16, 8, 5, 5, 4, 4) and weight.dtype == np.float32
    np.testing.assert_allclose(weight.var(), 2 / (8 * 5 * 5), rtol=0.05)
    np.testing.assert_allclose(weight.mean(), 0, atol=0.01)


X, W, B = np.zeros((2, 4, 5, 6)), np.zeros((6, 4, 3, 3, 3, 4)), np.zeros((6, 3, 4))


@pytest.mark.parametrize(
    "x, w, b, keywords, error, says",
    [
        (X[0], W, B, {}, ValueError, r"x has shape \(4, 5, 6\); it must be \(N, C"),
        (X, W[0], B, {}, ValueError, r"w has shape .* it must be \(F, C, KH, KW, HO, WO\)"),
        (X, W, B[0], {}, ValueError, r"b has shape .* it must be \(F, HO, WO\)"),
        (X, W, B[:5], {}, ValueError, r"b has shape \(5, 3, 4\); one bias for each output"),
        (X.tolist(), W, B, {}, TypeError, "x is a list"),
        (X.astype(int), W, B, {}, TypeError, "x has dtype int64"),
        (X, W.astype(np.float32), B, {}, TypeError, "w is float32 but the other"),
        (X[:, :3], W, B, {}, ValueError, "x has 3 channels, w expects 4"),
        (X, W[:, :, :0], B, {}, ValueError, "a filter needs at least 1 x 1 taps"),
        (
            X,
            W,
            B,
            {"stride": 2},
            ValueError,
            "x has 2 x 2 windows, w has weights for 3 x 4",
        ),
        (X, W, B, {"padding": 1}, ValueError, "x has 5 x 6 windows, w has weights for 3 x"),
        (X, W, B, {"stride": 0}, ValueError, "stride must be at least 1, not 0"),
        (X, W, B, {"padding": "sam"}, ValueError, 'padding must be "same" or "valid"'),
        (X[:, :, :2], W, B, {}, ValueError, "spans 3 pixels does not fit in 2"),
    ],
)
def test_what_cannot_be_is_refused(x, w, b, keywords, error, says):
    with pytest.raises(error, match=says):
        locally_connected2d_forward(x, w, b, **keywords)


@pytest.mark.parametrize(
    "dy, error, says",
    [
        (np.zeros((2, 6, 3, 5)), ValueError, r"dy has shape .*y for these .*6, 3, 4\)"),
        (np.zeros((6, 3, 4)), ValueError, "it must be .N, F, HO, WO."),
        (np.zeros((2, 6, 3, 4), np.float32), TypeError, "dy is float32 but"),
    ],
)
def test_wrong_dy_is_refused(dy, error, says):
    with pytest.raises(error, match=says):
        locally_connected2d_backward(dy, X, W)


@pytest.mark.parametrize(
    "arguments, keywords, error, says",
    [
        ((0, 2, 5, 3), {}, ValueError, "in_channels must be at least 1"),
        ((1, 2.0, 5, 3), {}, TypeError, "out_channels must be a whole number"),
        ((1, 2, 0, 3), {}, ValueError, "input_size must be at least 1"),
        ((1, 2, 5, 0), {}, ValueError, "kernel_size must be at least 1"),
        ((1, 2, 5, 6), {}, ValueError, "spans 6 pixels does not fit in 5"),
        ((1, 2, 5, 3), {"stride": 0}, ValueError, "stride must be at least 1"),
        ((1, 2, 5, 3), {"padding": "sam"}, ValueError, 'must be "same" or "valid"'),
    ],
)
def test_impossible_layer_is_refused(arguments, keywords, error, says, rng):
    with pytest.raises(error, match=says):
        LocallyConnected2d(*arguments, **keywords, rng=rng)
