"""Every question of the course: the right answer passes, every wrong one is named.

The seeds are those of a notebook's check and of some gradings.
"""

import time
from dataclasses import replace
from functools import cache, partial, wraps
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest

from course.exercises.call import Script, call, unchanged
from course.exercises.spec import MODULES, questions
from course.exercises.verdict import (
    alike,
    elapsed,
    failure,
    judge,
    public_rng,
    right_answer,
)
from course.exercises.verdict import (
    partial as share,
)
from tests.exercises import objects, sample

SOLUTIONS = Path(__file__).parents[2] / "solutions"


def remembering(question):
    """Return the question with an oracle that answers each case once."""
    if isinstance(question.oracle, type):
        return question
    given = {}

    def oracle(*case):
        key = tuple(id(a) if isinstance(a, np.ndarray) else a for a in case)
        if key not in given:
            given[key] = case, question.oracle(*case)  # the case, so that the ids stay
        return given[key][1]

    return replace(question, oracle=wraps(question.oracle)(oracle))


QUESTIONS = [remembering(q) for notebook in MODULES for q in questions(notebook)]
ALL = [*QUESTIONS, *map(remembering, (*sample.QUESTIONS, *objects.QUESTIONS))]
every_question = pytest.mark.parametrize("question", ALL, ids=lambda q: q.name)
every_mutant = pytest.mark.parametrize(
    ("question", "mutant"),
    [pytest.param(q, m, id=f"{q.name}-{k}") for q in ALL for k, m in enumerate(q.mutants)],
)


@cache
def draw(name, seed):
    """Return the cases of a notebook's check (seed None), or those of a grading."""
    question = next(q for q in ALL if q.name == name)
    rng = public_rng(question) if seed is None else np.random.default_rng(seed)
    return list(question.cases(rng))


def draws(question, count=3):
    return [draw(question.name, seed) for seed in (None, *range(count))]


@cache
def answers(name, k, seed):
    """Return what wrong answer number k gives in each case."""
    question = next(q for q in ALL if q.name == name)
    return [call(question.mutants[k].run, case) for case in draw(name, seed)]


def state(question, cases, function):
    return judge(question, cases, partial(call, function)).state


@every_question
def test_right_answer_passes(question):
    for cases in draws(question):
        assert state(question, cases, question.oracle) == "passed"


@every_question
def test_cases_are_many_and_depend_on_the_seed_alone(question):
    cases = draw(question.name, None)
    assert all(map(unchanged, cases, question.cases(public_rng(question))))
    if cases == [()]:  # asked for one thing
        return
    assert len(cases) >= 20
    if any(isinstance(a, np.ndarray) for case in cases for a in case):
        assert not all(map(unchanged, cases, question.cases(np.random.default_rng())))


@every_question
@pytest.mark.parametrize("seed", [None, 0])
def test_every_case_finds_a_mistake(question, seed):
    """A case in which all known wrong answers are right would test nothing."""
    given = [answers(question.name, k, seed) for k in range(len(question.mutants))]
    for case, *wrong in zip(draw(question.name, seed), *given, strict=True):
        assert any(failure(question, case, answer) for answer in wrong), case


def in_the_right_shape(question, value, arguments):
    """Return an answer whose numbers are all the same."""
    expected = right_answer(question, arguments)
    if isinstance(expected, tuple):
        return tuple(np.full(np.shape(part), value) for part in expected)
    return np.full(np.shape(expected), value)


CONSTANTS = {
    "0": lambda question, *a: 0,
    "1": lambda question, *a: 1,
    "-1": lambda question, *a: -1,
    "nan": lambda question, *a: np.nan,
    "inf": lambda question, *a: np.inf,
    "nothing": lambda question, *a: None,
    "the first argument": lambda question, *a: a[0],
    "the last argument": lambda question, *a: a[-1],
    "its shape": lambda question, *a: np.shape(a[0]),
    "the first answer": lambda question, *a: right_answer(
        question, draw(question.name, None)[0]
    ),
    "zeros": lambda question, *a: in_the_right_shape(question, 0.0, a),
    "ones": lambda question, *a: in_the_right_shape(question, 1.0, a),
}


@pytest.mark.parametrize("constant", CONSTANTS)
@every_question
def test_a_constant_has_no_points(question, constant):
    cases = draw(question.name, None)
    if cases == [()] or isinstance(cases[0], Script):
        return  # asked in the next test; nothing to return
    answer = partial(CONSTANTS[constant], question)
    verdict = judge(question, cases, partial(call, answer))
    assert verdict.state != "passed"
    assert verdict.fraction == 0


@pytest.mark.parametrize("question", [q for q in QUESTIONS if not draw(q.name, None)[0]])
@pytest.mark.parametrize("answer", [0, 1, -1, np.nan, np.inf, None, (), [[0]], "a"])
def test_a_constant_is_no_answer_to_a_question_without_arguments(question, answer):
    assert judge(question, [()], lambda _: answer).fraction == 0


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


def test_there_are_150_mutants(capsys):
    count = sum(len(question.mutants) for question in QUESTIONS)
    with capsys.disabled():
        print(f"\n{count} known wrong answers to {len(QUESTIONS)} questions")
    assert count >= 150


@every_mutant
def test_wrong_answer_fails_and_is_named(question, mutant):
    k = question.mutants.index(mutant)
    for seed in (None, 0):
        given = iter(answers(question.name, k, seed))
        verdict = judge(question, draw(question.name, seed), lambda _, g=given: next(g))
        assert verdict.state not in ("passed", "not attempted")
        assert verdict.mistake == mutant.says
        assert mutant.says in verdict.lines
        assert len(verdict.lines) <= 5
        assert max(map(len, verdict.lines)) <= 215
        assert verdict.fraction == share(verdict.right, verdict.asked) < 0.5
        assert len(verdict.picture.encode()) <= 20_000
        if verdict.picture:
            ElementTree.fromstring(verdict.picture)


@every_mutant
def test_wrong_answer_is_its_own(question, mutant):
    """No two mutants give the same answers: then only the first would ever be named."""
    k = question.mutants.index(mutant)
    for other in range(k):
        assert not all(
            map(
                partial(alike, question),
                draw(question.name, None),
                answers(question.name, k, None),
                answers(question.name, other, None),
            )
        ), question.mutants[other].says


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


def arrays(case):
    return [a for a in case if isinstance(a, np.ndarray)]


KINDS = {  # of a case's geometry and numbers
    "odd": lambda *case: arrays(case)[0].shape[-1] % 2 == 1,
    "even": lambda *case: arrays(case)[0].shape[-1] % 2 == 0,
    "not square": lambda *case: len(set(arrays(case)[0].shape)) == 2,
    "filter not square": lambda *case: len(set(arrays(case)[1].shape)) == 2,
    "1 x 1 filter": lambda *case: arrays(case)[1].size == 1,
    "one row": lambda *case: len(arrays(case)[0]) == 1,
    "one column": lambda *case: arrays(case)[0].shape[-1] == 1,
    "whole image": lambda *case: arrays(case)[0].shape == arrays(case)[1].shape,
    "whole width": lambda *case: arrays(case)[0].shape[-1] == arrays(case)[1].shape[-1],
    "whole numbers": lambda *case: not (arrays(case)[0] % 1).any(),
    "negative": lambda *case: (arrays(case)[0] <= 0).all() and arrays(case)[0].any(),
    "float32": lambda *case: arrays(case)[0].dtype == np.float32,
    "float64": lambda *case: arrays(case)[0].dtype == np.float64,
    "not contiguous": lambda *case: not arrays(case)[0].flags.forc,
    "column order": lambda *case: not arrays(case)[0].flags.c_contiguous,
    "larger filter": lambda *case: case[1].shape[0] > case[0].shape[0],
    "stride > filter": lambda x, w, stride, *_: stride > max(w.shape),
    "remainder": lambda x, w, stride, *_: (x.shape[0] - w.shape[0]) % stride > 0,
    "no remainder": lambda x, w, stride, *_: (x.shape[0] - w.shape[0]) % stride == 0,
    "padding": lambda x, w, stride, padding, pool: padding > 0,
    "no padding": lambda x, w, stride, padding, pool: padding == 0,
    "pool of 1": lambda x, w, stride, padding, pool: pool == 1,
    "stride > pool": lambda x, w, stride, padding, pool: stride > pool > 1,
    "filter longer": lambda w, n: len(w) > n,
    "filter shorter": lambda w, n: len(w) < n,
}
EVERY = ("odd", "even", "one row", "one column", "negative", "whole numbers")
LAYOUTS = ("float32", "float64", "not contiguous", "column order")
PLANES = (*EVERY, "not square", "filter not square", "1 x 1 filter", "whole image")
STRIDES = ("stride > filter", "remainder", "no remainder")
POOLS = ("padding", "no padding", "pool of 1", "stride > pool")
ASKED = {
    "corr1d": ("odd", "even", "whole image", "1 x 1 filter", "negative", *LAYOUTS[:3]),
    "toeplitz_same": ("filter longer", "filter shorter", "one column"),
    "corr2d": (*PLANES, *LAYOUTS, *STRIDES),
    "corr2d_fast": (*PLANES, "float32", "float64"),
    "convolve2d_full": (*PLANES, *LAYOUTS, "larger filter"),
    "homework": (*PLANES[:-1], "whole width", *LAYOUTS, *STRIDES, *POOLS),
}


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("name", ASKED)
def test_geometries_are_200_and_of_all_kinds(name, seed):
    cases = draw(name, seed)
    shapes = {tuple(a if np.isscalar(a) else a.shape for a in case) for case in cases}
    assert len(shapes) >= 200
    for kind in ASKED[name]:
        assert sum(KINDS[kind](*case) for case in cases) >= 3, kind


@pytest.mark.parametrize("name", ["prelu_backward", "maxout_backward"])
def test_upstream_gradients_are_random(name):
    upstream = [np.asarray(case[0], float) for case in draw(name, None)[1:]]
    assert all(len(set(dy.ravel())) == dy.size for dy in upstream)


@pytest.mark.parametrize(
    "name", ["mlp_forward", "mlp_backward", "maxout_forward", "softmax_rows"]
)
def test_batches_of_one_and_of_many(name):
    sizes = {len(case[0]) for case in draw(name, None)}
    assert 1 in sizes and max(sizes) > 3


def test_maxout_has_ties_and_one_channel():
    cases = draw("maxout_forward", None)
    assert any(x.shape[1] == 1 for x, *_ in cases)
    x, w, b = cases[1]
    pieces = [w[p] @ x[0] + b[p] for p in range(2)]
    assert pieces[0] == pieces[1]


def test_only_the_homework_needs_the_course():
    assert {q.name: q.needs for q in QUESTIONS if q.needs} == {
        "homework": ("course.layers",)
    }
