"""Gradescope: `course grade gradescope-zip EXERCISE` makes its autograder.zip.

Gradescope runs `setup.sh` once, to build an image, and `run_autograder` for every
submission, as root, in a container of its own. The zip holds the course, the one solution
and a secret. Before an answer runs, the folder of the zip is closed to all but root, and
the answers run in the best box that the container allows; the result says in which.

If the grader could not work there is no results.json: Gradescope then shows an error that
staff can rerun, and no zero.
"""

import argparse
import io
import secrets
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

from course.exercises.spec import MODULES, questions
from course.files import write_whole
from course.grading.box import ROOT
from course.grading.grades import Graded, Submission
from course.grading.report import results
from course.grading.runner import grade

HELP = "make the autograder.zip of an exercise for Gradescope"
SETUP = """\
#!/usr/bin/env bash
# Gradescope runs this once, when it builds the image.
set -euo pipefail
cd "${AUTOGRADER:-/autograder}/source"
apt-get update -q
apt-get install -y -q bubblewrap
apt-get install -y -q python3.12-venv || apt-get install -y -q python3.11-venv
$(command -v python3.12 || command -v python3.11) run.py doctor
"""
RUN = """\
#!/usr/bin/env bash
# Gradescope runs this for every submission and reads results/results.json.
set -euo pipefail
base=${{AUTOGRADER:-/autograder}}
chmod -R go-rwx "$base/source"
cd "$base/source"
.venv/bin/python -m course.grading.gradescope {exercise} "$base"
"""
FILES = ("run.py", "pyproject.toml", "requirements.lock", "README.md", "LICENSE")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add `course grade gradescope-zip`."""
    parser = subparsers.add_parser(
        "grade gradescope-zip", help=HELP, description=HELP.capitalize() + "."
    )
    parser.add_argument("exercise", choices=MODULES, metavar="EXERCISE")
    parser.add_argument("--out", type=Path, default=Path("autograder.zip"), metavar="FILE")
    parser.add_argument("--secret-file", type=Path, metavar="FILE")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Write the zip."""
    secret = secrets.token_hex(32).encode()
    if chosen.secret_file:
        secret = chosen.secret_file.read_bytes()
    write_whole(chosen.out, zipped(chosen.exercise, secret))
    print(f"{chosen.out}: written; it holds a secret and a solution, keep it private")
    return 0


def zipped(exercise: str, secret: bytes) -> bytes:
    """Return the autograder.zip of an exercise."""
    texts = {"setup.sh": SETUP, "run_autograder": RUN.format(exercise=exercise)}
    files = [ROOT / name for name in FILES]
    files += [ROOT / "solutions" / f"{exercise}.ipynb"]
    files += sorted(p for p in (ROOT / "course").rglob("*") if _is_source(p))
    held = {name: text.encode() for name, text in texts.items()} | {"secret": secret}
    held |= {p.relative_to(ROOT).as_posix(): p.read_bytes() for p in files}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held.items():
            entry = zipfile.ZipInfo(name)  # no date: the same course gives the same bytes
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if name in texts else 0o644) << 16
            archive.writestr(entry, content)
    return made.getvalue()


def _is_source(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts


def main(exercise: str, base: Path) -> int:
    """Grade what was submitted and write results.json; return 1 if that was impossible."""
    source, submitted = base / "source", base / "submission"
    found = sorted(
        path
        for path in submitted.rglob("*.ipynb")
        if not path.is_symlink()
        and not path.relative_to(submitted).as_posix().startswith(".")
    )
    secret = (source / "secret").read_bytes()
    made = [grade(p, p.name, source / "solutions", secret) for p in found]
    fitting = [one for one in made if one.exercise == exercise]
    if len(fitting) == 1:
        (result,) = fitting
    else:
        says = f"There are {len(fitting)} notebooks of {exercise}; submit one."
        says = " ".join([says, *(one.says for one in made)])
        asked = tuple(
            Graded(q.name, q.points, 0.0, "missing", (says,)) for q in questions(exercise)
        )
        none = Submission("", "graded", says, exercise=exercise, questions=asked)
        result = replace(none, isolation=made[0].isolation) if made else none
    if result.status != "graded":
        print(f"not graded: {result.says}", file=sys.stderr)
        return 1
    write_whole(base / "results" / "results.json", results(result).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
