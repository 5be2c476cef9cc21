"""Log-softmax: the logarithm of what softmax gives, without its rounding to 0.

Equations

    (1)  y[n,k]  = x[n,k] - m[n] - log(sum over c of exp(x[n,c] - m[n]))
    (2)  dx[n,k] = dy[n,k] - exp(y[n,k]) * sum over c of dy[n,c]

    with m[n] the largest of x[n,0], x[n,1], ...

Shapes

    x, y, dx, dy   (N, C)   float; exp(y) adds up to 1 in a row. In an array of more axes
                            `dim` runs over the row, the others over the rows.

Edges: subtracting the largest leaves every exponent at most 0, so that +-1e4 does not
overflow; y keeps its digits where softmax is 0. An x of minus infinity stays minus
infinity. A row with a NaN or plus infinity, or with nothing but minus infinity, becomes
NaN.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Bridle, Neurocomputing NATO ASI F68 (1990); as torch.nn.LogSoftmax.
"""

import math
from math import log

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import split
from course.cuda.reductions import row_max, warp_sum
from course.device import Array, empty_like, fill, floats, launch, on_cpu, same_shape
from course.engine.elementary import exp, larger
from course.layers.base import Layer
from course.shapes import around, integer


@compiled
def _y_cpu(y, x, first, past):
    """Equation (1); a thread has rows."""
    C = x.shape[1]
    for n in range(first, past):
        largest = x[n, 0]
        for k in range(C):
            largest = larger(largest, x[n, k])
        total = x.dtype.type(0)
        for k in range(C):
            y[n, k] = x[n, k] - largest
            total += exp(y[n, k])
        shift = log(total)
        for k in range(C):
            y[n, k] -= shift


@compiled
def _y_cpu_across(y, x, first, past):
    """Equation (1) for rows that lie side by side, x[n,:,k]; a thread has samples."""
    C, width = x.shape[1:]
    largest, total = np.empty(width, x.dtype), np.empty(width, x.dtype)
    for n in range(first, past):
        largest[:] = -np.inf
        for c in range(C):
            for k in range(width):
                largest[k] = larger(largest[k], x[n, c, k])
        total[:] = 0
        for c in range(C):
            for k in range(width):
                y[n, c, k] = x[n, c, k] - largest[k]
                total[k] += exp(y[n, c, k])
        for k in range(width):
            total[k] = log(total[k])
        for c in range(C):
            for k in range(width):
                y[n, c, k] -= total[k]


@cuda.jit
def _y_cuda(y, x):
    """Equation (1); a warp has a row, a thread has every 32nd number of it."""
    N, C = x.shape
    n, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    if n < N:
        largest, total = row_max(x[n]), x.dtype.type(0)
        for k in range(lane, C, 32):
            y[n, k] = x[n, k] - largest
            total += math.exp(y[n, k])
        shift = math.log(warp_sum(total))
        for k in range(lane, C, 32):
            y[n, k] -= shift


@cuda.jit
def _y_cuda_across(y, x):
    """Equation (1) for rows that lie side by side, x[n,:,k]; a thread has a row."""
    N, C, width = x.shape
    n, k = split(cuda.grid(1), width)
    if n < N:
        largest, total = x[n, 0, k], x.dtype.type(0)
        for c in range(C):
            if x[n, c, k] > largest or x[n, c, k] != x[n, c, k]:
                largest = x[n, c, k]
        for c in range(C):
            y[n, c, k] = x[n, c, k] - largest
            total += math.exp(y[n, c, k])
        shift = math.log(total)
        for c in range(C):
            y[n, c, k] -= shift


@compiled
def _dx_cpu(dx, dy, y, first, past):
    """Equation (2); a thread has rows."""
    C = y.shape[1]
    for n in range(first, past):
        total = y.dtype.type(0)
        for k in range(C):
            total += dy[n, k]
        for k in range(C):
            dx[n, k] = dy[n, k] - exp(y[n, k]) * total


@compiled
def _dx_cpu_across(dx, dy, y, first, past):
    """Equation (2) for rows that lie side by side, y[n,:,k]; a thread has samples."""
    C, width = y.shape[1:]
    total = np.empty(width, y.dtype)
    for n in range(first, past):
        total[:] = 0
        for c in range(C):
            for k in range(width):
                total[k] += dy[n, c, k]
        for c in range(C):
            for k in range(width):
                dx[n, c, k] = dy[n, c, k] - exp(y[n, c, k]) * total[k]


@cuda.jit
def _dx_cuda(dx, dy, y):
    """Equation (2); a warp has a row, a thread has every 32nd number of it."""
    N, C = y.shape
    n, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    if n < N:
        total = y.dtype.type(0)
        for k in range(lane, C, 32):
            total += dy[n, k]
        total = warp_sum(total)
        for k in range(lane, C, 32):
            dx[n, k] = dy[n, k] - math.exp(y[n, k]) * total


@cuda.jit
def _dx_cuda_across(dx, dy, y):
    """Equation (2) for rows that lie side by side, y[n,:,k]; a thread has a row."""
    N, C, width = y.shape
    n, k = split(cuda.grid(1), width)
    if n < N:
        total = y.dtype.type(0)
        for c in range(C):
            total += dy[n, c, k]
        for c in range(C):
            dx[n, c, k] = dy[n, c, k] - math.exp(y[n, c, k]) * total


def log_softmax_forward(x: Array, dim: int = 1) -> Array:
    """Return y of equation (1), in the shape and dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError if x has
    no axis dim or nothing along it.

    >>> log_softmax_forward(np.array([[0.0, np.log(3)], [1e4, -1e4]])).round(6) + 0
    array([[-1.386294e+00, -2.876820e-01],
           [ 0.000000e+00, -2.000000e+04]])
    """
    x = floats("x", x, "any")
    shape = N, C, width = around("x", x.shape, dim)
    y = empty_like(x)
    rows = (N, C) if width == 1 else shape
    arrays = y.reshape(rows), x.reshape(rows)
    if on_cpu(x):
        fill(_y_cpu if width == 1 else _y_cpu_across, N, *arrays)
    elif width == 1:
        launch(_y_cuda, 32 * N, *arrays)
    else:
        launch(_y_cuda_across, N * width, *arrays)
    return y


def log_softmax_backward(dy: Array, y: Array, dim: int = 1) -> Array:
    """Return dx of equation (2), in the shape and dtype of y, which forward returned.

    Raises as forward does, and ValueError if dy has not the shape of y.

    >>> log_softmax_backward(np.array([[8.0, 0.0]]), np.log([[0.25, 0.75]])).round(6)
    array([[ 6., -6.]])
    """
    y = floats("y", y, "any")
    dy = floats("dy", dy, "any", y)
    same_shape("dy", dy, y.shape, "the shape of y")
    shape = N, C, width = around("y", y.shape, dim)
    dx = empty_like(y)
    rows = (N, C) if width == 1 else shape
    arrays = (a.reshape(rows) for a in (dx, dy, y))
    if on_cpu(y):
        fill(_dx_cpu if width == 1 else _dx_cpu_across, N, *arrays)
    elif width == 1:
        launch(_dx_cuda, 32 * N, *arrays)
    else:
        launch(_dx_cuda_across, N * width, *arrays)
    return dx


class LogSoftmax(Layer):
    """Log-softmax as a layer; it learns nothing. dim is the axis that softmax adds up.

    Raises TypeError if dim is no whole number, and ValueError in forward if x has no
    such axis.
    """

    def __init__(self, dim: int = 1):
        super().__init__()
        self.dim = integer("dim", dim, -64)  # NumPy has at most 64 axes

    def forward(self, x: Array) -> Array:
        self.y = log_softmax_forward(x, self.dim)
        return self.y

    def backward(self, dy: Array) -> Array:
        return log_softmax_backward(dy, self.remembered("y"), self.dim)
