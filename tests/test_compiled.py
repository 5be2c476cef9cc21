"""course/compiled.py: machine code is kept, and never kept too long.

Each test runs small programs in processes of their own, with a cache folder of its own
and a copy of course/compiled.py beside two modules: `helper` and its user `caller`.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from course.compiled import UNUSED_DAYS

COMPILED = Path(__file__).parents[1] / "course/compiled.py"
HELPER = """
from course.compiled import compiled

@compiled
def helper(x):
    return x + 1
"""
CALLER = """
from course.compiled import compiled
from course.helper import helper

@compiled
def caller(x):
    return 10 * helper(x)
"""
PROGRAM = """
from course.caller import caller
print(caller(4), sum(caller.stats.cache_hits.values()))
"""


@pytest.fixture
def copy(tmp_path):
    """A small package `course` that can be edited, in a folder with room for a cache."""
    package = tmp_path / "course"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(COMPILED, package)
    (package / "helper.py").write_text(HELPER)
    (package / "caller.py").write_text(CALLER)
    return tmp_path


def start(copy, cache=None, program=PROGRAM):
    """Start the program on the copy, with its cache there or elsewhere."""
    cache = cache or copy / "cache"
    environment = os.environ | {"PYTHONPATH": str(copy), "COURSE_CACHE": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Return the words that the program printed."""
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.split()


def run(*arguments, **keywords):
    """Run the program to its end and return what it printed."""
    return finish(start(*arguments, **keywords))


def files(folder):
    """Return the files under the folder."""
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def test_second_run_compiles_nothing_and_adds_nothing(copy):
    assert run(copy) == ["50", "0"]
    kept = files(copy / "cache")
    assert kept
    for _ in range(2):
        assert run(copy) == ["50", "1"]
        assert files(copy / "cache") == kept


def test_an_edited_helper_is_compiled_again(copy):
    """Numba alone would keep the caller with the old helper inside."""
    assert run(copy) == ["50", "0"]
    (copy / "course/helper.py").write_text(HELPER.replace("x + 1", "x + 2"))
    assert run(copy) == ["60", "0"]
    (copy / "course/helper.py").write_text(HELPER)
    assert run(copy) == ["50", "1"]  # the first version is still there


def test_an_edited_comment_in_a_file_without_loops_compiles_nothing(copy):
    assert run(copy) == ["50", "0"]
    (copy / "course/other.py").write_text('"""Nothing to see."""\n')
    assert run(copy) == ["50", "1"]


def test_two_processes_at_once(copy):
    both = [start(copy), start(copy)]
    assert [finish(process)[0] for process in both] == ["50", "50"]
    assert run(copy) == ["50", "1"]


def test_two_types_at_once_are_not_swapped(copy):
    """Both processes find an empty index, as they do if they compile at one moment."""
    at_once = """
        import sys
        from course.caller import caller
        file = caller._cache._cache_file
        if sys.argv[1:] == []:
            file._load_index = dict  # nobody has compiled anything yet
        print(caller({number}), type(caller({number})).__name__)
    """
    programs = [
        "\n".join(line[8:] for line in at_once.format(number=number).splitlines())
        for number in ("4", "4.5")
    ]
    for program in programs:
        run(copy, program=program)
    for program, expected in zip(programs, (["50", "int"], ["55.0", "float"]), strict=True):
        assert run(copy, program=program.replace("== []", "== [0]")) == expected


def test_a_folder_that_cannot_be_written(copy):
    """Nothing is kept, and everything works. (A file is in the way: not even root can.)"""
    (copy / "file").touch()
    for _ in range(2):
        assert run(copy, cache=copy / "file" / "cache") == ["50", "0"]
    assert not list(copy.rglob("*.nbi"))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder(copy):
    (copy / "locked").mkdir(mode=0o500)
    assert run(copy, cache=copy / "locked") == ["50", "0"]
    assert not list(copy.rglob("*.nbi"))


def test_folders_nobody_used_are_removed(copy):
    parent = copy / "cache/compiled"
    for name, days in (("old", UNUSED_DAYS + 1), ("recent", UNUSED_DAYS - 1)):
        (parent / name).mkdir(parents=True)
        (parent / name / "loops.nbc").touch()
        then = time.time() - days * 86400
        os.utime(parent / name, (then, then))
    assert run(copy)[0] == "50"
    assert not (parent / "old").exists()
    assert (parent / "recent/loops.nbc").exists()


def test_use_keeps_a_folder(copy):
    """The time of a folder is that of its last use, not of its making."""
    run(copy)
    (folder,) = (copy / "cache/compiled").iterdir()
    os.utime(folder, (0, 0))
    run(copy)
    assert time.time() - folder.stat().st_mtime < 3600


def test_the_users_own_functions_go_where_numba_puts_them(copy):
    """The folder is for the course; a notebook's own @njit(cache=True) is not."""
    (copy / "own.py").write_text(
        "from numba import njit\n"
        "from course.caller import caller\n\n"
        "@njit(cache=True)\n"
        "def own(x):\n"
        "    return x\n"
    )
    run(copy, program="from own import own; own(1); print()")
    assert not [path for path in files(copy / "cache") if "own" in Path(path).name]
    assert list((copy / "__pycache__").glob("own.own*.nbi"))


def test_compiled_elsewhere_is_not_kept(copy):
    """The folder's name covers the course's files only: the rest would go stale."""
    (copy / "own.py").write_text(CALLER.replace("def caller", "def own"))
    for plus, result in (("x + 1", "50"), ("x + 2", "60")):
        (copy / "course/helper.py").write_text(HELPER.replace("x + 1", plus))
        assert run(copy, program="from own import own; print(own(4))") == [result]
    assert not [path for path in files(copy) if "own.own" in path]
    without_a_file = (
        "from course.compiled import compiled\nprint(compiled(lambda x: -x)(2))"
    )
    assert run(copy, program=without_a_file) == ["-2"]


def test_bounds_check_has_machine_code_of_its_own(copy, monkeypatch):
    """Code compiled without the check must not be found by a run that asks for it."""
    assert run(copy) == ["50", "0"]
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    assert run(copy) == ["50", "0"]
