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

from course.compiled import compiled
from course.device import Array, fill, floats, same_shape
from course.layers.base import Layer
from course.shapes import nchw


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
def _dx_cpu(dx, dy, argmax, first, past):
    """Equation (2), dx (N*C, H*W), the others (N*C,); a thread has planes, a row each."""
    for plane in range(first, past):
        dx[plane] = 0
        dx[plane, argmax[plane]] = dy[plane]


def global_maxpool2d_forward(x: Array) -> tuple[Array, Array]:
    """Return y and argmax of equation (1), both of shape (N, C, 1, 1).

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for images
    without pixels.

    >>> global_maxpool2d_forward(np.array([[[[1.0, 2.0], [6.0, 3.0]]]]))
    (array([[[[6.]]]]), array([[[[2]]]], dtype=int32))
    """
    x = floats("x", x, "(N, C, H, W)")
    N, C, H, W = nchw("the shape of x", x.shape, empty=False)
    y, argmax = np.empty((N, C, 1, 1), x.dtype), np.empty((N, C, 1, 1), np.int32)
    fill(_y_cpu, N * C, y.reshape(-1), argmax.reshape(-1), x.reshape(N * C, H * W))
    return y, argmax


def global_maxpool2d_backward(
    dy: Array, argmax: Array, input_shape: tuple[int, int, int, int]
) -> Array:
    """Return dx of equation (2), of `input_shape` (N, C, H, W), in the dtype of dy.

    `argmax` is what forward returned. Raises ValueError if dy, argmax and input_shape do
    not belong together.

    >>> dy, argmax = np.full((1, 1, 1, 1), 5.0), np.full((1, 1, 1, 1), 2)
    >>> global_maxpool2d_backward(dy, argmax, (1, 1, 2, 2))
    array([[[[0., 0.],
             [5., 0.]]]])
    """
    dy = floats("dy", dy, "(N, C, 1, 1)")
    N, C, H, W = nchw("input_shape", input_shape, empty=False)
    same_shape("dy", dy, (N, C, 1, 1), "the shape of y for this input_shape")
    if not isinstance(argmax, np.ndarray) or argmax.dtype.kind not in "iu":
        kind = getattr(argmax, "dtype", type(argmax).__name__)
        raise TypeError(f"argmax must be the int32 array of forward, not {kind}")
    same_shape("argmax", argmax, dy.shape, "the shape of dy")
    wrong = argmax[(argmax < 0) | (argmax >= H * W)]
    if wrong.size:
        raise ValueError(
            f"argmax names pixel {wrong[0]}, but a plane of {H} x {W} has pixels 0 to "
            f"{H * W - 1}: it belongs to another x"
        )
    dx = np.empty((N, C, H, W), dy.dtype)
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
