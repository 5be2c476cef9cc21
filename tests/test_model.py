"""course/model.py: chains, sums and branches, their keys, and files never half written."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest

from course.checks import check_layer
from course.fused import Fused
from course.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
)
from course.layers.base import Layer
from course.model import Branches, Container, Residual, Sequential


def small(seed=0, hidden=5, dtype=np.float32):
    """Return a network with every kind of layer in it."""
    rng = np.random.default_rng(seed)
    return Sequential(
        Conv2d(1, 2, 3, padding=1, rng=rng, dtype=dtype),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(8, hidden, rng=rng, dtype=dtype),
        Linear(hidden, 3, rng=rng, dtype=dtype),
    )


def block(C, F, stride, dtype, rng, after=True):
    """Return a block of a ResNet, with the usual names."""
    options = {"rng": rng, "dtype": dtype, "bias": False}
    body = Sequential(
        conv1=Conv2d(C, F, 3, stride, 1, **options),
        bn1=BatchNorm2d(F, dtype=dtype),
        relu=ReLU(),
        conv2=Conv2d(F, F, 3, 1, 1, **options),
        bn2=BatchNorm2d(F, dtype=dtype),
    )
    if (C, stride) == (F, 1):
        return Residual(body, after=ReLU() if after else None)
    shortcut = Sequential(Conv2d(C, F, 1, stride, **options), BatchNorm2d(F, dtype=dtype))
    return Residual(body, shortcut, ReLU() if after else None, name="downsample")


def nested(dtype=np.float64, seed=0):
    """Return a network of blocks in blocks: sums, branches, and branches in a sum."""
    rng = np.random.default_rng(seed)
    options = {"rng": rng, "dtype": dtype}
    module = Branches(
        one=Conv2d(4, 2, 1, **options),
        three=Sequential(Conv2d(4, 2, 1, **options), Conv2d(2, 3, 3, padding=1, **options)),
        pool=Sequential(AvgPool2d(3, 1, 1), Residual(Sequential(ReLU()))),
    )
    return Sequential(
        conv1=Conv2d(2, 3, 3, padding=1, **options),
        layer1=Sequential(block(3, 4, 2, dtype, rng), block(4, 4, 1, dtype, rng, False)),
        mixed=module,
        sum=Residual(
            Sequential(Branches(Conv2d(9, 4, 1, **options), Conv2d(9, 5, 1, **options)))
        ),
        pool=GlobalAvgPool2d(),
        flatten=Flatten(),
        fc=Linear(9, 3, **options),
    )


@pytest.mark.parametrize(
    "make, shape",
    [(small, (2, 1, 4, 4)), (nested, (3, 2, 6, 5))],
    ids=["chain", "nested"],
)
@pytest.mark.parametrize("training", [True, False])
def test_gradient_of_a_whole_network_is_the_slope(make, shape, training, rng):
    model = make(dtype=np.float64)
    model.train() if training else model.eval()

    class Whole(Layer):
        params = property(lambda self: model.params, lambda self, value: None)
        grads = property(lambda self: model.grads, lambda self, value: None)
        forward, backward = staticmethod(model.forward), staticmethod(model.backward)

    check_layer(Whole(), rng.normal(size=shape), rng)


def test_keys_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
        torch.nn.Linear(5, 3),
    )
    expected = {name: tuple(array.shape) for name, array in theirs.state_dict().items()}
    assert {name: array.shape for name, array in small().params.items()} == expected


def test_saved_weights_come_back(tmp_path, rng):
    x = rng.normal(size=(2, 1, 4, 4)).astype(np.float32)
    saved, fresh = small(seed=1), small(seed=2)
    path = tmp_path / "new folder" / "weights.safetensors"
    saved.save(path)
    assert not np.array_equal(saved(x), fresh(x))
    fresh.load(path)
    np.testing.assert_array_equal(saved(x), fresh(x))
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "other, words",
    [
        (small(hidden=6), r"4.weight is \(5, 8\) float32 in .*, but \(6, 8\) float32"),
        (Sequential(Flatten()), "belongs to another model"),
    ],
)
def test_weights_of_another_model_change_nothing(other, words, tmp_path):
    path = tmp_path / "weights.safetensors"
    small().save(path)
    before = {name: array.copy() for name, array in other.params.items()}
    with pytest.raises(ValueError, match=words):
        other.load(path)
    for name, array in other.params.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not this", b"\xff" * 100])
def test_another_kind_of_file_is_refused(content, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a safetensors file"):
        small().load(path)


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    small().save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is not a safetensors file"):
        small().load(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9")
def test_a_killed_process_leaves_a_whole_file(tmp_path):
    """A child saves for ever and is killed at random moments; the file always loads."""
    path = tmp_path / "weights.safetensors"
    program = f"""
        import numpy as np
        from course.layers import Linear
        from course.model import Sequential
        model = Sequential(Linear(500, 500, rng=np.random.default_rng(0)))
        print("ready", flush=True)
        while True:
            model.save({str(path)!r})
    """
    rng = np.random.default_rng(0)
    model = Sequential(Linear(500, 500, rng=rng))
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE
        )
        assert child.stdout.readline() == b"ready\n"
        while not path.exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        model.load(path)


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    small().save(path)
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        small(seed=3).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_list_of_layers_is_refused():
    with pytest.raises(TypeError, match=r"not Sequential\(\[a, b, c\]\)"):
        Sequential([ReLU(), ReLU()])


def test_backward_before_forward_is_refused():
    with pytest.raises(RuntimeError, match="call forward first"):
        small().backward(np.zeros((1, 3), np.float32))


# --- a state dict ------------------------------------------------------------------------


def same_state(model, state):
    """Raise unless the model has these numbers, bit for bit."""
    assert model.state_dict().keys() == state.keys()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)


def kept(model):
    """Return a copy of what the model has learned and counted."""
    return {name: array.copy() for name, array in model.state_dict().items()}


def test_pytorch_and_we_take_each_others_state(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch_block(torch, 3, 4, 2).double()
    mine = block(3, 4, 2, np.float64, np.random.default_rng(1))
    mine.load_state_dict(theirs.state_dict())
    same_state(mine, {name: t.numpy() for name, t in theirs.state_dict().items()})
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    again = block(3, 4, 2, np.float64, np.random.default_rng(2))
    again.load(tmp_path / "w.pth")
    same_state(again, mine.state_dict())
    theirs.load_state_dict({k: torch.tensor(a) for k, a in mine.state_dict().items()})


def test_state_dict_has_the_arrays_themselves():
    model = small()
    model.state_dict()["4.bias"][:] = 7
    assert model.params["4.bias"].tolist() == [7] * 5


def test_float64_is_rounded_to_the_nearest_float32():
    """1 + 2^-24 lies between two float32, and goes to the even one: 1."""
    model = Sequential(Linear(2, 1, rng=np.random.default_rng(0)))
    weight = np.array([[1 + 2.0**-24, 1 + 1.5 * 2.0**-23]])
    model.load_state_dict({"0.weight": weight, "0.bias": np.float16([0.5])})
    assert model.params["0.weight"].dtype == np.float32
    assert model.params["0.weight"].tolist() == [[1.0, 1 + 2.0**-22]]
    assert model.params["0.bias"].tolist() == [0.5]


def test_bfloat16_tensors_are_widened():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch.nn.Linear(3, 2).bfloat16()
    model = Sequential(Linear(3, 2, rng=np.random.default_rng(0)))
    model.load_state_dict({f"0.{k}": t for k, t in theirs.state_dict().items()})
    np.testing.assert_array_equal(
        model.params["0.weight"], theirs.weight.detach().float().numpy()
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ({"0.weight": np.ones((1, 2), int)}, r"0.weight is \(1, 2\) int64 .* float32"),
        (
            {"0.weight": np.ones((2, 1))},
            r"0.weight is \(2, 1\) float64 .* \(1, 2\) float32",
        ),
        ({"0.bias": np.array([1e39])}, "0.bias .* too large for float32"),
        ({"0.bias": None}, r"0.bias is \(\) object"),
        ({"1.weight": np.ones(3)}, "lacks nothing and has 1.weight besides"),
        ({str(k): 1 for k in range(17)}, "has 0, 1, 10, 11, 12 and 12 more besides"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, words):
    model = Sequential(Linear(2, 1, rng=np.random.default_rng(0)))
    state = {"0.weight": np.ones((1, 2)), "0.bias": np.ones(1)}
    before = kept(model)
    with pytest.raises(ValueError, match=words):
        model.load_state_dict(state | change)
    same_state(model, before)
    model.load_state_dict(state)


def test_what_is_missing_is_named():
    with pytest.raises(
        ValueError, match=r"lacks 0.bias, 0.weight, 4.bias, 4.weight, 5.bias"
    ):
        small().load_state_dict({})
    with pytest.raises(TypeError, match="the state dict is a list; it must map names"):
        small().load_state_dict([])


def test_infinity_and_nan_are_taken_as_they_are():
    model = Sequential(Linear(2, 1, rng=np.random.default_rng(0)))
    weight = np.array([[np.inf, np.nan]])
    model.load_state_dict({"0.weight": weight, "0.bias": np.zeros(1)})
    np.testing.assert_array_equal(model.params["0.weight"], weight.astype(np.float32))


def test_old_files_count_no_batches(rng):
    model, state = Sequential(BatchNorm2d(2)), {}
    model(rng.normal(size=(2, 2, 3, 3)).astype(np.float32))
    for name, array in kept(Sequential(BatchNorm2d(2))).items():
        if not name.endswith("num_batches_tracked"):
            state[name] = array
    model.load_state_dict(state)
    assert model.buffers["0.running_mean"].tolist() == [0, 0]
    assert model.buffers["0.num_batches_tracked"] == 1
    model.load_state_dict(state | {"0.num_batches_tracked": np.int64(5)})
    assert model.buffers["0.num_batches_tracked"] == 5


# --- sums and branches -------------------------------------------------------------------


def torch_block(torch, C, F, stride):
    """Return the block as PyTorch's users write it."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(C, F, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(F)
            self.conv2 = nn.Conv2d(F, F, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(F)
            self.downsample = None
            if (C, stride) != (F, 1):
                self.downsample = nn.Sequential(
                    nn.Conv2d(C, F, 1, stride, bias=False), nn.BatchNorm2d(F)
                )

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    return Block()


@pytest.mark.parametrize("C, F, stride", [(4, 4, 1), (3, 4, 2), (3, 5, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_a_residual_block_is_that_of_pytorch(C, F, stride, training, rng):
    """Keys, y, every gradient and the running statistics, in float64."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch_block(torch, C, F, stride).double().train(training)
    mine = block(C, F, stride, np.float64, rng)
    mine.train() if training else mine.eval()
    assert list(theirs.state_dict()) != [] and mine.state_dict().keys() == (
        theirs.state_dict().keys()
    )
    theirs.load_state_dict({k: torch.tensor(a) for k, a in mine.state_dict().items()})
    x = rng.normal(size=(2, C, 7, 6))
    tx = torch.tensor(x, requires_grad=True)
    ty = theirs(tx)
    y = mine(x)
    np.testing.assert_allclose(y, ty.detach().numpy(), 1e-10, 1e-10)
    dy = rng.normal(size=y.shape)
    ty.backward(torch.tensor(dy))
    np.testing.assert_allclose(mine.backward(dy), tx.grad.numpy(), 1e-9, 1e-10)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(
            mine.grads[name], parameter.grad.numpy(), 1e-9, 1e-10, err_msg=name
        )
    for name, buffer in theirs.named_buffers():
        np.testing.assert_allclose(mine.buffers[name], buffer.numpy(), 1e-10, err_msg=name)


def test_branches_are_those_of_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    module = nested().children["mixed"]
    x = rng.normal(size=(2, 4, 5, 6))
    tx = torch.tensor(x, requires_grad=True)
    w = {k: torch.tensor(a) for k, a in module.params.items()}
    conv = torch.nn.functional.conv2d
    one = conv(tx, w["one.weight"], w["one.bias"])
    three = conv(tx, w["three.0.weight"], w["three.0.bias"])
    three = conv(three, w["three.1.weight"], w["three.1.bias"], padding=1)
    pool = torch.nn.functional.avg_pool2d(tx, 3, 1, 1, count_include_pad=False)
    ty = torch.cat([one, three, torch.relu(pool) + pool], 1)
    y = module(x)
    np.testing.assert_allclose(y, ty.detach().numpy(), 1e-10, 1e-12)
    dy = rng.normal(size=y.shape)
    ty.backward(torch.tensor(dy))
    np.testing.assert_allclose(module.backward(dy), tx.grad.numpy(), 1e-10, 1e-12)


def test_a_sum_is_added_by_hand():
    """relu(x) + x of -1 and 2 is -1 and 4; the slope is 1 below zero and 2 above."""
    twice = Residual(Sequential(ReLU()))
    assert twice(np.array([[-1.0, 2.0]])).tolist() == [[-1.0, 4.0]]
    assert twice.backward(np.array([[10.0, 10.0]])).tolist() == [[10.0, 20.0]]


def test_train_and_eval_reach_every_layer():
    model = nested()
    layers = [layer for _, layer in model.leaves()] + list(model)
    assert len(layers) > 20 and all(layer.training for layer in layers)
    assert model.eval() is model
    assert not any(layer.training for layer in layers)
    model.train()
    assert all(layer.training for layer in layers)


def test_leaves_are_named_as_the_parameters_are():
    model = nested()
    names = [f"{name}.{key}" for name, leaf in model.leaves() for key in leaf.params]
    assert names == list(model.params)
    assert "layer1.0.downsample.1.weight" in names and "mixed.three.1.bias" in names


def test_chains_in_chains_still_run_in_one_pass(rng):
    inner = Sequential(Conv2d(1, 2, 3, rng=rng), ReLU(), MaxPool2d(2))
    model = Sequential(inner, Residual(Sequential(Conv2d(2, 2, 1, rng=rng), ReLU())))
    assert isinstance(model.layers[0]._steps[0], Fused)
    assert isinstance(model.layers[1].body._steps[0], Fused)


def test_a_copy_is_a_network_of_its_own(rng):
    model = nested(np.float32)
    x = rng.normal(size=(2, 2, 6, 6)).astype(np.float32)
    model(x)
    other, before = deepcopy(model), kept(model)
    dy = np.ones_like(other(x))
    other.backward(dy)
    for array in other.params.values():
        array += 1
    same_state(model, before)
    assert not model.grads and other.grads.keys() == other.params.keys()
    for _, leaf in other.leaves():
        assert all(leaf is not mine for _, mine in model.leaves())
    fused = Sequential(Conv2d(1, 2, 3, rng=rng), ReLU())
    other = deepcopy(fused)
    assert other._steps[0].conv is other.layers[0] is not fused.layers[0]


def test_repr_is_one_line_for_each_layer():
    rng = np.random.default_rng(0)
    body = Sequential(conv1=Conv2d(4, 4, 3, padding=1, rng=rng, dtype=np.float64))
    model = Sequential(Residual(body, after=ReLU()), fc=Linear(4, 10, bias=False, rng=rng))
    assert repr(model) == textwrap.dedent("""\
        Sequential(
          (0): Residual(
            (conv1): Conv2d(4, 4, 3, padding=1)
            (after): ReLU()
          )
          (fc): Linear(4, 10, bias=False)
        )""")
    assert repr(Sequential()) == "Sequential()"
    assert repr(deepcopy(model)) == repr(model)


def wrong(model, shape, words):
    """Raise unless the model refuses images of this shape in these words."""
    with pytest.raises(ValueError, match=words):
        model(np.zeros(shape))


def test_an_error_names_the_layer(rng):
    options = {"rng": rng, "dtype": np.float64}
    conv = Conv2d(3, 4, 3, **options)
    wrong(nested(), (1, 3, 6, 6), r"^conv1: x has 3 channels, w expects 2$")
    inner = Sequential(ReLU(), Branches(a=ReLU(), b=Sequential(ReLU(), conv)))
    wrong(Sequential(layer1=inner), (1, 2, 6, 6), r"^layer1\.1\.b\.1: x has 2 channels")
    deep = Sequential(ReLU(), Sequential(conv, ReLU(), MaxPool2d(2)))
    wrong(deep, (1, 3, 3, 9), r"^1\.2: a window that spans 2 pixels")
    wrong(deep, (1, 3, 2, 9), r"^1\.0: a window that spans 3 pixels")
    around = Residual(Sequential(ReLU()), conv, name="downsample")
    wrong(Sequential(around), (1, 2, 6, 6), r"^0\.downsample: x has 2 channels")
    with pytest.raises(TypeError, match=r"^conv1: x is a list"):
        nested()([[1.0]])


def test_shapes_that_do_not_meet_are_named(rng):
    conv = Conv2d(3, 4, 3, rng=rng, dtype=np.float64)
    sum_ = Residual(Sequential(conv))
    words = r"^b: the body makes \(1, 4, 4, 4\), but what goes round it is \(1, 3, 6, 6\)"
    wrong(Sequential(a=ReLU(), b=sum_), (1, 3, 6, 6), words)
    words = r"^0: branch x makes \(1, 3, 6, 6\), but branch y makes \(1, 4, 4, 4\)"
    wrong(Sequential(Branches(x=ReLU(), y=conv)), (1, 3, 6, 6), words)


def test_blocks_that_cannot_be_are_refused():
    with pytest.raises(TypeError, match="body is a ReLU; it must be a Sequential"):
        Residual(ReLU())
    with pytest.raises(ValueError, match="has a layer after already"):
        Residual(Sequential(after=ReLU()), after=ReLU())
    with pytest.raises(ValueError, match="at least one branch"):
        Branches()


# --- a trace -----------------------------------------------------------------------------


def test_a_trace_is_what_the_network_computes(rng):
    model = nested()
    x = rng.normal(size=(2, 2, 6, 6))
    seen = model.trace(x)
    names = [step.name for step in seen]
    assert names[:2] == ["conv1", "layer1.0.downsample.0"]
    assert names[names.index("mixed.pool.1.0") :][:3] == [
        "mixed.pool.1.0", "mixed.pool.1", "mixed",
    ]  # fmt: skip
    assert {name for name, _ in model.leaves()} <= set(names)
    np.testing.assert_array_equal(seen[-1].y, nested()(x))
    for step in seen:  # each y again, from its x, by the layer alone
        x = step.x
        meets = isinstance(step.layer, Container)
        y = step.layer.join(x) if meets else deepcopy(step.layer).forward(x)
        np.testing.assert_array_equal(y, step.y, err_msg=step.name)


def test_a_trace_sees_what_runs_in_one_pass(rng):
    model = small()
    x = rng.normal(size=(2, 1, 4, 4)).astype(np.float32)
    seen = model.trace(x)
    assert [step.name for step in seen] == list("012345")
    assert [type(step.layer) for step in seen][:3] == [Conv2d, ReLU, MaxPool2d]
    assert seen[0].x is x and all(a.y is b.x for a, b in pairwise(seen))
    assert seen[0].y.min() < 0 == seen[1].y.min()
    np.testing.assert_array_equal(seen[-1].y, model(x))


def test_a_layer_used_twice_appears_twice():
    once = ReLU()
    seen = Sequential(a=once, b=Sequential(once)).trace(np.ones(2))
    assert [(step.name, step.layer) for step in seen] == [("a", once), ("b.0", once)]


def everything(model):
    """Return all that a network remembers and counts, as (name, key, identity)."""
    return [
        (name, key, id(value))
        for name, layer in [*model.leaves(), *model.children.items(), ("", model)]
        for key, value in vars(layer).items()
    ]


class Broken(ReLU):
    """A layer that fails."""

    def forward(self, x):
        raise ArithmeticError("broken")


@pytest.mark.parametrize("breaks", [False, True])
def test_a_trace_changes_nothing(breaks, rng):
    """Statistics, masks, memories and modes, also if a layer raises."""
    last = [Broken()] if breaks else []
    model = Sequential(nested(np.float32), BatchNormAndDropout(), *last)
    model.layers[0].eval()
    x = rng.normal(size=(4, 2, 6, 6)).astype(np.float32)
    if not breaks:
        model(x)
    before, counted, state = everything(model), model.layers[1].dropped, kept(model)
    if breaks:
        with pytest.raises(ArithmeticError):
            model.trace(x)
    else:
        model.trace(x + 1)
    assert everything(model) == before
    assert model.layers[1].dropped == counted
    same_state(model, state)


class BatchNormAndDropout(Sequential):
    """Two layers that change with every forward in training."""

    def __init__(self):
        norm = Sequential(Reshaped(), BatchNorm2d(3))
        super().__init__(norm, Dropout(rng=np.random.default_rng(0)))

    @property
    def dropped(self):
        """How many masks were drawn."""
        return self.layers[1].next_step


class Reshaped(Layer):
    """A batch of scores as images of one pixel."""

    def forward(self, x):
        return x[:, :, None, None]


def test_backward_after_a_trace_is_that_of_the_last_forward(rng):
    model, other = nested(), nested()
    x, dy = rng.normal(size=(2, 2, 6, 6)), rng.normal(size=(2, 3))
    model(x), other(x)
    model.trace(rng.normal(size=(5, 2, 8, 8)))
    np.testing.assert_array_equal(model.backward(dy), other.backward(dy))


def test_what_is_changed_inside_is_undone():
    model = Sequential(BatchNorm2d(2))
    with model.unchanged():
        model.eval()
        model.buffers["0.running_mean"][:] = 7
        model.layers[0].note = "here"
    assert model.training and model.layers[0].training
    assert model.buffers["0.running_mean"].tolist() == [0, 0]
    assert not hasattr(model.layers[0], "note")


@pytest.mark.parametrize("go", ["backward", "learn"])
def test_one_layer_at_two_places_does_not_go_backward(go, rng):
    linear = Linear(3, 3, rng=rng)
    x = rng.normal(size=(2, 3)).astype(np.float32)
    once = Sequential(inner=Sequential(linear), relu=ReLU(), again=linear)
    for model in (once, Branches(linear, linear), Residual(Sequential(linear, linear))):
        y = model(x)  # that is allowed
        with pytest.raises(RuntimeError, match=r"are one layer, .* a layer of its own"):
            getattr(model, go)(y)
    with pytest.raises(RuntimeError, match=r"inner\.0 and again are one layer"):
        once.backward(x)
