"""Losses of ONNX."""

from typing import Any

import numpy as np

from course.device import Array
from course.layers import (
    log_softmax_backward,
    log_softmax_forward,
)
from course.layers.base import Layer
from course.onnx.node import Node, Op


class NegativeLogLikelihood(Op):
    """-logp at the right class, weighted; its mean, its sum or all of it.

    A label `ignore` costs nothing and counts nothing. The mean is that of the weights.
    """

    def __init__(self, reduction: str, ignore: int | None):
        super().__init__()
        self.reduction, self.ignore = reduction, ignore

    def compute(self, logp: Array, labels: Array, weight: Array | None = None) -> Array:
        C = logp.shape[1]
        if labels.shape != logp.shape[:1] + logp.shape[2:]:
            raise ValueError(f"labels has shape {labels.shape}; scores are {logp.shape}")
        counted = np.ones(labels.shape, bool)
        if self.ignore is not None:
            counted = labels != self.ignore
        t = np.where(counted, labels, 0)
        if ((t < 0) | (t >= C)).any():
            raise ValueError(f"a label is not in 0 to {C - 1}")
        w = counted.astype(logp.dtype)
        if weight is not None:
            w = np.where(counted, weight[t], w)
        t = np.expand_dims(t, 1)
        loss = -w * np.take_along_axis(logp, t, 1)[:, 0]
        self.share = {"none": 1, "sum": 1, "mean": w.sum()}[self.reduction]
        self.seen = logp.shape, t, w / self.share
        return loss if self.reduction == "none" else np.asarray(loss.sum() / self.share)

    def gradients(self, dy: Array) -> list[Array]:
        shape, t, w = self.seen
        dlogp = np.zeros(shape, dy.dtype)
        np.put_along_axis(dlogp, t, np.expand_dims(-w * dy, 1), 1)
        return [dlogp]


class SoftmaxCrossEntropy(NegativeLogLikelihood):
    """The same of the log-softmax of scores, which it can also return."""

    def __init__(self, reduction: str, ignore: int | None, outputs: int):
        super().__init__(reduction, ignore)
        self.outputs = outputs

    def compute(self, scores: Array, labels: Array, weight: Array | None = None) -> Any:
        self.logp = log_softmax_forward(scores, 1)
        loss = super().compute(self.logp, labels, weight)
        return (loss, self.logp) if self.outputs > 1 else loss

    def gradients(self, dy: Any) -> list[Array]:
        dlogp = np.zeros_like(self.logp)
        loss, more = dy if self.outputs > 1 else (dy, None)
        if loss is not None:
            dlogp = super().gradients(loss)[0]
        if more is not None:
            dlogp = dlogp + more
        return [log_softmax_backward(dlogp, self.logp, 1)]


def loss(kind: type[NegativeLogLikelihood], node: Node) -> Layer:
    """Return the layer of a node SoftmaxCrossEntropyLoss or NegativeLogLikelihoodLoss."""
    reduction, ignore = node.get("reduction", "mean"), node.get("ignore_index")
    if reduction not in ("none", "sum", "mean"):
        raise node.wrong("reduction", reduction, "it is none, sum or mean")
    if kind is SoftmaxCrossEntropy:
        return kind(reduction, ignore, len(node.outputs))
    return kind(reduction, ignore)
