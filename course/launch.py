"""The launcher: compiled once, it calls serial loops by their address, on threads.

Compiling each loop for many threads would take Numba four times as long. So only the
launcher is: Numba's own threads call the loops, which they find by their address. Starting
them takes microseconds, where a Python thread takes a tenth of a millisecond.

- `launch` runs a job of the engine, `job(..., share, shares)`, which all have the same
  kinds of arguments.
- `spread` runs the loops of a layer, `loops(..., first, past)`, which have any. They are
  laid out in memory as a row of words of 8 bytes, and a few instructions, made for each
  combination of types, put them where the loops look for them.

No two shares write the same number, and no sum is split by shares: the same bits come out
whatever their number. A process that was forked has no threads but one, and Numba has only
one set of threads: there, and while another Python thread uses them, the shares run one
after the other.
"""

import os
import struct
from collections.abc import Callable
from ctypes import addressof, create_string_buffer
from functools import cache
from threading import Lock, local
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, prange, set_num_threads, typeof, types
from numba.core import cgutils
from numba.core.callconv import RETCODE_NONE, RETCODE_OK
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from course.compiled import compiled

SPIN = "10000"  # looks for work before a thread of OpenMP sleeps: a tenth of a millisecond

_busy = Lock()
_forked = False
_chosen = local()  # how many threads Numba starts for the Python thread that asks


def _note_fork() -> None:
    """Remember in a forked child that Numba's threads do not exist here."""
    global _forked, _busy
    _forked, _busy = True, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


@intrinsic
def _call(_, address, arguments):
    """Call the compiled function at the address with the arguments."""
    kinds = tuple(arguments)

    def generate(context, build, signature, values):
        kind = context.call_conv.get_function_type(types.none, kinds)
        returned = cgutils.alloca_once(build, kind.args[0].pointee)
        error = cgutils.alloca_once(build, kind.args[1].pointee)
        apart = cgutils.unpack_tuple(build, values[1])
        flat = context.get_arg_packer(kinds).as_arguments(build, apart)
        build.call(build.inttoptr(values[0], kind.as_pointer()), [returned, error, *flat])
        return context.get_dummy_value()

    return types.void(address, arguments), generate


@compiled(parallel=True)
def _on_threads(address, shares, a, b, c, d, e, work, table):
    """Call job(a, b, c, d, e, work, table, share, shares) for each share."""
    for share in prange(shares):
        _call(address, (a, b, c, d, e, work, table, share, shares))


@compiled(parallel=True)
def _spread_on_threads(entry, loops, words, count, shares):
    """Call entry(loops, words, first, past) for each share of range(count)."""
    for share in prange(shares):
        first = count * types.intp(share) // shares
        past = count * types.intp(share + 1) // shares
        _call(entry, (loops, words, first, past))


def _address(loops: Any, kinds: tuple) -> int:
    """Return where the machine code of the loops for these types begins."""
    loops.compile(kinds)
    code = loops.overloads[kinds]
    return code.library.get_pointer_to_function(code.fndesc.llvm_func_name)


def _take(shares: int) -> bool:
    """Make Numba's threads ours, if they can be; whoever has them releases _busy.

    They cannot in a forked child, nor while another Python thread uses them.
    """
    if _forked or not _busy.acquire(blocking=False):
        return False
    threads = min(shares, config.NUMBA_NUM_THREADS)
    if threads != _chosen.__dict__.get("threads"):  # asking Numba each time takes longer
        _wake()
        set_num_threads(threads)
        _chosen.threads = threads
    return True


@cache
def _wake() -> None:
    """Start Numba's threads, which are to sleep soon when there is nothing to do.

    GNU's OpenMP would let them look for work for milliseconds. NumPy's BLAS, which also
    has a thread for each core, then waits for a core that only spins.
    """
    theirs = os.environ.get("GOMP_SPINCOUNT")
    os.environ["GOMP_SPINCOUNT"] = theirs or SPIN  # read once, when the library is loaded
    try:
        set_num_threads(1)
    finally:
        if theirs is None:
            del os.environ["GOMP_SPINCOUNT"]


_jobs: dict[Any, int] = {}


def launch(job: Any, shares: int, *arguments: Any) -> None:
    """Call job(*arguments, share, shares) for every share in range(shares).

    `arguments` are five flat arrays, a workspace and a table of integers: every job of the
    engine has these, so that one launcher serves them all.
    """
    if shares == 1:
        job(*arguments, 0, 1)
    elif not _take(shares):
        for share in range(shares):
            job(*arguments, share, shares)
    else:
        try:
            key = job, arguments[0].dtype
            if key not in _jobs:
                kinds = (*map(typeof, arguments), types.intp, types.intp)
                _jobs[key] = _address(job, kinds)
            _on_threads(_jobs[key], shares, *arguments)
        finally:
            _busy.release()


class Entry(NamedTuple):
    """How to call loops with arguments of certain types, out of a row of words."""

    code: int  # where the machine code begins that takes them out of memory
    loops: int  # and where that of the loops does
    words: str  # what is in the words, as `struct` writes it
    library: Any  # holds the machine code


_entries: dict[Any, Entry] = {}


def _words(kind: Any) -> str:
    """Return how `struct` writes an argument, from the first byte of a word on."""
    if isinstance(kind, types.Array):
        return f"{5 + 2 * kind.ndim}q"
    if isinstance(kind, types.Integer):
        return "q" if kind.signed else "Q"
    return {types.boolean: "?7x", types.float32: "f4x", types.float64: "d"}[kind]


@global_compiler_lock
def _entry(loops: Any, arguments: tuple) -> Entry:
    """Make what calls the loops with such arguments; that takes milliseconds.

    The first word is 0, and is 1 afterwards if a call ended with an error.
    """
    context = cpu_target.target_context
    kinds = (*map(typeof, arguments), types.intp, types.intp)
    theirs = context.call_conv.get_function_type(types.none, kinds)
    word = ir.IntType(64)
    ours = context.call_conv.get_function_type(types.none, (types.intp,) * 4)
    module = ir.Module()
    function = ir.Function(module, ours, "entry")
    build = ir.IRBuilder(function.append_basic_block())
    returned, error, address, words, *share = function.args
    row = build.inttoptr(words, word.as_pointer())
    values = []
    for number, kind in enumerate(theirs.args[2:-2], 1):
        place = build.gep(row, [word(number)])
        values.append(build.load(build.bitcast(place, kind.as_pointer())))
    target = build.inttoptr(address, theirs.as_pointer())
    status = build.call(target, [returned, error, *values, *share])
    fine = [build.icmp_signed("==", status, code) for code in (RETCODE_OK, RETCODE_NONE)]
    with build.if_then(build.not_(build.or_(*fine))):
        build.store(word(1), row)
    build.ret(status)
    library = context.codegen().create_library("entry")
    library.add_ir_module(module)
    library.finalize()
    code = library.get_pointer_to_function("entry")
    words = "=q" + "".join(map(_words, kinds[:-2]))
    return Entry(code, _address(loops, kinds), words, library)


def spread(loops: Callable, count: int, shares: int, *arguments: Any) -> None:
    """Call loops(*arguments, first, past) so that the calls cover range(count).

    The shares run at one moment if the loops are compiled and Numba's threads are free.
    """
    if shares > 1 and isinstance(loops, Dispatcher) and _take(shares):
        try:
            done = _spread(loops, count, shares, arguments)
        finally:
            _busy.release()
        if done:
            return
    loops(*arguments, 0, count)


def _spread(loops: Any, count: int, shares: int, arguments: tuple) -> bool:
    """Lay out the arguments as machine code takes them, and start the threads.

    Return whether no share ended with an error. What error it was is lost.
    """
    key, values = [loops], [0]
    for a in arguments:
        if isinstance(a, np.ndarray):
            key += a.dtype, a.ndim, a.flags.num
            values += 0, 0, a.size, a.itemsize, a.ctypes.data, *a.shape, *a.strides
        else:
            key.append(type(a))
            values.append(a)
    entry = _entries.get(key := tuple(key))
    if entry is None:
        entry = _entries[key] = _entry(loops, arguments)
    words = create_string_buffer(struct.pack(entry.words, *values))
    _spread_on_threads(entry.code, entry.loops, addressof(words), count, shares)
    return words[0] == b"\0"
