"""Matrix products on register tiles: what a linear layer needs, forward and backward.

    target[m,j] = bias[j] + sum over k of a[m,k] * b[k,j]

The tile walks along k: 6 numbers of a times 16 of a row of b (float32 with AVX2). For the
16 to lie side by side, and in the first cache while the tile visits one block of rows after
the other, a panel of b, 256 rows by 16 columns, is copied out of it first; turned, if it is
the rows of b that lie along memory.

A share has panels of the target. Sums over k are cut in the same places whatever the number
of threads.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba.np.unsafe.ndarray import to_fixed_tuple

from course.compiled import inside, job
from course.device import Array, get_threads
from course.engine.cpu import CHUNK, LITTLE, usable, whole, workspace
from course.engine.tile import (
    each_col,
    each_lane,
    each_row,
    lanes_at,
    load,
    outer,
    plus,
    rows_at,
    shape_of,
    store,
    tile_shape,
    times,
    transpose,
    zeros,
)
from course.launch import launch

FEW = 4  # rows of x; for fewer, most of a tile would be empty
MANY = 24  # blocks of rows; for more of them a panel is copied even if it could be read


class Product(NamedTuple):
    """Sizes of a product, and steps through its arrays."""

    M: int  # rows and columns of the target,
    J: int
    K: int  # and products in each sum
    a_row: int  # in a, from one row to the next
    a_k: int  # and from one k to the next
    b_k: int  # in b, from one k to the next
    b_col: int  # and from one column to the next: one of these is 1
    blocks: int  # entries of `rows`
    rows: int  # where, behind these sizes, the table 0, 1, ... M - 1 begins,
    cols: int  # and 0, 1, ... J - 1, both filled up to whole tiles with their last entry


SIZES = len(Product._fields)


@inside
def _panel(work, packed, b, first, count, column, p, table):
    """Copy b[first : first + count], a tile wide from the column on.

    Columns past the last one are whatever: nobody keeps what is computed from them.
    """
    like = zeros(b)
    rows, width, lanes = shape_of(like)
    cols, k = min(width, p.J - column), 0
    if p.b_k == 1:
        lines = times(each_lane(like), width, 0)
        while k + lanes <= count:
            for half in range(0, width, lanes):
                columns = lanes_at(like, table, p.cols + column + half)
                here = times(columns, p.b_col, first + k)
                there = packed + k * width + half
                transpose(b, here, work, times(lines, 1, there))
            k += lanes
    elif cols == width:
        lines = times(each_row(like), p.b_k, first * p.b_k + column)
        while k + rows <= count:
            acc = load(like, b, times(lines, 1, k * p.b_k), each_col(like))
            there = times(each_row(like), width, packed + k * width)
            store(acc, work, there, each_col(like))
            k += rows
    while k < count:
        for l in range(cols):
            place = (first + k) * p.b_k + (column + l) * p.b_col
            work[packed + k * width + l] = b[place]
        k += 1


@inside
def _rows_times_columns(acc, a, rows, step, b, start, line, count):
    """Add the products of numbers of a by lines of b."""
    columns = times(each_col(acc), 1, start)
    for k in range(count):
        acc = outer(acc, a, rows, k * step, b, columns, k * line)
    return acc


@job
def _multiply(target, a, b, bias, _, work, table, share, shares):
    """Sum over k, tiles of rows x neighbouring columns; a share has panels of columns."""
    p, like = Product(*to_fixed_tuple(table, SIZES)), zeros(target)
    rows, width, _ = shape_of(like)
    panels, sides = (p.J + width - 1) // width, each_col(like)
    packed = share * (CHUNK + rows) * width
    last = packed + CHUNK * width
    for panel in range(panels * share // shares, panels * (share + 1) // shares):
        column = panel * width
        cols = min(width, p.J - column)
        direct = cols == width and p.b_col == 1 and MANY * rows > p.M
        for first in range(0, p.K, CHUNK):
            count = min(CHUNK, p.K - first)
            from_, start, line = work, packed, width
            if direct:
                from_, start, line = b, first * p.b_k + column, p.b_k
            else:
                _panel(work, packed, b, first, count, column, p, table)
            for m in range(0, p.blocks, rows):
                these = rows_at(like, table, p.rows + m)
                numbers = times(these, p.a_row, first * p.a_k)
                acc = _rows_times_columns(
                    like, a, numbers, p.a_k, from_, start, line, count
                )
                if cols == width:
                    places = times(these, p.J, column)
                    if first > 0:
                        acc = plus(acc, target, places, sides)
                    else:
                        acc = plus(acc, bias, times(these, 0, column), sides)
                    store(acc, target, places, sides)
                else:
                    store(acc, work, times(each_row(like), width, last), sides)
                    for r in range(min(rows, p.M - m)):
                        for l in range(cols):
                            place = (m + r) * p.J + column + l
                            before = target[place] if first > 0 else bias[column + l]
                            target[place] = before + work[last + r * width + l]


@lru_cache(maxsize=256)
def _product(dtype: Any, *sizes: int) -> Array:
    """Return the sizes, followed by the tables of rows and columns."""
    shape, (M, J) = tile_shape(dtype), sizes[:2]
    rows, cols = whole(np.arange(M), shape.rows), whole(np.arange(J), shape.width)
    numbers = Product(*sizes, len(rows), SIZES, SIZES + len(rows))
    return np.concatenate([np.array(numbers, np.int64), rows, cols])


def multiply(target, a, b, bias, K, a_steps, b_steps) -> None:
    """Fill target (M, J) with bias + a b; steps lead to the next row and the next column.

    With steps of (1, 784) an array of 784 columns is read as its transpose.
    """
    (M, J), shape, shares = target.shape, tile_shape(target.dtype), get_threads()
    shares = min(shares, -(-J // shape.width)) if M * J * K >= LITTLE else 1
    work = workspace(target.dtype, shares * (CHUNK + shape.rows) * shape.width)
    table = _product(target.dtype, M, J, K, *a_steps, *b_steps)
    launch(_multiply, shares, target.reshape(-1), a, b, bias, bias, work, table)


def linear(y, x, w, b) -> bool:
    """Fill y with x w^T + b; return False, and do nothing, if plain loops do as well."""
    (N, I), x, w, b = x.shape, *(usable(k).reshape(-1) for k in (x, w, b))
    if N < FEW or not w.size:
        return False
    multiply(y, x, w, b, I, (I, 1), (1, I))
    return True


def linear_backward(dx, dw, dy, x, w) -> bool:
    """Fill dx (unless it is None) with dy w, and dw with dy^T x; or return False."""
    (N, I), (_, O) = x.shape, dy.shape
    if N < FEW or not w.size:
        return False
    dy, x, w = (usable(k).reshape(-1) for k in (dy, x, w))
    zero = np.zeros(I, x.dtype)
    if dx is not None:
        multiply(dx, dy, w, zero, O, (O, 1), (I, 1))
    multiply(dw, dy, x, zero, N, (1, O), (I, 1))
    return True
