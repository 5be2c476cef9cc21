"""Sliding windows: how many fit, and the frame of padding around an image.

Along one axis, window i looks at pixel p through tap u when

    p = i*S + u*D - P,    0 <= u < K

with K taps, stride S, dilation D and P pixels of padding before the first pixel.

Sizes are given as in PyTorch: an int for both axes, or a (height, width) tuple. Padding
is an int, (height, width), ((top, bottom), (left, right)), "valid" or "same".
Source: Dumoulin & Visin, arXiv:1603.07285; "same" as in TensorFlow.
"""

from operator import index
from typing import Any

import numpy as np

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


class DoesNotFit(ValueError):
    """The windows do not tile the padded axis exactly."""


def integer(name: str, value: Any, least: int) -> int:
    """Return the value as an int, or say in words why it is none."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def pair(name: str, value: Any, least: int = 1) -> Pair:
    """Return (height, width) from an int or a tuple of two.

    >>> pair("stride", 2), pair("stride", (2, 1))
    ((2, 2), (2, 1))
    """
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ValueError(f"{name} must be an int or (height, width), not {value!r}")
        return integer(name, value[0], least), integer(name, value[1], least)
    number = integer(name, value, least)
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


def framed(x: np.ndarray, padding: Pads) -> np.ndarray:
    """Return the (N, C, H, W) array in its frame of zeros; x itself if there is none."""
    (top, bottom), (left, right) = padding
    if not (top or bottom or left or right):
        return x
    N, C, H, W = x.shape
    xp = np.zeros((N, C, top + H + bottom, left + W + right), x.dtype)
    xp[:, :, top : top + H, left : left + W] = x
    return xp


def to_nchw(x: np.ndarray) -> np.ndarray:
    """Return a batch stored (N, H, W, C) as (N, C, H, W)."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def to_nhwc(x: np.ndarray) -> np.ndarray:
    """Return a batch stored (N, C, H, W) as (N, H, W, C)."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))
