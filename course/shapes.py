"""Sliding windows: how many fit, and the frame of padding around an image.

Along one axis, window i looks at pixel p through tap u when

    p = i*S + u*D - P,    0 <= u < K

with K taps, stride S, dilation D and P pixels of padding before the first pixel.

Sizes are given as in PyTorch: an int for both axes, or a (height, width) tuple. Padding
is an int, (height, width), ((top, bottom), (left, right)), "valid" or "same".
Source: Dumoulin & Visin, arXiv:1603.07285; "same" as in TensorFlow.
"""

from functools import lru_cache
from math import prod
from operator import index
from typing import Any

import numpy as np

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
MOST = 2**31 - 1  # pixels of a stride, a padding, ...: loops count in whole numbers of C


class DoesNotFit(ValueError):
    """The windows do not tile the padded axis exactly."""


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return the value as an int, or say in words why it is none."""
    number = value if type(value) is int else _whole(name, value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}, not {number}")
    return number


def _whole(name: str, value: Any) -> int:
    """Return as an int what is one under another name, as numpy.int64 is."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None


def pair(name: str, value: Any, least: int = 1) -> Pair:
    """Return (height, width) from an int or a tuple of two.

    >>> pair("stride", 2), pair("stride", (2, 1))
    ((2, 2), (2, 1))
    """
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ValueError(f"{name} must be an int or (height, width), not {value!r}")
        height, width = (integer(name, number, least, MOST) for number in value)
        return height, width
    number = integer(name, value, least, MOST)
    return number, number


def span(K: int, D: int) -> int:
    """Return how many pixels a window of K taps, D apart, reaches over."""
    return D * (K - 1) + 1


def pads(padding: Any, size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Pads:
    """Return ((top, bottom), (left, right)) in pixels.

    "same" gives ceil(size / stride) windows, the odd pixel at the bottom and right.

    >>> pads("same", (32, 32), (5, 5), (2, 2), (1, 1))
    ((1, 2), (1, 2))
    >>> pads((1, 0), (5, 5), (3, 3), (1, 1), (1, 1))
    ((1, 1), (0, 0))
    """
    if isinstance(padding, str):
        if padding.lower() == "valid":
            return (0, 0), (0, 0)
        if padding.lower() == "same":
            return tuple(
                _same(n, span(K, D), S)
                for n, K, S, D in zip(size, kernel, stride, dilation, strict=True)
            )
        raise ValueError(f'padding must be "same" or "valid", not {padding!r}')
    if isinstance(padding, tuple | list) and any(
        isinstance(side, tuple | list) for side in padding
    ):
        if len(padding) != 2:
            raise ValueError(
                f"padding must be ((top, bottom), (left, right)), not {padding!r}"
            )
        return pair("padding", padding[0], 0), pair("padding", padding[1], 0)
    top, left = pair("padding", padding, 0)
    return (top, top), (left, left)


def _same(size: int, reach: int, S: int) -> Pair:
    """Return the padding before and after one axis that gives ceil(size / S) windows."""
    total = max((-(-size // S) - 1) * S + reach - size, 0)
    return total // 2, total - total // 2


def out_size(
    size: int,
    K: int,
    S: int = 1,
    P: int | Pair = 0,
    D: int = 1,
    ceil_mode: bool = False,
    strict: bool = False,
) -> int:
    """Return how many windows fit along an axis of `size` pixels.

    floor((size + P0 + P1 - D*(K-1) - 1) / S) + 1. With `ceil_mode` it is rounded up: a
    last window that starts before the end of the image counts although it hangs over.
    With `strict` a remainder raises DoesNotFit. Raises ValueError if no window fits.

    >>> out_size(28, K=5, P=2), out_size(7, K=3, S=3), out_size(7, K=2, S=2, ceil_mode=True)
    (28, 2, 4)
    >>> out_size(7, K=3, S=3, strict=True)
    Traceback (most recent call last):
    course.shapes.DoesNotFit: n=7, k=3, s=3, p=0: 1 pixel is left over after 2 windows; \
p=1 or s=1, 2, 4 would fit
    """
    size, K = integer("size", size, 0), integer("K", K, 1)
    S, D = integer("S", S, 1), integer("D", D, 1)
    before, after = pair("P", P, 0)
    room = size + before + after - span(K, D)
    left_over = room % S
    count = room // S + 1
    if ceil_mode and left_over and count * S < size + before:
        count += 1
    if count < 1:
        raise ValueError(
            f"a window that spans {span(K, D)} pixels does not fit in {size} pixels "
            f"padded by {before} and {after}"
        )
    if strict and left_over:
        raise DoesNotFit(
            f"n={size}, k={K}, s={S}, p={P}: {left_over} pixel{'s' * (left_over > 1)} "
            f"{'are' if left_over > 1 else 'is'} left over after {count} window"
            f"{'s' * (count > 1)}; {_nearest(size, K, S, P, D)} would fit"
        )
    return count


def _nearest(size: int, K: int, S: int, P: int | Pair, D: int) -> str:
    """Name the nearest padding and the strides up to S+1 that leave no remainder."""
    before, after = pair("P", P, 0)
    around = sorted(range(before + S + 1), key=lambda p: abs(p - before))
    paddings = [p for p in around if _fits(size + 2 * p, K, S, D)]
    padded = size + before + after
    strides = [s for s in range(1, S + 2) if _fits(padded, K, s, D)]
    nearest = "".join(f"p={p} or " for p in paddings[:1])
    return f"{nearest}s={', '.join(map(str, strides))}"


def _fits(size: int, K: int, S: int, D: int) -> bool:
    """Say whether windows tile the axis with no remainder."""
    return size >= span(K, D) and (size - span(K, D)) % S == 0


def nchw(name: str, shape: Any, empty: bool = True) -> tuple[int, int, int, int]:
    """Return N, C, H, W, or say what is no shape of images; they may be empty.

    >>> nchw("input_shape", (8, 3, 28, 0), empty=False)
    Traceback (most recent call last):
    ValueError: input_shape is (8, 3, 28, 0): its images have no pixels
    """
    if len(shape) != 4:
        raise ValueError(f"{name} is {shape}; it must be (N, C, H, W)")
    N, C, H, W = (integer(name, size, 0) for size in shape)
    if not (empty or H * W):
        raise ValueError(f"{name} is {shape}: its images have no pixels")
    return N, C, H, W


def pool_window(
    kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1
) -> tuple[Pair, Pair, Pair]:
    """Return kernel, stride (the kernel if None) and dilation of a pool, as pairs.

    Refuses what is no padding, which depends on the image and is worked out later.

    >>> pool_window((2, 3), None, 0)
    ((2, 3), (2, 3), (1, 1))
    """
    kernel, dilation = pair("kernel_size", kernel_size), pair("dilation", dilation)
    stride = kernel if stride is None else pair("stride", stride)
    pads(padding, (1, 1), kernel, stride, dilation)
    return kernel, stride, dilation


def pool_geometry(
    size: Pair,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> tuple[Pair, Pair, Pads, Pair, Pair]:
    """Return kernel, stride, padding, dilation, and how many windows fit: (HO, WO).

    >>> pool_geometry((5, 7), 2, None, 0, ceil_mode=True)
    ((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), (3, 4))
    """
    kernel, stride, dilation = pool_window(kernel_size, stride, padding, dilation)
    frame = pads(padding, size, kernel, stride, dilation)
    height, width = (
        out_size(n, K, S, P, D, ceil_mode)
        for n, K, S, P, D in zip(size, kernel, stride, frame, dilation, strict=True)
    )
    return kernel, stride, frame, dilation, (height, width)


def pixels_seen(
    size: Pair, kernel: Pair, stride: Pair, frame: Pads, dilation: Pair, count: Pair
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many pixels each window sees along the height, and along the width.

    Raises ValueError if a window looks at padding alone.

    >>> pixels_seen((4, 5), (3, 3), (2, 2), ((1, 1), (0, 0)), (1, 1), (2, 2))
    (array([2, 3]), array([3, 3]))
    """
    return tuple(
        _seen(*axis)
        for axis in zip(
            ("height", "width"), size, kernel, stride, frame, dilation, count, strict=True
        )
    )


@lru_cache(256)  # a network asks for the same few, at every step
def _seen(axis: str, size: int, K: int, S: int, P: Pair, D: int, count: int) -> np.ndarray:
    """Return how many pixels each window of this axis sees; at least 1, or it raises."""
    pixels = np.arange(count)[:, None] * S + np.arange(K) * D - P[0]
    seen = ((pixels >= 0) & (pixels < size)).sum(axis=1)
    if not seen.all():
        raise ValueError(
            f"window {seen.argmin()} along the {axis} sees padding only: {K} taps, "
            f"dilation {D}, stride {S}, padding {P[0]} on {size} pixels; pad less, or "
            "dilate less"
        )
    seen.flags.writeable = False
    return seen


def framed(x: np.ndarray, padding: Pads) -> np.ndarray:
    """Return the (N, C, H, W) array in its frame of zeros; x itself if there is none."""
    (top, bottom), (left, right) = padding
    if not (top or bottom or left or right):
        return x
    N, C, H, W = x.shape
    xp = np.zeros((N, C, top + H + bottom, left + W + right), x.dtype)
    xp[:, :, top : top + H, left : left + W] = x
    return xp


def _windows(
    size: Pair, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[Pair, Pair, Pads, Pair, Pair]:
    """Return kernel, stride, padding, dilation, and how many windows fit: (HO, WO)."""
    kernel, stride = pair("kernel_size", kernel_size), pair("stride", stride)
    dilation = pair("dilation", dilation)
    frame = pads(padding, size, kernel, stride, dilation)
    count = tuple(
        out_size(n, K, S, P, D)
        for n, K, S, P, D in zip(size, kernel, stride, frame, dilation, strict=True)
    )
    return kernel, stride, frame, dilation, count


def im2col(
    x: np.ndarray,
    kernel_size: int | Pair,
    stride: int | Pair = 1,
    padding: int | Pair | Pads | str = 0,
    dilation: int | Pair = 1,
) -> np.ndarray:
    """Return the windows of x (N, C, H, W) as columns: (N, C*KH*KW, HO*WO).

    Then a convolution is one matrix product: w.reshape(F, -1) @ columns is y (N, F, HO*WO).
    A pixel is copied into every window that sees it, up to KH*KW times. The order is that
    of torch.nn.functional.unfold. Raises ValueError for another shape of x, and
    if no window fits.

    >>> im2col(np.arange(9).reshape(1, 1, 3, 3), 2)[0]
    array([[0, 1, 3, 4],
           [1, 2, 4, 5],
           [3, 4, 6, 7],
           [4, 5, 7, 8]])
    """
    if x.ndim != 4:
        raise ValueError(f"x has shape {x.shape}; it must be (N, C, H, W)")
    kernel, (SH, SW), frame, (DH, DW), (HO, WO) = _windows(
        x.shape[2:], kernel_size, stride, padding, dilation
    )
    xp = framed(x, frame)
    N, C = x.shape[:2]
    columns = np.empty((N, C, *kernel, HO, WO), x.dtype)
    for u, v in np.ndindex(kernel):
        rows = slice(u * DH, u * DH + HO * SH, SH)
        columns[:, :, u, v] = xp[:, :, rows, v * DW : v * DW + WO * SW : SW]
    return columns.reshape(N, C * kernel[0] * kernel[1], HO * WO)


def col2im(
    columns: np.ndarray,
    input_shape: tuple[int, int, int, int],
    kernel_size: int | Pair,
    stride: int | Pair = 1,
    padding: int | Pair | Pads | str = 0,
    dilation: int | Pair = 1,
) -> np.ndarray:
    """Return an x of input_shape (N, C, H, W): the sum of all windows, each at its place.

    It is the transpose of im2col, not its inverse: a pixel in three windows comes back
    three times. If columns is the gradient of im2col(x), this is the gradient of x. The
    other arguments are those of im2col. Raises ValueError if columns has another shape
    than im2col gives.

    >>> x = np.ones((1, 1, 3, 3))
    >>> col2im(im2col(x, 2), x.shape, 2)[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    if len(input_shape) != 4:
        raise ValueError(f"input_shape is {input_shape}; it must be (N, C, H, W)")
    N, C, H, W = input_shape
    kernel, (SH, SW), frame, (DH, DW), (HO, WO) = _windows(
        (H, W), kernel_size, stride, padding, dilation
    )
    KH, KW = kernel
    if columns.shape != (N, C * KH * KW, HO * WO):
        raise ValueError(
            f"columns has shape {columns.shape}; im2col of an x of {tuple(input_shape)} "
            f"gives {(N, C * KH * KW, HO * WO)}"
        )
    columns = columns.reshape(N, C, KH, KW, HO, WO)
    xp = framed(np.zeros(input_shape, columns.dtype), frame)
    for u, v in np.ndindex(kernel):
        rows = slice(u * DH, u * DH + HO * SH, SH)
        xp[:, :, rows, v * DW : v * DW + WO * SW : SW] += columns[:, :, u, v]
    (top, _), (left, _) = frame
    return np.ascontiguousarray(xp[:, :, top : top + H, left : left + W])


def to_nchw(x: np.ndarray) -> np.ndarray:
    """Return a batch stored (N, H, W, C) as (N, C, H, W)."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def to_nhwc(x: np.ndarray) -> np.ndarray:
    """Return a batch stored (N, C, H, W) as (N, H, W, C)."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def around(name: str, shape: tuple[int, ...], dim: int) -> tuple[int, int, int]:
    """Return how many numbers the axes before dim have, the axis dim, and those after it.

    Raises TypeError or ValueError if there is no such axis or nothing along it.

    >>> around("x", (2, 3, 4, 5), 1)
    (2, 3, 20)
    """
    dim = integer("dim", dim, -len(shape))
    if dim >= len(shape):
        raise ValueError(f"dim={dim} is no axis of {name}, which has shape {shape}")
    if shape[dim] == 0:
        raise ValueError(f"{name} has shape {shape}: there is nothing along dim={dim}")
    dim %= len(shape)
    return prod(shape[:dim]), shape[dim], prod(shape[dim + 1 :])
