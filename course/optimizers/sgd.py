"""Stochastic gradient descent, with momentum.

Equations

    (1)  g[k] = dw[k] + weight_decay * w[k]
    (2)  m[k] = momentum * m[k] + g[k]
    (3)  w[k] = w[k] - learning_rate * m[k]

    or, with nesterov=True, the step from where momentum is about to carry the weights:

    (4)  w[k] = w[k] - learning_rate * (g[k] + momentum * m[k])

    m starts at 0, and so first becomes g. weight_decay is lambda of the loss term
    (lambda/2)*|w|^2; biases and the scales of normalisation are left out of it.

Lecture: lectures/05_learning_as_search.ipynb.  Symbols: GLOSSARY.md.
Source: Robbins & Monro, Ann. Math. Stat. 22 (1951); Polyak, USSR Comp. Math. 4 (1964);
Nesterov, Soviet Math. Dokl. 27 (1983), in the form of Sutskever et al., ICML 2013; as
torch.optim.SGD.
"""

from course import cuda
from course.compiled import compiled
from course.device import Array, fill, launch, on_cpu
from course.optimizers.base import Optimizer, below_one


@compiled
def _w_cpu(w, m, dw, learning_rate, momentum, nesterov, weight_decay, first, past):
    """Equations (1) to (4), in place; a thread has elements.

    The rates are float64 and would turn the loop into it: so they get the dtype of w.
    """
    real = w.dtype.type
    rate, inertia, decay = real(learning_rate), real(momentum), real(weight_decay)
    w, m, dw = w[first:past], m[first:past], dw[first:past]
    for k in range(w.size):
        g = dw[k] + decay * w[k]
        m[k] = inertia * m[k] + g
        w[k] -= rate * (g + inertia * m[k] if nesterov else m[k])


@cuda.jit
def _w_cuda(w, m, dw, rate, inertia, decay, nesterov):
    """Equations (1) to (4), in place; a thread has elements."""
    for k in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        g = dw[k] + decay * w[k]
        m[k] = inertia * m[k] + g
        w[k] -= rate * (g + inertia * m[k] if nesterov else m[k])


class SGD(Optimizer):
    """Stochastic gradient descent with momentum and L2 weight decay.

    Raises ValueError for a learning rate that is not positive, a momentum outside [0, 1),
    a negative weight decay, or Nesterov's step without momentum.

    Attributes
    ----------
    learning_rate : may be changed between steps, by a schedule
    """

    _kept = ("m",)

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = False,
    ):
        super().__init__(learning_rate, weight_decay)
        self.momentum = below_one("momentum", momentum)
        self.nesterov = bool(nesterov)
        if nesterov and not momentum:
            raise ValueError("nesterov=True needs a momentum above 0, such as 0.9")

    def _change(
        self, dw: Array, rate: float, decay: float, step: int, w: Array, *kept: Array
    ) -> None:
        if on_cpu(w):
            rates = rate, self.momentum, self.nesterov, decay
            fill(_w_cpu, w.size, w, *kept, dw, *rates, steps=3 * w.size)
        else:
            rates = map(w.dtype.type, (rate, self.momentum, decay))
            launch(_w_cuda, w.size, w, *kept, dw, *rates, self.nesterov)
