"""What every layer is: a forward that remembers, a backward that uses the memory."""

from collections.abc import Iterator
from math import prod, sqrt
from typing import Any, Self

import numpy as np

from course.device import Array


class Layer:
    """One step of a network.

    Attributes
    ----------
    params : name -> array, what the layer learns (empty for most layers)
    grads : the same names -> dLoss/dparam, each of its parameter's shape;
        filled by backward, read by the optimizer
    buffers : name -> array, what is saved with the layer but not learned by gradient
    training : True while the network learns; train() and eval() set it
    """

    training = True
    undecayed: tuple[str, ...] = ("bias",)  # parameters that weight decay leaves alone
    kept: tuple[str, ...] = ()  # attributes, whole numbers, that a checkpoint needs too

    def __new__(cls, *arguments: Any, **keywords: Any) -> Self:
        """Return the empty layer, which remembers in words how it was made."""
        layer = super().__new__(cls)
        told = [_told(value) for value in arguments]
        told += [
            f"{k}={_told(v)}" for k, v in keywords.items() if k not in ("rng", "dtype")
        ]
        layer._made = f"{cls.__name__}({', '.join(told)})"
        return layer

    def __repr__(self) -> str:
        """Return the call that made it, without its generator and dtype."""
        return self._made

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}

    def train(self) -> Self:
        """Say that the network learns from now on, and return the layer."""
        self.training = True
        return self

    def eval(self) -> Self:
        """Say that the network is only used from now on, and return the layer."""
        self.training = False
        return self

    def forward(self, x: Array) -> Array:
        """Return y, and keep on self whatever backward will need."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """Given dy = dLoss/dy, fill grads and return dx = dLoss/dx."""
        raise NotImplementedError

    def learn(self, dy: Array) -> None:
        """Given dy, fill grads: all that the first layer of a network has to do."""
        self.backward(dy)

    def __call__(self, x: Array) -> Array:
        """Return forward(x), as in PyTorch."""
        return self.forward(x)

    def leaves(self) -> Iterator[tuple[str, "Layer"]]:
        """Yield the layers it is made of, with their names: itself, without a name."""
        yield "", self

    def remembered(self, name: str) -> Array:
        """Return what forward kept under the name, or say that it has not run."""
        if name not in self.__dict__:
            raise RuntimeError(
                f"{type(self).__name__}.backward needs the x that forward saw: "
                "call forward first"
            )
        return self.__dict__[name]


def _told(value: Any) -> str:
    """Return the value as one writes it, or what it is, if that is long."""
    short = isinstance(value, int | float | str | tuple | np.number | None)
    return repr(value) if short else type(value).__name__


def he_normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return weights (outputs, inputs...) drawn from a normal of variance 2 / inputs.

    With it the outputs of a layer that follows a ReLU vary as much as the inputs did.
    Source: He, Zhang, Ren & Sun, ICCV 2015. Raises TypeError for a seed in place of rng.
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is {rng!r}; it must be a generator: np.random.default_rng(0)")
    return rng.normal(0.0, sqrt(2.0 / prod(shape[1:])), shape).astype(dtype)
