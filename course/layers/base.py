"""What every layer is: a forward that remembers, a backward that uses the memory."""

from collections.abc import Iterator
from math import prod, sqrt
from typing import Any, Self

import numpy as np

from course.device import Array, device_of, to


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

    def to(self, device: str) -> Self:
        """Move all arrays of the layer to "cpu" or "cuda", and return the layer.

        Those are parameters, gradients, buffers, and what forward remembered. Whole numbers
        without axes stay on the CPU. An optimizer's memory follows at its next step. Raises
        as `course.device.to` does; then nothing has moved.
        """
        to(device, np.zeros(1))  # raises, even for a layer without arrays
        moved: dict[int, Array] = {}
        found = []
        for _, layer in self._members():
            for holder in [vars(layer), *vars(layer).values()]:
                if isinstance(holder, dict):
                    new = {
                        key: _moved(value, device, moved) for key, value in holder.items()
                    }
                    found.append((holder, new))
        for holder, new in found:
            holder.update(new)
        return self

    @property
    def device(self) -> str:
        """Return "cpu" or "cuda": where the parameters and buffers are."""
        arrays = filter(_moves, (*self.params.values(), *self.buffers.values()))
        return device_of(next(arrays, np.empty(0)))

    def leaves(self) -> Iterator[tuple[str, "Layer"]]:
        """Yield the layers it is made of, with their names: itself, without a name."""
        yield "", self

    def _members(self) -> Iterator[tuple[str, "Layer"]]:
        """Yield itself, without a name, and all layers that are in it, with full names."""
        yield "", self

    def remembered(self, name: str) -> Array:
        """Return what forward kept under the name, or say that it has not run."""
        if name not in self.__dict__:
            raise RuntimeError(
                f"{type(self).__name__}.backward needs the x that forward saw: "
                "call forward first"
            )
        return self.__dict__[name]


def _moves(value: Any) -> bool:
    """Say whether the value is an array that goes where its layer goes."""
    return isinstance(value, Array) and (value.ndim > 0 or value.dtype.kind == "f")


def _moved(value: Any, device: str, moved: dict[int, Array]) -> Any:
    """Return the value with its arrays on the device; `moved` has those that are there."""
    if _moves(value):
        if id(value) not in moved:
            moved[id(value)] = to(device, value)
        return moved[id(value)]
    if type(value) in (list, tuple):
        return type(value)(_moved(one, device, moved) for one in value)
    return value


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
