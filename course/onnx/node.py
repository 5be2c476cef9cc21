"""One node of an ONNX file, and a layer of several inputs."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from course.device import FLOATS, Array
from course.layers.base import Layer


class Node:
    """One node of the file: its operator, attributes and inputs, asked for by name.

    Attributes
    ----------
    op, opset : the operator, and the operator set that says what it means
    inputs, outputs : names of values; an empty one is left out, and those at the end
    constants : the inputs whose arrays are in the file, by place
    own : the places of those that no other node uses
    ranks : how many axes each input has, where that is known
    names : the keys of the layer's parameters -> names of the file
    """

    def __init__(
        self,
        op: str,
        opset: int,
        attributes: dict[str, Any],
        inputs: Sequence[str],
        outputs: Sequence[str],
        constants: dict[int, Array],
        own: set[int],
        ranks: Sequence[int | None],
    ):
        self.op, self.opset, self.attributes = op, opset, dict(attributes)
        self.inputs, self.outputs = _without_end(inputs), _without_end(outputs)
        self.constants, self.own, self.ranks = constants, own, ranks
        self.names: dict[str, str] = {}
        self.asked: list[str] = []
        self.taken: set[int] = set()

    def __str__(self) -> str:
        return f"the {self.op} node that makes {next(filter(None, self.outputs), '?')}"

    def get(self, name: str, default: Any = None) -> Any:
        """Return the attribute, or the default if the file does not give it."""
        self.asked.append(name)
        return self.attributes.pop(name, default)

    def must(self, name: str) -> Any:
        """Return the attribute, or say that it is missing."""
        value = self.get(name)
        if value is None:
            raise ValueError(f"{self} lacks the attribute {name}")
        return value

    def has(self, place: int) -> bool:
        """Say whether there is such an input."""
        return place < len(self.inputs) and self.inputs[place] != ""

    def makes(self, place: int) -> bool:
        """Say whether there is such an output."""
        return place < len(self.outputs) and self.outputs[place] != ""

    def take(self, layer: Layer, **places: int) -> Layer:
        """Return the layer, its parameters and buffers replaced by the file's arrays."""
        for key, place in places.items():
            store = layer.buffers if key.startswith("running") else layer.params
            if not self.has(place):
                store.pop(key, None)
                continue
            store[key] = self.constants[place]
            self.names[key] = self.inputs[place]
            self.taken.add(place)
        return layer

    def owns(self, *places: int) -> bool:
        """Say whether each of these inputs is the node's own array, or left out."""
        return all(
            not self.has(k) or (k in self.own and self.constants[k].dtype in FLOATS)
            for k in places
        )

    def done(self) -> None:
        """Raise ValueError if the file gives an attribute that nobody asked for."""
        for name, value in self.attributes.items():
            known = ", ".join(sorted(self.asked)) or "none"
            raise ValueError(
                f"{self}: the attribute {name}={value!r} is not supported in operator set "
                f"{self.opset}; supported: {known}"
            )

    def wrong(self, name: str, value: Any, remedy: str) -> ValueError:
        """Return the error for an attribute with a value that cannot be used."""
        return ValueError(f"{self}: {name}={value!r} is not supported; {remedy}")

    def flag(self, name: str) -> bool:
        """Return an attribute that is 0 or 1."""
        value = self.get(name, 0)
        if value not in (0, 1):
            raise self.wrong(name, value, "it is 0 or 1")
        return bool(value)

    def numbers(self, name: str, default: int, count: int, least: int) -> list[int]:
        """Return an attribute of `count` whole numbers."""
        value = self.get(name, [default] * count)
        value = [value] if isinstance(value, int) else value
        if len(value) != count or min(value) < least:
            raise self.wrong(name, value, f"it must be {count} numbers of at least {least}")
        return list(value)


def _without_end(names: Sequence[str]) -> list[str]:
    """Return the names without the empty ones at their end."""
    names = list(names)
    while names and not names[-1]:
        names.pop()
    return names


class Op(Layer):
    """A layer of several inputs: `compute` them, and the `gradients` of them all.

    It may hold some of its inputs: arrays of the file. Those it learns are its params.
    forward gets the others, an array or a tuple, and backward returns their gradients.
    """

    keys: ClassVar[dict[int, str]] = {}  # the inputs that are learned -> their keys

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, Array | None] = {}
        self.learned: dict[int, str] = {}

    def hold(self, place: int, array: Array | None, learn: bool = False) -> None:
        """Keep an input that is the same in every forward; None if it is left out."""
        self.held[place] = array
        if learn:
            self.learned[place] = self.keys[place]
            self.params[self.keys[place]] = array

    def forward(self, x: Any) -> Any:
        held = self.held | {k: self.params[key] for k, key in self.learned.items()}
        given = list(x) if isinstance(x, tuple) else [x]
        self.alone = not isinstance(x, tuple)
        count = len(held) + len(given)
        rest = iter(given)
        arrays = [held[k] if k in held else next(rest) for k in range(count)]
        y = self.compute(*arrays)
        self.arity = count
        return y

    def backward(self, dy: Any) -> Any:
        count = self.remembered("arity")
        gradients = [*self.gradients(dy)]
        gradients += [None] * (count - len(gradients))
        for place, key in self.learned.items():
            self.grads[key] = gradients[place]
        rest = tuple(gradients[k] for k in range(count) if k not in self.held)
        return rest[0] if self.alone else rest

    def compute(self, *x: Any) -> Any:
        """Return y, or a tuple of several, for all inputs."""
        raise NotImplementedError

    def gradients(self, dy: Any) -> Sequence[Array | None]:
        """Return the gradient of every input, first to last; None for what has none."""
        raise NotImplementedError


def first_gradient(dy: tuple[Array | None, ...], op: Op) -> Array:
    """Return the gradient of the first output: no other has a way back."""
    first, *rest = dy
    if any(d is not None and d.any() for d in rest) or first is None:
        raise ValueError(
            f"{type(op).__name__} has no gradient but that of its first output"
        )
    return first


def axis_of(axis: int, ndim: int, past: int = 0) -> int:
    """Return the axis counted from the first; `past` more of them are allowed."""
    if not -ndim <= axis < ndim + past:
        raise ValueError(f"axis is {axis}, but x has {ndim} axes")
    return axis + ndim if axis < 0 else axis


def shrunk(dy: Array, shape: tuple[int, ...]) -> Array:
    """Return the gradient of an array of this shape that was broadcast to that of dy."""
    more = dy.ndim - len(shape)
    axes = tuple(
        k for k in range(dy.ndim) if k < more or (shape[k - more] == 1 != dy.shape[k])
    )
    return dy.sum(axis=axes).reshape(shape) if axes else dy.reshape(shape)


def shell(kind: type[Layer], *sizes: Any, **keywords: Any) -> Any:
    """Return the layer with one weight only, to be replaced by those of the file.

    As many as its sizes say would take long to draw.
    """
    layer = kind.__new__(kind, *sizes, **keywords)
    groups = keywords.pop("groups", None)
    layer.__init__(*[1] * len(sizes), **keywords, rng=np.random.default_rng(0))
    if groups is not None:
        layer.window["groups"] = groups
    return layer
