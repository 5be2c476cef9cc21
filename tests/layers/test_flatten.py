"""course/layers/flatten.py: (1) and (2), element by element."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import Flatten, flatten_backward, flatten_forward


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_pixel_lands_where_equation_1_says(dtype, rng):
    x = rng.normal(size=(2, 3, 4, 5)).astype(dtype)
    y = flatten_forward(x)
    dx = flatten_backward(y, x.shape)
    assert y.shape == (2, 60) and y.dtype == dx.dtype == dtype
    for (n, c, p, q), pixel in np.ndenumerate(x):
        assert y[n, (c * 4 + p) * 5 + q] == pixel == dx[n, c, p, q]


def test_backward_is_the_slope(rng):
    check_layer(Flatten(), rng.normal(size=(2, 3, 2, 2)), rng)


@pytest.mark.parametrize(
    "shape, flat",
    [
        ((3,), (3, 1)),
        ((3, 4), (3, 4)),
        ((2, 3, 4), (2, 12)),
        ((0, 3, 4, 5), (0, 60)),
        ((2, 0, 4), (2, 0)),
    ],
)
def test_any_axes_may_follow_the_batch(shape, flat):
    y = flatten_forward(np.zeros(shape))
    assert y.shape == flat
    assert flatten_backward(y, shape).shape == shape


def test_nothing_is_copied():
    x = np.zeros((2, 3, 4, 5))
    assert np.shares_memory(flatten_forward(x), x)


@pytest.mark.parametrize(
    "refuse, error, says",
    [
        (lambda: flatten_forward(np.array(3.0)), ValueError, "x is a single number"),
        (lambda: flatten_forward([[1.0]]), TypeError, "x is a list"),
        (lambda: flatten_forward(np.ones((1, 2), int)), TypeError, "x has dtype int64"),
        (
            lambda: flatten_backward(np.ones((2, 5)), (2, 1, 2, 2)),
            ValueError,
            r"dy has shape \(2, 5\); a flat x of shape \(2, 1, 2, 2\) is \(2, 4\)",
        ),
        (
            lambda: flatten_backward(np.ones((2, 5)), ()),
            ValueError,
            "input_shape is empty",
        ),
    ],
)
def test_what_cannot_be_is_refused(refuse, error, says):
    with pytest.raises(error, match=says):
        refuse()
