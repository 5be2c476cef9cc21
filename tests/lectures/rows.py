"""Rows of the seed checklist: what a lecture prints, against a value from elsewhere.

A lecture tags the cell that shows a row with `seed:S0-07`. Its test reads the text that
this cell printed when the notebook was saved (nbval says that it still prints it):

    @row("S0-07", "09_convolution")
    def test_worked_example(text):
        shows(text, [[9, 5, 4], [8, 8, 10], [8, 15, 12]])

The values in the test come from the source document, SciPy, PyTorch or a definition in
NumPy, never from the course. `tests/lectures/test_planted.py` runs every such test once
more on a text whose numbers were changed: it must fail.
"""

import functools
import re
from collections.abc import Callable

import numpy as np
import pytest

from course.notebooks import NUMBER
from tests.notebooks_here import ROOT, code, printed, read, tags

ROWS: list[tuple[str, str, Callable]] = []


def tagged_text(lecture: str, seed: str) -> str:
    """Return the saved plain text of the lecture's code cells tagged with the seed row."""
    cells = [
        cell
        for cell in code(read(ROOT / "lectures" / f"{lecture}.ipynb"))
        if f"seed:{seed}" in tags(cell)
    ]
    assert cells, f"no code cell of {lecture} is tagged seed:{seed}"
    return "\n".join(map(printed, cells))


def row(seed: str, lecture: str) -> Callable:
    """Mark a test of one seed row; it is called with the text that the lecture shows."""

    def decorate(test: Callable) -> Callable:
        ROWS.append((seed, lecture, test))

        @pytest.mark.seed(seed, lecture)
        @functools.wraps(test)
        def wrapped() -> None:
            test(tagged_text(lecture, seed))

        del wrapped.__wrapped__  # pytest would ask for a fixture named text
        return wrapped

    return decorate


def numbers(text: str) -> list[float]:
    """Return the numbers of a text, in order.

    >>> numbers("w1 = [[9., -5], [4e-1, −.5]]")
    [9.0, -5.0, 0.4, -0.5]
    """
    return [float(number) for number in NUMBER.findall(text.replace("−", "-"))]


def shows(text: str, values: object, rtol: float = 1e-9, atol: float = 0.0) -> None:
    """Assert that the values stand in the text, one right after the other."""
    wanted = np.asarray(values, float).ravel()
    assert wanted.size, "a test of no values cannot fail"
    found = np.array(numbers(text))
    for start in range(len(found) - len(wanted) + 1):
        if np.allclose(found[start : start + len(wanted)], wanted, rtol, atol):
            return
    raise AssertionError(f"{wanted.tolist()} do not stand in a row in:\n{text}")


def planted(text: str) -> str:
    """Return the text with every digit changed: what a wrong lecture would show.

    >>> planted("0.53 of 12")
    '3.86 of 45'
    """
    return re.sub(r"\d", lambda digit: str((int(digit.group()) + 3) % 10), text)
