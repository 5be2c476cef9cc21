"""What the pooling layers share: vectors of windows at once.

The lanes of a vector lie side by side, but neighbouring windows are SW pixels apart.

Windows of 2 x 2 side by side are common, and have words of their own in
course/engine/tile.py. The last vector of a row of windows ends where the row ends, and does
some windows again.

For other windows a plane is copied into a frame. There a row of the framed plane is kept as
SW lines of `width` numbers: columns 0, SW, 2*SW, ... first, then columns 1, SW + 1, ...
What tap (u, v) of window (i, j) sees is at

    (i*SH + u*DH) * SW*width  +  v*DW % SW * width  +  v*DW // SW  +  j

of a flat array: for neighbouring windows side by side. What is around the plane keeps what
the frame began with. SLACK numbers follow, for vectors that reach beyond the last line.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from course.compiled import inside
from course.engine.tile import (
    add_four,
    each_col,
    load,
    pair,
    shape_of,
    split,
    store,
    tile_shape,
    to_four,
    zeros,
)
from course.shapes import Pads, Pair

SLACK = 32  # numbers: a tile of two vectors of AVX-512
LARGE = 1 << 24  # from here on float32 does not know every whole number
QUARTERS = (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)


def quarters(
    size: Pair, kernel: Pair, stride: Pair, padding: Pads, dilation: Pair, out: Pair, dtype
) -> bool:
    """Say whether 2 x 2 windows lie side by side, a vector of them or more in each row."""
    inside_all = 2 * out[0] <= size[0] and 2 * out[1] <= size[1]
    plain = (kernel, stride, padding, dilation) == QUARTERS
    return plain and inside_all and tile_shape(dtype).lanes <= out[1]


@inside
def quarter(z, x, start, W, HO, WO):
    """Write z[i*WO + j] = the sum of window (i, j) of the plane that begins at x[start]."""
    lanes = shape_of(zeros(x))[2]
    for i in range(HO):
        for window in range(0, WO, lanes):
            j = min(window, WO - lanes)
            add_four(z, i * WO + j, x, start + 2 * i * W + 2 * j, W)


@inside
def unquarter(x, start, W, z, HO, WO):
    """Write z[i*WO + j] to window (i, j) of the plane that begins at x[start]."""
    lanes = shape_of(zeros(x))[2]
    for i in range(HO):
        for window in range(0, WO, lanes):
            j = min(window, WO - lanes)
            to_four(x, start + 2 * i * W + 2 * j, W, z, i * WO + j)


class Frame(NamedTuple):
    """Where things are in the frame of a plane.

    `taps` are the places for window (0, 0), one tap after the other; `sizes` are SH, SW,
    top, left, width, and how many numbers the frame has.
    """

    taps: np.ndarray
    sizes: tuple[int, ...]


@lru_cache(256)  # a network asks for the same few, at every step
def frame_of(
    size: Pair, kernel: Pair, stride: Pair, padding: Pads, dilation: Pair, out: Pair
) -> Frame | None:
    """Return where things are in the frame of a plane, or None if it would be too large.

    The stride along an axis with one window, which may be huge, does not matter: it is 1.
    """
    SH, SW = (S if many > 1 else 1 for S, many in zip(stride, out, strict=True))
    (H, W), (HO, WO), ((top, _), (left, _)) = size, out, padding
    u, v = np.indices(kernel).reshape(2, -1) * np.reshape(dilation, (2, 1))  # pixels
    rows = max((HO - 1) * SH + int(u[-1]) + 1, top + H)
    width = max(WO + int(v[-1]) // SW, (left + W - 1) // SW + 1)
    if rows * SW * width >= min(4 * (H * W + HO * WO) + 4096, LARGE):
        return None
    taps = (u * SW + v % SW) * width + v // SW
    taps.flags.writeable = False
    return Frame(taps, (SH, SW, top, left, width, rows * SW * width + SLACK))


@inside
def put_in(frame, x, start, H, W, SW, top, left, width):
    """Copy the plane that begins at x[start] into its frame."""
    tile = pair(frame)
    cols, wide = each_col(tile), shape_of(tile)[1]
    whole = W // wide * wide if SW <= 2 else 0
    even = left % SW * width + left // SW
    odd = (left + 1) % SW * width + (left + 1) // SW
    for p in range(H if whole else 0):
        k, line = (top + p) * SW * width, start + p * W
        for q in range(0, whole, wide):
            if SW == 2:
                split(frame, k + even + q // 2, k + odd + q // 2, x, line + q)
            else:
                store(load(tile, x, (line + q,), cols), frame, (k + even + q,), cols)
    for first in range(whole, min(whole + SW, W)):  # what is left of the rows
        j, side = divmod(first + left, SW)
        for p in range(H):
            k, line = ((top + p) * SW + side) * width + j, start + p * W
            for q in range(first, W, SW):
                frame[k] = x[line + q]
                k += 1
