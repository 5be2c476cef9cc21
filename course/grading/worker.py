"""The process in the box, which holds a student's code. It knows no question, no answer.

It reads requests from the pipe that was its standard input and replies on the one that was
its standard output; what the student's code prints goes nowhere.

    {"id", "do": "lock", ...}               lock this process up, and try the walls
    {"id", "do": "try"}                     compile and run a loop
    {"id", "do": "load", "name", "cells", "others"}
                                            run the cells; the last holds the answer
    {"id", "do": "call", "arguments"}       call the answer, indices checked
    {"id", "do": "time", "arguments"}       call it as it is; the asker has a clock

A reply is {"id", "outcome", "value"}: "returned", "raised" or "changed". "limit" in a
request is how many bytes the reply may have. Whatever is said after "load" may be a
student's lie.
"""

import ast
import builtins
import importlib
import importlib.abc
import importlib.machinery
import linecache
import os
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numba
import numpy as np
from numba.core import caching

from course.exercises.call import Changed, Raised, call, quiet, raised
from course.grading.helpers import needed, plain
from course.grading.wire import SIZES, decode, encode

ENOUGH = 1 << 16  # bytes, for an error in words


def main() -> None:
    """Serve until the pipe closes."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    write_nothing()
    stand_ins = StandIns()
    sys.meta_path.append(stand_ins)
    builtins.get_ipython = Magic
    answer = None
    while True:
        sizes = requests.read(SIZES.size)
        if len(sizes) < SIZES.size:
            return
        head, body = SIZES.unpack(sizes)
        request = decode(requests.read(head), requests.read(body))
        try:
            match request["do"]:
                case "load":
                    answer, outcome = load(stand_ins, **request)
                case "call":
                    outcome = call(answer, request["arguments"])
                case "time":
                    with quiet():
                        outcome = answer(*request["arguments"])
                case "lock":
                    outcome = lock_up(request)
                case "try":
                    outcome = try_loop()
        except BaseException as error:
            outcome = raised(error, answer)
        send(replies, request, outcome)


def lock_up(request: dict) -> list[str]:
    """Lock this process up, if that is asked for; return the walls that do not stand."""
    if request["machine_code"]:
        compiled = importlib.import_module("course.compiled")  # only some boxes have it
        compiled.FOLDER = Path(request["machine_code"])
    if request["tier"] == "none":
        return []
    from course.grading.lock import lock, walls

    lock(request["readable"], request["listable"], request["user"], request["owner"])
    return [f"a box could {name}" for name in walls(request["secret"])]


def try_loop() -> list[str]:
    """Return what is wrong with compiled code: nothing, where it works."""
    a = np.ones((2, 2))
    with quiet():
        right = numba.njit(lambda a: (a + a).sum(), parallel=True)(a) == 8
        right = right and numba.njit(lambda a: a @ a)(a)[0, 0] == 2
    return [] if right else ["compiled code computes something else in a box"]


class Nowhere(caching._CacheLocator):
    """Where `cache=True` of a student puts machine code."""

    @classmethod
    def from_function(cls, function: Callable, file: str) -> "Nowhere":
        """Return the place; numba asks for it."""
        return cls()

    def get_cache_path(self) -> str:
        """Return a folder that is not there."""
        return os.path.join(os.sep, "nowhere")

    def get_source_stamp(self) -> None:
        """Return nothing: no file is ever compared."""

    def get_disambiguator(self) -> str:
        """Return nothing: no file is ever written."""
        return ""


def write_nothing() -> None:
    """Let libraries that want to keep something on disk go on without."""
    caching.CacheImpl._locator_classes = [Nowhere]
    for kind in (caching.CompileResultCacheImpl, caching.CodeLibraryCacheImpl):
        kind.check_cachable = lambda self, data: False
    folder = os.environ["MPLCONFIGDIR"]  # Matplotlib is content with any that it can name
    tempfile.mkdtemp = lambda *args, **kwargs: folder


class Magic:
    """What `get_ipython()` returns: nothing that is asked of it is done."""

    def __getattr__(self, name: str) -> Callable:
        return lambda *args, **kwargs: None


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules that are not in the box: their names are there, and cannot be called.

    These are the rest of the course, and what the set-up cells import.
    """

    def __init__(self) -> None:
        self.tops = {"course"}

    def learn(self, source: str) -> None:
        """Remember what a set-up cell imports."""
        for node in ast.walk(ast.parse(plain(source))):
            if isinstance(node, ast.Import):
                self.tops |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                self.tops.add(node.module.split(".")[0])

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Return the spec of a stand-in; this finder is asked last."""
        if name.split(".")[0] in self.tops:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        """Return the module."""
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing: there is nothing to run."""


class StandIn(types.ModuleType):
    """A module whose names exist."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(name)


class Missing:
    """Something of a module that is not in the box."""

    def __init__(self, name: str):
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            f"{self.__name__} is not there when this question is graded: write it yourself"
        )


def load(
    stand_ins: StandIns,
    name: str,
    cells: list[tuple[str, str]],
    others: list[tuple[str, str]] = (),
    **_: Any,
) -> tuple[Callable | None, Any]:
    """Run (file name, source) cells in one namespace; return the function and None.

    Before the last cell comes what it needs of the others. If something raises an error,
    or does not make the function, that is returned as Raised. There are no such files:
    Python finds their lines where it looks first.
    """
    space: dict[str, Any] = {"__name__": "__main__"}
    for file, source in [*cells, *others]:
        linecache.cache[file] = len(source), None, source.splitlines(True), file
    for at, (file, source) in enumerate(cells, 1):
        try:
            code = compile(plain(source), file, "exec")
        except SyntaxError as error:
            text = (error.text or "").strip()
            return None, Raised("SyntaxError", str(error.msg), error.lineno or 0, text)
        except (ValueError, RecursionError, MemoryError) as error:
            return None, Raised(type(error).__name__, str(error))
        if at < len(cells) or not name:
            stand_ins.learn(source)
        else:
            for helper in needed(code, dict(others)):
                run(helper, space)  # if it fails, the answer lacks its name
        if fails := run(code, space):
            return None, fails
    answer = space.get(name)
    if name and not callable(answer):
        says = f"the cell makes no function {name}"
        if not plain(source).strip():
            says += ": all of it is magic, which only IPython knows"
        return None, Raised("NameError", says)
    return answer, None


def run(code: types.CodeType, space: dict[str, Any]) -> Raised | None:
    """Run code; return the error that it raises, if it does."""
    try:
        with quiet():
            exec(code, space)
    except BaseException as error:
        return raised(error, types.SimpleNamespace(__code__=code))
    return None


def send(replies: BinaryIO, request: dict, outcome: Any) -> None:
    """Send an outcome; if it cannot be sent, send that."""
    match outcome:
        case Raised(kind, says, line, text):
            reply = {"outcome": "raised", "value": [kind, says, line, text]}
        case Changed(position):
            reply = {"outcome": "changed", "value": position}
        case _:
            reply = {"outcome": "returned", "value": outcome}
    reply["id"] = request["id"]
    try:
        frame = encode(reply, max(request.get("limit", 0), ENOUGH))
    except (ValueError, MemoryError) as error:
        value = [type(error).__name__, str(error)[:300], 0, ""]
        frame = encode(reply | {"outcome": "raised", "value": value})
    replies.write(frame)
    replies.flush()
