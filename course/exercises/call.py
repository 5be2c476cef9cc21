"""Call a student's function: what it returned, or what went wrong, as plain data.

The notebook's `check` and the grader's child process call functions in this one way. A
function for numba is translated once more with bounds checking, so that a wrong index is
an error and not garbage.
"""

import contextlib
import io
import linecache
import re
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Raised:
    """A call raised an error; `line` and `text` are the student's own, if known."""

    kind: str
    says: str
    line: int = 0
    text: str = ""


@dataclass(frozen=True)
class Changed:
    """A call wrote into its argument number `position`."""

    position: int


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
    """Return what the function returns, or Raised, or Changed.

    The function gets a copy of the arguments. What it prints and warns is not shown: it
    runs on hundreds of cases.
    """
    given = copied(arguments)
    try:
        with quiet():
            answer = bounds_checked(function)(*given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return raised(error, function, arguments)
    for position, (before, after) in enumerate(zip(arguments, given, strict=True)):
        if not unchanged(before, after):
            return Changed(position)
    return answer


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
        return type(value)(map(copied, value))
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
    code = getattr(getattr(function, "py_func", function), "__code__", None)
    file = code.co_filename if code else ""
    frames = traceback.extract_tb(error.__traceback__)
    if type(error).__module__.startswith("numba."):
        line, says = numba_line(error, file), numba_sentence(str(error))
    else:
        if is_jitted(function) and file not in {frame.filename for frame in frames}:
            error = in_python(function.py_func, arguments, error)
            frames = traceback.extract_tb(error.__traceback__)
        says = str(error)
        line = next((f.lineno for f in reversed(frames) if f.filename == file), 0) or 0
    kind = type(error).__name__
    if isinstance(error, NotImplementedError) and code and frames[-1].name != code.co_name:
        kind, says = "Error", "a function that is called here is not written yet"
    text = linecache.getline(file, line).strip() if line else ""
    return Raised(kind, " ".join(says.split())[:300], line, text)


def in_python(function: Callable, arguments: tuple, error: Exception) -> Exception:
    """Return the error of the same code in Python, which knows its line, if it is one."""
    try:
        with quiet():
            function(*copied(arguments))
    except Exception as other:
        return other if isinstance(other, type(error)) else error
    return error


def numba_line(error: Exception, file: str) -> int:
    """Return the line of the file that numba complains about, or 0."""
    place = getattr(error, "loc", None)
    if place is not None:
        return place.line if place.filename == file else 0
    found = re.search(rf"{re.escape(file)} \((\d+)\)", str(error))
    return int(found[1]) if found else 0


def numba_sentence(message: str) -> str:
    """Return the one sentence that matters of a page of numba's error message."""
    plain = re.sub(r"Literal\[(\w+)\]\([^)]*\)", r"\1", message)
    plain = re.sub(r"\.* Raised from .* \(\d+\)", "", plain)
    if found := re.search(r">>> (.+)", plain):
        return f"numba cannot translate {found[1]}: these types do not go together"
    if found := re.search(r"Can't unify return type from the following types: (.+)", plain):
        return f"the function returns different types in different places: {found[1]}"
    if found := re.search(r"Cannot unify (.+) and (.+) for '([\w.]+)'", plain):
        name = found[3].split(".")[0]
        return f"{name} changes its type, from {found[1]} to {found[2]}; give it one type"
    lines = [line for line in plain.splitlines() if line and "pipeline" not in line]
    return lines[0] if lines else plain
