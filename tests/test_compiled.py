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


def test_an_edited_file_that_is_not_imported_compiles_nothing(copy):
    assert run(copy) == ["50", "0"]
    (copy / "course/other.py").write_text(CALLER.replace("10", "11"))
    assert run(copy) == ["50", "1"]


@pytest.mark.parametrize(
    "statement",
    [
        "import course.helper as other\nhelper = other.helper",
        "from course import helper as other\nhelper = other.helper",
        "from course.helper import (\n    helper,\n)",
        "from course.between import helper",
        "from course.package import helper",
        "from course.package.inside import helper",
    ],
)
def test_a_helper_is_found_however_it_is_imported(copy, statement):
    (copy / "course/package").mkdir()
    for name in ("between", "package/__init__", "package/inside"):
        import_it = "from course.helper import helper\n"
        (copy / f"course/{name}.py").write_text(import_it)
    usual = "from course.helper import helper"
    caller = copy / "course/caller.py"
    caller.write_text(CALLER.replace(usual, statement))
    assert run(copy) == ["50", "0"]
    assert run(copy) == ["50", "1"]
    (copy / "course/helper.py").write_text(HELPER.replace("x + 1", "x + 2"))
    assert run(copy) == ["60", "0"]


def test_a_constant_of_another_file_is_looked_at_too(copy):
    (copy / "course/constants.py").write_text("ONE = 1\n")
    imports = "from course.constants import ONE\n"
    (copy / "course/helper.py").write_text(imports + HELPER.replace("x + 1", "x + ONE"))
    assert run(copy) == ["50", "0"]
    (copy / "course/constants.py").write_text("ONE = 2\n")
    assert run(copy) == ["60", "0"]


def test_a_file_edited_while_the_process_lives(copy):
    """As in a notebook: edit, reload, and the new loops run; the old ones are not lost."""
    program = """
import importlib, pathlib
from course import helper, caller
print(caller.caller(4))
file = pathlib.Path(helper.__file__)
file.write_text(file.read_text().replace("x + 1", "x + 22"))
importlib.reload(helper), importlib.reload(caller)
print(caller.caller(4))
"""
    assert run(copy, program=program) == ["50", "260"]
    assert run(copy) == ["260", "1"]
    (copy / "course/helper.py").write_text(HELPER)
    assert run(copy) == ["50", "1"]


def test_two_processes_at_once(copy):
    both = [start(copy), start(copy)]
    assert [finish(process)[0] for process in both] == ["50", "50"]
    assert run(copy) == ["50", "1"]


def test_two_types_at_once_are_both_kept(copy):
    """Neither process knows of the other, and neither writes what the other one wrote."""
    program = (
        "from course.caller import caller\n"
        "print(caller({0}), len(caller.stats.cache_misses))"
    )
    both = [start(copy, program=program.format(number)) for number in ("4", "4.5")]
    assert [finish(process) for process in both] == [["50", "1"], ["55.0", "1"]]
    for number, expected in (("4", "50"), ("4.5", "55.0")):
        assert run(copy, program=program.format(number)) == [expected, "0"]


def test_a_folder_that_cannot_be_written(copy):
    """Nothing is kept, and everything works. (A file is in the way: not even root can.)"""
    (copy / "file").touch()
    for _ in range(2):
        assert run(copy, cache=copy / "file" / "cache") == ["50", "0"]
    assert not list(copy.rglob("*.nbc"))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder(copy):
    (copy / "locked").mkdir(mode=0o500)
    assert run(copy, cache=copy / "locked") == ["50", "0"]
    assert not list(copy.rglob("*.nbc"))


def test_machine_code_nobody_used_is_removed_when_something_is_added(copy):
    folder = copy / "cache/compiled"
    folder.mkdir(parents=True)
    for name, days in (("old.nbc", UNUSED_DAYS + 1), ("recent.nbc", UNUSED_DAYS - 1)):
        (folder / name).touch()
        then = time.time() - days * 86400
        os.utime(folder / name, (then, then))
    assert run(copy)[0] == "50"
    assert not (folder / "old.nbc").exists()
    assert (folder / "recent.nbc").exists()


def test_use_keeps_machine_code(copy):
    """The time of a file is that of its last use, not of its making."""
    run(copy)
    kept = list((copy / "cache").rglob("*.caller-*"))
    assert len(kept) == 1
    os.utime(kept[0], (0, 0))
    run(copy)
    assert time.time() - kept[0].stat().st_mtime < 3600


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


def test_without_numbas_compiler(copy, monkeypatch):
    """NUMBA_DISABLE_JIT leaves plain Python functions."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert run(copy, program="from course.caller import caller; print(caller(4))") == ["50"]


def test_options_of_numba(copy):
    (copy / "course/caller.py").write_text(
        CALLER.replace("@compiled", "@compiled(parallel=True)")
    )
    assert run(copy) == ["50", "0"]
    assert run(copy) == ["50", "1"]


def test_blas_is_loaded_only_if_a_loop_calls_it(copy):
    """It takes as long as all else that a first call does; a loop that wants it gets it."""
    program = """
import sys
import numpy as np
from numba import njit
from course.caller import caller
caller(4)
print("scipy.linalg" in sys.modules)
print(njit(lambda a: np.dot(a, a))(2 * np.eye(2))[1, 1], "scipy.linalg" in sys.modules)
"""
    for _ in range(2):
        assert run(copy, program=program) == ["False", "4.0", "True"]
