"""Kullback-Leibler divergence: the nats lost by assuming q where p is true.

Equations

    (1)  loss       = (1/N) * sum over n,k of p[n,k] * (log(p[n,k]) - logq[n,k])
    (2)  dlogq[n,k] = -p[n,k] / N

Shapes

    logq, dlogq   (N, C)   float; log-probabilities, as `log_softmax` returns them
    p             (N, C)   float; the true probabilities, rows that sum to 1
    loss          a number in nats, the mean over the batch

Edges: where p is 0 nothing is lost, whatever q is. Where q alone is 0 the loss is
infinite. A NaN gives a NaN loss.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Kullback & Leibler, Ann. Math. Stat. 22 (1951); as torch.nn.KLDivLoss with
reduction="batchmean", logarithms first.
"""

from math import log

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats
from course.losses.base import distributions, mean, not_empty

STEPS = 8  # log takes about as long as so many sums


@compiled
def _dlogq_cpu(dlogq, loss, logq, p, share, first, past):
    """Equation (2), and loss[n], a row's part of equation (1); a thread has rows."""
    C, zero = logq.shape[1], logq.dtype.type(0)
    for n in range(first, past):
        total = zero
        for k in range(C):
            lost = p[n, k] * (log(p[n, k]) - logq[n, k])
            total += zero if p[n, k] == zero else lost
            dlogq[n, k] = -p[n, k] * share
        loss[n] = total


def kl_divergence(logq: Array, p: Array) -> tuple[float, Array]:
    """Return the loss of equation (1) and its gradient dlogq of equation (2).

    Raises TypeError for a dtype that is not float32 or float64, or two dtypes, and
    ValueError if p has not the shape of logq or its rows are no distributions.

    >>> loss, dlogq = kl_divergence(np.log([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    >>> round(loss, 6), dlogq
    (0.693147, array([[-1., -0.]]))
    """
    logq = floats("logq", logq, "(N, C)")
    not_empty(logq)
    p = distributions("p", p, logq.shape, logq.dtype)
    dlogq, loss = np.empty_like(logq), np.empty(len(logq), logq.dtype)
    arrays, share = (dlogq, loss, logq, p), logq.dtype.type(1 / len(logq))
    fill(_dlogq_cpu, len(logq), *arrays, share, steps=STEPS * logq.size)
    return mean(loss, len(loss)), dlogq
