"""course/cuda/reductions.py against NumPy, in several orders of threads, and with bugs."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from course import cuda
from course.cuda import CudaError, reductions, simulator
from course.cuda.reductions import (
    block_for,
    block_max,
    block_moments,
    block_sum,
    lane_sum,
    row_max,
    warp_max,
    warp_sum,
)
from course.device import host, simulated, to
from tests.cuda.every import RUNS, every_place, on_cuda

THREADS = pytest.mark.parametrize("threads", [32, 64, 256, 1024])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
CLOSE = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-14}


@cuda.jit
def warps_cuda(sums, largest, x):
    """Each warp reduces 32 numbers, each lane writes what it got."""
    k = cuda.grid(1)
    sums[k] = warp_sum(x[k])
    largest[k] = warp_max(x[k])


@cuda.jit
def rows_cuda(largest, x):
    """Each warp has a row, each lane writes what it got."""
    k = cuda.grid(1)
    largest[k] = row_max(x[k // 32])


@cuda.jit
def blocks_cuda(sums, again, largest, x):
    """Each block reduces a number of each thread, three times with one scratch."""
    scratch = cuda.shared.array(32, x.dtype)
    k = cuda.grid(1)
    sums[k] = block_sum(x[k], scratch)
    again[k] = block_sum(x[k] + x[k], scratch)
    largest[k] = block_max(x[k], scratch)


@cuda.jit
def lanes_cuda(sums, again, x):
    """Each block adds up the warps, lane by lane, twice with one scratch."""
    scratch = cuda.shared.array((32, 32), x.dtype)
    k = cuda.grid(1)
    sums[k] = lane_sum(x[k], scratch)
    again[k] = lane_sum(x[k] + x[k], scratch)


@cuda.jit
def moments_cuda(moments, x):
    """Each block has a row, each thread writes what it got."""
    scratch = cuda.shared.array(32, x.dtype)
    row, k = cuda.blockIdx.x, cuda.threadIdx.x
    pivot, shift, var = block_moments(x[row], scratch)
    moments[0, row, k], moments[1, row, k], moments[2, row, k] = pivot, shift, var


def launched(place, kernel, blocks, threads, outputs, *arrays):
    """Return the outputs of a kernel, new arrays of these shapes filled with -1.

    A block of 1024 threads, which takes long, runs in two orders and not in three.
    """

    def compute():
        new = [to("cuda", np.full(shape, -1, arrays[0].dtype)) for shape in outputs]
        kernel[blocks, threads](*new, *(to("cuda", a) for a in arrays))
        return new

    return on_cuda(place, compute, RUNS[1:] if threads == 1024 else RUNS)


def assert_close(found, expected):
    """Assert that all threads of a row found its number, or NaN and infinity where it is.

    found : (rows, threads);  expected : (rows,), in float64
    """
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1], found.shape))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite, 0], expected[~finite])
    largest = np.abs(expected[finite]).max(initial=1)
    close = CLOSE[found.dtype] * largest
    np.testing.assert_allclose(found[finite, 0], expected[finite], 0, close)


def numbers(rng, shape, dtype):
    """Return rows; the second and the third have a NaN, the next two infinity."""
    x = rng.normal(size=shape).astype(dtype)
    for row, column, value in zip(
        x[1:], (-1, 0, 3, 5), (np.nan, np.nan, np.inf, -np.inf), strict=False
    ):
        row[column] = value
    return x


@every_place
@DTYPES
def test_warps(place, dtype, rng):
    x = numbers(rng, (8, 32), dtype)
    x[5] = -abs(x[5])
    sums, largest = launched(place, warps_cuda, 2, 128, [256, 256], x.ravel())
    assert_close(sums.reshape(8, 32), np.float64(x).sum(axis=1))
    np.testing.assert_array_equal(largest.reshape(8, 32).T, [x.max(axis=1)] * 32)


@every_place
@pytest.mark.parametrize("count", [6, 32, 33, 100])
def test_rows_of_warps(place, count, rng):
    x = numbers(rng, (6, count), np.float32)
    x[5] = -abs(x[5]) - 1
    (largest,) = launched(place, rows_cuda, 3, 64, [192], x)
    np.testing.assert_array_equal(largest.reshape(6, 32).T, [x.max(axis=1)] * 32)


@every_place
@THREADS
def test_blocks(place, threads, rng):
    dtype = np.float32 if threads > 32 else np.float64
    x = numbers(rng, (max(1, 320 // threads), threads), dtype)
    sums, again, largest = launched(
        place, blocks_cuda, len(x), threads, [x.size] * 3, x.ravel()
    )
    assert_close(sums.reshape(x.shape), np.float64(x).sum(axis=1))
    np.testing.assert_array_equal(again, sums + sums)
    np.testing.assert_array_equal(largest.reshape(x.shape).T, [x.max(axis=1)] * threads)


@every_place
@THREADS
def test_lanes(place, threads, rng):
    blocks = 1 if threads == 1024 else 2
    x = rng.normal(size=(blocks, threads // 32, 32)).astype(np.float32)
    x[0, -1, 3], x[0, 0, 4], x[0, 0, 31] = np.nan, np.inf, -np.inf
    sums, again = launched(place, lanes_cuda, blocks, threads, [x.size] * 2, x.ravel())
    found = np.moveaxis(sums.reshape(x.shape), 1, 2).reshape(32 * blocks, -1)
    assert_close(found, np.float64(x).sum(axis=1).ravel())
    np.testing.assert_array_equal(again, sums + sums)


@every_place
@pytest.mark.parametrize("count, threads", [(1, 32), (31, 64), (64, 64), (600, 128)])
def test_moments(place, count, threads, rng):
    x = rng.normal(size=(3, count)).astype(np.float32)
    x[1] = 7
    x[2, -1] = np.inf
    (moments,) = launched(place, moments_cuda, 3, threads, [(3, 3, threads)], x)
    with np.errstate(invalid="ignore"):
        assert_close(moments[0], np.float64(x).mean(axis=1))
        mean, var = np.float64(x).mean(axis=1), np.float64(x).var(axis=1)
    assert_close(moments[2], var)
    assert_close((moments[0] + moments[1])[:2], mean[:2])
    assert np.isnan(moments[1, 2]).all()


@every_place
def test_moments_far_from_0_lose_no_digits(place, rng):
    """The squares of the numbers are 1e8, and float32 tells 1e8 from 1e8 + 8 at best."""
    x = (1e4 + rng.normal(size=(2, 500))).astype(np.float32)
    (moments,) = launched(place, moments_cuda, 2, 128, [(3, 2, 128)], x)
    pivot, shift, var = np.float64(moments[:, :, 0])
    np.testing.assert_allclose(pivot + shift, np.float64(x).mean(axis=1), 0, 1e-6)
    np.testing.assert_allclose(var, np.float64(x).var(axis=1), 2e-6)


def test_threads_of_a_block():
    assert [block_for(k) for k in (0, 1, 128, 129, 1024, 1025)] == [
        32,
        32,
        32,
        64,
        256,
        256,
    ]
    assert [block_for(k, 1024) for k in (129, 4096, 9999)] == [64, 1024, 1024]


# --- planted bugs -----------------------------------------------------------------------

USED = {block_sum: blocks_cuda, block_max: blocks_cuda, lane_sum: lanes_cuda}


def without_barrier(function, which, folder):
    """Return a copy of a device function that lacks one of its barriers."""
    lines = inspect.getsource(function.function).splitlines()
    barriers = [k for k, line in enumerate(lines) if "cuda.syncthreads()" in line]
    assert len(barriers) == 2
    lines[barriers[which]] = "    pass"
    file = folder / "planted.py"
    file.write_text("\n".join(lines))
    names = dict(vars(reductions))
    exec(compile(file.read_text(), file, "exec"), names)
    return names[function.__name__]


@pytest.mark.sim
@pytest.mark.parametrize("order", ["forward", "reverse", 3])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("function", USED, ids=lambda function: function.__name__)
def test_a_dropped_barrier_is_found(function, which, order, tmp_path, monkeypatch):
    """Two warps race for the scratch; the message names both lines of the function."""
    broken = without_barrier(function, which, tmp_path)
    monkeypatch.setitem(globals(), function.__name__, broken)
    kernel = USED[function]
    count = kernel.function.__code__.co_argcount
    with simulated(), simulator.run_with(order=order, races=True):
        arrays = [to("cuda", np.ones(64, np.float32)) for _ in range(count)]
        with pytest.raises(CudaError, match="race on shared scratch") as found:
            kernel[1, 64](*arrays)
    named = re.findall(r"(\w+\.py):(\d+), ", str(found.value))
    assert len(named) == 2 and "planted.py" in dict(named)
    for file, line in named:
        path = tmp_path / file if file == "planted.py" else reductions.__file__
        assert "scratch[" in Path(path).read_text().splitlines()[int(line) - 1]


@pytest.mark.sim
def test_the_copy_with_both_barriers_is_sound(monkeypatch, tmp_path):
    """So it is the dropped barrier that the test above finds."""
    names = dict(vars(reductions))
    exec(inspect.getsource(block_sum.function), names)
    monkeypatch.setitem(globals(), "block_sum", names["block_sum"])
    x = np.arange(64, dtype=np.float32)
    with simulated(), simulator.run_with(races=True):
        outputs = [to("cuda", x) for _ in range(3)]
        blocks_cuda[1, 64](*outputs, to("cuda", x))
        assert (host(outputs[0]) == x.sum()).all()
