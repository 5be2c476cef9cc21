"""Winograd's convolution: 3 x 3 windows at stride 1, with 16 products instead of 36.

A tile is 2 x 2 neighbouring pixels of y. Their windows see 4 x 4 pixels d of x; the filter
is g, 3 x 3. The definition takes 4 * 9 products for each channel. Winograd takes 16: one
for each element of two 4 x 4 matrices,

    (1)  u = G g G^T                   once for each filter and channel
    (2)  v = B^T d B                   once for each tile and channel
    (3)  m = sum over channels of u * v          element by element
    (4)  y = A^T m A + b               once for each tile and filter

           | 1   0   0  |           | 1  0 -1  0 |
       G = | 1/2 1/2 1/2|     B^T = | 0  1  1  0 |     A^T = | 1  1  1  0 |
           | 1/2-1/2 1/2|           | 0 -1  1  0 |           | 0  1 -1 -1 |
           | 0   0   1  |           | 0  1  0 -1 |

Multiply it out in one dimension, two pixels of y and a filter of three, to see why:
m0 = (d0 - d2) g0, m1 = (d1 + d2)(g0 + g1 + g2)/2, m2 = (d2 - d1)(g0 - g1 + g2)/2 and
m3 = (d1 - d3) g2, so that y0 = m0 + m1 + m2 = d0 g0 + d1 g1 + d2 g2, and
y1 = m1 - m2 - m3 = d1 g0 + d2 g1 + d3 g2.

(2) and (4) are sums only, and each is paid once for many products if there are many filters
and channels. (3) is 16 matrix products, of filters x channels by channels x tiles: register
tiles of 6 filters x 16 tiles, as in course/engine/matmul.py. A block of tiles goes through
(2) to (4) before the next, so that v and m stay in the cache.

dx is the same with dy in place of x, the filters turned by half a turn, and their channels
exchanged.

Edges: tiles that hang over an odd edge see zeros there, and what they find is dropped. A
NaN or an infinity would spread over its tile, since inf - inf is NaN; so would sums above
the largest number. An image in which one comes out is left to the loops of
course/engine/cpu.py, which keep to the definition. Rounding errors are no more than twice
those of these loops: (2) and (4) add some, but the sums of (3) are shorter.

A thread owns the blocks it computes. What is in a tile does not depend on its block, nor on
other images: the same bits, whatever the number of threads.

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
section 4.1; Winograd, "Arithmetic Complexity of Computations", SIAM 1980.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.unsafe.ndarray import to_fixed_tuple

from course.compiled import inside, job
from course.engine.cpu import _clear, pool_rows, shares_for, workspace
from course.engine.tile import (
    _call,
    _load,
    _pointer,
    _splat,
    _store,
    each_col,
    each_lane,
    each_row,
    outer,
    shape_of,
    split,
    store,
    tile_shape,
    times,
    transpose,
    zeros,
)
from course.launch import launch

TO_U = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))  # G of (1)
TO_V = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # B^T of (2)
TO_Y = ((1, 1, 1, 0), (0, 1, -1, -1))  # A^T of (4)
NINE = tuple(range(9))  # the elements of g,
SIXTEEN = tuple(range(16))  # and those of u, v and m
MAKE, READ = 400, 250  # what making (1) costs, and reading u for a block, as products
ROOM = 1 << 20  # bytes of v: small in a third cache, but u is read for many tiles


class Tiling(NamedTuple):
    """Sizes, and the steps through u, v and m. "Source" is x (dy for dx), "target" y (dx).

    u is [element][filter][channel], v is [element][channel][tile], and m is as v, for the
    few filters of one register tile. No step between elements is a multiple of 4 KB:
    places so far apart share a place in the first cache.
    """

    N: int  # images
    S: int  # channels of the source
    T: int  # channels of the target
    H: int  # height and width of a source plane,
    W: int
    top: int  # and the zeros above it and before it
    left: int
    rows: int  # of pixels in a target plane
    columns: int
    relu: int  # 1 if what is below zero becomes zero
    pool: int  # 1 if the largest of every 2 x 2 goes to a second target
    filter_step: int  # in w, from one channel of the target to the next,
    channel_step: int  # and from one of the source to the next
    turned: int  # 1 if filters are turned by half a turn
    high: int  # rows of tiles in a plane,
    wide: int  # tiles in a row,
    block: int  # rows of tiles, of one image or several, that go together
    row: int  # in u, from one filter to the next
    u_step: int  # and from one element to the next
    line: int  # in v and m, from one row to the next; a gap for vectors that end later
    v_step: int  # and from one element to the next
    m_step: int
    half: int  # even columns of a row of the frame; as many odd ones follow
    room: int  # numbers of the workspace for a thread,
    flags: int  # and before them, one vector for each row of tiles: NaN if it is spoiled


SIZES = len(Tiling._fields)


# --- the words ----------------------------------------------------------------------------


def _sum(build, weights, vectors):
    """Return the sum of weight * vector; no weight is zero, and all are as large."""
    terms = sorted(zip(weights, vectors, strict=True), key=lambda term: term[0] < 0)
    found = terms[0][1]
    for weight, vector in terms[1:]:
        found = (build.fadd if weight > 0 else build.fsub)(found, vector)
    size = abs(weights[0])
    return found if size == 1 else build.fmul(found, _number(found.type, size))


def _number(vector, number):
    """Return a vector of the number."""
    return ir.Constant(vector, [vector.element(number)] * vector.count)


def _both_sides(matrix):
    """Make the word that writes matrix * a * matrix^T for `lanes` matrices side by side.

    word(b, there, a, here): element k of a, row by row, is at a[here[k]] for the first of
    them, at a[here[k] + 1] for the second; and likewise b.
    """
    used = [[(k, weight) for k, weight in enumerate(row) if weight] for row in matrix]

    def word(_, b, there, a, here):
        def generate(context, build, signature, arguments):
            b_array, there, a_array, here = arguments
            lanes = tile_shape(str(a.dtype)).lanes
            vector = ir.VectorType(context.get_value_type(a.dtype), lanes)
            here, size = cgutils.unpack_tuple(build, here), len(matrix[0])
            there = iter(cgutils.unpack_tuple(build, there))
            for down in used:
                line = []
                for col in range(size):
                    places = [here[row * size + col] for row, _ in down]
                    found = [
                        _load(build, vector, _pointer(context, build, a, a_array, place))
                        for place in places
                    ]
                    line.append(_sum(build, [weight for _, weight in down], found))
                for across in used:
                    found = _sum(
                        build, [k for _, k in across], [line[k] for k, _ in across]
                    )
                    _store(build, found, _pointer(context, build, b, b_array, next(there)))
            return context.get_dummy_value()

        return types.void(b, there, a, here), generate

    return word


_to_u, _to_v, _to_y = (intrinsic(_both_sides(matrix)) for matrix in (TO_U, TO_V, TO_Y))


@intrinsic
def join(_, y, i, a, even, odd, left, spoiled, bad, b, f, floor):
    """Write y[i + 2*l] = a[even + l] + b[f], then a[odd + l] + b[f]; none below the floor.

    spoiled[bad + l] becomes NaN if one of them is not finite, for l < left.
    """

    def generate(context, build, signature, arguments):
        y_array, i, a_array, even, odd, left, check, bad, b_array, f, floor = arguments
        lanes = tile_shape(str(y.dtype)).lanes
        vector = ir.VectorType(context.get_value_type(y.dtype), lanes)
        bias = build.load(_pointer(context, build, b, b_array, f))
        bias, floor = _splat(build, vector, bias), _splat(build, vector, floor)
        where = _pointer(context, build, spoiled, check, bad)
        zero, two = ir.Constant(vector, None), []
        numbers = ir.VectorType(ir.IntType(32), lanes)
        each = ir.Constant(numbers, list(range(lanes)))
        left = build.trunc(left, numbers.element)
        counted = build.icmp_signed("<", each, _splat(build, numbers, left))
        nothing = zero  # and NaN where a pixel is not finite, since inf * 0 is NaN
        for place in (even, odd):
            pixels = _load(build, vector, _pointer(context, build, a, a_array, place))
            pixels = build.fadd(pixels, bias)
            nothing = _call(build, "fma", pixels, zero, nothing)
            below = build.fcmp_ordered("<=", pixels, floor)
            two.append(build.select(below, floor, pixels))
        found = build.fadd(
            _load(build, vector, where), build.select(counted, nothing, zero)
        )
        _store(build, found, where)
        for half in (0, lanes // 2):
            order = _order(half + k // 2 + k % 2 * lanes for k in range(lanes))
            address = _pointer(
                context, build, y, y_array, build.add(i, ir.IntType(64)(2 * half))
            )
            _store(build, build.shuffle_vector(*two, order), address)
        return context.get_dummy_value()

    place = types.intp
    return types.void(
        *(y, place, a, place, place, place, spoiled, place, b, place, y.dtype)
    ), generate


def _order(places):
    """Return the constant that tells a shuffle which lanes to take."""
    places = list(places)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)


# --- the loops ----------------------------------------------------------------------------


@inside
def _read(table):
    """Return the plan."""
    return Tiling(*to_fixed_tuple(table, SIZES))


@job
def _filters(u, w, _, __, ___, work, table, share, shares):
    """Compute (1); a share has filters."""
    p = _read(table)
    numbers = each_lane(zeros(u))
    lanes, sign = shape_of(zeros(u))[2], 1 - 2 * p.turned
    size, first, step = p.row, p.turned * 8 * p.row, sign * p.row
    g = work[share * 9 * size :]  # [tap][channel]
    for f in range(p.T * share // shares, p.T * (share + 1) // shares):
        start, c = f * p.filter_step, 0
        while c < p.S:
            t, count, here = 0, min(lanes, p.S - c), start + c * p.channel_step
            while count == lanes and t + lanes <= 9:
                lines = times(numbers, step, first + t * step + c)
                transpose(w, times(numbers, p.channel_step, here + t), g, lines)
                t += lanes
            while t < 9:
                for l in range(count):
                    there = first + t * step + c + l
                    g[there] = w[here + l * p.channel_step + t]
                t += 1
            c += lanes
        for c in range(0, p.S, lanes):
            there = times(SIXTEEN, p.u_step, f * size + c)
            _to_u(u, there, g, times(NINE, size, c))


@inside
def _rows_of(n, begin, end, p):
    """Return the first of the rows of tiles of image n in the block, and their count."""
    first = max(begin, n * p.high)
    return first - n * p.high, min(end, (n + 1) * p.high) - first


@inside
def _part(lines, even, odd, source, here, count):
    """Write a row of pixels to two lines: the first, third, ... and the others."""
    lanes, half, j = shape_of(zeros(source))[2], count // 2, 0
    while half >= lanes and j < half:
        j = min(j, half - lanes)
        split(lines, even + j, odd + j, source, here + 2 * j)
        j += lanes
    if half < lanes and here + 2 * lanes <= source.size:
        split(lines, even, odd, source, here)
        for l in range((count + 1) // 2, lanes):
            lines[even + l] = 0
        for l in range(half, lanes):
            lines[odd + l] = 0
        j = lanes
    while j < (count + 1) // 2:
        lines[even + j] = source[here + 2 * j]
        if 2 * j + 1 < count:
            lines[odd + j] = source[here + 2 * j + 1]
        j += 1


@inside
def _see(v, lines, source, n, i, count, slot, p):
    """Compute (2) for `count` rows of tiles of image n, from row i on.

    Even and odd columns of the frame go to a line each: neighbours there are the same pixel
    of neighbouring tiles. A vector that reaches beyond its row of tiles writes where the
    next row will, or into the gap.
    """
    lanes, odd, half = shape_of(zeros(v))[2], p.left % 2, p.half
    even, other = p.left // 2 + odd * half, (p.left + 1) // 2 + (1 - odd) * half
    a, b, c = 2 * half, 4 * half, 6 * half
    seen = (
        *(0, half, 1, half + 1, a, a + half, a + 1, a + half + 1),
        *(b, b + half, b + 1, b + half + 1, c, c + half, c + 1, c + half + 1),
    )
    for c in range(p.S):
        for r in range(2 * count + 2):
            h, start = 2 * i + r - p.top, 2 * r * half
            if 0 <= h < p.H:
                here = ((n * p.S + c) * p.H + h) * p.W
                _part(lines, start + even, start + other, source, here, p.W)
            else:
                _clear(lines, start, start + 2 * half)
        for k in range(count):
            there = c * p.line + slot + k * p.wide
            for j in range(0, p.wide, lanes):
                here = times(seen, 1, 4 * k * half + j)
                _to_v(v, times(SIXTEEN, p.v_step, there + j), lines, here)


@inside
def _join(target, begin, count, end, lines, even, odd, spoiled, bad, b, f, floor):
    """Write a row of pixels from two lines, with the bias, none below the floor.

    Behind the row, but before the end, anything may be written.
    """
    lanes, half, j = shape_of(zeros(target))[2], (count + 1) // 2, 0
    while j < count // 2 and (begin + 2 * (j + lanes) <= end or count >= 2 * lanes):
        if begin + 2 * (j + lanes) > end:
            j = count // 2 - lanes
        here, left = begin + 2 * j, half - j
        join(target, here, lines, even + j, odd + j, left, spoiled, bad, b, f, floor)
        j += lanes
    bias, found = b[f], spoiled[bad]
    while j < half:
        one, two = lines[even + j] + bias, lines[odd + j] + bias
        found += one * 0
        target[begin + 2 * j] = floor if one <= floor else one
        if 2 * j + 1 < count:
            found += two * 0
            target[begin + 2 * j + 1] = floor if two <= floor else two
        j += 1
    spoiled[bad] = found


@inside
def _show(target, lines, m, n, i, count, slot, spoiled, b, k, p):
    """Compute (4) for `count` rows of tiles of image n, from row i, and filters from k."""
    rows, _, lanes = shape_of(zeros(target))
    floor, half = target.dtype.type(0 if p.relu else -np.inf), p.half
    for f in range(k, min(k + rows, p.T)):
        plane = (n * p.T + f) * p.rows
        end = (plane + min(p.rows, 2 * (i + count))) * p.columns
        for r in range(i, i + count):
            here, bad = (f - k) * p.line + slot + (r - i) * p.wide, (n * p.high + r) * lanes
            for j in range(0, p.wide, lanes):
                there = (j, half + j, 2 * half + j, 3 * half + j)
                _to_y(lines, there, m, times(SIXTEEN, p.m_step, here + j))
            for s in range(min(2, p.rows - 2 * r)):
                begin, even = (plane + 2 * r + s) * p.columns, 2 * s * half
                odd, long = even + half, p.columns
                _join(target, begin, long, end, lines, even, odd, spoiled, bad, b, f, floor)


@inside
def _filters_times_tiles(acc, u, filters, v, tiles, line, channels):
    """Add the products of filters x neighbouring tiles over the channels."""
    for c in range(channels):
        acc = outer(acc, u, filters, c, v, tiles, c * line)
    return acc


@inside
def _products(m, u, v, k, count, p):
    """Compute (3) for a few filters from k on and so many tiles."""
    like = zeros(m)
    sides, filters = each_col(like), times(each_row(like), p.row, k * p.row)
    _, width, _ = shape_of(like)
    for e in range(16):
        these = times(filters, 1, e * p.u_step)
        places = times(each_row(like), p.line, e * p.m_step)
        for t in range(0, count, width):
            tiles = times(sides, 1, e * p.v_step + t)
            acc = _filters_times_tiles(like, u, these, v, tiles, p.line, p.S)
            store(acc, m, times(places, 1, t), sides)


@job
def _tiles(target, pooled, source, u, b, work, table, share, shares):
    """Compute (2) to (4); a share has blocks of rows of tiles, of all images."""
    p, (rows, _, lanes) = _read(table), shape_of(zeros(target))
    total, before = p.N * p.high, 16 * (p.v_step + p.m_step)
    after = before + 4 * p.half * (p.block + 1)
    mine = work[p.flags + share * p.room :]
    v, m, lines, sums = mine, mine[16 * p.v_step :], mine[before:], mine[after:]
    blocks = (total + p.block - 1) // p.block
    first = blocks * share // shares * p.block
    past = blocks * (share + 1) // shares * p.block
    _clear(lines, 0, after - before)
    _clear(work, first * lanes, min(past, total) * lanes)
    for begin in range(first, past, p.block):
        end = min(begin + p.block, total)
        images = begin // p.high, (end - 1) // p.high + 1
        for n in range(images[0], images[1]):
            i, count = _rows_of(n, begin, end, p)
            slot = (n * p.high + i - begin) * p.wide
            _see(v, lines, source, n, i, count, slot, p)
        for k in range(0, p.T, rows):
            _products(m, u, v, k, (end - begin) * p.wide, p)
            for n in range(images[0], images[1]):
                i, count = _rows_of(n, begin, end, p)
                slot = (n * p.high + i - begin) * p.wide
                _show(target, sums, m, n, i, count, slot, work, b, k, p)
                if p.pool:
                    for f in range(k, min(k + rows, p.T)):
                        plane, down = n * p.T + f, p.rows // 2
                        z = (plane * down + i) * (p.columns // 2)
                        y = (plane * p.rows + 2 * i) * p.columns
                        here = min(count, down - i)
                        pool_rows(pooled, z, target, y, here, p.columns)


# --- what the engine calls ----------------------------------------------------------------


@lru_cache(maxsize=256)
def _tiling(dtype, N, S, T, H, W, top, left, rows, columns, relu, pool, turned, shares):
    """Return the plan, and the same as an array; or None if the plain loops are faster."""
    shape, (high, wide) = tile_shape(dtype), (-(-rows // 2), -(-columns // 2))
    most = max(1, min(ROOM // (16 * S * dtype.itemsize * wide), N * high))

    def best(shares):
        """Return the rows in a block, the blocks, and their tiles, for so many threads."""

        def longest(choice):
            """Return what the thread with most blocks computes, in products of tiles."""
            _, blocks, tiles = choice
            return -(-blocks // shares) * (tiles + READ / 16)

        choices = [
            (block, -(-N * high // block), _whole(block * wide, shape.width))
            for block in range(most, 0, -1)
        ]
        return min(choices, key=longest)

    # Whether it pays must not depend on the threads, or the bits would.
    if not _pays(N * rows * columns / 4, S, T, *best(1)[1:], shape.rows):
        return None
    block, _, tiles = best(shares)
    row = _whole(S, 16)
    u_step = _whole(T, shape.rows) * row + 16
    line = tiles + shape.width
    v_step, m_step, half = S * line + 16, shape.rows * line + 16, wide + 2 * shape.lanes
    room = max(16 * (v_step + m_step) + 4 * half * (block + 2), 9 * row)
    plan = Tiling(
        *(N, S, T, H, W, top, left, rows, columns, int(relu), int(pool)),
        *((9, T * 9) if turned else (S * 9, 9)),
        *(int(turned), high, wide, block, row, u_step, line, v_step, m_step, half),
        *(_whole(room, 16), _whole(N * high * shape.lanes, 16)),
    )
    return plan, np.array(plan)


def _pays(quads: float, S: int, T: int, blocks: int, tiles: int, rows: int) -> bool:
    """Say whether `quads` of 2 x 2 pixels cost less as so many blocks of tiles.

    Costs are counted in products. Those of (2) and (4) are measured.
    """
    u = (MAKE + READ * blocks) * S * T
    each = 180 * S + 230 * T + 16 * S * _whole(T, rows)
    return 36 * S * T * quads > 1.1 * (u + each * blocks * tiles)


def _whole(count: int, multiple: int) -> int:
    """Return the count, rounded up to a multiple."""
    return -(-count // multiple) * multiple


def correlate(target, pooled, source, w, b, key, turned=False, relu=False) -> list[slice]:
    """Fill the target, and return the parts of the batch that are left to other loops.

    These are all of it if those are faster. `turned` is for dx. `key` is that of
    course/engine/cpu.py.
    """
    everything = [slice(None)]
    N, *_, kernel, stride, ((top, bottom), (left, right)), dilation, G = key
    suits = (kernel, stride, dilation, G, N) == ((3, 3), (1, 1), (1, 1), 1, len(source))
    if not suits or not w.size:
        return everything
    if max(top, bottom, left, right) > 2:  # for dx, dy would be cut instead of framed
        return everything
    if turned:
        top, left = 2 - top, 2 - left
    (N, S, H, W), (_, T, rows, columns) = source.shape, target.shape
    shares, pool = shares_for(target.size * S * 9), pooled is not None
    sizes = N, S, T, H, W, top, left, rows, columns
    found = _tiling(source.dtype, *sizes, relu, pool, turned, shares)
    if found is None:
        return everything
    plan, table = found
    size = 16 * plan.u_step
    work = workspace(source.dtype, size + plan.flags + shares * plan.room)
    u, work = work[:size], work[size:]
    flat = [a.reshape(-1) for a in (target, pooled if pool else target, source)]
    launch(_filters, shares, u, w.reshape(-1), b, b, b, work, table)
    launch(_tiles, shares, *flat, u, b, work, table)
    spoiled = work[: N * plan.high * tile_shape(source.dtype).lanes].reshape(N, -1)
    return [slice(n, n + 1) for n in np.flatnonzero(np.isnan(spoiled).any(axis=1))]
