"""docs/api.md: up to date, and complete."""

import subprocess
import sys
from pathlib import Path

import pytest

import course.data
import course.layers
import course.losses
import course.zoo

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/api.md").read_text(encoding="utf-8")


def test_page_is_what_the_files_say():
    command = [sys.executable, str(ROOT / "docs/make_api.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "up to date\n")


@pytest.mark.parametrize("package", [course.layers, course.losses, course.data, course.zoo])
def test_every_exported_name_has_a_line_with_a_sentence(package):
    lines = {}
    for line in PAGE.splitlines():
        if line.startswith("- `"):
            call, _, sentence = line.removeprefix("- `").partition("` ")
            lines[call.partition("(")[0]] = sentence
    for name in package.__all__:
        if callable(getattr(package, name)):
            assert lines.get(name, "").endswith((".", ")")), name


def test_every_link_leads_to_a_file():
    places = [part.partition(")")[0] for part in PAGE.split("](")[1:]]
    assert len(places) > 40
    for place in places:
        assert (ROOT / "docs" / place).is_file(), place


def test_readme_links_it():
    assert "(docs/api.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
