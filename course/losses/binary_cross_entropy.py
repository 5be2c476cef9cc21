"""Binary cross-entropy: yes or no, from one score.

Equations

    (1)  loss    = 1/(N*M) * sum over n,k of yes[n,k]*softplus(-z[n,k])
                                           + no[n,k]*softplus(z[n,k])
    (2)  dz[n,k] = (no[n,k]*sigmoid(z[n,k]) - yes[n,k]*sigmoid(-z[n,k])) / (N*M)

    with k one of the M scores of sample n, yes[n,k] = pos_weight[k]*t[n,k] and
    no[n,k] = 1 - t[n,k]; softplus(z) = -log(sigmoid(-z)) = max(z, 0) + log(1 + exp(-|z|)).

Shapes

    z, dz        (N, ...)   float; M scores for each sample, in any shape
    t            (N, ...)   0 for no and 1 for yes, or the probability of yes
    pos_weight   ()         what a yes weighs; or an array that fits z[0]
    loss         a number in nats, the mean over the batch and a sample's scores

Edges: exponents are at most 0, so that scores of +-1e4 neither overflow nor lose the
loss. A yes or a no that weighs 0 counts nothing, even where its softplus is infinite. A
NaN score gives a NaN loss. On cuda t and an array pos_weight are not checked: they are
taken as they are.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Cox, J. R. Stat. Soc. B 20 (1958); as torch.nn.BCEWithLogitsLoss.
"""

import math
from math import prod
from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import CudaArray
from course.cuda.reductions import warp_sum
from course.device import (
    Array,
    empty,
    empty_like,
    fill,
    floats,
    full,
    launch,
    on_cpu,
    same_device,
    same_shape,
)
from course.engine.elementary import exp, larger, log1p
from course.losses.base import beside, mean, not_empty

STEPS = 16  # exp and log1p take about as long as so many sums


@compiled
def _dz_cpu(dz, loss, z, t, w, share, first, past):
    """Equation (2), and loss[n], a sample's part of equation (1); a thread has samples."""
    M = z.shape[1]
    zero, one = z.dtype.type(0), z.dtype.type(1)
    for n in range(first, past):
        total = zero
        for k in range(M):
            yes, no = w[k] * t[n, k], one - t[n, k]
            e = exp(-abs(z[n, k]))
            rest = log1p(e)
            most, least = one / (one + e), e / (one + e)  # sigmoid of |z| and of -|z|
            if_no = larger(z[n, k], zero) + rest  # softplus(z)
            if_yes = larger(-z[n, k], zero) + rest
            total += zero if no == zero else no * if_no
            total += zero if yes == zero else yes * if_yes
            up = most if z[n, k] >= zero else least  # sigmoid(z)
            down = least if z[n, k] >= zero else most
            dz[n, k] = (no * up - yes * down) * share
        loss[n] = total


@cuda.jit
def _dz_cuda(dz, loss, z, t, w, share):
    """Equation (2), and loss[n], a sample's part of equation (1).

    A warp has a sample, a thread has every 32nd score of it.
    """
    zero, one = z.dtype.type(0), z.dtype.type(1)
    N, M = z.shape
    n, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    if n < N:
        total = zero
        for k in range(lane, M, 32):
            true = z.dtype.type(t[n, k])
            yes, no = w[k] * true, one - true
            e = math.exp(-abs(z[n, k]))
            rest = math.log1p(e)
            most, least = one / (one + e), e / (one + e)  # sigmoid of |z| and of -|z|
            if no != zero:
                total += no * ((zero if z[n, k] < zero else z[n, k]) + rest)
            if yes != zero:
                total += yes * ((-z[n, k] if z[n, k] < zero else zero) + rest)
            up = most if z[n, k] >= zero else least  # sigmoid(z)
            down = least if z[n, k] >= zero else most
            dz[n, k] = (no * up - yes * down) * share
        total = warp_sum(total)
        if lane == 0:
            loss[n] = total


@cuda.jit
def _w_cuda(w, pos_weight, sizes, steps):
    """Equations (1) and (2), what a yes weighs for each score; a thread has elements.

    `sizes` are those of a sample; `steps` say how far on pos_weight is read along each.
    """
    for k in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        rest, place = k, 0
        for axis in range(len(sizes) - 1, -1, -1):
            place += rest % sizes[axis] * steps[axis]
            rest //= sizes[axis]
        w[k] = pos_weight[place]


def binary_cross_entropy_with_logits(
    z: Array, t: Array, pos_weight: float | Array | None = None
) -> tuple[float, Array]:
    """Return the loss of equation (1) and its gradient dz of equation (2).

    Raises TypeError for scores that are not float32 or float64, and ValueError if t has
    not the shape of z, holds what is no probability, or if pos_weight is negative.

    >>> loss, dz = binary_cross_entropy_with_logits(np.zeros(2), np.array([1, 0]))
    >>> round(loss, 6), dz
    (0.693147, array([-0.25,  0.25]))
    """
    z = floats("z", z, "any")
    t = beside("t", t, z)
    if t.dtype.kind not in "buif":
        raise TypeError(f"t has dtype {t.dtype}; it holds 0 and 1, or probabilities")
    same_shape("t", t, z.shape, "the shape of z")
    if z.ndim == 0:
        raise ValueError("z has shape (); it must be (N, ...): z.reshape(1)")
    not_empty(z)
    if on_cpu(z) and not (t.min() >= 0 and t.max() <= 1):
        raise ValueError(f"t holds {t.min()} to {t.max()}; probabilities are from 0 to 1")
    w, N = _weights(pos_weight, z), len(z)
    dz, loss = empty_like(z), empty(N, z.dtype, z)
    rows, share = (N, -1), z.dtype.type(1 / z.size)
    if on_cpu(z):
        t = np.ascontiguousarray(t, z.dtype)
    arrays = dz.reshape(rows), loss, z.reshape(rows), t.reshape(rows), w, share
    if on_cpu(z):
        fill(_dz_cpu, N, *arrays, steps=STEPS * z.size)
    else:
        launch(_dz_cuda, 32 * N, *arrays)
    return mean(loss, z.size), dz


def _weights(pos_weight: Any, z: Array) -> Array:
    """Return what a yes weighs for each of the M scores of a sample, where z is."""
    sample, M = z.shape[1:], prod(z.shape[1:])
    if isinstance(pos_weight, CudaArray):
        w = floats("pos_weight", pos_weight, "any", z)
    else:
        w = np.asarray(1 if pos_weight is None else pos_weight, z.dtype)
        if w.ndim:  # a number goes anywhere
            same_device("pos_weight", w, z)
        if not (np.isfinite(w) & (w >= 0)).all():
            raise ValueError(f"pos_weight must not be negative, it is {pos_weight}")
    try:
        spread = np.broadcast_to(w if on_cpu(w) else np.empty(w.shape, np.int8), sample)
    except ValueError:
        raise ValueError(
            f"pos_weight has shape {w.shape}; that does not fit a sample {sample}"
        ) from None
    if on_cpu(z):
        return np.ascontiguousarray(spread.reshape(-1))
    if on_cpu(w):
        return full(M, float(w), z.dtype, z)
    if w.size == M:
        return w.ravel()
    wide = empty(M, z.dtype, z)
    launch(_w_cuda, M, wide, w.ravel(), sample, spread.strides)  # in bytes, of one each
    return wide
