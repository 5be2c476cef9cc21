"""Loaded networks: what they compute, and how they go on learning."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason='needs the extra: pip install "onnx>=1.20"')

from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from course.checks import check_layer, slope
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
X, ROW, X1000 = (2, 4, 5, 4), (2, 6), {"x": (1, 1000)}
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


def test_a_sum_of_constants_is_one_constant(loaded):
    """And not one array under one key that stands for both."""
    arrays = {"a": normal(3, seed=1), "b": normal(3, seed=2)}
    nodes = [node("Add", "a b", "c"), node("Mul", "x c", "y")]
    network = loaded(model(nodes, {"x": (3,)}, "y", arrays))
    assert network.params.keys() == {"c"}
    np.testing.assert_allclose(network(np.ones(3)), arrays["a"] + arrays["b"])


def test_what_no_operator_learns_is_a_constant(loaded):
    arrays = {"a": normal(3, seed=1), "b": normal(3, seed=2)}
    nodes = [
        node("Relu", "a", "r"),
        node("Add", "x r", "s"),
        node("Concat", "s b b", "y", axis=0),
    ]
    network = loaded(model(nodes, {"x": (3,)}, "y", arrays))
    assert not network.params
    y = np.concatenate([1 + np.maximum(arrays["a"], 0), arrays["b"], arrays["b"]])
    np.testing.assert_allclose(network(np.ones(3)), y)
    np.testing.assert_array_equal(network.backward(np.ones(9)), np.ones(3))


def test_inputs_and_outputs_left_out_at_the_end(loaded):
    arrays = {"w": normal(3, 2, 3, 3)}
    nothing, x, y = ("", " -", " - -"), normal(2, 2, 5, 5), []
    for one, two in (nothing[:2], nothing[1:]):
        nodes = [
            node("Conv", f"x w{one}", "c"),
            node("MaxPool", "c", f"p{one}", kernel_shape=[2, 2]),
            node("Clip", f"p{two}", "y"),
        ]
        y.append(loaded(model(nodes, {"x": x.shape}, "y", arrays))(x))
    assert y[0].shape == (2, 3, 2, 2)
    np.testing.assert_array_equal(*y)


@pytest.mark.parametrize("as_constant", [False, True])
def test_a_sum_after_a_convolution_becomes_its_bias(as_constant, loaded, tmp_path):
    arrays = {"w": normal(3, 2, 3, 3), "b": normal(3, 1, 1)}
    nodes = [node("Conv", "x w", "c"), node("Add", "c b", "s"), node("Relu", "s", "y")]
    if as_constant:
        value = numpy_helper.from_array(arrays.pop("b"))
        nodes.insert(0, node("Constant", "", "b", value=value))
    proto = model(nodes, {"x": (2, 2, 5, 5)}, "y", arrays)
    network = loaded(proto)
    assert [type(layer) for layer in network] == [Conv2d, ReLU]
    assert network.params.keys() == {"w", "b"}
    x = normal(2, 2, 5, 5)
    theirs = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    np.testing.assert_allclose(network(x), theirs, rtol=1e-9)
    save(network, tmp_path / "again.onnx")
    np.testing.assert_array_equal(load(tmp_path / "again.onnx")(x), network(x))


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


@pytest.mark.parametrize(
    "form, y",
    [
        ({"value_float": 2.0}, [2.0, 4.0, 6.0]),
        ({"value_floats": [1.0, 0.0, 2.0]}, [1.0, 0.0, 6.0]),
        ({"value": numpy_helper.from_array(np.float32([3, 2, 1]))}, [3.0, 4.0, 3.0]),
        (
            {
                "sparse_value": helper.make_sparse_tensor(
                    numpy_helper.from_array(np.float32([5])),
                    numpy_helper.from_array(np.array([1])),
                    [3],
                )
            },
            [0.0, 10.0, 0.0],
        ),
    ],
)
def test_every_form_of_a_constant_is_read(form, y, loaded):
    nodes = [node("Constant", "", "c", **form), node("Mul", "x c", "y")]
    network = loaded(model(nodes, {"x": (3,)}, "y", dtype=np.float32))
    np.testing.assert_array_equal(network(np.float32([1, 2, 3])), np.float32(y))


def test_whole_numbers_of_a_constant_are_read(loaded):
    nodes = [
        node("Constant", "", "c", value_ints=[3, 2]),
        node("Reshape", "x c", "r"),
        node("Constant", "", "axis", value_int=1),
        node("ReduceMean", "r axis", "y", keepdims=0),
    ]
    network = loaded(model(nodes, {"x": (2, 3)}, "y"))
    y = network(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(y, [0.5, 2.5, 4.5])


def test_dropout_drops_only_while_the_network_learns(loaded):
    arrays = {"p": np.array(0.25, np.float32)}
    proto = model([node("Dropout", "x p", "y")], {"x": (1, 1000)}, "y", arrays)
    network, x = loaded(proto), np.ones((1, 1000))
    np.testing.assert_array_equal(network(x), x)
    y = network.train()(x)
    assert set(np.unique(y)) == {0.0, 4 / 3} and 650 < np.count_nonzero(y) < 850
    np.testing.assert_array_equal(network.backward(x), y)
    np.testing.assert_array_equal(network.eval()(x), x)


def test_a_dropout_that_always_drops(loaded):
    """The file itself says that it is training, and shows the mask."""
    arrays = {"p": np.array(0.25, np.float32), "on": np.array(True)}
    proto = model([node("Dropout", "x p on", "y mask", seed=3)], X1000, "y", arrays)
    network, x = loaded(proto), np.ones((1, 1000))
    y = network(x)
    assert set(np.unique(y)) == {0.0, 4 / 3} and 650 < np.count_nonzero(y) < 850
    assert not np.array_equal(network(x), y), "the next mask is another"
    np.testing.assert_array_equal(loaded(proto)(x), y)


def test_batch_statistics_come_out_of_a_file_that_trains(loaded):
    """And there is a gradient through y, but none through them."""
    held = {"w": normal(3), "b": normal(3), "mean": normal(3), "var": normal(3) ** 2}
    made = node("BatchNormalization", "x w b mean var", "y m v", training_mode=1)
    x = normal(4, 3, 2, 2)
    network = loaded(model([made], {"x": x.shape}, "y m v", held))
    y, m, v = network(x)
    mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    np.testing.assert_allclose(m, 0.9 * held["mean"] + 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(v, 0.9 * held["var"] + 0.1 * var, rtol=1e-6)
    normed = (x - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
    right = normed * held["w"][:, None, None] + held["b"][:, None, None]
    np.testing.assert_allclose(y, right, rtol=1e-6)
    network.backward(np.ones_like(y), None, None)
    np.testing.assert_allclose(network.grads["b"], np.full(3, 16.0))
    with pytest.raises(ValueError, match="no gradient but that of its first output"):
        network.backward(np.ones_like(y), np.ones_like(m), None)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (1, 5, 3), (2, 3, 1, 1)])
def test_another_sum_after_a_convolution_stays_one(shape, loaded):
    arrays = {"w": normal(3, 2, 1, 1), "b": normal(*shape)}
    nodes = [node("Conv", "x w", "c"), node("Add", "c b", "y")]
    proto = model(nodes, {"x": (2, 2, 5, 3)}, "y", arrays)
    x = normal(2, 2, 5, 3)
    theirs = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    np.testing.assert_allclose(loaded(proto)(x), theirs, rtol=1e-9)


def test_an_old_softmax_is_one_over_all_axes_from_its_own(loaded):
    """Until operator set 12; from 13 on over that axis alone."""
    x = normal(2, 3, 4)
    made = [node("Softmax", "x", "y", axis=1)]
    old, new = (
        loaded(model(made, {"x": x.shape}, "y", opset=opset))(x) for opset in (12, 13)
    )
    powers = np.exp(x)
    np.testing.assert_allclose(old, powers / powers.sum(axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(new, powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("op", ["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"])
def test_gradients_of_losses_are_slopes(op, reduction, loaded):
    labels = np.array([[0, 2, -1], [1, 1, 2]])
    held = {"t": labels, "w": np.array([0.5, 2.0, 1.0])}
    made = node(op, "x t w", "y", reduction=reduction, ignore_index=-1)
    x = normal(2, 3, 3)
    network = loaded(model([made], {"x": x.shape}, "y", held))
    r = np.asarray(normal(*network(x).shape, seed=4))
    dx = network.backward(r)
    np.testing.assert_allclose(
        dx, slope(lambda: np.sum(network(x) * r), x), rtol=1e-7, atol=1e-7
    )
    assert not dx[0, :, 2].any(), "the label -1 is passed over"


@pytest.mark.parametrize("padding_counts", [0, 1])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_an_average_with_gaps_by_its_definition(padding_counts, ceil_mode, loaded):
    """Taps in the image are added up; those in the padding count, if the file says so."""
    x, (top, left, bottom, right) = normal(2, 3, 6, 7), (1, 2, 2, 1)
    made = node(
        *("AveragePool", "x", "y"),
        kernel_shape=[2, 3],
        strides=[3, 2],
        dilations=[3, 2],
        pads=[top, left, bottom, right],
        ceil_mode=ceil_mode,
        count_include_pad=padding_counts,
    )
    y = loaded(model([made], {"x": x.shape}, "y"))(x)
    assert y.shape[2:] == ((3, 4) if ceil_mode else (2, 3))
    for i, j in np.ndindex(y.shape[2:]):
        total, count = np.zeros((2, 3)), 0
        for p, q in (
            (3 * i + 3 * u - top, 2 * j + 2 * v - left) for u, v in np.ndindex(2, 3)
        ):
            inside = 0 <= p < 6 and 0 <= q < 7
            total += x[:, :, p, q] if inside else 0
            framed = p < 6 + bottom and q < 7 + right
            count += framed if padding_counts else inside
        np.testing.assert_allclose(y[:, :, i, j], total / count, rtol=1e-12)


@pytest.mark.parametrize("op, axis", [("ReduceMean", 4), ("Flatten", -6), ("Concat", 4)])
def test_an_axis_that_is_not_there_is_refused(op, axis, loaded):
    """And never counted round: axis 4 of four is not axis 0."""
    axes = {"axes": [axis]} if op == "ReduceMean" else {"axis": axis}
    inputs = "x x" if op == "Concat" else "x"
    made = helper.make_node(op, inputs.split(), ["y"], **axes)
    proto = model([node("Relu", "x", "y")], {"x": ("N", "C", "H", "W")}, "y", opset=13)
    proto.graph.node[0].CopyFrom(made)
    with pytest.raises(ValueError, match="axis"):
        loaded(proto)(np.zeros((1, 2, 3, 4)))


def test_an_error_names_the_layer(loaded):
    nodes = [node("Relu", "x", "r"), node("MaxPool", "r", "y", kernel_shape=[9, 9])]
    network = loaded(model(nodes, {"x": ("N", "C", "H", "W")}, "y"))
    with pytest.raises(ValueError, match=r"y: a window that spans 9 pixels"):
        network(np.zeros((1, 1, 4, 4)))
