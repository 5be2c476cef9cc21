"""PReLU, the parametric ReLU: the slope below zero is learned, one for each channel.

Equations

    (1)  y[n,c,k]  = x[n,c,k]  if x[n,c,k] > 0, else w[c] * x[n,c,k]
    (2)  dx[n,c,k] = dy[n,c,k] if x[n,c,k] > 0, else w[c] * dy[n,c,k]
    (3)  dw[c]     = sum over n,k of x[n,c,k] * dy[n,c,k], where x[n,c,k] <= 0

    with k the flat index of a pixel in its plane (n, c).

Shapes

    x, y, dx, dy   (N, C, ...)    float; any shape if there is one slope for all
    w, dw          (C,) or (1,)   float; a slope for each channel, or one for all

Edges: the derivative at 0 is w, by choice. A negative w is allowed. NaN stays NaN.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: He, Zhang, Ren & Sun, ICCV 2015, section 2.1; as torch.nn.PReLU.
"""

from typing import Any

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats, number, same_shape
from course.layers.base import Layer
from course.shapes import integer


@compiled
def _y_cpu(y, x, slopes, first, past):
    """Equation (1), with the slope of each number of a sample; a thread has samples."""
    zero = x.dtype.type(0)
    for n in range(first, past):
        for k in range(slopes.size):
            below = slopes[k] * x[n, k]
            y[n, k] = x[n, k] if x[n, k] > zero else below


@compiled
def _dx_cpu(dx, dy, x, slopes, first, past):
    """Equation (2), with the slope of each number of a sample; a thread has samples."""
    zero = x.dtype.type(0)
    for n in range(first, past):
        for k in range(slopes.size):
            upstream = dy[n, k]
            below = slopes[k] * upstream
            dx[n, k] = upstream if x[n, k] > zero else below


@compiled
def _dw_cpu(dw, dy, x, first, past):
    """Equation (3); a thread has channels."""
    zero = x.dtype.type(0)
    for c in range(first, past):
        dw[c] = zero
        for plane in range(c, len(x), dw.size):
            total = zero
            for k in range(x.shape[1]):
                product = x[plane, k] * dy[plane, k]
                total += zero if x[plane, k] > zero else product
            dw[c] += total


def _geometry(x, w):
    """Return how many samples x has, how many channels, and pixels in a plane (n, c)."""
    N, C = x.shape[:2] if x.ndim > 1 else (1, 1)
    if w.size not in (1, C):
        raise ValueError(
            f"weight has {w.size} slopes and x has {C} channels; give one for each, or 1"
        )
    planes = N * w.size
    return N, w.size, x.size // planes if planes else 0


def prelu_forward(x: Array, weight: Array) -> Array:
    """Return y of equation (1), in the shape and dtype of x.

    Raises TypeError for dtypes that are not float32 or float64, or not alike, and
    ValueError for a number of slopes that is neither 1 nor that of the channels.

    >>> prelu_forward(np.array([[3.0, -2.0], [-4.0, -8.0]]), np.array([0.5, 0.25]))
    array([[ 3. , -0.5],
           [-2. , -2. ]])
    """
    x = floats("x", x, "any")
    w = floats("weight", weight, "(C,)", x)
    N, C, pixels = _geometry(x, w)
    y = np.empty_like(x)
    rows = N, C * pixels
    fill(_y_cpu, N, y.reshape(rows), x.reshape(rows), np.repeat(w, pixels))
    return y


def prelu_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array]:
    """Return dx and dw of equations (2) and (3), in the dtype of x.

    Raises as forward does, and ValueError if dy has not the shape of x.

    >>> x, dy = np.array([[3.0, -2.0], [-4.0, -8.0]]), np.ones((2, 2))
    >>> dx, dw = prelu_backward(dy, x, np.array([0.5, 0.25]))
    >>> dx
    array([[1.  , 0.25],
           [0.5 , 0.25]])
    >>> dw
    array([ -4., -10.])
    """
    x = floats("x", x, "any")
    w = floats("weight", weight, "(C,)", x)
    dy = floats("dy", dy, "any", x)
    same_shape("dy", dy, x.shape, "the shape of x")
    N, C, pixels = _geometry(x, w)
    dx, dw = np.empty_like(x), np.empty_like(w)
    rows, planes = (N, C * pixels), (N * C, pixels)
    arrays = (a.reshape(rows) for a in (dx, dy, x))
    fill(_dx_cpu, N, *arrays, np.repeat(w, pixels))
    fill(_dw_cpu, C, dw, dy.reshape(planes), x.reshape(planes))
    return dx, dw


class PReLU(Layer):
    """PReLU as a layer, with the parameter weight (num_parameters,).

    Every slope starts at `init`. num_parameters is 1, a slope for all, or the number of
    channels, one for each. Raises TypeError or ValueError for other arguments.
    """

    undecayed = "weight", "bias"

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, *, dtype: Any = np.float32
    ):
        super().__init__()
        C = integer("num_parameters", num_parameters, 1)
        self.params["weight"] = np.full(C, number("init", init), dtype)

    def forward(self, x: Array) -> Array:
        y = prelu_forward(x, self.params["weight"])
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        x = self.remembered("x")
        dx, self.grads["weight"] = prelu_backward(dy, x, self.params["weight"])
        return dx
