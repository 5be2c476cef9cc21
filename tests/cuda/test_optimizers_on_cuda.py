"""Optimizers and regularization on the GPU, or in the simulator, beside the CPU."""

from copy import deepcopy

import numpy as np
import pytest

from course.device import host, on_cpu, simulated, to
from course.layers import Conv2d, ConvTranspose2d, Linear, LocallyConnected2d, PReLU
from course.optimizers import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop
from course.regularization import L1, L2, MaxNorm, clip_norm
from tests.cuda.every import RUNS, every_place, on_cuda

OPTIMIZERS = {
    "SGD": SGD(0.1),
    "momentum": SGD(0.1, 0.9, 0.01),
    "Nesterov": SGD(0.1, 0.9, 0.01, nesterov=True),
    "Adagrad": Adagrad(0.1, lr_decay=0.1, weight_decay=0.01),
    "RMSprop": RMSprop(weight_decay=0.01),
    "centered RMSprop": RMSprop(weight_decay=0.01, momentum=0.9, centered=True),
    "Adadelta": Adadelta(weight_decay=0.01),
    "Adam": Adam(weight_decay=0.01),
    "AdamW": AdamW(weight_decay=0.1),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def layers(dtype, rng=None):
    """Return two layers with gradients, always the same."""
    rng = rng or np.random.default_rng(5)
    found = [Linear(3, 4, rng=rng, dtype=dtype), PReLU(4, dtype=dtype)]
    for layer in found:
        for name, w in layer.params.items():
            layer.grads[name] = rng.normal(size=w.shape).astype(dtype)
    return found


def moved(found, device):
    """Move the layers, and return them."""
    return [layer.to(device) for layer in found]


def arrays(found):
    """Return all parameters of the layers, on the CPU."""
    return [host(w) for layer in found for w in layer.params.values()]


def after_steps(optimizer, found, steps=5):
    """Return the parameters and the memory after steps whose gradients change."""
    for step in range(steps):
        for layer in found:
            for name, dw in layer.grads.items():
                again = host(dw) * dw.dtype.type(0.5 - step)
                layer.grads[name] = again if on_cpu(dw) else to("cuda", again)
        optimizer.step(found)
    kept = optimizer.state_dict().values()
    return arrays(found) + [a for a in kept if isinstance(a, np.ndarray)]


@every_place
@every_optimizer
def test_five_steps_are_those_of_the_cpu(place, name):
    expected = after_steps(deepcopy(OPTIMIZERS[name]), layers(np.float64))

    def steps():
        return after_steps(deepcopy(OPTIMIZERS[name]), moved(layers(np.float64), "cuda"))

    for a, b in zip(on_cuda(place, steps), expected, strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, 1e-12, 1e-15)


@every_place
@every_optimizer
def test_five_steps_in_float32(place, name):
    expected = after_steps(deepcopy(OPTIMIZERS[name]), layers(np.float64))

    def steps():
        return after_steps(deepcopy(OPTIMIZERS[name]), moved(layers(np.float32), "cuda"))

    for a, b in zip(on_cuda(place, steps, RUNS[:1]), expected, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, 2e-5, 2e-6)


@every_place
@every_optimizer
def test_memory_follows_the_parameters(place, name):
    """Two steps on cuda, two on the CPU, and the last on cuda from a saved state."""
    expected = after_steps(deepcopy(OPTIMIZERS[name]), layers(np.float64))

    def steps():
        optimizer, found = deepcopy(OPTIMIZERS[name]), layers(np.float64)
        rates = [(0.5 - step) for step in range(5)]
        for step, rate in enumerate(rates):
            moved(found, "cuda" if step in (0, 1, 4) else "cpu")
            for layer in found:
                for key, dw in layer.grads.items():
                    again = host(dw) * rate
                    layer.grads[key] = again if on_cpu(dw) else to("cuda", again)
            if step == 4:
                state = optimizer.state_dict()
                assert all(
                    isinstance(a, np.ndarray | float | int | tuple) for a in state.values()
                )
                optimizer = deepcopy(OPTIMIZERS[name])
                optimizer.load_state_dict(state)
            optimizer.step(found)
        kept = optimizer.state_dict().values()
        return arrays(found) + [a for a in kept if isinstance(a, np.ndarray)]

    for a, b in zip(on_cuda(place, steps, RUNS[:1]), expected, strict=True):
        np.testing.assert_allclose(a, b, 1e-12, 1e-15)


@pytest.mark.sim
def test_gradient_on_another_device_is_an_error_and_nothing_changes():
    with simulated():
        found = moved(layers(np.float32), "cuda")
        before = arrays(found)
        found[1].grads["weight"] = host(found[1].grads["weight"])
        message = "the gradient of 1.weight is on cpu but the other arrays are on cuda"
        with pytest.raises(TypeError, match=message):
            SGD(0.1).step(found)
        np.testing.assert_equal(arrays(found), before)


# --- regularization ---------------------------------------------------------------------

KINDS = {
    "Linear": lambda **new: Linear(70, 3, **new),  # rows longer than two warps
    "Conv2d": lambda **new: Conv2d(4, 6, (3, 2), groups=2, **new),
    "ConvTranspose2d": lambda **new: ConvTranspose2d(4, 6, (3, 2), groups=2, **new),
    "LocallyConnected2d": lambda **new: LocallyConnected2d(2, 3, (4, 5), (2, 3), **new),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def one(kind, dtype):
    """Return a layer with gradients, always the same; a weight is 0 and one is 100."""
    rng = np.random.default_rng(8)
    layer = KINDS[kind](rng=rng, dtype=dtype)
    layer.params["weight"].flat[[1, -2]] = 0, 100
    for name, w in layer.params.items():
        layer.grads[name] = rng.normal(size=w.shape).astype(dtype)
    return layer


def regularized(layer):
    """Return all that regularization computes of a layer."""
    norm = clip_norm([layer], 0.5)
    shortened = [host(dw).copy() for dw in layer.grads.values()]
    penalty = [one.penalty([layer]) for one in (L1(0.3), L2(0.2))]
    for one in L1(0.3), L2(0.2):
        one.add_gradients([layer])
    MaxNorm(1.5).project([layer])
    return [
        *(np.array(norm), *shortened, np.array(penalty)),
        *(host(a) for a in (*layer.grads.values(), *layer.params.values())),
    ]


@every_place
@every_kind
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-13), (np.float32, 2e-6)])
def test_regularization_is_that_of_the_cpu(place, kind, dtype, tolerance):
    expected = regularized(one(kind, np.float64))
    runs = RUNS if dtype == np.float64 else RUNS[:1]
    found = on_cuda(place, lambda: regularized(one(kind, dtype).to("cuda")), runs)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, tolerance, tolerance * np.abs(b).max())


@every_place
def test_gradients_that_are_not_finite_are_not_clipped(place):
    def clipped():
        layer = one("Linear", np.float32)
        layer.grads["bias"][2] = np.nan
        layer.to("cuda")
        return clip_norm([layer], 0.5), *map(host, layer.grads.values())

    norm, *grads = on_cuda(place, clipped, RUNS[:1])
    assert np.isnan(norm)
    np.testing.assert_array_equal(grads[0], one("Linear", np.float32).grads["weight"])
