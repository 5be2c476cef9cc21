"""`course grade` as it is typed: which files, which names, which exit code."""

import json

import pytest

from course import cli
from course.grading.command import notebooks
from tests.grading.conftest import RIGHT, notebook


@pytest.fixture
def grade(solutions, tmp_path, monkeypatch, capsys):
    """Type `course grade ...` in tmp_path; return the exit code, the output, the errors."""
    monkeypatch.chdir(tmp_path)

    def grade(*words):
        arguments = [*map(str, words), "--out", "out", "--solutions", str(solutions)]
        return cli.main(["grade", *arguments]), *capsys.readouterr()

    return grade


def write(path, answers=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook(RIGHT | (answers or {}))), "utf-8")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "its JSON is broken"),
        (b'{"cells": []}', "no exercise of the course"),
        (None, "there is no such file"),
    ],
)
def test_unusable_files_are_named(grade, tmp_path, content, says):
    if content is not None:
        (tmp_path / "bad.ipynb").write_bytes(content)
    code, _, errors = grade("bad.ipynb")
    assert code == 2
    assert "bad.ipynb" in errors
    assert says in errors


def test_one_bad_file_does_not_keep_the_others_from_their_points(grade, tmp_path):
    write(tmp_path / "good.ipynb")
    (tmp_path / "bad.ipynb").touch()
    code, shown, errors = grade("bad.ipynb", "good.ipynb", "--jobs", 1)
    assert code == 2
    assert "good.ipynb  6/10" in shown
    assert "1 of 2 graded" in shown
    assert "bad.ipynb" in errors


def test_other_people_s_notebook_is_no_exercise(grade, tmp_path):
    (tmp_path / "x.ipynb").write_text(json.dumps(notebook({"f": "def f(): ..."})), "utf-8")
    code, _, errors = grade("x.ipynb")
    assert code == 2
    assert "no exercise of the course" in errors


def test_empty_folder_and_short_secret(grade, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, errors = grade("empty")
    assert (code, "there is no notebook" in errors) == (2, True)
    (tmp_path / "secret").write_text("short")
    code, _, errors = grade("x.ipynb", "--secret-file", "secret")
    assert (code, "at least 16 bytes" in errors) == (2, True)
    code, _, errors = grade("x.ipynb", "--secret-file", "no such file")
    assert (code, "cannot be read" in errors) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--jobs", "0"],
        ["--jobs", "two"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--shard", "4/4"],
        ["--shard", "-1/4"],
        ["--shard", "1"],
        ["--shard", "0/0"],
        ["--sandbox", "perhaps"],
    ],
)
def test_senseless_options_are_refused(grade, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        grade("x.ipynb", *words)
    assert stopped.value.code == 2
    assert words[0] in capsys.readouterr().err


# ---------------------------------------------------------------- names


def names(*paths):
    return list(notebooks(list(map(str, paths))))


def test_names_in_a_folder_do_not_collide(tmp_path):
    for place in (
        "ann/09.ipynb",
        "bob/09.ipynb",
        "bob/.ipynb_checkpoints/09.ipynb",
        ".hidden/09.ipynb",
        "a folder.ipynb/Zoë & 数学.ipynb",
        f"{'x' * 249}.ipynb",
        "notes.txt",
    ):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    (tmp_path / "link.ipynb").symlink_to(tmp_path / "ann/09.ipynb")
    (tmp_path / "linked").symlink_to(tmp_path / "ann", target_is_directory=True)
    assert names(tmp_path, tmp_path / "ann/09.ipynb") == [
        "a folder.ipynb/Zoë & 数学.ipynb",
        "ann/09.ipynb",
        "bob/09.ipynb",
        f"{'x' * 249}.ipynb",
    ]


def test_a_name_in_a_folder_does_not_depend_on_who_else_is_there(tmp_path):
    for place in ("ann/09.ipynb", "bob/09.ipynb"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).touch()
        assert "ann/09.ipynb" in names(tmp_path)
    assert names(tmp_path / "ann", tmp_path / "bob") == ["ann/09.ipynb", "bob/09.ipynb"]
    assert names(tmp_path / "ann/09.ipynb") == ["09.ipynb"]


def test_nothing_is_written_outside_the_folder(grade, tmp_path):
    odd = ["a b/Zoë & 数学.ipynb", f"{'x' * 249}.ipynb", "class.csv.ipynb", "s/x.ipynb"]
    for name in odd:
        write(tmp_path / "class" / name)
    (tmp_path / "class/s/empty.ipynb").touch()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, _, _ = grade("class", "--jobs", 1)
    assert code == 2  # empty.ipynb
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    out = tmp_path / "out"
    outside = {p: t for p, t in after.items() if not (p == out or out in p.parents)}
    assert outside == before
    for name in odd:
        made = json.loads(
            (out / "submissions" / name / "submission.json").read_text("utf-8")
        )
        assert made["status"] == "graded"
        assert made["file"] == name


def test_a_folder_with_the_name_of_a_verb_is_graded(grade, tmp_path):
    write(tmp_path / "merge/09.ipynb")
    code, shown, _ = grade("./merge")
    assert code == 0
    assert "total             6/10" in shown


# ---------------------------------------------------------------- what is shown


def test_explain_shows_every_case_and_writes_nothing(grade, tmp_path):
    write(tmp_path / "x.ipynb", {"running_sum": "def running_sum(x):\n    return x + 0.5"})
    code, shown, _ = grade("x.ipynb", "--explain")
    assert code == 0
    assert "running_sum, case 1: wrong" in shown
    assert "expected  float64 (2,) [1.0, 3.0]" in shown
    assert "came back float64 (2,) [1.5, 2.5]" in shown
    assert "slope_backward, case 29: right" in shown
    assert not (tmp_path / "out").exists()


def test_the_table_is_shown_again_for_a_notebook_that_was_graded(grade, tmp_path):
    write(tmp_path / "x.ipynb")
    assert grade("x.ipynb") == grade("x.ipynb")
