"""What the losses share: the checks of their arguments, and the mean.

On cuda nobody looks at the values before the kernels do, as that would copy them: a label
that is no class gives its row a loss and a gradient of NaN, and nothing is read outside.
"""

import math
from typing import Any

import numpy as np
from numba import int64

from course import cuda
from course.compiled import compiled
from course.cuda.reductions import block_for, block_sum
from course.device import Array, empty, floats, host, on_cpu, same_device, same_shape


@compiled
def _wrong_label(labels, C):
    """Return the place of the first label that is not from 0 to C-1, or -1."""
    for n in range(labels.size):
        if labels[n] < 0 or labels[n] >= C:
            return n
    return -1


@cuda.jit(device=True)
def class_of(label, s):
    """Return the label and 0, or, if it is no class of the scores s, class 0 and NaN."""
    label = int64(label)
    if 0 <= label < s.shape[1]:
        return label, s.dtype.type(0)
    return int64(0), s.dtype.type(math.nan)


@compiled
def _mean_cpu(loss, count):
    """Return sum(loss) / count, added in float64 and in an order that never changes."""
    total = 0.0
    for n in range(loss.size):
        total += loss[n]
    return total / count


@cuda.jit
def _total_cuda(total, loss):
    """Add up the losses of the samples, in an order that never changes; one block."""
    scratch = cuda.shared.array(32, loss.dtype)
    part = loss.dtype.type(0)
    for n in range(cuda.threadIdx.x, loss.size, cuda.blockDim.x):
        part += loss[n]
    part = block_sum(part, scratch)
    if cuda.threadIdx.x == 0:
        total[0] = part


def mean(loss: Array, count: float) -> float:
    """Return sum(loss) / count. From a GPU this one number is copied."""
    if on_cpu(loss):
        return _mean_cpu(loss, count)
    total = empty(1, loss.dtype, loss)
    _total_cuda[1, block_for(loss.size)](total, loss)
    return float(host(total)[0]) / count


def beside(name: str, a: Any, like: Array) -> Array:
    """Return `a` as an array, or say that it is not where `like` is."""
    a = a if isinstance(a, Array) else np.asarray(a)
    same_device(name, a, like)
    return a


def not_empty(scores: Array) -> None:
    """Raise ValueError for an array without a sample or without a number for one."""
    if scores.size == 0:
        raise ValueError(
            f"the mean loss of an empty batch does not exist: the shape is {scores.shape}"
        )


def scores_and_labels(scores: Array, labels: Array) -> tuple[Array, Array]:
    """Return both ready for the loops, or say in words what cannot be."""
    scores = floats("scores", scores, "(N, C)")
    labels = beside("labels", labels, scores)
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"labels have dtype {labels.dtype}; they are class numbers: "
            "labels.astype(np.int64), or labels.argmax(axis=1) if they are one-hot"
        )
    N, C = scores.shape
    same_shape("labels", labels, (N,), "one class number for each row of scores")
    not_empty(scores)
    if not on_cpu(scores):
        return scores, labels
    labels = np.ascontiguousarray(labels, np.int64)
    wrong = _wrong_label(labels, C)
    if wrong >= 0:
        raise ValueError(
            f"label {labels[wrong]} is not a class; scores has classes 0 to {C - 1}"
        )
    return scores, labels


def distributions(name: str, p: Array, scores: Array) -> Array:
    """Return rows of probabilities ready for the loops, or say what they are instead."""
    p = floats(name, p, "(N, C)", scores)
    same_shape(name, p, scores.shape, "one row of probabilities for each row of scores")
    if not on_cpu(p):
        return p
    if not p.min() >= 0:
        raise ValueError(f"{name} holds {p.min()}; a probability is not negative")
    total = p.sum(axis=1)
    far = np.abs(total - 1).argmax()
    if not abs(total[far] - 1) <= 1e-4:
        raise ValueError(f"row {far} of {name} sums to {total[far]:g}, not to 1")
    return p
