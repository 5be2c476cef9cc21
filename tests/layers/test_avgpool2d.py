"""course/layers/avgpool2d.py: (1) against NumPy, (2) against slopes, both PyTorch."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from course.checks import check_layer
from course.layers import AvgPool2d, avgpool2d_backward, avgpool2d_forward
from tests.layers.test_maxpool2d import GEOMETRY as MAXPOOL

GEOMETRY = pytest.mark.parametrize(  # the table of max pooling, without dilation
    "shape, kernel, keywords, frame",
    [row for row in MAXPOOL.args[1] if "dilation" not in row.values[2]],
)
DTYPES = pytest.mark.parametrize("dtype, close", [(np.float32, 2e-6), (np.float64, 1e-12)])


def windows(a, kernel, frame, stride=None, **_):
    """Return what each window sees, (..., KH, KW), of a framed in zeros."""
    SH, SW = np.broadcast_to(kernel if stride is None else stride, 2)
    padded = np.pad(a, ((0, 0), (0, 0), *frame))
    kernel = tuple(np.broadcast_to(kernel, 2))
    return sliding_window_view(padded, kernel, axis=(2, 3))[:, :, ::SH, ::SW]


def oracle(x, kernel, frame, **keywords):
    """Equation (1) in NumPy: the sum of the pixels seen, by how many there are."""
    sums = windows(np.float64(x), kernel, frame, **keywords).sum(axis=(4, 5))
    return sums / windows(np.ones_like(x), kernel, frame, **keywords).sum(axis=(4, 5))


def test_the_table_has_its_rows():
    assert len(GEOMETRY.args[1]) >= 15


@GEOMETRY
@DTYPES
def test_forward_is_the_mean(shape, kernel, keywords, frame, dtype, close, rng):
    x = rng.normal(size=shape).astype(dtype)
    y = avgpool2d_forward(x, kernel, **keywords)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, oracle(x, kernel, frame, **keywords), close, close)


@GEOMETRY
@DTYPES
def test_backward_shares_the_gradient(shape, kernel, keywords, frame, dtype, close, rng):
    """dx is what y = sum of x / count says: <dy, y(x)> = <dx, x>, for every x."""
    x = rng.normal(size=shape).astype(dtype)
    dy = rng.normal(size=oracle(x, kernel, frame, **keywords).shape).astype(dtype)
    dx = avgpool2d_backward(dy, shape, kernel, **keywords)
    assert dx.dtype == dtype
    expected = np.zeros(shape)
    for index in np.ndindex(shape):  # the window sums of one pixel of 1
        one = np.zeros(shape)
        one[index] = 1
        expected[index] = np.sum(oracle(one, kernel, frame, **keywords) * dy)
    np.testing.assert_allclose(dx, expected, close, 4 * close)


@GEOMETRY
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_backward_is_the_slope(shape, kernel, keywords, frame, count_include_pad, rng):
    layer = AvgPool2d(kernel, **keywords, count_include_pad=count_include_pad)
    check_layer(layer, rng.normal(size=shape), rng)


ASKED = {"count_include_pad": True}
BELOW = {"padding": ((0, 1), (0, 0)), "stride": (3, 2), "ceil_mode": True}


@pytest.mark.parametrize(
    "keywords, seen, counts",
    [
        ({"padding": 1, "stride": 2}, [[4, 6], [6, 9]], [[4, 6], [6, 9]]),
        ({"padding": 1, "stride": 2, **ASKED}, [[4, 6], [6, 9]], [[9, 9], [9, 9]]),
        ({"stride": 2, "ceil_mode": True}, [[9, 6], [6, 4]], [[9, 6], [6, 4]]),
        ({"stride": 2, "ceil_mode": True, **ASKED}, [[9, 6], [6, 4]], [[9, 6], [6, 4]]),
        # the lower windows reach one row of padding, and one beyond it
        (BELOW, [[9, 6], [3, 2]], [[9, 6], [3, 2]]),
        (BELOW | ASKED, [[9, 6], [3, 2]], [[9, 6], [6, 4]]),
    ],
)
def test_what_is_counted(keywords, seen, counts):
    """Windows of 3 x 3 on 4 x 4 ones; what they see and what is counted, by hand."""
    y = avgpool2d_forward(np.ones((1, 1, 4, 4)), 3, **keywords)
    np.testing.assert_allclose(y[0, 0], np.divide(seen, counts), 1e-15)


def test_padding_is_not_counted_unless_asked():
    x = np.full((1, 1, 3, 3), 5.0)
    np.testing.assert_array_equal(avgpool2d_forward(x, 3, 1, 1), x)
    y = avgpool2d_forward(x, 3, 1, 1, count_include_pad=True)
    np.testing.assert_allclose(y[0, 0, 0], np.array([20, 30, 20]) / 9, 1e-15)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_goes_to_every_window_that_sees_it(value, dtype):
    x = np.ones((1, 1, 5, 5), dtype)
    x[0, 0, 2, 1] = value
    y = avgpool2d_forward(x, 3, 1, 1)
    expected = np.ones((5, 5))
    expected[1:4, 0:3] = value
    np.testing.assert_array_equal(y[0, 0], expected)
    dy = np.ones((1, 1, 2, 2), dtype)
    dy[0, 0, 0, 1] = value
    dx = avgpool2d_backward(dy, (1, 1, 4, 4), 2)
    np.testing.assert_array_equal(
        ~np.isfinite(dx[0, 0]), np.kron([[0, 1], [0, 0]], [[1] * 2] * 2)
    )


def test_large_numbers_keep_their_digits(rng):
    x = (1e4 * rng.choice([-1, 1], (1, 1, 6, 6))).astype(np.float32)
    expected = oracle(x, 3, ((0, 0), (0, 0)))
    np.testing.assert_allclose(avgpool2d_forward(x, 3), expected, 2e-6, 2e-2)


def test_empty_batch():
    x = np.empty((0, 2, 4, 4))
    y = avgpool2d_forward(x, 2)
    assert y.shape == (0, 2, 2, 2)
    assert avgpool2d_backward(y, x.shape, 2).shape == x.shape


X = np.zeros((1, 2, 5, 6))


@pytest.mark.parametrize(
    "x, kernel, keywords, error, says",
    [
        (X[0], 2, {}, ValueError, r"x has shape \(2, 5, 6\); it must be \(N, C, H, W\)"),
        (X.astype(int), 2, {}, TypeError, "x has dtype int64"),
        (X.tolist(), 2, {}, TypeError, "x is a list"),
        (X, 0, {}, ValueError, "kernel_size must be at least 1, not 0"),
        (X, 2.0, {}, TypeError, "kernel_size must be a whole number, not 2.0"),
        (X, 2, {"stride": 0}, ValueError, "stride must be at least 1, not 0"),
        (X, 2, {"padding": -1}, ValueError, "padding must be at least 0, not -1"),
        (X, 2, {"padding": "sam"}, ValueError, 'padding must be "same" or "valid"'),
        (X, 2, {"padding": 2}, ValueError, "window 0 along the height sees padding onl"),
        (X, 6, {}, ValueError, "spans 6 pixels does not fit in 5"),
        (X[:, :, :0], 1, {}, ValueError, "does not fit in 0"),
    ],
)
def test_what_cannot_be_is_refused(x, kernel, keywords, error, says):
    with pytest.raises(error, match=says):
        avgpool2d_forward(x, kernel, **keywords)


@pytest.mark.parametrize(
    "dy, input_shape, error, says",
    [
        (
            np.zeros((1, 2, 2, 3)),
            (1, 2, 5, 8),
            ValueError,
            "dy has shape .* y for this inp",
        ),
        (np.zeros((1, 2, 2, 3)), (2, 5, 6), ValueError, r"input_shape is \(2, 5, 6\); it"),
        (np.zeros((2, 2, 3)), X.shape, ValueError, "dy has shape .* it must be .N, C, HO"),
        (np.zeros((1, 2, 2, 3), int), X.shape, TypeError, "dy has dtype int64"),
    ],
)
def test_backward_refuses_what_does_not_belong_together(dy, input_shape, error, says):
    with pytest.raises(error, match=says):
        avgpool2d_backward(dy, input_shape, 2)


@pytest.mark.parametrize(
    "keywords, says",
    [
        ({"kernel_size": 0}, "kernel_size must be at least 1"),
        ({"kernel_size": 2, "stride": 0}, "stride must be at least 1"),
        ({"kernel_size": 2, "padding": "sam"}, 'must be "same" or "valid"'),
    ],
)
def test_impossible_layer_is_refused(keywords, says):
    with pytest.raises(ValueError, match=says):
        AvgPool2d(**keywords)


@pytest.mark.parametrize("dtype, close", [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_pytorch_computes_the_same(dtype, close, rng):
    """On random windows, ceil_mode and padding counted or not."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for _ in range(200):
        kernel, stride = (tuple(int(n) for n in rng.integers(1, 5, 2)) for _ in range(2))
        padding = tuple(int(rng.integers(K // 2 + 1)) for K in kernel)
        least = [K - 2 * P for K, P in zip(kernel, padding, strict=True)]
        height, width = (int(rng.integers(max(n, 1), 12)) for n in least)
        keywords = {
            "stride": stride,
            "padding": padding,
            "ceil_mode": bool(rng.integers(2)),
            "count_include_pad": bool(rng.integers(2)),
        }
        x = rng.normal(size=(2, 3, height, width)).astype(dtype)
        leaf = torch.tensor(x, requires_grad=True)
        expected = torch.nn.AvgPool2d(kernel, **keywords)(leaf)
        what = f"x {x.shape}, kernel {kernel}, {keywords}"
        y = avgpool2d_forward(x, kernel, **keywords)
        np.testing.assert_allclose(y, expected.detach(), close, close, err_msg=what)
        dy = rng.normal(size=y.shape).astype(dtype)
        (expected_dx,) = torch.autograd.grad(expected, leaf, torch.from_numpy(dy))
        dx = avgpool2d_backward(dy, x.shape, kernel, **keywords)
        np.testing.assert_allclose(dx, expected_dx, close, close, err_msg=what)
