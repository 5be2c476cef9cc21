"""Normalisation of ONNX: over the batch, over channels, over a sample."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from course.device import Array
from course.layers import (
    BatchNorm2d,
    GroupNorm,
    LayerNorm,
    LocalResponseNorm,
    batchnorm_backward,
    batchnorm_forward,
    groupnorm_backward,
    groupnorm_forward,
    layernorm_backward,
    layernorm_forward,
)
from course.layers.base import Layer
from course.onnx.node import Node, Op, axis_of, first_gradient, shrunk
from course.onnx.windows import Applied


class TrainingBatchNorm(Op):
    """Batch normalisation with the statistics of the batch, which moves the running ones.

    ONNX's momentum is the share of the old ones, and the variance that it keeps is that
    of the batch, divided by N*HW.
    """

    keys: ClassVar = {1: "weight", 2: "bias"}
    undecayed = "weight", "bias"

    def __init__(self, momentum: float, eps: float, outputs: int):
        super().__init__()
        self.momentum, self.eps, self.outputs = momentum, eps, outputs

    def compute(self, x: Array, w: Array, b: Array, mean: Array, var: Array) -> Any:
        y, batch_mean, invstd = batchnorm_forward(
            x, w, b, None, None, training=True, eps=self.eps
        )
        self.seen = x, w, batch_mean, invstd
        old, new = mean.dtype.type(self.momentum), mean.dtype.type(1 - self.momentum)
        axes = (0, *range(2, x.ndim))
        running = mean * old + batch_mean * new, var * old + x.var(axis=axes) * new
        return (y, *running)[: self.outputs] if self.outputs > 1 else y

    def gradients(self, dy: Any) -> Sequence[Array]:
        dy = first_gradient(dy, self) if self.outputs > 1 else dy
        return batchnorm_backward(dy, *self.seen, training=True)


def batch_norm(node: Node) -> Layer:
    """Return the layer of a node BatchNormalization."""
    eps, momentum = node.get("epsilon", 1e-5), node.get("momentum", 0.9)
    training = node.flag("training_mode") if node.opset >= 14 else node.makes(1)
    if node.opset < 9:
        spatial = node.get("spatial", 1)
        if spatial != 1:
            raise node.wrong("spatial", spatial, "it is 1: a mean for each channel")
    if node.opset < 7:
        training = not node.get("is_test", 0) and node.makes(1)
        node.get("consumed_inputs")
    if training:
        outputs = len(node.outputs)
        if outputs > 3:
            raise ValueError(f"{node} has {outputs} outputs; supported: 3")
        return TrainingBatchNorm(momentum, eps, outputs)
    if node.makes(1):
        raise ValueError(f"{node} makes {node.outputs[1]}, which needs training_mode=1")
    channels = len(node.constants[1]) if 1 in node.constants else 1
    layer = BatchNorm2d(channels, eps, 1 - momentum)
    layer.shapes = "(N, C)", "(N, C, L)", "(N, C, H, W)", "(N, C, D, H, W)"
    places = {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4}
    if node.owns(1, 2, 3, 4) and len(node.constants.keys() & {1, 2, 3, 4}) == 4:
        return node.take(layer, **places)
    return RunningBatchNorm(layer, *places)


class RunningBatchNorm(Applied):
    """Batch normalisation whose parameters and statistics are inputs."""

    def compute(self, x: Array, *arrays: Array) -> Array:
        self.layer.channels = len(arrays[0])
        self.shape = x.shape
        y = super().compute(x.reshape(*x.shape[:2], -1, 1), *arrays)
        return y.reshape(x.shape)

    def gradients(self, dy: Array) -> list[Array | None]:
        dx, *rest = super().gradients(dy.reshape(*dy.shape[:2], -1, 1))
        return [dx.reshape(self.shape), *rest]


class EvenLRN(LocalResponseNorm):
    """Response normalisation over an even number of channels: ONNX looks one further on."""

    def forward(self, x: Array) -> Array:
        return super().forward(np.ascontiguousarray(x[:, ::-1]))[:, ::-1]

    def backward(self, dy: Array) -> Array:
        return super().backward(np.ascontiguousarray(dy[:, ::-1]))[:, ::-1]


def lrn(node: Node) -> Layer:
    """Return the layer of a node LRN."""
    size = node.must("size")
    kind = LocalResponseNorm if size % 2 else EvenLRN
    constants = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    return kind(size, *constants)


class LayerNormalization(Op):
    """Layer normalisation over all axes from one on; it can also return mean and invstd."""

    keys: ClassVar = {1: "weight", 2: "bias"}
    undecayed = "weight", "bias"

    def __init__(self, axis: int, eps: float, outputs: int):
        super().__init__()
        self.axis, self.eps, self.outputs = axis, eps, outputs

    def compute(self, x: Array, w: Array, b: Array | None = None) -> Any:
        axis = axis_of(self.axis, x.ndim)
        self.shapes = w.shape, None if b is None else b.shape
        full = np.broadcast_to(w, x.shape[axis:])
        bias = None if b is None else np.broadcast_to(b, x.shape[axis:])
        y, mean, invstd = layernorm_forward(x, np.ascontiguousarray(full), bias, self.eps)
        self.seen = x, np.ascontiguousarray(full), mean, invstd
        kept = x.shape[:axis] + (1,) * (x.ndim - axis)
        all_three = y, mean.reshape(kept), invstd.reshape(kept)
        return all_three[: self.outputs] if self.outputs > 1 else y

    def gradients(self, dy: Any) -> list[Array | None]:
        dy = first_gradient(dy, self) if self.outputs > 1 else dy
        dx, dw, db = layernorm_backward(dy, *self.seen)
        w_shape, b_shape = self.shapes
        db = None if b_shape is None else shrunk(db, b_shape)
        return [dx, shrunk(dw, w_shape), db]


def _stash(node: Node) -> None:
    """Pass over stash_type, which is about types shorter than float32."""
    if node.get("stash_type", 1) not in (1, 11):
        raise node.wrong("stash_type", 0, "it is 1")


def layer_norm(node: Node) -> Layer:
    """Return the layer of a node LayerNormalization."""
    axis, eps = node.get("axis", -1), node.get("epsilon", 1e-5)
    _stash(node)
    w, b = node.constants.get(1), node.constants.get(2)
    plain = w is not None and w.ndim == -axis and len(node.outputs) == 1
    if plain and node.owns(1, 2) and (not node.has(2) or b.shape == w.shape):
        layer = LayerNorm(w.shape, eps)
        return node.take(layer, weight=1, bias=2)
    return LayerNormalization(axis, eps, len(node.outputs))


class GroupNormalization(Op):
    """Group normalisation with a weight and a bias for each channel, or for each group."""

    keys: ClassVar = {1: "weight", 2: "bias"}
    undecayed = "weight", "bias"

    def __init__(self, groups: int, eps: float, per_group: bool):
        super().__init__()
        self.groups, self.eps, self.per_group = groups, eps, per_group

    def compute(self, x: Array, w: Array, b: Array) -> Array:
        self.times = x.shape[1] // self.groups if self.per_group and x.ndim > 1 else 1
        w, b = np.repeat(w, self.times), np.repeat(b, self.times)
        y, *statistics = groupnorm_forward(x, self.groups, w, b, self.eps)
        self.seen = x, w, *statistics
        return y

    def gradients(self, dy: Array) -> list[Array]:
        dx, *both = groupnorm_backward(dy, *self.seen)
        return [dx, *(d.reshape(-1, self.times).sum(axis=1) for d in both)]


def group_norm(node: Node) -> Layer:
    """Return the layer of a node GroupNormalization."""
    groups, eps = node.must("num_groups"), node.get("epsilon", 1e-5)
    if not (node.has(1) and node.has(2)):
        raise ValueError(f"{node} lacks its scale or its bias")
    if groups < 1:
        raise node.wrong("num_groups", groups, "it is at least 1")
    if node.opset >= 21:
        _stash(node)
        if node.owns(1, 2) and {1, 2} <= node.constants.keys():
            channels = len(node.constants[1])
            return node.take(GroupNorm(groups, channels, eps), weight=1, bias=2)
    return GroupNormalization(groups, eps, node.opset < 21)
