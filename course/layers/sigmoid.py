"""The sigmoid, or logistic function: any number becomes one between 0 and 1.

Equations

    (1)  y[k]  = 1 / (1 + exp(-x[k]))
    (2)  dx[k] = dy[k] * y[k] * (1 - y[k])

Shapes

    x, y, dx, dy   any shape, all alike   float

Edges: exp is taken of negative numbers only, so that nothing overflows and a very
negative x keeps its digits: for it (1) is exp(x) / (1 + exp(x)). A GPU computes (1) as it
stands: there an exp that overflows is infinity, and y 0. A large x gives exactly 1, and a
gradient of exactly 0 (from about 17 in float32, 37 in float64). NaN stays NaN.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: Rumelhart, Hinton & Williams, Nature 323 (1986); as torch.nn.Sigmoid.
"""

import math

from course import cuda
from course.compiled import compiled
from course.device import Array, empty_like, fill, floats, launch, on_cpu, same_shape
from course.engine.elementary import exp
from course.layers.base import Layer


@compiled
def _y_cpu(y, x, first, past):
    """Equation (1); a thread has elements."""
    y, x = y[first:past], x[first:past]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for k in range(y.size):
        small = exp(-abs(x[k]))
        y[k] = (one if x[k] > zero else small) / (one + small)


@cuda.jit
def _y_cuda(y, x):
    """Equation (1); a thread has elements."""
    one = x.dtype.type(1)
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = one / (one + math.exp(-x[k]))


@compiled
def _dx_cpu(dx, dy, y, first, past):
    """Equation (2); a thread has elements."""
    dx, dy, y = dx[first:past], dy[first:past], y[first:past]
    one = y.dtype.type(1)
    for k in range(dx.size):
        dx[k] = dy[k] * y[k] * (one - y[k])


@cuda.jit
def _dx_cuda(dx, dy, y):
    """Equation (2); a thread has elements."""
    one = y.dtype.type(1)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[k] = dy[k] * y[k] * (one - y[k])


def sigmoid_forward(x: Array) -> Array:
    """Return y of equation (1), in the shape and dtype of x.

    Raises TypeError for a dtype that is not float32 or float64.

    >>> sigmoid_forward(np.array([0.0, np.log(3), -np.log(3), -1000.0])).round(6)
    array([0.5 , 0.75, 0.25, 0.  ])
    """
    x = floats("x", x, "any")
    y = empty_like(x)
    if on_cpu(x):
        fill(_y_cpu, x.size, y.reshape(-1), x.reshape(-1))
    else:
        launch(_y_cuda, x.size, y.ravel(), x.ravel())
    return y


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """Return dx of equation (2), in the shape and dtype of y, which forward returned.

    Raises TypeError as forward does, and ValueError if dy has not the shape of y.

    >>> sigmoid_backward(np.array([16.0, 16.0]), np.array([0.5, 0.75]))
    array([4., 3.])
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


class Sigmoid(Layer):
    """The sigmoid as a layer; it learns nothing."""

    def forward(self, x: Array) -> Array:
        self.y = sigmoid_forward(x)
        return self.y

    def backward(self, dy: Array) -> Array:
        return sigmoid_backward(dy, self.remembered("y"))
