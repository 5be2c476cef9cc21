"""course/layers/zeropad2d.py: (1) against numpy.pad, (2) against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import ZeroPad2d, zeropad2d_backward, zeropad2d_forward

GEOMETRY = pytest.mark.parametrize(
    "shape, padding, frame",
    [
        ((2, 3, 4, 5), 0, ((0, 0), (0, 0))),
        ((2, 3, 4, 5), 2, ((2, 2), (2, 2))),
        ((1, 2, 3, 4), (1, 2), ((1, 1), (2, 2))),
        ((1, 2, 3, 4), ((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ((1, 1, 1, 1), ((0, 1), (2, 0)), ((0, 1), (2, 0))),
        ((2, 1, 3, 3), [[0, 0], [0, 3]], ((0, 0), (0, 3))),
        ((1, 2, 0, 3), 1, ((1, 1), (1, 1))),
    ],
)


@GEOMETRY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_frames_and_backward_crops(shape, padding, frame, dtype, rng):
    x = rng.normal(size=shape).astype(dtype)
    y = zeropad2d_forward(x, padding)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), (0, 0), *frame)))
    dx = zeropad2d_backward(y, shape, padding)
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx, x)


@GEOMETRY
def test_backward_is_the_slope(shape, padding, frame, rng):
    check_layer(ZeroPad2d(padding), rng.normal(size=shape), rng)


def test_pytorch_computes_the_same(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = rng.normal(size=(2, 3, 4, 5))
    left, right, top, bottom = 1, 2, 3, 4
    expected = torch.nn.ZeroPad2d((left, right, top, bottom))(torch.from_numpy(x))
    y = zeropad2d_forward(x, ((top, bottom), (left, right)))
    np.testing.assert_array_equal(y, expected)


def test_nan_is_copied_and_spreads_nowhere():
    x = np.full((1, 1, 1, 1), np.nan)
    y = zeropad2d_forward(x, 1)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0, 1, 1]]
    dy = np.full((1, 1, 3, 3), np.nan)
    dy[0, 0, 1, 1] = 1
    dx = zeropad2d_backward(dy, x.shape, 1)
    np.testing.assert_array_equal(dx, np.ones((1, 1, 1, 1)))


def test_empty_batch():
    y = zeropad2d_forward(np.empty((0, 2, 3, 3)), 1)
    assert y.shape == (0, 2, 5, 5)
    assert zeropad2d_backward(y, (0, 2, 3, 3), 1).shape == (0, 2, 3, 3)


def test_the_order_of_pytorch_is_refused_with_the_other_way_to_say_it():
    says = r"padding is \(1, 2, 3, 4\); it must be \(\(top, bottom\), \(left, right\)\)"
    with pytest.raises(ValueError, match=says + r".* is \(\(3, 4\), \(1, 2\)\)"):
        ZeroPad2d((1, 2, 3, 4))


X, Y = np.zeros((1, 2, 3, 4)), np.zeros((1, 2, 5, 6))


@pytest.mark.parametrize(
    "refuse, error, says",
    [
        (lambda: zeropad2d_forward(X[0], 1), ValueError, "x has shape .* it must be .N, C"),
        (lambda: zeropad2d_forward(X.astype(int), 1), TypeError, "x has dtype int64"),
        (
            lambda: zeropad2d_forward(X, -1),
            ValueError,
            "padding must be at least 0, not -1",
        ),
        (lambda: zeropad2d_forward(X, 1.0), TypeError, "padding must be a whole number"),
        (lambda: zeropad2d_forward(X, "same"), ValueError, "there is no window to say how"),
        (lambda: zeropad2d_forward(X, (1, 2, 3)), ValueError, "padding must be"),
        (
            lambda: zeropad2d_backward(Y, X.shape, 2),
            ValueError,
            "dy has shape .* y for this",
        ),
        (
            lambda: zeropad2d_backward(Y, X.shape[1:], 1),
            ValueError,
            r"input_shape is \(2, 3",
        ),
        (
            lambda: zeropad2d_backward(Y[0], X.shape, 1),
            ValueError,
            "it must be .N, C, HO, W",
        ),
        (lambda: ZeroPad2d(-1), ValueError, "padding must be at least 0"),
    ],
)
def test_what_cannot_be_is_refused(refuse, error, says):
    with pytest.raises(error, match=says):
        refuse()
