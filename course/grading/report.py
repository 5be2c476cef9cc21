"""What a grade looks like: a table to read, and files for machines.

    one submission   submission.json, results.json (Gradescope), junit.xml, student.html
    a class          class.csv, class-junit.xml, summary.md (GitHub Actions), teacher.html

All are made from `Submission`s and hold no time and no path, so that grading again, or in
pieces on many machines, writes the same bytes. Names of files and what students' code
returned are hostile here: each format has its own way to keep text from being more.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

from course.files import write_whole
from course.grading.grades import (
    ISOLATION,
    STATUS,
    Graded,
    Submission,
    printable,
    to_json,
)
from course.grading.pages import USUAL, plain, student, teacher

WIDTH = 100  # characters of a sentence in the table
SUMMARY = 900_000  # bytes: GitHub refuses a summary above 1 MiB
FORMULA = tuple("=+-@\t\r＝＋－＠")  # what a spreadsheet takes for one

# --- to read ----------------------------------------------------------------------------


def table(submission: Submission) -> str:
    """Return the table of a submission, for the terminal."""
    if submission.status != "graded":
        says = STATUS.get(submission.status, "not graded")
        return in_log(f"{submission.file}: {submission.status}: {submission.says or says}")
    rows = [("question", "points", "state", "")]
    rows += [
        (q.name, f"{q.points:g}/{q.worth}", q.state, sentence(q))
        for q in submission.questions
    ]
    rows.append(("total", f"{submission.points:g}/{submission.worth}", "", ""))
    first = max(len(row[0]) for row in rows)
    lines = [f"  {a:{first}}  {b:>6}  {c:13}  {d}".rstrip() for a, b, c, d in rows]
    head = f"{submission.file} (exercise {submission.exercise})"
    return "\n".join(in_log(line) for line in [head, *lines])


def sentence(question: Graded) -> str:
    """Return the one line that says most about a question."""
    told = question.lines[1:] if question.state != "not attempted" else ()
    says = next((line for line in told if not line.startswith("Smallest case:")), "")
    if question.rule and question.rule not in USUAL:
        says = f"(cell found by {question.rule}) {says}".rstrip()
    return says if len(says) <= WIDTH else says[: WIDTH - 3] + "..."


def in_log(line: str) -> str:
    """Return the line so that no CI service takes it, or a part of it, for a command.

    >>> in_log("::set-output name=points::10")
    ': :set-output name=points::10'
    """
    line = re.sub(r"##(?=\w*\[)", "# #", printable(line))
    return re.sub(r"^(\s*):(?=:)", r"\1: ", line)


def summary(submissions: Iterable[Submission]) -> str:
    """Return the class as Markdown for the summary of a GitHub Actions job."""
    everyone = by_file(submissions)
    count = Counter(made.status for made in everyone)
    stamps = Counter(_stamp(made) for made in everyone if made.status == "graded")
    head = [
        "### Grades",
        "",
        f"{len(everyone)} submissions: "
        + ", ".join(f"{count[status]} {status}" for status in STATUS),
        "",
        *(f"- {number} {markdown(stamp)}" for stamp, number in sorted(stamps.items())),
        "",
        "| file | exercise | points | not passed |",
        "| --- | --- | ---: | --- |",
    ]
    left = SUMMARY - sum(len(line.encode()) + 1 for line in head)
    rows: list[str] = []
    for made in everyone:
        row = _summary_row(made)
        left -= len(row.encode()) + 1
        if left < 0:
            rows += ["", f"{len(everyone) - len(rows)} more are in class.csv."]
            break
        rows.append(row)
    return "\n".join([*head, *rows, ""])


def _summary_row(made: Submission) -> str:
    """Return a submission's row of the summary."""
    if made.status == "graded":
        points = f"{made.points:g}/{made.worth}"
        says = ", ".join(f"{q.name}: {q.state}" for q in made.questions if _open(q))
    else:
        points, says = made.status, made.says
    cells = markdown(made.file), markdown(made.exercise), markdown(points), markdown(says)
    return f"| {' | '.join(cells)} |"


def markdown(given: str) -> str:
    """Return text that Markdown and HTML show as it is: every sign is written as a code.

    >>> markdown("a|<b>`x`")
    'a&#124;&#60;b&#62;&#96;x&#96;'
    """
    return re.sub(r"[^\w /,]|_", lambda sign: f"&#{ord(sign[0])};", plain(given, 300))


# --- for machines -----------------------------------------------------------------------


def results(submission: Submission) -> str:
    """Return results.json, as Gradescope wants it.

    Raises ValueError for a submission that is to be graded again: Gradescope shows that
    the autograder failed, and gives no points, only where there is no results.json.
    """
    if submission.status == "retry":
        raise ValueError(f"{submission.file}: not graded, so there are no results")
    graded = submission.status == "graded"
    fields = {
        "score": submission.points,
        "output": _stamp(submission) if graded else plain(submission.says),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [
            {
                "name": plain(q.name),
                "score": q.points,
                "max_score": q.worth,
                "status": "failed" if _open(q) else "passed",
                "output": "\n".join(map(plain, q.lines)),
                "output_format": "text",
                "visibility": "visible",
                "extra_data": {
                    "state": plain(q.state),
                    "cell_found_by": plain(q.rule),
                    "right": q.right,
                    "asked": q.asked,
                },
            }
            for q in submission.questions
        ],
        "extra_data": {
            "file": plain(submission.file),
            "sha256": plain(submission.sha256),
            "exercise": plain(submission.exercise),
            "status": plain(submission.status),
            "max_score": submission.worth,
            "isolation": plain(submission.isolation),
        },
    }
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def junit(submission: Submission) -> str:
    """Return junit.xml: a suite with a test case for each question."""
    return _xml(_suite(submission))


def class_junit(submissions: Iterable[Submission]) -> str:
    """Return junit.xml of a class: a suite for each submission."""
    suites = [_suite(made) for made in by_file(submissions)]
    total = {
        key: str(sum(int(suite.get(key, "0")) for suite in suites))
        for key in ("tests", "failures", "errors")
    }
    whole = ElementTree.Element("testsuites", name="class", **total)
    whole.extend(suites)
    return _xml(whole)


def _suite(made: Submission) -> ElementTree.Element:
    """Return the suite of a submission; one that is not graded is one error."""
    graded = made.status == "graded"
    failed = [q for q in made.questions if _open(q)]
    file = plain(made.file)
    suite = ElementTree.Element(
        "testsuite",
        name=plain(made.exercise) or file,
        tests=str(len(made.questions) + (not graded)),
        failures=str(len(failed)),
        errors=str(int(not graded)),
        skipped="0",
    )
    properties = ElementTree.SubElement(suite, "properties")
    known = {"file": file, "status": plain(made.status), "isolation": _stamp(made)}
    for key, value in known.items():
        ElementTree.SubElement(properties, "property", name=key, value=value)
    for q in made.questions:
        case = ElementTree.SubElement(suite, "testcase", classname=file, name=plain(q.name))
        if q in failed:
            state = plain(q.state)
            message = f"{q.points:g} of {q.worth} points: {state}"
            failure = ElementTree.SubElement(case, "failure", message=message, type=state)
            failure.text = "\n".join(map(plain, q.lines))
    if not graded:
        case = ElementTree.SubElement(suite, "testcase", classname=file, name="notebook")
        says, kind = plain(made.says), plain(made.status)
        ElementTree.SubElement(case, "error", message=says, type=kind)
    return suite


def _xml(root: ElementTree.Element) -> str:
    """Return the XML of an element."""
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", xml_declaration=False)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def class_csv(submissions: Iterable[Submission]) -> str:
    """Return the class as CSV: a row for each submission, a column for each question.

    Points are empty where there are none to give: a file that is to be graded again, a
    question that the exercise does not ask.
    """
    everyone = by_file(submissions)
    by_exercise = sorted(everyone, key=lambda made: made.exercise)
    asked = dict.fromkeys(q.name for made in by_exercise for q in made.questions)
    text = StringIO()
    write_row = csv.writer(text).writerow
    columns = "file", "exercise", "status", "points", "of", "isolation", "says", "sha256"
    write_row(map(cell, (*columns, *asked)))
    for made in everyone:
        points = {q.name: f"{q.points:g}" for q in made.questions}
        known = made.status != "retry"
        row = (
            *(made.file, made.exercise, made.status),
            *((f"{made.points:g}", f"{made.worth}") if known else ("", "")),
            *(made.isolation, made.says, made.sha256),
            *(points.get(name, "") for name in asked),
        )
        write_row(map(cell, row))
    return text.getvalue()


def cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula.

    >>> cell("=1+1")
    "'=1+1"
    """
    begins = text.lstrip().startswith(FORMULA) or text.startswith(FORMULA)
    return ("'" if begins else "") + plain(text)


# --- into folders -----------------------------------------------------------------------


def write(folder: Path, submission: Submission) -> None:
    """Write the files of a submission into its folder, each whole or not at all.

    One that is to be graded again has no results.json: see `results`.
    """
    write_whole(folder / "junit.xml", junit(submission).encode())
    write_whole(folder / "student.html", student(submission).encode())
    if submission.status == "retry":
        (folder / "results.json").unlink(missing_ok=True)
    else:
        write_whole(folder / "results.json", results(submission).encode())
    # last: where it stands, the others do
    write_whole(folder / "submission.json", to_json(submission).encode())


def write_class(
    folder: Path,
    submissions: Iterable[Submission],
    place: Callable[[Submission], str] | None = None,
) -> None:
    """Write the files of a class; place(submission) is its folder below this one."""
    everyone = by_file(submissions)
    # the mark at the beginning tells Excel that it is UTF-8
    write_whole(folder / "class.csv", class_csv(everyone).encode("utf-8-sig"))
    write_whole(folder / "class-junit.xml", class_junit(everyone).encode())
    write_whole(folder / "summary.md", summary(everyone).encode())
    write_whole(folder / "teacher.html", teacher(everyone, place).encode())


def by_file(submissions: Iterable[Submission]) -> list[Submission]:
    """Return the submissions in an order that does not depend on how they came."""

    def key(made: Submission) -> tuple[str, ...]:
        return made.file, made.exercise, made.sha256, made.status

    return sorted(submissions, key=key)


def _stamp(made: Submission) -> str:
    """Return how the answers were kept apart; what is unknown is not isolated."""
    return ISOLATION.get(made.isolation, ISOLATION["none"])


def _open(question: Graded) -> bool:
    """Say whether points are missing."""
    return question.points < question.worth
