"""course.viz.threads: what it counts, against NumPy and by hand, and what it draws."""

import sys
from importlib import import_module

import numpy as np
import pytest
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch
from numba import float32
from scipy import signal

import course.viz
from course import cuda
from course.device import host, simulated, to
from course.viz import threads

pytestmark = pytest.mark.sim
figures = sys.modules["course.viz.threads"]
F = np.float32
TILE = 4


@cuda.jit
def add_cuda(y, a, b):
    k = cuda.grid(1)
    if k < y.size:
        y[k] = a[k] + b[k]


@cuda.jit
def product_cuda(y, x, w):
    j, i = cuda.grid(2)
    total = y.dtype.type(0)
    for k in range(x.shape[1]):
        total += x[i, k] * w[k, j]
    y[i, j] = total


@cuda.jit
def product_cuda_tiled(y, x, w):
    xs = cuda.shared.array((TILE, TILE), float32)
    ws = cuda.shared.array((TILE, TILE), float32)
    i, j = cuda.threadIdx.y, cuda.threadIdx.x
    i0, j0 = cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
    total = y.dtype.type(0)
    for k0 in range(0, x.shape[1], TILE):
        xs[i, j] = x[i0 + i, k0 + j]
        ws[i, j] = w[k0 + i, j0 + j]
        cuda.syncthreads()
        for k in range(TILE):
            total += xs[i, k] * ws[k, j]
        cuda.syncthreads()
    y[i0 + i, j0 + j] = total


@cuda.jit
def rows_cuda(y, x):
    """Each thread adds up a row of a plane; x[n, c] is a part of x."""
    k = cuda.grid(1)
    plane = x[k // 4, k % 4 // 2]
    row = plane[k % 2]
    for element in range(row.size):
        y[k] += row[element]


@cuda.jit
def race_cuda(y):
    y[0] = cuda.grid(1)


def written(picture, name):
    """Return the numbers in the cells of an array, in flat order."""
    return [int(t.get_text()) for t in picture.fig.axes[0].texts if t.get_gid() == name]


def colors(picture, name):
    """Return the colours of the cells of an array."""
    (cells,) = (
        c
        for c in picture.fig.axes[0].collections
        if isinstance(c, PatchCollection) and c.get_gid() == name
    )
    return [tuple(color[:3].round(6)) for color in cells.get_facecolor()]


def arrows(picture):
    return sum(isinstance(p, FancyArrowPatch) for p in picture.fig.axes[0].patches)


def test_vector_addition():
    a = np.ones(14, F)
    picture = threads(add_cuda, 4, 4, a, a, a, thread=9)
    assert picture.alt == (
        "Kernel add_cuda, 4 blocks of 4 threads. y (14): written once. "
        "a (14): read once. b (14): read once. "
        "Each thread: global reads 0–2, global writes 0–1, shared reads 0, "
        "shared writes 0. "
        "All together: global reads 28, global writes 14, shared reads 0, shared writes 0. "
        "In orange, thread 1 of block 2 reads a[9], b[9] and writes y[9]."
    )
    assert written(picture, "a") == [1] * 14
    assert written(picture, "y") == [k % 4 for k in range(14)]
    cells = colors(picture, "y")
    assert len(set(cells)) == 14, "each thread its own shade"
    assert cells[9] == tuple(round(part, 6) for part in to_rgb(figures.CHOSEN))
    assert len(set(colors(picture, "a"))) == 1
    assert arrows(picture) == 2
    assert (a == 1).all(), "the kernel had copies"


def test_a_tile_saves_global_reads():
    """A plain thread fetches 2K numbers; in tiles of T x T it fetches 2K/T."""
    x = np.ones((8, 12), F)
    w, y = np.ones((12, 8), F), np.zeros((8, 8), F)
    plain = threads(product_cuda, (2, 2), (4, 4), y, x, w, thread=(6, 1))
    tiled = threads(product_cuda_tiled, (2, 2), (4, 4), y, x, w, thread=(6, 1))
    assert "Each thread: global reads 24, global writes 1, shared reads 0," in plain.alt
    assert "Each thread: global reads 6, global writes 1, shared reads 24," in tiled.alt
    assert "All together: global reads 1536, global writes 64, shared reads 0" in plain.alt
    assert (
        "All together: global reads 384, global writes 64, shared reads 1536" in tiled.alt
    )
    assert plain.alt.endswith(
        "In orange, thread (2, 1) of block (1, 0) reads x[1, 0:12], w[0:12, 6] "
        "and writes y[1, 6]."
    )
    assert tiled.alt.endswith(
        "reads 3 elements of x, 3 elements of w, shared xs[1, 0:4], shared ws[0:4, 2] "
        "and writes y[1, 6], shared xs[1, 2], shared ws[1, 2]."
    )
    assert "shared xs (4 × 4): read 12 times, written 3 times." in tiled.alt
    assert (arrows(plain), arrows(tiled)) == (2, 4)


def test_reads_of_a_convolution():
    conv = import_module("course.layers.conv2d")
    x, w, b = np.ones((1, 2, 6, 5), F), np.ones((3, 2, 3, 3), F), np.ones(3, F)
    picture = threads(
        conv._y_cuda, 3, 32, np.empty((1, 3, 6, 5), F), x, w, b, 1, 1, 1, 1, 1, 1, 1
    )
    plane = 3 * signal.correlate2d(np.ones((6, 5)), np.ones((3, 3)), "same")
    np.testing.assert_array_equal(written(picture, "x"), np.tile(plane.ravel(), 2))
    inside = np.outer([5, 6, 5], [4, 5, 4])  # where a tap sees a pixel
    np.testing.assert_array_equal(written(picture, "w"), np.tile(inside.ravel(), 6))
    assert written(picture, "b") == [30] * 3


def test_a_part_of_an_array_is_found_in_the_whole():
    picture = threads(rows_cuda, 2, 4, np.zeros(8, F), np.ones((2, 2, 2, 3), F), thread=6)
    assert written(picture, "x") == [1] * 24
    assert picture.alt.endswith(
        "thread 2 of block 1 reads y[6], x[1, 1, 0, 0:3] and writes y[6]."
    )


def test_arrays_on_cuda_are_copied_too():
    with simulated():
        there = to("cuda", np.zeros(3, F))
    picture = threads(add_cuda, 1, 4, there, np.ones(3, F), there)
    assert "y (3): written once." in picture.alt
    assert (host(there) == 0).all()


@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (2, 1, 2, 2, 2)])
def test_any_shape_has_its_places(shape):
    rows, columns = figures.Seen("a", shape, False).cells()
    places = set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert len(places) == np.empty(shape).size == rows.size, "each has its own"


def test_planes_stand_a_cell_apart():
    rows, columns = figures.Seen("a", (2, 3, 4, 5), False).cells()
    place = dict(zip(np.ndindex(2, 3, 4, 5), zip(rows, columns, strict=True), strict=True))
    assert place[0, 0, 3, 4] == (3, 4)
    assert place[0, 1, 0, 0] == (0, 6)
    assert place[1, 2, 1, 3] == (6, 15)


def test_what_cannot_be_drawn_is_said():
    a = np.zeros(3, F)
    with pytest.raises(ValueError, match="thread 8 is none of this grid"):
        threads(add_cuda, 2, 4, a, a, a, thread=8)
    large = np.zeros((65, 64), F)
    with pytest.raises(ValueError, match=r"y has shape \(65, 64\); at most 4096 elements"):
        threads(race_cuda, 1, 1, large)
    with pytest.raises(cuda.CudaError, match="race on y"):
        threads(race_cuda, 1, 2, a)


def test_the_name_is_the_function():
    assert course.viz.threads is threads and callable(threads)


def test_all_arrays_are_inside_the_picture():
    """Of many arrays, and of long ones, the cells become smaller."""
    a = np.zeros(400, F)
    picture = threads(add_cuda, 4, 100, a, a, a)
    width, height = picture.fig.get_size_inches()
    for cells in picture.fig.axes[0].collections:
        for path in cells.get_paths():
            (x0, y0), (x1, y1) = path.get_extents().get_points()
            assert 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height
