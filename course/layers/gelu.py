"""GELU: x times the probability that a normal random number is below x.

Equations

    (1)  y[k]  = x[k] * P(x[k])
    (2)  dx[k] = dy[k] * (P(x[k]) + x[k] * P'(x[k]))

    with P(a) = (1 + erf(a / sqrt(2))) / 2 and P'(a) = exp(-a^2 / 2) / sqrt(2 pi), or, for
    approximate="tanh", P(a) = (1 + tanh(u)) / 2 with u = sqrt(2/pi) * (a + 0.044715 a^3).

Shapes

    x, y, dx, dy   any shape, all alike   float

Edges: P is computed as erfc(-a / sqrt(2)) / 2, or 1 / (1 + exp(-2u)), which are the same
and keep the digits of a negative a. A large x gives x, a very negative one 0. Minus
infinity gives NaN, being infinity times 0; so does the gradient at plus and minus
infinity. NaN stays NaN.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: Hendrycks & Gimpel, arXiv:1606.08415; as torch.nn.GELU.
"""

import math
from math import pi, sqrt

from course import cuda
from course.compiled import compiled
from course.device import Array, empty_like, fill, floats, launch, on_cpu, same_shape
from course.engine.elementary import normal, sigmoid
from course.layers.base import Layer

NARROW = sqrt(0.5)  # P(a) = erfc(-NARROW * a) / 2
PEAK = 1 / sqrt(2 * pi)  # P'(0)
TWICE = 2 * sqrt(2 / pi)  # 2u = TWICE * (a + CUBIC * a^3)
CUBIC = 0.044715
FAR = 30  # from here on P is 0 or 1, and a^3 could overflow


@compiled
def _y_cpu(y, x, first, past):
    """Equation (1); a thread has elements."""
    y, x = y[first:past], x[first:past]
    for k in range(y.size):
        below, _ = normal(x[k])
        y[k] = x[k] * below


@compiled
def _dx_cpu(dx, dy, x, peak, first, past):
    """Equation (2); a thread has elements."""
    dx, dy, x = dx[first:past], dy[first:past], x[first:past]
    for k in range(dx.size):
        below, bell = normal(x[k])
        dx[k] = dy[k] * (below + x[k] * (peak * bell))


@cuda.jit
def _y_cuda(y, x):
    """Equation (1); a thread has elements."""
    half, narrow = x.dtype.type(0.5), x.dtype.type(NARROW)
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = x[k] * (half * math.erfc(-narrow * x[k]))


@cuda.jit
def _dx_cuda(dx, dy, x):
    """Equation (2); a thread has elements."""
    half, narrow, peak = x.dtype.type(0.5), x.dtype.type(NARROW), x.dtype.type(PEAK)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        below = half * math.erfc(-narrow * x[k])
        bell = math.exp(-half * x[k] * x[k])
        dx[k] = dy[k] * (below + x[k] * (peak * bell))


@compiled
def _y_cpu_tanh(y, x, twice, cubic, first, past):
    """Equation (1) with tanh; a thread has elements."""
    y, x = y[first:past], x[first:past]
    far = x.dtype.type(FAR)
    for k in range(y.size):
        a = -far if x[k] < -far else x[k]
        a = far if a > far else a
        y[k] = x[k] * sigmoid(twice * (a + cubic * a * a * a))


@compiled
def _dx_cpu_tanh(dx, dy, x, twice, cubic, first, past):
    """Equation (2) with tanh; a thread has elements."""
    dx, dy, x = dx[first:past], dy[first:past], x[first:past]
    one, three, far = x.dtype.type(1), x.dtype.type(3), x.dtype.type(FAR)
    for k in range(dx.size):
        a = -far if x[k] < -far else x[k]
        a = far if a > far else a
        gate = sigmoid(twice * (a + cubic * a * a * a))
        slope = twice * (one + three * cubic * a * a) * gate * (one - gate)
        dx[k] = dy[k] * (gate + x[k] * slope)


@cuda.jit
def _y_cuda_tanh(y, x):
    """Equation (1) with tanh; a thread has elements."""
    one, twice, cubic = x.dtype.type(1), x.dtype.type(TWICE), x.dtype.type(CUBIC)
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        a = x[k]
        y[k] = a / (one + math.exp(-twice * (a + cubic * a * a * a)))


@cuda.jit
def _dx_cuda_tanh(dx, dy, x):
    """Equation (2) with tanh; a thread has elements."""
    one, twice, cubic = x.dtype.type(1), x.dtype.type(TWICE), x.dtype.type(CUBIC)
    three, far = x.dtype.type(3), x.dtype.type(FAR)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        a = -far if x[k] < -far else x[k]
        a = far if a > far else a
        gate = one / (one + math.exp(-twice * (a + cubic * a * a * a)))
        slope = twice * (one + three * cubic * a * a) * gate * (one - gate)
        dx[k] = dy[k] * (gate + x[k] * slope)


def _by_tanh(approximate):
    """Return whether P is the one with tanh, or say what cannot be."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f'approximate must be "none" or "tanh", not {approximate!r}')
    return approximate == "tanh"


def gelu_forward(x: Array, approximate: str = "none") -> Array:
    """Return y of equation (1), in the shape and dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for an
    approximation that is neither "none" nor "tanh".

    >>> gelu_forward(np.array([0.0, 1.0, -1.0, 10.0])).round(6)
    array([ 0.      ,  0.841345, -0.158655, 10.      ])
    """
    x = floats("x", x, "any")
    y, by_tanh = empty_like(x), _by_tanh(approximate)
    arrays = y.reshape(-1), x.reshape(-1)
    if not on_cpu(x):
        launch(_y_cuda_tanh if by_tanh else _y_cuda, x.size, *arrays)
    elif by_tanh:
        fill(_y_cpu_tanh, x.size, *arrays, x.dtype.type(TWICE), x.dtype.type(CUBIC))
    else:
        fill(_y_cpu, x.size, *arrays)
    return y


def gelu_backward(dy: Array, x: Array, approximate: str = "none") -> Array:
    """Return dx of equation (2), in the shape and dtype of x.

    Raises as forward does, and ValueError if dy has not the shape of x.

    >>> gelu_backward(np.array([8.0, 8.0]), np.array([0.0, 1000.0]))
    array([4., 8.])
    """
    x = floats("x", x, "any")
    dy = floats("dy", dy, "any", x)
    same_shape("dy", dy, x.shape, "the shape of x")
    dx, by_tanh = empty_like(x), _by_tanh(approximate)
    arrays = dx.reshape(-1), dy.reshape(-1), x.reshape(-1)
    if not on_cpu(x):
        launch(_dx_cuda_tanh if by_tanh else _dx_cuda, x.size, *arrays)
    elif by_tanh:
        fill(_dx_cpu_tanh, x.size, *arrays, x.dtype.type(TWICE), x.dtype.type(CUBIC))
    else:
        fill(_dx_cpu, x.size, *arrays, x.dtype.type(PEAK))
    return dx


class GELU(Layer):
    """GELU as a layer; it learns nothing.

    approximate is "none", or "tanh" for the faster formula of GPT-2. Raises ValueError for
    anything else.
    """

    def __init__(self, approximate: str = "none"):
        super().__init__()
        _by_tanh(approximate)  # refuses what is neither
        self.approximate = approximate

    def forward(self, x: Array) -> Array:
        y = gelu_forward(x, self.approximate)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        return gelu_backward(dy, self.remembered("x"), self.approximate)
