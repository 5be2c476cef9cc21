"""course/engine/cpu.py against NumPy, loop by loop, with every array fenced in."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from course.device import get_threads, set_threads
from course.engine import cpu, matmul, winograd
from course.engine.tile import tile_shape
from tests.engine.convolutions import (
    CASES,
    FENCE,
    NONE,
    ONE,
    SENTINEL,
    Case,
    arrays,
    compare,
    fenced,
    run,
    spied,
    untouched,
)

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
JOBS = {  # what `launch` may start: every loop that is told its share
    name
    for name, job in vars(cpu).items()
    if isinstance(job, Dispatcher) and "shares" in job.py_func.__code__.co_varnames
}


@pytest.fixture
def used(monkeypatch):
    """Return the list of loops that were started."""
    names = []
    real = cpu.launch
    for module in (cpu, matmul, winograd):
        monkeypatch.setattr(module, "launch", spied(names, real))
    return names


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@TYPES
def test_a_convolution_is_its_definition(case, dtype):
    """Neither what lies outside an array nor what lay in the workspace matters."""
    numbers = arrays(case, dtype)
    compare(run(case, *numbers), case, *numbers)


def loops(used, call):
    """Return the loops that the call started, but for those that only move numbers."""
    used.clear()
    assert call()
    return sorted(set(used) - {"_pack", "_collect", "_filters", "_together", "_row_sums"})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_which_loop_runs(case, used):
    if tile_shape(np.dtype(np.float32)) != (6, 2, 8, 16):
        pytest.skip("the table says what runs with AVX2")
    x, w, b, dy = arrays(case, np.float32)
    window = case.stride, case.frame, case.dilation, case.groups
    y, dx, dw = (np.empty_like(a) for a in (dy, x, w))
    assert loops(used, lambda: cpu.convolve(y, x, w, b, *window)) == [case.y]
    backward = cpu.convolve_backward
    both = loops(used, lambda: backward(dx, dw, b, dy, x, w, *window))
    assert both == sorted({case.dx, case.dw})
    assert loops(used, lambda: backward(None, dw, b, dy, x, w, *window)) == [case.dw]
    assert loops(used, lambda: backward(dx, None, None, dy, x, w, *window)) == [case.dx]


def test_no_loop_goes_untested(used):
    for case in CASES.values():
        run(case, *arrays(case, np.float32))
    assert JOBS - {"_pool_relu_dx"} == set(used) & JOBS and "_pool_relu_dx" in JOBS


@pytest.mark.parametrize("filters", [2, 7])
@pytest.mark.parametrize("threads", [2, 3, 5])
@TYPES
def test_threads_share_one_image(threads, filters, dtype, monkeypatch):
    """In pieces, where the batch is too small; the bits are those of one thread."""
    case = Case((1, 3, 9, 37), (filters, 3, 3, 3), "", "", "", frame=ONE)
    numbers, found = arrays(case, dtype), []
    monkeypatch.setattr(cpu, "LITTLE", 0)
    before = get_threads()
    try:
        for count in (1, threads):
            set_threads(count)
            found.append(run(case, *numbers))
    finally:
        set_threads(before)
    compare(found[1], case, *numbers)
    for one, several in zip(*found, strict=True):
        np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize("W", [4, 16, 18, 33])
@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (3, 1), (2, 3)])
@TYPES
def test_windows_side_by_side(W, stride, dtype, monkeypatch):
    """Every pixel is in one window: dx is one product of matrices."""
    x, w = (3, 5, 4 * stride[0], W * stride[1]), (7, 5, *stride)
    case, used = Case(x, w, "", "", "", stride), []
    monkeypatch.setattr(matmul, "launch", spied(used, matmul.launch))
    numbers = arrays(case, dtype)
    compare(run(case, *numbers), case, *numbers)
    assert "_multiply" in used


def test_a_bias_for_dx():
    for stride, kernel in (((1, 1), (3, 2)), ((1, 1), (1, 1)), ((2, 2), (3, 1))):
        case = Case((2, 3, 7, 9), (4, 3, *kernel), "", "", "", stride)
        x, w, _, dy = arrays(case, np.float64)
        two, bias = [np.empty_like(x) for _ in range(2)], np.array([1.0, -2.0, 3.0])
        for dx, given in zip(two, (None, bias), strict=True):
            window = stride, NONE, (1, 1), 1
            assert cpu.convolve_backward(dx, None, None, dy, x, w, *window, given)
        np.testing.assert_allclose(two[1], two[0] + bias[:, None, None], 1e-13, 1e-13)


@pytest.mark.parametrize("seed", range(6))
@TYPES
def test_any_geometry(seed, dtype):
    """Thirty convolutions drawn at random, most of them odd."""
    rng, checked = np.random.default_rng(seed), 0
    while checked < 30:
        case = drawn(rng)
        numbers = arrays(case, dtype, seed)
        found = run(case, *numbers)
        if found is not None:
            compare(found, case, *numbers)
            checked += 1


def drawn(rng):
    """Return a random case."""

    def some(*choices, size=None):
        found = rng.choice(choices, size)
        return int(found) if size is None else tuple(found.tolist())

    while True:
        groups, channels, filters = some(1, 1, 2, 3, 5), some(1, 2, 3, 5), some(1, 2, 3, 9)
        if rng.random() < 0.25:  # depthwise
            channels = filters = 1
        elif rng.random() < 0.3:
            groups, channels, filters = 1, some(17, 30), some(17, 33, 40)
        dilation, stride = some(1, 1, 2, 3, size=2), some(1, 1, 1, 2, 3, 7, size=2)
        (KH, KW), (H, W) = rng.integers(1, 5, 2), (rng.integers(1, 14), rng.integers(1, 24))
        frame = some(0, 0, 1, 2, 5, size=2), some(0, 0, 1, 2, 5, size=2)
        if rng.random() < 0.3:
            frame = NONE
        spans = dilation[0] * (KH - 1) + 1, dilation[1] * (KW - 1) + 1
        if H + sum(frame[0]) >= spans[0] and W + sum(frame[1]) >= spans[1]:
            x = some(1, 2, 4), groups * channels, int(H), int(W)
            w = groups * filters, channels, int(KH), int(KW)
            return Case(x, w, "", "", "", stride, frame, dilation, groups)


@pytest.mark.parametrize("W", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33])
@pytest.mark.parametrize("groups", [1, 5])
@TYPES
def test_maps_around_the_width_of_a_vector(W, groups, dtype):
    w = (5, 5 // groups, 2, 1)
    case = Case((2, 5, 3, W), w, "", "", "", groups=groups)
    numbers = arrays(case, dtype)
    found = run(case, *numbers)
    if found is None:  # depthwise, and no vector fits
        assert groups == 5 and tile_shape(np.dtype(dtype)).lanes > W
        return
    compare(found, case, *numbers)


@pytest.mark.parametrize("W", [3, 5, 7])
def test_planes_that_a_frame_widens(W):
    """y is as wide as a vector, dx is not."""
    case = Case((2, 3, 4, W), (3, 1, 2, 2), "", "", "", (1, 1), ((1, 0), (9, 9)), groups=3)
    numbers = arrays(case, np.float32)
    found = run(case, *numbers)
    assert found is None or compare(found, case, *numbers) is None


@pytest.mark.parametrize(
    "x_shape, w_shape, stride",
    [
        ((0, 2, 5, 20), (3, 2, 3, 3), (1, 1)),  # no image
        ((2, 2, 5, 20), (0, 2, 3, 3), (1, 1)),  # no filter
        ((2, 4, 5, 1), (4, 1, 2, 1), (1, 1)),  # depthwise, and too narrow for a vector
        ((2, 4, 5, 30), (4, 1, 3, 3), (1, 2)),  # depthwise, and vectors would have gaps
    ],
)
def test_what_is_left_to_plain_loops_is_left_alone(x_shape, w_shape, stride):
    groups = x_shape[1] // w_shape[1] if w_shape[0] == 4 else 1
    case = Case(x_shape, w_shape, "", "", "", stride, groups=groups)
    x, w, b, dy = arrays(case, np.float64)
    window = stride, NONE, (1, 1), groups
    y, dx, dw, db = (np.full_like(a, SENTINEL) for a in (dy, x, w, b))
    assert not cpu.convolve(y, x, w, b, *window)
    assert not cpu.convolve_backward(dx, dw, db, dy, x, w, *window)
    for a in (y, dx, dw, db):
        np.testing.assert_array_equal(a, SENTINEL)


@pytest.mark.parametrize("shape", [(2, 0, 4, 20), (2, 3, 0, 20), (2, 3, 20, 0)])
@TYPES
def test_a_map_without_pixels_gives_the_bias(shape, dtype):
    case = Case(shape, (4, shape[1], 2, 2), "", "", "", frame=((2, 2), (2, 2)))
    x, w, b, dy = arrays(case, dtype)
    found = run(case, x, w, b, dy)
    np.testing.assert_array_equal(found.y, np.broadcast_to(b[:, None, None], dy.shape))
    assert found.dx.size == 0
    np.testing.assert_array_equal(found.dw, np.zeros_like(w))
    np.testing.assert_allclose(found.db, dy.sum(axis=(0, 2, 3)), 1e-5, 1e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_nan_in_x_reaches_the_windows_that_see_it(case):
    """And no other: y and dw are NaN exactly where the definition says so."""
    x, w, b, dy = arrays(case, np.float32)
    x[0, 0, -1, -1] = np.nan
    window = case.stride, case.frame, case.dilation, case.groups
    y, dx, dw, db = (np.zeros_like(a) for a in (dy, x, w, b))
    assert cpu.convolve(y, x, w, b, *window)
    assert cpu.convolve_backward(dx, dw, db, dy, x, w, *window)
    zero, one = np.zeros_like(x), np.ones_like(w)
    zero[0, 0, -1, -1] = 1
    seen = run(case, zero, one, np.zeros_like(b), np.ones_like(dy))
    np.testing.assert_array_equal(np.isnan(y), seen.y > 0)
    np.testing.assert_array_equal(np.isnan(dw), seen.dw > 0)
    assert np.isfinite(dx).all() and np.isfinite(db).all()


# --- the gradient of ReLU and 2 x 2 max-pool ----------------------------------------------


def pool_relu_gradient(dz, y):
    """Return the gradient of max-pool of y = relu(...), from the definition."""
    dy = np.zeros_like(y)
    for n, f, i, j in np.ndindex(dz.shape):
        window = y[n, f, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel()
        largest = np.argmax(window)  # the first of equals, and the first NaN
        if not window[largest] <= 0:
            dy[n, f, 2 * i + largest // 2, 2 * j + largest % 2] = dz[n, f, i, j]
    return dy


@pytest.mark.parametrize("W", [2, 3, 4, 5, 8, 15, 16, 17, 28, 31, 32, 34, 66])
@pytest.mark.parametrize("H", [2, 3, 6, 7])
@pytest.mark.parametrize("threads", [1, 3])
@TYPES
def test_gradient_of_pool_and_relu(H, W, threads, dtype, rng, monkeypatch):
    """With ties, zeros and NaN; every number is written, and none outside."""
    y = np.maximum(rng.integers(-2, 3, (3, 2, H, W)), 0).astype(dtype)
    y[rng.random(y.shape) < 0.03] = np.nan
    dz = rng.normal(size=(3, 2, H // 2, W // 2)).astype(dtype)
    dy = fenced(np.full_like(y, np.nan), SENTINEL)
    monkeypatch.setattr(cpu, "LITTLE", 0)
    before = get_threads()
    set_threads(threads)
    try:
        cpu.pool_relu_dx(dy, fenced(dz), fenced(y))
    finally:
        set_threads(before)
    assert untouched(dy)
    np.testing.assert_array_equal(dy, pool_relu_gradient(dz, y))


# --- workspace ----------------------------------------------------------------------------


@TYPES
def test_workspace_lies_at_a_cache_line_and_grows(dtype):
    dtype = np.dtype(dtype)
    for size in (1, 100, 5000, 100):
        work = cpu.workspace(dtype, size)
        assert work.size >= size and work.dtype == dtype
        assert work.ctypes.data % 64 == 0
    assert cpu.workspace(dtype, 10).size >= 5000


def test_fences_are_wider_than_any_vector_or_row():
    """Else the tests above might look too near."""
    for dtype in (np.float32, np.float64):
        shape = tile_shape(np.dtype(dtype))
        assert max(shape.lanes * shape.registers // 2, shape.width) <= FENCE


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_no_loop_reads_past_the_end_of_the_memory():
    """Arrays and workspaces end, or begin, at a page that nobody may touch."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.engine.walls"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "nothing touched the walls"
