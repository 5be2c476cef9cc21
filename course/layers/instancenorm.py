"""Instance normalisation: give every channel of every image mean 0 and variance 1.

Equations

    x is seen as (N, C, HW): HW pixels in a plane.

    (1)  mean[n,c] = average over k of x[n,c,k]
    (2)  invstd[n,c] = 1 / sqrt(average over k of (x[n,c,k] - mean[n,c])^2 + eps)
    (3)  y[n,c,k]  = w[c] * (x[n,c,k] - mean[n,c]) * invstd[n,c] + b[c]
    (4)  dwn[n,c]  = sum over k of dy[n,c,k] * (x[n,c,k] - mean[n,c]) * invstd[n,c]
    (5)  dbn[n,c]  = sum over k of dy[n,c,k]
    (6)  dx[n,c,k] = w[c] * invstd[n,c] * (dy[n,c,k] - dbn[n,c] / HW
                     - (x[n,c,k] - mean[n,c]) * invstd[n,c] * dwn[n,c] / HW)

    dw and db are the sums of dwn and dbn over n.

Shapes

    x, y, dx, dy    (N, C, L), (N, C, H, W), ...   float, all alike
    w, b, dw, db    (C,)     float
    mean, invstd    (N, C)   float
    dwn, dbn        (N, C)   float; what image n adds to dw and db

Edges: a plane of one pixel has no variance: that is an error. A plane whose pixels are
all alike becomes b, as long as eps > 0. NaN or infinity makes its whole plane NaN, and no
other. An empty batch gives an empty y. A mean far larger than the deviation costs no
digits of the variance, nor of y.

Lecture: lectures/08_deep_nets_that_train.ipynb.  Symbols: GLOSSARY.md.
Source: Ulyanov, Vedaldi & Lempitsky, arXiv:1607.08022; as torch.nn.InstanceNorm2d.
"""

import math
from math import prod
from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda.reductions import block_for, block_moments, block_sum
from course.device import (
    Array,
    empty,
    empty_like,
    fill,
    floats,
    full,
    launch,
    number,
    on_cpu,
    same_shape,
)
from course.engine.elementary import quotient
from course.layers.base import Layer
from course.shapes import integer


@compiled
def _y_cpu(y, mean, invstd, x, w, b, eps, first, past):
    """Equation (3), after (1) and (2); a thread has planes (n, c).

    Equations (1) and (2): a first average, the pivot, is near enough for the distances
    from it to be small; their average says how far it was off.
    """
    _, C, HW = x.shape
    zero, one, count = x.dtype.type(0), x.dtype.type(1), x.dtype.type(HW)
    for plane in range(first, past):
        n, c = divmod(plane, C)
        row, pixels, total = y[n, c], x[n, c], zero
        for k in range(HW):
            total += pixels[k]
        pivot, total, squares = total / count, zero, zero
        for k in range(HW):
            distance = pixels[k] - pivot
            total += distance
            squares += distance * distance
        shift = total / count
        var = squares / count - shift * shift
        scale = one / np.sqrt((zero if var < zero else var) + eps)
        mean[n, c], invstd[n, c] = pivot + shift, scale
        factor = w[c] * scale
        rest = b[c] - shift * factor
        for k in range(HW):
            row[k] = (pixels[k] - pivot) * factor + rest


@compiled
def _dx_cpu(dx, dwn, dbn, dy, x, w, mean, invstd, first, past):
    """Equation (6), after (4) and (5); a thread has planes (n, c).

    Equations (4) and (5) read what (6) reads again while it is in the cache.
    """
    _, C, HW = x.shape
    zero, count = x.dtype.type(0), x.dtype.type(HW)
    for plane in range(first, past):
        n, c = divmod(plane, C)
        row, upstream, pixels = dx[n, c], dy[n, c], x[n, c]
        mean_n, scale, slope, total = mean[n, c], invstd[n, c], zero, zero
        for k in range(HW):
            slope += upstream[k] * (pixels[k] - mean_n)
            total += upstream[k]
        dwn[n, c], dbn[n, c] = slope * scale, total
        factor, average = w[c] * scale, total / count
        slope *= quotient(scale * scale, count)
        for k in range(HW):
            row[k] = factor * (upstream[k] - average - (pixels[k] - mean_n) * slope)


@cuda.jit
def _y_cuda(y, mean, invstd, x, w, b, eps):
    """Equation (3), after (1) and (2); a block has a plane, a thread has some pixels.

    mean is rounded, and so y is made of the pivot and the shift: they lose no digits.
    """
    scratch = cuda.shared.array(32, x.dtype)
    (_, C, HW), one = x.shape, x.dtype.type(1)
    n, c = cuda.blockIdx.x // C, cuda.blockIdx.x % C
    pivot, shift, var = block_moments(x[n, c], scratch)
    scale = one / math.sqrt(var + eps)
    if cuda.threadIdx.x == 0:
        mean[n, c] = pivot + shift
        invstd[n, c] = scale
    for k in range(cuda.threadIdx.x, HW, cuda.blockDim.x):
        y[n, c, k] = (x[n, c, k] - pivot - shift) * scale * w[c] + b[c]


@cuda.jit
def _dx_cuda(dx, dwn, dbn, dy, x, w, mean, invstd):
    """Equation (6), after (4) and (5); a block has a plane, a thread has some pixels."""
    scratch = cuda.shared.array(32, x.dtype)
    (_, C, HW), count = x.shape, x.dtype.type(x.shape[2])
    n, c = cuda.blockIdx.x // C, cuda.blockIdx.x % C
    upstream, pixels, mean_n, scale = dy[n, c], x[n, c], mean[n, c], invstd[n, c]
    slope = total = x.dtype.type(0)
    for k in range(cuda.threadIdx.x, HW, cuda.blockDim.x):
        slope += upstream[k] * (pixels[k] - mean_n)
        total += upstream[k]
    slope, total = block_sum(slope, scratch) * scale, block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        dwn[n, c] = slope
        dbn[n, c] = total
    factor, average, slope = w[c] * scale, total / count, slope * scale / count
    for k in range(cuda.threadIdx.x, HW, cuda.blockDim.x):
        dx[n, c, k] = factor * (upstream[k] - average - (pixels[k] - mean_n) * slope)


@cuda.jit
def _dw_cuda(dw, db, dwn, dbn):
    """Equations (4) and (5), added up over the images; a thread has channels."""
    N, C = dwn.shape
    for c in range(cuda.grid(1), C, cuda.gridsize(1)):
        slope = total = dwn.dtype.type(0)
        for n in range(N):
            slope += dwn[n, c]
            total += dbn[n, c]
        dw[c] = slope
        db[c] = total


def _planes(x: Array) -> Array:
    """Return x as (N, C, HW), or say in words why it cannot be."""
    x = floats("x", x, "any")
    if x.ndim < 3:
        raise ValueError(f"x has shape {x.shape}; it must be (N, C, L) or (N, C, H, W)")
    planes = x.reshape(*x.shape[:2], prod(x.shape[2:]))
    if planes.shape[2] == 1:
        raise ValueError(f"x has shape {x.shape}: a plane of one pixel has no variance")
    return planes


def _fitting(name: str, a: Array | None, default: float, x: Array, shape: Any) -> Array:
    """Return the array, or an array of the default where it is None."""
    if a is None:
        return full(shape, default, x.dtype, x)
    a = floats(name, a, "any", x)
    same_shape(name, a, shape, f"for x of shape {x.shape} it")
    return a


def instancenorm_forward(
    x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Return y of equation (3), and mean and invstd of equations (1) and (2).

    Without weight or bias they are 1 and 0. Raises TypeError for dtypes that are not
    float32 or float64, or not alike, and ValueError for shapes that do not fit together.

    >>> x = np.array([[[1.0, 3.0, 5.0, 7.0], [0.0, 0.0, 0.0, 0.0]]])
    >>> y, mean, invstd = instancenorm_forward(x, np.array([3.0, 1.0]), eps=4.0)
    >>> y, mean
    (array([[[-3., -1.,  1.,  3.],
            [ 0.,  0.,  0.,  0.]]]), array([[4., 0.]]))
    """
    planes = _planes(x)
    N, C, HW = planes.shape
    w, b = _fitting("weight", weight, 1, x, (C,)), _fitting("bias", bias, 0, x, (C,))
    eps = number("eps", eps)
    if eps < 0:
        raise ValueError(f"eps must be at least 0, not {eps}")
    y = empty_like(planes)
    mean, invstd = empty((N, C), x.dtype, x), empty((N, C), x.dtype, x)
    arrays = y, mean, invstd, planes, w, b
    if on_cpu(x):
        fill(_y_cpu, N * C, *arrays, x.dtype.type(eps))
    else:
        threads = block_for(HW)
        launch(_y_cuda, N * C * threads, *arrays, x.dtype.type(eps), threads=threads)
    return y.reshape(x.shape), mean, invstd


def instancenorm_backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, invstd: Array
) -> tuple[Array, Array, Array]:
    """Return dx of equation (6); dw and db, the sums over n of equations (4) and (5).

    mean and invstd are what forward returned. Raises as forward does, and ValueError if dy
    has not the shape of x.

    >>> x, dy = np.array([[[1.0, 3.0]]]), np.array([[[1.0, 0.0]]])
    >>> instancenorm_backward(dy, x, None, np.array([[2.0]]), np.array([[0.5]]))
    (array([[[ 0.1875, -0.1875]]]), array([-0.5]), array([1.]))
    """
    planes = _planes(x)
    N, C, HW = planes.shape
    dy = floats("dy", dy, "any", x)
    same_shape("dy", dy, x.shape, "the shape of x")
    w = _fitting("weight", weight, 1, x, (C,))
    statistics = (
        _fitting("mean", mean, 0, x, (N, C)),
        _fitting("invstd", invstd, 1, x, (N, C)),
    )
    dx = empty_like(planes)
    dwn, dbn = empty((N, C), x.dtype, x), empty((N, C), x.dtype, x)
    arrays = dx, dwn, dbn, dy.reshape(planes.shape), planes, w, *statistics
    if on_cpu(x):
        fill(_dx_cpu, N * C, *arrays)
        return dx.reshape(x.shape), dwn.sum(axis=0), dbn.sum(axis=0)
    threads = block_for(HW)
    launch(_dx_cuda, N * C * threads, *arrays, threads=threads)
    dw, db = empty_like(w), empty_like(w)
    launch(_dw_cuda, C, dw, db, dwn, dbn)
    return dx.reshape(x.shape), dw, db


class InstanceNorm2d(Layer):
    """Instance normalisation of images (N, C, H, W).

    It learns nothing, as in PyTorch, unless affine=True: then weight (C,) starts at 1 and
    bias (C,) at 0. It keeps no running statistics. Raises ValueError for num_features below
    1, or an x with another number of channels.
    """

    undecayed = "weight", "bias"

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        affine: bool = False,
        dtype: Any = np.float32,
    ):
        super().__init__()
        C = integer("num_features", num_features, 1)
        self.channels, self.eps = C, number("eps", eps)
        if affine:
            self.params["weight"] = np.ones(C, dtype)
            self.params["bias"] = np.zeros(C, dtype)

    def forward(self, x: Array) -> Array:
        x = floats("x", x, "(N, C, H, W)")
        if x.shape[1] != self.channels:
            raise ValueError(f"x has {x.shape[1]} channels, the layer has {self.channels}")
        parameters = self.params.get("weight"), self.params.get("bias")
        y, *statistics = instancenorm_forward(x, *parameters, self.eps)
        self.x, self.statistics = x, statistics
        return y

    def backward(self, dy: Array) -> Array:
        x, weight = self.remembered("x"), self.params.get("weight")
        dx, dw, db = instancenorm_backward(dy, x, weight, *self.statistics)
        if weight is not None:
            self.grads["weight"], self.grads["bias"] = dw, db
        return dx
