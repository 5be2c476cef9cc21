"""Adagrad: a weight that has moved much moves less from now on.

Equations

    (1)  g[k] = dw[k] + weight_decay * w[k]
    (2)  v[k] = v[k] + g[k]^2
    (3)  w[k] = w[k] - rate * g[k] / (sqrt(v[k]) + eps)

    with rate = learning_rate / (1 + (step - 1) * lr_decay) at step 1, 2, ... of the
    parameter. v starts at 0 and only grows: the steps become ever shorter. weight_decay
    is that of SGD.

Lecture: lectures/05_learning_as_search.ipynb.  Symbols: GLOSSARY.md.
Source: Duchi, Hazan & Singer, JMLR 12 (2011); as torch.optim.Adagrad.
"""

import math
from math import sqrt

from course import cuda
from course.compiled import compiled
from course.device import Array, fill, launch, on_cpu
from course.optimizers.base import Optimizer, not_negative, positive


@compiled
def _w_cpu(w, v, dw, rate, eps, weight_decay, first, past):
    """Equations (1) to (3), in place; a thread has elements."""
    real = w.dtype.type
    rate, eps, decay = real(rate), real(eps), real(weight_decay)
    w, v, dw = w[first:past], v[first:past], dw[first:past]
    for k in range(w.size):
        g = dw[k] + decay * w[k]
        v[k] += g * g
        w[k] -= rate * g / (sqrt(v[k]) + eps)


@cuda.jit
def _w_cuda(w, v, dw, rate, eps, decay):
    """Equations (1) to (3), in place; a thread has elements."""
    for k in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        g = dw[k] + decay * w[k]
        v[k] += g * g
        w[k] -= rate * g / (math.sqrt(v[k]) + eps)


class Adagrad(Optimizer):
    """Adagrad: each weight's rate is divided by the root of all its squared gradients.

    Raises ValueError for a learning rate or an eps that is not positive, or a negative
    lr_decay or weight decay.

    Attributes
    ----------
    learning_rate : may be changed between steps, by a schedule
    """

    _kept = ("v",)

    def __init__(
        self,
        learning_rate: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        eps: float = 1e-10,
    ):
        super().__init__(learning_rate, weight_decay)
        self.lr_decay = not_negative("lr_decay", lr_decay)
        self.eps = positive("eps", eps)

    def _change(
        self, dw: Array, rate: float, decay: float, step: int, w: Array, *kept: Array
    ) -> None:
        rate /= 1 + (step - 1) * self.lr_decay
        rates = rate, self.eps, decay
        if on_cpu(w):
            fill(_w_cpu, w.size, w, *kept, dw, *rates, steps=8 * w.size)
        else:
            launch(_w_cuda, w.size, w, *kept, dw, *map(w.dtype.type, rates))
