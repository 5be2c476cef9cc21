"""Hand an attack in, grade it, and see what it gained."""

import json
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np

from course.exercises.call import Raised
from course.grading import report
from course.grading.grades import Submission, to_json
from course.grading.runner import grade
from tests.grading.attacks.table import Attack
from tests.grading.attacks.world import ROOT, World

EXERCISE = "09_convolution"
BESIDE = ("filter_bank",)  # right answers after the attack


@dataclass(frozen=True)
class Outcome:
    """What an attack was graded with, what it got, and what it harmed."""

    submission: Submission
    seconds: float
    gained: float
    leaked: tuple[str, ...]
    touched: tuple[str, ...]
    hurt: tuple[str, ...]

    @property
    def harm(self) -> list[str]:
        """All that an attack must not do, in words."""
        gained = [f"{self.gained:g} points gained"] * (self.gained > 0)
        return [*gained, *self.leaked, *self.touched, *self.hurt]


def cells_of(exercise: str, folder: str = "exercises") -> dict:
    """Return the notebook of an exercise, or its solution."""
    return json.loads((ROOT / folder / f"{exercise}.ipynb").read_text("utf-8"))


def notebook(answers: dict[str, str], exercise: str = EXERCISE) -> dict:
    """Return an exercise with these answers and the right ones beside; no others."""
    right = {
        cell["id"]: cell["source"] for cell in cells_of(exercise, "solutions")["cells"]
    }
    made = cells_of(exercise)
    kept = []
    for cell in made["cells"]:
        if cell["id"].startswith("answer-"):
            name = cell["id"].removeprefix("answer-")
            if name not in answers and name not in BESIDE:
                continue
            cell["source"] = answers.get(name, right[cell["id"]])
        kept.append(cell)
    return made | {"cells": kept}


def graded(
    made: dict | bytes, world: World, folder: Path, tier: str, seconds: float = 20.0
) -> tuple[Submission, bytes]:
    """Grade a notebook; return the grade, and all bytes that anybody could see of it."""
    path = folder / "mallory.ipynb"
    path.write_bytes(made if isinstance(made, bytes) else json.dumps(made).encode())
    seen: list[bytes] = []
    submission = grade(
        path,
        path.name,
        world.folder / "solutions",
        world.secret.read_bytes(),
        seconds,
        tier,
        told=lambda question, arguments, outcome: seen.append(visible(outcome)),
    )
    report.write(folder / "out", submission)
    report.write_class(folder / "out", [submission])
    seen += [file.read_bytes() for file in (folder / "out").rglob("*") if file.is_file()]
    seen += [to_json(submission).encode(), report.table(submission).encode()]
    return submission, b"\n".join(seen)


def visible(outcome: object) -> bytes:
    """Return the bytes of what came out of the box, in which a canary could be hidden."""
    if isinstance(outcome, np.ndarray):
        return outcome[:10].tobytes()[:100_000]
    if isinstance(outcome, Raised):
        return f"{outcome.kind} {outcome.says} {outcome.text}".encode(errors="replace")
    if isinstance(outcome, list | tuple):
        return b" ".join(map(visible, outcome[:1000]))
    return repr(outcome)[:100_000].encode(errors="replace")


def run(attack: Attack, world: World, folder: Path, tier: str, control: float) -> Outcome:
    """Grade an attack beside right answers; `control` is what its honest answer gets."""
    world.touched()
    start = monotonic()
    submission, seen = graded(
        notebook({attack.question: attack.cell(world)}),
        world,
        folder,
        tier,
        attack.seconds,
    )
    seconds = monotonic() - start
    names = ("canary", world.canary), ("door", world.door)
    by_name = {question.name: question for question in submission.questions}
    return Outcome(
        submission,
        seconds,
        points(submission, attack.question) - control,
        tuple(f"a {name} was shown" for name, word in names if word.encode() in seen),
        tuple(world.touched()),
        tuple(
            f"{name} was hurt: {by_name[name].lines if by_name else submission.says}"
            for name in BESIDE
            if name != attack.question and points(submission, name) < 1
        ),
    )


def points(submission: Submission, name: str) -> float:
    """Return the points of one question."""
    return sum(q.points for q in submission.questions if q.name == name)
