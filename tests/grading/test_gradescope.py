"""Gradescope's zip: unpacked and run as Gradescope would, in another folder."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from course import cli
from course.grading import gradescope

ROOT = Path(__file__).parents[2]
EXERCISE = "09_convolution"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder like /autograder, with the zip unpacked and an environment at its place."""
    base = tmp_path_factory.mktemp("autograder")
    archive = base / "autograder.zip"
    assert cli.main(["grade", "gradescope-zip", EXERCISE, "--out", str(archive)]) == 0
    with zipfile.ZipFile(archive) as held:
        held.extractall(base / "source")
        names = held.namelist()
    assert len(names) == len(set(names))
    python = base / "source" / ".venv" / "bin" / "python"  # stands for what setup.sh makes
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH=. exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return base


@pytest.fixture
def run(base):
    """Run run_autograder on these notebooks; return its exit code and results.json."""

    def run(**notebooks):
        for folder in ("submission", "results"):
            shutil.rmtree(base / folder, ignore_errors=True)
        (base / "submission").mkdir()
        for name, content in notebooks.items():
            (base / "submission" / f"{name}.ipynb").write_text(content, "utf-8")
        done = subprocess.run(
            ["bash", str(base / "source" / "run_autograder")],
            env=dict(os.environ, AUTOGRADER=str(base)),
            capture_output=True,
            text=True,
            timeout=300,
        )
        written = base / "results" / "results.json"
        results = json.loads(written.read_text("utf-8")) if written.exists() else None
        return done, results

    return run


def text(kind, name=EXERCISE):
    return (ROOT / kind / f"{name}.ipynb").read_text("utf-8")


def test_zip_holds_what_it_needs_and_one_solution(base):
    source = base / "source"
    assert [p.name for p in (source / "solutions").iterdir()] == [f"{EXERCISE}.ipynb"]
    assert len((source / "secret").read_bytes()) == 64
    assert not list(source.rglob("*.pyc"))
    for name in ("setup.sh", "run_autograder"):
        subprocess.run(["bash", "-n", source / name], check=True)
    held = {p.relative_to(source).as_posix() for p in source.rglob("*.py")}
    tree = {p.relative_to(ROOT).as_posix() for p in (ROOT / "course").rglob("*.py")}
    assert held == tree | {"run.py"}


def test_two_zips_have_two_secrets_and_a_given_one_gives_the_same_bytes():
    assert gradescope.zipped(EXERCISE, b"s") == gradescope.zipped(EXERCISE, b"s")
    assert gradescope.zipped(EXERCISE, b"s") != gradescope.zipped(EXERCISE, b"t")


def test_solution_is_graded_and_the_folder_is_closed(run, base):
    done, results = run(mine=text("solutions"))
    assert done.returncode == 0, done.stderr
    assert results["score"] == sum(test["max_score"] for test in results["tests"]) > 10
    assert (base / "source" / "secret").stat().st_mode & 0o077 == 0
    assert (base / "source" / "solutions").stat().st_mode & 0o077 == 0


def test_untouched_exercise_has_none(run):
    done, results = run(mine=text("exercises"))
    assert done.returncode == 0, done.stderr
    assert results["score"] == 0


@pytest.mark.parametrize(
    ("notebooks", "says"),
    [
        ({}, "There are 0 notebooks"),
        ({"a": text("exercises"), "b": text("exercises")}, "There are 2 notebooks"),
        ({"a": text("exercises", "07_mlp")}, "There are 0 notebooks"),
        ({"a": "{"}, "its JSON is broken"),
    ],
)
def test_what_cannot_be_graded_is_said(run, notebooks, says):
    done, results = run(**notebooks)
    assert done.returncode == 0, done.stderr
    assert results["score"] == 0
    assert says in json.dumps(results)


def test_grader_that_cannot_work_writes_no_zero(run, base):
    solution = base / "source" / "solutions" / f"{EXERCISE}.ipynb"
    kept = solution.read_text("utf-8")
    broken = json.loads(kept)
    setup = next(c for c in broken["cells"] if "setup" in c["metadata"].get("tags", []))
    setup["source"] = "1 / 0"
    solution.write_text(json.dumps(broken), "utf-8")
    try:
        done, results = run(mine=text("solutions"))
    finally:
        solution.write_text(kept, "utf-8")
    assert done.returncode == 1
    assert results is None
    assert "ZeroDivisionError" in done.stderr
