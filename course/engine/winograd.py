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
m0 = (d0 - d2) g0, m1 = (d1 + d2)(g0 + g1 + g2)/2, m2 = (d2 - d1)(g0 - g1 + g2)/2,
m3 = (d1 - d3) g2, and m0 + m1 + m2 = d0 g0 + d1 g1 + d2 g2.

(2) and (4) are sums only, and each is paid once for many products if there are many filters
and channels. (3) is 16 matrix products, of filters x channels by channels x tiles: register
tiles of 6 filters x 16 tiles, as in course/engine/matmul.py. A block of tiles goes through
(2) to (4) before the next, so that v and m stay in the second cache.

dx is the same with dy in place of x, the filters turned by half a turn, and their channels
exchanged.

Edges: tiles that hang over an odd edge see zeros there, and what they find is dropped. A
NaN or an infinity would spread over its tile, since inf - inf is NaN; so would sums above
the largest number. An image in which one comes out is left to the loops of
course/engine/cpu.py, which keep to the definition. Rounding errors are those of sums over C
numbers, not 9 C: smaller than in the plain loops.

A thread owns the blocks it computes. What is in a tile does not depend on its block: the
same bits, whatever the number of threads and images.

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
section 4.1; Winograd, "Arithmetic Complexity of Computations", SIAM 1980.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from course.compiled import compiled
from course.device import Array
from course.engine.cpu import Plan, whole, workspace
from course.engine.launch import launch
from course.engine.matmul import _rows_times_columns
from course.engine.tile import (
    _call,
    _load,
    _pointer,
    _splat,
    _store,
    each_col,
    each_lane,
    each_row,
    lanes_at,
    rows_at,
    shape_of,
    store,
    tile_shape,
    times,
    transpose,
    zeros,
)

G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
BT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
AT = ((1, 1, 1, 0), (0, 1, -1, -1))
NINE = tuple(range(9))  # the elements of g,
SIXTEEN = tuple(range(16))  # and those of u, v and m
ROOM = 1 << 18  # bytes of v: half of a second cache


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
                    found = _sum(build, [k for _, k in across], [line[k] for k, _ in across])
                    _store(build, found, _pointer(context, build, b, b_array, next(there)))
            return context.get_dummy_value()

        return types.void(b, there, a, here), generate

    return word


_to_u, _to_v, _to_y = (intrinsic(_both_sides(matrix)) for matrix in (G, BT, AT))


@intrinsic
def part(_, b, even, odd, a, i):
    """Write b[even + l] = a[i + 2*l] and b[odd + l] = a[i + 2*l + 1]."""

    def generate(context, build, signature, arguments):
        b_array, even, odd, a_array, i = arguments
        lanes = tile_shape(str(a.dtype)).lanes
        vector = ir.VectorType(context.get_value_type(a.dtype), lanes)
        two = [
            _load(build, vector, _pointer(context, build, a, a_array, place))
            for place in (i, build.add(i, ir.IntType(64)(lanes)))
        ]
        for side, place in enumerate((even, odd)):
            found = build.shuffle_vector(*two, _order(range(side, 2 * lanes, 2)))
            _store(build, found, _pointer(context, build, b, b_array, place))
        return context.get_dummy_value()

    place = types.intp
    return types.void(b, place, place, a, place), generate


@intrinsic
def join(_, y, i, a, even, odd, spoiled, b, f, floor):
    """Write y[i + 2*l] = a[even + l] + b[f], then a[odd + l] + b[f]; none below the floor.

    spoiled[l] becomes NaN if one of them is not finite.
    """

    def generate(context, build, signature, arguments):
        y_array, i, a_array, even, odd, check, b_array, f, floor = arguments
        lanes = tile_shape(str(y.dtype)).lanes
        vector = ir.VectorType(context.get_value_type(y.dtype), lanes)
        bias = build.load(_pointer(context, build, b, b_array, f))
        bias, floor = _splat(build, vector, bias), _splat(build, vector, floor)
        where = _pointer(context, build, spoiled, check, ir.IntType(64)(0))
        found, two = _load(build, vector, where), []
        for place in (even, odd):
            pixels = _load(build, vector, _pointer(context, build, a, a_array, place))
            pixels = build.fadd(pixels, bias)
            found = _call(build, "fma", pixels, ir.Constant(vector, None), found)
            below = build.fcmp_ordered("<=", pixels, floor)
            two.append(build.select(below, floor, pixels))
        _store(build, found, where)
        for half in (0, lanes // 2):
            order = _order(half + k // 2 + k % 2 * lanes for k in range(lanes))
            address = _pointer(context, build, y, y_array, build.add(i, ir.IntType(64)(2 * half)))
            _store(build, build.shuffle_vector(*two, order), address)
        return context.get_dummy_value()

    place = types.intp
    return types.void(y, place, a, place, place, spoiled, b, place, y.dtype), generate


def _order(places):
    """Return the constant that tells a shuffle which lanes to take."""
    places = list(places)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)


# --- the loops ----------------------------------------------------------------------------


@compiled
def _steps(plan, width, lanes):
    """Return the steps through u and v, no multiples of 4 KB, and the tiles in a block.

    u is [element][filter][channel], v is [element][channel][tile], m as v but for a few
    filters; v has a gap behind each row of tiles, for vectors that are longer.
    """
    channels = (plan.S + lanes - 1) // lanes * lanes
    tiles = (plan.stretch * ((plan.columns + 1) // 2) + width - 1) // width * width
    u_step = plan.T * channels
    v_step = plan.S * (tiles + width)
    return channels, u_step + 16, tiles, v_step + 16


@compiled
def _filters(u, w, _, __, ___, work, plan, share, shares):
    """Compute (1), u[element][filter][channel]; a share has filters."""
    like = zeros(u)
    _, width, lanes = shape_of(like)
    size, step, _, _ = _steps(plan, width, lanes)
    g = work[share * 9 * size : (share + 1) * 9 * size]  # [tap][channel]
    for f in range(plan.T * share // shares, plan.T * (share + 1) // shares):
        start, c = plan.few_start[f], 0
        while c < plan.S:
            t = 0
            while c + lanes <= plan.S and t + lanes <= 9:
                rows = times(each_lane(like), plan.leap, start + c * plan.leap + t)
                transpose(w, rows, g, times(lanes_at(like, plan.line, t), size, c))
                t += lanes
            while t < 9:
                for l in range(min(lanes, plan.S - c)):
                    g[plan.line[t] * size + c + l] = w[start + (c + l) * plan.leap + t]
                t += 1
            there = times(SIXTEEN, step, f * size + c)
            _to_u(u, there, g, times(NINE, size, c))
            c += lanes


@compiled
def _part(lines, even, odd, source, here, count):
    """Write a row of pixels to two lines: the first, third, ... and the others."""
    lanes, half, j = shape_of(zeros(source))[2], count // 2, 0
    while half >= lanes and j < half:
        j = min(j, half - lanes)
        part(lines, even + j, odd + j, source, here + 2 * j)
        j += lanes
    while j < half:
        lines[even + j] = source[here + 2 * j]
        lines[odd + j] = source[here + 2 * j + 1]
        j += 1
    if count % 2:
        lines[even + half] = source[here + count - 1]


@compiled
def _clear(lines, first, count):
    """Write zeros."""
    line, zero = lines[first : first + count], lines.dtype.type(0)
    for j in range(count):
        line[j] = zero


@compiled
def _see(v, lines, half, source, n, i, count, slot, line_step, step, plan):
    """Compute (2) for `count` rows of tiles of image n: v[element][channel][slot + tile].

    Even and odd columns of the frame go to a line each: neighbours there are the same pixel
    of neighbouring tiles. A vector that reaches beyond its row of tiles writes where the
    next row will, or into the gap.
    """
    lanes, wide = shape_of(zeros(v))[2], (plan.columns + 1) // 2
    even = plan.left // 2 if plan.left % 2 == 0 else half + plan.left // 2
    odd = half + plan.left // 2 if plan.left % 2 == 0 else plan.left // 2 + 1
    a, b, c = 2 * half, 4 * half, 6 * half
    seen = (
        *(0, half, 1, half + 1, a, a + half, a + 1, a + half + 1),
        *(b, b + half, b + 1, b + half + 1, c, c + half, c + 1, c + half + 1),
    )
    for c in range(plan.S):
        for r in range(2 * count + 2):
            h, start = 2 * i + r - plan.top, 2 * r * half
            if 0 <= h < plan.H:
                here = ((n * plan.S + c) * plan.H + h) * plan.W
                _part(lines, start + even, start + odd, source, here, plan.W)
            else:
                _clear(lines, start, 2 * half)
        for k in range(count):
            there = c * line_step + slot + k * wide
            for j in range(0, wide, lanes):
                here = times(seen, 1, 4 * k * half + j)
                _to_v(v, times(SIXTEEN, step, there + j), lines, here)


@compiled
def _join(target, begin, count, lines, even, odd, spoiled, b, f, floor):
    """Write a row of pixels from two lines, with the bias, none below the floor."""
    lanes, half, j = shape_of(zeros(target))[2], count // 2, 0
    while half >= lanes and j < half:
        j = min(j, half - lanes)
        join(target, begin + 2 * j, lines, even + j, odd + j, spoiled, b, f, floor)
        j += lanes
    bias, found = b[f], spoiled[0]
    while j < (count + 1) // 2:
        one, two = lines[even + j] + bias, lines[odd + j] + bias
        found += one * 0
        target[begin + 2 * j] = floor if one <= floor else one
        if 2 * j + 1 < count:
            found += two * 0
            target[begin + 2 * j + 1] = floor if two <= floor else two
        j += 1
    spoiled[0] = found


@compiled
def _show(target, lines, half, m, n, i, count, slot, line_step, step, spoiled, k, b, plan):
    """Compute (4) for `count` rows of tiles of image n and the block k of filters."""
    rows, _, lanes = shape_of(zeros(target))
    wide, high = (plan.columns + 1) // 2, plan.area // plan.columns
    floor = target.dtype.type(0 if plan.relu else -np.inf)
    for p in range(min(rows, plan.T - k)):
        plane = (n * plan.T + k + p) * plan.area
        for r in range(count):
            here, y = p * line_step + slot + r * wide, 2 * (i + r)
            for j in range(0, wide, lanes):
                there = (j, half + j, 2 * half + j, 3 * half + j)
                _to_y(lines, there, m, times(SIXTEEN, step, here + j))
            begin = plane + y * plan.columns
            _join(target, begin, plan.columns, lines, 0, half, spoiled, b, k + p, floor)
            if y + 1 < high:
                begin += plan.columns
                _join(
                    *(target, begin, plan.columns, lines, 2 * half, 3 * half),
                    *(spoiled, b, k + p, floor),
                )


@compiled
def _tiles(target, pooled, source, u, b, work, plan, share, shares):
    """Compute (2) to (4); a share has blocks of rows of tiles, those of all images."""
    like = zeros(target)
    rows, width, lanes = shape_of(like)
    high, wide = (plan.area // plan.columns + 1) // 2, (plan.columns + 1) // 2
    channels, u_step, tiles, v_step = _steps(plan, width, lanes)
    line = tiles + width
    m_step, half = rows * line + 16, wide + 2 * lanes
    total = plan.N * high
    room = 16 * (v_step + m_step) + 4 * half * (plan.stretch + 2)
    bad = work[: total * lanes]
    mine = work[total * lanes + share * room :]
    v, m = mine[: 16 * v_step], mine[16 * v_step :]
    before = mine[16 * (v_step + m_step) :]
    after = mine[16 * (v_step + m_step) + 4 * half * (plan.stretch + 1) :]
    _clear(before, 0, 4 * half * (plan.stretch + 1))
    places, sides = times(each_row(like), line, 0), each_col(like)
    blocks = (total + plan.stretch - 1) // plan.stretch
    for block in range(blocks * share // shares, blocks * (share + 1) // shares):
        begin = block * plan.stretch
        end, g = min(begin + plan.stretch, total), begin
        _clear(bad, begin * lanes, (end - begin) * lanes)
        while g < end:
            n = g // high
            past, slot = min(end, (n + 1) * high), (g - begin) * wide
            _see(v, before, half, source, n, g - n * high, past - g, slot, line, v_step, plan)
            g = past
        for k in range(0, plan.few.size, rows):
            filters = times(rows_at(like, plan.few, k), channels, 0)
            for e in range(16):
                these = times(filters, 1, e * u_step)
                for t in range(0, (end - begin) * wide, width):
                    columns = times(sides, 1, e * v_step + t)
                    acc = _rows_times_columns(like, u, these, 1, v, columns, line, plan.S)
                    store(acc, m, times(places, 1, e * m_step + t), sides)
            g = begin
            while g < end:
                n = g // high
                past, slot = min(end, (n + 1) * high), (g - begin) * wide
                _show(target, after, half, m, n, g - n * high, past - g, slot, line, m_step, bad[g * lanes :], k, b, plan)
                g = past


# --- what the engine calls ----------------------------------------------------------------


@lru_cache(maxsize=256)
def _plan(dtype, N, S, T, plane, frame, target, weights, block) -> Plan:
    """Return the plan."""
    (H, W), (top, left), (HO, WO), (step, leap, turned) = plane, frame, target, weights
    few = whole(np.arange(T), tile_shape(dtype).rows)
    none, line = np.zeros(0, np.int64), np.arange(9)
    tables = dict.fromkeys(Plan._fields[Plan._fields.index("at"):], none)
    tables.update(few=few, few_start=few * step, line=line[::-1].copy() if turned else line, stretch=block, leap=leap)
    return Plan(N, S, T, 1, H, W, 0, 0, 1, 0, top, left, HO * WO, WO, 0, 0, 1, **tables)


def correlate(y, pooled, x, w, b, top, left, turned, relu, shares, block=None):
    """Return which images..."""
    (N, S, H, W), (_, T, HO, WO) = x.shape, y.shape
    shape = tile_shape(x.dtype)
    wide, high = -(-WO // 2), -(-HO // 2)
    if block is None:
        most = max(1, ROOM // (16 * S * x.itemsize * wide))
        block = min(range(1, most+1), key=lambda R: (-(-R*wide // shape.width) / R * 1.0, -R))
        block = min(block, -(-N * high // shares))
    weights = (9, T * 9, True) if turned else (S * 9, 9, False)
    plan = _plan(x.dtype, N, S, T, (H, W), (top, left), (HO, WO), weights, block)
    plan = plan._replace(relu=int(relu))
    channels, u_step, tiles, v_step = _steps.py_func(plan, shape.width, shape.lanes)
    half = wide + 2 * shape.lanes
    room = 16 * (v_step + shape.rows * (tiles + shape.width) + 16) + 4 * half * (block + 2)
    flags = N * high * shape.lanes
    work = workspace(x.dtype, 16 * u_step + flags + shares * max(room, 9 * channels))
    u, work = work[: 16 * u_step], work[16 * u_step :]
    y, x, w = (a.reshape(-1) for a in (y, x, w))
    launch(_filters, shares, u, w, b, b, b, work, plan)
    launch(_tiles, shares, y, y, x, u, b, work, plan)
    return np.isnan(work[:flags].reshape(N, -1)).any(1)
