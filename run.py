#!/usr/bin/env python3
"""Set the course up in .venv, once, and use it.

    python3 run.py lab [ARGUMENT ...]     open the course in JupyterLab
    python3 run.py test [--all]           run every check; --all: the long ones too
    python3 run.py test ARGUMENT ...      run pytest with these arguments only
    python3 run.py python ARGUMENT ...    run the Python of .venv: -m pip install torch, ...
    python3 run.py VERB ...               the `course` command: train, grade, doctor, ...

On Windows: py run.py lab. The set-up uses uv if that is installed, else venv and pip; it
needs the network once. In a conda environment made from environment.yml nothing is set up.
This file uses the standard library only, and any Python from 3.8 on can read it.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "set-up.stamp"
UNFINISHED = "unfinished"
CONDA = "convnet-course"  # the name in environment.yml
FIRST_LECTURE = "lectures/03_scores_to_loss.ipynb"
OLDEST, NEWEST = (3, 11), (3, 14)


def main(arguments):
    """Do what the command line asks for; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    verb, rest = arguments[0], arguments[1:]
    python = set_up()
    path = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = str(Path(python).parent) + os.pathsep + path
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # no kernel left in the home folder
    os.environ.pop("PYTHONHOME", None)
    if verb == "lab":
        return lab(python, rest)
    if verb == "test":
        return test(python, rest)
    if verb == "python":
        return become([python, *rest])
    os.environ["PYTHONSAFEPATH"] = "1"  # no module of the folder we stand in: it may be
    return become([python, "-m", "course", verb, *rest])  # a student's


# ---------------------------------------------------------------- set-up


def set_up():
    """Return the Python to use, after installing the course and the lock if needed."""
    if os.environ.get("CONDA_DEFAULT_ENV") == CONDA:
        return sys.executable
    if ready():
        return str(PYTHON)
    with alone():
        if ready():  # another run.py has just done it
            return str(PYTHON)
        before = stamp()
        start = time.time()
        uv = shutil.which("uv")
        refuse_what_cannot_work(uv)
        if VENV.exists() and (before == UNFINISHED or not works()):
            print("+ removing a broken or half-made .venv", flush=True)
            shutil.rmtree(str(VENV))
        VENV.mkdir(exist_ok=True)
        STAMP.write_text(UNFINISHED)  # if we are killed, the next run starts anew
        try:
            install(uv)
        except (subprocess.CalledProcessError, OSError) as error:
            STAMP.write_text(before or UNFINISHED)
            raise SystemExit(failure(error)) from None
        STAMP.write_text(wanted())
        print(f"+ set up in {time.time() - start:.0f} s", flush=True)
    return str(PYTHON)


def ready():
    """Say whether the set-up was finished, for these files, here, with this Python."""
    return PYTHON.exists() and stamp() == wanted()


def stamp():
    """Return what the last set-up wrote, or an empty text."""
    return STAMP.read_text() if STAMP.is_file() else ""


def wanted():
    """Return what the set-up writes when it is finished."""
    digest = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes())
    digest.update(os.fsencode(PYTHON.resolve()) + os.fsencode(ROOT))
    return digest.hexdigest()


@contextlib.contextmanager
def alone():
    """Wait until no other run.py of this folder is setting up; keep others waiting."""
    with open(__file__, "rb") as file:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 30)  # a byte that nobody reads
            while True:
                with contextlib.suppress(OSError):  # it gives up after ten seconds
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            import fcntl

            with contextlib.suppress(OSError):  # some network drives have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def refuse_what_cannot_work(uv):
    """Exit with what to do if this machine cannot hold the course as it is."""
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        raise SystemExit(
            "On Macs with an Intel processor the course needs conda (numba is not on the\n"
            "package index for them):\n    conda env create -f environment.yml\n"
            f"    conda activate {CONDA}\n    python run.py lab"
        )
    if uv:
        return
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        names = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
        found = next(filter(shutil.which, names), None)
        again = " ".join([found or "", "run.py", *sys.argv[1:]])
        raise SystemExit(
            f"The course needs Python {dotted(OLDEST)} to {dotted(NEWEST)}; this is Python "
            f"{dotted(sys.version_info[:3])} ({sys.executable}).\n"
            + (
                f"Here is another: {again}"
                if found
                else "Install one of these, or uv, which brings one; then run this again."
            )
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SystemExit(
            f"This Python ({sys.executable}) cannot make virtual environments.\n"
            "On Debian and Ubuntu: sudo apt install python3-venv\n"
            "Elsewhere: install uv; then run this again."
        ) from None


def dotted(version):
    """Return (3, 11) as 3.11."""
    return ".".join(map(str, version))


def works():
    """Say whether .venv has a Python that fits, runs and can install packages."""
    code = f"import pip, sys; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"
    with contextlib.suppress(OSError):
        return subprocess.call([str(PYTHON), "-c", code], env=clean()) == 0
    return False


def clean():
    """Return the environment without what would lead an installation astray."""
    unset = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    env = {key: value for key, value in os.environ.items() if key not in unset}
    return dict(env, PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1")


def install(uv):
    """Make .venv if it is not there, and install the lock and the course into it."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    if uv:
        fits = OLDEST <= sys.version_info[:2] <= NEWEST
        python = sys.executable if fits else f">={dotted(OLDEST)},<={dotted(NEWEST)}.99"
        make = [uv, "venv", "--allow-existing", "--python", python, *quiet, VENV]
        pip = [uv, "pip", "install", "--python", PYTHON, *quiet]
    else:
        make = [sys.executable, "-m", "venv", VENV]
        pip = [PYTHON, "-m", "pip", "install", *quiet]
    if not PYTHON.exists():
        call(make)
    print("+ the first time this downloads about 225 MB", flush=True)
    call([*pip, "--only-binary", ":all:", "--require-hashes", "-r", LOCK])
    call([*pip, "--no-build-isolation", "--no-deps", "-e", ROOT])


def call(command):
    """Run the command, or raise CalledProcessError."""
    command = [str(word) for word in command]
    print("+", *command, flush=True)
    subprocess.check_call(command, cwd=str(ROOT), env=clean())


def failure(error):
    """Return in words what failed and what to do."""
    if isinstance(error, subprocess.CalledProcessError):
        what = " ".join(error.cmd)
    else:
        what = str(error)
    return (
        f"\nThe set-up stopped: this failed, with the message above:\n    {what}\n"
        "Most often there is no network. The set-up needs it once; later runs do not.\n"
        "Then run the same command again. What is half made does no harm."
    )


# ---------------------------------------------------------------- lab


def lab(python, rest):
    """Open JupyterLab on the whole project with the first lecture in front."""
    print("The first cell that uses a layer compiles it: some seconds, only once.")
    command = [python, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}"]
    command += ["--LabApp.default_url=/lab/tree/" + FIRST_LECTURE]
    if hasattr(os, "getuid") and os.getuid() == 0:
        command += ["--allow-root"]
    return become(command + rest)


def become(command):
    """Let the command take this program's place; return its exit code where it cannot."""
    sys.stdout.flush()
    if os.name != "nt":
        os.execv(command[0], command)
    process = subprocess.Popen(command)
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is for the command
            return process.wait()


# ---------------------------------------------------------------- test


def test(python, arguments):
    """Run the parts one after the other; print their times and what was not run."""
    rows, not_run = [], Counter()
    if arguments == ["--all"]:
        os.environ.setdefault(
            "COURSE_FUZZ", "100000"
        )  # damaged messages; else some thousands
    for part, command in parts(python, arguments).items():
        print(f"\n== {part}", flush=True)
        start = time.time()
        counts = run_part(command, not_run)
        rows.append((part, time.time() - start, *counts))
    print(f"\n{'part':12} seconds  passed  failed  skipped")
    for part, seconds, *counts in rows:
        print(f"{part:12} {seconds:7.1f}  {counts[0]:6}  {counts[1]:6}  {counts[2]:7}")
    print(f"{'all':12} {sum(row[1] for row in rows):7.1f}")
    reasons = [f"{count:6}  {reason}" for reason, count in sorted(not_run.items())]
    if not arguments:
        reasons.append("   all  tests marked slow (browser, soaks): run.py test --all")
    print("\nnot run:" if reasons else "\nnothing was left out", *reasons, sep="\n")
    passed, failed, skipped = (sum(column) for column in zip(*(row[2:] for row in rows)))
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)


def parts(python, arguments):
    """Return the command of each part."""
    pytest = [python, "-m", "pytest"]
    if arguments and arguments != ["--all"]:
        return {"pytest": [*pytest, *arguments]}
    nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300"]
    quick = {
        "ruff check": [python, "-m", "ruff", "check", "."],
        "ruff format": [python, "-m", "ruff", "format", "--check", "."],
        "tests": [*pytest, "-m", "not slow"],
        "notebooks": [*pytest, *nbval, "lectures", "solutions"],
    }
    slow = {"slow tests": [*pytest, "-m", "slow"]}
    return {**quick, **slow} if arguments else quick


def run_part(command, not_run):
    """Run one part; return how many passed, failed and were skipped, and note reasons."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        if "pytest" in command:
            command = [*command, f"--junitxml={report}"]
        env = dict(os.environ, IPYTHONDIR=folder)  # no start-up files of the user
        code = subprocess.call(command, cwd=str(ROOT), env=env)
        tree = ElementTree.Element("testsuites")
        if report.is_file():
            tree = ElementTree.parse(str(report))
        cases = list(tree.iter("testcase"))
    if "pytest" not in command:
        return (0, 1, 0) if code else (1, 0, 0)
    failed = sum(bool(case.findall("failure") or case.findall("error")) for case in cases)
    skips = [skip for case in cases for skip in case.findall("skipped")]
    not_run.update(map(reason_of, skips))
    passed = len(cases) - failed - len(skips)
    if not failed and (code or not cases):
        failed = 1  # pytest itself failed, or found no tests
    return passed, failed, len(skips)


def reason_of(skip):
    """Return why a test, or a whole file of tests, was skipped."""
    message = skip.get("message", "no reason given")
    if message == "collection skipped":  # the text is ('file', line, 'Skipped: reason')
        message = (skip.text or message).split("Skipped: ")[-1].rstrip("')\"")
    return message


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("\nstopped")
