"""2-D convolution: slide F filters of KH x KW taps over the channels of an image.

Equations

    (1)  y[n,f,i,j]  = b[f] + sum over c,u,v of w[f,c,u,v] * x[n,c0+c,p,q]
    (2)  dx[n,c0+c,p,q] = sum over f,i,j,u,v  of w[f,c,u,v] * dy[n,f,i,j]
    (3)  dw[f,c,u,v] = sum over n,i,j        of dy[n,f,i,j] * x[n,c0+c,p,q]
    (4)  db[f]       = sum over n,i,j        of dy[n,f,i,j]

    with p = i*SH + u*DH - top, q = j*SW + v*DW - left, 0 <= u < KH, 0 <= v < KW,
    0 <= c < C/G, and c0 the first channel of the group of filter f: filters come in G
    groups of F/G, and group k sees channels k*C/G to (k+1)*C/G - 1 only.

Shapes

    x, dx   (N, C, H, W)         float
    w, dw   (F, C/G, KH, KW)     float
    b, db   (F,)                 float
    y, dy   (N, F, HO, WO)       float; HO = (H + top + bottom - DH*(KH-1) - 1)//SH + 1,
                                 and WO likewise

Edges: pixels outside x are 0. A remainder of rows or columns that no window reaches is
left out, and its gradient is 0. An empty batch gives an empty y. NaN and infinity in x and
dy go where the equations take them; in dw an infinity may come out as NaN, and a NaN or
infinity in w may miss, or reach, what only a frame of zeros separates from it.

As in every deep-learning library this is cross-correlation: w is not flipped.

The loops of (1), (2) and (3) visit the same products in the same nest, one line apart;
framing x in zeros first leaves that line without an if. They are the definition. The
functions call course/engine/cpu.py, which visits the same products 10 to 50 times as fast,
and the loops here only for what it leaves to them. Between the two stands `_y_cpu_run`:
with stride 1, what tap (u,v) sees lies u*DH*WP + v*DW pixels after what tap (0,0) sees, for
every window alike, if the framed image, WP pixels wide, is read as one long row. So a tap
is one pass along memory, as vector instructions like it.

On a GPU there is no frame: a thread asks of every tap whether it is inside x. There (2) is
pulled: a pixel p sums over the outputs that saw it, i = (p + top - u*DH)/SH where that
leaves no remainder. A sum of (3) over many outputs is shared by the threads of a block.
What is large, and in float32, goes to course/engine/cuda.py.

Lecture: lectures/09_convolution.ipynb.  Symbols: GLOSSARY.md.
Source: LeCun et al., Proc. IEEE 86 (1998), section II; geometry from Dumoulin & Visin,
arXiv:1603.07285; groups from Krizhevsky et al., NeurIPS 2012; as torch.nn.Conv2d.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import unravel
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
from course.shapes import Pads, Pair, framed, integer, out_size, pads, pair

LONG = 256  # terms of a sum that pay for a block of threads


@compiled
def _y_cpu(y, xp, w, b, G, SH, SW, DH, DW, first, past):
    """Equation (1); a thread has planes (n, f) of y."""
    _, F, HO, WO = y.shape
    _, CG, KH, KW = w.shape
    for plane in range(first, past):
        n, f = divmod(plane, F)
        c0 = f // (F // G) * CG
        y[n, f] = b[f]
        for c in range(CG):
            for u in range(KH):
                for v in range(KW):
                    for i in range(HO):
                        for j in range(WO):
                            pixel = xp[n, c0 + c, i * SH + u * DH, j * SW + v * DW]
                            y[n, f, i, j] += w[f, c, u, v] * pixel


@compiled
def _y_cpu_run(y, xp, w, b, G, DH, DW, first, past):
    """Equation (1) at stride 1, a tap in one run; a thread has planes (n, f) of y."""
    _, F, HO, WO = y.shape
    _, CG, KH, KW = w.shape
    WP = xp.shape[3]
    run = np.empty((HO - 1) * WP + WO, y.dtype)
    for plane in range(first, past):
        n, f = divmod(plane, F)
        c0 = f // (F // G) * CG
        run[:] = b[f]
        for c in range(CG):
            pixels = xp[n, c0 + c].reshape(-1)
            for u in range(KH):
                for v in range(KW):
                    tap, seen = w[f, c, u, v], pixels[u * DH * WP + v * DW :]
                    for k in range(run.size):
                        run[k] += tap * seen[k]
        for i in range(HO):
            for j in range(WO):
                y[n, f, i, j] = run[i * WP + j]


@compiled
def _dx_cpu(dxp, dy, w, G, SH, SW, DH, DW, first, past):
    """Equation (2), pushed: an output gives to every pixel it saw, frame included.

    A thread has planes (n, channel) of dx.
    """
    C = dxp.shape[1]
    _, F, HO, WO = dy.shape
    _, CG, KH, KW = w.shape
    FG = F // G
    for plane in range(first, past):
        n, channel = divmod(plane, C)
        group, c = divmod(channel, CG)
        dxp[n, channel] = 0
        for f in range(group * FG, (group + 1) * FG):
            for u in range(KH):
                for v in range(KW):
                    for i in range(HO):
                        for j in range(WO):
                            gradient = w[f, c, u, v] * dy[n, f, i, j]
                            dxp[n, channel, i * SH + u * DH, j * SW + v * DW] += gradient


@compiled
def _dw_cpu(dw, dy, xp, G, SH, SW, DH, DW, first, past):
    """Equation (3); a thread has planes (f, c) of dw."""
    N, F, HO, WO = dy.shape
    _, CG, KH, KW = dw.shape
    for plane in range(first, past):
        f, c = divmod(plane, CG)
        c0 = f // (F // G) * CG
        dw[f, c] = 0
        for n in range(N):
            for u in range(KH):
                for v in range(KW):
                    total = dy.dtype.type(0)
                    for i in range(HO):
                        for j in range(WO):
                            pixel = xp[n, c0 + c, i * SH + u * DH, j * SW + v * DW]
                            total += dy[n, f, i, j] * pixel
                    dw[f, c, u, v] += total


@compiled
def _db_cpu(db, dy, first, past):
    """Equation (4); a thread has filters."""
    N, _, HO, WO = dy.shape
    for f in range(first, past):
        db[f] = 0
        for n in range(N):
            total = dy.dtype.type(0)
            for i in range(HO):
                for j in range(WO):
                    total += dy[n, f, i, j]
            db[f] += total


@cuda.jit
def _y_cuda(y, x, w, b, G, SH, SW, top, left, DH, DW):
    """Equation (1); a thread has elements of y."""
    F, (H, W), (_, CG, KH, KW) = len(w), x.shape[2:], w.shape
    for t in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, f, i, j = unravel(t, y.shape)
        c0 = f // (F // G) * CG
        total = b[f]
        for u in range(KH):
            for v in range(KW):
                p, q = i * SH + u * DH - top, j * SW + v * DW - left
                if 0 <= p < H and 0 <= q < W:
                    for c in range(CG):
                        total += w[f, c, u, v] * x[n, c0 + c, p, q]
        y[n, f, i, j] = total


@cuda.jit
def _dx_cuda(dx, dy, w, G, SH, SW, top, left, DH, DW):
    """Equation (2), pulled: a pixel asks who saw it; a thread has pixels of dx."""
    (_, F, HO, WO), (_, CG, KH, KW) = dy.shape, w.shape
    FG = F // G
    for t in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, channel, p, q = unravel(t, dx.shape)
        f0, c = channel // CG * FG, channel % CG
        total = dx.dtype.type(0)
        for u in range(KH):
            for v in range(KW):
                i, below = divmod(p + top - u * DH, SH)
                j, beside = divmod(q + left - v * DW, SW)
                if below == 0 and beside == 0 and 0 <= i < HO and 0 <= j < WO:
                    for f in range(FG):
                        total += w[f0 + f, c, u, v] * dy[n, f0 + f, i, j]
        dx[n, channel, p, q] = total


@cuda.jit
def _dw_cuda(dw, dy, x, G, SH, SW, top, left, DH, DW):
    """Equation (3); a thread has weights."""
    (N, F, HO, WO), (H, W), CG = dy.shape, x.shape[2:], dw.shape[1]
    for t in range(cuda.grid(1), dw.size, cuda.gridsize(1)):
        f, c, u, v = unravel(t, dw.shape)
        c0 = f // (F // G) * CG
        total = dw.dtype.type(0)
        for n in range(N):
            for i in range(HO):
                for j in range(WO):
                    p, q = i * SH + u * DH - top, j * SW + v * DW - left
                    if 0 <= p < H and 0 <= q < W:
                        total += dy[n, f, i, j] * x[n, c0 + c, p, q]
        dw[f, c, u, v] = total


@cuda.jit
def _dw_cuda_block(dw, dy, x, G, SH, SW, top, left, DH, DW):
    """Equation (3); a block has a weight, a thread has some of the outputs."""
    scratch = cuda.shared.array(32, dy.dtype)
    (N, F, HO, WO), (H, W), CG = dy.shape, x.shape[2:], dw.shape[1]
    f, c, u, v = unravel(cuda.blockIdx.x, dw.shape)
    c0 = f // (F // G) * CG
    total = dw.dtype.type(0)
    for t in range(cuda.threadIdx.x, N * HO * WO, cuda.blockDim.x):
        n, _, i, j = unravel(t, (N, 1, HO, WO))
        p, q = i * SH + u * DH - top, j * SW + v * DW - left
        if 0 <= p < H and 0 <= q < W:
            total += dy[n, f, i, j] * x[n, c0 + c, p, q]
    total = block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        dw[f, c, u, v] = total


@cuda.jit
def _db_cuda(db, dy):
    """Equation (4); a block has a filter, a thread has some of its outputs."""
    scratch = cuda.shared.array(32, dy.dtype)
    N, _, HO, WO = dy.shape
    f = cuda.blockIdx.x
    total = db.dtype.type(0)
    for t in range(cuda.threadIdx.x, N * HO * WO, cuda.blockDim.x):
        n, _, i, j = unravel(t, (N, 1, HO, WO))
        total += dy[n, f, i, j]
    total = block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        db[f] = total


def _geometry(x_shape, w_shape, *window):
    """Return G, stride, dilation, padding and the size of y, or say what cannot be."""
    try:
        hash(window)
    except TypeError:  # there is a list in it, which cannot be looked up
        return _found(x_shape, w_shape, *window)
    return _known(x_shape, w_shape, window, repr(window))


@lru_cache(maxsize=1024)  # a network asks for the same few, at every step
def _known(x_shape, w_shape, window, _):
    """Return the same, which was looked up; the window's repr tells 1 from 1.0 and True."""
    return _found(x_shape, w_shape, *window)


def _found(x_shape, w_shape, stride, padding, dilation, groups):
    """Return the same, which is worked out."""
    C, H, W = x_shape[1:]
    F, CG, KH, KW = w_shape
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
    if min(w_shape) < 1 and C:
        raise ValueError(
            f"w has shape {w_shape}; there must be at least one filter, and "
            "a filter needs at least 1 x 1 taps"
        )
    stride, dilation = pair("stride", stride), pair("dilation", dilation)
    frame = pads(padding, (H, W), (KH, KW), stride, dilation)
    size = (
        out_size(H, KH, stride[0], frame[0], dilation[0]),
        out_size(W, KW, stride[1], frame[1], dilation[1]),
    )
    return G, stride, dilation, frame, size


def conv2d_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | Pads | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Array:
    """Return y of equation (1), in the dtype of x.

    Raises TypeError for dtypes that are not float32 or float64, or not alike, and
    ValueError for shapes that do not fit together.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> w = np.array([[[[-1.0, 0.0], [0.0, 1.0]]]])
    >>> conv2d_forward(x, w)[0, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    x, w, b, y, window = _ready(x, w, b, stride, padding, dilation, groups)
    stride, frame, dilation, G = window
    if not on_cpu(x):
        if not cuda_engine.conv2d(y, x, w, b, *window):
            b = full(len(w), 0, x.dtype, x) if b is None else b
            launch(_y_cuda, y.size, y, x, w, b, *_letters(*window))
        return y
    if engine.convolve(y, x, w, b, *window):
        return y
    xp, steps = framed(x, frame), y.size * w[0].size
    planes = len(x) * len(w)
    if stride == (1, 1):
        fill(_y_cpu_run, planes, y, xp, w, b, G, *dilation, steps=steps)
    else:
        fill(_y_cpu, planes, y, xp, w, b, G, *stride, *dilation, steps=steps)
    return y


def _ready(x, w, b, stride, padding, dilation, groups):
    """Return x, w, b and an empty y, and the window, or say in words what cannot be.

    On the CPU no bias is a bias of zero.
    """
    x = floats("x", x, "(N, C, H, W)")
    w = floats("w", w, "(F, C/G, KH, KW)", x)
    G, stride, dilation, frame, size = _geometry(
        x.shape, w.shape, stride, padding, dilation, groups
    )
    if b is None and on_cpu(x):
        b = np.zeros(len(w), x.dtype)
    elif b is not None:
        b = floats("b", b, "(F,)", x)
        same_shape("b", b, (len(w),), "one bias for each filter of w")
    y = empty((len(x), len(w), *size), x.dtype, x)
    return x, w, b, y, (stride, frame, dilation, G)


def _letters(stride, frame, dilation, G):
    """Return the window as kernels take it: G, SH, SW, top, left, DH, DW."""
    return G, *stride, frame[0][0], frame[1][0], *dilation


def conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    stride: int | Pair = 1,
    padding: int | Pair | Pads | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    *,
    need_dx: bool = True,
) -> tuple[Array | None, Array, Array]:
    """Return dx, dw, db of equations (2), (3), (4), in the dtype of x.

    The keywords are those that forward was called with. With need_dx=False dx is None:
    nobody asks for the gradient of the images themselves. Raises as forward does, and
    ValueError if dy has not the shape of y.

    >>> x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> dx, dw, db = conv2d_backward(np.ones((1, 1, 2, 2)), x, w)
    >>> dx[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    x = floats("x", x, "(N, C, H, W)")
    w = floats("w", w, "(F, C/G, KH, KW)", x)
    dy = floats("dy", dy, "(N, F, HO, WO)", x)
    G, stride, dilation, frame, size = _geometry(
        x.shape, w.shape, stride, padding, dilation, groups
    )
    (N, C, H, W), F, CG = x.shape, len(w), w.shape[1]
    same_shape("dy", dy, (N, F, *size), "the shape of y for these x and w")
    window = stride, frame, dilation, G
    dw, db = empty_like(w), empty(F, x.dtype, x)
    dx = empty_like(x) if need_dx else None
    if not on_cpu(x):
        threads = block_for(N * size[0] * size[1])
        launch(_db_cuda, F * threads, db, dy, threads=threads)
        if not cuda_engine.conv2d_backward(dx, dw, dy, x, w, *window):
            _launch_backward(dx, dw, dy, x, w, *_letters(*window))
        return dx, dw, db
    if engine.convolve_backward(dx, dw, db, dy, x, w, *window):
        return dx, dw, db
    xp, steps = framed(x, frame), dy.size * w[0].size
    fill(_dw_cpu, F * CG, dw, dy, xp, G, *stride, *dilation, steps=steps)
    fill(_db_cpu, F, db, dy)
    if need_dx:
        dxp, ((top, _), (left, _)) = np.empty_like(xp), frame
        fill(_dx_cpu, N * C, dxp, dy, w, G, *stride, *dilation, steps=steps)
        dx[...] = dxp[:, :, top : top + H, left : left + W]
    return dx, dw, db


def _launch_backward(dx, dw, dy, x, w, *letters):
    """Fill dx, unless it is None, and dw with the plain kernels."""
    N, _, HO, WO = dy.shape
    if N * HO * WO < LONG:
        launch(_dw_cuda, dw.size, dw, dy, x, *letters)
    else:
        threads = block_for(N * HO * WO)
        launch(_dw_cuda_block, dw.size * threads, dw, dy, x, *letters, threads=threads)
    if dx is not None:
        launch(_dx_cuda, dx.size, dx, dy, w, *letters)


class Conv2d(Layer):
    """Convolution as a layer, with parameters weight (F, C/G, KH, KW) and bias (F,).

    weight starts normal with variance 2 / (C/G*KH*KW), as suits a following ReLU (He et
    al., ICCV 2015); bias starts at 0, and bias=False leaves it out. Raises ValueError if
    groups does not divide both channel counts, or a size is below 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | Pads | str = 0,
        dilation: int | Pair = 1,
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
        kernel = pair("kernel_size", kernel_size)
        stride, dilation = pair("stride", stride), pair("dilation", dilation)
        pads(padding, (1, 1), kernel, stride, dilation)  # refuses what is no padding
        shape = F, C // G, *kernel
        self.params["weight"] = he_normal(rng, shape, dtype)
        if bias:
            self.params["bias"] = np.zeros(F, dtype)
        self.window = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": G,
        }

    def forward(self, x: Array) -> Array:
        y = conv2d_forward(x, self.params["weight"], self.params.get("bias"), **self.window)
        self.x = x
        return y

    def forward_relu(self, x: Array, pool: bool) -> tuple[Array, Array | None] | None:
        """Return y = relu(forward(x)) and, with pool, the 2 x 2 max-pool of y, in one pass.

        None in place of the second if y is too small to be pooled, if the filters are 1 x 1
        or on a GPU, and in place of both if the engine leaves this geometry to plain loops.
        """
        w, b = self.params["weight"], self.params.get("bias")
        x, w, b, y, window = _ready(x, w, b, **self.window)
        if not on_cpu(x):
            if not cuda_engine.conv2d(y, x, w, b, *window, relu=True):
                return None
            self.x = x
            return y, None
        N, F, HO, WO = y.shape
        large = pool and min(HO, WO) > 1 < w[0, 0].size
        z = np.empty((N, F, HO // 2, WO // 2), y.dtype) if large else None
        if not engine.convolve(y, x, w, b, *window, relu=True, pooled=z):
            return None
        self.x = x
        return y, z

    def backward(self, dy: Array, need_dx: bool = True) -> Array:
        x, w = self.remembered("x"), self.params["weight"]
        dx, dw, db = conv2d_backward(dy, x, w, **self.window, need_dx=need_dx)
        self.grads["weight"] = dw
        if "bias" in self.params:
            self.grads["bias"] = db
        return dx

    def learn(self, dy: Array) -> None:
        self.backward(dy, need_dx=False)
