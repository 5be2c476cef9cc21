"""The shortcut without parameters: of every S x S pixels one, and channels of zeros.

Equations

    (1)  y[n,c0+c,i,j]      = x[n,c,i*S,j*S], and 0 in channels that x does not fill
    (2)  dx[n,c,i*S,j*S] = dy[n,c0+c,i,j], and 0 at pixels that y does not see

    with c0 = (F - C)//2: half of the channels of zeros come before those of x.

Shapes

    x, dx   (N, C, H, W)     float
    y, dy   (N, F, HO, WO)   float; HO = ceil(H/S), and WO likewise

Edges: numbers are copied, NaN too, and nothing is computed: on the CPU NumPy does it. An
empty batch gives an empty y.

Lecture: lectures/15_architectures.ipynb.  Symbols: GLOSSARY.md.
Source: He, Zhang, Ren & Sun, CVPR 2016, section 3.3, option (A). The paper does not say
where the zeros go; half before and half after is what the usual code for CIFAR-10 does.
"""

import numpy as np

from course import cuda
from course.cuda import unravel
from course.device import Array, empty, floats, launch, on_cpu, same_shape
from course.layers.base import Layer
from course.shapes import integer, nchw


@cuda.jit
def _y_cuda(y, x, S, c0):
    """Equation (1); a thread has elements of y."""
    C = x.shape[1]
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, c, i, j = unravel(k, y.shape)
        if c0 <= c < c0 + C:
            y[n, c, i, j] = x[n, c - c0, i * S, j * S]
        else:
            y[n, c, i, j] = 0


@cuda.jit
def _dx_cuda(dx, dy, S, c0):
    """Equation (2); a thread has elements of dx."""
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, c, p, q = unravel(k, dx.shape)
        if p % S == 0 and q % S == 0:
            dx[n, c, p, q] = dy[n, c0 + c, p // S, q // S]
        else:
            dx[n, c, p, q] = 0


def _geometry(shape: tuple[int, ...], channels: int, stride: int) -> tuple:
    """Return the shape of y, the stride, and the channels of y that x fills."""
    N, C, H, W = nchw("x", shape)
    F, S = integer("channels", channels, 1), integer("stride", stride, 1)
    if F < C:
        raise ValueError(f"channels={F}, but x has {C}: they can only become more")
    c0 = (F - C) // 2
    return (N, F, -(-H // S), -(-W // S)), S, slice(c0, c0 + C)


def identity_shortcut_forward(x: Array, channels: int, stride: int = 1) -> Array:
    """Return y of equation (1), with so many channels, in the dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for fewer
    channels than x has.

    >>> x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> identity_shortcut_forward(x, 3, 2)
    array([[[[0.]],
    <BLANKLINE>
            [[1.]],
    <BLANKLINE>
            [[0.]]]])
    """
    x = floats("x", x, "(N, C, H, W)")
    shape, S, filled = _geometry(x.shape, channels, stride)
    if not on_cpu(x):
        y = empty(shape, x.dtype, x)
        launch(_y_cuda, y.size, y, x, S, filled.start)
        return y
    y = np.zeros(shape, x.dtype)
    y[:, filled] = x[:, :, ::S, ::S]
    return y


def identity_shortcut_backward(
    dy: Array, input_shape: tuple[int, int, int, int], channels: int, stride: int = 1
) -> Array:
    """Return dx of equation (2), of `input_shape` (N, C, H, W), in the dtype of dy.

    Raises as forward does, and ValueError if dy has not the shape of y.

    >>> dy = np.array([[[[5.0]], [[6.0]], [[7.0]]]])
    >>> identity_shortcut_backward(dy, (1, 1, 2, 2), 3, 2)
    array([[[[6., 0.],
             [0., 0.]]]])
    """
    dy = floats("dy", dy, "(N, F, HO, WO)")
    shape, S, filled = _geometry(input_shape, channels, stride)
    same_shape("dy", dy, shape, "the shape of y for this input_shape")
    if not on_cpu(dy):
        dx = empty(input_shape, dy.dtype, dy)
        launch(_dx_cuda, dx.size, dx, dy, S, filled.start)
        return dx
    dx = np.zeros(input_shape, dy.dtype)
    dx[:, :, ::S, ::S] = dy[:, filled]
    return dx


class IdentityShortcut(Layer):
    """The shortcut as a layer; it learns nothing.

    Raises ValueError for a size below 1, and in forward if x has more channels than y.
    """

    def __init__(self, channels: int, stride: int = 1):
        super().__init__()
        self.channels = integer("channels", channels, 1)
        self.stride = integer("stride", stride, 1)

    def forward(self, x: Array) -> Array:
        y = identity_shortcut_forward(x, self.channels, self.stride)
        self.input_shape = x.shape
        return y

    def backward(self, dy: Array) -> Array:
        shape = self.remembered("input_shape")
        return identity_shortcut_backward(dy, shape, self.channels, self.stride)
