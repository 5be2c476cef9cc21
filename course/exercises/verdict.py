"""Judge what a student's function returned: one verdict, and the sentence that helps.

`judge` is pure: cases go in, a `Verdict` comes out. How a function is called, here or in a
child process, is the caller's business.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from course.exercises.call import (
    Changed,
    Handle,
    Raised,
    Script,
    as_data,
    call,
    quiet,
    run_script,
)
from course.exercises.picture import Window, comparison
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
    """What is said about a function.

    Attributes
    ----------
    state : one of `STATES`
    lines : at most five, that explain it
    fraction : of the points
    right, asked : cases
    mistake : the sentence of the known wrong answer that this is, or ""
    picture : SVG of the smallest case that is wrong, or ""
    """

    state: str
    lines: tuple[str, ...]
    fraction: float = 0.0
    right: int = 0
    asked: int = 0
    mistake: str = ""
    picture: str = ""


@dataclass(frozen=True)
class Difference:
    """The first place where an answer is not what was expected.

    `index` begins with the place of the array, where the answer is several; `yours` and
    `expected` are this array, and `at` the place in it.
    """

    state: str
    says: str
    index: tuple[int, ...] | None = None
    yours: Any = None
    expected: Any = None
    at: tuple[int, ...] | None = None


def judge(
    question: Question,
    cases: list[tuple],
    ask: Callable[[tuple], Any],
    timed: Timed | None = None,
    rng: np.random.Generator | None = None,
) -> Verdict:
    """Return the verdict on a function.

    ask(arguments) returns its answer, or Raised, or Changed (as `call.call` does);
    timed(arguments) the seconds of one call and its answer, for questions of speed, whose
    arguments are drawn from rng, or from what everybody knows.
    """
    answers: list[Any] = []
    failures: list[tuple[Difference, tuple]] = []
    for arguments in cases:
        answers.append(ask(arguments))
        if len(answers) == 1 and _is_stub(answers[0]):
            return not_attempted(question)
        if found := failure(question, arguments, answers[-1]):
            failures.append((found, arguments))
    if not failures:
        return _right(question, len(cases), timed, rng or public_rng(question))
    # rounding is worth a word only where nothing worse is wrong
    found, arguments = next((f for f in failures if f[0].state != "imprecise"), failures[0])
    sentence = explanation(question, cases, answers)
    window = _window(question, arguments, found)
    lines = (
        f"{question.name}: {_heading(found.state, len(failures), len(cases))}",
        *([sentence] if sentence and sentence != found.says else []),
        *([f"Smallest case: {shown(question, arguments)}"] if arguments else []),
        *found.says.split("\n"),
        *([_cut(f"Expected from: {window.text}", 2 * WIDTH)] if window else []),
    )
    right = len(cases) - len(failures)
    return Verdict(
        found.state,
        lines[:5],
        partial(right, len(cases)),
        right,
        len(cases),
        sentence,
        _picture(found, window, bool(arguments)),
    )


def not_attempted(question: Question) -> Verdict:
    """Return the verdict on a function that is still to be written."""
    return Verdict("not attempted", (f"{question.name}: not attempted", STUB))


def _picture(found: Difference, window: Window | None, tell: bool) -> str:
    """Return the SVG of a difference; what is asked once only it does not give away."""
    panels = window.panels if window else ()
    return comparison(found.yours, found.expected if tell else None, found.at, panels)


def partial(right: int, asked: int) -> float:
    """Return the share of the points for an answer that is right in some of the cases.

    It is half at most, and nothing for what is wrong in half of the cases: a constant must
    not be worth anything.

    >>> partial(8, 10), partial(5, 10)
    (0.3, 0.0)
    """
    return round(max(0.0, right / asked - 0.5), 9)


def _is_stub(answer: Any) -> bool:
    """Say whether a function was called that is still to be written."""
    return isinstance(answer, Raised) and answer.kind == "NotImplementedError"


def _right(
    question: Question, count: int, timed: Timed | None, rng: np.random.Generator
) -> Verdict:
    """Return "passed", or "slow" if the question asks for speed and there is none."""
    if question.speed and timed:
        found = too_slow(question, timed, rng)
        if found and found.state == "slow":
            lines = f"{question.name}: correct but slow", *found.says.split("\n")
            return Verdict("slow", lines, 0.5, count, count)
        if found:
            heading = f"{question.name}: {_heading(found.state, 1, 1)} on large arrays"
            share = partial(count, count + 1)
            lines = heading, *found.says.split("\n")
            return Verdict(found.state, lines, share, count, count + 1)
    cases = f"{count} cases" if count > 1 else "1 case"
    points = f"{question.points} point{'s' * (question.points != 1)}"
    lines = (f"{question.name}: passed ({cases}, {points})",)
    return Verdict("passed", lines, 1.0, count, count)


def too_slow(
    question: Question, timed: Timed, rng: np.random.Generator
) -> Difference | None:
    """Return what to say to a function that is not fast enough, or None.

    Each try gets new numbers, and its answer must be right.
    """
    speed = question.speed
    arguments, start = speed.arguments(rng), thread_time()  # not of other programs' work
    speed.plain(*arguments)
    plain = thread_time() - start
    spent = 0.0
    for attempt in range(TRIES):  # a busy machine is slow now and then
        arguments = speed.arguments(rng)
        yours, answer = timed(arguments)
        if found := failure(question, arguments, answer):
            return found
        if plain >= speed.floor * yours:
            return None
        spent += yours * (attempt > 0)  # the first one compiles
        if spent > PATIENCE:
            break
    return Difference(
        "slow",
        f"It must be at least {speed.floor:g} times as fast as the plain Python loop, "
        "both measured here.\n"
        "Put @njit above it; keep Python lists and objects out of its loop. "
        "Any other way that is as fast is right, too.",
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
        if isinstance(arguments, Script):
            step = steps(arguments, question.name)[answer.position]
            says = f"Your class changes what it is given in {step}. Work on a copy."
        else:
            name = _names(question, arguments)[answer.position]
            says = f"Your function changes its argument {name}. Work on {name}.copy()."
        return Difference("wrong", says)
    with quiet():
        if question.judge is None:
            expected = right_answer(question, arguments)
            script = isinstance(arguments, Script)
            names = steps(arguments, question.name) if script else None
            return difference(answer, expected, *tolerance(question, arguments), names)
        try:
            says = question.judge(arguments, answer)
        except Exception as error:
            says = f"Your answer cannot be used: {type(error).__name__}: {error}"
    return Difference("wrong", _cut(" ".join(says[:1000].split()), 200)) if says else None


def right_answer(question: Question, arguments: tuple) -> Any:
    """Return what the oracle gives."""
    if isinstance(arguments, Script):
        return run_script(question.oracle, arguments)
    return as_data(question.oracle(*arguments))


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
    yours: Any,
    expected: Any,
    rtol: float,
    atol: float,
    names: list[str] | None = None,
) -> Difference | None:
    """Return the first difference between an answer and what is expected, or None.

    Lists are as good as arrays and tuples, and whole numbers as good as floats. The parts
    of several results are called by `names`, or else by their number.
    """
    if expected is None or isinstance(expected, str | Handle):
        if type(yours) is type(expected) and yours == expected:
            return None
        if isinstance(expected, Handle):
            return Difference("wrong", f"Yours is {_kind(yours)}, expected an object")
        return Difference("wrong", f"Yours {_short(yours)}, expected {_short(expected)}")
    if yours is None:
        return Difference("wrong", "It returns nothing. Is a `return` missing?")
    if isinstance(expected, dict):
        if not isinstance(yours, dict) or yours.keys() != expected.keys():
            keys = ", ".join(map(repr, expected))
            wanted = "a figure" if "axes" in expected else f"a dict with the keys {keys}"
            says = f"Yours is {_kind(yours)}, expected {wanted}"
            return Difference("wrong", says)
        parts = [(key, yours[key], expected[key]) for key in expected]
    elif isinstance(expected, tuple | list) and not _numeric(expected):
        count = len(expected)
        array = isinstance(yours, np.ndarray) and yours.ndim > 0
        several = array or isinstance(yours, tuple | list)
        got = len(yours) if several else 1
        if not several or got != count:
            says = f"It returns {got} result{'s' * (got != 1)}, expected {count}"
            return Difference("shape", says)
        results = [f"Result {k + 1} of {count}" for k in range(count)]
        names = names or (results if count > 1 else [""])
        parts = list(zip(names, yours, expected, strict=True))
    else:
        return _array_difference(yours, expected, rtol, atol)
    for k, (name, a, b) in enumerate(parts):
        if found := difference(a, b, rtol, atol):
            index = None if found.index is None else (k, *found.index)
            says = f"{name}: {found.says}" if name else found.says
            return replace(found, says=says, index=index)
    return None


def _kind(value: Any) -> str:
    """Return in words what a value is."""
    if isinstance(value, Handle):
        return "an object"
    name = "nothing" if value is None else type(value).__name__
    return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"


def _short(value: Any) -> str:
    """Return the beginning of a value as Python writes it."""
    try:
        return _cut(repr(value[:60] if isinstance(value, str) else value), 60)
    except Exception:  # it may be anything
        return _kind(value)


def _numeric(values: tuple | list) -> bool:
    """Say whether a list is one array of plain numbers, as a list of ints."""
    return isinstance(values, list) and np.asarray(values).dtype.kind in "biufc"


def _has_text(value: Any) -> bool:
    """Say whether a list holds text: NumPy makes every element as long as the longest."""
    if isinstance(value, tuple | list):
        return any(map(_has_text, value))
    return isinstance(value, str | bytes)


def _array_difference(
    yours: Any, expected: Any, rtol: float, atol: float
) -> Difference | None:
    """Return the first difference between two arrays of numbers."""
    b = np.asarray(expected)
    try:
        a = np.asarray(None if _has_text(yours) else yours)
    except Exception:  # it may be anything
        a = np.asarray(None)
    if a.dtype.kind not in "biufc":
        kind = "a ragged list" if isinstance(yours, list) else _kind(yours)
        wanted = "an array of numbers" if b.ndim else "a number"
        return Difference("wrong", f"Yours is {kind}, expected {wanted}")
    if a.dtype.kind == "c" and b.dtype.kind != "c":
        return Difference("wrong", "Yours is complex, expected real numbers")
    if a.shape != b.shape:
        says = f"Your shape {_shape(a)}, expected {_shape(b)}"
        return Difference("shape", says, None, a, b)
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
    says, state = f"{at}ours {one}, expected {two}", "wrong"
    if near.all() and not exact:
        state = "imprecise"
        says += ". Nearly right: look for float32, or a small number added in a sum"
    elif np.isnan(a[first]):
        says += ". nan comes from an overflow, 0/0 or an unset element"
    elif a.dtype.kind in "iu" and b.dtype.kind == "f" and (b % 1).any():
        says += f". Yours is {a.dtype}, whole numbers only; expected float"
    return Difference(state, says, first, a, b, first)


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
    if isinstance(arguments, Script):
        return _cut("; ".join(steps(arguments, question.name)), 2 * WIDTH)
    for small in (16, 9, 4, 0):
        text = ", ".join(
            f"{name} = {_value(value, small)}"
            for name, value in zip(_names(question, arguments), arguments, strict=True)
        )
        if len(text) <= WIDTH:
            break
    return _cut(text, WIDTH)


OPERATORS = {
    "__add__": "+",
    "__sub__": "-",
    "__mul__": "*",
    "__truediv__": "/",
    "__matmul__": "@",
    "__pow__": "**",
}


def steps(script: Script, name: str) -> list[str]:
    """Return the steps of a script as Python writes them; objects are a, b, c, ...

    >>> square = ("call", Handle(0), "__mul__", (Handle(0),))
    >>> steps(Script([("new", (2,)), square]), "Tape")
    ['a = Tape(2)', 'a * a']
    """
    used = {part.step for step in script for part in _handles(step)}
    names = {k: "abcdefghijklmnopqrstuvwxyz"[n % 26] for n, k in enumerate(sorted(used))}

    def said(value: Any) -> str:
        if isinstance(value, tuple | list):
            return f"[{', '.join(map(said, value))}]"
        return names[value.step] if isinstance(value, Handle) else _value(value, 4)

    lines = []
    for k, step in enumerate(script):
        match step:
            case ("new", arguments):
                text = f"{name}({', '.join(map(said, arguments))})"
            case ("get", handle, attribute):
                text = f"{said(handle)}.{attribute}"
            case ("call", handle, method, (other,)) if method in OPERATORS:
                text = f"{said(handle)} {OPERATORS[method]} {said(other)}"
            case (_, handle, method, arguments):
                text = f"{said(handle)}.{method}({', '.join(map(said, arguments))})"
        lines.append(f"{names[k]} = {text}" if k in names else text)
    return lines


def _handles(value: Any) -> Iterator[Handle]:
    """Yield the handles inside a value."""
    if isinstance(value, Handle):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _handles(part)


def _value(value: Any, small: int) -> str:
    """Return an argument in words: its numbers if there are few, else its shape."""
    if not isinstance(value, np.ndarray):
        return _cut(repr(value), 20 + small)
    kind = "" if value.dtype in (np.float64, np.int64) else f" {value.dtype}"
    if value.size <= small:
        numbers = np.array2string(value, separator=", ", precision=4)
        return " ".join(numbers.split()).replace("[ ", "[") + kind
    return "x".join(map(str, value.shape)) + kind


def _window(question: Question, arguments: tuple, found: Difference) -> Window | None:
    """Return what is behind the expected number, if the question can say so."""
    if question.window is None or found.index is None:
        return None
    return question.window(arguments, found.index)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
