"""What a GPU can and numba.cuda has no word for: four numbers at once, small matrices.

A function here has two versions. In the simulator it is the plain Python that is read
below. On a GPU it is one instruction, which course/cuda/native.py writes.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from course.cuda import Code, CudaError, simulator

simulator.OURS.add(__file__)  # an error names the kernel's line, not one of these


class Intrinsic(Code):
    """One instruction, which stands in kernels as a function does.

    Attributes
    ----------
    waiting : whether the lanes of a warp meet in it
    """

    def __init__(self, function: Callable, waiting: bool = False):
        super().__init__(function, {})
        self.waiting = waiting

    def __call__(self, *arguments: Any) -> Any:
        """Run the Python version, as a part of the thread that the simulator runs now."""
        return self.function(*arguments)

    def native(self) -> Any:
        """Return the instruction."""
        from course.cuda import native

        return native.intrinsics()[self.__name__]


def _four(a: Any, i: Any, kind: str) -> Any:
    """Return the array of an access to four numbers, which must lie as hardware wants."""
    if int(i) % 4:
        raise CudaError(f"four numbers at once begin at a multiple of 4, not at {i}")
    if isinstance(a, simulator.Watched):
        a.note(int(i), kind, 4)
        return a.array
    return a


@Intrinsic
def ld4(a, i):
    """Return a[i] to a[i + 3] of a flat array of 4-byte numbers; i is a multiple of 4."""
    a = _four(a, i, "read")
    return a[i], a[i + 1], a[i + 2], a[i + 3]


@Intrinsic
def st4(a, i, v0, v1, v2, v3):
    """Write a[i] to a[i + 3] of a flat array of float32; i is a multiple of 4."""
    a = _four(a, i, "write")
    a[i], a[i + 1], a[i + 2], a[i + 3] = v0, v1, v2, v3


@Intrinsic
def tf32(value):
    """Return the nearest number with 10 bits behind the point, as tensor cores read it."""
    bits = int(np.float32(value).view(np.uint32))
    if not math.isfinite(value):
        return value
    return np.uint32((bits + 0x1000) & 0xFFFFE000).view(np.float32)


def _product(values: dict, thread: simulator.Thread) -> tuple:
    """Return what `mma` gives a lane, from what all 32 have brought."""
    if "product" not in values:
        a, b = np.empty((16, 8), np.float32), np.empty((8, 8), np.float32)
        for lane in range(32):
            row, k = divmod(lane, 4)
            (
                _,
                (a[row, k], a[row + 8, k], a[row, k + 4], a[row + 8, k + 4]),
                (
                    b[k, row],
                    b[k + 4, row],
                ),
            ) = values[lane]
        a, b = ((m.view(np.uint32) & 0xFFFFE000).view(np.float32) for m in (a, b))
        values["product"] = np.float64(a) @ np.float64(b)
    row, column = thread.lane // 4, thread.lane % 4 * 2
    places = (row, column), (row, column + 1), (row + 8, column), (row + 8, column + 1)
    sums = values[thread.lane][0]
    return tuple(
        np.float32(s + values["product"][place])
        for s, place in zip(sums, places, strict=True)
    )


def mma(s0, s1, s2, s3, a0, a1, a2, a3, b0, b1):
    """Add to a 16 x 8 matrix the product of a 16 x 8 and an 8 x 8 one; a warp does it.

    Each lane holds some of all three. With row, k = lane // 4, lane % 4 they are

        a0, a1, a2, a3   a[row, k], a[row + 8, k], a[row, k + 4], a[row + 8, k + 4]
        b0, b1           b[k, row], b[k + 4, row]
        s0, s1, s2, s3   sum[row, 2k], sum[row, 2k + 1], sum[row + 8, 2k], [row + 8, 2k + 1]

    and the four sums are returned. Of a and b the tensor core reads 10 bits behind the
    point and drops the rest: round them with `tf32` first. It sums in float32.
    From compute capability 8.0. Source: PTX ISA, "mma.m16n8k8".
    """
    return simulator.wait("warp", _product, ((s0, s1, s2, s3), (a0, a1, a2, a3), (b0, b1)))


mma = Intrinsic(mma, waiting=True)
