"""What the first call of a loop costs: `course warmup`, and what is kept on disk.

One fresh cache folder is filled by `course warmup`; most tests look at what it holds.
"""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from course import notebooks as tool
from course.compiled import FIRST_TIME

ROOT = Path(__file__).parents[1]
ONE_LOOP = "import numpy as np, course.layers as L; L.relu_forward(np.ones(3, np.float32))"
PLAIN = re.compile(r"course\.layers\.\w+\._[a-z]+_cpu(_run)?")
LAYERS_AND_STEPS = """
import numpy as np
from course import warmup
from course.compiled import Cache
from tests.layers.every import LAYERS, distinct, run
for make, shape in LAYERS:
    run(make, distinct(shape, np.random.default_rng(0), np.float32))
for _ in range(3):
    warmup.training(np.dtype(np.float32))
print(Cache.misses)
"""


def start(cache, *command, **keywords):
    """Start Python in the repository, with this cache folder."""
    environment = os.environ | {"COURSE_CACHE": str(cache)} | keywords.pop("env", {})
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | keywords,
    )


def run(cache, *command, exit_code=0, **keywords):
    """Run Python to its end; return what it printed, and its stderr."""
    process = start(cache, *command, **keywords)
    out, errors = process.communicate(timeout=600)
    assert process.returncode == exit_code, errors
    return out, errors


def files(folder):
    """Return each file under the folder, and when it was written."""
    return {
        str(path): path.stat().st_ctime_ns for path in folder.rglob("*") if path.is_file()
    }


def names(folder):
    """Return the files under the folder."""
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def warmed(tmp_path_factory):
    """A cache folder that `course warmup` has filled."""
    cache = tmp_path_factory.mktemp("warmed")
    out, errors = run(cache, "-m", "course", "warmup")
    count = int(re.match(r"(\d+) loops compiled in \d+\.\d s and kept in ", out)[1])
    assert count >= len(names(cache)) > 50
    assert "100%" in errors
    return cache


# --- course warmup ----------------------------------------------------------------------


def test_second_warmup_finds_all_there(warmed):
    before = names(warmed)
    out, _ = run(warmed, "-m", "course", "warmup")
    assert out == f"every loop was there already, in {warmed / 'compiled'}\n"
    assert names(warmed) == before


def test_warmup_leaves_no_loop_out(warmed):
    """Every compiled function has its file, but for plain loops beside faster ones.

    Those are what the lectures show and the tests compare with; no layer calls them.
    """
    program = """
import gc, importlib, pkgutil
import course
from numba.core.dispatcher import Dispatcher
for module in pkgutil.walk_packages(course.__path__, "course."):
    if not module.name.startswith(("course.bench", "course.__main__")):
        importlib.import_module(module.name)
for loops in gc.get_objects():
    if isinstance(loops, Dispatcher) and loops.__module__.startswith("course."):
        loops._cache.open()
        print(f"{loops.__module__}.{loops.__name__}", loops._cache._cache_file.name)
"""
    out, _ = run(warmed, "-W", "ignore", "-c", program)
    kept = {path.name.rsplit(".", 2)[0] for path in warmed.rglob("*.nbc")}
    functions = dict(line.split() for line in out.splitlines())
    left_out = {name for name, file in functions.items() if file not in kept}
    left_out -= {name for name in left_out if PLAIN.fullmatch(name)}
    assert left_out == set(), "add them to WORKS in course/warmup.py"
    modules = {name.rpartition(".")[0] for name in functions}
    reached = {name.rpartition(".")[0] for name, file in functions.items() if file in kept}
    by_engine = {m for m in modules if "engine" in Path(find_spec(m).origin).read_text()}
    assert modules - reached - by_engine == set(), "add them to WORKS in course/warmup.py"


def test_after_warmup_nothing_is_compiled_and_nothing_grows(warmed):
    before = names(warmed)
    for _ in range(3):
        out, _ = run(warmed, "-c", LAYERS_AND_STEPS)
        assert out == "0\n"
        assert names(warmed) == before


def test_without_warmup_only_the_first_process_compiles(tmp_path):
    """As above, for the loops of one small network, and both types."""
    program = """
import numpy as np
from course.compiled import Cache
from course.layers import Linear, ReLU
for dtype in (np.float32, np.float64):
    for layer in (Linear(3, 2, rng=np.random.default_rng(0), dtype=dtype), ReLU()):
        layer.backward(layer.forward(np.ones((4, 3), dtype))[:, :3].copy())
print(Cache.misses)
"""
    counts, kept = [], []
    for _ in range(3):
        counts.append(int(run(tmp_path, "-c", program)[0]))
        kept.append(names(tmp_path))
    assert counts[0] >= len(kept[0]) > 4
    assert counts[1:] == [0, 0]
    assert kept[0] == kept[1] == kept[2]


def test_an_interrupted_warmup_leaves_a_cache_that_can_be_used(tmp_path):
    process = start(tmp_path, "-m", "course", "warmup", start_new_session=True)
    while len(names(tmp_path)) < 3:
        time.sleep(0.1)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group hears it
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.endswith("stopped\n") and "Traceback" not in errors
    before = names(tmp_path)
    program = f"{ONE_LOOP}; from course.compiled import Cache; print(Cache.misses)"
    assert run(tmp_path, "-c", program)[0] in ("0\n", "1\n")
    assert run(tmp_path, "-c", program)[0] == "0\n"
    assert set(before) <= set(names(tmp_path))


def test_warmup_into_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").touch()
    cache = tmp_path / "file/cache"
    _, errors = run(cache, "-m", "course", "warmup", exit_code=2)
    assert errors == (
        f"course warmup: {cache} cannot be written, so that nothing can be kept; "
        "set COURSE_CACHE to a folder that you may write\n"
    )


def test_no_loop_builds_a_text(warmed):
    """Copying a slice to a slice compiles an error message with it: 3 s at the first.

    Write `for k in range(...): y[n, k] = x[n, k]`, not `y[n] = x[n]`.
    """
    texts = [b"cannot assign slice", b"cannot reshape"]
    long = {
        path.name
        for path in warmed.rglob("*.nbc")
        if any(text in path.read_bytes() for text in texts)
    }
    assert not long


# --- who is told ------------------------------------------------------------------------


def test_nobody_is_told_in_a_test_or_a_script(tmp_path):
    assert run(tmp_path, "-c", ONE_LOOP) == ("", "")


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
def test_a_terminal_is_told_once_and_only_if_it_must_wait(tmp_path):
    import pty

    program = f"{ONE_LOOP}; L.tanh_forward(np.ones(3, np.float32))"
    told = []
    for _ in range(2):
        ours, theirs = pty.openpty()
        with start(tmp_path, "-c", program, stderr=theirs) as process:
            assert process.wait(120) == 0
        os.write(theirs, b"end")
        text = ""
        while not text.endswith("end"):
            text += os.read(ours, 10_000).decode()
        told.append(text.removesuffix("end"))
        os.close(ours), os.close(theirs)
    assert told == [f"{FIRST_TIME}\r\n", ""]


@pytest.fixture
def notebook(tmp_path):
    """A notebook whose first cell compiles, and so does its second."""
    cells = [f"{ONE_LOOP}", "L.tanh_forward(np.zeros(1, np.float32))", "print('done')"]
    path = tmp_path / "first.ipynb"
    made = new_notebook(
        cells=[new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(cells)]
    )
    nbformat.write(made, path)
    return path


def stderr(notebook):
    """Return what each cell wrote to stderr."""
    return [
        "".join(o.text for o in cell.outputs if o.get("name") == "stderr")
        for cell in notebook.cells
    ]


def test_a_notebook_is_told_in_its_first_cold_cell(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    cold, warm = tool.execute(notebook), tool.execute(notebook)
    assert stderr(cold) == [f"{FIRST_TIME}\n", "", ""]
    assert stderr(warm) == ["", "", ""]
    for run in cold, warm:  # what is saved with a notebook is the same
        assert "compiling" not in nbformat.writes(tool.tidy(run))
    assert tool.tidy(cold) == tool.tidy(warm)


def test_a_cold_cache_changes_no_comparison_of_notebooks(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "warm"))
    tool.write(tool.tidy(tool.execute(notebook)), notebook)
    nbval = ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    where = [f"--rootdir={ROOT}", f"--confcutdir={ROOT}", "-c", f"{ROOT}/pyproject.toml"]
    command = ["-m", "pytest", "-p", "conftest", *nbval, *where, str(notebook)]
    here = {"PYTHONPATH": str(ROOT)}
    out, _ = run(tmp_path / "cold", *command, env=here)
    assert "3 passed" in out
    assert names(tmp_path / "cold")
    changed = notebook.read_text().replace("done", "dome")
    notebook.write_text(changed.replace("print('dome')", "print('done')"))
    out, _ = run(tmp_path / "colder", *command, env=here, exit_code=1)
    assert "1 failed, 2 passed" in out


# --- what the import brings -------------------------------------------------------------


def test_a_step_with_a_warm_cache_needs_no_scipy(warmed):
    program = """
import sys
import numpy as np
from course import warmup
before = "scipy.linalg" in sys.modules
warmup.training(np.dtype(np.float32))
print(before, "scipy.linalg" in sys.modules)
"""
    assert run(warmed, "-c", program)[0] == "False False\n"


# --- threads ----------------------------------------------------------------------------

THREADS = """
import os, sys, threading
import numpy as np
from course import device, warmup
from course.compiled import Cache
from course.losses import softmax_cross_entropy
from course.zoo.lenet5 import lenet5

def step(seed, threads=2):
    device.set_threads(threads)
    rng = np.random.default_rng(seed)
    model = lenet5(rng=rng)
    x = rng.normal(size=(64, 1, 28, 28)).astype(np.float32)
    loss, dscores = softmax_cross_entropy(model.forward(x), np.arange(64) % 10)
    model.backward(dscores)
    return [np.float32(loss), *model.grads.values()]

def equal(a, b):
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))

alone = [step(seed, 1) for seed in range(4)]
assert all(equal(step(seed), alone[seed]) for seed in range(4)), "two threads"

found = {}
def work(seed):
    for _ in range(5):
        found[seed] = step(seed)
workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
[worker.start() for worker in workers], [worker.join() for worker in workers]
assert all(equal(found[seed], alone[seed]) for seed in range(4)), "at once"

if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        os._exit(0 if equal(step(1), alone[1]) else 3)
    assert os.waitpid(child, 0)[1] == 0, "forked"
    assert equal(step(2), alone[2]), "after the fork"
print("right")
"""


@pytest.mark.parametrize("layer", ["default", "omp", "workqueue", "tbb"])
def test_any_threading_layer_of_numba(warmed, layer):
    """From two threads of Python at once, and after a fork; bit for bit."""
    if layer == "tbb":
        pytest.importorskip("tbb", reason="tbb is not installed")
    out, _ = run(
        warmed, "-W", "ignore", "-c", THREADS, env={"NUMBA_THREADING_LAYER": layer}
    )
    assert out == "right\n"


def test_blas_keeps_its_threads(warmed):
    """The course sets none of the variables that BLAS and OpenMP read."""
    program = """
import os
before = dict(os.environ)
import numpy as np
from course import warmup
warmup.training(np.dtype(np.float32))
print(before == dict(os.environ))
"""
    assert run(warmed, "-c", program)[0] == "True\n"
