"""What a box is made of: the files in it, the walls around it, and whether they stand.

A box has one of three tiers, see `course.grading.grades.ISOLATION`:

    strict      bubblewrap gives it an own world: process ids, network, file system
                with nothing but what it needs; inside, `course.grading.lock`
    landlock    `course.grading.lock` alone; works in a container that may make no
                namespaces
    none        a process like any other

In the box are the base interpreter with its standard library, the system's shared
libraries, NumPy, numba and matplotlib with what they need, and an image of `course`: the
worker, and the modules that the questions need. No questions, no answers, nothing that
can be written. The machine code of the layers is there, to read, if layers are.
"""

import ast
import atexit
import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import course
from course.compiled import FOLDER
from course.grading.wire import SIZES, WireError, decode, encode

PACKAGE = Path(course.__file__).parent
LIBRARIES = ("numpy", "numba", "matplotlib", "platformdirs")  # with what they need
BLAS = ("_cyutility*", "linalg/cython_*.*")  # of SciPy: for numba's `@` and np.linalg
NEVER = ("site-packages", "dist-packages")
INSIDE = ("course.grading.worker",)
CHECK = '''"""Stands in for the module that knows the answers."""


def check(fn):
    """Return the function."""
    return fn


def hint(*_):
    """Say nothing."""


progress = hint
'''
START = (
    "import sys; sys.path += [sys.argv[1] + '/site', sys.argv[1]]; "
    "from course.grading.worker import main; main()"
)
HOME = "/box"  # of the image, in the tier strict
MACHINE_CODE = "compiled"  # in it
HARMLESS = ("/etc/ld.so.cache", "/sys/devices/system/cpu")
USERS = range(60600, 61180)  # for boxes; nobody else's by convention
BWRAP = "bwrap"
REMEDIES = {  # what bubblewrap says, and what helps
    "setting up uid map": "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    "No permissions to create": "sudo sysctl -w kernel.unprivileged_userns_clone=1",
    "Creating new namespace failed": "allow namespaces to the container: docker run "
    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined",
    "Failed to make / slave": "allow namespaces to the container: docker run "
    "--cap-add SYS_ADMIN --security-opt apparmor=unconfined",
}


class NotGraded(Exception):
    """The grader could not do its work; this says nothing about the student."""


# ---------------------------------------------------------------- what is in a box


@dataclass(frozen=True)
class Image:
    """A folder with what a box may read of ours.

    Attributes
    ----------
    folder : holds course/, and site/ with links to the libraries
    packages : path in site/ -> where that stands
    machine_code : the folder of machine code, if the box may read that
    """

    folder: Path
    packages: dict[str, Path]
    machine_code: Path | None

    @property
    def secret(self) -> Path:
        """A file beside it that a box must not be able to read."""
        return self.folder.parent / "secret"


def image(needs: tuple[str, ...] = ()) -> Image:
    """Return the image for answers that may import these modules of the course.

    It is made once in a process, in a folder that goes when the process ends.
    """
    return _image(tuple(sorted(set(needs))), os.getpid())


@cache
def _image(needs: tuple[str, ...], process: int) -> Image:
    private = Path(tempfile.mkdtemp(prefix="course-")).resolve()

    def remove() -> None:
        if os.getpid() == process:  # and not a child of it
            shutil.rmtree(private, ignore_errors=True)

    atexit.register(remove)
    made = Image(private / "image", packages(), FOLDER if needs else None)
    texts = {"course/exercises/check.py": CHECK, **scipy_texts()}
    for source in files_of((*INSIDE, *needs)):
        texts[source.relative_to(PACKAGE.parent).as_posix()] = source.read_text("utf-8")
    for name, text in texts.items():
        path = made.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (made.folder / "nothing").mkdir()
    for path in [made.folder, *made.folder.rglob("*")]:  # whatever the umask is
        path.chmod(0o755 if path.is_dir() else 0o644)
    for name, path in made.packages.items():
        _link(path, made.folder / "site" / name)
    made.secret.write_text("a box must not see this")
    return made


def files_of(modules: tuple[str, ...]) -> set[Path]:
    """Return the files of these modules of the course, and of all that they import."""
    todo = [file for module in modules for file in _places(module)]
    if missing := [module for module in modules if not _places(module)]:
        raise NotGraded(f"the course has no module {missing[0]}, which a question needs")
    found: set[Path] = set()
    while todo:
        file = todo.pop()
        if file in found or file == PACKAGE / "exercises/check.py":
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                todo += [place for alias in node.names for place in _places(alias.name)]
            elif isinstance(node, ast.ImportFrom):
                todo += _places(node.module)
                for alias in node.names:
                    todo += _places(f"{node.module}.{alias.name}")
    return found


def _places(module: str) -> list[Path]:
    """Return the file of a module of the course, and those of the packages it is in."""
    name, *parts = module.split(".")
    if name != PACKAGE.name:
        return []
    place = PACKAGE.joinpath(*parts)
    if not place.with_suffix(".py").is_file() and not (place / "__init__.py").is_file():
        return []
    above = [PACKAGE.joinpath(*parts[:count], "__init__.py") for count in range(len(parts))]
    return [
        file
        for file in (place.with_suffix(".py"), place / "__init__.py", *above)
        if file.is_file()
    ]


def packages() -> dict[str, Path]:
    """Return what else a box can import: path in site/ -> where that stands."""
    found: dict[str, Path] = {}
    todo, seen = list(LIBRARIES), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another Python or system
        todo += [
            re.match(r"[\w.-]+", needed)[0]
            for needed in distribution.requires or []
            if "extra ==" not in needed
        ]
        found |= _tops(distribution)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        scipy = importlib.metadata.distribution("scipy")
        place = Path(scipy.locate_file("scipy")).resolve()
        for pattern in BLAS:
            found |= {f"scipy/{p.relative_to(place)}": p for p in place.glob(pattern)}
        found |= {k: path for k, path in _tops(scipy).items() if k == "scipy.libs"}
    return found


def scipy_texts() -> dict[str, str]:
    """Return what stands for SciPy: nothing but the place of its BLAS."""
    try:
        version = importlib.metadata.version("scipy")
    except importlib.metadata.PackageNotFoundError:
        return {"site/README": "what a box can import"}
    return {
        "site/scipy/__init__.py": f"__version__ = {version!r}\n",
        "site/scipy/linalg/__init__.py": "",
    }


def _tops(distribution: importlib.metadata.Distribution) -> dict[str, Path]:
    """Return the folders and files that a distribution puts beside others."""
    files = distribution.files or [Path(distribution.name.lower(), "__init__.py")]
    names = {file.parts[0] for file in files if ".." not in file.parts}
    return {
        name: path
        for name in names
        if not name.endswith((".dist-info", ".egg-info", ".pth", "__pycache__"))
        and (path := Path(distribution.locate_file(name)).resolve()).exists()
    }


def _link(source: Path, link: Path) -> None:
    """Make a link; on Windows a user may make no real one."""
    try:
        link.symlink_to(source)
    except OSError:
        if source.is_dir():
            import _winapi

            _winapi.CreateJunction(str(source), str(link))
        else:
            shutil.copyfile(source, link)


# ---------------------------------------------------------------- how it is started


def command(tier: str, image: Image) -> list[str]:
    """Return the command line of a worker."""
    inside = HOME if tier == "strict" else str(image.folder)
    python = [str(interpreter()), "-I", "-S", "-B", "-c", START, inside]
    return [*bubblewrap(image), *python] if tier == "strict" else python


def interpreter() -> Path:
    """Return the interpreter itself, not the one of a virtual environment."""
    return Path(sys._base_executable or sys.executable).resolve()


def libraries() -> dict[Path, list[Path]]:
    """Return folders that hold the interpreter's library and the system's shared ones.

    With each come the folders inside that a box must not see.
    """
    found: dict[Path, list[Path]] = {}
    system = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
    for path in (*system, os.path.join(sys.base_prefix, "lib")):
        inner = Path(path, sysconfig.get_config_var("MULTIARCH") or "")
        folder = (inner if inner.is_dir() else Path(path)).resolve()
        if folder.is_dir():
            found[folder] = sorted(p for p in folder.glob("python*") if p.is_dir())
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    found[standard] = [standard / name for name in NEVER if (standard / name).is_dir()]
    return found


def bubblewrap(image: Image) -> list[str]:
    """Return the command line of bubblewrap, up to the program to start."""
    line = [shutil.which(BWRAP) or BWRAP, "--die-with-parent", "--new-session"]
    line += ["--hostname", "box", "--cap-drop", "ALL"]
    if is_root():  # a real user of its own: `lock` changes to it
        for name in ("pid", "net", "ipc", "uts", "cgroup-try"):
            line.append(f"--unshare-{name}")
        for name in ("SETUID", "SETGID", "SETPCAP"):
            line += ["--cap-add", f"CAP_{name}"]
    else:
        line += ["--unshare-all", "--uid", str(USERS[0]), "--gid", str(USERS[0])]
    for device in ("null", "zero", "urandom"):
        line += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    line += ["--proc", "/proc"]
    for place in ("/lib", "/lib64"):
        if os.path.islink(place):
            line += ["--symlink", os.readlink(place), place]
    nothing, home = image.folder / "nothing", Path(HOME)
    shown: list[tuple[Path, Path]] = []  # what, where
    for path, hidden in libraries().items():
        shown += [(path, path), *((nothing, inner) for inner in hidden)]
    shown += [(path, path) for path in (interpreter(), *map(Path, HARMLESS))]
    shown += [(image.folder / "course", home / "course")]
    shown += [(path, home / "site" / name) for name, path in image.packages.items()]
    shown += [(image.folder / name, home / name) for name in scipy_texts()]
    if image.machine_code:
        shown.append((image.machine_code, home / MACHINE_CODE))
    made: set[Path] = set()
    for source, at in shown:
        for above in [*reversed(at.parents)][1:]:  # by itself it makes them for root only
            if above not in made and not any(above.is_relative_to(w) for _, w in shown):
                made.add(above)
                line += ["--perms", "0755", "--dir", str(above)]
        line += ["--ro-bind-try", str(source), str(at)]
    return [*line, "--remount-ro", "/", "--chdir", HOME]


def request(tier: str, image: Image, user: int | None) -> dict[str, Any]:
    """Return what a worker is asked first: to lock itself up, and to try its walls."""
    strict = tier == "strict"
    readable, listable = [Path("/")], []
    if not strict:
        readable = [*map(Path, HARMLESS), Path("/proc/cpuinfo"), image.folder]
        readable += [*image.packages.values(), image.machine_code or image.folder]
        for folder, hidden in libraries().items():
            inner = [p for p in folder.iterdir() if p not in hidden and not p.is_symlink()]
            readable += inner if hidden else [folder]
            listable.append(folder)
    code = image.machine_code and (Path(HOME) / MACHINE_CODE if strict else FOLDER)
    return {
        "id": "",
        "do": "lock",
        "tier": tier,
        "readable": [str(path) for path in readable],
        "listable": [str(path) for path in listable],
        "user": user,
        "owner": user if strict else 0,
        "secret": str(image.secret),
        "machine_code": str(code) if code else "",
    }


def is_root() -> bool:
    """Say whether the grader is root and may become another user."""
    if not hasattr(os, "geteuid") or os.geteuid():
        return False
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/uid_map").read_text().splitlines():
            first, _, count = map(int, line.split())
            if first <= USERS[0] and USERS[-1] < first + count:
                return True
    return False


@contextlib.contextmanager
def user_of_its_own() -> Iterator[int | None]:
    """Hold a user id that no other box on this machine has; None unless we are root.

    Who has it also has a socket of that name, which ends with its process.
    """
    if not is_root():
        yield None
        return
    for user in USERS:
        with socket.socket(socket.AF_UNIX) as held:
            try:
                held.bind(f"\0course-box-{user}")
            except OSError:
                continue
            yield user
            return
    raise NotGraded(f"{len(USERS)} boxes run already")


def environment(place: str) -> dict[str, str]:
    """Return the few variables that a box gets: nothing of the teacher's."""
    threads = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    return {
        **{f"{library}_NUM_THREADS": "1" for library in threads},
        **dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TMP", "TEMP"), place),
        "COURSE_CACHE": os.path.join(place, "cache"),
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "1",
        "MPLCONFIGDIR": os.path.join(place, "matplotlib"),
        "PATH": os.defpath,
        **{k: os.environ[k] for k in ("SYSTEMROOT",) if k in os.environ},
    }


# ---------------------------------------------------------------- does it work here?


def tiers() -> dict[str, str]:
    """Return for each tier that isolates "" if it works here, else why not."""
    return {tier: why_not(tier) for tier in ("strict", "landlock")}


def choose(asked: str) -> str:
    """Return the tier for "auto", "strict" or "none". Raises NotGraded.

    "auto" is the best there is, which may be none; "strict" is that tier or an error.
    """
    if asked not in ("auto", "strict", "landlock", "none"):
        raise NotGraded(f"there is no sandbox {asked!r}; there are auto, strict and none")
    if asked == "none":
        return asked
    if asked == "auto":
        return next((t for t in ("strict", "landlock") if not why_not(t)), "none")
    if reason := why_not(asked):
        raise NotGraded(f"the sandbox {asked!r} does not work here: {reason}")
    return asked


@cache
def why_not(tier: str) -> str:
    """Try a box of this tier, with a compiled loop in it; return "" or what is wrong."""
    if sys.platform != "linux":
        return f"it needs Linux, and this is {platform.system()}: use a container or WSL 2"
    if tier == "strict" and not shutil.which(BWRAP):
        return "bubblewrap is not installed: sudo apt install bubblewrap"
    made = image()
    with user_of_its_own() as user, tempfile.TemporaryDirectory() as place:
        asked = [request(tier, made, user), {"id": "", "do": "try"}]
        try:
            done = subprocess.run(
                command(tier, made),
                input=b"".join(map(encode, asked)),
                capture_output=True,
                cwd=place,
                env=environment("/"),
                timeout=120,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    try:
        for reply in frames(done.stdout, len(asked)):
            if reply["outcome"] != "returned" or reply["value"]:
                return " ".join(map(str, reply["value"]))
    except (WireError, KeyError, TypeError) as error:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [str(error)]
        remedies = [remedy for sign, remedy in REMEDIES.items() if sign in said[-1]]
        return ": ".join([said[-1], *remedies[:1]])
    return ""


def frames(data: bytes, count: int) -> Iterator[Any]:
    """Yield the values of so many frames."""
    for _ in range(count):
        if len(data) < SIZES.size:
            raise WireError("it ended")
        head, body = SIZES.unpack_from(data)
        data = data[SIZES.size :]
        yield decode(data[:head], data[head : head + body])
        data = data[head + body :]
