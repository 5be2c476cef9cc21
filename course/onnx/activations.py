"""Activations of ONNX, and dropout."""

from collections.abc import Callable
from math import prod
from typing import Any, ClassVar

import numpy as np

from course.device import Array
from course.layers import (
    Dropout,
    dropout_forward,
)
from course.layers.base import Layer
from course.onnx.node import Node, Op, axis_of, first_gradient, shrunk


class PRelu(Op):
    """ReLU whose slope below zero is an input, broadcast to x."""

    keys: ClassVar = {1: "weight"}
    undecayed = ("weight",)

    def __init__(self, per_channel: bool):
        super().__init__()
        self.per_channel = per_channel  # before operator set 7

    def compute(self, x: Array, slope: Array) -> Array:
        self.shape = slope.shape
        if self.per_channel and slope.size > 1:
            slope = slope.reshape(-1, *[1] * (x.ndim - 2))
        self.seen = x, slope
        return np.where(x > 0, x, slope * x)

    def gradients(self, dy: Array) -> list[Array]:
        x, slope = self.seen
        dw = np.where(x > 0, dy.dtype.type(0), dy * x)
        dw = shrunk(dw, slope.shape).reshape(self.shape)
        return [np.where(x > 0, dy, slope * dy), dw]


class Rowwise(Op):
    """Softmax or its logarithm over all axes from one on together.

    So it was before operator set 13.
    """

    def __init__(self, layer: Layer, axis: int):
        super().__init__()
        self.layer, self.axis = layer, axis

    def compute(self, x: Array) -> Array:
        axis = axis_of(self.axis, x.ndim)
        self.rows = prod(x.shape[:axis]), prod(x.shape[axis:])
        return self.layer.forward(x.reshape(self.rows)).reshape(x.shape)

    def gradients(self, dy: Array) -> list[Array]:
        return [self.layer.backward(dy.reshape(self.rows)).reshape(dy.shape)]


def softmax(kind: type[Layer], node: Node) -> Layer:
    """Return the layer of a node Softmax or LogSoftmax."""
    if node.opset >= 13:
        return kind(node.get("axis", -1))
    axis = node.get("axis", 1)
    if axis == -1 or node.ranks[0] == axis + 1:
        return kind(-1)
    return Rowwise(kind(1), axis)


def activation(make: Callable[[Node], Layer], node: Node) -> Layer:
    """Return what a function of each number becomes."""
    if node.opset < 6:
        node.get("consumed_inputs")
    return make(node)


class Clip(Op):
    """x kept between two bounds; below and above them its gradient is 0."""

    def __init__(self, least: float | None = None, most: float | None = None):
        super().__init__()
        self.bounds = least, most

    def compute(self, x: Array, least: Any = None, most: Any = None) -> Array:
        least, most = (
            old if new is None else new
            for old, new in zip(self.bounds, (least, most), strict=True)
        )
        y = x
        if least is not None:
            y = np.maximum(y, np.asarray(least, x.dtype))
        if most is not None:
            y = np.minimum(y, np.asarray(most, x.dtype))
        self.kept = y == x
        return y

    def gradients(self, dy: Array) -> list[Array]:
        return [np.where(self.kept, dy, dy.dtype.type(0))]


def clip(node: Node) -> Layer:
    """Return the layer of a node Clip."""
    if node.opset >= 11:
        return Clip()
    node.get("consumed_inputs")
    return Clip(node.get("min"), node.get("max"))


class DropoutNode(Op):
    """Dropout whose share, and whether it drops, are inputs; it can show its mask."""

    kept = ("next_step",)

    def __init__(self, ratio: float, seed: int | None, outputs: int, mask: Any):
        super().__init__()
        self.ratio, self.seed, self.outputs, self.mask = ratio, seed or 0, outputs, mask
        self.next_step = 0

    def compute(self, x: Array, ratio: Any = None, training: Any = None) -> Any:
        p = float(self.ratio if ratio is None else ratio)
        drops = training is not None and bool(training) and p > 0
        kept = np.ones_like(x)
        if drops:
            kept = dropout_forward(kept, p, self.seed, self.next_step)
            self.next_step += 1
        self.kept = kept
        y = x * kept if drops else x
        return (y, (kept > 0).astype(self.mask)) if self.outputs > 1 else y

    def gradients(self, dy: Any) -> list[Array]:
        return [(first_gradient(dy, self) if self.outputs > 1 else dy) * self.kept]


def dropout(node: Node) -> Layer:
    """Dropout: `train()` says whether it drops, unless the file does."""
    ratio, seed = 0.5, None
    if node.opset >= 12:
        seed = node.get("seed")
    else:
        ratio = node.get("ratio", 0.5)
    if node.opset < 7:
        node.get("is_test")
        node.get("consumed_inputs")
    fixed = not node.has(1) or 1 in node.constants
    if fixed and not node.has(2) and not node.makes(1):
        ratio = float(node.constants.get(1, ratio))
        node.taken.add(1)
        return Dropout(ratio, rng=np.random.default_rng(seed or 0))
    mask = np.bool_ if node.opset >= 10 else np.float32
    return DropoutNode(ratio, seed, len(node.outputs), mask)
