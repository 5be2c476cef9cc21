"""One launcher for all fast loops: compiled once, it calls them by address, on threads.

A fast loop is serial, `job(..., share, shares)`: it does share number `share` of its work.
Compiling each of them for many threads would take Numba four times as long. So only this
launcher is: Numba's own threads call the job, which they find by its address. Starting
them takes microseconds, where a Python thread takes a tenth of a millisecond.

No two shares write the same number, and no sum is split by shares: the same bits come out
whatever their number. A process that was forked has no threads but one, and Numba has only
one set of threads: there, and while another Python thread uses them, the shares run one
after the other.
"""

import os
from threading import Lock
from typing import Any

from numba import config, prange, set_num_threads, typeof, types
from numba.core import cgutils
from numba.extending import intrinsic

from course.compiled import compiled

_busy = Lock()
_forked = False


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


_addresses: dict[Any, int] = {}


def _address(job: Any, arguments: tuple) -> int:
    """Return where the machine code of the job for these types begins."""
    key = job, arguments[0].dtype
    if key not in _addresses:
        kinds = (*map(typeof, arguments), types.intp, types.intp)
        job.compile(kinds)
        code = job.overloads[kinds]
        name = code.fndesc.llvm_func_name
        _addresses[key] = code.library.get_pointer_to_function(name)
    return _addresses[key]


def launch(job: Any, shares: int, *arguments: Any) -> None:
    """Call job(*arguments, share, shares) for every share in range(shares).

    `arguments` are five flat arrays, a workspace and a table of integers: every job of the
    engine has these, so that one launcher serves them all.
    """
    if shares == 1:
        job(*arguments, 0, 1)
    elif _forked or not _busy.acquire(blocking=False):
        for share in range(shares):
            job(*arguments, share, shares)
    else:
        try:
            set_num_threads(min(shares, config.NUMBA_NUM_THREADS))
            _on_threads(_address(job, arguments), shares, *arguments)
        finally:
            _busy.release()
