"""Convolution on a GPU as a matrix product whose matrices are never built.

The sums of course/layers/conv2d.py are matrix products, group by group:

    y    rows: filters f     columns: output pixels (n,i,j)   sum over: taps (c,u,v)
    dx   rows: channels c    columns: input pixels (n,p,q)    sum over: taps (f,u,v)
    dw   rows: filters f     columns: taps (c,u,v)            sum over: pixels (n,i,j)

of w with x, of w with dy, of dy with x. Where the number for a pixel and a tap lies is
found while it is fetched, from a table with a line for each tap

    offset of what it sees from where the window begins, u*DH, v*DW, offset of its weight

and pixels of the frame are zero without being anywhere. Stride, padding, dilation and
groups are in the table and nowhere else. It is made on the CPU and sent once for each
geometry.

A pixel of x has been seen by every SH-th window, so dx is a convolution of stride 1 for
each of the SH*SW remainders (a, b) of its coordinates, with the taps that meet it. Block z
of a grid has one remainder and one group.

dw has few elements and long sums. They are cut into shares of whole images, which blocks
of their own compute; the shares are then added up in order.

Source: Chetlur et al., "cuDNN: efficient primitives for deep learning", arXiv:1410.0759.
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
from course.engine.cuda_matmul import add_up
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
from course.shapes import Pads, Pair

LONG = 1024  # pixels in a share of dw, at least
DEPTH = tensor_core.DEPTH  # taps that may be fetched past the last one


# --- y and dx: windows over a source ----------------------------------------------------


class Windows(NamedTuple):
    """The sizes of y or dx; the first ones are those of cuda_tile.Sizes.

    "Source" is what the windows slide over: x, or dy for dx.
    """

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
    taps: int  # where in the table they begin
    plane: int  # columns of one image,
    width: int  # and of one row of it
    stride: int  # in the source, from one window to the next: down,
    stride_across: int
    top: int  # where the first one begins above and left of the source
    left: int
    H: int  # height and width of a source plane
    W: int
    image: int  # numbers in a source image
    source_from: int  # where in it the channels of this group begin,
    weights_from: int  # in the weights,
    target_from: int  # and in the target, with the remainder
    weight_row: int  # in the weights, from one row to the next
    target_image: int  # in the target, from one image to the next,
    target_down: int  # from one row of pixels,
    target_across: int  # and from one pixel


HEADER = 28  # entries of the table for one remainder
FAR = 1 << 30  # rows below any plane
NOTHING = 0, FAR, 0, 0  # the line of a tap or pixel that sees nothing


@cuda.jit(device=True, forceinline=True)
def sizes(table, z):
    """Return the sizes; z counts remainders, and groups within."""
    groups = uint32(table[0])
    rest = uint32(z // groups)
    group = uint32(z - rest * groups)
    h = uint32(rest * uint32(HEADER))
    return Windows(
        uint32(table[h + uint32(1)]),
        uint32(table[h + uint32(2)]),
        uint32(0),
        uint32(table[h + uint32(3)]),
        uint32(table[h + uint32(4)]),
        table[h + uint32(5)],
        True,
        False,
        table[h + uint32(6)],
        uint32(group * uint32(table[h + uint32(1)])),
        uint32(1),
        uint32(0),
        table[h + uint32(7)],
        uint32(table[h + uint32(8)]),
        uint32(table[h + uint32(9)]),
        uint32(table[h + uint32(10)]),
        uint32(table[h + uint32(11)]),
        uint32(table[h + uint32(12)]),
        uint32(table[h + uint32(13)]),
        uint32(table[h + uint32(14)]),
        uint32(table[h + uint32(15)]),
        uint32(table[h + uint32(16)]),
        uint32(table[h + uint32(17)]),
        uint32(group * uint32(table[h + uint32(18)])),
        uint32(group * uint32(table[h + uint32(19)])),
        uint32(group * uint32(table[h + uint32(20)]) + uint32(table[h + uint32(21)])),
        uint32(table[h + uint32(22)]),
        uint32(table[h + uint32(23)]),
        uint32(table[h + uint32(24)]),
        uint32(table[h + uint32(25)]),
    )


@cuda.jit(device=True, forceinline=True)
def start_weights(table, p, row):
    """Return where the row's weights begin; past the last row, those of the first."""
    row = row if row < p.rows else uint32(0)
    return uint32(p.weights_from + row * p.weight_row)


@cuda.jit(device=True, forceinline=True)
def fetch_weights(w, table, p, start, k):
    """Return the row's weights for taps k to k + 3; zeros past the last tap."""
    v0 = v1 = v2 = v3 = ZERO
    at = uint32(p.taps + uint32(4) * k)
    if k < p.past:
        v0 = w[uint32(start + uint32(table[at + uint32(3)]))]
    if uint32(k + uint32(1)) < p.past:
        v1 = w[uint32(start + uint32(table[at + uint32(7)]))]
    if uint32(k + uint32(2)) < p.past:
        v2 = w[uint32(start + uint32(table[at + uint32(11)]))]
    if uint32(k + uint32(3)) < p.past:
        v3 = w[uint32(start + uint32(table[at + uint32(15)]))]
    return v0, v1, v2, v3


@cuda.jit(device=True, forceinline=True)
def split(p, column):
    """Return image, row and column of the pixel that is a column of the product."""
    n = uint32(column // p.plane)
    pixel = uint32(column - n * p.plane)
    i = uint32(pixel // p.width)
    return n, i, uint32(pixel - i * p.width)


@cuda.jit(device=True, forceinline=True)
def start_window(table, p, column):
    """Return where the window begins: in memory, in height, in width."""
    n, i, j = split(p, column if column < p.columns else uint32(0))
    top, left = uint32(i * p.stride - p.top), uint32(j * p.stride_across - p.left)
    return uint32(n * p.image + p.source_from + top * p.W + left), top, left


@cuda.jit(device=True, forceinline=True)
def seen(x, table, p, start, line):
    """Return what is seen at a start and a line of the table together; in the frame, 0.

    Above and left of the plane a coordinate is below zero: without sign, it is very large.
    """
    offset, down, across, _ = ld4(table, line)
    inside = uint32(start[1] + uint32(down)) < p.H
    if inside and uint32(start[2] + uint32(across)) < p.W:
        return x[uint32(start[0] + uint32(offset))]
    return ZERO


@cuda.jit(device=True, forceinline=True)
def fetch_window(x, table, p, start, k):
    """Return what taps k to k + 3 of the window see."""
    at = uint32(p.taps + uint32(4) * k)
    return (
        seen(x, table, p, start, at),
        seen(x, table, p, start, at + uint32(4)),
        seen(x, table, p, start, at + uint32(8)),
        seen(x, table, p, start, at + uint32(12)),
    )


@cuda.jit(device=True, forceinline=True)
def place_pixel(p, column):
    """Return where in the target row 0 of the column is."""
    n, i, j = split(p, column)
    pixel = i * p.target_down + j * p.target_across
    return uint32(p.target_from + n * p.target_image + pixel)


WINDOWS = Form(
    "windows",
    sizes,
    start_weights,
    fetch_weights,
    start_window,
    fetch_window,
    place_pixel,
)
WINDOW_KERNELS = {name: make(WINDOWS, name) for name in TILES if name != "tf32"}
WINDOW_KERNELS["tf32"] = tensor_core.make(WINDOWS)


class Geometry(NamedTuple):
    """Everything that the tables depend on."""

    x: tuple[int, int, int, int]  # shapes of x and w, height and width of y
    w: tuple[int, int, int, int]
    size: Pair
    stride: Pair
    frame: Pads
    dilation: Pair
    groups: int


class Plan(NamedTuple):
    """A table, and how large the target is: rows, columns, and how many such in z."""

    table: CudaArray
    rows: int
    columns: int
    layers: int


def _with_taps(headers: list[list[int]], taps: list[list], simulated: bool) -> CudaArray:
    """Return a table: the headers, then the taps of each; entry 8 says where they begin."""
    at = len(headers) * HEADER
    for header, lines in zip(headers, taps, strict=True):
        header[8] = at
        lines += [NOTHING] * (DEPTH + -len(lines) % DEPTH)
        at += 4 * len(lines)
    filled = [header + [0] * (HEADER - len(header)) for header in headers]
    parts = [np.ravel(part) for part in [filled, *taps]]
    return sent(np.concatenate(parts), simulated)


@lru_cache(maxsize=256)
def y_plan(g: Geometry, biased: bool, relu: bool, aligned: bool, simulated: bool) -> Plan:
    """Return the plan of y."""
    (N, C, H, W), (F, CG, KH, KW), (HO, WO) = g.x, g.w, g.size
    (SH, SW), ((top, _), (left, _)), (DH, DW), G = g.stride, g.frame, g.dilation, g.groups
    taps = [
        (c * H * W + u * DH * W + v * DW, u * DH, v * DW, (c * KH + u) * KW + v)
        for c in range(CG)
        for u in range(KH)
        for v in range(KW)
    ]
    rows, columns, K, plane = F // G, N * HO * WO, CG * KH * KW, HO * WO
    header = [
        *(G, rows, columns, K, plane, int(aligned and plane % 4 == 0)),
        *(int(biased), int(relu), 0),
        *(plane, WO, SH, SW, top, left, H, W, C * H * W),
        *(CG * H * W, rows * K, rows * plane, 0),
        *(K, F * plane, WO, 1),
    ]
    return Plan(_with_taps([header], [taps], simulated), rows, columns, G)


@lru_cache(maxsize=256)
def dx_plan(g: Geometry, aligned: bool, simulated: bool) -> Plan:
    """Return the plan of dx: one header for each remainder of the stride."""
    (N, C, H, W), (F, CG, KH, KW), (HO, WO) = g.x, g.w, g.size
    (SH, SW), ((top, _), (left, _)), (DH, DW), G = g.stride, g.frame, g.dilation, g.groups
    FG, headers, taps = F // G, [], []
    for a in range(min(SH, H)):
        for b in range(min(SW, W)):
            # Pixel p = i0*SH + a has been seen by window i by tap u where
            # p = i*SH + u*DH - top: i is i0 + down.
            down = {u: divmod(a + top - u * DH, SH) for u in range(KH)}
            across = {v: divmod(b + left - v * DW, SW) for v in range(KW)}
            lines = [
                (f * HO * WO + i * WO + j, i, j, (f * CG * KH + u) * KW + v)
                for f in range(FG)
                for u, (i, rest) in down.items()
                for v, (j, other) in across.items()
                if rest == other == 0
            ]
            height, width = -(-(H - a) // SH), -(-(W - b) // SW)
            quads = aligned and SH == SW == 1 and H * W % 4 == 0
            headers.append(
                [
                    *(G, CG, N * height * width, len(lines), H * W, int(quads), 0, 0, 0),
                    *(height * width, width, 1, 1, 0, 0, HO, WO, F * HO * WO),
                    *(FG * HO * WO, FG * CG * KH * KW, CG * H * W, a * W + b),
                    *(KH * KW, C * H * W, SH * W, SW),
                ]
            )
            taps.append(lines)
    columns = max(header[2] for header in headers)
    table = _with_taps(headers, taps, simulated)
    return Plan(table, CG, columns, G * len(headers))


def forward(
    y: CudaArray,
    x: CudaArray,
    w: CudaArray,
    b: CudaArray | None,
    g: Geometry,
    relu: bool,
    tf32: bool,
) -> None:
    """Write y."""
    plan = y_plan(g, b is not None, relu, aligned(y), y.simulated)
    name = choose(plan.rows, plan.columns, plan.layers, tf32)
    _run(WINDOW_KERNELS[name], TILES[name], plan, y, w, x, y if b is None else b)


def backward_x(dx: CudaArray, dy: CudaArray, w: CudaArray, g: Geometry, tf32: bool) -> None:
    """Write dx."""
    plan = dx_plan(g, aligned(dx), dx.simulated)
    name = choose(plan.rows, plan.columns, plan.layers, tf32)
    _run(WINDOW_KERNELS[name], TILES[name], plan, dx, w, dy, dx)


def _run(kernel, tile, plan, target, a, b, bias) -> None:
    """Launch the kernel, which has this tile, for all of the plan."""
    blocks = -(-plan.columns // tile.columns), -(-plan.rows // tile.rows), plan.layers
    arrays = (array.ravel() for array in (target, a, b, bias))
    kernel[blocks, tile.threads](*arrays, plan.table)


# --- dw: sums over pixels ---------------------------------------------------------------


class Pixels(NamedTuple):
    """The sizes of dw; the first ones are those of cuda_tile.Sizes.

    The sum runs over images, and over the pixels of each, filled up to fours.
    """

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
    plane: int  # pixels of an image
    whole: int  # the same, filled up to fours
    dy_quads: int  # 1 if four pixels of dy may be read at once
    dy_image: int  # numbers in an image of dy,
    x_image: int  # and of x
    dy_from: int  # where in it the channels of this group begin
    x_from: int
    H: int  # height and width of a plane of x
    W: int
    target_from: int  # where this group and share begins
    taps: int  # where in the table they begin; the pixels begin at PIXELS


PIXELS = 16


@cuda.jit(device=True, forceinline=True)
def dw_sizes(table, z):
    """Return the sizes; z counts shares, and groups within."""
    groups, rows, columns = uint32(table[0]), uint32(table[1]), uint32(table[2])
    share = uint32(z // groups)
    group = uint32(z - share * groups)
    length = uint32(table[4])
    first = uint32(share * length)
    return Pixels(
        rows,
        columns,
        first,
        min(uint32(table[3]), uint32(first + length)),
        columns,
        table[5],
        True,
        True,
        False,
        uint32(0),
        uint32(0),
        uint32(0),
        False,
        uint32(table[6]),
        uint32(table[7]),
        table[8],
        uint32(table[9]),
        uint32(table[10]),
        uint32(group * rows * uint32(table[6])),
        uint32(group * uint32(table[11])),
        uint32(table[12]),
        uint32(table[13]),
        uint32(z * rows * columns),
        uint32(table[14]),
    )


@cuda.jit(device=True, forceinline=True)
def start_dy(table, p, row):
    """Return where the filter's plane of dy begins; past the last, that of the first."""
    row = row if row < p.rows else uint32(0)
    return uint32(p.dy_from + row * p.plane)


@cuda.jit(device=True, forceinline=True)
def fetch_dy(dy, table, p, start, k):
    """Return dy at pixels k to k + 3, which are of one image."""
    v0 = v1 = v2 = v3 = ZERO
    n = uint32(k // p.whole)
    pixel = uint32(k - n * p.whole)
    at = uint32(start + n * p.dy_image + pixel)
    if k < p.past:
        if p.dy_quads:
            v0, v1, v2, v3 = ld4(dy, at)
        else:
            v0 = dy[at]
            if uint32(pixel + uint32(1)) < p.plane:
                v1 = dy[at + uint32(1)]
            if uint32(pixel + uint32(2)) < p.plane:
                v2 = dy[at + uint32(2)]
            if uint32(pixel + uint32(3)) < p.plane:
                v3 = dy[at + uint32(3)]
    return v0, v1, v2, v3


@cuda.jit(device=True, forceinline=True)
def start_tap(table, p, column):
    """Return where the tap looks: in memory, in height, in width."""
    column = column if column < p.columns else uint32(0)
    offset, down, across, _ = ld4(table, uint32(p.taps + uint32(4) * column))
    return uint32(p.x_from + uint32(offset)), uint32(down), uint32(across)


@cuda.jit(device=True, forceinline=True)
def fetch_tap(x, table, p, start, k):
    """Return what the tap sees from pixels k to k + 3, which are of one image."""
    v0 = v1 = v2 = v3 = ZERO
    n = uint32(k // p.whole)
    at = uint32(uint32(PIXELS) + uint32(4) * uint32(k - n * p.whole))
    tap = uint32(start[0] + n * p.x_image), start[1], start[2]
    if k < p.past:
        v0 = seen(x, table, p, tap, at)
        v1 = seen(x, table, p, tap, at + uint32(4))
        v2 = seen(x, table, p, tap, at + uint32(8))
        v3 = seen(x, table, p, tap, at + uint32(12))
    return v0, v1, v2, v3


@cuda.jit(device=True, forceinline=True)
def place_tap(p, column):
    """Return where in the target row 0 of the column is."""
    return uint32(p.target_from + column)


WEIGHTS = Form("weights", dw_sizes, start_dy, fetch_dy, start_tap, fetch_tap, place_tap)
WEIGHT_KERNELS = {name: make(WEIGHTS, name) for name in TILES if name != "tf32"}
WEIGHT_KERNELS["tf32"] = tensor_core.make(WEIGHTS)


@lru_cache(maxsize=256)
def dw_plan(
    g: Geometry, shares: int, dy_aligned: bool, aligned: bool, simulated: bool
) -> Plan:
    """Return the plan of dw, whose sums are cut into shares of whole images."""
    (N, C, H, W), (F, CG, KH, KW), (HO, WO) = g.x, g.w, g.size
    (SH, SW), ((top, _), (left, _)), (DH, DW), G = g.stride, g.frame, g.dilation, g.groups
    pixels = [
        ((i * SH - top) * W + j * SW - left, i * SH - top, j * SW - left, 0)
        for i in range(HO)
        for j in range(WO)
    ]
    taps = [
        (c * H * W + u * DH * W + v * DW, u * DH, v * DW, 0)
        for c in range(CG)
        for u in range(KH)
        for v in range(KW)
    ]
    plane, rows, columns = HO * WO, F // G, CG * KH * KW
    whole = -(-plane // 4) * 4
    header = [
        *(G, rows, columns, N * whole, -(-N // shares) * whole),
        *(int(aligned and columns % 4 == 0), plane, whole),
        *(int(dy_aligned and plane % 4 == 0), F * plane, C * H * W, CG * H * W, H, W),
        *(PIXELS + 4 * whole, 0),
    ]
    lines = [*pixels, *[NOTHING] * (whole - plane), *taps]
    table = sent(np.append(header, np.ravel(lines)), simulated)
    return Plan(table, rows, columns, G * shares)


def backward_w(dw: CudaArray, dy: CudaArray, x: CudaArray, g: Geometry, tf32: bool) -> None:
    """Write dw."""
    N, rows, columns = g.x[0], len(dw) // g.groups, dw.size // len(dw)
    pixels = N * g.size[0] * g.size[1]
    most = max(1, min(N, pixels // LONG))
    name = choose(rows, columns, g.groups * most, tf32)
    tile = TILES[name]
    blocks = -(-rows // tile.rows) * -(-columns // tile.columns) * g.groups
    shares = min(N, shares_of(pixels, LONG, blocks, tile))
    shares = -(-N // -(-N // shares))  # none is empty
    to = dw if shares == 1 else empty(shares * dw.size, dw.dtype, dw)
    plan = dw_plan(g, shares, aligned(dy), aligned(to), dw.simulated)
    _run(WEIGHT_KERNELS[name], tile, plan, to, dy, x, to)
    if shares > 1:
        add_up(dw, to, None, False)
