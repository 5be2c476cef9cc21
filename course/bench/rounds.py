"""How times are compared: in turns, so that a busy machine slows all alike."""

import ctypes
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil

FOREIGN = 0.3  # cores that others may use while the clock runs
PAUSE = 2.0  # seconds at most to wait for a quiet moment


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def others() -> float:
    """Return the seconds of processor time that others than we and our children used."""
    spent, ours = psutil.cpu_times(), os.times()
    names = "user", "nice", "system", "irq", "softirq", "steal"
    all_of_us = time.process_time() + ours.children_user + ours.children_system
    return sum(getattr(spent, name, 0.0) for name in names) - all_of_us


@dataclass
class Clock:
    """How long a turn is, and how hard a quiet moment is looked for.

    Attributes
    ----------
    block : seconds that a turn takes; its time is the median of the calls in them
    tries : how often a turn is repeated because other processes were busy
    disturbed : how many turns were kept although others were busy in every try
    """

    block: float = 0.0
    tries: int = 1
    disturbed: int = 0

    def turn(self, work: Callable[[], object]) -> float:
        """Return the seconds of a call of the work."""
        return self.undisturbed(lambda: self.calls(work))

    def undisturbed(self, measure: Callable[[], float]) -> float:
        """Return what was measured while others were quiet, or the least of all tries."""
        found = []
        for _ in range(self.tries):
            start, before = time.perf_counter(), others()
            found.append(measure())
            if others() - before < FOREIGN * (time.perf_counter() - start):
                return found[-1]
            wait_for_quiet(PAUSE * (self.tries > 1))
        self.disturbed += 1
        return min(found)

    def calls(self, work: Callable[[], object]) -> float:
        """Return the median of the calls that fill the block, its first quarter left out.

        The first calls bring the work's arrays into the cache and wake its threads.
        """
        times = [seconds(work)]
        while sum(times) < self.block:
            times.append(seconds(work))
        return float(np.median(times[len(times) // 4 :]))


def wait_for_quiet(limit: float) -> None:
    """Return when other processes rest, or after `limit` seconds."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        before = others()
        time.sleep(0.1)
        if others() - before < FOREIGN * 0.1:
            return


def in_turns(
    rounds: int, clock: Clock | None = None, **works: Callable[[], object]
) -> dict[str, np.ndarray]:
    """Return each work's seconds in each round: A B C, then C B A, and so on.

    Every work runs once before, so that nothing compiles while the clock runs. Without a
    clock a turn is one call.

    >>> times = in_turns(3, a=lambda: None, b=lambda: None)
    >>> sorted(times), times["a"].shape
    (['a', 'b'], (3,))
    """
    clock = clock or Clock()
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works)[:: -1 if number % 2 else 1]:
            times[name].append(clock.turn(works[name]))
    return {name: np.array(values) for name, values in times.items()}


def steady_memory() -> None:
    """Let the C library keep freed memory: on Linux each new page costs half a microsecond.

    PyTorch and NumPy gain most: without it their times depend on what ran before.
    """
    if sys.platform == "linux":
        # of <malloc.h>: M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD, the last two in bytes
        for what, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):
            getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)(what, value)


def set_all_threads(count: int) -> None:
    """Let the course, BLAS and PyTorch use `count` threads each."""
    from threadpoolctl import threadpool_limits

    from course.device import set_threads

    set_threads(count)
    threadpool_limits(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
