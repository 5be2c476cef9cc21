"""Attacks that take several turns: hand in, learn from the report, hand in again.

The student is better off here than in truth: he sees every argument he was asked and every
right answer, and not only the smallest case that is wrong.
"""

from collections import Counter

import numpy as np
import pytest

from course.exercises.spec import MODULES, questions
from course.grading.runner import case_rng, grade
from course.grading.wire import encode
from tests.grading.attacks.grading import graded, notebook, points
from tests.grading.attacks.table import PREAMBLE

QUESTIONS = {q.name: q for notebook in MODULES for q in questions(notebook)}
FIXED = {
    name for name, q in QUESTIONS.items() if not next(q.cases(np.random.default_rng(0)))
}
ASKED = sorted(QUESTIONS.keys() - FIXED)
HALF = 1 / 2  # a share of right cases up to this is worth nothing


def cases(name, turn):
    """Return the cases of a question for the notebook of a turn."""
    raw = f"notebook of turn {turn}".encode()
    return list(QUESTIONS[name].cases(case_rng(b"secret" * 4, raw, QUESTIONS[name])))


@pytest.mark.parametrize("name", ASKED)
def test_a_table_of_all_that_was_asked_before_is_worth_nothing(name):
    known = {encode(case) for turn in range(3) for case in cases(name, turn)}
    new = cases(name, 3)
    if QUESTIONS[name].judge is None:  # else the course has many right answers
        assert np.mean([encode(case) in known for case in new]) < HALF


@pytest.mark.parametrize("name", ASKED)
def test_one_answer_to_all_cases_is_worth_nothing(name):
    question = QUESTIONS[name]
    if question.judge is not None:
        pytest.skip("every answer is judged by itself")
    answers = Counter(encode(question.oracle(*case)) for case in cases(name, 0))
    assert answers.most_common(1)[0][1] / answers.total() < HALF


def test_printed_inputs_are_never_asked_again(world, best, tmp_path):
    """Hand in, read what was asked, answer it from a table, and hand in again."""
    question = QUESTIONS["toeplitz_same"]
    table: dict[str, list] = {}
    for _turn in range(4):
        source = (
            f"TABLE = {table}\n"
            "def toeplitz_same(w, n):\n"
            "    key = w.tobytes().hex() + str(n)\n"
            "    if key in TABLE:\n"
            "        return TABLE[key]\n"
            "    raise ValueError(key)\n"
        )
        made = notebook({"toeplitz_same": source})
        submission, _ = graded(made, world, tmp_path, best)
        assert points(submission, "toeplitz_same") == 0
        grade(
            tmp_path / "mallory.ipynb",
            "mallory.ipynb",
            world.folder / "solutions",
            world.secret.read_bytes(),
            20.0,
            best,
            told=lambda asked, arguments, _: (
                asked is question
                and table.update({key(arguments): question.oracle(*arguments).tolist()})
            ),
        )
    assert len(table) > 100


def key(arguments):
    """Return how the student's table names a case."""
    return arguments[0].tobytes().hex() + str(arguments[1])


def test_the_same_notebook_is_asked_the_same_and_another_is_not():
    for name in ASKED:
        first, again, other = cases(name, 0), cases(name, 0), cases(name, 1)
        assert list(map(encode, first)) == list(map(encode, again))
        assert list(map(encode, first)) != list(map(encode, other)) or name in (
            "below_chance",
        )


LEAVE = """
import builtins, threading
builtins.left = $DOOR
import course, numpy
course.left = numpy.left = $DOOR
os.environ["LEFT"] = $DOOR
def everywhere():
    places = (os.getcwd(), "/tmp", "/dev/shm", "/var/tmp", $FOLDER, *sys.path)
    for place in places:
        yield os.path.join(place, $MARK)
for path in everywhere():
    tried(lambda: open(path, "w").write($DOOR))
    tried(lambda: os.mkdir(path + "d"))
def toeplitz_same(w, n):
    return np.zeros((n, n))
"""
FIND = """
import builtins
import course, numpy
for thing in (builtins, course, numpy):
    tried(lambda: thing.left)
tried(lambda: os.environ["LEFT"])
for place in (os.getcwd(), "/tmp", "/dev/shm", "/var/tmp", $FOLDER, *sys.path):
    tried(lambda: open(os.path.join(place, $MARK)).read())
    tried(lambda: os.listdir(os.path.join(place, $MARK + "d")) == [] and $DOOR)
def toeplitz_same(w, n):
    raise ValueError(" ".join(sorted(set(LOOT))))
"""


def test_next_student_finds_nothing(world, best, tmp_path):
    """One student leaves words wherever he can, the next looks for them."""
    names = {f"${name}": repr(value) for name, value in world.names().items()}
    sources = []
    for text in (LEAVE, FIND):
        for name in sorted(names, key=len, reverse=True):
            text = text.replace(name, names[name])
        sources.append(PREAMBLE + text)
    graded(notebook({"toeplitz_same": sources[0]}), world, tmp_path, best)
    _, seen = graded(notebook({"toeplitz_same": sources[1]}), world, tmp_path, best)
    assert b"Error" in seen  # it did look
    assert world.door.encode() not in seen
    assert not world.touched()
