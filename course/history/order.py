"""The order in which samples come."""

from typing import Any

import numpy as np

from course.device import Array


def generator(rng: Any) -> np.random.Generator:
    """Return rng. Raises TypeError, in words, if it is a seed or anything else."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is {rng!r}; it must be a generator: np.random.default_rng(0)")
    return rng


def presented(count: int, rng: np.random.Generator | None) -> Array:
    """Return 0, 1, ..., count - 1: shuffled, if there is a generator.

    >>> presented(3, None)
    array([0, 1, 2])
    """
    return np.arange(count) if rng is None else generator(rng).permutation(count)
