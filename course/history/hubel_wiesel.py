"""Cells of the visual cortex, and bars of every orientation: who answers to what.

Equations

    (1)  w[u,v] = exp(-(r^2 + (aspect*l)^2) / (2*sigma^2)) * cos(2*pi*r/wavelength + phase)
    (2)  x[n,p,q] = cut(width/2 + 1/2 - |r - shift|) * cut(length/2 + 1/2 - |l|)
    (3)  y[n,i,j] = max(0, sum over u,v of w[u,v] * x[n,i+u,j+v])
    (4)  y[n,i,j] = max over a, b < reach of simple[n,i+a,j+b]
    (5)  y[n,i,j] = sqrt(even[n,i,j]^2 + odd[n,i,j]^2)
    (6)  y[n,i,j] = max(0, middle[n,i,j] - strength * (end[n,i,j] + other[n,i,j]))

    l is how far a pixel is from the middle along the orientation, r how far across it;
    cut(z) is z between 0 and 1. The weights of (1) are then freed of their mean and scaled
    to sum w^2 = 1: even light says nothing.

(1) is a receptive field, (2) a bar. (3) is a simple cell: a filter and a threshold. (4) is
a complex cell as Hubel and Wiesel drew it: it listens to simple cells of one orientation,
side by side. (5) is a later model of it: `even` and `odd` are the sums of two simple cells
a quarter of a wave apart, before their thresholds. (6) is a hypercomplex cell: a simple
cell in the middle, held back by those beyond either end, so that a bar can be too long.

Shapes

    w   (KH, KW)         float
    x   (N, 1, H, W)     float
    y   (N, 1, HO, WO)   float; HO = H - KH + 1 in (3) and (5), less in (4) and (6)

Edges: angles are in degrees from horizontal, against the clock: a bar at 0 lies and one at
90 stands; one at 180 is one at 0. Only places where a cell sees all of its field give an
output.

Lecture: lectures/04_history.ipynb.  Symbols: GLOSSARY.md.
Source: Hubel & Wiesel, J. Physiol. 148 (1959) and 160 (1962), J. Neurophysiol. 28 (1965)
for (6); Daugman, J. Opt. Soc. Am. A 2 (1985) for (1), at whose bandwidth of one octave
sigma is 0.56 wavelengths; Adelson & Bergen, J. Opt. Soc. Am. A 2 (1985) for (5).
"""

from collections.abc import Callable
from math import cos, pi, radians, sin
from typing import Any

import numpy as np

from course.device import Array, floats
from course.layers import conv2d_forward, maxpool2d_forward, relu_forward
from course.shapes import integer


def gabor(
    size: int,
    angle: float = 0.0,
    wavelength: float = 8.0,
    phase: float = 0.0,
    sigma: float | None = None,
    aspect: float = 0.5,
    dtype: Any = np.float32,
) -> Array:
    """Return the receptive field w of equation (1), (size, size) pixels.

    phase 0 likes a bright bar, 90 an edge; sigma is 0.56 wavelengths unless given.
    Raises ValueError for a wavelength below 2 pixels, which no image can show.

    >>> gabor(3, wavelength=4, aspect=0).round(2)
    array([[-0.24, -0.24, -0.24],
           [ 0.47,  0.47,  0.47],
           [-0.24, -0.24, -0.24]], dtype=float32)
    """
    size = integer("size", size, 2)
    if not 2 <= wavelength < np.inf:
        raise ValueError(f"wavelength is {wavelength} pixels; it must be at least 2")
    sigma = 0.56 * wavelength if sigma is None else sigma
    along, across = _turned(size, np.array([angle]))
    envelope = np.exp(-(across**2 + (aspect * along) ** 2) / (2 * sigma**2))
    w = (envelope * np.cos(2 * pi * across / wavelength + radians(phase)))[0]
    w -= w.mean()
    return (w / np.sqrt(np.square(w).sum())).astype(dtype)


def bars(
    size: int,
    angle: Any = 0.0,
    width: Any = 3.0,
    length: Any = np.inf,
    shift: Any = 0.0,
    dtype: Any = np.float32,
) -> Array:
    """Return images x of equation (2), (N, 1, size, size): bright bars on black.

    Each of angle, width, length and shift is a number or one for each image. A shift goes
    across the bar: up, for one that lies. Raises ValueError if their counts differ.

    >>> bars(3, [0, 90], width=1)[:, 0]
    array([[[0., 0., 0.],
            [1., 1., 1.],
            [0., 0., 0.]],
    <BLANKLINE>
           [[0., 1., 0.],
            [0., 1., 0.],
            [0., 1., 0.]]], dtype=float32)
    """
    size = integer("size", size, 1)
    given = np.atleast_1d(*np.broadcast_arrays(angle, width, length, shift))
    angle, width, length, shift = (np.asarray(a, float) for a in given)
    along, across = _turned(size, angle)
    width, length, shift = (a[:, None, None] for a in (width, length, shift))
    ink = np.clip(width / 2 + 0.5 - abs(across - shift), 0, 1)
    ink *= np.clip(length / 2 + 0.5 - abs(along), 0, 1)
    return ink[:, None].astype(dtype)


def _turned(size: int, angle: Array) -> tuple[Array, Array]:
    """Return l and r of the equations for every angle and pixel, (N, size, size)."""
    steps = np.arange(size) - (size - 1) / 2
    right, up = steps[None, None, :], -steps[None, :, None]
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    cosine, sine = cosine.round(15)[:, None, None], sine.round(15)[:, None, None]
    return right * cosine + up * sine, up * cosine - right * sine


def simple_cells(x: Array, w: Array) -> Array:
    """Return y of equation (3): how strongly a simple cell at each place answers.

    Raises TypeError or ValueError for arrays that do not fit.

    >>> w = gabor(9)
    >>> simple_cells(bars(9, [0, 45, 90]), w).ravel().round(2)
    array([3.87, 0.56, 0.  ], dtype=float32)
    """
    return relu_forward(_sums(x, w))


def _sums(x: Array, w: Array) -> Array:
    """Return the sums of equation (3) before the threshold."""
    return conv2d_forward(x, floats("w", w, "(KH, KW)")[None, None])


def complex_cells(x: Array, w: Array, reach: int) -> Array:
    """Return y of equation (4): the strongest of reach x reach neighbouring simple cells.

    Raises TypeError or ValueError for arrays that do not fit.

    >>> x, w = bars(13, shift=[0, 1, 2]), gabor(9)
    >>> simple_cells(x, w)[:, 0, 2, 2].round(2)
    array([3.87, 2.76, 0.25], dtype=float32)
    >>> complex_cells(x, w, reach=5).ravel().round(2)
    array([3.87, 3.87, 3.87], dtype=float32)
    """
    return maxpool2d_forward(simple_cells(x, w), reach, 1)[0]


def energy_cells(x: Array, even: Array, odd: Array) -> Array:
    """Return y of equation (5) for two fields a quarter of a wave apart.

    Raises TypeError or ValueError for arrays that do not fit.

    >>> x, even, odd = bars(9, shift=[0, 1, 2]), gabor(9), gabor(9, phase=90)
    >>> energy_cells(x, even, odd).ravel().round(2)
    array([3.87, 3.83, 3.61], dtype=float32)
    """
    return np.sqrt(_sums(x, even) ** 2 + _sums(x, odd) ** 2)


def hypercomplex_cells(
    x: Array, w: Array, angle: float, apart: float, strength: float = 1.0
) -> Array:
    """Return y of equation (6); the ends lie `apart` pixels from the middle along angle.

    Raises TypeError or ValueError for arrays that do not fit.

    >>> x, w = bars(25, length=[5, 9, 25]), gabor(9)
    >>> hypercomplex_cells(x, w, angle=0, apart=8)[:, 0, 8, 0].round(2)
    array([2.21, 3.06, 0.  ], dtype=float32)
    """
    simple = simple_cells(x, w)
    i, j = round(-apart * sin(radians(angle))), round(apart * cos(radians(angle)))
    HO, WO = simple.shape[2] - 2 * abs(i), simple.shape[3] - 2 * abs(j)
    if min(HO, WO) < 1:
        raise ValueError(
            f"images of {x.shape[2]}x{x.shape[3]} pixels are too small for ends {apart} "
            f"from the middle of a field of {w.shape[0]}x{w.shape[1]}"
        )

    def at(side: int) -> Array:
        top, left = abs(i) + side * i, abs(j) + side * j
        return simple[:, :, top : top + HO, left : left + WO]

    return relu_forward(at(0) - x.dtype.type(strength) * (at(-1) + at(1)))


def half_width(angles: Array, responses: Array) -> float:
    """Return how far from its peak a tuning curve has fallen to half of it, in degrees.

    angles : (N,) ascending, over less than 180 degrees;  responses : (N,)
    The mean of both sides, with straight lines between the samples. Raises ValueError for
    a curve that never falls so low.

    >>> half_width(np.array([0, 45, 90, 135]), np.array([4.0, 1.0, 0.0, 1.0]))
    30.0
    """
    best = int(np.argmax(responses))
    half, sides = responses[best] / 2, []
    if not responses.min() < half:
        raise ValueError(
            f"the responses, {responses.min():.3g} to {responses[best]:.3g}, never fall to "
            "half of the largest"
        )
    for step in (1, -1):
        turned = (np.arange(len(angles) + 1) * step + best) % len(angles)
        away = step * (angles[turned] - angles[best]) % 180
        away[-1] = 180  # round once
        k = int(np.argmax(responses[turned] < half))
        high, low = responses[turned[k - 1]], responses[turned[k]]
        away = away[k - 1] + (away[k] - away[k - 1]) * (high - half) / (high - low)
        sides.append(away)
    return float(np.mean(sides))


def modulation(responses: Array) -> float:
    """Return how much responses vary, (max - min) / (max + min): 0 not at all, 1 fully.

    Raises ValueError if no response is above 0.

    >>> modulation(np.array([1.0, 3.0]))
    0.5
    """
    high, low = float(np.max(responses)), float(np.min(responses))
    if not high > 0:
        raise ValueError("no response is above 0")
    return (high - low) / (high + low)


def field_centres(respond: Callable[[Array], Array], size: int) -> Array:
    """Return where in the image each cell of a map looks, (HO, WO, 2): row and column.

    It is measured, as in the cortex: each pixel of a dark image is lit in turn, and a
    cell's centre is the mean of the places it answers to, each weighed by the answer.
    respond : images (N, 1, size, size) float32 -> maps (N, F, HO, WO), averaged over F
    Raises ValueError if some cell answers to no pixel.

    >>> from course.layers import avgpool2d_forward
    >>> field_centres(lambda x: avgpool2d_forward(x, 3, 2), 5)[0]
    array([[1., 1.],
           [1., 3.]])
    """
    dots = np.eye(size * size, dtype=np.float32).reshape(-1, 1, size, size)
    answers = abs(respond(dots) - respond(np.zeros_like(dots[:1]))).sum(axis=1, dtype=float)
    total = answers.sum(axis=0)
    if not total.all():
        raise ValueError(f"{(total == 0).sum()} cells of the map answer to no single pixel")
    places = np.stack(np.indices((size, size)).reshape(2, -1), axis=1)
    return np.einsum("nij,nk->ijk", answers, places) / total[..., None]
