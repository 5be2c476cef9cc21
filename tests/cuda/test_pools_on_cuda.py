"""Pools on cuda at their edges: ties, NaN, zeros, remainders, no images."""

import numpy as np
import pytest

from course.layers.global_avgpool2d import global_avgpool2d_forward
from course.layers.global_maxpool2d import (
    global_maxpool2d_backward,
    global_maxpool2d_forward,
)
from course.layers.lppool2d import lppool2d_backward, lppool2d_forward
from course.layers.subsampling2d import subsampling2d_backward
from tests.cuda.every import every_place, moved, on_cuda


def planes():
    """Return planes of 5 x 20 pixels with ties, NaN and infinity, and where each wins."""
    x = np.zeros((1, 10, 100), np.float32)
    x[0, 1] = -np.inf
    for plane, pixels, value in [
        (2, (99,), 1),
        (3, (70, 5, 37), 1),  # one lane has 5, 37; another has 70
        (4, (64, 31, 96), np.inf),  # lane 0 has 64 and 96; 31 is before both
        (5, (42,), np.nan),
        (6, (97, 66, 35), np.nan),  # lane 1, 2, 3: the first is in the last lane
        (7, (0, 1), np.nan),
        (8, range(100), np.nan),
    ]:
        x[0, plane, list(pixels)] = value
    x[0, 6, 3] = np.inf  # less than NaN
    x[0, 9, 1:] = -1
    x[0, 9, 60] = 0  # as large as the first
    return x.reshape(1, 10, 5, 20), [0, 0, 99, 5, 31, 42, 35, 0, 0, 0]


@every_place
def test_first_of_equal_pixels_wins_and_nan_beats_all(place):
    x, places = planes()
    y, argmax = on_cuda(place, lambda: global_maxpool2d_forward(moved(x)))
    assert argmax.ravel().tolist() == places
    np.testing.assert_array_equal(y.ravel(), x.reshape(10, -1)[range(10), places])


@every_place
def test_argmax_of_another_x_gives_nothing(place):
    dy = np.ones((1, 2, 1, 1), np.float32)
    argmax = np.array([-1, 6], np.int32).reshape(dy.shape)
    dx = on_cuda(
        place, lambda: global_maxpool2d_backward(moved(dy), moved(argmax), (1, 2, 2, 3))
    )
    assert not dx.any()


@every_place
@pytest.mark.parametrize("size", [(1, 1), (4, 8), (3, 11), (8, 300)])
def test_mean_of_planes_smaller_and_larger_than_a_warp(place, size, rng):
    x = rng.normal(size=(1, 2, *size))
    y = on_cuda(place, lambda: global_avgpool2d_forward(moved(x)))
    np.testing.assert_allclose(y[:, :, 0, 0], x.mean((2, 3)), 1e-13, 1e-15)


@every_place
@pytest.mark.parametrize("N", [0, 30])
def test_sums_of_more_windows_than_threads_and_of_none(place, N, rng):
    x, dy = rng.normal(size=(N, 2, 6, 6)), rng.normal(size=(N, 2, 3, 3))
    w = np.ones(2)
    _, dw, db = on_cuda(
        place, lambda: subsampling2d_backward(moved(dy), moved(x), moved(w))
    )
    sums = x.reshape(N, 2, 3, 2, 3, 2).sum((3, 5))
    np.testing.assert_allclose(dw, (dy * sums).sum((0, 2, 3)), 1e-12, 1e-14)
    np.testing.assert_allclose(db, dy.sum((0, 2, 3)), 1e-12, 1e-14)


@every_place
def test_remainder_of_rows_and_columns_has_no_gradient(place, rng):
    x, dy = np.ones((2, 2, 5, 7)), rng.normal(size=(2, 2, 2, 2))
    w = np.array([1.0, -2.0])
    dx, _, _ = on_cuda(
        place, lambda: subsampling2d_backward(moved(dy), moved(x), moved(w), (2, 3))
    )
    expected = np.zeros_like(x)
    expected[:, :, :4, :6] = np.kron(w[:, None, None] * dy, np.ones((2, 3)))
    np.testing.assert_array_equal(dx, expected)


@every_place
def test_length_of_zeros_has_no_gradient(place):
    x = np.array([[[[0.0, 0, 3], [0, 0, 4]]]], np.float32)
    dy = np.full((1, 1, 1, 2), 10, np.float32)

    def run():
        y = lppool2d_forward(moved(x), 2, 2, 1)
        return y, lppool2d_backward(moved(dy), moved(x), y, 2, 2, 1)

    y, dx = on_cuda(place, run)
    assert y.ravel().tolist() == [0, 5] and dx.ravel().tolist() == [0, 0, 6, 0, 0, 8]
