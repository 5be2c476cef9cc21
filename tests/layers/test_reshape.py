"""course/layers/reshape.py: (1) and (2), number by number."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import Reshape, reshape_backward, reshape_forward


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_stay_in_row_major_order(dtype, rng):
    x = rng.normal(size=(2, 3, 4, 5)).astype(dtype)
    y = reshape_forward(x, (6, 10))
    dx = reshape_backward(y, x.shape, (6, 10))
    assert y.shape == (2, 6, 10) and y.dtype == dx.dtype == dtype
    for (n, c, p, q), number in np.ndenumerate(x):
        k = (c * 4 + p) * 5 + q
        assert y[n, k // 10, k % 10] == number == dx[n, c, p, q]


SHAPES = pytest.mark.parametrize(
    "shape, wanted, y_shape",
    [
        ((2, 12), (3, 2, 2), (2, 3, 2, 2)),
        ((2, 3, 4), (-1,), (2, 12)),
        ((2, 3, 4), (-1, 6), (2, 2, 6)),
        ((2, 3, 4), (4, -1, 3), (2, 4, 1, 3)),
        ((3,), (1, 1), (3, 1, 1)),
        ((3, 1), (), (3,)),
        ((0, 6), (2, -1), (0, 2, 3)),
        ((2, 0, 4), (0, 7), (2, 0, 7)),
        ((2, 0, 4), (-1, 7), (2, 0, 7)),
    ],
)


@SHAPES
def test_one_size_may_be_left_open(shape, wanted, y_shape):
    y = reshape_forward(np.zeros(shape), wanted)
    assert y.shape == y_shape
    assert reshape_backward(y, shape, wanted).shape == shape


@SHAPES
def test_backward_is_the_slope(shape, wanted, y_shape, rng):
    check_layer(Reshape(*wanted), rng.normal(size=shape), rng)


def test_pytorch_computes_the_same(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = rng.normal(size=(2, 24))
    expected = torch.nn.Unflatten(1, (2, 3, 4))(torch.from_numpy(x))
    np.testing.assert_array_equal(reshape_forward(x, (2, 3, 4)), expected)


def test_nothing_is_copied():
    x = np.zeros((2, 12))
    assert np.shares_memory(reshape_forward(x, (3, 4)), x)


X, Y = np.zeros((2, 3, 4)), np.zeros((2, 6, 2))


@pytest.mark.parametrize(
    "refuse, error, says",
    [
        (
            lambda: reshape_forward(X, (5, 2)),
            ValueError,
            "so 12 numbers in each sample; sha",
        ),
        (lambda: reshape_forward(X, (5, -1)), ValueError, "does not hold as many"),
        (lambda: reshape_forward(X, (0, -1)), ValueError, "does not hold as many"),
        (lambda: reshape_forward(X, (-1, -1)), ValueError, "one size at most can be -1"),
        (lambda: reshape_forward(X, (-2, 6)), ValueError, "shape must be at least -1, not"),
        (lambda: reshape_forward(X, (2.0, 6)), TypeError, "shape must be a whole number"),
        (lambda: reshape_forward(X, 12), TypeError, "shape must be a tuple of whole numbe"),
        (lambda: reshape_forward(np.array(3.0), (1,)), ValueError, "x is a single number"),
        (lambda: reshape_forward(X.astype(int), (12,)), TypeError, "x has dtype int64"),
        (lambda: reshape_backward(Y, X.shape, (2, 6)), ValueError, r"is \(2, 2, 6\)"),
        (lambda: reshape_backward(Y, X.shape, (5,)), ValueError, "does not hold as many"),
        (lambda: reshape_backward(Y, (), (5,)), ValueError, "x is a single number"),
        (lambda: Reshape(-1, -1), ValueError, "one size at most can be -1"),
        (lambda: Reshape((2, 3)), TypeError, r"shape must be a whole number, not \(2, 3\)"),
    ],
)
def test_what_cannot_be_is_refused(refuse, error, says):
    with pytest.raises(error, match=says):
        refuse()
