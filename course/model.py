"""Networks made of layers: chains, sums and branches, their weights, and their files."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from course.cuda import CudaArray
from course.device import Array, assign, host
from course.files import write_whole
from course.fused import Fused, fuse
from course.layers import (
    concat_backward,
    concat_forward,
    residual_sum_backward,
    residual_sum_forward,
)
from course.layers.base import Layer
from course.state_files import read_state
from course.summary import Summary, summary


class Seen(NamedTuple):
    """One step of a trace: what a layer was given, and what it made of it.

    Attributes
    ----------
    name : the layer's full name, as "layer1.0.conv1"
    layer : the layer; where a Residual adds or Branches concatenate, that container
    x : the array it was given; several, if arrays meet there
    y : the array it made
    """

    name: str
    layer: Layer
    x: Array | Sequence[Array]
    y: Array


class Container(Layer):
    """A layer made of layers, each under a name; the names become PyTorch's keys.

    Attributes
    ----------
    children : name -> layer, in the order in which they were given
    input_shape : the shape of one image, as (3, 32, 32), if the network says for which
    """

    input_shape: tuple[int, ...] | None = None
    _shared: tuple[str, str] | None = None  # two names of one layer

    def __init__(self, children: Mapping[str, Layer]):
        for name, layer in children.items():
            if not isinstance(layer, Layer):
                raise TypeError(
                    f"layer {name} is a {type(layer).__name__}, not a Layer; write "
                    f"{type(self).__name__}(a, b, c), not {type(self).__name__}([a, b, c])"
                )
        self.children = dict(children)
        names: dict[int, str] = {}
        for name, leaf in self.leaves():
            if names.setdefault(id(leaf), name) != name:
                self._shared = names[id(leaf)], name

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the children, first to last; another network is another container."""
        return tuple(self.children.values())

    def __iter__(self) -> Iterator[Layer]:
        """Yield the children, first to last."""
        return iter(self.layers)

    def leaves(self) -> Iterator[tuple[str, Layer]]:
        """Yield each layer that holds no others, with its full name: "layer1.0.conv1"."""
        for name, child in self.children.items():
            for rest, leaf in child.leaves():
                yield f"{name}.{rest}".rstrip("."), leaf

    def trace(self, *x: Array) -> list[Seen]:
        """Run the network on x and return what every leaf saw and made, in that order.

        Layers run one by one, none fused, in the mode they are in (train or eval). The sum
        of a Residual and the concatenation of Branches are steps of their own, under the
        name of the block; a layer that is used twice appears twice, under both its names.
        Which y is whose x shows in the arrays: they are the same objects. Afterwards the
        network is what it was, its statistics, masks and memories, also if a layer raised.
        """
        seen: list[Seen] = []
        names: dict[int, list[str]] = {}

        def watched(layer: Layer, run: Callable) -> Callable:
            mine, times = names[id(layer)], iter(range(10**9))

            def running(x: Any) -> Any:
                y = run(x)
                seen.append(Seen(mine[min(next(times), len(mine) - 1)], layer, x, y))
                return y

            return running

        with self.unchanged():
            for name, layer in self._members():
                names.setdefault(id(layer), []).append(name)
                if len(names[id(layer)]) > 1:
                    continue
                if not isinstance(layer, Container):
                    layer.forward = watched(layer, layer.forward)
                elif hasattr(layer, "join"):
                    layer.join = watched(layer, layer.join)
            self.forward(*x)
        return seen

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Leave the network as it was when the `with` began, whatever happens in it.

        That is everything but the numbers of parameters and gradients: the mode, the
        buffers, what the layers remember, how many masks were drawn.
        """
        kept = []
        for layer in {id(layer): layer for _, layer in self._members()}.values():
            buffers = vars(layer).get("buffers", {})  # a container's are its children's
            numbers = {name: array.copy() for name, array in buffers.items()}
            kept.append((layer, vars(layer).copy(), buffers.copy(), numbers))
        try:
            yield
        finally:
            for layer, before, buffers, numbers in kept:
                vars(layer).clear()
                vars(layer).update(before)
                for name, array in buffers.items():
                    assign(array, numbers[name])
                    layer.buffers[name] = array

    def _members(self) -> Iterator[tuple[str, Layer]]:
        yield "", self
        for name, child in self.children.items():
            for rest, layer in child._members():
                yield f"{name}.{rest}".rstrip("."), layer

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

    def _can_go_back(self) -> None:
        """Raise RuntimeError if a layer is at two places: it remembers its last x only."""
        if self._shared is not None:
            raise RuntimeError(
                "{} and {} are one layer, which remembers only the last x that it saw: "
                "to go backward, give each place a layer of its own".format(*self._shared)
            )

    def state_dict(self) -> dict[str, Array]:
        """Return parameters and buffers under PyTorch's keys: the arrays, not copies."""
        return self.params | self.buffers

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy arrays, or PyTorch's CPU tensors, under PyTorch's keys into this network.

        The network stays on its device; the arrays may be on any.
        Floats of another type are rounded to that of the parameter: float64 to float32,
        and bfloat16 is widened. `num_batches_tracked`, which old files lack, may be absent.
        Raises ValueError, and changes nothing, if names, shapes or kinds of number are not
        those of this network, or a number is too large for its type.
        """
        self._take(state, "the state dict")

    def _take(self, state: Mapping[str, Any], source: str | Path) -> None:
        """Do so, for a state that came from a source with this name."""
        if not isinstance(state, Mapping):
            raise TypeError(
                f"{source} is a {type(state).__name__}; it must map names to arrays, as "
                "model.state_dict() does"
            )
        mine, counts = self.state_dict(), "num_batches_tracked"
        missing = [k for k in mine if k not in state and not k.endswith(counts)]
        extra = [k for k in state if k not in mine and not str(k).endswith(counts)]
        if missing or extra:
            raise ValueError(
                f"{source} belongs to another model: it lacks {_some(missing)} "
                f"and has {_some(extra)} besides"
            )
        theirs = {
            k: _as_array(k, state[k], a, source) for k, a in mine.items() if k in state
        }
        for name, array in theirs.items():
            assign(mine[name], array)

    def save(self, path: str | Path) -> None:
        """Write the weights as a safetensors file, the same wherever the network is.

        The file is complete or it is the old one: whatever kills the process, it is never
        half written.
        """
        from safetensors.numpy import save

        state = {name: host(array) for name, array in self.state_dict().items()}
        write_whole(Path(path), save(state))

    def load(self, path: str | Path) -> None:
        """Read weights into this model's arrays: what `save` wrote, or PyTorch's .pth.

        Raises as `read_state` and `load_state_dict` do, and then changes nothing.
        """
        self._take(read_state(path), path)

    def summary(self, input_shape: tuple[int, ...] | None = None) -> Summary:
        """Return the table of the layers for one image, and print it in a script.

        The shape has no batch, as (3, 32, 32); `course.summary` says what the columns mean.
        A notebook shows the value of a cell, so there nothing is printed.
        """
        table = summary(self, input_shape)
        if not hasattr(sys, "ps1"):  # nobody shows what the line is worth
            print(table)
        return table

    def __repr__(self) -> str:
        """Return the layers, one a line, as PyTorch does."""
        lines = [f"({name}): {child!r}" for name, child in self.children.items()]
        inner = "".join(f"\n  {line}" for line in "\n".join(lines).splitlines())
        return f"{type(self).__name__}({inner}\n)" if lines else f"{type(self).__name__}()"


def _run(name: str, layer: Layer, x: Array) -> Array:
    """Return what the layer makes of x; an error says that this layer raised it."""
    try:
        return layer.forward(x)
    except (TypeError, ValueError) as error:
        _say_where(error, name)
        raise


def _say_where(error: Exception, name: str) -> None:
    """Put the name of a layer in front of an error, as in "layer1.0.conv1: ..."."""
    inside = getattr(error, "layer", "")
    said = str(error).removeprefix(f"{inside}: ")
    error.layer = f"{name}.{inside}".rstrip(".")
    error.args = (f"{error.layer}: {said}",)


def _some(names: list) -> str:
    """Return at most five of the names, and how many more there are."""
    if not names:
        return "nothing"
    more = f" and {len(names) - 5} more" * (len(names) > 5)
    return ", ".join(map(str, sorted(names, key=str)[:5])) + more


def _as_array(name: str, value: Any, mine: Array, source: str | Path) -> Array:
    """Return the value, an array or a tensor, in the shape and the type of `mine`."""
    if hasattr(value, "detach"):  # PyTorch's tensor
        value = value.detach()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    their = np.asarray(host(value) if isinstance(value, CudaArray) else value)
    words = (
        f"{name} is {their.shape} {their.dtype} in {source}, but {mine.shape} {mine.dtype}"
    )
    both_float = their.dtype.kind == mine.dtype.kind == "f"
    if their.shape != mine.shape or (their.dtype != mine.dtype and not both_float):
        raise ValueError(f"{words} in this model")
    with np.errstate(over="ignore"):
        array = their.astype(mine.dtype, copy=False)
    if array is not their and not np.array_equal(np.isinf(array), np.isinf(their)):
        raise ValueError(
            f"{name} in {source} has numbers that are too large for {mine.dtype}"
        )
    return array


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
        """Return what the last layer makes of x. An error says which layer raised it."""
        done = 0
        for step in self._steps:
            try:
                x = step.forward(x)
            except (TypeError, ValueError) as error:
                at = done + (step.at if isinstance(step, Fused) else 0)
                _say_where(error, list(self.children)[at])
                raise
            done += len(step.layers) if isinstance(step, Fused) else 1
        return x

    def backward(self, dy: Array) -> Array:
        """Given dLoss/dy, fill the gradients of every layer and return dLoss/dx."""
        self._can_go_back()
        for step in reversed(self._steps):
            dy = step.backward(dy)
        return dy

    def learn(self, dy: Array) -> None:
        """Given dLoss/dy, fill the gradients of every layer, and compute no others.

        Training needs no dLoss/dx of the images: that is the dearest of all, as the first
        layer sees them at full size.
        """
        self._can_go_back()
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
        around = {k: layer for k, layer in around.items() if layer is not None}
        if twice := body.children.keys() & around:
            raise ValueError(f"the body has a layer {twice.pop()} already; say name=...")
        super().__init__(body.children | around)
        self.body, self.shortcut, self.after, self.name = body, shortcut, after, name

    def forward(self, x: Array) -> Array:
        """Return after(body(x) + shortcut(x)). An error says which layer raised it."""
        round_it = x if self.shortcut is None else _run(self.name, self.shortcut, x)
        y = self.join((self.body.forward(x), round_it))
        return y if self.after is None else _run("after", self.after, y)

    def join(self, parts: Sequence[Array]) -> Array:
        """Return the sum of what the body made and what went round it."""
        a, b = parts
        if a.shape != b.shape:
            raise ValueError(
                f"the body makes {a.shape}, but what goes round it is {b.shape}: they are "
                "added, so give a shortcut that changes the shape as the body does"
            )
        return residual_sum_forward(a, b)

    def backward(self, dy: Array) -> Array:
        self._can_go_back()
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
        """Return what all make of x, joined. An error says which layer raised it."""
        return self.join([_run(k, branch, x) for k, branch in self.children.items()])

    def join(self, parts: Sequence[Array]) -> Array:
        """Return what the branches made, one after the other along the channels."""
        (one, head), *others = zip(self.children, parts, strict=True)
        for name, part in others:
            if part.shape[:1] + part.shape[2:] != head.shape[:1] + head.shape[2:]:
                raise ValueError(
                    f"branch {one} makes {head.shape}, but branch {name} makes "
                    f"{part.shape}: they may differ in channels only"
                )
        y = concat_forward(parts)
        self.channels = [part.shape[1] for part in parts]
        return y

    def backward(self, dy: Array) -> Array:
        self._can_go_back()
        parts = concat_backward(dy, self.remembered("channels"))
        dx = None
        for branch, part in zip(reversed(self.layers), reversed(parts), strict=True):
            more = branch.backward(part)
            dx = more if dx is None else residual_sum_forward(dx, more)
        return dx
