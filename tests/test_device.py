"""course/device.py: shares of the work, and the same bits for any number of threads."""

import inspect
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from course import device
from course.device import fill, floats, get_threads, number, same_shape, set_threads
from course.layers import (
    ELU,
    Conv2d,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Tanh,
)

LARGE = np.empty(device.SMALL)


@pytest.fixture(autouse=True)
def threads_as_before():
    """Give the next test the number of threads that this one found."""
    before = get_threads()
    yield
    set_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64])
def test_shares_cover_the_range_once(threads, count):
    seen = []
    set_threads(threads)
    fill(lambda a, first, past: seen.extend(range(first, past)), count, LARGE)
    assert sorted(seen) == list(range(count))


def test_each_share_has_a_thread():
    """Three shares meet at a barrier, which one thread alone could not pass."""
    set_threads(3)
    barrier = threading.Barrier(3, timeout=20)
    fill(lambda a, first, past: barrier.wait(), 3, LARGE)


def test_small_work_stays_in_the_caller():
    set_threads(4)
    seen = []
    fill(
        lambda a, first, past: seen.append((threading.current_thread(), first, past)),
        *(10, LARGE[:-1]),
    )
    assert seen == [(threading.main_thread(), 0, 10)]


def test_many_steps_on_small_arrays_are_shared():
    """A convolution has few elements and much to do."""
    set_threads(2)
    seen = []

    def loops(a, first, past):
        seen.append((first, past))

    fill(loops, 4, np.empty(10), steps=device.SMALL)
    assert sorted(seen) == [(0, 2), (2, 4)]


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


def test_error_of_any_share_reaches_the_caller():
    set_threads(3)
    for broken in range(3):

        def loops(a, first, past, broken=broken):
            if first == broken:
                raise ZeroDivisionError(f"share {broken}")

        with pytest.raises(ZeroDivisionError, match=f"share {broken}"):
            fill(loops, 3, LARGE)


def test_after_an_interrupt_nobody_writes_any_more():
    """Ctrl-C hits the caller's share; fill returns only when the others have ended."""
    set_threads(3)
    ended = []

    def loops(a, first, past):
        if first == 0:
            raise KeyboardInterrupt
        time.sleep(0.2)
        ended.append(first)

    with pytest.raises(KeyboardInterrupt):
        fill(loops, 3, LARGE)
    assert sorted(ended) == [1, 2]
    test_shares_cover_the_range_once(3, 7)  # and the pool works on


def layers(rng, dtype):
    """Return each layer that has loops, and an x that is large enough for threads."""
    images = rng.normal(size=(5, 4, 61, 59)).astype(dtype)
    rows = rng.normal(size=(101, 499)).astype(dtype)
    new = {"rng": rng, "dtype": dtype}
    return [
        (Conv2d(4, 6, 3, padding=1, groups=2, **new), images),
        (Conv2d(4, 5, (5, 3), stride=2, padding="same", **new), images),
        (Linear(499, 97, **new), rows),
        (MaxPool2d(3, 2, 1), images),
        *((make(), images) for make in (ReLU, LeakyReLU, ELU, Sigmoid, Tanh)),
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_do_not_depend_on_the_number_of_threads(dtype, rng, monkeypatch):
    monkeypatch.setattr(device, "SMALL", 0)
    for layer, x in layers(rng, dtype):
        results = []
        for threads in (1, 2, 3):
            set_threads(threads)
            y = layer(x)
            dx = layer.backward(np.cos(y))
            results.append([a.tobytes() for a in (y, dx, *layer.grads.values())])
        assert results[0] == results[1] == results[2], type(layer).__name__


def test_every_element_has_one_owner(rng, monkeypatch):
    """Two shares write every element between them, none of them twice, and nothing else.

    Whatever a layer asks `fill` to run is run here one share after the other, each time
    on arrays full of a number that no loop computes.
    """
    nobody, ran = -12345, set()

    def watched(loops, count, *arguments, steps=0):
        name, parameters = (
            loops.py_func.__name__,
            inspect.signature(loops.py_func).parameters,
        )
        outputs = 2 if list(parameters)[:2] == ["y", "argmax"] else 1
        filled, inputs = arguments[:outputs], arguments[outputs:]
        inputs = [a for a in inputs if isinstance(a, np.ndarray)]
        before = [a.copy() for a in inputs]
        owned = [[] for _ in filled]
        for first, past in ((0, count // 3), (count // 3, count)):
            for a in filled:
                a[...] = nobody
            loops(*arguments, first, past)
            for a, shares in zip(filled, owned, strict=True):
                shares.append(a != nobody)
        for one, other in owned:
            assert one.any() and other.any(), name
            assert (one ^ other).all(), name
        for a, unchanged in zip(inputs, before, strict=True):
            np.testing.assert_array_equal(a, unchanged, name)
        loops(*arguments, 0, count)
        ran.add(name)

    for layer, x in layers(rng, np.float64):
        monkeypatch.setattr(sys.modules[type(layer).__module__], "fill", watched)
        layer.backward(np.cos(layer(x)))
    assert {"_y_cpu", "_dx_cpu", "_dw_cpu", "_db_cpu"} <= ran


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_computes_the_same():
    """The parent's threads do not exist in the child; it must not wait for them."""
    program = """
import os, signal, sys, warnings
import numpy as np
from course.device import set_threads
from course.layers import relu_forward
warnings.simplefilter("ignore")  # Python 3.12 warns of a fork with threads
set_threads(2)
x = np.random.default_rng(0).normal(size=10**6)
expected = relu_forward(x)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if np.array_equal(relu_forward(x), expected) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = subprocess.run([sys.executable, "-c", program], timeout=120, check=False)
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
