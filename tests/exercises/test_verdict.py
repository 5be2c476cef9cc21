"""Nothing that a verdict can say is idle: some wrong answer is told each sentence."""

import ast
import inspect
import sys

import numpy as np
import pytest

from course.exercises import verdict
from course.exercises.call import Changed, Handle, Raised, Script
from course.exercises.convolution import unmasks
from course.exercises.mlp import judge_steep
from course.exercises.scores_to_loss import judge_below_chance
from course.exercises.spec import Mutant, Question, Speed
from course.exercises.verdict import judge

X = np.array([1.0, 2.0])
SCRIPT = Script([("new", ()), ("call", Handle(0), "add", (X,))])


class Oracle:
    def add(self, x):
        return 1.0


def question(expected, **more):
    """Return a question with this one right answer."""
    oracle = Oracle if expected is Oracle else lambda x: expected
    return Question("f", 1, oracle, lambda rng: iter([(X,)]), (), **more)


def never(arguments, answer):
    return "not this"


def fails(arguments, answer):
    raise ValueError("cannot be judged")


WRONG = [  # what is expected, what is answered, the state, and how the sentence begins
    (X, Raised("ValueError", "no"), "error", "ValueError: no"),
    (X, Changed(0), "wrong", "Your function changes its argument x"),
    (Oracle, Changed(1), "wrong", "Your class changes what it is given in a.add([1., 2.])"),
    (Oracle, [3, 1.0], "wrong", "a = f(): Yours is an int, expected an object"),
    ("text", "texts", "wrong", "Yours 'texts', expected 'text'"),
    (X, None, "wrong", "It returns nothing. Is a `return` missing?"),
    ({"a": 1}, {"b": 1}, "wrong", "Yours is a dict, expected a dict with the keys 'a'"),
    ((X, X), X, "shape", "Result 1 of 2: Your shape ()"),
    ((X, X), (X,), "shape", "It returns 1 result, expected 2"),
    (X, "text", "wrong", "Yours is a str, expected an array of numbers"),
    (X, X + 1j, "wrong", "Yours is complex, expected real numbers"),
    (X, X[:1], "shape", "Your shape (1,), expected (2,)"),
    (X, X * 2, "wrong", "At [0]: yours 2, expected 1"),
    (X, X * (1 + 1e-5), "imprecise", "At [0]: yours 1.00001, expected 1. Nearly right"),
]


@pytest.fixture
def reached(monkeypatch):
    """Return the lines from which differences come; `seen` adds to them."""
    lines, real = set(), verdict.Difference

    def recording(*parts):
        lines.add(sys._getframe(1).f_lineno)
        return real(*parts)

    monkeypatch.setattr(verdict, "Difference", recording)
    return lines


def said(expected, answer):
    arguments = SCRIPT if expected is Oracle else (X,)
    return judge(question(expected), [arguments], lambda _: answer)


@pytest.mark.parametrize(
    ("expected", "answer", "state", "says"), WRONG, ids=lambda v: str(v)
)
def test_sentence(expected, answer, state, says):
    found = said(expected, answer)
    assert found.fraction == 0
    assert any(line.startswith(says) for line in found.lines), found.lines
    assert found.state == state


def test_every_fault_that_can_be_found_is_found(reached):
    for expected, answer, *_ in WRONG:
        said(expected, answer)
    for judged in (never, fails):
        assert judge(question(X, judge=judged), [(X,)], lambda _: X).state == "wrong"
    slow = Speed(plain=lambda x: x, arguments=lambda rng: (X,), floor=1e9)
    found = judge(question(X, speed=slow), [(X,)], lambda _: X, lambda _: (9.0, X))
    assert found.state == "slow"
    places = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(verdict)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Difference"
    ]
    assert len(places) == 13
    for node in places:
        lines = range(node.lineno, node.end_lineno + 1)
        assert reached & set(lines), f"nobody is told: {ast.unparse(node)}"


ONE = np.array([[1.0]])
JUDGED = {
    unmasks: (
        (X, "Return two arrays"),
        ((X, X), "x and w must be 2-D arrays"),
        ((np.ones((200, 200)), ONE), "Keep x and w small"),
        ((ONE, np.ones((1, 2))), "w, (1, 2), does not fit into x, (1, 1)"),
        ((ONE * np.nan, ONE), "x and w must hold finite numbers"),
        ((np.ones((1, 3)), np.ones((1, 2))), "Your w looks the same after half a turn"),
        ((np.ones((1, 3)), np.array([[1.0, 2.0]])), "All pixels of your x are equal"),
        ((np.array([[0, 0, 1, 0, 0.0]]), np.array([[1, 0, 0, 0, 0.0]])), "Both versions"),
    ),
    judge_steep: (
        (X, "Return two things: z, an array of numbers, and then s"),
        ((X, np.nan), "Give an array with at least one finite number"),
        ((X, 0.5), "With s = 0.5 both give [1.0, 2.0]"),
    ),
    judge_below_chance: (
        (3, "Return two arrays: p of shape (N, C)"),
        ((X, X), "Return two arrays: p of shape (N, C)"),
        ((np.eye(2), np.array([0.0, 1.0])), "Labels are whole numbers"),
        ((np.zeros((1, 2)), np.array([0])), "A row of p is a distribution"),
        ((np.full((1, 2), 0.5), np.array([0])), "The quality of your p is not below"),
    ),
}


@pytest.mark.parametrize("judged", JUDGED, ids=lambda judged: judged.__name__)
def test_every_sentence_of_a_judge_is_told(judged):
    arguments = (2,) if judged is judge_below_chance else ()
    for answer, says in JUDGED[judged]:
        assert judged(arguments, answer).startswith(says)
    returns = [
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(judged)))
        if isinstance(node, ast.Return)
    ]
    told = [v for v in returns if not (isinstance(v, ast.Constant) and v.value is None)]
    assert len(JUDGED[judged]) == len(told)


def test_the_mistake_is_the_sentence_of_the_mutant():
    mutants = Mutant("Not this.", lambda x: x - 1), Mutant("Not half.", lambda x: x / 2)
    asked = Question("f", 1, lambda x: x, lambda rng: iter([(X,)]), mutants)
    found = judge(asked, [(X,)], lambda arguments: arguments[0] / 2)
    assert found.mistake == found.lines[1] == "Not half."
    assert judge(asked, [(X,)], lambda arguments: arguments[0] * 5).mistake == ""
