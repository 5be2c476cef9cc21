"""CUDA kernels on a machine without a GPU: slow, repeatable, and merciless.

The simulator runs a kernel as plain Python. The threads of a block take turns: each runs
until it has to wait at a barrier or for its warp, in an order that can be chosen. Any such
order is one that a GPU might take, and the most unfriendly one: a thread that reads what
another has yet to write finds poison (NaN) or the old number every time, not once in a
thousand runs.

What is an error here, and on a GPU most often a wrong number:

- an index outside the array, and (with `races`) a negative one;
- threads of a block that wait at different barriers, or at one that others never reach;
- a shuffle whose mask names lanes that do not come, or that asks a lane that is not there;
- more threads, blocks or shared memory than a GPU has;
- with `races`: two accesses to one place, one of them a write, with no barrier between.
  Both lines are named.

What Python cannot show: float64 where float32 was meant, registers, speed, memory banks.
For that there is the compile check (course/cuda/compile_check.py).

Shared and local memory and new arrays are filled with poison. Memory is consistent between
barriers only: those of a block, and `syncwarp` for the lanes it names. Shuffles, votes and
atomics order nothing but themselves, and two blocks are never in order.

Sources: CUDA C++ Programming Guide, "Warp shuffle functions", "Warp vote functions",
"Synchronization functions"; for the order of accesses, Lamport, CACM 21 (1978).
"""

import builtins
import linecache
import math as python_math
import random
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from operator import index as whole_number
from typing import Any

import numpy as np
from numba.core import types
from numba.np.numpy_support import as_dtype

WARP = warpsize = 32
ALL = 0xFFFFFFFF  # lanes: a mask
OURS = {__file__}  # files whose lines belong to no kernel
OURS = {__file__}  # files whose lines belong to no kernel
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
    watch : called with (array, index, kind, thread, line) for each access, if races;
        array is its name; kind is "read", "write" or "atomic"
    """

    def __init__(self) -> None:
        self.order: str | int = "forward"
        self.races = False
        self.dry = False
        self.watch: Callable | None = None


settings = Settings()
launches = 0  # how many kernels were run


class Nobody:
    """What `now` is while no thread runs."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # somebody looks what this is
            raise AttributeError(name)
        raise CudaError("this is for kernels, and no kernel runs now")


NOBODY = Nobody()
now: Any = NOBODY  # the Thread that runs


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
    poison = np.nan if kind.kind in "fc" else True
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
                found = Watched(array, f"shared {_assigned(caller)}", block.log)
            block.shared[place] = found
        return found


class local:
    """Memory of one thread, most often its registers."""

    @staticmethod
    def array(shape: Any, dtype: Any, alignment: int | None = None) -> Any:
        """Return a new array of this thread."""
        array = poisoned(shape, dtype)
        if settings.races:
            return Watched(array, f"local {_assigned(sys._getframe(1))}", None)
        return array


def _assigned(frame: Any) -> str:
    """Return the name on the left of the line that runs."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return line.partition("=")[0].strip() or "array"


OTHER_NAMES = {  # those of `math` -> NumPy's
    "acos": "arccos",
    "acosh": "arccosh",
    "asin": "arcsin",
    "asinh": "arcsinh",
    "atan": "arctan",
    "atan2": "arctan2",
    "atanh": "arctanh",
    "fabs": "abs",
    "pow": "float_power",
}
SPECIAL = {"erf": "erf", "erfc": "erfc", "gamma": "gamma", "lgamma": "gammaln"}


class _Math:
    """The module `math` as a GPU computes it: no errors, and float32 stays float32."""

    def __getattr__(self, name: str) -> Any:
        if name in SPECIAL:
            from scipy import special

            found = getattr(special, SPECIAL[name])
        elif name in ("ceil", "floor", "trunc"):
            round_so = getattr(np, name)

            def found(x: Any) -> int:
                return int(round_so(x)) if np.isfinite(x) else -(2**63)
        else:
            found = getattr(np, OTHER_NAMES.get(name, name))
        setattr(self, name, found)
        return found


math = _Math()


def _max(*values: Any) -> Any:
    """Return the larger of two numbers as a GPU does: a NaN loses, in either place."""
    if len(values) != 2:
        return builtins.max(*values)
    a, b = values
    return b if b > a or a != a else a


def _min(*values: Any) -> Any:
    """Return the smaller of two numbers as a GPU does: a NaN loses, in either place."""
    if len(values) != 2:
        return builtins.min(*values)
    a, b = values
    return b if b < a or a != a else a


BUILT_IN = {"max": _max, "min": _min}  # other functions than Python's on a GPU


class _Signed:
    """int32 or int64 of numba: a type of arrays, and of numbers, which stay Python's.

    What it is called with fits: signed numbers that do not are no number on a GPU either.
    """

    def __init__(self, kind: np.dtype):
        self.dtype = kind

    def __call__(self, value: Any) -> int:
        return int(value)


def translated(value: Any) -> Any:
    """Return what stands for a global of a kernel: another `math`, NumPy's numbers."""
    if isinstance(value, types.Integer) and value.signed and value.bitwidth >= 32:
        return _Signed(as_dtype(value))
    if isinstance(value, types.Number | types.Boolean):
        return as_dtype(value).type
    return math if value is python_math else value


# --- threads that wait ------------------------------------------------------------------


class Block:
    """What the threads of a block have in common."""

    def __init__(self, index: tuple[int, int, int]):
        self.index = index
        self.shared: dict[Any, Any] = {}
        self.shared_bytes = 0
        self.log: dict[int, list] = {}  # of shared memory


class Thread:
    """One thread: where it is, and what it waits for.

    Attributes
    ----------
    waits_for : "block", "warp" or "end"; "" if it may run
    place : where it waits, as code and instruction
    barriers, syncs : how many barriers of the block and how many `syncwarp` it has passed
    known : for each lane, how many of its `syncs` came before what this thread does now
    """

    __slots__ = (
        "answer",
        "barriers",
        "block",
        "greenlet",
        "index",
        "known",
        "lane",
        "mask",
        "number",
        "place",
        "syncs",
        "together",
        "value",
        "waits_for",
        "warp",
    )

    def __init__(self, number: int, index: tuple[int, int, int], block: Block):
        self.number, self.index, self.block = number, index, block
        self.warp, self.lane = divmod(number, WARP)
        self.barriers = self.syncs = 0
        self.known = NONE_KNOWN
        self.waits_for = ""


NONE_KNOWN = (0,) * WARP


def wait(whom: str, together: Any = None, value: Any = None, mask: int = ALL) -> Any:
    """Let the thread that runs wait for its "block", or for lanes of its "warp".

    `together` makes of their values what they get: for a block it is called once, with a
    list; for a warp in each thread, with {lane: value} and the thread.
    """
    me, frame = now, sys._getframe(2)
    while frame.f_code.co_filename in OURS:
        frame = frame.f_back
    me.place = frame.f_code, frame.f_lasti
    me.together, me.value, me.mask = together, value, int(mask) & ALL
    me.waits_for = whom
    me.greenlet.parent.switch()
    return me.answer


def syncthreads() -> None:
    """Wait until all threads of the block are here."""
    wait("block")


def syncthreads_count(predicate: Any) -> int:
    """Wait for the block; return in how many threads the predicate holds."""
    return wait("block", lambda values: sum(map(bool, values)), predicate)


def syncthreads_and(predicate: Any) -> int:
    """Wait for the block; say whether the predicate holds in all threads."""
    return wait("block", lambda values: int(all(values)), predicate)


def syncthreads_or(predicate: Any) -> int:
    """Wait for the block; say whether the predicate holds in any thread."""
    return wait("block", lambda values: int(any(values)), predicate)


def syncwarp(mask: int = ALL) -> None:
    """Wait for the lanes of the mask; what they wrote before, they may read afterwards."""
    wait("warp", None, None, mask)


def _from(values: dict, lane: int, thread: Thread) -> Any:
    """Return the value of another lane, which must be there to give it."""
    if lane in values:
        return values[lane]
    if 0 <= lane < WARP:
        raise CudaError(
            f"lane {thread.lane} asks lane {lane}, which is not there, in "
            f"{_lines([thread.place])}"
        )
    return values[thread.lane]


def shfl_sync(mask: int, value: Any, lane: int) -> Any:
    """Return the value that another lane of the warp has."""
    lane = int(lane) % WARP
    return wait("warp", lambda v, me: _from(v, lane, me), value, mask)


def shfl_up_sync(mask: int, value: Any, delta: int) -> Any:
    """Return the value of the lane `delta` below; the lowest ones keep theirs."""
    delta = int(delta)
    return wait("warp", lambda v, me: _from(v, me.lane - delta, me), value, mask)


def shfl_down_sync(mask: int, value: Any, delta: int) -> Any:
    """Return the value of the lane `delta` above; the highest ones keep theirs."""
    delta = int(delta)
    return wait("warp", lambda v, me: _from(v, me.lane + delta, me), value, mask)


def shfl_xor_sync(mask: int, value: Any, bits: int) -> Any:
    """Return the value of the lane whose number differs in these bits."""
    bits = int(bits)
    return wait("warp", lambda v, me: _from(v, me.lane ^ bits, me), value, mask)


def ballot_sync(mask: int, predicate: Any) -> int:
    """Return the lanes where the predicate holds, a bit each."""
    holds = bool(predicate)
    return wait("warp", lambda v, _: sum(v[k] << k for k in v), holds, mask)


def any_sync(mask: int, predicate: Any) -> bool:
    """Say whether the predicate holds in any lane of the mask."""
    return wait("warp", lambda v, _: any(v.values()), predicate, mask)


def all_sync(mask: int, predicate: Any) -> bool:
    """Say whether the predicate holds in all lanes of the mask."""
    return wait("warp", lambda v, _: all(v.values()), predicate, mask)


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


# an access: the thread, its barriers and syncs so far, the verb, code and instruction
Access = tuple["Thread", int, int, str, Any, int]


def _unordered(access: Access, thread: Thread) -> bool:
    """Say whether nothing keeps an access in order with what the thread does now."""
    other, barriers, syncs = access[:3]
    if other is thread:
        return False
    if other.block is not thread.block:
        return True
    if barriers != thread.barriers:
        return False
    return other.warp != thread.warp or thread.known[other.lane] <= syncs


def _covered(reads: list[Access], thread: Thread) -> bool:
    """Say whether one more read by the thread can make no difference to a later write.

    Two reads of two blocks: whoever writes races with one of them. Two warps of a block,
    with no barrier since: likewise. And what a thread has just read, it may read again.
    """
    first, last = reads[0], reads[-1]
    if first[0].block is not last[0].block:
        return True
    if first[0].block is not thread.block or first[1] != thread.barriers:
        return False
    if first[0].warp != last[0].warp:
        return True
    return any(read[0] is thread and read[2] == thread.syncs for read in reads)


def _kept(reads: list[Access], read: Access) -> list[Access]:
    """Return the reads that matter to a later write, with one more."""
    thread = read[0]
    if reads and _covered(reads, thread):
        return reads
    if reads and reads[0][0].block is thread.block:
        if reads[0][1] != read[1]:  # a barrier is between
            return [read]
        if reads[0][0].warp == thread.warp:
            return [*(other for other in reads if other[0] is not thread), read]
    return [*reads[:1], read]


def _told(access: Access) -> str:
    """Return an access as text."""
    thread, _, _, kind, *place = access
    who = f"thread {_short(thread.index)} of block {_short(thread.block.index)}"
    return f"{who} {VERB[kind]} it in {_lines([place])}"


def _short(index: tuple[int, int, int]) -> str:
    """Return (3, 0, 0) as 3, and (3, 1, 0) as (3, 1)."""
    while len(index) > 1 and not index[-1]:
        index = index[:-1]
    return str(index[0]) if len(index) == 1 else str(index)


class Watched:
    """An array that notes who reads and writes each element, by its address.

    With a log of None, for the memory of one thread, it only checks the indices.
    """

    __slots__ = ("address", "array", "flat", "log", "name", "shape", "strides", "whole")

    def __init__(
        self,
        array: np.ndarray,
        name: str,
        log: dict[int, list] | None,
        whole: "Watched | None" = None,
    ):
        self.array, self.name, self.log = array, name, log
        self.shape, self.strides = array.shape, array.strides
        self.address = array.__array_interface__["data"][0]
        self.whole = self if whole is None else whole  # what this is a part of
        self.flat = array.size if log is None and array.ndim == 1 else 0  # the short way

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> Any:
        if type(index) is int and 0 <= index < self.flat:
            return self.array[index]
        if self.note(index, "read"):
            return self.array[index]
        return Watched(self.array[index], self.name, self.log, self.whole)

    def __setitem__(self, index: Any, value: Any) -> None:
        if type(index) is int and 0 <= index < self.flat:
            self.array[index] = value
            return
        if not self.note(index, "write"):
            raise CudaError(f"{self.name}[{index}] is not one element")
        self.array[index] = value

    def note(self, index: Any, kind: str, count: int = 1) -> bool:
        """Check an access and remember it; say whether it is to one element.

        With a count, it is to so many elements, the first of which has the index.
        """
        numbers = index if type(index) is tuple else (index,)
        place, element = self.address, len(numbers) == len(self.shape)
        for k, size, stride in zip(numbers, self.shape, self.strides, strict=False):
            if type(k) is not int:
                if type(k) is slice:
                    element = False
                    continue
                k = whole_number(k)
            if k < 0 or k > size - count:
                raise IndexError(f"{self.name}{_plain(numbers)}: its shape is {self.shape}")
            place += k * stride
        if not element:
            return False
        if self.log is None:
            return True
        me = now
        if kind == "read" and count == 1 and not settings.watch:
            seen = self.log.get(place)
            if seen and seen[1] and not (seen[0] or seen[2]) and _covered(seen[1], me):
                return True
        frame = sys._getframe(2)
        while frame.f_code.co_filename in OURS:
            frame = frame.f_back
        access = me, me.barriers, me.syncs, kind, frame.f_code, frame.f_lasti
        step = self.strides[-1] if count > 1 else 0
        for k in range(count):
            if settings.watch:
                where = self._index(place + k * step)
                settings.watch(self.name, where, kind, me, frame.f_lineno)
            self._remember(place + k * step, access, numbers, k)
        return True

    def _remember(self, place: int, access: Access, numbers: tuple, k: int) -> None:
        """Compare an access with the earlier ones to its place, and keep it."""
        thread, kind, seen = access[0], access[3], self.log.get(place)
        if seen is None:
            seen = self.log[place] = [None, [], {}]
        write, reads, atomics = seen
        others = [write] if write else []
        if kind != "read":
            others += reads
        if kind != "atomic" and atomics:
            others += atomics.values()
        for other in others:
            if _unordered(other, thread):
                where = _plain((*numbers[:-1], numbers[-1] + k) if numbers else ())
                raise CudaError(
                    f"race on {self.name}{where}: {_told(other)}, {_told(access)}, and no "
                    "barrier is between"
                )
        if kind == "write":
            self.log[place] = [access, [], {}]
        elif kind == "read":
            seen[1] = _kept(reads, access)
        else:
            atomics[thread] = access

    def _index(self, place: int) -> tuple[int, ...]:
        """Return the index, into the whole array, of the element at the address."""
        flat = (place - self.whole.address) // self.array.itemsize
        return tuple(map(int, np.unravel_index(flat, self.whole.shape)))


def _plain(numbers: tuple) -> list:
    """Return an index as Python's numbers."""
    return [k if isinstance(k, slice) else int(k) for k in numbers]


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
    key = tuple(map(type_name, arguments))
    kernel.launched[key] = max(count, kernel.launched.get(key, 0))
    if settings.dry:
        return
    kernel.runs += 1
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
                error.add_note(f"in {kernel.name}, {_where(error, block)}")
                raise
            finally:
                now = NOBODY


def _where(error: Exception, block: Block) -> str:
    """Return the line of the kernel at which an error was raised, and by which thread."""
    found = f"block {_short(block.index)}"
    frames = [(t.tb_frame, t.tb_lineno) for t in _chain(error.__traceback__)]
    inside = [pair for pair in frames if pair[0].f_code.co_filename not in OURS]
    if now is NOBODY or not inside:
        return found
    frame, line = inside[-1]
    file = frame.f_code.co_filename
    text = linecache.getline(file, line).strip()
    return f"thread {_short(now.index)} of {found}, {_base(file)}:{line}: {text}"


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
    if type(argument) in (int, float):
        return f"{type(argument).__name__}64"
    raise TypeError(
        f"a kernel takes arrays, numbers and tuples of numbers, not a "
        f"{type(argument).__name__}"
    )


def _run_alone(function, values, block, indices, order) -> None:
    """Run the threads of a block, which never wait, one after the other."""
    global now
    for k in order:
        now = Thread(k, indices[k], block)
        threadIdx.set(indices[k])
        function(*values)


def _run_waiting(function, values, block, indices, order) -> None:
    """Run the threads of a block, each to where it must wait, until all have ended."""
    global now
    from greenlet import getcurrent, greenlet

    main, context = getcurrent(), copy_context()
    every = [Thread(k, indices[k], block) for k in range(len(indices))]
    warps: dict[int, list[Thread]] = {}
    for k in order:
        thread = every[k]
        thread.greenlet = greenlet(function, main)
        thread.greenlet.gr_context = context  # NumPy keeps there what to do on overflow
        warps.setdefault(thread.warp, []).append(thread)
    arguments = values
    try:
        while True:
            for lanes in warps.values():
                _run_warp(lanes, arguments)
            now = NOBODY
            waiting = [thread for thread in every if thread.waits_for == "block"]
            if not waiting:
                return
            _meet(waiting, every)
            arguments = ()
    finally:
        for thread in every:
            if thread.greenlet:  # it has begun and not ended
                thread.greenlet.throw()


def _run_warp(lanes: list[Thread], arguments: Any) -> None:
    """Run the lanes of a warp until each has ended or waits for the block."""
    global now
    while True:
        for thread in lanes:
            if thread.waits_for:
                continue
            now = thread
            threadIdx.set(thread.index)
            thread.greenlet.switch(*arguments)
            if thread.greenlet.dead:
                thread.waits_for = "end"
        now = NOBODY
        groups: dict[int, list[Thread]] = {}
        for thread in lanes:
            if thread.waits_for == "warp":
                groups.setdefault(thread.mask, []).append(thread)
        if not groups:
            return
        passed = [_pass(mask, group, lanes) for mask, group in groups.items()]
        if not any(passed):
            here = [thread for group in groups.values() for thread in group]
            masks = ", ".join(f"{mask:#x}" for mask in groups)
            raise CudaError(
                f"lanes {_numbers(here)} of warp {lanes[0].warp} wait in "
                f"{_lines([t.place for t in here])} for the lanes of mask {masks}; "
                "some of these never come: they wait elsewhere or name another mask"
            )
        arguments = ()


def _pass(mask: int, group: list[Thread], lanes: list[Thread]) -> bool:
    """Let the lanes of a mask go on together, if all are here that have not ended."""
    for thread in group:
        if not mask >> thread.lane & 1:
            raise CudaError(
                f"lane {thread.lane} is not in the mask {mask:#x} that it names in "
                f"{_lines([thread.place])}"
            )
    named = [t for t in lanes if mask >> t.lane & 1 and t.waits_for != "end"]
    if len(named) > len(group):
        return False
    places = {thread.place for thread in group}
    if len(places) > 1:
        raise CudaError(f"lanes of one warp wait in different places: {_lines(places)}")
    values = {thread.lane: thread.value for thread in group}
    orders = settings.races and group[0].together is None
    if orders:
        known = [max(counts) for counts in zip(*{t.known for t in group}, strict=True)]
        for thread in group:
            thread.syncs += 1
            known[thread.lane] = thread.syncs
        known = tuple(known)
    for thread in group:
        if orders:
            thread.known = known
        thread.answer = thread.together(values, thread) if thread.together else None
        thread.waits_for = ""
    return True


def _meet(waiting: list[Thread], every: list[Thread]) -> None:
    """Let a block pass a barrier, if all its threads wait there."""
    places = {thread.place for thread in waiting}
    if len(places) > 1:
        raise CudaError(
            f"threads of one block wait at different barriers: {_lines(places)}"
        )
    if len(waiting) < len(every):
        raise CudaError(
            f"{len(every) - len(waiting)} threads have returned while {len(waiting)} wait "
            f"at the barrier in {_lines(places)}"
        )
    together = waiting[0].together
    answer = together([thread.value for thread in waiting]) if together else None
    for thread in waiting:
        thread.answer, thread.waits_for = answer, ""
        thread.barriers += 1


def _numbers(threads: list[Thread]) -> str:
    """Return lanes as text, as "0 to 15"; or "0, 2, 4" if some between are missing."""
    lanes = sorted(thread.lane for thread in threads)
    if len(lanes) > 1 and lanes == list(range(lanes[0], lanes[-1] + 1)):
        return f"{lanes[0]} to {lanes[-1]}"
    return ", ".join(map(str, lanes))


def _lines(places: Any) -> str:
    """Return places in code as file:line."""
    found = set()
    for code, instruction in places:
        line = next(n for a, b, n in code.co_lines() if a <= instruction < b)
        found.add((_base(code.co_filename), line))
    return ", ".join(f"{file}:{line}" for file, line in sorted(found))


def _base(file: str) -> str:
    """Return the name of a file without its folders."""
    return re.split(r"[/\\]", file)[-1]


def _chain(traceback: Any) -> Iterator[Any]:
    """Yield a traceback's entries, from the outermost."""
    while traceback:
        yield traceback
        traceback = traceback.tb_next
