"""Convolution, ReLU and max-pooling in one pass: what a Sequential does with such a run.

Each layer alone reads its whole input and writes its whole output, through memory that is
far slower than the sums. Here an image goes through all three while it is in the cache: the
sums of the convolution are cut at zero before they are written, and pooled before they are
forgotten. The numbers are those of the three layers one by one, bit for bit, and afterwards
each of them can go backward alone.

On a GPU the engine cuts the sums at zero, and the max-pool runs alone. What the engine
leaves to the plain kernels, the layers do one by one.
"""

import numpy as np

from course.device import Array, on_cpu
from course.engine import cpu
from course.layers import Conv2d, MaxPool2d, ReLU
from course.layers.base import Layer

QUARTERS = {"kernel_size": (2, 2), "stride": (2, 2), "dilation": (1, 1)}


class Fused:
    """A convolution, the ReLU after it, and the 2 x 2 max-pool after that, if any."""

    def __init__(self, conv: Conv2d, relu: ReLU, pool: MaxPool2d | None):
        self.conv, self.relu, self.pool = conv, relu, pool
        self.layers = [layer for layer in (conv, relu, pool) if layer is not None]
        self.params = conv.params
        self.pooled = False  # what the last forward did
        self.at = 0  # which of the layers it ran last, to be named in an error

    def forward(self, x: Array) -> Array:
        """Return what the layers make of x."""
        pool, self.at = self.pool, 0
        watched = any("forward" in vars(layer) for layer in self.layers)  # as in a trace
        both = None if watched else self.conv.forward_relu(x, pool is not None)
        self.pooled = both is not None and both[1] is not None
        if both is None:
            for k, layer in enumerate(self.layers):
                self.at = k
                x = layer.forward(x)
            return x
        y, z = both
        self.relu.x = y  # it is above zero where the sum was
        if pool is None:
            return y
        if z is None:
            self.at = 2
            return pool.forward(y)
        pool.see(y)
        return z

    def backward(self, dy: Array) -> Array:
        """Return dx, given dLoss/dy."""
        return self.conv.backward(self._to_the_sums(dy))

    def learn(self, dy: Array) -> None:
        """Fill the gradients of the convolution, given dLoss/dy."""
        self.conv.learn(self._to_the_sums(dy))

    def _to_the_sums(self, dy: Array) -> Array:
        """Return the gradient of the convolution's output."""
        y = self.relu.remembered("x")
        like = getattr(dy, "dtype", None), getattr(dy, "shape", None)
        if self.pooled and on_cpu(y) and like == (y.dtype, self.pool.output_shape):
            ds = np.empty_like(y)
            cpu.pool_relu_dx(ds, np.ascontiguousarray(dy), y)
            return ds
        if self.pool is not None:
            dy = self.pool.backward(dy)
        return self.relu.backward(dy)


def fuse(layers: tuple[Layer, ...]) -> list[Layer | Fused]:
    """Return the layers with every run of convolution, ReLU (and max-pool) as one step."""
    steps: list[Layer | Fused] = []
    k = 0
    while k < len(layers):
        kinds = [type(layer) for layer in layers[k : k + 3]]  # not a student's own subclass
        if kinds[:2] != [Conv2d, ReLU]:
            steps.append(layers[k])
            k += 1
            continue
        pool = (
            layers[k + 2] if kinds[2:] == [MaxPool2d] and _quarters(layers[k + 2]) else None
        )
        steps.append(Fused(layers[k], layers[k + 1], pool))
        k += 2 if pool is None else 3
    return steps


def _quarters(pool: MaxPool2d) -> bool:
    """Say whether the layer keeps one of every 2 x 2 pixels, and looks at nothing else."""
    plain = pool.window["padding"] in (0, (0, 0), "valid", ((0, 0), (0, 0)))
    return plain and not pool.ceil_mode and QUARTERS.items() <= pool.window.items()
