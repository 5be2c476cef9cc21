"""What is measured: a case, done in several ways, and the row of the table it becomes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from course.bench.rounds import Clock, in_turns

Work = Callable[[], Any]
AGREE = 1e-3  # of the largest value: a wrong answer is no competitor


@dataclass(frozen=True)
class Case:
    """One computation and the ways to do it.

    Attributes
    ----------
    works : name -> function that sets a work up and returns it; "course" comes first
    flops, bytes : what the computation needs at least; 0 if it is not counted
    truth : returns the right results in float64
    agree : do all works return the same numbers?
    """

    name: str
    works: dict[str, Callable[[], Work]]
    flops: float = 0
    bytes: float = 0
    truth: Work | None = None
    agree: bool = True


@dataclass
class Row:
    """A line of the report.

    Attributes
    ----------
    figures : way -> median in `unit`
    ratios : other way -> how many times the figure of the course, median of the rounds;
        "roof" -> the share of what the machine allows that the course reaches
    error : way -> for each result, the largest error in shares of the largest value
    not_run : way -> why
    """

    suite: str
    case: str
    threads: int
    figures: dict[str, float]
    unit: str = "s"
    ratios: dict[str, float] = field(default_factory=dict)
    flops: float = 0
    bytes: float = 0
    error: dict[str, list[float]] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    disturbed: int = 0


def arrays(result: Any) -> list[np.ndarray]:
    """Return a result, NumPy's or PyTorch's, as NumPy arrays in float64."""
    results = result if isinstance(result, tuple | list) else (result,)
    return [
        np.asarray(a.detach() if hasattr(a, "detach") else a, np.float64) for a in results
    ]


def errors(result: Any, truth: list[np.ndarray]) -> list[float]:
    """Return the largest error of each result, in shares of the truth's largest value."""
    return [
        float(np.abs(a - t).max() / np.abs(t).max())
        for a, t in zip(arrays(result), truth, strict=True)
    ]


def measured(
    suite: str, case: Case, threads: int, rounds: int, clock: Clock, roof: dict[str, float]
) -> Row:
    """Time the works of a case in turns; one whose library is missing is not run.

    `roof` holds the machine's limits, "FMA peak" in flop/s and "bandwidth" in byte/s.
    Raises ArithmeticError if two works compute different things.
    """
    works, results, not_run, found = {}, {}, {}, {}
    for name, build in case.works.items():
        try:
            work = build()
            works[name], results[name] = work, work()
        except ImportError as error:
            not_run[name] = str(error)
    if case.agree and works:
        truth = arrays(case.truth() if case.truth else next(iter(results.values())))
        found = {name: errors(result, truth) for name, result in results.items()}
        for name, error in found.items():
            if not max(error) < AGREE:
                raise ArithmeticError(f"{case.name}: {name} is wrong by {error}")
    before = clock.disturbed
    times = in_turns(rounds, clock, **works)
    row = Row(
        suite,
        case.name,
        threads,
        {name: float(np.median(values)) for name, values in times.items()},
        flops=case.flops,
        bytes=case.bytes,
        error=found if case.truth else {},
        not_run=not_run,
        disturbed=clock.disturbed - before,
    )
    ours = times.get("course")
    if ours is not None:
        row.ratios = {
            name: float(np.median(values / ours))
            for name, values in times.items()
            if name != "course"
        }
        least = max(case.flops / roof["FMA peak"], case.bytes / roof["bandwidth"])
        if least:
            row.ratios["roof"] = least / row.figures["course"]
    return row
