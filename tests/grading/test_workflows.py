"""The workflows for teachers: valid YAML, few rights, and commands that run here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from course.grading.sandbox import tiers
from tests.grading.test_collect import git

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
SHARDS = range(4)


def read(name):
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))


def commands(name):
    """Return the commands of each job, one text for each."""
    jobs = read(name)["jobs"]
    return {
        job: "\n".join(step["run"] for step in body["steps"] if "run" in step)
        for job, body in jobs.items()
    }


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_has_few_rights(path):
    flow = yaml.safe_load(path.read_text("utf-8"))
    assert flow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in flow[True]  # YAML 1.1 reads `on` as true
    for job in flow["jobs"].values():
        assert job["timeout-minutes"] < 360
        assert "permissions" not in job
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))
            # what a user typed must not become a part of a command
            assert set(re.findall(r"\$\{\{ *([\w.]+)", step.get("run", ""))) <= {
                "matrix.shard"
            }


def test_job_that_runs_answers_has_no_secret():
    jobs = read("grade-class.yml")["jobs"]
    for name, job in jobs.items():
        assert ("secrets." in json.dumps(job)) == (name == "collect")
        assert ("collect submissions.txt" in json.dumps(job)) == (name == "collect")
    for step in jobs["grade"]["steps"] + read("grade.yml")["jobs"]["grade"]["steps"]:
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_shards_of_the_matrix_are_all_of_them():
    grade = read("grade-class.yml")["jobs"]["grade"]
    assert grade["strategy"]["matrix"]["shard"] == list(SHARDS)
    assert f"--shard ${{{{ matrix.shard }}}}/{len(SHARDS)} " in str(grade["steps"])


@pytest.fixture
def runner(tmp_path):
    """A machine like a runner: `python3 run.py` and `sudo` are there, the home is empty."""
    tools = tmp_path / "tools"
    tools.mkdir()
    shims = {
        "python3": f'shift; PYTHONPATH="{ROOT}" exec "{sys.executable}" -m course "$@"',
        "sudo": 'echo "$@" >> "$HOME/sudo.txt"',
    }
    for name, text in shims.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    env = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "CLASS_TOKEN": "",
        **{k: os.environ[k] for k in ("COURSE_CACHE", "LANG") if k in os.environ},
    }
    env.setdefault("COURSE_CACHE", str(cache_of_this_process()))

    def run(text):
        command = ["bash", "-eo", "pipefail", "-c", text]
        work = tmp_path / "work"
        done = subprocess.run(
            command, cwd=work, env=env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def cache_of_this_process():
    from course.compiled import user_cache

    return user_cache()


def student(tmp_path, name, kind):
    """Make the repository of a student."""
    place = tmp_path / "students" / name
    (place / "exercises").mkdir(parents=True)
    source = ROOT / kind / "03_scores_to_loss.ipynb"
    (place / "exercises" / "03_scores_to_loss.ipynb").write_bytes(source.read_bytes())
    git(place, "init", "-q")
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "done")
    return f"{name} {place}\n"


@pytest.mark.skipif(bool(tiers()["strict"]), reason=f"no strict box: {tiers()['strict']}")
def test_commands_of_the_class_run_here(runner, tmp_path):
    kinds = {"ann": "solutions", "bob": "exercises"}
    lines = [student(tmp_path, name, kind) for name, kind in kinds.items()]
    (tmp_path / "work" / "submissions.txt").write_text("".join(lines))
    jobs = commands("grade-class.yml")
    runner(jobs["collect"])
    for number in SHARDS:
        runner(jobs["grade"].replace("${{ matrix.shard }}", str(number)))
    runner(jobs["report"])
    asked = (tmp_path / "home" / "sudo.txt").read_text()
    assert "bubblewrap" in asked
    assert "apparmor_restrict_unprivileged_userns=0" in asked
    rows = (tmp_path / "work" / "grades" / "class.csv").read_text("utf-8").splitlines()
    assert len(rows) == 3
    assert "ann/" in (tmp_path / "summary.md").read_text("utf-8")


def test_commands_of_the_practice_run_here(runner, tmp_path):
    exercises = tmp_path / "work" / "exercises"
    exercises.mkdir()
    source = ROOT / "exercises" / "03_scores_to_loss.ipynb"
    (exercises / source.name).write_bytes(source.read_bytes())
    runner(commands("grade.yml")["grade"])
    assert "0/" in (tmp_path / "summary.md").read_text("utf-8")
    assert (tmp_path / "work" / "grades" / "class.csv").is_file()
