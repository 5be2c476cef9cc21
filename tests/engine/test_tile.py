"""course/engine/tile.py: every word of the tile language against NumPy.

Arrays have room on either side that no word may touch, and places overlap as they do in
the loops: the vectors of a tile need not lie side by side.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from course.compiled import compiled
from course.engine import tile
from course.engine.tile import tile_shape

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ROOM = 700  # numbers in the arrays below


@compiled
def _shape(like):
    acc = tile.zeros(like)
    return tile.shape_of(acc), tile.each_row(acc), tile.each_col(acc), tile.each_lane(acc)


@compiled
def _row_shape(like):
    return tile.shape_of(tile.zeros_row(like)), tile.each_col(tile.zeros_row(like))


@compiled
def _places(like, table, first, scale, start):
    acc = tile.zeros(like)
    return (
        tile.rows_at(acc, table, first),
        tile.cols_at(acc, table, first),
        tile.lanes_at(acc, table, first),
        tile.times(tile.rows_at(acc, table, first), scale, start),
    )


@compiled
def _store_zeros(a, row, col):
    acc = tile.zeros(a)
    tile.store(acc, a, tile.rows_at(acc, row, 0), tile.cols_at(acc, col, 0))


@compiled
def _copy(b, a, row, col, there, side):
    like = tile.zeros(a)
    acc = tile.load(like, a, tile.rows_at(like, row, 0), tile.cols_at(like, col, 0))
    tile.store(acc, b, tile.rows_at(like, there, 0), tile.cols_at(like, side, 0))


@compiled
def _plus(a, more, row, col):
    like = tile.zeros(a)
    rows, cols = tile.rows_at(like, row, 0), tile.cols_at(like, col, 0)
    tile.store(tile.plus(tile.load(like, a, rows, cols), more, rows, cols), a, rows, cols)


@compiled
def _splat(b, a, place, row, col):
    like = tile.zeros(a)
    acc = tile.splat(like, a, tile.rows_at(like, place, 0))
    tile.store(acc, b, tile.rows_at(like, row, 0), tile.cols_at(like, col, 0))


@compiled
def _positive(a, row, col):
    like = tile.zeros(a)
    rows, cols = tile.rows_at(like, row, 0), tile.cols_at(like, col, 0)
    tile.store(tile.positive(tile.load(like, a, rows, cols)), a, rows, cols)


@compiled
def _outer(b, s, row, i, v, col, j, there, side):
    like = tile.zeros(b)
    rows, cols = tile.rows_at(like, there, 0), tile.cols_at(like, side, 0)
    s_places, v_places = tile.rows_at(like, row, 0), tile.cols_at(like, col, 0)
    acc = tile.load(like, b, rows, cols)
    tile.store(tile.outer(acc, s, s_places, i, v, v_places, j), b, rows, cols)


@compiled
def _inner(b, s, row, i, v, col, j, there, side):
    like = tile.zeros(b)
    rows, cols = tile.rows_at(like, there, 0), tile.cols_at(like, side, 0)
    s_places, v_places = tile.rows_at(like, row, 0), tile.cols_at(like, col, 0)
    acc = tile.load(like, b, rows, cols)
    tile.store(tile.inner(acc, s, s_places, i, v, v_places, j), b, rows, cols)


@compiled
def _total(b, a, row, col, there, step):
    like = tile.zeros(a)
    acc = tile.load(like, a, tile.rows_at(like, row, 0), tile.cols_at(like, col, 0))
    tile.total(acc, b, tile.rows_at(like, there, 0), step)


@compiled
def _transpose(b, a, row, col):
    like = tile.zeros(a)
    tile.transpose(a, tile.lanes_at(like, row, 0), b, tile.lanes_at(like, col, 0))


@compiled
def _long_row(b, s, place, v, col, side):
    like = tile.zeros_row(b)
    row = tile.rows_at(like, place, 0)
    acc = tile.outer(like, s, row, 0, v, tile.cols_at(like, col, 0), 0)
    tile.store(acc, b, tile.times(row, 0, 0), tile.cols_at(like, side, 0))


@compiled
def _pool(z, k, y, i, W):
    tile.pool(z, k, y, i, W)


@compiled
def _unpool(dy, y, i, W, dz, k):
    tile.unpool(dy, y, i, W, dz, k)


class Tables:
    """Places for a tile of the dtype: rows apart, columns that overlap the rows."""

    def __init__(self, dtype, rng):
        self.shape = shape = tile_shape(np.dtype(dtype))
        self.row = rng.permutation(shape.rows) * (shape.width + 5) + 40
        self.col = np.array([2, shape.lanes + 4])
        self.there = rng.permutation(shape.rows) * (shape.width + 1) + 11
        self.side = np.array([shape.lanes, 0])
        self.a = rng.normal(size=ROOM).astype(dtype)
        self.v = rng.normal(size=ROOM).astype(dtype)

    def gather(self, a, row=None, col=None):
        """Return a[row[p] + col[q] + l] as an array [p,q,l]."""
        row, col = self.row if row is None else row, self.col if col is None else col
        return a[row[:, None, None] + col[:, None] + np.arange(self.shape.lanes)]

    def scatter(self, a, tiles, row=None, col=None):
        """Return a copy of a with the tile [p,q,l] in its places."""
        row, col = self.row if row is None else row, self.col if col is None else col
        a = a.copy()
        a[row[:, None, None] + col[:, None] + np.arange(self.shape.lanes)] = tiles
        return a


@pytest.fixture(params=[np.float32, np.float64])
def t(request, rng):
    return Tables(request.param, rng)


def test_shapes(t):
    (rows, width, lanes), *places = _shape(t.a)
    shape = t.shape
    assert (rows, width, lanes) == (shape.rows, shape.width, shape.lanes)
    assert width == shape.cols * lanes
    expected = range(rows), range(0, width, lanes), range(lanes)
    assert [list(k) for k in places] == [list(k) for k in expected]


def test_a_long_row_fills_half_of_the_registers(t):
    (rows, width, lanes), cols = _row_shape(t.a)
    assert (rows, lanes) == (1, t.shape.lanes)
    assert width == t.shape.registers // 2 * lanes
    assert list(cols) == list(range(0, width, lanes))


def test_a_tile_and_what_one_tap_needs_fit_the_registers(t):
    rows, cols, _, registers = t.shape
    assert rows * cols + cols + 1 <= registers


def test_places(t, rng):
    table = rng.integers(0, 1000, 100)
    rows, cols, lanes, moved = _places(t.a, table, 7, 13, 5)
    assert list(rows) == table[7 : 7 + t.shape.rows].tolist()
    assert list(cols) == table[7 : 7 + t.shape.cols].tolist()
    assert list(lanes) == table[7 : 7 + t.shape.lanes].tolist()
    assert list(moved) == (5 + 13 * table[7 : 7 + t.shape.rows]).tolist()


def test_zeros_and_store(t):
    expected = t.scatter(t.a, 0)
    _store_zeros(t.a, t.row, t.col)
    np.testing.assert_array_equal(t.a, expected)


def test_load_and_store(t):
    expected = t.scatter(t.v, t.gather(t.a), t.there, t.side)
    _copy(t.v, t.a, t.row, t.col, t.there, t.side)
    np.testing.assert_array_equal(t.v, expected)


def test_plus(t):
    expected = t.scatter(t.a, t.gather(t.a) + t.gather(t.v))
    _plus(t.a, t.v, t.row, t.col)
    np.testing.assert_array_equal(t.a, expected)


def test_splat(t):
    expected = t.scatter(t.v, t.a[t.there][:, None, None])
    _splat(t.v, t.a, t.there, t.row, t.col)
    np.testing.assert_array_equal(t.v, expected)


def test_positive(t):
    """NaN stays, -0 becomes 0."""
    places = t.row[0] + t.col[0] + np.arange(4)
    t.a[places[: t.shape.lanes]] = [np.nan, -0.0, -np.inf, np.inf][: t.shape.lanes]
    tiles = t.gather(t.a)
    expected = t.scatter(t.a, np.where(tiles <= 0, 0, tiles))
    _positive(t.a, t.row, t.col)
    assert t.a.tobytes() == expected.tobytes()


@pytest.mark.parametrize("i, j", [(0, 0), (9, 4)])
def test_outer(t, i, j):
    b = t.a[::-1].copy()
    products = t.a[t.row + i][:, None, None] * t.gather(t.v, 0 * t.row + j)
    expected = t.scatter(b, t.gather(b, t.there, t.side) + products, t.there, t.side)
    _outer(b, t.a, t.row, i, t.v, t.col, j, t.there, t.side)
    np.testing.assert_allclose(b, expected, rtol=0, atol=8 * np.finfo(b.dtype).eps)


@pytest.mark.parametrize("i, j", [(0, 0), (9, 4)])
def test_inner(t, i, j):
    b = t.a[::-1].copy()
    lines = t.gather(t.a, t.row + i, np.array([0]))
    products = lines * t.gather(t.v, 0 * t.row + j)
    expected = t.scatter(b, t.gather(b, t.there, t.side) + products, t.there, t.side)
    _inner(b, t.a, t.row, i, t.v, t.col, j, t.there, t.side)
    np.testing.assert_allclose(b, expected, rtol=0, atol=8 * np.finfo(b.dtype).eps)


@pytest.mark.parametrize("step", [1, 5])
def test_total(t, step):
    there = np.arange(t.shape.rows) * 17 + 3
    expected = t.v.copy()
    where = there[:, None] + step * np.arange(t.shape.cols)
    expected[where] = t.gather(t.a).astype(np.float64).sum(axis=2)
    _total(t.v, t.a, t.row, t.col, there, step)
    tolerance = 32 * np.finfo(t.v.dtype).eps
    np.testing.assert_allclose(t.v, expected, tolerance, tolerance)
    untouched = np.setdiff1d(np.arange(ROOM), where)
    np.testing.assert_array_equal(t.v[untouched], expected[untouched])


def test_transpose(t, rng):
    lanes = t.shape.lanes
    row, col = (rng.permutation(lanes) * (lanes + 3) + first for first in (5, 9))
    expected = t.v.copy()
    square = t.a[row[:, None] + np.arange(lanes)]
    expected[col[:, None] + np.arange(lanes)] = square.T
    _transpose(t.v, t.a, row, col)
    np.testing.assert_array_equal(t.v, expected)


def test_a_long_row_multiplies(t, rng):
    cols, lanes = t.shape.registers // 2, t.shape.lanes
    col, side = rng.integers(0, 300, cols), rng.permutation(cols) * (lanes + 1)
    expected = t.v.copy()
    numbers = t.a[31] * t.a[col[:, None] + np.arange(lanes)]
    expected[side[:, None] + np.arange(lanes)] = numbers
    _long_row(t.v, t.a, np.array([31]), t.a, col, side)
    np.testing.assert_array_equal(t.v, expected)


def windows_with_ties(dtype, lanes, rng):
    """Return two rows of pixels, `lanes` windows of 2 x 2, full of ties and of NaN."""
    pixels = rng.integers(-2, 3, (2, 2 * lanes)).astype(dtype)
    pixels[rng.random(pixels.shape) < 0.15] = np.nan
    return pixels


@pytest.mark.parametrize("seed", range(20))
@TYPES
def test_pool(dtype, seed):
    """The largest of four; NaN is larger than any."""
    rng, lanes = np.random.default_rng(seed), tile_shape(np.dtype(dtype)).lanes
    pixels, i, W = windows_with_ties(dtype, lanes, rng), 3, 2 * lanes + 7
    y = rng.normal(size=ROOM).astype(dtype)
    y[i : i + 2 * lanes], y[i + W : i + W + 2 * lanes] = pixels
    z = rng.normal(size=ROOM).astype(dtype)
    expected = z.copy()
    expected[5 : 5 + lanes] = pixels.reshape(2, lanes, 2).max(axis=(0, 2))
    _pool(z, 5, y, i, W)
    np.testing.assert_array_equal(z, expected)


@pytest.mark.parametrize("seed", range(20))
@TYPES
def test_unpool(dtype, seed):
    """Ties go to the first, NaN is the largest, and nothing goes to what is not above 0."""
    rng, lanes = np.random.default_rng(seed), tile_shape(np.dtype(dtype)).lanes
    pixels, i, W = windows_with_ties(dtype, lanes, rng), 3, 2 * lanes + 7
    y, dz, dy = (rng.normal(size=ROOM).astype(dtype) for _ in range(3))
    y[i : i + 2 * lanes], y[i + W : i + W + 2 * lanes] = pixels
    expected = dy.copy()
    for row in (0, W):
        expected[i + row : i + row + 2 * lanes] = 0
    for l in range(lanes):
        window = pixels[:, 2 * l : 2 * l + 2].ravel()
        first = int(np.argmax(window))
        if not window[first] <= 0:
            expected[i + first // 2 * W + 2 * l + first % 2] = dz[9 + l]
    _unpool(dy, y, i, W, dz, 9)
    np.testing.assert_array_equal(dy, expected)


@pytest.mark.parametrize(
    "name, features, unit",
    [
        ("nehalem", "+sse4.2", (16, 16)),
        ("haswell", "+avx,+avx2,+fma", (32, 16)),
        ("skylake-avx512", "+avx512f,+avx512vl,+avx2,+avx,+fma", (64, 32)),
        ("generic", "+neon", (16, 32)),
    ],
)
def test_the_vector_unit_is_that_of_the_machine_compiled_for(name, features, unit):
    program = "from course.engine.tile import vector_unit; print(*vector_unit())"
    machine = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | machine,
        capture_output=True,
        text=True,
        check=True,
    )
    assert tuple(map(int, found.stdout.split())) == unit


def test_every_word_is_tested():
    source = Path(__file__).read_text(encoding="utf-8")
    words = [k for k, v in vars(tile).items() if type(v).__name__ == "_Intrinsic"]
    assert len(words) > 15
    for word in words:
        assert f"tile.{word}(" in source, word
