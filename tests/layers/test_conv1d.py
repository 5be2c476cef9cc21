"""course/layers/conv1d.py: (1) against NumPy, (2) to (4) against slopes."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from course.checks import check_layer
from course.layers import Conv1d, conv1d_backward, conv1d_forward, conv2d_forward


def case(name, x, w, frame=(0, 0), **keywords):
    """Return a row: shapes of x and w, what the function is told, the frame it means."""
    return pytest.param(x, w, keywords, frame, id=name)


GEOMETRY = pytest.mark.parametrize(
    "x_shape, w_shape, keywords, frame",
    [  # one line for each way a window can meet an end
        case("one-window", (1, 1, 3), (1, 1, 3)),
        case("one-sample", (1, 1, 1), (1, 1, 1)),
        case("one-tap", (2, 3, 5), (2, 3, 1)),
        case("window-is-the-signal", (2, 2, 4), (3, 2, 4)),
        case("keeps-size", (2, 2, 5), (3, 2, 3), (1, 1), padding=1),
        case("remainder-is-dropped", (1, 2, 8), (2, 2, 3), stride=3),
        case("gaps-between-windows", (1, 1, 8), (2, 1, 2), stride=3),
        case("windows-in-padding", (1, 2, 4), (2, 2, 3), (3, 3), padding=3, stride=2),
        case("longer-than-the-signal", (1, 1, 2), (1, 1, 5), (2, 2), padding=2),
        case("asymmetric", (2, 1, 5), (2, 1, 3), (0, 2), padding=(0, 2)),
        case("asymmetric-stride", (2, 1, 7), (2, 1, 3), (3, 1), padding=(3, 1), stride=4),
        case("valid", (1, 2, 6), (2, 2, 3), padding="valid"),
        case("same-odd", (1, 1, 6), (1, 1, 5), (2, 2), padding="same"),
        case("same-even", (1, 1, 6), (1, 1, 4), (1, 2), padding="same"),
        case("same-stride", (1, 1, 6), (1, 1, 3), (0, 1), padding="same", stride=2),
        case("same-dilation", (1, 1, 6), (1, 1, 2), (1, 2), padding="same", dilation=3),
        case("dilation", (2, 1, 9), (2, 1, 3), dilation=2),
        case(
            "dilation-stride",
            (1, 2, 13),
            (2, 2, 4),
            (2, 2),
            padding=2,
            stride=2,
            dilation=3,
        ),
        case("one-window-of-a-stride", (1, 1, 4), (1, 1, 3), stride=1000000),
        case("groups", (2, 4, 7), (6, 2, 3), groups=2),
        case("groups-stride", (1, 6, 8), (3, 2, 3), (1, 1), groups=3, stride=2, padding=1),
        case("depthwise", (2, 3, 9), (3, 1, 3), groups=3),
        case("depthwise-times-two", (1, 2, 6), (4, 1, 2), groups=2),
        case("long", (1, 7, 67), (5, 7, 3), stride=2),
    ],
)


def oracle(x, w, b, frame, stride=1, dilation=1, groups=1, **_):
    """Equation (1) in NumPy, sharing no line with the course."""
    padded = np.pad(x, ((0, 0), (0, 0), frame))
    reach = (w.shape[2] - 1) * dilation + 1
    windows = sliding_window_view(padded, reach, axis=2)[:, :, ::stride, ::dilation]
    y = [
        np.einsum("fcv,ncjv->nfj", filters, channels)
        for filters, channels in zip(
            np.split(w, groups), np.split(windows, groups, axis=1), strict=True
        )
    ]
    return np.concatenate(y, axis=1) + b[:, None]


def arrays(x_shape, w_shape, rng, dtype=np.float64):
    """Return x, w, b, normally distributed."""
    shapes = x_shape, w_shape, w_shape[:1]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


@GEOMETRY
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_forward_is_the_correlation(
    x_shape, w_shape, keywords, frame, dtype, tolerance, rng
):
    x, w, b = arrays(x_shape, w_shape, rng, dtype)
    y = conv1d_forward(x, w, b, **keywords)
    assert y.dtype == dtype
    expected = oracle(*(a.astype(float) for a in (x, w, b)), frame, **keywords)
    np.testing.assert_allclose(y, expected, tolerance, tolerance * np.abs(expected).max())


@GEOMETRY
def test_backward_is_the_slope(x_shape, w_shape, keywords, frame, rng):
    C, F = x_shape[1], w_shape[0]
    layer = Conv1d(C, F, w_shape[2], **keywords, rng=rng, dtype=np.float64)
    layer.params["bias"] = rng.normal(size=F)  # away from its initial 0
    check_layer(layer, rng.normal(size=x_shape), rng)


@GEOMETRY
def test_it_is_a_convolution_of_one_row(x_shape, w_shape, keywords, frame, rng):
    x, w, b = arrays(x_shape, w_shape, rng)
    keywords = keywords | {"padding": ((0, 0), frame)}
    for key in ("stride", "dilation"):
        keywords[key] = 1, keywords.get(key, 1)
    expected = conv2d_forward(x[:, :, None], w[:, :, None], b, **keywords)[:, :, 0]
    keywords = keywords | {"stride": keywords["stride"][1], "padding": frame}
    keywords["dilation"] = keywords["dilation"][1]
    found = conv1d_forward(x, w, b, **keywords)
    np.testing.assert_allclose(found, expected, 1e-12, 1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_pytorch_computes_the_same(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    refused = 0
    for _ in range(100):
        G, CG, FG, N = (int(n) for n in rng.integers(1, 4, 4))
        x = rng.normal(size=(N, G * CG, rng.integers(1, 12)))
        w = rng.normal(size=(G * FG, CG, rng.integers(1, 5)))
        b = rng.normal(size=G * FG)
        keywords = {"dilation": int(rng.integers(1, 4)), "groups": G}
        if rng.random() < 0.2:
            keywords["padding"] = "same"
        else:
            keywords["stride"], keywords["padding"] = map(int, rng.integers((1, 0), 4))
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
        try:
            expected = torch.nn.functional.conv1d(*leaves, **keywords)
        except RuntimeError:
            refused += 1
            with pytest.raises(ValueError, match="does not fit"):
                conv1d_forward(x, w, b, **keywords)
            continue
        y = conv1d_forward(x, w, b, **keywords)
        dy = rng.normal(size=y.shape)
        gradients = torch.autograd.grad(expected, leaves, torch.from_numpy(dy))
        found = y, *conv1d_backward(dy, x, w, **keywords)
        for a, t in zip(found, (expected, *gradients), strict=True):
            np.testing.assert_allclose(a, t.detach(), 1e-11, 1e-11, err_msg=str(keywords))
    assert 0 < refused < 50


def test_worked_example_by_hand():
    x = np.array([[[1.0, 2.0, 0.0, 4.0]]])
    w = np.array([[[1.0, -1.0, 3.0]]])
    y = conv1d_forward(x, w, np.array([10.0]), padding=(1, 0))
    np.testing.assert_array_equal(y, [[[15, 9, 24]]])


def test_nan_and_infinity_stay_where_they_are(rng):
    x, w, _ = arrays((1, 1, 9), (1, 1, 2), rng)
    x[0, 0, 0], x[0, 0, 8] = np.nan, np.inf
    y = conv1d_forward(x, w)[0, 0]
    assert np.argwhere(np.isnan(y)).tolist() == [[0]]
    assert np.argwhere(np.isinf(y)).tolist() == [[7]]


def test_empty_batch(rng):
    _, w, b = arrays((1, 2, 5), (3, 2, 3), rng)
    x = np.empty((0, 2, 5))
    y = conv1d_forward(x, w, b)
    assert y.shape == (0, 3, 3)
    dx, dw, db = conv1d_backward(y, x, w)
    assert dx.shape == x.shape
    np.testing.assert_array_equal(dw, np.zeros_like(w))
    np.testing.assert_array_equal(db, np.zeros_like(b))


def test_no_bias_is_a_bias_of_zero(rng):
    x, w, b = arrays((2, 2, 5), (3, 2, 3), rng)
    expected = conv1d_forward(x, w, np.zeros_like(b))
    np.testing.assert_array_equal(conv1d_forward(x, w), expected)
    layer = Conv1d(2, 3, 3, bias=False, rng=rng, dtype=np.float64)
    assert layer.params.keys() == {"weight"}
    check_layer(layer, x, rng)


def test_weight_starts_as_he_says(rng):
    weight = Conv1d(32, 64, 9, groups=2, rng=rng).params["weight"]
    assert weight.shape == (64, 16, 9) and weight.dtype == np.float32
    np.testing.assert_allclose(weight.var(), 2 / (16 * 9), rtol=0.05)
    np.testing.assert_allclose(weight.mean(), 0, atol=0.01)


X, W, B = np.zeros((2, 4, 5)), np.zeros((6, 4, 3)), np.zeros(6)


@pytest.mark.parametrize(
    "x, w, b, keywords, error, says",
    [
        (X[0], W, B, {}, ValueError, r"x has shape \(4, 5\); it must be \(N, C, W\)"),
        (X, W[0], B, {}, ValueError, r"w has shape \(4, 3\); it must be \(F, C/G, K\)"),
        (X, W, W, {}, ValueError, r"b has shape .* it must be \(F,\)"),
        (X, W, B[:5], {}, ValueError, r"b has shape \(5,\); one bias for each filter"),
        (X.tolist(), W, B, {}, TypeError, "x is a list"),
        (X.astype(int), W, B, {}, TypeError, "x has dtype int64"),
        (X, W.astype(np.float32), B, {}, TypeError, "w is float32 but the other"),
        (X, W, B.astype(np.float32), {}, TypeError, "b is float32 but the other"),
        (X[:, :3], W, B, {}, ValueError, "x has 3 channels, w expects 4"),
        (X, W[:, :1], B, {"groups": 2}, ValueError, "w expects 2 .1 in each of 2"),
        (X, W, B, {"groups": 4}, ValueError, "groups=4 must divide the 4 .* 6 filters"),
        (X, W, B, {"groups": 0}, ValueError, "groups must be at least 1, not 0"),
        (X, W[:, :, :0], B, {}, ValueError, "a filter needs at least 1 tap"),
        (X, W, B, {"stride": 0}, ValueError, "stride must be at least 1, not 0"),
        (X, W, B, {"stride": 2**31}, ValueError, "stride must be at most 2147483647"),
        (X, W, B, {"stride": (1, 1)}, TypeError, r"stride must be a whole number, not \(1"),
        (X, W, B, {"dilation": 0}, ValueError, "dilation must be at least 1, not 0"),
        (X, W, B, {"dilation": 3}, ValueError, "spans 7 pixels does not fit in 5"),
        (X, W, B, {"padding": -1}, ValueError, "padding must be at least 0, not -1"),
        (X, W, B, {"padding": (0, -1)}, ValueError, "padding must be at least 0, not -1"),
        (X, W, B, {"padding": (1, 1, 1)}, ValueError, r"an int or \(before, after\), not"),
        (X, W, B, {"padding": "sam"}, ValueError, 'padding must be "same" or "valid"'),
        (X, W, B, {"padding": None}, TypeError, "padding must be a whole number"),
        (X[:, :, :2], W, B, {}, ValueError, "spans 3 pixels does not fit in 2"),
    ],
)
def test_what_cannot_be_is_refused(x, w, b, keywords, error, says):
    with pytest.raises(error, match=says):
        conv1d_forward(x, w, b, **keywords)


@pytest.mark.parametrize(
    "dy, error, says",
    [
        (np.zeros((2, 6, 4)), ValueError, r"dy has shape .*y for these .*\(2, 6, 3\)"),
        (np.zeros((6, 3)), ValueError, "it must be .N, F, WO."),
        (np.zeros((2, 6, 3), np.float32), TypeError, "dy is float32 but"),
        (2.0, TypeError, "dy is a float"),
    ],
)
def test_wrong_dy_is_refused(dy, error, says):
    with pytest.raises(error, match=says):
        conv1d_backward(dy, X, W)


@pytest.mark.parametrize(
    "arguments, keywords, error, says",
    [
        ((0, 2, 3), {}, ValueError, "in_channels must be at least 1"),
        ((1, 2.0, 3), {}, TypeError, "out_channels must be a whole number"),
        ((1, 2, 0), {}, ValueError, "kernel_size must be at least 1"),
        ((4, 6, 3), {"groups": 3}, ValueError, "groups=3 must divide in_channels=4"),
        ((1, 2, 3), {"stride": 0}, ValueError, "stride must be at least 1"),
        ((1, 2, 3), {"padding": "sam"}, ValueError, 'must be "same" or "valid"'),
        ((1, 2, 3), {"dilation": 0}, ValueError, "dilation must be at least 1"),
    ],
)
def test_impossible_layer_is_refused(arguments, keywords, error, says, rng):
    with pytest.raises(error, match=says):
        Conv1d(*arguments, **keywords, rng=rng)
