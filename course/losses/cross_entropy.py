"""Softmax cross-entropy: the surprise, in nats, at the right class.

Equations

    (1)  logp[n,k] = s[n,k] - m[n] - log(sum over j of exp(s[n,j] - m[n]))
    (2)  loss      = -(1/N) * sum over n of logp[n, t[n]]
    (3)  ds[n,k]   = (exp(logp[n,k]) - [k = t[n]]) / N

    with m[n] the largest of s[n,0], s[n,1], ...

    Weights of the classes, label smoothing by e and labels that are distributions t[n,k]
    put target[n,k] in the place of [k = t[n]], and a sum of weights Z in the place of N:

    (4)  target[n,k] = weight[k] * ((1 - e) * t[n,k] + e/C)
    (5)  loss        = -(1/Z) * sum over n,k of target[n,k] * logp[n,k]
    (6)  ds[n,k]     = (exp(logp[n,k]) * sum over j of target[n,j] - target[n,k]) / Z

    Z is the sum over n of weight[t[n]]; where labels are distributions, it is N.

Shapes

    s, ds, logp   (N, C)   float; scores, one row an image and one column a class
    t             (N,)     int; the right class of each image, 0 <= t < C
                  (N, C)   float; or how probable each class is, rows that sum to 1
    weight        (C,)     float, not negative
    loss          a number in nats, the mean over the batch

Edges: subtracting the largest score leaves every exponent at most 0, so that scores of
+-1e4 neither overflow nor lose the loss. A score of minus infinity is a probability of 0;
it costs nothing where the target is 0. A NaN score gives a NaN loss. On cuda values are
not checked beforehand: a label that is no class makes its row NaN, and weights that add up
to 0 make all rows so.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Bridle, Neurocomputing NATO ASI F68 (1990); label smoothing: Szegedy et al.,
CVPR 2016, section 7; as torch.nn.CrossEntropyLoss.
"""

import math
from math import log

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import split
from course.cuda.reductions import block_for, block_sum, row_max, warp_sum
from course.device import (
    Array,
    empty,
    empty_like,
    fill,
    floats,
    full,
    launch,
    number,
    on_cpu,
    same_shape,
)
from course.engine.elementary import exp, larger, quotient
from course.layers.log_softmax import log_softmax_forward
from course.losses.base import (
    class_of,
    distributions,
    mean,
    not_empty,
    scores_and_labels,
)

STEPS = 8  # exp takes about as long as so many sums


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
def _ds_cpu(ds, loss, s, t, first, past):
    """Equation (3), and loss[n], a row's part of equation (2); a thread has rows.

    exp(logp[n,k]) is exp(s[n,k] - m[n]) over its sum: one exp for both equations. It is
    taken of all rows in one long loop, as a row alone may be shorter than a vector
    register or two. The share of a row in the mean is 1/N.
    """
    N, C = s.shape
    share = s.dtype.type(1 / N)
    for n in range(first, past):
        largest = s[n, 0]
        for k in range(1, C):
            largest = larger(largest, s[n, k])
        for k in range(C):
            ds[n, k] = s[n, k] - largest
        loss[n] = ds[n, t[n]]
    exponents = ds[first:past].reshape(-1)
    for k in range(exponents.size):
        exponents[k] = exp(exponents[k])
    for n in range(first, past):
        total = s.dtype.type(0)
        for k in range(C):
            total += ds[n, k]
        scale = quotient(share, total)
        for k in range(C):
            ds[n, k] *= scale
        ds[n, t[n]] -= share
        loss[n] = log(total) - loss[n]


@compiled
def _ds_cpu_weighted(ds, loss, logp, target, share, first, past):
    """Equation (6), and loss[n], a row's part of equation (5); a thread has rows.

    The share of a weight in the mean is 1/Z.
    """
    C = logp.shape[1]
    zero = logp.dtype.type(0)
    for n in range(first, past):
        total, surprise = zero, zero
        for k in range(C):
            total += target[n, k]
            surprise -= zero if target[n, k] == zero else target[n, k] * logp[n, k]
        for k in range(C):
            ds[n, k] = (exp(logp[n, k]) * total - target[n, k]) * share
        loss[n] = surprise


@cuda.jit
def _ds_cuda(ds, loss, s, t, share):
    """Equation (3), and loss[n], a row's part of equation (2), as on the CPU.

    A warp has a row, a thread has every 32nd class of it.
    """
    zero = s.dtype.type(0)
    N, C = s.shape
    n, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    if n < N:
        right, wrong = class_of(t[n], s)
        largest, total = row_max(s[n]) + wrong, zero
        for k in range(lane, C, 32):
            ds[n, k] = math.exp(s[n, k] - largest)
            total += ds[n, k]
        total = warp_sum(total)
        scale = share / total
        for k in range(lane, C, 32):
            ds[n, k] = ds[n, k] * scale - (share if k == right else zero)
        if lane == 0:
            loss[n] = math.log(total) - (s[n, right] - largest)


@cuda.jit
def _target_cuda(target, t, weight, e):
    """Equation (4) for distributions; a thread has elements."""
    N, C = target.shape
    keep, rest = weight.dtype.type(1) - e, e / weight.dtype.type(C)
    for j in range(cuda.grid(1), N * C, cuda.gridsize(1)):
        n, k = split(j, C)
        target[n, k] = weight[k] * (keep * t[n, k] + rest)


@cuda.jit
def _target_cuda_labels(target, t, weight, e):
    """Equation (4) for labels; a thread has elements."""
    N, C = target.shape
    keep, rest = weight.dtype.type(1) - e, e / weight.dtype.type(C)
    for j in range(cuda.grid(1), N * C, cuda.gridsize(1)):
        n, k = split(j, C)
        right, wrong = class_of(t[n], target)
        target[n, k] = weight[k] * (keep + rest if k == right else rest) + wrong


@cuda.jit
def _Z_cuda(Z, t, weight):
    """Equations (5) and (6), their Z; there is one block, a thread has some labels."""
    scratch = cuda.shared.array(32, weight.dtype)
    part = weight.dtype.type(0)
    for n in range(cuda.threadIdx.x, t.size, cuda.blockDim.x):
        if 0 <= t[n] < weight.size:
            part += weight[t[n]]
    part = block_sum(part, scratch)
    if cuda.threadIdx.x == 0:
        Z[0] = part


@cuda.jit
def _ds_cuda_weighted(ds, loss, logp, target, Z):
    """Equation (6), and loss[n], a row's part of equation (5), divided by Z.

    A warp has a row, a thread has every 32nd class of it.
    """
    zero, share = logp.dtype.type(0), logp.dtype.type(1) / Z[0]
    N, C = logp.shape
    n, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    if n < N:
        total, surprise = zero, zero
        for k in range(lane, C, 32):
            total += target[n, k]
            if target[n, k] != zero:
                surprise -= target[n, k] * logp[n, k]
        total, surprise = warp_sum(total), warp_sum(surprise)
        for k in range(lane, C, 32):
            ds[n, k] = (math.exp(logp[n, k]) * total - target[n, k]) * share
        if lane == 0:
            loss[n] = surprise * share


def log_softmax(scores: Array) -> Array:
    """Return logp of equation (1), of shape (N, C): the log-probabilities, in nats.

    Raises TypeError for a dtype that is not float32 or float64.

    >>> log_softmax(np.array([[0.0, np.log(3.0)]])).round(6)
    array([[-1.386294, -0.287682]])
    """
    scores = floats("scores", scores, "(N, C)")
    if not on_cpu(scores):
        return log_softmax_forward(scores)
    logp = np.empty_like(scores)
    fill(_logp_cpu, len(scores), logp, scores, steps=STEPS * scores.size)
    return logp


def softmax_cross_entropy(
    scores: Array,
    labels: Array,
    weight: Array | None = None,
    label_smoothing: float = 0.0,
) -> tuple[float, Array]:
    """Return the loss of equation (2) and its gradient dscores of equation (3).

    With class weights (C,), label smoothing or labels that are distributions (N, C) they
    are those of equations (5) and (6). Raises TypeError for scores that are not float32
    or float64 or labels that are neither whole numbers nor distributions, and ValueError
    for shapes, labels and weights that cannot be.

    >>> loss, dscores = softmax_cross_entropy(np.zeros((2, 4)), np.array([0, 3]))
    >>> round(loss, 6), dscores[0]
    (1.386294, array([-0.375,  0.125,  0.125,  0.125]))
    """
    labels = labels if isinstance(labels, Array) else np.asarray(labels)
    if weight is not None or label_smoothing or labels.ndim == 2:
        return _weighted(scores, labels, weight, label_smoothing)
    scores, labels = scores_and_labels(scores, labels)
    N = len(scores)
    dscores, loss = empty_like(scores), empty(N, scores.dtype, scores)
    if on_cpu(scores):
        fill(_ds_cpu, N, dscores, loss, scores, labels, steps=STEPS * scores.size)
    else:
        share = scores.dtype.type(1 / N)
        launch(_ds_cuda, 32 * N, dscores, loss, scores, labels, share)
    return mean(loss, N), dscores


def _weighted(scores, labels, weight, label_smoothing) -> tuple[float, Array]:
    """Return the loss of equation (5) and its gradient of equation (6)."""
    target, Z = _target_and_sum(scores, labels, weight, label_smoothing)
    logp = log_softmax(scores)
    dscores, loss = empty_like(logp), empty(len(logp), logp.dtype, logp)
    arrays = dscores, loss, logp, target
    if not on_cpu(logp):
        launch(_ds_cuda_weighted, 32 * len(logp), *arrays, Z)
        return mean(loss, 1), dscores
    share = logp.dtype.type(1 / Z)
    fill(_ds_cpu_weighted, len(logp), *arrays, share, steps=STEPS * logp.size)
    return mean(loss, Z), dscores


def _target_and_sum(scores, labels, weight, label_smoothing) -> tuple[Array, float | Array]:
    """Return the target of equation (4), and Z: a number, or on cuda an array of one."""
    scores = floats("scores", scores, "(N, C)")
    C, dtype = scores.shape[1], scores.dtype
    if labels.ndim == 2 and labels.dtype.kind == "f":
        not_empty(scores)
        t = distributions("labels", labels, scores)
    else:
        scores, labels = scores_and_labels(scores, labels)
        t = np.eye(C, dtype=dtype)[labels] if on_cpu(labels) else labels
    e = number("label_smoothing", label_smoothing)
    if not 0 <= e <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, not {e}")
    if weight is not None:
        weight = floats("weight", weight, "(C,)", scores)
    if not on_cpu(scores):
        return _target_and_sum_there(scores, t, weight, dtype.type(e))
    target, Z = (1 - e) * t + dtype.type(e / C), float(len(t))
    if weight is not None:
        if weight.shape != (C,) or not (np.isfinite(weight) & (weight >= 0)).all():
            raise ValueError(
                f"weight must be {C} numbers that are not negative, one a class, not "
                f"{weight} of shape {weight.shape}"
            )
        target *= weight
        if labels.ndim == 1:
            Z = float(weight[labels].sum(dtype=np.float64))
            if Z == 0:
                raise ValueError(
                    "every label of the batch has the weight 0: no mean exists"
                )
    return target, Z


def _target_and_sum_there(scores, t, weight, e) -> tuple[Array, Array]:
    """Return the same on cuda; `weight` may be None, and `e` is a number of its dtype."""
    N, C = scores.shape
    target, Z = empty_like(scores), full(1, N, scores.dtype, scores)
    if weight is None:
        weight = full(C, 1, scores.dtype, scores)
    else:
        same_shape("weight", weight, (C,), "one weight for each class")
        if t.ndim == 1:
            _Z_cuda[1, block_for(N)](Z, t, weight)
    loops = _target_cuda_labels if t.ndim == 1 else _target_cuda
    launch(loops, N * C, target, t, weight, e)
    return target, Z
