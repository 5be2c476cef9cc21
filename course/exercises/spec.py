"""What an exercise's question is: an oracle, cases, and the wrong answers it must reject.

Each module named in `MODULES` holds the questions of one notebook:

    QUESTIONS = (
        Question(name="corr2d", points=3, oracle=..., cases=..., mutants=(...)),
        ...
    )

The oracle is pure NumPy, written from the definition, and shares no line with the loops.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import numpy as np

from course.exercises.picture import Window

# the questions of solutions/<notebook>.ipynb stand in the module
MODULES = {
    "03_scores_to_loss": "course.exercises.scores_to_loss",
    "07_mlp": "course.exercises.mlp",
    "09_convolution": "course.exercises.convolution",
}


@dataclass(frozen=True)
class Mutant:
    """A wrong answer that students give, and the sentence that tells them so.

    `says` names the mistake and what to do: two short sentences, at most 150 characters.
    """

    says: str
    run: Callable


@dataclass(frozen=True)
class Speed:
    """How fast is fast enough: `floor` times the plain Python loop, side by side.

    Only the time is judged: a right answer by another road, as NumPy on whole arrays, is
    right if it is as fast.

    The floor is at most a third of what the solution reaches, so that a busy machine
    does not fail a right answer. The plain loop takes some tenths of a second on
    arguments(rng): the time to hand over the arrays must not count.
    """

    plain: Callable
    arguments: Callable[[np.random.Generator], tuple]
    floor: float


@dataclass(frozen=True)
class Question:
    """One function, or class, that a student writes.

    What a function may be given and may return: arrays of numbers, numbers, strings,
    None, and tuples, lists and dicts (with string keys) of these. It may also return a
    figure of matplotlib, of which the data are compared. A class is asked by scripts: the
    oracle is a class too, and each case is a `course.exercises.call.Script` of steps.

    Attributes
    ----------
    name : of the function; unique in the course
    points : what it is worth
    oracle : the right answer, in NumPy, from the definition
    cases : rng -> argument tuples, the smallest and most telling first; what it yields
        depends on rng alone. A question without arguments yields () once.
    mutants : the wrong answers that must fail, each with its explanation
    rtol, atol : how close is right: |yours - expected| <= rtol * |expected|, or atol times
        the largest expected number if that is above 1, else atol; wider where an argument
        is float32, see `course.exercises.verdict.tolerance`
    hints : opened one at a time by hint(fn)
    window : (arguments, index) -> Window, optional: the numbers that produce the output
        at this index, in a line of text and as grids, for the message of a wrong answer
        and its picture. Where the answer is several arrays, the index begins with the
        number of the array.
    judge : (arguments, answer) -> None if right, else a sentence; optional, for questions
        with many right answers (as "find an input that breaks this"); the oracle then
        gives one of them
    speed : optional: the task asks for a compiled loop
    needs : modules of the course that an answer may import, as "course.layers"; nothing
        else of the course is there when an answer is graded
    """

    name: str
    points: int
    oracle: Callable
    cases: Callable[[np.random.Generator], Iterator[tuple]]
    mutants: tuple[Mutant, ...]
    rtol: float = 1e-6
    atol: float = 1e-9
    hints: tuple[str, ...] = ()
    window: Callable[[tuple, tuple], Window] | None = field(default=None, repr=False)
    judge: Callable[[tuple, Any], str | None] | None = field(default=None, repr=False)
    speed: Speed | None = None
    needs: tuple[str, ...] = ()


def questions(notebook: str) -> tuple[Question, ...]:
    """Return the questions of a notebook, as "09_convolution"."""
    if notebook not in MODULES:
        known = ", ".join(MODULES)
        raise ValueError(f"there is no exercise {notebook!r}; there are: {known}")
    return import_module(MODULES[notebook]).QUESTIONS


def find(name: str) -> tuple[str, Question]:
    """Return the notebook and the question of a function, by the function's name."""
    known = {q.name: (n, q) for n in MODULES for q in questions(n)}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "keep the name it has there"
        raise ValueError(f"no exercise asks for a function {name!r}; {remedy}")
    return known[name]
