"""Loaded networks: what they compute, and how they go on learning."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason='needs the extra: pip install "onnx>=1.20"')

from onnx.reference import ReferenceEvaluator

from course.checks import check_layer
from course.fused import Fused
from course.layers import BatchNorm2d, Conv2d, Linear, MaxPool2d, ReLU
from course.onnx import load, save
from course.optimizers import SGD
from course.training import fit
from tests.onnx.files import model, node


@pytest.fixture
def loaded(tmp_path):
    """Return a function that writes a model and loads it."""

    def write_and_load(proto):
        path = tmp_path / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        return load(path)

    return write_and_load


def normal(*shape, seed=1):
    """Return random numbers in float64."""
    return np.random.default_rng(seed).normal(size=shape)


WINDOW = {"kernel_shape": [3, 2], "strides": [2, 1]}
GROWN = {"strides": [2, 2], "output_shape": [9, 8]}
X, ROW = (2, 4, 5, 4), (2, 6)
SINGLE = {  # operator, attributes, shape of x, shapes of what the file holds, operator set
    "conv": ("Conv", {"pads": [1, 0, 0, 2]}, X, [(3, 4, 3, 2), (3,)], 21),
    "conv-no-bias": ("Conv", {"group": 2}, X, [(4, 2, 3, 2)], 21),
    "conv-lower": ("Conv", {"auto_pad": "SAME_LOWER"}, X, [(3, 4, 2, 2), (3,)], 21),
    "conv-1d": ("Conv", {"strides": [2], "pads": [1, 0]}, (2, 4, 5), [(3, 4, 2), (3,)], 21),
    "conv-1d-lower": (
        "Conv",
        {"auto_pad": "SAME_LOWER"},
        (2, 4, 5),
        [(3, 4, 2), (3,)],
        21,
    ),
    "transpose": ("ConvTranspose", {"strides": [2, 1]}, X, [(4, 3, 3, 2), (3,)], 21),
    "transpose-grown": ("ConvTranspose", GROWN, X, [(4, 3, 3, 2), (3,)], 21),
    "transpose-1d": ("ConvTranspose", {"strides": [2]}, (2, 4, 5), [(4, 3, 2)], 21),
    "max": ("MaxPool", WINDOW, X, [], 21),
    "max-1d": ("MaxPool", {"kernel_shape": [2]}, (2, 3, 5), [], 21),
    "max-lower": ("MaxPool", {**WINDOW, "auto_pad": "SAME_LOWER"}, X, [], 21),
    "average": ("AveragePool", {**WINDOW, "ceil_mode": 1}, X, [], 21),
    "average-1d": ("AveragePool", {"kernel_shape": [2]}, (2, 3, 5), [], 21),
    "average-lower": ("AveragePool", {**WINDOW, "auto_pad": "SAME_LOWER"}, X, [], 21),
    "average-gaps": (
        "AveragePool",
        {**WINDOW, "dilations": [1, 2], "pads": [1, 1, 0, 1], "ceil_mode": 1},
        X,
        [],
        21,
    ),
    "global": ("GlobalAveragePool", {}, X, [], 21),
    "global-1d": ("GlobalMaxPool", {}, (2, 3, 5), [], 21),
    "gemm": ("Gemm", {"transB": 1}, ROW, [(3, 6), (3,)], 21),
    "gemm-scaled": ("Gemm", {"alpha": 0.5, "beta": 2.0}, ROW, [(6, 3), (1,)], 21),
    "gemm-across": ("Gemm", {"transA": 1}, ROW, [(2, 3), (6, 1)], 21),
    "matmul": ("MatMul", {}, (2, 3, 6), [(6, 4)], 21),
    "matmul-vector": ("MatMul", {}, (2, 3, 6), [(6,)], 21),
    "matmul-batch": ("MatMul", {}, (2, 1, 3, 6), [(5, 6, 4)], 21),
    "add": ("Add", {}, X, [(4, 1, 1)], 21),
    "add-old": ("Add", {"broadcast": 1, "axis": 1}, X, [(4, 5)], 6),
    "mul": ("Mul", {}, (2, 1, 5, 1), [(3, 1, 4)], 21),
    "batchnorm": ("BatchNormalization", {"epsilon": 0.1}, X, [(4,)] * 4, 21),
    "layernorm": ("LayerNormalization", {"axis": -2}, X, [(5, 4), (5, 4)], 21),
    "layernorm-broadcast": ("LayerNormalization", {"axis": 1}, X, [(5, 4), (4,)], 21),
    "groupnorm": ("GroupNormalization", {"num_groups": 2}, X, [(4,), (4,)], 21),
    "groupnorm-18": ("GroupNormalization", {"num_groups": 2}, X, [(2,), (2,)], 18),
    "lrn": ("LRN", {"size": 3, "alpha": 0.5}, X, [], 21),
    "lrn-even": ("LRN", {"size": 4, "alpha": 0.5, "beta": 0.5, "bias": 2.0}, X, [], 21),
    "relu": ("Relu", {}, X, [], 21),
    "leaky": ("LeakyRelu", {"alpha": 0.2}, X, [], 21),
    "prelu": ("PRelu", {}, X, [(4, 1, 1)], 21),
    "prelu-old": ("PRelu", {}, X, [(4,)], 6),
    "elu": ("Elu", {"alpha": 0.7}, X, [], 21),
    "sigmoid": ("Sigmoid", {}, X, [], 21),
    "tanh": ("Tanh", {}, X, [], 21),
    "softplus": ("Softplus", {}, X, [], 21),
    "softmax": ("Softmax", {"axis": 1}, X, [], 21),
    "softmax-11": ("Softmax", {"axis": 2}, X, [], 11),
    "logsoftmax-11": ("LogSoftmax", {}, X, [], 11),
    "clip-6": ("Clip", {"min": -0.5, "max": 0.7}, X, [], 6),
    "flatten": ("Flatten", {"axis": 2}, X, [], 21),
    "transpose-axes": ("Transpose", {"perm": [2, 0, 3, 1]}, X, [], 21),
    "concat": ("Concat", {"axis": -2}, ROW, [(3, 6)], 21),
    "pad-2": ("Pad", {"pads": [0, 0, 1, -1, 0, 1, 2, 0]}, X, [], 2),
    "pad-reflect": ("Pad", {"mode": "reflect", "pads": [0, 0, 2, 1, 0, 0, 0, 3]}, X, [], 2),
    "mean": ("ReduceMean", {"axes": [1, 3], "keepdims": 0}, X, [], 13),
}


@pytest.mark.parametrize("case", SINGLE.values(), ids=SINGLE.keys())
def test_gradients_are_slopes(case, loaded):
    op, attributes, shape, arrays, opset = case
    held = {f"a{k}": normal(*size, seed=k) for k, size in enumerate(arrays)}
    if op == "BatchNormalization":
        held["a3"] = held["a3"] ** 2 + 0.5  # a variance
    made = node(op, " ".join(["x", *held]), "y", **attributes)
    network = loaded(model([made], {"x": shape}, "y", held, opset))
    learned = network.params.keys() | network.buffers.keys()
    kept = {key for key in learned if not key.endswith("num_batches_tracked")}
    assert kept == (set(held) if op != "Concat" else set())
    check_layer(network, normal(*shape), np.random.default_rng(2))


def forked():
    """Return a model in which values go several ways, and meet again."""
    arrays = {
        "w": normal(4, 4, 3, 3),
        "scale": normal(4, 1, 1),
        "dense": normal(8, 3),
        "bounds": np.array(-0.5),
        "axes": np.array([2, 3]),
    }
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("Conv", "b w", "c", pads=[1, 1, 1, 1]),  # the same weights
        node("Mul", "c scale", "d"),
        node("Add", "d b", "e"),
        node("Concat", "e a", "f", axis=1),
        node("ReduceMean", "f axes", "g", keepdims=0),
        node("Clip", "g bounds", "h"),
        node("MatMul", "h dense", "y"),
        node("Mul", "b b", "z"),
    ]
    return model(nodes, {"x": (2, 4, 4, 3)}, "y z", arrays)


def test_forks_add(loaded):
    """One loss of both outputs, against its slope."""
    network = loaded(forked())
    assert network.params.keys() == {"w", "scale", "dense"}

    class Both(type(network)):
        """The network with its outputs in one array."""

        def forward(self, x):
            self.parts = super().forward(x)
            return np.concatenate([part.ravel() for part in self.parts])

        def backward(self, dy):
            cut = self.parts[0].size
            dys = dy[:cut].reshape(self.parts[0].shape), dy[cut:].reshape(-1)
            return super().backward(dys[0], dys[1].reshape(self.parts[1].shape))

    network.__class__ = Both
    check_layer(network, normal(2, 4, 4, 3), np.random.default_rng(2))


def test_learn_finds_the_gradients_of_backward(loaded):
    network = loaded(forked())
    dy = [normal(*y.shape, seed=5) for y in network(normal(2, 4, 4, 3))]
    network.backward(*dy)
    found = {name: grad.copy() for name, grad in network.grads.items()}
    network.learn(*dy)
    for name, grad in network.grads.items():
        np.testing.assert_array_equal(grad, found[name])


def test_an_output_nobody_uses_has_no_gradient(loaded):
    network = loaded(forked())
    y, z = network(normal(2, 4, 4, 3))
    dx = network.backward(np.ones_like(y), None)
    np.testing.assert_array_equal(dx, network.backward(np.ones_like(y), np.zeros_like(z)))


def test_forks_compute_what_onnx_says(loaded):
    x = normal(2, 4, 4, 3)
    proto = forked()
    for ours, theirs in zip(
        loaded(proto)(x), ReferenceEvaluator(proto).run(None, {"x": x}), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def small(rng):
    """Return a model of the usual layers for images of 1 x 8 x 8."""
    arrays = {
        "conv.weight": rng.normal(size=(4, 1, 3, 3)),
        "conv.bias": np.zeros(4),
        "bn.scale": np.ones(4),
        "bn.shift": np.zeros(4),
        "bn.mean": np.zeros(4),
        "bn.var": np.ones(4),
        "fc.weight": rng.normal(size=(3, 64)) / 8,
        "fc.bias": np.zeros(3),
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    nodes = [
        node("Conv", "x conv.weight conv.bias", "c", pads=[1] * 4),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("BatchNormalization", "p bn.scale bn.shift bn.mean bn.var", "n"),
        node("Flatten", "n", "f"),
        node("Gemm", "f fc.weight fc.bias", "y", transB=1),
    ]
    return model(nodes, {"x": ("N", 1, 8, 8)}, "y", arrays, dtype=np.float32)


def test_nodes_become_our_layers_and_run_as_one(loaded, rng):
    network = loaded(small(rng))
    kinds = [type(layer) for layer in network]
    assert [k for k in kinds if k in (Conv2d, ReLU, MaxPool2d, BatchNorm2d, Linear)] == [
        *(Conv2d, ReLU, MaxPool2d, BatchNorm2d, Linear)
    ]
    assert len(kinds) == 6
    (run,) = network._runs
    assert type(run.layer._steps[0]) is Fused
    assert not network.training and not any(layer.training for layer in network)


def test_a_loaded_network_goes_on_learning(loaded, rng, tmp_path):
    """Three classes: where the bright quarter is."""
    t = rng.integers(0, 3, 150)
    x = rng.normal(0, 0.3, (150, 1, 8, 8)).astype(np.float32)
    for image, label in zip(x, t, strict=True):
        row, column = divmod(int(label), 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1
    network = loaded(small(rng))
    before = {name: array.copy() for name, array in network.state_dict().items()}
    history = fit(
        network.train(),
        x,
        t,
        epochs=4,
        batch_size=10,
        optimizer=SGD(0.05, momentum=0.9),
        seed=0,
        progress=False,
    )
    assert history.train_loss[0] > 0.1 and history.train_loss[-1] < 0.05
    for name, array in network.state_dict().items():
        assert not np.array_equal(array, before[name]), f"{name} has not changed"
    save(network, tmp_path / "tuned.onnx")
    np.testing.assert_array_equal(load(tmp_path / "tuned.onnx")(x), network.eval()(x))


def test_weights_are_saved_under_the_names_of_the_file(loaded, rng, tmp_path):
    one, other = loaded(small(rng)), loaded(small(rng))
    x = rng.normal(size=(2, 1, 8, 8)).astype(np.float32)
    assert not np.array_equal(one(x), other(x))
    one.save(tmp_path / "weights.safetensors")
    other.load(tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(one(x), other(x))
    assert {"conv.weight", "fc.bias", "bn.mean"} <= one.state_dict().keys()


def test_a_trace_sees_every_node(loaded, rng):
    network = loaded(small(rng))
    x = rng.normal(size=(2, 1, 8, 8)).astype(np.float32)
    seen = network.trace(x)
    assert [step.name for step in seen] == list("crpnfy")
    np.testing.assert_array_equal(seen[-1].y, network(x))


def test_a_file_for_one_image_takes_a_batch(loaded):
    arrays = {"shape": np.array([1, 12]), "w": normal(12, 3)}
    nodes = [node("Reshape", "x shape", "r"), node("MatMul", "r w", "y")]
    network = loaded(model(nodes, {"x": (1, 3, 2, 2)}, "y", arrays))
    x = normal(5, 3, 2, 2)
    alone = np.concatenate([network(x[k : k + 1]) for k in range(5)])
    np.testing.assert_allclose(network(x), alone, rtol=1e-12)


def test_operators_on_constants_are_computed_once(loaded):
    """The shape of a Reshape, and a weight that the file transposes."""
    arrays = {"one": np.array([0]), "two": np.array([-1]), "w": normal(3, 8)}
    nodes = [
        node("Concat", "one two", "shape", axis=0),
        node("Reshape", "x shape", "r"),
        node("Transpose", "w", "wt"),
        node("MatMul", "r wt", "y"),
    ]
    network = loaded(model(nodes, {"x": ("N", 2, 4)}, "y", arrays))
    assert len(list(network)) == 2 and network.params.keys() == {"wt"}
    x = normal(5, 2, 4)
    np.testing.assert_allclose(network(x), x.reshape(5, 8) @ arrays["w"].T, rtol=1e-12)


def test_a_sum_after_a_convolution_becomes_its_bias(loaded):
    arrays = {"w": normal(3, 2, 3, 3), "b": normal(3, 1, 1)}
    nodes = [node("Conv", "x w", "c"), node("Add", "c b", "s"), node("Relu", "s", "y")]
    proto = model(nodes, {"x": (2, 2, 5, 5)}, "y", arrays)
    network = loaded(proto)
    assert [type(layer) for layer in network] == [Conv2d, ReLU]
    assert network.params.keys() == {"w", "b"}
    x = normal(2, 2, 5, 5)
    theirs = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    np.testing.assert_allclose(network(x), theirs, rtol=1e-9)


@pytest.mark.parametrize(
    "x, words",
    [
        ([np.zeros((2, 1, 8, 8))], "x has dtype float64; this network takes float32"),
        ([np.zeros((2, 1, 8, 9), np.float32)], r"it must be \(N, 1, 8, 8\)"),
        ([np.zeros((1, 8, 8), np.float32)], r"it must be \(N, 1, 8, 8\)"),
        ([[[1.0]]], "x is a list; it must be a NumPy array"),
        ([], r"has 1 inputs \(x\), not 0"),
        ([np.zeros((2, 1, 8, 8), np.float32)] * 2, "not 2"),
    ],
)
def test_wrong_inputs_are_refused(x, words, loaded, rng):
    network = loaded(small(rng))
    with pytest.raises((TypeError, ValueError), match=words):
        network(*x)


def test_backward_before_forward_is_refused(loaded, rng):
    with pytest.raises(RuntimeError, match="call forward first"):
        loaded(small(rng)).backward(np.zeros((2, 3), np.float32))


def test_an_error_names_the_layer(loaded):
    nodes = [node("Relu", "x", "r"), node("MaxPool", "r", "y", kernel_shape=[9, 9])]
    network = loaded(model(nodes, {"x": ("N", "C", "H", "W")}, "y"))
    with pytest.raises(ValueError, match=r"y: a window that spans 9 pixels"):
        network(np.zeros((1, 1, 4, 4)))
