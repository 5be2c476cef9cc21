"""Read a notebook as data: which exercise it is, and which cell answers which question.

An answer is the one code cell

    1. with the id `answer-<name>`, else
    2. with nbgrader's grade_id `answer-<name>`, else
    3. that defines the function <name>.

The first rule that finds a cell decides. Two cells by one rule are no answer: the grader
does not guess. Nothing of a student's notebook runs here.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course.exercises.spec import MODULES, Question, questions

SIZE_LIMIT = 20 << 20  # bytes of a notebook


class Unusable(ValueError):
    """A file that cannot be graded; the message names it and says what to do."""


@dataclass(frozen=True)
class Cell:
    """A code cell: its id, nbgrader's grade_id, its tags, and its source."""

    id: str
    grade_id: str
    tags: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Answer:
    """The cells that answer a question, and the rule that found them: none, one or more."""

    cells: tuple[Cell, ...]
    rule: str

    @property
    def source(self) -> str | None:
        """The source of the one cell; None if there is not exactly one."""
        return self.cells[0].source if len(self.cells) == 1 else None


def read(path: Path) -> tuple[bytes, tuple[Cell, ...]]:
    """Return the bytes of a notebook and its code cells. Raises Unusable."""
    try:
        if not path.is_file():
            raise Unusable(f"{path}: there is no such file")
        if path.stat().st_size > SIZE_LIMIT:
            raise Unusable(f"{path}: larger than {SIZE_LIMIT >> 20} MB; clear its outputs")
        raw = path.read_bytes()
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from None
    try:
        notebook = json.loads(raw)
    except (ValueError, RecursionError):
        raise Unusable(
            f"{path}: no notebook (its JSON is broken); save it again in Jupyter"
        ) from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise Unusable(f"{path}: no notebook of format 4; save it again in Jupyter")
    return raw, tuple(_cell(cell) for cell in cells if _is_code(cell))


def _is_code(cell: Any) -> bool:
    return isinstance(cell, dict) and cell.get("cell_type") == "code"


def _cell(cell: dict) -> Cell:
    """Return what counts of a code cell, whatever else stands in it."""
    metadata = _dict(cell.get("metadata"))
    tags = metadata.get("tags")
    source = cell.get("source")
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    return Cell(
        _str(cell.get("id")),
        _str(_dict(metadata.get("nbgrader")).get("grade_id")),
        tuple(map(_str, tags)) if isinstance(tags, list) else (),
        _str(source),
    )


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""


def answer(cells: tuple[Cell, ...], name: str) -> Answer:
    """Return the answer to the question `name`."""
    defines = re.compile(rf"^def[ \t]+{name}[ \t]*\(", re.MULTILINE)
    rules = {
        "its id": lambda cell: cell.id == f"answer-{name}",
        "its grade_id": lambda cell: cell.grade_id == f"answer-{name}",
        "its function": lambda cell: defines.search(cell.source),
    }
    for rule, fits in rules.items():
        if found := tuple(cell for cell in cells if fits(cell)):
            return Answer(found, rule)
    return Answer((), "")


def exercise(path: Path, cells: tuple[Cell, ...]) -> str:
    """Return the exercise that the notebook answers most questions of. Raises Unusable."""
    found = {
        notebook: sum(bool(answer(cells, q.name).cells) for q in questions(notebook))
        for notebook in MODULES
    }
    most = max(found.values())
    best = [notebook for notebook, count in found.items() if count == most]
    if most == 0 or len(best) > 1:
        best = [notebook for notebook in best if path.name.startswith(notebook)]
    if len(best) != 1:
        raise Unusable(
            f"{path}: no exercise of the course (none of its cells answers a question); "
            f"give it the name of one: {', '.join(MODULES)}"
        )
    return best[0]


def master(folder: Path, notebook: str) -> tuple[list[str], list[Question]]:
    """Return the set-up cells and the questions, in the order of the solution."""
    path = folder / f"{notebook}.ipynb"
    _, cells = read(path)
    order = [cell.id for cell in cells]
    setup = [cell.source for cell in cells if "setup" in cell.tags]
    missing = [q.name for q in questions(notebook) if f"answer-{q.name}" not in order]
    if missing or not setup:
        lacks = f"cells answer-{', answer-'.join(missing)}" if missing else "a set-up cell"
        raise Unusable(f"{path}: the solution lacks {lacks}")
    return setup, sorted(questions(notebook), key=lambda q: order.index(f"answer-{q.name}"))
