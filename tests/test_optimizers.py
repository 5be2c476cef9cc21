"""course/optimizers.py: the equations by hand, and PyTorch where it is installed."""

import re
from copy import deepcopy

import numpy as np
import pytest
from numba import jit

from course import device
from course.layers import BatchNorm2d
from course.layers.base import Layer
from course.optimizers import SGD, Adam


def layer_of(**params):
    """Return a layer that holds these parameters."""
    layer = Layer()
    layer.params = params
    return layer


def test_plain_step_goes_down_the_gradient():
    layer = layer_of(weight=np.array([1.0, 2.0]))
    layer.grads = {"weight": np.array([10.0, -20.0])}
    SGD(0.1).step([layer])
    np.testing.assert_allclose(layer.params["weight"], [0.0, 4.0], atol=1e-15)


def test_three_steps_of_momentum_by_hand():
    """m: 1, 1.5, 1.75 with gradients of 1; w falls by 0.1 of each."""
    layer = layer_of(weight=np.array([1.0]))
    optimizer = SGD(0.1, momentum=0.5)
    for expected in (0.9, 0.75, 0.575):
        layer.grads = {"weight": np.ones(1)}
        optimizer.step([layer])
        np.testing.assert_allclose(layer.params["weight"], expected)


def test_biases_do_not_decay():
    layer = layer_of(weight=np.ones(1), bias=np.ones(1))
    layer.grads = {"weight": np.zeros(1), "bias": np.zeros(1)}
    SGD(0.1, weight_decay=0.5).step([layer])
    np.testing.assert_allclose(layer.params["weight"], 0.95)
    np.testing.assert_allclose(layer.params["bias"], 1.0)


@pytest.mark.parametrize("momentum, decay", [(0.0, 0.0), (0.9, 0.0), (0.9, 0.01)])
def test_a_hundred_steps_are_those_of_pytorch(momentum, decay, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    start, gradients = rng.normal(size=7), rng.normal(size=(100, 7))
    theirs = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.SGD([theirs], 0.03, momentum, weight_decay=decay)
    layer, mine = layer_of(weight=start.copy()), SGD(0.03, momentum, decay)
    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        layer.grads = {"weight": gradient}
        mine.step([layer])
    np.testing.assert_allclose(layer.params["weight"], theirs.detach(), 0, 1e-10)


def test_two_steps_of_adam_by_hand():
    """Gradients 1 and 3: m = 0.1, 0.39; v = 0.01, 0.0999 with betas 0.9 and 0.99.

    Step 1: m/(1 - 0.9) = 1, v/(1 - 0.99) = 1, so w falls by the whole rate.
    Step 2: m/(1 - 0.81) = 39/19, v/(1 - 0.9801) = 999/199.
    """
    layer = layer_of(weight=np.array([1.0]))
    optimizer = Adam(0.1, betas=(0.9, 0.99), eps=1e-12)
    layer.grads = {"weight": np.ones(1)}
    optimizer.step([layer])
    np.testing.assert_allclose(layer.params["weight"], 0.9)
    layer.grads = {"weight": np.full(1, 3.0)}
    optimizer.step([layer])
    fall = 0.1 * (39 / 19) / (999 / 199) ** 0.5
    np.testing.assert_allclose(layer.params["weight"], 0.9 - fall)


def test_first_step_of_adam_is_the_learning_rate_however_large_the_gradient(rng):
    for scale in (1e-3, 1.0, 1e6):
        layer = layer_of(weight=np.zeros(5))
        layer.grads = {"weight": scale * np.array([1.0, -1.0, 2.0, -3.0, 0.5])}
        Adam(0.01).step([layer])
        expected = -0.01 * np.sign(layer.grads["weight"])
        np.testing.assert_allclose(layer.params["weight"], expected, 1e-4)


def test_adam_leaves_a_weight_without_gradient_alone():
    layer = layer_of(weight=np.ones(3))
    layer.grads = {"weight": np.zeros(3)}
    Adam().step([layer])
    np.testing.assert_array_equal(layer.params["weight"], np.ones(3))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"betas": (0.5, 0.9)},
        {"betas": (0.0, 0.0), "eps": 0.1},
        {"eps": 1e-3, "weight_decay": 0.02},
    ],
    ids=str,
)
def test_a_hundred_steps_of_adam_are_those_of_pytorch(arguments, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    start, gradients = rng.normal(size=(3, 7)), rng.normal(size=(100, 3, 7))
    theirs = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.Adam([theirs], 0.03, **arguments)
    layer, mine = layer_of(weight=start.copy()), Adam(0.03, **arguments)
    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        layer.grads = {"weight": gradient}
        mine.step([layer])
    np.testing.assert_allclose(layer.params["weight"], theirs.detach(), 0, 1e-10)


def test_each_parameter_counts_its_own_steps():
    """A layer that joins later starts as the first one did."""
    early, late = layer_of(weight=np.zeros(1)), layer_of(weight=np.zeros(1))
    early.grads = late.grads = {"weight": np.ones(1)}
    optimizer = Adam(0.1)
    optimizer.step([early])
    optimizer.step([early, late])
    np.testing.assert_allclose(late.params["weight"], -0.1, 1e-6)


@pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9, 0.01), Adam(weight_decay=0.01)])
def test_any_number_of_threads_gives_the_same_bits(optimizer, rng, monkeypatch):
    monkeypatch.setattr(device, "SMALL", 0)
    before = device.get_threads()
    start, found = rng.normal(size=1001).astype(np.float32), []
    gradient = rng.normal(size=1001).astype(np.float32)
    try:
        for threads in (1, 2, 3):
            device.set_threads(threads)
            layer, mine = layer_of(weight=start.copy()), deepcopy(optimizer)
            layer.grads = {"weight": gradient}
            for _ in range(3):
                mine.step([layer])
            found.append(layer.params["weight"])
    finally:
        device.set_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_float32_stays_float32(rng):
    layer = layer_of(weight=rng.normal(size=(3, 4)).astype(np.float32))
    layer.grads = {"weight": rng.normal(size=(3, 4)).astype(np.float32)}
    w, dw = layer.params["weight"].copy(), layer.grads["weight"]
    SGD(0.1).step([layer])
    assert layer.params["weight"].dtype == np.float32
    np.testing.assert_allclose(layer.params["weight"], w - np.float32(0.1) * dw, 1e-6)
    optimizer, before = Adam(0.1), layer.params["weight"].copy()
    optimizer.step([layer])
    assert layer.params["weight"].dtype == np.float32
    expected = before - np.float32(0.1) * np.sign(dw)  # but for eps
    np.testing.assert_allclose(layer.params["weight"], expected, 0, 1e-5)


@pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9, 0.01), Adam(weight_decay=0.01)])
@pytest.mark.parametrize("dtype, vectors", [("float32", "float"), ("float64", "double")])
def test_elements_are_computed_in_their_own_dtype(monkeypatch, optimizer, dtype, vectors):
    """The rates are float64: they must not make the elements of a float32 array so."""

    def look(loops, count, *arguments, steps=0):
        loops = jit(**loops.targetoptions)(loops.py_func)
        loops(*arguments, 0, count)
        (code,) = loops.inspect_llvm().values()
        assert set(re.findall(r"\d+ x (float|double)>", code)) == {vectors}

    monkeypatch.setattr("course.optimizers.fill", look)
    layer = layer_of(weight=np.ones(3, dtype))
    layer.grads = {"weight": np.ones(3, dtype)}
    deepcopy(optimizer).step([layer])


@pytest.mark.parametrize("kind", [int, np.float32, np.float64])
@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_any_number_is_a_learning_rate(optimizer, kind):
    layers = [layer_of(weight=np.ones(3)) for _ in range(2)]
    for layer, rate in zip(layers, (1.0, kind(1)), strict=True):
        layer.grads = {"weight": np.arange(3.0)}
        optimizer(rate).step([layer])
    assert np.array_equal(layers[0].params["weight"], layers[1].params["weight"])


@pytest.mark.parametrize("optimizer", [SGD(0.1), Adam()])
def test_step_before_backward_is_refused(optimizer):
    with pytest.raises(RuntimeError, match="call backward before step"):
        optimizer.step([layer_of(weight=np.ones(1))])


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((0.0,), "learning_rate must be positive, not 0.0"),
        ((float("nan"),), "learning_rate must be positive, not nan"),
        ((0.1, 1.0), r"momentum must be in \[0, 1\), not 1.0"),
        ((0.1, 0.0, -1.0), "weight_decay must not be negative"),
    ],
)
def test_impossible_settings_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        SGD(*arguments)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"learning_rate": -1.0}, "learning_rate must be positive, not -1.0"),
        ({"betas": (0.9, 1.0)}, r"betas must be two numbers in \[0, 1\), not \(0.9, 1.0\)"),
        ({"betas": (-0.1, 0.9)}, "betas must be two numbers"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"eps": 0.0}, "eps must be positive, not 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
    ],
)
def test_impossible_settings_of_adam_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Adam(**arguments)


def test_scales_of_normalisation_do_not_decay():
    layer = BatchNorm2d(3)
    layer.params["weight"][:] = 2
    layer.grads = {name: np.zeros_like(a) for name, a in layer.params.items()}
    SGD(0.1, weight_decay=0.5).step([layer])
    np.testing.assert_array_equal(layer.params["weight"], [2, 2, 2])
