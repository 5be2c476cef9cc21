"""course/layers/conv2d.py: (1) against NumPy, (2) to (4) against slopes."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import convolve2d

from course.checks import check_layer
from course.device import fill
from course.layers import Conv2d, Linear, conv2d_backward, conv2d_forward
from course.layers import conv2d as loops

NONE = (0, 0), (0, 0)


def case(name, x, w, frame=NONE, **keywords):
    """Return a row: shapes of x and w, what the function is told, and the frame it means.

    The frame ((top, bottom), (left, right)) is worked out by hand, so that the oracle
    does not ask the course.
    """
    if isinstance(keywords.get("padding"), tuple | int) and frame == NONE:
        raise ValueError("say which frame the padding means")
    return pytest.param(x, w, keywords, frame, id=name)


GEOMETRY = pytest.mark.parametrize(
    "x_shape, w_shape, keywords, frame",
    [  # one line for each way a window can meet an edge
        case("one-window", (1, 1, 3, 3), (1, 1, 3, 3)),
        case("one-tap", (2, 3, 5, 4), (2, 3, 1, 1)),
        case("one-pixel", (1, 1, 1, 1), (1, 1, 1, 1)),
        case("one-row", (1, 1, 1, 6), (2, 1, 1, 3)),
        case("one-column", (1, 1, 6, 1), (2, 1, 3, 1)),
        case("window-is-the-image", (2, 2, 4, 3), (3, 2, 4, 3)),
        case("keeps-size", (2, 2, 4, 5), (3, 2, 3, 3), ((1, 1), (1, 1)), padding=1),
        case("remainder-is-dropped", (1, 2, 6, 7), (2, 2, 3, 3), stride=2),
        case("gaps-between-windows", (1, 1, 8, 5), (2, 1, 2, 2), stride=3),
        case(
            "windows-wholly-in-padding",
            (1, 2, 4, 4),
            (2, 2, 3, 3),
            ((3, 3), (3, 3)),
            padding=3,
            stride=2,
        ),
        case(
            "larger-than-the-image",
            (1, 1, 2, 3),
            (1, 1, 5, 5),
            ((2, 2), (2, 2)),
            padding=2,
        ),
        case(
            "height-first",
            (1, 1, 5, 8),
            (1, 1, 2, 4),
            ((1, 1), (2, 2)),
            stride=(2, 3),
            padding=(1, 2),
            dilation=(3, 1),
        ),
        case(
            "asymmetric",
            (2, 1, 5, 4),
            (2, 1, 3, 2),
            ((0, 2), (3, 1)),
            padding=((0, 2), (3, 1)),
        ),
        case("valid", (1, 2, 5, 6), (2, 2, 3, 2), padding="valid"),
        case("same-odd", (1, 1, 5, 6), (1, 1, 3, 5), ((1, 1), (2, 2)), padding="same"),
        case("same-even", (1, 1, 5, 6), (1, 1, 2, 4), ((0, 1), (1, 2)), padding="same"),
        case(
            "same-stride",
            (1, 1, 6, 7),
            (1, 1, 3, 3),
            ((0, 1), (1, 1)),
            padding="same",
            stride=2,
        ),
        case(
            "same-dilation",
            (1, 1, 6, 6),
            (1, 1, 3, 2),
            ((2, 2), (1, 2)),
            padding="same",
            dilation=(2, 3),
        ),
        case("dilation", (2, 1, 7, 6), (2, 1, 3, 2), dilation=(2, 3)),
        case(
            "dilation-stride-padding",
            (1, 2, 7, 7),
            (2, 2, 3, 3),
            ((2, 2), (2, 2)),
            padding=2,
            stride=2,
            dilation=2,
        ),
        case("groups", (2, 4, 4, 5), (6, 2, 2, 3), groups=2),
        case(
            "groups-stride-padding",
            (1, 6, 5, 5),
            (3, 2, 3, 3),
            ((1, 1), (1, 1)),
            groups=3,
            stride=2,
            padding=1,
        ),
        case("depthwise", (2, 3, 5, 5), (3, 1, 3, 3), groups=3),
        case("depthwise-times-two", (1, 2, 4, 4), (4, 1, 2, 2), groups=2),
        case("many-channels", (1, 7, 4, 4), (5, 7, 3, 3)),
        case("wide-row", (1, 1, 3, 37), (1, 1, 3, 3)),
    ],
)


def oracle(x, w, b, frame, stride=1, dilation=1, groups=1, **_):
    """Equation (1) in NumPy, sharing no line with the course."""
    (SH, SW), (DH, DW) = np.broadcast_to(stride, 2), np.broadcast_to(dilation, 2)
    KH, KW = w.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), *frame))
    reach = (KH - 1) * DH + 1, (KW - 1) * DW + 1
    windows = sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, ::SH, ::SW, ::DH, ::DW]
    y = [
        np.einsum("fcuv,ncijuv->nfij", filters, channels)
        for filters, channels in zip(
            np.split(w, groups), np.split(windows, groups, axis=1), strict=True
        )
    ]
    return np.concatenate(y, axis=1) + b[:, None, None]


def arrays(x_shape, w_shape, rng, dtype=np.float64):
    """Return x, w, b, normally distributed."""
    shapes = x_shape, w_shape, w_shape[:1]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


@GEOMETRY
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_forward_is_the_correlation(
    x_shape, w_shape, keywords, frame, dtype, tolerance, rng
):
    x, w, b = arrays(x_shape, w_shape, rng, dtype)
    y = conv2d_forward(x, w, b, **keywords)
    assert y.dtype == dtype
    expected = oracle(x, w, b, frame, **keywords)
    np.testing.assert_allclose(y, expected, tolerance, tolerance)


@GEOMETRY
def test_backward_is_the_slope(x_shape, w_shape, keywords, frame, rng):
    C, F = x_shape[1], w_shape[0]
    layer = Conv2d(C, F, w_shape[2:], **keywords, rng=rng, dtype=np.float64)
    layer.params["bias"] = rng.normal(size=F)  # away from its initial 0
    check_layer(layer, rng.normal(size=x_shape), rng)


@GEOMETRY
def test_float32_gradients_are_the_float64_ones(x_shape, w_shape, keywords, frame, rng):
    x, w, b = arrays(x_shape, w_shape, rng)
    dy = rng.normal(size=conv2d_forward(x, w, b, **keywords).shape)
    exact = conv2d_backward(dy, x, w, **keywords)
    rough = conv2d_backward(*(a.astype(np.float32) for a in (dy, x, w)), **keywords)
    for name, a, r in zip(["dx", "dw", "db"], exact, rough, strict=True):
        assert r.dtype == np.float32
        np.testing.assert_allclose(r, a, 1e-4, 1e-4, err_msg=name)


def test_a_rotated_kernel_makes_it_a_convolution(rng):
    x, w = rng.normal(size=(6, 7)), rng.normal(size=(3, 2))
    y = conv2d_forward(x[None, None], w[None, None, ::-1, ::-1])[0, 0]
    np.testing.assert_allclose(y, convolve2d(x, w, "valid"), 1e-13, 1e-13)


def test_worked_example_by_hand():
    """Every product can be done in the head."""
    x = np.array([[1.0, 2, 0], [0, 1, 3], [2, 0, 1]])[None, None]
    w = np.array([[1.0, 0], [-1, 2]])[None, None]
    y = conv2d_forward(x, w, np.array([10.0]))
    np.testing.assert_array_equal(y[0, 0], [[13, 17], [8, 13]])


def test_pixels_no_window_reaches_get_no_gradient():
    x, w = np.ones((1, 1, 5, 5)), np.ones((1, 1, 2, 2))
    dx, _, _ = conv2d_backward(np.ones((1, 1, 2, 2)), x, w, stride=3)
    seen = [0, 1, 3, 4]
    expected = np.zeros((5, 5))
    expected[np.ix_(seen, seen)] = 1
    np.testing.assert_array_equal(dx[0, 0], expected)


def test_nan_and_infinity_stay_where_they_are(rng):
    x, w, _ = arrays((1, 1, 6, 6), (1, 1, 2, 2), rng)
    x[0, 0, 0, 0], x[0, 0, 5, 5] = np.nan, np.inf
    y = conv2d_forward(x, w)[0, 0]
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0]]
    assert np.argwhere(np.isinf(y)).tolist() == [[4, 4]]


def test_empty_batch(rng):
    _, w, b = arrays((1, 2, 5, 5), (3, 2, 3, 3), rng)
    x = np.empty((0, 2, 5, 5))
    y = conv2d_forward(x, w, b)
    assert y.shape == (0, 3, 3, 3)
    dx, dw, db = conv2d_backward(y, x, w)
    assert dx.shape == x.shape
    np.testing.assert_array_equal(dw, np.zeros_like(w))
    np.testing.assert_array_equal(db, np.zeros_like(b))


def test_no_bias_is_a_bias_of_zero(rng):
    x, w, b = arrays((2, 2, 5, 5), (3, 2, 3, 3), rng)
    expected = conv2d_forward(x, w, np.zeros_like(b))
    np.testing.assert_array_equal(conv2d_forward(x, w), expected)
    layer = Conv2d(2, 3, 3, bias=False, rng=rng, dtype=np.float64)
    assert layer.params.keys() == {"weight"}
    check_layer(layer, x, rng)


def test_weight_starts_as_he_says(rng):
    weight = Conv2d(8, 64, 5, groups=2, rng=rng).params["weight"]
    assert weight.shape == (64, 4, 5, 5) and weight.dtype == np.float32
    np.testing.assert_allclose(weight.var(), 2 / (4 * 5 * 5), rtol=0.05)
    np.testing.assert_allclose(weight.mean(), 0, atol=0.01)


X, W, B = np.zeros((2, 4, 5, 6)), np.zeros((6, 4, 3, 3)), np.zeros(6)


@pytest.mark.parametrize(
    "x, w, b, keywords, error, says",
    [
        (X[0], W, B, {}, ValueError, r"x has shape \(4, 5, 6\); it must be \(N, C"),
        (X, W[0], B, {}, ValueError, r"w has shape \(4, 3, 3\); it must be \(F, C/G"),
        (X, W, W, {}, ValueError, r"b has shape .* it must be \(F,\)"),
        (X, W, B[:5], {}, ValueError, r"b has shape \(5,\); one bias for each filter"),
        (X.tolist(), W, B, {}, TypeError, "x is a list"),
        (X, W.tolist(), B, {}, TypeError, "w is a list"),
        (X, W, B.tolist(), {}, TypeError, "b is a list"),
        (X.astype(int), W, B, {}, TypeError, "x has dtype int64"),
        (X.astype(np.float16), W, B, {}, TypeError, "x has dtype float16"),
        (X.astype(">f8"), W, B, {}, TypeError, "x has dtype >f8"),
        (X, W.astype(np.float32), B, {}, TypeError, "w is float32 but the other"),
        (X, W, B.astype(np.float32), {}, TypeError, "b is float32 but the other"),
        (X[:, :3], W, B, {}, ValueError, "x has 3 channels, w expects 4"),
        (X, W[:, :1], B, {"groups": 2}, ValueError, "w expects 2 .1 in each of 2"),
        (X, W, B, {"groups": 4}, ValueError, "groups=4 must divide the 4 .* 6 filters"),
        (X, W, B, {"groups": 0}, ValueError, "groups must be at least 1, not 0"),
        (X, W, B, {"groups": True}, TypeError, "groups must be a whole number"),
        (X, W[:, :, :0], B, {}, ValueError, "a filter needs at least 1 x 1 taps"),
        (X, W, B, {"stride": 0}, ValueError, "stride must be at least 1, not 0"),
        (X, W, B, {"stride": 1.0}, TypeError, "stride must be a whole number, not 1.0"),
        (X, W, B, {"stride": True}, TypeError, "stride must be a whole number"),
        (X, W, B, {"stride": (1, 2, 3)}, ValueError, r"stride must be an int or \(hei"),
        (X, W, B, {"dilation": 0}, ValueError, "dilation must be at least 1, not 0"),
        (X, W, B, {"padding": -1}, ValueError, "padding must be at least 0, not -1"),
        (X, W, B, {"padding": ((0, 0), (0, -1))}, ValueError, "padding must be at leas"),
        (X, W, B, {"padding": "sam"}, ValueError, 'padding must be "same" or "valid"'),
        (X, W, B, {"padding": None}, TypeError, "padding must be a whole number"),
        (X, W, B, {"padding": False}, TypeError, "padding must be a whole number"),
        (X, W, B, {"padding": ((1, 1), (1, 1), (1, 1))}, ValueError, r"\(\(top, botto"),
        (X, W, B, {"dilation": 3}, ValueError, "spans 7 pixels does not fit in 5"),
        (X[:, :, :2], W, B, {}, ValueError, "spans 3 pixels does not fit in 2"),
    ],
)
def test_what_cannot_be_is_refused(x, w, b, keywords, error, says):
    with pytest.raises(error, match=says):
        conv2d_forward(x, w, b, **keywords)


@pytest.mark.parametrize(
    "dy, error, says",
    [
        (np.zeros((2, 6, 3, 5)), ValueError, r"dy has shape .*y for these .*6, 3, 4\)"),
        (np.zeros((6, 3, 4)), ValueError, "it must be .N, F, HO, WO."),
        (np.zeros((2, 6, 3, 4), np.float32), TypeError, "dy is float32 but"),
        (np.zeros((2, 6, 3, 4), int), TypeError, "dy has dtype int64"),
        (2.0, TypeError, "dy is a float"),
    ],
)
def test_wrong_dy_is_refused(dy, error, says):
    with pytest.raises(error, match=says):
        conv2d_backward(dy, X, W)


@pytest.mark.parametrize(
    "arguments, keywords, error, says",
    [
        ((0, 2, 3), {}, ValueError, "in_channels must be at least 1"),
        ((1, 2.0, 3), {}, TypeError, "out_channels must be a whole number"),
        ((1, 2, 0), {}, ValueError, "kernel_size must be at least 1"),
        ((4, 6, 3), {"groups": 3}, ValueError, "groups=3 must divide in_channels=4"),
        ((1, 2, 3), {"stride": 0}, ValueError, "stride must be at least 1"),
        ((1, 2, 3), {"padding": "sam"}, ValueError, 'must be "same" or "valid"'),
        ((1, 2, 3), {"padding": -1}, ValueError, "padding must be at least 0"),
        ((1, 2, 3), {"dilation": 0}, ValueError, "dilation must be at least 1"),
    ],
)
def test_impossible_layer_is_refused(arguments, keywords, error, says, rng):
    with pytest.raises(error, match=says):
        Conv2d(*arguments, **keywords, rng=rng)


@pytest.mark.parametrize("layer, sizes", [(Conv2d, (1, 2, 3)), (Linear, (2, 3))])
def test_a_seed_is_no_generator(layer, sizes):
    with pytest.raises(TypeError, match=r"rng is 0; it must be a generator: np.random"):
        layer(*sizes, rng=0)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_the_fast_loops_are_the_plain_ones(dtype, tolerance, rng):
    """At stride 1 the runs along memory do what the loops that we teach do."""
    N, C, F, G, H, W, KH, KW, DH, DW = 2, 6, 4, 2, 9, 8, 3, 2, 2, 3
    HO, WO = H - DH * (KH - 1), W - DW * (KW - 1)
    x = rng.normal(size=(N, C, H, W)).astype(dtype)
    w = rng.normal(size=(F, C // G, KH, KW)).astype(dtype)
    b = rng.normal(size=F).astype(dtype)
    dy = rng.normal(size=(N, F, HO, WO)).astype(dtype)
    y, dx, dw = np.empty_like(dy), np.empty_like(x), np.empty_like(w)
    window = G, 1, 1, DH, DW
    fill(loops._y_cpu, N * F, y, x, w, b, *window)
    fill(loops._dx_cpu, N * C, dx, dy, w, *window)
    fill(loops._dw_cpu, F * C // G, dw, dy, x, *window)
    keywords = {"dilation": (DH, DW), "groups": G}
    fast = conv2d_forward(x, w, b, **keywords), *conv2d_backward(dy, x, w, **keywords)
    for name, plain, quick in zip(["y", "dx", "dw"], [y, dx, dw], fast, strict=False):
        np.testing.assert_allclose(quick, plain, tolerance, tolerance, err_msg=name)
