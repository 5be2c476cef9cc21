"""course/zoo/identity_shortcut.py: against the definition, pixel by pixel, and slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.zoo.identity_shortcut import (
    IdentityShortcut,
    identity_shortcut_backward,
    identity_shortcut_forward,
)

GEOMETRY = pytest.mark.parametrize(
    "shape, channels, stride",
    [
        ((2, 16, 8, 8), 32, 2),  # ResNet-20, layer2, of smaller images
        ((1, 3, 5, 7), 6, 2),  # odd sizes; three channels more: one before, two after
        ((1, 2, 4, 4), 2, 2),  # no channels more
        ((2, 2, 3, 3), 5, 1),  # no stride
        ((1, 1, 1, 1), 1, 1),
        ((1, 2, 7, 4), 4, 3),
        ((0, 2, 4, 4), 4, 2),  # an empty batch
    ],
)


@GEOMETRY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_as_defined_pixel_by_pixel(shape, channels, stride, dtype, rng):
    x = rng.normal(size=shape).astype(dtype)
    N, C, H, W = shape
    size = N, channels, -(-H // stride), -(-W // stride)
    y, dy = np.zeros(size, dtype), rng.normal(size=size).astype(dtype)
    dx, before = np.zeros(shape, dtype), (channels - C) // 2
    for n, c, i, j in np.ndindex(N, C, *size[2:]):
        y[n, before + c, i, j] = x[n, c, i * stride, j * stride]
        dx[n, c, i * stride, j * stride] = dy[n, before + c, i, j]
    found = identity_shortcut_forward(x, channels, stride)
    back = identity_shortcut_backward(dy, shape, channels, stride)
    assert found.dtype == back.dtype == dtype
    np.testing.assert_array_equal(found, y)
    np.testing.assert_array_equal(back, dx)


@GEOMETRY
def test_backward_is_the_slope(shape, channels, stride, rng):
    check_layer(IdentityShortcut(channels, stride), rng.normal(size=shape), rng)


def test_half_of_the_zeros_come_before_the_channels():
    y = identity_shortcut_forward(np.ones((1, 16, 2, 2)), 32, 2)
    assert y[0, :, 0, 0].nonzero()[0].tolist() == list(range(8, 24))


@pytest.mark.parametrize(
    "work, error, words",
    [
        (lambda: IdentityShortcut(0), ValueError, "channels must be at least 1, not 0"),
        (lambda: IdentityShortcut(4, 0), ValueError, "stride must be at least 1, not 0"),
        (
            lambda: IdentityShortcut(4)(np.ones((1, 5, 2, 2))),
            ValueError,
            "channels=4, but x has 5",
        ),
        (
            lambda: IdentityShortcut(4)(np.ones((5, 2, 2))),
            ValueError,
            r"x has shape \(5, 2, 2\); it must be \(N, C, H, W\)",
        ),
        (
            lambda: IdentityShortcut(4)(np.ones((1, 2, 2, 2), int)),
            TypeError,
            "x has dtype int64",
        ),
        (
            lambda: identity_shortcut_backward(np.ones((1, 4, 2, 2)), (1, 2, 6, 6), 4, 2),
            ValueError,
            r"dy has shape \(1, 4, 2, 2\); .* is \(1, 4, 3, 3\)",
        ),
        (
            lambda: IdentityShortcut(4).backward(np.ones((1, 4, 2, 2))),
            RuntimeError,
            "call forward first",
        ),
    ],
)
def test_what_cannot_be_is_said_in_words(work, error, words):
    with pytest.raises(error, match=words):
        work()
