"""What every test of CUDA kernels needs: where they run, how answers are compared."""

from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest

from course.cuda import CudaArray, native, simulator
from course.device import host, simulated, to
from tests.layers.every import LAYERS, name, new, several

# Each case runs three times: in two orders, and once looking for races.
RUNS = [
    {"order": "forward"},
    {"order": "reverse"},
    {"order": 7, "races": True},
]
PLACES = [
    pytest.param("simulator", marks=pytest.mark.sim),
    pytest.param(
        "gpu",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(bool(native.why_not()), reason=native.why_not() or "-"),
        ],
    ),
]
every_place = pytest.mark.parametrize("place", PLACES)
every_layer = pytest.mark.parametrize(
    "make, shape", [pytest.param(*entry, id=name(entry)) for entry in LAYERS]
)


def moved(value):
    """Return the array, or each of a tuple, on cuda; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(map(moved, value))
    return to("cuda", value) if isinstance(value, np.ndarray) else value


def back(value):
    """Return the array, or each of a tuple, on the CPU."""
    if isinstance(value, tuple | list):
        return type(value)(map(back, value))
    return host(value) if isinstance(value, CudaArray) else value


@contextmanager
def poison():
    """Within a `with`, let new arrays on a GPU begin with poison, as the simulator's do."""
    before = native.allocate
    native.allocate = lambda *made: native.to_device(simulator.poisoned(*made))
    try:
        yield
    finally:
        native.allocate = before


def on_cuda(place, compute, runs=RUNS):
    """Return compute() with "cuda" at the place; in the simulator, in each of the runs.

    The runs must agree bit for bit, whatever the order of threads and blocks: no thread
    may depend on which came first. On a GPU, two runs must.
    """
    if place == "gpu":
        with poison():
            first, again = back(compute()), back(compute())
        np.testing.assert_equal(again, first, "two runs differ")
        return first
    answers = []
    with simulated():
        for settings in runs:
            with simulator.run_with(**settings):
                answers.append(back(compute()))
    for settings, answer in zip(runs, answers, strict=True):
        np.testing.assert_equal(answer, answers[0], f"{settings} differs from {runs[0]}")
    return answers[0]


def close(found, expected, tolerance=2e-6):
    """Assert that float32 answers are those of float64, relative to the largest."""
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape, k
        largest = np.max(np.abs(b), initial=0) or 1
        np.testing.assert_allclose(a, b, 0, tolerance * largest, err_msg=f"answer {k}")


def run_on_cuda(make, x, dy):
    """Return y, dx and the gradients of a new layer on cuda."""
    layer = new(make, several(x)[0].dtype).to("cuda")
    y = layer.forward(moved(x))
    dx = several(layer.backward(moved(dy)))
    buffers = [a for a in layer.buffers.values() if a.ndim]
    return [y, *dx, *(layer.grads[key] for key in layer.params), *buffers]


@cache
def modules():
    """Import every module of the course, so that every kernel is known; return them."""
    import importlib
    import pkgutil

    import course

    names = [m.name for m in pkgutil.walk_packages(course.__path__, "course.")]
    names = [name for name in names if not name.endswith("__main__")]
    return [importlib.import_module(name) for name in names]
