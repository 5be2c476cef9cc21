"""From a network of this course to an ONNX file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from course.device import Array
from course.files import write_whole
from course.layers import (
    ELU,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Dropout2d,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    PReLU,
    ReLU,
    Reshape,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Subsampling2d,
    Tanh,
    ZeroPad2d,
)
from course.layers.base import Layer
from course.model import Branches, Residual, Sequential
from course.onnx.network import Network
from course.onnx.reading import check, package
from course.shapes import pads
from course.zoo import IdentityShortcut
from course.zoo.lenet5_1998 import HEIGHT, SLOPE, ChosenConv2d, Distance, ScaledTanh

OPSET, IR = 21, 10


def save(
    model: Layer, path: str | Path, *, input_shape: tuple[int | None, ...] | None = None
) -> None:
    """Write the network as an ONNX file: what it computes in the mode eval().

    The weights keep their names. `input_shape` is that of one image, as (1, 28, 28), where
    the first layer does not say it; None stands for any size. What `load` returned is
    written as the file had it, with the weights of now. The file is complete or it is the
    old one. Raises ValueError, naming it, for a layer that has no ONNX form, and
    ModuleNotFoundError without the package onnx.
    """
    onnx = package()
    if isinstance(model, Network):
        proto = _rewritten(onnx, model)
    else:
        proto = _Writer(onnx, model).model(input_shape)
    try:
        check(onnx, proto, full=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"the network is not written: {error}") from None
    write_whole(Path(path), proto.SerializeToString())


def _rewritten(onnx: Any, model: Network) -> Any:
    """Return the file that the network came from, with its weights of now."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph, arrays = proto.graph, {**model.constants, **model.state_dict()}
    proto.ir_version = max(proto.ir_version, 4)  # from there on weights are no inputs
    tensors = {
        name: onnx.numpy_helper.from_array(
            array.reshape(model.shapes.get(name, array.shape)), name
        )
        for name, array in arrays.items()
    }
    for old in graph.initializer:
        if old.name in tensors:
            old.CopyFrom(tensors.pop(old.name))
    for node in [n for n in graph.node if tensors.keys() & set(n.output)]:
        graph.node.remove(node)  # it made a constant, which is learned now
        graph.initializer.append(tensors.pop(node.output[0]))
    return proto


class _Writer:
    """The way from a network to a graph: one layer after the other."""

    def __init__(self, onnx: Any, model: Layer):
        self.onnx, self.root = onnx, model
        self.nodes: list[Any] = []
        self.arrays: dict[str, Array] = {}
        self.leaves = {name for name, _ in model.leaves()}
        self.taken: set[str] = set()
        self.channels: int | None = None  # of the value that was made last
        self.axes = 0  # likewise
        arrays = [
            array
            for _, leaf in model.leaves()
            for array in (leaf.params | leaf.buffers).values()
            if array.dtype.kind == "f"
        ]
        self.dtype = arrays[0].dtype if arrays else np.dtype(np.float32)

    def model(self, input_shape: tuple[int | None, ...] | None) -> Any:
        """Return the file's content."""
        helper = self.onnx.helper
        shape = self._shape() if input_shape is None else list(input_shape)
        self.channels, self.axes = shape[0], 1 + len(shape)
        letters = ["N", "C", *("HW" if len(shape) > 2 else "W")]
        sizes = [n or letter for n, letter in zip([None, *shape], letters, strict=False)]
        x = self.spare("x")
        self.taken.add(x)
        y = self.add("", self.root, x)
        y = self.node("Identity", [y], self.spare("y")) if y == x else y
        elem = helper.np_dtype_to_tensor_dtype(self.dtype)
        graph = helper.make_graph(
            self.nodes,
            type(self.root).__name__,
            [helper.make_tensor_value_info(x, elem, sizes)],
            [helper.make_tensor_value_info(y, elem, ["N", *[None] * (self.axes - 1)])],
            [self.onnx.numpy_helper.from_array(a, k) for k, a in self.arrays.items()],
        )
        imports = [helper.make_opsetid("", OPSET)]
        return helper.make_model(
            graph, producer_name="convnet-course", opset_imports=imports, ir_version=IR
        )

    def _shape(self) -> list[int | None]:
        """Return the shape of one x as the first layer that knows it says."""
        for _, leaf in self.root.leaves():
            weight = leaf.params.get("weight")
            if isinstance(leaf, Conv2d):
                return [weight.shape[1] * leaf.window["groups"], None, None]
            if isinstance(leaf, Conv1d):
                return [weight.shape[1] * leaf.window["groups"], None]
            if isinstance(leaf, Linear):
                return [weight.shape[1]]
            if isinstance(leaf, ConvTranspose2d):
                return [weight.shape[0], None, None]
            if type(leaf) not in ELEMENTWISE:
                break
        raise ValueError(
            "the first layer does not say the shape of an image: give it, as in "
            "save(model, path, input_shape=(1, 28, 28))"
        )

    def spare(self, name: str) -> str:
        """Return the name, or one like it, for a value that no leaf makes."""
        while name in self.leaves:
            name += "_"
        return name

    def array(self, name: str, array: Any) -> str:
        """Write an array into the file and return its name."""
        self.arrays[name] = np.asarray(array, order="C")
        return name

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Write a node and return the name of what it makes."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        made = self.onnx.helper.make_node(op, inputs, [name], name=name, **attributes)
        self.nodes.append(made)
        return name

    def add(self, name: str, layer: Layer, x: Any) -> str:
        """Write the layer with this full name, given x, and return what it makes."""
        kind = type(layer)
        if kind not in FORMS:
            known = ", ".join(sorted(form.__name__ for form in FORMS))
            raise ValueError(
                f"{name or 'the model'} is a {kind.__name__}, which has no ONNX form here; "
                f"these have: {known}"
            )
        return FORMS[kind](self, name, layer, x)


def _inside(name: str, child: str) -> str:
    """Return the full name of a child."""
    return f"{name}.{child}".lstrip(".")


def _sequential(out: _Writer, name: str, layer: Sequential, x: str) -> str:
    for child, inner in layer.children.items():
        x = out.add(_inside(name, child), inner, x)
    return x


def _residual(out: _Writer, name: str, layer: Residual, x: str) -> str:
    channels = out.channels
    through = out.add(name, layer.body, x)
    made, out.channels = out.channels, channels
    round_it = x
    if layer.shortcut is not None:
        round_it = out.add(_inside(name, layer.name), layer.shortcut, x)
    out.channels = made
    y = out.node("Add", [through, round_it], out.spare(_inside(name, "sum")))
    return y if layer.after is None else out.add(_inside(name, "after"), layer.after, y)


def _branches(out: _Writer, name: str, layer: Branches, x: str) -> str:
    channels, made, parts = out.channels, [], []
    for child, inner in layer.children.items():
        out.channels = channels
        parts.append(out.add(_inside(name, child), inner, x))
        made.append(out.channels)
    out.channels = None if None in made else sum(made)
    return out.node("Concat", parts, out.spare(_inside(name, "concat")), axis=1)


def _weights(out: _Writer, name: str, layer: Layer) -> list[str]:
    """Write weight and bias, if there are such, and return their names."""
    return [
        out.array(_inside(name, key), layer.params[key])
        for key in ("weight", "bias")
        if key in layer.params
    ]


def _padding(window: dict[str, Any], axes: int = 2) -> dict[str, Any]:
    """Return strides, dilations and padding as attributes."""
    values = {
        name: [window[key]] if axes == 1 else list(window[key])
        for name, key in (("strides", "stride"), ("dilations", "dilation"))
        if window.get(key) is not None
    }
    padding = window["padding"]
    if isinstance(padding, str):
        return values | {
            "auto_pad": {"same": "SAME_UPPER", "valid": "VALID"}[padding.lower()]
        }
    if axes == 1:
        sides = padding if isinstance(padding, tuple | list) else (padding, padding)
        return values | {"pads": [int(n) for n in sides]}
    one = (1, 1)
    frame = pads(padding, one, one, one, one)
    return values | {"pads": [side[k] for k in (0, 1) for side in frame]}


def _conv(out: _Writer, name: str, layer: Layer, x: str) -> str:
    shape = layer.params["weight"].shape
    out.channels = shape[0]
    return out.node(
        "Conv",
        [x, *_weights(out, name, layer)],
        name,
        kernel_shape=shape[2:],
        group=layer.window["groups"],
        **_padding(layer.window, len(shape) - 2),
    )


def _conv_transpose(out: _Writer, name: str, layer: ConvTranspose2d, x: str) -> str:
    shape, window = layer.params["weight"].shape, layer.window
    more, S = window["output_padding"], window["stride"]
    same = isinstance(window["padding"], str) and window["padding"].lower() == "same"
    reach = [d * (k - 1) + 1 for d, k in zip(window["dilation"], shape[2:], strict=True)]
    if same and any(r < s for r, s in zip(reach, S, strict=True)):
        raise ValueError(
            f'{name}: padding="same" with a stride above the kernel has no ONNX form'
        )
    out.channels = shape[1] * window["groups"]
    return out.node(
        "ConvTranspose",
        [x, *_weights(out, name, layer)],
        name,
        kernel_shape=shape[2:],
        group=window["groups"],
        output_padding=[more, more] if isinstance(more, int) else list(more),
        **_padding(window),
    )


def _linear(out: _Writer, name: str, layer: Linear, x: str) -> str:
    out.channels = len(layer.params["weight"])
    return out.node("Gemm", [x, *_weights(out, name, layer)], name, transB=1)


def _pool(op: str, *more: str) -> Callable:
    def form(out: _Writer, name: str, layer: Any, x: str) -> str:
        window = dict(layer.window)
        ceil = window.pop("ceil_mode", None)
        flags = {key: int(window[key]) for key in more}
        ceil = layer.ceil_mode if ceil is None else ceil
        return out.node(
            op,
            [x],
            name,
            kernel_shape=window["kernel_size"],
            ceil_mode=int(ceil),
            **flags,
            **_padding(window),
        )

    return form


def _plain(op: str, **attributes: Callable[[Any], Any]) -> Callable:
    """Return the form of a layer that is one node, with attributes read from the layer."""

    def form(out: _Writer, name: str, layer: Any, x: str) -> str:
        return out.node(
            op, [x], name, **{key: read(layer) for key, read in attributes.items()}
        )

    return form


def _affine(out: _Writer, name: str, layer: Layer, shape: Any) -> list[str]:
    """Write weight and bias, or 1 and 0 where the layer has none; return their names."""
    ones, zeros = np.ones(shape, out.dtype), np.zeros(shape, out.dtype)
    return [
        out.array(_inside(name, "weight"), layer.params.get("weight", ones)),
        out.array(_inside(name, "bias"), layer.params.get("bias", zeros)),
    ]


def _batch_norm(out: _Writer, name: str, layer: BatchNorm2d, x: str) -> str:
    if not layer.buffers:
        raise ValueError(
            f"{name} has no running statistics: in use it would need those of the batch, "
            "which has no ONNX form here"
        )
    running = [
        out.array(_inside(name, key), layer.buffers[key])
        for key in ("running_mean", "running_var")
    ]
    momentum = 0.1 if layer.momentum is None else layer.momentum
    return out.node(
        "BatchNormalization",
        [x, *_affine(out, name, layer, layer.channels), *running],
        name,
        epsilon=layer.eps,
        momentum=1 - momentum,
    )


def _group_norm(out: _Writer, name: str, layer: Any, x: str) -> str:
    groups = layer.channels if isinstance(layer, InstanceNorm2d) else layer.groups
    inputs = [x, *_affine(out, name, layer, layer.channels)]
    return out.node(
        "GroupNormalization", inputs, name, num_groups=groups, epsilon=layer.eps
    )


def _layer_norm(out: _Writer, name: str, layer: LayerNorm, x: str) -> str:
    shape = layer.shape
    return out.node(
        "LayerNormalization",
        [x, *_affine(out, name, layer, shape)],
        name,
        axis=-len(shape),
        epsilon=layer.eps,
    )


def _response_norm(out: _Writer, name: str, layer: LocalResponseNorm, x: str) -> str:
    if layer.size % 2 == 0:
        raise ValueError(
            f"{name} sums over {layer.size} channels: of an even number ONNX looks one "
            "further on, not back; take an odd size"
        )
    constants = {"alpha": layer.alpha, "beta": layer.beta, "bias": layer.k}
    return out.node("LRN", [x], name, size=layer.size, **constants)


def _prelu(out: _Writer, name: str, layer: PReLU, x: str) -> str:
    weight = layer.params["weight"]
    if weight.size > 1:  # along the channels
        weight = weight.reshape(-1, *[1] * (out.axes - 2))
    return out.node("PRelu", [x, out.array(_inside(name, "weight"), weight)], name)


def _silu(out: _Writer, name: str, layer: SiLU, x: str) -> str:
    gate = out.node("Sigmoid", [x], _inside(name, "gate"))
    return out.node("Mul", [x, gate], name)


def _softplus(out: _Writer, name: str, layer: Softplus, x: str) -> str:
    if layer.bend != (1.0, 20.0):
        raise ValueError(
            f"{name} has beta and threshold {layer.bend}; only 1 and 20 have an ONNX form"
        )
    return out.node("Softplus", [x], name)


def _dropout(out: _Writer, name: str, layer: Dropout, x: str) -> str:
    ratio = out.array(_inside(name, "p"), np.array(layer.p, np.float32))
    return out.node("Dropout", [x, ratio], name)


def _reshape(out: _Writer, name: str, layer: Reshape, x: str) -> str:
    if 0 in layer.shape:
        raise ValueError(f"{name} has a size of 0, which ONNX takes for the old size")
    out.channels = layer.shape[0] if layer.shape and layer.shape[0] > 0 else None
    out.axes = 1 + len(layer.shape)
    sizes = np.array([0, *layer.shape], np.int64)
    return out.node("Reshape", [x, out.array(_inside(name, "shape"), sizes)], name)


def _flatten(out: _Writer, name: str, layer: Flatten, x: str) -> str:
    out.channels, out.axes = None, 2
    return out.node("Flatten", [x], name, axis=1)


def _zero_pad(out: _Writer, name: str, layer: ZeroPad2d, x: str) -> str:
    (top, bottom), (left, right) = layer.padding
    sides = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    return out.node("Pad", [x, out.array(_inside(name, "pads"), sides)], name)


def _subsampling(out: _Writer, name: str, layer: Subsampling2d, x: str) -> str:
    kernel = layer.kernel_size
    weight = layer.params["weight"] * (kernel[0] * kernel[1])
    means = out.node(
        "AveragePool", [x], _inside(name, "mean"), kernel_shape=kernel, strides=kernel
    )
    sums = out.array(_inside(name, "weight"), weight.reshape(-1, 1, 1))
    bias = out.array(_inside(name, "bias"), layer.params["bias"].reshape(-1, 1, 1))
    return out.node(
        "Add", [out.node("Mul", [means, sums], _inside(name, "mul")), bias], name
    )


def _scaled_tanh(out: _Writer, name: str, layer: ScaledTanh, x: str) -> str:
    slope = out.array(_inside(name, "slope"), out.dtype.type(SLOPE))
    height = out.array(_inside(name, "height"), out.dtype.type(HEIGHT))
    steep = out.node("Mul", [x, slope], _inside(name, "mul"))
    bent = out.node("Tanh", [steep], _inside(name, "tanh"))
    return out.node("Mul", [bent, height], name)


def _chosen_conv(out: _Writer, name: str, layer: ChosenConv2d, x: str) -> str:
    weight = layer._full()
    out.channels = len(weight)
    weights = [
        out.array(_inside(name, "weight"), weight),
        out.array(_inside(name, "bias"), layer.params["bias"]),
    ]
    return out.node("Conv", [x, *weights], name, kernel_shape=weight.shape[2:])


def _distance(out: _Writer, name: str, layer: Distance, x: str) -> str:
    templates = layer.buffers["templates"]
    classes, size = templates.shape
    out.channels = classes
    shape = out.array(_inside(name, "shape"), np.array([0, 1, size], np.int64))
    minus = out.array(_inside(name, "minus_templates"), -templates[None])
    axis = out.array(_inside(name, "axis"), np.array([2], np.int64))
    count = out.array(_inside(name, "minus_size"), out.dtype.type(-size))
    x = out.node("Reshape", [x, shape], _inside(name, "x"))
    apart = out.node("Add", [x, minus], _inside(name, "apart"))
    squares = out.node("Mul", [apart, apart], _inside(name, "squares"))
    mean = out.node("ReduceMean", [squares, axis], _inside(name, "mean"), keepdims=0)
    return out.node("Mul", [mean, count], name)


def _shortcut(out: _Writer, name: str, layer: IdentityShortcut, x: str) -> str:
    if out.channels is None:
        raise ValueError(f"{name}: cannot tell how many channels it is given")
    more = layer.channels - out.channels
    if layer.stride > 1:
        steps = {"kernel_shape": [1, 1], "strides": [layer.stride] * 2}
        x = out.node("MaxPool", [x], _inside(name, "pixels"), **steps)
    sides = np.array([0, more // 2, 0, 0, 0, more - more // 2, 0, 0], np.int64)
    out.channels = layer.channels
    return out.node("Pad", [x, out.array(_inside(name, "pads"), sides)], name)


FORMS: dict[type[Layer], Callable[..., str]] = {
    Sequential: _sequential,
    Residual: _residual,
    Branches: _branches,
    Conv1d: _conv,
    Conv2d: _conv,
    ConvTranspose2d: _conv_transpose,
    Linear: _linear,
    MaxPool2d: _pool("MaxPool"),
    AvgPool2d: _pool("AveragePool", "count_include_pad"),
    GlobalAvgPool2d: _plain("GlobalAveragePool"),
    GlobalMaxPool2d: _plain("GlobalMaxPool"),
    BatchNorm1d: _batch_norm,
    BatchNorm2d: _batch_norm,
    GroupNorm: _group_norm,
    InstanceNorm2d: _group_norm,
    LayerNorm: _layer_norm,
    LocalResponseNorm: _response_norm,
    ReLU: _plain("Relu"),
    LeakyReLU: _plain("LeakyRelu", alpha=lambda layer: layer.negative_slope),
    PReLU: _prelu,
    ELU: _plain("Elu", alpha=lambda layer: layer.alpha),
    SiLU: _silu,
    Sigmoid: _plain("Sigmoid"),
    Tanh: _plain("Tanh"),
    Softplus: _softplus,
    Softmax: _plain("Softmax", axis=lambda layer: layer.dim),
    LogSoftmax: _plain("LogSoftmax", axis=lambda layer: layer.dim),
    Dropout: _dropout,
    Dropout2d: _plain("Identity"),
    Flatten: _flatten,
    Reshape: _reshape,
    ZeroPad2d: _zero_pad,
    Subsampling2d: _subsampling,
    ScaledTanh: _scaled_tanh,
    ChosenConv2d: _chosen_conv,
    Distance: _distance,
    IdentityShortcut: _shortcut,
}
ELEMENTWISE = {ReLU, LeakyReLU, ELU, SiLU, Sigmoid, Tanh, Softplus, Dropout}
