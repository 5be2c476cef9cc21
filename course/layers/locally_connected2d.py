"""Locally connected layer: windows as in a convolution, but every output its own weights.

Equations

    (1)  y[n,f,i,j]      = b[f,i,j] + sum over c,u,v of w[f,c,u,v,i,j] * x[n,c,p,q]
    (2)  dx[n,c,p,q]     = sum over f,u,v,i,j        of w[f,c,u,v,i,j] * dy[n,f,i,j]
    (3)  dw[f,c,u,v,i,j] = sum over n                of dy[n,f,i,j] * x[n,c,p,q]
    (4)  db[f,i,j]       = sum over n                of dy[n,f,i,j]

    with p = i*SH + u - top, q = j*SW + v - left, 0 <= u < KH, 0 <= v < KW.

Shapes

    x, dx   (N, C, H, W)               float
    w, dw   (F, C, KH, KW, HO, WO)     float; w[..., i, j] are the filters of window (i,j),
                                       in a convolution's order
    b, db   (F, HO, WO)                float
    y, dy   (N, F, HO, WO)             float; HO = (H + top + bottom - KH)//SH + 1, and
                                       WO likewise

Edges: pixels outside x are 0. A remainder of rows or columns that no window reaches is
left out, and its gradient is 0. An empty batch gives an empty y. It is a convolution if
all windows have equal weights, and a linear layer if one window is the image.

A weight serves one window of each image, so the loops hold the batch last, as
(C, HP, WP, N) and (F, HO, WO, N): what a weight meets then lies side by side in memory.

Lecture: lectures/09_convolution.ipynb.  Symbols: GLOSSARY.md.
Source: LeCun, Generalization and network design strategies (1989), section 4; as
LocallyConnected2D of Keras 2.
"""

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
    full,
    launch,
    on_cpu,
    same_shape,
)
from course.layers.base import Layer, he_normal
from course.shapes import Pads, Pair, framed, integer, out_size, pads, pair


@compiled
def _y_cpu(y, xp, w, b, SH, SW, first, past):
    """Equation (1); a thread has rows (f, i) of y."""
    _, C, KH, KW, HO, WO = w.shape
    for row in range(first, past):
        f, i = divmod(row, HO)
        for j in range(WO):
            outputs = y[f, i, j]
            outputs[:] = b[f, i, j]
            for c in range(C):
                for u in range(KH):
                    for v in range(KW):
                        tap, seen = w[f, c, u, v, i, j], xp[c, i * SH + u, j * SW + v]
                        for n in range(outputs.size):
                            outputs[n] += tap * seen[n]


@cuda.jit
def _y_cuda(y, x, w, b, SH, SW, top, left):
    """Equation (1); a thread has elements of y."""
    (C, KH, KW), (H, W) = w.shape[1:4], x.shape[2:]
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, f, i, j = unravel(k, y.shape)
        total = b[f, i, j]
        for c in range(C):
            for u in range(KH):
                for v in range(KW):
                    p, q = i * SH + u - top, j * SW + v - left
                    if 0 <= p < H and 0 <= q < W:
                        total += w[f, c, u, v, i, j] * x[n, c, p, q]
        y[n, f, i, j] = total


@compiled
def _dx_cpu(dxp, dy, w, SH, SW, first, past):
    """Equation (2), pushed: an output gives to every pixel it saw, frame included.

    A thread has channels of dx.
    """
    F, _, KH, KW, HO, WO = w.shape
    for c in range(first, past):
        dxp[c] = 0
        for f in range(F):
            for i in range(HO):
                for j in range(WO):
                    upstream = dy[f, i, j]
                    for u in range(KH):
                        for v in range(KW):
                            tap, seen = w[f, c, u, v, i, j], dxp[c, i * SH + u, j * SW + v]
                            for n in range(upstream.size):
                                seen[n] += tap * upstream[n]


@cuda.jit
def _dx_cuda(dx, dy, w, SH, SW, top, left):
    """Equation (2), pulled: a pixel asks the windows over it; a thread has pixels of dx."""
    F, _, KH, KW, HO, WO = w.shape
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, c, p, q = unravel(k, dx.shape)
        total = dx.dtype.type(0)
        i0, i1 = windows_over(p + top, HO, KH, SH, 1)
        j0, j1 = windows_over(q + left, WO, KW, SW, 1)
        for f in range(F):
            for i in range(i0, i1):
                for j in range(j0, j1):
                    u, v = p + top - i * SH, q + left - j * SW
                    total += w[f, c, u, v, i, j] * dy[n, f, i, j]
        dx[n, c, p, q] = total


@compiled
def _dw_cpu(dw, dy, xp, SH, SW, first, past):
    """Equation (3); a thread has rows (f, i) of dw."""
    _, C, KH, KW, HO, WO = dw.shape
    for row in range(first, past):
        f, i = divmod(row, HO)
        for j in range(WO):
            upstream = dy[f, i, j]
            for c in range(C):
                for u in range(KH):
                    for v in range(KW):
                        seen = xp[c, i * SH + u, j * SW + v]
                        total = dw.dtype.type(0)
                        for n in range(upstream.size):
                            total += upstream[n] * seen[n]
                        dw[f, c, u, v, i, j] = total


@cuda.jit
def _dw_cuda(dw, dy, x, SH, SW, top, left):
    """Equation (3); a thread has weights."""
    F, C, KH, KW, HO, WO = dw.shape
    N, _, H, W = x.shape
    for k in range(cuda.grid(1), dw.size, cuda.gridsize(1)):
        filters, taps, i, j = unravel(k, (F * C, KH * KW, HO, WO))
        f, c, u, v = filters // C, filters % C, taps // KW, taps % KW
        p, q = i * SH + u - top, j * SW + v - left
        total = dw.dtype.type(0)
        if 0 <= p < H and 0 <= q < W:
            for n in range(N):
                total += dy[n, f, i, j] * x[n, c, p, q]
        dw[f, c, u, v, i, j] = total


@compiled
def _db_cpu(db, dy, first, past):
    """Equation (4); a thread has rows (f, i) of db."""
    _, HO, WO, N = dy.shape
    for row in range(first, past):
        f, i = divmod(row, HO)
        for j in range(WO):
            total = db.dtype.type(0)
            for n in range(N):
                total += dy[f, i, j, n]
            db[f, i, j] = total


@cuda.jit
def _db_cuda(db, dy):
    """Equation (4); a thread has biases."""
    F, HO, WO = db.shape
    for k in range(cuda.grid(1), db.size, cuda.gridsize(1)):
        _, f, i, j = unravel(k, (1, F, HO, WO))
        total = db.dtype.type(0)
        for n in range(len(dy)):
            total += dy[n, f, i, j]
        db[f, i, j] = total


def _geometry(x_shape, w_shape, stride, padding):
    """Return stride and padding, or say what does not fit together."""
    C, H, W = x_shape[1:]
    kernel, size = w_shape[2:4], w_shape[4:]
    if w_shape[1] != C:
        raise ValueError(f"x has {C} channels, w expects {w_shape[1]}")
    if min(kernel) < 1:
        raise ValueError(f"w has shape {w_shape}; a filter needs at least 1 x 1 taps")
    stride = pair("stride", stride)
    frame = pads(padding, (H, W), kernel, stride, (1, 1))
    windows = (
        out_size(H, kernel[0], stride[0], frame[0]),
        out_size(W, kernel[1], stride[1], frame[1]),
    )
    if windows != size:
        raise ValueError(
            f"x has {windows[0]} x {windows[1]} windows, w has weights for "
            f"{size[0]} x {size[1]}: w.shape ends with the size of y"
        )
    return stride, frame


def _batch_last(a: Array) -> Array:
    """Return (N, C, H, W) as (C, H, W, N)."""
    return np.ascontiguousarray(np.moveaxis(a, 0, -1))


def locally_connected2d_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | Pads | str = 0,
) -> Array:
    """Return y of equation (1), in the dtype of x.

    Raises TypeError for dtypes that are not float32 or float64, or not alike, and
    ValueError for shapes that do not fit together.

    >>> x, w = np.array([[[[1.0, 2.0, 3.0]]]]), np.zeros((1, 1, 1, 2, 1, 2))
    >>> w[0, 0, 0, :, 0, 0], w[0, 0, 0, :, 0, 1] = [1.0, 1.0], [0.0, 10.0]
    >>> locally_connected2d_forward(x, w)
    array([[[[ 3., 30.]]]])
    """
    x = floats("x", x, "(N, C, H, W)")
    w = floats("w", w, "(F, C, KH, KW, HO, WO)", x)
    stride, frame = _geometry(x.shape, w.shape, stride, padding)
    N, (F, _, _, _, HO, WO) = len(x), w.shape
    units = F, HO, WO
    b = full(units, 0, x.dtype, x) if b is None else floats("b", b, "(F, HO, WO)", x)
    same_shape("b", b, units, "one bias for each output unit")
    if not on_cpu(x):
        y, ((top, _), (left, _)) = empty((N, *units), x.dtype, x), frame
        launch(_y_cuda, y.size, y, x, w, b, *stride, top, left)
        return y
    xp, y = _batch_last(framed(x, frame)), np.empty((*units, N), x.dtype)
    fill(_y_cpu, F * HO, y, xp, w, b, *stride, steps=N * w.size)
    return np.ascontiguousarray(np.moveaxis(y, -1, 0))


def locally_connected2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    stride: int | Pair = 1,
    padding: int | Pair | Pads | str = 0,
) -> tuple[Array, Array, Array]:
    """Return dx, dw, db of equations (2), (3), (4), in the dtype of x.

    The keywords are those that forward was called with. Raises as forward does, and
    ValueError if dy has not the shape of y.

    >>> x, w = np.array([[[[1.0, 2.0, 3.0]]]]), np.zeros((1, 1, 1, 2, 1, 2))
    >>> w[0, 0, 0, :, 0, 0], w[0, 0, 0, :, 0, 1] = [1.0, 1.0], [0.0, 10.0]
    >>> dx, dw, db = locally_connected2d_backward(np.array([[[[1.0, 2.0]]]]), x, w)
    >>> dx, db
    (array([[[[ 1.,  1., 20.]]]]), array([[[1., 2.]]]))
    >>> dw[0, 0, 0, :, 0, 0], dw[0, 0, 0, :, 0, 1]
    (array([1., 2.]), array([4., 6.]))
    """
    x = floats("x", x, "(N, C, H, W)")
    w = floats("w", w, "(F, C, KH, KW, HO, WO)", x)
    dy = floats("dy", dy, "(N, F, HO, WO)", x)
    stride, frame = _geometry(x.shape, w.shape, stride, padding)
    (N, _, H, W), (F, C, _, _, HO, WO) = x.shape, w.shape
    same_shape("dy", dy, (N, F, HO, WO), "the shape of y for these x and w")
    (top, _), (left, _) = frame
    dw, db = empty_like(w), empty((F, HO, WO), x.dtype, x)
    if not on_cpu(x):
        dx, window = empty_like(x), (*stride, top, left)
        launch(_dx_cuda, dx.size, dx, dy, w, *window)
        launch(_dw_cuda, dw.size, dw, dy, x, *window)
        launch(_db_cuda, db.size, db, dy)
        return dx, dw, db
    dy, xp = _batch_last(dy), _batch_last(framed(x, frame))
    dxp = np.empty_like(xp)
    fill(_dx_cpu, C, dxp, dy, w, *stride, steps=N * w.size)
    fill(_dw_cpu, F * HO, dw, dy, xp, *stride, steps=N * w.size)
    fill(_db_cpu, F * HO, db, dy)
    dx = np.moveaxis(dxp[:, top : top + H, left : left + W], -1, 0)
    return np.ascontiguousarray(dx), dw, db


class LocallyConnected2d(Layer):
    """The layer, with parameters weight (F, C, KH, KW, HO, WO) and bias (F, HO, WO).

    It takes images of `input_size` pixels only. weight starts normal with variance
    2 / (C*KH*KW), as suits a following ReLU (He et al., ICCV 2015); bias starts at 0, and
    bias=False leaves it out. Raises ValueError if a size is below 1 or no window fits.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: int | Pair,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | Pads | str = 0,
        bias: bool = True,
        *,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ):
        super().__init__()
        C = integer("in_channels", in_channels, 1)
        F = integer("out_channels", out_channels, 1)
        H, W = pair("input_size", input_size)
        KH, KW = pair("kernel_size", kernel_size)
        SH, SW = pair("stride", stride)
        rows, columns = pads(padding, (H, W), (KH, KW), (SH, SW), (1, 1))
        HO, WO = out_size(H, KH, SH, rows), out_size(W, KW, SW, columns)
        weight = he_normal(rng, (F * HO * WO, C, KH, KW), dtype)
        weight = weight.reshape(F, HO, WO, C, KH, KW).transpose(0, 3, 4, 5, 1, 2)
        self.params["weight"] = np.ascontiguousarray(weight)
        if bias:
            self.params["bias"] = np.zeros((F, HO, WO), dtype)
        self.window: dict[str, Any] = {"stride": (SH, SW), "padding": padding}

    def forward(self, x: Array) -> Array:
        weight, bias = self.params["weight"], self.params.get("bias")
        y = locally_connected2d_forward(x, weight, bias, **self.window)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        x, weight = self.remembered("x"), self.params["weight"]
        dx, dw, db = locally_connected2d_backward(dy, x, weight, **self.window)
        self.grads["weight"] = dw
        if "bias" in self.params:
            self.grads["bias"] = db
        return dx
