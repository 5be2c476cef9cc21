"""Group normalisation: in every image, give each group of channels mean 0 and variance 1.

Equations

    x is seen as (N, C, HW): HW pixels in a plane. g is the group that channel c is in.

    (1)  mean[n,g] = average over c of g and over k of x[n,c,k]
    (2)  invstd[n,g] = 1 / sqrt(average of (x[n,c,k] - mean[n,g])^2 + eps)
    (3)  y[n,c,k]  = w[c] * (x[n,c,k] - mean[n,g]) * invstd[n,g] + b[c]
    (4)  dwn[n,c]  = sum over k of dy[n,c,k] * (x[n,c,k] - mean[n,g]) * invstd[n,g]
    (5)  dbn[n,c]  = sum over k of dy[n,c,k]
    (6)  dx[n,c,k] = invstd[n,g] * w[c] * dy[n,c,k] - average[n,g]
                     - (x[n,c,k] - mean[n,g]) * slope[n,g]

    with average[n,g] = invstd[n,g]   / (CG*HW) * sum over c of g of w[c] * dbn[n,c]
    and  slope[n,g]   = invstd[n,g]^2 / (CG*HW) * sum over c of g of w[c] * dwn[n,c].
    dw and db are the sums of dwn and dbn over n.

Shapes

    x, y, dx, dy    (N, C), (N, C, L), (N, C, H, W), ...   float, all alike
    w, b, dw, db    (C,)     float
    mean, invstd    (N, G)   float
    dwn, dbn        (N, C)   float; what image n adds to dw and db

Edges: a group of one value has no variance: that is an error. A group whose values are
all alike becomes b, as long as eps > 0. NaN or infinity makes its whole group of that image
NaN, and nothing else. An empty batch gives an empty y. A mean far larger than the
deviation costs no digits of the variance, nor of y.

Lecture: lectures/08_deep_nets_that_train.ipynb.  Symbols: GLOSSARY.md.
Source: Wu & He, arXiv:1803.08494; as torch.nn.GroupNorm.
"""

import math
from math import prod
from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import split
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
def _y_cpu(y, mean, invstd, x, w, b, HW, eps, first, past):
    """Equation (3), after (1) and (2); a thread has groups (n, g), each a row of x.

    Equations (1) and (2): a first average, the pivot, is near enough for the distances
    from it to be small; their average says how far it was off.
    """
    M, G = x.shape[1], mean.shape[1]
    CG = M // HW
    zero, one, count = x.dtype.type(0), x.dtype.type(1), x.dtype.type(M)
    for both in range(first, past):
        n, group = divmod(both, G)
        row, seen, total = y[both], x[both], zero
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
        mean[n, group], invstd[n, group] = pivot + shift, scale
        for c in range(CG):
            factor = w[group * CG + c] * scale
            rest = b[group * CG + c] - shift * factor
            plane, pixels = row[c * HW : (c + 1) * HW], seen[c * HW : (c + 1) * HW]
            for k in range(HW):
                plane[k] = (pixels[k] - pivot) * factor + rest


@compiled
def _dx_cpu(dx, dwn, dbn, dy, x, w, mean, invstd, first, past):
    """Equation (6), after (4) and (5); a thread has groups (n, g).

    Equations (4) and (5) read what (6) reads again while it is in the cache.
    """
    (_, C, HW), G = x.shape, mean.shape[1]
    CG = C // G
    zero, count = x.dtype.type(0), x.dtype.type(CG * HW)
    for both in range(first, past):
        n, group = divmod(both, G)
        mean_n, scale, average, slope = mean[n, group], invstd[n, group], zero, zero
        for c in range(group * CG, (group + 1) * CG):
            upstream, pixels, slope_c, total = dy[n, c], x[n, c], zero, zero
            for k in range(HW):
                slope_c += upstream[k] * (pixels[k] - mean_n)
                total += upstream[k]
            dwn[n, c], dbn[n, c] = slope_c * scale, total
            average += w[c] * total
            slope += w[c] * dwn[n, c]
        share = quotient(scale, count)
        average, slope = average * share, slope * scale * share
        for c in range(group * CG, (group + 1) * CG):
            row, upstream, pixels, factor = dx[n, c], dy[n, c], x[n, c], scale * w[c]
            for k in range(HW):
                row[k] = factor * upstream[k] - average - (pixels[k] - mean_n) * slope


@cuda.jit
def _y_cuda(y, mean, invstd, x, w, b, HW, eps):
    """Equation (3), after (1) and (2); a block has a group, a thread has some pixels.

    A group (n, g) is a row of x. mean is rounded, and so y is made of the pivot and the
    shift: they lose no digits.
    """
    scratch = cuda.shared.array(32, x.dtype)
    (M, G), both, one = (x.shape[1], mean.shape[1]), cuda.blockIdx.x, x.dtype.type(1)
    n, group = both // G, both % G
    pivot, shift, var = block_moments(x[both], scratch)
    scale = one / math.sqrt(var + eps)
    if cuda.threadIdx.x == 0:
        mean[n, group] = pivot + shift
        invstd[n, group] = scale
    c0 = group * (M // HW)
    for k in range(cuda.threadIdx.x, M, cuda.blockDim.x):
        c, _ = split(k, HW)  # within the group
        level = (x[both, k] - pivot - shift) * scale
        y[both, k] = level * w[c0 + c] + b[c0 + c]


@cuda.jit
def _dwn_cuda(dwn, dbn, dy, x, mean, invstd):
    """Equations (4) and (5); a block has a plane (n, c), a thread has some pixels."""
    scratch = cuda.shared.array(32, x.dtype)
    (_, C, HW), G = x.shape, mean.shape[1]
    n, c = cuda.blockIdx.x // C, cuda.blockIdx.x % C
    group = c // (C // G)
    upstream, pixels, mean_n = dy[n, c], x[n, c], mean[n, group]
    slope = total = x.dtype.type(0)
    for k in range(cuda.threadIdx.x, HW, cuda.blockDim.x):
        slope += upstream[k] * (pixels[k] - mean_n)
        total += upstream[k]
    slope, total = block_sum(slope, scratch), block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        dwn[n, c] = slope * invstd[n, group]
        dbn[n, c] = total


@cuda.jit
def _dx_cuda(dx, dy, x, w, mean, invstd, dwn, dbn, HW):
    """Equation (6); a block has a group, a thread has some pixels.

    A group (n, g) is a row of dx, dy and x.
    """
    scratch = cuda.shared.array(32, x.dtype)
    (M, G), both = (x.shape[1], mean.shape[1]), cuda.blockIdx.x
    n, group, CG = both // G, both % G, M // HW
    c0, mean_n, scale = group * CG, mean[n, group], invstd[n, group]
    average = slope = x.dtype.type(0)
    for c in range(c0 + cuda.threadIdx.x, c0 + CG, cuda.blockDim.x):
        average += w[c] * dbn[n, c]
        slope += w[c] * dwn[n, c]
    share = scale / x.dtype.type(M)
    average = block_sum(average, scratch) * share
    slope = block_sum(slope, scratch) * share * scale
    for k in range(cuda.threadIdx.x, M, cuda.blockDim.x):
        c, _ = split(k, HW)  # within the group
        factor = scale * w[c0 + c]
        dx[both, k] = factor * dy[both, k] - average - (x[both, k] - mean_n) * slope


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


def _planes(x: Array, num_groups: int) -> tuple[Array, int]:
    """Return x as (N, C, HW), and G, or say in words what does not fit."""
    x = floats("x", x, "any")
    if x.ndim < 2:
        raise ValueError(f"x has shape {x.shape}; it must be (N, C) or (N, C, ...)")
    G, C = integer("num_groups", num_groups, 1), x.shape[1]
    if C % G:
        raise ValueError(f"num_groups={G} must divide the {C} channels of x")
    planes = x.reshape(*x.shape[:2], prod(x.shape[2:]))
    if C // G * planes.shape[2] == 1:
        raise ValueError(
            f"x has shape {x.shape}: with num_groups={G} a group has one value, and one "
            "value has no variance; take fewer groups"
        )
    return planes, G


def _fitting(name: str, a: Array | None, default: float, x: Array, shape: Any) -> Array:
    """Return the array, or an array of the default where it is None."""
    if a is None:
        return full(shape, default, x.dtype, x)
    a = floats(name, a, "any", x)
    same_shape(name, a, shape, f"for x of shape {x.shape} it")
    return a


def groupnorm_forward(
    x: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Return y of equation (3), and mean and invstd of equations (1) and (2).

    Without weight or bias they are 1 and 0. Raises TypeError for dtypes that are not
    float32 or float64, or not alike, and ValueError for shapes that do not fit together.

    >>> x = np.array([[1.0, 3.0, 5.0, 7.0, 0.0, 0.0, 0.0, 0.0]])
    >>> y, mean, invstd = groupnorm_forward(x, 2, np.full(8, 3.0), eps=4.0)
    >>> y, mean
    (array([[-3., -1.,  1.,  3.,  0.,  0.,  0.,  0.]]), array([[4., 0.]]))
    """
    planes, G = _planes(x, num_groups)
    N, C, HW = planes.shape
    w, b = _fitting("weight", weight, 1, x, (C,)), _fitting("bias", bias, 0, x, (C,))
    eps = number("eps", eps)
    if eps < 0:
        raise ValueError(f"eps must be at least 0, not {eps}")
    y, (rows, M) = empty_like(x), (N * G, C // G * HW)
    mean, invstd = empty((N, G), x.dtype, x), empty((N, G), x.dtype, x)
    arrays = y.reshape(rows, M), mean, invstd, planes.reshape(rows, M), w, b
    sizes = HW, x.dtype.type(eps)
    if on_cpu(x):
        fill(_y_cpu, rows, *arrays, *sizes)
    else:
        threads = block_for(M)
        launch(_y_cuda, rows * threads, *arrays, *sizes, threads=threads)
    return y, mean, invstd


def groupnorm_backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, invstd: Array
) -> tuple[Array, Array, Array]:
    """Return dx of equation (6); dw and db, the sums over n of equations (4) and (5).

    mean and invstd are what forward returned. Raises as forward does, and ValueError if dy
    has not the shape of x.

    >>> x, dy = np.array([[1.0, 3.0]]), np.array([[1.0, 0.0]])
    >>> groupnorm_backward(dy, x, None, np.array([[2.0]]), np.array([[0.5]]))
    (array([[ 0.1875, -0.1875]]), array([-0.5,  0. ]), array([1., 0.]))
    """
    mean = floats("mean", mean, "(N, G)")
    planes, G = _planes(x, mean.shape[1])
    N, C, HW = planes.shape
    dy = floats("dy", dy, "any", x)
    same_shape("dy", dy, x.shape, "the shape of x")
    w = _fitting("weight", weight, 1, x, (C,))
    mean = _fitting("mean", mean, 0, x, (N, G))
    invstd = _fitting("invstd", invstd, 1, x, (N, G))
    dx, upstream = empty_like(planes), dy.reshape(planes.shape)
    dwn, dbn = empty((N, C), x.dtype, x), empty((N, C), x.dtype, x)
    if not on_cpu(x):
        threads, arrays = block_for(HW), (dwn, dbn, upstream, planes, mean, invstd)
        launch(_dwn_cuda, N * C * threads, *arrays, threads=threads)
        rows, M = N * G, C // G * HW
        arrays = (a.reshape(rows, M) for a in (dx, upstream, planes))
        threads = block_for(M)
        arrays = *arrays, w, mean, invstd, dwn, dbn
        launch(_dx_cuda, rows * threads, *arrays, HW, threads=threads)
        dw, db = empty_like(w), empty_like(w)
        launch(_dw_cuda, C, dw, db, dwn, dbn)
        return dx.reshape(x.shape), dw, db
    fill(_dx_cpu, N * G, dx, dwn, dbn, upstream, planes, w, mean, invstd)
    return dx.reshape(x.shape), dwn.sum(axis=0), dbn.sum(axis=0)


class GroupNorm(Layer):
    """Group normalisation, with parameters weight and bias (C,).

    weight starts at 1, bias at 0; affine=False leaves both out. Raises ValueError if
    num_groups does not divide num_channels, or x has another number of channels.
    """

    undecayed = "weight", "bias"

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        dtype: Any = np.float32,
    ):
        super().__init__()
        G = integer("num_groups", num_groups, 1)
        C = integer("num_channels", num_channels, 1)
        if C % G:
            raise ValueError(f"num_groups={G} must divide num_channels={C}")
        self.groups, self.channels, self.eps = G, C, number("eps", eps)
        if affine:
            self.params["weight"] = np.ones(C, dtype)
            self.params["bias"] = np.zeros(C, dtype)

    def forward(self, x: Array) -> Array:
        x = floats("x", x, "any")
        if x.ndim > 1 and x.shape[1] != self.channels:
            raise ValueError(f"x has {x.shape[1]} channels, the layer has {self.channels}")
        parameters = self.params.get("weight"), self.params.get("bias")
        y, *statistics = groupnorm_forward(x, self.groups, *parameters, self.eps)
        self.x, self.statistics = x, statistics
        return y

    def backward(self, dy: Array) -> Array:
        x, weight = self.remembered("x"), self.params.get("weight")
        dx, dw, db = groupnorm_backward(dy, x, weight, *self.statistics)
        if weight is not None:
            self.grads["weight"], self.grads["bias"] = dw, db
        return dx
