"""One matrix product for a GPU; layers differ in where its numbers come from and go to.

    target[row, column] = bias + sum over k of a[row, k] * b[k, column]

Each number of a is needed for every column, each of b for every row. So a block of threads
computes a tile of the target, and goes along k in steps of 8:

    global memory    8 columns of a and 8 rows of b are fetched, each number once a block,
    shared memory    to where all threads of the block can read them;
    registers        a thread reads 8 + 8 of them and makes 64 products: its own sums.

The next step is fetched before this one is multiplied, so that it is on its way meanwhile,
and is put down in the other half of the shared memory: one barrier a step is enough. Four
numbers move at once where they can (`ld4`, `st4`).

A thread's rows and columns come in fours that lie half a tile apart: the lanes of a warp
then read shared memory without waiting for each other.

Few rows, as few filters, would leave most of a large tile empty: see TILES.

Numbers of 32 bits: on a GPU an address of 64 costs two registers and two instructions, and
Numba takes any sum with a plain integer for 64 bits. Hence uint32(...) everywhere.

The scheme is that of Volkov & Demmel, "Benchmarking GPUs to tune dense linear algebra",
SC 2008, and of NVIDIA's CUTLASS.
"""

from typing import NamedTuple

import numpy as np
from numba import float32, uint32

from course import cuda
from course.cuda import CudaArray, native
from course.cuda.vectors import ld4, st4

BLOCKS = 264  # of 256 threads, that a large GPU runs at once: two on each of 132 processors
SMALL = 1 << 18  # elements of targets: in large tiles they would leave most of it idle
DEPTH = 8  # steps along k between two barriers
ZERO = float32(0)


class Tile(NamedTuple):
    """What a block computes, and what a thread of it."""

    rows: int
    columns: int
    own_rows: int  # multiples of 4
    own_columns: int

    @property
    def threads(self) -> int:
        """Return how many threads a block has."""
        return self.rows // self.own_rows * (self.columns // self.own_columns)


TILES = {
    "128x128": Tile(128, 128, 8, 8),
    "64x128": Tile(64, 128, 4, 8),
    "32x256": Tile(32, 256, 4, 8),
    "16x256": Tile(16, 256, 4, 4),
    "32x32": Tile(32, 32, 4, 4),  # for few blocks: smaller ones keep more of a GPU busy
    "tf32": Tile(128, 128, 8, 8),  # on tensor cores: course/engine/tensor_core.py
}


class Sizes(NamedTuple):
    """What every form tells the engine about a product; forms have more of their own."""

    rows: int  # of the target
    columns: int
    first: int  # the sum runs over first to past - 1
    past: int
    row_step: int  # in the target, from one row to the next
    quads: int  # 1 if four columns of it may be written at once
    a_near: int  # 1 if neighbouring k of a row of a lie side by side
    b_near: int  # the same for a column of b
    biased: int  # 1 if there is a bias,
    bias_from: int  # in which row 0, column 0 begins here
    bias_row: int  # from one row to the next
    bias_column: int
    relu: int  # 1 if what is below zero becomes zero


class Form(NamedTuple):
    """How a layer's arrays are seen as a, b and target; all but the name on the GPU.

    sizes(table, z)                  the sizes of product z, `p` below: see Sizes
    start_a(table, p, row)           what is the same for a whole row of a
    fetch_a(a, table, p, start, k)   a[row, k] to a[row, k + 3]; zeros past the sum's end
    start_b, fetch_b                 the same for the columns of b
    place(p, column)                 where in the target row 0 of the column is

    A tile may hang over the target's edge. The rows and columns there read what the first
    ones read, and are not written.
    """

    name: str
    sizes: cuda.DeviceFunction
    start_a: cuda.DeviceFunction
    fetch_a: cuda.DeviceFunction
    start_b: cuda.DeviceFunction
    fetch_b: cuda.DeviceFunction
    place: cuda.DeviceFunction


@cuda.jit(device=True, forceinline=True)
def chunk(number, lines, near):
    """Return the line and the first k of a chunk: four numbers that one thread fetches.

    Neighbouring threads should read neighbouring numbers. Where those of a line lie side
    by side ("near"), two threads share a line; else neighbours have neighbouring lines.
    """
    if near:
        return uint32(number >> uint32(1)), uint32((number & uint32(1)) << uint32(2))
    return uint32(number % lines), uint32((number // lines) << uint32(2))


@cuda.jit(device=True, forceinline=True)
def put(tile, place, step, four):
    """Put the four numbers of a chunk down, one in each of four rows of shared memory."""
    tile[place] = four[0]
    tile[place + step] = four[1]
    tile[place + uint32(2) * step] = four[2]
    tile[place + uint32(3) * step] = four[3]


@cuda.jit(device=True, forceinline=True)
def finished(total, bias, p, row, column):
    """Return what goes to the target: the sum, with bias and ReLU if they are wanted."""
    if p.biased:
        total += bias[uint32(p.bias_from + row * p.bias_row + column * p.bias_column)]
    if p.relu and total < ZERO:
        total = ZERO
    return total


@cuda.jit(device=True, forceinline=True)
def write(target, bias, p, row, column, places, v0, v1, v2, v3):
    """Write four columns of a row; places says where the columns begin."""
    if row < p.rows:
        shift = uint32(row * p.row_step)
        c1, c2, c3 = column + uint32(1), column + uint32(2), column + uint32(3)
        if p.quads:
            if column < p.columns:
                v0 = finished(v0, bias, p, row, column)
                v1 = finished(v1, bias, p, row, c1)
                v2 = finished(v2, bias, p, row, c2)
                v3 = finished(v3, bias, p, row, c3)
                st4(target, uint32(places[0] + shift), v0, v1, v2, v3)
        else:
            if column < p.columns:
                target[places[0] + shift] = finished(v0, bias, p, row, column)
            if c1 < p.columns:
                target[places[1] + shift] = finished(v1, bias, p, row, c1)
            if c2 < p.columns:
                target[places[2] + shift] = finished(v2, bias, p, row, c2)
            if c3 < p.columns:
                target[places[3] + shift] = finished(v3, bias, p, row, c3)


def make(form: Form, name: str) -> cuda.Kernel:
    """Return the kernel that computes products of the form, a tile of TILES a block."""
    tile = TILES[name]
    sizes, place = form.sizes, form.place
    start_a, fetch_a, start_b, fetch_b = form[2:6]
    ROWS, COLUMNS = uint32(tile.rows), uint32(tile.columns)
    OWN_ROWS, OWN_COLUMNS = tile.own_rows, tile.own_columns
    OWN = OWN_ROWS * OWN_COLUMNS
    A_STEP, B_STEP = uint32(tile.rows + 4), uint32(tile.columns + 4)  # from k to k + 1
    A_HALF, B_HALF = uint32(DEPTH * A_STEP), uint32(DEPTH * B_STEP)
    A_BOTH, B_BOTH = 2 * DEPTH * (tile.rows + 4), 2 * DEPTH * (tile.columns + 4)
    A_CHUNKS = uint32(tile.rows * DEPTH // 4)  # of a step; at most one a thread
    THREADS = uint32(tile.threads)
    TWICE = tile.columns * DEPTH // 4 > tile.threads  # two chunks of b a thread
    # A warp is 8 x 4 threads, or 4 x 8 where there are only four rows of threads.
    WARP_ROWS = uint32(min(8, tile.rows // OWN_ROWS))
    WARP_COLUMNS = uint32(32 // WARP_ROWS)
    ACROSS = uint32(tile.columns // OWN_COLUMNS // WARP_COLUMNS)  # warps side by side
    A_APART, B_APART = uint32(tile.rows // 2), uint32(tile.columns // 2)
    A_FOURS, B_FOURS = OWN_ROWS // 4, OWN_COLUMNS // 4

    @cuda.jit(device=True, forceinline=True)
    def multiply(a_tile, b_tile, a_place, b_place, a_own, b_own, sums):
        """Add the products for one k to a thread's own sums."""
        for h in range(A_FOURS):
            v = ld4(a_tile, a_place + uint32(h) * A_APART)
            a_own[4 * h], a_own[4 * h + 1], a_own[4 * h + 2], a_own[4 * h + 3] = v
        for h in range(B_FOURS):
            v = ld4(b_tile, b_place + uint32(h) * B_APART)
            b_own[4 * h], b_own[4 * h + 1], b_own[4 * h + 2], b_own[4 * h + 3] = v
        for i in range(OWN_ROWS):
            for j in range(OWN_COLUMNS):
                sums[i * OWN_COLUMNS + j] += a_own[i] * b_own[j]

    @cuda.jit(variant=f"{form.name} {name}", max_registers=128)
    def product(target, a, b, bias, table):
        """Compute a tile of the target; see the head of this file."""
        a_tile = cuda.shared.array(A_BOTH, float32, 16)
        b_tile = cuda.shared.array(B_BOTH, float32, 16)
        sums = cuda.local.array(OWN, float32)
        a_own = cuda.local.array(OWN_ROWS, float32)
        b_own = cuda.local.array(OWN_COLUMNS, float32)
        for i in range(OWN):
            sums[i] = ZERO
        p = sizes(table, uint32(cuda.blockIdx.z))
        row0 = uint32(uint32(cuda.blockIdx.y) * ROWS)
        column0 = uint32(uint32(cuda.blockIdx.x) * COLUMNS)

        # What this thread fetches: a chunk of a, and one or two of b.
        me = uint32(cuda.threadIdx.x)
        a_line, a_k = chunk(me, ROWS, p.a_near)
        b_line, b_k = chunk(me, COLUMNS, p.b_near)
        c_line, c_k = chunk(me + THREADS, COLUMNS, p.b_near)
        a_start = start_a(table, p, row0 + a_line)
        b_start = start_b(table, p, column0 + b_line)
        c_start = start_b(table, p, column0 + c_line)
        a_put = uint32(a_k * A_STEP + a_line)
        b_put = uint32(b_k * B_STEP + b_line)
        c_put = uint32(c_k * B_STEP + c_line)
        has_a = me < A_CHUNKS
        a_four = b_four = c_four = (ZERO, ZERO, ZERO, ZERO)
        k = p.first
        if has_a:
            a_four = fetch_a(a, table, p, a_start, uint32(k + a_k))
            put(a_tile, a_put, A_STEP, a_four)
        b_four = fetch_b(b, table, p, b_start, uint32(k + b_k))
        put(b_tile, b_put, B_STEP, b_four)
        if TWICE:
            c_four = fetch_b(b, table, p, c_start, uint32(k + c_k))
            put(b_tile, c_put, B_STEP, c_four)
        cuda.syncthreads()

        # What it multiplies: its fours of rows and of columns.
        warp, lane = uint32(me // uint32(32)), uint32(me % uint32(32))
        row = uint32((warp // ACROSS * WARP_ROWS + lane // WARP_COLUMNS) << uint32(2))
        column = uint32((warp % ACROSS * WARP_COLUMNS + lane % WARP_COLUMNS) << uint32(2))
        a_half = b_half = uint32(0)
        while k < p.past:
            k = uint32(k + uint32(DEPTH))
            if k < p.past:  # the next step sets out ...
                if has_a:
                    a_four = fetch_a(a, table, p, a_start, uint32(k + a_k))
                b_four = fetch_b(b, table, p, b_start, uint32(k + b_k))
                if TWICE:
                    c_four = fetch_b(b, table, p, c_start, uint32(k + c_k))
            m, n = uint32(a_half + row), uint32(b_half + column)  # ... while this one is
            multiply(a_tile, b_tile, m, n, a_own, b_own, sums)  # multiplied, by hand 8
            m, n = uint32(m + A_STEP), uint32(n + B_STEP)  # times: Numba's loop would
            multiply(a_tile, b_tile, m, n, a_own, b_own, sums)  # stay one
            m, n = uint32(m + A_STEP), uint32(n + B_STEP)
            multiply(a_tile, b_tile, m, n, a_own, b_own, sums)
            m, n = uint32(m + A_STEP), uint32(n + B_STEP)
            multiply(a_tile, b_tile, m, n, a_own, b_own, sums)
            m, n = uint32(m + A_STEP), uint32(n + B_STEP)
            multiply(a_tile, b_tile, m, n, a_own, b_own, sums)
            m, n = uint32(m + A_STEP), uint32(n + B_STEP)
            multiply(a_tile, b_tile, m, n, a_own, b_own, sums)
            m, n = uint32(m + A_STEP), uint32(n + B_STEP)
            multiply(a_tile, b_tile, m, n, a_own, b_own, sums)
            m, n = uint32(m + A_STEP), uint32(n + B_STEP)
            multiply(a_tile, b_tile, m, n, a_own, b_own, sums)
            if k < p.past:
                a_half, b_half = uint32(A_HALF - a_half), uint32(B_HALF - b_half)
                if has_a:
                    put(a_tile, a_half + a_put, A_STEP, a_four)
                put(b_tile, b_half + b_put, B_STEP, b_four)
                if TWICE:
                    put(b_tile, b_half + c_put, B_STEP, c_four)
                cuda.syncthreads()

        p = sizes(table, uint32(cuda.blockIdx.z))  # again: this saves registers above
        for h in range(B_FOURS):
            c = uint32(column0 + column + uint32(h) * B_APART)
            places = (
                uint32(place(p, c)),
                uint32(place(p, c + uint32(1))),
                uint32(place(p, c + uint32(2))),
                uint32(place(p, c + uint32(3))),
            )
            for i in range(OWN_ROWS):
                r = uint32(row0 + row + uint32(i % 4) + uint32(i // 4) * A_APART)
                s = i * OWN_COLUMNS + 4 * h
                v0, v1, v2, v3 = sums[s], sums[s + 1], sums[s + 2], sums[s + 3]
                write(target, bias, p, r, c, places, v0, v1, v2, v3)

    return product


def choose(rows: int, columns: int, layers: int = 1, tf32: bool = False) -> str:
    """Return the name of the tile that suits a target: the largest one that is filled.

    `layers` is how many such targets are computed at once, be it shares of one. A GPU wants
    some hundred blocks. Tensor cores have one tile only.
    """
    if rows * columns * layers <= SMALL:
        return "tf32" if tf32 and rows > 32 and columns > 32 else "32x32"
    if tf32 and rows > TILES["32x256"].rows:
        return "tf32"
    for name in ("16x256", "32x256", "64x128"):
        if rows <= TILES[name].rows:
            return name
    blocks = -(-rows // 128) * -(-columns // 128) * layers
    return "128x128" if blocks >= BLOCKS // 2 else "64x128"


def shares_of(length: int, least: int, blocks: int, tile: Tile) -> int:
    """Return in how many shares to cut a sum, each of `least` at least, to fill a GPU."""
    return max(1, min(BLOCKS * 256 // tile.threads // blocks, length // least))


def aligned(a: CudaArray) -> bool:
    """Say whether the array begins where four numbers may be read at once."""
    if a.simulated:
        address = a.memory.__array_interface__["data"][0]
    else:
        address = a.__cuda_array_interface__["data"][0]
    return address % 16 == 0


def sent(table: np.ndarray, simulated: bool) -> CudaArray:
    """Return a table of integers on the GPU, or in the simulator, filled up to fours."""
    table = np.append(table, np.zeros(-table.size % 4)).astype(np.int32)
    return CudaArray(table if simulated else native.to_device(table), simulated)
