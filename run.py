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
import signal
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
COMPILERS = ROOT / "requirements-cuda.lock"
LOCKED = ["--only-binary", ":all:", "--require-hashes", "-r"]
STAMP = VENV / "set-up.stamp"
UNFINISHED = "unfinished"
CONDA = "convnet-course"  # the name in environment.yml
FIRST_LECTURE = "lectures/03_scores_to_loss.ipynb"
OLDEST, NEWEST = (3, 11), (3, 14)
AT_ONCE = min(2, os.cpu_count() or 1)  # parts of the tests
PATIENCE = 5  # seconds until a part that should end is told so again
NOTE = "compile check"  # a property of a report that belongs into the table
APART = {  # name -> folders of tests that are a part of their own, the longest first
    "grading": ["tests/grading"],
    "layers": ["tests/engine", "tests/layers"],
    "exercises": ["tests/exercises", "tests/lectures"],
    "cuda": ["tests/cuda"],
}


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
    if not PYTHON.exists():
        if uv:
            fits = OLDEST <= sys.version_info[:2] <= NEWEST
            newer = f">={dotted(OLDEST)},<={dotted(NEWEST)}.99"
            python = sys.executable if fits else newer
            call([uv, "venv", "--allow-existing", "--python", python, *quiet(), VENV])
        else:
            call([sys.executable, "-m", "venv", VENV])
    print("+ the first time this downloads about 225 MB", flush=True)
    call([*pip(uv), *LOCKED, LOCK])
    call([*pip(uv), "--no-build-isolation", "--no-deps", "-e", ROOT])


def pip(uv):
    """Return the command that installs into .venv."""
    if uv:
        return [uv, "pip", "install", "--python", PYTHON, *quiet()]
    return [PYTHON, "-m", "pip", "install", *quiet()]


def quiet():
    """Return what keeps an installer from drawing bars where nobody looks."""
    return [] if sys.stdout.isatty() else ["--quiet"]


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
    """Run the parts, two at once; print their times and what was not run."""
    everything = arguments == ["--all"]
    if everything:
        os.environ.setdefault("COURSE_FUZZ", "100000")  # damaged messages; else thousands
    if everything or not arguments:
        get_compilers(python)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # tests need Ctrl-C
    start = time.time()
    done = [Part(name, command) for name, command in parts(python, arguments).items()]
    run_parts([part for part in done if part.name != "slow tests"], AT_ONCE)
    run_parts([part for part in done if part.name == "slow tests"], 1)
    print(f"\n{'part':12} seconds  passed  failed  skipped")
    not_run = Counter()
    for part in done:
        not_run.update(part.reasons)
        counts = f"{part.passed:6}  {part.failed:6}  {part.skipped:7}"
        print("  ".join([f"{part.name:12} {part.seconds:7.1f}  {counts}", *part.notes]))
    print(f"{'all':12} {time.time() - start:7.1f}")
    reasons = [f"{count:6}  {reason}" for reason, count in sorted(not_run.items())]
    if not arguments:
        reasons.append("   all  tests marked slow (browser, soaks): run.py test --all")
    print("\nnot run:" if reasons else "\nnothing was left out", *reasons, sep="\n")
    failed = sum(part.failed for part in done)
    passed, skipped = (sum(getattr(p, k) for p in done) for k in ("passed", "skipped"))
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)


def get_compilers(python):
    """Install what compiles CUDA kernels where there is no GPU, if there are wheels of it.

    Only tests need it: what `run.py lab` downloads is half as much.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64" or python != str(PYTHON):
        return
    want = wanted() + hashlib.sha256(COMPILERS.read_bytes()).hexdigest()
    have = VENV / "compilers.stamp"
    with alone():
        if have.is_file() and have.read_text() == want:
            return
        print("+ for the compile check of CUDA kernels: about 145 MB, once", flush=True)
        try:
            call([*pip(shutil.which("uv")), *LOCKED, COMPILERS])
        except (subprocess.CalledProcessError, OSError):
            print("+ that failed: the check will be among what was not run", flush=True)
        else:
            have.write_text(want)


def parts(python, arguments):
    """Return the command of each part."""
    pytest = [python, "-m", "pytest"]
    if arguments and arguments != ["--all"]:
        return {"pytest": [*pytest, *arguments]}
    quick = [*pytest, "-m", "not slow"]
    rest = [f"--ignore={path}" for paths in APART.values() for path in paths]
    nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300"]
    found = {
        "ruff check": [python, "-m", "ruff", "check", "."],
        "ruff format": [python, "-m", "ruff", "format", "--check", "."],
        **{name: [*quick, *paths] for name, paths in APART.items()},
        "other tests": [*quick, *rest],
        "notebooks": [*pytest, *nbval, "lectures", "solutions"],
    }
    if arguments:
        found["slow tests"] = [*pytest, "-m", "slow"]
    return found


class Part:
    """A command in a process of its own, and what became of it."""

    def __init__(self, name, command):
        self.name, self.command = name, command
        self.passed = self.failed = self.skipped = 0
        self.reasons, self.notes = [], []  # why tests were skipped; for the table

    def start(self, live):
        """Start it; what it prints is seen at once, or after its end."""
        self.began, self.live = time.time(), live
        self.folder = tempfile.TemporaryDirectory()
        folder = Path(self.folder.name)
        self.report, self.printed = folder / "report.xml", folder / "printed"
        command = list(self.command)
        if "pytest" in command:
            command.append(f"--junitxml={self.report}")
        env = dict(os.environ, IPYTHONDIR=self.folder.name)  # no start-up files of the user
        with self.printed.open("wb") as file:
            out = (None, None) if live else (file, subprocess.STDOUT)
            if live:
                print(f"\n== {self.name}", flush=True)
            self.process = subprocess.Popen(
                command, cwd=str(ROOT), env=env, stdout=out[0], stderr=out[1]
            )

    def ended(self):
        """Say whether it has ended; then count what passed, and note why what did not."""
        if self.process.poll() is None:
            return False
        self.seconds = time.time() - self.began
        code, cases = self.process.returncode, []
        if "pytest" not in self.command:
            self.passed, self.failed = (0, 1) if code else (1, 0)
            return True
        if self.report.is_file():
            tree = ElementTree.parse(str(self.report))
            cases = list(tree.iter("testcase"))
            notes = tree.findall("testsuite/properties/property")
            self.notes = [n.get("value") for n in notes if n.get("name") == NOTE]
        for case in cases:
            self.failed += bool(case.findall("failure") or case.findall("error"))
        skips = [skip for case in cases for skip in case.findall("skipped")]
        self.reasons, self.skipped = list(map(reason_of, skips)), len(skips)
        self.passed = len(cases) - self.failed - self.skipped
        if not self.failed and (code or not cases):
            self.failed = 1  # pytest itself failed, or found no tests
        return True

    def close(self):
        """Show what it has printed unseen, and remove its files."""
        if not self.live:
            print(f"\n== {self.name}", flush=True)
            sys.stdout.buffer.write(self.printed.read_bytes())
            sys.stdout.flush()
        self.folder.cleanup()


def run_parts(waiting, at_once):
    """Run the parts, some at once; what one of them prints is seen live."""
    running, quiet = [], []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(waiting.pop(0))
                running[-1].start(live=not any(part.live for part in running[:-1]))
            time.sleep(0.05)
            for part in [part for part in running if part.ended()]:
                running.remove(part)
                quiet.append(part)
            if not any(part.live for part in running):
                while quiet:
                    quiet.pop(0).close()
    except BaseException:
        stop([part.process for part in running])
        raise


def stop(processes):
    """End the processes. Ctrl-C in a terminal has told them already."""
    interrupt = signal.SIGTERM if os.name == "nt" else signal.SIGINT
    for number in (None, interrupt, signal.SIGTERM):
        for process in processes:
            if number and process.poll() is None:
                process.send_signal(number)
        end = time.time() + PATIENCE
        while time.time() < end and any(p.poll() is None for p in processes):
            time.sleep(0.05)
    for process in processes:
        process.kill()
        process.wait()


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
