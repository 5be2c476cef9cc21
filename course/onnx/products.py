"""Products, sums and means of ONNX."""

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from course.device import Array
from course.layers import (
    Linear,
    linear_backward,
    linear_forward,
)
from course.layers.base import Layer
from course.onnx.node import Node, Op, axis_of, shell, shrunk


class Gemm(Op):
    """y = alpha * a' @ b' + beta * c, where ' may transpose."""

    keys: ClassVar = {1: "weight", 2: "bias"}

    def __init__(self, alpha: float, beta: float, trans_a: bool, trans_b: bool):
        super().__init__()
        self.factors, self.transposed = (alpha, beta), (trans_a, trans_b)

    def compute(self, a: Array, b: Array, c: Array | None = None) -> Array:
        trans_a, trans_b = self.transposed
        x = np.ascontiguousarray(a.T) if trans_a else a
        w = b if trans_b else np.ascontiguousarray(b.T)
        self.seen = x, w, None if c is None else c.shape
        alpha, beta = (x.dtype.type(factor) for factor in self.factors)
        y = linear_forward(x, w)
        if alpha != 1:
            y *= alpha
        if c is not None:
            y += c if beta == 1 else beta * c
        return y

    def gradients(self, dy: Array) -> list[Array | None]:
        (x, w, c_shape), (trans_a, trans_b) = self.seen, self.transposed
        alpha, beta = (dy.dtype.type(factor) for factor in self.factors)
        dx, dw, _ = linear_backward(dy if alpha == 1 else alpha * dy, x, w)
        dc = None if c_shape is None else shrunk(beta * dy, c_shape)
        return [dx.T if trans_a else dx, dw if trans_b else dw.T, dc]


def gemm(node: Node) -> Layer:
    """Return the layer of a node Gemm."""
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    trans_a, trans_b = node.flag("transA"), node.flag("transB")
    if node.opset < 7:
        node.get("broadcast")  # it says that c may be broadcast, as it may today
    plain = (alpha, beta, trans_a, trans_b) == (1, 1, False, True)
    if plain and node.owns(1, 2) and 1 in node.constants:
        O, I = node.constants[1].shape
        if not node.has(2) or node.constants[2].shape == (O,):
            return node.take(shell(Linear, I, O), weight=1, bias=2)
    return Gemm(alpha, beta, trans_a, trans_b)


class MatMul(Op):
    """The matrix product a @ b, over all axes but the last two broadcast."""

    keys: ClassVar = {0: "weight", 1: "weight"}

    def compute(self, a: Array, b: Array) -> Array:
        self.shapes = a.shape, b.shape
        a, b = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        if a.ndim < 1 or b.ndim < 1 or a.shape[-1] != b.shape[-2]:
            raise ValueError(f"a is {self.shapes[0]} and b {self.shapes[1]}: no product")
        if b.ndim == 2:  # one product with all rows of a
            lead, a, b = a.shape[:-1], a.reshape(1, -1, a.shape[-1]), b[None]
        else:
            lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
            a, b = (
                np.broadcast_to(m, (*lead, *m.shape[-2:])).reshape(-1, *m.shape[-2:])
                for m in (a, b)
            )
            lead = *lead, a.shape[1]
        self.seen = a, [np.ascontiguousarray(m.T) for m in b]
        y = np.stack([linear_forward(m, w) for m, w in zip(*self.seen, strict=True)])
        y = y.reshape(*lead, y.shape[-1])
        y = y.squeeze(-2) if len(self.shapes[0]) == 1 else y
        return y.squeeze(-1) if len(self.shapes[1]) == 1 else y

    def gradients(self, dy: Array) -> list[Array]:
        (a, w), (a_shape, b_shape) = self.seen, self.shapes
        upstream = dy.reshape(len(a), a.shape[1], len(w[0]))
        parts = [linear_backward(*three)[:2] for three in zip(upstream, a, w, strict=True)]
        da = np.stack([dx for dx, _ in parts])
        db = np.stack([dw.T for _, dw in parts])
        if len(b_shape) <= 2:
            return [da.reshape(a_shape), db.reshape(b_shape)]
        lead = np.broadcast_shapes(a_shape[:-2], b_shape[:-2])
        da, db = (m.reshape(*lead, *m.shape[1:]) for m in (da, db))
        rows = a_shape if len(a_shape) > 1 else (1, *a_shape)
        return [shrunk(da, rows).reshape(a_shape), shrunk(db, b_shape)]


def _aligned(b: Array, a: Array, axis: int | None) -> Array:
    """Return b with its first axis at that axis of a: so it was before operator set 7."""
    return b if axis is None else b.reshape(b.shape + (1,) * (a.ndim - axis - b.ndim))


class Add(Op):
    """a + b, broadcast."""

    keys: ClassVar = {0: "bias", 1: "bias"}

    def __init__(self, axis: int | None = None):
        super().__init__()
        self.axis = axis

    def compute(self, a: Array, b: Array) -> Array:
        self.shapes, b = (a.shape, b.shape), _aligned(b, a, self.axis)
        self.aligned = b.shape
        return a + b

    def gradients(self, dy: Array) -> list[Array]:
        db = shrunk(dy, self.aligned).reshape(self.shapes[1])
        return [shrunk(dy, self.shapes[0]), db]


class Mul(Op):
    """a * b, broadcast."""

    keys: ClassVar = {0: "weight", 1: "weight"}
    undecayed = ("weight",)

    def __init__(self, axis: int | None = None):
        super().__init__()
        self.axis = axis

    def compute(self, a: Array, b: Array) -> Array:
        self.shape, b = b.shape, _aligned(b, a, self.axis)
        self.seen = a, b
        return a * b

    def gradients(self, dy: Array) -> list[Array]:
        a, b = self.seen
        return [shrunk(dy * b, a.shape), shrunk(dy * a, b.shape).reshape(self.shape)]


def elementwise(kind: type[Op], node: Node) -> Layer:
    """Return the layer of a node Add or Mul."""
    if node.opset >= 7:
        return kind()
    node.get("consumed_inputs")
    broadcast, axis = node.flag("broadcast"), node.get("axis")
    return kind(axis) if broadcast else kind()


class ReduceMean(Op):
    """The mean over some axes, or over all."""

    def __init__(self, axes: Sequence[int] | None, keepdims: bool, noop: bool):
        super().__init__()
        self.axes, self.keepdims, self.noop = axes, keepdims, noop

    def compute(self, x: Array, axes: Array | None = None) -> Array:
        axes = self.axes if axes is None else np.ravel(axes).tolist()
        if not axes:
            axes = () if self.noop else range(x.ndim)
        axes = tuple(axis_of(axis, x.ndim) for axis in axes)
        self.shape, self.over = x.shape, axes
        return x.mean(axis=axes, keepdims=self.keepdims) if axes else x

    def gradients(self, dy: Array) -> list[Array]:
        if not self.over:
            return [dy]
        kept = [1 if k in self.over else n for k, n in enumerate(self.shape)]
        count = dy.dtype.type(prod(self.shape[k] for k in self.over))
        return [np.broadcast_to(dy.reshape(kept) / count, self.shape).copy()]


def reduce_mean(node: Node) -> Layer:
    """Return the layer of a node ReduceMean."""
    axes = node.get("axes") if node.opset < 18 else None
    noop = node.flag("noop_with_empty_axes") if node.opset >= 18 else False
    return ReduceMean(axes, bool(node.get("keepdims", 1)), noop)
