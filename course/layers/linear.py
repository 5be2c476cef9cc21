"""The linear (dense, fully connected, affine) layer: every output sees every input.

Equations

    (1)  y[n,o]  = b[o] + sum over k of w[o,k] * x[n,k]
    (2)  dx[n,k] = sum over o        of dy[n,o] * w[o,k]
    (3)  dw[o,k] = sum over n        of dy[n,o] * x[n,k]
    (4)  db[o]   = sum over n        of dy[n,o]

    that is y = x w^T + b, dx = dy w, dw = dy^T x.

Shapes

    x, dx   (N, I)   float; rows are samples
    w, dw   (O, I)   float; row o is the template of output o
    b, db   (O,)     float
    y, dy   (N, O)   float

Edges: an empty batch gives an empty y. Images must be flattened first.

The loops below are the definition. The functions call course/engine/matmul.py, which adds
up the same products ten times as fast, and these loops for a few rows only.

On a GPU there are two more rungs. In the plain kernels a thread fetches two numbers from
memory for every product. In the tiled ones the 256 threads of a block fetch 16 x 16 numbers
of both matrices into shared memory, one each, and there every number serves 16 threads.
One barrier waits until all is fetched, one until all is used and may be overwritten.
Large products in float32 go further up, to course/engine/cuda.py.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Rosenblatt, Psychological Review 65 (1958); as torch.nn.Linear.
"""

from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda.reductions import block_for, block_sum
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
from course.engine import cuda as cuda_engine
from course.engine import matmul as engine
from course.layers.base import Layer, he_normal
from course.shapes import integer

TILE = 16  # rows and columns of a tile; a thread for each of its numbers
SHARED = TILE, TILE + 1  # one more: a column of the tile is spread over the memory's banks


@compiled
def _y_cpu(y, x, w, b, first, past):
    """Equation (1); a thread has rows of y."""
    O, I = w.shape
    for n in range(first, past):
        for o in range(O):
            total = b[o]
            for k in range(I):
                total += w[o, k] * x[n, k]
            y[n, o] = total


@compiled
def _dx_cpu(dx, dy, w, first, past):
    """Equation (2); a thread has rows of dx."""
    O, I = w.shape
    for n in range(first, past):
        dx[n] = 0
        for o in range(O):
            for k in range(I):
                dx[n, k] += dy[n, o] * w[o, k]


@compiled
def _dw_cpu(dw, dy, x, first, past):
    """Equation (3); a thread has rows of dw."""
    N, I = x.shape
    for o in range(first, past):
        dw[o] = 0
        for n in range(N):
            for k in range(I):
                dw[o, k] += dy[n, o] * x[n, k]


@compiled
def _db_cpu(db, dy, first, past):
    """Equation (4); a thread has outputs."""
    db = db[first:past]
    db[:] = 0
    for n in range(len(dy)):
        row = dy[n, first:past]
        for o in range(db.size):
            db[o] += row[o]


@cuda.jit
def _y_cuda(y, x, w, b):
    """Equation (1); a thread has elements of y."""
    O, I = w.shape
    for t in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, o = t // O, t % O
        total = b[o]
        for k in range(I):
            total += w[o, k] * x[n, k]
        y[n, o] = total


@cuda.jit
def _dx_cuda(dx, dy, w):
    """Equation (2); a thread has elements of dx."""
    O, I = w.shape
    for t in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, k = t // I, t % I
        total = dx.dtype.type(0)
        for o in range(O):
            total += dy[n, o] * w[o, k]
        dx[n, k] = total


@cuda.jit
def _dw_cuda(dw, dy, x):
    """Equation (3); a thread has elements of dw."""
    N, I = x.shape
    for t in range(cuda.grid(1), dw.size, cuda.gridsize(1)):
        o, k = t // I, t % I
        total = dw.dtype.type(0)
        for n in range(N):
            total += dy[n, o] * x[n, k]
        dw[o, k] = total


@cuda.jit
def _db_cuda(db, dy):
    """Equation (4); a block has an output, a thread has some of its samples."""
    scratch = cuda.shared.array(32, dy.dtype)
    o = cuda.blockIdx.x
    total = db.dtype.type(0)
    for n in range(cuda.threadIdx.x, len(dy), cuda.blockDim.x):
        total += dy[n, o]
    total = block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        db[o] = total


@cuda.jit(device=True)
def _fetch(tile, a, row, column):
    """Fetch this thread's number of the tile of `a` that begins there; outside `a`, 0."""
    i, j = cuda.threadIdx.y, cuda.threadIdx.x
    if row + i < a.shape[0] and column + j < a.shape[1]:
        tile[i, j] = a[row + i, column + j]
    else:
        tile[i, j] = 0


@cuda.jit
def _y_cuda_tiled(y, x, w, b):
    """Equation (1); a block has a tile of y, a thread has one of its elements."""
    xs = cuda.shared.array(SHARED, x.dtype)
    ws = cuda.shared.array(SHARED, x.dtype)
    i, j = cuda.threadIdx.y, cuda.threadIdx.x
    n0, o0 = cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
    total = y.dtype.type(0)
    for k0 in range(0, x.shape[1], TILE):
        _fetch(xs, x, n0, k0)
        _fetch(ws, w, o0, k0)
        cuda.syncthreads()
        for k in range(TILE):
            total += ws[j, k] * xs[i, k]
        cuda.syncthreads()
    if n0 + i < y.shape[0] and o0 + j < y.shape[1]:
        y[n0 + i, o0 + j] = total + b[o0 + j]


@cuda.jit
def _dx_cuda_tiled(dx, dy, w):
    """Equation (2); a block has a tile of dx, a thread has one of its elements."""
    dys = cuda.shared.array(SHARED, dy.dtype)
    ws = cuda.shared.array(SHARED, dy.dtype)
    i, j = cuda.threadIdx.y, cuda.threadIdx.x
    n0, k0 = cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
    total = dx.dtype.type(0)
    for o0 in range(0, dy.shape[1], TILE):
        _fetch(dys, dy, n0, o0)
        _fetch(ws, w, o0, k0)
        cuda.syncthreads()
        for o in range(TILE):
            total += dys[i, o] * ws[o, j]
        cuda.syncthreads()
    if n0 + i < dx.shape[0] and k0 + j < dx.shape[1]:
        dx[n0 + i, k0 + j] = total


@cuda.jit
def _dw_cuda_tiled(dw, dy, x):
    """Equation (3); a block has a tile of dw, a thread has one of its elements."""
    dys = cuda.shared.array(SHARED, dy.dtype)
    xs = cuda.shared.array(SHARED, dy.dtype)
    i, j = cuda.threadIdx.y, cuda.threadIdx.x
    o0, k0 = cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
    total = dw.dtype.type(0)
    for n0 in range(0, dy.shape[0], TILE):
        _fetch(dys, dy, n0, o0)
        _fetch(xs, x, n0, k0)
        cuda.syncthreads()
        for n in range(TILE):
            total += dys[n, i] * xs[n, j]
        cuda.syncthreads()
    if o0 + i < dw.shape[0] and k0 + j < dw.shape[1]:
        dw[o0 + i, k0 + j] = total


def _launch(plain, tiled, steps: int, y: Array, *arrays: Array) -> None:
    """Launch the kernel that suits y, of which each element is a sum of so many products.

    The tiled one, if y and the sum are as large as a tile; a grid has at most 65535 tiles
    one below the other.
    """
    rows, columns = -(-y.shape[0] // TILE), -(-y.shape[1] // TILE)
    if min(*y.shape, steps) >= TILE and rows <= 65535:
        tiled[(columns, rows), (TILE, TILE)](y, *arrays)
    else:
        launch(plain, y.size, y, *arrays)


def _arrays(x: Array, w: Array) -> tuple[Array, Array]:
    """Return x and w ready for the loops, or say in words what does not fit."""
    if isinstance(x, Array) and x.ndim > 2:
        raise ValueError(
            f"x has shape {x.shape}; it must be (N, I): put a Flatten before the layer"
        )
    x = floats("x", x, "(N, I)")
    w = floats("w", w, "(O, I)", x)
    if x.shape[1] != w.shape[1]:
        raise ValueError(f"x has {x.shape[1]} features, w expects {w.shape[1]}")
    return x, w


def linear_forward(x: Array, w: Array, b: Array | None = None) -> Array:
    """Return y of equation (1), of shape (N, O), in the dtype of x.

    Raises TypeError for dtypes that are not float32 or float64, or not alike, and
    ValueError for shapes that do not fit together.

    >>> linear_forward(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]))
    array([[11., 17.]])
    """
    x, w = _arrays(x, w)
    if b is not None:
        b = floats("b", b, "(O,)", x)
        same_shape("b", b, (len(w),), "one bias for each row of w")
    y = empty((len(x), len(w)), x.dtype, x)
    if not on_cpu(x) and cuda_engine.linear(y, x, w, b):
        return y
    if b is None:
        b = full(len(w), 0, x.dtype, x)
    if not on_cpu(x):
        _launch(_y_cuda, _y_cuda_tiled, x.shape[1], y, x, w, b)
    elif not engine.linear(y, x, w, b):
        fill(_y_cpu, len(y), y, x, w, b, steps=len(x) * w.size)
    return y


def linear_backward(
    dy: Array, x: Array, w: Array, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array]:
    """Return dx, dw, db of equations (2), (3), (4), in the dtype of x.

    With need_dx=False dx is None: nobody asks for the gradient of the images themselves.

    Raises as forward does, and ValueError if dy has not the shape of y.

    >>> dx, dw, db = linear_backward(
    ...     np.array([[1.0, 10.0]]),
    ...     np.array([[1.0, 2.0]]),
    ...     np.array([[3.0, 4.0], [5.0, 6.0]]),
    ... )
    >>> dx, dw, db
    (array([[53., 64.]]), array([[ 1.,  2.],
           [10., 20.]]), array([ 1., 10.]))
    """
    x, w = _arrays(x, w)
    dy = floats("dy", dy, "(N, O)", x)
    same_shape("dy", dy, (len(x), len(w)), "the shape of y for these x and w")
    dx = empty_like(x) if need_dx else None
    dw, db = empty_like(w), empty(len(w), x.dtype, x)
    if not on_cpu(x):
        threads = block_for(len(dy))
        launch(_db_cuda, len(db) * threads, db, dy, threads=threads)
        if cuda_engine.linear_backward(dx, dw, dy, x, w):
            return dx, dw, db
        _launch(_dw_cuda, _dw_cuda_tiled, len(dy), dw, dy, x)
        if need_dx:
            _launch(_dx_cuda, _dx_cuda_tiled, len(w), dx, dy, w)
        return dx, dw, db
    fill(_db_cpu, len(db), db, dy)
    if engine.linear_backward(dx, dw, dy, x, w):
        return dx, dw, db
    if need_dx:
        fill(_dx_cpu, len(dx), dx, dy, w, steps=len(x) * w.size)
    fill(_dw_cpu, len(dw), dw, dy, x, steps=len(x) * w.size)
    return dx, dw, db


class Linear(Layer):
    """A dense layer, with parameters weight (O, I) and bias (O,).

    weight starts normal with variance 2 / I, as suits a following ReLU (He et al., ICCV
    2015); bias starts at 0, and bias=False leaves it out.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ):
        super().__init__()
        I = integer("in_features", in_features, 1)
        O = integer("out_features", out_features, 1)
        self.params["weight"] = he_normal(rng, (O, I), dtype)
        if bias:
            self.params["bias"] = np.zeros(O, dtype)

    def forward(self, x: Array) -> Array:
        y = linear_forward(x, self.params["weight"], self.params.get("bias"))
        self.x = x
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array:
        x, w = self.remembered("x"), self.params["weight"]
        dx, dw, db = linear_backward(dy, x, w, need_dx=need_dx)
        self.grads["weight"] = dw
        if "bias" in self.params:
            self.grads["bias"] = db
        return dx

    def learn(self, dy: Array) -> None:
        self.backward(dy, need_dx=False)
