"""Files that cannot be loaded: one error that says why, and nothing else happens."""

import builtins
import sys

import numpy as np
import pytest

pytest.importorskip("onnx", reason='needs the extra: pip install "onnx>=1.20"')

import onnx

from course.onnx import load
from tests.onnx.files import model, node

X = {"x": (1, 2, 6, 6)}


@pytest.fixture
def refused(tmp_path):
    """Return a function that writes a model, or bytes, and returns the error of load."""

    def write_and_load(proto):
        path = tmp_path / "model.onnx"
        path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
        with pytest.raises(ValueError) as error:
            load(path)
        assert str(error.value).startswith(str(path))
        return str(error.value)

    return write_and_load


def good():
    """Return a small model with weights."""
    arrays = {"w": np.ones((3, 2, 3, 3)), "b": np.ones(3)}
    return model([node("Conv", "x w b", "y")], X, "y", arrays)


def one(op, opset=21, inputs="x", outputs="y", arrays=None, **attributes):
    """Return a model of one node."""
    made = node(op, inputs, outputs, **attributes)
    return model([made], X, outputs.split()[0], arrays, opset)


def test_the_small_model_itself_is_loaded(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(good().SerializeToString())
    y = load(str(path))(np.ones(X["x"]))
    np.testing.assert_array_equal(y, np.full((1, 3, 4, 4), 19.0))


def test_another_operator_is_named(refused):
    words = refused(one("Sin"))
    assert "the operator Sin is not supported; supported: Add, AveragePool, " in words


def test_a_shape_computed_while_running_is_refused_by_its_operator(refused):
    nodes = [node("Shape", "x", "shape"), node("Reshape", "x shape", "y")]
    assert "the operator Shape is not supported" in refused(model(nodes, X, "y"))


def test_another_domain_is_named(refused):
    proto = one("Relu")
    proto.graph.node[0].domain = "com.microsoft"
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    assert "the operator Relu of com.microsoft is not supported" in refused(proto)


def test_operators_that_no_output_needs_are_passed_over(tmp_path):
    proto = model([node("Relu", "x", "y"), node("Sin", "x", "z")], X, "y")
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert len(list(load(path))) == 1


@pytest.mark.parametrize(
    "proto, words",
    [
        (
            one("MaxPool", kernel_shape=[2, 2, 2]),
            "the MaxPool node that makes y: cannot tell if it is 1-D or 2-D",
        ),
        (
            model(
                [node("MaxPool", "x", "y", kernel_shape=[2, 2, 2])],
                {"x": (1, 2, 4, 4, 4)},
                "y",
            ),
            "is 3-D; supported: 1-D and 2-D",
        ),
        (one("MaxPool", kernel_shape=[2, 2], auto_pad="ROUND"), "auto_pad='ROUND' is not"),
        (
            one("MaxPool", kernel_shape=[2, 2], auto_pad="VALID", pads=[1, 1, 1, 1]),
            r"pads=[1, 1, 1, 1] is not supported; auto_pad=VALID says how much",
        ),
        (one("MaxPool", kernel_shape=[2, 2], pads=[-1, 0, 0, 0]), "pads=[-1, 0, 0, 0]"),
        (one("MaxPool", kernel_shape=[2, 2], strides=[0, 1]), "numbers of at least 1"),
        (one("MaxPool", kernel_shape=[2, 2], ceil_mode=2), "ceil_mode=2 is not supported"),
        (one("Pad", 2, mode="mirror", pads=[0] * 8), "mode='mirror' is not supported"),
        (
            one("BatchNormalization", 7, "x a a a a", arrays={"a": np.ones(2)}, spatial=0),
            "spatial=0 is not supported",
        ),
        (
            one(
                "SoftmaxCrossEntropyLoss",
                inputs="x t",
                arrays={"t": np.zeros((1, 6, 6), np.int64)},
                reduction="max",
            ),
            "reduction='max' is not supported; it is none, sum or mean",
        ),
        (
            one(
                "Conv",
                inputs="x w",
                arrays={"w": np.ones((3, 2, 3, 3))},
                kernel_shape=[2, 2],
            ),
            "kernel_shape=[2, 2], but its weights are (3, 2, 3, 3)",
        ),
    ],
)
def test_an_attribute_is_named_with_its_value(proto, words, refused):
    assert words in refused(proto)


def test_attributes_of_another_operator_set_are_named(refused):
    """They pass no check of the package, if the operator is one that it does not know."""
    proto = one("GroupNormalization", 18, "x a a", arrays={"a": np.ones(2)}, num_groups=2)
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("stash_type", 1))
    assert "the attribute stash_type=1 is not supported in operator set 18" in refused(
        proto
    )


@pytest.mark.parametrize("opset", [29, 1000])
def test_a_later_operator_set_is_refused(opset, refused):
    proto = good()
    proto.opset_import[0].version = opset
    words = refused(proto)
    assert "supported" in words or "is not a whole and valid ONNX file" in words


def test_a_truncated_file_is_refused(refused):
    whole = good().SerializeToString()
    for end in range(0, len(whole), 7):
        assert "\n" not in refused(whole[:end])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89PNG\r\n", b"\xff" * 99])
def test_another_kind_of_file_is_refused(content, refused):
    refused(content)


def test_altered_bytes_are_refused_or_loaded(tmp_path, rng):
    """Whatever stands in the file, load returns a network or raises ValueError."""
    whole, path = bytearray(good().SerializeToString()), tmp_path / "model.onnx"
    for _ in range(300):
        altered = whole.copy()
        for place in rng.integers(0, len(whole), 3):
            altered[place] = rng.integers(256)
        path.write_bytes(altered)
        try:
            load(path)
        except ValueError as error:
            assert str(path) in str(error)


def test_no_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.onnx")


def changed(change):
    """Return the good model after a change."""
    proto = good()
    change(proto.graph)
    return proto


def append_twice(graph):
    graph.initializer.append(graph.initializer[0])


def circle(graph):
    graph.node[0].input[0] = "z"
    graph.node.append(node("Relu", "y", "z"))


def make_twice(graph):
    graph.node.append(node("Relu", "x", "y"))


def lose_numbers(graph):
    graph.initializer[0].raw_data = graph.initializer[0].raw_data[:-8]


def other_shape(graph):
    del graph.initializer[0].dims[:]
    graph.initializer[0].dims.extend([3, 3, 3, 2])
    graph.node[0].attribute.append(onnx.helper.make_attribute("kernel_shape", [3, 3]))


@pytest.mark.parametrize(
    "change, words",
    [
        (append_twice, "'w' is there 2 times"),
        (circle, "a Conv uses 'z', which nothing made before"),
        (make_twice, "a Relu makes 'y', which is there already"),
        (lambda graph: graph.initializer.pop(0), "a Conv uses 'w', which nothing made"),
        (lambda graph: graph.node.pop(0), "nothing makes the output 'y'"),
        (lose_numbers, "w"),
        (other_shape, "kernel_shape=[3, 3], but its weights are (3, 3, 3, 2)"),
    ],
)
def test_a_damaged_graph_is_refused(change, words, refused):
    assert words in refused(changed(change))


def external(proto, location):
    """Move the weights of a model into another file."""
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return proto


def test_weights_beside_the_file_are_read(tmp_path):
    proto = good()
    (tmp_path / "weights.bin").write_bytes(proto.graph.initializer[0].raw_data)
    path = tmp_path / "model.onnx"
    path.write_bytes(external(proto, "weights.bin").SerializeToString())
    y = load(path)(np.ones(X["x"]))
    np.testing.assert_array_equal(y, np.full((1, 3, 4, 4), 19.0))


@pytest.mark.parametrize("where", ["../secret.bin", "link.bin", "none.bin", "/etc/hosts"])
def test_weights_outside_the_folder_are_not_read(where, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    proto = good()
    (tmp_path / "secret.bin").write_bytes(proto.graph.initializer[0].raw_data)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = folder / "model.onnx"
    path.write_bytes(external(proto, where).SerializeToString())
    with pytest.raises(ValueError, match="is not a whole and valid ONNX file"):
        load(path)


def test_half_precision_is_refused_by_its_name(refused):
    proto = model(
        [node("Conv", "x w", "y")],
        X,
        "y",
        {"w": np.ones((3, 2, 3, 3), np.float16)},
        dtype=np.float16,
    )
    assert "w is float16; supported: float32 and float64" in refused(proto)


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.split(".")[0] == "onnx":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.delitem(sys.modules, "onnx", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "onnx>=1\.20"$'):
        load(tmp_path / "model.onnx")
