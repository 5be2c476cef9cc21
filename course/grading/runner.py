"""Grade one notebook: ask the child process, judge here.

The cases come from a generator seeded by the secret and the bytes of the notebook: grading
the same file again asks the same, and a changed file is asked something else.
"""

import hashlib
import hmac
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import numpy as np

from course.exercises.call import Raised
from course.exercises.spec import Question
from course.exercises.verdict import Verdict, judge
from course.grading.box import START_SECONDS, Box, Lost, NotGraded
from course.grading.extraction import Answer, answer, exercise, master, read

PUBLIC_SECRET = b"convolutional networks from the first loop to the GPU"
TIME_LIMIT = 60.0  # seconds for one question, compiling included


@dataclass(frozen=True)
class Graded:
    """One question: its points, its state, and what the student is told."""

    name: str
    points: float
    worth: int
    state: str
    lines: tuple[str, ...]
    rule: str


@dataclass(frozen=True)
class Grade:
    """A notebook: which exercise it is, and its questions."""

    exercise: str
    questions: tuple[Graded, ...]

    @property
    def points(self) -> float:
        """The points of all questions."""
        return sum(question.points for question in self.questions)

    @property
    def worth(self) -> int:
        """The points that could be had."""
        return sum(question.worth for question in self.questions)


def grade(
    path: Path,
    solutions: Path,
    secret: bytes = PUBLIC_SECRET,
    seconds: float = TIME_LIMIT,
) -> Grade:
    """Return the grade of a notebook.

    Raises Unusable for a file that is no exercise, NotGraded if the grader itself cannot
    work; neither says anything about the student.
    """
    raw, cells = read(path)
    notebook = exercise(path, cells)
    setup, asked = master(solutions, notebook)
    graded = []
    desk = Desk([(f"setup_{k}.py", source) for k, source in enumerate(setup)], seconds)
    try:
        for question in asked:
            given = answer(cells, question.name)
            rng = case_rng(secret, raw, question)
            verdict = desk.verdict(question, given, rng)
            graded.append(
                Graded(
                    question.name,
                    question.points * verdict.fraction,
                    question.points,
                    verdict.state,
                    tuple(map(printable, verdict.lines)),
                    given.rule,
                )
            )
    finally:
        desk.close()
    return Grade(notebook, tuple(graded))


def case_rng(secret: bytes, raw: bytes, question: Question) -> np.random.Generator:
    """Return the generator of a question's cases for a notebook with these bytes."""
    digest = hmac.new(secret, question.name.encode() + b"\0" + raw, hashlib.sha256)
    return np.random.default_rng(int.from_bytes(digest.digest()))


def printable(text: str) -> str:
    """Return the text without control characters, direction marks and lone surrogates.

    >>> printable("a\\x1b[31mb")
    'a [31mb'
    """
    return "".join(c if c.isprintable() else " " for c in text)


class Desk:
    """Asks one question after the other, each with a clock of its own.

    A question sees the set-up cells and the earlier answers that ran. Whatever kills the
    process costs only the question that was asked.
    """

    def __init__(self, setup: list[tuple[str, str]], seconds: float):
        self.setup, self.seconds = setup, seconds
        self.earlier: list[tuple[str, str]] = []
        self.box: Box | None = None

    def sit_down(self) -> None:
        """Start a process in which the set-up cells work, unless there is one."""
        if self.box:
            return
        self.box = Box()
        try:
            fails = self.box.ask(START_SECONDS, do="load", name="", cells=self.setup)
        except Lost as lost:
            fails = lost
        if fails:
            raise NotGraded(f"the set-up cells of the solution fail: {fails}")

    def verdict(
        self, question: Question, given: Answer, rng: np.random.Generator
    ) -> Verdict:
        """Return the verdict on the answer to a question."""
        if given.source is None:
            return _no_answer(question, given)
        self.sit_down()
        end = monotonic() + self.seconds

        def ask(**request: object) -> object:
            return explained(self.box.ask(end - monotonic(), **request))

        def timed(arguments: tuple) -> tuple[float, object]:
            ask(do="hold", arguments=arguments)
            start = monotonic()
            fails = ask(do="time")
            return monotonic() - start, fails or ask(do="made")

        cell = f"answer_{question.name}.py", given.source
        try:
            cells = [*self.setup, *self.earlier, cell]
            fails = ask(do="load", name=question.name, cells=cells)
            if fails is None:
                self.earlier.append(cell)
            return judge(
                question,
                list(question.cases(rng)),
                lambda arguments: fails or ask(do="call", arguments=arguments),
                timed,
            )
        except Lost as lost:
            self.close()
            says = f"{lost}" + f" of {self.seconds:g} s" * (lost.state == "time limit")
            return Verdict(lost.state, (f"{question.name}: {lost.state}", says))

    def close(self) -> None:
        """End the process."""
        if self.box:
            self.box.close()
            self.box = None


def explained(outcome: object) -> object:
    """Return the outcome; say why a name that the notebook knows is unknown here."""
    if isinstance(outcome, Raised) and "NameError" in outcome.kind + outcome.says:
        says = f"{outcome.says}. Only the set-up cell and the answers run here"
        return replace(outcome, says=says)
    return outcome


def _no_answer(question: Question, given: Answer) -> Verdict:
    """Return the verdict on no cell, or too many."""
    if given.cells:
        says = (
            f"{len(given.cells)} cells answer it (found by {given.rule}). "
            "Keep one: the grader does not guess."
        )
        return Verdict("ambiguous", (f"{question.name}: ambiguous", says))
    says = f"No cell defines {question.name}. Put the exercise's cell back."
    return Verdict("missing", (f"{question.name}: missing", says))
