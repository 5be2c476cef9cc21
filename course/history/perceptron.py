"""The perceptron: units that fire or not, and learn only when they are wrong.

Equations

    (1)  y[n,o] = 1 if b[o] + sum over k of w[o,k] * x[n,k] > 0, and 0 otherwise
    (2)  w[o,k] = w[o,k] + alpha * (t[n,o] - y[n,o]) * x[n,k]
    (3)  b[o]   = b[o]   + alpha * (t[n,o] - y[n,o])
    (4)  gamma  = max over w,b of min over n of +-(b + sum over k of w[k] * x[n,k])
    (5)  bound  = max over n of (|x[n]|^2 + 1) / gamma^2

    one sample n after the other, alpha the learning rate. Each unit learns alone. In (4)
    the sign is + where the unit should fire, and |w|^2 + b^2 = 1.

Shapes

    x      (N, I)   float; on the Mark I 400 photocells, 20 rows of 20
    t, y   (N, O)   float; 1 where a unit should fire, or fires, and 0 elsewhere
    w      (O, I)   float
    b      (O,)     float

Edges: a sum of exactly 0 does not fire. Weights start at 0, so the learning rate scales
them and changes no answer.

If some line parts the samples (gamma > 0), no unit makes more mistakes than (5) says, in
whatever order the samples come (Novikoff). If none does, as in XOR, it never ends: the
weights stay bounded (Block & Levin), and with whole numbers they come back to where they
were, again and again.

Lecture: lectures/04_history.ipynb.  Symbols: GLOSSARY.md.
Source: Rosenblatt, Psychological Review 65 (1958); simulated on an IBM 704 in 1957, then
built: Mark I Perceptron Operators' Manual, Cornell Aeronautical Laboratory (1960).
Novikoff, Symposium on the Mathematical Theory of Automata (1962); Block & Levin, Proc.
AMS 26 (1970); (4) by non-negative least squares: Lawson & Hanson, "Solving Least Squares
Problems" (1974), chapter 23.
"""

from typing import Any

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats, number, same_shape
from course.history.order import presented
from course.layers import linear_forward
from course.shapes import integer


@compiled
def _w_cpu(w, b, x, t, order, mistakes, alpha, first, past):
    """Equations (1) to (3), and how often a unit was wrong; a thread has units o."""
    I = w.shape[1]
    rate = w.dtype.type(alpha)
    for o in range(first, past):
        mistakes[o] = 0
        for n in order:
            total = b[o]
            for k in range(I):
                total += w[o, k] * x[n, k]
            fires = total > 0
            if fires != (t[n, o] > 0):
                mistakes[o] += 1
                step = -rate if fires else rate
                b[o] += step
                for k in range(I):
                    w[o, k] += step * x[n, k]


class Perceptron:
    """Units on the same inputs, with weight (O, I) and bias (O,), which start at 0.

    Raises TypeError or ValueError for sizes below 1 and a rate that is not positive.

    >>> x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], np.float32)
    >>> unit, either = Perceptron(2), np.array([[0.0], [1.0], [1.0], [1.0]], np.float32)
    >>> unit.fit(x, either, epochs=10).ravel()
    array([1, 2, 1, 0])
    >>> unit.weight, unit.bias
    (array([[1., 1.]], dtype=float32), array([0.], dtype=float32))
    >>> unit(x).ravel()
    array([0., 1., 1., 1.], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int = 1,
        learning_rate: float = 1.0,
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
        """Return the sums (N, O) that decide who fires."""
        return linear_forward(x, self.weight, self.bias)

    def __call__(self, x: Array) -> Array:
        """Return which units fire, (N, O), as 0 and 1."""
        return (self.scores(x) > 0).astype(x.dtype)

    def learn(self, x: Array, t: Array, rng: np.random.Generator | None = None) -> Array:
        """See every sample once, in an order drawn from rng or their own.

        Returns the mistakes of each unit, (O,) int. Raises TypeError or ValueError for
        arrays that do not fit, or answers other than 0 and 1.
        """
        O, I = self.weight.shape
        x = floats("x", x, "(N, I)", self.weight.dtype)
        t = floats("t", t, "(N, O)", x.dtype)
        same_shape("x", x, (len(x), I), f"{I} inputs for each sample")
        same_shape("t", t, (len(x), O), "an answer for each sample and unit")
        if not np.isin(t, (0, 1)).all():
            raise ValueError("t must hold 0 and 1 only: 1 where a unit should fire")
        mistakes, steps = np.zeros(O, np.int64), x.size * O
        arrays = self.weight, self.bias, x, t, presented(len(x), rng), mistakes
        fill(_w_cpu, O, *arrays, self.learning_rate, steps=steps)
        return mistakes

    def fit(
        self, x: Array, t: Array, *, epochs: int, rng: np.random.Generator | None = None
    ) -> Array:
        """Learn until an epoch without mistakes; return those of each, (epochs, O) int."""
        mistakes = []
        for _ in range(integer("epochs", epochs, 1)):
            mistakes.append(self.learn(x, t, rng))
            if not mistakes[-1].any():
                break
        return np.array(mistakes)


def margin(x: Array, t: Array) -> float:
    """Return gamma of equation (4) for samples x (N, I) and one unit's answers t (N,).

    It is 0 if no line parts the samples. Raises ValueError for shapes that do not fit.

    >>> x = np.array([[-3.0], [1.0]])
    >>> round(margin(x, np.array([0, 1])) ** 2, 6)
    2.0
    """
    from scipy.optimize import nnls

    if x.ndim != 2 or t.shape != (len(x),):
        raise ValueError(
            f"x has shape {x.shape} and t {t.shape}; they must be (N, I), (N,)"
        )
    signs = np.where(t > 0, 1.0, -1.0)[:, None]
    rows = signs * np.column_stack([x, np.ones(len(x))])
    # the shortest (w, b) with rows @ (w, b) >= 1, whose length is 1 / gamma
    weights, _ = nnls(
        np.column_stack([rows, np.ones(len(x))]).T, np.eye(rows.shape[1] + 1)[-1]
    )
    rest = 1 - weights.sum()
    return 0.0 if rest < 1e-9 else float(rest / np.linalg.norm(weights @ rows))


def mistake_bound(x: Array, t: Array) -> float:
    """Return equation (5): no unit makes more mistakes, however often it sees x.

    It is infinite if no line parts the samples. Raises ValueError as `margin` does.

    >>> round(mistake_bound(np.array([[-3.0], [1.0]]), np.array([0, 1])), 6)
    5.0
    """
    gamma = margin(x, t)
    return (
        float((np.square(x, dtype=float).sum(axis=1).max() + 1) / gamma**2)
        if gamma
        else np.inf
    )


def cycle(x: Array, t: Array, epochs: int = 1000) -> tuple[int, int] | None:
    """Return two epochs that begin with the same weights, or None if learning ended.

    The samples come in their own order, so whatever happened between the two happens again
    for ever. Raises RuntimeError if neither happens within so many epochs, and as
    `Perceptron.learn` does.

    >>> x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], np.float32)
    >>> cycle(x, np.array([[0.0], [1.0], [1.0], [0.0]], np.float32))
    (2, 3)
    """
    model, seen = Perceptron(x.shape[1], t.shape[1], dtype=x.dtype), {}
    for epoch in range(epochs):
        state = model.weight.tobytes() + model.bias.tobytes()
        if state in seen:
            return seen[state], epoch
        seen[state] = epoch
        if not model.learn(x, t).any():
            return None
    raise RuntimeError(f"{epochs} epochs brought neither an end nor a cycle; allow more")
