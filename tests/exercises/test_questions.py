"""Every question of the course: the right answer passes, every wrong one is named.

The seeds are those of a notebook's check and of some gradings.
"""

import time
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
import pytest

from course.exercises.call import call, unchanged
from course.exercises.spec import MODULES, questions
from course.exercises.verdict import alike, elapsed, judge, public_rng
from tests.exercises import sample

SOLUTIONS = Path(__file__).parents[2] / "solutions"
QUESTIONS = [q for notebook in MODULES for q in questions(notebook)]
ALL = [*QUESTIONS, *sample.QUESTIONS]
every_question = pytest.mark.parametrize("question", ALL, ids=lambda q: q.name)
every_mutant = pytest.mark.parametrize(
    ("question", "mutant"),
    [pytest.param(q, m, id=f"{q.name}-{k}") for q in ALL for k, m in enumerate(q.mutants)],
)


def draws(question, count=3):
    """Return the cases of a notebook's check, and those of some gradings."""
    generators = [public_rng(question), *map(np.random.default_rng, range(count))]
    return [list(question.cases(rng)) for rng in generators]


def state(question, cases, function):
    return judge(question, cases, partial(call, function)).state


@every_question
def test_right_answer_passes(question):
    for cases in draws(question):
        assert state(question, cases, question.oracle) == "passed"


@every_question
def test_cases_are_many_and_depend_on_the_seed_alone(question):
    cases, again = draws(question, 0) + draws(question, 0)
    assert all(map(unchanged, cases, again))
    if cases == [()]:  # asked for one thing
        return
    assert len(cases) >= 20
    if any(isinstance(a, np.ndarray) for case in cases for a in case):
        assert not all(map(unchanged, cases, list(question.cases(np.random.default_rng()))))


@every_question
def test_no_constant_passes(question):
    for cases in draws(question):
        if cases != [()]:
            constant = question.oracle(*cases[0])
            assert state(question, cases, lambda *_, c=constant: c) != "passed"


@every_question
def test_words(question):
    assert question.points > 0
    assert question.name.isidentifier()
    assert question.hints
    assert question.mutants
    says = [mutant.says for mutant in question.mutants]
    assert len(set(says)) == len(says)
    for sentence in says:
        assert len(sentence) <= 150
        assert sentence[-1] in ".?!"


def test_names_are_unique():
    names = [question.name for question in QUESTIONS]
    assert len(set(names)) == len(names)


@every_mutant
def test_wrong_answer_fails_and_is_named(question, mutant):
    for cases in draws(question, 1):
        verdict = judge(question, cases, partial(call, mutant.run))
        assert verdict.state not in ("passed", "not attempted")
        assert mutant.says in verdict.lines
        assert len(verdict.lines) <= 5
        assert max(map(len, verdict.lines)) <= 215


@every_mutant
def test_wrong_answer_is_its_own(question, mutant):
    """No two mutants give the same answers: then only the first would ever be named."""
    for cases in draws(question, 0):
        for other in question.mutants:
            if other is not mutant:
                assert not all(
                    alike(question, case, call(mutant.run, case), call(other.run, case))
                    for case in cases
                ), other.says


@pytest.mark.parametrize(
    "question", [q for q in ALL if q.speed], ids=lambda question: question.name
)
def test_plain_loop_is_right_but_slow(question):
    def timed(arguments):
        return elapsed(question.speed.plain, arguments)

    cases = list(question.cases(public_rng(question)))
    verdict = judge(question, cases, partial(call, question.speed.plain), timed)
    assert verdict.state == "slow"


def solution(notebook, name):
    """Return the function of a solution, as its notebook defines it."""
    cells = nbformat.read(SOLUTIONS / f"{notebook}.ipynb", as_version=4).cells
    space = {}
    for cell in cells:
        if "setup" in cell.metadata.get("tags", []) or cell.get("id") == f"answer-{name}":
            exec(cell.source, space)
    return space[name]


@pytest.mark.parametrize(
    ("notebook", "question"),
    [
        pytest.param(notebook, question, id=question.name)
        for notebook in MODULES
        for question in questions(notebook)
        if question.speed
    ],
)
def test_solution_is_three_times_as_fast_as_asked(notebook, question):
    function = solution(notebook, question.name)
    arguments = question.speed.arguments(public_rng(question))
    function(*arguments)  # compiles
    for _ in range(5):  # a busy machine may be slow for a while
        yours = min(elapsed(function, arguments)[0] for _ in range(5))
        plain = elapsed(question.speed.plain, arguments)[0]
        if plain >= 3 * question.speed.floor * yours:
            return
        time.sleep(1)
    pytest.fail(f"{plain / yours:.1f} times the plain loop, {question.speed.floor} asked")
