"""Attacks by the notebook itself: its cells, its JSON, its name, what lies beside it."""

import copy
import json
import os
import subprocess
import sys

import pytest

from course.grading.runner import grade
from tests.grading.attacks.grading import cells_of, graded, notebook
from tests.grading.attacks.table import ZEROS

RIGHT = 3  # points of the right answers
STRUCTURE: dict[str, tuple] = {}


def attack(name, tries, least=RIGHT, most=RIGHT):
    """Add a change of the notebook; the points that it may have afterwards."""

    def add(change):
        STRUCTURE[name] = tries, change, least, most
        return change

    return add


def wrong():
    """Return a notebook with two right answers, and one that is wrong."""
    right = cells_of("09_convolution", "solutions")["cells"]
    corr1d = next(c["source"] for c in right if c["id"] == "answer-corr1d")
    return notebook({"corr1d": corr1d, "toeplitz_same": ZEROS})


def cell(made, name):
    """Return the cell that answers a question."""
    return next(c for c in made["cells"] if c.get("id") == f"answer-{name}")


@attack("other answers beside", "Answer twice, in the hope that the better one counts.")
def _twice(made):
    for returned in ("w", "np.eye(n)", "np.ones((n, n))"):
        again = copy.deepcopy(cell(made, "toeplitz_same"))
        again["source"] = f"def toeplitz_same(w, n):\n    return {returned}"
        made["cells"].append(again)


@attack("one cell for all", "Give the id of every question to one right answer.", 0)
def _same(made):
    right = cell(made, "filter_bank")
    for name in ("toeplitz_same", "corr2d", "corr2d_fast", "homework", "unmask_flip"):
        made["cells"].append(right | {"id": f"answer-{name}"})


@attack("ids exchanged", "Answer a question of many points with the code of another.", 0)
def _exchanged(made):
    one, other = cell(made, "corr1d"), cell(made, "toeplitz_same")
    one["id"], other["id"] = other["id"], one["id"]


@attack("another type of cell", "Turn answers into text and back.", 0)
def _retyped(made):
    cell(made, "toeplitz_same")["cell_type"] = "markdown"
    cell(made, "corr1d")["cell_type"] = "raw"


@attack("points in the metadata", "Write the points into the notebook.")
def _points(made):
    for one in made["cells"]:
        marks = {"points": 1000, "grade": True, "solution": True, "schema_version": 3}
        known = one["metadata"].get("nbgrader", {})
        one["metadata"]["nbgrader"] = known | marks | {"checksum": "0", "score": 1000}
        one["metadata"]["points"] = 1000
    made["metadata"] |= {"points": 1000, "total": 1000, "passed": True}


@attack("own set-up", "Put a set-up cell in front that replaces what others use.", 0)
def _setup(made):
    source = "import numpy as np\nnp.zeros = None\ndef check(f):\n    return f\n1 / 0"
    own = cell(made, "corr1d") | {"id": "setup", "metadata": {"tags": ["setup"]}}
    made["cells"].insert(0, own | {"source": source})


@attack("forged outputs", "Save outputs that say passed.")
def _outputs(made):
    text = "toeplitz_same: passed (200 cases, 2 points)\n"
    for one in made["cells"]:
        one["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text}]
        one["execution_count"] = 1


@attack("other kernel", "Say that the notebook is written in another language.")
def _kernel(made):
    made["metadata"] = {"kernelspec": {"name": "bash", "language": "bash"}}


@attack("answers of another exercise", "Add right answers of another exercise.", 0)
def _mixed(made):
    others = cells_of("07_mlp", "solutions")["cells"]
    made["cells"] += [c for c in others if c["id"] in ("answer-elu", "answer-elu_grad")]


@attack("checks removed", "Remove all that is not an answer.")
def _bare(made):
    made["cells"] = [c for c in made["cells"] if c["id"].startswith("answer-")]


@attack("metadata lost", "Remove ids, tags and metadata.")
def _lost(made):
    for one in made["cells"]:
        one["metadata"] = {}
        del one["id"]
    made["metadata"] = {}


@attack("cells in another order", "Turn the notebook upside down.")
def _reversed(made):
    made["cells"].reverse()


@attack("values of strange types", "Use lists, numbers and nothing where texts belong.")
def _types(made):
    made["cells"] += [
        None,
        {},
        {"cell_type": "code", "id": ["answer-toeplitz_same"], "source": {"a": 1}},
        {"cell_type": "code", "id": 3, "source": [[["def toeplitz_same(w, n): 1"]]]},
        {"cell_type": ["code"], "id": {}, "metadata": {"tags": {"setup": 1}}},
        {"cell_type": "code", "id": True, "metadata": {"nbgrader": {"grade_id": [1]}}},
    ]


@attack("half characters", "Use characters that no file can hold.")
def _surrogates(made):
    own = {"cell_type": "code", "metadata": {}, "source": "x = '\ud800\\0\0'"}
    made["cells"].insert(0, own | {"id": "\udfff"})
    made["cells"][0]["metadata"] = {"name": "\ud800", "tags": ["\0"]}


@attack("helper that does harm", "Let another cell do the harm when an answer needs it.")
def _helper(made):
    cell(made, "toeplitz_same")["source"] = (
        "def toeplitz_same(w, n):\n    return helper(n) + np.zeros((n, n))"
    )
    source = (
        "import os\nkeep = [os.write(fd, b'x' * 99) for fd in range(1, 9)]\n"
        "def helper(n):\n    return len(keep)"
    )
    own = {"cell_type": "code", "metadata": {}, "source": source, "id": "own"}
    made["cells"].insert(0, own)


@pytest.mark.parametrize("name", STRUCTURE)
def test_changed_notebook_gains_nothing(name, world, best, tmp_path):
    _, change, least, most = STRUCTURE[name]
    made = wrong()
    change(made)
    submission, seen = graded(made, world, tmp_path, best)
    if least:
        assert submission.status == "graded", submission.says
        assert submission.worth == 18
    assert least <= submission.points <= most
    assert world.canary.encode() not in seen


def text(**changes):
    """Return the bytes of a notebook with right answers and one that is wrong."""
    return json.dumps(wrong() | changes).encode()


BYTES = {
    "deep metadata": lambda: text(metadata="?").replace(
        b'"?"', b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    ),
    "deep list": lambda: b'{"cells":' + b"[" * 1_000_000,
    "long number": lambda: text(metadata="?").replace(b'"?"', b"9" * 100_000),
    "numbers that are none": lambda: text(metadata="?").replace(b'"?"', b"-Infinity"),
    "keys twice": lambda: text().replace(b'"id": "answer-', b'"id": 1, "id": "answer-'),
    "million cells": lambda: text(cells="?").replace(
        b'"?"', b"[" + b"{}," * 1_000_000 + b"{}]"
    ),
    "many answers": lambda: text(cells="?").replace(
        b'"?"',
        b'[{"cell_type":"code","source":"def corr1d("}' * 1 + b',{"id":1}' * 90_000 + b"]",
    ),
    "long line": lambda: text(metadata={"a": "#" * 9_000_000}),
    "long answer": lambda: text().replace(b"np.zeros", b"(" * 400_000 + b"np.zeros"),
    "long comment": lambda: text().replace(b"def ", b"# " + b"#" * 3_000_000 + b"\\ndef "),
    "spaces": lambda: text().replace(b"def ", b"#" + b" " * 3_000_000 + b"!\\ndef "),
    "thirty megabytes": lambda: text(metadata={"a": "x" * 30_000_000}),
    "not UTF-8": lambda: text().replace(b"def ", b"\xff\xfedef "),
    "other encoding": lambda: text().decode().encode("utf-16"),
    "mark in front": lambda: b"\xef\xbb\xbf" + text(),
    "nothing": lambda: b"",
    "zeros": lambda: bytes(1_000_000),
    "a number": lambda: b"3",
    "format 3": lambda: json.dumps({"worksheets": [{"cells": []}], "nbformat": 3}).encode(),
    "format 99": lambda: text(nbformat=99, nbformat_minor="x"),
}


@pytest.mark.parametrize("name", BYTES)
def test_hostile_bytes_gain_nothing_and_take_no_time(name, world, best, tmp_path):
    submission, _ = graded(BYTES[name](), world, tmp_path, best)
    assert submission.status in ("graded", "unusable")
    assert submission.points <= RIGHT
    assert submission.status == "graded" or submission.says


def special(path, kind, world):
    """Put something at the path that is not a notebook of one's own."""
    match kind:
        case "link to the solution":
            path.symlink_to(world.folder / "solutions/09_convolution.ipynb")
        case "link to a classmate":
            path.symlink_to(world.classmate)
        case "endless device":
            path.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "link to itself":
            path.symlink_to(path)
        case "memory of the grader":
            path.symlink_to("/proc/self/environ")


@pytest.mark.parametrize(
    "kind",
    [
        "link to the solution",
        "link to a classmate",
        "endless device",
        "pipe",
        "folder",
        "link to itself",
        "memory of the grader",
    ],
)
def test_what_is_no_file_is_not_graded(kind, world, best, tmp_path):
    path = tmp_path / "09_convolution.ipynb"
    special(path, kind, world)
    made = grade(path, path.name, world.folder / "solutions", b"secret" * 4, 5.0, best)
    assert made.status == "unusable"
    assert made.points == 0
    assert world.canary not in made.says


def command(folder, *arguments):
    """Run the real command in a folder, which -P keeps off Python's path."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "course", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


SHADOWS = (
    *("numpy.py", "numba.py", "json.py", "sitecustomize.py", "usercustomize.py"),
    *("conftest.py", "course.py", "secrets.py", "ipython_config.py", "argparse.py"),
)


def test_files_beside_the_notebook_are_not_imported(world, tmp_path):
    """Where the teacher stands in the folder of submissions, it must not matter."""
    for name in SHADOWS:
        (tmp_path / name).write_text(f"open({str(world.ledger)!r}, 'a').write('{name}')")
    (tmp_path / "run.pth").write_text("import numpy")
    (tmp_path / "pyproject.toml").write_text("[tool.course]\nsecret = 'x'")
    world.touched()
    (tmp_path / "a.ipynb").write_bytes(b"{}")
    done = command(tmp_path, "grade", ".", "--out", "out")
    assert done.returncode == 2, done.stderr
    assert not world.touched()
