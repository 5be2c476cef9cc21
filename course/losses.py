"""Losses: how wrong the scores are, as one number, and its gradient.

Equations

    (1)  logp[n,k] = s[n,k] - m[n] - log(sum over j of exp(s[n,j] - m[n]))
    (2)  loss      = -(1/N) * sum over n of logp[n, t[n]]
    (3)  ds[n,k]   = (exp(logp[n,k]) - [k = t[n]]) / N

    with m[n] the largest of s[n,0], s[n,1], ...

Shapes

    s, ds, logp   (N, C)   float; scores, one row an image and one column a class
    t             (N,)     int; the right class of each image, 0 <= t < C
    loss          a number in nats, the mean over the batch

Edges: subtracting the largest score leaves every exponent at most 0, so that scores of
+-1e4 neither overflow nor lose the loss. A NaN score gives a NaN loss.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Bridle, Neurocomputing NATO ASI F68 (1990); as torch.nn.CrossEntropyLoss.
"""

from math import exp, log

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats, same_shape


@compiled
def _logp_cpu(logp, s, first, past):
    """Equation (1); a thread has rows."""
    C = s.shape[1]
    for n in range(first, past):
        largest = s[n, 0]
        for k in range(1, C):
            largest = max(largest, s[n, k])
        total = s.dtype.type(0)
        for k in range(C):
            total += exp(s[n, k] - largest)
        shift = largest + log(total)
        for k in range(C):
            logp[n, k] = s[n, k] - shift


@compiled
def _ds_cpu(ds, logp, t, first, past):
    """Equation (3); a thread has rows."""
    N, C = ds.shape
    share = ds.dtype.type(1 / N)
    for n in range(first, past):
        for k in range(C):
            ds[n, k] = exp(logp[n, k]) * share
        ds[n, t[n]] -= share


def _scores_and_labels(scores: Array, labels: Array) -> tuple[Array, Array]:
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
    if N == 0:
        raise ValueError("the mean loss of an empty batch does not exist")
    if labels.min() < 0 or labels.max() >= C:
        wrong = labels[(labels < 0) | (labels >= C)][0]
        raise ValueError(f"label {wrong} is not a class; scores has classes 0 to {C - 1}")
    return scores, np.ascontiguousarray(labels, np.int64)


def log_softmax(scores: Array) -> Array:
    """Return logp of equation (1), of shape (N, C): the log-probabilities, in nats.

    Raises TypeError for a dtype that is not float32 or float64.

    >>> log_softmax(np.array([[0.0, np.log(3.0)]])).round(6)
    array([[-1.386294, -0.287682]])
    """
    scores = floats("scores", scores, "(N, C)")
    logp = np.empty_like(scores)
    fill(_logp_cpu, len(scores), logp, scores)
    return logp


def softmax_cross_entropy(scores: Array, labels: Array) -> tuple[float, Array]:
    """Return the loss of equation (2) and its gradient dscores of equation (3).

    Raises TypeError for scores that are not float32 or float64 or labels that are not
    whole numbers, and ValueError for shapes and labels that cannot be.

    >>> loss, dscores = softmax_cross_entropy(np.zeros((2, 4)), np.array([0, 3]))
    >>> round(loss, 6), dscores[0]
    (1.386294, array([-0.375,  0.125,  0.125,  0.125]))
    """
    scores, labels = _scores_and_labels(scores, labels)
    logp = log_softmax(scores)
    loss = -logp[np.arange(len(labels)), labels].mean(dtype=np.float64)
    dscores = np.empty_like(scores)
    fill(_ds_cpu, len(scores), dscores, logp, labels)
    return float(loss), dscores
