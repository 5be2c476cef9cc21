"""ELU, the exponential linear unit: below zero it bends smoothly towards -alpha.

Equations

    (1)  y[k]  = x[k]  if x[k] > 0, else alpha * (exp(x[k]) - 1)
    (2)  dx[k] = dy[k] if x[k] > 0, else alpha * exp(x[k]) * dy[k]

Shapes

    x, y, dx, dy   any shape, all alike   float

Edges: the derivative at 0 is alpha, which for alpha=1 is the derivative from both sides.
exp(x) - 1 is computed as expm1(x), which keeps the digits of a small x. NaN stays NaN.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: Clevert, Unterthiner & Hochreiter, arXiv:1511.07289; as torch.nn.ELU.
"""

import math

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
from course.engine.elementary import exp, expm1
from course.layers.base import Layer


@compiled
def _y_cpu(y, x, alpha, first, past):
    """Equation (1); a thread has elements."""
    y, x = y[first:past], x[first:past]
    zero = x.dtype.type(0)
    for k in range(y.size):
        y[k] = x[k] if x[k] > zero else alpha * expm1(x[k])


@cuda.jit
def _y_cuda(y, x, alpha):
    """Equation (1); a thread has elements."""
    zero = x.dtype.type(0)
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = x[k] if x[k] > zero else alpha * math.expm1(x[k])


@compiled
def _dx_cpu(dx, dy, x, alpha, first, past):
    """Equation (2); a thread has elements."""
    dx, dy, x = dx[first:past], dy[first:past], x[first:past]
    zero = x.dtype.type(0)
    for k in range(dx.size):
        upstream = dy[k]  # read in any case: no branch, so vector instructions fit
        dx[k] = upstream if x[k] > zero else alpha * exp(x[k]) * upstream


@cuda.jit
def _dx_cuda(dx, dy, x, alpha):
    """Equation (2); a thread has elements."""
    zero = x.dtype.type(0)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[k] = dy[k] if x[k] > zero else alpha * math.exp(x[k]) * dy[k]


def elu_forward(x: Array, alpha: float = 1.0) -> Array:
    """Return y of equation (1), in the shape and dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and for an alpha that is
    not a number; ValueError for an alpha that is not finite.

    >>> elu_forward(np.array([2.0, 0.0, -np.log(2)]), alpha=4.0).round(6)
    array([ 2.,  0., -2.])
    """
    x = floats("x", x, "any")
    alpha = x.dtype.type(number("alpha", alpha))
    y = empty_like(x)
    if on_cpu(x):
        fill(_y_cpu, x.size, y.reshape(-1), x.reshape(-1), alpha)
    else:
        launch(_y_cuda, x.size, y.ravel(), x.ravel(), alpha)
    return y


def elu_backward(dy: Array, x: Array, alpha: float = 1.0) -> Array:
    """Return dx of equation (2), in the shape and dtype of x.

    Raises as forward does, and ValueError if dy has not the shape of x.

    >>> elu_backward(np.array([3.0, 3.0]), np.array([2.0, -np.log(2)]), alpha=4.0).round(6)
    array([3., 6.])
    """
    x = floats("x", x, "any")
    dy = floats("dy", dy, "any", x)
    same_shape("dy", dy, x.shape, "the shape of x")
    alpha = x.dtype.type(number("alpha", alpha))
    dx = empty_like(x)
    if on_cpu(x):
        fill(_dx_cpu, x.size, dx.reshape(-1), dy.reshape(-1), x.reshape(-1), alpha)
    else:
        launch(_dx_cuda, x.size, dx.ravel(), dy.ravel(), x.ravel(), alpha)
    return dx


class ELU(Layer):
    """ELU as a layer; it learns nothing.

    Raises TypeError or ValueError if alpha is not a finite number.
    """

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = number("alpha", alpha)

    def forward(self, x: Array) -> Array:
        y = elu_forward(x, self.alpha)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        return elu_backward(dy, self.remembered("x"), self.alpha)
