"""Optimizers: how a gradient changes the weights.

Equations of SGD with momentum, in PyTorch's form

    (1)  g[k] = dw[k] + weight_decay * w[k]
    (2)  m[k] = momentum * m[k] + g[k]
    (3)  w[k] = w[k] - learning_rate * m[k]

    m starts at the first g. weight_decay is lambda of the loss term (lambda/2)*|w|^2;
    biases are left out of it.

Lecture: lectures/05_learning_as_search.ipynb.  Symbols: GLOSSARY.md.
Source: Robbins & Monro, Ann. Math. Stat. 22 (1951); Polyak, USSR Comp. Math. 4 (1964);
Sutskever et al., ICML 2013; as torch.optim.SGD.
"""

from collections.abc import Iterable

import numpy as np

from course.compiled import compiled
from course.device import fill
from course.layers.base import Layer


@compiled
def _w_cpu(w, m, dw, learning_rate, momentum, weight_decay, first, past):
    """Equations (1) to (3), in place; a thread has elements."""
    w, m, dw = w[first:past], m[first:past], dw[first:past]
    for k in range(w.size):
        m[k] = momentum * m[k] + (dw[k] + weight_decay * w[k])
        w[k] -= learning_rate * m[k]


class SGD:
    """Stochastic gradient descent with momentum and L2 weight decay.

    Raises ValueError for a learning rate that is not positive, a momentum outside [0, 1)
    or a negative weight decay.

    Attributes
    ----------
    learning_rate : may be changed between steps, by a schedule
    """

    def __init__(
        self, learning_rate: float, momentum: float = 0.0, weight_decay: float = 0.0
    ):
        if not 0 < learning_rate < np.inf:
            raise ValueError(f"learning_rate must be positive, not {learning_rate}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        if not 0 <= weight_decay < np.inf:
            raise ValueError(f"weight_decay must not be negative, it is {weight_decay}")
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self._velocity: dict[tuple[int, str], np.ndarray] = {}

    def step(self, layers: Iterable[Layer]) -> None:
        """Change every parameter of the layers by its gradient, in place."""
        for position, layer in enumerate(layers):
            for name, w in layer.params.items():
                if name not in layer.grads:
                    raise RuntimeError(
                        f"layer {position} ({type(layer).__name__}) has no gradient of "
                        f"{name}: call backward before step"
                    )
                key = position, name
                if key not in self._velocity:
                    self._velocity[key] = np.zeros_like(w)
                decay = 0.0 if name == "bias" else self.weight_decay
                number = w.dtype.type  # a float64 rate would turn the loop into float64
                fill(
                    _w_cpu,
                    w.size,
                    w.reshape(-1),
                    self._velocity[key].reshape(-1),
                    layer.grads[name].reshape(-1),
                    number(self.learning_rate),
                    number(self.momentum),
                    number(decay),
                )
