"""ONNX files made by hand, for the tests of course.onnx."""

import numpy as np
import onnx
from onnx import helper, numpy_helper


def node(op, inputs, outputs, **attributes):
    """Return a node; inputs and outputs are names with spaces between them."""
    names = [inputs.split(), outputs.split()]
    names = [["" if name == "-" else name for name in some] for some in names]
    return helper.make_node(op, *names, **attributes)


def model(nodes, inputs, outputs, arrays=None, opset=21, dtype=np.float64):
    """Return a model; `inputs` are name -> shape, `outputs` names with spaces between."""
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(k, elem, shape) for k, shape in inputs.items()],
        [
            onnx.ValueInfoProto(name=name, type=helper.make_tensor_type_proto(elem, None))
            for name in outputs.split()
        ],
        [numpy_helper.from_array(a, name) for name, a in (arrays or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=10)
    ranks = onnx.shape_inference.infer_shapes(made)
    for mine, inferred in zip(made.graph.output, ranks.graph.output, strict=True):
        tensor = inferred.type.tensor_type  # the checker asks for the number of axes
        if not tensor.HasField("shape"):
            tensor.shape.CopyFrom(made.graph.input[0].type.tensor_type.shape)
        mine.CopyFrom(inferred)
    return made
