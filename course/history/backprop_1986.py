"""XOR by back-propagation: both layers learn, with sigmoid units and squared errors.

One pattern p of the 1986 paper has the error E_p = 1/2 sum over j of (t_j - o_j)^2, and

    dE_p/dw_ji = dE_p/do_j * do_j/dw_ji

with o_j the output of unit j, w_ji its weight from unit i. Layer after layer, from the last
to the first, that is what `backward` of Linear and Sigmoid computes: nothing here is
special to 1986 but the units, the error and the momentum.

The rule was not new: Linnainmaa (1970) has reverse-mode differentiation, Werbos (1974)
proposed it for networks. This paper made it popular, and showed that the hidden units come
to stand for something.

Lecture: lectures/04_history.ipynb.
Source: Rumelhart, Hinton & Williams, "Learning internal representations by error
propagation", in Parallel Distributed Processing 1 (1986), chapter 8; and Nature 323 (1986).
"""

from dataclasses import dataclass

import numpy as np

from course.device import Array
from course.layers import Linear, Sigmoid
from course.losses import mean_squared_error
from course.model import Sequential
from course.optimizers import SGD
from course.shapes import integer

XOR_X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
XOR_T = np.array([[0], [1], [1], [0]], np.float32)


@dataclass(frozen=True)
class Learned:
    """A network for XOR and how it came to be.

    Attributes
    ----------
    model : Linear, Sigmoid, Linear, Sigmoid
    losses : (sweeps,) float, the mean squared error before each sweep's step
    solved : every output is within 0.1 of its target
    """

    model: Sequential
    losses: Array
    solved: bool


def learn_xor(
    hidden: int = 2,
    *,
    seed: int,
    learning_rate: float = 1.0,
    momentum: float = 0.9,
    spread: float = 0.3,
    sweeps: int = 3000,
) -> Learned:
    """Return a network of so many hidden units, trained until it has learned XOR.

    Weights and biases start uniform between -spread and spread. Each step follows the
    gradient over all four patterns. It ends when every output is within 0.1 of its target,
    or after `sweeps`: two hidden units may get stuck, more often so from a wide spread.
    Raises TypeError or ValueError for numbers that make no sense.

    >>> learn_xor(seed=0).model.forward(XOR_X).round().ravel()
    array([0., 1., 1., 0.], dtype=float32)
    """
    rng = np.random.default_rng(seed)
    hidden = integer("hidden", hidden, 1)
    first, second = Linear(2, hidden, rng=rng), Linear(hidden, 1, rng=rng)
    model = Sequential(first, Sigmoid(), second, Sigmoid())
    for array in model.params.values():
        array[...] = rng.uniform(-spread, spread, array.shape)
    optimizer, losses, solved = SGD(learning_rate, momentum), [], False
    while not solved and len(losses) < sweeps:
        y = model.forward(XOR_X)
        loss, dy = mean_squared_error(y, XOR_T)
        losses.append(loss)
        solved = bool((abs(y - XOR_T) < 0.1).all())
        if not solved:
            model.learn(dy)
            optimizer.step(model.layers)
    return Learned(model, np.array(losses), solved)
