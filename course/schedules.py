"""Schedules: how the learning rate changes during training.

A schedule gives, for the share of training that is over, 0 to 1, the share of the
optimizer's learning rate that the next step takes:

    fit(model, x, t, optimizer=SGD(0.1), schedule=warm_up(0.1, cosine()), ...)

So it need not know how many steps there are. With share = step / steps it does what
PyTorch's schedulers do when they are called after every step.

Lecture: lectures/05_learning_as_search.ipynb.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import cos, pi

import numpy as np

from course.device import number

Schedule = Callable[[float], float]


def step(milestones: Sequence[float], gamma: float = 0.1) -> Schedule:
    """Return the schedule that multiplies the rate by gamma at each milestone.

    gamma^n, where n milestones, themselves shares of training, have been reached; as
    torch.optim.lr_scheduler.MultiStepLR. Every third of training: step([1 / 3, 2 / 3]).

    Raises ValueError unless the milestones rise within 0 to 1 and 0 < gamma <= 1.

    >>> [step([0.5, 0.75])(done) for done in (0.0, 0.5, 0.7, 0.8)]
    [1.0, 0.1, 0.1, 0.010000000000000002]
    """
    places = [number("a milestone", place) for place in milestones]
    if any(not 0 < place < 1 for place in places) or places != sorted(places):
        raise ValueError(
            f"milestones are shares of training, which rise within 0 to 1, not "
            f"{milestones}: epoch 30 of 90 is 30 / 90"
        )
    gamma = _share("gamma", gamma, above=0)
    return lambda share: gamma ** bisect_right(places, share)


def linear(floor: float = 0.0) -> Schedule:
    """Return the schedule that falls along a line to the floor, a share of the rate.

    1 - (1 - floor) * share; as torch.optim.lr_scheduler.LinearLR from 1 on. Raises
    ValueError for a floor outside 0 to 1.

    >>> [linear()(done) for done in (0.0, 0.25, 1.0)]
    [1.0, 0.75, 0.0]
    """
    floor = _share("floor", floor)
    return lambda share: 1 - (1 - floor) * share


def cosine(floor: float = 0.0) -> Schedule:
    """Return the schedule that falls along half a cosine to the floor, a share of the rate.

    floor + (1 - floor) * (1 + cos(pi * share)) / 2. Raises ValueError for a floor outside
    0 to 1. Source: Loshchilov & Hutter, ICLR 2017, without its restarts; as
    torch.optim.lr_scheduler.CosineAnnealingLR.

    >>> [round(cosine(0.1)(done), 3) for done in (0.0, 0.5, 1.0)]
    [1.0, 0.55, 0.1]
    """
    floor = _share("floor", floor)
    return lambda share: _along_cosine(1.0, floor, share)


def exponential(floor: float) -> Schedule:
    """Return the schedule that falls by the same factor at each step, to the floor.

    floor^share; as torch.optim.lr_scheduler.ExponentialLR with gamma = floor^(1 / steps).
    Raises ValueError unless 0 < floor <= 1.

    >>> exponential(0.01)(0.5)
    0.1
    """
    floor = _share("floor", floor, above=0)
    return lambda share: floor**share


def warm_up(warm: float, then: Schedule, start: float = 0.0) -> Schedule:
    """Return the schedule that rises along a line at first, and then does as `then` does.

    It rises from the start to 1 in the first part, `warm`, of training; `then` has the
    rest to itself, and goes from its 0 to its 1 there. Raises ValueError for a warm
    outside 0 to 1 or a start outside 0 to 1.
    Source: Goyal et al., "Accurate, Large Minibatch SGD", arXiv 1706.02677 (2017).

    >>> schedule = warm_up(0.2, linear())
    >>> [schedule(done) for done in (0.0, 0.1, 0.2, 0.6)]
    [0.0, 0.5, 1.0, 0.5]
    """
    warm, start = _share("warm", warm), _share("start", start)

    def schedule(share: float) -> float:
        if share < warm:
            return start + (1 - start) * share / warm
        return then((share - warm) / (1 - warm)) if warm < 1 else 1.0

    return schedule


def one_cycle(warm: float = 0.3, start: float = 1 / 25, end: float = 1e-4 / 25) -> Schedule:
    """Return the schedule that rises from start to 1 and falls to the end, both on cosines.

    It rises during the first part, `warm`, of training. The learning rate is the highest
    that the network can bear. Raises ValueError for shares that are not within 0 to 1.
    Source: Smith & Topin, arXiv 1708.07120 (2017); as
    torch.optim.lr_scheduler.OneCycleLR, whose last step is at share 1.

    >>> [round(one_cycle()(done), 6) for done in (0.0, 0.15, 0.3, 0.65, 1.0)]
    [0.04, 0.52, 1.0, 0.500002, 4e-06]
    """
    warm, start, end = _share("warm", warm), _share("start", start), _share("end", end)

    def schedule(share: float) -> float:
        if share < warm:
            return _along_cosine(start, 1.0, share / warm)
        return _along_cosine(1.0, end, (share - warm) / (1 - warm)) if warm < 1 else 1.0

    return schedule


def table(schedule: Schedule, steps: int) -> np.ndarray:
    """Return what the schedule gives at each of the steps of training, (steps,).

    >>> table(linear(), 4)
    array([1.  , 0.75, 0.5 , 0.25])
    """
    return np.array([schedule(step / steps) for step in range(steps)])


def _along_cosine(first: float, last: float, share: float) -> float:
    """Return what is between first and last on half a cosine."""
    return last + (first - last) * (1 + cos(pi * share)) / 2


def _share(name: str, value: float, above: float | None = None) -> float:
    """Return the value as a float, or say in words that it must be within 0 to 1."""
    if not 0 <= number(name, value) <= 1 or value == above:
        low = "0 to" if above is None else "above 0, at most"
        raise ValueError(f"{name} is a share, {low} 1, not {value}")
    return float(value)
