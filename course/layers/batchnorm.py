"""Batch normalisation: give every channel mean 0 and variance 1, then w and b.

Equations

    x is seen as (N, C, HW): HW pixels in each of the N planes of a channel.

    (1)  mean[c]   = average over n,k of x[n,c,k]
    (2)  var[c]    = average over n,k of (x[n,c,k] - mean[c])^2
    (3)  y[n,c,k]  = w[c] * (x[n,c,k] - mean[c]) * invstd[c] + b[c]
    (4)  dw[c]     = sum over n,k of dy[n,c,k] * (x[n,c,k] - mean[c]) * invstd[c]
    (5)  db[c]     = sum over n,k of dy[n,c,k]
    (6)  dx[n,c,k] = w[c] * invstd[c] * (dy[n,c,k] - db[c] / (N*HW)
                     - (x[n,c,k] - mean[c]) * invstd[c] * dw[c] / (N*HW))

    with invstd[c] = 1 / sqrt(var[c] + eps). So it is in training, where mean and var are
    functions of x. In use they are constants, the running ones: (6) loses the terms with
    db and dw.

Shapes

    x, y, dx, dy        (N, C), (N, C, L), (N, C, H, W), ...   float, all alike
    w, b, dw, db        (C,)   float
    mean, var, invstd   (C,)   float

Edges: one value per channel has no variance: training on it is an error. A channel with
variance 0 becomes b, as long as eps > 0. NaN or infinity makes its whole channel NaN in
training. An empty batch gives an empty y and leaves the running statistics alone. A mean
far larger than the deviation costs no digits of the variance, nor of y.

Lecture: lectures/08_deep_nets_that_train.ipynb.  Symbols: GLOSSARY.md.
Source: Ioffe & Szegedy, arXiv:1502.03167, algorithm 1; as torch.nn.BatchNorm2d.
"""

import math
from math import prod
from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import split
from course.cuda.reductions import block_for, block_sum
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
from course.engine.elementary import quotient
from course.layers.base import Layer
from course.shapes import integer

PIECE = 64  # rows
WIDTH = 1024  # channels


@compiled
def _y_cpu(y, mean, var, x, w, b, eps, training, first, past):
    """Equation (3), in training after (1) and (2); a thread has channels.

    Equations (1) and (2) take the distance from the first plane's mean: it is small
    where x is not, and then its squares lose no digits to one another.
    """
    N, _, HW = x.shape
    zero, count = x.dtype.type(0), x.dtype.type(N * HW)
    for c in range(first, past):
        pivot, shift = mean[c], zero  # their sum is the mean
        if training:
            pixels, total = x[0, c], zero
            for k in range(HW):
                total += pixels[k]
            pivot = total / x.dtype.type(HW)
            total, squares = zero, zero
            for n in range(N):
                pixels, sum_n, squares_n = x[n, c], zero, zero
                for k in range(HW):
                    distance = pixels[k] - pivot
                    sum_n += distance
                    squares_n += distance * distance
                total += sum_n
                squares += squares_n
            shift = total / count
            spread = squares / count - shift * shift
            mean[c], var[c] = pivot + shift, zero if spread < zero else spread
        factor = w[c] / np.sqrt(var[c] + eps)
        rest = b[c] - shift * factor
        for n in range(N):
            row, pixels = y[n, c], x[n, c]
            for k in range(HW):
                row[k] = (pixels[k] - pivot) * factor + rest


@compiled
def _dx_cpu(dx, dw, db, dy, x, w, mean, invstd, training, first, past):
    """Equations (4), (5) and (6), in use without two terms; a thread has channels.

    dx begins with the planes that were added last, as they are still in the cache.
    """
    N, _, HW = x.shape
    zero, count = x.dtype.type(0), x.dtype.type(N * HW)
    for c in range(first, past):
        mean_c, slope, total = mean[c], zero, zero
        for n in range(N):
            upstream, pixels, slope_n, total_n = dy[n, c], x[n, c], zero, zero
            for k in range(HW):
                slope_n += upstream[k] * (pixels[k] - mean_c)
                total_n += upstream[k]
            slope += slope_n
            total += total_n
        dw[c], db[c] = slope * invstd[c], total
        factor = w[c] * invstd[c]
        average, slope = total / count, quotient(invstd[c] * dw[c], count)
        for n in range(N - 1, -1, -1):
            row, upstream, pixels = dx[n, c], dy[n, c], x[n, c]
            if training:
                for k in range(HW):
                    distance = pixels[k] - mean_c
                    row[k] = factor * (upstream[k] - average - distance * slope)
            else:
                for k in range(HW):
                    row[k] = factor * upstream[k]


# Where a plane is one pixel, x is (N, C) and the channels lie side by side in memory. The
# loops below go down the rows with WIDTH channels at most, whose sums stay in the cache.
# They add short pieces, which round less, and add up those. Between what two threads write
# in `sums` there is a gap: they would else take lines of the cache from each other.


@compiled
def _y_cpu_rows(y, mean, var, sums, x, w, b, eps, training, first, past):
    """Equation (3), in training after (1) and (2), as above; a thread has channels.

    The pivot is the average of the first piece of rows.
    """
    zero, count, few = x.dtype.type(0), x.dtype.type(len(x)), min(PIECE, len(x))
    for start in range(first, past, WIDTH):
        end = min(start + WIDTH, past)
        width, here = end - start, slice(2 * start, start + end)
        pivot, part, squares = sums[0, here], sums[1, here], sums[2, here]
        total, total_squares = sums[3, here], sums[4, here]
        for c in range(width):
            pivot[c] = zero if training else mean[start + c]
            part[c] = squares[c] = total[c] = total_squares[c] = zero
        for again in range(2 * training):
            rows = len(x) if again else few
            for c in range(width):
                pivot[c] += total[c] / x.dtype.type(few)
                total[c] = total_squares[c] = zero
            for piece in range(0, rows, PIECE):
                for n in range(piece, min(piece + PIECE, len(x))):
                    pixels = x[n, start:end]
                    for c in range(width):
                        distance = pixels[c] - pivot[c]
                        part[c] += distance
                        squares[c] += distance * distance
                for c in range(width):
                    total[c] += part[c]
                    total_squares[c] += squares[c]
                    part[c] = squares[c] = zero
        factor, rest = part, squares
        for c in range(width):
            shift = total[c] / count if training else zero
            if training:
                spread = total_squares[c] / count - shift * shift
                mean[start + c] = pivot[c] + shift
                var[start + c] = zero if spread < zero else spread
            factor[c] = w[start + c] / np.sqrt(var[start + c] + eps)
            rest[c] = b[start + c] - shift * factor[c]
        for n in range(len(x)):
            row, pixels = y[n, start:end], x[n, start:end]
            for c in range(width):
                row[c] = (pixels[c] - pivot[c]) * factor[c] + rest[c]


@compiled
def _dw_cpu_rows(dw, db, sums, dy, x, mean, invstd, first, past):
    """Equations (4) and (5), as above; a thread has channels."""
    zero = x.dtype.type(0)
    for start in range(first, past, WIDTH):
        end = min(start + WIDTH, past)
        slope, total, mean_c = dw[start:end], db[start:end], mean[start:end]
        here = slice(2 * start, start + end)
        slope_piece, total_piece = sums[0, here], sums[1, here]
        for c in range(end - start):
            slope[c] = total[c] = slope_piece[c] = total_piece[c] = zero
        for piece in range(0, len(x), PIECE):
            for n in range(piece, min(piece + PIECE, len(x))):
                upstream, pixels = dy[n, start:end], x[n, start:end]
                for c in range(end - start):
                    slope_piece[c] += upstream[c] * (pixels[c] - mean_c[c])
                    total_piece[c] += upstream[c]
            for c in range(end - start):
                slope[c] += slope_piece[c]
                total[c] += total_piece[c]
                slope_piece[c] = total_piece[c] = zero
        for c in range(end - start):
            slope[c] *= invstd[start + c]


@compiled
def _dx_cpu_rows(dx, dy, x, w, mean, invstd, dw, db, training, first, past):
    """Equation (6), in use without the terms of db and dw; a thread has rows."""
    share = x.dtype.type(1) / x.dtype.type(len(x))
    for n in range(first, past):
        row, upstream, pixels = dx[n], dy[n], x[n]
        if training:
            for c in range(row.size):
                slope = invstd[c] * dw[c] * share
                level = upstream[c] - db[c] * share - (pixels[c] - mean[c]) * slope
                row[c] = w[c] * invstd[c] * level
        else:
            for c in range(row.size):
                row[c] = w[c] * invstd[c] * upstream[c]


# On a GPU x is (N, C, HW) in any case, or flat; t counts the pixels of a channel, or all.


@cuda.jit
def _mean_cuda(mean, rest, invstd, running_mean, running_var, x, momentum, unbiased, eps):
    """Equations (1) and (2); a block has a channel, a thread has some of its pixels.

    The mean is rounded: the rest is what it lacks. The running arrays follow it.
    """
    scratch = cuda.shared.array(32, x.dtype)
    (N, _, HW), c = x.shape, cuda.blockIdx.x
    zero, one, count = x.dtype.type(0), x.dtype.type(1), x.dtype.type(N * HW)
    total = zero
    for t in range(cuda.threadIdx.x, N * HW, cuda.blockDim.x):
        n, k = split(t, HW)
        total += x[n, c, k]
    pivot = block_sum(total, scratch) / count
    total, squares = zero, zero
    for t in range(cuda.threadIdx.x, N * HW, cuda.blockDim.x):
        n, k = split(t, HW)
        distance = x[n, c, k] - pivot
        total += distance
        squares += distance * distance
    shift = block_sum(total, scratch) / count
    var = block_sum(squares, scratch) / count - shift * shift
    if cuda.threadIdx.x == 0:
        var = zero if var < zero else var
        mean_c = pivot + shift
        mean[c] = mean_c
        rest[c] = pivot - mean_c + shift
        invstd[c] = one / math.sqrt(var + eps)
        running_mean[c] += momentum * (mean_c - running_mean[c])
        running_var[c] += momentum * (var * unbiased - running_var[c])


@cuda.jit
def _invstd_cuda(mean, rest, invstd, running_mean, running_var, eps):
    """Equations (1) and (2) in use: the running arrays; a thread has channels."""
    zero, one = mean.dtype.type(0), mean.dtype.type(1)
    for c in range(cuda.grid(1), mean.size, cuda.gridsize(1)):
        mean[c] = running_mean[c]
        rest[c] = zero
        invstd[c] = one / math.sqrt(running_var[c] + eps)


@cuda.jit
def _y_cuda(y, x, w, b, mean, rest, invstd, C, HW):
    """Equation (3); a thread has elements."""
    for t in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        plane, _ = split(t, HW)
        _, c = split(plane, C)
        y[t] = (x[t] - mean[c] - rest[c]) * (w[c] * invstd[c]) + b[c]


@cuda.jit
def _dw_cuda(dw, db, dy, x, mean, invstd):
    """Equations (4) and (5); a block has a channel, a thread has some of its pixels."""
    scratch = cuda.shared.array(32, x.dtype)
    (N, _, HW), c = x.shape, cuda.blockIdx.x
    slope = total = x.dtype.type(0)
    for t in range(cuda.threadIdx.x, N * HW, cuda.blockDim.x):
        n, k = split(t, HW)
        slope += dy[n, c, k] * (x[n, c, k] - mean[c])
        total += dy[n, c, k]
    slope, total = block_sum(slope, scratch), block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        dw[c] = slope * invstd[c]
        db[c] = total


@cuda.jit
def _dx_cuda(dx, dy, x, w, mean, invstd, dw, db, training, C, HW):
    """Equation (6), in use without the terms of db and dw; a thread has elements."""
    share = x.dtype.type(1) / x.dtype.type(x.size // C)
    for t in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        plane, _ = split(t, HW)
        _, c = split(plane, C)
        level = dy[t]
        if training:
            level += -db[c] * share - (x[t] - mean[c]) * (invstd[c] * dw[c] * share)
        dx[t] = w[c] * invstd[c] * level


def _planes(x: Array) -> Array:
    """Return (N, C, ...) as (N, C, HW), and as (N, C) where a plane is one pixel."""
    N, C, *sizes = x.shape
    return x.reshape((N, C) if prod(sizes) == 1 else (N, C, prod(sizes)))


def _images(name: str, x: Array, dtype: Any = None) -> Array:
    """Return the array ready for the loops, or say in words what is wrong with it."""
    x = floats(name, x, "any", dtype)
    if x.ndim < 2:
        raise ValueError(f"{name} has shape {x.shape}; it must be (N, C) or (N, C, ...)")
    return x


def _per_channel(name: str, a: Array | None, default: float, x: Array) -> Array:
    """Return one number for each channel of x; the default where a is None."""
    C = x.shape[1]
    if a is None:
        return full(C, default, x.dtype, x)
    a = floats(name, a, f"({C},)", x)
    same_shape(name, a, (C,), "one number for each channel of x")
    return a


def batchnorm_forward(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Return y of equation (3), and the mean and invstd it was computed with.

    In training they are those of the batch, equations (1) and (2), and the running arrays
    are changed in place to (1 - momentum) * running + momentum * batch, with the unbiased
    variance, divided by N*HW - 1. In use they are the running ones. Without running arrays
    (None) there is only training; without weight or bias they are 1 and 0. Raises
    TypeError for dtypes that are not float32 or float64, or not alike, and ValueError for
    shapes that do not fit together and for one value per channel in training.

    >>> x = np.array([[1.0], [3.0], [5.0], [7.0]])
    >>> running_mean, running_var = np.array([0.0]), np.array([1.0])
    >>> y, mean, invstd = batchnorm_forward(
    ...     x, None, None, running_mean, running_var, training=True, momentum=0.5, eps=4.0
    ... )
    >>> y.ravel(), mean, invstd
    (array([-1.        , -0.33333333,  0.33333333,  1.        ]), array([4.]), \
array([0.33333333]))
    >>> running_mean, running_var.round(6)
    (array([2.]), array([3.833333]))
    """
    x = _images("x", x)
    w, b = _per_channel("weight", weight, 1, x), _per_channel("bias", bias, 0, x)
    momentum, eps = number("momentum", momentum), number("eps", eps)
    if eps < 0:
        raise ValueError(f"eps must be at least 0, not {eps}")
    tracked = running_mean is not None
    if tracked != (running_var is not None):
        raise ValueError("give both running_mean and running_var, or neither")
    if not (tracked or training):
        raise ValueError("without running_mean and running_var there is only training")
    running = (
        _per_channel("running_mean", running_mean, 0, x),
        _per_channel("running_var", running_var, 1, x),
    )
    count = x.size // max(1, x.shape[1])
    if training and count == 1:
        raise ValueError(
            f"x has shape {x.shape}: one value per channel has no variance; train on a "
            "larger batch, or call eval() first to use the network on a single sample"
        )
    learn = bool(training and count)
    if not on_cpu(x):
        return _forward_gpu(x, w, b, running, learn, momentum, eps)
    mean, var = running[0].copy(), running[1].copy()
    planes = _planes(x)
    y = np.empty_like(planes)
    arrays, settings = (planes, w, b), (x.dtype.type(eps), learn)
    if planes.ndim == 3:
        fill(_y_cpu, len(w), y, mean, var, *arrays, *settings)
    else:
        sums = np.empty((5, 2 * len(w)), x.dtype)
        # half of a row is read less quickly than all of it: threads pay off later
        work = y, mean, var, sums, *arrays, *settings
        fill(_y_cpu_rows, len(w), *work, steps=x.size // 2)
    if learn and tracked:
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (count / (count - 1)) - running_var)
    return y.reshape(x.shape), mean, 1 / np.sqrt(var + eps)


def _forward_gpu(x, w, b, running, learn: bool, momentum: float, eps: float) -> Any:
    """Return y, mean and invstd of arrays on cuda."""
    N, C, HW = *x.shape[:2], prod(x.shape[2:])
    number_of = x.dtype.type
    y = empty_like(x)
    mean, rest, invstd = (empty(C, x.dtype, x) for _ in range(3))
    statistics = mean, rest, invstd
    if learn:
        unbiased = number_of(N * HW / (N * HW - 1))
        numbers = number_of(momentum), unbiased, number_of(eps)
        arrays, threads = (
            (*statistics, *running, x.reshape(N, C, HW)),
            block_for(N * HW, most=1024),
        )
        launch(_mean_cuda, C * threads, *arrays, *numbers, threads=threads)
    else:
        launch(_invstd_cuda, C, *statistics, *running, number_of(eps))
    launch(_y_cuda, y.size, y.ravel(), x.ravel(), w, b, *statistics, C, HW)
    return y, mean, invstd


def batchnorm_backward(
    dy: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    invstd: Array,
    training: bool,
) -> tuple[Array, Array, Array]:
    """Return dx, dw, db of equations (6), (4), (5), in the dtype of x.

    mean and invstd are what forward returned, training what it was told. Raises as forward
    does, and ValueError if dy has not the shape of x.

    >>> x, dy = np.array([[1.0], [3.0]]), np.array([[1.0], [0.0]])
    >>> dx, dw, db = batchnorm_backward(
    ...     dy, x, None, np.array([2.0]), np.array([0.5]), training=True
    ... )
    >>> dx.ravel(), dw, db
    (array([ 0.1875, -0.1875]), array([-0.5]), array([1.]))
    """
    x = _images("x", x)
    dy = floats("dy", dy, "any", x)
    same_shape("dy", dy, x.shape, "the shape of x")
    w = _per_channel("weight", weight, 1, x)
    mean = _per_channel("mean", mean, 0, x)
    invstd = _per_channel("invstd", invstd, 1, x)
    dw, db = empty_like(w), empty_like(w)
    if not on_cpu(x):
        N, C, HW = *x.shape[:2], prod(x.shape[2:])
        arrays, threads = (
            (dy.reshape(N, C, HW), x.reshape(N, C, HW)),
            block_for(N * HW, most=1024),
        )
        launch(_dw_cuda, C * threads, dw, db, *arrays, mean, invstd, threads=threads)
        dx = empty_like(x)
        arrays = dx.ravel(), dy.ravel(), x.ravel(), w, mean, invstd, dw, db
        launch(_dx_cuda, dx.size, *arrays, bool(training), C, HW)
        return dx, dw, db
    planes, upstream = _planes(x), _planes(dy)
    dx = np.empty_like(planes)
    if planes.ndim == 3:
        arrays = dx, dw, db, upstream, planes, w, mean, invstd
        fill(_dx_cpu, len(w), *arrays, bool(training))
    else:
        sums = np.empty((2, 2 * len(w)), x.dtype)
        work = dw, db, sums, upstream, planes, mean, invstd
        fill(_dw_cpu_rows, len(w), *work, steps=x.size // 2)
        arrays = dx, upstream, planes, w, mean, invstd, dw, db
        fill(_dx_cpu_rows, len(x), *arrays, bool(training))
    return dx.reshape(x.shape), dw, db


class BatchNorm2d(Layer):
    """Batch normalisation of images (N, C, H, W), with parameters weight and bias (C,).

    weight starts at 1, bias at 0; affine=False leaves both out. The buffers running_mean
    and running_var start at 0 and 1 and follow the batches in training; after eval() they
    take the place of the batch's statistics. momentum=None makes them plain averages over
    all batches; track_running_stats=False leaves them out, and then the batch's statistics
    serve in use as well. Raises ValueError for num_features below 1, or an x with another
    number of channels or axes.
    """

    undecayed = "weight", "bias"

    shapes = ("(N, C, H, W)",)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: Any = np.float32,
    ):
        super().__init__()
        C = integer("num_features", num_features, 1)
        self.channels, self.eps = C, number("eps", eps)
        self.momentum = None if momentum is None else number("momentum", momentum)
        if affine:
            self.params["weight"] = np.ones(C, dtype)
            self.params["bias"] = np.zeros(C, dtype)
        if track_running_stats:
            self.buffers["running_mean"] = np.zeros(C, dtype)
            self.buffers["running_var"] = np.ones(C, dtype)
            self.buffers["num_batches_tracked"] = np.zeros((), np.int64)

    def forward(self, x: Array) -> Array:
        x = floats("x", x, "any")
        if x.ndim not in (shape.count(",") + 1 for shape in self.shapes):
            raise ValueError(
                f"x has shape {x.shape}; it must be {' or '.join(self.shapes)}"
            )
        if x.shape[1] != self.channels:
            raise ValueError(f"x has {x.shape[1]} channels, the layer has {self.channels}")
        training, momentum = self.training or not self.buffers, self.momentum
        seen = self.buffers.get("num_batches_tracked", np.zeros((), np.int64))
        y, mean, invstd = batchnorm_forward(
            x,
            self.params.get("weight"),
            self.params.get("bias"),
            self.buffers.get("running_mean"),
            self.buffers.get("running_var"),
            training,
            1 / (int(seen) + 1) if momentum is None else momentum,
            self.eps,
        )
        if training and x.size:
            seen += 1
        self.x, self.statistics = x, (mean, invstd, training)
        return y

    def backward(self, dy: Array) -> Array:
        x = self.remembered("x")
        weight = self.params.get("weight")
        dx, dw, db = batchnorm_backward(dy, x, weight, *self.statistics)
        if "weight" in self.params:
            self.grads["weight"], self.grads["bias"] = dw, db
        return dx


class BatchNorm1d(BatchNorm2d):
    """Batch normalisation of rows (N, C) or signals (N, C, L); otherwise as BatchNorm2d."""

    shapes = ("(N, C)", "(N, C, L)")
