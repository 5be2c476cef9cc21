"""How the course compiles its loops, and where it keeps the machine code.

`@compiled` is numba's `@njit` with four choices made once:

- Machine code is kept on disk, so that only the first run compiles. Numba looks only at
  the file of the function itself and would keep an old helper from another file. Here
  machine code is named by the contents of the file and of all that it imports from the
  course: edit a helper, and its callers are compiled again.
- `nogil=True`: while a loop runs, other threads may (see `course.device.fill`).
- `error_model="numpy"`: a division by zero gives inf or nan, as in NumPy, and loops
  with a division can use vector instructions.
- `fastmath={"reassoc", "contract"}`: a sum may be split into the lanes of a vector, and a
  product and a sum may be one instruction. NaN and infinity keep their meaning. Which
  sums go to which lane is fixed at compile time: same machine, same bits.
"""

import hashlib
import os
import pickle
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba
import platformdirs
from numba import config, njit
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    _CacheLocator,
)

PACKAGE = Path(__file__).parent
UNUSED_DAYS = 30  # machine code that nobody used for so long is removed
IMPORT = re.compile(
    r"^(?:from|import) (course[\w.]*)(?: import (\([^)]*\)|.*))?", re.MULTILINE
)
FIRST_TIME = (
    "compiling loops, once on this machine: the next run loads them from disk "
    "(`course warmup` compiles all)"
)


def user_cache() -> Path:
    """Return the folder for what the course can make again: COURSE_CACHE, or the user's."""
    chosen = os.environ.get("COURSE_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("convnet-course")


@cache
def _read(path: str, changed: int) -> tuple[str, list[str]]:
    """Return the SHA-256 of a file, and the files of the course that it imports."""
    source = Path(path).read_text(encoding="utf-8")
    found = []
    for module, names in IMPORT.findall(source):
        place = PACKAGE.parent.joinpath(*module.split("."))
        found += [place.with_suffix(".py"), place / "__init__.py"]
        found += [place / f"{name}.py" for name in re.findall(r"\w+", names)]
    imported = [str(file) for file in found if file.is_file()]
    return hashlib.sha256(source.encode()).hexdigest(), imported


def fingerprint(path: str) -> str:
    """Return the SHA-256 of what decides on a file's machine code.

    That is the file, every file of the course that it imports, those that they import,
    and so on; Numba's version; and whether bounds are checked.
    """
    digests, todo = {}, [path]
    while todo:
        path = todo.pop()
        if path not in digests:
            digests[path], imported = _read(path, os.stat(path).st_mtime_ns)
            todo += imported
    text = f"{numba.__version__} {config.BOUNDSCHECK} {sorted(digests.values())}"
    return hashlib.sha256(text.encode()).hexdigest()


def cache_folder() -> Path | None:
    """Return the folder for machine code, or None if it cannot be written."""
    folder = user_cache() / "compiled"
    probe = folder / f"probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError:
        return None
    return folder


FOLDER = cache_folder()
announce = True  # the first compilation, if somebody is there to read it


class Files(IndexDataCacheFile):
    """A file for each function and each set of argument types, named by both.

    The name also says which version of the source was compiled. Numba keeps an index
    instead: of two processes that add to it at one moment, one is forgotten.
    """

    def __init__(self, folder: str, name: str, version: str):
        self.folder, self.name, self.version = Path(folder), name, version

    def path(self, key: Any) -> Path:
        """Return where the machine code of a set of argument types is kept."""
        digest = hashlib.sha256(f"{self.version} {key!r}".encode()).hexdigest()
        return self.folder / f"{self.name}.{digest[:16]}.nbc"

    def save(self, key: Any, data: Any) -> None:
        """Write machine code; the file is whole or not there."""
        remove_unused()
        with self._open_for_write(self.path(key)) as file:
            file.write(self._dump(data))

    def load(self, key: Any) -> Any:
        """Return what was saved under the key, or None."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # we may only read it
            os.utime(path)  # the time of its last use
        return pickle.loads(data)


@cache
def remove_unused() -> None:
    """Remove, once in a process, the machine code that nobody has used for a while."""
    for path in FOLDER.rglob("*"):
        try:
            if path.is_file() and time.time() - path.stat().st_mtime > UNUSED_DAYS * 86400:
                path.unlink()
        except OSError:
            pass  # another process was faster


class Place(_CacheLocator):
    """Where the machine code of a function goes: a folder for each one of the package."""

    def __init__(self, code: Any):
        self.folder = FOLDER / Path(code.co_filename).parent.relative_to(PACKAGE)
        self.line = code.co_firstlineno

    @classmethod
    def from_function(cls, function: Callable, file: str) -> "Place":
        """Return the place; Numba asks for it."""
        return cls(function.__code__)

    def get_cache_path(self) -> str:
        """Return the folder."""
        return str(self.folder)

    def get_source_stamp(self) -> None:
        """Return nothing: the names of the files say which source they belong to."""

    def get_disambiguator(self) -> str:
        """Return what tells functions of one name apart."""
        return str(self.line)


class Kept(CompileResultCacheImpl):
    """Numba's way to write machine code down, in places of our own."""

    _locator_classes = (Place,)


class Cache(FunctionCache):
    """The machine code of one function, for every set of argument types.

    Attributes
    ----------
    misses : how often something had to be compiled in this process, whatever the function
    """

    misses = 0
    _impl_class = Kept

    def __init__(self, function: Callable):
        self.function = function
        self.version = fingerprint(function.__code__.co_filename)  # before anybody edits it
        self._cache_path = str(FOLDER)

    def open(self) -> None:
        """Find its place on disk, which only a function that is called needs."""
        if "_impl" not in self.__dict__:
            super().__init__(self.function)
            name = self._impl.filename_base
            self._cache_file = Files(self._cache_path, name, self.version)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return machine code from disk, or None, and say that this takes a while."""
        self.open()
        with _blas_later():
            found = super().load_overload(sig, target_context)
        if found is None:
            Cache.misses += 1
            _say_once()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write machine code, unless the disk is full or may only be read."""
        with suppress(OSError):
            super().save_overload(sig, data)


@contextmanager
def _blas_later() -> Iterator[None]:
    """Let Numba load SciPy's BLAS when a loop first calls it, as no loop of ours does.

    Numba would load it at the first call of any loop: half of the time that a first call
    takes when its machine code is on disk.
    """
    from numba.np import linalg

    load = linalg.ensure_blas
    if "numba.np.arraymath" not in sys.modules:
        linalg.ensure_blas = lambda: None  # what numba.np.arraymath asks, once
    try:
        yield
    finally:
        linalg.ensure_blas = load


def _say_once() -> None:
    """Tell whoever sits at a notebook or a terminal why nothing happens yet.

    It goes to stderr, which is not saved with a notebook, nor compared.
    """
    global announce
    if announce and (_in_notebook() or (sys.stderr and sys.stderr.isatty())):
        print(FIRST_TIME, file=sys.stderr, flush=True)
    announce = False


def _in_notebook() -> bool:
    """Say whether IPython runs us."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def compiled(function: Callable | None = None, **options: Any) -> Callable:
    """Compile the function when it is first called, and keep the machine code.

    Functions from elsewhere, as from a notebook, are compiled anew in every process: we
    do not know what they import. Options are numba's, as in
    `@compiled(parallel=True)`.

    >>> @compiled
    ... def double(x):
    ...     return 2 * x
    >>> double(21)
    42
    """
    if function is None:
        return partial(compiled, **options)
    ours = Path(function.__code__.co_filename).is_relative_to(PACKAGE)
    choices = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}
    choices["no_cfunc_wrapper"] = True  # nobody calls loops from C; compiles faster
    loops = njit(**choices | options)(function)
    if ours and FOLDER is not None and not config.DISABLE_JIT:
        loops._cache = Cache(function)
    return loops


# For loops that only loops call. Without the way in from Python they compile faster.
inside = partial(compiled, no_cpython_wrapper=True, _nrt=False)
job = partial(compiled, _nrt=False)
