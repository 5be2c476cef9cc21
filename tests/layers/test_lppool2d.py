"""course/layers/lppool2d.py: (1) against NumPy, (2) against slopes, both PyTorch."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from course.checks import check_layer
from course.layers import LPPool2d, lppool2d_backward, lppool2d_forward
from tests.layers.test_maxpool2d import GEOMETRY

DTYPES = pytest.mark.parametrize("dtype, close", [(np.float32, 2e-6), (np.float64, 1e-12)])


def windows(a, kernel, frame, stride=None, dilation=1, **_):
    """Return what each window sees, (..., KH, KW), of a framed in zeros."""
    KH, KW = np.broadcast_to(kernel, 2)
    SH, SW = np.broadcast_to(kernel if stride is None else stride, 2)
    DH, DW = np.broadcast_to(dilation, 2)
    padded = np.pad(a, ((0, 0), (0, 0), *frame))
    reach = (KH - 1) * DH + 1, (KW - 1) * DW + 1
    view = sliding_window_view(padded, reach, axis=(2, 3))
    return view[:, :, ::SH, ::SW, ::DH, ::DW]


def oracle(x, kernel, frame, **keywords):
    """Equation (1): NumPy's norm of every window."""
    seen = windows(np.float64(x), kernel, frame, **keywords)
    return np.linalg.norm(seen.reshape(*seen.shape[:4], -1), axis=4)


def oracle_dx(x, dy, kernel, frame, **keywords):
    """Equation (2): every window gives dy * pixel / y to the pixels it sees."""
    places = np.arange(1, x.size + 1).reshape(x.shape)
    seen = windows(places, kernel, frame, **keywords)  # 0 is padding
    y = oracle(x, kernel, frame, **keywords)
    flat, dx = np.append(0, np.float64(x)), np.zeros(x.size + 1)
    for index, g in np.ndenumerate(np.float64(dy)):
        where = seen[index].ravel()
        if y[index]:
            dx[where] += g * flat[where] / y[index]
    return dx[1:].reshape(x.shape)


@GEOMETRY
@DTYPES
def test_both_ways_as_defined(shape, kernel, keywords, frame, dtype, close, rng):
    x = rng.normal(size=shape).astype(dtype)
    y = lppool2d_forward(x, 2, kernel, **keywords)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, oracle(x, kernel, frame, **keywords), close)
    dy = rng.normal(size=y.shape).astype(dtype)
    dx = lppool2d_backward(dy, x, y, 2, kernel, **keywords)
    assert dx.dtype == dtype
    expected = oracle_dx(x, dy, kernel, frame, **keywords)
    np.testing.assert_allclose(dx, expected, close, close * np.abs(expected).max())


@GEOMETRY
def test_backward_is_the_slope(shape, kernel, keywords, frame, rng):
    x = rng.choice([-1, 1], shape) * (0.5 + rng.random(shape))  # away from the kink at 0
    check_layer(LPPool2d(2, kernel, **keywords), x, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_window_of_zeros_has_gradient_zero(dtype):
    x = np.zeros((1, 1, 2, 4), dtype)
    x[0, 0, :, 2:] = [[3, 0], [0, 4]]
    y = lppool2d_forward(x, 2, 2)
    np.testing.assert_array_equal(y, [[[[0, 5]]]])
    dx = lppool2d_backward(np.array([[[[7, 5]]]], dtype), x, y, 2, 2)
    np.testing.assert_allclose(dx[0, 0], x[0, 0], 1e-6)


@DTYPES
def test_large_numbers_do_not_overflow(dtype, close, rng):
    x = (1e4 * rng.choice([-1, 1], (1, 2, 6, 6))).astype(dtype)
    y = lppool2d_forward(x, 2, 3)
    np.testing.assert_allclose(y, np.full_like(y, 3e4), close)
    dx = lppool2d_backward(np.ones_like(y), x, y, 2, 3)
    np.testing.assert_allclose(dx, x / 3e4, close)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_goes_to_every_window_that_sees_it(value):
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 1] = value
    y = lppool2d_forward(x, 2, 3, 1, padding=1)
    expected = np.zeros((5, 5))
    expected[1:4, 0:3] = abs(value)
    np.testing.assert_array_equal(y[0, 0], expected)


def test_pytorch_computes_the_same(rng):
    """Without ceil_mode: there PyTorch scales what hangs over the edge."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for _ in range(100):
        kernel, stride = (tuple(int(n) for n in rng.integers(1, 5, 2)) for _ in range(2))
        height, width = (int(rng.integers(K, 12)) for K in kernel)
        x = rng.normal(size=(2, 3, height, width))
        leaf = torch.tensor(x, requires_grad=True)
        expected = torch.nn.LPPool2d(2, kernel, stride)(leaf)
        y = lppool2d_forward(x, 2, kernel, stride)
        np.testing.assert_allclose(y, expected.detach(), 1e-12)
        dy = rng.normal(size=y.shape)
        (expected_dx,) = torch.autograd.grad(expected, leaf, torch.from_numpy(dy))
        dx = lppool2d_backward(dy, x, y, 2, kernel, stride)
        np.testing.assert_allclose(dx, expected_dx, 1e-12, 1e-12)


def test_empty_batch():
    x = np.empty((0, 2, 4, 4))
    y = lppool2d_forward(x, 2, 2)
    assert y.shape == (0, 2, 2, 2)
    assert lppool2d_backward(y, x, y, 2, 2).shape == x.shape


X, Y = np.zeros((1, 2, 5, 6)), np.zeros((1, 2, 2, 3))


@pytest.mark.parametrize(
    "x, norm, kernel, keywords, error, says",
    [
        (X[0], 2, 2, {}, ValueError, r"x has shape \(2, 5, 6\); it must be"),
        (X.astype(int), 2, 2, {}, TypeError, "x has dtype int64"),
        (X, 1, 2, {}, ValueError, "norm_type is 1; it must be 2"),
        (X, "2", 2, {}, ValueError, "norm_type is '2'; it must be 2"),
        (X, 2, 0, {}, ValueError, "kernel_size must be at least 1, not 0"),
        (X, 2, 2, {"stride": 0}, ValueError, "stride must be at least 1, not 0"),
        (X, 2, 2, {"dilation": 0}, ValueError, "dilation must be at least 1, not 0"),
        (X, 2, 2, {"padding": 2}, ValueError, "window 0 along the height sees padding"),
        (X, 2, 6, {}, ValueError, "spans 6 pixels does not fit in 5"),
    ],
)
def test_what_cannot_be_is_refused(x, norm, kernel, keywords, error, says):
    with pytest.raises(error, match=says):
        lppool2d_forward(x, norm, kernel, **keywords)


@pytest.mark.parametrize(
    "dy, x, y, error, says",
    [
        (Y[:, :, :1], X, Y, ValueError, "dy has shape .* y for this x"),
        (Y, X, Y[:, :, :1], ValueError, "y has shape .* the shape of dy"),
        (Y.astype(np.float32), X, Y, TypeError, "dy is float32 but the other arrays"),
        (Y, X, Y.astype(np.float32), TypeError, "y is float32 but the other arrays"),
    ],
)
def test_backward_refuses_what_does_not_belong_together(dy, x, y, error, says):
    with pytest.raises(error, match=says):
        lppool2d_backward(dy, x, y, 2, 2)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ((3, 2), "norm_type is 3"),
        ((2, 0), "kernel_size must be at least 1"),
        ((2, 2, 0), "stride must be at least 1"),
        ((2, 2, 2, False, "sam"), 'must be "same" or "valid"'),
    ],
)
def test_impossible_layer_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        LPPool2d(*arguments)
