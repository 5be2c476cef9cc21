"""ReLU, the rectified linear unit: what is below zero becomes zero.

Equations

    (1)  y[k]  = max(0, x[k])
    (2)  dx[k] = dy[k] if x[k] > 0, else 0

Shapes

    x, y, dx, dy   any shape, all alike   float

Edges: the derivative at 0 is 0, by choice (any value from 0 to 1 is a
subgradient). NaN stays NaN.

Lecture: lectures/07_mlp.ipynb.  Symbols: GLOSSARY.md.
Source: Nair & Hinton, ICML 2010; as torch.nn.ReLU.
"""

from course import cuda
from course.compiled import compiled
from course.device import Array, empty_like, fill, floats, launch, on_cpu, same_shape
from course.layers.base import Layer


@compiled
def _y_cpu(y, x, first, past):
    """Equation (1); a thread has elements."""
    y, x = y[first:past], x[first:past]
    zero = x.dtype.type(0)
    for k in range(y.size):
        y[k] = zero if x[k] <= zero else x[k]


@cuda.jit
def _y_cuda(y, x):
    """Equation (1); a thread has elements."""
    zero = x.dtype.type(0)
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = zero if x[k] <= zero else x[k]


@compiled
def _dx_cpu(dx, dy, x, first, past):
    """Equation (2); a thread has elements."""
    dx, dy, x = dx[first:past], dy[first:past], x[first:past]
    zero = x.dtype.type(0)
    for k in range(dx.size):
        upstream = dy[k]  # read in any case: no branch, so vector instructions fit
        dx[k] = zero if x[k] <= zero else upstream


@cuda.jit
def _dx_cuda(dx, dy, x):
    """Equation (2); a thread has elements."""
    zero = x.dtype.type(0)
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[k] = zero if x[k] <= zero else dy[k]


def relu_forward(x: Array) -> Array:
    """Return y of equation (1), in the shape and dtype of x.

    Raises TypeError for a dtype that is not float32 or float64.

    >>> relu_forward(np.array([1.0, -2.0, 3.0, -1.0]))
    array([1., 0., 3., 0.])
    """
    x = floats("x", x, "any")
    y = empty_like(x)
    if on_cpu(x):
        fill(_y_cpu, x.size, y.reshape(-1), x.reshape(-1))
    else:
        launch(_y_cuda, x.size, y.ravel(), x.ravel())
    return y


def relu_backward(dy: Array, x: Array) -> Array:
    """Return dx of equation (2), in the shape and dtype of x.

    Raises TypeError as forward does, and ValueError if dy has not the shape of x.

    >>> relu_backward(np.array([4.0, -1.0, 5.0, 9.0]), np.array([1.0, -2.0, 3.0, -1.0]))
    array([4., 0., 5., 0.])
    """
    x = floats("x", x, "any")
    dy = floats("dy", dy, "any", x)
    same_shape("dy", dy, x.shape, "the shape of x")
    dx = empty_like(x)
    if on_cpu(x):
        fill(_dx_cpu, x.size, dx.reshape(-1), dy.reshape(-1), x.reshape(-1))
    else:
        launch(_dx_cuda, x.size, dx.ravel(), dy.ravel(), x.ravel())
    return dx


class ReLU(Layer):
    """ReLU as a layer; it learns nothing."""

    def forward(self, x: Array) -> Array:
        y = relu_forward(x)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        return relu_backward(dy, self.remembered("x"))
