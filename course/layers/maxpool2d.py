"""Max pooling: keep the largest pixel of every KH x KW window.

Equations

    (1)  y[n,c,i,j]  = max over u,v of x[n,c,p,q]
    (2)  dx[n,c,p,q] = sum of dy[n,c,i,j] over the windows whose maximum is (p,q)

    with p = i*SH + u*DH - top, q = j*SW + v*DW - left, 0 <= u < KH, 0 <= v < KW.

Shapes

    x, dx    (N, C, H, W)     float
    y, dy    (N, C, HO, WO)   float; HO = (H + top + bottom - DH*(KH-1) - 1)//SH + 1,
                              and WO likewise; rounded up with ceil_mode
    argmax   (N, C, HO, WO)   int32; where each maximum was, as p*W + q

Edges: padding counts as minus infinity and is never the maximum. Of equal pixels the
first one in row-major order wins. NaN beats every number, so that a diverged network
shows in its loss. A window that sees no pixel at all is an error.

Lecture: lectures/11_backprop_convolution.ipynb.  Symbols: GLOSSARY.md.
Source: Riesenhuber & Poggio, Nature Neuroscience 2 (1999); as torch.nn.MaxPool2d.
"""

from typing import Any

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats, same_shape
from course.layers.base import Layer
from course.shapes import Pads, Pair, integer, out_size, pads, pair


@compiled
def _y_cpu(y, argmax, x, KH, KW, SH, SW, top, left, DH, DW, first, past):
    """Equation (1), and where each maximum was; a thread has planes (n, c)."""
    _, C, HO, WO = y.shape
    H, W = x.shape[2:]
    for plane in range(first, past):
        n, c = divmod(plane, C)
        for i in range(HO):
            for j in range(WO):
                best, place = x[n, c, 0, 0], -1  # -1: no pixel seen yet
                for u in range(KH):
                    for v in range(KW):
                        p, q = i * SH + u * DH - top, j * SW + v * DW - left
                        if 0 <= p < H and 0 <= q < W:
                            pixel = x[n, c, p, q]
                            if place < 0 or pixel > best or np.isnan(pixel):
                                best, place = pixel, p * W + q
                                if np.isnan(best):
                                    break
                    if np.isnan(best) and place >= 0:
                        break
                y[n, c, i, j], argmax[n, c, i, j] = best, place


@compiled
def _dx_cpu(dx, dy, argmax, first, past):
    """Equation (2), pushed: a window gives to its maximum; a thread has planes (n, c)."""
    _, C, HO, WO = dy.shape
    W = dx.shape[3]
    for plane in range(first, past):
        n, c = divmod(plane, C)
        dx[n, c] = 0
        for i in range(HO):
            for j in range(WO):
                p, q = divmod(argmax[n, c, i, j], W)
                dx[n, c, p, q] += dy[n, c, i, j]


def _every_window_sees_a_pixel(axis, size, count, K, S, before, D):
    """Raise ValueError if a window of this axis looks at padding alone."""
    pixels = np.arange(count)[:, None] * S + np.arange(K) * D - before
    seen = ((pixels >= 0) & (pixels < size)).any(axis=1)
    if not seen.all():
        raise ValueError(
            f"window {seen.argmin()} along the {axis} sees padding only: {K} taps, "
            f"dilation {D}, stride {S}, padding {before} on {size} pixels; pad less, or "
            "dilate less"
        )


def _geometry(x_shape, kernel_size, stride, padding, dilation, ceil_mode):
    """Return window, stride, padding (top, left), dilation and the size of y."""
    H, W = x_shape[2:]
    kernel, dilation = pair("kernel_size", kernel_size), pair("dilation", dilation)
    stride = kernel if stride is None else pair("stride", stride)
    frame = pads(padding, (H, W), kernel, stride, dilation)
    size = tuple(
        out_size(n, K, S, P, D, ceil_mode)
        for n, K, S, P, D in zip((H, W), kernel, stride, frame, dilation, strict=True)
    )
    return kernel, stride, (frame[0][0], frame[1][0]), dilation, size


def maxpool2d_forward(
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair | Pads | str = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """Return y and argmax of equation (1); the stride defaults to the window.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for a
    window that does not fit or sees only padding.

    >>> y, argmax = maxpool2d_forward(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    >>> y[0, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    x = floats("x", x, "(N, C, H, W)")
    kernel, stride, corner, dilation, size = _geometry(
        x.shape, kernel_size, stride, padding, dilation, ceil_mode
    )
    (N, C), image = x.shape[:2], x.shape[2:]
    for axis, *geometry in zip(
        ("height", "width"), image, size, kernel, stride, corner, dilation, strict=True
    ):
        _every_window_sees_a_pixel(axis, *geometry)
    y = np.empty((N, C, *size), x.dtype)
    argmax = np.empty(y.shape, np.int32)
    taps = y.size * kernel[0] * kernel[1]
    steps = 8 * taps  # each with a branch that nobody can foresee
    fill(_y_cpu, N * C, y, argmax, x, *kernel, *stride, *corner, *dilation, steps=steps)
    return y, argmax


def maxpool2d_backward(
    dy: Array,
    argmax: Array,
    input_shape: tuple[int, int, int, int],
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair | Pads | str = 0,
    dilation: int | Pair = 1,
) -> Array:
    """Return dx of equation (2), of `input_shape` (N, C, H, W), in the dtype of dy.

    The keywords are those of forward; `argmax` is what forward returned. Raises
    ValueError if dy, argmax and input_shape do not belong together.

    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> y, argmax = maxpool2d_forward(x, 2)
    >>> maxpool2d_backward(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), argmax, x.shape, 2)[0, 0]
    array([[0., 0., 0., 0.],
           [0., 1., 0., 2.],
           [0., 0., 0., 0.],
           [0., 3., 0., 4.]])
    """
    dy = floats("dy", dy, "(N, C, HO, WO)")
    if len(input_shape) != 4:
        raise ValueError(f"input_shape is {input_shape}; it must be (N, C, H, W)")
    N, C, H, W = (integer("input_shape", size, 0) for size in input_shape)
    window = kernel_size, stride, padding, dilation
    ceil = N, C, *_geometry(input_shape, *window, ceil_mode=True)[4]
    if dy.shape != ceil:  # then forward was called without ceil_mode
        floor = N, C, *_geometry(input_shape, *window, ceil_mode=False)[4]
        same_shape("dy", dy, floor, "the shape of y for this input_shape")
    if not isinstance(argmax, np.ndarray) or argmax.dtype.kind not in "iu":
        kind = getattr(argmax, "dtype", type(argmax).__name__)
        raise TypeError(f"argmax must be the int32 array of forward, not {kind}")
    same_shape("argmax", argmax, dy.shape, "the shape of dy")
    wrong = argmax[(argmax < 0) | (argmax >= H * W)]
    if wrong.size:
        raise ValueError(
            f"argmax names pixel {wrong[0]}, but a plane of {H} x {W} has pixels 0 to "
            f"{H * W - 1}: it belongs to another x"
        )
    dx = np.empty(input_shape, dy.dtype)
    argmax = np.ascontiguousarray(argmax, np.int32)
    fill(_dx_cpu, N * C, dx, dy, argmax)
    return dx


class MaxPool2d(Layer):
    """Max pooling as a layer; it learns nothing. The stride defaults to the window.

    Raises ValueError if a size is below 1, and in forward if the window does not fit x
    or sees only padding.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair | Pads | str = 0,
        dilation: int | Pair = 1,
        ceil_mode: bool = False,
    ):
        super().__init__()
        kernel, dilation = pair("kernel_size", kernel_size), pair("dilation", dilation)
        stride = kernel if stride is None else pair("stride", stride)
        pads(padding, (1, 1), kernel, stride, dilation)  # refuses what is no padding
        self.window: dict[str, Any] = {
            "kernel_size": kernel,
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
        }
        self.ceil_mode = bool(ceil_mode)

    def forward(self, x: Array) -> Array:
        y, self.argmax = maxpool2d_forward(x, **self.window, ceil_mode=self.ceil_mode)
        self.input_shape = x.shape
        return y

    def backward(self, dy: Array) -> Array:
        argmax = self.remembered("argmax")
        return maxpool2d_backward(dy, argmax, self.input_shape, **self.window)
