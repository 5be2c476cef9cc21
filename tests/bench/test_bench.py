"""course/bench: the turns, and the table; never the times themselves."""

import json

import numpy as np
import pytest

from course.bench.command import epoch_blocks
from course.bench.rounds import in_turns
from course.cli import main


def test_works_take_turns():
    order = []
    works = {name: lambda name=name: order.append(name) for name in "abc"}
    times = in_turns(2, **works)
    assert "".join(order) == "abc" + "abc" + "cba"
    assert all(values.shape == (2,) and (values >= 0).all() for values in times.values())


def test_bench_writes_what_it_prints(tmp_path, capsys):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    path = tmp_path / "lenet5.json"
    assert main(["bench", "lenet5", "--rounds", "1", "--json", str(path)]) == 0
    report, told = json.loads(path.read_text()), capsys.readouterr().out
    for name in ("course", "pytorch"):
        assert f"{report['seconds_per_epoch'][name]:6.2f} s per epoch" in told
    ratio = report["seconds_per_epoch"]["pytorch"] / report["seconds_per_epoch"]["course"]
    np.testing.assert_allclose(report["torch_time_over_ours"], ratio)


def test_both_blocks_train():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    for work in epoch_blocks(2).values():
        work()
