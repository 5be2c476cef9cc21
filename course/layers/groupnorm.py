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

from math import prod
from typing import Any

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats, number, same_shape
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
def _dwn_cpu(dwn, dbn, dy, x, mean, invstd, first, past):
    """Equations (4) and (5); a thread has planes (n, c)."""
    (_, C, HW), G = x.shape, mean.shape[1]
    for plane in range(first, past):
        n, c = divmod(plane, C)
        group = c // (C // G)
        upstream, pixels, mean_n = dy[n, c], x[n, c], mean[n, group]
        slope = total = x.dtype.type(0)
        for k in range(HW):
            slope += upstream[k] * (pixels[k] - mean_n)
            total += upstream[k]
        dwn[n, c], dbn[n, c] = slope * invstd[n, group], total


@compiled
def _dx_cpu(dx, dy, x, w, mean, invstd, average, slope, first, past):
    """Equation (6); a thread has planes (n, c)."""
    (_, C, HW), G = x.shape, mean.shape[1]
    for plane in range(first, past):
        n, c = divmod(plane, C)
        group = c // (C // G)
        row, upstream, pixels, mean_n = dx[n, c], dy[n, c], x[n, c], mean[n, group]
        factor = invstd[n, group] * w[c]
        rest, steep = average[n, group], slope[n, group]
        for k in range(HW):
            row[k] = factor * upstream[k] - rest - (pixels[k] - mean_n) * steep


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
    a = np.full(shape, default, x.dtype) if a is None else floats(name, a, "any", x)
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
    y, (mean, invstd) = np.empty_like(planes), np.empty((2, N, G), x.dtype)
    rows = N * G, C // G * HW
    arrays = y.reshape(rows), mean, invstd, planes.reshape(rows), w, b
    fill(_y_cpu, N * G, *arrays, HW, x.dtype.type(eps))
    return y.reshape(x.shape), mean, invstd


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
    dx, (dwn, dbn) = np.empty_like(planes), np.empty((2, N, C), x.dtype)
    upstream = dy.reshape(planes.shape)
    fill(_dwn_cpu, N * C, dwn, dbn, upstream, planes, mean, invstd)
    CG, share = C // G, invstd / (C // G * HW)
    average = share * (w * dbn).reshape(N, G, CG).sum(axis=2)
    slope = share * invstd * (w * dwn).reshape(N, G, CG).sum(axis=2)
    fill(_dx_cpu, N * C, dx, upstream, planes, w, mean, invstd, average, slope)
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
