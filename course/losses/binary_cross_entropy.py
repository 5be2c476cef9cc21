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
NaN score gives a NaN loss.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Cox, J. R. Stat. Soc. B 20 (1958); as torch.nn.BCEWithLogitsLoss.
"""

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats, same_shape
from course.engine.elementary import exp, larger, log1p
from course.losses.base import mean, not_empty

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
    t = np.asarray(t)
    if t.dtype.kind not in "buif":
        raise TypeError(f"t has dtype {t.dtype}; it holds 0 and 1, or probabilities")
    same_shape("t", t, z.shape, "the shape of z")
    if z.ndim == 0:
        raise ValueError("z has shape (); it must be (N, ...): z.reshape(1)")
    not_empty(z)
    if not (t.min() >= 0 and t.max() <= 1):
        raise ValueError(f"t holds {t.min()} to {t.max()}; probabilities are from 0 to 1")
    w = np.asarray(1 if pos_weight is None else pos_weight, z.dtype)
    if not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError(f"pos_weight must not be negative, it is {pos_weight}")
    try:
        w = np.broadcast_to(w, z.shape[1:]).reshape(-1)
    except ValueError:
        raise ValueError(
            f"pos_weight has shape {w.shape}; that does not fit a sample {z.shape[1:]}"
        ) from None
    t = np.ascontiguousarray(t, z.dtype)
    dz, loss = np.empty_like(z), np.empty(len(z), z.dtype)
    rows = len(z), -1
    fill(
        *(_dz_cpu, len(z), dz.reshape(rows), loss, z.reshape(rows), t.reshape(rows)),
        *(np.ascontiguousarray(w), z.dtype.type(1 / z.size)),
        steps=STEPS * z.size,
    )
    return mean(loss, z.size), dz
