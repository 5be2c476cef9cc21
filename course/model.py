"""Networks made of layers: chains, sums and branches, their weights, and their files."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from course.device import Array
from course.files import write_whole
from course.fused import fuse
from course.layers import concat_backward, concat_forward
from course.layers import residual_sum_backward, residual_sum_forward
from course.layers.base import Layer


class Container(Layer):
    """A layer made of layers, each under a name; the names become PyTorch's keys.

    Attributes
    ----------
    children : name -> layer, in the order in which they were given
    """

    def __init__(self, children: Mapping[str, Layer]):
        for name, layer in children.items():
            if not isinstance(layer, Layer):
                raise TypeError(
                    f"layer {name} is a {type(layer).__name__}, not a Layer; write "
                    f"{type(self).__name__}(a, b, c), not {type(self).__name__}([a, b, c])"
                )
        self.children = dict(children)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the children, first to last; another network is another container."""
        return tuple(self.children.values())

    def __iter__(self) -> Iterator[Layer]:
        """Yield the children, first to last."""
        return iter(self.layers)

    def leaves(self) -> Iterator[tuple[str, Layer]]:
        """Yield every layer that holds no others, with its full name, as "layer1.0.conv1"."""
        for name, child in self.children.items():
            for rest, leaf in child.leaves():
                yield f"{name}.{rest}".rstrip("."), leaf

    def train(self) -> Self:
        for child in self:
            child.train()
        return super().train()

    def eval(self) -> Self:
        for child in self:
            child.eval()
        return super().eval()

    @property
    def params(self) -> dict[str, Array]:
        """Return every parameter under PyTorch's key, as "0.weight"."""
        return self._named("params")

    @property
    def buffers(self) -> dict[str, Array]:
        """Return what is saved besides the parameters, as "1.running_mean"."""
        return self._named("buffers")

    @property
    def grads(self) -> dict[str, Array]:
        """Return every gradient, under its parameter's key."""
        return self._named("grads")

    def _named(self, what: str) -> dict[str, Array]:
        """Return one of the dicts of all children as one dict."""
        return {
            f"{name}.{key}": array
            for name, child in self.children.items()
            for key, array in getattr(child, what).items()
        }

    def state_dict(self) -> dict[str, Array]:
        """Return parameters and buffers under PyTorch's keys: the arrays, not copies."""
        return self.params | self.buffers

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy arrays (or CPU tensors) under PyTorch's keys into this network.

        PyTorch's `num_batches_tracked` is passed over. Raises ValueError, and changes
        nothing, if the names or shapes are not those of this network.
        """
        self._take(state, "the state dict")

    def _take(self, state: Mapping[str, Any], source: str | Path) -> None:
        """Do so, for a state that came from a source with this name."""
        theirs = {
            name: np.asarray(array)
            for name, array in state.items()
            if not name.endswith("num_batches_tracked")
        }
        mine = self.state_dict()
        if theirs.keys() != mine.keys():
            missing, extra = sorted(mine.keys() - theirs), sorted(theirs.keys() - mine)
            raise ValueError(
                f"{source} belongs to another model: it lacks {missing or 'nothing'} "
                f"and has {extra or 'nothing'} besides"
            )
        for name, array in mine.items():
            their = theirs[name]
            if (their.shape, their.dtype) != (array.shape, array.dtype):
                raise ValueError(
                    f"{name} is {their.shape} {their.dtype} in {source}, but "
                    f"{array.shape} {array.dtype} in this model"
                )
        for name, array in mine.items():
            array[...] = theirs[name]

    def save(self, path: str | Path) -> None:
        """Write the weights as a safetensors file.

        The file is complete or it is the old one: whatever kills the process, it is never
        half written.
        """
        from safetensors.numpy import save

        write_whole(Path(path), save(self.state_dict()))

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
        self._take(loaded, path)


class Sequential(Container):
    """Layers one after the other.

    They are called "0", "1", ... or, given as keywords, by their keywords.

    >>> from course.layers import Flatten, Linear
    >>> model = Sequential(Flatten(), Linear(4, 3, rng=np.random.default_rng(0)))
    >>> model.forward(np.zeros((2, 1, 2, 2), np.float32)).shape
    (2, 3)
    >>> sorted(model.params)
    ['1.bias', '1.weight']
    >>> list(Sequential(fc=Linear(4, 3, rng=np.random.default_rng(0))).params)
    ['fc.weight', 'fc.bias']
    """

    def __init__(self, *layers: Layer, **named: Layer):
        super().__init__({str(k): layer for k, layer in enumerate(layers)} | named)
        self._steps = fuse(self.layers)

    def forward(self, x: Array) -> Array:
        """Return what the last layer makes of x."""
        for step in self._steps:
            x = step.forward(x)
        return x

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


class Residual(Container):
    """What a chain of layers computed is added to what went round it: body(x) + x.

    With `shortcut`, a layer, body(x) + shortcut(x): where the body changes the shape, the
    shortcut has to change it, too. With `after`, a layer such as ReLU(), that of the sum.
    The keys are those of the usual ResNet code: the body's layers under their own names,
    those of the shortcut under `name`.

    Source: He, Zhang, Ren & Sun, CVPR 2016, equations (1) and (2) there.

    >>> from course.layers import ReLU
    >>> Residual(Sequential(ReLU())).forward(np.array([[-1.0, 2.0]]))
    array([[-1.,  4.]])
    """

    def __init__(
        self,
        body: Sequential,
        shortcut: Layer | None = None,
        after: Layer | None = None,
        *,
        name: str = "shortcut",
    ):
        if not isinstance(body, Sequential):
            raise TypeError(f"body is a {type(body).__name__}; it must be a Sequential")
        around = {name: shortcut, "after": after}
        super().__init__(
            body.children | {k: layer for k, layer in around.items() if layer is not None}
        )
        self.body, self.shortcut, self.after = body, shortcut, after

    def forward(self, x: Array) -> Array:
        round_it = x if self.shortcut is None else self.shortcut.forward(x)
        y = residual_sum_forward(self.body.forward(x), round_it)
        return y if self.after is None else self.after.forward(y)

    def backward(self, dy: Array) -> Array:
        if self.after is not None:
            dy = self.after.backward(dy)
        through, round_it = residual_sum_backward(dy)
        if self.shortcut is not None:
            round_it = self.shortcut.backward(round_it)
        return residual_sum_forward(self.body.backward(through), round_it)


class Branches(Container):
    """Several layers that all see x; what they make is joined along the channels.

    They are called "0", "1", ... or, given as keywords, by their keywords. The gradient of
    x is the sum of theirs, from the last branch to the first.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, figure 2.

    >>> from course.layers import ReLU
    >>> Branches(Sequential(), ReLU()).forward(np.array([[-1.0, 2.0]]))
    array([[-1.,  2.,  0.,  2.]])
    """

    def __init__(self, *branches: Layer, **named: Layer):
        super().__init__({str(k): layer for k, layer in enumerate(branches)} | named)
        if not self.children:
            raise ValueError("there must be at least one branch")

    def forward(self, x: Array) -> Array:
        parts = [branch.forward(x) for branch in self]
        y = concat_forward(parts)
        self.channels = [part.shape[1] for part in parts]
        return y

    def backward(self, dy: Array) -> Array:
        parts = concat_backward(dy, self.remembered("channels"))
        dx = None
        for branch, part in zip(reversed(self.layers), reversed(parts), strict=True):
            more = branch.backward(part)
            dx = more if dx is None else residual_sum_forward(dx, more)
        return dx
