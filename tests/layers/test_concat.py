"""course/layers/concat.py: (1) and (2), number by number."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import Concat, concat_backward, concat_forward


def arrays(axis, sizes, rng, dtype=np.float64):
    """Return arrays of 2 x 3 x 4 x 5, but for the sizes along the axis."""
    shapes = [[*(2, 3, 4, 5)[:axis], size, *(2, 3, 4, 5)[axis + 1 :]] for size in sizes]
    return tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)


CASES = pytest.mark.parametrize(
    "axis, sizes",
    [(1, (1, 2, 3)), (1, (3,)), (2, (2, 2)), (3, (4, 1)), (0, (1, 2)), (1, (2, 0, 1))],
)


@CASES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_number_lands_where_equation_1_says(axis, sizes, dtype, rng):
    several = arrays(axis, sizes, rng, dtype)
    y = concat_forward(several, axis)
    back = concat_backward(y, sizes, axis)
    assert y.dtype == dtype and isinstance(back, tuple) and len(back) == len(sizes)
    c0 = 0
    for x, dx in zip(several, back, strict=True):
        assert dx.dtype == dtype and dx.flags.c_contiguous
        np.testing.assert_array_equal(dx, x)
        for index, number in np.ndenumerate(x):
            place = list(index)
            place[axis] += c0
            assert y[tuple(place)] == number
        c0 += x.shape[axis]
    assert y.shape[axis] == c0


@CASES
def test_backward_is_the_slope(axis, sizes, rng):
    check_layer(Concat(axis), arrays(axis, sizes, rng), rng)


def test_a_list_will_do(rng):
    several = arrays(1, (1, 2), rng)
    layer = Concat()
    y = layer(list(several))
    np.testing.assert_array_equal(y, np.hstack(several))
    for dx, x in zip(layer.backward(y), several, strict=True):
        np.testing.assert_array_equal(dx, x)


def test_pytorch_computes_the_same(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    several = arrays(1, (2, 3), rng)
    expected = torch.cat([torch.from_numpy(x) for x in several], dim=1)
    np.testing.assert_array_equal(concat_forward(several), expected)


def test_y_is_a_copy(rng):
    (x,) = arrays(1, (2,), rng)
    assert not np.shares_memory(concat_forward((x,)), x)


X = np.zeros((2, 3, 4, 5))


@pytest.mark.parametrize(
    "refuse, error, says",
    [
        (
            lambda: concat_forward(X),
            TypeError,
            "x is a ndarray; it must be a tuple or list",
        ),
        (lambda: concat_forward(()), ValueError, "x is empty; it must be a tuple or list"),
        (lambda: concat_forward((X, 1.0)), TypeError, r"x\[1\] is a float"),
        (lambda: concat_forward((X, X.astype(int))), TypeError, r"x\[1\] has dtype int64"),
        (lambda: concat_forward((X, np.float32(X))), TypeError, r"x\[1\] is float32 but"),
        (
            lambda: concat_forward((X, X[:, :, :2])),
            ValueError,
            r"x\[1\] has shape \(2, 3, 2, 5\); that of x\[0\], but for axis 1, is \(2, 3,",
        ),
        (lambda: concat_forward((X, X[0])), ValueError, r"x\[1\] has shape \(3, 4, 5\)"),
        (lambda: concat_forward((X,), 4), ValueError, "axis is 4, but .* the axes 0 to 3"),
        (lambda: concat_forward((X,), -1), ValueError, "axis must be at least 0, not -1"),
        (lambda: concat_backward(X, (1, 1)), ValueError, r"the sizes \(1, 1\) make 2"),
        (lambda: concat_backward(X, (4, -1)), ValueError, "sizes must be at least 0, not"),
        (lambda: concat_backward(X.astype(int), (3,)), TypeError, "dy has dtype int64"),
        (lambda: Concat(-1), ValueError, "axis must be at least 0, not -1"),
        (lambda: Concat(1.0), TypeError, "axis must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused(refuse, error, says):
    with pytest.raises(error, match=says):
        refuse()
