"""Grade one notebook: ask the box, judge here.

The cases come from a generator seeded by the secret and the bytes of the notebook: grading
the same file again asks the same, and a changed file is asked something else.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from course.exercises.call import Raised, quiet
from course.exercises.spec import Question
from course.exercises.verdict import (
    Verdict,
    judge,
    not_attempted,
    public_rng,
    right_answer,
)
from course.grading.box import ENOUGH, START_SECONDS, Box, Lost
from course.grading.extraction import (
    Answer,
    Unusable,
    answer,
    exercise,
    master,
    others,
    read,
)
from course.grading.grades import Graded, Submission, printable
from course.grading.sandbox import NotGraded, choose
from course.grading.wire import encode

PUBLIC_SECRET = b"convolutional networks from the first loop to the GPU"
TIME_LIMIT = 60.0  # seconds for one question, compiling included

# what was asked and what came back, for `course grade --explain`
Told = Callable[[Question, tuple, object], None]


def grade(
    path: Path,
    name: str,
    solutions: Path,
    secret: bytes = PUBLIC_SECRET,
    seconds: float = TIME_LIMIT,
    sandbox: str = "auto",
    told: Told | None = None,
) -> Submission:
    """Return the grade of the notebook, under a name of its own.

    It depends on nothing but the arguments and the file, and raises nothing for a bad
    file: that is "unusable", and a grader that cannot work is "retry". `told` hears each
    question's arguments and answers.
    """
    made = Submission(file=printable(name), status="unusable")
    try:
        raw, cells = read(path)
        made = replace(made, sha256=hashlib.sha256(raw).hexdigest())
        made = replace(made, exercise=exercise(path, cells))
    except Unusable as error:
        return replace(made, says=printable(str(error)))
    graded = []
    try:
        setup, asked = master(solutions, made.exercise)
        desk = Desk(setup, seconds, sandbox, told)
    except (NotGraded, Unusable) as error:
        return replace(made, status="retry", says=printable(str(error)))
    try:
        for question in asked:
            given = answer(cells, question.name)
            if given.source and given.cells[0].untouched:
                verdict = not_attempted(question)
            else:
                if question.needs:
                    compile_ahead(solutions, made.exercise, question)
                draw = partial(case_rng, secret, raw, question)
                verdict = desk.verdict(question, given, others(cells, given), draw)
            graded.append(written(question, verdict, given.rule))
    except NotGraded as error:
        return replace(made, status="retry", says=printable(str(error)))
    finally:
        desk.close()
    return replace(made, status="graded", isolation=desk.isolation, questions=tuple(graded))


@cache
def compile_ahead(solutions: Path, exercise: str, question: Question) -> None:
    """Compile what the solution calls: a box reads machine code, and can keep none.

    Raises NotGraded if the solution does not run.
    """
    setup, _ = master(solutions, exercise)
    _, cells = read(solutions / f"{exercise}.ipynb")
    space: dict[str, Any] = {}
    try:
        with quiet():
            for source in (*setup, answer(cells, question.name).source):
                exec(source, space)
            for arguments in question.cases(public_rng(question)):
                space[question.name](*arguments)
    except Exception as error:
        raise NotGraded(f"the solution of {question.name} fails: {error!r}") from None


def written(question: Question, verdict: Verdict, rule: str) -> Graded:
    """Return what a verdict is worth: points rounded down, so that no share rounds up."""
    return Graded(
        name=question.name,
        worth=question.points,
        points=int(100 * question.points * verdict.fraction + 1e-6) / 100,
        state=verdict.state,
        lines=tuple(map(printable, verdict.lines)),
        rule=rule,
        right=verdict.right,
        asked=verdict.asked,
        mistake=verdict.mistake,
        picture=verdict.picture,
    )


def case_rng(secret: bytes, raw: bytes, question: Question) -> np.random.Generator:
    """Return the generator of a question's cases for a notebook with these bytes."""
    digest = hmac.new(secret, question.name.encode() + b"\0" + raw, hashlib.sha256)
    return np.random.default_rng(int.from_bytes(digest.digest()))


class Desk:
    """Asks one question after the other, each with a clock of its own.

    A question sees the set-up cells, and of the student's other cells what it needs, see
    `course.grading.helpers`. Questions that may import the same parts of the course share a
    box, but no answer suffers from an earlier one: what does not pass in a box that was
    used is asked once more in a new one, and that counts.
    """

    def __init__(
        self, setup: list[str], seconds: float, sandbox: str, told: Told | None = None
    ):
        self.setup = [(f"setup_{k}.py", source) for k, source in enumerate(setup)]
        self.seconds, self.told = seconds, told
        self.isolation = choose(sandbox)
        self.boxes: dict[tuple[str, ...], Box] = {}

    def verdict(
        self,
        question: Question,
        given: Answer,
        others: tuple[str, ...],
        draw: Callable[[], np.random.Generator],
    ) -> Verdict:
        """Return the verdict on the answer to a question."""
        if given.source is None:
            return _no_answer(question, given)
        cells = {
            "cells": [*self.setup, (f"answer_{question.name}.py", given.source)],
            "others": [(f"cell_{k}.py", source) for k, source in enumerate(others)],
        }
        used = question.needs in self.boxes
        verdict, heard = self._asked(question, cells, draw())
        if used and verdict.state != "passed":
            self._throw_away(question.needs)
            verdict, heard = self._asked(question, cells, draw())
        if self.told:
            for arguments, outcome in heard:
                self.told(question, arguments, outcome)
        return verdict

    def _asked(
        self, question: Question, cells: dict, rng: np.random.Generator
    ) -> tuple[Verdict, list[tuple[tuple, object]]]:
        """Return the verdict that the box there is now gives, and what was said."""
        box = self._box(question.needs)
        end = monotonic() + self.seconds
        heard: list[tuple[tuple, object]] = []

        def ask(arguments: tuple, do: str = "call") -> object:
            limit = reply_limit(question, arguments)
            return explained(box.ask(end - monotonic(), limit, do=do, arguments=arguments))

        def call(arguments: tuple) -> object:
            heard.append((arguments, fails or ask(arguments)))
            return heard[-1][1]

        def timed(arguments: tuple) -> tuple[float, object]:
            outcome = ask(arguments, "time")
            return box.took, outcome

        try:
            fails = box.ask(self.seconds, do="load", name=question.name, **cells)
            (large,) = rng.spawn(1)  # nobody can tell it from the cases
            return judge(question, list(question.cases(rng)), call, timed, large), heard
        except Lost as lost:
            self._throw_away(question.needs)
            says = f"{lost}" + f" of {self.seconds:g} s" * (lost.state == "time limit")
            return Verdict(lost.state, (f"{question.name}: {lost.state}", says)), heard

    def _box(self, needs: tuple[str, ...]) -> Box:
        """Return the box that holds these parts of the course; the set-up works there."""
        if needs not in self.boxes:
            box = self.boxes[needs] = Box(self.isolation, needs)
            if fails := box.ask(START_SECONDS, do="load", name="", cells=self.setup):
                raise NotGraded(f"the set-up cells of the solution fail: {fails}")
        return self.boxes[needs]

    def _throw_away(self, needs: tuple[str, ...]) -> None:
        if needs in self.boxes:
            self.boxes.pop(needs).close()

    def close(self) -> None:
        """End the processes."""
        while self.boxes:
            self.boxes.popitem()[1].close()


def reply_limit(question: Question, arguments: tuple) -> int:
    """Return how many bytes a reply may have: it costs the grader memory and time."""
    if question.judge:
        return ENOUGH
    return ENOUGH + 4 * len(encode(right_answer(question, arguments)))


def explained(outcome: object) -> object:
    """Return the outcome; say why a name that the notebook knows is unknown here."""
    if isinstance(outcome, Raised) and "NameError" in outcome.kind + outcome.says:
        says = f"{outcome.says}. No cell of yours gives it a value at its top level"
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
