"""A process that runs a student's code, seen from the grader.

`course.grading.sandbox` says what the box is made of. What the code in it can do is die,
hang or lie, and none of that harms more than its question.

What ends before any student's code was sent is the grader's own trouble (NotGraded), and
so is a box that the system killed for want of memory; everything later is the student's.
"""

import contextlib
import os
import re
import secrets
import select
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import course
from course.exercises.call import Changed, Raised
from course.grading.sandbox import (
    NotGraded,
    command,
    environment,
    image,
    request,
    user_of_its_own,
)
from course.grading.wire import BODY_LIMIT, HEAD_LIMIT, SIZES, WireError, decode, encode

ROOT = Path(course.__file__).parents[1]
START_SECONDS = 120.0
ENOUGH = 1 << 16  # bytes of any reply, for an error in words
CHUNK = 1 << 20  # bytes
PIPE_SIZE = 1031  # F_SETPIPE_SZ of Linux


class Lost(Exception):
    """The process cannot be asked any more; `state` says why, the message in words."""

    def __init__(self, state: str, says: str):
        super().__init__(says)
        self.state = state


class Box:
    """One process, gone after `close`. It ends with the thread that made it.

    Attributes
    ----------
    tier : "strict", "landlock" or "none"; the walls were tried from inside
    took : seconds of the last `ask`, from before the first byte of the request until
        after the last of the reply
    """

    def __init__(self, tier: str = "none", needs: tuple[str, ...] = ()):
        self.tier, self.took = tier, 0.0
        self.theirs = False  # was any student's code sent?
        self.kills = oom_kills()
        self.things = contextlib.ExitStack()
        try:
            self._start(tier, needs)
        except BaseException:
            self.close()
            raise

    def _start(self, tier: str, needs: tuple[str, ...]) -> None:
        made = image(needs)
        user = self.things.enter_context(user_of_its_own()) if tier != "none" else None
        place = "/"
        if tier == "none":  # the others can write nothing
            place = self.things.enter_context(
                tempfile.TemporaryDirectory(prefix="course-", ignore_cleanup_errors=True)
            )
        self.places = tuple(map(str, (made.folder, Path(place).resolve())))
        try:
            self.process = subprocess.Popen(
                command(tier, made),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd=place,
                env=environment(place),
                start_new_session=True,
            )
        except OSError as error:
            raise NotGraded(f"the box did not start: {error}") from None
        self.things.callback(self._kill)
        self.inbox, self.outbox = self.process.stdout.fileno(), self.process.stdin.fileno()
        if os.name == "posix":
            for pipe in (self.inbox, self.outbox):
                os.set_blocking(pipe, False)
                _widen(pipe)
        fails = self.ask(START_SECONDS, **request(tier, made, user))
        if fails:
            words = fails.says if isinstance(fails, Raised) else "; ".join(map(str, fails))
            raise NotGraded(f"the walls of the box do not stand: {words}")

    def ask(self, seconds: float, limit: int = BODY_LIMIT, **asked: Any) -> Any:
        """Return what the function returned, or Raised, or Changed. May raise Lost.

        Of the reply no more than `limit` bytes are read, or 64 KiB if that is more.
        """
        token = secrets.token_hex(8)
        limit = min(max(limit, ENOUGH), HEAD_LIMIT + BODY_LIMIT)
        frame = encode({**asked, "id": token, "limit": limit})
        self.theirs = self.theirs or bool(asked.get("do") == "load" and asked["name"])
        try:
            reply = self._exchange(frame, seconds, limit)
        except Lost as lost:
            if not self.theirs:
                raise NotGraded(f"the box ended before it had any answer: {lost}") from None
            if lost.state == "crash" and oom_kills() > self.kills:
                says = "the system killed a process for want of memory; grade fewer at once"
                raise NotGraded(says) from None
            raise
        match reply:
            case {"id": identity} if identity != token:
                raise Lost("crash", "It sent a reply to a question that was not asked.")
            case {"outcome": "returned", "value": value}:
                return value
            case {
                "outcome": "raised",
                "value": [str(kind), str(says), int(line), str(text)],
            }:
                for place in self.places:  # nobody need know where the grader works
                    says = says.replace(place + os.sep, "").replace(place, ".")
                return Raised(kind[:80], says, line, text)
            case {"outcome": "changed", "value": int(position)} if position in range(
                len(asked.get("arguments", ()))
            ):
                return Changed(position)
        raise Lost("crash", "It sent a reply that makes no sense.")

    @property
    def silent(self) -> bool:
        """Is it alive, and has it said nothing that it was not asked?"""
        if self.process.poll() is not None:
            return False
        return os.name != "posix" or not _poll(self.inbox, select.POLLIN, 0)

    def _exchange(self, frame: bytes, seconds: float, limit: int) -> Any:
        """Write a frame and read one."""
        begin = monotonic()
        end = begin + seconds
        if not self.silent:
            raise Lost("crash", self._ending("It sent a reply before it was asked."))
        with self._alarm(seconds):
            try:
                view = memoryview(frame)
                while view:
                    self._wait(self.outbox, select.POLLOUT, end)
                    view = view[os.write(self.outbox, view[:CHUNK]) :]
                head, body = SIZES.unpack(self._read(SIZES.size, end))
                if head + body > limit or head > HEAD_LIMIT or body > BODY_LIMIT:
                    says = f"It sent {head + body} bytes; {limit} are more than enough."
                    raise Lost("crash", says)
                head, body = self._read(head, end), self._read(body, end)
            except OSError:
                raise Lost("crash", self._ending("It closed its pipe.")) from None
            finally:
                self.took = monotonic() - begin
        try:
            return decode(head, body)
        except WireError as error:
            raise Lost("crash", f"It sent a reply that cannot be read: {error}.") from None

    def _read(self, count: int, end: float) -> bytes:
        """Read exactly `count` bytes."""
        data = bytearray()
        while len(data) < count:
            self._wait(self.inbox, select.POLLIN, end)
            part = os.read(self.inbox, min(count - len(data), CHUNK))
            if not part:
                raise OSError("end of the pipe")
            data += part
        return bytes(data)

    def _wait(self, pipe: int, event: int, end: float) -> None:
        """Wait until the pipe can be used. Raises Lost at the end of the time."""
        if os.name != "posix":  # the call waits, and the alarm ends it
            return
        if not _poll(pipe, event, end - monotonic()):
            raise Lost("time limit", "It did not end within the time limit")

    @contextlib.contextmanager
    def _alarm(self, seconds: float):
        """Kill the process at the end of the time, where one cannot wait for pipes."""
        if os.name == "posix":
            yield
            return
        clock = threading.Timer(max(seconds, 0.0), self.process.kill)
        clock.start()
        try:
            yield
        except Lost:
            if clock.finished.is_set():
                says = "It did not end within the time limit"
                raise Lost("time limit", says) from None
            raise
        finally:
            clock.cancel()

    def _ending(self, says: str) -> str:
        """Say how the process ended: by a signal, or with an exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(1)
            if self.tier == "strict" and code > 128:  # so does bubblewrap tell of a signal
                code = 128 - code
            how = f"exit code {code}" if code >= 0 else f"signal {-code}"
            return f"The process ended with {how}."
        return says

    def _kill(self) -> None:
        """End the process and those that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def close(self) -> None:
        """End the process, and remove what it had."""
        self.things.close()


def _poll(pipe: int, event: int, seconds: float) -> bool:
    """Say whether a pipe can be used, or has ended, within the time."""
    poll = select.poll()
    poll.register(pipe, event)
    return seconds >= 0 and bool(poll.poll(1000 * seconds))


def _widen(pipe: int) -> None:
    """Let a pipe hold more than 64 KiB: fewer turns to hand over an array."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.fcntl(pipe, PIPE_SIZE, CHUNK)


def oom_kills() -> int:
    """Return how many processes this system has killed for want of memory."""
    with contextlib.suppress(OSError):
        text = Path("/proc/vmstat").read_text()
        if found := re.search(r"^oom_kill (\d+)$", text, re.MULTILINE):
            return int(found[1])
    return 0
