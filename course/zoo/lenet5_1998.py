"""LeNet-5 as it was published: exactly 60 000 numbers are learned.

Layers of lenet5_1998, for images of 1 x 28 x 28, and how many numbers each learns

    c1        conv 5x5, 6 filters, padding 2             6 x 28 x 28       156
    s2        sub-sampling 2x2                           6 x 14 x 14        12
    c3        conv 5x5, 16 filters, chosen channels     16 x 10 x 10     1 516
    s4        sub-sampling 2x2                          16 x 5 x 5          32
    c5        conv 5x5, 120 filters                    120 x 1 x 1      48 120
    f6        linear 120 -> 84                          84              10 164
    output    distance from 10 bitmaps                  10
                                                                        60 000

Every layer but the last is followed by 1.7159 * tanh(2/3 * x). A filter of c3 sees the
channels that table I of the paper gives it. The output has a fixed bitmap of 7 x 12 pixels,
-1 or 1, for each digit: s = -|x - bitmap|^2, so the nearest bitmap has the largest score,
and softmax cross-entropy is the paper's equation (9) without its constant for rubbish.

What differs: images are framed with zeros by c1, as a field of 32 x 32 would be; the digits
of the bitmaps are our own drawing, as the paper prints its own too small to copy; weights
start as in every layer here, and any optimizer trains them. Distances are large numbers,
up to 84 * 2.7^2: a learning rate that suits other networks is thirty times too high here.

Lecture: lectures/15_architectures.ipynb.
Source: LeCun, Bottou, Bengio & Haffner, Proc. IEEE 86 (1998), section II.B and table I;
the constants of the tanh: appendix A.
"""

from typing import Any

import numpy as np

from course import cuda
from course.cuda import unravel
from course.device import Array, empty, empty_like, floats, launch, on_cpu, same_shape
from course.layers import (
    Conv2d,
    Flatten,
    Linear,
    Subsampling2d,
    Tanh,
    conv2d_backward,
    conv2d_forward,
)
from course.layers.base import Layer, he_normal
from course.model import Sequential
from course.zoo.base import fresh, sees

TABLE = """
    X...XXX..XXXX.XX
    XX...XXX..XXXX.X
    XXX...XXX..X.XXX
    .XXX..XXXX..X.XX
    ..XXX..XXXX.XX.X
    ...XXX..XXXX.XXX
"""  # row: a channel of s2; column: a filter of c3
DIGITS = """
    .#####. ...##.. .#####. .#####. ....##. ####### .#####. ####### .#####. .#####.
    ##...## ..###.. ##...## ##...## ...###. ##..... ##...## .....## ##...## ##...##
    ##...## .####.. .....## .....## ...###. ##..... ##..... .....## ##...## ##...##
    ##...## ...##.. .....## .....## ..####. ##..... ##..... ....##. ##...## ##...##
    ##...## ...##.. .....## .....## ..#.##. ######. ##..... ....##. ##...## ##...##
    ##...## ...##.. ....##. ..####. .##.##. .....## ######. ...##.. .#####. .######
    ##...## ...##.. ...##.. .....## .#..##. .....## ##...## ...##.. ##...## .....##
    ##...## ...##.. ..##... .....## ##..##. .....## ##...## ..##... ##...## .....##
    ##...## ...##.. .##.... .....## ####### .....## ##...## ..##... ##...## .....##
    ##...## ...##.. ##..... .....## ....##. .....## ##...## .##.... ##...## .....##
    ##...## ...##.. ##..... ##...## ....##. ##...## ##...## .##.... ##...## ##...##
    .#####. .###### ####### .#####. ....##. .#####. .#####. ##..... .#####. .#####.
"""
HEIGHT, SLOPE = 1.7159, 2 / 3  # so that a unit gives 1 for 1


@sees(1, 28, 28)
def lenet5_1998(
    classes: int = 10, *, rng: np.random.Generator | None = None, dtype: Any = np.float32
) -> Sequential:
    """Return the LeNet-5 of 1998 with fresh weights for 28 x 28 images of one channel.

    Where there are not ten classes, their bitmaps are drawn at random, each pixel -1 or 1.
    """
    new = fresh(rng, dtype)
    squash = (ScaledTanh() for _ in range(6))
    return Sequential(
        c1=Conv2d(1, 6, 5, padding=2, **new),
        squash1=next(squash),
        s2=Subsampling2d(6, dtype=dtype),
        squash2=next(squash),
        c3=ChosenConv2d(connections(), 5, **new),
        squash3=next(squash),
        s4=Subsampling2d(16, dtype=dtype),
        squash4=next(squash),
        c5=Conv2d(16, 120, 5, **new),
        squash5=next(squash),
        flatten=Flatten(),
        f6=Linear(120, 84, **new),
        squash6=next(squash),
        output=Distance(
            bitmaps() if classes == 10 else new["rng"].choice([-1.0, 1.0], (classes, 84)),
            dtype=dtype,
        ),
    )


def connections() -> np.ndarray:
    """Return which filter of c3 (16) sees which channel of s2 (6), as bool (16, 6)."""
    return np.array([[mark == "X" for mark in row] for row in TABLE.split()]).T


def bitmaps() -> np.ndarray:
    """Return the bitmaps of the ten digits, -1 and 1, as (10, 84)."""
    pixels = np.array([[mark == "#" for mark in row] for row in DIGITS.split()])
    digits = pixels.reshape(12, 10, 7).swapaxes(0, 1).reshape(10, 84)
    return np.where(digits, 1.0, -1.0)


@cuda.jit
def _y_cuda_times(y, x, factor):
    """Write the multiple of x; a thread has elements."""
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = factor * x[k]


@cuda.jit
def _w_cuda_full(w, weight, window):
    """Write the filters, with zeros where they see nothing; a thread has taps of w."""
    for k in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        f, c, u, v = unravel(k, w.shape)
        if window[f, c] < 0:
            w[f, c, u, v] = 0
        else:
            w[f, c, u, v] = weight[window[f, c], u, v]


@cuda.jit
def _dweight_cuda(dweight, dw, window):
    """Pick the gradients of the chosen windows; a thread has taps of dw."""
    for k in range(cuda.grid(1), dw.size, cuda.gridsize(1)):
        f, c, u, v = unravel(k, dw.shape)
        if window[f, c] >= 0:
            dweight[window[f, c], u, v] = dw[f, c, u, v]


@cuda.jit
def _y_cuda_distance(y, x, templates):
    """Write minus the squared distances; a thread has elements of y."""
    classes, I = templates.shape
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, j = k // classes, k % classes
        total = y.dtype.type(0)
        for i in range(I):
            apart = x[n, i] - templates[j, i]
            total -= apart * apart
        y[n, j] = total


@cuda.jit
def _dx_cuda_distance(dx, dy, x, templates):
    """Write the gradient of the distances; a thread has elements of dx."""
    classes, I = templates.shape
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, i = k // I, k % I
        total = dx.dtype.type(0)
        for j in range(classes):
            twice = x[n, i] - templates[j, i]
            total -= dy[n, j] * (twice + twice)
        dx[n, i] = total


def _times(factor: float, x: Array) -> Array:
    """Return the multiple of the array, where it is."""
    if on_cpu(x):
        return factor * x
    y = empty_like(x)
    launch(_y_cuda_times, x.size, y.ravel(), x.ravel(), x.dtype.type(factor))
    return y


class ScaledTanh(Tanh):
    """1.7159 * tanh(2/3 * x), the squashing function of LeNet-5; it learns nothing."""

    def forward(self, x: Array) -> Array:
        return _times(HEIGHT, super().forward(_times(SLOPE, floats("x", x, "any"))))

    def backward(self, dy: Array) -> Array:
        return _times(HEIGHT * SLOPE, super().backward(dy))


class ChosenConv2d(Layer):
    """A convolution whose filters see chosen channels only.

    `table` (F, C) says which. The parameters are weight (connections, KH, KW), one window
    for each True of the table, row by row, and bias (F,). weight starts normal with
    variance 2 / taps of its filter.
    """

    def __init__(
        self,
        table: np.ndarray,
        kernel_size: int,
        *,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ):
        super().__init__()
        self.table = np.asarray(table, bool)
        number = np.cumsum(self.table).reshape(self.table.shape) - 1
        self.windows = np.where(self.table, number, -1).astype(np.int32)  # which, for each
        seen = self.table.sum(axis=1)  # channels, by each filter
        weight = he_normal(rng, (seen.sum(), kernel_size, kernel_size), np.float64)
        spread = np.sqrt(np.repeat(seen, seen))[:, None, None]
        # he_normal has divided by the taps of one window
        self.params["weight"] = (weight / spread).astype(dtype)
        self.params["bias"] = np.zeros(len(self.table), dtype)
        self.window = {"kernel_size": weight.shape[1:], "stride": (1, 1)}

    def _full(self) -> Array:
        """Return the filters (F, C, KH, KW), with zeros where they see nothing."""
        weight = self.params["weight"]
        w = empty((*self.table.shape, *weight.shape[1:]), weight.dtype, weight)
        if not on_cpu(weight):
            launch(_w_cuda_full, w.size, w, weight, self.windows)
            return w
        w[...] = 0
        w[self.table] = weight
        return w

    def forward(self, x: Array) -> Array:
        y = conv2d_forward(x, self._full(), self.params["bias"])
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        dx, dw, self.grads["bias"] = conv2d_backward(dy, self.remembered("x"), self._full())
        if on_cpu(dw):
            self.grads["weight"] = dw[self.table]
        else:
            self.grads["weight"] = empty_like(self.params["weight"])
            launch(_dweight_cuda, dw.size, self.grads["weight"], dw, self.windows)
        return dx


class Distance(Layer):
    """Minus the squared distance of x (N, I) from fixed templates (classes, I).

    The templates are a buffer: they are saved with the network, and never learned.
    """

    def __init__(self, templates: np.ndarray, *, dtype: Any = np.float32):
        super().__init__()
        self.buffers["templates"] = np.asarray(templates, dtype)

    def forward(self, x: Array) -> Array:
        templates = self.buffers["templates"]
        x = floats("x", x, "(N, I)", templates)
        same_shape("x", x, (len(x), templates.shape[1]), "(N, I) for these templates")
        self.x = x
        if on_cpu(x):
            return -((x[:, None] - templates) ** 2).sum(axis=2)
        y = empty((len(x), len(templates)), x.dtype, x)
        launch(_y_cuda_distance, y.size, y, x, templates)
        return y

    def backward(self, dy: Array) -> Array:
        x, templates = self.remembered("x"), self.buffers["templates"]
        dy = floats("dy", dy, "(N, classes)", x)
        same_shape("dy", dy, (len(x), len(templates)), "the shape of y")
        if on_cpu(x):
            return -2 * np.einsum("nk,nki->ni", dy, x[:, None] - templates)
        dx = empty_like(x)
        launch(_dx_cuda_distance, dx.size, dx, dy, x, templates)
        return dx
