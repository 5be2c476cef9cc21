"""Maxout: of every few neighbouring features the largest; the layer before gives them.

Equations

    (1)  y[n,o,k]  = max over j of x[n,o*pieces+j,k], 0 <= j < pieces
    (2)  dx[n,o*pieces+j,k] = dy[n,o,k] if j is where the maximum was, else 0

    with k the flat index of a pixel in its plane.

Shapes

    x, dx    (N, O*pieces, ...)   float
    y, dy    (N, O, ...)          float
    argmax   (N, O, ...)          int32; the j of each maximum

Edges: of equal features the first wins. NaN beats every number, and the first NaN wins.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: Goodfellow, Warde-Farley, Mirza, Courville & Bengio, ICML 2013.
"""

from math import prod

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import split
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
from course.layers.base import Layer
from course.shapes import integer


@compiled
def _y_cpu(y, argmax, x, first, past):
    """Equation (1), and where each maximum was; a thread has rows of y."""
    _, pieces, width = x.shape
    none = argmax.dtype.type(0)
    for n in range(first, past):
        for k in range(width):
            y[n, k], argmax[n, k] = x[n, 0, k], none
        for j in range(1, pieces):
            place = argmax.dtype.type(j)
            for k in range(width):
                best, new = y[n, k], x[n, j, k]
                wins = (new > best) | ((new != new) & (best == best))
                y[n, k] = new if wins else best
                argmax[n, k] = place if wins else argmax[n, k]


@compiled
def _dx_cpu(dx, dy, argmax, first, past):
    """Equation (2); a thread has rows of dy."""
    _, pieces, width = dx.shape
    zero = dy.dtype.type(0)
    for n in range(first, past):
        for j in range(pieces):
            for k in range(width):
                upstream = dy[n, k]
                dx[n, j, k] = upstream if argmax[n, k] == j else zero


@cuda.jit
def _y_cuda(y, argmax, x):
    """Equation (1), and where each maximum was; a thread has elements of y."""
    rows, pieces, width = x.shape
    for t in range(cuda.grid(1), rows * width, cuda.gridsize(1)):
        n, k = split(t, width)
        best, place = x[n, 0, k], 0
        for j in range(1, pieces):
            new = x[n, j, k]
            if new > best or (new != new and best == best):
                best, place = new, j
        y[n, k] = best
        argmax[n, k] = place


@cuda.jit
def _dx_cuda(dx, dy, argmax):
    """Equation (2); a thread has elements of dy."""
    rows, pieces, width = dx.shape
    for t in range(cuda.grid(1), rows * width, cuda.gridsize(1)):
        n, k = split(t, width)
        for j in range(pieces):
            dx[n, j, k] = dy[n, k] if argmax[n, k] == j else dy.dtype.type(0)


def _sizes(shape, pieces):
    """Return N, O and how many pixels a plane has."""
    return shape[0], shape[1] // pieces, prod(shape[2:])


def maxout_forward(x: Array, pieces: int) -> tuple[Array, Array]:
    """Return y and argmax of equation (1); y has the dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError if the
    features do not come in groups of `pieces`.

    >>> y, argmax = maxout_forward(np.array([[1.0, 4.0, 3.0, 2.0]]), 2)
    >>> y, argmax
    (array([[4., 3.]]), array([[1, 0]], dtype=int32))
    """
    x = floats("x", x, "any")
    pieces = integer("pieces", pieces, 1)
    if x.ndim < 2 or x.shape[1] % pieces:
        raise ValueError(
            f"x has shape {x.shape}; it must be (N, features, ...) with a multiple of "
            f"pieces={pieces} features"
        )
    N, O, pixels = _sizes(x.shape, pieces)
    y = empty((N, O, *x.shape[2:]), x.dtype, x)
    argmax = empty(y.shape, np.int32, x)
    if not on_cpu(x):
        rows, x = (N * O, pixels), x.reshape(N * O, pieces, pixels)
        launch(_y_cuda, y.size, y.reshape(rows), argmax.reshape(rows), x)
        return y, argmax
    if pixels == 1:  # features lie in a row: rows as wide as y, one for each piece
        x = np.ascontiguousarray(x.reshape(N, O, pieces).swapaxes(1, 2))
    else:
        x = x.reshape(N * O, pieces, pixels)
    rows = len(x), x.shape[2]
    fill(_y_cpu, len(x), y.reshape(rows), argmax.reshape(rows), x)
    return y, argmax


def maxout_backward(dy: Array, argmax: Array, pieces: int) -> Array:
    """Return dx of equation (2), in the dtype of dy; `argmax` is that of forward.

    Raises as forward does, and for a dy and an argmax that do not belong together.

    >>> maxout_backward(np.array([[5.0, 6.0]]), np.array([[1, 0]], np.int32), 2)
    array([[0., 5., 6., 0.]])
    """
    dy = floats("dy", dy, "any")
    pieces = integer("pieces", pieces, 1)
    if dy.ndim < 2:
        raise ValueError(f"dy has shape {dy.shape}; it must be (N, features, ...)")
    if not isinstance(argmax, Array) or argmax.dtype.kind not in "iu":
        kind = getattr(argmax, "dtype", type(argmax).__name__)
        raise TypeError(f"argmax must be the int32 array of forward, not {kind}")
    same_device("argmax", argmax, dy)
    same_shape("dy", dy, argmax.shape, "the shape of argmax")
    shape = len(dy), dy.shape[1] * pieces, *dy.shape[2:]
    N, O, pixels = _sizes(shape, pieces)
    if not on_cpu(dy):
        rows, dx = (N * O, pixels), empty((N * O, pieces, pixels), dy.dtype, dy)
        launch(_dx_cuda, dy.size, dx, dy.reshape(rows), argmax.reshape(rows))
        return dx.reshape(shape)
    wrong = argmax[(argmax < 0) | (argmax >= pieces)]
    if wrong.size:
        raise ValueError(
            f"argmax names piece {wrong[0]} of {pieces}: it belongs to another x"
        )
    size = (N, pieces, O) if pixels == 1 else (N * O, pieces, pixels)
    dx = np.empty(size, dy.dtype)
    argmax = np.ascontiguousarray(argmax, np.int32)
    rows = size[0], size[2]
    fill(_dx_cpu, len(dx), dx, dy.reshape(rows), argmax.reshape(rows))
    return np.ascontiguousarray(dx.swapaxes(1, 2) if pixels == 1 else dx).reshape(shape)


class Maxout(Layer):
    """Maxout as a layer; what it learns is in the layer before, `pieces` times as wide.

    Raises ValueError if pieces is below 1, and in forward if it does not divide the
    number of features.
    """

    def __init__(self, pieces: int):
        super().__init__()
        self.pieces = integer("pieces", pieces, 1)

    def forward(self, x: Array) -> Array:
        y, self.argmax = maxout_forward(x, self.pieces)
        return y

    def backward(self, dy: Array) -> Array:
        return maxout_backward(dy, self.remembered("argmax"), self.pieces)
