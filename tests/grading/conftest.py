"""Notebooks of the sample exercise, right and wrong, and the command that grades them."""

import json
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course import cli
from course.exercises import spec

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
def submit(tmp_path, monkeypatch, capsys):
    """Grade one notebook with the real command; return its exit code, table and results.

    `answers` replace the right ones, which leave out sum_squares: it takes a while to
    compile. `change` may do anything to the notebook.
    """
    for other in list(spec.MODULES):
        monkeypatch.delitem(spec.MODULES, other)
    monkeypatch.setitem(spec.MODULES, "00_sample", "tests.exercises.sample")
    solutions = tmp_path / "solutions"
    solutions.mkdir()
    nbformat.write(notebook(RIGHT | FAST), solutions / "00_sample.ipynb")

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
        folder = (tmp_path / "out" / name).with_suffix("")
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
