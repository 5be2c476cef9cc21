"""Answers are read as data: found by rules, whatever happened to the notebook."""

import gc
import json
import os
import random
import socket
import time
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.exercises.spec import MODULES, questions
from course.grading.extraction import (
    CELL_LIMIT,
    OTHERS_LIMIT,
    SIZE_LIMIT,
    SOURCE_LIMIT,
    Answer,
    Unusable,
    answer,
    cells_of,
    exercise,
    master,
    others,
    read,
)
from course.grading.helpers import needed, plain
from course.grading.runner import grade
from course.grading.wire import encode

ROOT = Path(__file__).parents[2]
NAME = "corr2d"
RIGHT = "def corr2d(x, w, stride=1):\n    return 1"
ANY = Path("handed_in.ipynb")


def load(folder, name="09_convolution"):
    """Return the JSON of a notebook of the course."""
    return json.loads((ROOT / folder / f"{name}.ipynb").read_text("utf-8"))


def cells_in(notebook):
    """Return the cells of a notebook that is given as JSON."""
    return cells_of(json.dumps(notebook).encode())


def code(source, **more):
    """Return a code cell of format 4, as other editors write it."""
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], **more}


@pytest.fixture
def worked():
    """Exercise 9 with an answer to corr2d, and where that stands."""
    notebook = load("exercises")
    at = [cell["id"] for cell in notebook["cells"]].index(f"answer-{NAME}")
    notebook["cells"][at]["source"] = RIGHT
    return notebook, at


# ------------------------------------------------------------------ rules


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("folder", ["exercises", "solutions"])
def test_every_answer_of_the_course_is_found_in_its_own_cell(folder, name):
    notebook = load(folder, name)
    cells = cells_in(notebook)
    assert exercise(ANY, cells) == name
    for question in questions(name):
        found = answer(cells, question.name)
        assert found.rule == "its grade_id"
        assert found.cells[0].id == f"answer-{question.name}"
        assert found.cells[0].untouched == (folder == "exercises")


def without_metadata(cells, at):
    """VS Code and Colab may keep none."""
    for cell in cells:
        cell["metadata"] = {}


def without_ids(cells, at):
    """Format 4.4 has none, and most editors then write none."""
    without_metadata(cells, at)
    for cell in cells:
        del cell["id"]


def with_a_marker(cells, at):
    without_ids(cells, at)
    cells.insert(at, code(RIGHT.replace("return 1", "return 2")))
    cells[at + 1]["source"] = f"# answer-{NAME}\n{RIGHT}"


def as_text(cells, at):
    cells[at]["cell_type"] = "markdown"


def as_raw(cells, at):
    cells[at]["cell_type"] = "raw"


def reversed_order(cells, at):
    cells.reverse()


def copied(cells, at):
    """Copy and paste keeps the metadata, and gives the copy a new id."""
    cells.append({**cells[at], "id": "0a1b2c3d"})


def copied_before_working(cells, at):
    stub = load("exercises")["cells"][at]
    cells.insert(at, {**stub, "id": "0a1b2c3d"})


def split_below_a_helper(cells, at):
    """Both halves have the metadata; only one defines the function."""
    cells.insert(at, {**cells[at], "id": "0a1b2c3d", "source": "def helper():\n    pass"})


def written_below(cells, at):
    """The exercise's cell is still as it was; the work stands in a new one."""
    cells[at]["source"] = load("exercises")["cells"][at]["source"]
    cells.insert(at + 1, code(RIGHT, id="0a1b2c3d"))


def deleted_and_typed_anew(cells, at):
    cells[at] = code(RIGHT, id="0a1b2c3d")


def emptied_and_typed_anew(cells, at):
    cells[at]["source"] = ""
    cells.append(code(RIGHT))


def old_trial_left_above(cells, at):
    cells.insert(at, code(RIGHT.replace("return 1", "return 0"), id="0a1b2c3d"))


def as_lines(cells, at):
    cells[at]["source"] = RIGHT.splitlines(keepends=True)


def with_returns(cells, at):
    cells[at]["source"] = RIGHT.replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (without_metadata, "its id"),
        (without_ids, "its function"),
        (with_a_marker, "its marker"),
        (as_text, "its grade_id"),
        (as_raw, "its grade_id"),
        (reversed_order, "its grade_id"),
        (copied, "its grade_id"),
        (copied_before_working, "its grade_id"),
        (split_below_a_helper, "its grade_id"),
        (written_below, "its function"),
        (deleted_and_typed_anew, "its function"),
        (emptied_and_typed_anew, "its function"),
        (old_trial_left_above, "its grade_id"),
        (as_lines, "its grade_id"),
        (with_returns, "its grade_id"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_answer_is_recovered(worked, change, rule):
    notebook, at = worked
    change(notebook["cells"], at)
    cells = cells_in(notebook)
    found = answer(cells, NAME)
    assert found.source.endswith(RIGHT)
    assert found.rule == rule
    assert exercise(ANY, cells) == "09_convolution"
    for question in questions("09_convolution"):  # the others are where they were
        if question.name != NAME:
            assert answer(cells, question.name).cells[0].untouched


def two_by_grade_id(cells, at):
    cells.append({**cells[at], "id": "0a1b2c3d", "source": RIGHT + "  # better"})


def two_by_function(cells, at):
    without_ids(cells, at)
    cells.append(code(RIGHT + "  # better"))


def two_by_marker(cells, at):
    without_ids(cells, at)
    for sign in "12":
        cells.append(code(f"# answer-{NAME}\n{RIGHT}{sign}"))


def two_below_an_untouched_one(cells, at):
    written_below(cells, at)
    cells.append(code(RIGHT + "  # better"))


@pytest.mark.parametrize(
    "change", [two_by_grade_id, two_by_function, two_by_marker, two_below_an_untouched_one]
)
def test_of_two_answers_none_is_guessed(worked, change):
    notebook, at = worked
    change(notebook["cells"], at)
    found = answer(cells_in(notebook), NAME)
    assert len(found.cells) == 2
    assert found.source is None


def test_deleted_answer_is_missing_and_its_check_is_no_answer(worked):
    notebook, at = worked
    without_ids(notebook["cells"], at)
    del notebook["cells"][at]
    assert f"{NAME} = check({NAME})" in [c["source"][0] for c in notebook["cells"]]
    assert answer(cells_in(notebook), NAME) == Answer((), "")


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("@njit\ndef corr2d(x): ...", True),
        ("async  def  corr2d (x): ...", True),
        ("class corr2d:\n    pass", True),
        ("corr2d = njit(plain_loop)", True),
        ("corr2d=lambda x: x", True),
        ("corr2d = check(corr2d)", False),
        ("corr2d == 3", False),
        ("    def corr2d(x): ...", False),
        ("def corr2d_fast(x): ...", False),
        ("print(corr2d)", False),
        ("# def corr2d(x): ...", False),
    ],
)
def test_what_defines_a_name(source, is_found):
    assert bool(answer(cells_in({"cells": [code(source)]}), NAME).cells) == is_found


@pytest.mark.parametrize(
    ("source", "untouched"),
    [
        (
            'def f(x):\n    """Say."""\n    raise NotImplementedError("your code here")',
            True,
        ),
        ("@njit\ndef f(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()", True),
        ("class F:\n    def g(self):\n        raise NotImplementedError()\n", True),
        ("def f(x):\n    y = x\n    raise NotImplementedError()", False),
        ("def f(x):\n    return x", False),
        ("def f(x): return x", False),
        ("def f(x): return x\n\n\ndef g():\n    raise NotImplementedError()", False),
        ("", False),
    ],
)
def test_untouched(source, untouched):
    assert cells_in({"cells": [code(source)]})[0].untouched == untouched


# ------------------------------------------------------------------ which exercise


def test_name_of_the_file_and_of_the_kernel_do_not_count(worked):
    notebook, _ = worked
    notebook["metadata"] = {"kernelspec": {"name": "ir", "language": "R"}}
    assert exercise(Path("03_scores_to_loss.ipynb"), cells_in(notebook)) == "09_convolution"


def test_two_exercises_in_one_file_are_told_apart_by_its_name():
    made = load("exercises")
    made["cells"] += load("exercises", "07_mlp")["cells"]
    cells = cells_in(made)
    with pytest.raises(
        Unusable, match="07_mlp and 09_convolution; hand in a file for each"
    ):
        exercise(ANY, cells)
    assert exercise(Path("07_mlp-2.ipynb"), cells) == "07_mlp"


def test_a_borrowed_function_is_no_second_exercise(worked):
    notebook, _ = worked
    notebook["cells"].append(code("def elu(z, alpha):\n    return z"))
    assert exercise(ANY, cells_in(notebook)) == "09_convolution"


def test_notebook_without_answers_goes_by_its_name():
    cells = cells_in({"cells": [code("1 + 1")]})
    assert exercise(Path("09_convolution (1).ipynb"), cells) == "09_convolution"
    with pytest.raises(Unusable, match="none of its cells answers a question"):
        exercise(ANY, cells)


def test_older_format_is_read():
    new = nbformat.read(ROOT / "exercises/09_convolution.ipynb", as_version=4)
    old = nbformat.convert(deepcopy(new), 3)
    assert "cells" not in old
    cells = cells_in(old)
    assert exercise(ANY, cells) == "09_convolution"
    for question in questions("09_convolution"):
        assert answer(cells, question.name).cells[0].source == next(
            cell.source for cell in new.cells if cell.id == f"answer-{question.name}"
        )


def test_solution_without_an_answer_is_named(tmp_path):
    broken = load("solutions")
    broken["cells"] = [c for c in broken["cells"] if c["id"] != "answer-corr2d"]
    (tmp_path / "09_convolution.ipynb").write_text(json.dumps(broken), "utf-8")
    with pytest.raises(Unusable, match="the solution lacks cells answer-corr2d"):
        master(tmp_path, "09_convolution")
    with pytest.raises(Unusable, match=r"07_mlp\.ipynb: there is no such file"):
        master(tmp_path, "07_mlp")
    graded = grade(ROOT / "exercises/07_mlp.ipynb", "ann", tmp_path)
    assert graded.status == "retry"  # it is not the student's fault


# ------------------------------------------------------------------ other cells


OTHERS = {
    "a.py": "import numpy as np\nfrom math import *\nscale = 3\nunused = 1 / 0",
    "b.py": "%matplotlib inline\ndef helper(x):\n    return deeper(x) * scale",
    "c.py": "def helper(x:\n    broken",
    "d.py": "for k in range(3):\n    never = k\nprint(1)\ntable = [1, 2]\ntable[0] = 5",
    "e.py": "def deeper(x):\n    return old\nold = 1\nold = 2\nx = 1 / 0",
    "f.py": "%%bash\nold=7",
    "g.py": "answer = check(answer)\nwait = await now()\n",
}


def ran(source):
    """Return the names that an answer finds, after what it needs of OTHERS was run."""
    space = {}
    for part in needed(compile(source, "answer.py", "exec"), OTHERS):
        try:
            exec(part, space)
        except NameError:
            assert "check" in part.co_names
    space.pop("__builtins__", None)
    return space


def test_answer_gets_what_it_needs_of_other_cells_and_no_more():
    space = ran("def answer(x):\n    return helper(x)")
    assert {"helper", "deeper", "scale", "old", "sqrt"} <= space.keys()
    assert not {"np", "table", "unused", "never", "x"} & space.keys()
    assert space["helper"](0) == 6  # of two values the later one
    assert space["helper"].__code__.co_filename == "b.py"
    assert space["helper"].__code__.co_firstlineno == 2


def test_answer_gets_imports_and_changed_tables():
    assert ran("def answer():\n    return np.sum(table)")["table"] == [5, 2]
    assert "np" in ran("from numba import njit\n@njit\ndef answer():\n    return np.pi")


def test_answer_that_calls_itself_is_not_taken_from_its_check():
    assert "answer" not in ran("def answer(n):\n    return answer(n - 1)")


def test_names_of_its_own_are_not_looked_for():
    source = "def answer(x):\n    table = x.old\n    return [scale for scale in table]"
    assert not {"table", "old", "scale"} & ran(source).keys()


def test_magic_leaves_the_lines_where_they_are():
    assert plain("a = 1\n%time b\n  !ls\nc = 2").split("\n")[3] == "c = 2"
    assert plain("x = (7\n% 3)") == "x = (7\n% 3)"  # this is Python


def test_others_are_the_code_that_is_not_the_answer(worked):
    notebook, at = worked
    notebook["cells"].insert(at, code("def helper(): ..."))
    notebook["cells"].append(code("x" * SOURCE_LIMIT * 2))
    notebook["cells"].append(code("x" * (OTHERS_LIMIT - SOURCE_LIMIT)))  # is too much
    notebook["cells"].append(code("last = 1"))
    cells = cells_in(notebook)
    sources = others(cells, answer(cells, NAME))
    assert "def helper(): ..." in sources
    assert sources[-1] == "last = 1"
    assert RIGHT not in sources
    assert not any("# Exercise 9" in source for source in sources)
    assert sum(map(len, sources)) <= OTHERS_LIMIT


def test_the_longest_answer_fits_the_pipe():
    many = [code("\U0001f600" * 8, id=str(k)) for k in range(CELL_LIMIT - 1)]
    long = code("\U0001f600" * 2 * SOURCE_LIMIT, id=f"answer-{NAME}")
    cells = cells_in({"cells": [long, *many]})
    found = answer(cells, NAME)
    assert len(found.source) == SOURCE_LIMIT
    sources = [(f"cell_{k}.py", s) for k, s in enumerate(others(cells, found))]
    assert len(sources) == CELL_LIMIT - 1
    encode({"cells": [("answer.py", found.source)], "others": sources})


# ------------------------------------------------------------------ hostile files


def link(path):
    target = path.with_name("secret.txt")
    target.write_text("{}")
    path.symlink_to(target)


def held_socket(path):
    held = socket.socket(socket.AF_UNIX)
    held.bind(str(path))
    held.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (link, "it is a link"),
        (Path.mkdir, "it is no file|cannot be read"),
        (lambda path: os.mkfifo(path), "it is no file"),
        (held_socket, "cannot be read"),
        (lambda path: os.mknod(path, 0o020600, os.makedev(1, 5)), "it is no file"),
        (lambda path: path.write_bytes(b" " * (SIZE_LIMIT + 1)), "larger than 10 MB"),
        (lambda path: None, "there is no such file"),
    ],
    ids=["link", "folder", "pipe", "socket", "endless device", "large", "nothing"],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_only_files_are_read(tmp_path, make, says):
    path = tmp_path / "a.ipynb"
    try:
        make(path)
    except PermissionError:
        pytest.skip("only root makes devices")
    with pytest.raises(Unusable, match=says):
        read(path)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "JSON is broken"),
        (b"{", "JSON is broken"),
        (b"\xff\xfe", "JSON is broken"),
        (b'{"cells": [\xff]}', "JSON is broken"),
        (b"\0" * 9, "JSON is broken"),
        (b"[" * 8_000_000, "JSON is broken"),
        (b'{"a":' * 1_000_000, "JSON is broken"),
        (b'{"cells": [], "n": ' + b"9" * 1_000_000 + b"}", "JSON is broken"),
        (b"[]", "format 3 or 4"),
        (b"3", "format 3 or 4"),
        (b'{"cells": 3}', "format 3 or 4"),
        (b'{"worksheets": 3}', "format 3 or 4"),
        (
            b'{"cells": [' + b"{}," * 1_000_000 + b"{}]}",
            "1000001 cells; 10000 is the limit",
        ),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_what_is_no_notebook_is_told(raw, says):
    with pytest.raises(Unusable, match=says):
        cells_of(raw)


def test_strange_but_readable_notebooks_are_read():
    def only(raw):
        (cell,) = cells_of(raw)
        return cell.source

    text = '{"cells": [{"cell_type": "code", "source": %s}], "x": [NaN, -Infinity, 1e999]}'
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert only((text % '"é"').encode(encoding)) == "é"
    assert only(text.encode() % b'"\\ud800"') == "\ud800"
    assert only(text.encode() % b'"a\\u0000b"') == "a\0b"
    assert only(text.encode() % b'"a\\r\\nb\\rc"') == "a\nb\nc"
    for source in (b"null", b"3", b"{}", b"[1, [2], null]", b'{"a": "b"}'):
        assert only(text.encode() % source) == ""
    assert only(b'{"cells": [{"source": "a"}], "cells": [{"source": "b"}]}') == "b"
    assert only(b'{"cells": [{"source": "a", "source": "b"}]}') == "b"
    assert [cell.source for cell in cells_of(b'{"cells": [1, null, "a", []]}')] == [""] * 4


WORST = {
    "lists": b'{"cells":[],"a":[' + b"[]," * (SIZE_LIMIT // 3 - 9) + b"[]]}",
    "keys": b'{"a":{' + b",".join(b'"%x":0' % k for k in range(SIZE_LIMIT // 12)) + b"}}",
    "numbers": b'{"cells":[],"a":[' + b"1.5," * (SIZE_LIMIT // 4 - 9) + b"1]}",
    "stubs": json.dumps(
        {"cells": [code("def corr2d():\n    raise NotImplementedError\n" * 20)] * 9000}
    ).encode(),
    "spaces": json.dumps({"cells": [code(" " * 1000 + "=")] * 9000}).encode(),
    "quotes": json.dumps({"cells": [code('"' * 500)] * 9000}).encode(),
    "signs": json.dumps({"cells": [code("#" * 1000)] * 9000}).encode(),
}


@pytest.mark.parametrize("raw", WORST.values(), ids=WORST)
def test_no_file_takes_long(raw):
    assert len(raw) <= SIZE_LIMIT
    gc.freeze()  # what other tests left behind is not searched for garbage in this one
    start = time.process_time()
    with suppress(Unusable):
        cells = cells_of(raw)
        for question in questions(exercise(Path("09_convolution.ipynb"), cells)):
            others(cells, answer(cells, question.name))
    seconds = time.process_time() - start
    gc.unfreeze()
    assert seconds < 6  # measured on a slow core: at most 1.5


VALUES = [
    *(None, True, 0, -1, 1e308, float("nan"), 10**4000, "", "code", "\ud800", "a\0"),
    *("answer-corr2d", f"# answer-{NAME}", RIGHT, "def " * 50, '"""', [], {}, [[[]]]),
    *({"cells": []}, {"grade_id": "answer-corr2d"}, {"tags": ["setup"]}, [{}] * 20),
]
TOKENS = [
    *(b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u", b"\\ud800", b",", b":", b"NaN", b"1e9"),
    *(b"\xff", b"\0", b"\xef\xbb\xbf", b"null", b'"cells":', b'"id": "answer-corr2d"'),
]


def mutated(rng, raw):
    """Return the bytes of a notebook in which a few things are changed at random."""
    if rng.random() < 0.5:
        tree = json.loads(raw)
        for _ in range(rng.randint(1, 4)):
            place = tree
            while True:
                keys = range(len(place)) if isinstance(place, list) else list(place)
                if not keys:
                    break
                key = rng.choice(keys)
                if isinstance(place[key], list | dict) and rng.random() < 0.85:
                    place = place[key]
                    continue
                place[key] = deepcopy(rng.choice([*VALUES, place[rng.choice(keys)]]))
                break
        return json.dumps(tree).encode()
    raw = bytearray(raw)
    for _ in range(rng.randint(1, 6)):
        at, past = rng.randrange(len(raw)), rng.randrange(len(raw))
        match rng.randrange(4):
            case 0:
                raw[at] = rng.randrange(256)
            case 1:
                raw[at:at] = rng.choice(TOKENS)
            case 2:
                del raw[at : at + rng.randint(1, 30)]
            case 3:
                raw[at:at] = raw[past : past + rng.randint(1, 300)]
    return bytes(raw)


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_mutated_notebook_is_read_or_unusable(count):
    rng = random.Random(count)
    bases = []
    for name in MODULES:
        notebook = load("exercises", name)
        notebook["cells"] = notebook["cells"][:9]
        bases.append(json.dumps(notebook).encode())
    usable = 0
    for _ in range(count):
        raw = mutated(rng, rng.choice(bases))
        try:
            cells = cells_of(raw)
            for question in questions(exercise(ANY, cells)):
                found = answer(cells, question.name)
                assert found.source is None or isinstance(found.source, str)
                others(cells, found)
        except Unusable:
            continue
        usable += 1
    assert 0.2 * count < usable < 0.9 * count  # it is read now and then


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["cells", "cell_type", "source", "metadata", "nbgrader", "id"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(JSON | st.fixed_dictionaries({"cells": st.lists(JSON)}))
def test_any_json_is_read_or_unusable(tree):
    with suppress(Unusable):
        cells = cells_of(json.dumps(tree).encode())
        answer(cells, NAME)
        exercise(ANY, cells)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_unusable(raw):
    with suppress(Unusable):
        cells_of(raw)
