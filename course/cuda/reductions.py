"""Sums and maxima over a warp and over a block, for kernels; every thread gets the answer.

A warp has no need of memory: a lane can read the register of another (a shuffle). After
five exchanges, with the lanes 16, 8, 4, 2 and 1 away, each has the sum of all 32. The order
of the sum is fixed: the same bits every run.

The blocks that call the functions of a block have one axis, of a multiple of 32 threads,
and all their threads call them. `scratch` is a shared array of 32 numbers.

Source: Harris, "Optimizing parallel reduction in CUDA", NVIDIA (2007); the shuffles: CUDA
C++ Programming Guide, "Warp shuffle functions".
"""

from course import cuda

FULL = 0xFFFFFFFF  # all 32 lanes


def block_for(count: int, most: int = 256) -> int:
    """Return how many threads should add up `count` numbers: four each; 32, 64, ... most.

    >>> block_for(0), block_for(129), block_for(10**6)
    (32, 64, 256)
    """
    return min(max(-(-count // 128), 1) * 32, most)


@cuda.jit(device=True)
def warp_sum(value):
    """Return the sum over the lanes of the warp."""
    for bits in (16, 8, 4, 2, 1):
        value += cuda.shfl_xor_sync(FULL, value, bits)
    return value


@cuda.jit(device=True)
def warp_max(value):
    """Return the largest value in the warp; NaN if there is one."""
    for bits in (16, 8, 4, 2, 1):
        other = cuda.shfl_xor_sync(FULL, value, bits)
        if other > value or other != other:
            value = other
    return value


@cuda.jit(device=True)
def row_max(row):
    """Return the largest number of a row that the warp shares; NaN if there is one."""
    largest = row[0]
    for k in range(cuda.threadIdx.x % 32, row.size, 32):
        if row[k] > largest or row[k] != row[k]:
            largest = row[k]
    return warp_max(largest)


@cuda.jit(device=True)
def block_sum(value, scratch):
    """Return the sum over the threads of the block."""
    value = warp_sum(value)
    cuda.syncthreads()  # somebody may still read the scratch of the last call
    if cuda.threadIdx.x & 31 == 0:
        scratch[cuda.threadIdx.x >> 5] = value
    cuda.syncthreads()
    total = scratch[0]
    for warp in range(1, cuda.blockDim.x >> 5):
        total += scratch[warp]
    return total


@cuda.jit(device=True)
def block_max(value, scratch):
    """Return the largest value in the block; NaN if there is one."""
    value = warp_max(value)
    cuda.syncthreads()
    if cuda.threadIdx.x & 31 == 0:
        scratch[cuda.threadIdx.x >> 5] = value
    cuda.syncthreads()
    largest = scratch[0]
    for warp in range(1, cuda.blockDim.x >> 5):
        other = scratch[warp]
        if other > largest or other != other:
            largest = other
    return largest


@cuda.jit(device=True)
def block_moments(row, scratch):
    """Return pivot, shift and var of the numbers in a row; their mean is pivot + shift.

    Far from 0 a mean is rounded. The distances from it are small, and lose no digits to
    one another: their mean says how far the pivot is off, their squares give the variance.
    """
    zero, count = row.dtype.type(0), row.dtype.type(row.size)
    total = zero
    for k in range(cuda.threadIdx.x, row.size, cuda.blockDim.x):
        total += row[k]
    pivot = block_sum(total, scratch) / count
    total, squares = zero, zero
    for k in range(cuda.threadIdx.x, row.size, cuda.blockDim.x):
        distance = row[k] - pivot
        total += distance
        squares += distance * distance
    shift = block_sum(total, scratch) / count
    var = block_sum(squares, scratch) / count - shift * shift
    return pivot, shift, zero if var < zero else var


@cuda.jit(device=True)
def lane_sum(value, scratch):
    """Return the sum over the lanes of one number, one from each warp of the block.

    So a block adds up 32 columns at once, whose numbers lie side by side. `scratch` is a
    shared array of (32, 32) numbers.
    """
    warp, lane = cuda.threadIdx.x >> 5, cuda.threadIdx.x & 31
    cuda.syncthreads()
    scratch[warp, lane] = value
    cuda.syncthreads()
    total = scratch[0, lane]
    for other in range(1, cuda.blockDim.x >> 5):
        total += scratch[other, lane]
    return total
