"""How times are compared: in turns, so that a busy machine slows all alike."""

import time
from collections.abc import Callable

import numpy as np


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(rounds: int, **works: Callable[[], object]) -> dict[str, np.ndarray]:
    """Return each work's seconds in each round: A B C, then C B A, and so on.

    Every work runs once before, so that nothing compiles while the clock runs.

    >>> times = in_turns(3, a=lambda: None, b=lambda: None)
    >>> sorted(times), times["a"].shape
    (['a', 'b'], (3,))
    """
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works)[:: -1 if number % 2 else 1]:
            times[name].append(seconds(works[name]))
    return {name: np.array(values) for name, values in times.items()}
