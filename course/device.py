"""Where an array lives, and how a loop nest runs there.

Today every array is a NumPy array. A loop nest is a compiled function whose last two
arguments say which share of the work is its own:

    _y_cpu(y, x, ..., first, past)      computes planes first, first+1, ..., past-1 of y

or, where every element is computed alone, cuts its share out of the arrays first:

    y, x = y[first:past], x[first:past]

(then the compiler knows that no index is negative, and uses vector instructions).
`fill` gives each thread one share. A thread owns what it writes and no sum is ever split
between threads: the same bits come out whatever the number of threads.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
from numba import config

from course.shapes import integer

Array = np.ndarray
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
SMALL = 1 << 20  # steps of a loop; below this a second thread costs more than it brings

_threads = config.NUMBA_NUM_THREADS  # the environment's choice, else the cores we may use
_pool: ThreadPoolExecutor | None = None


def set_threads(count: int) -> None:
    """Let loops use `count` threads from now on. The results do not change."""
    global _threads, _pool
    _threads, _pool = integer("threads", count, 1), None


def get_threads() -> int:
    """Return how many threads loops use."""
    return _threads


def _forget_pool() -> None:
    """Drop the pool: its threads do not exist in a forked child."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def fill(loops: Callable, count: int, *arguments: Any, steps: int = 0) -> None:
    """Call loops(*arguments, first, past) so that the calls cover range(count).

    Each call runs in a thread of its own if there is enough to do to pay for waking it:
    `steps` is how often the innermost line runs, if not once for each element.
    """
    global _pool
    steps = steps or sum(a.size for a in arguments if isinstance(a, np.ndarray))
    shares = min(_threads, count) if steps >= SMALL else 1
    if shares <= 1:
        loops(*arguments, 0, count)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(_threads, "course")
    bounds = [count * share // shares for share in range(shares + 1)]
    others: list[Future] = [
        _pool.submit(loops, *arguments, bounds[k], bounds[k + 1]) for k in range(1, shares)
    ]
    try:
        loops(*arguments, bounds[0], bounds[1])
    finally:
        wait(others)  # an interrupt must not leave a thread writing behind our back
    for other in others:
        other.result()


def floats(name: str, a: Array, shape: str, dtype: Any = None) -> Array:
    """Return the array in row-major order, or say in words why it cannot be used.

    `shape` names the axes, as in "(N, C, H, W)"; `dtype` is the one the others have.

    >>> floats("x", np.zeros((2, 3), int), "(N, C)")
    Traceback (most recent call last):
    TypeError: x has dtype int64; layers compute in float32 or float64: x.astype(np.float32)
    """
    if not isinstance(a, np.ndarray):
        raise TypeError(f"{name} is a {type(a).__name__}; it must be a NumPy array")
    if a.dtype not in FLOATS:
        raise TypeError(
            f"{name} has dtype {a.dtype}; layers compute in float32 or float64: "
            f"{name}.astype(np.float32)"
        )
    if dtype is not None and a.dtype != dtype:
        raise TypeError(
            f"{name} is {a.dtype} but the other arrays are {np.dtype(dtype)}; "
            f"make them alike: {name}.astype(np.{np.dtype(dtype)})"
        )
    if shape != "any" and a.ndim != shape.count(",") + 1 - shape.endswith(",)"):
        raise ValueError(f"{name} has shape {a.shape}; it must be {shape}")
    return np.asarray(a, order="C")


def same_shape(name: str, a: Array, shape: tuple[int, ...], why: str) -> None:
    """Raise ValueError unless the array has the shape, which `why` explains."""
    if a.shape != tuple(shape):
        raise ValueError(f"{name} has shape {a.shape}; {why} is {tuple(shape)}")


def number(name: str, value: Any) -> float:
    """Return the value as a float, or say in words why it cannot be one.

    >>> number("alpha", 1), number("alpha", np.float32(0.5))
    (1.0, 0.5)
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not isfinite(value):
        raise ValueError(f"{name} must be finite, not {value}")
    return float(value)
