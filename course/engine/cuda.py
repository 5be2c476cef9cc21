"""The GPU's matrix product and convolution, for course/layers/linear.py and conv2d.py.

Each function returns True if it has done the work, and False if it leaves the case to the
plain kernels: other dtypes than float32, products too small to fill a GPU, and
convolutions whose filters see a channel or two each, which have little to multiply.

The kernels are those of course/engine/cuda_tile.py, in float32, or, if one asks for them,
those of course/engine/tensor_core.py:

    with precision("tf32"):
        y = linear_forward(x, w, b)

Tensor cores round numbers to 10 bits behind the point before they multiply them; sums stay
float32. They are several times as fast, and a thousand times less exact.

Sums run in an order that the shapes alone decide: the same bits every run.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from course.cuda import CudaArray, native
from course.device import Array
from course.engine import cuda_conv
from course.engine.cuda_conv import Geometry
from course.engine.cuda_matmul import multiply
from course.shapes import Pads, Pair

FEW = 1 << 20  # products; below this the plain kernels are as fast
NARROW = 4  # channels and filters in a group
LARGE = 1 << 31  # elements; indices have 32 bits
LAYERS = 65535  # blocks of a grid along z
PRECISIONS = "float32", "tf32"
_precision = "float32"


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Within a `with`, multiply matrices in "float32" or on tensor cores in "tf32".

    Raises ValueError for another name. From compute capability 8.0 GPUs have tensor cores
    for TF32; on an older one a layer then raises RuntimeError.
    """
    global _precision
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, not {name!r}")
    before, _precision = _precision, name
    try:
        yield
    finally:
        _precision = before


def _tf32(like: CudaArray) -> bool:
    """Say whether tensor cores are wanted, or why they cannot be used."""
    if _precision == "tf32" and not like.simulated and native.capability() < (8, 0):
        raise RuntimeError(
            'precision("tf32") needs a GPU of compute capability 8.0 or more; this one '
            "has {}.{}".format(*native.capability())
        )
    return _precision == "tf32"


def _ours(products: int, *arrays: Array) -> bool:
    """Say whether the engine takes the case."""
    fits = all(a.size < LARGE for a in arrays)
    return fits and products >= max(1, FEW) and arrays[0].dtype == "float32"


def _convolves(
    target: CudaArray, x: CudaArray, w: CudaArray, stride: Pair, groups: int
) -> bool:
    """Say whether the engine takes a convolution; target is y or dy."""
    if groups > 1 and max(len(w) // groups, w.shape[1]) < NARROW:
        return False
    layers = groups * min(stride[0], x.shape[2]) * min(stride[1], x.shape[3])
    products = target.size * math.prod(w.shape[1:])
    return layers <= LAYERS and _ours(products, target, x, w)


def linear(
    y: CudaArray, x: CudaArray, w: CudaArray, b: CudaArray | None, *, relu: bool = False
) -> bool:
    """Compute y = x w^T + b, and what is below zero becomes zero if `relu`."""
    I = w.shape[1]
    if not _ours(y.size * I, y, x, w):
        return False
    multiply(y, x, (I, 1), w, (I, 1), I, b, relu, _tf32(y))
    return True


def linear_backward(
    dx: CudaArray | None, dw: CudaArray, dy: CudaArray, x: CudaArray, w: CudaArray
) -> bool:
    """Compute dx = dy w, if it is wanted, and dw = dy^T x."""
    O, I = w.shape
    if not _ours(dy.size * I, dy, x, w):
        return False
    if dx is not None:
        multiply(dx, dy, (O, 1), w, (1, I), O, tf32=_tf32(dy))
    multiply(dw, dy, (1, O), x, (1, I), len(x), tf32=_tf32(dy))
    return True


def conv2d(
    y: CudaArray,
    x: CudaArray,
    w: CudaArray,
    b: CudaArray | None,
    stride: Pair,
    frame: Pads,
    dilation: Pair,
    groups: int,
    *,
    relu: bool = False,
) -> bool:
    """Compute y, and what is below zero becomes zero if `relu`."""
    if not _convolves(y, x, w, stride, groups):
        return False
    g = Geometry(x.shape, w.shape, y.shape[2:], stride, frame, dilation, groups)
    cuda_conv.forward(y, x, w, b, g, relu, _tf32(y))
    return True


def conv2d_backward(
    dx: CudaArray | None,
    dw: CudaArray | None,
    dy: CudaArray,
    x: CudaArray,
    w: CudaArray,
    stride: Pair,
    frame: Pads,
    dilation: Pair,
    groups: int,
) -> bool:
    """Compute dx and dw, each if it is wanted."""
    if not _convolves(dy, x, w, stride, groups):
        return False
    g = Geometry(x.shape, w.shape, dy.shape[2:], stride, frame, dilation, groups)
    if dx is not None:
        cuda_conv.backward_x(dx, dy, w, g, _tf32(dy))
    if dw is not None:
        cuda_conv.backward_w(dw, dy, x, g, _tf32(dy))
    return True
