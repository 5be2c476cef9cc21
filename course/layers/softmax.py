"""Softmax: scores become probabilities, positive numbers that add up to 1.

Equations

    (1)  y[n,k]  = exp(x[n,k] - m[n]) / sum over c of exp(x[n,c] - m[n])
    (2)  dx[n,k] = y[n,k] * (dy[n,k] - sum over c of y[n,c] * dy[n,c])

    with m[n] the largest of x[n,0], x[n,1], ...

Shapes

    x, y, dx, dy   (N, C)   float; a row has C numbers that add up to 1. In an array of
                            more axes `dim` runs over the row, the others over the rows.

Edges: subtracting the largest leaves every exponent at most 0, so that +-1e4 does not
overflow. An x of minus infinity has probability 0. A row with a NaN or plus infinity, or
with nothing but minus infinity, becomes NaN.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Bridle, Neurocomputing NATO ASI F68 (1990); as torch.nn.Softmax.
"""

import math

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import split
from course.cuda.reductions import row_max, warp_sum
from course.device import Array, empty_like, fill, floats, launch, on_cpu, same_shape
from course.engine.elementary import exp, larger, quotient
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
            y[n, k] = exp(x[n, k] - largest)
            total += y[n, k]
        share = quotient(x.dtype.type(1), total)
        for k in range(C):
            y[n, k] *= share


@compiled
def _y_cpu_across(y, x, first, past):
    """Equation (1) for rows that lie side by side, x[n,:,k]; a thread has samples."""
    C, width = x.shape[1:]
    largest, total = np.empty(width, x.dtype), np.empty(width, x.dtype)
    one = x.dtype.type(1)
    for n in range(first, past):
        largest[:] = -np.inf
        for c in range(C):
            for k in range(width):
                largest[k] = larger(largest[k], x[n, c, k])
        total[:] = 0
        for c in range(C):
            for k in range(width):
                y[n, c, k] = exp(x[n, c, k] - largest[k])
                total[k] += y[n, c, k]
        for k in range(width):
            total[k] = one / total[k]
        for c in range(C):
            for k in range(width):
                y[n, c, k] *= total[k]


@cuda.jit
def _y_cuda(y, x):
    """Equation (1); a warp has a row, a thread has every 32nd number of it."""
    N, C = x.shape
    n, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    if n < N:
        largest, total = row_max(x[n]), x.dtype.type(0)
        for k in range(lane, C, 32):
            y[n, k] = math.exp(x[n, k] - largest)
            total += y[n, k]
        share = x.dtype.type(1) / warp_sum(total)
        for k in range(lane, C, 32):
            y[n, k] *= share


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
            y[n, c, k] = math.exp(x[n, c, k] - largest)
            total += y[n, c, k]
        for c in range(C):
            y[n, c, k] /= total


@compiled
def _dx_cpu(dx, dy, y, first, past):
    """Equation (2); a thread has rows."""
    C = y.shape[1]
    for n in range(first, past):
        mean = y.dtype.type(0)
        for k in range(C):
            mean += y[n, k] * dy[n, k]
        for k in range(C):
            dx[n, k] = y[n, k] * (dy[n, k] - mean)


@compiled
def _dx_cpu_across(dx, dy, y, first, past):
    """Equation (2) for rows that lie side by side, y[n,:,k]; a thread has samples."""
    C, width = y.shape[1:]
    mean = np.empty(width, y.dtype)
    for n in range(first, past):
        mean[:] = 0
        for c in range(C):
            for k in range(width):
                mean[k] += y[n, c, k] * dy[n, c, k]
        for c in range(C):
            for k in range(width):
                dx[n, c, k] = y[n, c, k] * (dy[n, c, k] - mean[k])


@cuda.jit
def _dx_cuda(dx, dy, y):
    """Equation (2); a warp has a row, a thread has every 32nd number of it."""
    N, C = y.shape
    n, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    if n < N:
        mean = y.dtype.type(0)
        for k in range(lane, C, 32):
            mean += y[n, k] * dy[n, k]
        mean = warp_sum(mean)
        for k in range(lane, C, 32):
            dx[n, k] = y[n, k] * (dy[n, k] - mean)


@cuda.jit
def _dx_cuda_across(dx, dy, y):
    """Equation (2) for rows that lie side by side, y[n,:,k]; a thread has a row."""
    N, C, width = y.shape
    n, k = split(cuda.grid(1), width)
    if n < N:
        mean = y.dtype.type(0)
        for c in range(C):
            mean += y[n, c, k] * dy[n, c, k]
        for c in range(C):
            dx[n, c, k] = y[n, c, k] * (dy[n, c, k] - mean)


def softmax_forward(x: Array, dim: int = 1) -> Array:
    """Return y of equation (1), in the shape and dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError if x has
    no axis dim or nothing along it.

    >>> softmax_forward(np.array([[0.0, np.log(3)], [1e4, -1e4]])).round(6)
    array([[0.25, 0.75],
           [1.  , 0.  ]])
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


def softmax_backward(dy: Array, y: Array, dim: int = 1) -> Array:
    """Return dx of equation (2), in the shape and dtype of y, which forward returned.

    Raises as forward does, and ValueError if dy has not the shape of y.

    >>> softmax_backward(np.array([[16.0, 0.0]]), np.array([[0.25, 0.75]]))
    array([[ 3., -3.]])
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


class Softmax(Layer):
    """Softmax as a layer; it learns nothing. dim is the axis whose numbers add up to 1.

    Raises TypeError if dim is no whole number, and ValueError in forward if x has no
    such axis.
    """

    def __init__(self, dim: int = 1):
        super().__init__()
        self.dim = integer("dim", dim, -64)  # NumPy has at most 64 axes

    def forward(self, x: Array) -> Array:
        self.y = softmax_forward(x, self.dim)
        return self.y

    def backward(self, dy: Array) -> Array:
        return softmax_backward(dy, self.remembered("y"), self.dim)
