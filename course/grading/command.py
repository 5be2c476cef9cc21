"""`course grade`: points for notebooks, from the terminal or in CI."""

import argparse
import os
import sys
from pathlib import Path

from course.grading.box import ROOT, NotGraded
from course.grading.extraction import Unusable
from course.grading.report import NOT_ISOLATED, table, write
from course.grading.runner import PUBLIC_SECRET, TIME_LIMIT, grade, printable

HELP = "grade notebooks: a table here, results.json and junit.xml in a folder"


def add_parsers(subparsers: argparse._SubParsersAction) -> None:
    """Add `course grade`."""
    parser = subparsers.add_parser(
        "grade",
        help=HELP,
        description="Grade exercise notebooks. Exit code 0: all were graded, whatever the "
        "points; 2: a file could not be graded.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="NOTEBOOK",
        help="notebook, or folder of them",
    )
    parser.add_argument("--out", type=Path, default=Path("grades"), metavar="DIR")
    parser.add_argument(
        "--timeout",
        type=positive,
        default=TIME_LIMIT,
        metavar="S",
        help="seconds for one question (default %(default)g)",
    )
    parser.add_argument(
        "--secret-file", type=Path, metavar="FILE", help="what the cases are drawn from"
    )
    parser.add_argument("--solutions", type=Path, default=ROOT / "solutions", metavar="DIR")
    parser.set_defaults(run=run)


def positive(text: str) -> float:
    """Return the positive number in the text."""
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return number


def run(chosen: argparse.Namespace) -> int:
    """Grade every notebook; return 2 if one could not be graded, else 0."""
    secret = PUBLIC_SECRET
    try:
        if chosen.secret_file:
            secret = secret_in(chosen.secret_file)
        found = notebooks(chosen.paths)
    except Unusable as error:
        print(error, file=sys.stderr)
        return 2
    unusable = 0
    for path, name in found.items():
        try:
            result = grade(path, chosen.solutions, secret, chosen.timeout)
        except Unusable as error:
            print(printable(str(error)), file=sys.stderr)
            unusable += 1
        except NotGraded as error:
            print(f"{printable(name)}: NOT GRADED, try again: {error}", file=sys.stderr)
            unusable += 1
        else:
            print(table(printable(name), result), end="\n\n", flush=True)
            write(chosen.out / Path(name).with_suffix(""), printable(name), result)
    if unusable < len(found):
        print(f"Written to {chosen.out}{os.sep}: results.json and junit.xml per notebook")
    if not chosen.secret_file:
        print("Public cases: without --secret-file anyone can compute what is asked")
    print(NOT_ISOLATED)
    return 2 if unusable else 0


def secret_in(path: Path) -> bytes:
    """Return the secret in a file. Raises Unusable."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from None
    if len(secret) < 16:
        raise Unusable(f"{path}: a secret has at least 16 bytes; write random ones")
    return secret


def notebooks(paths: list[Path]) -> dict[Path, str]:
    """Return the notebooks and their names: where they stand below their common folder.

    Of a folder, links and Jupyter's own copies are left out. Raises Unusable.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.rglob("*.ipynb"))
            found += [p for p in inside if p.is_file() and not _hidden(p, path)]
        else:
            found.append(path)
    if not found:
        folders = ", ".join(map(str, paths))
        raise Unusable(f"{folders}: there is no notebook (*.ipynb)")
    absolute = list(dict.fromkeys(Path(os.path.abspath(p)) for p in found))
    common = Path(os.path.commonpath([p.parent for p in absolute]))
    return {p: p.relative_to(common).as_posix() for p in absolute}


def _hidden(path: Path, folder: Path) -> bool:
    """Say whether a file is a link, or stands in a hidden folder."""
    parts = path.relative_to(folder).parts
    return path.is_symlink() or any(part.startswith(".") for part in parts)
