"""A class: in shards, by any executor, killed and taken up again; nothing lost or twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest

from course import cli
from course.grading import scale
from course.grading.extraction import Unusable
from course.grading.grades import Graded, Submission, to_json
from tests.grading import sample_course
from tests.grading.conftest import FAST, RIGHT, notebook

ROOT = Path(__file__).parents[2]
CLASS_FILES = ("class.csv", "class-junit.xml", "summary.md", "teacher.html")
NAMES = [f"{name}/09.ipynb" for name in ("ann", "bob", "cho", "dan", "eve", "fay")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A class of six with different answers; each start of a box writes into a log."""
    place = tmp_path_factory.mktemp("course")
    (place / "solutions").mkdir()
    solution = json.dumps(notebook(RIGHT | FAST))
    (place / "solutions/00_sample.ipynb").write_text(solution, "utf-8")
    for k, name in enumerate(NAMES):
        source = (
            f"import os\nwith open({str(place / 'starts')!r}, 'a') as file:\n"
            f"    file.write(f'{name} {{os.getpid()}}\\n')\n"
            f"def running_sum(x):\n    return np.cumsum(x) + {k % 3}"
        )
        path = place / "class" / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook(RIGHT | {"running_sum": source})), "utf-8")
    return place


@pytest.fixture
def course(place, sample):
    """The class, of which nothing is graded yet."""
    yield place
    (place / "starts").unlink(missing_ok=True)
    for out in [place / "out", *place.glob("shard-*")]:
        shutil.rmtree(out, ignore_errors=True)


def arguments(course, *words, out="out"):
    """Return the words to type: the answers write a log, so nothing keeps them apart."""
    place = [course / "class", "--solutions", course / "solutions", "--out", course / out]
    return ["grade", *map(str, [*place, *words]), "--sandbox", "none"]


def command(course, *words):
    """Start `course grade` in a process of its own, which knows the sample exercise."""
    return subprocess.Popen(
        [sys.executable, "-m", sample_course.__name__, *arguments(course, *words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def starts(course):
    """Return how often a box was started, by name."""
    log = course / "starts"
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    return Counter(line.rsplit(" ", 1)[0] for line in set(lines))


def written(course, out="out"):
    """Return the names with a result that counts."""
    folder = course / out / "submissions"
    return {path.parent.relative_to(folder).as_posix() for path in folder.rglob("graded")}


def class_files(folder):
    return {name: (folder / name).read_bytes() for name in CLASS_FILES}


def wait_for(happened, seconds=120):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def whole(course):
    """The class files of one run, here and one notebook after the other."""
    if not (course / "whole").exists():
        assert cli.main(arguments(course, "--jobs", "1", out="whole")) == 0
        assert starts(course) == dict.fromkeys(NAMES, 1)
        (course / "starts").unlink()
    return class_files(course / "whole")


# ---------------------------------------------------------------- killed


def test_a_killed_grader_goes_on_where_it_stopped(course, whole):
    grader = command(course, "--jobs", "2")
    wait_for(lambda: len(written(course)) >= 2)
    family = psutil.Process(grader.pid).children(recursive=True)
    grader.kill()
    grader.communicate()
    assert not psutil.wait_procs(family, timeout=20)[1], "something lives on"
    done = written(course)
    assert 2 <= len(done) < len(NAMES)
    before = starts(course)

    again = command(course, "--jobs", "2")
    shown, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert f"{len(done)} of 6 are graded already" in shown
    assert class_files(course / "out") == whole
    after = starts(course)
    assert {name: after[name] for name in done} == dict.fromkeys(done, 1)
    assert after.total() - before.total() == len(NAMES) - len(done)


def test_a_killed_worker_loses_nothing(course, whole):
    grader = command(course, "--jobs", "2")
    wait_for(lambda: starts(course).total() >= 2)
    children = psutil.Process(grader.pid).children()
    worker = next(p for p in children if "spawn_main" in " ".join(p.cmdline()))
    worker.send_signal(signal.SIGKILL)
    shown, errors = grader.communicate(timeout=300)
    assert grader.returncode == 0, errors
    assert "6 of 6 graded" in shown
    assert class_files(course / "out") == whole


class Deadly(scale.Terms):
    """Terms on which grading Bob's notebook ends the process that does it."""

    def grade(self, path, name, told=None):
        if name == "bob/09.ipynb":
            os._exit(9)
        return Submission(name, "graded")


@pytest.mark.parametrize("pool", ["processes", "one pool"])
def test_a_notebook_that_ends_its_process_is_not_graded_and_the_others_are(course, pool):
    spawn = partial(ProcessPoolExecutor, 2, get_context("spawn"))
    start = {"processes": partial(scale.Processes, 2), "one pool": spawn}[pool]
    terms = Deadly(course / "solutions", b"0123456789abcdef", 20.0, "none")
    found = {name: course / "class" / name for name in NAMES[:3]}
    status = {name: made.status for name, made in scale.grade_all(found, terms, start)}
    assert status == dict.fromkeys(found, "graded") | {"bob/09.ipynb": "retry"}


# ---------------------------------------------------------------- any executor


def graded(course, start):
    """Return the results as JSON, by name."""
    terms = scale.Terms(course / "solutions", b"0123456789abcdef", 20.0, "none")
    found = {name: course / "class" / name for name in NAMES}
    return {name: to_json(made) for name, made in scale.grade_all(found, terms, start)}


def test_every_executor_gives_the_same_results(course):
    here = graded(course, None)
    assert list(here) == NAMES
    spawn = get_context("spawn")
    pool = partial(ProcessPoolExecutor, 2, spawn, initializer=sample_course.dask_setup)
    for start in (partial(ThreadPoolExecutor, 2), pool):
        assert graded(course, start) == here


def test_dask_grades_a_class_and_survives_the_end_of_a_worker(course, whole):
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=None,
        preload=sample_course.__name__,
    )
    with cluster:
        grader = command(course, "--scheduler", cluster.scheduler_address)
        wait_for(lambda: starts(course))
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        shown, errors = grader.communicate(timeout=300)
    assert grader.returncode == 0, errors
    assert "6 of 6 graded" in shown
    assert class_files(course / "out") == whole


def test_no_scheduler_is_said_in_words(course, capsys):
    pytest.importorskip("distributed", reason="dask is not installed")
    assert cli.main(arguments(course, "--scheduler", "tcp://127.0.0.1:9")) == 2
    assert "tcp://127.0.0.1:9: no dask scheduler answers" in capsys.readouterr().err


def test_a_worker_with_another_version_of_the_course_grades_nothing(course):
    terms = scale.Terms(course / "solutions", b"0123456789abcdef", 20.0, "none", "old")
    made = terms.grade(course / "class" / NAMES[0], NAMES[0])
    assert made.status == "retry"
    assert "another version" in made.says


# ---------------------------------------------------------------- shards


@pytest.mark.parametrize("count", [1, 2, 7])
def test_shards_are_disjoint_complete_and_stable(count):
    found = {f"student {k}/Zoë 数学.ipynb": Path(str(k)) for k in range(500)}
    shards = [scale.shard(found, k, count) for k in range(count)]
    names = [name for part in shards for name in part]
    assert sorted(names) == sorted(found)
    assert min(map(len, shards)) > 0.5 * len(found) / count
    late = {"a late one.ipynb": Path("late")} | found
    for k, part in enumerate(shards):
        assert scale.shard(late, k, count).items() >= part.items()


def test_merged_shards_are_one_run(course, whole, capsys):
    for k in range(3):
        part = arguments(course, "--jobs", "1", "--shard", f"{k}/3", out=f"shard-{k}")
        assert cli.main(part) == 0
    assert set(starts(course).values()) == {1}
    assert len(starts(course)) == len(NAMES)
    folders = [str(course / f"shard-{k}") for k in range(3)]
    merge = ["grade", "merge", "--out", str(course / "out")]
    assert cli.main([*merge, *folders]) == 0
    assert class_files(course / "out") == whole

    capsys.readouterr()
    assert cli.main(arguments(course)) == 0, "the merged folder is as good as a graded one"
    assert "6 of 6 are graded already" in capsys.readouterr().out
    assert class_files(course / "out") == whole

    assert cli.main([*merge, *folders[:2]]) == 2
    shown = capsys.readouterr()
    lost = written(course, "shard-2")
    assert lost
    for name in lost:
        assert f"{name}: retry: no folder has a result: grade its shard" in shown.err


# ---------------------------------------------------------------- what is kept


@pytest.fixture
def kept(tmp_path):
    """Write a result, change something, and say whether the result is kept."""
    path = tmp_path / "09.ipynb"
    path.write_text(json.dumps(notebook(RIGHT)), "utf-8")
    (tmp_path / "00_sample.ipynb").write_text("the solution")
    terms = scale.Terms(tmp_path, b"0123456789abcdef", 60.0, "none")
    question = Graded("running_sum", 3, 1.5, "wrong")
    sha256 = scale._sha256(path)
    made = Submission("09.ipynb", "graded", "", sha256, "00_sample", "none", (question,))

    def kept(change=lambda: None, status="graded", name="09.ipynb", tier="none", **other):
        result = replace(made, status=status)
        scale.write(tmp_path / "out", "09.ipynb", result, terms)
        change()
        found = scale.kept(tmp_path / "out", name, path, replace(terms, **other), tier)
        assert found in (None, result)
        return found is not None

    kept.folder, kept.path = tmp_path, path
    return kept


def test_a_result_is_kept_while_nothing_changes(kept):
    assert kept()


@pytest.mark.parametrize(
    "terms",
    [
        {"secret": b"another secret, other cases"},
        {"seconds": 61.0},
        {"version": "another version of the course"},
    ],
)
def test_a_result_on_other_terms_is_not_kept(kept, terms):
    assert not kept(**terms)


def test_a_result_of_another_tier_is_not_kept(kept):
    assert not kept(tier="strict")


def test_a_changed_notebook_or_solution_is_graded_again(kept):
    assert not kept(lambda: kept.path.write_text(kept.path.read_text() + "\n"))
    assert not kept(lambda: (kept.folder / "00_sample.ipynb").write_text("corrected"))
    assert not kept(kept.path.unlink)


@pytest.mark.parametrize("status", ["retry", "unusable"])
def test_what_was_not_graded_is_tried_again(kept, status):
    assert not kept(status=status)


def test_a_forged_or_copied_result_is_not_kept(kept):
    folder = kept.folder / "out/submissions/09.ipynb"
    result = folder / "submission.json"

    def more_points():
        result.write_text(result.read_text("utf-8").replace("1.5", "3.0"), "utf-8")

    def half():
        result.write_bytes(result.read_bytes()[:100])

    def copy():
        (folder.parent / "bob.ipynb").mkdir(exist_ok=True)
        for file in folder.iterdir():
            (folder.parent / "bob.ipynb" / file.name).write_bytes(file.read_bytes())

    assert not kept(more_points)
    assert not kept(half)
    assert not kept((folder / "graded").unlink)
    assert not kept(copy, name="bob.ipynb")
    assert kept()


def test_the_secret_is_in_no_file(kept):
    kept()
    for file in (kept.folder / "out").rglob("*"):
        assert file.is_dir() or b"0123456789abcdef" not in file.read_bytes()


def test_two_results_of_one_name_are_not_merged(kept, tmp_path):
    kept()
    scale.write_names(tmp_path / "out", ["09.ipynb"])
    made = scale.result(tmp_path / "out", "09.ipynb")
    terms = scale.Terms(tmp_path, b"0123456789abcdef", 60.0, "none")
    for folder, other in (("lost", replace(made, status="retry")), ("more", made)):
        scale.write(tmp_path / folder, "09.ipynb", other, terms)
        scale.write_names(tmp_path / folder, ["09.ipynb"])
    results = scale.merge([tmp_path / "lost", tmp_path / "out"], tmp_path / "merged")
    assert results == {"09.ipynb": made}
    other = replace(made, sha256="another file")
    scale.write(tmp_path / "more", "09.ipynb", other, terms)
    with pytest.raises(Unusable, match=r"09\.ipynb: .*more has another result"):
        scale.merge([tmp_path / "out", tmp_path / "more"], tmp_path / "merged")


def test_a_merged_name_cannot_lead_out_of_the_folder(tmp_path):
    for name in ("../x", "/x", "a/../../x"):
        scale.write_names(tmp_path / "evil", [name])
        with pytest.raises(Unusable, match="outside the folder"):
            scale.merge([tmp_path / "evil"], tmp_path / "out")
    with pytest.raises(Unusable, match=r"wrote no class\.json here"):
        scale.merge([tmp_path / "empty"], tmp_path / "out")
