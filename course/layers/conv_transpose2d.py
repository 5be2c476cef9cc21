"""Transposed 2-D convolution: every pixel of x stamps a scaled filter on a larger y.

Equations

    (1)  y[n,f0+f,i,j] = b[f0+f] + sum over c,p,q,u,v of w[c,f,u,v] * x[n,c,p,q]
    (2)  dx[n,c,p,q]   = sum over f,u,v   of w[c,f,u,v] * dy[n,f0+f,i,j]
    (3)  dw[c,f,u,v]   = sum over n,p,q   of x[n,c,p,q] * dy[n,f0+f,i,j]
    (4)  db[f]         = sum over n,i,j   of dy[n,f,i,j]

    with i = p*SH + u*DH - top, j = q*SW + v*DW - left, 0 <= u < KH, 0 <= v < KW,
    0 <= f < F/G, and f0 the first output channel of the group of c: channels come in G
    groups of C/G, and group k fills output channels k*F/G to (k+1)*F/G - 1 only.

    Without b, (1) is the transpose of a convolution from y to x with the same w, stride,
    padding and dilation: what convolution does in backward, this does in forward.

Shapes

    x, dx   (N, C, H, W)        float
    w, dw   (C, F/G, KH, KW)    float
    b, db   (F,)                float
    y, dy   (N, F, HO, WO)      float; HO = (H-1)*SH + DH*(KH-1) + 1 - top - bottom + OH,
                                and WO likewise

Edges: what is stamped outside y is cut off; what no filter reaches is b. Of SH sizes of
an image a convolution with stride SH makes the same H; the output padding OH, 0 to SH-1
rows at the bottom, says which one to come back to. Padding "same" gives HO = H*SH. An
empty batch gives an empty y. NaN and infinity in x may reach, in dw, also taps whose stamps
were cut off.

The loops are the definition, with y in a frame that holds whatever is stamped. The
functions call course/engine/cpu.py, to which this is the backward of a convolution, and
the loops only for what it leaves to them.

On a GPU there is no frame, and (1) is pulled: a pixel of y sums over the stamps that reach
it, p = (i + top - u*DH)/SH where that leaves no remainder. What is large, and in float32,
goes to course/engine/cuda.py.

Lecture: lectures/10_convolution_geometry.ipynb.  Symbols: GLOSSARY.md.
Source: Zeiler et al., CVPR 2010; geometry from Dumoulin & Visin, arXiv:1603.07285; as
torch.nn.ConvTranspose2d.
"""

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
from course.shapes import Pads, Pair, framed, integer, pads, pair, span


@compiled
def _y_cpu(yp, x, w, b, G, SH, SW, DH, DW, first, past):
    """Equation (1), pushed; a thread has planes (n, channel) of y."""
    (_, C, H, W), (_, FG, KH, KW) = x.shape, w.shape
    F, CG = yp.shape[1], C // G
    for plane in range(first, past):
        n, channel = divmod(plane, F)
        group, f = divmod(channel, FG)
        yp[n, channel] = b[channel]
        for c in range(group * CG, (group + 1) * CG):
            for u in range(KH):
                for v in range(KW):
                    for p in range(H):
                        for q in range(W):
                            stamp = w[c, f, u, v] * x[n, c, p, q]
                            yp[n, channel, p * SH + u * DH, q * SW + v * DW] += stamp


@compiled
def _dx_cpu(dx, dyp, w, G, SH, SW, DH, DW, first, past):
    """Equation (2); a thread has planes (n, c) of dx."""
    (_, C, H, W), (_, FG, KH, KW) = dx.shape, w.shape
    for plane in range(first, past):
        n, c = divmod(plane, C)
        f0 = c // (C // G) * FG
        dx[n, c] = 0
        for f in range(FG):
            for u in range(KH):
                for v in range(KW):
                    for p in range(H):
                        for q in range(W):
                            upstream = dyp[n, f0 + f, p * SH + u * DH, q * SW + v * DW]
                            dx[n, c, p, q] += w[c, f, u, v] * upstream


@compiled
def _dw_cpu(dw, dyp, x, G, SH, SW, DH, DW, first, past):
    """Equation (3); a thread has planes (c, f) of dw."""
    (N, C, H, W), (_, FG, KH, KW) = x.shape, dw.shape
    for plane in range(first, past):
        c, f = divmod(plane, FG)
        f0 = c // (C // G) * FG
        dw[c, f] = 0
        for n in range(N):
            for u in range(KH):
                for v in range(KW):
                    total = dw.dtype.type(0)
                    for p in range(H):
                        for q in range(W):
                            upstream = dyp[n, f0 + f, p * SH + u * DH, q * SW + v * DW]
                            total += x[n, c, p, q] * upstream
                    dw[c, f, u, v] += total


@compiled
def _db_cpu(db, dy, first, past):
    """Equation (4); a thread has output channels."""
    for f in range(first, past):
        db[f] = 0
        for n in range(len(dy)):
            upstream = dy[n, f].reshape(-1)
            total = db.dtype.type(0)
            for k in range(upstream.size):
                total += upstream[k]
            db[f] += total


@cuda.jit
def _y_cuda(y, x, w, b, G, SH, SW, top, left, DH, DW):
    """Equation (1), pulled: a pixel asks the taps that reach it; a thread has pixels."""
    (_, C, H, W), (_, FG, KH, KW) = x.shape, w.shape
    CG = C // G
    for t in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, channel, i, j = unravel(t, y.shape)
        c0, f = channel // FG * CG, channel % FG
        total = b[channel]
        for u in range(KH):
            for v in range(KW):
                p, below = divmod(i + top - u * DH, SH)
                q, beside = divmod(j + left - v * DW, SW)
                if below == 0 and beside == 0 and 0 <= p < H and 0 <= q < W:
                    for c in range(CG):
                        total += w[c0 + c, f, u, v] * x[n, c0 + c, p, q]
        y[n, channel, i, j] = total


@cuda.jit
def _y_cuda_bias(y, b):
    """Equation (1), its b alone, added to the sums; a thread has elements of y."""
    for t in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, f, i, j = unravel(t, y.shape)
        y[n, f, i, j] += b[f]


@cuda.jit
def _dx_cuda(dx, dy, w, G, SH, SW, top, left, DH, DW):
    """Equation (2); a thread has pixels of dx."""
    (HO, WO), (C, FG, KH, KW) = dy.shape[2:], w.shape
    for t in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, c, p, q = unravel(t, dx.shape)
        f0 = c // (C // G) * FG
        total = dx.dtype.type(0)
        for u in range(KH):
            for v in range(KW):
                i, j = p * SH + u * DH - top, q * SW + v * DW - left
                if 0 <= i < HO and 0 <= j < WO:
                    for f in range(FG):
                        total += w[c, f, u, v] * dy[n, f0 + f, i, j]
        dx[n, c, p, q] = total


@cuda.jit
def _dw_cuda(dw, dy, x, G, SH, SW, top, left, DH, DW):
    """Equation (3); a thread has weights."""
    (N, C, H, W), (HO, WO), FG = x.shape, dy.shape[2:], dw.shape[1]
    for t in range(cuda.grid(1), dw.size, cuda.gridsize(1)):
        c, f, u, v = unravel(t, dw.shape)
        f0 = c // (C // G) * FG
        total = dw.dtype.type(0)
        for n in range(N):
            for p in range(H):
                for q in range(W):
                    i, j = p * SH + u * DH - top, q * SW + v * DW - left
                    if 0 <= i < HO and 0 <= j < WO:
                        total += x[n, c, p, q] * dy[n, f0 + f, i, j]
        dw[c, f, u, v] = total


@cuda.jit
def _db_cuda(db, dy):
    """Equation (4); a block has an output channel, a thread has some of its pixels."""
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


def _geometry(x_shape, w_shape, stride, padding, output_padding, dilation, groups):
    """Return G, stride, dilation, (top, left) and the size of y, or say what cannot be."""
    C, H, W = x_shape[1:]
    G = integer("groups", groups, 1)
    kernel = w_shape[2:]
    if w_shape[0] != C or C % G:
        raise ValueError(
            f"x has {C} channels, w {w_shape[0]}; they must be alike, and groups={G} "
            "must divide them"
        )
    if min(kernel) < 1 or min(H, W) < 1:
        raise ValueError(
            f"x has shape {x_shape}, w {w_shape}; an image needs at least 1 x 1 pixels, "
            "a filter at least 1 x 1 taps"
        )
    stride, dilation = pair("stride", stride), pair("dilation", dilation)
    more = _more(output_padding, stride, dilation)
    stretched = H * stride[0], W * stride[1]
    frame = pads(padding, stretched, kernel, stride, dilation)
    size = tuple(
        (n - 1) * S + span(K, D) - sum(sides) + extra
        for n, K, S, sides, D, extra in zip(
            (H, W), kernel, stride, frame, dilation, more, strict=True
        )
    )
    if isinstance(padding, str) and padding.lower() == "same":
        if more != (0, 0):
            raise ValueError(
                f'padding="same" fixes the size of y; output_padding must be 0, not {more}'
            )
        size = stretched
    if min(size) < 1:
        raise ValueError(
            f"y would have {size[0]} x {size[1]} pixels: x of {H} x {W} leaves nothing "
            f"after padding {frame}; pad less"
        )
    stride = stride[0] if H > 1 else 1, stride[1] if W > 1 else 1  # one needs no stride
    return G, stride, dilation, (frame[0][0], frame[1][0]), size


def _more(output_padding: Any, stride: Pair, dilation: Pair) -> Pair:
    """Return the rows and columns that y has more, or say why there cannot be so many."""
    more = pair("output_padding", output_padding, 0)
    for extra, S, D in zip(more, stride, dilation, strict=True):
        if extra >= max(S, D):
            raise ValueError(
                f"output_padding is {extra}; it must be below the stride {S} or the "
                f"dilation {D}"
            )
    return more


def _frame(image, kernel, stride, corner, dilation, size) -> Pads:
    """Return ((top, bottom), (left, right)): what is stamped around y, at least 0."""
    return tuple(
        (before, max((n - 1) * S + span(K, D) - before - out, 0))
        for n, K, S, before, D, out in zip(
            image, kernel, stride, corner, dilation, size, strict=True
        )
    )


def conv_transpose2d_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | Pads | str = 0,
    output_padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Array:
    """Return y of equation (1), in the dtype of x.

    Raises TypeError for dtypes that are not float32 or float64, or not alike, and
    ValueError for shapes that do not fit together.

    >>> x = np.array([[[[1.0, 2.0]]]])
    >>> w = np.array([[[[1.0, 10.0], [0.0, 3.0]]]])
    >>> conv_transpose2d_forward(x, w)[0, 0]
    array([[ 1., 12., 20.],
           [ 0.,  3.,  6.]])
    """
    x = floats("x", x, "(N, C, H, W)")
    w = floats("w", w, "(C, F/G, KH, KW)", x)
    G, stride, dilation, (top, left), (HO, WO) = _geometry(
        x.shape, w.shape, stride, padding, output_padding, dilation, groups
    )
    (N, _, H, W), F = x.shape, w.shape[1] * G
    b = full(F, 0, x.dtype, x) if b is None else floats("b", b, "(F,)", x)
    same_shape("b", b, (F,), "one bias for each output channel")
    y = empty((N, F, HO, WO), x.dtype, x)
    frame = _frame((H, W), w.shape[2:], stride, (top, left), dilation, (HO, WO))
    if not on_cpu(x):
        if cuda_engine.conv2d_backward(y, None, x, y, w, stride, frame, dilation, G):
            launch(_y_cuda_bias, y.size, y, b)
        else:
            launch(_y_cuda, y.size, y, x, w, b, G, *stride, top, left, *dilation)
        return y
    if engine.convolve_backward(y, None, None, x, y, w, stride, frame, dilation, G, b):
        return y
    yp = framed(y, frame)
    fill(_y_cpu, N * F, yp, x, w, b, G, *stride, *dilation, steps=x.size * w[0].size)
    return np.ascontiguousarray(yp[:, :, top : top + HO, left : left + WO])


def conv_transpose2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    stride: int | Pair = 1,
    padding: int | Pair | Pads | str = 0,
    output_padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array]:
    """Return dx, dw, db of equations (2), (3), (4), in the dtype of x.

    The keywords are those that forward was called with. Raises as forward does, and
    ValueError if dy has not the shape of y.

    >>> x, w = np.array([[[[1.0, 2.0]]]]), np.array([[[[1.0, 10.0], [0.0, 3.0]]]])
    >>> dx, dw, db = conv_transpose2d_backward(np.ones((1, 1, 2, 3)), x, w)
    >>> dx[0, 0], db
    (array([[14., 14.]]), array([6.]))
    >>> dw[0, 0]
    array([[3., 3.],
           [3., 3.]])
    """
    x = floats("x", x, "(N, C, H, W)")
    w = floats("w", w, "(C, F/G, KH, KW)", x)
    dy = floats("dy", dy, "(N, F, HO, WO)", x)
    G, stride, dilation, (top, left), (HO, WO) = _geometry(
        x.shape, w.shape, stride, padding, output_padding, dilation, groups
    )
    (N, C, H, W), FG = x.shape, w.shape[1]
    F = FG * G
    same_shape("dy", dy, (N, F, HO, WO), "the shape of y for these x and w")
    dx, dw, db = empty_like(x), empty_like(w), empty(F, x.dtype, x)
    frame = _frame((H, W), w.shape[2:], stride, (top, left), dilation, (HO, WO))
    window = stride, frame, dilation, G
    if not on_cpu(x):
        threads = block_for(N * HO * WO)
        launch(_db_cuda, F * threads, db, dy, threads=threads)
        if cuda_engine.conv2d(dx, dy, w, None, *window):
            cuda_engine.conv2d_backward(None, dw, x, dy, w, *window)
        else:
            letters = G, *stride, top, left, *dilation
            launch(_dx_cuda, dx.size, dx, dy, w, *letters)
            launch(_dw_cuda, dw.size, dw, dy, x, *letters)
        return dx, dw, db
    fill(_db_cpu, F, db, dy)
    zero = np.zeros(C, x.dtype)
    if engine.convolve(dx, dy, w, zero, *window):
        engine.convolve_backward(None, dw, zero, x, dy, w, *window)
        return dx, dw, db
    dyp, steps = framed(dy, frame), x.size * w[0].size
    fill(_dx_cpu, N * C, dx, dyp, w, G, *stride, *dilation, steps=steps)
    fill(_dw_cpu, C * FG, dw, dyp, x, G, *stride, *dilation, steps=steps)
    return dx, dw, db


class ConvTranspose2d(Layer):
    """Transposed convolution as a layer: weight (C, F/G, KH, KW) and bias (F,).

    weight starts normal with variance 2 / taps, as suits a following ReLU (He et al., ICCV
    2015): a pixel of y sees C/G*KH*KW/(SH*SW) taps, and no part of one in height or width.
    bias starts at 0, and bias=False leaves it out. Raises ValueError if groups does not
    divide both channel counts, or a size is below 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | Pads | str = 0,
        output_padding: int | Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Pair = 1,
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
        _more(output_padding, stride, dilation)
        weight = he_normal(rng, (F // G, C, *kernel), dtype).swapaxes(0, 1)
        unseen = G * min(kernel[0], stride[0]) * min(kernel[1], stride[1])
        weight = weight * np.sqrt(unseen, dtype=dtype)  # of that many taps, one is seen
        self.params["weight"] = np.ascontiguousarray(weight)
        if bias:
            self.params["bias"] = np.zeros(F, dtype)
        self.window: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "output_padding": output_padding,
            "dilation": dilation,
            "groups": G,
        }

    def forward(self, x: Array) -> Array:
        weight, bias = self.params["weight"], self.params.get("bias")
        y = conv_transpose2d_forward(x, weight, bias, **self.window)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        x, weight = self.remembered("x"), self.params["weight"]
        dx, dw, db = conv_transpose2d_backward(dy, x, weight, **self.window)
        self.grads["weight"] = dw
        if "bias" in self.params:
            self.grads["bias"] = db
        return dx
