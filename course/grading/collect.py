"""Pull the notebooks of a class out of the students' repositories, as data.

`course grade collect submissions.txt --out class` reads lines of

    ann  https://example.org/ann/course.git
    bob  https://example.org/bob/course.git  4f2c0ffee...   # a commit, optional

and writes class/ann/09_convolution.ipynb and so on: the notebooks of each repository's
folder `exercises/`, and nothing else of it. Grades that a student's own repository shows
are no evidence, since the student owns the workflow; these are pulled into the teacher's.

Nothing of a repository runs: its hooks, filters, submodules and links are not used. A file
is taken from git's own store, so that no link can lead out of the repository.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

from course.files import write_whole
from course.grading.extraction import SIZE_LIMIT

HELP = "pull the notebooks of a class out of the students' repositories"
NAME = re.compile(r"\w[\w.@-]{0,99}")
ALLOWED = "https:ssh:file"  # the ways git may fetch
SECONDS = 120
SAFE = {
    "core.hooksPath": os.devnull,
    "core.symlinks": "false",
    "filter.lfs.smudge": "",
    "filter.lfs.required": "false",
    "transfer.fsckObjects": "true",
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add `course grade collect`."""
    parser = subparsers.add_parser(
        "grade collect", help=HELP, description=HELP.capitalize() + "."
    )
    parser.add_argument("list", type=Path, metavar="LIST", help="lines: NAME URL [COMMIT]")
    parser.add_argument("--out", type=Path, default=Path("class"), metavar="DIR")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Collect all; return 2 if some repository gave nothing, else 0."""
    try:
        students = read_list(chosen.list.read_text("utf-8"))
    except (OSError, ValueError) as error:
        print(f"{chosen.list}: {error}", file=sys.stderr)
        return 2
    failed = 0
    for name, (url, commit) in students.items():
        try:
            found = collect(url, commit, chosen.out / name)
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{name}: {', '.join(found)}")
    return 2 if failed else 0


def read_list(text: str) -> dict[str, tuple[str, str]]:
    """Return (URL, commit) of each student. Raises ValueError, which names the line.

    >>> read_list("ann https://example.org/ann.git  # late")
    {'ann': ('https://example.org/ann.git', 'HEAD')}
    """
    students: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if not words:
            continue
        if len(words) not in (2, 3):
            raise ValueError(f"line {number}: not NAME URL [COMMIT]: {line.strip()!r}")
        name, url, commit = (*words, "HEAD")[:3]
        if not NAME.fullmatch(name):
            raise ValueError(f"line {number}: {name!r} is no name of a folder")
        if name in students:
            raise ValueError(f"line {number}: {name!r} was there before")
        if url.startswith("-") or not re.fullmatch("HEAD|[0-9a-f]{7,64}", commit):
            raise ValueError(f"line {number}: {url!r} {commit!r} is no URL and commit")
        students[name] = url, commit
    if not students:
        raise ValueError("it names nobody; write lines of NAME URL [COMMIT]")
    return students


def collect(url: str, commit: str, folder: Path) -> list[str]:
    """Write the notebooks of a repository into the folder; return their names.

    Raises ValueError if there is no such repository or commit, or no notebook in it.
    """
    with tempfile.TemporaryDirectory() as place:
        depth = ["--depth=1"] if commit == "HEAD" else []
        _git(None, "clone", "--bare", "--no-tags", *depth, "--", url, place)
        listed = _git(place, "ls-tree", "-l", "-z", commit, "exercises/")
        notebooks = {}
        for entry in filter(None, listed.decode("utf-8", "replace").split("\0")):
            about, _, path = entry.partition("\t")
            mode, _, object_id, size = about.split()
            regular = mode in ("100644", "100755")
            if regular and path.endswith(".ipynb") and int(size) <= SIZE_LIMIT:
                notebooks[PurePosixPath(path).name] = _git(
                    place, "cat-file", "blob", object_id
                )
    if not notebooks:
        raise ValueError("no notebook in its folder exercises/")
    for name, content in notebooks.items():
        write_whole(folder / name, content)
    return sorted(notebooks)


def _git(repository: str | None, *words: str) -> bytes:
    """Return what git prints. Raises ValueError with what it says if it fails."""
    options = [word for key in SAFE for word in ("-c", f"{key}={SAFE[key]}")]
    where = ["-C", repository] if repository else []
    keep = ("PATH", "HOME", "SSH_AUTH_SOCK", "SYSTEMROOT", "GIT_ASKPASS")
    env = {key: os.environ[key] for key in keep if key in os.environ}
    env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": ALLOWED}
    try:
        done = subprocess.run(
            ["git", *options, *where, *words], env=env, capture_output=True, timeout=SECONDS
        )
    except FileNotFoundError:
        raise ValueError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"git took more than {SECONDS} s") from None
    if done.returncode:
        says = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(says[-1] if says else f"git failed with {done.returncode}")
    return done.stdout
