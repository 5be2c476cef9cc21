"""course/operations.py: every function stands in a graph, and so does every network."""

import gc
import inspect
import weakref

import numpy as np
import pytest

import course.layers
import course.losses
from course import operations
from course.checks import slope
from course.fused import Fused
from course.graph import Variable
from course.layers import (
    BatchNorm2d,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    ResidualSum,
)
from course.losses import softmax_cross_entropy
from course.model import Branches, Residual, Sequential
from course.operations import OPERATIONS, layer
from course.optimizers import SGD

IMAGES, ROWS = (2, 4, 5, 6), (3, 6)
ODD = (1, 2), (0, 1)
T = np.array([2, 0, 5])
Q = np.full((3, 6), 1 / 6)

# For each operation the shapes of what gets a gradient, and what else it is given.
EXAMPLES = {
    "avgpool2d": ([IMAGES], {"kernel_size": 2, "stride": 1, "padding": 1}),
    "batchnorm": (
        [IMAGES, (4,), (4,)],
        {"running_mean": np.zeros(4), "running_var": np.ones(4), "training": True},
    ),
    "conv1d": ([(2, 4, 7), (6, 2, 3), (6,)], {"groups": 2, "padding": 1, "stride": 2}),
    "conv2d": ([IMAGES, (6, 2, 3, 2), (6,)], {"groups": 2, "padding": ODD, "stride": 2}),
    "conv_transpose2d": ([IMAGES, (4, 3, 2, 3), (3,)], {"stride": 2, "output_padding": 1}),
    "dropout": ([ROWS], {"p": 0.4, "seed": 3, "step": 5}),
    "dropout2d": ([IMAGES], {"p": 0.4, "seed": 3}),
    "elu": ([ROWS], {"alpha": 0.5}),
    "flatten": ([IMAGES], {}),
    "gelu": ([ROWS], {"approximate": "tanh"}),
    "global_avgpool2d": ([IMAGES], {}),
    "global_maxpool2d": ([IMAGES], {}),
    "groupnorm": ([IMAGES, (4,), (4,)], {"num_groups": 2}),
    "instancenorm": ([IMAGES, (4,), (4,)], {"eps": 0.1}),
    "layernorm": ([IMAGES, (5, 6), (5, 6)], {}),
    "leaky_relu": ([ROWS], {"negative_slope": 0.3}),
    "linear": ([ROWS, (5, 6), (5,)], {}),
    "local_response_norm": ([IMAGES], {"size": 3, "alpha": 0.5}),
    "locally_connected2d": ([IMAGES, (3, 4, 2, 3, 4, 4), (3, 4, 4)], {}),
    "log_softmax": ([IMAGES], {"dim": 2}),
    "lppool2d": ([IMAGES], {"norm_type": 2, "kernel_size": 2}),
    "maxout": ([ROWS], {"pieces": 3}),
    "maxpool2d": ([IMAGES], {"kernel_size": 3, "stride": 2, "padding": 1}),
    "prelu": ([IMAGES, (4,)], {}),
    "relu": ([ROWS], {}),
    "reshape": ([IMAGES], {"shape": (6, -1)}),
    "residual_sum": ([ROWS, ROWS], {}),
    "sigmoid": ([ROWS], {}),
    "silu": ([ROWS], {}),
    "softmax": ([ROWS], {"dim": 0}),
    "softplus": ([ROWS], {"beta": 2}),
    "subsampling2d": ([(2, 4, 6, 6), (4,), (4,)], {"kernel_size": 2}),
    "tanh": ([ROWS], {}),
    "upsample": ([IMAGES], {"scale_factor": 2, "mode": "bilinear"}),
    "zeropad2d": ([IMAGES], {"padding": ODD}),
    "binary_cross_entropy_with_logits": ([ROWS], {"t": Q, "pos_weight": 2.0}),
    "kl_divergence": ([ROWS], {"p": Q}),
    "mean_squared_error": ([ROWS], {"t": Q}),
    "multiclass_hinge": ([ROWS], {"labels": T, "margin": 0.3}),
    "perceptron_loss": ([ROWS], {"labels": T}),
    "softmax_cross_entropy": ([ROWS], {"labels": T, "label_smoothing": 0.1}),
}


def functions():
    """Return the name of every function of the two packages, a pair as one."""
    pairs = {name.rpartition("_")[0] for name in course.layers.__all__ if "ward" in name}
    return pairs | set(course.losses.__all__)


def numbers(shape, rng):
    """Return numbers from -2 to 2, no two alike and none near 0: no step meets a kink."""
    count = int(np.prod(shape))
    found = (rng.permutation(count) + 0.25) * 3.8 / count - 1.9
    return (found + np.copysign(0.1, found)).reshape(shape)


def images(rng, dtype=np.float64, shape=IMAGES):
    return rng.normal(size=shape).astype(dtype)


def test_every_function_is_an_operation_with_an_example():
    assert functions() == OPERATIONS.keys() == EXAMPLES.keys() | {"concat"}
    for name, operation in OPERATIONS.items():
        assert getattr(operations, name) is operation


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_operation_is_the_function_and_its_gradient_the_slope(name, rng):
    shapes, settings = EXAMPLES[name]
    pure = getattr(course.layers, f"{name}_forward", None) or getattr(course.losses, name)
    names = [key for key in inspect.signature(pure).parameters if key not in settings]
    arrays = {key: numbers(s, rng) for key, s in zip(names, shapes, strict=False)}
    leaves = {key: Variable(a) for key, a in arrays.items()}
    y = OPERATIONS[name](**leaves, **settings)

    def value():
        found = pure(**arrays, **settings)
        return found[0] if isinstance(found, tuple) else found

    np.testing.assert_array_equal(y.value, value())
    r = rng.normal(size=y.shape)
    y.backward(r)
    for key, a in arrays.items():
        expected = slope(lambda: np.sum(value() * r), a)
        np.testing.assert_allclose(leaves[key].grad, expected, 1e-7, 1e-7, err_msg=key)


def test_a_concatenation_is_taken_apart_again(rng):
    a, b = Variable(images(rng)), Variable(images(rng, shape=(2, 1, 5, 6)))
    dy = images(rng, shape=(2, 9, 5, 6))
    operations.concat([a, b, a]).backward(dy)
    np.testing.assert_array_equal(a.grad, dy[:, 5:] + dy[:, :4])
    np.testing.assert_array_equal(b.grad, dy[:, 4:5])


def test_arguments_that_are_left_out_need_no_gradient(rng):
    x, w = Variable(images(rng)), Variable(rng.normal(size=(3, 4, 2, 2)))
    assert [e.argument for e in operations.conv2d(x, w).edges] == ["x", "w"]
    y = operations.batchnorm(x, None, None, None, None, True)
    y.backward(images(rng))
    assert x.grad.shape == IMAGES


def test_the_gradient_of_a_constant_image_is_not_computed(rng):
    """And those of the weights are the same, bit for bit."""
    x, grads = images(rng, np.float32), []
    for pixels in (x, Variable(x)):
        w = Variable(rng.normal(size=(3, 4, 2, 2)).astype(np.float32) * 0 + 0.5)
        operations.conv2d(pixels, w).sum().backward()
        grads.append(w.grad)
    np.testing.assert_array_equal(*grads)


@pytest.mark.parametrize(
    "refuse, error, says",
    [
        (lambda x: operations.conv2d(x, np.ones((3, 2, 2, 2))), ValueError, "conv2d: "),
        (lambda x: operations.conv2d(x, x, wide=3), TypeError, "conv2d: .*'wide'"),
        (lambda x: operations.relu(Variable(np.array([1]))), TypeError, "relu: .* int64"),
        (lambda x: operations.concat([x, x[:1]]), ValueError, r"concat: x\[1\] .*\(1, 4"),
        (
            lambda x: operations.mean_squared_error(x, x),
            TypeError,
            r"mean_squared_error: t gets no gradient here: t.detach\(\)",
        ),
        (
            lambda x: layer(Linear(3, 2, rng=np.random.default_rng(0)), x),
            ValueError,
            "Linear: ",
        ),
    ],
)
def test_errors_name_the_operation(refuse, error, says, rng):
    with pytest.raises(error, match=says):
        refuse(Variable(images(rng)))


# --- blocks: the graph and the containers agree bit for bit -------------------------------

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def conv(inputs, outputs, size, dtype, stride=1):
    new = {"rng": np.random.default_rng([inputs, outputs, size]), "dtype": dtype}
    return Conv2d(inputs, outputs, size, stride, size // 2, bias=False, **new)


def body(outputs, stride, dtype):
    return Sequential(
        conv1=conv(4, outputs, 3, dtype, stride),
        bn1=BatchNorm2d(outputs, dtype=dtype),
        relu=ReLU(),
        conv2=conv(outputs, outputs, 3, dtype),
        bn2=BatchNorm2d(outputs, dtype=dtype),
    )


def chain(layers, x):
    for one in layers:
        x = layer(one, x)
    return x


def same(model, twin, x, y, dy):
    """Compare a model with a graph of the same layers: values, gradients, buffers."""
    np.testing.assert_array_equal(model.forward(x.value.copy()), y.value)
    y.backward(dy)
    np.testing.assert_array_equal(model.backward(dy), x.grad)
    for dicts in ((model.grads, twin.grads), (model.buffers, twin.buffers)):
        assert dicts[0].keys() == dicts[1].keys() and dicts[0]
        for key, array in dicts[0].items():
            np.testing.assert_array_equal(array, dicts[1][key], err_msg=key)


@DTYPES
@pytest.mark.parametrize("outputs, stride", [(4, 1), (6, 2)])
def test_a_residual_block(outputs, stride, dtype, rng):
    def block():
        around = None
        if stride > 1:
            around = Sequential(conv(4, 6, 1, dtype, 2), BatchNorm2d(6, dtype=dtype))
        return Residual(body(outputs, stride, dtype), around, ReLU())

    model, twin = block(), block()
    x = Variable(images(rng, dtype, (3, 4, 8, 8)))
    around = x if twin.shortcut is None else chain(twin.shortcut, x)
    y = operations.relu(operations.residual_sum(chain(twin.body, x), around))
    same(model, twin, x, y, rng.normal(size=y.shape).astype(dtype))


@DTYPES
def test_an_inception_block(dtype, rng):
    def block():
        def unit(*layers):
            return [
                *layers,
                BatchNorm2d(layers[-1].params["weight"].shape[0], dtype=dtype),
                ReLU(),
            ]

        return Branches(
            Sequential(*unit(conv(4, 3, 1, dtype))),
            Sequential(*unit(conv(4, 2, 1, dtype)), *unit(conv(2, 5, 3, dtype))),
            Sequential(*unit(conv(4, 2, 1, dtype)), *unit(conv(2, 3, 5, dtype))),
            Sequential(MaxPool2d(3, 1, 1), *unit(conv(4, 2, 1, dtype))),
        )

    model, twin = block(), block()
    x = Variable(images(rng, dtype, (3, 4, 8, 8)))
    y = operations.concat([chain(branch, x) for branch in twin])
    same(model, twin, x, y, rng.normal(size=y.shape).astype(dtype))


def network(dtype=np.float32):
    """Return a network with everything in it that remembers."""
    rng = np.random.default_rng(7)
    return Sequential(
        stem=Conv2d(4, 4, 3, padding=1, rng=rng, dtype=dtype),
        relu=ReLU(),
        pool=MaxPool2d(2),
        block=Residual(body(4, 1, dtype), after=ReLU()),
        branches=Branches(conv(4, 2, 1, dtype), Sequential(conv(4, 3, 3, dtype), ReLU())),
        drop=Dropout(0.3, rng=np.random.default_rng(1)),
        flat=Flatten(),
        fc=Linear(80, 6, rng=rng, dtype=dtype),
    )


@DTYPES
@pytest.mark.parametrize("whole", [True, False])
def test_a_network_as_one_layer_or_as_its_layers(whole, dtype, rng):
    model, twin = network(dtype), network(dtype)
    assert any(isinstance(step, Fused) for step in vars(twin)["_steps"])
    x = Variable(images(rng, dtype, (3, 4, 8, 8)))
    y = layer(twin, x) if whole else chain(twin, x)
    same(model, twin, x, y, rng.normal(size=y.shape).astype(dtype))


def test_training_through_the_graph_is_training(rng):
    """Three steps with momentum, of the network alone and in a graph: the same bits."""
    model, twin = network(), network()
    ours, theirs = SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.9)
    for _ in range(3):
        x, t = images(rng, np.float32, (3, 4, 8, 8)), rng.integers(6, size=3)
        loss, ds = softmax_cross_entropy(model.forward(x), t)
        model.learn(ds)
        ours.step(model.layers)
        in_graph = operations.softmax_cross_entropy(layer(twin, x), t)
        in_graph.backward()
        theirs.step(twin.layers)
        assert in_graph.value == np.float32(loss)
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[key], err_msg=key)


# --- what a layer remembers ---------------------------------------------------------------


def test_a_layer_of_several_inputs(rng):
    a, b = Variable(images(rng)), Variable(images(rng))
    y = layer(Concat(), layer(ResidualSum(), a, b), a)
    dy = rng.normal(size=y.shape)
    y.backward(dy)
    np.testing.assert_array_equal(a.grad, dy[:, 4:] + dy[:, :4])
    np.testing.assert_array_equal(b.grad, dy[:, :4])


def test_a_layer_that_is_used_twice_gets_both_gradients(rng):
    shared, x = Linear(6, 6, rng=rng, dtype=np.float64), rng.normal(size=ROWS)

    def loss():
        return np.sum(shared.forward(np.tanh(shared.forward(x))) ** 2)

    expected = {key: slope(loss, array) for key, array in shared.params.items()}
    (layer(shared, operations.tanh(layer(shared, x))) ** 2).sum().backward()
    for key, array in expected.items():
        np.testing.assert_allclose(shared.grads[key], array, 1e-6, 1e-6)


@pytest.mark.parametrize("whole", [True, False])
def test_a_network_may_run_between_forward_and_backward(whole, rng):
    """As for a validation in between: the graph has kept what it needs."""
    model, twin = network(), network()
    x = Variable(images(rng, np.float32, (3, 4, 8, 8)))
    y = layer(twin, x) if whole else chain(twin, x)
    state = {key: array.copy() for key, array in twin.buffers.items()}
    twin.eval().forward(images(rng, np.float32, (5, 4, 8, 8)))
    twin.train()
    for key, array in state.items():
        np.testing.assert_array_equal(array, twin.buffers[key])
    same(model, twin, x, y, rng.normal(size=y.shape).astype(np.float32))


def test_a_layer_still_knows_its_own_last_run(rng):
    relu, first, last = ReLU(), *(rng.normal(size=ROWS) for _ in range(2))
    y = layer(relu, Variable(first))
    relu.forward(last)
    y.backward(np.ones(ROWS))
    np.testing.assert_array_equal(relu.backward(np.ones(ROWS)), last > 0)


def test_a_step_between_forward_and_backward_is_found(rng):
    model, x = network(), images(rng, np.float32, (3, 4, 8, 8))
    model.learn(np.ones_like(model.forward(x)))
    loss = layer(model, x).sum()
    SGD(0.1).step(model.layers)
    with pytest.raises(RuntimeError, match=r"'weight'\) was changed in place after Seq"):
        loss.backward()


def test_weights_that_are_replaced_between_forward_and_backward_are_found(rng):
    linear = Linear(6, 5, rng=rng, dtype=np.float64)
    loss = layer(linear, Variable(rng.normal(size=ROWS))).sum()
    linear.params["weight"] = linear.params["weight"] * 2
    with pytest.raises(RuntimeError, match="a parameter of Linear was replaced"):
        loss.backward()


def test_a_layer_whose_weights_are_read_only_gets_both_gradients():
    shared = Linear(1, 1, bias=False, rng=np.random.default_rng(0), dtype=np.float64)
    shared.params["weight"] = np.broadcast_to(3.0, (1, 1))
    layer(shared, layer(shared, np.array([[2.0]]))).backward()
    assert shared.grads["weight"] == 2 * 3 * 2


def test_a_graph_keeps_no_layer_alive(rng):
    gc.collect()
    gc.disable()
    try:
        linear = Linear(6, 5, rng=rng, dtype=np.float64)
        kept = weakref.ref(linear)
        y = layer(linear, rng.normal(size=ROWS)).sum()
        del linear
        assert kept() is not None, "the graph needs it"
        y.backward()
        assert kept() is None
    finally:
        gc.enable()


def test_a_layer_of_a_reader(rng):
    class Square(Layer):
        def forward(self, x):
            self.x = x
            return x * x

        def backward(self, dy):
            return 2 * self.x * dy

    x, square = Variable(np.array([3.0])), Square()
    layer(square, layer(square, x)).backward()
    assert x.grad == 4 * 3**3
