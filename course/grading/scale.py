"""Grade a class: several notebooks at a time, in shards, and on from where it stopped.

What a run writes, and all that a later run or `merge` reads:

    OUT/class.json                        the names of the whole class
    OUT/submissions/NAME/submission.json  the result, with its reports beside it
    OUT/submissions/NAME/graded           what the result was made from

NAME is where the notebook stands below the folder that all notebooks have in common. The
file `graded` holds an HMAC, with the teacher's secret, of the result, of the version of
course and solution, and of the time limit. A result is kept if that fits and its notebook
and isolation are the same; else the notebook is graded again. A result is written when it
is ready, so a killed run loses what was in flight and no more.
"""

import atexit
import contextlib
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import connection, get_context, parent_process
from pathlib import Path, PurePosixPath
from typing import Any

import course
from course.files import write_whole
from course.grading import report
from course.grading.extraction import Unusable, read
from course.grading.grades import Submission, from_json, printable, to_json
from course.grading.runner import Told, grade
from course.grading.sandbox import choose

NAMES, STAMP = "class.json", "graded"


@lru_cache
def version() -> str:
    """Return a name for the code of the course: it changes with every edit."""
    root = Path(course.__file__).parent
    sources = {str(p.relative_to(root)): _sha256(p) for p in root.rglob("*.py")}
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or nothing if it cannot be read."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""


@dataclass(frozen=True)
class Terms:
    """On what terms a class is graded; it can be sent to another process."""

    solutions: Path
    secret: bytes = field(repr=False)
    seconds: float
    sandbox: str
    version: str = field(default_factory=version)

    def grade(self, path: Path, name: str, told: Told | None = None) -> Submission:
        """Return the grade of a notebook."""
        if self.version != version():  # on another machine
            return not_graded(name, "this worker has another version of the course")
        return grade(
            path, name, self.solutions, self.secret, self.seconds, self.sandbox, told
        )

    def stamp(self, name: str, made: Submission) -> bytes:
        """Return what proves that a result was made on these terms."""
        solution = _sha256(self.solutions / f"{made.exercise}.ipynb")
        whole = [self.version, solution, self.seconds, name, to_json(made)]
        return hmac.digest(self.secret, json.dumps(whole).encode(), "sha256").hex().encode()


def not_graded(name: str, says: str) -> Submission:
    """Return what becomes of a notebook that the grader lost: it says nothing about it."""
    return Submission(file=printable(name), status="retry", says=says)


# ---------------------------------------------------------------- many at a time


def grade_all(
    found: dict[str, Path], terms: Terms, start: Callable[[], Executor] | None = None
) -> Iterator[tuple[str, Submission]]:
    """Yield the name and the grade of every notebook, as soon as it is ready.

    start() makes an executor, of any kind that concurrent.futures knows; without one the
    notebooks are graded here, one after the other. What an executor loses, as when a
    process of it is killed, is given to a new one.
    """
    if start is None:
        for name, path in found.items():
            yield name, terms.grade(path, name)
        return
    left, helps = dict(found), True
    while left and helps:
        helps = False
        for name, made in _together(left.copy(), terms, start):
            if isinstance(made, Submission):
                del left[name]
                helps = True
                yield name, made
    for name, path in left.items():  # alone: one may have ended the process of another
        for _, made in _together({name: path}, terms, start):
            graded = isinstance(made, Submission)
            says = f"the grader failed: {made!r:.200}"
            yield name, made if graded else not_graded(name, says)


def _together(
    found: dict[str, Path], terms: Terms, start: Callable[[], Executor]
) -> Iterator[tuple[str, Submission | BaseException]]:
    """Yield the name and the grade of every notebook, or what went wrong."""
    futures: dict[Future, str] = {}
    with start() as executor:
        try:
            for name, path in found.items():
                try:
                    futures[executor.submit(terms.grade, path, name)] = name
                except BrokenExecutor as error:
                    yield name, error
            for future in as_completed(futures):
                yield futures[future], future.exception() or future.result()
        finally:
            for future in futures:
                future.cancel()


class Processes(ThreadPoolExecutor):
    """Threads with a process each: one that is killed takes only its own task along.

    Why not threads alone: beside a thread that judges, the plain loop that a question of
    speed is measured by takes twice as long, and a slow answer passes; beside a process it
    takes as long as alone.
    """

    def __init__(self, count: int):
        super().__init__(count)
        self._own = threading.local()
        self._all: list[Executor] = []

    def submit(self, task: Callable, /, *arguments: Any):
        """Run the task in a process."""
        return super().submit(self._apart, task, *arguments)

    def _apart(self, task: Callable, *arguments: Any) -> Any:
        """Run the task in this thread's process; if it dies, the next gets a new one."""
        if not hasattr(self._own, "process"):
            spawn = get_context("spawn")
            self._own.process = ProcessPoolExecutor(1, spawn, initializer=_follow_parent)
            self._all.append(self._own.process)
        try:
            return self._own.process.submit(task, *arguments).result()
        except BrokenExecutor:
            del self._own.process
            raise

    def shutdown(self, *arguments: Any, **keywords: Any) -> None:
        """End the threads, then the processes."""
        super().shutdown(*arguments, **keywords)
        for process in self._all:
            process.shutdown()


def _follow_parent() -> None:
    """Let this process end when the one that started it does, however that ends."""

    def follow() -> None:
        connection.wait([parent_process().sentinel])
        atexit._run_exitfuncs()  # which remove the temporary folders
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def dask_executor(address: str) -> Callable[[], Executor]:
    """Return what makes an executor of a dask scheduler, as tcp://host:8786."""
    try:
        from distributed import Client
    except ImportError:
        raise Unusable("--scheduler needs dask: pip install distributed") from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise Unusable(f"{address}: no dask scheduler answers: {error}") from None
    return lambda: client.get_executor(pure=False)


def shard(found: dict[str, Path], number: int, count: int) -> dict[str, Path]:
    """Return the notebooks of one shard of `count`, numbered from 0.

    A notebook's shard depends on its name alone, so a notebook that comes late moves no
    other one.
    """
    return {
        name: path
        for name, path in found.items()
        if int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()) % count == number
    }


# ---------------------------------------------------------------- the folder


def folder(out: Path, name: str) -> Path:
    """Return the folder of a result."""
    return out / "submissions" / name


def write(out: Path, name: str, made: Submission, terms: Terms) -> None:
    """Write a result and its reports, and then the stamp that makes it count."""
    report.write(folder(out, name), made)
    write_whole(folder(out, name) / STAMP, terms.stamp(name, made))


def write_names(out: Path, names: Iterable[str]) -> None:
    """Write the names of the class, so that `merge` knows whether all are there."""
    write_whole(out / NAMES, (json.dumps(sorted(names), indent=0) + "\n").encode())


def write_class(out: Path, results: dict[str, Submission]) -> None:
    """Write the reports on the class."""
    places = {made: f"submissions/{name}" for name, made in results.items()}
    report.write_class(out, results.values(), places.get)


def result(out: Path, name: str) -> Submission | None:
    """Return the result with this name, if there is one."""
    with contextlib.suppress(OSError, ValueError):
        return from_json((folder(out, name) / "submission.json").read_text("utf-8"))
    return None


def tier(sandbox: str) -> str:
    """Return the tier of isolation that a notebook graded now would get."""
    return choose("auto") if sandbox == "auto" else sandbox


def kept(out: Path, name: str, path: Path, terms: Terms, tier: str) -> Submission | None:
    """Return the result if it was made from this file, on these terms and in this tier."""
    made = result(out, name)
    if made is None or made.status != "graded" or made.isolation != tier:
        return None
    try:
        stamp = (folder(out, name) / STAMP).read_bytes()
        same = made.sha256 == hashlib.sha256(read(path)[0]).hexdigest()
    except (OSError, Unusable):
        return None
    return made if same and hmac.compare_digest(stamp, terms.stamp(name, made)) else None


def merge(folders: list[Path], out: Path) -> dict[str, Submission]:
    """Put the results of several folders into one; return them by name.

    A name without a result in any folder is to be graded again. Raises Unusable for a
    folder that holds no results, and for two different results of one name.
    """
    found: dict[str, Submission | None] = {}
    stamps: dict[str, bytes] = {}
    for one in folders:
        for name in _names(one):
            made, other = result(one, name), found.get(name)
            if made and other and other.status == made.status == "graded" and made != other:
                raise Unusable(f"{name}: {one} has another result than an earlier folder")
            if other is None or (made and made.status == "graded"):
                found[name] = made
                with contextlib.suppress(OSError):
                    stamps[name] = (folder(one, name) / STAMP).read_bytes()
    for name, made in found.items():
        if made is None:
            continue
        report.write(folder(out, name), made)
        if name in stamps:
            write_whole(folder(out, name) / STAMP, stamps[name])
    lost = "no folder has a result: grade its shard"
    results = {name: made or not_graded(name, lost) for name, made in found.items()}
    write_names(out, results)
    write_class(out, results)
    return results


def _names(one: Path) -> list[str]:
    """Return the names of the class that a folder belongs to. Raises Unusable."""
    try:
        names = json.loads((one / NAMES).read_text("utf-8"))
    except (OSError, ValueError):
        raise Unusable(f"{one}: `course grade` wrote no {NAMES} here") from None
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise Unusable(f"{one}: {name} stands outside the folder")
    return names
