"""How the course compiles its loops, and where it keeps the machine code.

`@compiled` is numba's `@njit` with four choices made once:

- `cache=True`: machine code is kept on disk, so that only the first run compiles.
  Numba looks only at the file of the function itself and would keep an old helper from
  another file. Here the folder is named by the contents of every file of the course that
  holds compiled code: edit any loop and all of them are compiled again.
- `nogil=True`: while a loop runs, other threads may (see `course.device.fill`).
- `error_model="numpy"`: a division by zero gives inf or nan, as in NumPy, and loops
  with a division can use vector instructions.
- `fastmath={"reassoc", "contract"}`: a sum may be split into the lanes of a vector, and a
  product and a sum may be one instruction. NaN and infinity keep their meaning. Which
  sums go to which lane is fixed at compile time: same machine, same bits.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import platformdirs
from numba import config, njit

UNUSED_DAYS = 30  # a folder of machine code that nobody used for so long is removed


def user_cache() -> Path:
    """Return the folder for what the course can make again: COURSE_CACHE, or the user's."""
    chosen = os.environ.get("COURSE_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("convnet-course")


def fingerprint() -> str:
    """Return the SHA-256 of every file of the course that holds compiled code."""
    digest = hashlib.sha256(f"boundscheck={config.BOUNDSCHECK}".encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        source = path.read_bytes()
        if b"@compiled" in source:
            digest.update(path.name.encode() + source)
    return digest.hexdigest()[:16]


def cache_folder() -> Path | None:
    """Return the folder for this version of the loops, or None if it cannot be written."""
    folder = user_cache() / "compiled" / fingerprint()
    try:
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"probe-{os.getpid()}"
        probe.touch()  # and with it the folder's time of last use
        probe.unlink()
    except OSError:
        return None
    if new:
        remove_unused(folder.parent)
    return folder


def remove_unused(parent: Path) -> None:
    """Remove the folders of older versions that nobody has used for a while."""
    for folder in parent.iterdir():
        try:
            if time.time() - folder.stat().st_mtime > UNUSED_DAYS * 86400:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # another process was faster


FOLDER = cache_folder()
PROCESS = uuid4().hex[:8]  # not the number, which another machine may give again


def compiled(function: Callable) -> Callable:
    """Compile the function when it is first called, and keep the machine code.

    Functions from elsewhere, as from a notebook, are compiled anew in every process: the
    folder's name would not change with them.

    >>> @compiled
    ... def double(x):
    ...     return 2 * x
    >>> double(21)
    42
    """
    ours = Path(function.__code__.co_filename).is_relative_to(Path(__file__).parent)
    keep = ours and FOLDER is not None
    theirs = config.CACHE_DIR
    config.CACHE_DIR = str(FOLDER or theirs)
    try:
        loops = njit(
            cache=keep,
            nogil=True,
            error_model="numpy",
            fastmath={"reassoc", "contract"},
        )(function)
    finally:
        config.CACHE_DIR = theirs  # a notebook's own functions are not our business
    if keep:
        # Numba numbers its files 1, 2, ...: of two processes that compile a function for
        # float32 and for float64 at one moment, both would write number 1, and one would
        # be read as the other. With a name of its own for each process, none can be.
        file = loops._cache._cache_file
        file._data_name_pattern = file._data_name_pattern.replace("{", PROCESS + "-{")
    return loops
