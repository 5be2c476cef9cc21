"""Networks made of layers: a chain, its weights, and the file they are kept in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from course.device import Array
from course.files import write_whole
from course.fused import fuse
from course.layers.base import Layer


class Sequential:
    """Layers one after the other.

    >>> from course.layers import Flatten, Linear
    >>> model = Sequential(Flatten(), Linear(4, 3, rng=np.random.default_rng(0)))
    >>> model.forward(np.zeros((2, 1, 2, 2), np.float32)).shape
    (2, 3)
    >>> sorted(model.params)
    ['1.bias', '1.weight']
    """

    def __init__(self, *layers: Layer):
        for position, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(
                    f"layer {position} is a {type(layer).__name__}, not a Layer; "
                    "write Sequential(a, b, c), not Sequential([a, b, c])"
                )
        self._layers = layers
        self._steps = fuse(layers)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the layers, first to last; another network is another Sequential."""
        return self._layers

    def __iter__(self) -> Iterator[Layer]:
        """Yield the layers, first to last."""
        return iter(self.layers)

    def forward(self, x: Array) -> Array:
        """Return what the last layer makes of x."""
        for step in self._steps:
            x = step.forward(x)
        return x

    def __call__(self, x: Array) -> Array:
        """Return forward(x), as in PyTorch."""
        return self.forward(x)

    def backward(self, dy: Array) -> Array:
        """Given dLoss/dy, fill the gradients of every layer and return dLoss/dx."""
        for step in reversed(self._steps):
            dy = step.backward(dy)
        return dy

    def learn(self, dy: Array) -> None:
        """Given dLoss/dy, fill the gradients of every layer, and compute no others.

        Training needs no dLoss/dx of the images: that is the dearest of all, as the first
        layer sees them at full size.
        """
        learners = [k for k, step in enumerate(self._steps) if step.params]
        for step in reversed(self._steps[min(learners, default=0) + 1 :]):
            dy = step.backward(dy)
        if learners:
            self._steps[learners[0]].learn(dy)

    def train(self) -> Self:
        """Say that the network learns from now on, and return it."""
        for layer in self.layers:
            layer.train()
        return self

    def eval(self) -> Self:
        """Say that the network is only used from now on, and return it."""
        for layer in self.layers:
            layer.eval()
        return self

    @property
    def params(self) -> dict[str, Array]:
        """Return every parameter under PyTorch's key, as "0.weight"."""
        return {
            f"{position}.{name}": array
            for position, layer in enumerate(self.layers)
            for name, array in layer.params.items()
        }

    @property
    def buffers(self) -> dict[str, Array]:
        """Return what is saved besides the parameters, as "1.running_mean"."""
        return {
            f"{position}.{name}": array
            for position, layer in enumerate(self.layers)
            for name, array in layer.buffers.items()
        }

    @property
    def grads(self) -> dict[str, Array]:
        """Return every gradient, under its parameter's key."""
        return {
            f"{position}.{name}": array
            for position, layer in enumerate(self.layers)
            for name, array in layer.grads.items()
        }

    def save(self, path: str | Path) -> None:
        """Write the weights as a safetensors file.

        The file is complete or it is the old one: whatever kills the process, it is never
        half written.
        """
        from safetensors.numpy import save

        write_whole(Path(path), save(self.params | self.buffers))

    def load(self, path: str | Path) -> None:
        """Read the weights that `save` wrote into this model's arrays.

        Raises ValueError, and changes nothing, if the file's names, shapes or dtypes are
        not those of this model.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            loaded = load(Path(path).read_bytes())
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from None
        mine = self.params | self.buffers
        if loaded.keys() != mine.keys():
            missing, extra = sorted(mine.keys() - loaded), sorted(loaded.keys() - mine)
            raise ValueError(
                f"{path} belongs to another model: it lacks {missing or 'nothing'} "
                f"and has {extra or 'nothing'} besides"
            )
        for name, array in mine.items():
            theirs = loaded[name]
            if (theirs.shape, theirs.dtype) != (array.shape, array.dtype):
                raise ValueError(
                    f"{name} is {theirs.shape} {theirs.dtype} in {path}, but "
                    f"{array.shape} {array.dtype} in this model"
                )
        for name, array in mine.items():
            array[...] = loaded[name]
