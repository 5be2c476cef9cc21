"""`course grade`: points for notebooks, from the terminal or in CI."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from course.grading import collect, gradescope, scale
from course.grading.box import ROOT
from course.grading.explain import Transcript
from course.grading.extraction import Unusable
from course.grading.grades import ISOLATION, Submission
from course.grading.report import in_log, table
from course.grading.runner import PUBLIC_SECRET, TIME_LIMIT

EXIT = "Exit code 0: all were graded, whatever the points; 2: not all, and which."


def add_parsers(subparsers: argparse._SubParsersAction) -> None:
    """Add `course grade`, and its verbs of two words."""
    parser = subparsers.add_parser(
        "grade",
        help="grade notebooks: reports on each and on the class in a folder",
        description=f"Grade exercise notebooks. Run again with the same --out, it grades "
        f"only what is new, has changed or could not be graded. {EXIT}",
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="NOTEBOOK", help="notebook, or folder of them")
    add("--out", type=Path, default=Path("grades"), metavar="DIR")
    add(
        "--jobs",
        type=partial(whole, 1),
        default=cores(),
        metavar="N",
        help="notebooks graded at the same time (default: one a core, here %(default)d)",
    )
    add(
        "--shard",
        type=shard,
        default=(0, 1),
        metavar="i/n",
        help="grade part i of n only, counted from 0; `course grade merge` joins them",
    )
    add(
        "--sandbox",
        choices=("auto", "strict", "none"),
        default="auto",
        help="keep the answers apart as well as this system can (default); strict: grade "
        "nothing if it cannot do so in full; none: do not",
    )
    add("--secret-file", type=Path, metavar="FILE", help="what the cases are drawn from")
    add(
        "--timeout",
        type=positive,
        default=TIME_LIMIT,
        metavar="S",
        help="seconds for one question (default %(default)g)",
    )
    add("--explain", action="store_true", help="show what is asked; write nothing")
    add("--scheduler", metavar="tcp://HOST:PORT", help="grade on the workers of dask")
    add("--solutions", type=Path, default=ROOT / "solutions", metavar="DIR")
    parser.set_defaults(run=run)

    parser = subparsers.add_parser(
        "grade merge",
        help="join the results of shards",
        description=f"Join the results of `course grade --shard` in one folder. {EXIT}",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.set_defaults(run=merge)

    collect.add_parser(subparsers)
    gradescope.add_parser(subparsers)


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def whole(least: int, text: str) -> int:
    """Return the whole number in the text."""
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"{text} is below {least}")
    return number


def positive(text: str) -> float:
    """Return the positive number in the text."""
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return number


def shard(text: str) -> tuple[int, int]:
    """Return i and n of i/n."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"{text} is no shard: 0/4, 1/4, 2/4 or 3/4 are")
    return int(number), int(count)


def run(chosen: argparse.Namespace) -> int:
    """Grade every notebook; return 2 if one could not be graded, else 0."""
    try:
        secret = secret_in(chosen.secret_file) if chosen.secret_file else PUBLIC_SECRET
        names = notebooks(chosen.paths)
        found = scale.shard(names, *chosen.shard)
        terms = scale.Terms(
            chosen.solutions.resolve(), secret, chosen.timeout, chosen.sandbox
        )
        if chosen.explain:
            return explain(found, terms)
        tier = scale.tier(chosen.sandbox)
        kept = {
            name: made
            for name, path in found.items()
            if (made := scale.kept(chosen.out, name, path, terms, tier))
        }
        new = {name: path for name, path in found.items() if name not in kept}
        start = executor(chosen, len(new))
    except Unusable as error:
        print(in_log(str(error)), file=sys.stderr)
        return 2
    scale.write_names(chosen.out, names)
    results = dict(kept)
    if kept and len(found) > 1:
        print(f"{len(kept)} of {len(found)} are graded already, in {chosen.out}{os.sep}")
    for name, made in scale.grade_all(new, terms, start):
        scale.write(chosen.out, name, made, terms)
        results[name] = made
        if len(found) > 1:
            print(line(len(results), len(found), made), flush=True)
    scale.write_class(chosen.out, results)
    if not chosen.secret_file:
        print("Public cases: without --secret-file anyone can compute what is asked")
    return finish(chosen.out, results)


def line(number: int, count: int, made: Submission) -> str:
    """Return the line on one notebook of many."""
    points = f"{made.points:g}/{made.worth}" if made.status == "graded" else made.status
    return in_log(f"[{number:{len(str(count))}}/{count}] {made.file}  {points}")


def executor(chosen: argparse.Namespace, count: int):
    """Return what makes the executor that was asked for, or None to grade here."""
    if chosen.scheduler:
        return scale.dask_executor(chosen.scheduler)
    jobs = min(chosen.jobs, count)
    return partial(scale.Processes, jobs) if jobs > 1 else None


def explain(found: dict[str, Path], terms: scale.Terms) -> int:
    """Show each case that is asked, what is right and what came back."""
    results = {}
    for name, path in found.items():
        told = Transcript()
        made = results[name] = terms.grade(path, name, told)
        print(table(made))
        print(*map(in_log, str(told).splitlines()), sep="\n", end="\n\n", flush=True)
    return code(results)


def merge(chosen: argparse.Namespace) -> int:
    """Join shards; return 2 if a result is missing, else 0."""
    try:
        results = scale.merge(chosen.folders, chosen.out)
    except Unusable as error:
        print(in_log(str(error)), file=sys.stderr)
        return 2
    return finish(chosen.out, results)


def finish(out: Path, results: dict[str, Submission]) -> int:
    """Say what was written and what could not be graded; return the exit code."""
    made = [results[name] for name in sorted(results)]
    failed = [one for one in made if one.status != "graded"]
    if len(made) == 1 and not failed:
        print(table(made[0]), end="\n\n")
    else:
        print(f"{len(made) - len(failed)} of {len(made)} graded")
    for one in failed:
        print(table(one), file=sys.stderr)
    print(f"Written to {out}{os.sep}: begin with teacher.html")
    for tier in sorted({one.isolation for one in made if one.status == "graded"}):
        print(ISOLATION[tier])
    return code(results)


def code(results: dict[str, Submission]) -> int:
    """Return the exit code: 2 if a notebook was not graded, else 0."""
    return 0 if all(made.status == "graded" for made in results.values()) else 2


def secret_in(path: Path) -> bytes:
    """Return the secret in a file. Raises Unusable."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from None
    if len(secret) < 16:
        raise Unusable(f"{path}: a secret has at least 16 bytes; write random ones")
    return secret


def notebooks(paths: list[str | Path]) -> dict[str, Path]:
    """Return the notebooks by name: where they stand below their common folder.

    Of a folder, links and Jupyter's own copies are left out. Raises Unusable.
    """
    found, places = [], []
    for path in map(Path, paths):
        if path.is_dir():
            inside = path.rglob("*.ipynb")
            found += [p for p in inside if p.is_file() and not _hidden(p, path)]
        else:
            found.append(path)
        places.append(os.path.abspath(path if path.is_dir() else path.parent))
    if not found:
        folders = ", ".join(map(str, paths))
        raise Unusable(f"{folders}: there is no notebook (*.ipynb)")
    common = os.path.commonpath(places)
    names = {Path(os.path.relpath(path, common)).as_posix(): path for path in found}
    return {name: Path(os.path.abspath(names[name])) for name in sorted(names)}


def _hidden(path: Path, folder: Path) -> bool:
    """Say whether a file is a link, or stands in a hidden folder."""
    parts = path.relative_to(folder).parts
    return path.is_symlink() or any(part.startswith(".") for part in parts)
