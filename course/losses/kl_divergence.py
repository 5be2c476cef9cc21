"""Kullback-Leibler divergence: the nats lost by assuming q where p is true.

Equations

    (1)  loss       = (1/N) * sum over n,k of p[n,k] * (log(p[n,k]) - logq[n,k])
    (2)  dlogq[n,k] = -p[n,k] / N

Shapes

    logq, dlogq   (N, C)   float; log-probabilities, as `log_softmax` returns them
    p             (N, C)   float; the true probabilities, rows that sum to 1
    loss          a number in nats, the mean over the batch

Edges: where p is 0 nothing is lost, whatever q is. Where q alone is 0 the loss is
infinite. A NaN gives a NaN loss. On cuda p is not checked: it is taken as it is.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Kullback & Leibler, Ann. Math. Stat. 22 (1951); as torch.nn.KLDivLoss with
reduction="batchmean", logarithms first.
"""

import math
from math import log

from course import cuda
from course.compiled import compiled
from course.cuda.reductions import warp_sum
from course.device import Array, empty, empty_like, fill, floats, launch, on_cpu
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


@cuda.jit
def _dlogq_cuda(dlogq, loss, logq, p, share):
    """Equation (2), and loss[n], a row's part of equation (1).

    A warp has a row, a thread has every 32nd class of it.
    """
    N, C = logq.shape
    n, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    if n < N:
        total = logq.dtype.type(0)
        for k in range(lane, C, 32):
            if p[n, k] != 0:
                total += p[n, k] * (math.log(p[n, k]) - logq[n, k])
            dlogq[n, k] = -p[n, k] * share
        total = warp_sum(total)
        if lane == 0:
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
    p, N = distributions("p", p, logq), len(logq)
    dlogq, loss = empty_like(logq), empty(N, logq.dtype, logq)
    arrays, share = (dlogq, loss, logq, p), logq.dtype.type(1 / N)
    if on_cpu(logq):
        fill(_dlogq_cpu, N, *arrays, share, steps=STEPS * logq.size)
    else:
        launch(_dlogq_cuda, 32 * N, *arrays, share)
    return mean(loss, len(loss)), dlogq
