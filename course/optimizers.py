"""Optimizers: how a gradient changes the weights.

Equations of SGD with momentum, in PyTorch's form

    (1)  g[k] = dw[k] + weight_decay * w[k]
    (2)  m[k] = momentum * m[k] + g[k]
    (3)  w[k] = w[k] - learning_rate * m[k]

Equations of Adam, which also begins with (1)

    (4)  m[k] = beta1 * m[k] + (1 - beta1) * g[k]
    (5)  v[k] = beta2 * v[k] + (1 - beta2) * g[k]^2
    (6)  w[k] = w[k] - learning_rate * (m[k] / (1 - beta1^step))
                       / (sqrt(v[k] / (1 - beta2^step)) + eps)

    at step 1, 2, ... of the parameter. m and v start at 0; SGD's m so becomes the first
    g, and Adam divides by what a mean of so few numbers lacks. weight_decay is lambda of
    the loss term (lambda/2)*|w|^2; biases and the scales of normalisation
    are left out of it.

Lecture: lectures/05_learning_as_search.ipynb.  Symbols: GLOSSARY.md.
Source: Robbins & Monro, Ann. Math. Stat. 22 (1951); Polyak, USSR Comp. Math. 4 (1964);
Sutskever et al., ICML 2013; as torch.optim.SGD. Kingma & Ba, ICLR 2015; as
torch.optim.Adam.
"""

from collections.abc import Iterable
from math import sqrt

import numpy as np

from course.compiled import compiled
from course.device import Array, fill
from course.layers.base import Layer


@compiled
def _w_cpu(w, m, dw, learning_rate, momentum, weight_decay, first, past):
    """Equations (1) to (3), in place; a thread has elements.

    The rates are float64 and would turn the loop into it: so they get the dtype of w.
    """
    real = w.dtype.type
    rate, inertia, decay = real(learning_rate), real(momentum), real(weight_decay)
    w, m, dw = w[first:past], m[first:past], dw[first:past]
    for k in range(w.size):
        m[k] = inertia * m[k] + (dw[k] + decay * w[k])
        w[k] -= rate * m[k]


@compiled
def _w_cpu_adam(
    w, m, v, dw, learning_rate, beta1, beta2, eps, weight_decay, step, first, past
):
    """Equations (1) and (4) to (6), in place; a thread has elements.

    What is the same for all elements is computed in float64 and then gets the dtype of w.
    """
    real = w.dtype.type
    rate = real(learning_rate / (1 - beta1**step))
    root, eps = real(1 / sqrt(1 - beta2**step)), real(eps)
    beta1, rest1, beta2, rest2 = real(beta1), real(1 - beta1), real(beta2), real(1 - beta2)
    decay = real(weight_decay)
    w, m, v, dw = w[first:past], m[first:past], v[first:past], dw[first:past]
    for k in range(w.size):
        g = dw[k] + decay * w[k]
        m[k] = beta1 * m[k] + rest1 * g
        v[k] = beta2 * v[k] + rest2 * g * g
        w[k] -= rate * m[k] / (root * sqrt(v[k]) + eps)


class Optimizer:
    """What every optimizer does: go through the layers, and remember for each parameter.

    Attributes
    ----------
    learning_rate : may be changed between steps, by a schedule
    """

    def __init__(self, learning_rate: float, weight_decay: float):
        if not 0 < learning_rate < np.inf:
            raise ValueError(f"learning_rate must be positive, not {learning_rate}")
        if not 0 <= weight_decay < np.inf:
            raise ValueError(f"weight_decay must not be negative, it is {weight_decay}")
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self._memory: dict[tuple[int, str], dict] = {}

    def step(self, layers: Iterable[Layer]) -> None:
        """Change every parameter of the layers by its gradient, in place."""
        leaves = (leaf for layer in layers for _, leaf in layer.leaves())
        for position, layer in enumerate(leaves):
            for name, w in layer.params.items():
                if name not in layer.grads:
                    raise RuntimeError(
                        f"layer {position} ({type(layer).__name__}) has no gradient of "
                        f"{name}: call backward before step"
                    )
                decay = 0.0 if name in layer.undecayed else self.weight_decay
                memory = self._memory.setdefault((position, name), {})
                self._change(w, layer.grads[name], decay, memory)

    def _change(self, w: Array, dw: Array, decay: float, memory: dict) -> None:
        """Change one parameter; `memory` is empty before its first step."""
        raise NotImplementedError


class SGD(Optimizer):
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
        super().__init__(learning_rate, weight_decay)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        self.momentum = momentum

    def _change(self, w: Array, dw: Array, decay: float, memory: dict) -> None:
        if not memory:
            memory["m"] = np.zeros(w.size, w.dtype)
        rates = float(self.learning_rate), float(self.momentum), float(decay)
        arrays = w.reshape(-1), memory["m"], dw.reshape(-1)
        fill(_w_cpu, w.size, *arrays, *rates, steps=3 * w.size)


class Adam(Optimizer):
    """Adam: steps that adapt to how large each gradient has been, with L2 weight decay.

    Raises ValueError for a learning rate that is not positive, betas outside [0, 1), an
    eps that is not positive or a negative weight decay.

    Attributes
    ----------
    learning_rate : may be changed between steps, by a schedule
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(learning_rate, weight_decay)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers in [0, 1), not {betas}")
        if not 0 < eps < np.inf:
            raise ValueError(f"eps must be positive, not {eps}")
        self.betas = betas
        self.eps = eps

    def _change(self, w: Array, dw: Array, decay: float, memory: dict) -> None:
        if not memory:
            memory |= {"step": 0, "m": np.zeros(w.size, w.dtype)}
            memory["v"] = np.zeros(w.size, w.dtype)
        memory["step"] += 1
        rates = self.learning_rate, *self.betas, self.eps, decay, memory["step"]
        arrays = w.reshape(-1), memory["m"], memory["v"], dw.reshape(-1)
        fill(_w_cpu_adam, w.size, *arrays, *map(float, rates), steps=8 * w.size)
