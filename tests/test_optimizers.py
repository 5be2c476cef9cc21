"""course/optimizers.py: the equations by hand, and PyTorch where it is installed."""

import numpy as np
import pytest

from course.layers.base import Layer
from course.optimizers import SGD


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


def test_float32_stays_float32(rng):
    layer = layer_of(weight=rng.normal(size=(3, 4)).astype(np.float32))
    layer.grads = {"weight": rng.normal(size=(3, 4)).astype(np.float32)}
    w, dw = layer.params["weight"].copy(), layer.grads["weight"]
    SGD(0.1).step([layer])
    assert layer.params["weight"].dtype == np.float32
    np.testing.assert_allclose(layer.params["weight"], w - np.float32(0.1) * dw, 1e-6)


def test_step_before_backward_is_refused():
    with pytest.raises(RuntimeError, match="call backward before step"):
        SGD(0.1).step([layer_of(weight=np.ones(1))])


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
