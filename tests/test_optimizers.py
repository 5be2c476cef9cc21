"""course/optimizers: the equations by hand, and PyTorch where it is installed."""

import re
from copy import deepcopy

import numpy as np
import pytest
from numba import jit

from course import data, device
from course.layers import BatchNorm2d, Flatten, Linear, ReLU
from course.layers.base import Layer
from course.losses import softmax_cross_entropy
from course.model import Sequential
from course.optimizers import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop
from course.training import evaluate, fit
from course.zoo.lenet5 import lenet5

ALL = [
    SGD(0.1, 0.9, 0.01),
    SGD(0.1, 0.9, 0.01, nesterov=True),
    Adagrad(weight_decay=0.01),
    RMSprop(weight_decay=0.01, momentum=0.9, centered=True),
    Adadelta(weight_decay=0.01),
    Adam(weight_decay=0.01),
    AdamW(),
]


def name_of(optimizer):
    """Return the kind of an optimizer, as an id."""
    kind = type(optimizer).__name__
    return f"Nesterov {kind}" if getattr(optimizer, "nesterov", False) else kind


every_optimizer = pytest.mark.parametrize("optimizer", ALL, ids=name_of)


def layer_of(**params):
    """Return a layer that holds these parameters."""
    layer = Layer()
    layer.params = params
    return layer


def follow(optimizer, gradients, start=1.0):
    """Return the weight after each step of an optimizer with these gradients."""
    layer, found = layer_of(weight=np.array([start])), []
    for gradient in gradients:
        layer.grads = {"weight": np.array([float(gradient)])}
        optimizer.step([layer])
        found.append(layer.params["weight"].item())
    return found


# --- what a step is ---------------------------------------------------------------------


def test_plain_step_goes_down_the_gradient():
    layer = layer_of(weight=np.array([1.0, 2.0]))
    layer.grads = {"weight": np.array([10.0, -20.0])}
    SGD(0.1).step([layer])
    np.testing.assert_allclose(layer.params["weight"], [0.0, 4.0], atol=1e-15)


def test_three_steps_of_momentum_by_hand():
    """m: 1, 1.5, 1.75 with gradients of 1; w falls by 0.1 of each."""
    found = follow(SGD(0.1, momentum=0.5), [1, 1, 1])
    np.testing.assert_allclose(found, [0.9, 0.75, 0.575])


def test_two_steps_of_nesterov_by_hand():
    """m: 1, 1.5; w falls by 0.1 of 1 + 0.5 * 1, and then of 1 + 0.5 * 1.5."""
    found = follow(SGD(0.1, momentum=0.5, nesterov=True), [1, 1])
    np.testing.assert_allclose(found, [0.85, 0.675])


def test_two_steps_of_adagrad_by_hand():
    """v: 9, 25; w falls by 0.1 of 3/3, and then of 4/5."""
    found = follow(Adagrad(0.1, eps=1e-14), [3, 4])
    np.testing.assert_allclose(found, [0.9, 0.82])


def test_rate_of_adagrad_decays():
    """As above, but the second rate is 0.1/(1 + 1)."""
    found = follow(Adagrad(0.1, lr_decay=1, eps=1e-14), [3, 4])
    np.testing.assert_allclose(found, [0.9, 0.86])


def test_two_steps_of_rmsprop_by_hand():
    """v: 0.75 * 4 = 3, 0.25 * 3 + 0.75 * 1 = 1.5; w falls by 2/sqrt(3), 1/sqrt(1.5)."""
    found = follow(RMSprop(1, alpha=0.25, eps=1e-14), [2, 1])
    first, second = 2 / 3**0.5, 1 / 1.5**0.5
    np.testing.assert_allclose(found, [1 - first, 1 - first - second])


def test_two_steps_of_centered_rmsprop_with_momentum_by_hand():
    """With alpha 1/2 and gradients 2, 4: v = 2, 9; mean = 1, 2.5; variance = 1, 2.75.

    m = 2, and then 0.5 * 2 + 4/sqrt(2.75).
    """
    optimizer = RMSprop(0.1, alpha=0.5, eps=1e-14, momentum=0.5, centered=True)
    second = 0.1 * (1 + 4 / 2.75**0.5)
    np.testing.assert_allclose(follow(optimizer, [2, 4]), [0.8, 0.8 - second])


def test_two_steps_of_adadelta_by_hand():
    """With rho 1/2, eps 1 and gradients 2, 2: v = 2, 3.

    First d = sqrt(1)/sqrt(3) * 2, so moved = 0.5 * 4/3; then sqrt(5/3)/sqrt(4) * 2.
    """
    found = follow(Adadelta(0.1, rho=0.5, eps=1), [2, 2])
    first, second = 0.1 * 2 / 3**0.5, 0.1 * (5 / 3) ** 0.5
    np.testing.assert_allclose(found, [1 - first, 1 - first - second])


def test_adadelta_is_that_of_convnetjs(rng):
    """Its trainer's lines, with the signs it has: gsum, xsum, then w += dx."""
    gradients, rho, eps = rng.normal(size=20), 0.95, 1e-6
    w, gsum, xsum, expected = 1.0, 0.0, 0.0, []
    for gradient in gradients:
        g = gradient + 1e-4 * w
        gsum = rho * gsum + (1 - rho) * g * g
        dx = -(((xsum + eps) / (gsum + eps)) ** 0.5) * g
        xsum = rho * xsum + (1 - rho) * dx * dx
        w += dx
        expected.append(w)
    found = follow(Adadelta(rho=0.95, eps=1e-6, weight_decay=1e-4), gradients)
    np.testing.assert_allclose(found, expected, 1e-13)


def test_two_steps_of_adam_by_hand():
    """Gradients 1 and 3: m = 0.1, 0.39; v = 0.01, 0.0999 with betas 0.9 and 0.99.

    Step 1: m/(1 - 0.9) = 1, v/(1 - 0.99) = 1, so w falls by the whole rate.
    Step 2: m/(1 - 0.81) = 39/19, v/(1 - 0.9801) = 999/199.
    """
    found = follow(Adam(0.1, betas=(0.9, 0.99), eps=1e-12), [1, 3])
    fall = 0.1 * (39 / 19) / (999 / 199) ** 0.5
    np.testing.assert_allclose(found, [0.9, 0.9 - fall])


def test_two_steps_of_adamw_by_hand():
    """As Adam's, after w has lost a twentieth: 0.1 * 0.5."""
    found = follow(AdamW(0.1, betas=(0.9, 0.99), eps=1e-12, weight_decay=0.5), [1, 3])
    fall = 0.1 * (39 / 19) / (999 / 199) ** 0.5
    np.testing.assert_allclose(found, [0.85, 0.85 * 0.95 - fall])


def test_first_step_of_adam_is_the_learning_rate_however_large_the_gradient():
    for scale in (1e-3, 1.0, 1e6):
        layer = layer_of(weight=np.zeros(5))
        layer.grads = {"weight": scale * np.array([1.0, -1.0, 2.0, -3.0, 0.5])}
        Adam(0.01).step([layer])
        expected = -0.01 * np.sign(layer.grads["weight"])
        np.testing.assert_allclose(layer.params["weight"], expected, 1e-4)


@pytest.mark.parametrize(
    "optimizer", [SGD(0.1, 0.9), Adagrad(), RMSprop(centered=True), Adadelta(), Adam()],
    ids=name_of,
)  # fmt: skip
def test_a_weight_without_gradient_is_left_alone(optimizer):
    assert follow(deepcopy(optimizer), [0, 0, 0]) == [1.0, 1.0, 1.0]


def test_variance_of_equal_gradients_does_not_fall_below_zero(rng):
    """Rounding takes that of many of these there, and the root would be nan."""
    layer, optimizer = layer_of(weight=np.ones(1000)), RMSprop(1e-9, 0.5, centered=True)
    layer.grads = {"weight": rng.normal(size=1000)}
    for _ in range(100):
        optimizer.step([layer])
    assert np.isfinite(layer.params["weight"]).all()


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("SGD", {"momentum": 0.0}),
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("Adagrad", {}),
        ("Adagrad", {"lr_decay": 0.1, "eps": 1e-3}),
        ("RMSprop", {}),
        ("RMSprop", {"alpha": 0.8, "momentum": 0.5, "eps": 1e-3}),
        ("RMSprop", {"momentum": 0.9, "centered": True}),
        ("Adadelta", {}),
        ("Adadelta", {"rho": 0.95, "eps": 1e-6}),
        ("Adam", {}),
        ("Adam", {"betas": (0.5, 0.9), "eps": 1e-3}),
        ("Adam", {"betas": (0.0, 0.0), "eps": 0.1}),
        ("AdamW", {}),
        ("AdamW", {"betas": (0.5, 0.9), "eps": 1e-3}),
    ],
    ids=str,
)
@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_a_hundred_steps_are_those_of_pytorch(name, arguments, decay, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    start, gradients = rng.normal(size=(3, 7)), rng.normal(size=(100, 3, 7))
    theirs = torch.tensor(start, requires_grad=True)
    arguments = {**arguments, "weight_decay": decay}
    optimizer = getattr(torch.optim, name)([theirs], 0.03, **arguments)
    mine = globals()[name](0.03, **arguments)
    layer = layer_of(weight=start.copy())
    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        layer.grads = {"weight": gradient}
        mine.step([layer])
    np.testing.assert_allclose(layer.params["weight"], theirs.detach(), 0, 1e-10)


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW"])
def test_defaults_are_those_of_pytorch(name, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch.tensor(rng.normal(size=5), requires_grad=True)
    layer = layer_of(weight=theirs.detach().numpy().copy())
    optimizer, mine = getattr(torch.optim, name)([theirs]), globals()[name]()
    for gradient in rng.normal(size=(10, 5)):
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        layer.grads = {"weight": gradient}
        mine.step([layer])
    np.testing.assert_allclose(layer.params["weight"], theirs.detach(), 0, 1e-12)


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.01, 0.9), SGD(0.02, 0.9, nesterov=True), Adagrad(), RMSprop(1e-3),
        Adadelta(), Adam(), AdamW(),
    ],
    ids=name_of,
)  # fmt: skip
def test_lenet5_learns_digits_in_one_epoch(optimizer):
    """With the default learning rate, or the usual one where that is too large."""
    digits = data.load("digits")
    model = lenet5(rng=np.random.default_rng(0))
    fit(
        model, digits.x_train, digits.t_train, epochs=1, batch_size=16,
        optimizer=deepcopy(optimizer), seed=0, progress=False,
    )  # fmt: skip
    assert evaluate(model, digits.x_test, digits.t_test).accuracy > 0.85


# --- which parameters, and in which numbers ---------------------------------------------


@every_optimizer
def test_biases_do_not_decay(optimizer):
    layer = layer_of(weight=np.ones(1), bias=np.ones(1))
    layer.grads = {"weight": np.zeros(1), "bias": np.zeros(1)}
    deepcopy(optimizer).step([layer])
    assert layer.params["weight"] < 1
    assert layer.params["bias"] == 1


def test_decay_is_a_share_of_the_weight():
    layer = layer_of(weight=np.ones(1))
    layer.grads = {"weight": np.zeros(1)}
    SGD(0.1, weight_decay=0.5).step([layer])
    np.testing.assert_allclose(layer.params["weight"], 0.95)


def test_scales_of_normalisation_do_not_decay():
    layer = BatchNorm2d(3)
    layer.params["weight"][:] = 2
    layer.grads = {name: np.zeros_like(a) for name, a in layer.params.items()}
    SGD(0.1, weight_decay=0.5).step([layer])
    np.testing.assert_array_equal(layer.params["weight"], [2, 2, 2])


def test_each_parameter_counts_its_own_steps():
    """A layer that joins later starts as the first one did."""
    early, late = layer_of(weight=np.zeros(1)), layer_of(weight=np.zeros(1))
    early.grads = late.grads = {"weight": np.ones(1)}
    optimizer = Adam(0.1)
    optimizer.step([early])
    optimizer.step([early, late])
    np.testing.assert_allclose(late.params["weight"], -0.1, 1e-6)


def test_a_layer_at_two_places_is_stepped_once():
    layer = layer_of(weight=np.array([1.0]))
    layer.grads = {"weight": np.array([1.0])}
    optimizer = SGD(0.1)
    optimizer.step([layer, ReLU(), Sequential(layer, ReLU())])
    assert layer.params["weight"] == 0.9


def test_a_network_is_its_leaves(rng):
    """A container may stand for its layers: the steps, and the memory, are the same."""
    found = []
    for inside in (False, True):
        layers = [layer_of(weight=np.ones(3)), ReLU(), layer_of(weight=np.ones(2))]
        for layer in layers:
            layer.grads = {name: np.ones_like(w) for name, w in layer.params.items()}
        optimizer = Adam()
        optimizer.step(Sequential(Sequential(*layers[:2]), layers[2]) if inside else layers)
        found.append(optimizer.state_dict())
    assert found[0].keys() == found[1].keys() > {"0.weight.m", "2.weight.v"}


@every_optimizer
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


@every_optimizer
def test_float32_stays_float32(optimizer, rng):
    start, gradient = rng.normal(size=(2, 3, 4))
    found = []
    for dtype in (np.float32, np.float64):
        layer, mine = layer_of(weight=start.astype(dtype)), deepcopy(optimizer)
        layer.grads = {"weight": gradient.astype(dtype)}
        mine.step([layer])
        assert layer.params["weight"].dtype == dtype
        kept = [a for a in mine.state_dict().values() if isinstance(a, np.ndarray)]
        assert {a.dtype for a in kept} == {np.dtype(dtype)}
        found.append(layer.params["weight"])
    np.testing.assert_allclose(found[0], found[1], 1e-5)


@pytest.mark.parametrize(
    "optimizer", [SGD(0.1), Adagrad(), RMSprop(), Adadelta(), Adam()], ids=name_of
)
def test_elements_are_computed_in_float32(monkeypatch, optimizer):
    """The rates are float64: they must not make the elements of a float32 array so.

    (That those of a float64 array are float64 shows in 1e-10, above.)
    """
    looked = []

    def look(loops, count, *arguments, steps=0):
        loops = jit(**loops.targetoptions)(loops.py_func)
        loops(*arguments, 0, count)
        (code,) = loops.inspect_llvm().values()
        looked.append(set(re.findall(r"\d+ x (float|double)>", code)))

    monkeypatch.setattr(f"{type(optimizer).__module__}.fill", look)
    layer = layer_of(weight=np.ones(3, np.float32))
    layer.grads = {"weight": np.ones(3, np.float32)}
    optimizer.step([layer])
    assert looked == [{"float"}]


@pytest.mark.parametrize("kind", [int, np.float32, np.float64])
@pytest.mark.parametrize("optimizer", [SGD, Adagrad, RMSprop, Adadelta, Adam, AdamW])
def test_any_number_is_a_learning_rate(optimizer, kind):
    """Also one that a schedule sets between two steps."""
    layers = [layer_of(weight=np.ones(3)) for _ in range(2)]
    for layer, rate in zip(layers, (1.0, kind(1)), strict=True):
        layer.grads = {"weight": np.arange(3.0)}
        mine = optimizer(rate)
        mine.step([layer])
        mine.learning_rate = rate
        mine.step([layer])
    assert np.array_equal(layers[0].params["weight"], layers[1].params["weight"])


# --- state ------------------------------------------------------------------------------


def network(seed=0):
    """Return a small network."""
    rng = np.random.default_rng(seed)
    return Sequential(
        Flatten(), Linear(12, 5, rng=rng), ReLU(), Linear(5, 3, rng=rng)
    )  # fmt: skip


def run(model, optimizer, seeds):
    """Do a step for each seed, on a batch that it draws; return the weights."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        x, t = rng.normal(size=(8, 1, 3, 4)).astype(np.float32), rng.integers(3, size=8)
        model.backward(softmax_cross_entropy(model.forward(x), t)[1])
        optimizer.step(model.layers)
    return [w.tobytes() for w in model.params.values()]


@every_optimizer
def test_a_loaded_optimizer_goes_on_with_the_same_bits(optimizer):
    """Through a file's arrays, into one that was made with other settings."""
    expected = run(network(), deepcopy(optimizer), range(6))
    model, first = network(), deepcopy(optimizer)
    run(model, first, range(3))
    state = {key: np.array(a) for key, a in first.state_dict().items()}
    second = type(optimizer)(7.0)
    second.load_state_dict(state)
    assert run(model, second, range(3, 6)) == expected


def test_state_has_pytorch_like_names():
    optimizer = SGD(0.1, 0.9)
    model = network()
    run(model, optimizer, range(2))
    state = optimizer.state_dict()
    settings = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0, "nesterov": 0}
    names = [f"{k}.{name}" for k in (1, 3) for name in ("weight", "bias")]
    assert state.keys() == {
        *(f"SGD.{name}" for name in settings),
        *(f"{name}.{what}" for name in names for what in ("m", "step")),
    }
    assert {name: state[f"SGD.{name}"] for name in settings} == settings
    assert state["3.weight.step"] == 2
    assert state["1.weight.m"].shape == (60,)


def test_what_is_loaded_is_copied():
    first = Adam()
    run(network(), first, [0])
    second = Adam()
    second.load_state_dict(first.state_dict())
    before = {key: np.array(a) for key, a in first.state_dict().items()}
    run(network(), second, [0])
    for key, a in first.state_dict().items():
        np.testing.assert_array_equal(a, before[key])


def test_a_rate_of_zero_can_be_loaded():
    """A schedule may have set it when the state was saved."""
    first, second = SGD(0.1), SGD(0.1)
    first.learning_rate = 0.0
    second.load_state_dict(first.state_dict())
    assert second.learning_rate == 0.0


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {},
        lambda state: {"weights": np.ones(3)},
        lambda state: {key: a for key, a in state.items() if key != "Adam.eps"},
        lambda state: {key: a for key, a in state.items() if key != "1.bias.v"},
        lambda state: state | {"1.bias.u": np.ones(3)},
        lambda state: state | {"1.bias.v": np.ones(3, np.float32)},
        lambda state: state | {"1.bias.v": np.ones(5, np.float64)},
        lambda state: state | {"1.bias.step": np.ones(5)},
        lambda state: state | {f"1.bias.{name}": np.ones((5, 1)) for name in "mv"},
        lambda state: {key.replace("1.bias", "fc.bias"): a for key, a in state.items()},
        lambda state: {key.replace("Adam", "AdamW"): a for key, a in state.items()},
    ],
)
def test_state_of_another_optimizer_is_refused_and_changes_nothing(change):
    optimizer = Adam(0.01)
    run(network(), optimizer, [0])
    state = {key: np.array(a) for key, a in optimizer.state_dict().items()}
    other = Adam(0.5)
    run(network(), other, range(2))
    before = {key: np.array(a) for key, a in other.state_dict().items()}
    with pytest.raises(ValueError, match="this is not the state of an optimizer Adam"):
        other.load_state_dict(change(state))
    for key, a in other.state_dict().items():
        np.testing.assert_array_equal(a, before[key])


def test_a_step_on_another_network_is_refused_and_changes_nothing():
    state = SGD(0.1)
    run(network(), state, [0])
    rng = np.random.default_rng(0)
    longer = Sequential(*network().layers, Linear(3, 3, rng=rng))
    shorter = Sequential(Flatten(), Linear(12, 5, rng=rng))
    wider = Sequential(Flatten(), Linear(12, 6, rng=rng), ReLU(), Linear(6, 3, rng=rng))
    loaded = "what was loaded is of another network, "
    for model, words in (
        (longer, f"{loaded}without 4.weight"),
        (shorter, f"{loaded}with more parameters"),
        (wider, "60 numbers in float32, but the parameter is (6, 12) float32"),
    ):
        optimizer = SGD(0.1)
        optimizer.load_state_dict(state.state_dict())
        before = [w.copy() for w in model.params.values()]
        with pytest.raises(ValueError, match=re.escape(words)):
            run(model, optimizer, [0])
        for w, old in zip(model.params.values(), before, strict=True):
            np.testing.assert_array_equal(w, old)


def test_after_a_step_with_what_was_loaded_layers_may_join():
    first, second = Adam(), Adam()
    model, late = network(), layer_of(weight=np.zeros(1))
    run(model, first, [0])
    second.load_state_dict(first.state_dict())
    run(model, second, [1])
    late.grads = {"weight": np.ones(1)}
    second.step([*model.layers, late])
    assert second.state_dict()["4.weight.step"] == 1


# --- what is refused --------------------------------------------------------------------


@every_optimizer
def test_step_before_backward_is_refused(optimizer):
    with pytest.raises(RuntimeError, match="call backward before step"):
        deepcopy(optimizer).step([layer_of(weight=np.ones(1))])


def test_a_missing_gradient_is_found_before_anything_changes():
    layers = [layer_of(weight=np.ones(1)) for _ in range(2)]
    layers[0].grads = {"weight": np.ones(1)}
    with pytest.raises(RuntimeError, match=r"layer 1 \(Layer\) has no gradient of weight"):
        SGD(0.1).step(layers)
    assert layers[0].params["weight"] == 1


@pytest.mark.parametrize(
    "dw", [np.ones(2), np.ones((3, 1)), np.ones(3, np.float32)], ids=str
)
def test_a_gradient_that_does_not_fit_is_refused(dw):
    layer = layer_of(weight=np.ones(3))
    layer.grads = {"weight": dw}
    with pytest.raises(ValueError, match=r"the gradient of 0\.weight is "):
        SGD(0.1).step([layer])


def test_a_parameter_that_would_not_be_changed_in_place_is_refused():
    layer = layer_of(weight=np.ones((2, 3)).T)
    layer.grads = {"weight": np.ones((3, 2))}
    with pytest.raises(ValueError, match=r"0\.weight must be in row-major order"):
        SGD(0.1).step([layer])


def test_a_schedule_that_gives_nonsense_is_refused():
    layer = layer_of(weight=np.ones(1))
    layer.grads = {"weight": np.ones(1)}
    optimizer = SGD(0.1)
    for rate in (-0.1, np.nan, np.inf):
        optimizer.learning_rate = rate
        with pytest.raises(ValueError, match=f"learning_rate cannot become {rate}"):
            optimizer.step([layer])
    assert layer.params["weight"] == 1


@pytest.mark.parametrize("optimizer", [SGD, Adagrad, RMSprop, Adadelta, Adam, AdamW])
@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be positive, not 0.0"),
        ({"learning_rate": np.nan}, ValueError, "learning_rate must be finite, not nan"),
        ({"learning_rate": "0.1"}, TypeError, "learning_rate must be a number, not '0.1'"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay must not be negative"),
    ],
)
def test_impossible_rates_are_refused(optimizer, arguments, error, words):
    with pytest.raises(error, match=words):
        optimizer(**{"learning_rate": 0.1} | arguments)


@pytest.mark.parametrize(
    "optimizer, arguments, words",
    [
        (SGD, {"momentum": 1.0}, r"momentum must be in \[0, 1\), not 1.0"),
        (SGD, {"nesterov": True}, "nesterov=True needs a momentum above 0"),
        (Adagrad, {"lr_decay": -1}, "lr_decay must not be negative"),
        (Adagrad, {"eps": 0}, "eps must be positive, not 0"),
        (RMSprop, {"alpha": 1}, r"alpha must be in \[0, 1\), not 1"),
        (RMSprop, {"momentum": -0.1}, r"momentum must be in \[0, 1\), not -0.1"),
        (RMSprop, {"eps": 0}, "eps must be positive, not 0"),
        (Adadelta, {"rho": 1}, r"rho must be in \[0, 1\), not 1"),
        (Adadelta, {"eps": -1}, "eps must be positive, not -1"),
        (Adam, {"betas": (0.9, 1.0)}, r"two numbers in \[0, 1\), not \(0.9, 1.0\)"),
        (Adam, {"betas": (-0.1, 0.9)}, "betas must be two numbers"),
        (Adam, {"betas": (0.9,)}, "betas must be two numbers"),
        (AdamW, {"betas": 0.9}, "betas must be two numbers"),
        (Adam, {"eps": 0.0}, "eps must be positive, not 0.0"),
    ],
)
def test_impossible_settings_are_refused(optimizer, arguments, words):
    with pytest.raises(ValueError, match=words):
        optimizer(learning_rate=0.1, **arguments)
