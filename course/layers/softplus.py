"""Softplus, the smooth ReLU: the logarithm of 1 + e^x.

Equations

    (1)  y[k]  = log(1 + exp(beta * x[k])) / beta
    (2)  dx[k] = dy[k] / (1 + exp(-beta * x[k]))

Shapes

    x, y, dx, dy   any shape, all alike   float

Edges: (1) is computed as (max(z, 0) + log(1 + exp(-|z|))) / beta with z = beta * x, so
that nothing overflows and a very negative z keeps its digits. Where z is above
`threshold`, y is x and dx is dy. NaN stays NaN.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: Dugas, Bengio, Belisle, Nadeau & Garcia, NIPS 13 (2000); as torch.nn.Softplus.
"""

import math

import numpy as np

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
from course.engine.elementary import exp, log1p, sigmoid
from course.layers.base import Layer


@compiled
def _y_cpu(y, x, beta, threshold, first, past):
    """Equation (1); a thread has elements."""
    y, x = y[first:past], x[first:past]
    zero = x.dtype.type(0)
    for k in range(y.size):
        z = beta * x[k]
        bend = (zero if z < zero else z) + log1p(exp(-abs(z)))
        y[k] = x[k] if z > threshold else bend / beta


@cuda.jit
def _y_cuda(y, x, beta, threshold):
    """Equation (1); a thread has elements."""
    zero = x.dtype.type(0)
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        z = beta * x[k]
        bend = (zero if z < zero else z) + math.log1p(math.exp(-abs(z)))
        y[k] = x[k] if z > threshold else bend / beta


@compiled
def _dx_cpu(dx, dy, x, beta, threshold, first, past):
    """Equation (2); a thread has elements."""
    dx, dy, x = dx[first:past], dy[first:past], x[first:past]
    for k in range(dx.size):
        z = beta * x[k]
        bend = dy[k] * sigmoid(z)
        dx[k] = dy[k] if z > threshold else bend


@cuda.jit
def _dx_cuda(dx, dy, x, beta, threshold):
    """Equation (2); a thread has elements."""
    one = x.dtype.type(1)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        z = beta * x[k]
        bend = dy[k] / (one + math.exp(-z))
        dx[k] = dy[k] if z > threshold else bend


def _checked(beta, threshold, dtype):
    """Return both in the dtype, or say what cannot be."""
    beta, threshold = number("beta", beta), number("threshold", threshold)
    if beta == 0:
        raise ValueError("beta must not be 0: softplus divides by it")
    return dtype.type(beta), dtype.type(threshold)


def softplus_forward(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Return y of equation (1), in the shape and dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and for a beta or
    threshold that is not a number; ValueError for one that is not finite or a beta of 0.

    >>> softplus_forward(np.array([np.log(3), -1000.0, 1000.0]), beta=1.0).round(6)
    array([   1.386294,    0.      , 1000.      ])
    """
    x = floats("x", x, "any")
    bend = _checked(beta, threshold, x.dtype)
    y = empty_like(x)
    if on_cpu(x):
        fill(_y_cpu, x.size, y.reshape(-1), x.reshape(-1), *bend)
    else:
        launch(_y_cuda, x.size, y.ravel(), x.ravel(), *bend)
    return y


def softplus_backward(
    dy: Array, x: Array, beta: float = 1.0, threshold: float = 20.0
) -> Array:
    """Return dx of equation (2), in the shape and dtype of x.

    Raises as forward does, and ValueError if dy has not the shape of x.

    >>> softplus_backward(np.array([8.0, 8.0]), np.array([np.log(3), 0.0])).round(6)
    array([6., 4.])
    """
    x = floats("x", x, "any")
    dy = floats("dy", dy, "any", x)
    same_shape("dy", dy, x.shape, "the shape of x")
    bend = _checked(beta, threshold, x.dtype)
    dx = empty_like(x)
    if on_cpu(x):
        fill(_dx_cpu, x.size, dx.reshape(-1), dy.reshape(-1), x.reshape(-1), *bend)
    else:
        launch(_dx_cuda, x.size, dx.ravel(), dy.ravel(), x.ravel(), *bend)
    return dx


class Softplus(Layer):
    """Softplus as a layer; it learns nothing.

    Raises TypeError or ValueError for a beta or threshold that is not a finite number,
    and for a beta of 0.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__()
        _checked(beta, threshold, np.dtype(float))
        self.bend = float(beta), float(threshold)

    def forward(self, x: Array) -> Array:
        y = softplus_forward(x, *self.bend)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        return softplus_backward(dy, self.remembered("x"), *self.bend)
