"""The comparison of notebooks catches what it is there for: tried on a copy of the course.

Each test runs the part of `run.py test` that compares notebooks, as the command does.
"""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from course import notebooks as tool
from tests.notebooks_here import ROOT, code, read

HOMEWORK = "solutions/09_convolution.ipynb"
NBVAL = ["--nbval", "--nbval-current-env", "--color=no", "-p", "no:cacheprovider"]
COMMAND = "import sys, run; sys.exit(run.test(sys.executable, sys.argv[1:]))"


@pytest.fixture
def copy(tmp_path):
    """A copy of the course, with folders for its notebooks and its machine code."""
    for name in ("conftest.py", "pyproject.toml", "run.py"):
        shutil.copy(ROOT / name, tmp_path)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "course", tmp_path / "course", ignore=ignore)
    (tmp_path / "lectures").mkdir()
    (tmp_path / "solutions").mkdir()
    return tmp_path


def compare(copy, *arguments, **environment):
    """Return the exit code of the test command on the copy, and its words."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *NBVAL, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def change(text, old, new):
    """Return the text with the first `old` replaced; it must stand there."""
    assert old in text
    return text.replace(old, new, 1)


THIRDS = "0.6666666666666666"
PLANTED = {  # what is changed in the saved notebook, and the cells that must fail
    "nothing": ((), set()),
    "the last digit": ((THIRDS, "0.6666666666666667"), set()),
    "less than a millionth": ((THIRDS, "0.666667"), set()),
    "more than a millionth": ((THIRDS, "0.66667"), {1}),
    "a whole number": (("42 pixels\\n", "43 pixels\\n"), {2}),
    "a word": (("42 pixels\\n", "42 images\\n"), {2}),
    "never run": (None, {0, 1, 2}),
}


def test_words_and_whole_numbers_are_exact_and_others_nearly(copy, monkeypatch):
    monkeypatch.setattr(tool, "ROOT", copy)
    first = copy / "lectures/nothing.ipynb"
    sources = ["import course", "2 / 3", "print(f'{41 + 1} pixels')"]
    cells = [new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    nbformat.write(new_notebook(cells=cells), first)
    tool.write(tool.tidy(tool.execute(first)), first)
    for name, (planted, _) in PLANTED.items():
        path = copy / f"lectures/{name}.ipynb"
        if planted is None:
            nbformat.write(tool.exercise_from(read(first)), path)
        elif planted:
            path.write_text(change(first.read_text(), *planted))

    exit_code, words = compare(copy, "lectures")
    failed = re.findall(r"^FAILED lectures/(.+)\.ipynb::Cell (\d+)", words, re.MULTILINE)
    expected = {(name, str(n)) for name, (_, cells) in PLANTED.items() for n in cells}
    assert set(failed) == expected, words
    assert exit_code == 1
    assert "saved without being run" in words


@pytest.fixture
def homework(copy):
    """The solution that holds the homework, and the number of the cell that shows 3."""
    path = copy / HOMEWORK
    shutil.copy(ROOT / HOMEWORK, path)
    names = [cell.id for cell in code(read(path))]
    return path, names.index("homework-result")


def test_a_wrong_homework_result_is_caught(copy, homework):
    path, result = homework
    notebook = read(path)
    for output in code(notebook)[result].outputs:
        texts = output.get("data", output)
        for key in {"text", "text/plain"} & texts.keys():
            texts[key] = re.sub(r"\b3\b", "4", texts[key])
    assert notebook != read(path), "the cell homework-result shows no 3"
    nbformat.write(notebook, path)
    exit_code, words = compare(copy, HOMEWORK, "-x")
    assert exit_code == 1, words
    assert f"1 failed, {result} passed" in words


def test_a_wrong_sign_in_conv2d_is_caught(copy, homework):
    _, result = homework
    loops = copy / "course/engine/tile.py"  # its products are those of conv2d
    source = loops.read_text(encoding="utf-8")
    wrong = change(source, '"fmuladd", number,', '"fmuladd", build.fneg(number),')
    loops.write_text(wrong, encoding="utf-8")
    exit_code, words = compare(copy, HOMEWORK, "-x", COURSE_CACHE=str(copy / "cache"))
    assert exit_code == 1, words
    assert int(re.search(r"1 failed, (\d+) passed", words).group(1)) <= result
