"""`check`, `hint` and `progress`: what an exercise notebook imports.

    corr2d = check(corr2d)

prints at most six lines, the same every time, and goes on with your function if it is
right and with the course's own if it is not, so that the rest of the notebook runs. A
picture follows that shows the smallest case and the window behind it.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from course.exercises.call import call, is_jitted, quiet, raised
from course.exercises.picture import Shown
from course.exercises.spec import Question, find, questions
from course.exercises.verdict import Verdict, elapsed, judge, public_rng

BAR = 20  # characters

_passed: set[str] = set()
_hints_opened: dict[str, int] = {}


def check(fn: Callable) -> Callable:
    """Say whether the function is right, and what is wrong if it is not.

    Returns the function, or the class, if it passed and the course's own if not. Raises
    TypeError for what is no function, ValueError for a function that no exercise asks for,
    and AssertionError for what did not pass where nbgrader runs the notebook.
    """
    question = _question(fn, "check")
    if is_jitted(fn):
        print("compiling with bounds checking ... ", end="", flush=True)
    verdict = report(fn, question)
    print(*verdict.lines, sep="\n")
    if verdict.state == "passed":
        _passed.add(question.name)
        return fn
    _passed.discard(question.name)
    if question.hints and verdict.state != "not attempted":
        print(f"Stuck? hint({question.name})")
    if verdict.picture and _in_notebook():
        from IPython.display import display

        display(Shown(verdict.picture))
    if os.environ.get("NBGRADER_EXECUTION"):  # nbgrader gives points for what runs
        raise AssertionError("\n".join(verdict.lines))
    return stand_in(question)


def _in_notebook() -> bool:
    """Say whether there is a page to show a picture on."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def report(fn: Callable, question: Question) -> Verdict:
    """Return the verdict on a function, as `check` prints it."""
    if getattr(fn, "stands_in", False):
        return Verdict(
            "not attempted",
            (
                f"{question.name}: this is the course's own, not yours",
                "Run the cell with yours again, then this one.",
            ),
        )

    def timed(arguments: tuple) -> tuple[float, Any]:
        try:
            with quiet():
                return elapsed(fn, arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return 0.0, raised(error, fn, arguments)

    cases = list(question.cases(public_rng(question)))
    return judge(question, cases, functools.partial(call, fn), timed)


def stand_in(question: Question) -> Callable:
    """Return the right answer under the name of the student's function or class."""
    if isinstance(question.oracle, type):
        return type(question.name, (question.oracle,), {"stands_in": True})

    @functools.wraps(question.oracle)
    def oracle(*arguments: Any, **keywords: Any) -> Any:
        return question.oracle(*arguments, **keywords)

    oracle.__name__ = oracle.__qualname__ = question.name
    oracle.stands_in = True
    return oracle


def hint(fn: Callable) -> None:
    """Print the next hint for the function; each call opens one more."""
    question = _question(fn, "hint")
    count = len(question.hints)
    if not count:
        print(f"{question.name}: there are no hints")
        return
    opened = min(_hints_opened.get(question.name, 0) + 1, count)
    _hints_opened[question.name] = opened
    print(f"Hint {opened} of {count}: {question.hints[opened - 1]}")


def progress(notebook: str) -> None:
    """Print how many questions of a notebook, as "09_convolution", have passed so far."""
    asked = questions(notebook)
    done = [q for q in asked if q.name in _passed]
    bar = "#" * (BAR * len(done) // len(asked))
    print(
        f"[{bar:.<{BAR}}] {len(done)} of {len(asked)} questions, "
        f"{sum(q.points for q in done)} of {sum(q.points for q in asked)} points"
    )
    if still := [q.name for q in asked if q.name not in _passed]:
        print(f"Still open: {', '.join(still)}")


def _question(fn: Any, verb: str) -> Question:
    """Return the question that a function answers, or say what was given instead."""
    name = getattr(fn, "__name__", None)
    if not callable(fn) or name is None:
        raise TypeError(
            f"{verb} takes the function itself, as {verb}(corr2d), "
            f"not its result (of type {type(fn).__name__}): leave out the parentheses"
        )
    return find(name)[1]
