"""`course grade --explain`: every case that was asked, what is right, and what came back.

For teachers: it shows the cases of one file, which nobody else's file is asked.
"""

from typing import Any

import numpy as np

from course.exercises.call import Changed, Raised
from course.exercises.spec import Question
from course.exercises.verdict import failure, right_answer

NUMBERS = 100  # of an array that is shown in full


class Transcript:
    """Hears what is asked and answered, as `told` of `course.grading.runner.grade`."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self.lines: list[str] = []

    def __call__(self, question: Question, arguments: tuple, outcome: Any) -> None:
        """Write down one case."""
        number = self.asked[question.name] = self.asked.get(question.name, 0) + 1
        found = failure(question, arguments, outcome)
        state = found.state if found else "right"
        self.lines.append(f"\n{question.name}, case {number}: {state}")
        self.lines += [f"  given     {shown(part)}" for part in arguments]
        if question.judge is None:
            self.lines.append(f"  expected  {shown(right_answer(question, arguments))}")
        self.lines.append(f"  came back {shown(outcome)}")
        if found and question.judge is not None:
            self.lines.append(f"  because   {found.says}")

    def __str__(self) -> str:
        return "\n".join(self.lines)


def shown(value: Any) -> str:
    """Return a value in one line: an array with all its numbers if they are few.

    >>> shown((np.array([1.0, 2.0]), 3))
    '(float64 (2,) [1.0, 2.0], 3)'
    """
    match value:
        case Raised(kind, says, line, text):
            where = f" (line {line}: {text})" if line else ""
            return f"{kind}: {says}{where}"
        case Changed(position):
            return f"it wrote into argument {position + 1}"
        case np.ndarray():
            few = value.size <= NUMBERS
            numbers = value.tolist() if few else f"{value.size} numbers"
            return f"{value.dtype} {value.shape} {numbers}"
        case tuple() | list():
            inside = ", ".join(map(shown, value))
            return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
        case dict():
            inside = ", ".join(f"{key!r}: {shown(part)}" for key, part in value.items())
            return f"{{{inside}}}"
    text = repr(value)
    return text if len(text) <= 1000 else f"{text[:1000]}..."
