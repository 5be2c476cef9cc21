"""A child process that runs a student's code, seen from the grader.

Today the box is a process of its own, not a prison: the code runs with the rights of the
grader. What it can do is die, hang or lie, and none of that harms more than its question.
"""

import contextlib
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import course
from course.compiled import FOLDER
from course.exercises.call import Changed, Raised
from course.grading.wire import BODY_LIMIT, HEAD_LIMIT, SIZES, WireError, decode, encode

ROOT = Path(course.__file__).parents[1]
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from course.grading.worker import main; main()"
)
START_SECONDS = 120.0
CACHE = "cache"  # in the folder of the child


class Lost(Exception):
    """The process cannot be asked any more; `state` says why, the message in words."""

    def __init__(self, state: str, says: str):
        super().__init__(says)
        self.state = state


class NotGraded(Exception):
    """The grader could not do its work; this says nothing about the student."""


class Box:
    """One process with a folder of its own, both gone after `close`."""

    def __init__(self) -> None:
        self.closed = False
        self.folder = tempfile.TemporaryDirectory(
            prefix="course-", ignore_cleanup_errors=True
        )
        self.place = place = str(Path(self.folder.name).resolve())
        _lend_machine_code(Path(place, CACHE))
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", START, str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=place,
            env=_environment(place),
            start_new_session=True,
        )
        try:
            self._within(START_SECONDS, "", b"")
        except Lost as lost:
            self.close()
            raise NotGraded(f"the child process did not start: {lost}") from None

    def ask(self, seconds: float, **request: Any) -> Any:
        """Return what the function returned, or Raised, or Changed. May raise Lost."""
        token = secrets.token_hex(8)
        frame = encode({"id": token, **request})
        match self._within(seconds, token, frame):
            case "returned", value:
                return value
            case "raised", [str(kind), str(says), int(line), str(text)]:
                return Raised(kind, self._without_place(says), line, text)
            case "changed", int(position):
                return Changed(position)
        raise Lost("crash", "It sent a reply that makes no sense.")

    def _without_place(self, text: str) -> str:
        """Return the text without the path of the box's folder."""
        return text.replace(self.place + os.sep, "").replace(self.place, ".")

    def _within(self, seconds: float, token: str, frame: bytes) -> tuple[str, Any]:
        """Exchange frames in a thread, so that no pipe can hold the grader."""
        done: queue.SimpleQueue = queue.SimpleQueue()

        def exchange() -> None:
            try:
                done.put(self._exchange(frame))
            except Exception as error:
                done.put(error)
            if self.closed:
                self._close_pipes()

        self.thread = threading.Thread(target=exchange, daemon=True)
        self.thread.start()
        try:
            reply = done.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            raise Lost("time limit", "It did not end within the time limit") from None
        match reply:
            case EOFError() | OSError():
                raise Lost("crash", f"The process ended with {self._ending()}.")
            case Exception():
                raise Lost("crash", f"It sent a reply that cannot be read: {reply}.")
            case {"id": identity, "outcome": str(outcome), "value": value} if (
                identity == token
            ):
                return outcome, value
        raise Lost("crash", "It sent a reply to a question that was not asked.")

    def _exchange(self, frame: bytes) -> Any:
        """Write a frame, if there is one, and read one."""
        if frame:
            self.process.stdin.write(frame)
            self.process.stdin.flush()
        head, body = SIZES.unpack(self._read(SIZES.size))
        if head > HEAD_LIMIT or body > BODY_LIMIT:
            raise WireError("too long")
        return decode(self._read(head), self._read(body))

    def _read(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        data = self.process.stdout.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def _ending(self) -> str:
        """Say how the process ended: by a signal, or with an exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(1)
            return f"exit code {code}" if code >= 0 else f"signal {-code}"
        return "its pipe closed"

    def close(self) -> None:
        """End the process and its children, and remove its folder."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        self.closed = True
        self.thread.join(1)
        if not self.thread.is_alive():  # else a child of the process holds a pipe open
            self._close_pipes()
        self.folder.cleanup()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def _lend_machine_code(cache: Path) -> None:
    """Copy the machine code of the layers, so that the child need not make it again.

    It is a copy: what a child writes is gone with its folder.
    """
    if FOLDER:
        with contextlib.suppress(OSError):  # another process may be writing there
            shutil.copytree(FOLDER, cache / FOLDER.name)


def _environment(place: str) -> dict[str, str]:
    """Return the few variables that the child gets: nothing of the teacher's."""
    threads = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    return {
        **{f"{library}_NUM_THREADS": "1" for library in threads},
        **dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TMP", "TEMP"), place),
        "COURSE_CACHE": os.path.join(place, CACHE),
        "MPLCONFIGDIR": os.path.join(place, "matplotlib"),
        "PATH": os.defpath,
        **{k: os.environ[k] for k in ("SYSTEMROOT", "LANG") if k in os.environ},
    }
