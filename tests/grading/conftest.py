"""Notebooks of the sample exercise, right and wrong, and the command that grades them."""

import json
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course import cli
from course.exercises import spec
from course.grading.runner import grade

RIGHT = {
    "running_sum": "def running_sum(x):\n    return np.cumsum(x)",
    "slope_backward": "def slope_backward(dy, x):\n    return 3 * dy, dy.sum()",
    "breaker": "def breaker():\n    return [1, -2]",
}
FAST = {
    "sum_squares": (
        "from numba import njit\n\n@njit\ndef sum_squares(x):\n    total = 0.0\n"
        "    for element in x:\n        total += element * element\n    return total"
    )
}
SETUP = "import numpy as np\n\nfrom course import check, progress"


def stub(source):
    """Return the source of an answer with nothing in it."""
    head = next(line for line in source.splitlines() if line.startswith("def "))
    return f'{head}\n    raise NotImplementedError("your code here")'


def notebook(answers):
    """Return a notebook with these answers, and the cells around them."""
    setup = new_code_cell(SETUP, id="setup", metadata={"tags": ["setup"]})
    cells = [new_markdown_cell("# Sample", id="title"), setup]
    for name, source in answers.items():
        cells.append(new_code_cell(source, id=f"answer-{name}"))
        cells.append(new_code_cell(f"{name} = check({name})", id=f"check-{name}"))
    return new_notebook(cells=cells)


@pytest.fixture
def sample(monkeypatch):
    """Let the sample be the only exercise that is known."""
    for other in list(spec.MODULES):
        monkeypatch.delitem(spec.MODULES, other)
    monkeypatch.setitem(spec.MODULES, "00_sample", "tests.exercises.sample")


@pytest.fixture
def solutions(tmp_path, sample):
    """Return a folder with the sample's solution."""
    folder = tmp_path / "solutions"
    folder.mkdir()
    nbformat.write(notebook(RIGHT | FAST), folder / "00_sample.ipynb")
    return folder


@pytest.fixture
def submit(tmp_path, solutions, capsys):
    """Grade one notebook with the real command; return its exit code, table and results.

    `answers` replace the right ones, which leave out sum_squares: it takes a while to
    compile. `change` may do anything to the notebook.
    """

    def submit(answers=None, change=None, name="alice.ipynb", seconds=20, secret=None):
        path: Path = tmp_path / "submitted" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        made = notebook(RIGHT | (answers or {}))
        if change:
            change(made)
        path.write_text(json.dumps(made), "utf-8")
        arguments = ["grade", str(path), "--out", str(tmp_path / "out")]
        arguments += ["--solutions", str(solutions), "--timeout", str(seconds)]
        code = cli.main(arguments + (["--secret-file", str(secret)] if secret else []))
        shown = capsys.readouterr()
        folder = tmp_path / "out" / "submissions" / name
        results = json.loads((folder / "results.json").read_text("utf-8"))
        points = {test["name"]: test["score"] for test in results["tests"]}
        return SimpleNamespace(
            code=code,
            table=shown.out,
            errors=shown.err,
            folder=folder,
            points=points,
            total=results["score"],
            states={t["name"]: t["extra_data"]["state"] for t in results["tests"]},
            says={t["name"]: t["output"] for t in results["tests"]},
        )

    return submit


WRONG = {
    "running_sum": "def running_sum(x):\n    return np.cumsum(x) - x",
    "slope_backward": "def slope_backward(dy, x):\n    return 3 * dy, 1 + dy.sum()",
    "breaker": "def breaker():\n    return [1, 2]",
}
HARMFUL = {
    "running_sum": "def running_sum(x):\n    raise ValueError('<script>alert(1)</script>')",
    "slope_backward": "import os\ndef slope_backward(dy, x):\n    os._exit(0)",
    "breaker": "def breaker():\n    return '<img src=x onerror=alert(1)>'",
}


@pytest.fixture(scope="session")
def graded(tmp_path_factory):
    """Return submissions as the grader made them: what they are -> Submission."""
    folder = tmp_path_factory.mktemp("graded")
    nbformat.write(notebook(RIGHT | FAST), folder / "00_sample.ipynb")
    twice = notebook(RIGHT)
    twice.cells.append(dict(twice.cells[2], source="def running_sum(x):\n    return x"))
    made = {
        "right": ("ann/00_sample.ipynb", notebook(RIGHT)),
        "wrong": ("bob/00_sample.ipynb", notebook(WRONG)),
        "harmful": ("<script>alert(1)</script>.ipynb", notebook(HARMFUL)),
        "untouched": ("cy.ipynb", notebook({k: stub(v) for k, v in RIGHT.items()})),
        "twice": ("dee.ipynb", twice),
        "broken": ("eve.ipynb", "{"),
    }
    path, results = folder / "submitted.ipynb", {}
    with pytest.MonkeyPatch.context() as patch:
        for other in list(spec.MODULES):
            patch.delitem(spec.MODULES, other)
        patch.setitem(spec.MODULES, "00_sample", "tests.exercises.sample")
        for what, (name, content) in made.items():
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, "utf-8")
            results[what] = grade(path, name, folder, seconds=20, sandbox="none")
    return results
