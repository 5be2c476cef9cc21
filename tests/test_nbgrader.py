"""A teacher who has nbgrader can use the solutions there as they are.

Needs the extra: pip install "convnet-course[nbgrader]".
"""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from course import notebooks as tool
from course.exercises.spec import questions
from tests.notebooks_here import ROOT, every, read

pytest.importorskip("nbgrader", reason="nbgrader is not installed")
NOTEBOOK = "03_scores_to_loss"
WRONG = "entropy_bits", "    return -(p * np.log(p)).sum()"
STUBS = {
    "code": "# YOUR CODE HERE\nraise NotImplementedError()",
    "markdown": "YOUR ANSWER HERE",
}


def without_checksums(notebook):
    """Return the notebook without what nbgrader computes of its cells."""
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            assert len(cell.metadata["nbgrader"].pop("checksum")) == 32
    return notebook


@every("solutions")
def test_its_own_steps_make_the_same_exercise(path):
    from nbgrader import preprocessors as steps

    made = read(path)
    for step in (
        steps.LockCells(),
        steps.ClearSolutions(
            code_stub={"python": tool.HOLES["code"]}, text_stub=tool.HOLES["markdown"]
        ),
        steps.ClearOutput(),
        steps.CheckCellMetadata(),
        steps.ComputeChecksums(),
        steps.CheckCellMetadata(),
    ):
        made, _ = step.preprocess(made, {})
    assert without_checksums(made) == tool.exercise_from(read(path))


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """The folder of a course in which three students' notebooks are graded."""
    home = tmp_path_factory.mktemp("school")

    def nbgrader(*arguments):
        search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        programs = [
            str(Path(sys.executable).parent),
            os.environ["PATH"],
        ]  # it calls alembic
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *arguments],
            cwd=home,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(search),
                "PATH": os.pathsep.join(programs),
                "JUPYTER_PREFER_ENV_PATH": "1",
                "IPYTHONDIR": str(home / "ipython"),
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def submitted(student):
        path = home / "submitted" / student / "e03" / f"{NOTEBOOK}.ipynb"
        path.parent.mkdir(parents=True)
        return path

    source, release = (
        home / folder / "e03" / f"{NOTEBOOK}.ipynb" for folder in ("source", "release")
    )
    source.parent.mkdir(parents=True)
    shutil.copy(ROOT / "solutions" / source.name, source)
    nbgrader("generate_assignment", "e03")
    shutil.copy(release, submitted("untouched"))
    answers = {cell.id: cell for cell in read(source).cells}
    made = read(release)
    for cell in made.cells:
        if cell.id.startswith("answer-"):
            cell.source = answers[cell.id].source
    nbformat.write(made, submitted("right"))
    name, line = WRONG
    cell = next(cell for cell in made.cells if cell.id == f"answer-{name}")
    cell.source = f"{cell.source.splitlines()[0]}\n{line}"
    nbformat.write(made, submitted("wrong"))
    nbgrader("autograde", "e03")
    nbgrader("export", "--to", "grades.csv")
    return home


@pytest.mark.slow
def test_it_releases_our_exercise(school):
    made = without_checksums(read(school / "release/e03" / f"{NOTEBOOK}.ipynb"))
    for cell in made.cells:
        if cell.id.startswith("answer-"):
            stub = STUBS[cell.cell_type].replace("\n", "\n    ")
            assert stub in cell.source
            cell.source = cell.source.replace(stub, tool.HOLES[cell.cell_type])
    assert made == read(ROOT / "exercises" / f"{NOTEBOOK}.ipynb")


@pytest.mark.slow
def test_right_wrong_and_untouched_answers_have_their_points(school):
    with open(school / "grades.csv", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    points = {question.name: question.points for question in questions(NOTEBOOK)}
    total = sum(points.values())
    assert {float(row["max_score"]) for row in rows.values()} == {total}
    assert {name: float(row["score"]) for name, row in rows.items()} == {
        "right": total,
        "wrong": total - points[WRONG[0]],
        "untouched": 0,
    }
