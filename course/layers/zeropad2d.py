"""Zero padding: a frame of zeros around every image.

Equations

    (1)  y[n,c,i,j]  = x[n,c,p,q] inside the frame, else 0
    (2)  dx[n,c,p,q] = dy[n,c,i,j]

    with p = i - top, q = j - left.

Shapes

    x, dx   (N, C, H, W)     float
    y, dy   (N, C, HO, WO)   float; HO = top + H + bottom, WO = left + W + right

Edges: the gradient of the frame goes nowhere. Pixels are copied, NaN too, and nothing is
computed, so there are no loops here. An empty batch gives an empty y.

Padding is what it is in every layer of the course: an int, (height, width) or
((top, bottom), (left, right)). PyTorch's nn.ZeroPad2d writes (left, right, top, bottom);
a tuple of four is refused, with the other way to say it.

Lecture: lectures/10_convolution_geometry.ipynb.  Symbols: GLOSSARY.md.
Source: as torch.nn.ZeroPad2d, but for the order of the sides.
"""

import numpy as np

from course.device import Array, floats, same_shape
from course.layers.base import Layer
from course.shapes import Pads, Pair, framed, integer, pads


def _frame(padding: int | Pair | Pads) -> Pads:
    """Return ((top, bottom), (left, right)) in pixels."""
    if isinstance(padding, str):
        raise ValueError(
            f"padding is {padding!r}, but there is no window to say how much that is; "
            "it must be ((top, bottom), (left, right))"
        )
    if isinstance(padding, tuple | list) and len(padding) == 4:
        left, right, top, bottom = padding
        raise ValueError(
            f"padding is {padding!r}; it must be ((top, bottom), (left, right)). "
            f"In PyTorch's order that is {((top, bottom), (left, right))}"
        )
    return pads(padding, (1, 1), (1, 1), (1, 1), (1, 1))


def zeropad2d_forward(x: Array, padding: int | Pair | Pads) -> Array:
    """Return y of equation (1), in the dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for what
    is no padding.

    >>> zeropad2d_forward(np.ones((1, 1, 1, 2)), ((1, 0), (0, 2)))[0, 0]
    array([[0., 0., 0., 0.],
           [1., 1., 0., 0.]])
    """
    return framed(floats("x", x, "(N, C, H, W)"), _frame(padding))


def zeropad2d_backward(
    dy: Array, input_shape: tuple[int, int, int, int], padding: int | Pair | Pads
) -> Array:
    """Return dx of equation (2), of `input_shape` (N, C, H, W), in the dtype of dy.

    Raises as forward does, and ValueError if dy has not the shape of y.

    >>> dy = np.arange(8.0).reshape(1, 1, 2, 4)
    >>> zeropad2d_backward(dy, (1, 1, 1, 2), ((1, 0), (0, 2)))
    array([[[[4., 5.]]]])
    """
    dy = floats("dy", dy, "(N, C, HO, WO)")
    (top, bottom), (left, right) = _frame(padding)
    if len(input_shape) != 4:
        raise ValueError(f"input_shape is {input_shape}; it must be (N, C, H, W)")
    N, C, H, W = (integer("input_shape", size, 0) for size in input_shape)
    y_shape = N, C, top + H + bottom, left + W + right
    same_shape("dy", dy, y_shape, "the shape of y for this input_shape")
    return np.ascontiguousarray(dy[:, :, top : top + H, left : left + W])


class ZeroPad2d(Layer):
    """Zero padding as a layer; it learns nothing. ((top, bottom), (left, right)) in pixels.

    Raises ValueError for a side below 0, and for PyTorch's tuple of four.
    """

    def __init__(self, padding: int | Pair | Pads):
        super().__init__()
        self.padding = _frame(padding)

    def forward(self, x: Array) -> Array:
        y = zeropad2d_forward(x, self.padding)
        self.input_shape = x.shape
        return y

    def backward(self, dy: Array) -> Array:
        return zeropad2d_backward(dy, self.remembered("input_shape"), self.padding)
