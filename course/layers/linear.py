"""The linear (dense, fully connected, affine) layer: every output sees every input.

Equations

    (1)  y[n,o]  = b[o] + sum over k of w[o,k] * x[n,k]
    (2)  dx[n,k] = sum over o        of dy[n,o] * w[o,k]
    (3)  dw[o,k] = sum over n        of dy[n,o] * x[n,k]
    (4)  db[o]   = sum over n        of dy[n,o]

    that is y = x w^T + b, dx = dy w, dw = dy^T x.

Shapes

    x, dx   (N, I)   float; rows are samples
    w, dw   (O, I)   float; row o is the template of output o
    b, db   (O,)     float
    y, dy   (N, O)   float

Edges: an empty batch gives an empty y. Images must be flattened first.

The loops below are the definition. The functions call course/engine/matmul.py, which adds
up the same products ten times as fast, and these loops for a few rows only.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Rosenblatt, Psychological Review 65 (1958); as torch.nn.Linear.
"""

from typing import Any

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats, same_shape
from course.engine import matmul as engine
from course.layers.base import Layer, he_normal
from course.shapes import integer


@compiled
def _y_cpu(y, x, w, b, first, past):
    """Equation (1); a thread has rows of y."""
    O, I = w.shape
    for n in range(first, past):
        for o in range(O):
            total = b[o]
            for k in range(I):
                total += w[o, k] * x[n, k]
            y[n, o] = total


@compiled
def _dx_cpu(dx, dy, w, first, past):
    """Equation (2); a thread has rows of dx."""
    O, I = w.shape
    for n in range(first, past):
        dx[n] = 0
        for o in range(O):
            for k in range(I):
                dx[n, k] += dy[n, o] * w[o, k]


@compiled
def _dw_cpu(dw, dy, x, first, past):
    """Equation (3); a thread has rows of dw."""
    N, I = x.shape
    for o in range(first, past):
        dw[o] = 0
        for n in range(N):
            for k in range(I):
                dw[o, k] += dy[n, o] * x[n, k]


@compiled
def _db_cpu(db, dy, first, past):
    """Equation (4); a thread has outputs."""
    db = db[first:past]
    db[:] = 0
    for n in range(len(dy)):
        row = dy[n, first:past]
        for o in range(db.size):
            db[o] += row[o]


def _arrays(x: Array, w: Array) -> tuple[Array, Array]:
    """Return x and w ready for the loops, or say in words what does not fit."""
    if isinstance(x, np.ndarray) and x.ndim > 2:
        raise ValueError(
            f"x has shape {x.shape}; it must be (N, I): put a Flatten before the layer"
        )
    x = floats("x", x, "(N, I)")
    w = floats("w", w, "(O, I)", x)
    if x.shape[1] != w.shape[1]:
        raise ValueError(f"x has {x.shape[1]} features, w expects {w.shape[1]}")
    return x, w


def linear_forward(x: Array, w: Array, b: Array | None = None) -> Array:
    """Return y of equation (1), of shape (N, O), in the dtype of x.

    Raises TypeError for dtypes that are not float32 or float64, or not alike, and
    ValueError for shapes that do not fit together.

    >>> linear_forward(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]))
    array([[11., 17.]])
    """
    x, w = _arrays(x, w)
    b = np.zeros(len(w), x.dtype) if b is None else floats("b", b, "(O,)", x)
    same_shape("b", b, (len(w),), "one bias for each row of w")
    y = np.empty((len(x), len(w)), x.dtype)
    if engine.linear(y, x, w, b):
        return y
    fill(_y_cpu, len(y), y, x, w, b, steps=len(x) * w.size)
    return y


def linear_backward(
    dy: Array, x: Array, w: Array, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array]:
    """Return dx, dw, db of equations (2), (3), (4), in the dtype of x.

    With need_dx=False dx is None: nobody asks for the gradient of the images themselves.

    Raises as forward does, and ValueError if dy has not the shape of y.

    >>> dx, dw, db = linear_backward(
    ...     np.array([[1.0, 10.0]]),
    ...     np.array([[1.0, 2.0]]),
    ...     np.array([[3.0, 4.0], [5.0, 6.0]]),
    ... )
    >>> dx, dw, db
    (array([[53., 64.]]), array([[ 1.,  2.],
           [10., 20.]]), array([ 1., 10.]))
    """
    x, w = _arrays(x, w)
    dy = floats("dy", dy, "(N, O)", x)
    same_shape("dy", dy, (len(x), len(w)), "the shape of y for these x and w")
    dx = np.empty_like(x) if need_dx else None
    dw, db = np.empty_like(w), np.empty(len(w), x.dtype)
    fill(_db_cpu, len(db), db, dy)
    if engine.linear_backward(dx, dw, dy, x, w):
        return dx, dw, db
    if need_dx:
        fill(_dx_cpu, len(dx), dx, dy, w, steps=len(x) * w.size)
    fill(_dw_cpu, len(dw), dw, dy, x, steps=len(x) * w.size)
    return dx, dw, db


class Linear(Layer):
    """A dense layer, with parameters weight (O, I) and bias (O,).

    weight starts normal with variance 2 / I, as suits a following ReLU (He et al., ICCV
    2015); bias starts at 0, and bias=False leaves it out.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ):
        super().__init__()
        I = integer("in_features", in_features, 1)
        O = integer("out_features", out_features, 1)
        self.params["weight"] = he_normal(rng, (O, I), dtype)
        if bias:
            self.params["bias"] = np.zeros(O, dtype)

    def forward(self, x: Array) -> Array:
        y = linear_forward(x, self.params["weight"], self.params.get("bias"))
        self.x = x
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array:
        x, w = self.remembered("x"), self.params["weight"]
        dx, dw, db = linear_backward(dy, x, w, need_dx=need_dx)
        self.grads["weight"] = dw
        if "bias" in self.params:
            self.grads["bias"] = db
        return dx

    def learn(self, dy: Array) -> None:
        self.backward(dy, need_dx=False)
