"""Tanh, the hyperbolic tangent: any number becomes one between -1 and 1.

Equations

    (1)  y[k]  = tanh(x[k])
    (2)  dx[k] = dy[k] * (1 - y[k]) * (1 + y[k])

Shapes

    x, y, dx, dy   any shape, all alike   float

Edges: the CPU computes tanh(-|x|) as e / (2 + e) with e = exp(-2|x|) - 1, which does not
overflow and keeps the digits of a small x. (1 - y) * (1 + y) is 1 - y^2 without its loss
of digits near 1 and -1. A large x gives exactly 1 or -1, and a gradient of exactly 0
(from about 9 in float32, 19 in float64). NaN stays NaN.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: LeCun et al., Efficient BackProp (1998), section 4.4; as torch.nn.Tanh.
"""

import math

from course import cuda
from course.compiled import compiled
from course.device import Array, empty_like, fill, floats, launch, on_cpu, same_shape
from course.engine.elementary import expm1
from course.layers.base import Layer


@compiled
def _y_cpu(y, x, first, past):
    """Equation (1); a thread has elements."""
    y, x = y[first:past], x[first:past]
    zero, two = x.dtype.type(0), x.dtype.type(2)
    for k in range(y.size):
        small = expm1(-two * abs(x[k]))
        below = small / (two + small)
        y[k] = below if x[k] < zero else zero - below


@cuda.jit
def _y_cuda(y, x):
    """Equation (1); a thread has elements."""
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = math.tanh(x[k])


@compiled
def _dx_cpu(dx, dy, y, first, past):
    """Equation (2); a thread has elements."""
    dx, dy, y = dx[first:past], dy[first:past], y[first:past]
    one = y.dtype.type(1)
    for k in range(dx.size):
        dx[k] = dy[k] * (one - y[k]) * (one + y[k])


@cuda.jit
def _dx_cuda(dx, dy, y):
    """Equation (2); a thread has elements."""
    one = y.dtype.type(1)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[k] = dy[k] * (one - y[k]) * (one + y[k])


def tanh_forward(x: Array) -> Array:
    """Return y of equation (1), in the shape and dtype of x.

    Raises TypeError for a dtype that is not float32 or float64.

    >>> tanh_forward(np.array([0.0, np.log(2), -np.log(2), 1000.0])).round(6)
    array([ 0. ,  0.6, -0.6,  1. ])
    """
    x = floats("x", x, "any")
    y = empty_like(x)
    if on_cpu(x):
        fill(_y_cpu, x.size, y.reshape(-1), x.reshape(-1))
    else:
        launch(_y_cuda, x.size, y.ravel(), x.ravel())
    return y


def tanh_backward(dy: Array, y: Array) -> Array:
    """Return dx of equation (2), in the shape and dtype of y, which forward returned.

    Raises TypeError as forward does, and ValueError if dy has not the shape of y.

    >>> tanh_backward(np.array([16.0, 16.0]), np.array([0.5, -0.75]))
    array([12.,  7.])
    """
    y = floats("y", y, "any")
    dy = floats("dy", dy, "any", y)
    same_shape("dy", dy, y.shape, "the shape of y")
    dx = empty_like(y)
    if on_cpu(y):
        fill(_dx_cpu, y.size, dx.reshape(-1), dy.reshape(-1), y.reshape(-1))
    else:
        launch(_dx_cuda, y.size, dx.ravel(), dy.ravel(), y.ravel())
    return dx


class Tanh(Layer):
    """Tanh as a layer; it learns nothing."""

    def forward(self, x: Array) -> Array:
        self.y = tanh_forward(x)
        return self.y

    def backward(self, dy: Array) -> Array:
        return tanh_backward(dy, self.remembered("y"))
