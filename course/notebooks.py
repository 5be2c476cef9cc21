"""Notebooks: run them and save what they showed; derive each exercise from its solution.

A solution marks what the student is to write:

    def relu(x):
        ### BEGIN SOLUTION
        return np.maximum(x, 0)
        ### END SOLUTION

In the exercise one line stands in its place: `raise NotImplementedError("your code here")`
in code, *Your answer here.* in text. In text the markers are comments,
`<!-- ### BEGIN SOLUTION -->`, which no reader sees. Lectures and solutions are saved as
they were run, without what changes from run to run, so that a difference in git is one.

Solutions and exercises carry the cell metadata of nbgrader, so that a teacher can use them
there as they are: `answer-<function>` is the student's, `check-<function>` has the points,
a text answer is graded by hand. nbgrader itself is not needed.
"""

import argparse
import math
import os
import re
import sys
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from course.exercises.spec import find
from course.files import write_whole

if TYPE_CHECKING:  # nbformat takes a second to import; the other verbs need not wait
    from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
CELL_SECONDS = 300  # a cell that takes longer is stopped
KEPT = {"tags", "jupyter"}  # of a cell's metadata; jupyter: source_hidden
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}
NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?(?!\w)", re.IGNORECASE
)
RTOL, ATOL = 1e-6, 1e-9  # how far a saved and a new number may be apart
WIDGET = "application/vnd.jupyter.widget-view+json"

MARKERS = {  # the lines around an answer; nbgrader's begin and end with the same words
    "code": ("### BEGIN SOLUTION", "### END SOLUTION"),
    "markdown": ("<!-- ### BEGIN SOLUTION -->", "<!-- ### END SOLUTION -->"),
}
HOLES = {
    "code": 'raise NotImplementedError("your code here")',
    "markdown": "*Your answer here.*",
}


class MarkerError(ValueError):
    """Solution markers that do not pair up, and where they stand."""


def with_holes(source: str, kind: str = "code", where: str = "cell") -> str:
    r"""Return the text of a cell with a hole in place of each marked answer.

    >>> with_holes("x = 1\n### BEGIN SOLUTION\ny = 2\n### END SOLUTION\nz = 3")
    'x = 1\nraise NotImplementedError("your code here")\nz = 3'

    Raises MarkerError, which names the line in `where`, if a marker is misspelt, has no
    partner, stands inside another pair, or is indented otherwise than its partner.
    """

    def error(number: int, what: str) -> MarkerError:
        return MarkerError(f"{where}, line {number}: {what}")

    begins, ends = MARKERS[kind]
    lines: list[str] = []
    begin = None  # the line and indent of the pair that is open
    for number, line in enumerate(source.split("\n"), 1):
        text = line.strip()
        indent = line[: len(line) - len(line.lstrip())]
        if text == begins:
            if begin:
                raise error(number, f'"{begins}" inside the pair of line {begin[0]}')
            begin = number, indent
            lines.append(indent + HOLES[kind])
        elif text == ends:
            if not begin:
                raise error(number, f'"{ends}" has no "{begins}" before it')
            if indent != begin[1]:
                raise error(
                    number,
                    f"indented by {len(indent)}, its partner in line {begin[0]} by "
                    f"{len(begin[1])}; the two must stand in one block",
                )
            begin = None
        elif looks_like_a_marker(text):
            raise error(number, f'"{text}" must be exactly "{begins}" or "{ends}"')
        elif not begin:
            lines.append(line)
    if begin:
        raise error(begin[0], f'"{begins}" has no "{ends}" after it')
    return "\n".join(lines)


def looks_like_a_marker(text: str) -> bool:
    """Say whether a line is a marker, or was meant to be one.

    >>> [looks_like_a_marker(t) for t in ("## begin soluton", "x = 1  # END SOLUTION", "#")]
    [True, True, False]
    """
    upper = text.upper()
    known = [marker for pair in MARKERS.values() for marker in pair]
    return bool(
        re.search(r"\b(BEGIN|END)[\s_-]+SOLUTIONS?\b", upper)
        or (text.startswith(("#", "<!--")) and get_close_matches(upper, known, 1, 0.8))
    )


def exercise_from(solution: "NotebookNode", name: str = "solution") -> "NotebookNode":
    """Return the exercise of a solution: holes instead of answers, and no outputs.

    The answer cells cannot be deleted, the checks and the set-up cell not changed either;
    this is what nbgrader does. Raises MarkerError if an answer has no markers, or anything
    else has some.
    """
    exercise = plain(solution)
    for cell in exercise.cells:
        where = f"{name}, cell {cell.id}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if cell.id.startswith("answer-") and cell.cell_type in HOLES:
            filled = cell.source
            cell.source = with_holes(filled, cell.cell_type, where)
            if cell.source == filled:
                raise MarkerError(
                    f'{where}: an answer stands between "{MARKERS[cell.cell_type][0]}" '
                    f'and "{MARKERS[cell.cell_type][1]}"; there is none'
                )
        for number, line in enumerate(cell.source.split("\n"), 1):
            if looks_like_a_marker(line.strip()):
                raise MarkerError(
                    f"{where}, line {number}: a marker in a cell that is no answer; "
                    "an answer is code or text with an id that begins with answer-"
                )
        if role := cell.metadata.get("nbgrader"):
            role["cell_type"] = cell.cell_type
            cell.metadata["deletable"] = False
            if not role["solution"]:
                cell.metadata["editable"] = False
    return exercise


def plain(notebook: "NotebookNode") -> "NotebookNode":
    """Return a copy with the house's metadata and, of the cells', only what is kept."""
    notebook = deepcopy(notebook)
    notebook.metadata = METADATA
    asks = any(cell.id.startswith("answer-") for cell in notebook.cells)
    for cell in notebook.cells:
        role = asks and nbgrader_role(cell)
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in KEPT}
        if role:
            cell.metadata["nbgrader"] = role
    return notebook


def nbgrader_role(cell: "NotebookNode") -> dict | None:
    """Return the metadata, in nbgrader's third format, of a cell that it must know.

    Code is graded by its check. A text answer is graded by hand and is worth no points: it
    is there to be compared with the model answer. The set-up cell is only locked; all other
    cells are the student's to play with.
    """
    kind, _, name = cell.id.partition("-")
    solution, check = kind == "answer", kind == "check"
    locked = check or "setup" in cell.metadata.get("tags", [])
    grade = check or (solution and cell.cell_type == "markdown")
    if not (solution or locked):
        return None
    points = {"points": find(name)[1].points if check else 0} if grade else {}
    return {
        "grade": grade,
        "grade_id": cell.id,
        "locked": locked,
        **points,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }


def shown(outputs: "list[NotebookNode]") -> "list[NotebookNode]":
    """Return what a reader sees of a cell's outputs when no kernel runs.

    Left out: stderr (progress bars, warnings with paths); the views of widgets, of which
    only the static picture beside them stays; and the HTML beside a picture, which is the
    same picture once more. Neighbouring prints become one.
    """
    result = []
    for output in deepcopy(outputs):
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            if result and result[-1].get("name") == output.name:
                result[-1].text += output.text
                continue
        elif "image/png" in output.get("data", {}):
            for kind in (WIDGET, "text/html"):
                output.data.pop(kind, None)
        elif WIDGET in output.get("data", {}):
            continue
        result.append(output)
    return result


def agree(saved: str, new: str) -> bool:
    """Say whether two texts have the same words, and numbers that are alike.

    Whole numbers must be equal, others within RTOL and ATOL: another machine may add in
    another order. Spaces do not count.

    >>> agree("loss 0.30000000, 12 of 15", "loss  0.30000001, 12 of 15")
    True
    >>> agree("12 of 15", "13 of 15"), agree("loss 0.3", "lost 0.3")
    (False, False)
    """
    if NUMBER.sub("#", saved).split() != NUMBER.sub("#", new).split():
        return False
    pairs = zip(NUMBER.findall(saved), NUMBER.findall(new), strict=True)
    return all(
        int(a.rstrip(".")) == int(b.rstrip("."))
        if re.fullmatch(r"[-+]?\d+\.? [-+]?\d+\.?", f"{a} {b}")
        else math.isclose(float(a), float(b), rel_tol=RTOL, abs_tol=ATOL)
        for a, b in pairs
    )


def tidy(notebook: "NotebookNode") -> "NotebookNode":
    """Return the executed notebook without what changes from run to run."""
    notebook = plain(notebook)
    count = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            count += cell.execution_count is not None
            cell.execution_count = cell.execution_count and count
            cell.outputs = shown(cell.outputs)
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count
    return notebook


def execute(path: Path) -> "NotebookNode":
    """Return the notebook after running all its cells.

    It runs as in JupyterLab: in its own folder, with this Python, and with the course
    that this module belongs to. Raises CellExecutionError at the first cell that fails.
    """
    from nbclient import NotebookClient

    notebook = read(path)
    search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(search)})
    return notebook


def read(path: Path) -> "NotebookNode":
    """Return the notebook."""
    import nbformat

    return nbformat.read(path, as_version=4)


def write(notebook: "NotebookNode", path: Path) -> None:
    """Write the notebook, whole or not at all."""
    import nbformat

    nbformat.validate(notebook)
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    write_whole(path, text.encode())


def exercises() -> "dict[Path, NotebookNode]":
    """Return each exercise, by the path where it belongs."""
    solutions = sorted((ROOT / "solutions").glob("*.ipynb"))
    return {
        ROOT / "exercises" / path.name: exercise_from(read(path), f"solutions/{path.name}")
        for path in solutions
    }


def worked_in(path: Path) -> bool:
    """Say whether somebody worked in the exercise: ran a cell, or filled a hole."""
    cells = read(path).cells if path.exists() else []
    return any(
        cell.get("outputs")
        or (
            cell.get("id", "").startswith("answer-")
            and HOLES.get(cell.cell_type, "no hole") not in cell.source
        )
        for cell in cells
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Run each notebook and save it with what it showed."""
    from nbclient.exceptions import CellExecutionError

    for path in arguments.notebooks:
        if path.resolve().parent == ROOT / "exercises":
            print(f"{path}: exercises are saved without outputs; run its solution")
            return 2
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            print(f"{path}: not saved, because a cell failed:\n{error}", file=sys.stderr)
            return 1
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if output.get("name") == "stderr" and "it/s" not in output.text:
                    print(f"{path}, cell {cell.id}, stderr (not saved):\n{output.text}")
        write(tidy(notebook), path)
        print(f"{path}: run and saved")
    return 0


def build_command(arguments: argparse.Namespace) -> int:
    """Write the exercises, or with --check say which are not up to date."""
    stale = []
    for path, exercise in exercises().items():
        name = path.relative_to(ROOT)
        if path.exists() and read(path) == exercise:
            continue
        stale.append(name)
        if arguments.check:
            print(f"{name}: not what its solution gives; run: course exercises build")
        elif worked_in(path) and not arguments.force:
            print(f"{name}: somebody worked in it; move it away, or lose it by --force")
            return 1
        else:
            path.parent.mkdir(exist_ok=True)
            write(exercise, path)
            print(f"{name}: written")
    return int(arguments.check and bool(stale))


def add_parsers(subparsers: argparse._SubParsersAction) -> None:
    """Add `notebooks run` and `exercises build` to the course command."""
    notebooks = subparsers.add_parser("notebooks", help="run notebooks and save them")
    verbs = notebooks.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser("run", help="run each notebook in place, then tidy it")
    run.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    run.set_defaults(run=run_command)

    derived = subparsers.add_parser("exercises", help="derive exercises from solutions")
    verbs = derived.add_subparsers(required=True, metavar="VERB")
    build = verbs.add_parser("build", help="write exercises/ from solutions/")
    build.add_argument("--check", action="store_true", help="write nothing, only compare")
    build.add_argument("--force", action="store_true", help="overwrite students' work")
    build.set_defaults(run=build_command)
