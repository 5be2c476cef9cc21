"""The table of a network: what each layer makes, learns, costs, keeps and sees.

One image goes through the network, layer by layer, and is watched (`Container.trace`). The
columns, for that image:

output            what the layer makes, without the batch
parameters        the numbers that it learns; of a layer that is used twice, once
multiply-adds     the products of convolutions and dense layers, each with its addition.
                  Biases, normalisation, activations and pooling are left out.
memory            bytes of what it makes, 4 a number; 0 for what only looks at its input in
                  another way, as Flatten does
receptive field   height x width of the part of the input that one output number depends
                  on, frame of padding included: it may be larger than the input. Where
                  branches meet it is that of the largest
jump              how many pixels of the input lie between neighbours of the output, in
                  height and width

With taps K, dilation D and stride S, a window makes of a field r and a jump j

    (1)  r + D*(K-1)*j
    (2)  S*j

A dense layer and a global pool are one window over all of their input, and a normalisation
over a whole plane sees that plane.

Source: Araujo, Norris & Sim, "Computing receptive fields of convolutional neural networks",
Distill 2019.
"""

from collections.abc import Sequence
from copy import deepcopy
from fractions import Fraction
from math import prod
from typing import Any, NamedTuple

import numpy as np

from course.layers import (
    ConvTranspose2d,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    LocallyConnected2d,
    Upsample,
)
from course.layers.base import Layer

PLANE = GroupNorm, InstanceNorm2d, LayerNorm  # they see all, and leave it as large
COLUMNS = (
    "layer",
    "kind",
    "output",
    "parameters",
    "multiply-adds",
    "memory",
    "field",
    "jump",
)


class Row(NamedTuple):
    """A layer in the table: `receptive_field` and `jump` are None where nobody knows.

    Of several inputs `input_shape` is that of the first.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    memory: int
    receptive_field: tuple[int, ...] | None
    jump: tuple[int | Fraction, ...] | None


class Summary:
    """The table of a network; its text is the table.

    Attributes
    ----------
    input_shape : the shape of one image
    rows : a `Row` for each step
    parameters, multiply_adds, memory : the sums; parameters that are shared count once
    receptive_field, jump : those of the last layer
    """

    def __init__(
        self, title: str, input_shape: tuple[int, ...], rows: list[Row], total: int
    ):
        self.title, self.input_shape = title, input_shape
        self.rows, self.parameters = rows, total
        self.multiply_adds = sum(row.multiply_adds for row in rows)
        self.memory = sum(row.memory for row in rows)
        last = rows[-1] if rows else None
        self.receptive_field = last and last.receptive_field
        self.jump = last and last.jump

    def __getitem__(self, name: str) -> Row:
        """Return the first row of this name; raises KeyError."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"there is no layer {name}; there are {[r.name for r in self.rows]}")

    def __repr__(self) -> str:
        lines = [
            COLUMNS,
            *(
                (
                    row.name,
                    row.kind,
                    _by(row.output_shape),
                    _grouped(row.parameters) if row.parameters else "",
                    _grouped(row.multiply_adds) if row.multiply_adds else "",
                    _bytes(row.memory) if row.memory else "",
                    _by(row.receptive_field),
                    _by(row.jump),
                )
                for row in self.rows
            ),
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.ljust(width) if k < 3 else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        rule = "-" * max(map(len, text))
        sentence = (
            f"{_grouped(self.parameters)} parameters ({_bytes(4 * self.parameters)} in "
            f"float32), {_grouped(self.multiply_adds)} multiply-adds and "
            f"{_bytes(self.memory)} of activations for one image."
        )
        title = f"{self.title} on {_by(self.input_shape)}"
        return "\n".join([title, rule, text[0], rule, *text[1:], rule, sentence])


def summary(model: Any, input_shape: Sequence[int] | None = None) -> Summary:
    """Return the table of a network, for one image of this shape: (3, 32, 32), say.

    Without a shape that of `model.input_shape` is taken. The network is run once, as in
    use, and left as it was. Raises ValueError for a shape that the network cannot take.
    """
    shape = input_of(model, input_shape)
    if model.device != "cpu":  # what the table says is the same on any
        model = deepcopy(model).to("cpu")
    params = {id(array): array for array in model.params.values()}
    dtype = next(iter(params.values())).dtype if params else np.dtype(np.float32)
    x = np.zeros((1, *shape), dtype)
    with model.unchanged():
        model.eval()
        seen = model.trace(x)
    counted: set[int] = set()
    fields: dict[int, _Field | None] = {id(x): _start(x)}
    rows = []
    for name, layer, given, made in seen:
        new = [] if hasattr(layer, "children") else [*layer.params.values()]
        new = [array for array in new if id(array) not in counted]
        counted |= {id(array) for array in new}
        outputs = made if isinstance(made, tuple | list) else [made]
        field = _field(layer, given, outputs[0], fields)
        fields |= {id(output): field for output in outputs}
        inputs = given if isinstance(given, tuple | list) else [given]
        rows.append(
            Row(
                name,
                type(layer).__name__,
                inputs[0].shape[1:],
                outputs[0].shape[1:],
                sum(array.size for array in new),
                _multiply_adds(layer, given, outputs[0]),
                sum(4 * y.size for y in outputs if not any(_same(y, i) for i in inputs)),
                field and field.size,
                field and field.jump,
            )
        )
    total = sum(array.size for array in params.values())
    return Summary(type(model).__name__, shape, rows, total)


def input_of(model: Any, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape of one image, or the network's own, or say that there is none."""
    shape = getattr(model, "input_shape", None) if input_shape is None else input_shape
    if shape is None:
        raise ValueError("say for which images: input_shape=(3, 32, 32), without the batch")
    if not isinstance(shape, Sequence) or not all(
        isinstance(n, int | np.integer) and n > 0 for n in shape
    ):
        raise ValueError(f"input_shape is {shape!r}; it must be like (3, 32, 32)")
    return tuple(int(n) for n in shape)


def _same(y: np.ndarray, x: np.ndarray) -> bool:
    """Say whether y only looks at the numbers of x."""
    return np.may_share_memory(y, x)


def _multiply_adds(layer: Layer, x: Any, y: np.ndarray) -> int:
    """Return how many products the layer sums up: those with the weights of its windows."""
    layer = getattr(layer, "layer", layer)  # of one that only prepares the input of another
    weight = layer.params.get("weight")
    if weight is None:
        return 0
    if weight.ndim == 2 and sorted(weight.shape) == sorted((x.shape[-1], y.shape[-1])):
        return prod(y.shape[:-1]) * weight.size
    if weight.ndim == 2 or not slides(layer):
        return 0
    if isinstance(layer, LocallyConnected2d):
        return weight.size
    return prod((x if isinstance(layer, ConvTranspose2d) else y).shape[2:]) * weight.size


def slides(layer: Layer) -> bool:
    """Say whether the layer slides a window over its input: a convolution, or a pool."""
    return isinstance(getattr(layer, "window", None), dict)


# --- what a layer sees ------------------------------------------------------------------


class _Field(NamedTuple):
    """What one number depends on, along each axis: see equations (1) and (2).

    `plane` has the pixels along each axis, also where they have been laid flat.
    """

    size: tuple[Any, ...]
    jump: tuple[Any, ...]
    plane: tuple[int, ...]


def _start(x: np.ndarray) -> _Field:
    """Return the field of the input itself."""
    axes = max(x.ndim - 2, 0)
    return _Field((1,) * axes, (1,) * axes, x.shape[2:])


def _field(layer: Layer, x: Any, y: np.ndarray, fields: dict) -> _Field | None:
    """Return the field of what a layer made, or None if nobody knows."""
    parts = x if isinstance(x, tuple | list) else [x]
    before = [fields.get(id(part)) for part in parts]
    if None in before:
        return None
    size = tuple(map(max, zip(*(field.size for field in before), strict=True)))
    jump = tuple(map(max, zip(*(field.jump for field in before), strict=True)))
    window = _window(layer, parts[0], y, before[0].plane)
    if window is None:
        return None
    taps, stride, plane = window
    return _Field(
        tuple(_plain(r + (t - 1) * j) for r, t, j in zip(size, taps, jump, strict=True)),
        tuple(_plain(s * j) for s, j in zip(stride, jump, strict=True)),
        plane,
    )


def _plain(value: int | Fraction) -> int | Fraction:
    """Return a fraction as a whole number, if it is one."""
    return int(value) if value == int(value) else value


def _window(layer: Layer, x: Any, y: np.ndarray, plane: tuple) -> tuple | None:
    """Return how many inputs the layer's window covers along each axis, its stride, and
    how many pixels the output has; None if nobody knows.
    """
    layer = getattr(layer, "layer", layer)
    one, after = (1,) * len(plane), y.shape[2:]
    weight = layer.params.get("weight")
    if isinstance(layer, PLANE):
        return plane, one, plane
    if y.ndim == 2:  # dense or laid flat
        dense = y.size != x.size or (weight is not None and weight.ndim == 2)
        return (plane, one, one) if dense else (one, one, plane)
    if len(after) != len(plane):
        return None
    if isinstance(layer, Upsample):
        scale = [Fraction(size, out) for out, size in zip(after, plane, strict=True)]
        return _each(1 + (layer.options["mode"] != "nearest"), plane), scale, after
    window = _settings(layer, weight, len(plane))
    if window is not None:
        kernel, stride, dilation = (_each(value, plane) for value in window)
        taps = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        if isinstance(layer, ConvTranspose2d):  # its stride is one of the output
            taps = [(t - 1) // s + 1 for t, s in zip(taps, stride, strict=True)]
            stride = [Fraction(1, s) for s in stride]
        return taps, stride, after
    if after == plane:  # each pixel alone
        return one, one, plane
    if prod(after) == 1:  # one pixel of all
        return plane, one, one
    if prod(plane) == 1:  # all that is unfolded here saw the same
        return one, (0,) * len(plane), after
    return None


def _settings(layer: Layer, weight: Any, axes: int) -> tuple | None:
    """Return kernel size, stride and dilation of a layer that has a window."""
    window = layer.window if slides(layer) else vars(layer)
    kernel = window.get("kernel_size")
    if kernel is None and slides(layer):
        kernel = weight.shape[2 : 2 + axes]
    elif kernel is None and "stride" in window:  # it takes every second pixel, say
        kernel = 1
    if kernel is None:
        return None
    return kernel, window.get("stride", kernel), window.get("dilation", 1)


def _each(value: Any, plane: tuple) -> tuple:
    """Return the value for each axis; an image of one row stands for a signal."""
    if isinstance(value, Sequence):
        return tuple(value)[-len(plane) :]
    return (value,) * len(plane)


# --- words ------------------------------------------------------------------------------


def _by(sizes: Sequence | None) -> str:
    """Return the sizes as "3 x 32 x 32", an equal height and width once."""
    if sizes is None:
        return "?"
    return " x ".join(str(size) for size in sizes)


def _grouped(count: int) -> str:
    """Return the number with a space after every three digits.

    >>> _grouped(61706)
    '61 706'
    """
    return f"{count:,}".replace(",", " ")


def _bytes(count: int) -> str:
    """Return a number of bytes in the unit that suits it.

    >>> _bytes(246824)
    '246.8 kB'
    """
    for unit in "B", "kB", "MB":
        if count < 1000:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count} B"
        count /= 1000
    return f"{count:.2f} GB"
