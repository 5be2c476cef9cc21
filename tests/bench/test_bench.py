"""course/bench: the turns, the ways, the verdicts and the report; never the times."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from course.bench import conv, fresh, gemm, layers, numpy_way, rounds, steps
from course.bench.bars import BARS, verdicts
from course.bench.cases import Case, Row, measured
from course.bench.rounds import Clock, in_turns
from course.bench.shapes import SHAPES, Shape
from course.layers import conv2d_backward, conv2d_forward

ROOF = {"FMA peak": 1e9, "bandwidth": 1e9}
NO_TORCH = "PyTorch is not installed"


# --- turns ------------------------------------------------------------------------------


def test_works_take_turns():
    order = []
    works = {name: lambda name=name: order.append(name) for name in "abc"}
    times = in_turns(2, **works)
    assert "".join(order) == "abc" + "abc" + "cba"
    assert all(values.shape == (2,) and (values >= 0).all() for values in times.values())


def test_a_turn_is_the_median_of_the_calls_after_the_first_quarter(monkeypatch):
    found = iter([9.0, 8.0, 1.0, 5.0, 2.0, 3.0, 1.0, 4.0])
    monkeypatch.setattr(rounds, "seconds", lambda work: next(found))
    assert Clock(block=33).calls(None) == 2.5  # of 1 5 2 3 1 4
    assert next(found, "all were used") == "all were used"


@pytest.mark.parametrize(
    "busy, value, repeated", [([0, 9, 9, 9.0], 3.0, 0), ([0, 9] * 3, 1.0, 1)]
)
def test_a_disturbed_turn_is_repeated(busy, value, repeated, monkeypatch):
    clock, foreign, found = Clock(tries=3), iter(busy), iter([2.0, 3.0, 1.0])
    monkeypatch.setattr(rounds, "others", lambda: next(foreign))
    monkeypatch.setattr(rounds, "wait_for_quiet", lambda limit: None)
    assert clock.undisturbed(lambda: next(found)) == value
    assert clock.disturbed == repeated


def test_the_work_of_others_is_noticed():
    program = "import time; end = time.time() + 1\nwhile time.time() < end: pass"
    before = rounds.others()
    other = subprocess.Popen([sys.executable, "-c", program])
    while other.poll() is None:
        seen = rounds.others() - before  # a child counts as ours once it has ended
    assert seen > 0.3


# --- ways -------------------------------------------------------------------------------

GEOMETRY = [
    Shape(2, 3, 7, 4),
    Shape(2, 3, 7, 4, K=2, S=2, P=0),
    Shape(1, 4, 9, 6, S=2, P=2, D=2, G=2),
    Shape(3, 4, 6, 4, G=4),
]


@pytest.mark.parametrize("s", GEOMETRY, ids=str)
def test_im2col_is_the_convolution(s):
    x, w, b, dy = s.arrays(np.float64)
    y, cols = numpy_way.conv2d_forward(x, w, b, **s.window)
    found = y, *numpy_way.conv2d_backward(dy, cols, x.shape, w, **s.window)
    expected = conv2d_forward(x, w, b, **s.window), *conv2d_backward(dy, x, w, **s.window)
    for a, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("s", GEOMETRY, ids=str)
@pytest.mark.parametrize("what", ["forward", "dx", "dw", "backward"])
def test_every_way_convolves(s, what):
    names = set(conv.WAYS) - ({"scipy", "runs"} if s.S > 1 or s.G > 1 else set())
    works = conv.works(s, what, *sorted(names))
    case = Case("small", works, truth=lambda: conv.numpy(s, np.float64)[what]())
    row = measured("conv", case, 1, 1, Clock(), ROOF)  # raises if one is wrong
    assert row.figures.keys() | row.not_run.keys() == names
    assert len(row.figures) >= 2
    for way, reason in row.not_run.items():
        assert "alone" in reason or way in ("pytorch", "channels last")


@pytest.mark.parametrize("name", steps.NETS)
def test_all_libraries_train_alike(name):
    net, shape = steps.NETS[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, *shape), np.float32)
    batch = net, x, np.array([1, 0, 9])
    ways = [steps.by_course, steps.by_numpy]
    if name == "MLP":
        ways.append(steps.by_sklearn)
    losses = [[step() for _ in range(3)] for step in (way(*batch) for way in ways)]
    assert len(set(losses[0])) == 3, "the weights move"
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-3)
    pytest.importorskip("torch", reason=NO_TORCH)
    for last in {False, len(shape) == 3}:
        step = steps.by_pytorch(*batch, last=last)
        np.testing.assert_allclose([step().item() for _ in range(3)], losses[0], rtol=1e-3)


def test_flops_are_counted():
    assert SHAPES["lenet1"].flops == 2 * 128 * 6 * 28 * 28 * 25
    assert SHAPES["grp4"].flops == 2 * 8 * 64 * 28 * 28 * 16 * 9
    assert SHAPES["res3s2"].HO == 28
    assert SHAPES["pw14n1"].bytes == 4 * (256 * 14 * 14 + 64 * 14 * 14 + 64 * 256)
    first = 2 * 784 * 256
    assert steps.flops(*steps.NETS["MLP"]) == 2 * first + 3 * 2 * 256 * 10


# --- rows -------------------------------------------------------------------------------


def nothing_like_it():
    raise ImportError("no such library")


def test_a_case_becomes_a_row(monkeypatch):
    times = {"course": np.array([1.0, 2.0, 4.0]), "other": np.array([2.0, 6.0, 4.0])}
    monkeypatch.setattr("course.bench.cases.in_turns", lambda *a, **works: times)
    works = {
        "course": lambda: lambda: np.array([1.0, 2.0]),
        "other": lambda: lambda: np.array([1.0, 2.0002]),
        "missing": nothing_like_it,
    }
    truth = np.array([1.0, 2.0])
    case = Case("case", works, flops=1e9, bytes=5e8, truth=lambda: truth)
    row = measured("suite", case, 1, 3, Clock(), ROOF)
    assert row.figures == {"course": 2.0, "other": 4.0}
    assert row.ratios == {"other": 2.0, "roof": 0.5}  # of 2/1, 6/2 and 4/4; 1 s of 2
    assert row.not_run == {"missing": "no such library"}
    np.testing.assert_allclose(row.error["other"], [1e-4])
    assert row.error["course"] == [0.0]


def test_a_wrong_answer_is_not_timed():
    works = {
        "course": lambda: lambda: np.array([1.0, 2.0]),
        "other": lambda: lambda: np.array([1.0, np.nan]),
    }
    with pytest.raises(ArithmeticError, match="case: other is wrong"):
        measured("suite", Case("case", works), 1, 1, Clock(), ROOF)


def every_case():
    suites = {
        "conv": conv.convolutions(),
        "rungs": conv.rungs(),
        "gemm": gemm.products(),
        "layers": layers.layers(),
        "steps": steps.steps(compiled=True),
    }
    return [(suite, case) for suite, cases in suites.items() for case in cases]


def test_every_bar_is_measured_by_a_case():
    cases = every_case()
    names = [f"{suite}: {case.name}" for suite, case in cases]
    assert len(names) == len(set(names))
    for bar in BARS:
        if not bar.rows.startswith(("start", "memory")):
            assert any(re.match(bar.rows, name) for name in names), bar.item
    assert all(case.works.keys() >= {"course", "pytorch"} for _, case in cases)


@pytest.mark.parametrize("layer", layers.LAYERS, ids=lambda layer: str(layer[:3]))
def test_every_layer_of_the_table_is_there(layer):
    name, theirs, arguments, keywords, _ = layer
    assert layers.ours(name, arguments, keywords)
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    assert getattr(torch.nn, theirs)(*arguments, **keywords)


def verdict(item, rows):
    (found,) = (v for v in verdicts(rows) if v.item == item and v.threads == 1)
    return found


@pytest.mark.parametrize(
    "ratios, value, met", [([1, 4], 2, True), ([1.2, 1.2], 1.2, False)]
)
def test_a_mean_of_ratios_is_judged(ratios, value, met):
    rows = [
        Row("conv", f"{k} forward", 1, {"course": 1.0}, ratios={"pytorch": ratio})
        for k, ratio in enumerate(ratios)
    ]
    found = verdict("convolution forward / pytorch, mean of the shapes", rows)
    assert (found.demand, found.met) == ("≥ 1.25", met)
    np.testing.assert_allclose(found.value, value)
    worst = verdict("convolution forward / pytorch, worst shape", rows)
    assert (worst.value, worst.met) == (min(ratios), True)


@pytest.mark.parametrize("seconds, met", [(0.9, True), (1.1, False)])
def test_a_time_is_judged(seconds, met):
    row = Row("start", "first LeNet-5 step, warm", 1, {"course": seconds})
    found = verdict("first LeNet-5 step, warm, seconds", [row])
    assert (found.value, found.met) == (seconds, met)


@pytest.mark.parametrize(
    "ours, theirs, value",
    [([1e-6, 3e-6], [1e-7, 2e-6], 1.0), ([8e-6], [2e-6], 2.0), ([5e-7], [1e-9], 0.5)],
)
def test_an_error_may_be_twice_pytorchs_or_1e_6(ours, theirs, value):
    error = {"course": ours, "pytorch": theirs}
    row = Row("conv", "lenet1 dw", 1, {"course": 1.0}, error=error)
    found = verdict("error against float64, in what is allowed", [row])
    np.testing.assert_allclose(found.value, value)
    assert found.met == (value <= 1)


def test_threads_are_compared_on_many_images():
    rows = [
        Row("conv", f"{name} forward", threads, {"course": seconds})
        for name, times in (("vgg56n8", (2.0, 1.0)), ("vgg56n1", (2.0, 2.0)))
        for threads, seconds in enumerate(times, 1)
    ]
    (found,) = verdicts(rows)
    assert (found.value, found.met, found.threads) == (2.0, True, 2)


# --- fresh processes --------------------------------------------------------------------


def test_a_fresh_process_that_fails_is_not_run():
    row = Row("start", "case", 1, {})
    figures = {"course": lambda: 2.0, "pytorch": lambda: fresh.run("import no_such", 1)[0]}
    fresh.compared(row, figures)
    assert row.figures == {"course": 2.0}
    assert "no_such" in row.not_run["pytorch"]


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_peak_memory_is_above_the_arrays_of_a_step():
    text = {"library": "numba", "way": "by_numpy", "net": "softmax"}
    few, many = (
        int(fresh.run(fresh.MEMORY.format(batch=n, **text), 1)[1]) for n in (1, 10_000)
    )
    assert many - few > 4 * 784 * 9_000
    assert many < 20 * 4 * 784 * 10_000


def test_the_first_step_is_one_that_runs():
    assert fresh.run(fresh.FIRST_STEP["course"], 1)[0] > 0
    assert 0 < float(fresh.run(fresh.LAYER, 1)[1]) < 600
    pytest.importorskip("torch", reason=NO_TORCH)
    assert fresh.run(fresh.FIRST_STEP["pytorch"], 1)[0] > 0


# --- the command ------------------------------------------------------------------------


def test_bench_writes_what_it_prints(tmp_path):
    words = ["roof", "gemm", "--only", "64x400x120", "--threads", "1", "--quick"]
    done = subprocess.run(  # of its own, since it sets the threads of everything
        [sys.executable, "-m", "course", "bench", *words, "--out", tmp_path / "cpu"],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    table = (tmp_path / "cpu.md").read_text(encoding="utf-8")
    cases = [row["case"] for row in report["rows"]]
    assert cases[0] == "FMA peak"
    assert cases[-2:] == ["affine 64x400x120 forward", "affine 64x400x120 backward"]
    for row in report["rows"]:
        assert f"| {row['case']} |" in table
        assert f"1 {row['suite']}: {row['case']}: course" in done.stdout
        assert row["figures"]["course"] > 0
    assert {"date", "processor", "numba", "torch"} <= report["machine"].keys()
    assert "## gemm, 1 thread\n" in table
    for found in report["demands"]:
        assert f"{found['item']}, 1 threads: {found['value']:.3g}" in done.stdout
        assert f"| {found['item']} | 1 | {found['demand']} |" in table
    with Image.open(tmp_path / "cpu.png") as picture:
        assert "of 2 kernels" in picture.info["Description"]
