"""1-D convolution: slide F filters of K taps along a signal of several channels.

Equations

    (1)  y[n,f,j]       = b[f] + sum over c,v of w[f,c,v] * x[n,c0+c,q]
    (2)  dx[n,c0+c,q]   = sum over f,j,v      of w[f,c,v] * dy[n,f,j]
    (3)  dw[f,c,v]      = sum over n,j        of dy[n,f,j] * x[n,c0+c,q]
    (4)  db[f]          = sum over n,j        of dy[n,f,j]

    with q = j*S + v*D - before, 0 <= v < K, 0 <= c < C/G, and c0 the first channel of
    the group of filter f: filters come in G groups of F/G, and group k sees channels
    k*C/G to (k+1)*C/G - 1 only.

Shapes

    x, dx   (N, C, W)     float; a signal is a row of W samples in each channel
    w, dw   (F, C/G, K)   float
    b, db   (F,)          float
    y, dy   (N, F, WO)    float; WO = (W + before + after - D*(K-1) - 1)//S + 1

Edges: samples outside x are 0. A remainder of samples that no window reaches is left
out, and its gradient is 0. An empty batch gives an empty y. As in every deep-learning
library this is cross-correlation: w is not flipped.

The loops are the definition. The functions call course/engine/cpu.py, to which a signal is
an image of one row, and the loops only for what it leaves to them.

On a GPU there is no frame: a thread asks of every tap whether it is inside x, and (2) is
pulled, as in course/layers/conv2d.py. There course/engine/cuda.py takes what is large.

Lecture: lectures/09_convolution.ipynb.  Symbols: GLOSSARY.md.
Source: Waibel et al., IEEE Trans. ASSP 37 (1989), the time-delay network; as
torch.nn.Conv1d.
"""

from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda.reductions import block_for, block_sum
from course.device import (
    Array,
    empty,
    empty_like,
    fill,
    floats,
    full,
    launch,
    on_cpu,
    same_shape,
)
from course.engine import cpu as engine
from course.engine import cuda as cuda_engine
from course.layers.base import Layer, he_normal
from course.shapes import MOST, Pair, integer, out_size, pads


@compiled
def _y_cpu(y, xp, w, b, G, S, D, first, past):
    """Equation (1); a thread has rows (n, f) of y."""
    (_, F, WO), (_, CG, K) = y.shape, w.shape
    for row in range(first, past):
        n, f = divmod(row, F)
        c0 = f // (F // G) * CG
        y[n, f] = b[f]
        for c in range(CG):
            for v in range(K):
                for j in range(WO):
                    y[n, f, j] += w[f, c, v] * xp[n, c0 + c, j * S + v * D]


@compiled
def _dx_cpu(dxp, dy, w, G, S, D, first, past):
    """Equation (2), pushed: an output gives to every sample it saw, frame included.

    A thread has rows (n, channel) of dx.
    """
    C, (_, F, WO), (_, CG, K) = dxp.shape[1], dy.shape, w.shape
    FG = F // G
    for row in range(first, past):
        n, channel = divmod(row, C)
        group, c = divmod(channel, CG)
        dxp[n, channel] = 0
        for f in range(group * FG, (group + 1) * FG):
            for v in range(K):
                for j in range(WO):
                    dxp[n, channel, j * S + v * D] += w[f, c, v] * dy[n, f, j]


@compiled
def _dw_cpu(dw, dy, xp, G, S, D, first, past):
    """Equation (3); a thread has rows (f, c) of dw."""
    (N, _, WO), (F, CG, K) = dy.shape, dw.shape
    for row in range(first, past):
        f, c = divmod(row, CG)
        c0 = f // (F // G) * CG
        dw[f, c] = 0
        for n in range(N):
            for v in range(K):
                total = dw.dtype.type(0)
                for j in range(WO):
                    total += dy[n, f, j] * xp[n, c0 + c, j * S + v * D]
                dw[f, c, v] += total


@compiled
def _db_cpu(db, dy, first, past):
    """Equation (4); a thread has filters."""
    for f in range(first, past):
        db[f] = 0
        for n in range(len(dy)):
            upstream = dy[n, f]
            total = db.dtype.type(0)
            for j in range(upstream.size):
                total += upstream[j]
            db[f] += total


@cuda.jit
def _y_cuda(y, x, w, b, G, S, before, D):
    """Equation (1); a thread has elements of y."""
    (_, F, WO), (_, CG, K), W = y.shape, w.shape, x.shape[2]
    for t in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        row, j = divmod(t, WO)
        n, f = divmod(row, F)
        c0 = f // (F // G) * CG
        total = b[f]
        for v in range(K):
            q = j * S + v * D - before
            if 0 <= q < W:
                for c in range(CG):
                    total += w[f, c, v] * x[n, c0 + c, q]
        y[n, f, j] = total


@cuda.jit
def _dx_cuda(dx, dy, w, G, S, before, D):
    """Equation (2), pulled: a sample asks the taps that saw it; a thread has samples."""
    (_, F, WO), (_, CG, K), (_, C, W) = dy.shape, w.shape, dx.shape
    FG = F // G
    for t in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        row, q = divmod(t, W)
        n, channel = divmod(row, C)
        f0, c = channel // CG * FG, channel % CG
        total = dx.dtype.type(0)
        for v in range(K):
            j, left_over = divmod(q + before - v * D, S)
            if left_over == 0 and 0 <= j < WO:
                for f in range(FG):
                    total += w[f0 + f, c, v] * dy[n, f0 + f, j]
        dx[n, channel, q] = total


@cuda.jit
def _dw_cuda(dw, dy, x, G, S, before, D):
    """Equation (3); a block has a weight, a thread has some of the outputs."""
    scratch = cuda.shared.array(32, dy.dtype)
    (N, F, WO), (_, CG, K), W = dy.shape, dw.shape, x.shape[2]
    row, v = divmod(cuda.blockIdx.x, K)
    f, c = divmod(row, CG)
    c0 = f // (F // G) * CG
    total = dw.dtype.type(0)
    for t in range(cuda.threadIdx.x, N * WO, cuda.blockDim.x):
        n, j = divmod(t, WO)
        q = j * S + v * D - before
        if 0 <= q < W:
            total += dy[n, f, j] * x[n, c0 + c, q]
    total = block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        dw[f, c, v] = total


@cuda.jit
def _db_cuda(db, dy):
    """Equation (4); a block has a filter, a thread has some of its outputs."""
    scratch = cuda.shared.array(32, dy.dtype)
    N, _, WO = dy.shape
    f = cuda.blockIdx.x
    total = db.dtype.type(0)
    for t in range(cuda.threadIdx.x, N * WO, cuda.blockDim.x):
        n, j = divmod(t, WO)
        total += dy[n, f, j]
    total = block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        db[f] = total


def _frame(padding: Any, W: int, K: int, S: int, D: int) -> Pair:
    """Return (before, after) in samples."""
    if isinstance(padding, str):
        return pads(padding, (1, W), (1, K), (1, S), (1, D))[1]
    if isinstance(padding, tuple | list):
        if len(padding) != 2:
            raise ValueError(f"padding must be an int or (before, after), not {padding!r}")
        before, after = (integer("padding", P, 0, MOST) for P in padding)
        return before, after
    P = integer("padding", padding, 0, MOST)
    return P, P


def _geometry(x_shape, w_shape, stride, padding, dilation, groups):
    """Return G, S, D, padding and the size of y, or say what cannot be."""
    C, W = x_shape[1:]
    F, CG, K = w_shape
    G = integer("groups", groups, 1)
    if C % G or F % G:
        raise ValueError(
            f"groups={G} must divide the {C} channels of x and the {F} filters of w"
        )
    if CG * G != C:
        raise ValueError(
            f"x has {C} channels, w expects {CG * G}"
            + f" ({CG} in each of {G} groups)" * (G > 1)
        )
    if K < 1:
        raise ValueError(f"w has shape {w_shape}; a filter needs at least 1 tap")
    S, D = integer("stride", stride, 1, MOST), integer("dilation", dilation, 1, MOST)
    frame = _frame(padding, W, K, S, D)
    WO = out_size(W, K, S, frame, D)
    return G, S if WO > 1 else 1, D, frame, WO  # one window needs no stride


def _as_images(*signals: Array) -> list[Array]:
    """Return arrays (A, B, W) as images (A, B, 1, W) of one row."""
    return [a.reshape(*a.shape[:2], 1, a.shape[2]) for a in signals]


def conv1d_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: int = 1,
    padding: int | Pair | str = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Array:
    """Return y of equation (1), in the dtype of x.

    Padding is an int, (before, after), "valid" or "same". Raises TypeError for dtypes
    that are not float32 or float64, or not alike, and ValueError for shapes that do not
    fit together.

    >>> x = np.array([[[0.0, 1.0, 4.0, 9.0]]])
    >>> conv1d_forward(x, np.array([[[-1.0, 1.0]]]))
    array([[[1., 3., 5.]]])
    """
    x = floats("x", x, "(N, C, W)")
    w = floats("w", w, "(F, C/G, K)", x)
    G, S, D, frame, WO = _geometry(x.shape, w.shape, stride, padding, dilation, groups)
    N, F = len(x), len(w)
    if b is not None:
        b = floats("b", b, "(F,)", x)
        same_shape("b", b, (F,), "one bias for each filter of w")
    y = empty((N, F, WO), x.dtype, x)
    images, window = _as_images(y, x, w), ((1, S), ((0, 0), frame), (1, D), G)
    if not on_cpu(x) and cuda_engine.conv2d(*images, b, *window):
        return y
    if b is None:
        b = full(F, 0, x.dtype, x)
    if not on_cpu(x):
        launch(_y_cuda, y.size, y, x, w, b, G, S, frame[0], D)
    elif not engine.convolve(*images, b, *window):
        xp = np.pad(x, ((0, 0), (0, 0), frame))
        fill(_y_cpu, N * F, y, xp, w, b, G, S, D, steps=y.size * w[0].size)
    return y


def conv1d_backward(
    dy: Array,
    x: Array,
    w: Array,
    stride: int = 1,
    padding: int | Pair | str = 0,
    dilation: int = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array]:
    """Return dx, dw, db of equations (2), (3), (4), in the dtype of x.

    The keywords are those that forward was called with. Raises as forward does, and
    ValueError if dy has not the shape of y.

    >>> x, w = np.array([[[0.0, 1.0, 4.0, 9.0]]]), np.array([[[-1.0, 1.0]]])
    >>> dx, dw, db = conv1d_backward(np.ones((1, 1, 3)), x, w)
    >>> dx, dw, db
    (array([[[-1.,  0.,  0.,  1.]]]), array([[[ 5., 14.]]]), array([3.]))
    """
    x = floats("x", x, "(N, C, W)")
    w = floats("w", w, "(F, C/G, K)", x)
    dy = floats("dy", dy, "(N, F, WO)", x)
    G, S, D, frame, WO = _geometry(x.shape, w.shape, stride, padding, dilation, groups)
    (N, C, W), (F, CG, _) = x.shape, w.shape
    same_shape("dy", dy, (N, F, WO), "the shape of y for these x and w")
    dx, dw, db = empty_like(x), empty_like(w), empty(F, x.dtype, x)
    window, images = ((1, S), ((0, 0), frame), (1, D), G), _as_images(dx, dw, dy, x, w)
    if not on_cpu(x):
        threads = block_for(N * WO)
        launch(_db_cuda, F * threads, db, dy, threads=threads)
        if not cuda_engine.conv2d_backward(*images, *window):
            window = G, S, frame[0], D
            launch(_dx_cuda, dx.size, dx, dy, w, *window)
            launch(_dw_cuda, dw.size * threads, dw, dy, x, *window, threads=threads)
        return dx, dw, db
    if not engine.convolve_backward(*images[:2], db, *images[2:], *window):
        xp, steps = np.pad(x, ((0, 0), (0, 0), frame)), dy.size * w[0].size
        dxp = np.empty_like(xp)
        fill(_dx_cpu, N * C, dxp, dy, w, G, S, D, steps=steps)
        fill(_dw_cpu, F * CG, dw, dy, xp, G, S, D, steps=steps)
        fill(_db_cpu, F, db, dy)
        dx[...] = dxp[:, :, frame[0] : frame[0] + W]
    return dx, dw, db


class Conv1d(Layer):
    """1-D convolution as a layer, with parameters weight (F, C/G, K) and bias (F,).

    weight starts normal with variance 2 / (C/G*K), as suits a following ReLU (He et al.,
    ICCV 2015); bias starts at 0, and bias=False leaves it out. Raises ValueError if
    groups does not divide both channel counts, or a size is below 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | Pair | str = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ):
        super().__init__()
        C = integer("in_channels", in_channels, 1)
        F = integer("out_channels", out_channels, 1)
        G = integer("groups", groups, 1)
        if C % G or F % G:
            raise ValueError(f"groups={G} must divide in_channels={C} and out_channels={F}")
        K = integer("kernel_size", kernel_size, 1)
        S, D = integer("stride", stride, 1, MOST), integer("dilation", dilation, 1, MOST)
        _frame(padding, 1, K, S, D)  # refuses what is no padding
        self.params["weight"] = he_normal(rng, (F, C // G, K), dtype)
        if bias:
            self.params["bias"] = np.zeros(F, dtype)
        self.window: dict[str, Any] = {
            "stride": S,
            "padding": padding,
            "dilation": D,
            "groups": G,
        }

    def forward(self, x: Array) -> Array:
        y = conv1d_forward(x, self.params["weight"], self.params.get("bias"), **self.window)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        x = self.remembered("x")
        dx, dw, db = conv1d_backward(dy, x, self.params["weight"], **self.window)
        self.grads["weight"] = dw
        if "bias" in self.params:
            self.grads["bias"] = db
        return dx
