"""A network whose layers form a graph: several inputs, forks, several outputs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from course.device import Array
from course.layers.base import Layer
from course.model import Container, Sequential


class Step(NamedTuple):
    """One layer, the names of the values it is given, and of those it makes.

    A layer of one input gets an array, any other a tuple of them, and likewise for outputs.
    An output without a name is not kept.
    """

    layer: Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Value(NamedTuple):
    """What the file says of an input: name, dtype, and sizes; None where any will do."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...] | None


class Shared(Layer):
    """An array that several layers use; it learns from all of them.

    Raises nothing: it only holds `weight`.
    """

    def __init__(self, weight: Array, decays: bool):
        super().__init__()
        self.params["weight"] = weight
        self.undecayed = () if decays else ("weight",)

    def forward(self, x: Any = None) -> Array:
        return self.params["weight"]

    def backward(self, dy: Array) -> None:
        self.grads["weight"] = dy


class Network(Container):
    """What an ONNX file describes, as layers of this course.

    It has one leaf for each node, under the name of what that node makes; the keys of
    parameters, gradients and buffers are the file's own names. It takes the inputs of the
    file in their order, and returns its outputs in theirs, a tuple if there are several.

    Attributes
    ----------
    steps : the layers in the order of running, with the names of what they take and make
    inputs : what the file says of its inputs
    outputs : the names of its outputs
    input_shape : the shape of one input, if there is one and the file says it, or None
    shapes : the shape in the file of a parameter that has another one here
    proto : the file's content, without the arrays that the network has
    """

    def __init__(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Value],
        outputs: Sequence[str],
        shared: Mapping[str, Shared],
        keys: Mapping[str, str],
        constants: Mapping[str, Array],
        shapes: Mapping[str, tuple[int, ...]],
        proto: Any,
    ):
        named = {next(filter(None, step.outputs)): step.layer for step in steps}
        super().__init__({**shared, **named})
        self.steps, self.inputs, self.outputs = list(steps), list(inputs), list(outputs)
        self.shared, self.keys, self.constants = dict(shared), dict(keys), dict(constants)
        self.shapes, self.proto = dict(shapes), proto
        self.input_shape = None
        self._runs = _chained(self.steps, self.outputs)
        sizes = self.inputs[0].shape if len(self.inputs) == 1 else None
        if sizes is not None and None not in sizes[1:]:
            self.input_shape = sizes[1:]

    def _named(self, what: str) -> dict[str, Array]:
        named = super()._named(what)
        return {self.keys.get(name, name): array for name, array in named.items()}

    def __call__(self, *x: Array) -> Any:
        """Return forward(*x)."""
        return self.forward(*x)

    def forward(self, *x: Array) -> Any:
        """Return the outputs for these inputs: an array, or a tuple of several.

        Raises TypeError for another number of inputs or another dtype than the file's,
        and ValueError for another shape. Only the first axis, the batch, is free.
        """
        values = {**self.constants, **self._fitting(x)}
        values |= {name: leaf.params["weight"] for name, leaf in self.shared.items()}
        for layer, inputs, outputs in self._runs:
            given = tuple(values[name] for name in inputs)
            y = layer.forward(given[0] if len(given) == 1 else given)
            values |= zip(outputs, y if len(outputs) > 1 else (y,), strict=True)
        made = tuple(values[name] for name in self.outputs)
        self.made = [np.shape(y) for y in made]
        self.seen = x
        return made[0] if len(made) == 1 else made

    def _fitting(self, x: tuple[Array, ...]) -> dict[str, Array]:
        """Return the inputs under their names, or say in words what does not fit."""
        if len(x) != len(self.inputs):
            names = ", ".join(value.name for value in self.inputs)
            raise TypeError(
                f"the network has {len(self.inputs)} inputs ({names}), not {len(x)}"
            )
        for (name, dtype, shape), a in zip(self.inputs, x, strict=True):
            if not isinstance(a, np.ndarray | np.generic):
                raise TypeError(f"{name} is a {type(a).__name__}; it must be a NumPy array")
            if a.dtype != dtype:
                raise TypeError(
                    f"{name} has dtype {a.dtype}; this network takes {dtype}: "
                    f"{name}.astype(np.{dtype})"
                )
            if shape is None:
                continue
            sizes = zip(shape[1:], a.shape[1:], strict=False)
            if a.ndim != len(shape) or any(n not in (None, m) for n, m in sizes):
                wanted = ", ".join("any" if n is None else str(n) for n in shape[1:])
                raise ValueError(f"{name} has shape {a.shape}; it must be (N, {wanted})")
        return {value.name: np.asarray(a) for value, a in zip(self.inputs, x, strict=True)}

    def backward(self, *dy: Array | None) -> Any:
        """Given dLoss/dy for every output, fill the gradients, and return the inputs'.

        Where a value goes several ways, their gradients add up, from the last to the
        first. None stands for an output that the loss does not use, and for the gradient
        of an input that has none, such as labels.
        """
        return self._back(dy, need_dx=True)

    def learn(self, *dy: Array | None) -> None:
        """Given dLoss/dy for every output, fill the gradients, and compute no others."""
        self._back(dy, need_dx=False)

    def _back(self, dy: tuple[Array | None, ...], need_dx: bool) -> Any:
        """Go backward; without need_dx a layer that sees inputs only learns."""
        x, names = self.remembered("seen"), {value.name for value in self.inputs}
        if len(dy) != len(self.outputs):
            raise TypeError(f"give dy for each of {self.outputs}: {len(dy)} is too few")
        for leaf in self.shared.values():
            leaf.grads["weight"] = np.zeros_like(leaf.params["weight"])
        gradients: dict[str, Array] = {}
        dtype = next((d.dtype for d in dy if d is not None), np.dtype(np.float32))
        for name, d, shape in zip(self.outputs, dy, self.made, strict=True):
            _add(gradients, name, np.zeros(shape, dtype) if d is None else d)
        for layer, inputs, outputs in reversed(self._runs):
            upstream = tuple(gradients.pop(name, None) for name in outputs)
            if all(d is None for d in upstream):
                continue  # only whole numbers come from here
            d = upstream[0] if len(outputs) == 1 else upstream
            if not need_dx and names.issuperset(inputs):
                layer.learn(d)
                continue
            dx = layer.backward(d)
            for name, more in zip(inputs, dx if len(inputs) != 1 else (dx,), strict=True):
                if more is not None:
                    _add(gradients, name, more)
        for name, leaf in self.shared.items():
            if name in gradients:
                leaf.backward(gradients[name])
        dx = tuple(gradients.get(value.name) for value in self.inputs)
        return None if not need_dx else dx[0] if len(x) == 1 else dx


def _add(gradients: dict[str, Array], name: str, more: Array) -> None:
    """Add to the gradient of a value what one of its uses gives."""
    gradients[name] = gradients[name] + more if name in gradients else more


def _chained(steps: Sequence[Step], outputs: Sequence[str]) -> list[Step]:
    """Return the steps as few: layers of which each alone sees what the last one made.

    A Sequential then runs convolution, ReLU and max-pool in one pass; see course/fused.py.
    """
    uses = Counter(outputs) + Counter(name for step in steps for name in step.inputs)
    runs: list[list[Step]] = []
    ends: dict[tuple[str, ...], list[Step]] = {}  # what a run makes -> the run
    for step in steps:
        alone = len(step.inputs) != 1 or uses[step.inputs[0]] != 1
        run = [] if alone else ends.get(step.inputs, [])
        if not run:
            runs.append(run)
        run.append(step)
        if len(step.outputs) == 1:
            ends[step.outputs] = run
    return [
        Step(
            Sequential(**{next(filter(None, step.outputs)): step.layer for step in run}),
            run[0].inputs,
            run[-1].outputs,
        )
        for run in runs
    ]
