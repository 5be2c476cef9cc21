"""Adadelta: steps in the unit of the weights, so that no learning rate must be found.

Equations

    (1)  g[k]     = dw[k] + weight_decay * w[k]
    (2)  v[k]     = rho * v[k] + (1 - rho) * g[k]^2
    (3)  d[k]     = sqrt(moved[k] + eps) / sqrt(v[k] + eps) * g[k]
    (4)  moved[k] = rho * moved[k] + (1 - rho) * d[k]^2
    (5)  w[k]     = w[k] - learning_rate * d[k]

    v and moved start at 0: the first steps are of the length of sqrt(eps). weight_decay
    is that of SGD. ConvNetJS has rho = 0.95 and eps = 1e-6 (in later versions 1e-8), its
    CIFAR-10 demo weight_decay = 1e-4.

Lecture: lectures/05_learning_as_search.ipynb.  Symbols: GLOSSARY.md.
Source: Zeiler, arXiv 1212.5701 (2012); as torch.optim.Adadelta.
"""

import math
from math import sqrt

from course import cuda
from course.compiled import compiled
from course.device import Array, fill, launch, on_cpu
from course.optimizers.base import Optimizer, below_one, positive


@compiled
def _w_cpu(w, v, moved, dw, learning_rate, rho, eps, weight_decay, first, past):
    """Equations (1) to (5), in place; a thread has elements."""
    real = w.dtype.type
    rate, decay, eps = real(learning_rate), real(weight_decay), real(eps)
    rho, rest = real(rho), real(1 - rho)
    w, v, moved, dw = w[first:past], v[first:past], moved[first:past], dw[first:past]
    for k in range(w.size):
        g = dw[k] + decay * w[k]
        v[k] = rho * v[k] + rest * g * g
        d = sqrt(moved[k] + eps) / sqrt(v[k] + eps) * g
        moved[k] = rho * moved[k] + rest * d * d
        w[k] -= rate * d


@cuda.jit
def _w_cuda(w, v, moved, dw, rate, rho, rest, eps, decay):
    """Equations (1) to (5), in place; a thread has elements."""
    for k in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        g = dw[k] + decay * w[k]
        v[k] = rho * v[k] + rest * g * g
        d = math.sqrt(moved[k] + eps) / math.sqrt(v[k] + eps) * g
        moved[k] = rho * moved[k] + rest * d * d
        w[k] -= rate * d


class Adadelta(Optimizer):
    """Adadelta: gradients are scaled to steps as long as those before them.

    Raises ValueError for a learning rate or an eps that is not positive, a rho outside
    [0, 1), or a negative weight decay.

    Attributes
    ----------
    learning_rate : may be changed between steps, by a schedule
    """

    _kept = ("v", "moved")

    def __init__(
        self,
        learning_rate: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ):
        super().__init__(learning_rate, weight_decay)
        self.rho = below_one("rho", rho)
        self.eps = positive("eps", eps)

    def _change(
        self, dw: Array, rate: float, decay: float, step: int, w: Array, *kept: Array
    ) -> None:
        if on_cpu(w):
            rates = rate, self.rho, self.eps, decay
            fill(_w_cpu, w.size, w, *kept, dw, *rates, steps=8 * w.size)
        else:
            rates = map(w.dtype.type, (rate, self.rho, 1 - self.rho, self.eps, decay))
            launch(_w_cuda, w.size, w, *kept, dw, *rates)
