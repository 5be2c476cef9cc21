"""course/checkpoints.py and fit's use of it: what is killed goes on, to the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from course import checkpoints
from course.layers import Linear
from course.model import Sequential
from course.optimizers import SGD, Adam
from course.regularization import L2
from course.training import fit
from tests.trainee import BATCH, EPOCHS, digits, network, train

STEPS = EPOCHS * -(-300 // BATCH)


def contents(path):
    """Return all that a checkpoint holds, but the times."""
    settings, state = checkpoints.read(path)
    del state["seconds"], state["history"]["seconds"]
    return settings, state


def same(one, two):
    """Check that two states are equal bit for bit."""
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert one.tobytes() == two.tobytes()
    elif isinstance(one, dict | list | tuple):
        assert len(one) == len(two)
        for key in one if isinstance(one, dict) else range(len(one)):
            same(one[key], two[key])
    else:
        assert one == two


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The file with the digits."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    digits(path)
    return path


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """What a training that nobody disturbs ends in: its checkpoint, and its weights."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    path, model = folder / "run.safetensors", network()
    train(data, model, checkpoint=path)
    model.save(folder / "weights.safetensors")
    return contents(path), (folder / "weights.safetensors").read_bytes()


def start(data, folder):
    """Start the training in a process of its own."""
    files = [data, folder / "run.safetensors", folder / "weights.safetensors"]
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.trainee", *files], cwd=root, stderr=subprocess.PIPE
    )


def begun(data, folder):
    """Start the training, and return when it has written a checkpoint."""
    path = folder / "run.safetensors"
    known = path.stat().st_mtime_ns if path.exists() else 0
    child = start(data, folder)
    deadline = time.monotonic() + 600
    while not path.exists() or path.stat().st_mtime_ns == known:
        assert time.monotonic() < deadline, "the training does not begin"
        assert child.poll() in (None, 0), child.stderr.read().decode()
        if child.poll() == 0:
            break
        time.sleep(0.001)
    return child


def kill_after(data, folder, seconds):
    """Start the training, kill it so long after its first checkpoint; say if it was."""
    child = begun(data, folder)
    time.sleep(seconds)
    child.kill()
    child.communicate()
    return child.returncode == -signal.SIGKILL


def finish(data, folder):
    """Let the training go on to its end."""
    child = start(data, folder)
    _, told = child.communicate(timeout=600)
    assert child.returncode == 0, told.decode()


def equal_to(uninterrupted, folder):
    """Check what a training ended in."""
    same(contents(folder / "run.safetensors"), uninterrupted[0])
    assert (folder / "weights.safetensors").read_bytes() == uninterrupted[1]
    assert sorted(path.name for path in folder.iterdir()) == [
        "run.safetensors",
        "weights.safetensors",
    ]


killing = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")


@killing
def test_killed_over_and_over_it_ends_in_the_same_bits(data, uninterrupted, tmp_path):
    rng, steps = np.random.default_rng(5), []
    for _ in range(3):
        assert kill_after(data, tmp_path, rng.uniform(0, 0.1))
        steps.append(
            len(contents(tmp_path / "run.safetensors")[1]["history"]["batch_loss"])
        )
    assert steps == sorted(set(steps)) and steps[-1] < STEPS  # it went on each time
    finish(data, tmp_path)
    equal_to(uninterrupted, tmp_path)


@killing
@pytest.mark.slow
def test_fifty_killed_at_random_moments_end_in_the_same_bits(data, uninterrupted, tmp_path):
    rng, killed, began = np.random.default_rng(6), 0, time.monotonic()
    child = begun(data, tmp_path)
    whole = time.monotonic()
    child.communicate()
    whole = time.monotonic() - whole  # seconds from the first checkpoint to the end
    for attempt in range(200):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        moment = rng.uniform(0, whole)
        if not kill_after(data, folder, moment):
            continue  # it had ended before
        killed += 1
        state = contents(folder / "run.safetensors")[1]
        torn = [path.name for path in folder.iterdir() if path.suffix == ".partial"]
        finish(data, folder)
        equal_to(uninterrupted, folder)
        print(
            f"{killed:2} killed after {moment:.3f} s, step "
            f"{len(state['history']['batch_loss']):3} of {STEPS}"
            f"{', while it wrote' if torn else ''}: equal"
        )
        if killed == 50:
            break
    assert killed == 50
    print(f"{killed} of {killed} equal, {time.monotonic() - began:.0f} s")


def test_checkpoints_change_no_bit(data, uninterrupted, tmp_path):
    model = network()
    history = train(data, model)
    (_, state), weights = uninterrupted
    np.testing.assert_array_equal(history.batch_loss, state["history"]["batch_loss"])
    np.testing.assert_array_equal(history.test_loss, state["history"]["test_loss"])
    model.save(tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == weights


def test_stopped_within_an_epoch_it_goes_on_from_that_step(data, uninterrupted, tmp_path):
    path, last = tmp_path / "run.safetensors", []

    def interrupt(history):
        last.append(len(history.batch_loss))
        if len(history.batch_loss) == 40:  # in the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, network(), checkpoint=path, checkpoint_every=None, after_step=interrupt)
    assert last[-1] == 40
    model = network(seed=1)  # other weights, other seeds of the masks: not used
    seen = []
    train(
        data, model, checkpoint=path, checkpoint_every=None,
        after_step=lambda history: seen.append(len(history.batch_loss)),
    )  # fmt: skip
    assert seen == list(range(41, STEPS + 1))
    same(contents(path), uninterrupted[0])


def test_killed_after_the_last_step_only_the_evaluation_is_left(
    data, uninterrupted, tmp_path
):
    path = tmp_path / "run.safetensors"

    def interrupt(history):
        if len(history.batch_loss) == STEPS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, network(), checkpoint=path, after_step=interrupt)
    train(data, network(seed=1), checkpoint=path)
    same(contents(path), uninterrupted[0])


def test_what_has_ended_is_given_back_and_not_done_again(data, tmp_path, capsys):
    path, first, second = tmp_path / "run.safetensors", network(), network(seed=9)
    history = train(data, first, checkpoint=path, epochs=1)
    before = path.read_bytes()

    def never(history):
        raise AssertionError("it trains again")

    again = train(data, second, checkpoint=path, epochs=1, after_step=never, progress=True)
    assert again == history
    assert again.seconds == history.seconds
    assert path.read_bytes() == before
    for key, array in first.state_dict().items():
        np.testing.assert_array_equal(second.state_dict()[key], array, err_msg=key)
    assert (
        f"{path} is the checkpoint of a training that has ended" in capsys.readouterr().err
    )


def small(path, **changes):
    """Train a line on four points."""
    x = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    model = Sequential(Linear(2, 2, rng=np.random.default_rng(0), dtype=np.float64))
    settings = {"epochs": 2, "batch_size": 2, "optimizer": SGD(0.1), "seed": 0}
    settings |= {"x": x, "t": np.array([0, 1, 1, 0]), "model": model, "progress": False}
    return fit(**settings | changes, checkpoint=path)


def test_without_a_schedule_more_epochs_go_on(tmp_path):
    path = tmp_path / "run.safetensors"
    small(path, epochs=2)
    assert small(path, epochs=5) == small(tmp_path / "other.safetensors", epochs=5)
    with pytest.raises(ValueError, match="holds a training of 5 epochs already"):
        small(path, epochs=4)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"seed": 1}, "seed is 0 there and 1 here. Make it 0 to go on"),
        ({"batch_size": 4}, "batch_size is 2 there and 4 here"),
        ({"optimizer": SGD(0.2)}, r"SGD\(learning_rate=0.1.* here"),
        ({"optimizer": Adam(0.1)}, r"optimizer is SGD\(.*and Adam\("),
        ({"schedule": lambda done: 1 - done}, "schedule is None .* Make it None to go on"),
        ({"augment": lambda x, rng: x}, "augment is None there"),
        ({"regularization": [L2(0.1)]}, r"regularization is \(\) there and \(L2\("),
        ({"x": np.ones((4, 2))}, r"x is \(4, 2\) float64, SHA-256 "),
        ({"t": np.array([0, 0, 1, 1])}, r"t is \(4,\) int64, SHA-256 "),
        ({"validation": (np.ones((1, 2)), np.array([0]))}, "validation is None there"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_by_name(change, words, tmp_path):
    path = tmp_path / "run.safetensors"
    small(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        small(path, **change)
    assert path.read_bytes() == before


def test_another_network_is_refused_by_its_layer(tmp_path):
    path, rng = tmp_path / "run.safetensors", np.random.default_rng(0)
    small(path)
    other = Sequential(Linear(2, 3, rng=rng, dtype=np.float64))
    with pytest.raises(ValueError, match=r"layer 0 is Linear\(2, 2\), weight \(2, 2\)"):
        small(path, model=other)
    single = Sequential(Linear(2, 2, rng=rng))
    with pytest.raises(ValueError, match=r"\(2, 2\) float64.* there.*float32.* here"):
        small(path, model=single)


def test_another_schedule_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    small(path, schedule=lambda done: 1 - done)
    with pytest.raises(ValueError, match="schedule is "):
        small(path, schedule=lambda done: 1 - done / 2)
    with pytest.raises(ValueError, match="epochs is 2 there and 3 here"):
        small(path, schedule=lambda done: 1 - done, epochs=3)


def test_foreign_and_damaged_files_are_refused_and_kept(tmp_path):
    path = tmp_path / "run.safetensors"
    small(path)
    whole = path.read_bytes()
    save_file({"0.weight": np.ones(3)}, tmp_path / "weights")
    changed = bytearray(whole)
    changed[-3] ^= 1
    for data, words in (
        (b"notes of mine", "is no checkpoint, or it is damaged"),
        (whole[:-1], "is no checkpoint, or it is damaged"),
        (whole[: len(whole) // 2], "is no checkpoint, or it is damaged"),
        (b"", "is no checkpoint, or it is damaged"),
        ((tmp_path / "weights").read_bytes(), "but no checkpoint of a training"),
        (bytes(changed), "is damaged: its contents do not have the SHA-256"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=words):
            small(path)
        assert path.read_bytes() == data


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="is a folder; give a file in it"):
        small(tmp_path)


def test_what_cannot_be_written_is_said_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        small(tmp_path / "file" / "run.safetensors", after_step=lambda history: 1 / 0)


def test_what_is_written_is_read(tmp_path):
    state = {
        "weights": {"a.b": np.arange(3.0), "number": np.zeros((), np.int64)},
        "empty": np.zeros((0,)),
        "seed": 2**62 + 1,
        "loss": float("nan"),
        "list": [{"next_step": 3}, {}],
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "word": "array:",
    }
    checkpoints.write(tmp_path / "a", {"seed": "0"}, state)
    settings, found = checkpoints.read(tmp_path / "a")
    assert settings == {"seed": "0"}
    assert np.isnan(found.pop("loss")) and np.isnan(state.pop("loss"))
    same(found, state)
