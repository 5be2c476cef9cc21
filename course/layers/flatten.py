"""Flatten: the pixels of each image in one row, as a linear layer wants them.

Equations

    (1)  y[n,k]      = x[n,c,p,q]
    (2)  dx[n,c,p,q] = dy[n,k]

    with k = (c*H + p)*W + q.

Shapes

    x, dx   (N, C, H, W)    float; any axes may follow N, or none
    y, dy   (N, C*H*W)      float

Edges: nothing moves in memory and nothing is computed, so there are no loops here: y is
x with other numbers for its axes, and shares its memory where x is in row-major order.
An empty batch keeps its number of columns.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: as torch.nn.Flatten.
"""

from math import prod

from course.device import Array, floats, same_shape
from course.layers.base import Layer


def flatten_forward(x: Array) -> Array:
    """Return y of equation (1), in the dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for a
    single number, which has no rows.

    >>> flatten_forward(np.arange(8.0).reshape(2, 1, 2, 2))
    array([[0., 1., 2., 3.],
           [4., 5., 6., 7.]])
    """
    x = floats("x", x, "any")
    if x.ndim < 1:
        raise ValueError("x is a single number; it must be (N, ...), one row per sample")
    return x.reshape(len(x), prod(x.shape[1:]))


def flatten_backward(dy: Array, input_shape: tuple[int, ...]) -> Array:
    """Return dx of equation (2), of `input_shape`, the shape of x.

    Raises TypeError as forward does, and ValueError if dy has not the shape of y.

    >>> flatten_backward(np.array([[0.0, 1.0, 2.0, 3.0]]), (1, 1, 2, 2))
    array([[[[0., 1.],
             [2., 3.]]]])
    """
    dy = floats("dy", dy, "(N, C*H*W)")
    if not input_shape:
        raise ValueError("input_shape is empty; it must be (N, ...), the shape of x")
    y_shape = input_shape[0], prod(input_shape[1:])
    same_shape("dy", dy, y_shape, f"a flat x of shape {tuple(input_shape)}")
    return dy.reshape(input_shape)


class Flatten(Layer):
    """Flatten as a layer; it learns nothing."""

    def forward(self, x: Array) -> Array:
        y = flatten_forward(x)
        self.input_shape = x.shape
        return y

    def backward(self, dy: Array) -> Array:
        return flatten_backward(dy, self.remembered("input_shape"))
