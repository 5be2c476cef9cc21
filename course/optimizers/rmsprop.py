"""RMSprop: Adagrad that forgets, so that its steps do not become ever shorter.

Equations

    (1)  g[k]    = dw[k] + weight_decay * w[k]
    (2)  v[k]    = alpha * v[k] + (1 - alpha) * g[k]^2
    (3)  mean[k] = alpha * mean[k] + (1 - alpha) * g[k]
    (4)  m[k]    = momentum * m[k] + g[k] / (sqrt(spread) + eps)
    (5)  w[k]    = w[k] - learning_rate * m[k]

    spread is v[k] or, with centered=True, the variance v[k] - mean[k]^2, which is not let
    fall below 0 by rounding. v, mean and m start at 0. weight_decay is that of SGD.

Lecture: lectures/05_learning_as_search.ipynb.  Symbols: GLOSSARY.md.
Source: Tieleman & Hinton, "Neural Networks for Machine Learning", lecture 6.5 (2012);
centered: Graves, arXiv 1308.0850 (2013); as torch.optim.RMSprop.
"""

import math
from math import sqrt

from course import cuda
from course.compiled import compiled
from course.device import Array, fill, launch, on_cpu
from course.optimizers.base import Optimizer, below_one, positive


@compiled
def _w_cpu(
    w, v, mean, m, dw, learning_rate, alpha, eps, momentum, centered, weight_decay,
    first, past,
):  # fmt: skip
    """Equations (1) to (5), in place; a thread has elements."""
    real = w.dtype.type
    rate, inertia, decay = real(learning_rate), real(momentum), real(weight_decay)
    alpha, rest, eps, zero = real(alpha), real(1 - alpha), real(eps), real(0)
    w, v, mean = w[first:past], v[first:past], mean[first:past]
    m, dw = m[first:past], dw[first:past]
    for k in range(w.size):
        g = dw[k] + decay * w[k]
        v[k] = alpha * v[k] + rest * g * g
        mean[k] = alpha * mean[k] + rest * g
        spread = max(v[k] - mean[k] * mean[k], zero) if centered else v[k]
        m[k] = inertia * m[k] + g / (sqrt(spread) + eps)
        w[k] -= rate * m[k]


@cuda.jit
def _w_cuda(w, v, mean, m, dw, rate, alpha, rest, eps, inertia, decay, centered):
    """Equations (1) to (5), in place; a thread has elements."""
    zero = w.dtype.type(0)
    for k in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        g = dw[k] + decay * w[k]
        v[k] = alpha * v[k] + rest * g * g
        mean[k] = alpha * mean[k] + rest * g
        spread = max(v[k] - mean[k] * mean[k], zero) if centered else v[k]
        m[k] = inertia * m[k] + g / (math.sqrt(spread) + eps)
        w[k] -= rate * m[k]


class RMSprop(Optimizer):
    """RMSprop: gradients are divided by their root mean square of late.

    Raises ValueError for a learning rate or an eps that is not positive, an alpha or a
    momentum outside [0, 1), or a negative weight decay.

    Attributes
    ----------
    learning_rate : may be changed between steps, by a schedule
    """

    _kept = ("v", "mean", "m")

    def __init__(
        self,
        learning_rate: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ):
        super().__init__(learning_rate, weight_decay)
        self.alpha = below_one("alpha", alpha)
        self.eps = positive("eps", eps)
        self.momentum = below_one("momentum", momentum)
        self.centered = bool(centered)

    def _change(
        self, dw: Array, rate: float, decay: float, step: int, w: Array, *kept: Array
    ) -> None:
        if on_cpu(w):
            rates = rate, self.alpha, self.eps, self.momentum, self.centered, decay
            fill(_w_cpu, w.size, w, *kept, dw, *rates, steps=8 * w.size)
        else:
            rates = rate, self.alpha, 1 - self.alpha, self.eps, self.momentum, decay
            rates = map(w.dtype.type, rates)
            launch(_w_cuda, w.size, w, *kept, dw, *rates, self.centered)
