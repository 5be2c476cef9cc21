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

from collections.abc import Callable
from functools import cache
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
from numba import config

from course.launch import spread
from course.shapes import integer

Array = np.ndarray
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
SMALL = 1 << 18  # steps of a loop; below this a second thread costs more than it brings

_threads = config.NUMBA_NUM_THREADS  # the environment's choice, else the cores we may use


def set_threads(count: int) -> None:
    """Let loops use `count` threads from now on. The results do not change."""
    global _threads
    _threads = integer("threads", count, 1)


def get_threads() -> int:
    """Return how many threads loops use."""
    return _threads


def fill(loops: Callable, count: int, *arguments: Any, steps: int = 0) -> None:
    """Call loops(*arguments, first, past) so that the calls cover range(count).

    Each call runs in a thread of its own if there is enough to do to pay for waking it:
    `steps` is how often the innermost line runs, if not once for each element.
    """
    if _threads > 1 < count:
        if not steps:
            steps = sum([a.size for a in arguments if isinstance(a, np.ndarray)])
        if steps >= SMALL:
            spread(loops, count, min(_threads, count), *arguments)
            return
    loops(*arguments, 0, count)


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
    if shape != "any" and a.ndim != _axes(shape):
        raise ValueError(f"{name} has shape {a.shape}; it must be {shape}")
    return np.asarray(a, order="C")


@cache
def _axes(shape: str) -> int:
    """Return how many axes "(N, C)" and the like name."""
    return shape.count(",") + 1 - shape.endswith(",)")


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
