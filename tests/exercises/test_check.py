"""check, hint and progress, on answers that students write."""

import base64
import functools
import warnings
from pathlib import Path
from time import thread_time
from xml.etree import ElementTree

import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from numba import njit, prange

from course import check, hint, progress
from course.exercises.call import call
from course.exercises.spec import Mutant, Question, find
from course.exercises.verdict import judge, public_rng
from tests.exercises.sample import running_sum as oracle

pytestmark = pytest.mark.usefixtures("sample")


def named(name, function):
    """Return the function under the name that the exercise asks for."""
    getattr(function, "py_func", function).__name__ = name
    function.__name__ = name
    return function


def line_of(function):
    return getattr(function, "py_func", function).__code__.co_firstlineno


@pytest.fixture
def said(capsys):
    """Check a function; return what is printed. The function must not have passed."""

    def said(function, name="running_sum"):
        assert check(named(name, function)) is not function
        lines = capsys.readouterr().out.splitlines()
        assert 1 < len(lines) <= 6
        return lines

    return said


def stub(x):
    """Return the running sum."""
    raise NotImplementedError("your code here")


def right(x):
    y = np.empty_like(x)
    total = 0.0
    for k in range(len(x)):
        total += x[k]
        y[k] = total
    return y


def one_too_far(x):
    y = np.zeros(len(x))
    for k in range(len(x)):
        y[k] = x[k] + x[k + 1]
    return y


def unfinished(x):
    return stub(x)


def two_types(x):
    if len(x) > 3:
        return 1.0
    return x


def unknown_name(x):
    return summe(x)  # noqa: F821


def in_place(x):
    for k in range(1, len(x)):
        x[k] += x[k - 1]
    return x


@pytest.mark.parametrize(
    "function",
    [
        right,
        njit(right),
        np.cumsum,
        lambda x: list(np.cumsum(x)),
        lambda x: np.cumsum(x, 0),
    ],
    ids=["loop", "njit", "numpy", "list", "other"],
)
def test_right_answer_is_returned(function, capsys):
    function = named("running_sum", function)
    assert check(function) is function
    assert capsys.readouterr().out.endswith("running_sum: passed (59 cases, 3 points)\n")


def test_says_the_same_every_time(said):
    wrong = lambda x: 2 * np.cumsum(x)  # noqa: E731
    assert said(wrong) == said(wrong)


@pytest.mark.parametrize("function", [stub, njit(stub)], ids=["plain", "njit"])
def test_stub_is_not_attempted(said, function):
    assert said(function)[0].endswith("running_sum: not attempted")


def test_stand_in_is_the_right_answer_and_never_passes(said, capsys):
    stand_in = check(named("running_sum", stub))
    capsys.readouterr()
    np.testing.assert_array_equal(stand_in(np.array([1.0, 2.0])), [1.0, 3.0])
    assert check(stand_in) is not stub
    assert "not yours" in capsys.readouterr().out
    progress("00_sample")
    assert "0 of 4 questions" in capsys.readouterr().out


@pytest.mark.parametrize(
    "function", [one_too_far, njit(one_too_far)], ids=["plain", "njit"]
)
def test_index_too_large_names_the_line(said, function):
    lines = said(function)
    assert lines[0].endswith("running_sum: stops with an error in 59 of 59 cases")
    assert lines[2] == "IndexError: index 2 is out of bounds for axis 0 with size 2"
    assert lines[3] == f"Line {line_of(function) + 3}: y[k] = x[k] + x[k + 1]"


def beyond_in_parallel(x):
    y = np.zeros_like(x)
    for k in prange(len(x)):
        y[k] = x[k + 1]
    return y


def divides_by_zero(x):
    return np.zeros(len(x)) + 1 // (len(x) - 2)


def keeps_the_error(x):
    try:
        return x
    except ValueError as error:
        print(error)


@pytest.mark.parametrize(
    ("function", "line", "says"),
    [
        (
            njit(parallel=True)(beyond_in_parallel),
            3,
            "IndexError: index 2 is out of bounds",
        ),
        (njit(divides_by_zero), 1, "ZeroDivisionError: "),
        (njit(keeps_the_error), 3, "UnsupportedBytecodeError: Exception object cannot be"),
    ],
    ids=["parallel", "division", "exception"],
)
def test_numba_s_errors_have_a_line(said, function, line, says):
    lines = said(function)
    assert lines[2].startswith(says)
    assert lines[3].startswith(f"Line {line_of(function) + line}: ")


def test_two_return_types(said):
    assert "returns different types in different places: " in said(njit(two_types))[2]


@pytest.mark.parametrize(
    "function", [unknown_name, njit(unknown_name)], ids=["plain", "njit"]
)
def test_unknown_name(said, function):
    lines = said(function)
    assert "name 'summe' is not defined" in lines[2]
    assert lines[3].startswith(f"Line {line_of(function) + 1}: return summe(x)")


def test_calls_what_is_not_written(said):
    assert said(unfinished)[2] == "Error: a function that is called here is not written yet"


@pytest.mark.parametrize("error", [KeyError("a"), SystemExit(3), RecursionError("deep")])
def test_any_error_is_told(said, error):
    def raises(x):
        raise error

    assert said(raises)[2].startswith(type(error).__name__)


def test_interrupt_stops_the_check():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(named("running_sum", interrupted))


def test_too_few_parameters(said):
    assert "takes 0 positional arguments but 1 was given" in said(lambda: 1)[2]


def test_shape(said):
    lines = said(lambda x: np.cumsum(x)[1:])
    assert lines[0] == "running_sum: wrong shape in 59 of 59 cases"
    assert lines[2] == "Your shape (1,), expected (2,)"


def test_known_mistake_is_named(said):
    lines = said(lambda x: [x[:k].sum() for k in range(len(x))])
    assert lines[:4] == [
        "running_sum: wrong in 59 of 59 cases",
        "You leave out x[k] itself.",
        "Smallest case: x = [1., 2.]",
        "At [0]: yours 0, expected 1",
    ]


def test_unknown_mistake_shows_the_smallest_case(said):
    assert said(lambda x: 2 * np.cumsum(x)) == [
        "running_sum: wrong in 59 of 59 cases",
        "Smallest case: x = [1., 2.]",
        "At [0]: yours 2, expected 1",
        "Expected from: 1",
        "Stuck? hint(running_sum)",
    ]


def test_imprecise(said):
    lines = said(lambda x: np.cumsum(x) * (1 + 1e-5))
    assert lines[0].startswith("running_sum: imprecise")
    assert "yours 1.00001, expected 1" in lines[2]


def test_wrong_beats_imprecise(said):
    """Nearly right in the first case, wrong in a later one."""
    lines = said(lambda x: np.cumsum(x) * (1 + 1e-5) + (len(x) > 5))
    assert lines[0].startswith("running_sum: wrong in")
    assert lines[1].count(",") == 5  # the first vector of six numbers


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "It returns nothing. Is a `return` missing?"),
        ("text", "Yours is a str, expected an array of numbers"),
        ({1, 2}, "Yours is a set, expected an array of numbers"),
        ([1.0, [2.0]], "Yours is a ragged list, expected an array of numbers"),
        (np.array([None, 1.0]), "Yours is a ndarray, expected an array of numbers"),
        (np.array([1j, 1]), "Yours is complex, expected real numbers"),
        (
            [np.nan, 3],
            "At [0]: yours nan, expected 1. nan comes from an overflow, "
            "0/0 or an unset element",
        ),
        (
            np.array([0, 3]),
            "At [0]: yours 0, expected 1",  # a wrong whole number is not a question of kind
        ),
        ([True, False], "At [1]: yours False, expected 3"),
    ],
    ids=str,
)
def test_wrong_kinds(said, answer, says):
    assert says in said(lambda x: answer)


def test_whole_numbers_for_fractions(said):
    lines = said(lambda x: np.cumsum(x).astype(int))
    assert any("Yours is int64, whole numbers only; expected float" in a for a in lines)


def test_liar_that_equals_everything(said):
    class Liar(np.ndarray):
        def __eq__(self, other):
            return np.ones(self.shape, bool)

        __hash__ = None

    assert "wrong in" in said(lambda x: (0 * x).view(Liar))[0]


def test_changing_the_input_is_told(said):
    assert "Your function changes its argument x. Work on x.copy()." in said(in_place)


def test_several_results(said):
    lines = said(lambda dy, x: (3 * dy, 2 * dy.sum()), "slope_backward")
    assert "Result 2 of 2: Yours" in lines[2]
    lines = said(lambda dy, x: (3 * dy[1:], dy.sum()), "slope_backward")
    assert lines[2] == "Result 1 of 2: Your shape (0,), expected (1,)"
    lines = said(lambda dy, x: 3 * dy[:1], "slope_backward")
    assert lines[2] == "It returns 1 result, expected 2"


def test_slow(said):
    def squares(x):
        total = 0.0
        for element in x:
            total += element * element
        return total

    assert said(squares, "sum_squares")[0] == "sum_squares: correct but slow"
    fast = named("sum_squares", njit(squares))
    assert check(fast) is fast


def test_fast_because_it_stops_working(said):
    calls = []

    def lazy(x):
        calls.append(1)
        return np.square(x).sum() if len(calls) <= 29 else 0.0

    assert said(lazy, "sum_squares")[0] == "sum_squares: wrong on large arrays"


def test_error_on_large_arrays(said):
    def fails(x):
        if len(x) > 30:
            raise MemoryError("too large")
        return np.square(x).sum()

    lines = said(fails, "sum_squares")
    assert lines[0] == "sum_squares: stops with an error on large arrays"
    assert "MemoryError: too large" in lines


def test_fast_but_wrong_on_large_arrays(said):
    lazy = lambda x: 0.0 if len(x) > 30 else np.square(x).sum()  # noqa: E731
    assert said(lazy, "sum_squares")[0] == "sum_squares: wrong on large arrays"


@pytest.mark.parametrize(
    ("answer", "says"),
    [([1, 3], "x sums to 4 and begins 1"), ([], "Your answer cannot be used: IndexError")],
)
def test_question_with_many_right_answers(said, answer, says):
    assert says in said(lambda: answer, "breaker")[1]
    found = named("breaker", lambda: [1, -5])
    assert check(found) is found


def test_prints_and_warnings_are_not_shown(capsys):
    def noisy(x):
        print("here", x)
        np.log(-np.ones(1))
        return np.cumsum(x)

    check(named("running_sum", noisy))
    assert capsys.readouterr().out == "running_sum: passed (59 cases, 3 points)\n"


def test_hints_open_one_at_a_time(capsys):
    for _ in range(3):
        hint(named("running_sum", stub))
    assert capsys.readouterr().out.splitlines() == [
        "Hint 1 of 2: What is y[1] made of?",
        "Hint 2 of 2: y[k] = y[k-1] + x[k]",
        "Hint 2 of 2: y[k] = y[k-1] + x[k]",
    ]


def test_progress(capsys):
    check(named("running_sum", right))
    check(named("breaker", lambda: [1, -5]))
    capsys.readouterr()
    progress("00_sample")
    assert capsys.readouterr().out.splitlines() == [
        "[##########..........] 2 of 4 questions, 4 of 10 points",
        "Still open: slope_backward, sum_squares",
    ]
    check(named("running_sum", stub))  # no longer right
    capsys.readouterr()
    progress("00_sample")
    assert "1 of 4 questions, 1 of 10 points" in capsys.readouterr().out


@pytest.mark.parametrize("value", [3.0, np.ones(3), None])
def test_result_instead_of_function(value):
    with pytest.raises(TypeError, match="takes the function itself"):
        check(value)


def test_unknown_function():
    with pytest.raises(ValueError, match="did you mean 'running_sum'"):
        check(named("runing_sum", lambda x: x))
    with pytest.raises(ValueError, match="keep the name"):
        check(named("xyzzy", lambda x: x))
    with pytest.raises(ValueError, match="there is no exercise '99'"):
        progress("99")


def test_layout_reaches_the_function():
    """Arrays that are not contiguous are copied so."""
    seen = set()

    def look(x):
        seen.add(x.flags.contiguous)
        return np.cumsum(x)

    check(named("running_sum", look))
    assert seen == {True, False}


def test_float32_has_its_own_tolerance():
    """A sum of 10 000 numbers in float32 is right for float32, imprecise for float64."""

    def cases(rng):
        yield (rng.random(10_000).astype(np.float32),)

    question = Question("running_sum", 1, oracle, cases, (Mutant("No.", oracle),))
    single = list(cases(np.random.default_rng(0)))
    double = [(x.astype(np.float64),) for (x,) in single]

    def in_float32(arguments):
        return np.cumsum(arguments[0], dtype=np.float32)

    assert judge(question, single, in_float32).state == "passed"
    assert judge(question, double, in_float32).state == "imprecise"


def test_reports_lines_fit_a_screen(said):
    lines = said(lambda x: 1 / 0 if len(x) > 20 else np.cumsum(x))
    assert max(map(len, lines)) <= 100


class Stored(np.ndarray):
    """An array of a student's own kind."""


def noisy(x):
    print("x" * 1000)
    warnings.warn("careful", stacklevel=1)
    return np.cumsum(x)


def keeps_what_it_is_given(x, kept=[]):  # noqa: B006
    kept.append(x)
    return np.cumsum(kept[-1])


ODD = {
    "prints and warns": (noisy, "passed"),
    "keeps its argument": (keeps_what_it_is_given, "passed"),
    "list of arrays": (lambda x: [np.cumsum(x)[k] for k in range(len(x))], "passed"),
    "list of 0-d arrays": (lambda x: [np.array(v) for v in np.cumsum(x)], "passed"),
    "tuple": (lambda x: tuple(np.cumsum(x)), "passed"),
    "view of its argument": (lambda x: np.cumsum(x[::-1])[::-1], "wrong"),
    "argument": (lambda x: x, "wrong"),
    "view": (lambda x: x[:], "wrong"),
    "masked array": (lambda x: np.ma.masked_less(np.cumsum(x), -99), "passed"),
    "own kind of array": (lambda x: np.cumsum(x).view(Stored), "passed"),
    "matrix": (lambda x: np.cumsum(x)[None].view(np.matrix), "shape"),
    "row": (lambda x: np.cumsum(x)[None], "shape"),
    "0-d array": (lambda x: np.array(x.sum()), "shape"),
    "number": (lambda x: float(x.sum()), "shape"),
    "ints": (lambda x: np.cumsum(x).astype(int), "wrong"),
    "complex": (lambda x: np.cumsum(x).astype(complex), "wrong"),
    "float32": (lambda x: np.cumsum(x, dtype=np.float32), "imprecise"),
    "objects": (lambda x: np.cumsum(x).astype(object), "wrong"),
    "text": (lambda x: [str(v) for v in np.cumsum(x)], "wrong"),
    "dict": (lambda x: dict(enumerate(np.cumsum(x))), "wrong"),
    "generator": (lambda x: (v for v in np.cumsum(x)), "wrong"),
    "function": (lambda x: np.cumsum, "wrong"),
    "in place": (lambda x: np.cumsum(x, out=x), "wrong"),
    "sorted in place": (lambda x: (x.sort(), np.cumsum(x))[1], "wrong"),
    "raises": (lambda x: [][0], "error"),
    "its own error": (lambda x: exec("raise type('E', (Exception,), {})"), "error"),
}


@pytest.mark.parametrize(("function", "state"), ODD.values(), ids=ODD)
def test_odd_answers_get_the_right_verdict(function, state):
    question = find("running_sum")[1]
    cases = list(question.cases(public_rng(question)))
    verdict = judge(question, cases, functools.partial(call, function))
    assert verdict.state == state
    assert verdict.asked == 59
    if state == "passed":
        assert (verdict.right, verdict.fraction, verdict.picture) == (59, 1.0, "")
    elif state != "imprecise":  # a sum of float32 is right for the float32 cases
        assert verdict.fraction == 0


def test_error_that_cannot_be_printed(said):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no")

    def raises(x):
        raise Mute

    assert said(raises)[2].startswith("Mute: ")


@pytest.mark.parametrize(
    ("longest", "right", "fraction"),
    [(10, 19, 0), (15, 29, 0), (16, 31, 0.025), (27, 53, 0.398)],
)
def test_points_for_a_part(longest, right, fraction):
    """Right up to some length: two cases of each, and the first."""
    question = find("running_sum")[1]
    cases = list(question.cases(public_rng(question)))

    def stops(arguments):
        (x,) = arguments
        return np.cumsum(x) if len(x) < longest else 0 * x

    verdict = judge(question, cases, stops)
    assert (verdict.right, verdict.asked) == (right, 59)
    assert verdict.fraction == pytest.approx(fraction, abs=5e-4)


def test_slow_is_worth_half():
    question = find("sum_squares")[1]
    cases = list(question.cases(public_rng(question)))
    verdict = judge(
        question,
        cases,
        lambda arguments: question.oracle(*arguments),
        lambda arguments: (99.0, question.oracle(*arguments)),
    )
    assert (verdict.state, verdict.fraction, verdict.right) == ("slow", 0.5, 29)


def test_whole_array_numpy_is_fast_enough(capsys):
    """How an answer is fast is not asked."""
    fast = named("sum_squares", lambda x: (x * x).sum())
    assert check(fast) is fast


@pytest.mark.parametrize("name", ["autograde", "validate"])
def test_nbgrader_sees_an_error(monkeypatch, capsys, name):
    monkeypatch.setenv("NBGRADER_EXECUTION", name)
    with pytest.raises(AssertionError, match="You leave out"):
        check(named("running_sum", lambda x: np.cumsum(x) - x))
    assert "You leave out" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="not attempted"):
        check(named("running_sum", stub))
    right = named("running_sum", np.cumsum)
    assert check(right) is right


NOTEBOOK = """
import numpy as np
from course.exercises import spec
spec.MODULES["00_sample"] = "tests.exercises.sample"
from course import check
def running_sum(x):
    return {}
running_sum = check(running_sum)
"""


@pytest.mark.parametrize("answer", ["np.cumsum(x) - x", "np.cumsum(x)", "1 / 0", "None"])
def test_a_notebook_shows_the_picture_of_a_wrong_number(answer, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    cell = new_code_cell(NOTEBOOK.format(answer))
    NotebookClient(new_notebook(cells=[cell]), kernel_name="python3").execute()
    pictures = [output for output in cell.outputs if output.output_type == "display_data"]
    assert cell.outputs[0].text.startswith("running_sum: ")
    assert len(pictures) == (answer == "np.cumsum(x) - x")
    for picture in pictures:
        assert "yours, 2 numbers, framed: column 0: 0" in picture.data["text/plain"]
        html = ElementTree.fromstring(picture.data["text/html"].replace(">", "/>"))
        assert "expected, 2 numbers, framed: column 0: 1" in html.attrib["alt"]
        svg = base64.b64decode(html.attrib["src"].partition(",")[2]).decode()
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"


def test_no_picture_outside_of_a_notebook(said):
    assert not any("picture" in line for line in said(lambda x: 2 * np.cumsum(x)))


HOSTILE = [
    np.nan,
    np.ones((3000, 3000)),
    [[np.ones((2, 2))], [1.0]],
    (np.ones((3000, 3000)), np.ones((1500, 1500))),
    (np.ones((100, 100)), np.ones((50, 50))),
    (np.full((2, 2), np.nan), np.ones((1, 2))),
    (np.zeros((0, 0)), np.zeros((0, 0))),
    (np.ones((0, 5)), np.ones(0, int)),
    (np.array([[1j]]), np.array([0])),
    (["a" * 10**6], ["b"]),
    ([10**400], 10**400),
    ([1.0], [[1.0]]),
    ([[1e308, 1e308]], [[1e308, -1e308]]),
    (np.ones((2, 3)), np.array([2**63, 0], np.uint64)),
    ({"a": 1}, {1, 2}),
    "text",
    object(),
    10**5000,
    [[]],
    [(), ()],
]


@pytest.mark.parametrize("name", ["unmask_flip", "break_leaky", "below_chance"])
@pytest.mark.parametrize("k", range(len(HOSTILE)))
def test_judges_say_something_about_anything_and_soon(name, k):
    question = find(name)[1]
    cases = list(question.cases(public_rng(question)))[:1]
    start = thread_time()
    verdict = judge(question, cases, lambda arguments: HOSTILE[k])
    assert thread_time() - start < 2
    assert verdict.state in ("wrong", "passed")
    assert all(len(line) <= 215 for line in verdict.lines)
