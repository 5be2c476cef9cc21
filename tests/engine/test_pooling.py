"""course/engine/pooling.py: where things lie in a frame, and 2 x 2 windows in rows."""

import numpy as np
import pytest

from course.compiled import compiled
from course.engine.pooling import frame_of, put_in, quarter, quarters, unquarter
from course.engine.tile import tile_shape

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
NONE = (0, 0), (0, 0)


@compiled
def _put_in(frame, x, start, H, W, SW, top, left, width):
    put_in(frame, x, start, H, W, SW, top, left, width)


@compiled
def _quarter(z, x, start, W, HO, WO):
    quarter(z, x, start, W, HO, WO)


@compiled
def _unquarter(x, start, W, z, HO, WO):
    unquarter(x, start, W, z, HO, WO)


@pytest.mark.parametrize(
    "size, kernel, stride, padding, dilation, out",
    [
        ((4, 5), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), (2, 3)),
        ((4, 67), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), (2, 34)),
        ((4, 66), (2, 3), (1, 2), ((0, 1), (2, 0)), (1, 1), (4, 33)),
        ((3, 70), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (3, 70)),
        ((7, 71), (2, 3), (3, 3), NONE, (1, 2), (2, 23)),
        ((5, 4), (5, 4), (10**9, 10**9), NONE, (1, 1), (1, 1)),
    ],
)
@TYPES
def test_taps_find_their_pixels(size, kernel, stride, padding, dilation, out, dtype, rng):
    """Every tap of every window, and padding where there is no pixel."""
    (H, W), ((top, _), (left, _)) = size, padding
    x = rng.normal(size=3 * H * W).astype(dtype)
    taps, (SH, SW, *rest) = frame_of(size, kernel, stride, padding, dilation, out)
    frame = np.full(rest[-1], -7, dtype)
    _put_in(frame, x, H * W, H, W, SW, *rest[:-1])
    plane = x[H * W : 2 * H * W].reshape(H, W)
    for t, (u, v) in enumerate(np.ndindex(kernel)):
        for i, j in np.ndindex(out):
            p, q = i * SH + u * dilation[0] - top, j * SW + v * dilation[1] - left
            pixel = plane[p, q] if 0 <= p < H and 0 <= q < W else -7
            assert frame[taps[t] + i * SH * SW * rest[2] + j] == pixel, (u, v, i, j)


def test_there_is_no_frame_much_larger_than_the_image():
    far = (1000, 1000), (1000, 1000)
    assert frame_of((5, 5), (3, 3), (1, 1), far, (1000, 1000), (5, 5)) is None
    large = (1, 1 << 24)  # in float32, 2**24 + 1 is no number
    assert frame_of(large, (1, 3), (1, 1), NONE, (1, 1), (1, large[1] - 2)) is None


@pytest.mark.parametrize("extra", [0, 1, 5])
@TYPES
def test_quarter_and_unquarter(extra, dtype, rng):
    HO, WO = 3, tile_shape(np.dtype(dtype)).lanes + extra
    W, start = 2 * WO + 1, 11
    x = rng.integers(-9, 9, 2 * HO * W + 40).astype(dtype)  # whole numbers: exact sums
    plane = x[start : start + 2 * HO * W].reshape(2 * HO, W)
    expected = plane[:, :-1].reshape(HO, 2, WO, 2).sum(axis=(1, 3))
    z = np.empty(HO * WO, dtype)
    _quarter(z, x, start, W, HO, WO)
    np.testing.assert_array_equal(z.reshape(HO, WO), expected)
    expected_x = x.copy()
    expected_plane = expected_x[start : start + 2 * HO * W].reshape(2 * HO, W)
    expected_plane[:, :-1] = np.kron(expected, np.ones((2, 2)))
    _unquarter(x, start, W, z, HO, WO)
    np.testing.assert_array_equal(x, expected_x)


@pytest.mark.parametrize(
    "change, expected",
    [
        ({}, True),
        ({"size": (6, 64)}, True),
        ({"kernel": (2, 3)}, False),
        ({"stride": (2, 1)}, False),
        ({"padding": ((0, 0), (0, 1))}, False),
        ({"dilation": (2, 1)}, False),
        ({"size": (4, 63)}, False),  # the last window hangs over
        ({"out": (2, 1)}, False),  # fewer than a vector
    ],
)
@TYPES
def test_when_windows_are_quarters(change, expected, dtype):
    asked = {"size": (5, 65), "kernel": (2, 2), "stride": (2, 2), "padding": NONE}
    asked |= {"dilation": (1, 1), "out": (2, 32), "dtype": np.dtype(dtype)}
    assert quarters(**asked | change) is expected
