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

from course.device import Array, floats, same_shape
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


class ScaledTanh(Tanh):
    """1.7159 * tanh(2/3 * x), the squashing function of LeNet-5; it learns nothing."""

    def forward(self, x: Array) -> Array:
        return HEIGHT * super().forward(SLOPE * floats("x", x, "any"))

    def backward(self, dy: Array) -> Array:
        return HEIGHT * SLOPE * super().backward(dy)


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
        self.window = {"kernel_size": kernel_size, "stride": 1}
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
        w = np.zeros((*self.table.shape, *weight.shape[1:]), weight.dtype)
        w[self.table] = weight
        return w

    def forward(self, x: Array) -> Array:
        y = conv2d_forward(x, self._full(), self.params["bias"])
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        dx, dw, self.grads["bias"] = conv2d_backward(dy, self.remembered("x"), self._full())
        self.grads["weight"] = dw[self.table]
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
        x = floats("x", x, "(N, I)", templates.dtype)
        same_shape("x", x, (len(x), templates.shape[1]), "(N, I) for these templates")
        self.apart = x[:, None] - templates
        return -(self.apart**2).sum(axis=2)

    def backward(self, dy: Array) -> Array:
        apart = self.remembered("apart")
        dy = floats("dy", dy, "(N, classes)", apart.dtype)
        same_shape("dy", dy, apart.shape[:2], "the shape of y")
        return -2 * np.einsum("nk,nki->ni", dy, apart)
