"""CUDA kernels on a machine without a GPU: slow, repeatable, and merciless.

The simulator runs a kernel as plain Python. The threads of a block take turns: each runs
until it has to wait at a barrier or for its warp, in an order that can be chosen. Any such
order is one that a GPU might take, and the most unfriendly one: a thread that reads what
another has yet to write finds poison (NaN) or the old number every time, not once in a
thousand runs.

What is an error here, and on a GPU most often a wrong number:

- an index outside the array, and (with `races`) a negative one;
- threads of a block that wait at different barriers, or at one that others never reach;
- more threads, blocks or shared memory than a GPU has;
- with `races`: two accesses to one place, one of them a write, with no barrier between.
  Both lines are named.

What Python cannot show: float64 where float32 was meant, registers, speed, memory banks.
For that there is the compile check (course/cuda/compile_check.py).

Shared and local memory and new arrays are filled with poison. Memory is consistent between
barriers only, atomics order nothing but themselves, and two blocks are never in order.
"""

import linecache
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba.core import types
from numba.np.numpy_support import as_dtype

WARP = warpsize = 32
MAX_THREADS, MAX_SHARED = 1024, 48 * 1024  # bytes, for arrays of fixed size
MAX_GRID = 2**31 - 1, 65535, 65535
MAX_BLOCK = 1024, 1024, 64
WAITING = frozenset(  # a kernel with one of these names needs threads that can wait
    {
        "all_sync",
        "any_sync",
        "ballot_sync",
        "shfl_down_sync",
        "shfl_sync",
        "shfl_up_sync",
        "shfl_xor_sync",
        "syncthreads",
        "syncthreads_and",
        "syncthreads_count",
        "syncthreads_or",
        "syncwarp",
    }
)


class CudaError(RuntimeError):
    """What would be undefined, wrong or refused on a GPU."""


class Settings:
    """How kernels are run; `settings` of this module is the one that counts.

    Attributes
    ----------
    order : "forward", "reverse", or an int, the seed of a random order
    races : look for races; three times as slow
    dry : only note the types of a launch, and run nothing
    watch : called with (array, index, kind, thread, line) for each access, if races
    """

    def __init__(self) -> None:
        self.order: str | int = "forward"
        self.races = False
        self.dry = False
        self.watch: Callable | None = None


settings = Settings()
launches = 0  # how many kernels were run
now: "Thread"  # the one that runs


@contextmanager
def run_with(**changes: Any) -> Iterator[None]:
    """Change the settings within a `with`: order, races, dry, watch."""
    before = vars(settings).copy()
    unknown = changes.keys() - before.keys()
    if unknown:
        raise TypeError(f"no such setting: {sorted(unknown)}; there are {sorted(before)}")
    vars(settings).update(changes)
    try:
        yield
    finally:
        vars(settings).update(before)


# --- what kernels see -------------------------------------------------------------------


class Three:
    """Three numbers called x, y and z."""

    __slots__ = ("x", "y", "z")

    def set(self, numbers: tuple[int, int, int]) -> None:
        """Become these numbers."""
        self.x, self.y, self.z = numbers


threadIdx, blockIdx, blockDim, gridDim = Three(), Three(), Three(), Three()


def grid(axes: int) -> Any:
    """Return the number of this thread among all; one for each of the axes."""
    x = blockIdx.x * blockDim.x + threadIdx.x
    if axes == 1:
        return x
    y = blockIdx.y * blockDim.y + threadIdx.y
    return (x, y) if axes == 2 else (x, y, blockIdx.z * blockDim.z + threadIdx.z)


def gridsize(axes: int) -> Any:
    """Return how many threads there are, along each of the axes."""
    x = blockDim.x * gridDim.x
    if axes == 1:
        return x
    y = blockDim.y * gridDim.y
    return (x, y) if axes == 2 else (x, y, blockDim.z * gridDim.z)


def poisoned(shape: Any, dtype: Any) -> np.ndarray:
    """Return a new array full of numbers that show: NaN, or a third of the largest."""
    kind = as_dtype(dtype) if isinstance(dtype, types.Type) else np.dtype(dtype)
    poison = np.nan if kind.kind in "fc" else 0
    if kind.kind in "iu":
        poison = np.iinfo(kind).max // 3
    return np.full(shape, poison, kind)


class shared:
    """Memory that the threads of a block share."""

    @staticmethod
    def array(shape: Any, dtype: Any, alignment: int | None = None) -> Any:
        """Return the block's array; each call in the source is an array of its own."""
        caller, block = sys._getframe(1), now.block
        place = caller.f_code, caller.f_lasti
        found = block.shared.get(place)
        if found is None:
            array = poisoned(shape, dtype)
            block.shared_bytes += array.nbytes
            if block.shared_bytes > MAX_SHARED:
                raise CudaError(
                    f"{block.shared_bytes} bytes of shared memory in a block; there are "
                    f"{MAX_SHARED}"
                )
            found = array
            if settings.races:
                line = linecache.getline(caller.f_code.co_filename, caller.f_lineno)
                name = line.partition("=")[0].strip() or "shared"
                found = Watched(array, f"shared {name}", block.log)
            block.shared[place] = found
        return found


class local:
    """Memory of one thread, most often its registers."""

    @staticmethod
    def array(shape: Any, dtype: Any, alignment: int | None = None) -> np.ndarray:
        """Return a new array of this thread."""
        return poisoned(shape, dtype)


OTHER_NAMES = {  # those of `math` -> NumPy's
    "acos": "arccos",
    "asin": "arcsin",
    "atan": "arctan",
    "atan2": "arctan2",
    "fabs": "abs",
    "pow": "power",
}


class _Math:
    """The module `math` as a GPU computes it: no errors, and float32 stays float32."""

    def __getattr__(self, name: str) -> Any:
        if name in ("erf", "erfc"):
            from scipy import special

            found = getattr(special, name)
        else:
            found = getattr(np, OTHER_NAMES.get(name, name))
        setattr(self, name, found)
        return found


math = _Math()


# --- threads that wait ------------------------------------------------------------------


class Block:
    """What the threads of a block have in common."""

    def __init__(self, index: tuple[int, int, int]):
        self.index = index
        self.shared: dict[Any, Any] = {}
        self.shared_bytes = 0
        self.log: dict[int, list] = {}  # of shared memory


class Thread:
    """One thread: where it is, and what it waits for."""

    __slots__ = (
        "answer",
        "barriers",
        "block",
        "greenlet",
        "index",
        "lane",
        "line",
        "number",
        "together",
        "value",
        "waits_for",
        "warp",
        "warp_syncs",
    )

    def __init__(self, number: int, index: tuple[int, int, int], block: Block):
        self.number, self.index, self.block = number, index, block
        self.warp, self.lane = divmod(number, WARP)
        self.barriers = self.warp_syncs = 0  # how many it has passed
        self.waits_for = ""  # "block", "warp", "end"; "" if it may run

    def enter(self) -> None:
        """Become the thread that runs."""
        global now
        now = self
        threadIdx.set(self.index)

    def wait(self, whom: str, together: Callable | None, value: Any) -> Any:
        """Wait for the block or the warp, and return what they find together."""
        frame = sys._getframe(2)
        while frame.f_code.co_filename == __file__:
            frame = frame.f_back
        self.line = frame.f_code.co_filename, frame.f_lineno
        self.waits_for, self.together, self.value = whom, together, value
        self.greenlet.parent.switch()
        return self.answer


def wait(whom: str, together: Callable | None = None, value: Any = None) -> Any:
    """Let the thread that runs wait for its "block" or "warp".

    When all are there, each gets together(values, thread), where values has the value of
    each, by lane in a warp and by number in a block.
    """
    return now.wait(whom, together, value)


def syncthreads() -> None:
    """Wait until all threads of the block are here."""
    now.wait("block", None, None)


def syncthreads_count(predicate: Any) -> int:
    """Wait for the block; return in how many threads the predicate holds."""
    return now.wait("block", lambda values, _: sum(map(bool, values.values())), predicate)


def syncthreads_and(predicate: Any) -> int:
    """Wait for the block; say whether the predicate holds in all threads."""
    return now.wait("block", lambda values, _: int(all(values.values())), predicate)


def syncthreads_or(predicate: Any) -> int:
    """Wait for the block; say whether the predicate holds in any thread."""
    return now.wait("block", lambda values, _: int(any(values.values())), predicate)


def syncwarp(mask: int = 0xFFFFFFFF) -> None:
    """Wait for the warp."""
    now.wait("warp", None, None)


def _from(values: dict, lane: int, thread: Thread) -> Any:
    """Return the value of another lane, which must be there to give it."""
    if not 0 <= lane < WARP:
        return values[thread.lane]
    if lane not in values:
        raise CudaError(f"lane {thread.lane} asks lane {lane}, which is not there")
    return values[lane]


def shfl_sync(mask: int, value: Any, lane: int) -> Any:
    """Return the value that another lane of the warp has."""
    return now.wait("warp", lambda v, me: _from(v, int(lane) % WARP, me), value)


def shfl_up_sync(mask: int, value: Any, delta: int) -> Any:
    """Return the value of the lane `delta` below."""
    return now.wait("warp", lambda v, me: _from(v, me.lane - int(delta), me), value)


def shfl_down_sync(mask: int, value: Any, delta: int) -> Any:
    """Return the value of the lane `delta` above."""
    return now.wait("warp", lambda v, me: _from(v, me.lane + int(delta), me), value)


def shfl_xor_sync(mask: int, value: Any, bits: int) -> Any:
    """Return the value of the lane whose number differs in these bits."""
    return now.wait("warp", lambda v, me: _from(v, me.lane ^ int(bits), me), value)


def ballot_sync(mask: int, predicate: Any) -> int:
    """Return the lanes where the predicate holds, a bit each."""
    return now.wait(
        "warp", lambda v, _: sum(1 << k for k, holds in v.items() if holds), predicate
    )


def any_sync(mask: int, predicate: Any) -> bool:
    """Say whether the predicate holds in any lane."""
    return now.wait("warp", lambda v, _: any(v.values()), predicate)


def all_sync(mask: int, predicate: Any) -> bool:
    """Say whether the predicate holds in all lanes."""
    return now.wait("warp", lambda v, _: all(v.values()), predicate)


class _Atomic:
    """Changes of one element that no other thread can come between."""

    @staticmethod
    def _change(array: Any, index: Any, new: Callable) -> Any:
        if isinstance(array, Watched):
            array.note(index, "atomic")
            array = array.array
        old = array[index]
        array[index] = new(old)
        return old

    def add(self, array: Any, index: Any, value: Any) -> Any:
        """Add to an element; return what it was."""
        return self._change(array, index, lambda old: old + value)

    def max(self, array: Any, index: Any, value: Any) -> Any:
        """Raise an element to the value, if it is less; return what it was."""
        return self._change(array, index, lambda old: max(old, value))

    def min(self, array: Any, index: Any, value: Any) -> Any:
        """Lower an element to the value, if it is more; return what it was."""
        return self._change(array, index, lambda old: min(old, value))

    def exch(self, array: Any, index: Any, value: Any) -> Any:
        """Put the value in place of an element; return what it was."""
        return self._change(array, index, lambda old: value)

    def cas(self, array: Any, index: Any, old: Any, value: Any) -> Any:
        """Put the value in place of an element if it is `old`; return what it was."""
        return self._change(array, index, lambda found: value if found == old else found)


atomic = _Atomic()


# --- races ------------------------------------------------------------------------------

VERB = {"read": "reads", "write": "writes", "atomic": "changes"}


class Access:
    """Who touched an element, how, and in which order with others."""

    __slots__ = ("barriers", "block", "kind", "line", "thread", "warp_syncs")

    def __init__(self, thread: Thread, kind: str, line: int):
        self.thread, self.kind, self.line = thread, kind, line
        self.barriers, self.warp_syncs = thread.barriers, thread.warp_syncs

    def unordered(self, later: "Access") -> bool:
        """Say whether nothing keeps the two accesses in order."""
        a, b = self.thread, later.thread
        if a is b:
            return False
        if a.block is not b.block:
            return True
        if self.barriers != later.barriers:
            return False
        return a.warp != b.warp or self.warp_syncs == later.warp_syncs

    def __str__(self) -> str:
        t = self.thread
        who = f"thread {_short(t.index)} of block {_short(t.block.index)}"
        return f"{who} {VERB[self.kind]} it in line {self.line}"


def _short(index: tuple[int, int, int]) -> str:
    """Return (3, 0, 0) as 3, and (3, 1, 0) as (3, 1)."""
    while len(index) > 1 and not index[-1]:
        index = index[:-1]
    return str(index[0]) if len(index) == 1 else str(index)


class Watched:
    """An array that notes who reads and writes each element, by its address."""

    __slots__ = ("address", "array", "log", "name")

    def __init__(self, array: np.ndarray, name: str, log: dict[int, list]):
        self.array, self.name, self.log = array, name, log
        self.address = array.__array_interface__["data"][0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> Any:
        if self.note(index, "read"):
            return self.array[index]
        return Watched(self.array[index], self.name, self.log)

    def __setitem__(self, index: Any, value: Any) -> None:
        if not self.note(index, "write"):
            raise CudaError(f"{self.name}[{index}] is not one element")
        self.array[index] = value

    def note(self, index: Any, kind: str) -> bool:
        """Check an access and remember it; say whether it is to one element."""
        array = self.array
        numbers = index if isinstance(index, tuple) else (index,)
        if len(numbers) != array.ndim or any(isinstance(k, slice) for k in numbers):
            return False
        place = self.address
        for k, size, stride in zip(numbers, array.shape, array.strides, strict=True):
            k = int(k)
            if not 0 <= k < size:
                numbers = tuple(map(int, numbers))
                raise IndexError(f"{self.name}{list(numbers)}: its shape is {array.shape}")
            place += k * stride
        frame = sys._getframe(2)
        while frame.f_code.co_filename == __file__:
            frame = frame.f_back
        access = Access(now, kind, frame.f_lineno)
        if settings.watch:
            settings.watch(self.name, tuple(map(int, numbers)), kind, now, frame.f_lineno)
        seen = self.log.get(place)
        if seen is None:
            seen = self.log[place] = [None, {}, {}]
        write, reads, atomics = seen
        others = [write] if write else []
        if kind != "read":
            others += reads.values()
        if kind != "atomic":
            others += atomics.values()
        for other in others:
            if other.unordered(access):
                numbers = list(map(int, numbers))
                raise CudaError(
                    f"race on {self.name}{numbers}: {other}, {access}, and no barrier "
                    "is between"
                )
        if kind == "write":
            self.log[place] = [access, {}, {}]
        else:
            (reads if kind == "read" else atomics)[now] = access
        return True


# --- a launch ---------------------------------------------------------------------------


def launch(kernel: Any, blocks: Any, threads: Any, arguments: tuple) -> None:
    """Run a kernel on the simulator's arrays, block by block."""
    global launches, now
    launches += 1
    blocks, threads = (
        _three("blocks", blocks, MAX_GRID),
        _three("threads", threads, MAX_BLOCK),
    )
    count = threads[0] * threads[1] * threads[2]
    if count > MAX_THREADS:
        raise CudaError(f"{count} threads in a block; the most is {MAX_THREADS}")
    kernel.launched.add(tuple(map(type_name, arguments)))
    if settings.dry:
        return
    log: dict[int, list] = {}
    names = kernel.function.__code__.co_varnames
    values = [
        _seen(argument, name, log) for argument, name in zip(arguments, names, strict=False)
    ]
    blockDim.set(threads)
    gridDim.set(blocks)
    function = kernel.simulated()
    run = _run_waiting if kernel.waits() else _run_alone
    indices = [
        (k % threads[0], k // threads[0] % threads[1], k // (threads[0] * threads[1]))
        for k in range(count)
    ]
    thread_order = _ordered(count)
    with np.errstate(all="ignore"):
        for b in _ordered(blocks[0] * blocks[1] * blocks[2]):
            x, b = b % blocks[0], b // blocks[0]
            block = Block((x, b % blocks[1], b // blocks[1]))
            blockIdx.set(block.index)
            try:
                run(function, values, block, indices, thread_order)
            except Exception as error:
                where = f"thread {_short(now.index)} of block {_short(block.index)}"
                error.add_note(f"in {kernel.name}, {where}")
                raise


def _three(name: str, numbers: Any, most: tuple) -> tuple[int, int, int]:
    """Return how many there are along x, y and z."""
    given = numbers if isinstance(numbers, tuple | list) else (numbers,)
    three = (*map(int, given), 1, 1, 1)[:3]
    for axis, k, limit in zip("xyz", three, most, strict=True):
        if not 1 <= k <= limit:
            raise CudaError(f"{k} {name} along {axis}; there must be 1 to {limit}")
    return three


def _ordered(count: int) -> list[int]:
    """Return 0 to count - 1 in the order of the settings."""
    numbers = list(range(count))
    if settings.order == "reverse":
        numbers.reverse()
    elif settings.order != "forward":
        random.Random(settings.order).shuffle(numbers)
    return numbers


def _seen(argument: Any, name: str, log: dict) -> Any:
    """Return an argument as the kernel sees it."""
    memory = getattr(argument, "memory", None)
    if memory is None:
        return argument
    return Watched(memory, name, log) if settings.races else memory


def type_name(argument: Any) -> str:
    """Return the type of an argument as the compile check needs it: "float32[2]"."""
    if isinstance(argument, tuple):
        return f"({', '.join(map(type_name, argument))})"
    if hasattr(argument, "memory"):
        return f"{argument.dtype}[{argument.ndim}]"
    if isinstance(argument, bool | np.bool_):
        return "boolean"
    if isinstance(argument, np.generic):
        return str(argument.dtype)
    return {int: "int64", float: "float64"}[type(argument)]


def _run_alone(function, values, block, indices, order) -> None:
    """Run the threads of a block, which never wait, one after the other."""
    global now
    for k in order:
        now = Thread(k, indices[k], block)
        threadIdx.set(indices[k])
        function(*values)


def _run_waiting(function, values, block, indices, order) -> None:
    """Run the threads of a block, each to where it must wait, until all have ended."""
    from greenlet import getcurrent, greenlet

    main = getcurrent()
    every = [Thread(k, indices[k], block) for k in range(len(indices))]
    for thread in every:
        thread.greenlet = greenlet(function, main)
    warps: dict[int, list[Thread]] = {}
    for k in order:
        warps.setdefault(k // WARP, []).append(every[k])
    started: set[Thread] = set()
    try:
        while True:
            for lanes in warps.values():
                _run_warp(lanes, values, started)
            waiting = [thread for thread in every if thread.waits_for == "block"]
            if not waiting:
                return
            _meet(waiting, every)
    finally:
        for thread in every:
            if thread in started and not thread.greenlet.dead:
                thread.greenlet.throw()


def _run_warp(lanes: list[Thread], values: list, started: set[Thread]) -> None:
    """Run the lanes of a warp until each has ended or waits for the block."""
    while True:
        for thread in lanes:
            if thread.waits_for:
                continue
            thread.enter()
            if thread in started:
                thread.greenlet.switch()
            else:
                started.add(thread)
                thread.greenlet.switch(*values)
            if thread.greenlet.dead:
                thread.waits_for = "end"
        here = [thread for thread in lanes if thread.waits_for == "warp"]
        if not here:
            return
        elsewhere = [t for t in lanes if t.waits_for == "block"]
        lines = sorted({thread.line for thread in here + elsewhere})
        if len(lines) > 1:
            raise CudaError(f"lanes of one warp wait in different lines: {_lines(lines)}")
        _answer(here, {thread.lane: thread.value for thread in here})
        for thread in here:
            thread.warp_syncs += 1


def _meet(waiting: list[Thread], every: list[Thread]) -> None:
    """Let a block pass a barrier, if all its threads wait there."""
    lines = sorted({thread.line for thread in waiting})
    if len(lines) > 1:
        raise CudaError(f"threads of one block wait at different barriers: {_lines(lines)}")
    if len(waiting) < len(every):
        raise CudaError(
            f"{len(every) - len(waiting)} threads have returned while {len(waiting)} wait "
            f"at the barrier in line {lines[0][1]}"
        )
    _answer(waiting, {thread.number: thread.value for thread in waiting})
    for thread in waiting:
        thread.barriers += 1


def _lines(lines: list[tuple[str, int]]) -> str:
    """Return lines of source files as text."""
    return ", ".join(f"{file.rpartition('/')[2]}:{line}" for file, line in lines)


def _answer(threads: list[Thread], values: dict) -> None:
    """Give each thread what they have found together, and let it run again."""
    for thread in threads:
        together = thread.together
        thread.answer = together(values, thread) if together else None
        thread.waits_for = ""
