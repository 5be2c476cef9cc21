"""Global average pooling: one number a channel, the mean of its pixels.

Equations

    (1)  y[n,c,0,0]  = sum over p,q of x[n,c,p,q] / (H*W)
    (2)  dx[n,c,p,q] = dy[n,c,0,0] / (H*W)

Shapes

    x, dx   (N, C, H, W)   float
    y, dy   (N, C, 1, 1)   float

Edges: an image without pixels is an error. A NaN or infinity goes to its channel's mean.

Whatever the size of the image, what follows sees C numbers: so a network takes images of
any size, and has no large dense layer at its end.

Lecture: lectures/15_architectures.ipynb.  Symbols: GLOSSARY.md.
Source: Lin, Chen & Yan, arXiv:1312.4400, section 3.2; as torch.nn.AdaptiveAvgPool2d(1).
"""

from course import cuda
from course.compiled import compiled
from course.cuda import unravel
from course.cuda.reductions import warp_sum
from course.device import Array, empty, fill, floats, launch, on_cpu, same_shape
from course.layers.base import Layer
from course.shapes import nchw

PIECE = 1024  # pixels


@compiled
def _y_cpu(y, x, first, past):
    """Equation (1), y (N*C,) and x (N*C, H*W); a thread has planes, a row each.

    Sums of short pieces round less.
    """
    size = x.shape[1]
    for plane in range(first, past):
        total = x.dtype.type(0)
        for start in range(0, size, PIECE):
            piece = x[plane, start : start + PIECE]
            part = x.dtype.type(0)
            for k in range(piece.size):
                part += piece[k]
            total += part
        y[plane] = total / x.dtype.type(size)


@cuda.jit
def _y_cuda(y, x):
    """Equation (1), y (N*C,) and x (N*C, H*W); a warp has planes.

    A thread has every 32nd pixel of a plane; the warp adds up what they find.
    """
    size = x.shape[1]
    for plane in range(cuda.grid(1) // 32, len(y), cuda.gridsize(1) // 32):
        part = x.dtype.type(0)
        for k in range(cuda.threadIdx.x % 32, size, 32):
            part += x[plane, k]
        total = warp_sum(part)
        if cuda.threadIdx.x % 32 == 0:
            y[plane] = total / x.dtype.type(size)


@compiled
def _dx_cpu(dx, dy, first, past):
    """Equation (2), dx (N*C, H*W) and dy (N*C,); a thread has planes, a row each."""
    size = dx.dtype.type(dx.shape[1])
    for plane in range(first, past):
        dx[plane] = dy[plane] / size


@cuda.jit
def _dx_cuda(dx, dy):
    """Equation (2); a thread has pixels of dx."""
    size = dx.dtype.type(dx.shape[2] * dx.shape[3])
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, c, p, q = unravel(k, dx.shape)
        dx[n, c, p, q] = dy[n, c, 0, 0] / size


def global_avgpool2d_forward(x: Array) -> Array:
    """Return y of equation (1), of shape (N, C, 1, 1), in the dtype of x.

    Raises TypeError for a dtype that is not float32 or float64, and ValueError for images
    without pixels.

    >>> global_avgpool2d_forward(np.array([[[[1.0, 2.0], [3.0, 6.0]]]]))
    array([[[[3.]]]])
    """
    x = floats("x", x, "(N, C, H, W)")
    N, C, H, W = nchw("the shape of x", x.shape, empty=False)
    y = empty((N, C, 1, 1), x.dtype, x)
    if on_cpu(x):
        fill(_y_cpu, N * C, y.reshape(-1), x.reshape(N * C, H * W))
    else:
        launch(_y_cuda, 32 * N * C, y.ravel(), x.reshape(N * C, H * W))
    return y


def global_avgpool2d_backward(dy: Array, input_shape: tuple[int, int, int, int]) -> Array:
    """Return dx of equation (2), of `input_shape` (N, C, H, W), in the dtype of dy.

    Raises ValueError if dy is not (N, C, 1, 1).

    >>> global_avgpool2d_backward(np.array([[[[8.0]]]]), (1, 1, 2, 2))
    array([[[[2., 2.],
             [2., 2.]]]])
    """
    dy = floats("dy", dy, "(N, C, 1, 1)")
    N, C, H, W = nchw("input_shape", input_shape, empty=False)
    same_shape("dy", dy, (N, C, 1, 1), "the shape of y for this input_shape")
    dx = empty((N, C, H, W), dy.dtype, dy)
    if on_cpu(dy):
        fill(_dx_cpu, N * C, dx.reshape(N * C, H * W), dy.reshape(-1))
    else:
        launch(_dx_cuda, dx.size, dx, dy)
    return dx


class GlobalAvgPool2d(Layer):
    """Global average pooling as a layer; it learns nothing."""

    def forward(self, x: Array) -> Array:
        y = global_avgpool2d_forward(x)
        self.input_shape = x.shape
        return y

    def backward(self, dy: Array) -> Array:
        return global_avgpool2d_backward(dy, self.remembered("input_shape"))
