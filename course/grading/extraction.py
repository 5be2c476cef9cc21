"""Read a notebook as data: which exercise it is, and which cell answers which question.

The answer to a question is the one cell

    1. with nbgrader's grade_id `answer-<name>`, else
    2. with the id `answer-<name>`, else
    3. with the line `# answer-<name>`, else
    4. of code that defines the function or class <name>.

The first rule that finds a cell decides; but a cell in which somebody defined the name is
better than one as the exercise had it, and that is better than one without the name. Of
several cells by one rule the best count, and copies count once. If two are left there is no
answer: the grader does not guess. Whether a cell of rules 1 to 3 is code or text does not
matter: one key turns it into the other, by accident.

An answer may lean on the student's other cells, as it may in the notebook: on imports,
functions, classes and assignments at their top level. `others` hands these cells out; the
box picks what the answer uses, see `course.grading.helpers`.

Nothing of a student's notebook runs here, and no file takes long to read, whatever is in
it: sizes are limited. Where a key stands twice in the JSON the last one counts, as in
Jupyter. Numbers, also NaN, are read and not looked at.
"""

import errno
import json
import os
import re
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from course.exercises.spec import MODULES, Question, questions

SIZE_LIMIT = 10 << 20  # bytes of a notebook
CELL_LIMIT = 10_000  # cells of a notebook
SOURCE_LIMIT = 40_000  # characters of a cell; the rest is not read
OTHERS_LIMIT = 80_000  # characters of all cells that an answer may use

_DEFINES = re.compile(  # def f, class f, or f = ..., but not f = check(f)
    r"^(?:(?:async[ \t]+)?(?:def|class)[ \t]+|(?=\w+[ \t]*=(?!=)(?![ \t]*check\b)))(\w+)",
    re.MULTILINE,
)
_MARKS = re.compile(r"^#+[ \t]*answer-(\w+)[ \t]*$", re.MULTILINE)
_DOCSTRING = re.compile(r'""".*?"""', re.DOTALL)
_FRAME = re.compile(r"[#@]|(?:def|class) .*:$|$")  # a line around a hole


class Unusable(ValueError):
    """A file that cannot be graded, and what to do; whose file it is the caller knows."""


@dataclass(frozen=True)
class Cell:
    """A cell: its id, nbgrader's grade_id, its tags, and its source.

    defines : the names it gives to functions, classes and values
    marks : the names in its lines `# answer-<name>`
    """

    id: str
    grade_id: str
    tags: tuple[str, ...]
    source: str
    is_code: bool
    defines: frozenset[str]
    marks: frozenset[str]

    @cached_property
    def untouched(self) -> bool:
        """Whether only functions and classes stand in it that are still to be written."""
        lines = map(str.strip, _DOCSTRING.sub("", self.source).split("\n"))
        rest = [line for line in lines if not _FRAME.match(line)]
        return bool(rest) and all(s.startswith("raise NotImplementedError") for s in rest)


@dataclass(frozen=True)
class Answer:
    """The cells that answer a question, and the rule that found them: none, one or more."""

    cells: tuple[Cell, ...]
    rule: str

    @property
    def source(self) -> str | None:
        """The source of the one cell; None if there is not exactly one."""
        return self.cells[0].source if len(self.cells) == 1 else None


RULES = {
    "its grade_id": lambda cell, name: cell.grade_id == f"answer-{name}",
    "its id": lambda cell, name: cell.id == f"answer-{name}",
    "its marker": lambda cell, name: name in cell.marks,
    "its function": lambda cell, name: cell.is_code and name in cell.defines,
}


def read(path: Path) -> tuple[bytes, tuple[Cell, ...]]:
    """Return the bytes of a notebook and its cells. Raises Unusable."""
    raw = _bytes(path)
    return raw, cells_of(raw)


def _bytes(path: Path) -> bytes:
    """Return what a regular file holds, if it is not too much. Raises Unusable."""
    flags = ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")
    try:
        if path.is_symlink():  # where there is no O_NOFOLLOW
            raise OSError(errno.ELOOP, "")
        handle = os.open(path, os.O_RDONLY | sum(getattr(os, name, 0) for name in flags))
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise Unusable("it is no file; give the notebook itself")
            raw = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise Unusable("there is no such file") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unusable("it is a link; give the notebook itself") from None
        raise Unusable(f"it cannot be read: {error.strerror}") from None
    if len(raw) > SIZE_LIMIT:
        raise Unusable(f"it is larger than {SIZE_LIMIT >> 20} MB; clear its outputs")
    return raw


def cells_of(raw: bytes) -> tuple[Cell, ...]:
    """Return the cells of the notebook that these bytes are. Raises Unusable."""
    try:
        notebook = json.loads(raw)
    except (ValueError, RecursionError):
        raise Unusable(
            "no notebook (its JSON is broken); save it again in Jupyter"
        ) from None
    notebook = _dict(notebook)
    cells = notebook.get("cells")
    if cells is None:  # format 3 has sheets
        sheets = [_dict(s).get("cells") for s in _list(notebook.get("worksheets"))]
        cells = [cell for sheet in sheets for cell in _list(sheet)] if sheets else None
    if not isinstance(cells, list):
        raise Unusable("no notebook of format 3 or 4; save it again in Jupyter")
    if len(cells) > CELL_LIMIT:
        raise Unusable(f"it has {len(cells)} cells; {CELL_LIMIT} is the limit")
    return tuple(map(_cell, map(_dict, cells)))


def _cell(cell: dict) -> Cell:
    """Return what counts of a cell, whatever else stands in it."""
    metadata = _dict(cell.get("metadata"))
    source = cell.get("source", cell.get("input"))  # input: code in format 3
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    source = _str(source).replace("\r\n", "\n").replace("\r", "\n")[:SOURCE_LIMIT]
    return Cell(
        _str(cell.get("id")),
        _str(_dict(metadata.get("nbgrader")).get("grade_id")),
        tuple(map(_str, _list(metadata.get("tags")))),
        source,
        cell.get("cell_type") == "code",
        frozenset(_DEFINES.findall(source)),
        frozenset(_MARKS.findall(source)),
    )


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""


def answer(cells: tuple[Cell, ...], name: str) -> Answer:
    """Return the answer to the question `name`."""

    def worth(cell: Cell) -> int:
        return (name in cell.defines) * (2 - cell.untouched)

    answers = []
    for rule, fits in RULES.items():
        if found := [cell for cell in cells if fits(cell, name)]:
            best = max(map(worth, found))
            kept = {c.source.strip(): c for c in found if worth(c) == best}
            answers.append((best, Answer(tuple(kept.values()), rule)))
    return max(answers, key=lambda pair: pair[0], default=(0, Answer((), "")))[1]


def others(cells: tuple[Cell, ...], given: Answer) -> tuple[str, ...]:
    """Return the student's other code, in order, but for cells that are too much."""
    sources, room = [], OTHERS_LIMIT
    for cell in cells:
        if cell.is_code and cell not in given.cells and 0 < len(cell.source) <= room:
            sources.append(cell.source)
            room -= len(cell.source)
    return tuple(sources)


def exercise(path: Path, cells: tuple[Cell, ...]) -> str:
    """Return the exercise that the notebook answers most questions of. Raises Unusable."""
    found = {
        n: sum(bool(answer(cells, q.name).cells) for q in questions(n)) for n in MODULES
    }
    most = max(found.values())
    rivals = sorted(n for n, count in found.items() if 2 * count > most)
    if len(rivals) == 1:
        return rivals[0]
    meant = [n for n in rivals or MODULES if path.name.startswith(n)]
    if len(meant) == 1:
        return meant[0]
    if rivals:
        raise Unusable(
            f"it answers questions of {' and '.join(rivals)}; hand in a file for each, or "
            "let its name begin with the exercise"
        )
    raise Unusable(
        "no exercise of the course (none of its cells answers a question); "
        f"give it the name of one: {', '.join(MODULES)}"
    )


def master(folder: Path, notebook: str) -> tuple[list[str], list[Question]]:
    """Return the set-up cells and the questions, in the order of the solution."""
    path = folder / f"{notebook}.ipynb"
    try:
        _, cells = read(path)
    except Unusable as error:
        raise Unusable(f"{path}: {error}") from None
    order = [cell.id for cell in cells]
    setup = [cell.source for cell in cells if cell.is_code and "setup" in cell.tags]
    missing = [q.name for q in questions(notebook) if f"answer-{q.name}" not in order]
    if missing or not setup:
        lacks = f"cells answer-{', answer-'.join(missing)}" if missing else "a set-up cell"
        raise Unusable(f"{path}: the solution lacks {lacks}")
    return setup, sorted(questions(notebook), key=lambda q: order.index(f"answer-{q.name}"))
