"""Filters over one plane: cross-correlation, convolution, and six kernels made by hand.

Equations

    (1)  y[i,j] = sum over u,v of w[u,v] * x[i+u, j+v]                cross-correlation
    (2)  y[i,j] = sum over u,v of w[u,v] * x[i+KH-1-u, j+KW-1-v]      convolution

    with 0 <= u < KH, 0 <= v < KW. (2) is (1) with the kernel rotated by half a turn.

Shapes

    x   (H, W)     float; corr1d: (W,)
    w   (KH, KW)   float; corr1d: (KW,)
    y   (HO, WO)   float; HO = H + top + bottom - KH + 1, and WO likewise

Edges: pixels outside x are 0. Without padding only windows that lie wholly inside x
count ("valid").

Lecture: lectures/09_convolution.ipynb.  Symbols: GLOSSARY.md.
Source: Gonzalez & Woods, Digital Image Processing, chapter 3; as scipy.signal.correlate2d
and convolve2d.
"""

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats
from course.shapes import Pads, Pair, framed, out_size, pads, pair

FILTERS: dict[str, Array] = {
    "diagonal edges": np.array([[1.0, 0, -1], [0, 0, 0], [-1, 0, 1]]),
    "edges, 4 neighbours": np.array([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    "edges, 8 neighbours": np.array([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
    "sharpen": np.array([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "box blur": np.array([[1.0, 1, 1], [1, 1, 1], [1, 1, 1]]) / 9,
    "Gaussian blur": np.array([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16,
}


@compiled
def _y_cpu(y, xp, w, first, past):
    """Equation (1); a thread has rows of y."""
    KH, KW = w.shape
    WO = y.shape[1]
    for i in range(first, past):
        for j in range(WO):
            total = y.dtype.type(0)
            for u in range(KH):
                for v in range(KW):
                    total += w[u, v] * xp[i + u, j + v]
            y[i, j] = total


def corr2d(x: Array, w: Array, padding: int | Pair | Pads | str = 0) -> Array:
    """Return the cross-correlation y of equation (1), in the dtype of x.

    Padding is given as in `course.shapes`. Raises TypeError for dtypes that are not float32
    or float64, or not alike, and ValueError for a kernel that does not fit.

    >>> x = np.arange(9.0).reshape(3, 3)
    >>> corr2d(x, np.array([[-1.0, 0.0], [0.0, 1.0]]))
    array([[4., 4.],
           [4., 4.]])
    """
    x = floats("x", x, "(H, W)")
    w = floats("w", w, "(KH, KW)", x.dtype)
    if w.size == 0:
        raise ValueError(f"w has shape {w.shape}; a kernel needs at least 1 x 1 taps")
    frame = pads(padding, x.shape, w.shape, (1, 1), (1, 1))
    size = [out_size(n, K, P=P) for n, K, P in zip(x.shape, w.shape, frame, strict=True)]
    y = np.empty(size, x.dtype)
    fill(_y_cpu, len(y), y, framed(x[None, None], frame)[0, 0], w)
    return y


def convolve2d(x: Array, w: Array, padding: int | Pair | Pads | str = 0) -> Array:
    """Return the convolution y of equation (2), in the dtype of x.

    With padding (KH-1, KW-1) every product of a pixel and a tap counts: the full
    convolution. Raises as corr2d does.

    >>> x = np.arange(9.0).reshape(3, 3)
    >>> convolve2d(x, np.array([[-1.0, 0.0], [0.0, 1.0]]))
    array([[-4., -4.],
           [-4., -4.]])
    """
    return corr2d(x, floats("w", w, "(KH, KW)")[::-1, ::-1], padding)


def corr1d(x: Array, w: Array, padding: int | Pair | str = 0) -> Array:
    """Return the cross-correlation of two vectors: equation (1) on one row.

    Padding is an int, (before, after), "valid" or "same". Raises as corr2d does.

    >>> x, w = np.array([1.0, 1.0, 1.0, 0.0, 0.0]), np.array([1.0, 0.0, 1.0])
    >>> corr1d(x, w), corr1d(x, w, padding="same")
    (array([2., 1., 1.]), array([1., 2., 1., 1., 0.]))
    """
    x = floats("x", x, "(W,)")
    w = floats("w", w, "(KW,)", x.dtype)
    if not isinstance(padding, str):
        padding = (0, 0), pair("padding", padding, 0)
    return corr2d(x[None], w[None], padding)[0]
