"""Layer normalisation: give every sample mean 0 and variance 1, then w and b.

Equations

    x is seen as (N, M): each sample is a row of M numbers.

    (1)  mean[n] = average over k of x[n,k]
    (2)  invstd[n] = 1 / sqrt(average over k of (x[n,k] - mean[n])^2 + eps)
    (3)  y[n,k]  = w[k] * (x[n,k] - mean[n]) * invstd[n] + b[k]
    (4)  dx[n,k] = invstd[n] * (g[n,k] - average over k of g[n,k] - (x[n,k] - mean[n])
                   * invstd[n]^2 * average over k of g[n,k] * (x[n,k] - mean[n]))
    (5)  dw[k]   = sum over n of dy[n,k] * (x[n,k] - mean[n]) * invstd[n]
    (6)  db[k]   = sum over n of dy[n,k]

    with g[n,k] = w[k] * dy[n,k].

Shapes

    x, y, dx, dy    (..., *normalized_shape)   float
    w, b, dw, db    normalized_shape           float
    mean, invstd    (...)                      float

Edges: a row whose numbers are all alike becomes b, as long as eps > 0. NaN or infinity
makes its whole row NaN, and no other. An empty batch gives an empty y. A mean far larger
than the deviation costs no digits of the variance, nor of y.

Lecture: lectures/08_deep_nets_that_train.ipynb.  Symbols: GLOSSARY.md.
Source: Ba, Kiros & Hinton, arXiv:1607.06450; as torch.nn.LayerNorm.
"""

import math
from math import prod
from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda.reductions import block_for, block_moments, block_sum, lane_sum
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
    """Equation (3), after (1) and (2); a thread has rows.

    Equations (1) and (2): a first average, the pivot, is near enough for the distances
    from it to be small; their average says how far it was off.
    """
    M = x.shape[1]
    zero, one, count = x.dtype.type(0), x.dtype.type(1), x.dtype.type(M)
    for n in range(first, past):
        row, seen, total = y[n], x[n], zero
        for k in range(M):
            total += seen[k]
        pivot, total, squares = total / count, zero, zero
        for k in range(M):
            distance = seen[k] - pivot
            total += distance
            squares += distance * distance
        shift = total / count
        var = squares / count - shift * shift
        scale = one / np.sqrt((zero if var < zero else var) + eps)
        mean[n], invstd[n] = pivot + shift, scale
        rest = -shift * scale
        for k in range(M):
            row[k] = ((seen[k] - pivot) * scale + rest) * w[k] + b[k]


@compiled
def _dx_cpu(dx, dy, x, w, mean, invstd, first, past):
    """Equation (4); a thread has rows."""
    M = x.shape[1]
    zero, count = x.dtype.type(0), x.dtype.type(M)
    for n in range(first, past):
        row, upstream, seen, mean_n, scale = dx[n], dy[n], x[n], mean[n], invstd[n]
        total, slope = zero, zero
        for k in range(M):
            total += w[k] * upstream[k]
            slope += w[k] * upstream[k] * (seen[k] - mean_n)
        average, slope = total / count, quotient(slope * scale * scale, count)
        for k in range(M):
            g = w[k] * upstream[k]
            row[k] = scale * (g - average - (seen[k] - mean_n) * slope)


@compiled
def _dw_cpu(dw, db, dy, x, mean, invstd, first, past):
    """Equations (5) and (6); a thread has elements of dw and db."""
    dw, db = dw[first:past], db[first:past]
    dw[:] = 0
    db[:] = 0
    for n in range(len(x)):
        upstream, seen, mean_n, scale = (
            dy[n, first:past],
            x[n, first:past],
            mean[n],
            invstd[n],
        )
        for k in range(dw.size):
            dw[k] += upstream[k] * ((seen[k] - mean_n) * scale)
            db[k] += upstream[k]


@cuda.jit
def _y_cuda(y, mean, invstd, x, w, b, eps):
    """Equation (3), after (1) and (2); a block has a row, a thread has some of its numbers.

    mean is rounded, and so y is made of the pivot and the shift: they lose no digits.
    """
    scratch = cuda.shared.array(32, x.dtype)
    n, M, one = cuda.blockIdx.x, x.shape[1], x.dtype.type(1)
    pivot, shift, var = block_moments(x[n], scratch)
    scale = one / math.sqrt(var + eps)
    if cuda.threadIdx.x == 0:
        mean[n] = pivot + shift
        invstd[n] = scale
    for k in range(cuda.threadIdx.x, M, cuda.blockDim.x):
        y[n, k] = (x[n, k] - pivot - shift) * scale * w[k] + b[k]


@cuda.jit
def _dx_cuda(dx, dy, x, w, mean, invstd):
    """Equation (4); a block has a row, a thread has some of its numbers."""
    scratch = cuda.shared.array(32, x.dtype)
    n, M = cuda.blockIdx.x, x.shape[1]
    count, scale = x.dtype.type(M), invstd[n]
    total, slope = x.dtype.type(0), x.dtype.type(0)
    for k in range(cuda.threadIdx.x, M, cuda.blockDim.x):
        g = w[k] * dy[n, k]
        total += g
        slope += g * (x[n, k] - mean[n])
    average = block_sum(total, scratch) / count
    slope = block_sum(slope, scratch) * scale * scale / count
    for k in range(cuda.threadIdx.x, M, cuda.blockDim.x):
        g = w[k] * dy[n, k]
        dx[n, k] = scale * (g - average - (x[n, k] - mean[n]) * slope)


@cuda.jit
def _dw_cuda(dw, db, dy, x, mean, invstd):
    """Equations (5) and (6); a block has 32 elements, a thread has some rows of one.

    The lanes of a warp read what lies side by side in memory.
    """
    scratch = cuda.shared.array((32, 32), x.dtype)
    (N, M), warps = x.shape, cuda.blockDim.x >> 5
    warp, k = cuda.threadIdx.x >> 5, cuda.blockIdx.x * 32 + (cuda.threadIdx.x & 31)
    slope, total = x.dtype.type(0), x.dtype.type(0)
    if k < M:
        for n in range(warp, N, warps):
            slope += dy[n, k] * ((x[n, k] - mean[n]) * invstd[n])
            total += dy[n, k]
    slope, total = lane_sum(slope, scratch), lane_sum(total, scratch)
    if warp == 0 and k < M:
        dw[k] = slope
        db[k] = total


def _arrays(x: Array, weight: Array) -> tuple[Array, Array]:
    """Return x as rows of what is normalised and w as one row, or say what does not fit."""
    x = floats("x", x, "any")
    w = floats("weight", weight, "any", x)
    if not w.ndim or x.shape[-w.ndim :] != w.shape:
        raise ValueError(
            f"x has shape {x.shape}; its last axes must be normalized_shape, the {w.shape} "
            "of weight"
        )
    return x.reshape(prod(x.shape[: -w.ndim]), w.size), w.reshape(-1)


def layernorm_forward(
    x: Array, weight: Array, bias: Array | None = None, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Return y of equation (3), and mean and invstd of equations (1) and (2).

    The axes that weight has are normalised: the last ones of x. Raises TypeError for dtypes
    that are not float32 or float64, or not alike, and ValueError for shapes that do not
    fit together.

    >>> x = np.array([[1.0, 3.0, 5.0, 7.0]])
    >>> layernorm_forward(x, np.full(4, 3.0), eps=4.0)
    (array([[-3., -1.,  1.,  3.]]), array([4.]), array([0.33333333]))
    """
    rows, w = _arrays(x, weight)
    b = full(weight.shape, 0, x.dtype, x) if bias is None else bias
    b = floats("bias", b, "any", x)
    same_shape("bias", b, weight.shape, "the shape of weight")
    eps = number("eps", eps)
    if eps < 0:
        raise ValueError(f"eps must be at least 0, not {eps}")
    (N, M), samples = rows.shape, x.shape[: -weight.ndim]
    y, mean, invstd = empty_like(rows), empty(N, x.dtype, x), empty(N, x.dtype, x)
    arrays = y, mean, invstd, rows, w, b.reshape(-1)
    if on_cpu(x):
        fill(_y_cpu, N, *arrays, x.dtype.type(eps))
    else:
        threads = block_for(M)
        launch(_y_cuda, N * threads, *arrays, x.dtype.type(eps), threads=threads)
    return y.reshape(x.shape), mean.reshape(samples), invstd.reshape(samples)


def layernorm_backward(
    dy: Array, x: Array, weight: Array, mean: Array, invstd: Array
) -> tuple[Array, Array, Array]:
    """Return dx, dw, db of equations (4), (5), (6), in the dtype of x.

    mean and invstd are what forward returned. Raises as forward does, and ValueError if dy
    has not the shape of x.

    >>> x, dy = np.array([[1.0, 3.0]]), np.array([[1.0, 0.0]])
    >>> layernorm_backward(dy, x, np.ones(2), np.array([2.0]), np.array([0.5]))
    (array([[ 0.1875, -0.1875]]), array([-0.5,  0. ]), array([1., 0.]))
    """
    rows, w = _arrays(x, weight)
    dy = floats("dy", dy, "any", x)
    same_shape("dy", dy, x.shape, "the shape of x")
    samples = x.shape[: -weight.ndim]
    mean, invstd = (
        floats(name, a, "any", x) for name, a in [("mean", mean), ("invstd", invstd)]
    )
    same_shape("mean", mean, samples, "one number for each sample of x")
    same_shape("invstd", invstd, samples, "one number for each sample of x")
    statistics, upstream = (mean.reshape(-1), invstd.reshape(-1)), dy.reshape(rows.shape)
    dx, dw, db = empty_like(rows), empty_like(w), empty_like(w)
    (N, M), arrays = rows.shape, (upstream, rows)
    if on_cpu(x):
        fill(_dx_cpu, N, dx, *arrays, w, *statistics)
        fill(_dw_cpu, M, dw, db, *arrays, *statistics)
    else:
        threads = block_for(M)
        launch(_dx_cuda, N * threads, dx, *arrays, w, *statistics, threads=threads)
        threads = block_for(32 * N)
        blocks = -(-M // 32)
        launch(_dw_cuda, blocks * threads, dw, db, *arrays, *statistics, threads=threads)
    return dx.reshape(x.shape), dw.reshape(weight.shape), db.reshape(weight.shape)


class LayerNorm(Layer):
    """Layer normalisation, with parameters weight and bias of normalized_shape.

    weight starts at 1, bias at 0; elementwise_affine=False leaves both out, bias=False the
    bias alone. Raises ValueError if an axis of normalized_shape is below 1.
    """

    undecayed = "weight", "bias"

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
    ):
        super().__init__()
        axes = (
            normalized_shape if isinstance(normalized_shape, tuple) else (normalized_shape,)
        )
        shape = tuple(integer("normalized_shape", size, 1) for size in axes)
        if not shape:
            raise ValueError("normalized_shape is (); it must name at least one axis")
        self.shape, self.eps, self.dtype = shape, number("eps", eps), dtype
        if elementwise_affine:
            self.params["weight"] = np.ones(shape, dtype)
            if bias:
                self.params["bias"] = np.zeros(shape, dtype)

    def forward(self, x: Array) -> Array:
        y, *statistics = layernorm_forward(
            x, self._weight(x), self.params.get("bias"), self.eps
        )
        self.x, self.statistics = x, statistics
        return y

    def backward(self, dy: Array) -> Array:
        x = self.remembered("x")
        dx, dw, db = layernorm_backward(dy, x, self._weight(x), *self.statistics)
        for key, gradient in zip(("weight", "bias"), (dw, db), strict=True):
            if key in self.params:
                self.grads[key] = gradient
        return dx

    def _weight(self, x: Array) -> Array:
        """Return the weight, or ones where x is."""
        weight = self.params.get("weight")
        return full(self.shape, 1, self.dtype, x) if weight is None else weight
