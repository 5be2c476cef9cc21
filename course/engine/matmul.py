"""Matrix products on register tiles: what linear layers and 1 x 1 convolutions need.

    target[m,j] = bias + sum over k of a[m,k] * b[k,j]

The tile walks along k: 6 numbers of a column of a times 16 of a row of b (float32 with
AVX2). Numbers that do not lie so that the caches keep them are copied first, side by side
in the order in which the tile meets them:

    b   a panel of 16 columns, 256 products long, stays in the first cache while the tile
        visits one block of rows after the other; turned, if columns of b lie along memory
    a   40 blocks of 6 rows, 256 products long, stay in the second cache while it visits
        one panel after the other

A cache has few places for numbers a power of two apart: so they are copied the earliest.

A 1 x 1 convolution is a product for each image, w x, and its dw is a sum of products,
dy x^T, over the images.

A share has panels of the targets. Sums over k are cut in the same places whatever the
number of threads.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba.np.unsafe.ndarray import to_fixed_tuple

from course.compiled import inside, job
from course.device import Array, get_threads
from course.engine.cpu import CHUNK, LITTLE, shares_for, usable, whole, workspace
from course.engine.tile import (
    each_col,
    each_lane,
    each_row,
    lanes_at,
    move,
    outer,
    plus,
    positive,
    rows_at,
    shape_of,
    splat,
    store,
    tile_shape,
    times,
    transpose,
    zeros,
)
from course.launch import launch

FEW = 4  # rows of x; for fewer, most of a tile would be empty
STACK = 40  # blocks of rows of a that are copied at a time
SOME = 4  # blocks or panels; to copy for fewer of them does not pay
MANY = 24  # blocks of rows; for more of them a panel is copied even if it could be read
CROWDED = 128  # numbers so far apart, or a multiple, have few places in a cache


class Product(NamedTuple):
    """Sizes of a product, and steps through its arrays."""

    M: int  # rows and columns of a target,
    J: int
    K: int  # and products in each sum
    targets: int  # so many, each with a `b` of its own, one behind the other in memory
    terms: int  # and so many pairs a, b that each target is the sum of; one of both is 1
    by_row: int  # 1 if there is a bias for each row, 0 if for each column
    relu: int  # 1 if what is below zero becomes zero
    a_row: int  # in a, from one row to the next
    a_k: int  # and from one k to the next: one of these is 1
    b_k: int  # in b, from one k to the next
    b_col: int  # and from one column to the next: one of these is 1
    copy_a: int  # 1 if blocks of a are copied,
    copy_b: int  # and panels of b even if they lie as the tile reads them
    chunk: int  # products that are added up in registers, then to the sum of the others
    high: int  # numbers in a line of copied rows: those of a block, in whole vectors
    blocks: int  # entries of `rows`, but for a few more
    rows: int  # where, behind these sizes, the table 0, 1, ... M - 1 begins,
    cols: int  # and 0, 1, ... J - 1, both filled up with their last entry


SIZES = len(Product._fields)


@inside
def _side_by_side(work, there, a, here, k_step, step, count, table, first, left, width):
    """Copy `count` lines of `width` numbers of a, one behind the other.

    Number l of line k is a[here + k * k_step + table[first + l] * step]; one of the steps
    is 1. Only the first `left` columns are different, the others repeat the last.
    """
    _, _, lanes = shape_of(zeros(a))
    k = 0
    if k_step == 1:
        lines = times(each_lane(zeros(a)), width, there)
        while k + lanes <= count:
            for half in range(0, width, lanes):
                these = times(lanes_at(zeros(a), table, first + half), step, here + k)
                transpose(a, these, work, times(lines, 1, k * width + half))
            k += lanes
    elif left >= width:
        here += table[first]
        while k < count:
            for half in range(0, width, lanes):
                move(a, here + k * k_step + half, work, there + k * width + half)
            k += 1
    while k < count:
        for l in range(width):
            work[there + k * width + l] = a[here + k * k_step + table[first + l] * step]
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
    """Sum over k, tiles of rows x neighbouring columns; a share has (target, panel)."""
    p, like = Product(*to_fixed_tuple(table, SIZES)), zeros(target)
    rows, width, _ = shape_of(like)
    panels, sides, zero = (p.J + width - 1) // width, each_col(like), target.dtype.type(0)
    stack = share * ((STACK * p.high + width) * p.chunk + rows * width)
    lines, items = p.high * p.chunk, p.targets * panels
    panel = stack + STACK * lines
    last = panel + width * p.chunk
    begin, end = items * share // shares, items * (share + 1) // shares
    chunks = (p.K + p.chunk - 1) // p.chunk
    for top in range(0, p.blocks, STACK * rows):
        bottom = min(top + STACK * rows, p.blocks)
        for number in range(p.terms * chunks):
            term, first = number // chunks, number % chunks * p.chunk
            count, done = min(p.chunk, p.K - first), number == p.terms * chunks - 1
            here_a = term * p.M * p.K + first * p.a_k
            for m in range(top, bottom if p.copy_a else top, rows):
                block = stack + (m - top) // rows * lines
                _side_by_side(
                    *(work, block, a, here_a, p.a_k, p.a_row, count),
                    *(table, p.rows + m, p.M - m, p.high),
                )
            for item in range(begin, end):
                n, column = item // panels, item % panels * width
                cols, start = min(width, p.J - column), n * p.M * p.J + column
                back = min(width - cols, column)  # the last panel ends where a row ends
                here_b = (n + term) * p.K * p.J + first * p.b_k
                right, at, line = b, here_b + column - back, p.b_k
                if p.copy_b or back + cols < width:
                    right, at, line = work, panel, width
                    _side_by_side(
                        *(work, panel, b, here_b, p.b_k, p.b_col, count),
                        *(table, p.cols + column - back, cols + back, width),
                    )
                for m in range(top, bottom, rows):
                    these, acc = rows_at(like, table, p.rows + m), like
                    if number == 0 and p.by_row:
                        acc = splat(like, bias, these)
                    left, step, numbers = a, p.a_k, times(these, p.a_row, here_a)
                    if p.copy_a:
                        block = stack + (m - top) // rows * lines
                        left, step, numbers = work, p.high, times(each_row(like), 1, block)
                    acc = _rows_times_columns(
                        acc, left, numbers, step, right, at, line, count
                    )
                    if cols == width:
                        places = times(these, p.J, start)
                        if number > 0:
                            acc = plus(acc, target, places, sides)
                        elif not p.by_row:
                            acc = plus(acc, bias, times(places, 0, column), sides)
                        if done and p.relu:
                            acc = positive(acc)
                        store(acc, target, places, sides)
                        continue
                    store(acc, work, times(each_row(like), width, last), sides)
                    for r in range(min(rows, p.M - m)):
                        for l in range(cols):
                            place, sum = (
                                start + (m + r) * p.J + l,
                                work[last + r * width + back + l],
                            )
                            if number > 0:
                                sum += target[place]
                            elif not p.by_row:
                                sum += bias[column + l]
                            below = done and p.relu and sum <= zero
                            target[place] = zero if below else sum


@job
def _row_sums(sums, a, _, __, ___, work, table, share, shares):
    """Add up every row of a, in every term; a share has rows."""
    M, terms, K = table[0], table[1], table[2]
    for m in range(M * share // shares, M * (share + 1) // shares):
        total = sums.dtype.type(0)
        for term in range(terms):
            start = (term * M + m) * K
            row = a[start : start + K]
            for k in range(K):
                total += row[k]
        sums[m] = total


@lru_cache(maxsize=256)
def _product(dtype, M, J, K, *others: int) -> tuple[Array, int]:
    """Return the sizes, followed by the tables of rows and columns; and a share's room."""
    shape = tile_shape(dtype)
    rows, cols = whole(np.arange(M), shape.rows), whole(np.arange(J), shape.width)
    chunk = -(-K // -(-K // CHUNK))  # as long as the others
    chunk, high = (-(-k // shape.lanes) * shape.lanes for k in (chunk, shape.rows))
    a_k, b_k, b_col = others[-3:]
    copy_a = a_k % CROWDED == 0 and len(cols) * others[0] > SOME * shape.width
    scattered = chunk >= CROWDED or b_k % CROWDED == 0
    copy_b = scattered and len(rows) > SOME * shape.rows
    copy_b = copy_b or b_col != 1 or len(rows) > MANY * shape.rows
    places = len(rows), SIZES, SIZES + len(rows) + high
    numbers = Product(M, J, K, *others, copy_a, copy_b, chunk, high, *places)
    tables = np.array(numbers), rows, np.repeat(rows[-1:], high), cols
    room = (STACK * high + shape.width) * chunk + shape.rows * shape.width
    return np.concatenate(tables, dtype=np.int64), room


def multiply(
    target, a, b, bias, K, a_steps, b_steps, *, images=1, added=False, relu=False
) -> None:
    """Fill target (M, J) with bias + a b; steps lead to the next row and the next column.

    With steps of (1, 784) an array of 784 columns is read as its transpose.
    With `images`, target (N, M, J) and b have so many matrices, and the bias is one for
    each row; if `added`, a and b have, and target (M, J) is the sum of their products.
    """
    (M, J), shape, shares = target.shape[-2:], tile_shape(target.dtype), get_threads()
    targets, terms = (1, images) if added else (images, 1)
    panels = targets * -(-J // shape.width)
    shares = min(shares, panels) if images * M * J * K >= LITTLE else 1
    numbers = targets, terms, int(target.ndim == 3), int(relu), *a_steps, *b_steps
    table, room = _product(target.dtype, M, J, K, *numbers)
    work = workspace(target.dtype, shares * room)
    launch(_multiply, shares, target.reshape(-1), a, b, bias, bias, work, table)


def pointwise(y, x, w, b, relu: bool) -> None:
    """Fill y (N, F, ...) with w x for each image of x (N, C, ...), and b added."""
    (N, C), F = x.shape[:2], len(w)
    y, x, w = y.reshape(N, F, -1), x.reshape(-1), w.reshape(-1)
    multiply(y, w, x, b, C, (C, 1), (y.shape[2], 1), images=N, relu=relu)


def pointwise_dx(dx, dy, w, b) -> None:
    """Fill dx with the gradient of a 1 x 1 convolution, w^T dy for each image, and b."""
    (N, C), F = dx.shape[:2], len(w)
    dx, dy, w = dx.reshape(N, C, -1), dy.reshape(-1), w.reshape(-1)
    multiply(dx, w, dy, b, F, (1, C), (dx.shape[2], 1), images=N)


def pointwise_dw(dw, db, dy, x) -> None:
    """Fill dw with the sum of dy x^T over the images, and db with the sums of dy's rows."""
    (N, C), F, K = x.shape[:2], len(dw), dy[0, 0].size
    dw, dy, x = dw.reshape(F, C), dy.reshape(-1), x.reshape(-1)
    multiply(dw, dy, x, np.zeros(C, dw.dtype), K, (K, 1), (1, K), images=N, added=True)
    table = np.array([F, N, K])
    launch(_row_sums, shares_for(dy.size), db, dy, db, db, db, db, table)


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
