"""`course train`, as a user calls it: in its own process, on digits that need no file."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from course import optimizers, zoo
from course.cli import main
from course.data import load
from course.train import (
    AUGMENTATIONS,
    NETWORKS,
    OPTIMIZERS,
    SCHEDULES,
    _augment,
    _schedule,
)
from course.training import evaluate
from course.zoo.lenet5 import lenet5

COMMAND = [sys.executable, "-m", "course", "train", "lenet5", "--data", "digits"]
KEPT = ["confused.png", "learning_curve.png", "weights.safetensors"]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the command does when nobody stops it, and the folder for results."""
    out = tmp_path_factory.mktemp("whole")
    command = [*COMMAND, "--epochs", "2", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done, out / "lenet5-digits-seed0"


def test_digits_are_learned_and_everything_is_kept(whole):
    done, folder = whole
    assert sorted(path.name for path in folder.iterdir()) == KEPT
    for name in ("confused.png", "learning_curve.png"):
        assert (folder / name).read_bytes().startswith(PNG)
    model, data = lenet5(rng=np.random.default_rng(9)), load("digits")
    model.load(folder / "weights.safetensors")
    accuracy = evaluate(model, data.x_test, data.t_test).accuracy
    assert accuracy > 0.9
    assert f"test accuracy {accuracy:.2%}" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for a child")
def test_interrupt_keeps_the_best_weights(tmp_path):
    child = subprocess.Popen(
        [*COMMAND, "--epochs", "1000", "--out", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    weights = tmp_path / "lenet5-digits-seed0" / "weights.safetensors"
    deadline = time.monotonic() + 60
    while not weights.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    told, _ = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "stopped early; the best weights so far are kept" in told
    lenet5(rng=np.random.default_rng(9)).load(weights)
    assert (weights.parent / "learning_curve.png").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for a child")
@pytest.mark.parametrize(
    "end", [signal.SIGINT, pytest.param("SIGKILL", marks=pytest.mark.slow)]
)
def test_resume_goes_on_to_the_same_weights(end, whole, tmp_path):
    stopped = [*COMMAND, "--epochs", "2", "--out", tmp_path]
    child = subprocess.Popen(stopped, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    folder = tmp_path / "lenet5-digits-seed0"
    deadline = time.monotonic() + 60
    while not (folder / "weights.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(getattr(signal, end) if isinstance(end, str) else end)
    told = child.communicate(timeout=30)[0].decode()
    assert child.returncode == (130 if end == signal.SIGINT else -9)
    assert ("the same command with --resume goes on" in told) == (end == signal.SIGINT)

    anew = subprocess.run(stopped, capture_output=True, text=True)
    assert anew.returncode == 2
    assert "add --resume to go on with it, or remove it to begin anew" in anew.stderr
    other = subprocess.run([*stopped, "--resume", "--epochs", "3"], capture_output=True)
    assert other.returncode == 2
    assert b"epochs is 2 there and 3 here" in other.stderr

    subprocess.run([*stopped, "--resume"], check=True, capture_output=True)
    assert sorted(path.name for path in folder.iterdir()) == KEPT
    for name in KEPT:
        assert (folder / name).read_bytes() == (whole[1] / name).read_bytes(), name


@pytest.mark.parametrize(
    "option, value, words",
    [
        ("--epochs", "0", "epochs must be at least 1, not 0"),
        ("--learning-rate", "-1", "learning_rate must be positive, not -1.0"),
        ("--momentum", "1", "momentum must be in [0, 1), not 1.0"),
        ("--optimizer=adam", "--momentum=0.5", "--momentum is for sgd and nesterov"),
        ("--patience", "0", "patience must be at least 1, not 0"),
        ("--data", "shapes", "lenet5 is not for images of 3 x 32 x 32"),
        ("--epochs=1", "--resume", "is not there: leave out --resume to begin"),
    ],
)
def test_impossible_settings_end_in_words(option, value, words, tmp_path, capsys):
    code = main(["train", "lenet5", option, value, "--out", str(tmp_path)])
    assert code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_networks_for_colours_are_told_from_those_for_digits(tmp_path, capsys):
    assert main(["train", "resnet20", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "resnet20 is not for images of 1 x 28 x 28 in 10 classes" in told
    assert "these networks are: lenet5, lenet5_1998" in told


def test_names_are_those_of_the_package():
    assert set(NETWORKS) <= set(zoo.NETWORKS)
    kinds = {kind for kind, _ in OPTIMIZERS.values()}
    assert kinds == set(optimizers.__all__) - {"Optimizer"}
    assert all(_schedule(name) is None or _schedule(name)(0) <= 1 for name in SCHEDULES)
    assert len(_augment(AUGMENTATIONS, (3, 32, 32)).steps) == len(AUGMENTATIONS)


def test_unknown_network_lists_the_known(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "lenet6"])
    assert stop.value.code == 2
    assert "lenet5" in capsys.readouterr().err
