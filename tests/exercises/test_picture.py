"""Pictures of wrong answers: what they show, and that no answer breaks them."""

from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.exercises.call import call
from course.exercises.convolution import BY_HAND, CORR2D, FILTER_BANK
from course.exercises.picture import EXPECTED, LIMIT, WINDOW, YOURS, Panel, comparison, draw
from course.exercises.spec import MODULES, Mutant, Question, questions
from course.exercises.verdict import judge, public_rng

SVG = "{http://www.w3.org/2000/svg}"
ALLOWED = {SVG + name for name in ("svg", "title", "rect", "path", "g", "text")}


def texts(svg):
    """Return all words of a picture; it must be well-formed and hold nothing dangerous."""
    root = ElementTree.fromstring(svg)
    assert {part.tag for part in root.iter()} <= ALLOWED
    assert not any(
        name.startswith("on") or "href" in name or name == "style"
        for part in root.iter()
        for name in part.attrib
    )
    assert len(svg.encode()) <= LIMIT
    return [part.text for part in root.iter(SVG + "text")]


def frames(svg):
    """Return colour -> (x, y, width, height) of the frames."""
    found = {}
    for part in ElementTree.fromstring(svg).iter(SVG + "rect"):
        if "stroke" in part.attrib:
            place = tuple(float(part.attrib[k]) for k in ("x", "y", "width", "height"))
            found[part.attrib["stroke"]] = place
    return found


def cell(svg, text):
    """Return the corner of the cell with a number that stands there once."""
    (part,) = (p for p in ElementTree.fromstring(svg).iter(SVG + "text") if p.text == text)
    return float(part.attrib["x"]) + 5, float(part.attrib["y"]) - 15


def test_the_window_and_the_first_wrong_number_are_framed():
    """Stride 2 is ignored: the second window is the first that is wrong."""
    x = np.arange(101.0, 126).reshape(5, 5)
    w = np.array([[1.0, 2.0], [0.0, 3.0]])
    wrong = partial(call, lambda x, w, stride: CORR2D.oracle(x, w)[:2, :2])
    verdict = judge(CORR2D, [(x, w, 2)], wrong)
    svg, found = verdict.picture, frames(verdict.picture)
    left, top, width, height = found[WINDOW]
    right, bottom = cell(svg, "109")  # the last pixel of the window: row 1, column 3
    assert (left + width, top + height) == (right, bottom + 22)
    assert cell(svg, "103")[1] == top
    yours = str(int(CORR2D.oracle(x, w)[0, 1]))
    expected = str(int(CORR2D.oracle(x, w, 2)[0, 1]))
    for colour, number in ((YOURS, yours), (EXPECTED, expected)):
        left, top, width, _ = found[colour]
        assert (left + width, top) in [
            (float(p.attrib["x"]) + 5, float(p.attrib["y"]) - 15)
            for p in ElementTree.fromstring(svg).iter(SVG + "text")
            if p.text == number
        ]


def test_the_title_says_what_is_seen():
    svg = comparison(np.array([1.0, 5.0]), np.array([1.0, 2.0]), (1,))
    title = ElementTree.fromstring(svg).find(SVG + "title").text
    assert title == (
        "yours, 2 numbers, framed: column 1: 5; expected, 2 numbers, framed: column 1: 2"
    )


def test_a_frame_of_many_numbers_is_said_in_one_phrase():
    (title,) = ElementTree.fromstring(
        draw((Panel("x", np.arange(9).reshape(3, 3), (1, 0), (2, 2)),))
    ).iter(SVG + "title")
    assert title.text == "x, 3×3, framed: rows 1 to 2, columns 0 to 1: 3 4 6 7"


def test_close_numbers_have_more_digits():
    svg = comparison(np.array([1.00001]), np.array([1.0]), (0,))
    assert "1.00001" in texts(svg)


def test_large_arrays_are_cropped_around_the_frame():
    big = np.arange(10_000).reshape(100, 100)
    shown = texts(draw((Panel("x", big, (50, 50), (3, 3)),)))
    assert len(shown) == 1 + 8 + 8 + 64
    assert {"5050", "5252", "…48", "55…"} <= set(shown)
    shown = texts(draw((Panel("x", big, (97, 0), (3, 3)),)))
    assert {"9700", "9902", "99", "7…"} <= set(shown)


def test_a_plane_of_many_is_shown():
    filters = np.arange(54).reshape(6, 3, 3)
    shown = texts(draw((Panel("w", filters, (3, 1, 0)),)))
    assert "w[3], 6×3×3" in shown and "30" in shown and "0" in shown
    assert "53" not in shown


def test_a_frame_beyond_the_edge_is_cut_off():
    svg = draw((Panel("x", np.ones((2, 2)), (-1, -1), (2, 2)),))
    (place,) = frames(svg).values()
    assert place[2:] == (26, 22)
    assert not frames(draw((Panel("x", np.ones((2, 2)), (5, 5), (2, 2)),)))


def test_the_shapes_are_shown_where_they_differ():
    shown = texts(comparison(np.ones((2, 3)), np.ones((3, 2)), None))
    assert "yours, 2×3" in shown and "expected, 3×2" in shown
    assert "yours, 0×3" in texts(comparison(np.ones((0, 3)), np.ones((3, 2)), None))
    assert "yours" in texts(comparison(1.0, np.ones((3, 2)), None))


class Evil:
    def __array__(self, *arguments, **keywords):
        raise RuntimeError("no")

    def __repr__(self):
        raise RuntimeError("no")


HOSTILE = {
    "nan": np.nan,
    "huge": np.array([[1e300, -1e-300], [np.inf, -np.inf]]),
    "complex": np.array([1 + 1e300j]),
    "whole": np.array([[2**63]], np.uint64),
    "long double": np.array([[np.longdouble("1e400")]]),
    "half": np.array([[1.0]], np.float16),
    "bool": np.array([[True]]),
    "int": 10**400,
    "very long int": 10**4400,
    "text": "<script>alert(1)</script>",
    "ragged": [[1.0], [2.0, 3.0]],
    "objects": np.array([[None, 1.0]]),
    "object": object(),
    "evil": Evil(),
    "list of evil": [Evil()],
    "dates": np.array(["2026-01-01"], "M8[D]"),
    "structure": np.zeros(3, [("<b>", "f8")]),
    "many axes": np.zeros((1,) * 30),
    "no numbers": np.zeros((0, 3)),
    "million": np.random.default_rng(0).normal(size=(1000, 1000)),
    "vector": np.ones(1_000_000),
    "masked": np.ma.masked_array([[1.0]], [[True]]),
    "matrix": np.ones((1, 1)).view(np.matrix),
    "dict": {"<b>": 1},
    "type": type("<script>", (), {})(),
    "nothing": None,
    "generator": (k for k in range(3)),
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "expected",
    [
        np.ones((1, 1)),
        3.0,
        (np.ones(1), np.ones(1)),
        {"a": 1.0},
        "text",
        None,
        [None],
        np.ones((2, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_hostile_answers_break_nothing(value, expected):

    question = Question(
        "f",
        1,
        lambda x: expected,
        lambda rng: iter([(1,)]),
        (Mutant("No.", lambda x: expected),),
    )
    verdict = judge(question, [(np.ones(2),)], lambda arguments: value)
    assert verdict.state in ("passed", "wrong", "shape")
    assert all(len(line) <= 250 for line in verdict.lines)
    if verdict.picture:
        texts(verdict.picture)
    if not isinstance(expected, dict | str | tuple | list | None):
        svg = comparison(value, np.asarray(expected), None)
        assert svg == "" or texts(svg)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(width=64, allow_nan=True), min_size=1, max_size=12),
        min_size=1,
        max_size=12,
    ).filter(lambda rows: len({len(row) for row in rows}) == 1),
    st.data(),
)
def test_any_table_can_be_drawn(rows, data):
    table = np.array(rows)
    index = tuple(data.draw(st.integers(0, n - 1)) for n in table.shape)
    svg = comparison(table, -table, index, (Panel("a < b & c", table, index, (3, 3)),) * 3)
    assert (
        any(text.startswith("a < b & c") for text in texts(svg)) or len(svg) > LIMIT - 6000
    )


def test_panels_give_way_when_the_picture_is_too_large():
    wide = -np.random.default_rng(0).random((8, 8)) * 1e-300
    svg = comparison(wide, wide + 1, (0, 0), (Panel("x", wide),) * 9)
    assert len(texts(svg)) > 2 * 64


def test_every_question_shows_a_picture_of_a_wrong_number():

    for question in (q for notebook in MODULES for q in questions(notebook)):
        if question.judge:
            continue
        cases = list(question.cases(public_rng(question)))[:3]
        shown = [
            judge(question, cases, partial(call, mutant.run)).picture
            for mutant in question.mutants
        ]
        assert any(YOURS in svg for svg in shown), question.name
        if question.window and question.name != "filter_bank":  # which has words only
            assert any(WINDOW in svg for svg in shown), question.name


@pytest.mark.parametrize("question", [BY_HAND, FILTER_BANK], ids=lambda q: q.name)
def test_the_only_answer_to_a_question_is_not_given_away(question):
    for mutant in question.mutants:
        verdict = judge(question, [()], partial(call, mutant.run))
        assert verdict.picture == "" or "yours" in verdict.picture
        assert "expected" not in verdict.picture
