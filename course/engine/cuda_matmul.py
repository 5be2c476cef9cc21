"""Matrix products of any two matrices on a GPU, turned or not.

    target[row, column] = bias + sum over k of a[row, k] * b[k, column]

An array in memory is a matrix by two steps: how far it is from one row to the next, and
from one k to the next. So one kernel multiplies a by b, by b turned, and a turned by b.

If there are few tiles and long sums, the sums are cut into shares, which blocks of their
own compute; `_sum_cuda` adds the shares up, in order. The same bits come out every run.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import uint32

from course import cuda
from course.cuda import CudaArray
from course.cuda.vectors import ld4
from course.device import empty
from course.engine import tensor_core
from course.engine.cuda_tile import (
    TILES,
    ZERO,
    Form,
    aligned,
    choose,
    make,
    sent,
    shares_of,
)

LONG = 1024  # products in a share of a sum, at least


class Sizes(NamedTuple):
    """The sizes of a matrix product; the first ones are those of cuda_tile.Sizes."""

    rows: int
    columns: int
    first: int
    past: int
    row_step: int
    quads: int
    a_near: int
    b_near: int
    biased: int
    bias_from: int
    bias_row: int
    bias_column: int
    relu: int
    column_step: int  # in the target, from one column to the next
    target_from: int  # where in the target the block's share begins
    a_row: int  # in a, from one row to the next,
    a_k: int  # and from one k to the next
    a_quads: int  # 1 if a[row, k] to a[row, k + 3] may be read at once
    b_column: int
    b_k: int
    b_quads: int


@cuda.jit(device=True, forceinline=True)
def sizes(table, z):
    """Return the sizes; z is the share."""
    first = uint32(z * uint32(table[3]))
    return Sizes(
        uint32(table[0]),
        uint32(table[1]),
        first,
        min(uint32(table[2]), uint32(first + uint32(table[3]))),
        uint32(table[4]),
        table[5],
        table[6],
        table[7],
        table[8],
        uint32(0),
        uint32(table[9]),
        uint32(table[10]),
        table[11],
        uint32(table[12]),
        uint32(z * uint32(table[13])),
        uint32(table[14]),
        uint32(table[15]),
        table[16],
        uint32(table[17]),
        uint32(table[18]),
        table[19],
    )


@cuda.jit(device=True, forceinline=True)
def fetch(a, past, quads, place, step, k):
    """Return four numbers of a line from the k-th on; from `past` on, zeros."""
    v0 = v1 = v2 = v3 = ZERO
    at = uint32(place + k * step)
    if quads:
        if k < past:
            v0, v1, v2, v3 = ld4(a, at)
    else:
        if k < past:
            v0 = a[at]
        if uint32(k + uint32(1)) < past:
            v1 = a[uint32(at + step)]
        if uint32(k + uint32(2)) < past:
            v2 = a[uint32(at + uint32(2) * step)]
        if uint32(k + uint32(3)) < past:
            v3 = a[uint32(at + uint32(3) * step)]
    return v0, v1, v2, v3


@cuda.jit(device=True, forceinline=True)
def start_a(table, p, row):
    """Return where the row begins; past the last row, where the first does."""
    return uint32(row * p.a_row) if row < p.rows else uint32(0)


@cuda.jit(device=True, forceinline=True)
def fetch_a(a, table, p, start, k):
    """Return a[row, k] to a[row, k + 3]."""
    return fetch(a, p.past, p.a_quads, start, p.a_k, k)


@cuda.jit(device=True, forceinline=True)
def start_b(table, p, column):
    """Return where the column begins; past the last column, where the first does."""
    return uint32(column * p.b_column) if column < p.columns else uint32(0)


@cuda.jit(device=True, forceinline=True)
def fetch_b(b, table, p, start, k):
    """Return b[k, column] to b[k + 3, column]."""
    return fetch(b, p.past, p.b_quads, start, p.b_k, k)


@cuda.jit(device=True, forceinline=True)
def place(p, column):
    """Return where in the target row 0 of the column is."""
    return uint32(p.target_from + column * p.column_step)


PRODUCT = Form("product", sizes, start_a, fetch_a, start_b, fetch_b, place)
KERNELS = {name: make(PRODUCT, name) for name in TILES if name != "tf32"}
KERNELS["tf32"] = tensor_core.make(PRODUCT)


@cuda.jit
def _sum_cuda(y, parts, bias, shares, biased, relu):
    """Add up the shares of each element, and its bias; a thread has elements of y."""
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        total = parts[k]
        for share in range(1, shares):
            total += parts[share * y.size + k]
        if biased:
            total += bias[k % bias.size]
        y[k] = ZERO if relu and total < ZERO else total


def add_up(y: CudaArray, parts: CudaArray, bias: CudaArray | None, relu: bool) -> None:
    """Write the sum of parts, each of the size of y, and of a bias for each column."""
    shares, biased = parts.size // y.size, bias is not None
    bias = bias if biased else y.ravel()
    cuda.launch(_sum_cuda, y.size, y.ravel(), parts, bias, shares, int(biased), int(relu))


@lru_cache(maxsize=256)
def _table(simulated: bool, *numbers: int) -> CudaArray:
    """Return the table of a product, where its arrays are."""
    return sent(np.array(numbers), simulated)


def multiply(
    target: CudaArray,
    a: CudaArray,
    a_steps: tuple[int, int],
    b: CudaArray,
    b_steps: tuple[int, int],
    length: int,
    bias: CudaArray | None = None,
    relu: bool = False,
    tf32: bool = False,
) -> None:
    """Write a product, with a bias for each column if there is one.

    `a_steps` are from one row of a to the next, and from one k to the next; `b_steps` from
    one column of b to the next, and from one k to the next.
    """
    (rows, columns), (row_step, column_step) = target.shape, (target.shape[1], 1)
    bias_row, bias_column = 0, 1
    # Few rows fill a tile, few columns do not; and a grid is wider than it is high.
    if columns < rows and (columns <= 64 or rows > 1 << 20):
        a, a_steps, b, b_steps, rows, columns = b, b_steps, a, a_steps, columns, rows
        row_step, column_step, bias_row, bias_column = 1, row_step, 1, 0
    name = choose(rows, columns, max(1, length // LONG), tf32)
    tile = TILES[name]
    blocks = -(-columns // tile.columns), -(-rows // tile.rows)
    shares = shares_of(length, LONG, blocks[0] * blocks[1], tile)
    share = -(-length // (16 * shares)) * 16
    shares = max(1, -(-length // share)) if length else 1
    split, to = shares > 1, target
    if split:
        to = empty(shares * target.size, target.dtype, target)

    def quads(array: CudaArray, line: int, k: int) -> int:
        return int(k == 1 and line % 4 == 0 and length % 4 == 0 and aligned(array))

    table = _table(
        target.simulated,
        *(rows, columns, length, share, row_step),
        int(column_step == 1 and row_step % 4 == 0 and aligned(to)),
        *(int(a_steps[1] == 1), int(b_steps[1] == 1)),
        *(int(bias is not None and not split), bias_row, bias_column),
        *(int(relu and not split), column_step, target.size),
        *(*a_steps, quads(a, *a_steps), *b_steps, quads(b, *b_steps)),
    )
    spare = target.ravel() if bias is None else bias
    arguments = to.ravel(), a.ravel(), b.ravel(), spare, table
    KERNELS[name][(*blocks, shares), tile.threads](*arguments)
    if split:
        add_up(target, to, bias, relu)
