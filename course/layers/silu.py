"""SiLU, also called swish: x times its sigmoid, a ReLU without a corner.

Equations

    (1)  y[k]  = x[k] * g(x[k])
    (2)  dx[k] = dy[k] * g(x[k]) * (1 + x[k] * (1 - g(x[k])))

    with g(a) = 1 / (1 + exp(-a)), the sigmoid.

Shapes

    x, y, dx, dy   any shape, all alike   float

Edges: a large x gives x, a very negative one 0. Minus infinity gives NaN, being infinity
times 0; so does the gradient at plus and minus infinity. NaN stays NaN.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: Elfwing, Uchibe & Doya, Neural Networks 107 (2018); as torch.nn.SiLU.
"""

import math

from course import cuda
from course.compiled import compiled
from course.device import Array, empty_like, fill, floats, launch, on_cpu, same_shape
from course.engine.elementary import sigmoid
from course.layers.base import Layer


@compiled
def _y_cpu(y, x, first, past):
    """Equation (1); a thread has elements."""
    y, x = y[first:past], x[first:past]
    for k in range(y.size):
        y[k] = x[k] * sigmoid(x[k])


@cuda.jit
def _y_cuda(y, x):
    """Equation (1); a thread has elements."""
    one = x.dtype.type(1)
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = x[k] / (one + math.exp(-x[k]))


@compiled
def _dx_cpu(dx, dy, x, first, past):
    """Equation (2); a thread has elements."""
    dx, dy, x = dx[first:past], dy[first:past], x[first:past]
    one = x.dtype.type(1)
    for k in range(dx.size):
        gate = sigmoid(x[k])
        dx[k] = dy[k] * gate * (one + x[k] * (one - gate))


@cuda.jit
def _dx_cuda(dx, dy, x):
    """Equation (2); a thread has elements."""
    one = x.dtype.type(1)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        gate = one / (one + math.exp(-x[k]))
        dx[k] = dy[k] * gate * (one + x[k] * (one - gate))


def silu_forward(x: Array) -> Array:
    """Return y of equation (1), in the shape and dtype of x.

    Raises TypeError for a dtype that is not float32 or float64.

    >>> silu_forward(np.array([0.0, 1000.0, -1000.0])).round(6) + 0
    array([   0., 1000.,    0.])
    """
    x = floats("x", x, "any")
    y = empty_like(x)
    if on_cpu(x):
        fill(_y_cpu, x.size, y.reshape(-1), x.reshape(-1))
    else:
        launch(_y_cuda, x.size, y.ravel(), x.ravel())
    return y


def silu_backward(dy: Array, x: Array) -> Array:
    """Return dx of equation (2), in the shape and dtype of x.

    Raises TypeError as forward does, and ValueError if dy has not the shape of x.

    >>> silu_backward(np.array([8.0, 8.0]), np.array([0.0, 1000.0]))
    array([4., 8.])
    """
    x = floats("x", x, "any")
    dy = floats("dy", dy, "any", x)
    same_shape("dy", dy, x.shape, "the shape of x")
    dx = empty_like(x)
    if on_cpu(x):
        fill(_dx_cpu, x.size, dx.reshape(-1), dy.reshape(-1), x.reshape(-1))
    else:
        launch(_dx_cuda, x.size, dx.ravel(), dy.ravel(), x.ravel())
    return dx


class SiLU(Layer):
    """SiLU as a layer; it learns nothing."""

    def forward(self, x: Array) -> Array:
        y = silu_forward(x)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        return silu_backward(dy, self.remembered("x"))
