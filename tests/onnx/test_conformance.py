"""The conformance cases of ONNX, for the operators that course.onnx reads.

They come with the package onnx: its node cases are made by its own definitions in NumPy, and
others were exported from PyTorch, with what PyTorch computed. A case is run if it uses these
operators only. The test prints how many cases of each operator were run and passed, and why
any was not run.
"""

import warnings
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason='needs the extra: pip install "onnx>=1.20"')

from course.onnx import load  # noqa: E402
from course.onnx.operators import OPERATORS  # noqa: E402

KNOWN = {*OPERATORS, "Constant"}
FLOATS = ("tensor(float)", "tensor(double)")
RANDOM = {  # its mask comes from a generator of NumPy that ONNX does not prescribe
    "test_training_dropout",
    "test_training_dropout_mask",
    "test_training_dropout_default",
    "test_training_dropout_default_mask",
}
FLOOR = {  # cases that run today
}


@cache
def node_cases():
    """Return the node cases: (name, model, [(inputs, outputs)], rtol, atol)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    return [(c.name, c.model, c.data_sets, c.rtol, c.atol) for c in cases]


def operators(model):
    """Return the set of operators that a model uses."""
    return {node.op_type for node in model.graph.node}


def reason(name, model):
    """Return why a case cannot be run, or None."""
    for value in model.graph.input:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            return f"a {kind.removesuffix('_type')}, not a tensor"
    first = next(iter(model.graph.input), None)
    if name in RANDOM:
        return "the mask is drawn by another generator"
    if first is not None:
        elem = onnx.helper.tensor_dtype_to_np_dtype(first.type.tensor_type.elem_type)
        only_moved = operators(model) <= {"Pad", "Add", "Mul", "Identity", "Reshape"}
        if elem.kind != "f" and not only_moved:
            return f"{elem}: our layers compute in float32 and float64"
        if len(first.type.tensor_type.shape.dim) == 5 and operators(model) & {
            "Conv",
            "ConvTranspose",
            "MaxPool",
            "AveragePool",
        }:
            return "3-D: convolutions and pools are 1-D and 2-D here"
    return None


def run(model, data_sets, rtol, atol, tmp_path):
    """Raise AssertionError unless the model gives what the case says."""
    path = tmp_path / "case.onnx"
    path.write_bytes(model.SerializeToString())
    net = load(path)
    for inputs, outputs in data_sets:
        y = net(*(np.asarray(a) for a in inputs))
        y = y if isinstance(y, tuple) else (y,)
        assert len(y) == len(outputs)
        for ours, theirs in zip(y, outputs, strict=True):
            theirs = np.asarray(theirs)
            assert ours.dtype == theirs.dtype
            assert np.shape(ours) == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


def table(cases, tmp_path):
    """Run the cases, print a line for each operator, and return the counts."""
    ran, skipped, failed = Counter(), {}, []
    for name, model, data_sets, rtol, atol in cases:
        (op, *_) = sorted(operators(model))
        why = reason(name, model)
        if why is not None:
            skipped.setdefault(op, Counter())[why] += 1
            continue
        try:
            run(model, data_sets, rtol, atol, tmp_path)
            ran[op] += 1
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
    for op in sorted({*ran, *skipped}):
        why = "; ".join(f"{n} x {text}" for text, n in skipped.get(op, {}).items())
        print(f"{op:28} {ran[op]:4} passed {why and 'skipped: '}{why}")
    print("\n".join(failed))
    return ran, failed


def test_node_cases(tmp_path, capsys):
    cases = [case for case in node_cases() if operators(case[1]) <= KNOWN]
    ran, failed = table(cases, tmp_path)
    assert not failed
