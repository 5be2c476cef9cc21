"""L2 pooling: the length of every KH x KW window, read as a vector.

Equations

    (1)  y[n,c,i,j]  = sqrt(sum over u,v of x[n,c,p,q]^2)
    (2)  dx[n,c,p,q] = x[n,c,p,q] * sum of dy[n,c,i,j] / y[n,c,i,j] over the windows
                       that see (p,q), leaving out those with y = 0

    with p = i*SH + u*DH - top, q = j*SW + v*DW - left, 0 <= u < KH, 0 <= v < KW.

Shapes

    x, dx   (N, C, H, W)     float
    y, dy   (N, C, HO, WO)   float; HO = (H + top + bottom - DH*(KH-1) - 1)//SH + 1,
                             and WO likewise; rounded up with ceil_mode

Edges: padding counts as 0. A window of zeros has gradient 0, by choice: the length has a
kink there. In float32 squares keep within bounds for pixels from 1e-18 to 1e18. A window
that sees no pixel at all is an error. NaN and infinity go to every window that sees them.

A window's sum is taken down the columns first, which is along memory, then across. 2 x 2
windows side by side have faster loops, with words of course/engine/tile.py.

Lecture: lectures/11_backprop_convolution.ipynb.  Symbols: GLOSSARY.md.
Source: Hyvarinen & Koster, Network 18 (2007); Sermanet, Chintala & LeCun, ICPR 2012; as
torch.nn.LPPool2d, which has no padding and no dilation, and which scales a window that
hangs over the edge (with ceil_mode) up to a full one.
"""

import math
from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import unravel, windows_over
from course.device import (
    Array,
    empty,
    empty_like,
    fill,
    floats,
    launch,
    on_cpu,
    same_shape,
)
from course.engine.pooling import quarter, quarters, unquarter
from course.layers.base import Layer
from course.shapes import Pads, Pair, pixels_seen, pool_geometry, pool_window


@compiled
def _y_cpu(y, x, KH, KW, SH, SW, top, left, DH, DW, first, past):
    """Equation (1); a thread has planes (n, c)."""
    _, C, HO, WO = y.shape
    H, W = x.shape[2:]
    WP = max(left + W, (WO - 1) * SW + (KW - 1) * DW + 1)
    row = np.zeros(WP, x.dtype)  # padding stays 0
    columns = row[left : left + W]
    for plane in range(first, past):
        n, c = divmod(plane, C)
        for i in range(HO):
            columns[:] = 0
            for u in range(KH):
                p = i * SH + u * DH - top
                if 0 <= p < H:
                    pixels = x[n, c, p]
                    for q in range(W):
                        columns[q] += pixels[q] * pixels[q]
            for j in range(WO):
                total = row[j * SW]
                for v in range(1, KW):
                    total += row[j * SW + v * DW]
                y[n, c, i, j] = np.sqrt(total)


@compiled
def _y_cpu_tiles(y, x, first, past):
    """Equation (1) for 2 x 2 windows side by side; a thread has planes (n, c)."""
    _, C, HO, WO = y.shape
    H, W = x.shape[2:]
    squares = np.empty(H * W, x.dtype)
    for plane in range(first, past):
        n, c = divmod(plane, C)
        lengths, pixels = y[n, c].reshape(-1), x[n, c].reshape(-1)
        for k in range(pixels.size):
            squares[k] = pixels[k] * pixels[k]
        quarter(lengths, squares, 0, W, HO, WO)
        for k in range(lengths.size):
            lengths[k] = np.sqrt(lengths[k])


@cuda.jit
def _y_cuda(y, x, KH, KW, SH, SW, top, left, DH, DW):
    """Equation (1); a thread has elements of y."""
    H, W = x.shape[2:]
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, c, i, j = unravel(k, y.shape)
        total = x.dtype.type(0)
        for u in range(KH):
            for v in range(KW):
                p, q = i * SH + u * DH - top, j * SW + v * DW - left
                if 0 <= p < H and 0 <= q < W:
                    total += x[n, c, p, q] * x[n, c, p, q]
        y[n, c, i, j] = math.sqrt(total)


@compiled
def _dx_cpu(dx, dy, x, y, KH, KW, SH, SW, top, left, DH, DW, first, past):
    """Equation (2), the sum pushed by the windows; a thread has planes (n, c)."""
    _, C, HO, WO = dy.shape
    H, W = dx.shape[2:]
    WP = max(left + W, (WO - 1) * SW + (KW - 1) * DW + 1)
    row = np.empty(WP, dx.dtype)
    columns = row[left : left + W]
    zero = dx.dtype.type(0)
    for plane in range(first, past):
        n, c = divmod(plane, C)
        dx[n, c] = 0
        for i in range(HO):
            row[:] = 0
            for j in range(WO):
                share = dy[n, c, i, j] / y[n, c, i, j]
                share = zero if y[n, c, i, j] == zero else share
                for v in range(KW):
                    row[j * SW + v * DW] += share
            for u in range(KH):
                p = i * SH + u * DH - top
                if 0 <= p < H:
                    pixels = dx[n, c, p]
                    for q in range(W):
                        pixels[q] += columns[q]
        for p in range(H):
            gradients, pixels = dx[n, c, p], x[n, c, p]
            for q in range(W):
                gradients[q] *= pixels[q]


@compiled
def _dx_cpu_tiles(dx, dy, x, y, first, past):
    """Equation (2) for 2 x 2 windows side by side; a thread has planes (n, c)."""
    _, C, HO, WO = dy.shape
    H, W = dx.shape[2:]
    zero, shares = dx.dtype.type(0), np.empty(HO * WO, dx.dtype)
    for plane in range(first, past):
        n, c = divmod(plane, C)
        upstream, lengths = dy[n, c].reshape(-1), y[n, c].reshape(-1)
        for k in range(upstream.size):
            share = upstream[k] / lengths[k]
            shares[k] = zero if lengths[k] == zero else share
        if H * W > 4 * HO * WO:  # some are in no window
            dx[n, c] = 0
        unquarter(dx.reshape(-1), plane * H * W, W, shares, HO, WO)
        gradients, pixels = dx[n, c].reshape(-1), x[n, c].reshape(-1)
        for k in range(pixels.size):
            gradients[k] *= pixels[k]


@cuda.jit
def _dx_cuda(dx, dy, x, y, KH, KW, SH, SW, top, left, DH, DW):
    """Equation (2), pulled: a pixel asks the windows over it; a thread has pixels of dx."""
    HO, WO = dy.shape[2:]
    zero = dx.dtype.type(0)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, c, p, q = unravel(k, dx.shape)
        total = zero
        i0, i1 = windows_over(p + top, HO, KH, SH, DH)
        j0, j1 = windows_over(q + left, WO, KW, SW, DW)
        for i in range(i0, i1):
            if (p + top - i * SH) % DH == 0:  # else the pixel is between two taps
                for j in range(j0, j1):
                    if (q + left - j * SW) % DW == 0 and y[n, c, i, j] != zero:
                        total += dy[n, c, i, j] / y[n, c, i, j]
        dx[n, c, p, q] = x[n, c, p, q] * total


def _only_two(norm_type):
    """Raise ValueError for a norm that is not the Euclidean one."""
    if norm_type != 2:
        raise ValueError(
            f"norm_type is {norm_type!r}; it must be 2: the course has L2 only"
        )


def lppool2d_forward(
    x: Array,
    norm_type: int,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    ceil_mode: bool = False,
    padding: int | Pair | Pads | str = 0,
    dilation: int | Pair = 1,
) -> Array:
    """Return y of equation (1), in the dtype of x; the stride defaults to the window.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for a
    window that does not fit or sees only padding, or a norm_type that is not 2.

    >>> lppool2d_forward(np.array([[[[3.0, 0.0], [0.0, 4.0]]]]), 2, 2)
    array([[[[5.]]]])
    """
    _only_two(norm_type)
    x = floats("x", x, "(N, C, H, W)")
    (N, C), image = x.shape[:2], x.shape[2:]
    geometry = pool_geometry(image, kernel_size, stride, padding, dilation, ceil_mode)
    pixels_seen(image, *geometry)  # at least one in every window
    kernel, stride, ((top, _), (left, _)), dilation, size = geometry
    y = empty((N, C, *size), x.dtype, x)
    window = *kernel, *stride, top, left, *dilation
    if on_cpu(x) and quarters(image, *geometry, x.dtype):
        fill(_y_cpu_tiles, N * C, y, x)
    elif on_cpu(x):
        fill(_y_cpu, N * C, y, x, *window)
    else:
        launch(_y_cuda, y.size, y, x, *window)
    return y


def lppool2d_backward(
    dy: Array,
    x: Array,
    y: Array,
    norm_type: int,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    ceil_mode: bool = False,
    padding: int | Pair | Pads | str = 0,
    dilation: int | Pair = 1,
) -> Array:
    """Return dx of equation (2), in the shape and dtype of x; y is what forward returned.

    The keywords are those of forward. Raises as forward does, and ValueError if dy or y
    has not the shape of y for this x.

    >>> x, y = np.array([[[[3.0, 0.0], [0.0, 4.0]]]]), np.array([[[[5.0]]]])
    >>> lppool2d_backward(np.array([[[[10.0]]]]), x, y, 2, 2)
    array([[[[6., 0.],
             [0., 8.]]]])
    """
    _only_two(norm_type)
    x = floats("x", x, "(N, C, H, W)")
    dy = floats("dy", dy, "(N, C, HO, WO)", x)
    y = floats("y", y, "(N, C, HO, WO)", x)
    (N, C), image = x.shape[:2], x.shape[2:]
    geometry = pool_geometry(image, kernel_size, stride, padding, dilation, ceil_mode)
    kernel, stride, ((top, _), (left, _)), dilation, size = geometry
    same_shape("dy", dy, (N, C, *size), "the shape of y for this x")
    same_shape("y", y, dy.shape, "the shape of dy")
    dx = empty_like(x)
    window = *kernel, *stride, top, left, *dilation
    if on_cpu(x) and quarters(image, *geometry, x.dtype):
        fill(_dx_cpu_tiles, N * C, dx, dy, x, y)
    elif on_cpu(x):
        fill(_dx_cpu, N * C, dx, dy, x, y, *window)
    else:
        launch(_dx_cuda, dx.size, dx, dy, x, y, *window)
    return dx


class LPPool2d(Layer):
    """L2 pooling as a layer; it learns nothing. The stride defaults to the window.

    Raises ValueError if norm_type is not 2 or a size is below 1, and in forward if the
    window does not fit x or sees only padding.
    """

    def __init__(
        self,
        norm_type: int,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        ceil_mode: bool = False,
        padding: int | Pair | Pads | str = 0,
        dilation: int | Pair = 1,
    ):
        super().__init__()
        _only_two(norm_type)
        kernel, stride, dilation = pool_window(kernel_size, stride, padding, dilation)
        self.window: dict[str, Any] = {
            "norm_type": norm_type,
            "kernel_size": kernel,
            "stride": stride,
            "ceil_mode": bool(ceil_mode),
            "padding": padding,
            "dilation": dilation,
        }

    def forward(self, x: Array) -> Array:
        self.y = lppool2d_forward(x, **self.window)
        self.x = x
        return self.y

    def backward(self, dy: Array) -> Array:
        return lppool2d_backward(dy, self.remembered("x"), self.y, **self.window)
