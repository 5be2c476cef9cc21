"""`run.py`, as a reader meets it: in child processes, on a small project, with no network.

The small project has one dependency, a wheel made here, and a build backend of its own.
pip and venv are the real ones.
"""

import ast
import base64
import contextlib
import hashlib
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

import run

ROOT = Path(__file__).parents[1]
POSIX = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
BIN = "Scripts" if os.name == "nt" else "bin"
PYTHON = "python.exe" if os.name == "nt" else "python"

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "small"
version = "1"
"""
BACKEND = """
import zipfile
from pathlib import Path

def build_editable(folder, settings=None, metadata=None):
    info = "small-1.dist-info/"
    files = {
        "small.pth": str(Path.cwd()),
        info + "METADATA": "Metadata-Version: 2.1\\nName: small\\nVersion: 1\\n",
        info + "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    record = "".join(name + ",,\\n" for name in [*files, info + "RECORD"])
    with zipfile.ZipFile(folder + "/small-1-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, info + "RECORD": record}.items():
            wheel.writestr(name, text)
    return "small-1-py3-none-any.whl"
"""
CLI = """
import sys

print("course", *sys.argv[1:])
sys.exit(3)
"""


def make_wheel(folder: Path, version: str) -> str:
    """Write the wheel of a package `grain`; return its line for a lock."""
    info = f"grain-{version}.dist-info/"
    files = {
        "grain.py": f"version = {version!r}\n",
        info + "METADATA": f"Metadata-Version: 2.1\nName: grain\nVersion: {version}\n",
        info + "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        record += f"{name},sha256={digest.rstrip(b'=').decode()},{len(text)}\n"
    path = folder / f"grain-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, info + "RECORD": f"{record}{info}RECORD,,\n"}.items():
            wheel.writestr(name, text)
    return (
        f"grain=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
    )


class Project:
    """A small project with the real run.py, and a machine without network or uv."""

    def __init__(self, folder: Path):
        self.root = folder / "ein Schüler"  # as many home folders are called
        self.wheels = folder / "wheels"
        self.venv = self.root / ".venv"
        self.stamp = self.venv / "set-up.stamp"
        (self.root / "course").mkdir(parents=True)
        self.wheels.mkdir()
        (self.root / "course/__main__.py").write_text(CLI)
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        (self.root / "backend.py").write_text(BACKEND)
        shutil.copy(ROOT / "run.py", self.root)
        self.lock("1.0")

    def lock(self, version: str) -> None:
        """Let the project want this version of its dependency."""
        line = make_wheel(self.wheels, version)
        (self.root / "requirements.lock").write_text(line)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen:
        """Start run.py with nothing of our environment but what a shell needs."""
        kept = ("SYSTEMROOT", "TEMP", "TMP", "COMSPEC", "PATHEXT")
        base = {key: os.environ[key] for key in kept if key in os.environ}
        base |= {
            "HOME": str(self.root.parent),
            "PATH": os.defpath,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.wheels.as_uri(),
            "PIP_CONFIG_FILE": os.devnull,
        }
        return subprocess.Popen(
            [sys.executable, "run.py", *arguments],
            cwd=self.root,
            env=base | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **env: str) -> tuple[int, str]:
        """Run run.py; return its exit code and what it printed."""
        process = self.start(*arguments, **env)
        text = process.communicate(timeout=120)[0]
        return process.returncode, text

    def grain(self, **env: str) -> tuple[str, bool]:
        """Return the version of grain that is used, and whether that needed a set-up."""
        code, text = self.run("python", "-c", "import grain; print(grain.version)", **env)
        assert code == 0, text
        return text.splitlines()[-1], "+ set up in" in text


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Project:
    """A project that is set up; its first run had no network, its second one had."""
    project = Project(tmp_path_factory.mktemp("prepared"))
    code, text = project.run("lab", PIP_FIND_LINKS="")
    assert code == 1
    assert "Most often there is no network. The set-up needs it once" in text
    assert "-m pip install" in text.split("The set-up stopped")[1]
    assert "Traceback" not in text
    half = project.venv / "half"
    half.touch()
    assert project.grain() == ("1.0", True)
    assert not half.exists()  # what is half made is not built upon
    return project


def test_old_pythons_can_read_it():
    source = (ROOT / "run.py").read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    source.encode("ascii")
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names


def test_the_next_run_starts_at_once(prepared):
    assert not prepared.grain()[1]


def test_a_verb_goes_to_the_course_command_with_its_arguments_and_exit_code(prepared):
    assert prepared.run("grade", "my notebook.ipynb", "--out", "x") == (
        3,
        "course grade my notebook.ipynb --out x\n",
    )


@pytest.mark.parametrize("python", ["no program", "raise ImportError"])
def test_an_environment_whose_python_is_broken_is_known(tmp_path, monkeypatch, python):
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\n{python}")
    program.chmod(0o755 if "raise" in python else 0o644)
    monkeypatch.setattr(run, "PYTHON", program)
    assert not run.works()
    monkeypatch.setattr(run, "PYTHON", Path(sys.executable))
    assert run.works()
    monkeypatch.setattr(run, "OLDEST", (3, 99))
    assert not run.works()


def test_a_new_lock_is_installed_and_what_the_user_added_stays(prepared):
    added = prepared.venv / "added"
    added.touch()
    prepared.lock("1.1")
    assert prepared.grain() == ("1.1", True)
    assert added.exists()


def test_without_network_an_older_set_up_stays_and_the_next_run_mends_it(prepared):
    before = prepared.stamp.read_text()
    prepared.lock("1.2")
    code, text = prepared.run("python", "-V", PIP_FIND_LINKS="")
    assert code == 1
    assert "The set-up needs it once; later runs do not." in text
    assert "-m pip install" in text.split("The set-up stopped")[1]
    assert prepared.stamp.read_text() == before
    assert prepared.grain() == ("1.2", True)


def test_a_wrong_hash_is_refused(prepared):
    lock = prepared.root / "requirements.lock"
    good = lock.read_text()
    prepared.lock("2.0")
    lock.write_text(re.sub(r"sha256:\w+", "sha256:" + "0" * 64, lock.read_text()))
    code, text = prepared.run("python", "-V")
    lock.write_text(good)
    assert code == 1
    assert "HASH" in text.upper()
    assert not prepared.grain()[1]


def test_settings_of_the_user_do_not_lead_the_set_up_astray(prepared, tmp_path):
    (tmp_path / "grain.py").write_text("version = 'elsewhere'")
    (tmp_path / "pip.py").write_text("raise SystemExit('not this pip')")
    prepared.stamp.write_text("older")
    settings = {"PIP_USER": "1", "PYTHONPATH": str(tmp_path), "VIRTUAL_ENV": "elsewhere"}
    code, text = prepared.run("python", "-V", **settings)
    assert code == 0, text
    assert prepared.grain()[0] != "elsewhere"


def test_two_at_once_set_up_once(prepared):
    prepared.stamp.write_text("older")
    both = [prepared.start("python", "-c", "import grain") for _ in range(2)]
    texts = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert sum("+ set up in" in text for text in texts) == 1


@pytest.mark.parametrize("version", ["(3, 8, 18)", "(3, 10, 13)", "(3, 15, 0)"])
def test_a_wrong_python_is_told_what_is_needed(tmp_path, version):
    code, text = other_machine(tmp_path, f"sys.version_info = {version}")
    assert code == 1
    found = version.strip("()").replace(", ", ".")
    assert "The course needs Python 3.11 to 3.14" in text
    assert f"this is Python {found} ({sys.executable})" in text
    assert "or uv" in text


@POSIX
def test_a_wrong_python_is_told_of_a_right_one(tmp_path):
    (tmp_path / "python3.12").symlink_to(sys.executable)
    code, text = other_machine(tmp_path, "sys.version_info = (3, 9, 1)")
    assert code == 1
    assert "Here is another: python3.12 run.py lab" in text


def test_a_python_without_ensurepip_is_told_what_to_install(tmp_path):
    (tmp_path / "ensurepip.py").write_text("raise ImportError('split off')")
    code, text = other_machine(tmp_path, f"sys.path.insert(0, {str(tmp_path)!r})")
    assert code == 1
    assert "apt install python3-venv" in text


def test_a_mac_with_an_intel_processor_is_sent_to_conda(tmp_path):
    code, text = other_machine(
        tmp_path, "sys.platform = 'darwin'; platform.machine = lambda: 'x86_64'"
    )
    assert code == 1
    assert "conda env create -f environment.yml" in text


def other_machine(folder: Path, change: str) -> tuple[int, str]:
    """Run `run.py lab` after the change; only programs in the folder are on PATH."""
    project = folder / "project"
    project.mkdir()
    for name in ("run.py", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, project)
    code = (
        "import platform, runpy, sys\n"
        f"{change}\n"
        "sys.argv = ['run.py', 'lab']\n"
        "runpy.run_path('run.py', run_name='__main__')"
    )
    env = {**os.environ, "PATH": str(folder)}
    env.pop("CONDA_DEFAULT_ENV", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=env, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert not (project / ".venv").exists()
    return done.returncode, done.stderr


def test_in_the_conda_environment_nothing_is_set_up(tmp_path):
    project = Project(tmp_path)
    code, text = project.run(
        "python", "-c", "import sys; print(sys.executable)", CONDA_DEFAULT_ENV=run.CONDA
    )
    assert (code, text) == (0, f"{sys.executable}\n")
    assert not project.venv.exists()


def test_without_a_verb_it_says_what_it_can_do(tmp_path):
    project = Project(tmp_path)
    assert project.run()[0] == 2
    code, text = project.run("--help")
    assert code == 0
    for verb in ("lab", "test", "VERB"):
        assert f"run.py {verb}" in text


# ---------------------------------------------------------------- test


TESTS = """
import pytest

def test_right():
    pass

def test_wrong():
    assert 1 == 2

@pytest.fixture
def broken():
    raise OSError

def test_never_starts(broken):
    pass

@pytest.mark.parametrize("size", [1, 2])
def test_left_out(size):
    pytest.skip("there is no GPU")
"""


@pytest.fixture
def tests(tmp_path, monkeypatch) -> Path:
    """The file of tests of a project that run.py tests, with no plugins of pytest."""
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return tmp_path / "test_it.py"


def test_cases_are_counted_and_reasons_given(tests, capfd):
    tests.write_text(TESTS)
    tests.with_name("test_file.py").write_text(
        "import pytest\npytest.skip('there is no torch', allow_module_level=True)"
    )
    assert run.test(sys.executable, ["."]) == 1
    text = capfd.readouterr().out
    summary = text[text.index("\npart ") :].splitlines()
    assert re.fullmatch(r"pytest +\d+\.\d +1 +2 +3", summary[2])
    reasons = ["     2  there is no GPU", "     1  there is no torch"]
    assert summary[4:8] == ["", "not run:", *reasons]
    assert summary[8:] == ["", "1 passed, 2 failed, 3 skipped"]


def test_a_part_that_runs_no_test_has_failed(tests, capfd):
    tests.write_text("def test_right(): pass")
    assert run.test(sys.executable, ["-k", "nothing"]) == 1
    assert capfd.readouterr().out.endswith("\n0 passed, 1 failed, 0 skipped\n")


def test_a_pytest_that_dies_in_silence_has_failed(tests, capfd):
    tests.write_text("import os\ndef test_it(): os._exit(0)")
    assert run.test(sys.executable, ["test_it.py"]) == 1
    assert capfd.readouterr().out.endswith("\n0 passed, 1 failed, 0 skipped\n")


def test_slow_tests_are_left_out_unless_asked_for():
    quick, everything = run.parts("python", []), run.parts("python", ["--all"])
    assert everything.keys() - quick.keys() == {"slow tests"}
    for name in (*run.APART, "other tests"):
        assert quick[name][3:5] == ["-m", "not slow"]
    assert everything["slow tests"][-2:] == ["-m", "slow"]
    assert run.parts("python", ["-x"]) == {"pytest": ["python", "-m", "pytest", "-x"]}


def test_every_test_is_in_one_part():
    parts = run.parts("python", [])
    apart = [path for name in run.APART for path in parts[name][5:]]
    assert len(set(apart)) == len(apart)
    assert parts["other tests"][5:] == [f"--ignore={path}" for path in apart]
    for path in apart:
        assert (ROOT / path).is_dir()


def waiting(folder: Path, name: str, other: str) -> run.Part:
    """Return a part that ends when another one has begun."""
    code = (
        f"import pathlib, time\nprint({name!r}, 'begins', flush=True)\n"
        f"folder = pathlib.Path({str(folder)!r})\n(folder / {name!r}).touch()\n"
        f"there, end = folder / {other!r}, time.time() + 60\n"
        "while not there.exists() and time.time() < end: time.sleep(0.01)\n"
        f"assert there.exists()\nprint({name!r}, 'ends', flush=True)"
    )
    return run.Part(name, [sys.executable, "-c", code])


def test_two_parts_run_at_once_and_what_they_print_is_not_mixed(tmp_path, capfd):
    parts = [waiting(tmp_path, "a", "b"), waiting(tmp_path, "b", "a")]
    parts.append(waiting(tmp_path, "c", "a"))
    run.run_parts(list(parts), 2)
    assert [(part.passed, part.failed) for part in parts] == [(1, 0)] * 3
    text = capfd.readouterr().out
    for name in "abc":
        assert f"\n== {name}\n{name} begins\n{name} ends\n" in text


def test_what_one_part_prints_is_seen_while_it_runs(tmp_path, capfd):
    part = waiting(tmp_path, "a", "b")
    part.start(live=True)
    try:
        while not (tmp_path / "a").exists():
            time.sleep(0.01)
        assert capfd.readouterr().out == "\n== a\na begins\n"
        (tmp_path / "b").touch()
        while not part.ended():
            time.sleep(0.01)
    finally:
        run.stop([part.process])
    part.close()
    assert part.passed == 1


DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"


@POSIX
@pytest.mark.parametrize(
    "deaf", ["", DEAF, DEAF + DEAF.replace("INT", "TERM")], ids=["", "deaf", "stubborn"]
)
def test_ctrl_c_ends_all_parts(tmp_path, deaf):
    """The signal goes to run.py alone, as `kill -INT` sends it: a terminal tells all."""
    code = (
        "import os, sys, time\n" + deaf + "open(sys.argv[1], 'w').write(str(os.getpid()))"
    )
    code += "\ntime.sleep(1000)"
    program = (
        "import sys, run\nrun.PATIENCE = 0.3\n"
        f"c = [sys.executable, '-c', {code!r}]\n"
        "p = [run.Part(n, [*c, n]) for n in sys.argv[1:]]\n"
        "run.run_parts(p, 2)"
    )
    pids = tmp_path / "one", tmp_path / "two"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    main = subprocess.Popen([sys.executable, "-c", program, *map(str, pids)], env=env)
    while not all(path.exists() and path.read_text() for path in pids):
        assert main.poll() is None
        time.sleep(0.01)
    main.send_signal(signal.SIGINT)
    assert main.wait(timeout=30) != 0
    for path in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


@POSIX
def test_tests_hear_ctrl_c_even_if_run_py_was_started_in_the_background(tmp_path):
    """A shell without job control lets what it starts in the background ignore SIGINT."""
    (tmp_path / "test_it.py").write_text(
        "import signal\ndef test_it():\n"
        "    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    program = (
        "import pathlib, signal, sys, run\nrun.ROOT = pathlib.Path(sys.argv[1])\n"
        "sys.exit(run.test(sys.executable, ['test_it.py']))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DEAF + program, tmp_path], env=env, capture_output=True
    )
    assert done.returncode == 0, done.stdout


def test_what_a_test_says_for_the_table_stands_in_its_row(tests, capfd):
    tests.write_text(
        "def test_it(record_testsuite_property):\n"
        "    record_testsuite_property('compile check', '7 kernels compiled')"
    )
    assert run.test(sys.executable, ["test_it.py"]) == 0
    row = next(x for x in capfd.readouterr().out.splitlines() if x.startswith("pytest "))
    assert row.endswith("  1       0        0  7 kernels compiled")


LINUX = sys.platform == "linux" and platform.machine() == "x86_64"


@pytest.mark.skipif(not LINUX, reason="there are wheels for Linux on x86-64 only")
def test_compilers_are_installed_for_the_tests_once_and_may_fail(tmp_path):
    project = Project(tmp_path)
    line = make_wheel(project.wheels, "1.0")
    lock = project.root / "requirements-cuda.lock"
    lock.write_text(line.replace("grain", "absent"))
    _, text = project.run("test")
    assert "that failed: the check will be among what was not run" in text
    assert "Traceback" not in text
    make_wheel(project.wheels, "3.0")
    lock.write_text(make_wheel(project.wheels, "3.0"))
    _, text = project.run("test")
    assert "about 145 MB, once" in text and "failed:" not in text
    assert project.grain() == ("3.0", False)
    assert "145 MB" not in project.run("test")[1]
    assert "145 MB" not in project.run("test", "tests")[1]


def test_compilers_are_not_installed_for_the_lab_nor_outside_of_our_environment(
    monkeypatch,
):
    monkeypatch.setattr(run, "call", lambda command: pytest.fail("it installs"))
    run.get_compilers("/usr/bin/python3")


NOTEBOOK = """{"cells": [{"cell_type": "code", "execution_count": 1, "id": "one",
"metadata": {}, "source": "print(1 + 1)", "outputs": [{"name": "stdout",
"output_type": "stream", "text": "SAVED\\n"}]}], "nbformat": 4, "nbformat_minor": 5,
"metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}}}"""


def test_each_part_finds_what_is_wrong_in_its_files(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "nbval.plugin")
    monkeypatch.setattr(run, "APART", {"grading": ["tests/grading"]})
    monkeypatch.setattr(run, "get_compilers", lambda python: None)  # nothing to download
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: long\n")
    (tmp_path / "test_it.py").write_text(
        "import os\nimport pytest\n\n\ndef test_quick(): assert 1 == 2\n\n\n"
        "@pytest.mark.slow\ndef test_slow():\n    pass\n"
    )
    (tmp_path / "tests/grading").mkdir(parents=True)
    (tmp_path / "tests/grading/test_box.py").write_text("def test_box():\n    pass\n")
    for folder, saved in (("lectures", "2"), ("solutions", "3")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "a.ipynb"
        path.write_text(NOTEBOOK.replace("SAVED", saved))
    assert run.test(sys.executable, ["--all"]) == 1
    text = capfd.readouterr().out
    row = r"^(\w+(?: \w+)*) +\d+\.\d +(\d+) +(\d+) +(\d+)$"
    assert re.findall(row, text, re.MULTILINE) == [
        ("ruff check", "0", "1", "0"),
        ("ruff format", "0", "1", "0"),
        ("grading", "1", "0", "0"),
        ("other tests", "0", "1", "0"),
        ("notebooks", "1", "1", "0"),
        ("slow tests", "1", "0", "0"),
    ]
    assert "nothing was left out" in text
    assert text.endswith("\n3 passed, 4 failed, 0 skipped\n")


# ---------------------------------------------------------------- lab


@POSIX
def test_lab_shows_the_first_lecture_and_the_whole_project(tmp_path):
    code = "import sys, run; run.lab(sys.executable, sys.argv[1:])"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", f"--port={port}", "--IdentityProvider.token=t"]
    lab = subprocess.Popen(
        [sys.executable, "-c", code, *options],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        printed = ""
        server = f"http://localhost:{port}"
        while f"{server}/lab/tree/{run.FIRST_LECTURE}?token" not in printed:
            line = lab.stdout.readline()
            assert line, printed
            printed += line
        assert "only once" in printed
        answer = None
        while not answer:  # it prints its address a moment before it listens
            with contextlib.suppress(urllib.error.URLError):
                answer = urllib.request.urlopen(f"{server}/lab?token=t", timeout=30)
            assert lab.poll() is None
            time.sleep(0.1)
        assert answer.status == 200
        with urllib.request.urlopen(f"{server}/api/contents?token=t", timeout=30) as answer:
            listing = answer.read().decode()
        for folder in ("lectures", "exercises", "solutions", "course"):
            assert f'"path": "{folder}"' in listing
    finally:
        lab.send_signal(signal.SIGTERM)
        lab.communicate(timeout=30)
    assert lab.returncode == 0
