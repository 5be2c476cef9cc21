"""What grading a file gives, and how it is written down: one JSON file a submission.

Every report is made from these files and from nothing else, so that a class that was
graded in pieces, on many machines, is merged by reading them. They hold no time and no
path: grading the same file again writes the same bytes.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

VERSION = 1  # of the JSON

# how the answers were kept apart from the grader, best first
ISOLATION = {
    "strict": "isolated: own namespaces, Landlock, seccomp and limits",
    "landlock": "isolated: Landlock, seccomp and limits, no namespaces",
    "none": "NOT ISOLATED: the answers ran with your rights; grade only what you trust",
}
STATUS = {
    "graded": "the points count",
    "unusable": "no notebook that anybody could grade; `says` tells the student why",
    "retry": "not graded: the grader could not work, which says nothing about the student",
}


@dataclass(frozen=True)
class Graded:
    """One question of a submission.

    Attributes
    ----------
    name, worth : of the question
    points : had, 0 to worth
    state : of `course.exercises.verdict.STATES`, or "missing", "ambiguous", "time limit",
        "crash"
    lines : what the student is told, at most five; plain text
    rule : how the answer's cell was found
    right, asked : cases
    mistake : the sentence of the known wrong answer that this is, or ""
    picture : SVG of the smallest case that is wrong, or ""
    """

    name: str
    worth: int
    points: float
    state: str
    lines: tuple[str, ...] = ()
    rule: str = ""
    right: int = 0
    asked: int = 0
    mistake: str = ""
    picture: str = ""


@dataclass(frozen=True)
class Submission:
    """One file: what became of it, and its questions in the order of the exercise."""

    file: str
    status: str
    says: str = ""
    sha256: str = ""
    exercise: str = ""
    isolation: str = "none"
    questions: tuple[Graded, ...] = ()

    @property
    def points(self) -> float:
        """The points of all questions."""
        return round(sum(question.points for question in self.questions), 2)

    @property
    def worth(self) -> int:
        """The points that could be had."""
        return sum(question.worth for question in self.questions)


def printable(text: str) -> str:
    """Return the text without control characters, direction marks and lone surrogates.

    >>> printable("a\\x1b[31mb")
    'a [31mb'
    """
    return "".join(c if c.isprintable() else " " for c in text)


def to_json(submission: Submission) -> str:
    """Return a submission as JSON."""
    tree = {"version": VERSION, **asdict(submission)}
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Submission:
    """Return the submission in JSON. Raises ValueError for anything else."""
    try:
        tree = json.loads(text)
        if tree.pop("version") != VERSION:
            raise ValueError(f"version is not {VERSION}")
        questions = tuple(
            _filled(Graded, question | {"lines": tuple(question["lines"])})
            for question in tree.pop("questions")
        )
        submission = _filled(Submission, tree | {"questions": questions})
        if submission.status not in STATUS or submission.isolation not in ISOLATION:
            raise ValueError(f"unknown: {submission.status!r}, {submission.isolation!r}")
        for question in questions:
            if not 0 <= question.points <= question.worth:  # NaN is not, either
                raise ValueError(f"{question.points} of {question.worth} points")
            if any(type(line) is not str for line in question.lines):
                raise TypeError(f"lines are {question.lines!r:.40}")
        return submission
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a graded submission: {error!r}") from None


def _filled(kind: type, values: dict[str, Any]) -> Any:
    """Return the dataclass with these values, which must have their declared types."""
    for field in fields(kind):
        wanted = getattr(field.type, "__origin__", field.type)
        value = values[field.name]
        if wanted is float and type(value) is int:
            continue
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise TypeError(f"{field.name} is {value!r:.40}")
    return kind(**values)
