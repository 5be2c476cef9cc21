"""Where an array lives, and how a loop nest runs there.

An array is a NumPy array, on "cpu", or a CudaArray, on "cuda"; functions compute where
their arrays are, and nothing is copied unasked. A function picks its loops in four lines:

    if on_cpu(x):
        fill(_y_cpu, N * C, y, x)
    else:
        launch(_y_cuda, y.size, y, x)

On the CPU a loop nest is a compiled function whose last two arguments say which share of
the work is its own:

    _y_cpu(y, x, ..., first, past)      computes planes first, first+1, ..., past-1 of y

or, where every element is computed alone, cuts its share out of the arrays first:

    y, x = y[first:past], x[first:past]

(then the compiler knows that no index is negative, and uses vector instructions).
`fill` gives each thread one share. A thread owns what it writes and no sum is ever split
between threads: the same bits come out whatever the number of threads.

On the GPU a kernel gives every element a thread; see course/cuda/__init__.py. Where there
is no GPU, kernels run in a simulator, inside `with simulated():`, or everywhere if
NUMBA_ENABLE_CUDASIM=1 is in the environment.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
from numba import config

from course import cuda
from course.cuda import CudaArray, simulator
from course.launch import spread
from course.shapes import integer

Array = np.ndarray | CudaArray
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


_simulated = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


@contextmanager
def simulated(on: bool = True) -> Iterator[None]:
    """Within a `with`, let "cuda" mean the simulator, whether or not there is a GPU.

    >>> with simulated():
    ...     x = to("cuda", np.array([1.0, 2.0]))
    >>> x
    CudaArray((2,), float64, simulated cuda)
    >>> host(x)
    array([1., 2.])
    """
    global _simulated
    before, _simulated = _simulated, on
    try:
        yield
    finally:
        _simulated = before


def on_cpu(a: Array) -> bool:
    """Say whether the array is on the CPU."""
    return isinstance(a, np.ndarray)


def device_of(a: Array) -> str:
    """Return "cpu" or "cuda": where the array is."""
    return "cpu" if on_cpu(a) else "cuda"


def to(device: str, a: Array) -> Array:
    """Return the array on "cpu" or "cuda": itself if it is there, else a copy.

    Raises ValueError for another device, TypeError for what is no array, and RuntimeError
    where no GPU can be used, with the reason.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f'device must be "cpu" or "cuda", not {device!r}')
    if not isinstance(a, Array):
        raise TypeError(f"a {type(a).__name__} cannot go to {device}; an array can")
    if device == "cpu":
        return host(a)
    if not on_cpu(a):
        return a
    a = np.asarray(a, order="C")  # np.ascontiguousarray makes 0 axes 1
    if _simulated:
        return CudaArray(a.copy(), True)
    from course.cuda import native

    native.need()
    return CudaArray(native.to_device(a), False)


def host(a: Array) -> np.ndarray:
    """Return the array on the CPU: itself if it is there, else a copy."""
    if on_cpu(a):
        return a
    if a.simulated:
        return a.memory.copy()
    from course.cuda import native

    return native.to_host(a.memory)


def assign(a: Array, values: Array) -> None:
    """Write values, of the same shape and of any device, into the array where it is.

    >>> with simulated():
    ...     a = to("cuda", np.zeros(2))
    >>> assign(a, np.array([1.0, 2.0]))
    >>> host(a)
    array([1., 2.])
    """
    same_shape("values", values, a.shape, "the shape of a")
    if on_cpu(a):
        a[...] = host(values)
    elif a.simulated:
        a.memory[...] = host(values)
    else:
        from course.cuda import native

        on_host = on_cpu(values)
        values = np.asarray(values, a.dtype, order="C") if on_host else values.memory
        native.assign(a.memory, values)


def empty(shape: int | tuple[int, ...], dtype: Any, like: Array) -> Array:
    """Return a new array where `like` is, with whatever is in it."""
    if on_cpu(like):
        return np.empty(shape, dtype)
    if like.simulated:
        return CudaArray(simulator.poisoned(shape, dtype), True)
    from course.cuda import native

    return CudaArray(native.allocate(shape, np.dtype(dtype)), False)


def empty_like(a: Array) -> Array:
    """Return a new array of the shape and dtype of `a`, where it is."""
    if on_cpu(a):
        return np.empty(a.shape, a.dtype)
    return empty(a.shape, a.dtype, like=a)


def full(shape: int | tuple[int, ...], value: Any, dtype: Any, like: Array) -> Array:
    """Return a new array where `like` is, with the value everywhere."""
    if on_cpu(like):
        return np.full(shape, value, dtype)
    a = empty(shape, dtype, like)
    launch(_value_cuda, a.size, a.ravel(), a.dtype.type(value))
    return a


@cuda.jit
def _value_cuda(a, value):
    """Write the value everywhere; a thread has elements."""
    for k in range(cuda.grid(1), a.size, cuda.gridsize(1)):
        a[k] = value


launch = cuda.launch


def fill(loops: Callable, count: int, *arguments: Any, steps: int = 0) -> None:
    """Call loops(*arguments, first, past) so that the calls cover range(count).

    Each call runs in a thread of its own if there is enough to do to pay for waking it:
    `steps` is how often the innermost line runs, if not once for each element.
    """
    try:
        if _threads > 1 < count:
            if not steps:
                steps = sum([a.size for a in arguments if isinstance(a, np.ndarray)])
            if steps >= SMALL:
                spread(loops, count, min(_threads, count), *arguments)
                return
        loops(*arguments, 0, count)
    except Exception:
        if CudaArray not in map(type, arguments):
            raise
        raise TypeError(
            f"{loops.__name__} computes on the CPU and has no CUDA kernel beside it: "
            "course.device.host(a) copies an array"
        ) from None


def floats(name: str, a: Array, shape: str, like: Any = None) -> Array:
    """Return the array in row-major order, or say in words why it cannot be used.

    `shape` names the axes, as in "(N, C, H, W)"; `like` is an array whose dtype and device
    it must have, or only the dtype.

    >>> floats("x", np.zeros((2, 3), int), "(N, C)")
    Traceback (most recent call last):
    TypeError: x has dtype int64; layers compute in float32 or float64: x.astype(np.float32)
    """
    here = isinstance(a, np.ndarray)
    if not here and not isinstance(a, CudaArray):
        raise TypeError(f"{name} is a {type(a).__name__}; it must be a NumPy array")
    if a.dtype not in FLOATS:
        raise TypeError(
            f"{name} has dtype {a.dtype}; layers compute in float32 or float64: "
            f"{name}.astype(np.float32)"
        )
    if like is not None:
        if isinstance(like, (np.ndarray, CudaArray)):
            if not here or not isinstance(like, np.ndarray):
                same_device(name, a, like)
            like = like.dtype
        if a.dtype != like:
            raise TypeError(
                f"{name} is {a.dtype} but the other arrays are {np.dtype(like)}; "
                f"make them alike: {name}.astype(np.{np.dtype(like)})"
            )
    if shape != "any" and a.ndim != _axes(shape):
        raise ValueError(f"{name} has shape {a.shape}; it must be {shape}")
    return np.asarray(a, order="C") if here else a


def same_device(name: str, a: Array, like: Array) -> None:
    """Raise TypeError unless the two arrays are on one device.

    >>> with simulated():
    ...     x = to("cuda", np.zeros(2))
    >>> same_device("w", np.zeros(2), x)
    Traceback (most recent call last):
    TypeError: w is on cpu but the other arrays are on cuda: course.device.to("cuda", w)
    """
    if type(a) is not type(like) or (not on_cpu(a) and a.simulated != like.simulated):
        here, there = device_of(a), device_of(like)
        if here == there:
            raise TypeError(f"{name} and the other arrays: a GPU and the simulator")
        raise TypeError(
            f"{name} is on {here} but the other arrays are on {there}: "
            f'course.device.to("{there}", {name})'
        )


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
