"""Average pooling: the mean of every KH x KW window.

Equations

    (1)  y[n,c,i,j]  = sum over u,v of x[n,c,p,q] / count[i,j]
    (2)  dx[n,c,p,q] = sum of dy[n,c,i,j] / count[i,j] over the windows that see (p,q)

    with p = i*SH + u - top, q = j*SW + v - left, 0 <= u < KH, 0 <= v < KW.

Shapes

    x, dx    (N, C, H, W)     float
    y, dy    (N, C, HO, WO)   float; HO = (H + top + bottom - KH)//SH + 1, and WO
                              likewise; rounded up with ceil_mode
    count    (HO, WO)         float; how many pixels the mean is over

Edges: count is of the pixels that a window sees: padding is not one of them, unless
count_include_pad says so; what hangs over beyond the padding (with ceil_mode) never is.
A window that sees no pixel at all is an error. A remainder of rows or columns that no
window reaches has gradient 0. A NaN or infinity goes to every window that sees it.

A window's sum is taken down the columns first, which is along memory, then across. 2 x 2
windows side by side have faster loops, with words of course/engine/tile.py.

Lecture: lectures/11_backprop_convolution.ipynb.  Symbols: GLOSSARY.md.
Source: LeCun et al., Neural Computation 1 (1989); as torch.nn.AvgPool2d, where
count_include_pad is True unless asked.
"""

from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import unravel, windows_over
from course.device import Array, empty, fill, floats, launch, on_cpu, same_shape
from course.engine.pooling import quarter, quarters, unquarter
from course.layers.base import Layer
from course.shapes import Pads, Pair, nchw, pixels_seen, pool_geometry, pool_window


@compiled
def _y_cpu(y, x, count, KH, KW, SH, SW, top, left, first, past):
    """Equation (1); a thread has planes (n, c)."""
    _, C, HO, WO = y.shape
    H, W = x.shape[2:]
    WP = max(left + W, (WO - 1) * SW + KW)
    row = np.zeros(WP, x.dtype)  # padding stays 0
    columns = row[left : left + W]
    for plane in range(first, past):
        n, c = divmod(plane, C)
        for i in range(HO):
            columns[:] = 0
            for u in range(KH):
                p = i * SH + u - top
                if 0 <= p < H:
                    pixels = x[n, c, p]
                    for q in range(W):
                        columns[q] += pixels[q]
            for j in range(WO):
                total = row[j * SW]
                for v in range(1, KW):
                    total += row[j * SW + v]
                y[n, c, i, j] = total / count[i, j]


@compiled
def _y_cpu_tiles(y, x, first, past):
    """Equation (1) for 2 x 2 windows side by side; a thread has planes (n, c)."""
    _, C, HO, WO = y.shape
    H, W = x.shape[2:]
    four = x.dtype.type(4)
    for plane in range(first, past):
        means = y[plane // C, plane % C].reshape(-1)
        quarter(means, x.reshape(-1), plane * H * W, W, HO, WO)
        for k in range(means.size):
            means[k] /= four


@cuda.jit
def _y_cuda(y, x, KH, KW, SH, SW, top, left, rows, columns):
    """Equation (1); a thread has elements of y."""
    H, W = x.shape[2:]
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, c, i, j = unravel(k, y.shape)
        total = x.dtype.type(0)
        for u in range(KH):
            for v in range(KW):
                p, q = i * SH + u - top, j * SW + v - left
                if 0 <= p < H and 0 <= q < W:
                    total += x[n, c, p, q]
        seen = _count(i * SH - top, KH, rows) * _count(j * SW - left, KW, columns)
        y[n, c, i, j] = total / x.dtype.type(seen)


@compiled
def _dx_cpu(dx, dy, count, KH, KW, SH, SW, top, left, first, past):
    """Equation (2), pushed: a window gives to the pixels it saw; a thread has planes."""
    _, C, HO, WO = dy.shape
    H, W = dx.shape[2:]
    WP = max(left + W, (WO - 1) * SW + KW)
    row = np.empty(WP, dx.dtype)
    columns = row[left : left + W]
    for plane in range(first, past):
        n, c = divmod(plane, C)
        dx[n, c] = 0
        for i in range(HO):
            row[:] = 0
            for j in range(WO):
                share = dy[n, c, i, j] / count[i, j]
                for v in range(KW):
                    row[j * SW + v] += share
            for u in range(KH):
                p = i * SH + u - top
                if 0 <= p < H:
                    pixels = dx[n, c, p]
                    for q in range(W):
                        pixels[q] += columns[q]


@compiled
def _dx_cpu_tiles(dx, dy, first, past):
    """Equation (2) for 2 x 2 windows side by side; a thread has planes (n, c)."""
    _, C, HO, WO = dy.shape
    H, W = dx.shape[2:]
    four, shares = dx.dtype.type(4), np.empty(HO * WO, dx.dtype)
    for plane in range(first, past):
        n, c = divmod(plane, C)
        if H * W > 4 * HO * WO:  # some are in no window
            dx[n, c] = 0
        upstream = dy[n, c].reshape(-1)
        for k in range(upstream.size):
            shares[k] = upstream[k] / four
        unquarter(dx.reshape(-1), plane * H * W, W, shares, HO, WO)


@cuda.jit
def _dx_cuda(dx, dy, KH, KW, SH, SW, top, left, rows, columns):
    """Equation (2), pulled: a pixel asks the windows over it; a thread has pixels of dx."""
    HO, WO = dy.shape[2:]
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, c, p, q = unravel(k, dx.shape)
        total = dx.dtype.type(0)
        i0, i1 = windows_over(p + top, HO, KH, SH, 1)
        j0, j1 = windows_over(q + left, WO, KW, SW, 1)
        for i in range(i0, i1):
            for j in range(j0, j1):
                seen = _count(i * SH - top, KH, rows) * _count(j * SW - left, KW, columns)
                total += dy[n, c, i, j] / dx.dtype.type(seen)
        dx[n, c, p, q] = total


@cuda.jit(device=True)
def _count(start, K, counted):
    """Return how many of the K pixels from `start` on are counted."""
    first, past = counted
    return min(start + K, past) - max(start, first)


def _counted(size, geometry, count_include_pad):
    """Return which rows, and which columns, are counted: (first, past) of each."""
    pixels_seen(size, *geometry)  # at least one in every window
    frame = geometry[2] if count_include_pad else ((0, 0), (0, 0))
    return tuple((-P[0], n + P[1]) for n, P in zip(size, frame, strict=True))


def _counts(size, geometry, count_include_pad, dtype):
    """Return count of every window, (HO, WO)."""
    rows, columns = pixels_seen(size, *geometry)
    if count_include_pad:
        kernel, stride, frame, _, out = geometry
        rows, columns = (
            np.minimum(K, n + sum(P) - np.arange(many) * S)
            for n, K, S, P, many in zip(size, kernel, stride, frame, out, strict=True)
        )
    return np.multiply.outer(rows, columns).astype(dtype)


def avgpool2d_forward(
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair | Pads | str = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Array:
    """Return y of equation (1), in the dtype of x; the stride defaults to the window.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for a
    window that does not fit or sees only padding.

    >>> avgpool2d_forward(np.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    x = floats("x", x, "(N, C, H, W)")
    (N, C), image = x.shape[:2], x.shape[2:]
    geometry = pool_geometry(image, kernel_size, stride, padding, 1, ceil_mode)
    kernel, stride, ((top, _), (left, _)), _, size = geometry
    y, window = empty((N, C, *size), x.dtype, x), (*kernel, *stride, top, left)
    if on_cpu(x) and quarters(image, *geometry, x.dtype):
        fill(_y_cpu_tiles, N * C, y, x)
    elif on_cpu(x):
        count = _counts(image, geometry, count_include_pad, x.dtype)
        fill(_y_cpu, N * C, y, x, count, *window)
    else:
        counted = _counted(image, geometry, count_include_pad)
        launch(_y_cuda, y.size, y, x, *window, *counted)
    return y


def avgpool2d_backward(
    dy: Array,
    input_shape: tuple[int, int, int, int],
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair | Pads | str = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Array:
    """Return dx of equation (2), of `input_shape` (N, C, H, W), in the dtype of dy.

    The keywords are those of forward. Raises ValueError if dy has not the shape of y.

    >>> avgpool2d_backward(np.array([[[[4.0, 8.0]]]]), (1, 1, 2, 4), 2)[0, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]])
    """
    dy = floats("dy", dy, "(N, C, HO, WO)")
    N, C, H, W = nchw("input_shape", input_shape)
    geometry = pool_geometry((H, W), kernel_size, stride, padding, 1, ceil_mode)
    kernel, stride, ((top, _), (left, _)), _, size = geometry
    same_shape("dy", dy, (N, C, *size), "the shape of y for this input_shape")
    dx, window = empty((N, C, H, W), dy.dtype, dy), (*kernel, *stride, top, left)
    if on_cpu(dy) and quarters((H, W), *geometry, dy.dtype):
        fill(_dx_cpu_tiles, N * C, dx, dy)
    elif on_cpu(dy):
        count = _counts((H, W), geometry, count_include_pad, dy.dtype)
        fill(_dx_cpu, N * C, dx, dy, count, *window)
    else:
        counted = _counted((H, W), geometry, count_include_pad)
        launch(_dx_cuda, dx.size, dx, dy, *window, *counted)
    return dx


class AvgPool2d(Layer):
    """Average pooling as a layer; it learns nothing. The stride defaults to the window.

    Padding is not counted in the mean; PyTorch, which counts it, says
    count_include_pad=True. Raises ValueError if a size is below 1, and in forward if the
    window does not fit x or sees only padding.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair | Pads | str = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = False,
    ):
        super().__init__()
        kernel, stride, _ = pool_window(kernel_size, stride, padding)
        self.window: dict[str, Any] = {
            "kernel_size": kernel,
            "stride": stride,
            "padding": padding,
            "ceil_mode": bool(ceil_mode),
            "count_include_pad": bool(count_include_pad),
        }

    def forward(self, x: Array) -> Array:
        y = avgpool2d_forward(x, **self.window)
        self.input_shape = x.shape
        return y

    def backward(self, dy: Array) -> Array:
        return avgpool2d_backward(dy, self.remembered("input_shape"), **self.window)
