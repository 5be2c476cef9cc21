"""Global max pooling: one number a channel, its largest pixel.

Equations

    (1)  y[n,c,0,0]  = max over p,q of x[n,c,p,q]
    (2)  dx[n,c,p,q] = dy[n,c,0,0] if the maximum is (p,q), else 0

Shapes

    x, dx    (N, C, H, W)   float
    y, dy    (N, C, 1, 1)   float
    argmax   (N, C, 1, 1)   int32; where each maximum was, as p*W + q

Edges: of equal pixels the first one in row-major order wins. NaN beats every number, and
the first NaN every other. An image without pixels is an error.

Lecture: lectures/14_what_it_sees.ipynb.  Symbols: GLOSSARY.md.
Source: Oquab et al., CVPR 2015; as torch.nn.AdaptiveMaxPool2d(1).
"""

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import unravel
from course.cuda.reductions import FULL
from course.device import (
    Array,
    empty,
    fill,
    floats,
    launch,
    on_cpu,
    same_device,
    same_shape,
)
from course.engine.tile import (
    each_col,
    larger,
    load,
    pair,
    shape_of,
    store,
    tile_shape,
)
from course.layers.base import Layer
from course.shapes import nchw

LARGE = 1 << 24  # pixels: from here on float32 does not know every place


@compiled
def _y_cpu(y, argmax, x, first, past):
    """Equation (1), and where each maximum was; a thread has planes, a row each.

    x is (N*C, H*W), y and argmax are (N*C,).
    """
    size = x.shape[1]
    for plane in range(first, past):
        best, place = x[plane, 0], 0
        for k in range(1, size):
            pixel = x[plane, k]
            if not pixel <= best:  # larger, or one of the two is NaN
                if np.isnan(best):
                    break
                best, place = pixel, k
        y[plane], argmax[plane] = best, place


@compiled
def _y_cpu_lanes(y, argmax, x, first, past):
    """Equation (1), each lane of two vectors by itself, and then the best of the lanes.

    A thread has planes, a row each; `place` is counted from the lane's first pixel.
    """
    pixels, size = x.reshape(-1), x.shape[1]
    tile = pair(x)
    cols, lanes = each_col(tile), shape_of(tile)[1]
    bests, places = np.empty((2, lanes), x.dtype)
    for plane in range(first, past):
        start = plane * size
        best, place = load(tile, pixels, (start,), cols), tile
        for k in range(lanes, size - lanes + 1, lanes):
            more = load(tile, pixels, (start + k,), cols)
            best, place = larger(best, place, more, x.dtype.type(k))
        store(best, bests, (0,), cols)
        store(place, places, (0,), cols)
        y[plane], argmax[plane] = bests[0], np.intp(places[0])
        for l in range(1, lanes):
            k = l + np.intp(places[l])
            worse = y[plane] < bests[l] or (bests[l] != bests[l] and y[plane] == y[plane])
            better = y[plane] > bests[l] or (bests[l] == bests[l] and y[plane] != y[plane])
            if worse or (k < argmax[plane] and not better):
                y[plane], argmax[plane] = bests[l], k
        for k in range(size // lanes * lanes, size):
            if not x[plane, k] <= y[plane] and y[plane] == y[plane]:
                y[plane], argmax[plane] = x[plane, k], k


@cuda.jit
def _y_cuda(y, argmax, x):
    """Equation (1), and where each maximum was; a warp has planes.

    x is (N*C, H*W), y and argmax are (N*C,). A thread has the first pixel and every 32nd;
    of what two threads have found, one beats the other.
    """
    for plane in range(cuda.grid(1) // 32, len(y), cuda.gridsize(1) // 32):
        best, place = x[plane, 0], 0
        for k in range(cuda.threadIdx.x % 32, x.shape[1], 32):
            if _beats(x[plane, k], k, best, place):
                best, place = x[plane, k], k
        for bits in (16, 8, 4, 2, 1):
            pixel = cuda.shfl_xor_sync(FULL, best, bits)
            k = cuda.shfl_xor_sync(FULL, place, bits)
            if _beats(pixel, k, best, place):
                best, place = pixel, k
        if cuda.threadIdx.x % 32 == 0:
            y[plane] = best
            argmax[plane] = place


@cuda.jit(device=True)
def _beats(pixel, k, best, place):
    """Say whether a pixel is larger than the best, or as large and before it."""
    if pixel != pixel or best != best:  # NaN beats every number
        return pixel != pixel and (best == best or k < place)
    return pixel > best or (pixel == best and k < place)


@compiled
def _dx_cpu(dx, dy, argmax, first, past):
    """Equation (2), dx (N*C, H*W), the others (N*C,); a thread has planes, a row each."""
    for plane in range(first, past):
        dx[plane] = 0
        dx[plane, argmax[plane]] = dy[plane]


@cuda.jit
def _dx_cuda(dx, dy, argmax):
    """Equation (2); a thread has pixels of dx."""
    zero = dx.dtype.type(0)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, c, p, q = unravel(k, dx.shape)
        here = argmax[n, c, 0, 0] == p * dx.shape[3] + q
        dx[n, c, p, q] = dy[n, c, 0, 0] if here else zero


def global_maxpool2d_forward(x: Array) -> tuple[Array, Array]:
    """Return y and argmax of equation (1), both of shape (N, C, 1, 1).

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for images
    without pixels.

    >>> global_maxpool2d_forward(np.array([[[[1.0, 2.0], [6.0, 3.0]]]]))
    (array([[[[6.]]]]), array([[[[2]]]], dtype=int32))
    """
    x = floats("x", x, "(N, C, H, W)")
    N, C, H, W = nchw("the shape of x", x.shape, empty=False)
    y, argmax = empty((N, C, 1, 1), x.dtype, x), empty((N, C, 1, 1), np.int32, x)
    arrays = y.reshape(-1), argmax.reshape(-1), x.reshape(N * C, H * W)
    if on_cpu(x):
        lanes = 2 * tile_shape(x.dtype).lanes <= H * W < LARGE
        fill(_y_cpu_lanes if lanes else _y_cpu, N * C, *arrays)
    else:
        launch(_y_cuda, 32 * N * C, *arrays)
    return y, argmax


def global_maxpool2d_backward(
    dy: Array, argmax: Array, input_shape: tuple[int, int, int, int]
) -> Array:
    """Return dx of equation (2), of `input_shape` (N, C, H, W), in the dtype of dy.

    `argmax` is what forward returned. Raises ValueError if dy, argmax and input_shape do
    not belong together; on cuda, an argmax outside the plane gives nothing to any pixel.

    >>> dy, argmax = np.full((1, 1, 1, 1), 5.0), np.full((1, 1, 1, 1), 2)
    >>> global_maxpool2d_backward(dy, argmax, (1, 1, 2, 2))
    array([[[[0., 0.],
             [5., 0.]]]])
    """
    dy = floats("dy", dy, "(N, C, 1, 1)")
    N, C, H, W = nchw("input_shape", input_shape, empty=False)
    same_shape("dy", dy, (N, C, 1, 1), "the shape of y for this input_shape")
    if not isinstance(argmax, Array) or argmax.dtype.kind not in "iu":
        kind = getattr(argmax, "dtype", type(argmax).__name__)
        raise TypeError(f"argmax must be the int32 array of forward, not {kind}")
    same_device("argmax", argmax, dy)
    same_shape("argmax", argmax, dy.shape, "the shape of dy")
    dx = empty((N, C, H, W), dy.dtype, dy)
    if not on_cpu(dy):
        launch(_dx_cuda, dx.size, dx, dy, argmax)
        return dx
    wrong = argmax[(argmax < 0) | (argmax >= H * W)]
    if wrong.size:
        raise ValueError(
            f"argmax names pixel {wrong[0]}, but a plane of {H} x {W} has pixels 0 to "
            f"{H * W - 1}: it belongs to another x"
        )
    places = np.ascontiguousarray(argmax, np.int32).reshape(-1)
    fill(_dx_cpu, N * C, dx.reshape(N * C, H * W), dy.reshape(-1), places)
    return dx


class GlobalMaxPool2d(Layer):
    """Global max pooling as a layer; it learns nothing."""

    def forward(self, x: Array) -> Array:
        y, self.argmax = global_maxpool2d_forward(x)
        self.input_shape = x.shape
        return y

    def backward(self, dy: Array) -> Array:
        argmax = self.remembered("argmax")
        return global_maxpool2d_backward(dy, argmax, self.input_shape)
