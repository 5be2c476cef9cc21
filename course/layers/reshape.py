"""Reshape: the numbers of each sample in other axes, as images out of a row, say.

Equations

    (1)  y[n,k]  = x[n,k]
    (2)  dx[n,k] = dy[n,k]

    where k counts the numbers of a sample in row-major order.

Shapes

    x, dx   (N, ...)      float; any axes may follow N
    y, dy   (N, *shape)   float; as many numbers in each sample

Edges: the batch axis stays as it is. Nothing moves in memory and nothing is computed, so
there are no loops here: y shares the memory of x where x is in row-major order. Axes are
cut anew, not exchanged: that would be a transpose. An empty batch stays empty.

Lecture: lectures/16_beyond_labels.ipynb.  Symbols: GLOSSARY.md.
Source: as torch.nn.Unflatten with dim=1, and Reshape of Keras.
"""

from math import prod

from course.device import Array, floats, same_shape
from course.layers.base import Layer
from course.shapes import integer


def _sizes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape as ints of which at most one is -1."""
    if not isinstance(shape, tuple | list):
        raise TypeError(f"shape must be a tuple of whole numbers, not {shape!r}")
    sizes = tuple(integer("shape", size, -1) for size in shape)
    if sizes.count(-1) > 1:
        raise ValueError(f"shape is {sizes}; one size at most can be -1, the rest")
    return sizes


def _full(input_shape: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of y, with a number in place of -1."""
    sizes = _sizes(shape)
    if not input_shape:
        raise ValueError("x is a single number; it must be (N, ...), one row per sample")
    have = prod(input_shape[1:])
    if -1 in sizes:
        others = prod(size for size in sizes if size != -1)
        rest = have // others if others else 0
        sizes = tuple(rest if size == -1 else size for size in sizes)
    if prod(sizes) != have:
        raise ValueError(
            f"x has shape {tuple(input_shape)}, so {have} numbers in each sample; "
            f"shape {tuple(shape)} does not hold as many"
        )
    return input_shape[0], *sizes


def reshape_forward(x: Array, shape: tuple[int, ...]) -> Array:
    """Return y of equation (1); `shape` leaves the batch out, and one size may be -1.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError if the
    numbers of a sample do not fill the shape.

    >>> reshape_forward(np.array([[0.0, 1.0, 2.0, 3.0]]), (2, -1))
    array([[[0., 1.],
            [2., 3.]]])
    """
    x = floats("x", x, "any")
    return x.reshape(_full(x.shape, shape))


def reshape_backward(
    dy: Array, input_shape: tuple[int, ...], shape: tuple[int, ...]
) -> Array:
    """Return dx of equation (2), of `input_shape`, the shape of x.

    Raises as forward does, and ValueError if dy has not the shape of y.

    >>> reshape_backward(np.array([[[0.0, 1.0], [2.0, 3.0]]]), (1, 4), (2, -1))
    array([[0., 1., 2., 3.]])
    """
    dy = floats("dy", dy, "any")
    full = _full(input_shape, shape)
    same_shape("dy", dy, full, f"an x of shape {tuple(input_shape)}, reshaped,")
    return dy.reshape(input_shape)


class Reshape(Layer):
    """Reshape as a layer: Reshape(3, 8, -1). The batch axis is not named.

    It learns nothing. Raises ValueError for a second -1 or a size below it, and in
    forward if the numbers of a sample do not fill the shape.
    """

    def __init__(self, *shape: int):
        super().__init__()
        self.shape = _sizes(shape)

    def forward(self, x: Array) -> Array:
        y = reshape_forward(x, self.shape)
        self.input_shape = x.shape
        return y

    def backward(self, dy: Array) -> Array:
        return reshape_backward(dy, self.remembered("input_shape"), self.shape)
