"""PReLU, the parametric ReLU: the slope below zero is learned, one for each channel.

Equations

    (1)  y[n,c,k]  = x[n,c,k]  if x[n,c,k] > 0, else w[c] * x[n,c,k]
    (2)  dx[n,c,k] = dy[n,c,k] if x[n,c,k] > 0, else w[c] * dy[n,c,k]
    (3)  dw[c]     = sum over n,k of x[n,c,k] * dy[n,c,k], where x[n,c,k] <= 0

    with k the flat index of a pixel in its plane (n, c).

Shapes

    x, y, dx, dy   (N, C, ...)    float; any shape if there is one slope for all
    w, dw          (C,) or (1,)   float; a slope for each channel, or one for all
    dwn            (N, C)         float; what each image adds to dw, on a GPU

Edges: the derivative at 0 is w, by choice. A negative w is allowed. NaN stays NaN.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: He, Zhang, Ren & Sun, ICCV 2015, section 2.1; as torch.nn.PReLU.
"""

from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import split
from course.cuda.reductions import block_for, block_sum
from course.device import (
    Array,
    empty,
    empty_like,
    fill,
    floats,
    launch,
    number,
    on_cpu,
    same_shape,
)
from course.layers.base import Layer
from course.shapes import integer

MANY = 256  # pixels of a plane: enough to keep a block of threads busy


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


@cuda.jit
def _y_cuda(y, x, w, pixels):
    """Equation (1); a thread has elements."""
    zero = x.dtype.type(0)
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        plane, _ = split(k, pixels)
        _, c = split(plane, w.size)
        y[k] = x[k] if x[k] > zero else w[c] * x[k]


@cuda.jit
def _dx_cuda(dx, dy, x, w, pixels):
    """Equation (2); a thread has elements."""
    zero = x.dtype.type(0)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        plane, _ = split(k, pixels)
        _, c = split(plane, w.size)
        dx[k] = dy[k] if x[k] > zero else w[c] * dy[k]


@cuda.jit
def _dwn_cuda(dwn, dy, x):
    """Equation (3) for one sample, or for all; a block has a channel, a thread has pixels.

    dwn is (N, C), or (1, C) if a plane is too small to keep a block busy.
    """
    scratch = cuda.shared.array(32, x.dtype)
    N, C, pixels = x.shape
    n0, c = cuda.blockIdx.x // C, cuda.blockIdx.x % C
    samples = N if len(dwn) == 1 else 1
    zero = x.dtype.type(0)
    total = zero
    for t in range(cuda.threadIdx.x, samples * pixels, cuda.blockDim.x):
        n, k = split(t, pixels)
        pixel = x[n0 + n, c, k]
        product = pixel * dy[n0 + n, c, k]
        total += zero if pixel > zero else product
    total = block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        dwn[n0, c] = total


@cuda.jit
def _dw_cuda(dw, dwn):
    """Equation (3) from its parts; a thread has channels."""
    for c in range(cuda.grid(1), dw.size, cuda.gridsize(1)):
        total = dw.dtype.type(0)
        for n in range(len(dwn)):
            total += dwn[n, c]
        dw[c] = total


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
    y = empty_like(x)
    rows = N, C * pixels
    if on_cpu(x):
        fill(_y_cpu, N, y.reshape(rows), x.reshape(rows), np.repeat(w, pixels))
    else:
        launch(_y_cuda, x.size, y.ravel(), x.ravel(), w, pixels)
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
    dx, dw = empty_like(x), empty_like(w)
    if not on_cpu(x):
        launch(_dx_cuda, x.size, dx.ravel(), dy.ravel(), x.ravel(), w, pixels)
        samples = N, C, pixels
        dwn = empty((N if pixels >= MANY else 1, C), x.dtype, x)
        threads = block_for(x.size // dwn.size)
        _dwn_cuda[dwn.size, threads](dwn, dy.reshape(samples), x.reshape(samples))
        launch(_dw_cuda, C, dw, dwn)
        return dx, dw
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
