"""Residual sum: what a branch computed is added to what went round it.

Equations

    (1)  y[k]  = a[k] + b[k]
    (2)  da[k] = dy[k]
    (3)  db[k] = dy[k]

Shapes

    a, b, y, dy, da, db   any shape, all alike   float

Edges: there is no broadcasting; shapes that differ are an error. The gradient reaches
both summands whole: that is why a residual network learns although it is deep.

Two arrays come in, so the layer stands where branches of a network meet: forward takes
the pair (a, b), backward returns the pair (da, db). Both are dy, one array: nothing is
copied, as no layer writes on what it is given.

Lecture: lectures/15_architectures.ipynb.  Symbols: GLOSSARY.md.
Source: He, Zhang, Ren & Sun, CVPR 2016, equation (1) there.
"""

from collections.abc import Sequence

from course import cuda
from course.compiled import compiled
from course.device import Array, empty_like, fill, floats, launch, on_cpu, same_shape
from course.layers.base import Layer


@compiled
def _y_cpu(y, a, b, first, past):
    """Equation (1); a thread has elements."""
    y, a, b = y[first:past], a[first:past], b[first:past]
    for k in range(y.size):
        y[k] = a[k] + b[k]


@cuda.jit
def _y_cuda(y, a, b):
    """Equation (1); a thread has elements."""
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = a[k] + b[k]


def residual_sum_forward(a: Array, b: Array) -> Array:
    """Return y of equation (1), in the shape and dtype of a.

    Raises TypeError for dtypes that are not float32 or float64, or not alike, and
    ValueError if the shapes differ.

    >>> residual_sum_forward(np.array([1.0, 2.0]), np.array([10.0, 20.0]))
    array([11., 22.])
    """
    a = floats("a", a, "any")
    b = floats("b", b, "any", a)
    same_shape("b", b, a.shape, "the shape of a")
    y = empty_like(a)
    if on_cpu(a):
        fill(_y_cpu, y.size, y.reshape(-1), a.reshape(-1), b.reshape(-1))
    else:
        launch(_y_cuda, y.size, y.ravel(), a.ravel(), b.ravel())
    return y


def residual_sum_backward(dy: Array) -> tuple[Array, Array]:
    """Return da and db of equations (2) and (3): dy, twice.

    Raises TypeError for a dtype that is not float32 or float64.

    >>> residual_sum_backward(np.array([3.0, 4.0]))
    (array([3., 4.]), array([3., 4.]))
    """
    dy = floats("dy", dy, "any")
    return dy, dy


class ResidualSum(Layer):
    """The sum as a layer of two inputs; it learns nothing.

    `forward` takes the pair (a, b), and `backward` returns the pair (da, db).
    """

    def forward(self, x: Sequence[Array]) -> Array:
        if not isinstance(x, tuple | list) or len(x) != 2:
            raise TypeError(
                f"x must be a pair (a, b) of arrays, not a {type(x).__name__}"
                + (f" of {len(x)}" if isinstance(x, tuple | list) else "")
            )
        y = residual_sum_forward(*x)
        self.y_shape = y.shape
        return y

    def backward(self, dy: Array) -> tuple[Array, Array]:
        y_shape = self.remembered("y_shape")
        dy = floats("dy", dy, "any")
        same_shape("dy", dy, y_shape, "the shape of y")
        return residual_sum_backward(dy)
