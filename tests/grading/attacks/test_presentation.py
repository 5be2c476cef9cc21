"""Attacks on those who read: the student's page, the teacher's, tables, logs and sheets."""

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from course.grading import report
from course.grading.grades import Graded, Submission, to_json
from tests.grading.attacks.grading import graded, notebook

TEXTS = {
    "script": "<script>alert(1)</script>",
    "picture": "<img src=x onerror=alert(1)><svg onload=alert(1)>",
    "end of a tag": "\"'><iframe src=//example.org></iframe>",
    "end of a comment": "--> ]]> </style></script></textarea><b>",
    "address": "javascript:alert(1) data:text/html,<b> [a](javascript:alert(1))",
    "entity": "&lt;script&gt; &#60;b&#62; &amp; &nosuch;",
    "colours": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b31m",
    "direction": "\u202epassed\u2066 \u200b\u2028\u2029\ufeff",
    "log": "\n::set-output name=points::18\r::error::x\n##[group]x\n::stop-commands::y",
    "table": "| a | b |\n|---|---|\n``` \\| <details>",
    "formula": '=HYPERLINK("http://example.org";"x")',
    "bytes": "\x00\x08\x7f\ud800\ufffe",
}
NAMES = (
    "=HYPERLINK(x).ipynb",
    "+1-1.ipynb",
    "@SUM(1).ipynb",
    "::error::x.ipynb",
    "<script>x.ipynb",
    "a\nb|c.ipynb",
    "\u202excod.ipynb",
    "\x1b[31m.ipynb",
    "-rf.ipynb",
    "%0a::error::.ipynb",
)


class Page(HTMLParser):
    """Collects tags, attributes and texts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs


def harmless(folder):
    """Assert that no file in the folder does anything but show text."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len({path.suffix for path in files} & {".html", ".csv", ".xml", ".json"}) == 4
    for path in files:
        text = path.read_text("utf-8").removeprefix("\ufeff")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text), path.name
        assert not re.search("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", text), (
            path.name
        )
        match path.suffix:
            case ".html":
                page = Page(text)
                assert not page.tags & {"script", "img", "iframe", "object", "base", "form"}
                for name, value in page.attributes:
                    assert not name.startswith("on"), (name, value)
                    assert not re.match(r"\s*(javascript|data|vbscript):", value or "")
            case ".csv":
                for row in csv.reader(text.splitlines()):
                    for cell in row:
                        number = re.fullmatch(r"-?\d+(\.\d+)?", cell)
                        assert number or not cell.startswith(tuple("=+-@\t\r")), cell
            case ".xml":
                ElementTree.fromstring(text)
            case ".json":
                json.loads(text)
            case ".md":
                assert "<script" not in text and "<img" not in text


@pytest.mark.parametrize("kind", TEXTS)
def test_text_of_an_error_is_only_shown(kind, world, best, tmp_path):
    given = TEXTS[kind]
    name = given[:30].translate({0: "", 0xD800: ""})
    source = f"    raise type({name!r}, (Exception,), {{}})({given!r})"
    answers = {
        "toeplitz_same": f"def toeplitz_same(w, n):\n{source}",
        "homework_by_hand": f"def homework_by_hand():\n    return {given!r}, {given!r}, 3",
        "unmask_flip": f"def unmask_flip():\n    return {{{given!r}: 1}}, {given!r}",
    }
    submission, _ = graded(notebook(answers), world, tmp_path, best)
    assert submission.status == "graded"
    assert submission.points == 2
    harmless(tmp_path / "out")


def test_every_field_of_a_result_is_only_shown(tmp_path):
    """Also what no student can reach today."""
    for number, given in enumerate(TEXTS.values()):
        given = given.encode("utf-8", "replace").decode()
        question = Graded(
            name=given,
            worth=2,
            points=0.0,
            state="wrong",
            lines=(given,) * 5,
            rule=given,
            right=1,
            asked=2,
            mistake=given,
            picture=f"<svg xmlns='http://www.w3.org/2000/svg'>{given}</svg>",
        )
        made = Submission(given, "graded", given, given, given, "none", (question,))
        out = tmp_path / str(number)
        report.write(out, made)
        report.write_class(out, [made, Submission(given, "unusable", given)])
        for path in out.rglob("*.html"):
            page = Page(path.read_text("utf-8"))
            assert not page.tags & {"script", "img", "iframe"}, given
            assert not [a for a in page.attributes if a[0].startswith("on")], given
        assert to_json(made)


def test_names_of_files_are_only_shown(tmp_path):
    """Through the real command: what it prints, and what it writes."""
    folder = tmp_path / "class"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(b'{"cells": []}')
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "course"),
            *("grade", str(folder), "--out", str(tmp_path / "out"), "--sandbox", "none"),
        ],
        capture_output=True,
        timeout=120,
        check=False,
    )
    said = (done.stdout + done.stderr).decode("utf-8")
    assert done.returncode == 2
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", said)
    assert not [
        line for line in said.splitlines() if line.lstrip().startswith(("::", "##["))
    ]
    harmless(tmp_path / "out")
