"""Judge what a student's function returned: one verdict, and the sentence that helps.

`judge` is pure: cases go in, a `Verdict` comes out. How a function is called, here or in a
child process, is the caller's business.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from course.exercises.call import Changed, Raised, call, quiet
from course.exercises.spec import Question

STATES = (
    "passed",
    "not attempted",
    "error",
    "shape",
    "wrong",
    "imprecise",
    "slow",
)
ALMOST = 1e-3  # of the largest expected number: closer than this is a question of rounding
TRIES, PATIENCE = 20, 2.0  # one fast try is enough; no more than this many seconds
WIDTH = 90  # characters of a line, about
STUB = "Put your code in place of the line that raises NotImplementedError."

Timed = Callable[[tuple], tuple[float, Any]]


@dataclass(frozen=True)
class Verdict:
    """A state of `STATES`, at most five lines that explain it, and the share of points."""

    state: str
    lines: tuple[str, ...]
    fraction: float = 0.0


@dataclass(frozen=True)
class Difference:
    """The first place where an answer is not what was expected."""

    state: str
    says: str
    index: tuple[int, ...] | None = None


def judge(
    question: Question,
    cases: list[tuple],
    ask: Callable[[tuple], Any],
    timed: Timed | None = None,
) -> Verdict:
    """Return the verdict on a function.

    ask(arguments) returns its answer, or Raised, or Changed (as `call.call` does);
    timed(arguments) the seconds of one call and its answer, for questions of speed.
    """
    answers, failures = [], []
    for arguments in cases:
        answers.append(ask(arguments))
        if len(answers) == 1 and _is_stub(answers[0]):
            return Verdict("not attempted", (f"{question.name}: not attempted", STUB))
        if found := failure(question, arguments, answers[-1]):
            failures.append((found, arguments))
    if not failures:
        return _right(question, len(cases), timed)
    # rounding is worth a word only where nothing worse is wrong
    found, arguments = next((f for f in failures if f[0].state != "imprecise"), failures[0])
    sentence = explanation(question, cases, answers)
    return Verdict(
        found.state,
        (
            f"{question.name}: {_heading(found.state, len(failures), len(cases))}",
            *([sentence] if sentence and sentence != found.says else []),
            *([f"Smallest case: {shown(question, arguments)}"] if arguments else []),
            *found.says.split("\n"),
            *_window(question, arguments, found),
        )[:5],
    )


def _is_stub(answer: Any) -> bool:
    """Say whether a function was called that is still to be written."""
    return isinstance(answer, Raised) and answer.kind == "NotImplementedError"


def _right(question: Question, count: int, timed: Timed | None) -> Verdict:
    """Return "passed", or "slow" if the question asks for speed and there is none."""
    if question.speed and timed:
        found = too_slow(question, timed)
        if found:
            return Verdict("slow", (f"{question.name}: correct but slow", *found))
    cases = f"{count} cases" if count > 1 else "1 case"
    points = f"{question.points} point{'s' * (question.points != 1)}"
    return Verdict("passed", (f"{question.name}: passed ({cases}, {points})",), 1.0)


def too_slow(question: Question, timed: Timed) -> tuple[str, ...]:
    """Return what to say to a function that is not fast enough, or nothing.

    Each try gets new numbers, and its answer must be right.
    """
    rng, speed = public_rng(question), question.speed
    plain = elapsed(speed.plain, speed.arguments(rng))[0]
    spent = 0.0
    for attempt in range(TRIES):  # a busy machine is slow now and then
        arguments = speed.arguments(rng)
        yours, answer = timed(arguments)
        if found := failure(question, arguments, answer):
            return "On large arrays it is wrong:", *found.says.split("\n")
        if plain >= speed.floor * yours:
            return ()
        spent += yours * (attempt > 0)  # the first one compiles
        if spent > PATIENCE:
            break
    return (
        f"It must be at least {speed.floor:g} times as fast as the plain Python loop, "
        "both measured here.",
        "Put @njit above it; keep Python lists and objects out of its loop.",
    )


def elapsed(function: Callable, arguments: tuple) -> tuple[float, Any]:
    """Return the seconds that one call takes, and its answer."""
    start = perf_counter()
    answer = function(*arguments)
    return perf_counter() - start, answer


def public_rng(question: Question) -> np.random.Generator:
    """Return the generator of a question's cases in a notebook: the same every time."""
    return np.random.default_rng(list(question.name.encode()))


def _heading(state: str, failed: int, count: int) -> str:
    """Return the first line's words: what is wrong, and how often."""
    words = {"error": "stops with an error", "shape": "wrong shape"}.get(state, state)
    return f"{words} in {failed} of {count} cases" if count > 1 else words


def explanation(question: Question, cases: list[tuple], answers: list) -> str:
    """Return the sentence of the mutant that gives these answers in all cases, or ""."""
    for mutant in question.mutants:
        if all(
            alike(question, arguments, answer, call(mutant.run, arguments))
            for arguments, answer in zip(cases, answers, strict=True)
        ):
            return mutant.says
    return ""


def alike(question: Question, arguments: tuple, yours: Any, other: Any) -> bool:
    """Say whether two outcomes of a call are the same."""
    if isinstance(yours, Raised) and isinstance(other, Raised):
        return yours.kind == other.kind
    if isinstance(yours, Raised | Changed) or isinstance(other, Raised | Changed):
        return type(yours) is type(other) and yours == other
    return difference(yours, other, *tolerance(question, arguments)) is None


def failure(question: Question, arguments: tuple, answer: Any) -> Difference | None:
    """Return what is wrong with the answer in one case, or None if it is right."""
    if isinstance(answer, Raised):
        line = f"\nLine {answer.line}: {_cut(answer.text, WIDTH)}" if answer.line else ""
        return Difference("error", _cut(f"{answer.kind}: {answer.says}", 200) + line)
    if isinstance(answer, Changed):
        name = _names(question, arguments)[answer.position]
        return Difference(
            "wrong", f"Your function changes its argument {name}. Work on {name}.copy()."
        )
    with quiet():
        if question.judge is None:
            expected = question.oracle(*arguments)
            return difference(answer, expected, *tolerance(question, arguments))
        try:
            says = question.judge(arguments, answer)
        except Exception as error:
            says = f"Your answer cannot be used: {type(error).__name__}: {error}"
    return Difference("wrong", _cut(" ".join(says.split()), 200)) if says else None


def tolerance(question: Question, arguments: tuple) -> tuple[float, float]:
    """Return rtol and atol; float32 has 7 digits, of which a sum loses some."""
    if any(a.dtype == np.float32 for a in _arrays(arguments)):
        return max(question.rtol, 1e-4), max(question.atol, 1e-5)
    return question.rtol, question.atol


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """Yield the arrays inside a value."""
    if isinstance(value, np.ndarray | np.generic):
        yield np.asarray(value)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _arrays(part)
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))


def difference(
    yours: Any, expected: Any, rtol: float, atol: float, where: str = "", index: tuple = ()
) -> Difference | None:
    """Return the first difference between an answer and what is expected, or None.

    Lists are as good as arrays and tuples, and whole numbers as good as floats.
    """
    if expected is None or isinstance(expected, str):
        if type(yours) is type(expected) and yours == expected:
            return None
        return Difference("wrong", f"{where}Yours {yours!r:.60}, expected {expected!r:.60}")
    if yours is None:
        return Difference("wrong", f"{where}It returns nothing. Is a `return` missing?")
    if isinstance(expected, dict):
        if not isinstance(yours, dict) or yours.keys() != expected.keys():
            keys = ", ".join(map(repr, expected))
            return Difference("wrong", f"{where}Expected a dict with the keys {keys}")
        pairs = [(f"[{k!r}]", yours[k], expected[k]) for k in expected]
    elif isinstance(expected, tuple | list) and not _numeric(expected):
        count = len(expected)
        if isinstance(yours, np.ndarray) and yours.ndim:
            yours = list(yours)
        if not isinstance(yours, tuple | list) or len(yours) != count:
            got = len(yours) if isinstance(yours, tuple | list) else 1
            says = f"{where}It returns {got} result{'s' * (got != 1)}, expected {count}"
            return Difference("shape", says)
        pairs = [
            (f"Result {k + 1} of {count}: ", yours[k], expected[k]) for k in range(count)
        ]
    else:
        return _array_difference(yours, expected, rtol, atol, where, index)
    for k, (part, a, b) in enumerate(pairs):
        if found := difference(a, b, rtol, atol, where + part, (*index, k)):
            return found
    return None


def _numeric(values: tuple | list) -> bool:
    """Say whether a list is one array of plain numbers, as a list of ints."""
    return isinstance(values, list) and np.asarray(values).dtype.kind in "biufc"


def _array_difference(
    yours: Any, expected: Any, rtol: float, atol: float, where: str, index: tuple
) -> Difference | None:
    """Return the first difference between two arrays of numbers."""
    b = np.asarray(expected)
    try:
        a = np.asarray(yours)
    except Exception:
        a = np.asarray(None)
    if a.dtype.kind not in "biufc":
        kind = "a ragged list" if isinstance(yours, list) else f"a {type(yours).__name__}"
        wanted = "an array of numbers" if b.ndim else "a number"
        return Difference("wrong", f"{where}Yours is {kind}, expected {wanted}")
    if a.dtype.kind == "c" and b.dtype.kind != "c":
        return Difference("wrong", f"{where}Yours is complex, expected real numbers")
    if a.shape != b.shape:
        return Difference("shape", f"{where}Your shape {_shape(a)}, expected {_shape(b)}")
    with np.errstate(all="ignore"):
        largest = np.max(np.abs(b), initial=0.0, where=np.isfinite(b))
        bad = ~np.isclose(a, b, rtol, atol * max(largest, 1.0), equal_nan=True)
        if not bad.any():
            return None
        exact = a.dtype.kind in "biu" or b.dtype.kind in "biu"
        near = np.isclose(a, b, ALMOST, ALMOST * largest, equal_nan=True)
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    at = f"At {list(first)}: y" if b.ndim else "Y"
    one, two = _numbers(a[first].item(), b[first].item())
    says = f"{where}{at}ours {one}, expected {two}"
    if near.all() and not exact:
        says += ". Nearly right: look for float32, or a small number added in a sum"
        return Difference("imprecise", says, (*index, *first))
    if np.isnan(a[first]):
        says += ". nan comes from an overflow, 0/0 or an unset element"
    elif a.dtype.kind in "iu" and b.dtype.kind == "f" and (b % 1).any():
        says += f". Yours is {a.dtype}, whole numbers only; expected float"
    return Difference("wrong", says, (*index, *first))


def _shape(a: np.ndarray) -> str:
    return str(a.shape) if a.ndim else "() (a single number)"


def _numbers(a: complex, b: complex) -> tuple[str, str]:
    """Return two numbers with as many digits as it takes to tell them apart."""
    for digits in (6, 9, 17):
        texts = tuple(str(x) if isinstance(x, int) else f"{x:.{digits}g}" for x in (a, b))
        if texts[0] != texts[1]:
            break
    return texts


def _names(question: Question, arguments: tuple) -> list[str]:
    """Return the names of the arguments, as the oracle calls them."""
    names = list(inspect.signature(question.oracle).parameters)
    return [
        names[k] if k < len(names) else f"number {k + 1}" for k in range(len(arguments))
    ]


def shown(question: Question, arguments: tuple) -> str:
    """Return the arguments of a case in one line: in full if it fits, else the shapes."""
    for small in (16, 9, 4, 0):
        text = ", ".join(
            f"{name} = {_value(value, small)}"
            for name, value in zip(_names(question, arguments), arguments, strict=True)
        )
        if len(text) <= WIDTH:
            break
    return _cut(text, WIDTH)


def _value(value: Any, small: int) -> str:
    """Return an argument in words: its numbers if there are few, else its shape."""
    if not isinstance(value, np.ndarray):
        return _cut(repr(value), 20 + small)
    kind = "" if value.dtype in (np.float64, np.int64) else f" {value.dtype}"
    if value.size <= small:
        numbers = np.array2string(value, separator=", ", precision=4)
        return " ".join(numbers.split()).replace("[ ", "[") + kind
    return "x".join(map(str, value.shape)) + kind


def _window(question: Question, arguments: tuple, found: Difference) -> list[str]:
    """Return the line with the numbers behind the expected output, if there is one."""
    if question.window is None or found.index is None:
        return []
    text = " ".join(question.window(arguments, found.index).split())
    return [_cut(f"Expected from: {text}", 2 * WIDTH)]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
