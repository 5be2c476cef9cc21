"""course/device.py: shares of the work, and the same bits for any number of threads."""

import importlib
import os
import subprocess
import sys
from inspect import signature

import numpy as np
import pytest
from numba import config, get_thread_id, njit

from course import device
from course.device import fill, floats, get_threads, number, same_shape, set_threads
from course.engine import cpu, matmul
from course.layers import Conv2d, Linear
from tests.layers.every import DTYPES, distinct, every_layer, new, run, without_loops

LARGE = np.empty(device.SMALL)


@pytest.fixture(autouse=True)
def threads_as_before():
    """Give the next test the number of threads that this one found."""
    before = get_threads()
    yield
    set_threads(before)


@njit
def count_visits(visits, first, past):
    """What the shares below do: visit each of their own."""
    for k in range(first, past):
        visits[k] += 1


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64])
def test_shares_cover_the_range_once(threads, count):
    set_threads(threads)
    visits = np.zeros(64, int)
    fill(count_visits, count, visits, steps=device.SMALL)
    assert np.array_equal(visits, np.arange(64) < count)


@pytest.mark.skipif(config.NUMBA_NUM_THREADS < 2, reason="there is one core")
def test_each_share_has_a_thread():
    @njit
    def note_thread(threads, first, past):
        threads[first:past] = get_thread_id()

    set_threads(2)
    threads = np.empty(6, int)
    fill(note_thread, 6, threads, steps=device.SMALL)
    assert len(set(threads[:3])) == len(set(threads[3:])) == 1
    assert threads[0] != threads[5]


@njit
def note_bounds(bounds, first, past):
    """Write the end of the share at its beginning."""
    bounds[first] = past


@pytest.mark.parametrize(
    "size, steps, shares",
    [
        (10, 0, {0: 4}),
        (10, device.SMALL, {0: 2, 2: 4}),  # few elements and much to do: a convolution
        (device.SMALL, 0, {0: 2, 2: 4}),
        (device.SMALL - 1, 0, {0: 4}),
        (device.SMALL, 10, {0: 4}),
    ],
)
def test_small_work_is_not_shared(size, steps, shares):
    set_threads(2)
    bounds = np.zeros(size, int)
    fill(note_bounds, 4, bounds, steps=steps)
    assert {k: bounds[k] for k in range(4) if bounds[k]} == shares


@pytest.mark.parametrize(
    "count, error, says",
    [
        (0, ValueError, "threads must be at least 1, not 0"),
        (2.0, TypeError, "threads must be a whole number, not 2.0"),
        (True, TypeError, "threads must be a whole number, not True"),
    ],
)
def test_impossible_number_of_threads_is_refused(count, error, says):
    with pytest.raises(error, match=says):
        set_threads(count)


@pytest.mark.parametrize("broken", [0, 2, 5])
def test_error_of_any_share_reaches_the_caller(broken):
    @njit(boundscheck=True)
    def beyond(a, first, past):
        if first <= broken < past:
            a[a.size] = 0

    set_threads(3)
    for _ in range(2):
        with pytest.raises(IndexError, match="out of bounds"):
            fill(beyond, 6, np.empty(6), steps=device.SMALL)
    visits = np.zeros(6, int)
    fill(count_visits, 6, visits, steps=device.SMALL)  # and the threads work on
    assert (visits == 1).all()


def test_every_kind_of_argument_arrives():
    """Each is laid out in memory for the threads, and read from there."""

    @njit
    def write(out, plane, row, few, empty, whole, single, double, yes, no, first, past):
        for k in range(first, past):
            out[k] = plane[1, 2] + row[k] + few[0] + empty.size + whole + single + double
            out[k] += 10000 * yes + 20000 * no

    set_threads(3)
    plane, row = np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(20.0)[::2]
    few = np.array([100, 200], np.int32)
    few.flags.writeable = False
    empty, out = np.empty((0, 3)), np.empty(10)
    scalars = np.int8(-100), np.float32(0.25), 0.125, True, np.False_
    fill(write, 10, out, plane.T, row, few, empty, *scalars, steps=device.SMALL)
    expected = plane.T[1, 2] + row + 100 - 100 + 0.25 + 0.125 + 10000
    assert np.array_equal(out, expected)


@pytest.fixture
def always_threads(monkeypatch):
    """Give every thread a share, however little there is to do."""
    for module, least in ((device, "SMALL"), (cpu, "LITTLE"), (matmul, "LITTLE")):
        monkeypatch.setattr(module, least, 0)


@every_layer
@DTYPES
def test_bits_do_not_depend_on_the_number_of_threads(
    make, shape, dtype, rng, always_threads
):
    same_bits_for_any_number_of_threads(make, distinct(shape, rng, dtype))


def same_bits_for_any_number_of_threads(make, x):
    """Run the layer forward and backward with 1, 2 and 3 threads."""
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        results.append([a.tobytes() for a in run(make, x)[0]])
    assert results[0] == results[1] == results[2]


@DTYPES
@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda **new: Conv2d(20, 34, 3, padding=1, groups=2, **new), (5, 20, 61, 59)),
        (lambda **new: Conv2d(20, 7, (5, 3), 2, "same", **new), (5, 20, 61, 59)),
        (lambda **new: Conv2d(20, 48, 1, **new), (5, 20, 61, 59)),
        (lambda **new: Linear(1499, 97, **new), (101, 1499)),
    ],
    ids=["conv2d", "conv2d-stride", "conv2d-1x1", "linear"],
)
def test_bits_stay_where_threads_pay(make, shape, dtype, rng):
    """As above, with so much to do that threads and blocks come in by themselves."""
    same_bits_for_any_number_of_threads(make, distinct(shape, rng, dtype))


@every_layer
def test_every_element_has_one_owner(make, shape, rng, monkeypatch, always_threads):
    """The shares write every element between them, none of them twice, and nothing else.

    Whatever a layer asks `fill` or `launch` to run is run here one share after the other,
    each time on arrays full of a number that no loop computes.
    """
    ran = []

    def watch(name, arguments, shares, run_share):
        """Run the shares, and return of each array that they fill how many wrote where."""
        arrays = [a for a in arguments if isinstance(a, np.ndarray) and a.flags.writeable]
        arrays = list({id(a): a for a in arrays}.values())  # each once
        before = [a.copy() for a in arrays]

        def run_on(numbers):
            for a, other in zip(arrays, numbers, strict=True):
                a[...] = other
            for share in range(shares):
                run_share(share)
            return [(a != other).any() for a, other in zip(arrays, numbers, strict=True)]

        fills = run_on(
            [rng.normal(size=a.shape) if a.dtype.kind == "f" else 0 for a in arrays]
        )
        owners = [np.zeros(a.shape, int) for a in arrays]
        for share in range(shares):
            for a, old, filled in zip(arrays, before, fills, strict=True):
                a[...] = -12345 if filled else old
            run_share(share)
            for a, old, filled, count in zip(arrays, before, fills, owners, strict=True):
                count += filled & (a != -12345)
                assert filled or np.array_equal(a, old), name
        run_on(before)
        ran.append(name)
        return [count for count, filled in zip(owners, fills, strict=True) if filled]

    def fill(loops, count, *arguments, steps=0):
        bounds = 0, count // 2, count
        name, names = loops.py_func.__name__, signature(loops.py_func).parameters
        kept = [a for k, a in zip(names, arguments, strict=False) if k != "sums"]
        owners = watch(  # sums are no result: threads scribble there
            *(name, kept, 2),
            lambda share: loops(*arguments, bounds[share], bounds[share + 1]),
        )
        assert owners, name
        for counts in owners:
            assert (counts == 1).all(), name

    def launch(job, shares, *arguments):
        *flat, _, _ = arguments  # a workspace is no result: each share has a place in it
        name = job.py_func.__name__
        owners = watch(name, flat, shares, lambda share: job(*arguments, share, shares))
        assert owners, name
        for counts in owners:  # of a table filled up to whole tiles, not all is written
            assert (counts <= 1).all(), name

    set_threads(3)
    layer = new(make)
    module = importlib.import_module(type(layer).__module__)
    monkeypatch.setattr(module, "fill", fill, raising=not without_loops(layer))
    monkeypatch.setattr(cpu, "launch", launch)
    monkeypatch.setattr(matmul, "launch", launch)
    layer.backward(np.cos(layer(distinct(shape, rng))))
    assert ran or without_loops(layer) or not layer.training


WORK = """
import numpy as np
from course import layers

def work(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    new = {"rng": rng, "dtype": dtype}
    found = []
    for layer, shape in (
        (layers.Conv2d(8, 20, 3, padding=1, **new), (6, 8, 40, 38)),
        (layers.Conv2d(8, 20, 5, stride=2, **new), (6, 8, 40, 38)),
        (layers.Linear(900, 130, **new), (64, 900)),
        (layers.ReLU(), (1200, 900)),
    ):
        y = layer(rng.normal(size=shape).astype(dtype))
        dx = layer.backward(rng.normal(size=y.shape).astype(dtype))
        found += [y, dx, *layer.grads.values()]
    return b"".join(a.tobytes() for a in found)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_computes_the_same():
    """The parent's threads do not exist in the child; it must not wait for them."""
    program = """
import os, signal, sys, warnings
from course.device import set_threads
warnings.simplefilter("ignore")  # Python 3.12 warns of a fork with threads
set_threads(2)
expected = work(0)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if work(0) == expected else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(code or work(0) != expected)
"""
    result = subprocess.run(
        [sys.executable, "-c", WORK + program], timeout=240, check=False
    )
    assert result.returncode == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_called_at_one_moment_do_not_meet(dtype):
    """Four Python threads run the same layers, each on numbers of its own, many times."""
    program = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from course.device import set_threads
set_threads(2)
expected = [work(seed, np.{dtype}) for seed in range(4)]
start = Barrier(4, timeout=60)

def again(seed):
    start.wait()
    return all(work(seed, np.{dtype}) == expected[seed] for _ in range(5))

with ThreadPoolExecutor(4) as pool:
    sys.exit(not all(pool.map(again, range(4))))
"""
    result = subprocess.run(
        [sys.executable, "-c", WORK + program], timeout=240, check=False
    )
    assert result.returncode == 0


def test_a_number_stays_a_number():
    """An array of no axes has none afterwards (np.ascontiguousarray would give it one)."""
    assert floats("x", np.array(3.0), "any").shape == ()


@pytest.mark.parametrize(
    "a, shape, dtype, error, says",
    [
        (3.0, "any", None, TypeError, "x is a float; it must be a NumPy array"),
        (LARGE > 0, "any", None, TypeError, "x has dtype bool; layers compute in float32"),
        (LARGE, "(N, C)", None, ValueError, r"x has shape \(\d+,\); it must be \(N, C\)"),
        (LARGE, "any", np.float32, TypeError, r"alike: x\.astype\(np\.float32\)"),
    ],
)
def test_floats_says_what_is_wrong(a, shape, dtype, error, says):
    with pytest.raises(error, match=says):
        floats("x", a, shape, dtype)


def test_same_shape_says_why():
    with pytest.raises(ValueError, match=r"b has shape \(2,\); one for each row is \(3,\)"):
        same_shape("b", np.zeros(2), (3,), "one for each row")


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int8(3), -2])
def test_numbers_are_numbers(value):
    assert number("alpha", value) == value
    assert type(number("alpha", value)) is float


@pytest.mark.parametrize("value", ["1", None, True, np.bool_(True), 1j, np.ones(1), [1]])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match="alpha must be a number, not"):
        number("alpha", value)
