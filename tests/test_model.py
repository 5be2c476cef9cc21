"""course/model.py: the chain, its keys, and a file that is never half written."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU
from course.layers.base import Layer
from course.model import Sequential


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


def test_gradient_of_the_whole_chain_is_the_slope(rng):
    model = small(dtype=np.float64)

    class Whole(Layer):
        params = property(lambda self: model.params, lambda self, value: None)
        grads = property(lambda self: model.grads, lambda self, value: None)
        forward, backward = staticmethod(model.forward), staticmethod(model.backward)

    check_layer(Whole(), rng.normal(size=(2, 1, 4, 4)), rng)


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
        (small(hidden=6), "4.weight is .5, 8. float32|4.bias is"),
        (small(dtype=np.float64), "float32 in .* but .* float64"),
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
