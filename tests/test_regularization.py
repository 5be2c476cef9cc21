"""course/regularization.py: the definitions in NumPy, slopes, and PyTorch's clipping."""

import re

import numpy as np
import pytest

from course import device
from course.checks import slope
from course.layers import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    Linear,
    LocallyConnected2d,
    PReLU,
    ReLU,
)
from course.losses import softmax_cross_entropy
from course.model import Sequential
from course.optimizers import SGD
from course.regularization import L1, L2, MaxNorm, Regularizer, clip_norm


def network(rng, dtype=np.float64):
    """Return a network with gradients, which has every kind of parameter."""
    model = Sequential(
        Conv2d(2, 3, 3, rng=rng, dtype=dtype),
        BatchNorm2d(3, dtype=dtype),
        PReLU(3, dtype=dtype),
        Sequential(Flatten(), Linear(12, 4, rng=rng, dtype=dtype)),
    )
    for w in model.params.values():
        w[...] = rng.normal(size=w.shape)
    x, t = rng.normal(size=(5, 2, 4, 4)).astype(dtype), rng.integers(4, size=5)
    model.backward(softmax_cross_entropy(model.forward(x), t)[1])
    return model


WEIGHTS = "0.weight", "3.1.weight"  # all that decays


# --- penalties --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, of", [(L1, lambda w: abs(w).sum()), (L2, lambda w: 0.5 * (w**2).sum())]
)
def test_penalty_is_that_of_weights_alone(kind, of, rng):
    model = network(rng)
    expected = 0.3 * sum(of(model.params[name]) for name in WEIGHTS)
    np.testing.assert_allclose(kind(0.3).penalty([model]), expected, 1e-13)
    np.testing.assert_allclose(kind(0.3).penalty(model.layers), expected, 1e-13)


@pytest.mark.parametrize("kind", [L1, L2])
def test_gradient_is_the_slope_of_the_penalty(kind, rng):
    """Biases, normalisation and the slopes of a PReLU get none."""
    model, penalty = network(rng), kind(0.3)
    before = {name: dw.copy() for name, dw in model.grads.items()}
    penalty.add_gradients([model])
    for name, w in model.params.items():
        added = model.grads[name] - before[name]
        expected = slope(lambda: penalty.penalty([model]), w)
        np.testing.assert_allclose(added, expected, 1e-6, 1e-8, err_msg=name)
        assert bool(added.any()) == (name in WEIGHTS)


def test_a_gradient_in_another_order_is_changed_too(rng):
    layer = Linear(3, 2, rng=rng, dtype=np.float64)
    layer.grads["weight"] = np.ones((3, 2)).T
    L2(1).add_gradients([layer])
    np.testing.assert_allclose(layer.grads["weight"], 1 + layer.params["weight"])


def test_l1_pulls_zeros_nowhere(rng):
    model = network(rng)
    model.params["0.weight"][:] = 0
    before = model.grads["0.weight"].copy()
    L1(0.3).add_gradients([model])
    np.testing.assert_array_equal(model.grads["0.weight"], before)


def test_l2_is_the_weight_decay_of_sgd():
    """Three steps of each."""
    found = []
    for decay, penalties in ((0.1, []), (0.0, [L2(0.1)])):
        model = network(np.random.default_rng(0))
        optimizer = SGD(0.1, 0.9, decay)
        gradients = {name: dw.copy() for name, dw in model.grads.items()}
        for _ in range(3):
            for name, dw in model.grads.items():
                dw[...] = gradients[name]
            for penalty in penalties:
                penalty.add_gradients(model.layers)
            optimizer.step(model.layers)
        found.append(model.params)
    for name, w in found[0].items():
        np.testing.assert_allclose(found[1][name], w, 1e-13, 1e-13, err_msg=name)


def test_l1_makes_weights_zero_and_l2_makes_them_small():
    """Least squares with ten inputs of which two matter, from the same start."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 10))
    y = x[:, :1] * 2 - x[:, 1:2]
    sizes = {}
    for penalty in (L1(0.2), L2(0.2)):
        layer = Linear(10, 1, bias=False, rng=np.random.default_rng(1), dtype=np.float64)
        optimizer = SGD(0.01)
        for _ in range(2000):
            layer.backward((layer.forward(x) - y) / len(x))
            penalty.add_gradients([layer])
            optimizer.step([layer])
        sizes[type(penalty)] = abs(layer.params["weight"][0])
    small = {kind: (w[2:] < 0.003).mean() for kind, w in sizes.items()}
    assert small[L1] == 1  # but for the last step's length, 0.01 * 0.2
    assert small[L2] < 0.5
    np.testing.assert_allclose(sizes[L1][:2], [1.8, 0.8], 0, 0.1)  # each 0.2 shorter


# --- the largest norm -------------------------------------------------------------------


def test_projection_shortens_what_is_longer_than_the_limit(rng):
    model = network(rng)
    before = {name: w.copy() for name, w in model.params.items()}
    MaxNorm(3.5).project([model])
    cut = []
    for name, w in model.params.items():
        if name not in WEIGHTS:
            np.testing.assert_array_equal(w, before[name])
            continue
        for row, old in zip(w, before[name], strict=True):
            norm = np.sqrt((old**2).sum())
            np.testing.assert_allclose(row, old * min(1, 3.5 / norm), 1e-14)
            cut.append(norm > 3.5)
    assert any(cut) and not all(cut)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projecting_twice_is_projecting_once(dtype, rng):
    model = network(rng, dtype)
    MaxNorm(2).project(model.layers)
    once = {name: w.copy() for name, w in model.params.items()}
    MaxNorm(2).project(model.layers)
    for name, w in model.params.items():
        np.testing.assert_allclose(w, once[name], 4 * np.finfo(dtype).eps)


def test_zeros_stay_zeros_and_short_rows_keep_their_bits(rng):
    layer = Linear(3, 2, rng=rng)
    layer.params["weight"][:] = [[0, 0, 0], [0.1, 0.2, 0.2]]
    before = layer.params["weight"].copy()
    MaxNorm(0.5).project([layer])
    np.testing.assert_array_equal(layer.params["weight"], before)


def test_limit_of_zero_leaves_nothing(rng):
    layer = Linear(3, 2, rng=rng)
    MaxNorm(0).project([layer])
    np.testing.assert_array_equal(layer.params["weight"], np.zeros((2, 3)))


def test_each_filter_of_a_transposed_convolution_is_shortened(rng):
    """Two groups of two channels: filter f of group g sees w[2g], w[2g + 1] at f."""
    layer = ConvTranspose2d(4, 6, 3, groups=2, rng=rng, dtype=np.float64)
    w = layer.params["weight"]
    w[...] = rng.normal(size=w.shape)
    before = w.copy()
    MaxNorm(4).project([layer])
    cut = []
    for g in range(2):
        for f in range(3):
            old = before[2 * g : 2 * g + 2, f]
            norm = np.sqrt((old**2).sum())
            expected = old * min(1, 4 / norm)
            np.testing.assert_allclose(w[2 * g : 2 * g + 2, f], expected, 1e-14)
            cut.append(norm > 4)
    assert any(cut) and not all(cut)


def test_each_pixel_of_a_locally_connected_layer_is_shortened(rng):
    layer = LocallyConnected2d(2, 3, (4, 4), 3, rng=rng, dtype=np.float64)
    w = layer.params["weight"]
    w[...] = rng.normal(size=w.shape)
    norm = np.sqrt((w**2).sum(axis=(1, 2, 3), keepdims=True))
    expected = w * np.minimum(1, 4 / norm)
    MaxNorm(4).project([layer])
    np.testing.assert_allclose(w, expected, 1e-14)
    assert 0 < (norm > 4).mean() < 1


# --- clipping ---------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.01, 0.5, 1e6])
def test_clipping_is_that_of_pytorch(limit, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = network(rng)
    theirs = [torch.zeros(dw.shape, dtype=torch.float64) for dw in model.grads.values()]
    for leaf, dw in zip(theirs, model.grads.values(), strict=True):
        leaf.grad = torch.tensor(dw)
    expected = torch.nn.utils.clip_grad_norm_(theirs, limit)
    np.testing.assert_allclose(clip_norm([model], limit), expected, 1e-13)
    for leaf, dw in zip(theirs, model.grads.values(), strict=True):
        np.testing.assert_allclose(dw, leaf.grad, 2e-6)  # PyTorch divides by norm + 1e-6


def test_clipped_gradients_have_the_norm_of_the_limit(rng):
    model = network(rng)
    before = np.concatenate([dw.ravel() for dw in model.grads.values()])
    np.testing.assert_allclose(clip_norm([model], 0.5), np.linalg.norm(before), 1e-14)
    after = np.concatenate([dw.ravel() for dw in model.grads.values()])
    np.testing.assert_allclose(after, before * 0.5 / np.linalg.norm(before), 1e-13)
    assert clip_norm([model], 0.6) == pytest.approx(0.5)
    np.testing.assert_array_equal(
        np.concatenate([dw.ravel() for dw in model.grads.values()]), after
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])  # its square is inf
def test_a_norm_that_is_not_finite_changes_nothing(bad, rng):
    model = network(rng)
    model.grads["0.weight"].flat[0] = bad
    before = {name: dw.copy() for name, dw in model.grads.items()}
    assert not np.isfinite(clip_norm([model], 0.5))
    for name, dw in model.grads.items():
        np.testing.assert_array_equal(dw, before[name])


# --- all of them ------------------------------------------------------------------------


def test_a_layer_at_two_places_counts_once(rng):
    layer = Linear(3, 2, rng=rng, dtype=np.float64)
    layer.grads = {name: np.ones_like(w) for name, w in layer.params.items()}
    twice = [layer, Sequential(layer, ReLU())]
    w, dw = layer.params["weight"], layer.grads["weight"]
    np.testing.assert_allclose(L2(1).penalty(twice), 0.5 * (w**2).sum())
    L2(1).add_gradients(twice)
    np.testing.assert_allclose(dw, 1 + w)
    dw[:] = 1
    np.testing.assert_allclose(clip_norm(twice, 0.5), np.sqrt(8))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_keep_their_dtype(dtype, rng):
    model = network(rng, dtype)
    for kind in (L1, L2, MaxNorm):
        kind(0.1).add_gradients([model])
        kind(0.1).project([model])
    clip_norm([model], 0.1)
    arrays = [*model.params.values(), *model.grads.values()]
    assert {a.dtype for a in arrays} == {np.dtype(dtype)}


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr(device, "SMALL", 0)
    before, found = device.get_threads(), []
    try:
        for threads in (1, 2, 3):
            device.set_threads(threads)
            model = network(np.random.default_rng(0), np.float32)
            numbers = [kind(0.1).penalty([model]) for kind in (L1, L2)]
            for kind in (L1, L2):
                kind(0.1).add_gradients([model])
            MaxNorm(1).project([model])
            numbers.append(clip_norm([model], 0.1))
            arrays = [*model.params.values(), *model.grads.values()]
            found.append((numbers, [a.tobytes() for a in arrays]))
    finally:
        device.set_threads(before)
    assert found[0] == found[1] == found[2]


def test_what_a_regularization_does_not_do_does_nothing(rng):
    model = network(rng)
    before = [a.copy() for a in (*model.params.values(), *model.grads.values())]
    assert Regularizer().penalty([model]) == MaxNorm(1).penalty([model]) == 0
    MaxNorm(1).add_gradients([model])
    L1(1).project([model])
    L2(1).project([model])
    for a, old in zip((*model.params.values(), *model.grads.values()), before, strict=True):
        np.testing.assert_array_equal(a, old)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: L1(-1), ValueError, "strength must not be negative, it is -1"),
        (lambda: L2(np.inf), ValueError, "strength must be finite, not inf"),
        (lambda: L2("0.1"), TypeError, "strength must be a number, not '0.1'"),
        (lambda: MaxNorm(-2), ValueError, "limit must not be negative, it is -2"),
        (lambda: clip_norm([], -1), ValueError, "limit must not be negative, it is -1"),
        (
            lambda: L1(1).add_gradients([Linear(1, 1, rng=np.random.default_rng(0))]),
            RuntimeError,
            "a Linear has no gradient of weight: call backward first",
        ),
        (
            lambda: clip_norm([Linear(1, 1, rng=np.random.default_rng(0))], 1),
            RuntimeError,
            "a Linear has no gradient of weight: call backward first",
        ),
    ],
)
def test_impossible_settings_are_refused(make, error, words):
    with pytest.raises(error, match=re.escape(words)):
        make()
