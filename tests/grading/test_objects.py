"""`grade` on questions that ask for a class or a figure."""

import inspect

import nbformat
import pytest

from course.exercises import spec
from course.grading.runner import grade
from tests.exercises import test_objects
from tests.grading.conftest import notebook

MEAN = """
class RunningMean:
    def __init__(self):
        self.total, self.count = 0.0, 0

    def add(self, x):
        self.total += x.sum()
        self.count += len(x)

    @property
    def mean(self):
        return self.total / self.count
"""
FIGURE = "from matplotlib.figure import Figure\n\n" + inspect.getsource(
    test_objects.squares_figure
)
RIGHT = {
    "RunningMean": MEAN,
    "Value": inspect.getsource(test_objects.Value),
    "squares_figure": FIGURE,
}
CHANGES = {
    "RunningMean": ("self.total += x.sum()", "self.total = x.sum()"),
    "Value": ("self.grad += dy", "self.grad = dy"),
    "squares_figure": ("k * k", "k**3"),
}
SAYS = {
    "RunningMean": "a.mean: Yours 1.66667, expected 3",
    "Value": "grad is replaced: add, where paths meet.",
    "squares_figure": "These are cubes.",
}


@pytest.fixture
def graded(tmp_path, monkeypatch):
    """Grade a notebook with these answers; return name -> what it got."""
    monkeypatch.setitem(spec.MODULES, "00_objects", "tests.exercises.objects")
    solutions = tmp_path / "solutions"
    solutions.mkdir()
    nbformat.write(notebook(RIGHT), solutions / "00_objects.ipynb")

    def graded(answers):
        path = tmp_path / "00_objects.ipynb"
        nbformat.write(notebook(answers), path)
        submission = grade(path, path.name, solutions)
        assert submission.status == "graded", submission.says
        return {question.name: question for question in submission.questions}

    return graded


def test_right_classes_and_figures_have_full_marks(graded):
    found = graded(RIGHT)
    assert {name: q.state for name, q in found.items()} == dict.fromkeys(RIGHT, "passed")
    assert sum(q.points for q in found.values()) == 7


def test_wrong_ones_get_their_sentence_and_no_more_than_half(graded):
    wrong = {name: RIGHT[name].replace(*CHANGES[name]) for name in RIGHT}
    assert all(wrong[name] != RIGHT[name] for name in RIGHT)
    for name, question in graded(wrong).items():
        assert question.state == "wrong"
        assert SAYS[name] in question.lines
        assert question.points <= question.worth / 2


def test_stubs_of_classes_are_not_attempted(graded):
    stub = 'raise NotImplementedError("your code here")'
    answers = {
        "RunningMean": f"class RunningMean:\n    def __init__(self):\n        {stub}",
        "Value": "class Value:\n    pass",
    }
    found = graded(answers)
    assert found["RunningMean"].state == "not attempted"
    assert found["Value"].state == "error"
    assert found["squares_figure"].state == "missing"
