"""Sub-sampling, as in LeNet-5: the sum of every window, times a weight, plus a bias.

Equations

    (1)  y[n,c,i,j]  = b[c] + w[c] * sum over u,v of x[n,c,p,q]
    (2)  dx[n,c,p,q] = w[c] * dy[n,c,i,j]
    (3)  dw[c] = sum over n,i,j of dy[n,c,i,j] * (sum over u,v of x[n,c,p,q])
    (4)  db[c] = sum over n,i,j of dy[n,c,i,j]

    with p = i*KH + u, q = j*KW + v, 0 <= u < KH, 0 <= v < KW: windows side by side.

Shapes

    x, dx         (N, C, H, W)     float
    w, b, dw, db  (C,)             float
    y, dy         (N, C, HO, WO)   float; HO = H//KH, WO = W//KW

Edges: a remainder of rows or columns that no window reaches is left out, and its gradient
is 0. A NaN or infinity goes to whatever it touches. The squashing function that follows
in LeNet-5 is a layer of its own.

Lecture: lectures/15_architectures.ipynb.  Symbols: GLOSSARY.md.
Source: LeCun et al., Proc. IEEE 86 (1998), section II.B: layers S2 and S4, with 12 and 32
trainable parameters. PyTorch has no such layer.
"""

from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import THREADS, unravel
from course.cuda.reductions import block_sum
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
from course.layers.base import Layer
from course.shapes import Pair, integer, out_size, pair


@compiled
def _y_cpu(y, x, w, b, KH, KW, first, past):
    """Equation (1), the sum down the columns first; a thread has planes (n, c)."""
    _, C, HO, WO = y.shape
    columns = np.empty(WO * KW, x.dtype)
    for plane in range(first, past):
        n, c = divmod(plane, C)
        for i in range(HO):
            columns[:] = 0
            for u in range(KH):
                pixels = x[n, c, i * KH + u]
                for q in range(columns.size):
                    columns[q] += pixels[q]
            for j in range(WO):
                total = columns[j * KW]
                for v in range(1, KW):
                    total += columns[j * KW + v]
                y[n, c, i, j] = b[c] + w[c] * total


@cuda.jit
def _y_cuda(y, x, w, b, KH, KW):
    """Equation (1); a thread has elements of y."""
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, c, i, j = unravel(k, y.shape)
        total = x.dtype.type(0)
        for u in range(KH):
            for v in range(KW):
                total += x[n, c, i * KH + u, j * KW + v]
        y[n, c, i, j] = b[c] + w[c] * total


@compiled
def _dx_cpu(dx, dy, w, KH, KW, first, past):
    """Equation (2); a thread has planes (n, c)."""
    _, C, HO, WO = dy.shape
    for plane in range(first, past):
        n, c = divmod(plane, C)
        dx[n, c, HO * KH :] = 0
        for i in range(HO):
            for u in range(KH):
                pixels = dx[n, c, i * KH + u]
                pixels[WO * KW :] = 0
                for j in range(WO):
                    for v in range(KW):
                        pixels[j * KW + v] = w[c] * dy[n, c, i, j]


@cuda.jit
def _dx_cuda(dx, dy, w, KH, KW):
    """Equation (2); a thread has pixels of dx."""
    HO, WO = dy.shape[2:]
    zero = dx.dtype.type(0)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, c, p, q = unravel(k, dx.shape)
        i, j = p // KH, q // KW
        dx[n, c, p, q] = w[c] * dy[n, c, i, j] if i < HO and j < WO else zero


@compiled
def _dw_cpu(dw, dy, x, KH, KW, first, past):
    """Equation (3); a thread has channels."""
    N, _, HO, WO = dy.shape
    for c in range(first, past):
        dw[c] = 0
        for n in range(N):
            total = x.dtype.type(0)
            for i in range(HO):
                for u in range(KH):
                    for j in range(WO):
                        for v in range(KW):
                            total += dy[n, c, i, j] * x[n, c, i * KH + u, j * KW + v]
            dw[c] += total


@cuda.jit
def _dw_cuda(dw, dy, x, KH, KW):
    """Equation (3); a block has a channel, and a thread has every 256th window of it."""
    scratch = cuda.shared.array(32, dw.dtype)
    c, (N, _, HO, WO) = cuda.blockIdx.x, dy.shape
    total = dw.dtype.type(0)
    for k in range(cuda.threadIdx.x, N * HO * WO, cuda.blockDim.x):
        _, n, i, j = unravel(k, (1, N, HO, WO))
        for u in range(KH):
            for v in range(KW):
                total += dy[n, c, i, j] * x[n, c, i * KH + u, j * KW + v]
    total = block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        dw[c] = total


@compiled
def _db_cpu(db, dy, first, past):
    """Equation (4); a thread has channels."""
    for c in range(first, past):
        db[c] = 0
        for n in range(len(dy)):
            upstream = dy[n, c].reshape(-1)
            total = dy.dtype.type(0)
            for k in range(upstream.size):
                total += upstream[k]
            db[c] += total


@cuda.jit
def _db_cuda(db, dy):
    """Equation (4); a block has a channel, and a thread has every 256th pixel of it."""
    scratch = cuda.shared.array(32, db.dtype)
    c, (N, _, HO, WO) = cuda.blockIdx.x, dy.shape
    total = db.dtype.type(0)
    for k in range(cuda.threadIdx.x, N * HO * WO, cuda.blockDim.x):
        _, n, i, j = unravel(k, (1, N, HO, WO))
        total += dy[n, c, i, j]
    total = block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        db[c] = total


def _arrays(x, w, kernel_size):
    """Return x, w, kernel and (HO, WO), or say in words what does not fit."""
    x = floats("x", x, "(N, C, H, W)")
    w = floats("w", w, "(C,)", x)
    same_shape("w", w, x.shape[1:2], "one weight for each channel of x")
    kernel = pair("kernel_size", kernel_size)
    HO, WO = (out_size(n, K, K) for n, K in zip(x.shape[2:], kernel, strict=True))
    return x, w, kernel, (HO, WO)


def subsampling2d_forward(
    x: Array, w: Array, b: Array, kernel_size: int | Pair = 2
) -> Array:
    """Return y of equation (1), in the dtype of x.

    Raises TypeError for dtypes that are not float32 or float64, or not alike, and
    ValueError for shapes that do not fit together.

    >>> x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> subsampling2d_forward(x, np.array([0.5]), np.array([-1.0]))
    array([[[[4.]]]])
    """
    x, w, kernel, size = _arrays(x, w, kernel_size)
    N, C = x.shape[:2]
    b = floats("b", b, "(C,)", x)
    same_shape("b", b, (C,), "one bias for each channel of x")
    y = empty((N, C, *size), x.dtype, x)
    if on_cpu(x):
        fill(_y_cpu, N * C, y, x, w, b, *kernel)
    else:
        launch(_y_cuda, y.size, y, x, w, b, *kernel)
    return y


def subsampling2d_backward(
    dy: Array, x: Array, w: Array, kernel_size: int | Pair = 2
) -> tuple[Array, Array, Array]:
    """Return dx, dw, db of equations (2), (3), (4), in the dtype of x.

    Raises as forward does, and ValueError if dy has not the shape of y.

    >>> x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> dx, dw, db = subsampling2d_backward(np.array([[[[2.0]]]]), x, np.array([0.5]))
    >>> dx[0, 0], dw, db
    (array([[1., 1.],
           [1., 1.]]), array([20.]), array([2.]))
    """
    x, w, kernel, size = _arrays(x, w, kernel_size)
    dy = floats("dy", dy, "(N, C, HO, WO)", x)
    N, C = x.shape[:2]
    same_shape("dy", dy, (N, C, *size), "the shape of y for this x")
    dx, dw, db = empty_like(x), empty_like(w), empty_like(w)
    if on_cpu(x):
        fill(_dx_cpu, N * C, dx, dy, w, *kernel)
        fill(_dw_cpu, C, dw, dy, x, *kernel)
        fill(_db_cpu, C, db, dy)
    else:
        launch(_dx_cuda, dx.size, dx, dy, w, *kernel)
        launch(_dw_cuda, C * THREADS, dw, dy, x, *kernel)
        launch(_db_cuda, C * THREADS, db, dy)
    return dx, dw, db


class Subsampling2d(Layer):
    """Sub-sampling as a layer, with parameters weight (C,) and bias (C,).

    It starts as average pooling: weight 1 / (KH*KW), bias 0. Raises ValueError if a size
    is below 1, and in forward if the window does not fit x.
    """

    def __init__(
        self, channels: int, kernel_size: int | Pair = 2, *, dtype: Any = np.float32
    ):
        super().__init__()
        C = integer("channels", channels, 1)
        self.kernel_size = KH, KW = pair("kernel_size", kernel_size)
        self.params["weight"] = np.full(C, 1 / (KH * KW), dtype)
        self.params["bias"] = np.zeros(C, dtype)

    def forward(self, x: Array) -> Array:
        weight, bias = self.params["weight"], self.params["bias"]
        y = subsampling2d_forward(x, weight, bias, self.kernel_size)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        dx, self.grads["weight"], self.grads["bias"] = subsampling2d_backward(
            dy, self.remembered("x"), self.params["weight"], self.kernel_size
        )
        return dx
