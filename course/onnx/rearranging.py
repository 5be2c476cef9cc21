"""Operators of ONNX that move numbers to other places, or frame them."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from course.device import Array
from course.layers import (
    Concat,
    Flatten,
)
from course.layers.base import Layer
from course.onnx.node import Node, Op, axis_of


class Reshape(Op):
    """The numbers of x in another shape: 0 keeps a size, -1 is what remains.

    A file written for one image at a time names a shape (1, ...): given N images, it is
    (N, ...).
    """

    def __init__(self, shape: Sequence[int] | None = None, allowzero: bool = False):
        super().__init__()
        self.shape, self.allowzero = shape, allowzero

    def compute(self, x: Array, shape: Array | None = None) -> Array:
        self.x_shape = x.shape
        given = [int(n) for n in (self.shape if shape is None else np.ravel(shape))]
        if not self.allowzero:
            if any(n == 0 and k >= x.ndim for k, n in enumerate(given)):
                raise ValueError(f"x is {x.shape}, which has no axis for a 0 of {given}")
            given = [n or x.shape[k] for k, n in enumerate(given)]
        size = prod(given)
        if x.ndim and given and given[0] == 1 and 0 < size != x.size == size * len(x):
            given[0] = len(x)
        return x.reshape(given)

    def gradients(self, dy: Array) -> list[Array]:
        return [dy.reshape(self.x_shape)]


def reshape(node: Node) -> Layer:
    """Return the layer of a node Reshape."""
    if node.opset < 5:
        node.get("consumed_inputs")
        return Reshape(node.must("shape"))
    return Reshape(None, node.flag("allowzero") if node.opset >= 14 else False)


class FlattenFrom(Op):
    """x as a matrix: the axes before one are its rows."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def compute(self, x: Array) -> Array:
        axis, self.shape = axis_of(self.axis, x.ndim, 1), x.shape
        return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))

    def gradients(self, dy: Array) -> list[Array]:
        return [dy.reshape(self.shape)]


def flatten(node: Node) -> Layer:
    """Return the layer of a node Flatten."""
    axis = node.get("axis", 1)
    return Flatten() if axis == 1 else FlattenFrom(axis)


class Transpose(Op):
    """x with its axes in another order; reversed, if none is given."""

    def __init__(self, perm: Sequence[int] | None):
        super().__init__()
        self.perm = perm

    def compute(self, x: Array) -> Array:
        self.order = list(range(x.ndim))[::-1] if self.perm is None else self.perm
        return np.ascontiguousarray(x.transpose(self.order))

    def gradients(self, dy: Array) -> list[Array]:
        return [np.ascontiguousarray(dy.transpose(np.argsort(self.order)))]


class ConcatFrom(Op):
    """Arrays one after the other along an axis, which may count from the last."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def compute(self, *x: Array) -> Array:
        y = np.concatenate(x, self.axis)
        self.sizes = [a.shape[self.axis] for a in x]
        return y

    def gradients(self, dy: Array) -> Sequence[Array]:
        return np.split(dy, np.cumsum(self.sizes[:-1]), self.axis)


class PadNode(Op):
    """x in a frame; a negative pad cuts off. `mode` says what the frame shows."""

    def __init__(self, mode: str, sides: Sequence[int] | None, value: float = 0.0):
        super().__init__()
        self.mode, self.sides, self.value = mode, sides, value

    def compute(self, x: Array, sides: Any = None, value: Any = None, axes: Any = None):
        sides = self.sides if sides is None else np.ravel(sides).tolist()
        axes = (
            range(x.ndim) if axes is None else [axis_of(a, x.ndim) for a in np.ravel(axes)]
        )
        if len(sides) != 2 * len(axes):
            raise ValueError(
                f"x has shape {x.shape}; pads={sides} must be two for each axis"
            )
        self.shape, self.seen, y = x.shape, [], x
        fill = x.dtype.type(self.value if value is None or not np.size(value) else value)
        for axis, before, after in zip(axes, sides, sides[len(axes) :], strict=False):
            places = np.arange(x.shape[axis])
            grown = max(before, 0), max(after, 0)
            if self.mode == "constant":
                places = np.pad(places, grown, constant_values=-1)
            else:
                places = np.pad(places, grown, mode=self.mode)
            places = places[max(-before, 0) : len(places) - max(-after, 0)]
            self.seen.append((axis, places))
            if (before, after) == (0, 0):
                continue
            y = y.take(places, axis)
            if (places < 0).any():
                at = [slice(None)] * x.ndim
                at[axis] = places < 0
                y[tuple(at)] = fill
        return y

    def gradients(self, dy: Array) -> list[Array]:
        for axis, places in reversed(self.seen):
            shape = list(dy.shape)
            shape[axis] = self.shape[axis]
            dx, kept = np.zeros(shape, dy.dtype), places >= 0
            rows, upstream = np.moveaxis(dx, axis, 0), np.moveaxis(dy, axis, 0)
            np.add.at(rows, places[kept], upstream[kept])
            dy = dx
        return [dy]


def pad(node: Node) -> Layer:
    """Return the layer of a node Pad."""
    mode = node.get("mode", "constant")
    known = ["constant", "reflect", "edge"] + ["wrap"] * (node.opset >= 19)
    if mode not in known:
        raise node.wrong("mode", mode, f"it is one of {', '.join(known)}")
    if node.opset >= 11:
        return PadNode(mode, None)
    sides = node.must("paddings" if node.opset < 2 else "pads")
    return PadNode(mode, sides, node.get("value", 0.0))


class Identity(Op):
    """x."""

    def compute(self, x: Array) -> Array:
        return x

    def gradients(self, dy: Array) -> list[Array]:
        return [dy]


def concat(node: Node) -> Layer:
    """Return the layer of a node Concat."""
    axis = node.get("axis", 1) if node.opset < 4 else node.must("axis")
    plain = axis >= 0 and len(node.inputs) > 1 and not node.constants
    return Concat(axis) if plain else ConcatFrom(axis)
