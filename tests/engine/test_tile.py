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
def _move(b, j, a, i):
    tile.move(a, i, b, j)


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
def _column_shapes(like):
    return tile.shape_of(tile.zeros_column(like)), tile.shape_of(tile.zeros_nine(like))


@compiled
def _clamped(like, table, most):
    return tile.at_most(tile.rows_at(tile.zeros(like), table, 0), most)


@compiled
def _pile(b, a, row, col, side):
    like = tile.zeros(a)
    acc = tile.load(like, a, tile.rows_at(like, row, 0), tile.cols_at(like, col, 0))
    tile.pile(acc, b, tile.cols_at(like, side, 0))


@compiled
def _unseen(a, row, col, rows, lanes):
    like = tile.zeros(a)
    places, side = tile.rows_at(like, row, 0), tile.cols_at(like, col, 0)
    acc = tile.unseen(tile.load(like, a, places, side), rows, lanes)
    tile.store(acc, a, places, side)


@compiled
def _slide(column, nine, a, i, step):
    four, taps = tile.zeros_column(a), tile.zeros_nine(a)
    lanes, side = tile.shape_of(four)[2], tile.each_col(four)
    rows = tile.times(tile.each_row(four), lanes, 0)
    places = tile.times(tile.each_row(taps), lanes, 0)
    four = tile.load(four, column, rows, side)
    taps = tile.load(taps, nine, places, side)
    tile.store(tile.slide(four, taps, a, i, step), column, rows, side)


@compiled
def _meet(column, nine, a, i, step):
    four, taps = tile.zeros_column(a), tile.zeros_nine(a)
    lanes, side = tile.shape_of(four)[2], tile.each_col(four)
    rows = tile.times(tile.each_row(four), lanes, 0)
    places = tile.times(tile.each_row(taps), lanes, 0)
    four = tile.load(four, column, rows, side)
    taps = tile.load(taps, nine, places, side)
    tile.store(tile.meet(four, taps, a, i, step), nine, places, side)


@compiled
def _pool(z, k, y, i, W):
    tile.pool(z, k, y, i, W)


@compiled
def _weave(b, i, a, even, odd):
    tile.weave(b, i, a, even, odd)


@compiled
def _unpool(dy, y, i, W, dz, k):
    tile.unpool(dy, y, i, W, dz, k)


@compiled
def _pool_places(z, places, k, y, i, W, p):
    tile.pool_places(z, places, k, y, i, W, p)


@compiled
def _unpool_places(dy, i, W, dz, places, k, p):
    tile.unpool_places(dy, i, W, dz, places, k, p)


@compiled
def _add_four(z, k, y, i, W):
    tile.add_four(z, k, y, i, W)


@compiled
def _to_four(y, i, W, z, k):
    tile.to_four(y, i, W, z, k)


@compiled
def _split(a, even, odd, b, i):
    tile.split(a, even, odd, b, i)


@compiled
def _larger(bests, places, pixels, here):
    like = tile.pair(bests)
    row, col = (0,), tile.each_col(like)
    best, place = tile.load(like, bests, row, col), tile.load(like, places, row, col)
    best, place = tile.larger(best, place, tile.load(like, pixels, row, col), here)
    tile.store(best, bests, row, col)
    tile.store(place, places, row, col)
    return tile.shape_of(like)


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


def test_move(t):
    expected, lanes = t.v.copy(), t.shape.lanes
    expected[7 : 7 + lanes] = t.a[5 : 5 + lanes]
    _move(t.v, 7, t.a, 5)
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


def test_weave(t):
    lanes, expected = t.shape.lanes, t.v.copy()
    expected[9 : 9 + 2 * lanes : 2] = t.a[31 : 31 + lanes]
    expected[10 : 10 + 2 * lanes : 2] = t.a[77 : 77 + lanes]
    _weave(t.v, 9, t.a, 31, 77)
    np.testing.assert_array_equal(t.v, expected)


def test_columns(t):
    lanes = t.shape.lanes
    assert _column_shapes(t.a) == ((4, lanes, lanes), (9, lanes, lanes))


def test_places_that_go_no_further(t, rng):
    table = rng.integers(-50, 50, 20)
    found = _clamped(t.a, table, 7)
    assert list(found) == np.minimum(table[: t.shape.rows], 7).tolist()


def test_pile(t):
    """The rows, added up, are added to what is there."""
    side = np.array([9, 9 + t.shape.lanes])
    expected = t.v.copy()
    expected[side[:, None] + np.arange(t.shape.lanes)] += t.gather(t.a).sum(axis=0)
    _pile(t.v, t.a, t.row, t.col, side)
    tolerance = 32 * np.finfo(t.v.dtype).eps
    np.testing.assert_allclose(t.v, expected, tolerance, tolerance)


@pytest.mark.parametrize("rows, lanes", [(0, 0), (0, 1), (2, 0), (3, 1)])
def test_unseen(t, rows, lanes):
    """Even NaN becomes zero."""
    t.a[t.row[0] + t.col[0]] = np.nan
    tiles = t.gather(t.a)
    tiles[:rows] = tiles[:, :, :lanes] = 0
    expected = t.scatter(t.a, tiles)
    _unseen(t.a, t.row, t.col, rows, lanes)
    np.testing.assert_array_equal(t.a, expected)


def seen_by_nine(a, i, step, lanes):
    """Return what each tap of the windows of four rows of lanes sees, [t,p,l]."""
    u, v = np.divmod(np.arange(9), 3)
    rows = i + np.add.outer(u, np.arange(4)) * step + v[:, None]
    return a[rows[:, :, None] + np.arange(lanes)].astype(np.float64)


@pytest.mark.parametrize("i, step", [(0, 40), (7, 23)])
def test_slide_and_meet(t, i, step, rng):
    lanes, dtype = t.shape.lanes, t.a.dtype
    column = rng.normal(size=(4, lanes)).astype(dtype)
    nine = rng.normal(size=(9, lanes)).astype(dtype)
    seen = seen_by_nine(t.a, i, step, lanes)
    slid = column + np.einsum("tpl,tl->pl", seen, nine)
    met = nine + np.einsum("tpl,pl->tl", seen, column)
    found = column.ravel().copy(), nine.ravel().copy()
    _slide(found[0], nine.ravel(), t.a, i, step)
    _meet(column.ravel(), found[1], t.a, i, step)
    tolerance = 64 * np.finfo(dtype).eps
    np.testing.assert_allclose(found[0], slid.ravel(), tolerance, tolerance)
    np.testing.assert_allclose(found[1], met.ravel(), tolerance, tolerance)


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


@pytest.mark.parametrize("seed", range(20))
@TYPES
def test_pool_and_unpool_by_places(dtype, seed):
    """The first largest of four, and where it is; the gradient goes there."""
    rng, lanes = np.random.default_rng(seed), tile_shape(np.dtype(dtype)).lanes
    pixels, i, W, p = windows_with_ties(dtype, lanes, rng), 3, 2 * lanes + 7, 1000
    y, z, dy = (rng.normal(size=ROOM).astype(dtype) for _ in range(3))
    y[i : i + 2 * lanes], y[i + W : i + W + 2 * lanes] = pixels
    places = rng.integers(0, 9, ROOM).astype(np.int32)
    expected, expected_places, expected_dy = z.copy(), places.copy(), dy.copy()
    expected[5 : 5 + lanes] = pixels.reshape(2, lanes, 2).max(axis=(0, 2))
    for row in (0, W):
        expected_dy[i + row : i + row + 2 * lanes] = 0
    for l in range(lanes):
        first = int(np.argmax(pixels[:, 2 * l : 2 * l + 2]))
        place = first // 2 * W + 2 * l + first % 2
        expected_places[5 + l] = p + place
        expected_dy[i + place] = expected[5 + l]
    _pool_places(z, places, 5, y, i, W, p)
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_array_equal(places, expected_places)
    _unpool_places(dy, i, W, z, places, 5, p)
    np.testing.assert_array_equal(dy, expected_dy)


@TYPES
def test_add_four_and_to_four(dtype, rng):
    lanes = tile_shape(np.dtype(dtype)).lanes
    i, W = 3, 2 * lanes + 7
    y, z = rng.integers(-9, 9, (2, ROOM)).astype(dtype)  # whole numbers: exact sums
    expected, expected_y = z.copy(), y.copy()
    for l in range(lanes):
        four = i + 2 * l + np.array([0, 1, W, W + 1])
        expected[5 + l] = y[four].sum()
        expected_y[four] = expected[5 + l]
    _add_four(z, 5, y, i, W)
    np.testing.assert_array_equal(z, expected)
    _to_four(y, i, W, z, 5)
    np.testing.assert_array_equal(y, expected_y)


def test_split(t):
    lanes, expected = t.shape.lanes, t.v.copy()
    expected[31 : 31 + lanes] = t.a[9 : 9 + 2 * lanes : 2]
    expected[77 : 77 + lanes] = t.a[10 : 10 + 2 * lanes : 2]
    _split(t.v, 31, 77, t.a, 9)
    np.testing.assert_array_equal(t.v, expected)


@pytest.mark.parametrize("seed", range(5))
@TYPES
def test_larger(dtype, seed):
    """Of equal ones the old one stays, and of two that are NaN."""
    rng, lanes = np.random.default_rng(seed), tile_shape(np.dtype(dtype)).lanes
    values = np.array([-np.inf, -1, 0, 1, np.inf, np.nan])
    old, new = rng.choice(values, (2, 2 * lanes + 3)).astype(dtype)
    places = rng.integers(0, 9, old.size).astype(dtype)
    beats = (new > old) | (np.isnan(new) & ~np.isnan(old))
    beats[2 * lanes :] = False
    expected, expected_places = np.where(beats, new, old), np.where(beats, 77, places)
    assert _larger(old, places, new, dtype(77)) == (1, 2 * lanes, lanes)
    np.testing.assert_array_equal(old, expected)
    np.testing.assert_array_equal(places, expected_places)


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
