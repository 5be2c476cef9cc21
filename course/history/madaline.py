"""Madaline, many Adalines: a vote decides, and the least sure of the losers learns.

Equations

    (1)  s[n,o] = b[o] + sum over k of w[o,k] * x[n,k]
    (2)  y[n]   = 1 if more than half of the s[n,o] are positive, and -1 otherwise
    (3)  w[o,k] = w[o,k] + alpha * (t[n] - s[n,o]) * x[n,k] / (|x[n]|^2 + 1)
    (4)  b[o]   = b[o]   + alpha * (t[n] - s[n,o]) / (|x[n]|^2 + 1)

    one sample n after the other. (3) and (4) are only for as many units o as have to
    change sides to turn a wrong vote: of those that voted wrongly, the ones whose s is
    nearest to 0. Where the vote is right, nothing changes. alpha is the learning rate.

Shapes

    x       (N, I)   float
    t, y    (N,)     float; 1 or -1
    s       (N, O)   float; O units, an odd number
    w       (O, I)   float
    b       (O,)     float

Edges: of two units that are equally sure, the first learns. With alpha = 1 a step moves a
sum all the way to t.

In 1962 nobody could train two layers that both adapt. So the second one, the vote, is
fixed, and hands its wish down by the principle of least disturbance: change as little as
will do. This is Madaline Rule I.

Lecture: lectures/04_history.ipynb.  Symbols: GLOSSARY.md.
Source: Widrow & Hoff, IRE WESCON Convention Record 4 (1960); Ridgway, Stanford
Electronics Laboratories TR 1556-1 (1962); Widrow & Lehr, Proc. IEEE 78 (1990), section
"Madaline Rule I".
"""

from typing import Any

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats, number, same_shape
from course.history.order import generator, presented
from course.layers import linear_forward
from course.shapes import integer


@compiled
def _w_cpu(w, b, x, t, order, mistakes, alpha, first, past):
    """Equations (1) to (4) for one sample after the other.

    One thread has all units, as they learn from a vote that all of them cast.
    """
    O, I = w.shape
    s = np.empty(O, w.dtype)
    mistakes[first:past] = 0
    for n in order:
        votes, squares = 0, w.dtype.type(1)
        for k in range(I):
            squares += x[n, k] * x[n, k]
        for o in range(O):
            s[o] = b[o]
            for k in range(I):
                s[o] += w[o, k] * x[n, k]
            votes += (s[o] > 0) == (t[n] > 0)
        mistakes[0] += votes <= O // 2
        while votes <= O // 2:
            least = -1
            for o in range(O):
                wrong = (s[o] > 0) != (t[n] > 0)
                if wrong and (least < 0 or abs(s[o]) < abs(s[least])):
                    least = o
            step = w.dtype.type(alpha) * (t[n] - s[least]) / squares
            b[least] += step
            for k in range(I):
                w[least, k] += step * x[n, k]
            s[least] = t[n]  # it has had its turn
            votes += 1


class Madaline:
    """Adalines that vote, with weight (O, I) and bias (O,), which start small and random.

    They start uniform between -0.5 and 0.5, drawn from rng: units that began alike would
    stay alike. Raises TypeError or ValueError for sizes below 1, an even number of units,
    or a rate outside 0 to 2, where a step no longer brings the sum nearer to t.

    >>> x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], np.float32)
    >>> t, rng = np.array([-1.0, 1.0, 1.0, -1.0], np.float32), np.random.default_rng(0)
    >>> model = Madaline(2, 3, rng=rng)
    >>> mistakes = model.fit(x, t, epochs=100, rng=rng)
    >>> int(mistakes[-1]), model(x)
    (0, array([-1.,  1.,  1., -1.], dtype=float32))
    """

    def __init__(
        self,
        in_features: int,
        units: int = 3,
        learning_rate: float = 0.5,
        *,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ):
        I, O = integer("in_features", in_features, 1), integer("units", units, 1)
        if O % 2 == 0:
            raise ValueError(f"units is {O}; a vote needs an odd number")
        self.learning_rate = number("learning_rate", learning_rate)
        if not 0 < self.learning_rate < 2:
            raise ValueError(f"learning_rate must be between 0 and 2, not {learning_rate}")
        self.weight = generator(rng).uniform(-0.5, 0.5, (O, I)).astype(dtype)
        self.bias = rng.uniform(-0.5, 0.5, O).astype(dtype)

    def scores(self, x: Array) -> Array:
        """Return the sums of equation (1), (N, O)."""
        return linear_forward(x, self.weight, self.bias)

    def __call__(self, x: Array) -> Array:
        """Return the outcome of the vote, equation (2), (N,), as 1 and -1."""
        votes = np.where(self.scores(x) > 0, 1, -1).sum(axis=1)
        return np.sign(votes).astype(x.dtype)

    def learn(self, x: Array, t: Array, rng: np.random.Generator | None = None) -> int:
        """See every sample once, in an order drawn from rng or their own.

        Returns how many votes were wrong. Raises TypeError or ValueError for arrays that
        do not fit, or answers other than 1 and -1.
        """
        x = floats("x", x, "(N, I)", self.weight.dtype)
        t = floats("t", t, "(N,)", x.dtype)
        I = self.weight.shape[1]
        same_shape("x", x, (len(x), I), f"{I} inputs for each sample")
        same_shape("t", t, (len(x),), "an answer for each sample")
        if not (abs(t) == 1).all():
            raise ValueError("t must hold 1 and -1 only")
        mistakes = np.zeros(1, np.int64)
        arrays = self.weight, self.bias, x, t, presented(len(x), rng), mistakes
        fill(_w_cpu, 1, *arrays, self.learning_rate)
        return int(mistakes[0])

    def fit(
        self, x: Array, t: Array, *, epochs: int, rng: np.random.Generator | None = None
    ) -> Array:
        """Learn until an epoch without mistakes; return those of each, (epochs,) int."""
        mistakes = []
        for _ in range(integer("epochs", epochs, 1)):
            mistakes.append(self.learn(x, t, rng))
            if not mistakes[-1]:
                break
        return np.array(mistakes)
