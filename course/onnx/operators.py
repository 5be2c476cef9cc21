"""The operators of ONNX: how each becomes a layer.

An operator whose weights are in the file, and nobody else's, becomes the layer of this
course. Any other becomes an `Op`, a layer of several inputs, of which it may hold some.

Source: the ONNX operator specification, operator sets 1 to 28.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, ClassVar

import numpy as np

from course.device import FLOATS, Array
from course.layers import (
    ELU,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
    batchnorm_backward,
    batchnorm_forward,
    conv2d_backward,
    conv2d_forward,
    dropout_forward,
    groupnorm_backward,
    groupnorm_forward,
    layernorm_backward,
    layernorm_forward,
    linear_backward,
    linear_forward,
    log_softmax_backward,
    log_softmax_forward,
)
from course.layers.base import Layer
from course.shapes import pads, pool_geometry, span

ONES = (1, 1)


class Node:
    """One node of the file: its operator, attributes and inputs, asked for by name.

    Attributes
    ----------
    op, opset : the operator, and the operator set that says what it means
    inputs, outputs : names of values; an empty one is left out
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
        self.inputs, self.outputs = list(inputs), list(outputs)
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


def _first(dy: tuple[Array | None, ...], op: Op) -> Array:
    """Return the gradient of the first output: no other has a way back."""
    first, *rest = dy
    if any(d is not None and d.any() for d in rest) or first is None:
        raise ValueError(
            f"{type(op).__name__} has no gradient but that of its first output"
        )
    return first


def _axis(axis: int, ndim: int, past: int = 0) -> int:
    """Return the axis counted from the first; `past` more of them are allowed."""
    if not -ndim <= axis < ndim + past:
        raise ValueError(f"axis is {axis}, but x has {ndim} axes")
    return axis + ndim if axis < 0 else axis


def _shrunk(dy: Array, shape: tuple[int, ...]) -> Array:
    """Return the gradient of an array of this shape that was broadcast to that of dy."""
    more = dy.ndim - len(shape)
    axes = tuple(
        k for k in range(dy.ndim) if k < more or (shape[k - more] == 1 != dy.shape[k])
    )
    return dy.sum(axis=axes).reshape(shape) if axes else dy.reshape(shape)


# --- convolutions and pools -------------------------------------------------------------


class Applied(Op):
    """A layer of the course whose weights are inputs, or whose signals have one axis.

    Signals (N, C, W) go through it as images (N, C, 1, W). `settle` gives the part of its
    window that depends on the size of the image.
    """

    def __init__(
        self,
        layer: Layer,
        *keys: str,
        settle: Callable[..., dict[str, Any]] | None = None,
    ):
        super().__init__()
        self.layer, self.weights, self.settle = layer.eval(), keys, settle
        layer.params.clear()
        self.keys = {k: key for k, key in enumerate(keys, 1) if "running" not in key}
        self.undecayed = layer.undecayed

    def compute(self, x: Array, *weights: Array | None) -> Array:
        self.signals = x.ndim == 3
        self.shapes = [None if w is None else w.shape for w in weights]
        for key, w in zip(self.weights, weights, strict=False):
            store = self.layer.buffers if "running" in key else self.layer.params
            if w is None:
                store.pop(key, None)
            else:
                store[key] = w[:, :, None] if self.signals and w.ndim == 3 else w
        x = x[:, :, None] if self.signals else x
        if self.settle is not None:
            kernel = weights[0].shape[2:] if weights else self.layer.window["kernel_size"]
            self.layer.window |= self.settle(x.shape[2:], (1, *kernel)[-2:])
        y = self.layer.forward(x)
        return y[:, :, 0] if self.signals else y

    def gradients(self, dy: Array) -> list[Array | None]:
        dx = self.layer.backward(dy[:, :, None] if self.signals else dy)
        grads = [
            None
            if shape is None or key not in self.layer.grads
            else self.layer.grads[key].reshape(shape)
            for key, shape in zip(self.weights, self.shapes, strict=False)
        ]
        return [dx[:, :, 0] if self.signals else dx, *grads]


class MaxPoolIndices(Applied):
    """Max pooling that also says where each maximum was, as an index into all of x."""

    def __init__(self, layer: MaxPool2d, columns_first: bool, settle: Callable | None):
        super().__init__(layer, settle=settle)
        self.columns_first = columns_first

    def compute(self, x: Array) -> tuple[Array, Array]:
        y = super().compute(x)
        H, W = (1, *x.shape[2:])[-2:]
        places = self.layer.argmax.astype(np.int64)
        if self.columns_first:
            places = places % W * H + places // W
        planes = np.arange(prod(x.shape[:2])).reshape(*x.shape[:2], 1, 1)
        return y, (places + planes * (H * W)).reshape(y.shape)

    def gradients(self, dy: tuple[Array | None, None]) -> list[Array | None]:
        return super().gradients(_first(dy, self))


class DilatedAvgPool(Op):
    """Average pooling with gaps between the taps, as a convolution of each channel."""

    def __init__(self, kernel, stride, padding, dilation, ceil_mode, count_include_pad):
        super().__init__()
        self.window = kernel, stride, padding, dilation, ceil_mode
        self.count_include_pad = count_include_pad

    def compute(self, x: Array) -> Array:
        self.signals = x.ndim == 3
        x = x[:, :, None] if self.signals else x
        image = x.shape[2:]
        kernel, stride, frame, dilation, size = pool_geometry(image, *self.window)
        more = [  # the last window may hang over
            max((out - 1) * S + span(K, D) - n - before - after, -after)
            for out, S, K, D, n, (before, after) in zip(
                size, stride, kernel, dilation, image, frame, strict=True
            )
        ]
        reach = tuple((a, b + m) for (a, b), m in zip(frame, more, strict=True))
        window = {"stride": stride, "dilation": dilation}
        seen, padding = np.ones((1, 1, *image), x.dtype), reach
        if self.count_include_pad:
            seen = np.pad(seen, ((0, 0), (0, 0), *frame), constant_values=1)
            padding = tuple((0, max(m, 0)) for m in more)
        one = np.ones((1, 1, *kernel), x.dtype)
        self.count = conv2d_forward(seen, one, padding=padding, **window)
        self.count = self.count[:, :, : size[0], : size[1]]
        self.x, self.taps = x, np.repeat(one, x.shape[1], axis=0)
        self.how = {**window, "padding": reach, "groups": x.shape[1]}
        y = conv2d_forward(x, self.taps, **self.how) / self.count
        return y[:, :, 0] if self.signals else y

    def gradients(self, dy: Array) -> list[Array]:
        dy = (dy[:, :, None] if self.signals else dy) / self.count
        dx = conv2d_backward(dy, self.x, self.taps, **self.how)[0]
        return [dx[:, :, 0] if self.signals else dx]


def _dims(node: Node, weights: bool) -> int:
    """Return along how many axes the node's window slides, or say that it cannot."""
    kernel = node.get("kernel_shape")
    known = [len(kernel)] if kernel else []
    if weights and 1 in node.constants:
        shape = node.constants[1].shape
        if kernel and tuple(kernel) != shape[2:]:
            raise ValueError(f"{node}: kernel_shape={kernel}, but its weights are {shape}")
        known.append(len(shape) - 2)
    known += [rank - 2 for rank in node.ranks[: 1 + weights] if rank is not None]
    if len(set(known)) != 1:
        raise ValueError(f"{node}: cannot tell if it is 1-D or 2-D; give kernel_shape")
    if known[0] not in (1, 2):
        raise ValueError(f"{node} is {known[0]}-D; supported: 1-D and 2-D")
    return known[0]


def _lower(size, kernel, *, stride, dilation) -> dict[str, Any]:
    """Return the padding of SAME_LOWER: the odd pixel at the top and left."""
    frame = pads("same", size, kernel, stride, dilation)
    return {"padding": tuple(side[::-1] for side in frame)}


def _list(node: Node, name: str, default: int, count: int, least: int) -> list[int]:
    """Return an attribute of `count` whole numbers."""
    value = node.get(name, [default] * count)
    value = [value] if isinstance(value, int) else value
    if len(value) != count or min(value) < least:
        raise node.wrong(name, value, f"it must be {count} numbers of at least {least}")
    return list(value)


def _window(node: Node, dims: int) -> tuple[dict[str, Any], Callable | None]:
    """Return stride, padding and dilation as pairs, and what settles the padding."""
    stride = _list(node, "strides", 1, dims, 1)
    dilation = _list(node, "dilations", 1, dims, 1)
    given = "pads" in node.attributes
    sides = _list(node, "pads", 0, 2 * dims, 0)
    auto = node.get("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        raise node.wrong("auto_pad", auto, "it is NOTSET, SAME_UPPER, SAME_LOWER or VALID")
    if auto != "NOTSET" and given and any(sides):
        raise node.wrong("pads", sides, f"auto_pad={auto} says how much")
    first = [1] * (2 - dims)
    window = {
        "stride": (*first, *stride),
        "padding": ((0, 0), *zip(sides[:dims], sides[dims:], strict=True))[-2:],
        "dilation": (*first, *dilation),
    }
    if auto == "SAME_UPPER":
        window["padding"] = "same"
    settle = None
    if auto == "SAME_LOWER":
        settle = partial(_lower, stride=window["stride"], dilation=window["dilation"])
    return window, settle


def conv(node: Node) -> Layer:
    """Conv."""
    dims = _dims(node, True)
    window, settle = _window(node, dims)
    plain = settle is None and node.owns(1, 2) and 1 in node.constants
    groups = _list(node, "group", 1, 1, 1)[0]
    if not plain:
        layer = _shell(Conv2d, 1, 1, 1, **window, groups=groups)
        return Applied(layer, "weight", "bias", settle=settle)
    F, CG, *kernel = node.constants[1].shape
    kind, kernel = Conv2d, tuple(kernel)
    if dims == 1:
        kind, (kernel,) = Conv1d, kernel
        window = {name: v if v == "same" else v[1] for name, v in window.items()}
    layer = _shell(kind, CG * groups, F, kernel, **window, groups=groups)
    return node.take(layer, weight=1, bias=2)


def _shell(kind: type[Layer], *sizes: Any, **keywords: Any) -> Any:
    """Return the layer with one weight only, to be replaced by those of the file.

    As many as its sizes say would take long to draw.
    """
    layer = kind.__new__(kind, *sizes, **keywords)
    groups = keywords.pop("groups", None)
    layer.__init__(*[1] * len(sizes), **keywords, rng=np.random.default_rng(0))
    if groups is not None:
        layer.window["groups"] = groups
    return layer


def _stamps(size, kernel, *, stride, dilation, more, out, upper) -> dict[str, Any]:
    """Return the padding that gives a transposed convolution its output size."""
    frame, extra = [], []
    for n, K, S, D, rest, wanted in zip(
        size, kernel, stride, dilation, more, out or (None, None), strict=True
    ):
        wanted = n * S if wanted is None else wanted
        total = S * (n - 1) + rest + span(K, D) - wanted
        half = total // 2
        before, after = (half, total - half) if upper else (total - half, half)
        if before < 0:
            raise ValueError(
                f"output_shape {wanted} is too large: without padding there are "
                f"{wanted + total}"
            )
        frame.append((before, max(after, 0)))
        extra.append(rest + max(-after, 0))
    return {"padding": tuple(frame), "output_padding": tuple(extra)}


def conv_transpose(node: Node) -> Layer:
    """ConvTranspose."""
    dims = _dims(node, True)
    auto = node.attributes.get("auto_pad", "NOTSET")
    window, _ = _window(node, dims)
    first = [0] * (2 - dims)
    more = (*first, *_list(node, "output_padding", 0, dims, 0))
    out = node.get("output_shape")
    if out is not None:
        out = (*[1] * (2 - dims), *out[-dims:])  # some files give N and C, too
    settle = None
    if out is not None or auto.startswith("SAME"):
        sizes = {"stride": window["stride"], "dilation": window["dilation"]}
        settle = partial(_stamps, **sizes, more=more, out=out, upper=auto == "SAME_UPPER")
        window["padding"] = 0
    groups = _list(node, "group", 1, 1, 1)[0]
    keywords = {**window, "output_padding": more, "groups": groups}
    if dims == 2 and settle is None and node.owns(1, 2) and 1 in node.constants:
        C, FG, *kernel = node.constants[1].shape
        layer = _shell(ConvTranspose2d, C, FG * groups, tuple(kernel), **keywords)
        return node.take(layer, weight=1, bias=2)
    layer = _shell(ConvTranspose2d, 1, 1, 1, **keywords)
    return Applied(layer, "weight", "bias", settle=settle)


def _flag(node: Node, name: str) -> bool:
    """Return an attribute that is 0 or 1."""
    value = node.get(name, 0)
    if value not in (0, 1):
        raise node.wrong(name, value, "it is 0 or 1")
    return bool(value)


def max_pool(node: Node) -> Layer:
    """MaxPool."""
    kernel, dims = node.attributes.get("kernel_shape"), _dims(node, False)
    if kernel is None:
        node.must("kernel_shape")
    window, settle = _window(node, dims)
    ceil, columns_first = _flag(node, "ceil_mode"), _flag(node, "storage_order")
    layer = MaxPool2d((1, *kernel)[-2:], **window, ceil_mode=ceil)
    if node.makes(1):
        return MaxPoolIndices(layer, columns_first, settle)
    return layer if dims == 2 and settle is None else Applied(layer, settle=settle)


def average_pool(node: Node) -> Layer:
    """AveragePool."""
    kernel, dims = node.attributes.get("kernel_shape"), _dims(node, False)
    if kernel is None:
        node.must("kernel_shape")
    window, settle = _window(node, dims)
    kernel, dilation = (1, *kernel)[-2:], window.pop("dilation")
    ceil, counted = _flag(node, "ceil_mode"), _flag(node, "count_include_pad")
    if dilation != ONES:
        if settle is not None:
            raise node.wrong("auto_pad", "SAME_LOWER", "with dilations give pads")
        return DilatedAvgPool(
            kernel, window["stride"], window["padding"], dilation, ceil, counted
        )
    layer = AvgPool2d(kernel, **window, ceil_mode=ceil, count_include_pad=counted)
    return layer if dims == 2 and settle is None else Applied(layer, settle=settle)


class GlobalPool(Op):
    """Global pooling of any number of axes."""

    def __init__(self, layer: Layer):
        super().__init__()
        self.layer = layer

    def compute(self, x: Array) -> Array:
        self.shape = x.shape
        N, C, *sizes = x.shape
        y = self.layer.forward(x.reshape(N, C, 1, prod(sizes)))
        return y.reshape(N, C, *[1] * len(sizes))

    def gradients(self, dy: Array) -> list[Array]:
        return [self.layer.backward(dy.reshape(*dy.shape[:2], 1, 1)).reshape(self.shape)]


def global_pool(kind: type[Layer], node: Node) -> Layer:
    """GlobalAveragePool and GlobalMaxPool."""
    return kind() if node.ranks[0] == 4 else GlobalPool(kind())


# --- products and sums ------------------------------------------------------------------


class Gemm(Op):
    """y = alpha * a' @ b' + beta * c, where ' may transpose."""

    keys: ClassVar = {1: "weight", 2: "bias"}

    def __init__(self, alpha: float, beta: float, trans_a: bool, trans_b: bool):
        super().__init__()
        self.factors, self.transposed = (alpha, beta), (trans_a, trans_b)

    def compute(self, a: Array, b: Array, c: Array | None = None) -> Array:
        trans_a, trans_b = self.transposed
        x = np.ascontiguousarray(a.T) if trans_a else a
        w = b if trans_b else np.ascontiguousarray(b.T)
        self.seen = x, w, None if c is None else c.shape
        alpha, beta = (x.dtype.type(factor) for factor in self.factors)
        y = linear_forward(x, w)
        if alpha != 1:
            y *= alpha
        if c is not None:
            y += c if beta == 1 else beta * c
        return y

    def gradients(self, dy: Array) -> list[Array | None]:
        (x, w, c_shape), (trans_a, trans_b) = self.seen, self.transposed
        alpha, beta = (dy.dtype.type(factor) for factor in self.factors)
        dx, dw, _ = linear_backward(dy if alpha == 1 else alpha * dy, x, w)
        dc = None if c_shape is None else _shrunk(beta * dy, c_shape)
        return [dx.T if trans_a else dx, dw if trans_b else dw.T, dc]


def gemm(node: Node) -> Layer:
    """Gemm."""
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    trans_a, trans_b = _flag(node, "transA"), _flag(node, "transB")
    if node.opset < 7:
        node.get("broadcast")  # it says that c may be broadcast, as it may today
    plain = (alpha, beta, trans_a, trans_b) == (1, 1, False, True)
    if plain and node.owns(1, 2) and 1 in node.constants:
        O, I = node.constants[1].shape
        if not node.has(2) or node.constants[2].shape == (O,):
            return node.take(_shell(Linear, I, O), weight=1, bias=2)
    return Gemm(alpha, beta, trans_a, trans_b)


class MatMul(Op):
    """The matrix product a @ b, over all axes but the last two broadcast."""

    keys: ClassVar = {0: "weight", 1: "weight"}

    def compute(self, a: Array, b: Array) -> Array:
        self.shapes = a.shape, b.shape
        a, b = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        if a.ndim < 1 or b.ndim < 1 or a.shape[-1] != b.shape[-2]:
            raise ValueError(f"a is {self.shapes[0]} and b {self.shapes[1]}: no product")
        if b.ndim == 2:  # one product with all rows of a
            lead, a, b = a.shape[:-1], a.reshape(1, -1, a.shape[-1]), b[None]
        else:
            lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
            a, b = (
                np.broadcast_to(m, (*lead, *m.shape[-2:])).reshape(-1, *m.shape[-2:])
                for m in (a, b)
            )
            lead = *lead, a.shape[1]
        self.seen = a, [np.ascontiguousarray(m.T) for m in b]
        y = np.stack([linear_forward(m, w) for m, w in zip(*self.seen, strict=True)])
        y = y.reshape(*lead, y.shape[-1])
        y = y.squeeze(-2) if len(self.shapes[0]) == 1 else y
        return y.squeeze(-1) if len(self.shapes[1]) == 1 else y

    def gradients(self, dy: Array) -> list[Array]:
        (a, w), (a_shape, b_shape) = self.seen, self.shapes
        upstream = dy.reshape(len(a), a.shape[1], len(w[0]))
        parts = [linear_backward(*three)[:2] for three in zip(upstream, a, w, strict=True)]
        da = np.stack([dx for dx, _ in parts])
        db = np.stack([dw.T for _, dw in parts])
        if len(b_shape) <= 2:
            return [da.reshape(a_shape), db.reshape(b_shape)]
        lead = np.broadcast_shapes(a_shape[:-2], b_shape[:-2])
        da, db = (m.reshape(*lead, *m.shape[1:]) for m in (da, db))
        rows = a_shape if len(a_shape) > 1 else (1, *a_shape)
        return [_shrunk(da, rows).reshape(a_shape), _shrunk(db, b_shape)]


def _aligned(b: Array, a: Array, axis: int | None) -> Array:
    """Return b with its first axis at that axis of a: so it was before operator set 7."""
    return b if axis is None else b.reshape(b.shape + (1,) * (a.ndim - axis - b.ndim))


class Add(Op):
    """a + b, broadcast."""

    keys: ClassVar = {0: "bias", 1: "bias"}

    def __init__(self, axis: int | None = None):
        super().__init__()
        self.axis = axis

    def compute(self, a: Array, b: Array) -> Array:
        self.shapes, b = (a.shape, b.shape), _aligned(b, a, self.axis)
        self.aligned = b.shape
        return a + b

    def gradients(self, dy: Array) -> list[Array]:
        db = _shrunk(dy, self.aligned).reshape(self.shapes[1])
        return [_shrunk(dy, self.shapes[0]), db]


class Mul(Op):
    """a * b, broadcast."""

    keys: ClassVar = {0: "weight", 1: "weight"}
    undecayed = ("weight",)

    def __init__(self, axis: int | None = None):
        super().__init__()
        self.axis = axis

    def compute(self, a: Array, b: Array) -> Array:
        self.shape, b = b.shape, _aligned(b, a, self.axis)
        self.seen = a, b
        return a * b

    def gradients(self, dy: Array) -> list[Array]:
        a, b = self.seen
        return [_shrunk(dy * b, a.shape), _shrunk(dy * a, b.shape).reshape(self.shape)]


def elementwise(kind: type[Op], node: Node) -> Layer:
    """Add and Mul."""
    if node.opset >= 7:
        return kind()
    node.get("consumed_inputs")
    broadcast, axis = _flag(node, "broadcast"), node.get("axis")
    return kind(axis if broadcast else None)


# --- normalisation ----------------------------------------------------------------------


class TrainingBatchNorm(Op):
    """Batch normalisation with the statistics of the batch, which moves the running ones.

    ONNX's momentum is the share of the old ones, and the variance that it keeps is that
    of the batch, divided by N*HW.
    """

    keys: ClassVar = {1: "weight", 2: "bias"}
    undecayed = "weight", "bias"

    def __init__(self, momentum: float, eps: float, outputs: int):
        super().__init__()
        self.momentum, self.eps, self.outputs = momentum, eps, outputs

    def compute(self, x: Array, w: Array, b: Array, mean: Array, var: Array) -> Any:
        y, batch_mean, invstd = batchnorm_forward(
            x, w, b, None, None, training=True, eps=self.eps
        )
        self.seen = x, w, batch_mean, invstd
        old, new = mean.dtype.type(self.momentum), mean.dtype.type(1 - self.momentum)
        axes = (0, *range(2, x.ndim))
        running = mean * old + batch_mean * new, var * old + x.var(axis=axes) * new
        return (y, *running)[: self.outputs] if self.outputs > 1 else y

    def gradients(self, dy: Any) -> Sequence[Array]:
        dy = _first(dy, self) if self.outputs > 1 else dy
        return batchnorm_backward(dy, *self.seen, training=True)


def batch_norm(node: Node) -> Layer:
    """BatchNormalization."""
    eps, momentum = node.get("epsilon", 1e-5), node.get("momentum", 0.9)
    training = _flag(node, "training_mode") if node.opset >= 14 else node.makes(1)
    if node.opset < 9:
        spatial = node.get("spatial", 1)
        if spatial != 1:
            raise node.wrong("spatial", spatial, "it is 1: a mean for each channel")
    if node.opset < 7:
        training = not node.get("is_test", 0) and node.makes(1)
        node.get("consumed_inputs")
    if training:
        outputs = len(node.outputs)
        if outputs > 3:
            raise ValueError(f"{node} has {outputs} outputs; supported: 3")
        return TrainingBatchNorm(momentum, eps, outputs)
    if node.makes(1):
        raise ValueError(f"{node} makes {node.outputs[1]}, which needs training_mode=1")
    channels = len(node.constants[1]) if 1 in node.constants else 1
    layer = BatchNorm2d(channels, eps, 1 - momentum)
    layer.shapes = "(N, C)", "(N, C, L)", "(N, C, H, W)", "(N, C, D, H, W)"
    places = {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4}
    if node.owns(1, 2, 3, 4) and len(node.constants.keys() & {1, 2, 3, 4}) == 4:
        return node.take(layer, **places)
    return RunningBatchNorm(layer, *places)


class RunningBatchNorm(Applied):
    """Batch normalisation whose parameters and statistics are inputs."""

    def compute(self, x: Array, *arrays: Array) -> Array:
        self.layer.channels = len(arrays[0])
        self.shape = x.shape
        y = super().compute(x.reshape(*x.shape[:2], -1, 1), *arrays)
        return y.reshape(x.shape)

    def gradients(self, dy: Array) -> list[Array | None]:
        dx, *rest = super().gradients(dy.reshape(*dy.shape[:2], -1, 1))
        return [dx.reshape(self.shape), *rest]


class EvenLRN(LocalResponseNorm):
    """Response normalisation over an even number of channels: ONNX looks one further on."""

    def forward(self, x: Array) -> Array:
        return super().forward(np.ascontiguousarray(x[:, ::-1]))[:, ::-1]

    def backward(self, dy: Array) -> Array:
        return super().backward(np.ascontiguousarray(dy[:, ::-1]))[:, ::-1]


def lrn(node: Node) -> Layer:
    """LRN."""
    size = node.must("size")
    kind = LocalResponseNorm if size % 2 else EvenLRN
    constants = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    return kind(size, *constants)


class LayerNormalization(Op):
    """Layer normalisation over all axes from one on; it can also return mean and invstd."""

    keys: ClassVar = {1: "weight", 2: "bias"}
    undecayed = "weight", "bias"

    def __init__(self, axis: int, eps: float, outputs: int):
        super().__init__()
        self.axis, self.eps, self.outputs = axis, eps, outputs

    def compute(self, x: Array, w: Array, b: Array | None = None) -> Any:
        axis = _axis(self.axis, x.ndim)
        self.shapes = w.shape, None if b is None else b.shape
        full = np.broadcast_to(w, x.shape[axis:])
        bias = None if b is None else np.broadcast_to(b, x.shape[axis:])
        y, mean, invstd = layernorm_forward(x, np.ascontiguousarray(full), bias, self.eps)
        self.seen = x, np.ascontiguousarray(full), mean, invstd
        kept = x.shape[:axis] + (1,) * (x.ndim - axis)
        all_three = y, mean.reshape(kept), invstd.reshape(kept)
        return all_three[: self.outputs] if self.outputs > 1 else y

    def gradients(self, dy: Any) -> list[Array | None]:
        dy = _first(dy, self) if self.outputs > 1 else dy
        dx, dw, db = layernorm_backward(dy, *self.seen)
        w_shape, b_shape = self.shapes
        db = None if b_shape is None else _shrunk(db, b_shape)
        return [dx, _shrunk(dw, w_shape), db]


def _stash(node: Node) -> None:
    """Pass over stash_type, which is about types shorter than float32."""
    if node.get("stash_type", 1) not in (1, 11):
        raise node.wrong("stash_type", 0, "it is 1")


def layer_norm(node: Node) -> Layer:
    """LayerNormalization."""
    axis, eps = node.get("axis", -1), node.get("epsilon", 1e-5)
    _stash(node)
    w, b = node.constants.get(1), node.constants.get(2)
    plain = w is not None and w.ndim == -axis and len(node.outputs) == 1
    if plain and node.owns(1, 2) and (not node.has(2) or b.shape == w.shape):
        layer = LayerNorm(w.shape, eps)
        return node.take(layer, weight=1, bias=2)
    return LayerNormalization(axis, eps, len(node.outputs))


class GroupNormalization(Op):
    """Group normalisation with a weight and a bias for each channel, or for each group."""

    keys: ClassVar = {1: "weight", 2: "bias"}
    undecayed = "weight", "bias"

    def __init__(self, groups: int, eps: float, per_group: bool):
        super().__init__()
        self.groups, self.eps, self.per_group = groups, eps, per_group

    def compute(self, x: Array, w: Array, b: Array) -> Array:
        self.times = x.shape[1] // self.groups if self.per_group else 1
        w, b = np.repeat(w, self.times), np.repeat(b, self.times)
        y, *statistics = groupnorm_forward(x, self.groups, w, b, self.eps)
        self.seen = x, w, *statistics
        return y

    def gradients(self, dy: Array) -> list[Array]:
        dx, *both = groupnorm_backward(dy, *self.seen)
        return [dx, *(d.reshape(-1, self.times).sum(axis=1) for d in both)]


def group_norm(node: Node) -> Layer:
    """GroupNormalization."""
    groups, eps = node.must("num_groups"), node.get("epsilon", 1e-5)
    if node.opset >= 21:
        _stash(node)
        if node.owns(1, 2) and {1, 2} <= node.constants.keys():
            channels = len(node.constants[1])
            return node.take(GroupNorm(groups, channels, eps), weight=1, bias=2)
    return GroupNormalization(groups, eps, node.opset < 21)


# --- activations ------------------------------------------------------------------------


class PRelu(Op):
    """ReLU whose slope below zero is an input, broadcast to x."""

    keys: ClassVar = {1: "weight"}
    undecayed = ("weight",)

    def __init__(self, per_channel: bool):
        super().__init__()
        self.per_channel = per_channel  # before operator set 7

    def compute(self, x: Array, slope: Array) -> Array:
        self.shape = slope.shape
        if self.per_channel and slope.size > 1:
            slope = slope.reshape(-1, *[1] * (x.ndim - 2))
        self.seen = x, slope
        return np.where(x > 0, x, slope * x)

    def gradients(self, dy: Array) -> list[Array]:
        x, slope = self.seen
        dw = np.where(x > 0, dy.dtype.type(0), dy * x)
        dw = _shrunk(dw, slope.shape).reshape(self.shape)
        return [np.where(x > 0, dy, slope * dy), dw]


class Rowwise(Op):
    """Softmax or its logarithm over all axes from one on together.

    So it was before operator set 13.
    """

    def __init__(self, layer: Layer, axis: int):
        super().__init__()
        self.layer, self.axis = layer, axis

    def compute(self, x: Array) -> Array:
        axis = _axis(self.axis, x.ndim)
        self.rows = prod(x.shape[:axis]), prod(x.shape[axis:])
        return self.layer.forward(x.reshape(self.rows)).reshape(x.shape)

    def gradients(self, dy: Array) -> list[Array]:
        return [self.layer.backward(dy.reshape(self.rows)).reshape(dy.shape)]


def softmax(kind: type[Layer], node: Node) -> Layer:
    """Softmax and LogSoftmax."""
    if node.opset >= 13:
        return kind(node.get("axis", -1))
    axis = node.get("axis", 1)
    if axis == -1 or node.ranks[0] == axis + 1:
        return kind(-1)
    return Rowwise(kind(1), axis)


def activation(make: Callable[[Node], Layer], node: Node) -> Layer:
    """Return what a function of each number becomes."""
    if node.opset < 6:
        node.get("consumed_inputs")
    return make(node)


class Clip(Op):
    """x kept between two bounds; below and above them its gradient is 0."""

    def __init__(self, least: float | None = None, most: float | None = None):
        super().__init__()
        self.bounds = least, most

    def compute(self, x: Array, least: Any = None, most: Any = None) -> Array:
        least, most = (
            old if new is None else new
            for old, new in zip(self.bounds, (least, most), strict=True)
        )
        y = x
        if least is not None:
            y = np.maximum(y, np.asarray(least, x.dtype))
        if most is not None:
            y = np.minimum(y, np.asarray(most, x.dtype))
        self.kept = y == x
        return y

    def gradients(self, dy: Array) -> list[Array]:
        return [np.where(self.kept, dy, dy.dtype.type(0))]


def clip(node: Node) -> Layer:
    """Clip."""
    if node.opset >= 11:
        return Clip()
    node.get("consumed_inputs")
    return Clip(node.get("min"), node.get("max"))


class DropoutNode(Op):
    """Dropout whose share, and whether it drops, are inputs; it can show its mask."""

    def __init__(self, ratio: float, seed: int | None, outputs: int, mask: Any):
        super().__init__()
        self.ratio, self.seed, self.outputs, self.mask = ratio, seed or 0, outputs, mask
        self.next_step = 0

    def compute(self, x: Array, ratio: Any = None, training: Any = None) -> Any:
        p = float(self.ratio if ratio is None else ratio)
        drops = training is not None and bool(training) and p > 0
        kept = np.ones_like(x)
        if drops:
            kept = dropout_forward(kept, p, self.seed, self.next_step)
            self.next_step += 1
        self.kept = kept
        y = x * kept if drops else x
        return (y, (kept > 0).astype(self.mask)) if self.outputs > 1 else y

    def gradients(self, dy: Any) -> list[Array]:
        return [(_first(dy, self) if self.outputs > 1 else dy) * self.kept]


def dropout(node: Node) -> Layer:
    """Dropout: `train()` says whether it drops, unless the file does."""
    ratio, seed = 0.5, None
    if node.opset >= 12:
        seed = node.get("seed")
    else:
        ratio = node.get("ratio", 0.5)
    if node.opset < 7:
        node.get("is_test")
        node.get("consumed_inputs")
    fixed = not node.has(1) or 1 in node.constants
    if fixed and not node.has(2) and not node.makes(1):
        ratio = float(node.constants.get(1, ratio))
        node.taken.add(1)
        return Dropout(ratio, rng=np.random.default_rng(seed or 0))
    mask = np.bool_ if node.opset >= 10 else np.float32
    return DropoutNode(ratio, seed, len(node.outputs), mask)


# --- shapes -----------------------------------------------------------------------------


class Reshape(Op):
    """The numbers of x in another shape: 0 keeps a size, -1 is what remains.

    A file written for one image at a time names a shape (1, ...): given N images, it is
    (N, ...).
    """

    def __init__(self, shape: Sequence[int] | None = None, allowzero: bool = False):
        super().__init__()
        self.shape, self.allowzero = shape, allowzero

    def compute(self, x: Array, shape: Array | None = None) -> Array:
        self.x_shape = x.shape
        given = [int(n) for n in (self.shape if shape is None else np.ravel(shape))]
        if not self.allowzero:
            if any(n == 0 and k >= x.ndim for k, n in enumerate(given)):
                raise ValueError(f"x is {x.shape}, which has no axis for a 0 of {given}")
            given = [n or x.shape[k] for k, n in enumerate(given)]
        size = prod(given)
        if x.ndim and given and given[0] == 1 and 0 < size != x.size == size * len(x):
            given[0] = len(x)
        return x.reshape(given)

    def gradients(self, dy: Array) -> list[Array]:
        return [dy.reshape(self.x_shape)]


def reshape(node: Node) -> Layer:
    """Reshape."""
    if node.opset < 5:
        node.get("consumed_inputs")
        return Reshape(node.must("shape"))
    return Reshape(None, _flag(node, "allowzero") if node.opset >= 14 else False)


class FlattenFrom(Op):
    """x as a matrix: the axes before one are its rows."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def compute(self, x: Array) -> Array:
        axis, self.shape = _axis(self.axis, x.ndim, 1), x.shape
        return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))

    def gradients(self, dy: Array) -> list[Array]:
        return [dy.reshape(self.shape)]


def flatten(node: Node) -> Layer:
    """Flatten."""
    axis = node.get("axis", 1)
    return Flatten() if axis == 1 else FlattenFrom(axis)


class Transpose(Op):
    """x with its axes in another order; reversed, if none is given."""

    def __init__(self, perm: Sequence[int] | None):
        super().__init__()
        self.perm = perm

    def compute(self, x: Array) -> Array:
        self.order = list(range(x.ndim))[::-1] if self.perm is None else self.perm
        return np.ascontiguousarray(x.transpose(self.order))

    def gradients(self, dy: Array) -> list[Array]:
        return [np.ascontiguousarray(dy.transpose(np.argsort(self.order)))]


class ConcatFrom(Op):
    """Arrays one after the other along an axis, which may count from the last."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def compute(self, *x: Array) -> Array:
        y = np.concatenate(x, self.axis)
        self.sizes = [a.shape[self.axis] for a in x]
        return y

    def gradients(self, dy: Array) -> Sequence[Array]:
        return np.split(dy, np.cumsum(self.sizes[:-1]), self.axis)


class PadNode(Op):
    """x in a frame; a negative pad cuts off. `mode` says what the frame shows."""

    def __init__(self, mode: str, sides: Sequence[int] | None, value: float = 0.0):
        super().__init__()
        self.mode, self.sides, self.value = mode, sides, value

    def compute(self, x: Array, sides: Any = None, value: Any = None, axes: Any = None):
        sides = self.sides if sides is None else np.ravel(sides).tolist()
        axes = range(x.ndim) if axes is None else [_axis(a, x.ndim) for a in np.ravel(axes)]
        if len(sides) != 2 * len(axes):
            raise ValueError(
                f"x has shape {x.shape}; pads={sides} must be two for each axis"
            )
        self.shape, self.seen, y = x.shape, [], x
        fill = x.dtype.type(self.value if value is None or not np.size(value) else value)
        for axis, before, after in zip(axes, sides, sides[len(axes) :], strict=False):
            places = np.arange(x.shape[axis])
            grown = max(before, 0), max(after, 0)
            if self.mode == "constant":
                places = np.pad(places, grown, constant_values=-1)
            else:
                places = np.pad(places, grown, mode=self.mode)
            places = places[max(-before, 0) : len(places) - max(-after, 0)]
            self.seen.append((axis, places))
            if (before, after) == (0, 0):
                continue
            y = y.take(places, axis)
            if (places < 0).any():
                at = [slice(None)] * x.ndim
                at[axis] = places < 0
                y[tuple(at)] = fill
        return y

    def gradients(self, dy: Array) -> list[Array]:
        for axis, places in reversed(self.seen):
            shape = list(dy.shape)
            shape[axis] = self.shape[axis]
            dx, kept = np.zeros(shape, dy.dtype), places >= 0
            rows, upstream = np.moveaxis(dx, axis, 0), np.moveaxis(dy, axis, 0)
            np.add.at(rows, places[kept], upstream[kept])
            dy = dx
        return [dy]


def pad(node: Node) -> Layer:
    """Pad."""
    mode = node.get("mode", "constant")
    known = ["constant", "reflect", "edge"] + ["wrap"] * (node.opset >= 19)
    if mode not in known:
        raise node.wrong("mode", mode, f"it is one of {', '.join(known)}")
    if node.opset >= 11:
        return PadNode(mode, None)
    sides = node.must("paddings" if node.opset < 2 else "pads")
    return PadNode(mode, sides, node.get("value", 0.0))


class Identity(Op):
    """x."""

    def compute(self, x: Array) -> Array:
        return x

    def gradients(self, dy: Array) -> list[Array]:
        return [dy]


class ReduceMean(Op):
    """The mean over some axes, or over all."""

    def __init__(self, axes: Sequence[int] | None, keepdims: bool, noop: bool):
        super().__init__()
        self.axes, self.keepdims, self.noop = axes, keepdims, noop

    def compute(self, x: Array, axes: Array | None = None) -> Array:
        axes = self.axes if axes is None else np.ravel(axes).tolist()
        if not axes:
            axes = () if self.noop else range(x.ndim)
        axes = tuple(_axis(axis, x.ndim) for axis in axes)
        self.shape, self.over = x.shape, axes
        return x.mean(axis=axes, keepdims=self.keepdims) if axes else x

    def gradients(self, dy: Array) -> list[Array]:
        if not self.over:
            return [dy]
        kept = [1 if k in self.over else n for k, n in enumerate(self.shape)]
        count = dy.dtype.type(prod(self.shape[k] for k in self.over))
        return [np.broadcast_to(dy.reshape(kept) / count, self.shape).copy()]


def reduce_mean(node: Node) -> Layer:
    """ReduceMean."""
    axes = node.get("axes") if node.opset < 18 else None
    noop = _flag(node, "noop_with_empty_axes") if node.opset >= 18 else False
    return ReduceMean(axes, bool(node.get("keepdims", 1)), noop)


# --- losses -----------------------------------------------------------------------------


class NegativeLogLikelihood(Op):
    """-logp at the right class, weighted; its mean, its sum or all of it.

    A label `ignore` costs nothing and counts nothing. The mean is that of the weights.
    """

    def __init__(self, reduction: str, ignore: int | None):
        super().__init__()
        self.reduction, self.ignore = reduction, ignore

    def compute(self, logp: Array, labels: Array, weight: Array | None = None) -> Array:
        C = logp.shape[1]
        if labels.shape != logp.shape[:1] + logp.shape[2:]:
            raise ValueError(f"labels has shape {labels.shape}; scores are {logp.shape}")
        counted = np.ones(labels.shape, bool)
        if self.ignore is not None:
            counted = labels != self.ignore
        t = np.where(counted, labels, 0)
        if ((t < 0) | (t >= C)).any():
            raise ValueError(f"a label is not in 0 to {C - 1}")
        w = counted.astype(logp.dtype)
        if weight is not None:
            w = np.where(counted, weight[t], w)
        t = np.expand_dims(t, 1)
        loss = -w * np.take_along_axis(logp, t, 1)[:, 0]
        self.share = {"none": 1, "sum": 1, "mean": w.sum()}[self.reduction]
        self.seen = logp.shape, t, w / self.share
        return loss if self.reduction == "none" else np.asarray(loss.sum() / self.share)

    def gradients(self, dy: Array) -> list[Array]:
        shape, t, w = self.seen
        dlogp = np.zeros(shape, dy.dtype)
        np.put_along_axis(dlogp, t, np.expand_dims(-w * dy, 1), 1)
        return [dlogp]


class SoftmaxCrossEntropy(NegativeLogLikelihood):
    """The same of the log-softmax of scores, which it can also return."""

    def __init__(self, reduction: str, ignore: int | None, outputs: int):
        super().__init__(reduction, ignore)
        self.outputs = outputs

    def compute(self, scores: Array, labels: Array, weight: Array | None = None) -> Any:
        self.logp = log_softmax_forward(scores, 1)
        loss = super().compute(self.logp, labels, weight)
        return (loss, self.logp) if self.outputs > 1 else loss

    def gradients(self, dy: Any) -> list[Array]:
        dlogp = np.zeros_like(self.logp)
        loss, more = dy if self.outputs > 1 else (dy, None)
        if loss is not None:
            dlogp = super().gradients(loss)[0]
        if more is not None:
            dlogp = dlogp + more
        return [log_softmax_backward(dlogp, self.logp, 1)]


def loss(kind: type[NegativeLogLikelihood], node: Node) -> Layer:
    """SoftmaxCrossEntropyLoss and NegativeLogLikelihoodLoss."""
    reduction, ignore = node.get("reduction", "mean"), node.get("ignore_index")
    if reduction not in ("none", "sum", "mean"):
        raise node.wrong("reduction", reduction, "it is none, sum or mean")
    if kind is SoftmaxCrossEntropy:
        return kind(reduction, ignore, len(node.outputs))
    return kind(reduction, ignore)


def concat(node: Node) -> Layer:
    """Concat."""
    axis = node.get("axis", 1) if node.opset < 4 else node.must("axis")
    plain = axis >= 0 and len(node.inputs) > 1 and not node.constants
    return Concat(axis) if plain else ConcatFrom(axis)


OPERATORS: dict[str, Callable[[Node], Layer]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": lambda node: MatMul(),
    "Add": partial(elementwise, Add),
    "Mul": partial(elementwise, Mul),
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": partial(global_pool, GlobalAvgPool2d),
    "GlobalMaxPool": partial(global_pool, GlobalMaxPool2d),
    "BatchNormalization": batch_norm,
    "LRN": lrn,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "Relu": partial(activation, lambda node: ReLU()),
    "LeakyRelu": partial(activation, lambda node: LeakyReLU(node.get("alpha", 0.01))),
    "PRelu": partial(activation, lambda node: PRelu(node.opset < 7)),
    "Elu": partial(activation, lambda node: ELU(node.get("alpha", 1.0))),
    "Sigmoid": partial(activation, lambda node: Sigmoid()),
    "Tanh": partial(activation, lambda node: Tanh()),
    "Softplus": lambda node: Softplus(),
    "Softmax": partial(softmax, Softmax),
    "LogSoftmax": partial(softmax, LogSoftmax),
    "Clip": clip,
    "Dropout": dropout,
    "Flatten": flatten,
    "Reshape": reshape,
    "Transpose": lambda node: Transpose(node.get("perm")),
    "Concat": concat,
    "Pad": pad,
    "Identity": lambda node: Identity(),
    "ReduceMean": reduce_mean,
    "SoftmaxCrossEntropyLoss": partial(loss, SoftmaxCrossEntropy),
    "NegativeLogLikelihoodLoss": partial(loss, NegativeLogLikelihood),
}  # and Constant, which becomes an array
