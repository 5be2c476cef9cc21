"""Zero padding: a frame of zeros around every image.

Equations

    (1)  y[n,c,i,j]  = x[n,c,p,q] inside the frame, else 0
    (2)  dx[n,c,p,q] = dy[n,c,i,j]

    with p = i - top, q = j - left.

Shapes

    x, dx   (N, C, H, W)     float
    y, dy   (N, C, HO, WO)   float; HO = top + H + bottom, WO = left + W + right

Edges: the gradient of the frame goes nowhere. Pixels are copied, NaN too, and nothing is
computed, so there are no loops here for the CPU, which NumPy serves well. An empty batch
gives an empty y.

Padding is what it is in every layer of the course: an int, (height, width) or
((top, bottom), (left, right)). PyTorch's nn.ZeroPad2d writes (left, right, top, bottom);
a tuple of four is refused, with the other way to say it.

Lecture: lectures/10_convolution_geometry.ipynb.  Symbols: GLOSSARY.md.
Source: as torch.nn.ZeroPad2d, but for the order of the sides.
"""

import numpy as np

from course import cuda
from course.cuda import unravel
from course.device import Array, empty, floats, launch, on_cpu, same_shape
from course.layers.base import Layer
from course.shapes import Pads, Pair, framed, integer, pads


@cuda.jit
def _y_cuda(y, x, top, left):
    """Equation (1); a thread has pixels of y."""
    H, W = x.shape[2:]
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, c, i, j = unravel(k, y.shape)
        p, q = i - top, j - left
        inside = 0 <= p < H and 0 <= q < W
        y[n, c, i, j] = x[n, c, p, q] if inside else x.dtype.type(0)


@cuda.jit
def _dx_cuda(dx, dy, top, left):
    """Equation (2); a thread has pixels of dx."""
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, c, p, q = unravel(k, dx.shape)
        dx[n, c, p, q] = dy[n, c, p + top, q + left]


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
    x, frame = floats("x", x, "(N, C, H, W)"), _frame(padding)
    if on_cpu(x):
        return framed(x, frame)
    (N, C, H, W), ((top, bottom), (left, right)) = x.shape, frame
    y = empty((N, C, top + H + bottom, left + W + right), x.dtype, x)
    launch(_y_cuda, y.size, y, x, top, left)
    return y


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
    if not on_cpu(dy):
        dx = empty((N, C, H, W), dy.dtype, dy)
        launch(_dx_cuda, dx.size, dx, dy, top, left)
        return dx
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
