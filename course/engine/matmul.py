"""Matrix products on register tiles: what linear layers and 1 x 1 convolutions need.

    target[m,j] = bias + sum over k of a[m,k] * b[k,j]

The tile walks along k: 6 numbers of a column of a times 16 of a row of b (float32 with
AVX2). For the 16 to lie side by side, and in the first cache while the tile visits one
block of rows after the other, a panel of b, 256 rows by 16 columns, is copied out of it
first; turned, if it is the columns of b that lie along memory. What is read seldom and lies
well is read where it is. Numbers a power of two apart do not: a cache has few places for
them. The last panel ends where the rows of b end, and computes some columns again.

If there are few columns the lanes are products, and nothing is copied.

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
    cols_at,
    each_col,
    each_lane,
    each_row,
    inner,
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
    total,
    transpose,
    zeros,
)
from course.launch import launch

FEW = 4  # rows of x; for fewer, most of a tile would be empty
NARROW, LONG = 12, 128  # at most so many columns, at least so many products: lanes are k
SOME = 4  # blocks of rows; for as many nothing is copied that can be read where it is
CROWDED = 128  # so many rows, or rows a multiple of it apart, do not stay in the cache


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
    copied: int  # 1 if panels of b are copied
    chunk: int  # products that are added up in registers, then to the sum of the others
    blocks: int  # entries of `rows`
    rows: int  # where, behind these sizes, the table 0, 1, ... M - 1 begins,
    cols: int  # and 0, 1, ... J - 1, both filled up with their last entry


SIZES = len(Product._fields)


@inside
def _panel(work, panel, b, here, count, column, p, table):
    """Copy a panel of b, from the column on: `count` lines, one behind the other.

    Columns past the last one repeat it.
    """
    _, width, lanes = shape_of(zeros(b))
    k, lines = 0, times(each_lane(zeros(b)), width, panel)
    if p.b_k == 1:
        while k + lanes <= count:
            for half in range(0, width, lanes):
                columns = lanes_at(zeros(b), table, p.cols + column + half)
                columns = times(columns, p.b_col, here + k)
                transpose(b, columns, work, times(lines, 1, k * width + half))
            k += lanes
    elif width <= p.J:
        while k < count:
            for half in range(0, width, lanes):
                from_ = here + k * p.b_k + column + half
                move(b, from_, work, panel + k * width + half)
            k += 1
    while k < count:
        for l in range(width):
            place = here + k * p.b_k + table[p.cols + column + l] * p.b_col
            work[panel + k * width + l] = b[place]
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
    sides, stack = each_col(like), each_row(like)
    panels, chunks = (p.J + width - 1) // width, (p.K + p.chunk - 1) // p.chunk
    panel = share * (CHUNK + p.blocks) * width
    sums = panel + CHUNK * width
    items, last = p.targets * panels, p.terms * chunks - 1
    for item in range(items * share // shares, items * (share + 1) // shares):
        n, own = item // panels, item % panels * width
        column = max(0, min(own, p.J - width))  # the last panel ends where a row ends
        for number in range(last + 1):
            term, first = number // chunks, number % chunks * p.chunk
            count, here = min(p.chunk, p.K - first), term * p.M * p.K + first * p.a_k
            from_ = (n + term) * p.K * p.J + first * p.b_k
            numbers, start, line = b, from_ + column, p.b_k
            if p.copied:
                numbers, start, line = work, panel, width
                _panel(work, panel, b, from_, count, column, p, table)
            for m in range(0, p.blocks, rows):
                these, acc = rows_at(like, table, p.rows + m), like
                if number == 0 and p.by_row:
                    acc = splat(like, bias, these)
                acc = _rows_times_columns(
                    *(acc, a, times(these, p.a_row, here), p.a_k),
                    *(numbers, start, line, count),
                )
                if number == 0 and not p.by_row:
                    acc = plus(acc, bias, times(these, 0, column), sides)
                so_far = times(stack, width, sums + m * width)
                if number > 0:
                    acc = plus(acc, work, so_far, sides)
                if number == last and p.relu:
                    acc = positive(acc)
                if number == last and own + width <= p.J:
                    places = times(these, p.J, n * p.M * p.J + column)
                    store(acc, target, places, sides)
                else:
                    store(acc, work, so_far, sides)
        if own + width > p.J:  # columns of the panel before stay its own
            for m in range(p.M):
                for j in range(own, p.J):
                    there = (n * p.M + m) * p.J + j
                    target[there] = work[sums + m * width + j - column]


@job
def _inner_products(target, a, b, bias, _, work, table, share, shares):
    """Sum over k, tiles of rows x columns; the lanes are products. A share has rows.

    For few columns, which would leave a tile of neighbouring columns empty.
    """
    p, like = Product(*to_fixed_tuple(table, SIZES)), zeros(target)
    rows, width, lanes = shape_of(like)
    blocks, whole = p.blocks // rows, p.K // lanes * lanes
    for block in range(blocks * share // shares, blocks * (share + 1) // shares):
        m = block * rows
        these = rows_at(like, table, p.rows + m)
        lines = times(these, p.a_row, 0)
        for j in range(0, p.J, width // lanes):
            acc, columns = like, times(cols_at(like, table, p.cols + j), p.b_col, 0)
            for k in range(0, whole, lanes):
                acc = inner(acc, a, lines, k, b, columns, k)
            total(acc, target, times(these, p.J, j), min(1, p.J - 1 - j))
        for r in range(m, min(m + rows, p.M)):
            for j in range(p.J):
                sum = target[r * p.J + j] + bias[j]
                for k in range(whole, p.K):
                    sum += a[r * p.a_row + k] * b[j * p.b_col + k]
                target[r * p.J + j] = sum


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
    *_, b_k, b_col = others
    scattered = K >= CROWDED or b_k % CROWDED == 0
    copied = scattered and len(rows) > SOME * shape.rows
    copied = copied or b_col != 1 or shape.width > J
    chunk = -(-K // -(-K // CHUNK))  # as long as the others, in whole vectors
    chunk = -(-chunk // shape.lanes) * shape.lanes
    numbers = Product(M, J, K, *others, copied, chunk, len(rows), SIZES, SIZES + len(rows))
    table = np.concatenate((np.array(numbers), rows, cols), dtype=np.int64)
    return table, (CHUNK + len(rows)) * shape.width


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
    loops, items = _multiply, targets * -(-J // shape.width)
    if a_steps[1] == b_steps[0] == images == 1 and J <= NARROW and K >= LONG:
        loops, items = _inner_products, -(-M // shape.rows)
    shares = min(shares, items) if images * M * J * K >= LITTLE else 1
    if shape.width > J and target.ndim == 2:
        wide = np.empty(shape.width, bias.dtype)  # the tile reads so many
        wide[:J], bias = bias, wide
    numbers = targets, terms, int(target.ndim == 3), int(relu), *a_steps, *b_steps
    table, room = _product(target.dtype, M, J, K, *numbers)
    work = workspace(target.dtype, shares * room)
    launch(loops, shares, target.reshape(-1), a, b, bias, bias, work, table)


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
    N, I = x.shape
    if N < FEW or not w.size:
        return False
    x, w = usable(x).reshape(-1), usable(w).reshape(-1)
    multiply(y, x, w, usable(b), I, (I, 1), (1, I))
    return True


def linear_backward(dx, dw, dy, x, w) -> bool:
    """Fill dx (unless it is None) with dy w, and dw with dy^T x; or return False."""
    (N, I), (_, O) = x.shape, dy.shape
    if N < FEW or not w.size:
        return False
    dy, x, w = usable(dy).reshape(-1), usable(x).reshape(-1), usable(w).reshape(-1)
    zero = np.zeros(I, x.dtype)
    if dx is not None:
        multiply(dx, dy, w, zero, O, (O, 1), (I, 1))
    multiply(dw, dy, x, zero, N, (1, O), (I, 1))
    return True
