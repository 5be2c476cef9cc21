"""Register tiles: the few words with which the fast loops talk to the vector unit.

A processor adds and multiplies whole vectors: `lanes` numbers at once, 8 float32 on a
machine with AVX2. It has few vector registers, 16 there. A loop is fast if its sums stay
in registers, and if every number it loads serves several sums. So the fast loops keep a
tile of `rows` x `cols` vectors in registers,

    acc[p,q][l]       0 <= p < rows, 0 <= q < cols, 0 <= l < lanes

and visit the taps t of a sum one after the other. One tap is `rows` single numbers and
`cols` vectors, each loaded once, multiplied each with each:

    acc[p,q][l] += s[row[p] + i] * v[col[q] + j + l]        outer(acc, s, row, i, v, col, j)

For a tile of 6 x 2 that is 12 multiply-adds for 8 loads. Where the numbers of a row and
of a column both lie along memory, the lanes can be taps instead, to be added up at the end:

    acc[p,q][l] += s[row[p] + i + l] * v[col[q] + j + l]    inner(acc, s, row, i, v, col, j)

`row` and `col` are places in a flat array, one for each row and column of the tile, that
`places` reads from a table. Nothing about them needs to be regular: so stride, dilation,
groups and the frame of a convolution are all a matter of tables.

Numba has no word for "keep this in a vector register". Each function below says it to
LLVM, the compiler under Numba: its `generate` writes the instructions of one word. They
trust: no index is checked here.

How wide a vector is, and how many registers there are, is asked of the machine that Numba
compiles for; NUMBA_CPU_NAME and NUMBA_CPU_FEATURES make it compile for another.

Source: Goto & van de Geijn, ACM TOMS 34 (2008); Van Zee & van de Geijn, ACM TOMS 41 (2015).
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

INT32, INT64 = ir.IntType(32), ir.IntType(64)


class Shape(NamedTuple):
    """Rows and columns of vectors in a tile, lanes of a vector, registers there are."""

    rows: int
    cols: int
    lanes: int
    registers: int

    @property
    def width(self) -> int:
        """Return how many numbers lie side by side in a row of the tile."""
        return self.cols * self.lanes


@cache
def vector_unit() -> tuple[int, int]:
    """Return (bytes in a vector register, number of them) of the machine compiled for."""
    from numba.core.registry import cpu_target

    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if "+avx512f" in features:
        return 64, 32
    if "+avx" in features:
        return 32, 16
    return 16, 32 if "+neon" in features else 16  # SSE is in every x86 of 64 bits


@cache
def tile_shape(dtype: Any) -> Shape:
    """Return the tile that fills the registers but for those that hold one tap."""
    width, registers = vector_unit()
    rows, lanes = 12 if registers == 32 else 6, width // np.dtype(dtype).itemsize
    return Shape(rows, 2, lanes, registers)


class Tile(types.Type):
    """Numba's type of a tile in registers."""

    def __init__(self, dtype: types.Float, rows: int, cols: int):
        self.dtype, self.rows, self.cols = dtype, rows, cols
        self.lanes = tile_shape(str(dtype)).lanes
        super().__init__(name=f"tile {rows} x {cols} x {self.lanes} {dtype}")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    """A tile is an array of vectors, which LLVM takes apart into registers."""

    def __init__(self, manager: Any, tile: Tile):
        number = {32: ir.FloatType(), 64: ir.DoubleType()}[tile.dtype.bitwidth]
        vectors = ir.ArrayType(ir.VectorType(number, tile.lanes), tile.rows * tile.cols)
        super().__init__(manager, tile, vectors)


# --- what the words are made of -----------------------------------------------------------


def _pointer(context: Any, build: Any, kind: Any, array: Any, place: Any) -> Any:
    """Return the address of the array's element at the place."""
    return build.gep(context.make_array(kind)(context, build, array).data, [place])


def _load(build: Any, vector: Any, address: Any) -> Any:
    """Return the vector that begins at the address, aligned or not."""
    aligned = vector.element.get_abi_size(_target_data())
    return build.load(build.bitcast(address, vector.as_pointer()), align=aligned)


def _store(build: Any, value: Any, address: Any) -> None:
    """Put the vector into memory, aligned or not."""
    aligned = value.type.element.get_abi_size(_target_data())
    build.store(value, build.bitcast(address, value.type.as_pointer()), align=aligned)


@cache
def _target_data() -> Any:
    """Return what LLVM knows of the sizes of types."""
    from numba.core.registry import cpu_target

    return cpu_target.target_context.target_data


def _splat(build: Any, vector: Any, number: Any) -> Any:
    """Return a vector with the number in every lane."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = build.insert_element(nothing, number, INT32(0))
    lanes = ir.Constant(ir.VectorType(INT32, vector.count), [0] * vector.count)
    return build.shuffle_vector(first, nothing, lanes)


def _call(build: Any, name: str, *vectors: Any) -> Any:
    """Return what LLVM's function `name` makes of the vectors, lane by lane."""
    vector = vectors[0].type
    bits = "f32" if isinstance(vector.element, ir.FloatType) else "f64"
    kind = ir.FunctionType(vector, [vector] * len(vectors))
    full = f"llvm.{name}.v{vector.count}{bits}"
    return build.call(cgutils.get_or_insert_function(build.module, kind, full), vectors)


# --- the words ----------------------------------------------------------------------------


def _zeros(tile):
    """Return the word's two halves: its type, and how its instructions are written."""

    def generate(context, build, signature, arguments):
        return ir.Constant(context.get_value_type(tile), None)

    return generate


@intrinsic
def zeros(_, like):
    """Return a tile of zeros, of the machine's shape, for numbers like the array's."""
    rows, cols, *_ = tile_shape(str(like.dtype))
    tile = Tile(like.dtype, rows, cols)
    return tile(like), _zeros(tile)


@intrinsic
def zeros_row(_, like):
    """Return a tile of one long row, which fills half of the registers."""
    tile = Tile(like.dtype, 1, vector_unit()[1] // 2)
    return tile(like), _zeros(tile)


def _constants(numbers):
    """Write numbers that the compiler knows."""
    places = types.UniTuple(types.intp, len(numbers))

    def generate(context, build, signature, arguments):
        return context.make_tuple(build, places, [INT64(k) for k in numbers])

    return places, generate


@intrinsic
def zeros_column(_, like):
    """Return a tile of four rows of one vector, for `slide` and `meet`."""
    tile = Tile(like.dtype, 4, 1)
    return tile(like), _zeros(tile)


@intrinsic
def zeros_nine(_, like):
    """Return a tile of nine vectors, one for each tap of a 3 x 3 window."""
    tile = Tile(like.dtype, 9, 1)
    return tile(like), _zeros(tile)


@intrinsic
def shape_of(_, acc):
    """Return (rows, width, lanes): the width of a row of the tile is in numbers."""
    places, generate = _constants([acc.rows, acc.cols * acc.lanes, acc.lanes])
    return places(acc), generate


@intrinsic
def each_row(_, acc):
    """Return 0, 1, ... rows - 1."""
    places, generate = _constants(range(acc.rows))
    return places(acc), generate


@intrinsic
def each_col(_, acc):
    """Return the place of each column if they lie side by side: 0, lanes, 2 * lanes ..."""
    places, generate = _constants([q * acc.lanes for q in range(acc.cols)])
    return places(acc), generate


@intrinsic
def each_lane(_, acc):
    """Return 0, 1, ... lanes - 1."""
    places, generate = _constants(range(acc.lanes))
    return places(acc), generate


@intrinsic
def lanes_at(_, acc, table, first):
    """Return table[first : first + lanes]."""
    places, generate = _places(acc.lanes)
    return places(acc, table, types.intp), generate


def _places(count):
    """Write the reading of `count` places from a table."""
    places = types.UniTuple(types.intp, count)

    def generate(context, build, signature, arguments):
        _, table, first = arguments
        start = _pointer(context, build, signature.args[1], table, first)
        found = [build.load(build.gep(start, [INT64(k)])) for k in range(count)]
        return context.make_tuple(build, places, found)

    return places, generate


@intrinsic
def rows_at(_, acc, table, first):
    """Return table[first : first + rows], a place for each row of the tile."""
    places, generate = _places(acc.rows)
    return places(acc, table, types.intp), generate


@intrinsic
def cols_at(_, acc, table, first):
    """Return table[first : first + cols], a place for each column of the tile."""
    places, generate = _places(acc.cols)
    return places(acc, table, types.intp), generate


@intrinsic
def times(_, places, scale, start):
    """Return start + scale * place for each place."""

    def generate(context, build, signature, arguments):
        found = cgutils.unpack_tuple(build, arguments[0])
        moved = [build.add(arguments[2], build.mul(k, arguments[1])) for k in found]
        return context.make_tuple(build, places, moved)

    return places(places, types.intp, types.intp), generate


@intrinsic
def at_most(_, places, most):
    """Return the places, but `most` instead of those beyond it."""

    def generate(context, build, signature, arguments):
        found = cgutils.unpack_tuple(build, arguments[0])
        beyond = [build.icmp_signed(">", k, arguments[1]) for k in found]
        pairs = zip(beyond, found, strict=True)
        kept = [build.select(far, arguments[1], k) for far, k in pairs]
        return context.make_tuple(build, places, kept)

    return places(places, types.intp), generate


def _stay(build):
    """Keep what is loaded after this line after it.

    An empty instruction that might touch memory, for all that the compiler knows. Else it
    loads the numbers of all rows at once, runs out of registers, and is half as fast.
    """
    kind = ir.FunctionType(ir.VoidType(), [])
    build.asm(kind, "", "~{memory}", [], side_effect=True)


def _multiply_add(read):
    """Make outer (read = a number in all lanes) or inner (read = a vector)."""

    def word(_, acc, s, row, i, v, col, j):
        def generate(context, build, signature, arguments):
            tile, s_array, row, i, v_array, col, j = arguments
            vector = context.get_value_type(acc).element

            def address(kind, array, place, tap):
                start = _pointer(context, build, kind, array, place)
                return build.gep(start, [tap])

            cols = cgutils.unpack_tuple(build, col)
            vs = [_load(build, vector, address(v, v_array, k, j)) for k in cols]
            for p, k in enumerate(cgutils.unpack_tuple(build, row)):
                _stay(build)
                number = read(build, vector, address(s, s_array, k, i))
                for q in range(acc.cols):
                    n = p * acc.cols + q
                    old = build.extract_value(tile, n)
                    new = _call(build, "fmuladd", number, vs[q], old)
                    tile = build.insert_value(tile, new, n)
            return tile

        return acc(acc, s, row, types.intp, v, col, types.intp), generate

    return word


def _broadcast(build, vector, address):
    return _splat(build, vector, build.load(address))


@intrinsic
def outer(_, acc, s, row, i, v, col, j):
    """Return acc with acc[p,q][l] + s[row[p] + i] * v[col[q] + j + l] for each element."""
    return _multiply_add(_broadcast)(_, acc, s, row, i, v, col, j)


@intrinsic
def inner(_, acc, s, row, i, v, col, j):
    """Return acc with acc[p,q][l] + s[row[p] + i + l] * v[col[q] + j + l]."""
    return _multiply_add(_load)(_, acc, s, row, i, v, col, j)


def _windows_of_nine(add):
    """Make slide or meet, which add up the same products of the same three numbers.

    Tap (u,v) of the window of row p sees a[i + (p+u)*step + v]: row p + u serves the
    windows of three rows, and each of its vectors is loaded once for all of them.
    """

    def word(_, column, nine, a, i, step):
        def generate(context, build, signature, arguments):
            column_value, nine_value, array, i, step = arguments
            vector = context.get_value_type(column).element
            rows = [build.extract_value(column_value, p) for p in range(column.rows)]
            taps = [build.extract_value(nine_value, t) for t in range(9)]
            start = _pointer(context, build, a, array, i)
            for r in range(column.rows + 2):
                line = build.gep(start, [build.mul(step, INT64(r))])
                for v in range(3):
                    _stay(build)
                    pixels = _load(build, vector, build.gep(line, [INT64(v)]))
                    for u in range(3):
                        if 0 <= r - u < column.rows:
                            add(build, rows, r - u, taps, 3 * u + v, pixels)
            tile, numbers = (column, rows) if add is _add_to_row else (nine, taps)
            found = ir.Constant(context.get_value_type(tile), ir.Undefined)
            for k, number in enumerate(numbers):
                found = build.insert_value(found, number, k)
            return found

        tile = column if add is _add_to_row else nine
        return tile(column, nine, a, types.intp, types.intp), generate

    return word


def _add_to_row(build, rows, p, taps, t, pixels):
    rows[p] = _call(build, "fmuladd", taps[t], pixels, rows[p])


def _add_to_tap(build, rows, p, taps, t, pixels):
    taps[t] = _call(build, "fmuladd", rows[p], pixels, taps[t])


@intrinsic
def slide(_, column, nine, a, i, step):
    """Return column[p] + the sum over u, v of nine[3*u+v] * a[i + (p+u)*step + v + l]."""
    return _windows_of_nine(_add_to_row)(_, column, nine, a, i, step)


@intrinsic
def meet(_, column, nine, a, i, step):
    """Return nine[3*u+v] + the sum over p of column[p] * a[i + (p+u)*step + v + l]."""
    return _windows_of_nine(_add_to_tap)(_, column, nine, a, i, step)


@intrinsic
def unseen(_, acc, rows, lanes):
    """Return the tile with zeros in its first rows, and in the first lanes of all rows."""

    def generate(context, build, signature, arguments):
        tile, rows, lanes = arguments
        vector = context.get_value_type(acc).element
        numbers = ir.VectorType(INT32, acc.lanes)
        each = ir.Constant(numbers, list(range(acc.lanes)))
        first = _splat(build, numbers, build.trunc(lanes, INT32))
        kept, zero = build.icmp_signed(">=", each, first), ir.Constant(vector, None)
        for n in range(acc.rows * acc.cols):
            old = build.select(kept, build.extract_value(tile, n), zero)
            new = build.icmp_signed(">=", INT64(n // acc.cols), rows)
            tile = build.insert_value(tile, build.select(new, old, zero), n)
        return tile

    return acc(acc, types.intp, types.intp), generate


@intrinsic
def splat(_, acc, a, row):
    """Return a tile with a[row[p]] in every element of row p."""

    def generate(context, build, signature, arguments):
        tile, array, row = arguments
        vector = context.get_value_type(acc).element
        for p, k in enumerate(cgutils.unpack_tuple(build, row)):
            number = build.load(_pointer(context, build, a, array, k))
            for q in range(acc.cols):
                full = _splat(build, vector, number)
                tile = build.insert_value(tile, full, p * acc.cols + q)
        return tile

    return acc(acc, a, row), generate


def _each(context, build, acc, kind, array, row, col):
    """Yield the number of each vector of the tile, and its address in the array."""
    cols = cgutils.unpack_tuple(build, col)
    for p, k in enumerate(cgutils.unpack_tuple(build, row)):
        start = _pointer(context, build, kind, array, k)
        for q in range(acc.cols):
            yield p * acc.cols + q, build.gep(start, [cols[q]])


@intrinsic
def load(_, acc, a, row, col):
    """Return a tile with a[row[p] + col[q] + l] in each element."""

    def generate(context, build, signature, arguments):
        tile, array, row, col = arguments
        vector = context.get_value_type(acc).element
        for n, address in _each(context, build, acc, a, array, row, col):
            tile = build.insert_value(tile, _load(build, vector, address), n)
        return tile

    return acc(acc, a, row, col), generate


@intrinsic
def store(_, acc, a, row, col):
    """Write a[row[p] + col[q] + l] = acc[p,q][l]."""

    def generate(context, build, signature, arguments):
        tile, array, row, col = arguments
        for n, address in _each(context, build, acc, a, array, row, col):
            _store(build, build.extract_value(tile, n), address)
        return context.get_dummy_value()

    return types.void(acc, a, row, col), generate


@intrinsic
def move(_, a, i, b, j):
    """Write b[j + l] = a[i + l] for each lane."""

    def generate(context, build, signature, arguments):
        a_array, i, b_array, j = arguments
        number, lanes = context.get_value_type(a.dtype), tile_shape(str(a.dtype)).lanes
        vector = ir.VectorType(number, lanes)
        line = _load(build, vector, _pointer(context, build, a, a_array, i))
        _store(build, line, _pointer(context, build, b, b_array, j))
        return context.get_dummy_value()

    return types.void(a, types.intp, b, types.intp), generate


@intrinsic
def weave(_, b, i, a, even, odd):
    """Write b[i + 2*l] = a[even + l] and b[i + 2*l + 1] = a[odd + l] for each lane."""

    def generate(context, build, signature, arguments):
        b_array, i, a_array, even, odd = arguments
        number, lanes = context.get_value_type(a.dtype), tile_shape(str(a.dtype)).lanes
        two = [
            _load(
                *(build, ir.VectorType(number, lanes)),
                _pointer(context, build, a, a_array, place),
            )
            for place in (even, odd)
        ]
        for half, woven in enumerate(_in_turns(build, *two)):
            place = build.add(i, INT64(half * lanes))
            _store(build, woven, _pointer(context, build, b, b_array, place))
        return context.get_dummy_value()

    place = types.intp
    return types.void(b, place, a, place, place), generate


@intrinsic
def plus(_, acc, a, row, col):
    """Return acc with a[row[p] + col[q] + l] added to each element."""

    def generate(context, build, signature, arguments):
        tile, array, row, col = arguments
        vector = context.get_value_type(acc).element
        for n, address in _each(context, build, acc, a, array, row, col):
            more = build.fadd(build.extract_value(tile, n), _load(build, vector, address))
            tile = build.insert_value(tile, more, n)
        return tile

    return acc(acc, a, row, col), generate


@intrinsic
def total(_, acc, a, row, step):
    """Write a[row[p] + step*q] = the sum over the lanes of acc[p,q]."""

    def generate(context, build, signature, arguments):
        tile, array, row, step = arguments
        vector = context.get_value_type(acc).element
        number, bits = vector.element, acc.dtype.bitwidth
        kind = ir.FunctionType(number, [number, vector])
        name = f"llvm.vector.reduce.fadd.v{vector.count}f{bits}"
        add = cgutils.get_or_insert_function(build.module, kind, name)
        for p, k in enumerate(cgutils.unpack_tuple(build, row)):
            for q in range(acc.cols):
                lanes = build.extract_value(tile, p * acc.cols + q)
                found = build.call(add, [number(0.0), lanes], fastmath=("reassoc",))
                place = build.add(k, build.mul(step, INT64(q)))
                build.store(found, _pointer(context, build, a, array, place))
        return context.get_dummy_value()

    return types.void(acc, a, row, types.intp), generate


@intrinsic
def pile(_, acc, a, col):
    """Add the sum over the rows: a[col[q] + l] += the sum over p of acc[p,q][l]."""

    def generate(context, build, signature, arguments):
        tile, array, col = arguments
        vector = context.get_value_type(acc).element
        for q, k in enumerate(cgutils.unpack_tuple(build, col)):
            address = _pointer(context, build, a, array, k)
            found = build.extract_value(tile, q)
            for p in range(1, acc.rows):
                found = build.fadd(found, build.extract_value(tile, p * acc.cols + q))
            _store(build, build.fadd(_load(build, vector, address), found), address)
        return context.get_dummy_value()

    return types.void(acc, a, col), generate


@intrinsic
def positive(_, acc):
    """Return the tile with zeros in place of what is below zero; NaN stays."""

    def generate(context, build, signature, arguments):
        tile = arguments[0]
        for n in range(acc.rows * acc.cols):
            old = build.extract_value(tile, n)
            zero = ir.Constant(old.type, None)
            below = build.fcmp_ordered("<=", old, zero)
            tile = build.insert_value(tile, build.select(below, zero, old), n)
        return tile

    return acc(acc), generate


@intrinsic
def transpose(_, a, row, b, col):
    """Write b[col[c] + r] = a[row[r] + c] for the lanes x lanes numbers r, c."""
    lanes = len(row)

    def generate(context, build, signature, arguments):
        a_array, row, b_array, col = arguments
        number = {32: ir.FloatType(), 64: ir.DoubleType()}[a.dtype.bitwidth]
        vector = ir.VectorType(number, lanes)
        lines = [
            _load(build, vector, _pointer(context, build, a, a_array, k))
            for k in cgutils.unpack_tuple(build, row)
        ]
        half = 1
        while half < lanes:  # swap the blocks beside the diagonal: 1 x 1, 2 x 2, 4 x 4
            keep = [k if not k & half else lanes + k - half for k in range(lanes)]
            swap = [k + half if not k & half else lanes + k for k in range(lanes)]
            for r in range(lanes):
                if not r & half:
                    one, two = lines[r], lines[r + half]
                    for place, order in ((r, keep), (r + half, swap)):
                        mask = ir.Constant(ir.VectorType(INT32, lanes), order)
                        lines[place] = build.shuffle_vector(one, two, mask)
            half *= 2
        for line, k in zip(lines, cgutils.unpack_tuple(build, col), strict=True):
            _store(build, line, _pointer(context, build, b, b_array, k))
        return context.get_dummy_value()

    return types.void(a, row, b, col), generate


# --- words for 2 x 2 windows side by side, lanes of them at a time -----------------------


def _shuffled(build, first, second, order):
    """Return the lanes of two vectors, numbered through, in another order."""
    order = ir.Constant(ir.VectorType(INT32, len(order)), order)
    return build.shuffle_vector(first, second, order)


def _apart(build, first, second):
    """Return lanes 0, 2, 4 ... of two vectors as one vector, and the others as another."""
    lanes = first.type.count
    return [
        _shuffled(build, first, second, list(range(side, 2 * lanes, 2))) for side in (0, 1)
    ]


def _in_turns(build, left, right):
    """Return as two vectors: a lane of left, one of right, one of left ..."""
    lanes = left.type.count
    order = [k // 2 + k % 2 * lanes for k in range(2 * lanes)]
    return [
        _shuffled(build, left, right, order[start : start + lanes]) for start in (0, lanes)
    ]


def _windows(context, build, kind, array, i, W):
    """Return the four vectors of pixels: above left and right, below left and right."""
    number = context.get_value_type(kind.dtype)
    lanes = tile_shape(str(kind.dtype)).lanes
    vector = ir.VectorType(number, lanes)
    found = []
    for start in (i, build.add(i, W)):
        two = [
            _pointer(context, build, kind, array, build.add(start, INT64(k)))
            for k in (0, lanes)
        ]
        first, second = (_load(build, vector, address) for address in two)
        found += _apart(build, first, second)
    return found


def _store_windows(context, build, kind, array, i, W, four):
    """Write four vectors of pixels to where `_windows` reads them."""
    for start, sides in ((i, four[:2]), (build.add(i, W), four[2:])):
        for half, pixels in enumerate(_in_turns(build, *sides)):
            place = build.add(start, INT64(half * pixels.type.count))
            _store(build, pixels, _pointer(context, build, kind, array, place))


def _beats(build, b, a):
    """Say in which lanes b is larger than a; NaN is larger than any number."""
    not_below = build.fcmp_unordered(">", b, a)  # or one of the two is NaN
    return build.and_(not_below, build.fcmp_ordered("ord", a, a))


@intrinsic
def pool(_, z, k, y, i, W):
    """Write z[k + l] = the largest of the four pixels at y[i + 2*l] and y[i + W + 2*l]."""

    def generate(context, build, signature, arguments):
        z_array, k, y_array, i, W = arguments
        a, b, c, d = _windows(context, build, y, y_array, i, W)
        above = build.select(_beats(build, b, a), b, a)
        below = build.select(_beats(build, d, c), d, c)
        best = build.select(_beats(build, below, above), below, above)
        _store(build, best, _pointer(context, build, z, z_array, k))
        return context.get_dummy_value()

    place = types.intp
    return types.void(z, place, y, place, place), generate


@intrinsic
def unpool(_, dy, y, i, W, dz, k):
    """Write dz[k + l] where its window has its first largest y, if above 0, else zeros."""

    def generate(context, build, signature, arguments):
        dy_array, y_array, i, W, dz_array, k = arguments
        a, b, c, d = _windows(context, build, y, y_array, i, W)
        second, fourth = _beats(build, b, a), _beats(build, d, c)
        above, below = build.select(second, b, a), build.select(fourth, d, c)
        down = _beats(build, below, above)
        zero = ir.Constant(a.type, None)
        none = build.fcmp_ordered("<=", build.select(down, below, above), zero)
        gradient = _load(build, a.type, _pointer(context, build, dz, dz_array, k))
        gradient = build.select(none, zero, gradient)
        four = []
        for here, right in ((build.not_(down), second), (down, fourth)):
            whole = build.select(here, gradient, zero)
            four += build.select(right, zero, whole), build.select(right, whole, zero)
        _store_windows(context, build, dy, dy_array, i, W, four)
        return context.get_dummy_value()

    place = types.intp
    return types.void(dy, y, place, place, dz, place), generate


def _places_seen(build, lanes, p, W):
    """Return the places of the pixels of `_windows` as int32; that of the first is p."""
    vector = ir.VectorType(INT32, lanes)
    first = _splat(build, vector, build.trunc(p, INT32))
    first = build.add(first, ir.Constant(vector, list(range(0, 2 * lanes, 2))))
    below = build.add(first, _splat(build, vector, build.trunc(W, INT32)))
    one = ir.Constant(vector, [1] * lanes)
    return [place for row in (first, below) for place in (row, build.add(row, one))]


@intrinsic
def pool_places(_, z, places, k, y, i, W, p):
    """Do as `pool`, and write the place of the first largest pixel to places[k + l].

    Places are counted from that of y[i], which is p.
    """

    def generate(context, build, signature, arguments):
        z_array, places_array, k, y_array, i, W, p = arguments
        pixels = _windows(context, build, y, y_array, i, W)
        at = _places_seen(build, pixels[0].type.count, p, W)
        rows = []
        for n in (0, 2):
            right = _beats(build, pixels[n + 1], pixels[n])
            rows.append([build.select(right, a[n + 1], a[n]) for a in (pixels, at)])
        (above, place_above), (below, place_below) = rows
        down = _beats(build, below, above)
        best = build.select(down, below, above)
        place = build.select(down, place_below, place_above)
        _store(build, best, _pointer(context, build, z, z_array, k))
        _store(build, place, _pointer(context, build, places, places_array, k))
        return context.get_dummy_value()

    index = types.intp
    return types.void(z, places, index, y, index, index, index), generate


@intrinsic
def unpool_places(_, dy, i, W, dz, places, k, p):
    """Write dz[k + l] where the window has the place places[k + l], else zeros.

    Places are counted from that of dy[i], which is p.
    """

    def generate(context, build, signature, arguments):
        dy_array, i, W, dz_array, places_array, k, p = arguments
        lanes = tile_shape(str(dz.dtype)).lanes
        vector = ir.VectorType(context.get_value_type(dz.dtype), lanes)
        gradient = _load(build, vector, _pointer(context, build, dz, dz_array, k))
        address = _pointer(context, build, places, places_array, k)
        found = _load(build, ir.VectorType(INT32, lanes), address)
        zero, four = ir.Constant(vector, None), []
        for place in _places_seen(build, lanes, p, W):
            here = build.icmp_signed("==", found, place)
            four.append(build.select(here, gradient, zero))
        _store_windows(context, build, dy, dy_array, i, W, four)
        return context.get_dummy_value()

    index = types.intp
    return types.void(dy, index, index, dz, places, index, index), generate


@intrinsic
def add_four(_, z, k, y, i, W):
    """Write z[k + l] = the sum of the four pixels that `pool` looks at."""

    def generate(context, build, signature, arguments):
        z_array, k, y_array, i, W = arguments
        a, b, c, d = _windows(context, build, y, y_array, i, W)
        total = build.fadd(build.fadd(a, b), build.fadd(c, d))
        _store(build, total, _pointer(context, build, z, z_array, k))
        return context.get_dummy_value()

    index = types.intp
    return types.void(z, index, y, index, index), generate


@intrinsic
def to_four(_, y, i, W, z, k):
    """Write z[k + l] to the four pixels that `pool` looks at."""

    def generate(context, build, signature, arguments):
        y_array, i, W, z_array, k = arguments
        lanes = tile_shape(str(z.dtype)).lanes
        vector = ir.VectorType(context.get_value_type(z.dtype), lanes)
        number = _load(build, vector, _pointer(context, build, z, z_array, k))
        _store_windows(context, build, y, y_array, i, W, 4 * [number])
        return context.get_dummy_value()

    index = types.intp
    return types.void(y, index, index, z, index), generate


# --- words for rows of any windows --------------------------------------------------------


@intrinsic
def pair(_, like):
    """Return two vectors of zeros side by side."""
    tile = Tile(like.dtype, 1, 2)
    return tile(like), _zeros(tile)


@intrinsic
def split(_, a, even, odd, b, i):
    """Write a[even + l] = b[i + 2*l] and a[odd + l] = b[i + 2*l + 1]."""

    def generate(context, build, signature, arguments):
        a_array, even, odd, b_array, i = arguments
        lanes = tile_shape(str(a.dtype)).lanes
        vector = ir.VectorType(context.get_value_type(a.dtype), lanes)
        two = [
            _load(build, vector, _pointer(context, build, b, b_array, build.add(i, k)))
            for k in (INT64(0), INT64(lanes))
        ]
        for place, side in zip((even, odd), _apart(build, *two), strict=True):
            _store(build, side, _pointer(context, build, a, a_array, place))
        return context.get_dummy_value()

    index = types.intp
    return types.void(a, index, index, b, index), generate


@intrinsic
def larger(_, best, places, pixels, here):
    """Return best and places, with the pixels and `here` where a pixel beats the best.

    NaN beats any number, and the first NaN any other.
    """

    def generate(context, build, signature, arguments):
        most, where, news, here = arguments
        number = _splat(build, context.get_value_type(best).element, here)
        for n in range(best.rows * best.cols):
            old, place, new = (build.extract_value(k, n) for k in (most, where, news))
            beats = _beats(build, new, old)
            most = build.insert_value(most, build.select(beats, new, old), n)
            where = build.insert_value(where, build.select(beats, number, place), n)
        return context.make_tuple(build, signature.return_type, [most, where])

    return types.UniTuple(best, 2)(best, places, pixels, best.dtype), generate
