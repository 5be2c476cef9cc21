"""What the machine can do at most: multiplications a second, and bytes a second.

The roofline: a computation that needs `flops` operations and moves `bytes` bytes cannot
run faster than min(peak, bandwidth * flops / bytes).
Source: Williams, Waterman & Patterson, Communications of the ACM 52 (2009).
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from course.bench.cases import Row
from course.bench.rounds import Clock
from course.compiled import compiled
from course.device import fill
from course.engine.tile import cols_at, outer, rows_at, store, tile_shape, zeros

MANY = 1 << 30  # steps for which every thread is worth waking

TAPS = 100_000  # each adds a product to every number of a tile
SIZES = {"8 MB": 2**21, "256 MB": 2**26}  # numbers in each of the arrays


@compiled
def _multiply_add_cpu(y, x, table, first, past):
    """Add TAPS products to a tile; a thread has tiles, and writes its part of y."""
    for tile in range(first, past):
        acc = zeros(x)
        row, col = rows_at(acc, table, 0), cols_at(acc, table, 0)
        for _ in range(TAPS):
            acc = outer(acc, x, row, 0, x, col, 0)
        store(acc, y[tile], row, col)


@compiled
def _triad_cpu(x, y, z, scale, first, past):
    """Compute x = y + scale * z; a thread has elements."""
    x, y, z = x[first:past], y[first:past], z[first:past]
    for k in range(x.size):
        x[k] = y[k] + scale * z[k]


@compiled
def _copy_cpu(x, y, first, past):
    """Compute x = y; a thread has elements."""
    x, y = x[first:past], y[first:past]
    for k in range(x.size):
        x[k] = y[k]


def peak(threads: int, clock: Clock) -> float:
    """Return the most operations a second: fused multiply-adds in registers, times two."""
    tile = tile_shape("float32")
    table = np.arange(tile.rows + tile.cols) * tile.lanes
    x = np.zeros(table[-1] + tile.width, np.float32)
    y = np.zeros((threads, 2 * x.size), np.float32)
    flops = 2 * TAPS * tile.rows * tile.width * threads
    loops = partial(fill, _multiply_add_cpu, threads, y, x, table, steps=flops)
    return flops / best(loops, clock)


def bandwidth(kind: str, size: int, clock: Clock) -> float:
    """Return the bytes a second of a copy or a triad over arrays of `size` numbers."""
    x, y, z = (np.full(size, k, np.float32) for k in range(3))
    if kind == "copy":
        return 8 * size / best(partial(fill, _copy_cpu, size, x, y, steps=MANY), clock)
    loops = partial(fill, _triad_cpu, size, x, y, z, np.float32(3), steps=MANY)
    return 12 * size / best(loops, clock)


def best(work: Callable[[], object], clock: Clock, turns: int = 5) -> float:
    """Return the shortest of a few turns, in seconds: a limit is what can be reached."""
    work()
    return min(clock.turn(work) for _ in range(turns))


def roof(threads: int, clock: Clock) -> dict[str, float]:
    """Return the limits that the shares in the tables refer to."""
    return {
        "FMA peak": peak(threads, clock),
        "bandwidth": bandwidth("triad", SIZES["8 MB"], clock),
    }


def rows(threads: int, clock: Clock) -> list[Row]:
    """Return the limits as rows of the report."""
    found = [Row("roof", "FMA peak", threads, {"course": peak(threads, clock)}, "flop/s")]
    for kind in ("copy", "triad"):
        for place, size in SIZES.items():
            figure = {"course": bandwidth(kind, size, clock)}
            found.append(Row("roof", f"{kind}, {place}", threads, figure, "byte/s"))
    return found
