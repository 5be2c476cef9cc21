"""Training on the GPU, or in the simulator: fit and all around it, beside the CPU."""

import re
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest

import course.data
import course.zoo
from course import cli
from course.cuda import CudaArray, native
from course.device import host, simulated, to
from course.graph import Variable
from course.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU
from course.model import Residual, Sequential
from course.operations import layer as layer_operation
from course.optimizers import SGD, Adam
from course.regularization import L2, MaxNorm
from course.sanity import lr_finder, overfit
from course.state_files import read_state
from course.training import evaluate, fit
from course.vision.augmentation import Shift
from tests.cuda.every import RUNS, every_place, on_cuda
from tests.test_checkpoints import contents, same


def network(seed=0):
    """Return a LeNet for images of 8 x 8 in 3 classes."""
    rng = np.random.default_rng(seed)
    return Sequential(
        *(Conv2d(1, 2, 3, rng=rng), ReLU(), MaxPool2d(2), Flatten()),
        Linear(18, 3, rng=rng),
    )


def normalised(seed=0):
    """Return a network that keeps more than weights: statistics, and masks drawn."""
    rng = np.random.default_rng(seed)
    conv = Conv2d(1, 1, 3, padding=1, bias=False, rng=rng)
    return Sequential(
        *(Residual(Sequential(conv=conv, norm=BatchNorm2d(1))), MaxPool2d(4), Flatten()),
        *(Dropout(0.3, rng=rng), Linear(4, 3, rng=rng)),
    )


def images(count=12, seed=1):
    """Return images and their classes."""
    rng = np.random.default_rng(seed)
    t = rng.integers(3, size=count)
    x = rng.normal(size=(count, 1, 8, 8)) + t[:, None, None, None]
    return x.astype(np.float32), t


def weights(model):
    """Return the state of a network, on the CPU."""
    return {name: np.array(host(a)) for name, a in model.state_dict().items()}


def trained(model, device=None, **changes):
    """Train on batches of four, and return the network's state and the history."""
    x, t = images()
    settings = {"epochs": 1, "batch_size": 4, "optimizer": SGD(0.05, 0.9), "seed": 3}
    settings |= {"progress": False, "device": device} | changes
    history = fit(model, x, t, **settings)
    return weights(model), history


def close(one, two, tolerance):
    """Assert that two states are the same, relative to the largest number of an array."""
    assert one.keys() == two.keys()
    for name, a in one.items():
        limit = tolerance * np.abs(two[name]).max()
        np.testing.assert_allclose(a, two[name], 0, limit, err_msg=name)


# --- to ---------------------------------------------------------------------------------


@every_place
def test_there_and_back_is_the_same_bit_for_bit(place):
    def moved():
        model = normalised()
        x, _ = images(4)
        model.learn(model.forward(x))
        before, gradients = weights(model), {k: a.copy() for k, a in model.grads.items()}
        arrays = model.params | model.grads
        assert model.device == "cpu" and model.to("cuda") is model
        assert model.device == "cuda"
        there = model.params | model.grads
        assert all(isinstance(a, CudaArray) for a in there.values())
        counts = model.buffers["0.norm.num_batches_tracked"]
        assert isinstance(counts, np.ndarray) and counts == 1
        assert isinstance(model.buffers["0.norm.running_mean"], CudaArray)
        assert model.to("cpu").device == "cpu"
        assert all(model.params[k] is not arrays[k] for k in model.params)
        same(weights(model), before)
        same(model.grads, gradients)
        return [*before.values()]

    on_cuda(place, moved, RUNS[:1])


@pytest.mark.sim
def test_what_forward_remembered_goes_along():
    """So a backward needs no other forward: also where three layers went as one."""
    x, _ = images(4)
    model = network()
    dy = model.forward(x)
    model.learn(dy)
    expected = {name: dw.copy() for name, dw in model.grads.items()}
    with simulated():
        model.to("cuda").learn(to("cuda", dy))
    close({name: host(dw) for name, dw in model.grads.items()}, expected, 1e-6)


@pytest.mark.sim
def test_shared_arrays_stay_shared():
    rng = np.random.default_rng(0)
    one, two = Linear(2, 2, rng=rng), Linear(2, 2, rng=rng)
    two.params["weight"] = one.params["weight"]
    with simulated():
        Sequential(one, two).to("cuda")
    assert two.params["weight"] is one.params["weight"]
    assert two.params["bias"] is not one.params["bias"]


@pytest.mark.sim
def test_a_device_that_is_none_and_a_gpu_that_is_none():
    for layer in (ReLU(), network()):
        with pytest.raises(ValueError, match='device must be "cpu" or "cuda", not \'gpu\''):
            layer.to("gpu")
    if native.why_not():
        with simulated(False), pytest.raises(native.NoGPU):
            ReLU().to("cuda")


@every_place
def test_files_copies_and_tables(place, tmp_path):
    def used():
        model, x = normalised(), images(2)[0]
        model.save(tmp_path / "cpu.safetensors")
        table = repr(model.summary((1, 8, 8)))
        model.to("cuda").save(tmp_path / "cuda.safetensors")
        files = [(tmp_path / f"{k}.safetensors").read_bytes() for k in ("cpu", "cuda")]
        assert files[0] == files[1]
        assert repr(model.summary((1, 8, 8))) == table and model.device == "cuda"
        other = normalised(1).to("cuda")
        arrays = list(other.params.values())
        other.load(tmp_path / "cpu.safetensors")
        assert all(a is b for a, b in zip(other.params.values(), arrays, strict=True))
        same(weights(other), weights(model))
        third = normalised(2)
        third.load_state_dict(model.state_dict())
        same(weights(third), weights(model))
        copy, before = deepcopy(model), weights(model)
        state = {name: np.zeros_like(a) for name, a in before.items()}
        copy.load_state_dict(state)
        same(weights(model), before)
        with model.unchanged():
            model.train().forward(to("cuda", x))
            assert model.buffers["0.norm.num_batches_tracked"] == 1
        same(weights(model), before)
        seen = model.eval().trace(to("cuda", x))
        assert [one.name for one in seen][-3:] == ["2", "3", "4"]
        return host(seen[-1].y)

    y = on_cuda(place, used, RUNS[:1])
    np.testing.assert_allclose(y, normalised().eval().forward(images(2)[0]), 1e-5, 1e-6)


# --- fit and evaluate -------------------------------------------------------------------


@every_place
def test_five_steps_are_those_of_the_cpu(place):
    options = {"epochs": 2, "after_step": lambda history: len(history.batch_loss) == 5}
    expected, _ = trained(network(), **options)
    found = on_cuda(place, lambda: trained(network(), "cuda", **options)[0], RUNS[:2])
    close(found, expected, 1e-4)
    start = network().state_dict()
    for name, a in expected.items():
        assert np.abs(a - start[name]).max() > 1e-3, "it learned nothing"


@pytest.mark.gpu
@pytest.mark.skipif(bool(native.why_not()), reason=native.why_not() or "-")
def test_twenty_steps_on_a_gpu_are_those_of_the_cpu():
    expected, one = trained(network(), epochs=7)
    found, two = trained(network(), "cuda", epochs=7)
    again, three = trained(network(), "cuda", epochs=7)
    close(found, expected, 1e-4)
    np.testing.assert_allclose(one.batch_loss, two.batch_loss, 1e-3)
    same(again, found)
    assert two == three


@every_place
def test_everything_of_fit(place):
    """Augmentation, regularization, validation, schedule, the best weights, evaluation."""
    x, t = images(6, seed=2)
    options = {
        **{"augment": Shift(1), "regularization": (L2(0.01), MaxNorm(0.5))},
        **{"validation": (x, t), "restore_best": True, "epochs": 2},
        "schedule": lambda done: 1 if done < 0.5 else 40,  # too far: epoch 1 is best
    }

    def run(device):
        model = normalised()
        state, history = trained(model, device, optimizer=Adam(0.01), **options)
        assert model.device == (device or "cpu")
        assert history.best_epoch == 1, "else there is nothing to restore"
        result = evaluate(model, x, t)
        np.testing.assert_allclose(result.loss, history.test_loss[0], 1e-6)
        told = [history.batch_loss, history.test_loss, history.test_accuracy]
        told += [history.learning_rate, result.loss, result.accuracy]
        return state, told, result.predictions, result.probabilities

    expected, found = run(None), on_cuda(place, lambda: run("cuda"), RUNS[:1])
    close(found[0], expected[0], 1e-4)
    for a, b in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, 1e-4)
    np.testing.assert_array_equal(found[2], expected[2])
    np.testing.assert_allclose(found[3], expected[3], 1e-4)


@pytest.mark.sim
def test_model_and_optimizer_may_change_place_between_two_trainings():
    with simulated():
        model, optimizer = network(), SGD(0.05, 0.9)
        trained(model, "cuda", optimizer=optimizer)
        on_gpu = evaluate(model, *images())
        assert model.device == "cuda"
        there = evaluate(model, *images(), device="cpu")
        assert model.device == "cpu"
        np.testing.assert_allclose(on_gpu.loss, there.loss, 1e-5)
        state, _ = trained(model, optimizer=optimizer)
    optimizer, model = SGD(0.05, 0.9), network()
    trained(model, optimizer=optimizer)
    close(state, trained(model, optimizer=optimizer)[0], 1e-4)


def kill(history):
    """Interrupt after two steps."""
    if len(history.batch_loss) == 2:
        raise KeyboardInterrupt


@every_place
def test_a_killed_training_goes_on_to_the_same_bits(place, tmp_path):
    options = {"device": "cuda", "checkpoint_every": 1, "augment": Shift(1)}
    options |= {"validation": images(4, seed=2), "restore_best": True}

    def run(model, file, **more):
        path = tmp_path / file
        return trained(model, checkpoint=path, optimizer=Adam(0.01), **options, **more)

    def resumed():
        state, history = run(normalised(), "whole.safetensors")
        with pytest.raises(KeyboardInterrupt):
            run(normalised(), "half.safetensors", after_step=kill)
        again, told = run(normalised(5), "half.safetensors")
        assert told == history
        same(again, state)
        files = [contents(path) for path in sorted(tmp_path.iterdir())]
        same(*files)
        for path in tmp_path.iterdir():
            path.unlink()
        return state

    on_cuda(place, resumed, RUNS[:1])


@pytest.mark.sim
def test_a_checkpoint_of_cuda_is_gone_on_with_on_the_cpu(tmp_path):
    options = {"checkpoint_every": 1, "checkpoint": tmp_path / "run.safetensors"}
    expected, _ = trained(network(), epochs=2)
    with simulated(), pytest.raises(KeyboardInterrupt):
        trained(network(), "cuda", epochs=2, after_step=kill, **options)
    close(trained(network(), epochs=2, **options)[0], expected, 1e-4)


# --- what goes wrong --------------------------------------------------------------------


@pytest.mark.sim
@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda model: model.params["4.bias"].__setitem__(1, np.nan),
            "4.bias is not finite",
        ),
        (lambda model: model.params["4.weight"].fill(3e38), "layer 4 .* was the first"),
    ],
)
def test_divergence_says_where_it_began_and_leaves_the_model(spoil, message):
    model = normalised()
    spoil(model)
    before = weights(model)
    with simulated(), np.errstate(all="ignore"):
        with pytest.raises(FloatingPointError, match=message):
            trained(model, "cuda")
        same(weights(model), before)


@pytest.mark.sim
def test_gradient_that_is_not_finite():
    """An infinite slope behind a finite loss."""

    def steep(y, t):
        dy = np.zeros(y.shape, y.dtype)
        dy[0] = np.inf
        return 1.0, to("cuda", dy)

    message = "on the way back layer 4 .* gradient that is not finite, that of its weight"
    with simulated(), pytest.raises(FloatingPointError, match=message):
        trained(network(), "cuda", loss=steep)


@pytest.mark.sim
def test_label_that_is_no_class():
    x, t = images()
    t[5] = 3
    with simulated(), pytest.raises(ValueError, match="label 3 is not a class"):
        fit(
            network(), x, t, epochs=1, batch_size=12, optimizer=SGD(0.1), seed=0,
            progress=False, device="cuda",
        )  # fmt: skip


@pytest.mark.sim
def test_sanity_on_cuda():
    x, t = images(4)
    plain = Sequential(Flatten(), Linear(64, 3, rng=np.random.default_rng(0)))
    search = {"low": 1e-3, "high": 1.0, "steps": 10, "batch_size": 2}
    expected = lr_finder(plain, x, t, SGD(0.1), **search)
    with simulated():
        before = weights(plain.to("cuda"))
        found = lr_finder(plain, x, t, SGD(0.1), **search)
        np.testing.assert_allclose(found.losses, expected.losses, 1e-4)
        assert "one linear map" in overfit(plain, x, t, steps=2).verdict
        same(weights(plain), before)


@pytest.mark.sim
def test_graphs_are_for_the_cpu():
    with simulated():
        x, model = to("cuda", images(2)[0]), network().to("cuda")
        with pytest.raises(
            TypeError, match="value is on cuda; a graph computes on the CPU"
        ):
            Variable(x)
        with pytest.raises(TypeError, match=r"on cpu .* on cuda|on cuda .* on cpu"):
            layer_operation(model, images(2)[0])


# --- the command ------------------------------------------------------------------------


@pytest.mark.sim
def test_command_trains_on_cuda(tmp_path, capsys, monkeypatch):
    """A tiny network on a few images: those of the command are many for the simulator."""
    (x, t), (x_test, t_test) = images(), images(6, seed=2)
    few = {"x_train": x, "t_train": t, "x_test": x_test, "t_test": t_test}
    data = SimpleNamespace(classes=("a", "b", "c"), **few)
    monkeypatch.setattr(course.data, "load", lambda name: data)
    monkeypatch.setattr(course.zoo, "lenet5", lambda classes, *, rng: network())
    words = ["train", "lenet5", "--epochs", "2", "--batch-size", "4", "--device"]
    told, files = [], []
    with simulated():
        for device in "cpu", "cuda":
            out = tmp_path / device
            assert cli.main([*words, device, "--out", str(out)]) == 0
            told.append(re.search("test accuracy .*nats", capsys.readouterr().out)[0])
            files.append(read_state(out / "lenet5-digits-seed0/weights.safetensors"))
    assert told[0] == told[1]
    close(files[1], files[0], 1e-4)
    assert any((files[1][name] != a).any() for name, a in files[0].items())


def test_command_without_a_gpu_says_so_in_one_line(tmp_path, capsys):
    if not native.why_not():
        pytest.skip("there is a GPU")
    words = ["train", "lenet5", "--device", "cuda", "--out", str(tmp_path)]
    with simulated(False):
        assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"course train: {native.why_not()}. ") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
