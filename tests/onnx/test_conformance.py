"""The conformance cases of ONNX, for the operators that course.onnx reads.

They come with the package onnx. Its node cases hold what its own definitions in NumPy
compute; others were exported from PyTorch, with what PyTorch computed. The tests print how
many cases of each operator were run and passed, and why any was skipped.
"""

import re
import warnings
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason='needs the extra: pip install "onnx>=1.20"')

import onnx

from course.onnx import load
from course.onnx.operators import OPERATORS

KNOWN = {*OPERATORS, "Constant"}
MODULES = {  # of onnx, where they are not called as their operator
    "BatchNormalization": "batch_normalization",
    "SoftmaxCrossEntropyLoss": "softmax_cross_entropy_loss",
}
WINDOWED = {"Conv", "ConvTranspose", "MaxPool", "AveragePool"}
ANY_DTYPE = {"Add", "Mul", "Pad", "Reshape", "Identity", "Transpose", "Concat", "Constant"}
RANDOM = {f"test_training_dropout{kind}" for kind in ("", "_mask", "_default")}
RANDOM.add("test_training_dropout_default_mask")
THREE_D = "3-D: convolutions and pools are 1-D and 2-D here"
MASK = "its mask is drawn by a generator that ONNX leaves open"
INTEGERS = "whole numbers: layers compute in float32 and float64"
OTHERS = "an expansion in operators that are not on the list"
NO_TENSOR = "a sequence or an optional, not a tensor"
REASONS = {THREE_D, MASK, INTEGERS, OTHERS, NO_TENSOR}


@cache
def node_cases():
    """Return the node cases of our operators."""
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for op in sorted(KNOWN):
            import_module(f"{node.__name__}.{MODULES.get(op, op.lower())}")
    return list(node._NodeTestCases)


def used(model):
    """Return the operators of a model."""
    return {node.op_type for node in model.graph.node}


def reason(name, model):
    """Return why a case cannot be run, or None."""
    ops, inputs = used(model), list(model.graph.input)
    if not ops <= KNOWN:
        return OTHERS
    if any(value.type.WhichOneof("value") != "tensor_type" for value in inputs):
        return NO_TENSOR
    if name in RANDOM:
        return MASK
    tensors = [value.type.tensor_type for value in inputs]
    if ops & WINDOWED and len(tensors[0].shape.dim) == 5:
        return THREE_D
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    if tensors and tensors[0].elem_type not in floats and not ops <= ANY_DTYPE:
        return INTEGERS
    return None


def run(model, data_sets, rtol, atol, path):
    """Raise AssertionError unless the model gives what the case says.

    The cases give weights as inputs. Then they are written into the file, where trained
    networks have them, and only the first input is given: that must come to the same.
    """
    for inputs, outputs in data_sets:
        arrays = [np.asarray(a) for a in inputs]
        compare(model, arrays, outputs, rtol, atol, path)
        if len(arrays) > 1:
            held = onnx.ModelProto()
            held.CopyFrom(model)
            for array in arrays[:0:-1]:
                name = held.graph.input.pop().name
                held.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
            held.ir_version = max(held.ir_version, 4)  # from there on they are no inputs
            compare(held, arrays[:1], outputs, rtol, atol, path)


def compare(model, arrays, outputs, rtol, atol, path):
    """Raise AssertionError unless the model makes these outputs of the arrays."""
    path.write_bytes(model.SerializeToString())
    network = load(path)
    made = network(*arrays)
    made = made if isinstance(made, tuple) else (made,)
    for ours, theirs in zip(made, map(np.asarray, outputs), strict=True):
        assert (ours.dtype, np.shape(ours)) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


def count(cases, path):
    """Run the cases (operator, name, model, data sets, rtol, atol), and print a table."""
    passed, skipped, failed = Counter(), Counter(), []
    for op, name, model, *rest in cases:
        why = reason(name, model)
        if why is not None:
            skipped[op, why] += 1
            continue
        try:
            run(model, *rest, path)
            passed[op] += 1
        except Exception as error:  # each is reported
            failed.append(f"{op} {name}: {type(error).__name__}: {error}")
    print(f"\n{'operator':27}cases  run passed skipped")
    for op in sorted({op for op, *_ in cases}):
        total = sum(case[0] == op for case in cases)
        mine = {why: n for (other, why), n in skipped.items() if other == op}
        ran = total - sum(mine.values())
        words = "; ".join(f"{n} {why}" for why, n in mine.items())
        print(f"{op:27}{total:5}{ran:5}{passed[op]:7}{sum(mine.values()):8}  {words}")
    ran, left = sum(passed.values()) + len(failed), sum(skipped.values())
    print(f"{'all':27}{len(cases):5}{ran:5}{sum(passed.values()):7}{left:8}")
    return passed, {why for _, why in skipped}, failed


def test_node_cases(tmp_path, capsys):
    single = {c.name: c.model.graph.node[0].op_type for c in node_cases()}
    cases = []
    for case in node_cases():
        op = single[re.sub(r"_expanded(_ver\d+)?$", "", case.name)]  # a function's body
        cases.append((op, case.name, case.model, case.data_sets, case.rtol, case.atol))
    with capsys.disabled():
        passed, reasons, failed = count(cases, tmp_path / "case.onnx")
    assert not failed
    assert reasons <= REASONS
    assert passed.keys() == KNOWN, "an operator without a case that ran"
    assert sum(passed.values()) >= 260


def exported():
    """Yield the cases exported from PyTorch that use our operators only."""
    folder = Path(onnx.__file__).parent / "backend/test/data"
    for path in sorted(folder.glob("pytorch-*/*/model.onnx")):
        model = onnx.load(path)
        if not used(model) <= KNOWN:
            continue
        sets = [
            [
                [onnx.numpy_helper.to_array(tensor(file)) for file in sorted(files)]
                for files in (data.glob("input_*.pb"), data.glob("output_*.pb"))
            ]
            for data in sorted(path.parent.glob("test_data_set_*"))
        ]
        op = "/".join(sorted(used(model)))
        yield op, path.parent.name, model, sets, 1e-3, 1e-5


def tensor(file):
    """Return what is in a .pb file."""
    proto = onnx.TensorProto()
    proto.ParseFromString(file.read_bytes())
    return proto


def test_cases_exported_from_pytorch(tmp_path, capsys):
    """They are written in operator sets 6 to 12: the old meaning of the attributes."""
    cases = list(exported())
    if not cases:
        pytest.skip("this version of onnx comes without the cases from PyTorch")
    with capsys.disabled():
        passed, reasons, failed = count(cases, tmp_path / "case.onnx")
    assert not failed
    assert reasons <= {THREE_D}
    assert sum(passed.values()) >= 60
