"""The matrix product of course/engine/cuda_tile.py on tensor cores.

A tensor core multiplies small matrices: `mma` adds a product of 16 x 8 by 8 x 8 numbers to
a matrix that lies in the registers of a warp. Its numbers are TF32, rounded to 10 bits
behind the point; sums are float32. A block of 8 warps has a tile of 128 x 128, a warp
64 x 32 of it: 4 x 4 matrices of sums. Between two barriers the block goes 16 steps along k.

In shared memory the 16 numbers of a line (a row of a, a column of b) lie side by side. Two
freedoms let all of them move in fours:

- Sums may be taken in any order, if a and b agree. `mma` wants k and k + 4 of a lane with
  k = lane % 4, twice; it gets the four numbers from 4k on, read at once.
- Columns may be dealt out in any order: a lane's two columns of one matrix and its two of
  the next are four neighbours in the target.

Shared memory has 32 banks, each of which serves one number at a time. Lines of 16 would
meet in the same banks: so the fours of a line change places, by the number of the line
(`spot`), and neither reading nor writing has to wait.

From compute capability 8.0. Source: the layout of `mma` is that of NVIDIA's PTX ISA; the
exchange of places ("swizzle") that of CUTLASS.
"""

from numba import float32, uint32

from course import cuda
from course.cuda.vectors import ld4, mma, st4, tf32
from course.engine.cuda_tile import TILES, ZERO, Form, write

DEPTH = 16  # steps along k between two barriers
TILE = TILES["tf32"]
LINES = uint32(TILE.rows)  # rows of a, and columns of b
HALF = uint32(TILE.rows * DEPTH)
BOTH = 2 * TILE.rows * DEPTH
OWN = 64  # sums of a thread


@cuda.jit(device=True, forceinline=True)
def chunks(me, near):
    """Return line and first k of a thread's first chunk, and how far its second one is.

    A chunk is four numbers of a line; as in cuda_tile.py, but four threads share a line.
    """
    if near:
        line, k = me >> uint32(2), (me & uint32(3)) << uint32(2)
        return uint32(line), uint32(k), LINES // uint32(2), uint32(0)
    line, k = me % LINES, (me // LINES) << uint32(2)
    return uint32(line), uint32(k), uint32(0), uint32(DEPTH // 2)


@cuda.jit(device=True, forceinline=True)
def spot(line, k):
    """Return where in shared memory the four from k on of a line lie."""
    return uint32((line << uint32(4)) + ((k ^ (line << uint32(1))) & uint32(12)))


@cuda.jit(device=True, forceinline=True)
def put(tile, at, four):
    """Put a chunk down, rounded."""
    st4(tile, at, tf32(four[0]), tf32(four[1]), tf32(four[2]), tf32(four[3]))


@cuda.jit(device=True, forceinline=True)
def read(b_tile, b_at, c_at, b_own):
    """Read the fours of a lane's columns."""
    for j in range(2):
        v = ld4(b_tile, b_at + uint32(256 * j))
        b_own[8 * j], b_own[8 * j + 1], b_own[8 * j + 2], b_own[8 * j + 3] = v
        v = ld4(b_tile, c_at + uint32(256 * j))
        b_own[8 * j + 4], b_own[8 * j + 5], b_own[8 * j + 6], b_own[8 * j + 7] = v


@cuda.jit(device=True, forceinline=True)
def multiply(a_tile, a_at, b_own, sums, first):
    """Add the products of 16 k to a quarter of a warp's sums: 16 rows."""
    u0, u1, u2, u3 = ld4(a_tile, a_at)
    v0, v1, v2, v3 = ld4(a_tile, a_at + uint32(8 * DEPTH))
    for j in range(4):
        s, b = first + 4 * j, 4 * j
        s0, s1, s2, s3 = sums[s], sums[s + 1], sums[s + 2], sums[s + 3]
        s0, s1, s2, s3 = mma(s0, s1, s2, s3, u0, v0, u1, v1, b_own[b], b_own[b + 1])
        s0, s1, s2, s3 = mma(s0, s1, s2, s3, u2, v2, u3, v3, b_own[b + 2], b_own[b + 3])
        sums[s], sums[s + 1], sums[s + 2], sums[s + 3] = s0, s1, s2, s3


def make(form: Form) -> cuda.Kernel:
    """Return the kernel that computes products of the form on tensor cores."""
    sizes, place = form.sizes, form.place
    start_a, fetch_a, start_b, fetch_b = form[2:6]

    @cuda.jit(variant=f"{form.name} tf32", max_registers=128)
    def product(target, a, b, bias, table):
        """Compute a tile of the target; see the head of this file."""
        a_tile = cuda.shared.array(BOTH, float32, 16)
        b_tile = cuda.shared.array(BOTH, float32, 16)
        sums = cuda.local.array(OWN, float32)
        b_own = cuda.local.array(16, float32)
        for i in range(OWN):
            sums[i] = ZERO
        p = sizes(table, uint32(cuda.blockIdx.z))
        row0 = uint32(uint32(cuda.blockIdx.y) * LINES)
        column0 = uint32(uint32(cuda.blockIdx.x) * LINES)

        # What this thread fetches: two chunks of a, and two of b.
        me = uint32(cuda.threadIdx.x)
        a_line, a_k, lines, ks = chunks(me, p.a_near)
        d_line, d_k = uint32(a_line + lines), uint32(a_k + ks)
        b_line, b_k, lines, ks = chunks(me, p.b_near)
        c_line, c_k = uint32(b_line + lines), uint32(b_k + ks)
        a_start = start_a(table, p, row0 + a_line)
        d_start = start_a(table, p, row0 + d_line)
        b_start = start_b(table, p, column0 + b_line)
        c_start = start_b(table, p, column0 + c_line)
        a_put, d_put = spot(a_line, a_k), spot(d_line, d_k)
        b_put, c_put = spot(b_line, b_k), spot(c_line, c_k)
        k = p.first
        put(a_tile, a_put, fetch_a(a, table, p, a_start, uint32(k + a_k)))
        put(a_tile, d_put, fetch_a(a, table, p, d_start, uint32(k + d_k)))
        put(b_tile, b_put, fetch_b(b, table, p, b_start, uint32(k + b_k)))
        put(b_tile, c_put, fetch_b(b, table, p, c_start, uint32(k + c_k)))
        cuda.syncthreads()

        # What its warp multiplies.
        warp, lane = uint32(me // uint32(32)), uint32(me % uint32(32))
        row = uint32((warp // uint32(4) << uint32(6)) + lane // uint32(4))
        column = uint32((warp % uint32(4)) << uint32(5))
        two = lane // uint32(4)  # columns 0, 1, 4, 5, 8, 9, ...
        two = uint32(column + (two // uint32(2) * uint32(4)) + two % uint32(2))
        four = uint32((lane % uint32(4)) << uint32(2))
        a_at, b_at, c_at = spot(row, four), spot(two, four), spot(two + uint32(2), four)
        half = uint32(0)
        quarter = uint32(16 * DEPTH)
        v = ZERO, ZERO, ZERO, ZERO
        while k < p.past:
            k = uint32(k + uint32(DEPTH))
            more, other = k < p.past, uint32(HALF - half)
            read(b_tile, half + b_at, half + c_at, b_own)
            at = uint32(half + a_at)
            if more:  # a chunk sets out while a quarter of this step is multiplied,
                v = fetch_a(a, table, p, a_start, uint32(k + a_k))
            multiply(a_tile, at, b_own, sums, 0)
            if more:  # and has come
                put(a_tile, other + a_put, v)
                v = fetch_a(a, table, p, d_start, uint32(k + d_k))
            at = uint32(at + quarter)
            multiply(a_tile, at, b_own, sums, 16)
            if more:
                put(a_tile, other + d_put, v)
                v = fetch_b(b, table, p, b_start, uint32(k + b_k))
            at = uint32(at + quarter)
            multiply(a_tile, at, b_own, sums, 32)
            if more:
                put(b_tile, other + b_put, v)
                v = fetch_b(b, table, p, c_start, uint32(k + c_k))
            at = uint32(at + quarter)
            multiply(a_tile, at, b_own, sums, 48)
            if more:
                put(b_tile, other + c_put, v)
                cuda.syncthreads()
            half = other

        p = sizes(table, uint32(cuda.blockIdx.z))  # again: this saves registers above
        for j in range(2):
            c = uint32(column0 + column + four + uint32(16 * j))
            places = (
                uint32(place(p, c)),
                uint32(place(p, c + uint32(1))),
                uint32(place(p, c + uint32(2))),
                uint32(place(p, c + uint32(3))),
            )
            for i in range(4):
                for h in range(2):
                    r = uint32(row0 + row + uint32(16 * i + 8 * h))
                    s = 16 * i + 8 * j + 2 * h
                    v0, v1, v2, v3 = sums[s], sums[s + 1], sums[s + 4], sums[s + 5]
                    write(target, bias, p, r, c, places, v0, v1, v2, v3)

    return product
