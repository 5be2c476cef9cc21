"""What an attack must not reach: canaries around the box, and how to see them touched.

Everything here is left as open as a careless machine could leave it: files that all may
read and write, a port and sockets that take anybody. So it is the box that keeps an attack
away, and not a permission that happens to be set.
"""

import contextlib
import ctypes
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import stat
import sys
import tempfile
from pathlib import Path
from time import sleep

import numpy as np

from course.compiled import FOLDER

ROOT = Path(__file__).parents[3]
SHARED = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", str(Path.home()), os.getcwd())
PATIENCE = 200  # hundredths of a second, for those that are dying
SUBREAPER = 36  # of prctl: orphans of a box become our children


class World:
    """A teacher's folder, a class, a port, and this very process, each with a canary."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="world-"))
        self.token = secrets.token_hex(4)
        self.canary = f"canary{self.token}"  # whoever shows it, has read what is not his
        self.door = f"door{self.token}"  # an attack says it if it got where it wanted
        self.mark = f"mark{self.token}"  # in the name of all that an attack makes
        self.memory = f"{self.canary} in the memory of the grader".encode()
        self._files()
        self._sockets()
        os.environ["COURSE_TEACHER_TOKEN"] = f"{self.canary} in the environment"
        self.signals: list[int] = []
        self.former = signal.signal(signal.SIGURG, lambda *_: self.signals.append(1))
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
        for path in [self.folder, *self.folder.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)
        self.ours = children()
        self.before = self.state()

    def _files(self) -> None:
        """Write the teacher's secret and ledger, solutions, a classmate's notebook."""
        for name in ("teacher", "class", "solutions", "out"):
            (self.folder / name).mkdir()
        self.secret = self.folder / "teacher/secret.txt"
        self.secret.write_text(f"{self.canary} secret of the course")
        self.ledger = self.folder / "teacher/ledger.csv"
        self.ledger.write_text("alice,3\n")
        self.classmate = self.folder / "class/bob.ipynb"
        self.classmate.write_text(f'{{"cells": [], "answer": "{self.canary} of Bob"}}')
        self.result = self.folder / "out/alice.json"
        self.result.write_text('{"points": 0}')
        for path in (ROOT / "solutions").glob("*.ipynb"):
            made = json.loads(path.read_text("utf-8"))
            for cell in made["cells"]:
                if cell["id"].startswith("answer-"):
                    cell["source"] = [f"# {self.canary} solution\n", *cell["source"]]
                cell.pop("outputs", None)
            (self.folder / "solutions" / path.name).write_text(json.dumps(made), "utf-8")

    def _sockets(self) -> None:
        """Listen on a port, on a path and on an abstract name."""
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.listeners = {"tcp": self.tcp, "udp": self.udp}
        for name, place in (
            ("unix", str(self.folder / "door.sock")),
            ("abstract", f"\0door{self.token}"),
        ):
            self.listeners[name] = socket.socket(socket.AF_UNIX)
            self.listeners[name].bind(place)
            self.listeners[name].listen()
        for listener in self.listeners.values():
            listener.setblocking(False)

    def names(self) -> dict[str, object]:
        """Return what the sources of attacks may name as $NAME: they know it all."""
        place = np.frombuffer(self.memory, np.uint8).ctypes.data
        return {
            "SECRET": str(self.secret),
            "LEDGER": str(self.ledger),
            "CLASSMATE": str(self.classmate),
            "RESULT": str(self.result),
            "SOLUTION": str(self.folder / "solutions/09_convolution.ipynb"),
            "FOLDER": str(self.folder),
            "UNIX": str(self.folder / "door.sock"),
            "ABSTRACT": f"\0door{self.token}",
            "ROOT": str(ROOT),
            "CACHE": str(FOLDER),
            "SITE": str(Path(np.__file__).parents[1]),
            "MARK": self.mark,
            "DOOR": self.door,
            "CANARY": f"canary{self.token}"[:6],
            "TCP": self.tcp.getsockname()[1],
            "UDP": self.udp.getsockname()[1],
            "PID": os.getpid(),
            "ADDRESS": place,
            "LENGTH": len(self.memory),
        }

    def state(self) -> dict[str, object]:
        """Return what an attack could have changed."""
        state: dict[str, object] = {
            "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
            "priority": os.getpriority(os.PRIO_PROCESS, 0),
            "processors": sorted(os.sched_getaffinity(0)),
            "files": {str(p): _of_file(p) for p in sorted(self.folder.rglob("*"))},
        }
        for kind in ("shm", "msg", "sem"):
            state[kind] = Path("/proc/sysvipc", kind).read_text().count("\n")
        return state

    def touched(self) -> list[str]:
        """Return what has been changed since the last call, and put it right again."""
        now = self.state()
        found = [f"{name} changed" for name in now if now[name] != self.before[name]]
        for name, listener in self.listeners.items():
            with contextlib.suppress(BlockingIOError):
                if name == "udp":
                    listener.recv(100)
                else:
                    listener.accept()[0].close()
                found.append(f"{name} was reached")
        found += ["a signal came"] * bool(self.signals)
        found += [f"left behind: {path}" for path in self.left_behind()]
        found += [f"left running: {pid}" for pid in self.running()]
        if found:
            self.mend()
        return found

    def left_behind(self) -> list[Path]:
        """Return the files with the mark in places that all share."""
        places = {*SHARED, *sys.path, FOLDER, FOLDER.parent, ROOT / "course/layers"}
        return [path for place in places for path in Path(place).glob(f"*{self.mark}*")]

    def running(self) -> list[int]:
        """Return the processes that an attack has left to us; the dead are buried."""
        for _ in range(PATIENCE):
            for pid in children() - self.ours:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            if not children() - self.ours:
                return []
            sleep(0.01)
        return sorted(children() - self.ours)

    def mend(self) -> None:
        """Undo what an attack did: only where there is no box does it do anything."""
        for pid in self.running():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        for path in self.left_behind():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self.folder.rglob("*"):
            if str(path) not in self.before["files"]:
                path.unlink()
        for name, (content, mode, *_) in self.before["files"].items():
            path = Path(name)
            if stat.S_ISREG(mode):
                path.write_bytes(content)
                path.chmod(stat.S_IMODE(mode))
                for attribute in os.listxattr(path):
                    os.removexattr(path, attribute)
        self.signals.clear()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.before["limits"][0], hard))
        os.setpriority(os.PRIO_PROCESS, 0, self.before["priority"])
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), self.before["processors"])
        self.before = self.state()

    def close(self) -> None:
        """Take it all away."""
        self.mend()
        signal.signal(signal.SIGURG, self.former)
        ctypes.CDLL(None).prctl(SUBREAPER, 0, 0, 0, 0)
        os.environ.pop("COURSE_TEACHER_TOKEN")
        for listener in self.listeners.values():
            listener.close()
        shutil.rmtree(self.folder)


def _of_file(path: Path) -> tuple:
    """Return a file's content, rights, owner, time, links and attributes."""
    known = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(known.st_mode) else b""
    time = known.st_mtime_ns
    return content, known.st_mode, known.st_uid, time, known.st_nlink, os.listxattr(path)


def children() -> set[int]:
    """Return our child processes."""
    found = ""
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += path.read_text()
    return set(map(int, found.split()))
