import os
import shutil
import subprocess
import sys
from itertools import pairwise

import pytest

from course import doctor
from course.cuda import compile_check, native


def run(code_or_module, **env):
    """Run a child with these variables; without COURSE_DATA unless it is one of them."""
    inherited = {k: v for k, v in os.environ.items() if k != "COURSE_DATA"}
    return subprocess.run(
        [sys.executable, *code_or_module],
        env={**inherited, **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def one(check, **env):
    """What one check prints in a child with these variables."""
    code = f"from course import doctor\nfor f in doctor.findings(doctor.{check}): print(f)"
    child = run(["-c", code], **env)
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A cache folder with nothing in it but what the tests here put there."""
    return str(tmp_path_factory.mktemp("cache"))


def test_here_the_course_can_be_used(empty):
    child = run(["-m", "course", "doctor"], COURSE_CACHE=empty)
    assert child.returncode == 0, child.stdout + child.stderr
    lines = child.stdout.splitlines()
    assert lines[-1] == "The course can be used here."
    topics = [line[4:19].strip() for line in lines if line.startswith(("ok", "--"))]
    assert topics[:2] == ["Python", "memory"]
    assert topics[-4:] == ["numba-cuda", "libNVVM", "ptxas", "nvdisasm"]
    assert (
        "ok  simulator       a linear layer's kernels, as plain Python, are right" in lines
    )
    assert {"compiled loops", "cache", "digits", "glyphs", "mnist"} <= set(topics)
    for line, below in pairwise(lines):
        assert line.startswith("--") == below.startswith("    fix: ")


def test_a_missing_library_is_named_and_the_course_cannot_be_used(empty, tmp_path):
    for name in ("ipywidgets", "torch"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name} here')")
    child = run(["-m", "course", "doctor"], COURSE_CACHE=empty, PYTHONPATH=str(tmp_path))
    assert child.returncode == 1
    lines = child.stdout.splitlines()
    where = lines.index("--  widgets         cannot be imported: no ipywidgets here")
    assert lines[where + 1].startswith("    fix: python3 run.py lab")
    where = lines.index("--  PyTorch         cannot be imported: no torch here")
    assert "no lecture needs it" in lines[where + 1]
    assert lines[-1] == "The course cannot be used here yet. Mend first: widgets."


def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "cache")
    finding, fix = one("cache", COURSE_CACHE=folder)
    assert finding.startswith("--") and folder in finding and "every start" in finding
    assert fix == "    fix: set COURSE_CACHE to a folder that you may write"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no such modes")
def test_a_read_only_cache_folder_is_named(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o555)
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    finding, _ = one("cache", COURSE_CACHE=str(tmp_path / "cache"))
    assert finding.startswith("--") and "cannot be written" in finding


def test_a_cache_that_can_be_written_is_good(empty):
    assert one("cache", COURSE_CACHE=empty) == [f"ok  cache           {empty}"]


def test_no_files_is_said_with_how_to_get_them(empty):
    lines = one("data", COURSE_CACHE=empty)
    assert lines[0] == "ok  digits          1442 + 355 images of 28x28, 10 classes"
    where = lines.index("--  mnist           0 of 4 files are here")
    assert "load('mnist') of course.data downloads it once" in lines[where + 1]
    assert "put its 4 files into a folder mnist, set COURSE_DATA" in lines[where + 1]
    where = lines.index("--  cifar10         0 of 6 files are here")
    assert "put its 6 files into a folder cifar-10-batches-bin" in lines[where + 1]


def test_a_course_data_that_is_no_folder_is_said(empty, tmp_path):
    missing = str(tmp_path / "typo")
    finding, fix, *_ = one("data", COURSE_CACHE=empty, COURSE_DATA=missing)
    assert finding == f"--  COURSE_DATA     {missing} is not a folder"
    assert fix.startswith("    fix: set COURSE_DATA to the folder")


def test_a_wrong_file_in_course_data_is_named(empty, tmp_path):
    path = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    path.parent.mkdir()
    path.write_bytes(b"something else")
    lines = one("data", COURSE_CACHE=empty, COURSE_DATA=str(tmp_path))
    where = next(k for k, line in enumerate(lines) if line.startswith("--  mnist"))
    assert str(path) in lines[where] and "SHA-256" in lines[where]
    assert lines[where + 1].startswith("    fix: replace it")


def test_loops_that_are_not_compiled_are_said():
    finding, fix = one("loops", NUMBA_DISABLE_JIT="1")
    assert finding.startswith("--") and "loops are slow" in finding
    assert fix == "    fix: unset NUMBA_DISABLE_JIT"


def test_the_number_of_threads_is_the_one_that_loops_use():
    (finding,) = one("loops", NUMBA_NUM_THREADS="1")
    assert finding.startswith("ok") and " 1 threads" in finding


def test_a_check_that_fails_unforeseen_is_a_finding():
    def check():
        yield doctor.Finding(True, "before", "fine")
        raise RuntimeError("a\nb")

    before, after = doctor.findings(check)
    assert before.good and not after.good and after.needed
    assert after.text == "RuntimeError: a b" and after.topic == "check"


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="here is a GPU driver")
def test_without_a_gpu_the_report_says_what_that_means():
    (finding,) = doctor.gpu()
    assert not finding.good and not finding.needed
    assert finding.text.startswith("no NVIDIA GPU found")
    assert finding.fix.startswith("none needed")


def test_what_only_kernels_need_may_be_missing(monkeypatch, tmp_path):
    (tmp_path / "greenlet.py").write_text("raise ImportError('no greenlet here')")
    line, fix = one("simulator", PYTHONPATH=str(tmp_path))
    assert line == "--  simulator       ImportError: no greenlet here"
    assert fix.startswith("    fix: python3 run.py lab")

    def library():
        raise native.NoGPU

    monkeypatch.setattr(native, "library", library)
    compile_check.tools.cache_clear()
    found = [*doctor.findings(doctor.compilers)]
    compile_check.tools.cache_clear()
    assert found[0].topic == "numba-cuda" and len(found) == 4
    for finding in found:
        assert not finding.good and not finding.needed
        assert finding.fix.startswith(compile_check.INSTALL)


def test_a_check_of_kernels_that_fails_unforeseen_does_not_break_the_course(monkeypatch):
    monkeypatch.setattr(native, "gpus", lambda: 1 / 0)
    (finding,) = doctor.findings(doctor.gpu)
    assert not finding.good and not finding.needed and "ZeroDivisionError" in finding.text


class Driver:
    """A driver with one GPU, as the documentation of CUDA has it."""

    def cuInit(self, flags):
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = 1
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = 13010

    def cuDeviceGet(self, device, k):
        device._obj.value = k

    def cuDeviceGetName(self, name, length, device):
        name.value = b"Large GPU"

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = 80 * 10**9

    def cuDeviceGetAttribute(self, number, attribute, device):
        number._obj.value = {75: 9, 76: 0, 16: 132}[attribute]


def test_a_gpu_is_described_and_if_kernels_cannot_run_there_the_report_says_why(
    monkeypatch,
):
    monkeypatch.setattr(native.ctypes, "CDLL", lambda name: Driver())
    monkeypatch.setattr(native, "why_not", lambda: "numba-cuda is too old")
    found, kernels = doctor.gpu()
    assert str(found) == (
        "ok  GPU             Large GPU: compute capability 9.0, 132 multiprocessors, "
        "80 GB; driver for CUDA 13.1"
    )
    assert not kernels.good and not kernels.needed and "too old" in kernels.text
    assert kernels.fix.startswith("pip install")


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no GPU")
def test_the_gpus_are_those_that_nvidia_smi_lists():
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    assert sorted(native.cuda_devices()) == sorted(listed)
