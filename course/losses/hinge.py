"""Multi-class hinge: the right score should lead every other one by a margin.

Equations

    (1)  loss     = (1/N) * sum over n, k != t[n] of max(0, above[n,k])
    (2)  ds[n,k]  = [above[n,k] > 0] / N                        for k != t[n]
         ds[n,k]  = -sum over the other classes j of ds[n,j]    for k = t[n]

    with above[n,k] = s[n,k] - s[n,t[n]] + margin.

Shapes

    s, ds   (N, C)   float; scores, one row an image and one column a class
    t       (N,)     int; the right class of each image, 0 <= t < C
    loss    a number, the mean over the batch

Edges: a class that leads by exactly the margin costs nothing and has no gradient. A NaN
score gives a NaN loss. So does, on cuda, a label that is no class.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Weston & Watkins, ESANN 1999; summed over the classes as in CS231n.
torch.nn.MultiMarginLoss divides by C besides.
"""

from course import cuda
from course.compiled import compiled
from course.cuda.reductions import warp_sum
from course.device import Array, empty, empty_like, fill, launch, number, on_cpu
from course.losses.base import class_of, mean, scores_and_labels


@compiled
def _ds_cpu(ds, loss, s, t, margin, share, first, past):
    """Equation (2), and loss[n], a row's part of equation (1); a thread has rows."""
    C, zero = s.shape[1], s.dtype.type(0)
    for n in range(first, past):
        right = s[n, t[n]]
        total, wins = zero, zero
        for k in range(C):
            above = s[n, k] - right + margin
            idle = (above <= zero) | (k == t[n])
            total += zero if idle else above
            win = zero if idle else share
            wins += win
            ds[n, k] = win
        ds[n, t[n]] = -wins
        loss[n] = total


@cuda.jit
def _ds_cuda(ds, loss, s, t, margin, share):
    """Equation (2), and loss[n], a row's part of equation (1).

    A warp has a row, a thread has every 32nd class of it.
    """
    zero = s.dtype.type(0)
    N, C = s.shape
    n, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    if n < N:
        right, wrong = class_of(t[n], s)
        total, wins = zero, zero
        for k in range(lane, C, 32):
            above = s[n, k] - s[n, right] + margin
            idle = above <= zero or k == right
            total += zero if idle else above
            win = zero if idle else share
            wins += win
            ds[n, k] = win + wrong
        total, wins = warp_sum(total), warp_sum(wins)
        if lane == right % 32:
            ds[n, right] = wrong - wins
        if lane == 0:
            loss[n] = total + wrong


def multiclass_hinge(
    scores: Array, labels: Array, margin: float = 1.0
) -> tuple[float, Array]:
    """Return the loss of equation (1) and its gradient dscores of equation (2).

    Raises TypeError for scores that are not float32 or float64 or labels that are not
    whole numbers, and ValueError for shapes, labels and margins that cannot be.

    >>> loss, dscores = multiclass_hinge(np.array([[3.2, 5.1, -1.7]]), np.array([0]))
    >>> round(loss, 6), dscores
    (2.9, array([[-1.,  1.,  0.]]))
    """
    scores, labels = scores_and_labels(scores, labels)
    if (margin := number("margin", margin)) < 0:
        raise ValueError(f"margin must not be negative, it is {margin}")
    N = len(scores)
    dscores, loss = empty_like(scores), empty(N, scores.dtype, scores)
    margin, share = map(scores.dtype.type, (margin, 1 / N))
    if on_cpu(scores):
        fill(_ds_cpu, N, dscores, loss, scores, labels, margin, share)
    else:
        launch(_ds_cuda, 32 * N, dscores, loss, scores, labels, margin, share)
    return mean(loss, len(loss)), dscores
