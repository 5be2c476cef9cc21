"""The child process that holds a student's code. It knows no question and no answer.

It reads requests from the pipe that was its standard input and replies on the one that was
its standard output; what the student's code prints goes nowhere.

    {"id", "do": "load", "name", "cells"}   run the cells; the last holds the answer
    {"id", "do": "call", "arguments"}       call the answer, indices checked
    {"id", "do": "hold", "arguments"}       keep these arguments
    {"id", "do": "time"}                    call it on them as it is; the asker has a clock
    {"id", "do": "made"}                    send what that call returned

A reply is {"id", "outcome", "value"}: "returned", "raised", "changed" or "ready".
"""

import contextlib
import os
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import course.exercises
from course.exercises.call import Changed, Raised, call, quiet, raised
from course.grading.wire import SIZES, decode, encode

MEMORY = 3 << 30  # bytes of address space; compiled code alone takes about 0.5 GiB
FILE_SIZE = 64 << 20  # bytes of one file


def main() -> None:
    """Serve until the pipe closes."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    limit_resources()
    hide_the_questions()
    answer, held, made = None, (), None
    send(replies, {"id": "", "outcome": "ready", "value": None})
    while True:
        sizes = requests.read(SIZES.size)
        if len(sizes) < SIZES.size:
            return
        head, body = SIZES.unpack(sizes)
        request = decode(requests.read(head), requests.read(body))
        try:
            if request["do"] == "load":
                answer = None
                answer, outcome = load(request["name"], request["cells"])
            elif request["do"] == "call":
                outcome = call(answer, request["arguments"])
            elif request["do"] == "hold":
                held, outcome = request["arguments"], None
            elif request["do"] == "time":
                with quiet():
                    made = answer(*held)
                outcome = None
            else:
                outcome = made
        except BaseException as error:
            outcome = raised(error, answer)
        reply(replies, request["id"], outcome)


def limit_resources() -> None:
    """Take little memory and disk, where the system lets a process say so."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def hide_the_questions() -> None:
    """Put a `check` that says nothing in place of the modules with the right answers."""
    silent = types.ModuleType("course.exercises.check")
    silent.check = lambda fn: fn
    silent.hint = silent.progress = lambda *_: None
    course.exercises.check = sys.modules[silent.__name__] = silent
    course.exercises.__path__ = []


def load(name: str, cells: list[tuple[str, str]]) -> tuple[Callable | None, Any]:
    """Run (file name, source) cells in one namespace; return the function and None.

    The cells are files, so that errors have lines and `cache=True` a place. If the last
    one raises an error, or does not make the function, that is returned as Raised.
    """
    space: dict[str, Any] = {"__name__": "__main__"}
    for file, source in cells:
        Path(file).write_text(source, "utf-8")
        path = str(Path(file).resolve())
        try:
            with quiet():
                exec(code_of(source, path), space)
        except SyntaxError as error:
            text = (error.text or "").strip()
            return None, Raised("SyntaxError", str(error.msg), error.lineno or 0, text)
        except BaseException as error:
            here = types.SimpleNamespace(__code__=compile("", path, "exec"))
            return None, raised(error, here)
    answer = space.get(name)
    if name and not callable(answer):
        return None, Raised("NameError", f"the cell makes no function {name}")
    return answer, None


def code_of(source: str, path: str) -> Any:
    """Return the code of a cell; lines of magic (%, !) are left out if it has any."""
    try:
        return compile(source, path, "exec")
    except SyntaxError:
        plain = re.sub(r"(?m)^( *)[%!].*$", r"\1pass", source)
        return compile(plain, path, "exec")


def reply(replies: BinaryIO, request: str, outcome: Any) -> None:
    """Send an outcome; if it cannot be sent, send that."""
    match outcome:
        case Raised(kind, says, line, text):
            message = {"outcome": "raised", "value": [kind, says, line, text]}
        case Changed(position):
            message = {"outcome": "changed", "value": position}
        case _:
            message = {"outcome": "returned", "value": outcome}
    try:
        send(replies, {"id": request, **message})
    except (ValueError, MemoryError) as error:
        value = [type(error).__name__, str(error), 0, ""]
        send(replies, {"id": request, "outcome": "raised", "value": value})


def send(replies: BinaryIO, message: dict) -> None:
    """Write one frame."""
    replies.write(encode(message))
    replies.flush()
