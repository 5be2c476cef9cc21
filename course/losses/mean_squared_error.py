"""Mean squared error: how far the outputs are from the numbers they should be.

Equations

    (1)  loss    = 1/(N*M) * sum over n,k of (y[n,k] - t[n,k])^2
    (2)  dy[n,k] = 2/(N*M) * (y[n,k] - t[n,k])

    with k one of the M outputs for sample n.

Shapes

    y, dy, t   (N, ...)   float; M outputs for each sample, in any shape
    loss       a number, the mean over the batch and a sample's outputs

Edges: a NaN or an infinity in y shows in the loss.

Lecture: lectures/05_learning_as_search.ipynb.  Symbols: GLOSSARY.md.
Source: Widrow & Hoff, IRE WESCON (1960); as torch.nn.MSELoss.
"""

from course import cuda
from course.compiled import compiled
from course.cuda.reductions import warp_sum
from course.device import Array, empty, empty_like, fill, floats, launch, on_cpu, same_shape
from course.losses.base import mean, not_empty


@compiled
def _dy_cpu(dy, loss, y, t, share, first, past):
    """Equation (2), and loss[n], a sample's part of equation (1); a thread has samples."""
    M = y.shape[1]
    for n in range(first, past):
        total = y.dtype.type(0)
        for k in range(M):
            gap = y[n, k] - t[n, k]
            total += gap * gap
            dy[n, k] = gap * share
        loss[n] = total


@cuda.jit
def _dy_cuda(dy, loss, y, t, share):
    """Equation (2), and loss[n], a sample's part of equation (1).

    A warp has a sample, a thread has every 32nd output of it.
    """
    N, M = y.shape
    n, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    if n < N:
        total = y.dtype.type(0)
        for k in range(lane, M, 32):
            gap = y[n, k] - t[n, k]
            total += gap * gap
            dy[n, k] = gap * share
        total = warp_sum(total)
        if lane == 0:
            loss[n] = total


def mean_squared_error(y: Array, t: Array) -> tuple[float, Array]:
    """Return the loss of equation (1) and its gradient dy of equation (2).

    Raises TypeError for a dtype that is not float32 or float64, or two dtypes, and
    ValueError if t has not the shape of y.

    >>> loss, dy = mean_squared_error(np.array([1.0, 5.0]), np.array([1.0, 3.0]))
    >>> loss, dy
    (2.0, array([0., 2.]))
    """
    y = floats("y", y, "any")
    t = floats("t", t, "any", y)
    same_shape("t", t, y.shape, "the shape of y")
    if y.ndim == 0:
        raise ValueError("y has shape (); it must be (N, ...): y.reshape(1)")
    not_empty(y)
    N = len(y)
    dy, loss = empty_like(y), empty(N, y.dtype, y)
    rows, share = (N, -1), y.dtype.type(2 / y.size)
    arrays = dy.reshape(rows), loss, y.reshape(rows), t.reshape(rows)
    if on_cpu(y):
        fill(_dy_cpu, N, *arrays, share)
    else:
        launch(_dy_cuda, 32 * N, *arrays, share)
    return mean(loss, y.size), dy
