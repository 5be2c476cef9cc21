"""Perceptron loss: how far the largest score is above the right one.

Equations

    (1)  loss     = (1/N) * sum over n of s[n,b] - s[n,t[n]]
    (2)  ds[n,k]  = ([k = b] - [k = t[n]]) / N

    with b the class of the largest score of row n.

Shapes

    s, ds   (N, C)   float; scores, one row an image and one column a class
    t       (N,)     int; the right class of each image, 0 <= t < C
    loss    a number, the mean over the batch

Edges: of equal scores the first is the largest, so that a network whose weights are all
zero learns. A NaN score gives a NaN loss. The two-class form max(0, -y*z), y = +-1, is
this one with the scores (-z/2, z/2).

Lecture: lectures/04_history.ipynb.  Symbols: GLOSSARY.md.
Source: Rosenblatt, Psychological Review 65 (1958); for classes: Collins, EMNLP 2002.
"""

import numpy as np

from course.compiled import compiled
from course.device import Array, fill
from course.losses.base import mean, scores_and_labels


@compiled
def _ds_cpu(ds, loss, s, t, share, first, past):
    """Equation (2), and loss[n], a row's part of equation (1); a thread has rows."""
    C = s.shape[1]
    for n in range(first, past):
        best = 0
        for k in range(C):
            if s[n, k] > s[n, best] or np.isnan(s[n, k]):
                best = k
                if np.isnan(s[n, k]):
                    break
        for k in range(C):
            ds[n, k] = 0
        ds[n, best] += share
        ds[n, t[n]] -= share
        loss[n] = s[n, best] - s[n, t[n]]


def perceptron_loss(scores: Array, labels: Array) -> tuple[float, Array]:
    """Return the loss of equation (1) and its gradient dscores of equation (2).

    Raises TypeError for scores that are not float32 or float64 or labels that are not
    whole numbers, and ValueError for shapes and labels that cannot be.

    >>> perceptron_loss(np.array([[3.0, 5.0, -1.0]]), np.array([0]))
    (2.0, array([[-1.,  1.,  0.]]))
    """
    scores, labels = scores_and_labels(scores, labels)
    dscores, loss = np.empty_like(scores), np.empty(len(scores), scores.dtype)
    share = scores.dtype.type(1 / len(scores))
    fill(_ds_cpu, len(scores), dscores, loss, scores, labels, share)
    return mean(loss, len(loss)), dscores
