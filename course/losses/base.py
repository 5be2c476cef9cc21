"""What the losses share: the checks of their arguments, and the mean."""

from typing import Any

import numpy as np

from course.compiled import compiled
from course.device import Array, floats, same_shape


@compiled
def _wrong_label(labels, C):
    """Return the place of the first label that is not from 0 to C-1, or -1."""
    for n in range(labels.size):
        if labels[n] < 0 or labels[n] >= C:
            return n
    return -1


@compiled
def mean(loss, count):
    """Return sum(loss) / count, added in float64 and in an order that never changes."""
    total = 0.0
    for n in range(loss.size):
        total += loss[n]
    return total / count


def not_empty(scores: Array) -> None:
    """Raise ValueError for an array without a sample or without a number for one."""
    if scores.size == 0:
        raise ValueError(
            f"the mean loss of an empty batch does not exist: the shape is {scores.shape}"
        )


def scores_and_labels(scores: Array, labels: Array) -> tuple[Array, Array]:
    """Return both ready for the loops, or say in words what cannot be."""
    scores = floats("scores", scores, "(N, C)")
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"labels have dtype {labels.dtype}; they are class numbers: "
            "labels.astype(np.int64), or labels.argmax(axis=1) if they are one-hot"
        )
    N, C = scores.shape
    same_shape("labels", labels, (N,), "one class number for each row of scores")
    not_empty(scores)
    labels = np.ascontiguousarray(labels, np.int64)
    wrong = _wrong_label(labels, C)
    if wrong >= 0:
        raise ValueError(
            f"label {labels[wrong]} is not a class; scores has classes 0 to {C - 1}"
        )
    return scores, labels


def distributions(name: str, p: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """Return rows of probabilities ready for the loops, or say what they are instead."""
    p = floats(name, p, "(N, C)", dtype)
    same_shape(name, p, shape, "one row of probabilities for each row of scores")
    if not p.min() >= 0:
        raise ValueError(f"{name} holds {p.min()}; a probability is not negative")
    total = p.sum(axis=1)
    far = np.abs(total - 1).argmax()
    if not abs(total[far] - 1) <= 1e-4:
        raise ValueError(f"row {far} of {name} sums to {total[far]:g}, not to 1")
    return p
