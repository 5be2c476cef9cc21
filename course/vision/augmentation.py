"""Augmentation: a batch of images changed at random, in ways that keep their classes.

    augment = Augment(Flip(), Crop(32, padding=4))
    x = augment(x, rng)

Equations

    (1)  y[n,c,i,j] = x[n,c,p,q] inside the image, else 0
    (2)  z[n,c,i,j] = cut(s * (x[n,c,i,j] - a) + a)

    with p = top + i and q = left + j, or q = left + WO-1-j in a flipped image; cut(z) is
    z cut to 0..1. (2) with a = 0 scales brightness; then with a the mean grey of the image,
    contrast; then with a the grey of the pixel, saturation. Each image n has its own top,
    left and s. Grey is 0.299 red + 0.587 green + 0.114 blue.

Shapes

    x                (N, C, H, W)     float; of colours C is 3, or 1 where all is grey
    y                (N, C, HO, WO)   float; HO, WO are H, W but in a crop
    z                (N, C, H, W)     float

Edges: pixels from outside the image are 0. Pixels are copied by (1), NaN too. An empty
batch gives an empty y. Random choices are made by the generator before any loop runs.

Lecture: lectures/13_build_and_train.ipynb.  Symbols: GLOSSARY.md.
Source: Krizhevsky et al., NIPS 2012, section 4.1; crops as He et al., CVPR 2016, section
4.2; colours as torchvision's ColorJitter, in the fixed order above; shifts as ConvNetJS.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from course.compiled import compiled
from course.data.base import normalize
from course.device import Array, fill, floats, number, same_shape
from course.shapes import MOST, Pair, pair

GREY = 0.299, 0.587, 0.114  # the shares of red, green and blue: ITU-R BT.601


@compiled
def _y_cpu(y, x, top, left, flipped, first, past):
    """Equation (1), row by row; a thread has images n."""
    _, C, HO, WO = y.shape
    H, W = x.shape[2:]
    for n in range(first, past):
        begin, end = max(0, -left[n]), min(WO, W - left[n])
        for c in range(C):
            for i in range(HO):
                row = y[n, c, i]
                p = top[n] + i
                inside = 0 <= p < H
                if not inside or end - begin < WO:
                    for j in range(WO):
                        row[j] = 0
                if inside and flipped[n]:
                    for j in range(begin, end):
                        row[WO - 1 - j] = x[n, c, p, left[n] + j]
                elif inside:
                    for j in range(begin, end):
                        row[j] = x[n, c, p, left[n] + j]


@compiled
def _z_cpu(z, x, brightness, contrast, saturation, shares, first, past):
    """Equation (2), three times over; a thread has images n."""
    C = x.shape[1]
    low, high = x.dtype.type(0), x.dtype.type(1)
    for n in range(first, past):
        before, after = x[n].reshape(C, -1), z[n].reshape(C, -1)
        grey = np.zeros(before.shape[1], x.dtype)
        for c in range(C):
            for k in range(grey.size):
                after[c, k] = min(max(brightness[n] * before[c, k], low), high)
                grey[k] += shares[c] * after[c, k]
        mean = low
        for k in range(grey.size):
            mean += grey[k]
        mean /= x.dtype.type(max(grey.size, 1))
        grey[:] = 0
        for c in range(C):
            for k in range(grey.size):
                pixel = contrast[n] * (after[c, k] - mean) + mean
                after[c, k] = min(max(pixel, low), high)
                grey[k] += shares[c] * after[c, k]
        for c in range(C):
            for k in range(grey.size):
                pixel = saturation[n] * (after[c, k] - grey[k]) + grey[k]
                after[c, k] = min(max(pixel, low), high)


def _each(name: str, values: Any, N: int, kind: type) -> Array:
    """Return one number for each of N images, or say in words why there is none."""
    values = np.asarray(values)
    if values.dtype != bool if kind is bool else values.dtype.kind not in "iu":
        raise TypeError(
            f"{name} has dtype {values.dtype}; it must be "
            + ("bool" if kind is bool else "whole numbers")
        )
    same_shape(name, values, (N,), "one for each image of x")
    return np.ascontiguousarray(values, kind)


def _windows(x: Array, top: Any, left: Any, flipped: Any, size: Pair) -> Array:
    """Return y of equation (1)."""
    N, C, H, W = x.shape
    (HO, WO), y = size, np.empty((N, C, *size), x.dtype)
    top = np.clip(_each("top", top, N, np.int64), -HO, H)  # further out is all the same
    left = np.clip(_each("left", left, N, np.int64), -WO, W)
    fill(_y_cpu, N, y, x, top, left, flipped)
    return y


def flip_images(x: Array, flipped: Array) -> Array:
    """Return y of equation (1): the images n with flipped[n] seen in a mirror.

    Raises TypeError for a dtype of x that is not float32 or float64, or of `flipped` that
    is not bool, and ValueError for shapes that do not fit together.

    >>> x = np.array([[[[1.0, 2.0, 3.0]]], [[[1.0, 2.0, 3.0]]]])
    >>> flip_images(x, np.array([True, False]))[:, 0, 0]
    array([[3., 2., 1.],
           [1., 2., 3.]])
    """
    x = floats("x", x, "(N, C, H, W)")
    still = np.zeros(len(x), np.int64)
    flipped = _each("flipped", flipped, len(x), bool)
    return _windows(x, still, still, flipped, x.shape[2:])


def shift_images(x: Array, down: Array, across: Array) -> Array:
    """Return y of equation (1): image n moved down[n] pixels down, across[n] to the right.

    Raises TypeError for a dtype of x that is not float32 or float64, or of a shift that is
    no whole number, and ValueError for shapes that do not fit together.

    >>> x = np.array([[[[1.0, 2.0, 3.0]]], [[[1.0, 2.0, 3.0]]]])
    >>> shift_images(x, np.array([0, 0]), np.array([1, -2]))[:, 0, 0]
    array([[0., 1., 2.],
           [3., 0., 0.]])
    """
    x = floats("x", x, "(N, C, H, W)")
    down, across = (
        _each(name, a, len(x), np.int64) for name, a in (("down", down), ("across", across))
    )
    never = np.zeros(len(x), bool)
    return _windows(x, -down, -across, never, x.shape[2:])


def crop_images(x: Array, top: Array, left: Array, size: int | Pair) -> Array:
    """Return y of equation (1): of image n the window whose first pixel is top[n], left[n].

    The window may begin before the image, at -1 or less, and end after it. Raises as
    shift_images does, and ValueError for a size below 1.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> crop_images(x, np.array([-1]), np.array([1]), 2)[0, 0]
    array([[0., 0.],
           [1., 2.]])
    """
    x = floats("x", x, "(N, C, H, W)")
    never = np.zeros(len(x), bool)
    return _windows(x, top, left, never, pair("size", size))


def color_images(x: Array, brightness: Array, contrast: Array, saturation: Array) -> Array:
    """Return z of equation (2): image n with its three factors; 1 leaves all as it is.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for shapes
    that do not fit together, pixels that are not from 0 to 1, and factors below 0.

    >>> x = np.array([[[[0.5, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]]])
    >>> one = np.ones(1)
    >>> color_images(x, 2 * one, one, 0 * one)[0, :, 0, 0]
    array([0.299, 0.299, 0.299])
    """
    x = floats("x", x, "(N, C, H, W)")
    N, C = x.shape[:2]
    if C not in (1, 3):
        raise ValueError(f"x has shape {x.shape}; colours need C = 3, or 1 for grey")
    if x.size and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            f"x has pixels from {x.min():g} to {x.max():g}; colours change images of 0 to "
            "1: let `Normalize` be the last step of the augmentation"
        )
    factors = []
    for name, a in (
        ("brightness", brightness),
        ("contrast", contrast),
        ("saturation", saturation),
    ):
        a = np.asarray(a, x.dtype, order="C")
        same_shape(name, a, (N,), "one factor for each image of x")
        if not (a >= 0).all():
            raise ValueError(f"{name} has the factor {a.min()}; it must be at least 0")
        factors.append(a)
    shares = np.array(GREY if C == 3 else [1], x.dtype)
    z = np.empty_like(x)
    fill(_z_cpu, N, z, x, *factors, shares, steps=3 * x.size)
    return z


class Flip:
    """Each image is mirrored, left for right, with probability p."""

    def __init__(self, p: float = 0.5):
        self.p = _range("p", p, 1)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the new batch."""
        return flip_images(x, _generator(rng).random(len(x)) < self.p)


class Shift:
    """Each image is moved by up to so many pixels, up or down and left or right.

    `pixels` is a whole number or (height, width). What comes in from outside is 0.
    """

    def __init__(self, pixels: int | Pair = 2):
        self.pixels = pair("pixels", pixels, 0)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the new batch."""
        rng = _generator(rng)
        down, across = (rng.integers(-P, P + 1, len(x)) for P in self.pixels)
        return shift_images(x, down, across)


class Crop:
    """Of each image a window of a given size, anywhere in its frame of zeros.

    `size` and `padding`, pixels on each side, are whole numbers or (height, width). Raises
    ValueError if the window is larger than the image in its frame.
    """

    def __init__(self, size: int | Pair, padding: int | Pair = 0):
        self.size = pair("size", size)
        self.padding = pair("padding", padding, 0)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the new batch."""
        x, rng = floats("x", x, "(N, C, H, W)"), _generator(rng)
        starts = []
        for n, size, P in zip(x.shape[2:], self.size, self.padding, strict=True):
            if size > n + 2 * P:
                raise ValueError(
                    f"a crop of {self.size} does not fit images of {x.shape[2:]} padded by "
                    f"{self.padding}"
                )
            starts.append(rng.integers(-P, n + P - size + 1, len(x)))
        return crop_images(x, *starts, self.size)


class Color:
    """Each image has its brightness, contrast and saturation scaled at random.

    A factor is drawn evenly from 1 - strength (at least 0) to 1 + strength. Pixels are 0 to
    1 before and after; others raise ValueError.
    """

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0
    ):
        self.strengths = tuple(
            _range(name, value, MOST)
            for name, value in (
                ("brightness", brightness),
                ("contrast", contrast),
                ("saturation", saturation),
            )
        )

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the new batch."""
        rng = _generator(rng)
        ranges = [(max(0.0, 1 - strength), 1 + strength) for strength in self.strengths]
        return color_images(x, *(rng.uniform(*ends, len(x)) for ends in ranges))


class Normalize:
    """Each image has its mean subtracted and is divided by std, as `course.data.normalize`.

    For steps that need pixels of 0 to 1 before it; what is tested on is normalized once.
    """

    def __init__(self, mean: Any, std: Any):
        self.mean, self.std = mean, std

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the new batch; nothing is random here."""
        return normalize(x, self.mean, self.std)


class Augment:
    """One step after the other: `Augment(Flip(), Shift(2))(x, rng)`.

    A step is any function of a batch and a generator that returns a new batch. Raises
    ValueError if there is none, TypeError for what cannot be called.
    """

    def __init__(self, *steps: Callable[[Array, np.random.Generator], Array]):
        if not steps:
            raise ValueError("there is no step: Augment(Flip(), Shift(2)) has two")
        for step in steps:
            if not callable(step) or isinstance(step, type):
                raise TypeError(f"{step!r} is no step; one is Flip(), or Shift(2)")
        self.steps = steps

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the new batch."""
        for step in self.steps:
            x = step(x, rng)
        return x


def _range(name: str, value: float, most: float) -> float:
    """Return a number from 0 to `most`, or say in words that it is none."""
    if not 0 <= number(name, value) <= most:
        raise ValueError(f"{name} must be from 0 to {most}, not {value}")
    return float(value)


def _generator(rng: Any) -> np.random.Generator:
    """Return the generator, or say that it is none."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is {rng!r}; it must be a generator: np.random.default_rng(0)")
    return rng
