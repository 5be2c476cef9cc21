"""Adaline, the adaptive linear neuron: it learns from the error of its sum.

Equations

    (1)  s[n,o] = b[o] + sum over k of w[o,k] * x[n,k]
    (2)  w[o,k] = w[o,k] + alpha * mean over n of (t[n,o] - s[n,o]) * x[n,k]
    (3)  b[o]   = b[o]   + alpha * mean over n of (t[n,o] - s[n,o])
    (4)  bound  = 2 / (largest eigenvalue of the mean over n of (x[n], 1) (x[n], 1)')

    the means are over one batch after the other. A batch of 1 is the rule of Widrow and
    Hoff, least mean squares (LMS); all samples in one batch is steepest descent. alpha
    is the learning rate. The answer to a choice of two is the sign of s.

Shapes

    x       (N, I)   float
    t       (N, O)   float; what the sums should be: 1 or -1 for a choice of two
    s       (N, O)   float
    w       (O, I)   float
    b       (O,)     float

Edges: weights start at 0. In one batch, learning ends at the least-squares solution if
alpha is below (4), and diverges above it. In batches of 1 the weights keep moving about
that solution, the less the smaller alpha is.

Where the perceptron asks whether the answer is right, Adaline asks how far the sum is
from what it should be: it learns from right answers too, and its error is a bowl with one
lowest point.

Lecture: lectures/04_history.ipynb.  Symbols: GLOSSARY.md.
Source: Widrow & Hoff, "Adaptive switching circuits", IRE WESCON Convention Record 4
(1960); (4) as in Widrow & Stearns, "Adaptive Signal Processing" (1985), chapter 4, where
the rate is 2*mu.
"""

from typing import Any

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats, number, same_shape
from course.history.order import presented
from course.layers import linear_forward
from course.shapes import integer


@compiled
def _w_cpu(w, b, loss, x, t, order, alpha, size, first, past):
    """Equations (1) to (3), and the squared errors on the way.

    A thread has units o.
    """
    N, I = x.shape
    step = np.empty(I, w.dtype)
    for o in range(first, past):
        loss[o] = 0
        for start in range(0, N, size):
            batch = order[start : start + size]
            rate = w.dtype.type(alpha / batch.size)
            step[:] = 0
            shift = w.dtype.type(0)
            for n in batch:
                total = b[o]
                for k in range(I):
                    total += w[o, k] * x[n, k]
                gap = t[n, o] - total
                loss[o] += gap * gap
                shift += gap
                for k in range(I):
                    step[k] += gap * x[n, k]
            b[o] += rate * shift
            for k in range(I):
                w[o, k] += rate * step[k]


class Adaline:
    """Linear units on the same inputs, with weight (O, I) and bias (O,), which start at 0.

    Raises TypeError or ValueError for sizes below 1 and a rate that is not positive.

    >>> x, t = np.array([[0.0], [1.0], [2.0]]), np.array([[-1.0], [1.0], [1.0]])
    >>> unit = Adaline(1, learning_rate=0.5, dtype=np.float64)
    >>> loss = unit.fit(x, t, epochs=200, batch_size=3)
    >>> unit.weight.round(6), unit.bias.round(6)
    (array([[1.]]), array([-0.666667]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int = 1,
        learning_rate: float = 0.01,
        *,
        dtype: Any = np.float32,
    ):
        I, O = (
            integer("in_features", in_features, 1),
            integer("out_features", out_features, 1),
        )
        self.learning_rate = number("learning_rate", learning_rate)
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, not {learning_rate}")
        self.weight, self.bias = np.zeros((O, I), dtype), np.zeros(O, dtype)

    def scores(self, x: Array) -> Array:
        """Return the sums of equation (1), (N, O)."""
        return linear_forward(x, self.weight, self.bias)

    def __call__(self, x: Array) -> Array:
        """Return the answers, (N, O), as 1 and -1."""
        return np.where(self.scores(x) > 0, 1, -1).astype(x.dtype)

    def learn(
        self,
        x: Array,
        t: Array,
        batch_size: int = 1,
        rng: np.random.Generator | None = None,
    ) -> Array:
        """See every sample once, in an order drawn from rng or their own.

        Returns each unit's mean squared error, (O,), every sample's before the step it
        was used for. Raises TypeError or ValueError for arrays that do not fit, and
        FloatingPointError when the error is no longer finite.
        """
        O, I = self.weight.shape
        x = floats("x", x, "(N, I)", self.weight.dtype)
        t = floats("t", t, "(N, O)", x.dtype)
        same_shape("x", x, (len(x), I), f"{I} inputs for each sample")
        same_shape("t", t, (len(x), O), "a number for each sample and unit")
        size = integer("batch_size", batch_size, 1)
        loss = np.empty(O)
        arrays = self.weight, self.bias, loss, x, t, presented(len(x), rng)
        fill(_w_cpu, O, *arrays, self.learning_rate, size, steps=2 * x.size * O)
        if not np.isfinite(loss).all():
            raise FloatingPointError(
                f"the error is {loss.max()}: learning has diverged; the learning rate is "
                f"{self.learning_rate:g}, and largest_rate(x) is {largest_rate(x):.3g}"
            )
        return loss / len(x)

    def fit(
        self,
        x: Array,
        t: Array,
        *,
        epochs: int,
        batch_size: int = 1,
        rng: np.random.Generator | None = None,
    ) -> Array:
        """Learn for so many epochs; return the errors of each, (epochs, O)."""
        epochs = integer("epochs", epochs, 1)
        return np.array([self.learn(x, t, batch_size, rng) for _ in range(epochs)])


def largest_rate(x: Array) -> float:
    """Return equation (4): with all samples in one batch, a larger rate diverges.

    Raises ValueError unless x is (N, I) with at least one sample.

    >>> largest_rate(np.array([[0.0], [0.0]]))
    2.0
    """
    if x.ndim != 2 or not len(x):
        raise ValueError(f"x has shape {x.shape}; it must be (N, I), N at least 1")
    rows = np.column_stack([x, np.ones(len(x))]).astype(float)
    return float(2 / np.linalg.eigvalsh(rows.T @ rows / len(x))[-1])
