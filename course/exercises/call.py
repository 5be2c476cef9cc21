"""Call a student's function: what it returned, or what went wrong, as plain data.

The notebook's `check` and the grader's child process call functions in this one way. A
function for numba is translated once more with bounds checking, so that a wrong index is
an error and not garbage. A class is asked by a script of steps; a figure becomes its data.
"""

import contextlib
import io
import linecache
import operator
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from course.exercises import numba_words


@dataclass(frozen=True)
class Raised:
    """A call raised an error; `line` and `text` are the student's own, if known."""

    kind: str
    says: str
    line: int = 0
    text: str = ""


@dataclass(frozen=True)
class Changed:
    """A call wrote into its argument number `position`; a script, in that step."""

    position: int


@dataclass(frozen=True)
class Handle:
    """What step number `step` of a script gave; also as an argument of a later step."""

    step: int


class Script(tuple):
    """The steps that ask a class, in place of a function's arguments.

    Each step is ("new", arguments), ("call", Handle(k), "method", arguments) or
    ("get", Handle(k), "attribute"); operators are methods, as "__mul__".

    >>> class Sum:
    ...     total = 0
    ...
    ...     def add(self, x):
    ...         self.total += x
    >>> steps = ("new", ()), ("call", Handle(0), "add", (3,)), ("get", Handle(0), "total")
    >>> call(Sum, Script(steps))
    [Handle(step=0), None, 3]
    """


def is_jitted(function: Any) -> bool:
    """Say whether the function is one of numba's."""
    return hasattr(function, "py_func") and hasattr(function, "targetoptions")


@lru_cache(maxsize=64)
def bounds_checked(function: Callable) -> Callable:
    """Return the function as it is, or if it is numba's, with its indices checked.

    Numba checks no index in a parallel loop, so that one becomes serial. Functions that
    it calls stay as they are.
    """
    if not is_jitted(function):
        return function
    from numba import njit

    options = dict(function.targetoptions)
    for replaced in ("nopython", "parallel", "boundscheck"):
        options.pop(replaced, None)
    return njit(**options, boundscheck=True)(function.py_func)


def call(function: Callable, arguments: tuple) -> Any:
    """Return what the function, or the class with a script, returns, or Raised, or Changed.

    The function gets a copy of the arguments. What it prints and warns is not shown: it
    runs on hundreds of cases.
    """
    given = copied(arguments)
    try:
        with quiet():
            if isinstance(arguments, Script):
                answer = run_script(function, given)
            else:
                answer = as_data(bounds_checked(function)(*given))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return raised(error, function, arguments)
    for position, (before, after) in enumerate(zip(arguments, given, strict=True)):
        if not unchanged(before, after):
            return Changed(position)
    return answer


def run_script(cls: type, steps: tuple) -> list:
    """Return what each step gave: plain data as it was then, a Handle for the rest."""
    made: list[Any] = []
    results: list[Any] = []
    for step in steps:
        made.append(_taken(cls, step, made))
        data = as_data(made[-1])
        results.append(copied(data) if is_plain(data) else Handle(len(results)))
    return results


def _taken(cls: type, step: tuple, made: list) -> Any:
    """Take one step of a script, with what the earlier ones made."""

    def real(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(map(real, value))
        return made[value.step] if isinstance(value, Handle) else value

    match step:
        case ("new", arguments):
            return cls(*map(real, arguments))
        case ("call", Handle(k), method, arguments):
            values = map(real, arguments)
            if method[:2] == "__" and hasattr(operator, method):  # as Python would: a * b
                return getattr(operator, method)(made[k], *values)
            return getattr(made[k], method)(*values)
        case ("get", Handle(k), attribute):
            return getattr(made[k], attribute)
    raise ValueError(f"a script has no step {step!r}")


def is_plain(value: Any, depth: int = 20) -> bool:
    """Say whether a value is made of numbers, strings, arrays, tuples, lists and dicts."""
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biufc"
    if isinstance(value, tuple | list):
        return depth > 0 and all(is_plain(part, depth - 1) for part in value)
    if isinstance(value, dict):
        keys = all(isinstance(key, str) for key in value)
        return keys and is_plain(list(value.values()), depth)
    return value is None or isinstance(value, bool | int | float | complex | str)


def as_data(value: Any) -> Any:
    """Return a figure of matplotlib as the data that it shows, anything else as it is.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots()
    >>> _ = axes.plot([1, 2], [3, 4])
    >>> as_data(axes)["lines"][0]["y"]
    array([3, 4])
    """
    if "matplotlib.figure" not in sys.modules:  # then nobody can have made one
        return value
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    shown = getattr(value, "fig", value)  # course.viz.Picture has its figure there
    if isinstance(shown, FigureBase):
        return {"axes": [figure_data(axes) for axes in shown.axes]}
    return figure_data(shown) if isinstance(shown, Axes) else value


def figure_data(axes: Any) -> dict[str, Any]:
    """Return what the axes of a figure show, without how: no colours, no pixels."""
    from matplotlib.container import BarContainer

    bars = [part for part in axes.containers if isinstance(part, BarContainer)]
    return {
        "title": " ".join(filter(None, map(axes.get_title, ("left", "center", "right")))),
        "xlabel": axes.get_xlabel(),
        "ylabel": axes.get_ylabel(),
        "lines": [{"x": line.get_xdata(), "y": line.get_ydata()} for line in axes.lines],
        "points": [np.asarray(part.get_offsets()) for part in axes.collections],
        "bars": [[bar.get_height() for bar in part] for part in bars],
        "images": [np.asarray(image.get_array()) for image in axes.images],
    }


@contextlib.contextmanager
def quiet():
    """Show nothing of what is printed and warned inside."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("ignore")
        yield


def copied(value: Any) -> Any:
    """Return a copy whose arrays are as contiguous, or not, as they were."""
    if isinstance(value, np.ndarray):
        return value.copy("K") if value.flags.forc else spread(value)
    if isinstance(value, tuple | list):
        kind = Script if isinstance(value, Script) else tuple
        return (list if isinstance(value, list) else kind)(map(copied, value))
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    return value


def spread(a: np.ndarray) -> np.ndarray:
    """Return a copy that is every second element of a larger array.

    >>> spread(np.ones((2, 3))).flags.contiguous
    False
    """
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def unchanged(before: Any, after: Any) -> bool:
    """Say whether a value is what it was, bit for bit."""
    if isinstance(before, np.ndarray):
        return before.shape == after.shape and before.tobytes() == after.tobytes()
    if isinstance(before, tuple | list):
        return len(before) == len(after) and all(map(unchanged, before, after))
    if isinstance(before, dict):
        return list(before) == list(after) and all(
            unchanged(before[key], after[key]) for key in before
        )
    return True


def raised(error: BaseException, function: Callable, arguments: tuple = ()) -> Raised:
    """Return the error in words, with the line of the function that it came from."""
    code = _code(function)
    file = code.co_filename if code else ""
    frames = traceback.extract_tb(error.__traceback__)
    if type(error).__module__.startswith("numba."):
        line, says = numba_words.line(error, file), numba_words.sentence(text_of(error))
    else:
        if is_jitted(function) and file not in {frame.filename for frame in frames}:
            error = in_python(function.py_func, arguments, error)
            frames = traceback.extract_tb(error.__traceback__)
        says = text_of(error)
        line = next((f.lineno for f in reversed(frames) if f.filename == file), 0) or 0
    kind = type(error).__name__
    own = vars(function) if isinstance(function, type) else {code.co_name if code else ""}
    if isinstance(error, NotImplementedError) and code and frames[-1].name not in own:
        kind = "Error"  # this function is no stub, but calls one
        if says in ("", "your code here"):
            says = "a function that is called here is not written yet"
    text = linecache.getline(file, line).strip() if line else ""
    return Raised(kind, " ".join(says.split())[:300], line, text)


def text_of(error: BaseException) -> str:
    """Return what the error says, if it can say anything."""
    try:
        return str(error)[:20_000]
    except Exception:  # an error of the student's own kind
        return ""


def _code(function: Any) -> Any:
    """Return the code of a function, or of the first method of a class, or None."""
    if isinstance(function, type):
        function = next(
            (f for f in vars(function).values() if hasattr(f, "__code__")), None
        )
    return getattr(getattr(function, "py_func", function), "__code__", None)


def in_python(function: Callable, arguments: tuple, error: Exception) -> Exception:
    """Return the error of the same code in Python, which knows its line, if it is one."""
    try:
        with quiet():
            function(*copied(arguments))
    except Exception as other:
        return other if isinstance(other, type(error)) else error
    return error
