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
zero learns. A NaN score gives a NaN loss; so does, on cuda, a label that is no class. The
two-class form max(0, -y*z), y = +-1, is this one with the scores (-z/2, z/2).

Lecture: lectures/04_history.ipynb.  Symbols: GLOSSARY.md.
Source: Rosenblatt, Psychological Review 65 (1958); for classes: Collins, EMNLP 2002.
"""

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda.reductions import row_max, warp_max
from course.device import Array, empty, empty_like, fill, launch, on_cpu
from course.losses.base import class_of, mean, scores_and_labels


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


@cuda.jit
def _ds_cuda(ds, loss, s, t, share):
    """Equation (2), and loss[n], a row's part of equation (1).

    A warp has a row, a thread has every 32nd class of it.
    """
    zero = s.dtype.type(0)
    N, C = s.shape
    n, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    if n < N:
        right, wrong = class_of(t[n], s)
        largest, best = row_max(s[n]), C
        for k in range(lane, C, 32):
            if best == C and (s[n, k] == largest or s[n, k] != s[n, k]):
                best = k
        best = -warp_max(-best)  # the first of those that the lanes have found
        for k in range(lane, C, 32):
            up, down = share if k == best else zero, share if k == right else zero
            ds[n, k] = up - down + wrong
        if lane == 0:
            loss[n] = s[n, best] - s[n, right] + wrong


def perceptron_loss(scores: Array, labels: Array) -> tuple[float, Array]:
    """Return the loss of equation (1) and its gradient dscores of equation (2).

    Raises TypeError for scores that are not float32 or float64 or labels that are not
    whole numbers, and ValueError for shapes and labels that cannot be.

    >>> perceptron_loss(np.array([[3.0, 5.0, -1.0]]), np.array([0]))
    (2.0, array([[-1.,  1.,  0.]]))
    """
    scores, labels = scores_and_labels(scores, labels)
    N = len(scores)
    dscores, loss = empty_like(scores), empty(N, scores.dtype, scores)
    share = scores.dtype.type(1 / N)
    if on_cpu(scores):
        fill(_ds_cpu, N, dscores, loss, scores, labels, share)
    else:
        launch(_ds_cuda, 32 * N, dscores, loss, scores, labels, share)
    return mean(loss, len(loss)), dscores
