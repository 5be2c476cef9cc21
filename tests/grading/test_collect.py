"""`course grade collect`, on real git repositories, kind and hostile ones."""

import os
import subprocess

import pytest

from course import cli
from course.grading.collect import collect, read_list

HEAD = "HEAD"


def git(folder, *words):
    env = dict(os.environ, GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull)
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    done = subprocess.run(
        ["git", *who, *words],
        cwd=folder,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A student's repository with one notebook, a link, and files that are no notebooks."""
    folder = tmp_path / "repository"
    (folder / "exercises" / "deeper").mkdir(parents=True)
    (folder / "exercises" / "09.ipynb").write_text("one")
    (folder / "exercises" / "notes.txt").write_text("no notebook")
    (folder / "exercises" / "deeper" / "07.ipynb").write_text("below")
    (folder / "exercises" / "link.ipynb").symlink_to("/etc/passwd")
    (folder / "other.ipynb").write_text("elsewhere")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_notebooks_of_the_exercises_folder_are_pulled(repository, tmp_path):
    assert collect(str(repository), HEAD, tmp_path / "class" / "ann") == ["09.ipynb"]
    (file,) = (tmp_path / "class").rglob("*.*")
    assert file.read_text() == "one"
    assert not file.is_symlink()


def test_an_older_commit_can_be_asked_for(repository, tmp_path):
    first = git(repository, "rev-parse", HEAD)
    (repository / "exercises" / "09.ipynb").write_text("two")
    git(repository, "commit", "-q", "-am", "late")
    collect(str(repository), first, tmp_path / "then")
    collect(str(repository), HEAD, tmp_path / "now")
    assert (tmp_path / "then" / "09.ipynb").read_text() == "one"
    assert (tmp_path / "now" / "09.ipynb").read_text() == "two"


def test_nothing_of_the_repository_runs(repository, tmp_path):
    """Filters, hooks and submodules stay what they are: text."""
    mark = tmp_path / "ran"
    (repository / ".gitattributes").write_text("*.ipynb filter=evil\n")
    (repository / ".gitmodules").write_text(
        f'[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch {mark}"\n'
    )
    git(repository, "config", "filter.evil.smudge", f"touch {mark}; cat")
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
    hook.chmod(0o755)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "evil")
    mark.unlink(missing_ok=True)
    collect(str(repository), HEAD, tmp_path / "class")
    assert not mark.exists()


@pytest.mark.parametrize("url", ["ext::sh -c 'touch {}'", "git://127.0.0.1:9/x", "nowhere"])
def test_other_ways_to_fetch_are_refused(tmp_path, url):
    mark = tmp_path / "ran"
    with pytest.raises(ValueError, match=r"not allowed|does not exist|not found"):
        collect(url.format(mark), HEAD, tmp_path / "class")
    assert not mark.exists()
    assert not (tmp_path / "class").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ann", "line 1: not NAME URL"),
        ("ann a b c d", "line 1: not NAME URL"),
        ("# nobody\n", "names nobody"),
        ("../ann https://example.org/a", "is no name of a folder"),
        (".git https://example.org/a", "is no name of a folder"),
        ("ann https://example.org/a\nann https://example.org/b", "line 2: 'ann' was there"),
        ("ann --upload-pack=touch", "is no URL and commit"),
        ("ann https://example.org/a --help", "is no URL and commit"),
    ],
)
def test_bad_lists_are_named(text, says):
    with pytest.raises(ValueError, match=says):
        read_list(text)


def test_command_goes_on_after_a_repository_that_fails(repository, tmp_path, capsys):
    (repository / "empty").mkdir()
    git(repository / "empty", "init", "-q")
    students = tmp_path / "submissions.txt"
    students.write_text(
        f"# the class\nann {repository}\nbob {repository}/empty\nzoë {tmp_path}/none\n"
    )
    out = tmp_path / "class"
    assert cli.main(["grade", "collect", str(students), "--out", str(out)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "ann: 09.ipynb\n"
    assert "bob: " in shown.err
    assert "zoë: " in shown.err
    assert [path.name for path in out.iterdir()] == ["ann"]
