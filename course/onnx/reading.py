"""From an ONNX file to a network of this course."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from course.device import FLOATS, Array
from course.layers import Conv2d
from course.onnx.network import Network, Shared, Step, Value
from course.onnx.node import Node, Op
from course.onnx.operators import OPERATORS
from course.onnx.products import Add

NEWEST = 28  # the last operator set that has been read for course/onnx/operators.py
SCALES = {"Add", "Mul", "PRelu", "BatchNormalization"} | {
    *("LayerNormalization", "GroupNormalization")
}


def package() -> Any:
    """Return the package onnx, or say in one line how to install it."""
    try:
        import onnx
        import onnx.external_data_helper
    except ImportError:
        raise ModuleNotFoundError(
            'ONNX files need the package onnx: pip install "onnx>=1.20"'
        ) from None
    return onnx


def load(path: str | Path) -> Network:
    """Return the network of an ONNX file, in the mode eval().

    `y = model(x)` takes the file's inputs in their order, and returns its outputs in
    theirs. Its weights are its parameters, under the file's names: call train() to go on
    training it. It learns the arrays with which the file convolves, multiplies, adds or
    normalises, if they have an axis; a number alone is a constant.

    Raises ValueError for a file that is no whole ONNX file, and, naming it, for an operator
    or an attribute that is not supported; FileNotFoundError if there is none, and
    ModuleNotFoundError without the package onnx.
    """
    onnx, path = package(), Path(path)
    model = _read(onnx, path)
    opset = _opset(model, path)
    try:
        return _Reader(onnx, model, opset).network().eval()
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read(onnx: Any, path: Path) -> Any:
    """Return the file's model, checked, or say in one line what is wrong with it."""
    from google.protobuf.message import DecodeError

    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        _connected(model.graph)
        check(onnx, model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        words = " ".join(str(error).split("\n\n")[0].split())
        raise ValueError(f"{path} is not a whole and valid ONNX file: {words}") from None
    return model


def check(onnx: Any, model: Any, full: bool = False) -> None:
    """Let the package onnx raise its ValidationError if the model is not valid.

    It refuses a GroupNormalization of the operator sets 18 to 20, which is deprecated:
    such a model stays unchecked.
    """
    sets = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    old = any(node.op_type == "GroupNormalization" for node in model.graph.node)
    if not (old and sets and 18 <= sets[0] <= 20):
        onnx.checker.check_model(model, full_check=full)


def _connected(graph: Any) -> None:
    """Raise ValueError unless each value is made once, before it is used."""
    for what in (graph.input, graph.initializer):
        (name, times), *_ = Counter(v.name for v in what).most_common(1) or [("", 1)]
        if times > 1:
            raise ValueError(f"{name!r} is there {times} times")
    known = {v.name for v in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        for name in filter(None, node.input):
            if name not in known:
                raise ValueError(
                    f"a {node.op_type} uses {name!r}, which nothing made before"
                )
        for name in filter(None, node.output):
            if name in known:
                raise ValueError(f"a {node.op_type} makes {name!r}, which is there already")
            known.add(name)
    for value in graph.output:
        if value.name not in known:
            raise ValueError(f"nothing makes the output {value.name!r}")


def _opset(model: Any, path: Path) -> int:
    """Return the version of ONNX's own operators that the file is written in."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            if not 1 <= entry.version <= NEWEST:
                raise ValueError(
                    f"{path} uses operator set {entry.version}; supported: 1 to {NEWEST}"
                )
            return entry.version
    raise ValueError(f"{path} does not say which set of ONNX's operators it uses")


class _Reader:
    """The way from a graph to a network: constants, then one node after the other."""

    def __init__(self, onnx: Any, model: Any, opset: int):
        self.onnx, self.proto, self.graph, self.opset = onnx, model, model.graph, opset
        if self.graph.sparse_initializer:
            name = self.graph.sparse_initializer[0].values.name
            raise ValueError(f"the initializer {name} is sparse; supported: dense ones")
        self.constants = {t.name: self.array(t) for t in self.graph.initializer}
        self.inputs = [i for i in self.graph.input if i.name not in self.constants]
        self.outputs = [o.name for o in self.graph.output]
        self.ranks = self._ranks(model) | {k: a.ndim for k, a in self.constants.items()}
        self.nodes = self._needed()
        self.uses = Counter(self.outputs)
        self.uses.update(name for node in self.nodes for name in node.input)
        self.steps: list[Step] = []
        self.keys: dict[str, str] = {}
        self.shared: dict[str, Shared] = {}
        self.kept: dict[str, Array] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def array(self, tensor: Any) -> Array:
        """Return a tensor of the file as an array that may be written to."""
        try:
            return np.array(self.onnx.numpy_helper.to_array(tensor), order="C")
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"the numbers of {tensor.name!r} are damaged: {error}"
            ) from None

    def _ranks(self, model: Any) -> dict[str, int]:
        """Return how many axes each value has, as far as that can be told."""
        inference = self.onnx.shape_inference
        with suppress(inference.InferenceError, ValueError):  # layers check their shapes
            model = inference.infer_shapes(model)
        known = [*model.graph.input, *model.graph.value_info, *model.graph.output]
        return {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in known
            if value.type.tensor_type.HasField("shape")
        }

    def _needed(self) -> list[Any]:
        """Return the nodes that the outputs depend on, in the order of the file."""
        needed, nodes = set(self.outputs), []
        for node in reversed(self.graph.node):
            if needed.intersection(filter(None, node.output)):
                needed.update(node.input)
                nodes.append(node)
        return nodes[::-1]

    def network(self) -> Network:
        """Return the network."""
        for proto in self.nodes:
            if proto.domain not in ("", "ai.onnx") or proto.op_type not in (
                "Constant",
                *OPERATORS,
            ):
                domain = f" of {proto.domain}" * bool(proto.domain)
                raise ValueError(
                    f"the operator {proto.op_type}{domain} is not supported; "
                    f"supported: {', '.join(sorted(['Constant', *OPERATORS]))}"
                )
            if proto.op_type == "Constant":
                self.constants[proto.output[0]] = self._constant(proto)
            else:
                self._add(proto)
        for name in self.outputs:
            if name in self.constants:
                self.kept[name] = self.constants[name]
        network = Network(
            self.steps,
            [self._value(i) for i in self.inputs],
            self.outputs,
            self.shared,
            self.keys,
            self.kept,
            self.shapes,
            self.proto,
        )
        for tensor in self.graph.initializer:
            if tensor.name in self.kept or tensor.name in network.state_dict():
                tensor.ClearField("raw_data")
                tensor.ClearField("float_data")
                tensor.ClearField("double_data")
        return network

    def _value(self, proto: Any) -> Value:
        """Return what the file says of an input."""
        kind = proto.type.WhichOneof("value")
        if kind != "tensor_type":
            raise ValueError(f"the input {proto.name} is a {kind}; supported: tensors")
        tensor = proto.type.tensor_type
        if tensor.elem_type not in self.onnx.TensorProto.DataType.values():
            raise ValueError(f"the input {proto.name} has an unknown type")
        dtype = np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        if not tensor.HasField("shape"):
            return Value(proto.name, dtype, None)
        shape = tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
            for d in tensor.shape.dim
        )
        return Value(proto.name, dtype, shape)

    def _attributes(self, proto: Any) -> dict[str, Any]:
        """Return the attributes of a node by name, with str for bytes."""
        values = {}
        for attribute in proto.attribute:
            value = self.onnx.helper.get_attribute_value(attribute)
            values[attribute.name] = value.decode() if isinstance(value, bytes) else value
        return values

    def _constant(self, proto: Any) -> Array:
        """Return the array of a Constant node."""
        (name, value), *more = self._attributes(proto).items() or [("value", None)]
        if more or value is None:
            raise ValueError(f"the Constant node {proto.output[0]} must have one value")
        if name == "value":
            return self.array(value)
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
        if name == "sparse_value":
            return self._dense(value)
        raise ValueError(
            f"the Constant node {proto.output[0]}: the attribute {name} is not supported; "
            "supported: value, value_float(s), value_int(s), sparse_value"
        )

    def _dense(self, sparse: Any) -> Array:
        """Return a sparse tensor with its zeros."""
        values, places = self.array(sparse.values), self.array(sparse.indices)
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        at = tuple(places.T) if places.ndim == 2 else np.unravel_index(places, dense.shape)
        dense[at] = values
        return dense

    def _add(self, proto: Any) -> None:
        """Add the layer of a node, or compute it now if it only has constants."""
        constants = {
            k: self.constants[name]
            for k, name in enumerate(proto.input)
            if name in self.constants
        }
        own = {k for k in constants if self.uses[proto.input[k]] == 1}
        ranks = [self.ranks.get(name) for name in proto.input]
        attributes = self._attributes(proto)
        values = proto.input, proto.output, constants, own, ranks
        node = Node(proto.op_type, self.opset, attributes, *values)
        layer = OPERATORS[node.op](node)
        node.done()
        places = [k for k, name in enumerate(node.inputs) if name]
        if isinstance(layer, Op) and own.issuperset(places):
            self._fold(node, layer)
            return
        name = next(filter(None, node.outputs))
        self.keys |= {f"{name}.{key}": theirs for key, theirs in node.names.items()}
        given = [k for k in range(len(node.inputs)) if k not in node.taken]
        if isinstance(layer, Op):
            given = [k for k in given if not self._hold(node, layer, k, name)]
        for k in given:
            if k in constants:
                self._share(node, k, isinstance(layer, Op))
        inputs = tuple(node.inputs[k] for k in given)
        if not self._biased(node, layer, inputs):
            self.steps.append(Step(layer, inputs, tuple(node.outputs)))

    def _fold(self, node: Node, layer: Op) -> None:
        """Make constants of what an operator makes of constants."""
        y = layer.compute(*(node.constants.get(k) for k in range(len(node.inputs))))
        y = y if isinstance(y, tuple) else (y,)
        self.constants |= zip(node.outputs, map(np.asarray, y), strict=False)

    def _hold(self, node: Node, layer: Op, place: int, name: str) -> bool:
        """Give an operator an input to hold, if it is its own or not to be learned."""
        if not node.has(place):
            layer.hold(place, None)
            return True
        if place not in node.constants:
            return False
        array = node.constants[place]
        learns = place in layer.keys and array.dtype.kind == "f" and array.ndim > 0
        if learns and place not in node.own:
            return False
        layer.hold(place, array, learns)
        if learns:
            self._float(node.inputs[place], array)
            self.keys[f"{name}.{layer.keys[place]}"] = node.inputs[place]
        return True

    def _share(self, node: Node, place: int, learn: bool) -> None:
        """Make an array that several nodes use a leaf of its own, or a plain constant."""
        name, array = node.inputs[place], node.constants[place]
        if not learn:
            self.kept[name] = array
            return
        self._float(name, array)
        if name not in self.shared:
            users = {proto.op_type for proto in self.nodes if name in proto.input}
            self.shared[name] = Shared(array, decays=not users <= SCALES)
            self.keys[f"{name}.weight"] = name

    def _float(self, name: str, array: Array) -> None:
        """Raise ValueError unless our layers compute in the dtype of a parameter."""
        if array.dtype not in FLOATS:
            raise ValueError(f"{name} is {array.dtype}; supported: float32 and float64")

    def _biased(self, node: Node, layer: Any, inputs: tuple[str, ...]) -> bool:
        """Make what is added to a convolution its bias, if it is one number a channel."""
        last = self.steps[-1] if self.steps else None
        if not (last and isinstance(layer, Add) and len(layer.learned) == 1):
            return False
        conv = last.layer
        if inputs != last.outputs or self.uses[inputs[0]] != 1:
            return False
        if type(conv) is not Conv2d or "bias" in conv.params:
            return False
        bias = layer.params["bias"]
        F, ndim = len(conv.params["weight"]), bias.ndim
        shape = bias.shape if layer.axis is None else bias.shape + (1,) * (3 - ndim)
        plain = shape[-3:] == (F, 1, 1) and bias.size == F and len(shape) <= 4
        if not plain or layer.axis not in (None, 1):
            return False
        made = next(filter(None, node.outputs))
        conv.params["bias"] = bias.reshape(-1)
        self.steps[-1] = last._replace(outputs=tuple(node.outputs))
        old, theirs = inputs[0], self.keys.pop(f"{made}.bias")
        self.shapes[theirs] = bias.shape
        self.keys[f"{made}.weight"] = self.keys.pop(f"{old}.weight")
        self.keys[f"{made}.bias"] = theirs
        return True
