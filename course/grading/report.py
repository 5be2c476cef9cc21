"""What a grade looks like: a table to read, results.json and junit.xml for machines.

results.json has the fields of a Gradescope result; junit.xml is what CI services show.
Neither holds a time or a path, so that grading a file again writes the same bytes.
"""

import json
from pathlib import Path
from xml.etree import ElementTree

from course.files import write_whole
from course.grading.runner import Grade, Graded

NOT_ISOLATED = (
    "NOT ISOLATED: the answers ran with your rights; grade only notebooks you trust"
)
WIDTH = 100  # characters of a sentence in the table


def table(name: str, grade: Grade) -> str:
    """Return the table of a notebook."""
    rows = [("question", "points", "state", "")]
    rows += [
        (q.name, f"{q.points:g}/{q.worth}", q.state, sentence(q)) for q in grade.questions
    ]
    rows.append(("total", f"{grade.points:g}/{grade.worth}", "", ""))
    first = max(len(row[0]) for row in rows)
    lines = [f"  {a:{first}}  {b:>6}  {c:13}  {d}".rstrip() for a, b, c, d in rows]
    return "\n".join([f"{name} (exercise {grade.exercise})", *lines])


def sentence(question: Graded) -> str:
    """Return the one line that says most about a question."""
    told = question.lines[1:] if question.state != "not attempted" else ()
    says = next((line for line in told if not line.startswith("Smallest case:")), "")
    if question.rule not in ("", "its id"):
        says = f"(cell found by {question.rule}) {says}".rstrip()
    return says if len(says) <= WIDTH else says[: WIDTH - 3] + "..."


def results(name: str, grade: Grade) -> str:
    """Return results.json."""
    fields = {
        "score": grade.points,
        "max_score": grade.worth,
        "output": NOT_ISOLATED,
        "output_format": "text",
        "tests": [
            {
                "name": q.name,
                "score": q.points,
                "max_score": q.worth,
                "status": "passed" if q.points == q.worth else "failed",
                "output": "\n".join(q.lines),
                "output_format": "text",
                "extra_data": {"state": q.state, "cell_found_by": q.rule},
            }
            for q in grade.questions
        ],
        "extra_data": {"file": name, "exercise": grade.exercise, "isolation": "none"},
    }
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def junit(name: str, grade: Grade) -> str:
    """Return junit.xml: a test case for each question."""
    failed = [q for q in grade.questions if q.points < q.worth]
    suite = ElementTree.Element(
        "testsuite",
        name=grade.exercise,
        tests=str(len(grade.questions)),
        failures=str(len(failed)),
        errors="0",
        skipped="0",
    )
    properties = ElementTree.SubElement(suite, "properties")
    ElementTree.SubElement(properties, "property", name="isolation", value=NOT_ISOLATED)
    for q in grade.questions:
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=q.name)
        if q in failed:
            message = f"{q.points:g} of {q.worth} points: {q.state}"
            failure = ElementTree.SubElement(case, "failure", message=message)
            failure.text = "\n".join(q.lines)
    ElementTree.indent(suite)
    text = ElementTree.tostring(suite, encoding="unicode", xml_declaration=False)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def write(folder: Path, name: str, grade: Grade) -> None:
    """Write results.json and junit.xml into the folder, each whole or not at all."""
    write_whole(folder / "results.json", results(name, grade).encode())
    write_whole(folder / "junit.xml", junit(name, grade).encode())
