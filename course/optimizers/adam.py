"""Adam and AdamW: momentum, and steps that adapt to how large each gradient has been.

Equations

    (1)  g[k] = dw[k] + weight_decay * w[k]      Adam; in AdamW g[k] = dw[k]
    (2)  m[k] = beta1 * m[k] + (1 - beta1) * g[k]
    (3)  v[k] = beta2 * v[k] + (1 - beta2) * g[k]^2
    (4)  w[k] = shrink * w[k] - learning_rate * (m[k] / (1 - beta1^step))
                                / (sqrt(v[k] / (1 - beta2^step)) + eps)

    at step 1, 2, ... of the parameter. m and v start at 0, and (4) divides by what a mean
    of so few numbers lacks. shrink is 1 in Adam. In AdamW, where weights decay apart from
    their gradients, it is 1 - learning_rate * weight_decay. Biases and the scales of
    normalisation do not decay.

Lecture: lectures/05_learning_as_search.ipynb.  Symbols: GLOSSARY.md.
Source: Kingma & Ba, ICLR 2015, as torch.optim.Adam; Loshchilov & Hutter, ICLR 2019, as
torch.optim.AdamW.
"""

import math
from math import sqrt

import numpy as np

from course import cuda
from course.compiled import compiled
from course.device import Array, fill, launch, on_cpu
from course.optimizers.base import Optimizer, positive


@compiled
def _w_cpu(
    w,
    m,
    v,
    dw,
    learning_rate,
    beta1,
    beta2,
    eps,
    weight_decay,
    shrink,
    step,
    first,
    past,
):
    """Equations (1) to (4), in place; a thread has elements.

    What is the same for all elements is computed in float64 and then gets the dtype of w.
    """
    real = w.dtype.type
    rate = real(learning_rate / (1 - beta1**step))
    root, eps = real(1 / sqrt(1 - beta2**step)), real(eps)
    beta1, rest1, beta2, rest2 = (
        real(beta1),
        real(1 - beta1),
        real(beta2),
        real(1 - beta2),
    )
    decay, shrink = real(weight_decay), real(shrink)
    w, m, v, dw = w[first:past], m[first:past], v[first:past], dw[first:past]
    for k in range(w.size):
        g = dw[k] + decay * w[k]
        m[k] = beta1 * m[k] + rest1 * g
        v[k] = beta2 * v[k] + rest2 * g * g
        w[k] = shrink * w[k] - rate * m[k] / (root * sqrt(v[k]) + eps)


@cuda.jit
def _w_cuda(w, m, v, dw, rate, root, beta1, rest1, beta2, rest2, eps, decay, shrink):
    """Equations (1) to (4), in place; a thread has elements.

    rate is learning_rate / (1 - beta1^step), and root is 1 / sqrt(1 - beta2^step).
    """
    for k in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        g = dw[k] + decay * w[k]
        m[k] = beta1 * m[k] + rest1 * g
        v[k] = beta2 * v[k] + rest2 * g * g
        w[k] = shrink * w[k] - rate * m[k] / (root * math.sqrt(v[k]) + eps)


class Adam(Optimizer):
    """Adam: steps that adapt to how large each gradient has been, with L2 weight decay.

    Raises ValueError for a learning rate that is not positive, betas outside [0, 1), an
    eps that is not positive or a negative weight decay.

    Attributes
    ----------
    learning_rate : may be changed between steps, by a schedule
    """

    _kept = ("m", "v")
    _apart = False  # weights decay apart from their gradients

    def __init__(
        self,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(learning_rate, weight_decay)
        if np.shape(betas) != (2,) or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers in [0, 1), not {betas}")
        self.betas = float(betas[0]), float(betas[1])
        self.eps = positive("eps", eps)

    def _change(
        self, dw: Array, rate: float, decay: float, step: int, w: Array, *kept: Array
    ) -> None:
        decay, shrink = (0.0, 1 - rate * decay) if self._apart else (decay, 1.0)
        beta1, beta2 = self.betas
        if on_cpu(w):
            rates = rate, beta1, beta2, self.eps, decay, shrink, float(step)
            fill(_w_cpu, w.size, w, *kept, dw, *rates, steps=8 * w.size)
        else:
            rates = rate / (1 - beta1**step), 1 / sqrt(1 - beta2**step)
            rates += beta1, 1 - beta1, beta2, 1 - beta2, self.eps, decay, shrink
            launch(_w_cuda, w.size, w, *kept, dw, *map(w.dtype.type, rates))


class AdamW(Adam):
    """Adam whose weights decay apart from their gradients, by learning_rate * weight_decay.

    Raises as Adam does.

    Attributes
    ----------
    learning_rate : may be changed between steps, by a schedule
    """

    _apart = True

    def __init__(
        self,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(learning_rate, betas, eps, weight_decay)
