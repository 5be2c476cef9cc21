"""Local response normalisation: divide a pixel by what its neighbour channels show there.

Equations

    x is seen as (N, C, HW): HW pixels in a plane.

    (1)  scale[n,c,k] = k0 + alpha / size * sum over v of x[n,v,k]^2
    (2)  y[n,c,k]  = x[n,c,k] * scale[n,c,k]^-beta
    (3)  dx[n,c,k] = dy[n,c,k] * scale[n,c,k]^-beta - 2 * alpha * beta / size * x[n,c,k]
                     * sum over v' of dy[n,v',k] * y[n,v',k] / scale[n,v',k]

    v runs over the `size` channels around c, from c - size//2 to c + (size-1)//2, as far as
    there are such; v' over the channels in whose sum c is. k0 is the argument called k.

Shapes

    x, y, scale, dx, dy   (N, C, L), (N, C, H, W), ...   float, all alike

Edges: channels that do not exist count as 0. NaN in a channel makes its neighbours NaN at
that pixel; infinity makes itself NaN and its neighbours 0. An empty batch gives an empty y.

Lecture: lectures/15_architectures.ipynb.  Symbols: GLOSSARY.md.
Source: Krizhevsky, Sutskever & Hinton, NIPS 2012, section 3.3; as
torch.nn.LocalResponseNorm, which divides alpha by size. The paper does not: its n=5, k=2,
alpha=1e-4, beta=0.75 is size=5, k=2, alpha=5e-4, beta=0.75 here.
"""

import math

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import unravel
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
from course.engine.elementary import quotient
from course.layers.base import Layer
from course.shapes import integer


@compiled
def _scale_cpu(scale, x, size, alpha, least, first, past):
    """Equation (1), with least for k0; a thread has planes (n, c)."""
    C = x.shape[1]
    share = quotient(alpha, x.dtype.type(size))
    for plane in range(first, past):
        n, c = divmod(plane, C)
        row = scale[n, c]
        row[:] = least
        for v in range(max(0, c - size // 2), min(C, c + (size + 1) // 2)):
            pixels = x[n, v]
            for k in range(row.size):
                row[k] += share * (pixels[k] * pixels[k])


@cuda.jit
def _scale_cuda(scale, x, size, alpha, least):
    """Equation (1), with least for k0; a thread has elements."""
    N, C, HW = x.shape
    share = alpha / x.dtype.type(size)
    for t in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        _, n, c, k = unravel(t, (1, N, C, HW))
        total = least
        for v in range(max(0, c - size // 2), min(C, c + (size + 1) // 2)):
            total += share * (x[n, v, k] * x[n, v, k])
        scale[n, c, k] = total


@compiled
def _y_cpu(y, x, scale, beta, roots, first, past):
    """Equation (2), and with dy for x the first term of (3); a thread has elements."""
    y, x, scale = y[first:past], x[first:past], scale[first:past]
    if roots:  # beta is 0.75: two roots are much faster than a power
        for k in range(y.size):
            root = np.sqrt(scale[k])
            y[k] = x[k] / (root * np.sqrt(root))
    else:
        for k in range(y.size):
            y[k] = x[k] * scale[k] ** -beta


@cuda.jit
def _y_cuda(y, x, scale, beta, roots):
    """Equation (2), and with dy for x the first term of (3); a thread has elements."""
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        if roots:
            root = math.sqrt(scale[k])
            y[k] = x[k] / (root * math.sqrt(root))
        else:
            y[k] = x[k] * scale[k] ** -beta


@compiled
def _dx_cpu(dx, dy, x, y, scale, size, alpha, beta, first, past):
    """Equation (3): adds the sum to the first term; a thread has planes (n, c)."""
    C = x.shape[1]
    two = x.dtype.type(2)
    share = quotient(two * alpha * beta, x.dtype.type(size))
    for plane in range(first, past):
        n, c = divmod(plane, C)
        row, pixels = dx[n, c], x[n, c]
        for v in range(max(0, c - (size - 1) // 2), min(C, c + size // 2 + 1)):
            upstream, seen, divisor = dy[n, v], y[n, v], scale[n, v]
            for k in range(row.size):
                row[k] -= share * pixels[k] * upstream[k] * seen[k] / divisor[k]


@cuda.jit
def _dx_cuda(dx, dy, x, y, scale, size, alpha, beta):
    """Equation (3): adds the sum to the first term; a thread has elements."""
    N, C, HW = x.shape
    share = x.dtype.type(2) * alpha * beta / x.dtype.type(size)
    for t in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        _, n, c, k = unravel(t, (1, N, C, HW))
        total = dx[n, c, k]
        for v in range(max(0, c - (size - 1) // 2), min(C, c + size // 2 + 1)):
            total -= share * x[n, c, k] * dy[n, v, k] * y[n, v, k] / scale[n, v, k]
        dx[n, c, k] = total


def _planes(name: str, a: Array, x: Array) -> Array:
    """Return the array as (N, C, HW), or say in words why it cannot be."""
    a = floats(name, a, "any", x)
    same_shape(name, a, x.shape, "the shape of x")
    if a.ndim < 3:
        raise ValueError(
            f"{name} has shape {a.shape}; it must be (N, C, L) or (N, C, H, W)"
        )
    return a.reshape(*a.shape[:2], math.prod(a.shape[2:]))


def _constants(size: int, alpha: float, beta: float, k: float) -> tuple:
    """Return the constants as numbers, or say in words why they cannot be."""
    size, k = integer("size", size, 1), number("k", k)
    alpha, beta = number("alpha", alpha), number("beta", beta)
    if k <= 0 or alpha < 0:
        raise ValueError(
            f"k={k} must be above 0 and alpha={alpha} at least 0: else a dark pixel would "
            "be divided by 0"
        )
    return size, alpha, beta, k


def local_response_norm_forward(
    x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> tuple[Array, Array]:
    """Return y and scale of equations (2) and (1), in the shape and dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for a shape
    or constants that cannot be.

    >>> x = np.array([[[3.0], [4.0], [0.0]]])  # three channels of one pixel
    >>> y, scale = local_response_norm_forward(x, size=3, alpha=3.0, beta=0.5, k=9.0)
    >>> scale.ravel(), y.ravel().round(6)
    (array([34., 34., 25.]), array([0.514496, 0.685994, 0.      ]))
    """
    size, alpha, beta, k = _constants(size, alpha, beta, k)
    x = floats("x", x, "any")
    kind, planes = x.dtype.type, _planes("x", x, x)
    (N, C, _), y, scale = planes.shape, empty_like(x), empty_like(planes)
    sums = scale, planes, size, kind(alpha), kind(k)
    powers = y.reshape(-1), x.reshape(-1), scale.reshape(-1), kind(beta), beta == 0.75
    if on_cpu(x):
        fill(_scale_cpu, N * C, *sums, steps=size * x.size)
        fill(_y_cpu, x.size, *powers)
    else:
        launch(_scale_cuda, x.size, *sums)
        launch(_y_cuda, x.size, *powers)
    return y, scale.reshape(x.shape)


def local_response_norm_backward(
    dy: Array,
    x: Array,
    y: Array,
    scale: Array,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
) -> Array:
    """Return dx of equation (3), in the shape and dtype of x.

    y and scale are what forward returned. Raises as forward does, and ValueError if dy has
    not the shape of x.

    >>> x = np.array([[[3.0], [4.0], [0.0]]])
    >>> constants = {"size": 3, "alpha": 3.0, "beta": 0.5}
    >>> y, scale = local_response_norm_forward(x, **constants, k=9.0)
    >>> dy = np.array([[[0.0], [0.0], [10.0]]])
    >>> local_response_norm_backward(dy, x, y, scale, **constants).ravel()
    array([0., 0., 2.])
    """
    size, alpha, beta, _ = _constants(size, alpha, beta, 1)
    x = floats("x", x, "any")
    named = ("dy", dy), ("x", x), ("y", y), ("scale", scale)
    upstream, pixels, seen, divisor = (_planes(*a, x) for a in named)
    (N, C, _), dx, kind = pixels.shape, empty_like(pixels), x.dtype.type
    flat = dx.reshape(-1), upstream.reshape(-1), divisor.reshape(-1)
    powers = *flat, kind(beta), beta == 0.75
    sums = dx, upstream, pixels, seen, divisor, size, kind(alpha), kind(beta)
    if on_cpu(x):
        fill(_y_cpu, x.size, *powers)
        fill(_dx_cpu, N * C, *sums, steps=size * x.size)
    else:
        launch(_y_cuda, x.size, *powers)
        launch(_dx_cuda, x.size, *sums)
    return dx.reshape(x.shape)


class LocalResponseNorm(Layer):
    """Local response normalisation across channels; it learns nothing.

    Raises ValueError for a size below 1, k not above 0 or a negative alpha.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = _constants(size, alpha, beta, k)

    def forward(self, x: Array) -> Array:
        y, scale = local_response_norm_forward(x, self.size, self.alpha, self.beta, self.k)
        self.x, self.y, self.scale = x, y, scale
        return y

    def backward(self, dy: Array) -> Array:
        x = self.remembered("x")
        constants = self.size, self.alpha, self.beta
        return local_response_norm_backward(dy, x, self.y, self.scale, *constants)
