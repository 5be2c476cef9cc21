"""course/bench/cuda.py: its cases, at tiny sizes in the simulator; never the times."""

import json

import numpy as np
import pytest

from course.bench import cuda
from course.bench.cases import Case
from course.bench.rounds import Clock
from course.bench.shapes import Shape
from course.cli import main
from course.cuda import native
from course.device import simulated
from course.engine import cuda as engine
from course.layers import BatchNorm2d, Conv2d, Flatten, GlobalAvgPool2d, Linear, ReLU
from course.model import Residual, Sequential
from course.zoo.identity_shortcut import IdentityShortcut

NO_LIMIT = {"FMA peak": float("inf"), "bandwidth": float("inf")}


def small(rng=None):
    """Return a network with what ResNet-20 has, for images of 2 x 4 x 4."""
    rng = rng or np.random.default_rng(0)
    body = Sequential(Conv2d(2, 4, 3, 2, 1, bias=False, rng=rng), BatchNorm2d(4))
    shortcut = IdentityShortcut(4, 2)
    layers = [Residual(body, shortcut, ReLU()), GlobalAvgPool2d(), Flatten()]
    network = Sequential(*layers, Linear(4, 10, rng=rng))
    network.input_shape = 2, 4, 4
    return network


TINY = {
    "gemm": lambda: cuda.gemm((12,)),
    "conv": lambda: cuda.convolutions({"3x3/2": Shape(1, 2, 5, 3, S=2)}),
    "layers": lambda: cuda.layers((2, 2, 4, 4), (3, 5), 40),
    "steps": lambda: cuda.steps({"small": (small, 2)}),
}


@pytest.fixture
def here(monkeypatch):
    """The simulator stands for a GPU; PyTorch computes on the CPU."""
    monkeypatch.setattr(cuda, "DEVICE", "cpu")
    with simulated():
        yield


@pytest.mark.sim
@pytest.mark.parametrize("suite", TINY)
def test_every_way_computes_the_same(suite, here, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    if suite in ("gemm", "conv"):
        monkeypatch.setattr(engine, "FEW", 0)
    for case in TINY[suite]():
        ours, theirs = (case.works[way]()() for way in ("course", "pytorch"))
        assert ("course tf32" in case.works) == (suite != "layers")
        if case.agree:
            ours, theirs = cuda.numbers(ours), cuda.numbers(theirs)
            np.testing.assert_allclose(ours, theirs, 1e-5, 1e-5)


@pytest.mark.sim
def test_the_limit_of_a_simulated_gpu_is_measured_by_a_copy(here):
    roof = cuda.limits(Clock(), 100)
    assert roof["bandwidth"] > 0 and roof["FMA peak"] == float("inf")


@pytest.mark.sim
def test_a_wrong_answer_is_not_timed(here):
    works = {"course": lambda: lambda: np.ones(3), "pytorch": lambda: lambda: np.zeros(3)}
    with pytest.raises(ArithmeticError, match="gemm: a product: pytorch differs"):
        cuda.measured("gemm", Case("a product", works), 1, Clock(), NO_LIMIT)


def test_the_same_memory_is_handed_out_again(monkeypatch):
    made = []

    def allocate(shape, dtype):
        made.append(np.empty(shape, dtype))
        return made[-1]

    monkeypatch.setattr(native, "allocate", allocate)
    work = cuda.same_memory(lambda: [native.allocate(2, "f4"), native.allocate(3, "f4")])
    first, second = work(), work()
    assert [a is b for a, b in zip(first, second, strict=True)] == [True, True]
    assert len(made) == 2 and native.allocate is allocate


def test_what_is_missing_is_not_run_and_the_share_of_the_roof_is_its_time():
    def missing():
        raise ImportError("there is no such library")

    class Seconds:
        def turn(self, work):
            return work() or 2.0

    works = {"course": lambda: lambda: 0.5, "pytorch": missing}
    case = Case("copy", works, flops=8, bytes=10, agree=False)
    row = cuda.measured("layers", case, 3, Seconds(), {"FMA peak": 80, "bandwidth": 40})
    assert row.figures == {"course": 0.5} and row.ratios == {"roof": 0.5}
    assert row.not_run == {"pytorch": "there is no such library"}


def test_a_report_has_all_rows(tmp_path):
    works = {"course": lambda: lambda: 1, "pytorch": lambda: lambda: 1}
    row = cuda.measured("gemm", Case("8 x 8 x 8", works), 1, Clock(), NO_LIMIT)
    paths = cuda.write(tmp_path / "gpu", "bench gemm --device cuda", {"gpu": "none"}, [row])
    report = json.loads(paths[0].read_text(encoding="utf-8"))
    assert [row["case"] for row in report["rows"]] == ["8 x 8 x 8"]
    text = paths[1].read_text(encoding="utf-8")
    assert "## gemm\n" in text and "| 8 x 8 x 8 |" in text and "gpu none." in text


@pytest.mark.skipif(not native.why_not(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(capsys):
    assert main(["bench", "gemm", "--device", "cuda"]) == 2
    assert capsys.readouterr().err == f"course bench: {native.why_not()}\n"
    assert main(["bench", "memory", "--device", "cuda"]) == 2
    line = "no memory on cuda; there are gemm, conv, layers, steps, roof"
    assert capsys.readouterr().err == f"course bench: {line}\n"
