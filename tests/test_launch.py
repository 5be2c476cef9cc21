"""course/launch.py: whoever computes, and however many, the bits are the same."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from course import launch
from course.device import get_threads, set_threads
from course.engine import cpu
from course.layers import conv2d_backward, conv2d_forward, linear_backward, linear_forward
from tests.engine.convolutions import CASES, arrays

ROOT = Path(__file__).parents[1]
PROGRAM = """
import os
import sys
import warnings
import numpy as np
from course.engine import cpu
from course.device import set_threads
from tests.engine.convolutions import CASES, arrays
from tests.test_launch import bits

cpu.LITTLE = 0
set_threads(1)
expected = [bits(case) for case in CASES.values()]
set_threads(3)
assert [bits(case) for case in CASES.values()] == expected
from numba import threading_layer
print(threading_layer())
"""
FORK = """
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of what is tested here
child = os.fork()
if child == 0:
    same = [bits(case) for case in CASES.values()] == expected
    os._exit(0 if same else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert [bits(case) for case in CASES.values()] == expected
"""


def bits(case, dtype=np.float32):
    """Return the bytes of y, dx, dw, db, and the pool of relu(y)."""
    x, w, b, dy = arrays(case, dtype)
    window = case.stride, case.frame, case.dilation, case.groups
    y, dx, dw, db = (np.empty_like(a) for a in (dy, x, w, b))
    z = np.empty((*dy.shape[:2], dy.shape[2] // 2, dy.shape[3] // 2), dtype)
    assert cpu.convolve(y, x, w, b, *window)
    assert cpu.convolve_backward(dx, dw, db, dy, x, w, *window)
    if z.size:
        positive = np.empty_like(y)
        cpu.convolve(positive, x, w, b, *window, relu=True, pooled=z)
    return [a.tobytes() for a in (y, dx, dw, db, z)]


@pytest.fixture
def threads(monkeypatch):
    """Let the test choose the number of threads, however little there is to do."""
    monkeypatch.setattr(cpu, "LITTLE", 0)
    before = get_threads()
    yield set_threads
    set_threads(before)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_change_no_bit(case, dtype, threads):
    threads(1)
    expected = bits(case, dtype)
    for count in (2, 3, 7):
        threads(count)
        assert bits(case, dtype) == expected


def test_threads_are_started(threads, monkeypatch):
    """Else the test above compares one thread with one thread."""
    started = []
    real = launch._on_threads
    monkeypatch.setattr(launch, "_on_threads", lambda *a: started.append(a[1]) or real(*a))
    threads(3)
    bits(CASES["groups-of-many"])
    assert started and set(started) == {3}


def test_two_python_threads_at_once(threads):
    threads(2)
    cases = [CASES[k] for k in ("few-filters", "many-filters", "depthwise", "phases")]
    expected = [bits(case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(bits, cases * 10))
    assert found == expected * 10


def test_while_the_threads_are_busy_shares_run_one_after_the_other(threads, monkeypatch):
    threads(3)
    expected = bits(CASES["groups-of-many"])
    monkeypatch.setattr(launch, "_on_threads", None)  # calling it would raise
    with launch._busy:
        assert bits(CASES["groups-of-many"]) == expected
    assert launch._busy.acquire(blocking=False), "the lock must be free again"
    launch._busy.release()


def test_an_error_frees_the_threads(threads, monkeypatch):
    def fails(*_):
        raise KeyboardInterrupt

    threads(2)
    with monkeypatch.context() as patch:
        patch.setattr(launch, "_on_threads", fails)
        with pytest.raises(KeyboardInterrupt):
            bits(CASES["few-filters"])
    assert not launch._busy.locked()


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_threading_layers_and_a_forked_child(layer):
    """Numba's threads do not survive a fork: the child must do without, and be right."""
    if layer == "omp":
        pytest.importorskip("numba.np.ufunc.omppool", exc_type=ImportError)
    program = PROGRAM + (FORK if hasattr(os, "fork") else "")
    environment = os.environ | {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [layer]


@njit
def add_one(a, first, past):
    """What the shares below do."""
    a[first:past] += 1


def test_the_threads_run_the_shares(monkeypatch):
    """Else what follows compares one thread with one thread."""
    started = []
    real = launch._spread_on_threads
    monkeypatch.setattr(
        launch, "_spread_on_threads", lambda *a: started.append(a[3:]) or real(*a)
    )
    a = np.zeros(10)
    launch.spread(add_one, 10, 3, a)
    assert started == [(10, 3)] and (a == 1).all()


def test_one_thread_spreads_while_the_threads_are_busy(monkeypatch):
    monkeypatch.setattr(launch, "_spread_on_threads", None)  # calling it would raise
    a = np.zeros(10)
    with launch._busy:
        launch.spread(add_one, 10, 3, a)
    assert (a == 1).all()


def test_an_error_while_spreading_frees_the_threads(monkeypatch):
    def fails(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(launch, "_spread_on_threads", fails)
        with pytest.raises(KeyboardInterrupt):
            launch.spread(add_one, 10, 3, np.zeros(10))
    assert not launch._busy.locked()


def test_python_threads_that_spread_at_once():
    arrays = [np.zeros((3, 1 << 16), np.float32) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda a: launch.spread(add_one, 3, 3, a), arrays))
    assert all((a == 1).all() for a in arrays)


def readonly(a):
    """Return a copy that nobody may write to."""
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    """Return a copy that begins one byte behind where it should."""
    raw = np.empty(a.nbytes + 1, np.uint8)
    moved = raw[1:].view(a.dtype).reshape(a.shape)
    moved[...] = a
    assert not moved.flags.aligned
    return moved


@pytest.mark.parametrize("odd", [readonly, unaligned])
def test_arrays_that_are_read_only_or_unaligned(odd, rng):
    """As np.load with mmap_mode, or a file read into a buffer, gives them."""
    shapes = (4, 3, 6, 20), (5, 3, 3, 3), (5,), (4, 5, 4, 18)
    x, w, b, dy = (rng.normal(size=k).astype(np.float32) for k in shapes)
    expected = conv2d_forward(x, w, b), *conv2d_backward(dy, x, w)
    x, w, b, dy = map(odd, (x, w, b, dy))
    found = conv2d_forward(x, w, b), *conv2d_backward(dy, x, w)
    for a, e in zip(found, expected, strict=True):
        assert a.tobytes() == e.tobytes()


@pytest.mark.parametrize("odd", [readonly, unaligned])
def test_matrices_that_are_read_only_or_unaligned(odd, rng):
    shapes = (9, 40), (20, 40), (20,), (9, 20)
    x, w, b, dy = (rng.normal(size=k).astype(np.float32) for k in shapes)
    expected = linear_forward(x, w, b), *linear_backward(dy, x, w)
    x, w, b, dy = map(odd, (x, w, b, dy))
    found = linear_forward(x, w, b), *linear_backward(dy, x, w)
    for a, e in zip(found, expected, strict=True):
        assert a.tobytes() == e.tobytes()
