"""Up-sampling: make images larger, by repeating pixels or by blending neighbours.

Equations

    (1)  y[n,c,i,j]  = sum over u,v     of down[u,i] * across[v,j] * x[n,c,p,q]
    (2)  dx[n,c,p,q] = sum over u,v,i,j of down[u,i] * across[v,j] * dy[n,c,i,j]

    with p = rows[u,i], q = columns[v,j]: each axis has a table of the K pixels that an
    output sees, and one of their weights.

    nearest    K = 1: pixel floor(i/scale), weight 1
    bilinear   K = 2: the pixels before and after the place (i + 1/2)/scale - 1/2, at
               least 0, weighted by how near they are; with align_corners the place is
               i*(H-1)/(HO-1), so that the outermost pixels of x and y lie on each other

Shapes

    x, dx   (N, C, H, W)     float
    y, dy   (N, C, HO, WO)   float; HO = floor(H*scale), and WO likewise

Edges: beyond the last pixel the last pixel goes on. An axis that keeps its size is copied,
and nearest doubles one that doubles, be the scale 1.2 or 2.1. A scale below 1 makes images
smaller and skips pixels, whose gradient is 0. An empty batch gives an empty y. NaN and
infinity go where their pixel has a weight above 0, and nowhere else.

Lecture: lectures/16_beyond_labels.ipynb.  Symbols: GLOSSARY.md.
Source: Long, Shelhamer & Darrell, CVPR 2015, section 3.3; as torch.nn.Upsample.
"""

from functools import lru_cache
from math import floor
from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda import unravel
from course.device import (
    Array,
    empty,
    fill,
    floats,
    launch,
    number,
    on_cpu,
    same_shape,
    simulated,
    to,
)
from course.engine.pooling import quarter, unquarter
from course.engine.tile import tile_shape
from course.layers.base import Layer
from course.shapes import Pair, integer


@compiled
def _y_cpu(y, x, rows, down, columns, across, first, past):
    """Equation (1), the rows of x widened first; a thread has planes (n, c)."""
    (K, HO), (_, H, _), WO = rows.shape, x.shape, y.shape[2]
    wide = np.empty((H, WO), x.dtype)
    for plane in range(first, past):
        for p in range(H):
            pixels, row = x[plane, p], wide[p]
            for j in range(WO):
                row[j] = across[0, j] * pixels[columns[0, j]]
                if K == 2:
                    row[j] += across[1, j] * pixels[columns[1, j]]
        for i in range(HO):
            outputs, before, after = y[plane, i], wide[rows[0, i]], wide[rows[K - 1, i]]
            near, far = down[0, i], down[K - 1, i]
            for j in range(WO):
                outputs[j] = near * before[j] + far * after[j] if K == 2 else before[j]


@compiled
def _y_cpu_doubled(y, x, first, past):
    """Equation (1) for nearest, twice as high and wide; a thread has planes (n, c)."""
    _, H, W = x.shape
    for plane in range(first, past):
        unquarter(y.reshape(-1), 4 * plane * H * W, 2 * W, x[plane].reshape(-1), H, W)


@cuda.jit
def _y_cuda(y, x, rows, down, columns, across):
    """Equation (1); a thread has elements of y."""
    K = len(rows)
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, c, i, j = unravel(k, y.shape)
        total = x.dtype.type(0)
        for u in range(K):
            weight, p = down[u, i], rows[u, i]
            for v in range(K):
                total += weight * across[v, j] * x[n, c, p, columns[v, j]]
        y[n, c, i, j] = total


@compiled
def _dx_cpu(dx, dy, rows, down, columns, across, first, past):
    """Equation (2), pushed, the same way back; a thread has planes (n, c).

    The pixels of a column come one after the other: to add at once to the number that was
    written last costs time.
    """
    (K, HO), (_, H, _) = rows.shape, dx.shape
    wide = np.empty((H, dy.shape[2]), dx.dtype)
    for plane in range(first, past):
        wide[:] = 0
        for i in range(HO):
            for u in range(K):
                weight, row, upstream = down[u, i], wide[rows[u, i]], dy[plane, i]
                for j in range(row.size):
                    row[j] += weight * upstream[j]
        dx[plane] = 0
        for v in range(K):
            for j in range(wide.shape[1]):
                weight, q = across[v, j], columns[v, j]
                for p in range(H):
                    dx[plane, p, q] += weight * wide[p, j]


@compiled
def _dx_cpu_doubled(dx, dy, first, past):
    """Equation (2) for nearest, twice as high and wide; a thread has planes (n, c)."""
    _, H, W = dx.shape
    for plane in range(first, past):
        quarter(dx[plane].reshape(-1), dy.reshape(-1), 4 * plane * H * W, 2 * W, H, W)


@cuda.jit
def _dx_cuda(dx, dy, rows, down, columns, across, over_p, over_q):
    """Equation (2), pulled: a pixel asks who sees it; a thread has pixels of dx.

    Row p is seen by the outputs over_p[0,p] to over_p[1,p]-1, and column q likewise.
    """
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, c, p, q = unravel(k, dx.shape)
        total = dx.dtype.type(0)
        for i in range(over_p[0, p], over_p[1, p]):
            weight = _weight(rows, down, p, i)
            for j in range(over_q[0, q], over_q[1, q]):
                total += weight * _weight(columns, across, q, j) * dy[n, c, i, j]
        dx[n, c, p, q] = total


@cuda.jit(device=True)
def _weight(pixels, weights, p, i):
    """Return with what weight output i of an axis sees pixel p."""
    total = weights.dtype.type(0)
    for u in range(len(pixels)):
        if pixels[u, i] == p:
            total += weights[u, i]
    return total


def _scales(scale_factor: Any) -> tuple[float, float]:
    """Return the scale of (height, width)."""
    if not isinstance(scale_factor, tuple | list):
        scale_factor = scale_factor, scale_factor
    if len(scale_factor) != 2:
        raise ValueError(
            f"scale_factor must be a number or (height, width), not {scale_factor!r}"
        )
    scales = tuple(number("scale_factor", scale) for scale in scale_factor)
    if min(scales) <= 0:
        raise ValueError(f"scale_factor must be above 0, not {min(scales)}")
    return scales


def _known(mode: str, align_corners: bool) -> None:
    """Refuse a mode that there is not."""
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f'mode must be "nearest" or "bilinear", not {mode!r}')
    if align_corners and mode == "nearest":
        raise ValueError('align_corners belongs to mode="bilinear": nearest blends nothing')


def _table(size: int, scale: float, mode: str, align_corners: bool, dtype: Any):
    """Return which pixels each output of an axis sees, and their weights, both (K, out)."""
    out = floor(size * scale)
    if out < 1:
        raise ValueError(f"{size} pixels times scale_factor {scale} leave none")
    if out == size or (mode == "nearest" and out == 2 * size):
        scale = out / size
    k = np.arange(out)
    if mode == "nearest":
        # float: k/scale is exact where it is whole, as k*(1/scale) is not
        pixels = np.minimum(np.floor(k / scale), size - 1)[None]
        return pixels.astype(np.uintp), np.ones((1, out), dtype)
    place = k * (size - 1) / max(out - 1, 1) if align_corners else (k + 0.5) / scale - 0.5
    place = np.clip(place, 0, size - 1)
    before = np.floor(place)
    after = np.minimum(np.ceil(place), size - 1)
    part = np.where(after > before, place - before, 0.5)  # no weight is 0: NaN * 0 is NaN
    return np.stack([before, after]).astype(np.uintp), np.stack(
        [1 - part, part], dtype=dtype
    )


def _tables_like(a, image, scale_factor, mode, align_corners):
    """Return rows, down, columns, across where `a` is; on cuda also over_p, over_q."""
    _known(mode, align_corners)
    options = image, _scales(scale_factor), mode, align_corners, a.dtype
    return _tables(*options) if on_cpu(a) else _copied_tables(*options, a.simulated)


def _tables(image, scales, mode, align_corners, dtype):
    """Return rows, down, columns, across."""
    return tuple(
        table
        for size, scale in zip(image, scales, strict=True)
        for table in _table(size, scale, mode, align_corners, dtype)
    )


@lru_cache(64)  # a network asks for the same few, at every step
def _copied_tables(image, scales, mode, align_corners, dtype, in_simulator):
    """Return rows, down, columns, across, over_p, over_q, all on cuda."""
    rows, down, columns, across = _tables(image, scales, mode, align_corners, dtype)
    rows, columns = rows.astype(np.int32), columns.astype(np.int32)
    tables = rows, down, columns, across, *map(_over, (rows, columns), image)
    with simulated(in_simulator):
        return tuple(to("cuda", table) for table in tables)


def _over(pixels, size):
    """Return first and past of the outputs that see each pixel of an axis: (2, size)."""
    k = np.arange(size)
    first, past = np.searchsorted(pixels[-1], k), np.searchsorted(pixels[0], k, "right")
    return np.stack([first, past]).astype(np.int32)


def _doubled(mode: str, image: Pair, y: Array) -> bool:
    """Say whether nearest doubles both axes, and a row of the image fills a vector."""
    (H, W), wide = image, tile_shape(y.dtype).lanes <= image[1]
    return mode == "nearest" and y.shape[2:] == (2 * H, 2 * W) and wide


def upsample_forward(
    x: Array,
    scale_factor: float | tuple[float, float],
    mode: str = "nearest",
    align_corners: bool = False,
) -> Array:
    """Return y of equation (1), in the dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for a
    mode that there is not, or a scale that leaves no pixel.

    >>> x = np.array([[[[0.0, 8.0]]]])
    >>> upsample_forward(x, 2)[0, 0]
    array([[0., 0., 8., 8.],
           [0., 0., 8., 8.]])
    >>> upsample_forward(x, (1, 2), "bilinear")[0, 0]
    array([[0., 2., 6., 8.]])
    """
    x = floats("x", x, "(N, C, H, W)")
    N, C, H, W = x.shape
    tables = _tables_like(x, (H, W), scale_factor, mode, align_corners)
    size = tables[0].shape[1], tables[2].shape[1]
    y = empty((N, C, *size), x.dtype, x)
    if on_cpu(x):
        planes = y.reshape(N * C, *size), x.reshape(N * C, H, W)
        if _doubled(mode, (H, W), y):
            fill(_y_cpu_doubled, N * C, *planes)
        else:
            fill(_y_cpu, N * C, *planes, *tables)
    else:
        launch(_y_cuda, y.size, y, x, *tables[:4])
    return y


def upsample_backward(
    dy: Array,
    input_shape: tuple[int, int, int, int],
    scale_factor: float | tuple[float, float],
    mode: str = "nearest",
    align_corners: bool = False,
) -> Array:
    """Return dx of equation (2), of `input_shape` (N, C, H, W), in the dtype of dy.

    The keywords are those of forward. Raises as forward does, and ValueError if dy has
    not the shape of y.

    >>> dy = np.array([[[[1.0, 2.0, 3.0, 4.0]]]])
    >>> upsample_backward(dy, (1, 1, 1, 2), (1, 2))
    array([[[[3., 7.]]]])
    >>> upsample_backward(dy, (1, 1, 1, 2), (1, 2), "bilinear")
    array([[[[3.25, 6.75]]]])
    """
    dy = floats("dy", dy, "(N, C, HO, WO)")
    if len(input_shape) != 4:
        raise ValueError(f"input_shape is {input_shape}; it must be (N, C, H, W)")
    N, C, H, W = (integer("input_shape", size, 0) for size in input_shape)
    tables = _tables_like(dy, (H, W), scale_factor, mode, align_corners)
    size = tables[0].shape[1], tables[2].shape[1]
    same_shape("dy", dy, (N, C, *size), "the shape of y for this input_shape")
    dx = empty((N, C, H, W), dy.dtype, dy)
    if on_cpu(dy):
        planes = dx.reshape(N * C, H, W), dy.reshape(N * C, *size)
        if _doubled(mode, (H, W), dy):
            fill(_dx_cpu_doubled, N * C, *planes)
        else:
            fill(_dx_cpu, N * C, *planes, *tables)
    else:
        launch(_dx_cuda, dx.size, dx, dy, *tables)
    return dx


class Upsample(Layer):
    """Up-sampling as a layer; it learns nothing.

    `scale_factor` is a number or (height, width). Raises ValueError if it is not above 0,
    and for a mode that there is not.
    """

    def __init__(
        self,
        scale_factor: float | tuple[float, float],
        mode: str = "nearest",
        align_corners: bool = False,
    ):
        super().__init__()
        _known(mode, align_corners)
        self.options: dict[str, Any] = {
            "scale_factor": _scales(scale_factor),
            "mode": mode,
            "align_corners": bool(align_corners),
        }

    def forward(self, x: Array) -> Array:
        y = upsample_forward(x, **self.options)
        self.input_shape = x.shape
        return y

    def backward(self, dy: Array) -> Array:
        return upsample_backward(dy, self.remembered("input_shape"), **self.options)
