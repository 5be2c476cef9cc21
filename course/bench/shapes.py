"""The convolutions that are measured: of LeNet-5, of small networks, of VGG and ResNet."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from course.shapes import out_size


@dataclass(frozen=True)
class Shape:
    """A convolution of square images and square windows; letters as in GLOSSARY.md."""

    N: int
    C: int
    H: int
    F: int
    K: int = 3
    S: int = 1
    P: int = 1
    D: int = 1
    G: int = 1

    @property
    def window(self) -> dict[str, int]:
        """Return the keywords of `conv2d_forward`."""
        return {"stride": self.S, "padding": self.P, "dilation": self.D, "groups": self.G}

    @property
    def HO(self) -> int:
        """Return the height, and width, of the output."""
        return out_size(self.H, self.K, self.S, self.P, self.D)

    @property
    def flops(self) -> int:
        """Return the sums and products of one pass: forward, dx and dw alike."""
        return 2 * self.N * self.F * self.HO**2 * (self.C // self.G) * self.K**2

    @property
    def bytes(self) -> int:
        """Return the least traffic of a float32 pass: x, w and y once."""
        sizes = (
            self.N * self.C * self.H**2,
            self.N * self.F * self.HO**2,
            self.F * self.C // self.G * self.K**2,
        )
        return 4 * sum(sizes)

    def arrays(self, dtype: Any = np.float32) -> tuple[np.ndarray, ...]:
        """Return x, w, b and dy: normal numbers, the same in every call."""
        rng = np.random.default_rng(0)
        sizes = (
            (self.N, self.C, self.H, self.H),
            (self.F, self.C // self.G, self.K, self.K),
            (self.F,),
            (self.N, self.F, self.HO, self.HO),
        )
        return tuple(rng.standard_normal(size, np.float32).astype(dtype) for size in sizes)


SHAPES = {
    "lenet1": Shape(128, 1, 28, 6, 5, P=2),
    "lenet2": Shape(128, 6, 14, 16, 5, P=0),
    "cifar1": Shape(64, 3, 32, 32),
    "cifar1b": Shape(64, 32, 32, 32),
    "cifar2": Shape(64, 32, 16, 64),
    "cifar2b": Shape(64, 64, 16, 64),
    "vgg56n1": Shape(1, 64, 56, 64),
    "vgg56n8": Shape(8, 64, 56, 64),
    "vgg14n1": Shape(1, 256, 14, 256),
    "vgg14n8": Shape(8, 256, 14, 256),
    "pw14n1": Shape(1, 256, 14, 64, 1, P=0),
    "pw14n8": Shape(8, 256, 14, 64, 1, P=0),
    "dw28n8": Shape(8, 128, 28, 128, G=128),
    "stem7s2": Shape(1, 3, 224, 64, 7, S=2, P=3),
    "res3s2": Shape(8, 64, 56, 128, S=2),
    "grp4": Shape(8, 64, 28, 64, G=4),
    "dil2": Shape(8, 64, 28, 64, P=2, D=2),
}
