"""Concatenation: the channels of several images, one image's after the other's.

Equations

    (1)  y[n,c0+c,p,q] = x[n,c,p,q]
    (2)  dx[n,c,p,q]   = dy[n,c0+c,p,q]

    for every x of several, where c0 counts the channels of those before it.

Shapes

    x, dx   (N, C, H, W)   float; several, which may differ in C
    y, dy   (N, F, H, W)   float; F is the sum of all C

    or any other shapes that differ along one axis only, named by `axis`.

Edges: numbers are copied, NaN too, and nothing is computed, so there are no loops here
for the CPU, which NumPy serves well. An array may be empty along the axis, and the batch
may be empty.

Several arrays come in, so the layer stands where branches of a network meet: forward
takes a tuple or list of arrays, backward returns a tuple of as many, in their order.

Lecture: lectures/15_architectures.ipynb.  Symbols: GLOSSARY.md.
Source: Szegedy et al., CVPR 2015, the inception module; as torch.cat.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from course import cuda
from course.cuda import split
from course.device import Array, empty, floats, launch, on_cpu, same_shape
from course.layers.base import Layer
from course.shapes import integer


@cuda.jit
def _y_cuda(y, x, start):
    """Equation (1) for one x; a thread has elements of x.

    A row holds what one index before the axis has; the x of this row begins at `start`.
    """
    width = x.shape[1]
    for t in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        n, k = split(t, width)
        y[n, start + k] = x[n, k]


@cuda.jit
def _dx_cuda(dx, dy, start):
    """Equation (2) for one x; a thread has elements of dx."""
    width = dx.shape[1]
    for t in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, k = split(t, width)
        dx[n, k] = dy[n, start + k]


def _axis(axis: int, ndim: int) -> int:
    """Return the axis, or say which there are."""
    axis = integer("axis", axis, 0)
    if axis >= ndim:
        raise ValueError(f"axis is {axis}, but the arrays have the axes 0 to {ndim - 1}")
    return axis


def _rows(a: Array, axis: int) -> Array:
    """Return the array with a row for all that begins with the axis."""
    return a.reshape(prod(a.shape[:axis]), prod(a.shape[axis:]))


def _starts(sizes: Sequence[int], y: Array, axis: int) -> list[int]:
    """Return where in a row of y the arrays of these sizes along the axis begin."""
    return [sum(sizes[:k]) * prod(y.shape[axis + 1 :]) for k in range(len(sizes))]


def concat_forward(arrays: Sequence[Array], axis: int = 1) -> Array:
    """Return y of equation (1), in the dtype of the arrays.

    Raises TypeError for dtypes that are not float32 or float64, or not alike, and
    ValueError for shapes that differ elsewhere than along the axis.

    >>> concat_forward([np.array([[1.0, 2.0]]), np.array([[3.0]])])
    array([[1., 2., 3.]])
    """
    if not isinstance(arrays, tuple | list):
        raise TypeError(
            f"x is a {type(arrays).__name__}; it must be a tuple or list of arrays"
        )
    if not arrays:
        raise ValueError("x is empty; it must be a tuple or list of one array or more")
    head = floats("x[0]", arrays[0], "any")
    axis = _axis(axis, head.ndim)
    for k, a in enumerate(arrays[1:], 1):
        floats(f"x[{k}]", a, "any", head)
        wanted = list(head.shape)
        wanted[axis] = a.shape[axis] if a.ndim == head.ndim else -1
        same_shape(f"x[{k}]", a, wanted, f"that of x[0], but for axis {axis},")
    if on_cpu(head):
        return np.concatenate(arrays, axis)
    sizes = [a.shape[axis] for a in arrays]
    y = empty((*head.shape[:axis], sum(sizes), *head.shape[axis + 1 :]), head.dtype, head)
    for a, start in zip(arrays, _starts(sizes, y, axis), strict=True):
        launch(_y_cuda, a.size, _rows(y, axis), _rows(a, axis), start)
    return y


def concat_backward(dy: Array, sizes: Sequence[int], axis: int = 1) -> tuple[Array, ...]:
    """Return every dx of equation (2); `sizes` are those of the arrays along the axis.

    Raises TypeError as forward does, and ValueError if the sizes do not add up.

    >>> concat_backward(np.array([[1.0, 2.0, 3.0]]), (2, 1))
    (array([[1., 2.]]), array([[3.]]))
    """
    dy = floats("dy", dy, "any")
    axis = _axis(axis, dy.ndim)
    sizes = [integer("sizes", size, 0) for size in sizes]
    if sum(sizes) != dy.shape[axis]:
        raise ValueError(
            f"dy has shape {dy.shape}; along axis {axis} the sizes {tuple(sizes)} "
            f"make {sum(sizes)}"
        )
    if not on_cpu(dy):
        parts = []
        for size, start in zip(sizes, _starts(sizes, dy, axis), strict=True):
            dx = empty((*dy.shape[:axis], size, *dy.shape[axis + 1 :]), dy.dtype, dy)
            launch(_dx_cuda, dx.size, _rows(dx, axis), _rows(dy, axis), start)
            parts.append(dx)
        return tuple(parts)
    parts = np.split(dy, np.cumsum(sizes[:-1], dtype=int), axis)
    return tuple(np.ascontiguousarray(part) for part in parts)


class Concat(Layer):
    """Concatenation as a layer of several inputs; it learns nothing.

    `forward` takes a tuple or list of arrays, and `backward` returns a tuple. Raises
    ValueError for an axis below 0.
    """

    def __init__(self, axis: int = 1):
        super().__init__()
        self.axis = integer("axis", axis, 0)

    def forward(self, x: Sequence[Array]) -> Array:
        y = concat_forward(x, self.axis)
        self.sizes, self.y_shape = [a.shape[self.axis] for a in x], y.shape
        return y

    def backward(self, dy: Array) -> tuple[Array, ...]:
        sizes = self.remembered("sizes")
        dy = floats("dy", dy, "any")
        same_shape("dy", dy, self.y_shape, "the shape of y")
        return concat_backward(dy, sizes, self.axis)
