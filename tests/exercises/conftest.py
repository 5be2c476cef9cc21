"""The sample notebook stands among the notebooks of the course."""

import pytest

from course.exercises import check, spec


@pytest.fixture
def sample(monkeypatch):
    """Let `check` know the sample questions, with nothing solved and no hint open."""
    monkeypatch.setitem(spec.MODULES, "00_sample", "tests.exercises.sample")
    monkeypatch.setattr(check, "_passed", set())
    monkeypatch.setattr(check, "_hints_opened", {})
