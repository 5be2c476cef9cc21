"""Leaky ReLU: what is below zero is made small instead of zero.

Equations

    (1)  y[k]  = x[k]  if x[k] > 0, else negative_slope * x[k]
    (2)  dx[k] = dy[k] if x[k] > 0, else negative_slope * dy[k]

Shapes

    x, y, dx, dy   any shape, all alike   float

Edges: the derivative at 0 is negative_slope, by choice (any value between it and 1 is
one); with negative_slope=0 this is ReLU. NaN stays NaN.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: Maas, Hannun & Ng, ICML 2013; as torch.nn.LeakyReLU.
"""

from course import cuda
from course.compiled import compiled
from course.device import (
    Array,
    empty_like,
    fill,
    floats,
    launch,
    number,
    on_cpu,
    same_shape,
)
from course.layers.base import Layer


@compiled
def _y_cpu(y, x, negative_slope, first, past):
    """Equation (1); a thread has elements."""
    y, x = y[first:past], x[first:past]
    zero = x.dtype.type(0)
    for k in range(y.size):
        y[k] = x[k] if x[k] > zero else negative_slope * x[k]


@cuda.jit
def _y_cuda(y, x, negative_slope):
    """Equation (1); a thread has elements."""
    zero = x.dtype.type(0)
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = x[k] if x[k] > zero else negative_slope * x[k]


@compiled
def _dx_cpu(dx, dy, x, negative_slope, first, past):
    """Equation (2); a thread has elements."""
    dx, dy, x = dx[first:past], dy[first:past], x[first:past]
    zero = x.dtype.type(0)
    for k in range(dx.size):
        dx[k] = dy[k] if x[k] > zero else negative_slope * dy[k]


@cuda.jit
def _dx_cuda(dx, dy, x, negative_slope):
    """Equation (2); a thread has elements."""
    zero = x.dtype.type(0)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[k] = dy[k] if x[k] > zero else negative_slope * dy[k]


def leaky_relu_forward(x: Array, negative_slope: float = 0.01) -> Array:
    """Return y of equation (1), in the shape and dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and for a slope that is
    not a number; ValueError for a slope that is not finite.

    >>> leaky_relu_forward(np.array([1.0, -2.0, 3.0, -1.0]), 0.5)
    array([ 1. , -1. ,  3. , -0.5])
    """
    x = floats("x", x, "any")
    slope = x.dtype.type(number("negative_slope", negative_slope))
    y = empty_like(x)
    if on_cpu(x):
        fill(_y_cpu, x.size, y.reshape(-1), x.reshape(-1), slope)
    else:
        launch(_y_cuda, x.size, y.ravel(), x.ravel(), slope)
    return y


def leaky_relu_backward(dy: Array, x: Array, negative_slope: float = 0.01) -> Array:
    """Return dx of equation (2), in the shape and dtype of x.

    Raises as forward does, and ValueError if dy has not the shape of x.

    >>> leaky_relu_backward(np.array([4.0, -1.0]), np.array([1.0, -2.0]), 0.5)
    array([ 4. , -0.5])
    """
    x = floats("x", x, "any")
    dy = floats("dy", dy, "any", x)
    same_shape("dy", dy, x.shape, "the shape of x")
    slope = x.dtype.type(number("negative_slope", negative_slope))
    dx = empty_like(x)
    if on_cpu(x):
        fill(_dx_cpu, x.size, dx.reshape(-1), dy.reshape(-1), x.reshape(-1), slope)
    else:
        launch(_dx_cuda, x.size, dx.ravel(), dy.ravel(), x.ravel(), slope)
    return dx


class LeakyReLU(Layer):
    """Leaky ReLU as a layer; it learns nothing.

    Raises TypeError or ValueError if negative_slope is not a finite number.
    """

    def __init__(self, negative_slope: float = 0.01):
        super().__init__()
        self.negative_slope = number("negative_slope", negative_slope)

    def forward(self, x: Array) -> Array:
        y = leaky_relu_forward(x, self.negative_slope)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        return leaky_relu_backward(dy, self.remembered("x"), self.negative_slope)
