"""Max pooling: keep the largest pixel of every KH x KW window.

Equations

    (1)  y[n,c,i,j]  = max over u,v of x[n,c,p,q]
    (2)  dx[n,c,p,q] = sum of dy[n,c,i,j] over the windows whose maximum is (p,q)

    with p = i*SH + u*DH - top, q = j*SW + v*DW - left, 0 <= u < KH, 0 <= v < KW.

Shapes

    x, dx    (N, C, H, W)     float
    y, dy    (N, C, HO, WO)   float; HO = (H + top + bottom - DH*(KH-1) - 1)//SH + 1,
                              and WO likewise; rounded up with ceil_mode
    argmax   (N, C, HO, WO)   int32; where each maximum was, as p*W + q

Edges: padding counts as minus infinity and is never the maximum. Of equal pixels the
first one in row-major order wins. NaN beats every number, so that a diverged network
shows in its loss. A window that sees no pixel at all is an error.

Which pixel is the largest cannot be foreseen, so a branch on it is often guessed wrong,
and that costs more than all the rest. The faster loops have no such branch: they ask the
question for a vector of windows at once, with the words of course/engine/tile.py, and
select. The plain ones are for frames that are much larger than the image.

Lecture: lectures/11_backprop_convolution.ipynb.  Symbols: GLOSSARY.md.
Source: Riesenhuber & Poggio, Nature Neuroscience 2 (1999); as torch.nn.MaxPool2d.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import unravel, windows_over
from course.device import (
    Array,
    empty,
    fill,
    floats,
    launch,
    on_cpu,
    same_device,
    same_shape,
)
from course.engine.pooling import SLACK, frame_of, put_in, quarters
from course.engine.tile import (
    each_col,
    larger,
    load,
    pair,
    pool_places,
    shape_of,
    splat,
    store,
    unpool_places,
    zeros,
)
from course.layers.base import Layer
from course.shapes import Pads, Pair, nchw, pixels_seen, pool_geometry, pool_window


@compiled
def _y_cpu(y, argmax, x, KH, KW, SH, SW, top, left, DH, DW, first, past):
    """Equation (1), and where each maximum was; a thread has planes (n, c)."""
    _, C, HO, WO = y.shape
    H, W = x.shape[2:]
    for plane in range(first, past):
        n, c = divmod(plane, C)
        for i in range(HO):
            for j in range(WO):
                best, place = x[n, c, 0, 0], -1  # -1: no pixel seen yet
                for u in range(KH):
                    for v in range(KW):
                        p, q = i * SH + u * DH - top, j * SW + v * DW - left
                        if 0 <= p < H and 0 <= q < W:
                            pixel = x[n, c, p, q]
                            if place < 0 or pixel > best or np.isnan(pixel):
                                best, place = pixel, p * W + q
                                if np.isnan(best):
                                    break
                    if np.isnan(best) and place >= 0:
                        break
                y[n, c, i, j], argmax[n, c, i, j] = best, place


@compiled
def _y_cpu_framed(
    y, argmax, x, taps, steps, origins, seen, SH, SW, top, left, width, size, first, past
):
    """Equation (1) for any window, vectors of windows at once; a thread has planes (n, c).

    Of each window so far: its largest pixel, and how far that is after its first tap.
    """
    _, C, HO, WO = y.shape
    H, W = x.shape[2:]
    frame = np.full(size, -np.inf, x.dtype)
    bests, places = np.empty((2, HO * WO + SLACK), x.dtype)
    tile = pair(x)
    cols, wide = each_col(tile), shape_of(tile)[1]
    for plane in range(first, past):
        put_in(frame, x.reshape(-1), plane * H * W, H, W, SW, top, left, width)
        for i in range(HO):
            for j in range(0, WO, wide):  # beyond the row: what the next one writes again
                here, k = i * SH * SW * width + j, (i * WO + j,)
                best, place = splat(tile, frame, (size - 1,)), load(tile, seen, k, cols)
                for t in range(taps.size):
                    pixels = load(tile, frame, (here + taps[t],), cols)
                    best, place = larger(best, place, pixels, steps[t])
                store(best, bests, k, cols)
                store(place, places, k, cols)
        outputs = y[plane // C, plane % C].reshape(-1)
        winners = argmax[plane // C, plane % C].reshape(-1)
        for k in range(outputs.size):
            outputs[k], winners[k] = bests[k], origins[k] + np.int32(places[k])


@compiled
def _y_cpu_tiles(y, argmax, x, first, past):
    """Equation (1) for 2 x 2 windows side by side, a vector of them at once.

    A thread has planes (n, c). The last vector of a row ends where the row ends, and sees
    some windows again.
    """
    HO, WO = y.shape[2:]
    H, W = x.shape[2:]
    lanes = shape_of(zeros(x))[2]
    best, places, pixels = y.reshape(-1), argmax.reshape(-1), x.reshape(-1)
    for plane in range(first, past):
        for i in range(HO):
            k, p = (plane * HO + i) * WO, 2 * i * W
            for start in range(0, WO, lanes):
                j = min(start, WO - lanes)
                place, here = p + 2 * j, plane * H * W + p + 2 * j
                pool_places(best, places, k + j, pixels, here, W, place)


@compiled
def _dx_cpu(dx, dy, argmax, first, past):
    """Equation (2), pushed: a window gives to its maximum; a thread has planes, a row each.

    dx is (N*C, H*W), dy and argmax are (N*C, HO*WO).
    """
    for plane in range(first, past):
        pixels, upstream, place = dx[plane], dy[plane], argmax[plane]
        pixels[:] = 0
        for k in range(upstream.size):
            pixels[place[k]] += upstream[k]


@compiled
def _dx_cpu_tiles(dx, dy, argmax, first, past):
    """Equation (2) for 2 x 2 windows side by side, a vector of them at once.

    A thread has planes (n, c). Each pixel is written once, but for those that the last
    vector of a row sees again.
    """
    _, C, HO, WO = dy.shape
    H, W = dx.shape[2:]
    lanes = shape_of(zeros(dx))[2]
    pixels, upstream, places = dx.reshape(-1), dy.reshape(-1), argmax.reshape(-1)
    for plane in range(first, past):
        if H * W > 4 * HO * WO:  # some are in no window
            dx[plane // C, plane % C] = 0
        for i in range(HO):
            k, p = (plane * HO + i) * WO, 2 * i * W
            for start in range(0, WO, lanes):
                j = min(start, WO - lanes)
                place, here = p + 2 * j, plane * H * W + p + 2 * j
                unpool_places(pixels, here, W, upstream, places, k + j, place)


@cuda.jit
def _y_cuda(y, argmax, x, KH, KW, SH, SW, top, left, DH, DW):
    """Equation (1), and where each maximum was; a thread has elements of y."""
    H, W = x.shape[2:]
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, c, i, j = unravel(k, y.shape)
        best, place = x[n, c, 0, 0], -1  # -1: no pixel seen yet
        for u in range(KH):
            for v in range(KW):
                p, q = i * SH + u * DH - top, j * SW + v * DW - left
                if 0 <= p < H and 0 <= q < W:
                    pixel = x[n, c, p, q]
                    nan = place >= 0 and best != best  # the first NaN stays
                    if place < 0 or (not nan and (pixel > best or pixel != pixel)):
                        best, place = pixel, p * W + q
        y[n, c, i, j] = best
        argmax[n, c, i, j] = place


@cuda.jit
def _dx_cuda(dx, dy, argmax, KH, KW, SH, SW, top, left, DH, DW):
    """Equation (2), pulled: a pixel asks the windows over it; a thread has pixels of dx."""
    HO, WO = dy.shape[2:]
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, c, p, q = unravel(k, dx.shape)
        place = p * dx.shape[3] + q
        total = dx.dtype.type(0)
        i0, i1 = windows_over(p + top, HO, KH, SH, DH)
        j0, j1 = windows_over(q + left, WO, KW, SW, DW)
        for i in range(i0, i1):
            for j in range(j0, j1):
                if argmax[n, c, i, j] == place:
                    total += dy[n, c, i, j]
        dx[n, c, p, q] = total


def maxpool2d_forward(
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair | Pads | str = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """Return y and argmax of equation (1); the stride defaults to the window.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for a
    window that does not fit or sees only padding.

    >>> y, argmax = maxpool2d_forward(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    >>> y[0, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    x = floats("x", x, "(N, C, H, W)")
    (N, C), image = x.shape[:2], x.shape[2:]
    geometry = pool_geometry(image, kernel_size, stride, padding, dilation, ceil_mode)
    pixels_seen(image, *geometry)  # at least one in every window
    kernel, stride, ((top, _), (left, _)), dilation, size = geometry
    y, argmax = empty((N, C, *size), x.dtype, x), empty((N, C, *size), np.int32, x)
    window = *kernel, *stride, top, left, *dilation
    if not on_cpu(x):
        launch(_y_cuda, y.size, y, argmax, x, *window)
        return y, argmax
    if quarters(image, *geometry, x.dtype):
        fill(_y_cpu_tiles, N * C, y, argmax, x)
    elif frame := frame_of(image, *geometry):
        sizes = *_places(image, *geometry, x.dtype), *frame.sizes
        steps = x.size + y.size * frame.taps.size
        fill(_y_cpu_framed, N * C, y, argmax, x, frame.taps, *sizes, steps=steps)
    else:
        fill(_y_cpu, N * C, y, argmax, x, *window)
    return y, argmax


@lru_cache(256)  # a network asks for the same few, at every step
def _places(image, kernel, stride, padding, dilation, size, dtype):
    """Return how far after its window's first tap each tap is; the place of each first tap.

    And how far the first tap inside the image is: what wins if all are minus infinity.
    """
    (_, W), (DH, DW) = image, dilation
    u, v = np.indices(kernel).reshape(2, -1)
    p, q = (
        np.arange(many) * S - P[0] for many, S, P in zip(size, stride, padding, strict=True)
    )
    inside = np.maximum(0, -(p // DH)) * DH * W, np.maximum(0, -(q // DW)) * DW
    seen = np.pad(np.add.outer(*inside).reshape(-1), (0, SLACK))
    origins = np.add.outer(p * W, q).reshape(-1)
    steps = (u * DH * W + v * DW).astype(dtype)
    tables = steps, origins.astype(np.int32), seen.astype(dtype)
    for table in tables:
        table.flags.writeable = False
    return tables


def maxpool2d_backward(
    dy: Array,
    argmax: Array,
    input_shape: tuple[int, int, int, int],
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair | Pads | str = 0,
    dilation: int | Pair = 1,
) -> Array:
    """Return dx of equation (2), of `input_shape` (N, C, H, W), in the dtype of dy.

    The keywords are those of forward; `argmax` is what forward returned. Raises
    ValueError if dy, argmax and input_shape do not belong together.

    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> y, argmax = maxpool2d_forward(x, 2)
    >>> maxpool2d_backward(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), argmax, x.shape, 2)[0, 0]
    array([[0., 0., 0., 0.],
           [0., 1., 0., 2.],
           [0., 0., 0., 0.],
           [0., 3., 0., 4.]])
    """
    dy = floats("dy", dy, "(N, C, HO, WO)")
    N, C, H, W = nchw("input_shape", input_shape)
    window = kernel_size, stride, padding, dilation
    geometry = pool_geometry((H, W), *window, ceil_mode=True)
    if dy.shape != (N, C, *geometry[4]):  # then forward was called without ceil_mode
        floor = N, C, *pool_geometry((H, W), *window, ceil_mode=False)[4]
        same_shape("dy", dy, floor, "the shape of y for this input_shape")
    if not isinstance(argmax, Array) or argmax.dtype.kind not in "iu":
        kind = getattr(argmax, "dtype", type(argmax).__name__)
        raise TypeError(f"argmax must be the int32 array of forward, not {kind}")
    same_device("argmax", argmax, dy)
    same_shape("argmax", argmax, dy.shape, "the shape of dy")
    kernel, stride, ((top, _), (left, _)), dilation, _ = geometry
    if not on_cpu(dy):
        dx = empty((N, C, H, W), dy.dtype, dy)
        launch(_dx_cuda, dx.size, dx, dy, argmax, *kernel, *stride, top, left, *dilation)
        return dx
    places = np.ascontiguousarray(argmax)
    if places.dtype != np.int32:
        places = places.astype(np.int64).clip(-1, H * W).astype(np.int32)
    if places.view(np.uint32).max(initial=0) >= H * W:  # read so, -1 is large
        wrong = argmax[(places < 0) | (places >= H * W)][0]
        raise ValueError(
            f"argmax names pixel {wrong}, but a plane of {H} x {W} has pixels 0 to "
            f"{H * W - 1}: it belongs to another x"
        )
    dx = np.empty((N, C, H, W), dy.dtype)
    if quarters((H, W), *geometry[:4], dy.shape[2:], dy.dtype):
        fill(_dx_cpu_tiles, N * C, dx, dy, places)
    else:
        windows = N * C, dy.shape[2] * dy.shape[3]
        planes = dx.reshape(N * C, H * W), dy.reshape(windows), places.reshape(windows)
        fill(_dx_cpu, N * C, *planes)
    return dx


class MaxPool2d(Layer):
    """Max pooling as a layer; it learns nothing. The stride defaults to the window.

    Raises ValueError if a size is below 1, and in forward if the window does not fit x
    or sees only padding.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair | Pads | str = 0,
        dilation: int | Pair = 1,
        ceil_mode: bool = False,
    ):
        super().__init__()
        kernel, stride, dilation = pool_window(kernel_size, stride, padding, dilation)
        self.window: dict[str, Any] = {
            "kernel_size": kernel,
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
        }
        self.ceil_mode = bool(ceil_mode)

    def forward(self, x: Array) -> Array:
        y, self.argmax = maxpool2d_forward(x, **self.window, ceil_mode=self.ceil_mode)
        self.input_shape, self.output_shape = x.shape, y.shape
        return y

    def see(self, x: Array) -> None:
        """Remember an x that somebody else has pooled; see course/fused.py."""
        (N, C), (H, W) = x.shape[:2], x.shape[2:]
        self.x, self.output_shape = x, (N, C, H // 2, W // 2)
        self.__dict__.pop("argmax", None)

    def backward(self, dy: Array) -> Array:
        if "argmax" not in self.__dict__ and "x" in self.__dict__:
            self.forward(self.x)
        argmax = self.remembered("argmax")
        return maxpool2d_backward(dy, argmax, self.input_shape, **self.window)
