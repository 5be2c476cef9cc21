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
