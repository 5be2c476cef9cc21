"""`course train`, as a user calls it: in its own process, on digits that need no file."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from course.cli import main
from course.data import load
from course.training import evaluate
from course.zoo.lenet5 import lenet5

COMMAND = [sys.executable, "-m", "course", "train", "lenet5", "--data", "digits"]
PNG = b"\x89PNG\r\n\x1a\n"


def test_digits_are_learned_and_everything_is_kept(tmp_path):
    done = subprocess.run(
        [*COMMAND, "--epochs", "2", "--out", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "lenet5-digits-seed0"
    assert sorted(path.name for path in folder.iterdir()) == [
        "confused.png",
        "learning_curve.png",
        "weights.safetensors",
    ]
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


@pytest.mark.parametrize(
    "option, value, words",
    [
        ("--epochs", "0", "epochs must be at least 1, not 0"),
        ("--learning-rate", "-1", "learning_rate must be positive, not -1.0"),
        ("--momentum", "1", "momentum must be in [0, 1), not 1.0"),
    ],
)
def test_impossible_settings_end_in_words(option, value, words, tmp_path, capsys):
    code = main(["train", "lenet5", option, value, "--out", str(tmp_path)])
    assert code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_unknown_network_lists_the_known(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "lenet6"])
    assert stop.value.code == 2
    assert "lenet5" in capsys.readouterr().err
