"""course/layers/conv_transpose2d.py: (1) against NumPy and as the transpose of conv2d."""

from itertools import product

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import (
    ConvTranspose2d,
    conv2d_backward,
    conv2d_forward,
    conv_transpose2d_backward,
    conv_transpose2d_forward,
)

NONE = (0, 0), (0, 0)


def case(name, x, w, size, frame=NONE, **keywords):
    """Return a row: shapes of x and w, size of y, what the function is told, the frame."""
    return pytest.param(x, w, keywords, size, frame, id=name)


GEOMETRY = pytest.mark.parametrize(
    "x_shape, w_shape, keywords, size, frame",
    [
        case("one-pixel", (1, 1, 1, 1), (1, 1, 1, 1), (1, 1)),
        case("one-stamp", (1, 1, 1, 1), (1, 2, 3, 2), (3, 2)),
        case("one-tap", (2, 3, 4, 5), (3, 2, 1, 1), (4, 5)),
        case("one-row", (1, 2, 1, 5), (2, 1, 1, 3), (1, 7)),
        case("one-column", (1, 2, 5, 1), (2, 1, 3, 1), (7, 1)),
        case("overlap", (2, 2, 3, 4), (2, 3, 3, 3), (5, 6)),
        case("tiles", (2, 2, 3, 2), (2, 3, 2, 2), (6, 4), stride=2),
        case("gaps", (1, 1, 3, 2), (1, 2, 2, 2), (8, 5), stride=3),
        case(
            "doubles",
            (1, 2, 3, 4),
            (2, 2, 4, 4),
            (6, 8),
            ((1, 1), (1, 1)),
            stride=2,
            padding=1,
        ),
        case(
            "output-padding",
            (1, 2, 3, 4),
            (2, 2, 3, 3),
            (6, 8),
            ((1, 1), (1, 1)),
            stride=2,
            padding=1,
            output_padding=1,
        ),
        case(
            "output-padding-beyond-every-stamp",
            (1, 1, 2, 2),
            (1, 2, 2, 1),
            (8, 6),
            stride=4,
            output_padding=(2, 1),
        ),
        case(
            "output-padding-below-the-dilation",
            (1, 1, 2, 3),
            (1, 1, 2, 2),
            (5, 6),
            dilation=(3, 2),
            output_padding=(0, 1),
        ),
        case(
            "height-first",
            (1, 2, 3, 4),
            (2, 2, 2, 3),
            (6, 9),
            ((1, 1), (2, 2)),
            stride=(2, 3),
            padding=(1, 2),
            output_padding=(0, 1),
            dilation=(3, 1),
        ),
        case(
            "asymmetric",
            (2, 1, 3, 4),
            (1, 2, 3, 2),
            (5, 4),
            ((0, 2), (3, 1)),
            stride=(2, 2),
            padding=((0, 2), (3, 1)),
        ),
        case("valid", (1, 1, 3, 3), (1, 1, 3, 3), (7, 7), padding="valid", stride=2),
        case("same", (1, 2, 3, 4), (2, 1, 3, 2), (3, 4), ((1, 1), (0, 1)), padding="same"),
        case(
            "same-stride",
            (1, 1, 3, 2),
            (1, 1, 5, 3),
            (6, 4),
            ((1, 2), (0, 1)),
            padding="same",
            stride=2,
        ),
        case("same-gaps", (1, 1, 3, 2), (1, 1, 2, 1), (9, 6), padding="same", stride=3),
        case("dilation", (2, 1, 3, 4), (1, 2, 3, 2), (7, 7), dilation=(2, 3)),
        case(
            "dilation-stride-padding",
            (1, 2, 4, 3),
            (2, 2, 3, 3),
            (7, 5),
            ((2, 2), (2, 2)),
            stride=2,
            padding=2,
            dilation=2,
        ),
        case("groups", (2, 4, 3, 2), (4, 3, 2, 2), (4, 3), groups=2),
        case("groups-stride", (1, 6, 2, 3), (6, 1, 3, 3), (5, 7), groups=3, stride=2),
        case("depthwise", (2, 3, 3, 3), (3, 1, 3, 3), (5, 5), groups=3),
        case(
            "stamps-cut-on-all-sides",
            (1, 1, 2, 2),
            (1, 1, 5, 5),
            (2, 2),
            ((2, 2), (2, 2)),
            padding=2,
        ),
        case("one-pixel-of-a-stride", (1, 1, 1, 1), (1, 1, 2, 2), (2, 2), stride=1000000),
    ],
)


def oracle(x, w, b, size, frame, stride=1, dilation=1, groups=1, **_):
    """Equation (1), stamp by stamp, sharing no line with the course."""
    (SH, SW), (DH, DW) = np.broadcast_to(stride, 2), np.broadcast_to(dilation, 2)
    (top, _), (left, _) = frame
    y = np.zeros((len(x), w.shape[1] * groups, *size)) + b[:, None, None]
    per_group = x.shape[1] // groups, w.shape[1]
    for c, p, q, u, v in product(*map(range, (*x.shape[1:], *w.shape[2:]))):
        i, j = p * SH + u * DH - top, q * SW + v * DW - left
        if 0 <= i < size[0] and 0 <= j < size[1]:
            group = c // per_group[0]
            filters = slice(group * per_group[1], (group + 1) * per_group[1])
            y[:, filters, i, j] += np.outer(x[:, c, p, q], w[c, :, u, v])
    return y


def arrays(x_shape, w_shape, rng, groups=1, dtype=np.float64):
    """Return x, w, b, normally distributed."""
    shapes = x_shape, w_shape, w_shape[1] * groups
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


@GEOMETRY
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_forward_is_the_sum_of_stamps(
    x_shape, w_shape, keywords, size, frame, dtype, tolerance, rng
):
    x, w, b = arrays(x_shape, w_shape, rng, keywords.get("groups", 1), dtype)
    y = conv_transpose2d_forward(x, w, b, **keywords)
    assert y.dtype == dtype
    expected = oracle(*(a.astype(float) for a in (x, w, b)), size, frame, **keywords)
    np.testing.assert_allclose(y, expected, tolerance, tolerance * np.abs(expected).max())


@GEOMETRY
def test_backward_is_the_slope(x_shape, w_shape, keywords, size, frame, rng):
    C, F = x_shape[1], w_shape[1] * keywords.get("groups", 1)
    layer = ConvTranspose2d(C, F, w_shape[2:], **keywords, rng=rng, dtype=np.float64)
    layer.params["bias"] = rng.normal(size=F)  # away from its initial 0
    assert layer.params["weight"].shape == w_shape
    check_layer(layer, rng.normal(size=x_shape), rng)


@GEOMETRY
def test_float32_gradients_are_the_float64_ones(
    x_shape, w_shape, keywords, size, frame, rng
):
    x, w, _ = arrays(x_shape, w_shape, rng)
    dy = rng.normal(size=conv_transpose2d_forward(x, w, **keywords).shape)
    dy, x, w = (a.astype(np.float32) for a in (dy, x, w))
    exact = conv_transpose2d_backward(*(a.astype(float) for a in (dy, x, w)), **keywords)
    rough = conv_transpose2d_backward(dy, x, w, **keywords)
    for name, a, r in zip(["dx", "dw", "db"], exact, rough, strict=True):
        assert r.dtype == np.float32
        np.testing.assert_allclose(r, a, 0, 2e-6 * np.abs(a).max(), err_msg=name)


def adjoint_cases():
    """Return strides, dilations, taps, paddings and sizes, of which some fit together."""
    for S, D, K, P in product((1, 2, 3), (1, 2), (1, 2, 3), (0, 1)):
        for H in range(1, 9):
            if H + 2 * P >= D * (K - 1) + 1 and (K > 1 or P == 0):
                yield S, D, K, P, H


def test_it_is_the_transpose_of_convolution(rng):
    """<conv2d x, g> = <x, conv_transpose2d g>, and output_padding restores every size."""
    extras = set()
    for S, D, K, P, H in adjoint_cases():
        keywords = {"stride": (S, 1), "padding": (P, 1), "dilation": (D, 2)}
        x, w = rng.normal(size=(2, 4, H, 7)), rng.normal(size=(6, 2, K, 3))
        y = conv2d_forward(x, w, **keywords, groups=2)
        g = rng.normal(size=y.shape)
        extra = (H + 2 * P - D * (K - 1) - 1) % S  # the remainder that conv2d dropped
        back = conv_transpose2d_forward(
            g, w, None, **keywords, output_padding=(extra, 0), groups=2
        )
        assert back.shape == x.shape
        np.testing.assert_allclose(np.vdot(y, g), np.vdot(x, back), 1e-12, 1e-12)
        dx, _, _ = conv2d_backward(g, x, w, **keywords, groups=2)
        np.testing.assert_allclose(back, dx, 1e-12, 1e-12)
        extras.add((S, extra))
    assert extras == {(S, extra) for S in (1, 2, 3) for extra in range(S)}


def test_same_is_the_transpose_of_same(rng):
    for S, K in product((1, 2, 3), (1, 2, 3, 4, 5)):
        x, w = rng.normal(size=(1, 1, 4 * S, 3 * S)), rng.normal(size=(1, 1, K, K))
        y = conv2d_forward(x, w, stride=S, padding="same")
        assert y.shape == (1, 1, 4, 3)
        g = rng.normal(size=y.shape)
        back = conv_transpose2d_forward(g, w, stride=S, padding="same")
        np.testing.assert_allclose(np.vdot(y, g), np.vdot(x, back), 1e-12, 1e-12)


@pytest.mark.parametrize("dtype, close", [(np.float32, 2e-5), (np.float64, 1e-11)])
def test_pytorch_computes_the_same(dtype, close, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    refused = 0
    for _ in range(150):
        G, CG, FG, N = (int(n) for n in rng.integers(1, 4, 4))
        x = rng.normal(size=(N, G * CG, *rng.integers(1, 7, 2))).astype(dtype)
        w = rng.normal(size=(G * CG, FG, *rng.integers(1, 5, 2))).astype(dtype)
        b = rng.normal(size=G * FG).astype(dtype)
        keywords = {
            "stride": tuple(map(int, rng.integers(1, 4, 2))),
            "padding": tuple(map(int, rng.integers(0, 3, 2))),
            "output_padding": tuple(map(int, rng.integers(0, 3, 2))),
            "groups": G,
            "dilation": tuple(map(int, rng.integers(1, 4, 2))),
        }
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
        try:
            expected = torch.nn.functional.conv_transpose2d(*leaves, **keywords)
        except RuntimeError:
            expected = torch.empty(0)
        if not expected.numel():  # PyTorch also makes images without pixels
            refused += 1
            with pytest.raises(ValueError, match=r"output_padding is|y would have"):
                conv_transpose2d_forward(x, w, b, **keywords)
            continue
        y = conv_transpose2d_forward(x, w, b, **keywords)
        dy = rng.normal(size=y.shape).astype(dtype)
        gradients = torch.autograd.grad(expected, leaves, torch.from_numpy(dy))
        found = y, *conv_transpose2d_backward(dy, x, w, **keywords)
        for a, t in zip(found, (expected, *gradients), strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, t.detach(), close, close, err_msg=str(keywords))
    assert 10 < refused < 100


def test_worked_example_by_hand():
    """A pixel stamps the filter, times itself; where two stamps overlap they add."""
    x = np.array([[1.0, 2.0], [0.0, -1.0]])[None, None]
    w = np.array([[1.0, 2.0, 3.0]])[None, None]
    y = conv_transpose2d_forward(x, w, np.array([10.0]), stride=(1, 2))
    np.testing.assert_array_equal(y[0, 0], [[11, 12, 15, 14, 16], [10, 10, 9, 8, 7]])


def test_what_no_filter_reaches_is_the_bias():
    x, w = np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1))
    y = conv_transpose2d_forward(x, w, np.array([5.0]), stride=3, output_padding=2)
    expected = np.full((6, 6), 5)
    expected[::3, ::3] = 6
    np.testing.assert_array_equal(y[0, 0], expected)


def test_nan_and_infinity_stay_where_they_are(rng):
    x, w, _ = arrays((1, 1, 4, 4), (1, 1, 2, 2), rng)
    w = np.abs(w)
    x[0, 0, 0, 0], x[0, 0, 3, 3] = np.nan, np.inf
    y = conv_transpose2d_forward(x, w, stride=2)[0, 0]
    corner = [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert np.argwhere(np.isnan(y)).tolist() == corner
    assert (np.argwhere(np.isinf(y)) - 6).tolist() == corner


def test_empty_batch(rng):
    _, w, b = arrays((1, 2, 5, 5), (2, 3, 3, 3), rng)
    x = np.empty((0, 2, 5, 5))
    y = conv_transpose2d_forward(x, w, b, 2)
    assert y.shape == (0, 3, 11, 11)
    dx, dw, db = conv_transpose2d_backward(y, x, w, 2)
    assert dx.shape == x.shape
    np.testing.assert_array_equal(dw, np.zeros_like(w))
    np.testing.assert_array_equal(db, np.zeros_like(b))


def test_no_bias_is_a_bias_of_zero(rng):
    x, w, b = arrays((2, 2, 3, 4), (2, 3, 3, 3), rng)
    expected = conv_transpose2d_forward(x, w, np.zeros_like(b))
    np.testing.assert_array_equal(conv_transpose2d_forward(x, w), expected)
    layer = ConvTranspose2d(2, 3, 3, bias=False, rng=rng, dtype=np.float64)
    assert layer.params.keys() == {"weight"}
    check_layer(layer, x, rng)


def test_weight_starts_so_that_y_varies_twice_as_x_does(rng):
    """A pixel of y sees C/G*KH*KW/(SH*SW) products; He's variance makes 2 of their sum."""
    layer = ConvTranspose2d(64, 32, 4, 2, 1, groups=2, rng=rng)
    weight = layer.params["weight"]
    assert weight.shape == (64, 16, 4, 4) and weight.dtype == np.float32
    np.testing.assert_allclose(weight.var(), 2 / (32 * 4 * 4 / 4), rtol=0.05)
    y = layer(rng.normal(size=(8, 64, 8, 8)).astype(np.float32))
    np.testing.assert_allclose(y[:, :, 2:-2, 2:-2].var(), 2, rtol=0.1)


X, W, B = np.zeros((2, 4, 5, 6)), np.zeros((4, 6, 3, 3)), np.zeros(6)


@pytest.mark.parametrize(
    "x, w, b, keywords, error, says",
    [
        (X[0], W, B, {}, ValueError, r"x has shape \(4, 5, 6\); it must be \(N, C"),
        (X, W[0], B, {}, ValueError, r"w has shape \(6, 3, 3\); it must be \(C, F/G"),
        (X, W, W, {}, ValueError, r"b has shape .* it must be \(F,\)"),
        (X, W, B[:5], {}, ValueError, r"b has shape \(5,\); one bias for each output"),
        (X.tolist(), W, B, {}, TypeError, "x is a list"),
        (X.astype(int), W, B, {}, TypeError, "x has dtype int64"),
        (X, W.astype(np.float32), B, {}, TypeError, "w is float32 but the other"),
        (X[:, :3], W, B, {}, ValueError, "x has 3 channels, w 4; they must be alike"),
        (X, W, B, {"groups": 3}, ValueError, "groups=3 must divide them"),
        (X, W, B, {"groups": 0}, ValueError, "groups must be at least 1, not 0"),
        (X, W[:, :, :0], B, {}, ValueError, "a filter at least 1 x 1 taps"),
        (X[:, :, :0], W, B, {}, ValueError, "an image needs at least 1 x 1 pixels"),
        (X, W, B, {"stride": 0}, ValueError, "stride must be at least 1, not 0"),
        (X, W, B, {"dilation": 0}, ValueError, "dilation must be at least 1, not 0"),
        (X, W, B, {"padding": -1}, ValueError, "padding must be at least 0, not -1"),
        (X, W, B, {"padding": "sam"}, ValueError, 'padding must be "same" or "valid"'),
        (
            X,
            W,
            B,
            {"padding": (4, 0)},
            ValueError,
            "y would have -1 x 8 pixels: x of 5 x 6",
        ),
        (
            X,
            W,
            B,
            {"output_padding": 1},
            ValueError,
            "output_padding is 1; it must be below",
        ),
        (X, W, B, {"output_padding": -1}, ValueError, "output_padding must be at least 0"),
        (
            X,
            W,
            B,
            {"output_padding": 1, "stride": 2, "padding": "same"},
            ValueError,
            'padding="same" fixes the size of y',
        ),
    ],
)
def test_what_cannot_be_is_refused(x, w, b, keywords, error, says):
    with pytest.raises(error, match=says):
        conv_transpose2d_forward(x, w, b, **keywords)


@pytest.mark.parametrize(
    "dy, error, says",
    [
        (np.zeros((2, 6, 7, 9)), ValueError, r"dy has shape .*y for these .*6, 7, 8\)"),
        (np.zeros((6, 7, 8)), ValueError, "it must be .N, F, HO, WO."),
        (np.zeros((2, 6, 7, 8), np.float32), TypeError, "dy is float32 but"),
        (2.0, TypeError, "dy is a float"),
    ],
)
def test_wrong_dy_is_refused(dy, error, says):
    with pytest.raises(error, match=says):
        conv_transpose2d_backward(dy, X, W)


@pytest.mark.parametrize(
    "arguments, keywords, error, says",
    [
        ((0, 2, 3), {}, ValueError, "in_channels must be at least 1"),
        ((1, 2.0, 3), {}, TypeError, "out_channels must be a whole number"),
        ((1, 2, 0), {}, ValueError, "kernel_size must be at least 1"),
        ((4, 6, 3), {"groups": 3}, ValueError, "groups=3 must divide in_channels=4"),
        ((1, 2, 3), {"stride": 0}, ValueError, "stride must be at least 1"),
        ((1, 2, 3), {"padding": "sam"}, ValueError, 'must be "same" or "valid"'),
        ((1, 2, 3), {"output_padding": 1}, ValueError, "output_padding is 1"),
        ((1, 2, 3), {"dilation": 0}, ValueError, "dilation must be at least 1"),
    ],
)
def test_impossible_layer_is_refused(arguments, keywords, error, says, rng):
    with pytest.raises(error, match=says):
        ConvTranspose2d(*arguments, **keywords, rng=rng)
