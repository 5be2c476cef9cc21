"""`course grade`, with real answers, wrong ones, and some that want to do harm."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from course.grading.grades import ISOLATION
from course.grading.sandbox import choose
from tests.grading.conftest import FAST, RIGHT, stub

ROOT = Path(__file__).parents[2]
OTHERS = {"slope_backward": 2, "breaker": 1, "sum_squares": 0}  # the last is missing


def test_solution_has_full_marks(submit):
    graded = submit(FAST)
    assert graded.code == 0
    assert graded.points == {"running_sum": 3, **OTHERS, "sum_squares": 4}
    assert "total            10/10" in graded.table
    assert ISOLATION[choose("auto")] in graded.table


def test_untouched_exercise_has_none(submit):
    graded = submit({name: stub(source) for name, source in (RIGHT | FAST).items()})
    assert graded.code == 0
    assert graded.total == 0
    assert set(graded.states.values()) == {"not attempted"}


def test_wrong_answers_get_their_sentences(submit):
    graded = submit(
        {
            "running_sum": "def running_sum(x):\n    return np.cumsum(x) - x",
            "slope_backward": "def slope_backward(dy, x):\n    return 3 * dy, dy.mean()",
            "breaker": "def breaker():\n    return [1, 2]",
            "sum_squares": FAST["sum_squares"].replace("@njit\n", ""),
        }
    )
    assert graded.code == 0
    assert graded.points["sum_squares"] == graded.total == 2  # right, but slow: half
    assert "You leave out x[k] itself." in graded.table
    assert "You divide by the length." in graded.table
    assert "x sums to 3 and begins 1" in graded.table
    assert "at least 5 times as fast" in graded.table


HARM = {
    "loop": ("def running_sum(x):\n    while True:\n        pass", "time limit"),
    "loop at the top": ("while True:\n    pass\ndef running_sum(x): ...", "time limit"),
    "loop that catches everything": (
        "def running_sum(x):\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass",
        "time limit",
    ),
    "sys.exit": ("import sys\ndef running_sum(x):\n    sys.exit(0)", "error"),
    "os._exit": ("import os\ndef running_sum(x):\n    os._exit(0)", "crash"),
    "os._exit at the top": ("import os\nos._exit(0)\ndef running_sum(x): ...", "crash"),
    "signal": (
        "import os\ndef running_sum(x):\n    os.kill(os.getpid(), 9)",
        "crash",
    ),
    "bad pointer": (
        "import faulthandler\ndef running_sum(x):\n    faulthandler._sigsegv()",
        "crash",
    ),
    "memory": (
        "def running_sum(x):\n    return np.ones(1 << 40)",
        "error",
    ),
    "deep recursion": ("def running_sum(x):\n    return running_sum(x)", "error"),
    "large answer": ("def running_sum(x):\n    return np.zeros(20_000_000)", "error"),
    "syntax": ("def running_sum(x)\n    return 1", "error"),
    "no function": ("def running_sums(x):\n    return 1", "error"),
    "not a function": ("running_sum = 3", "error"),
    "error at the top": ("1 / 0\ndef running_sum(x):\n    return x", "error"),
    "interrupt": ("def running_sum(x):\n    raise KeyboardInterrupt", "error"),
    "half a character": ("def running_sum(x):\n    return chr(0xD800)", "wrong"),
    "object": ("def running_sum(x):\n    return object()", "wrong"),
    "nothing": ("def running_sum(x):\n    x.cumsum()", "wrong"),
    "text": ("def running_sum(x):\n    return '\\x1b[31m<script>\\u202e'", "wrong"),
    "deep list": (
        "def running_sum(x):\n    y = []\n    for k in range(90): y = [y]\n    return y",
        "error",
    ),
    "oracle": (
        "from course.exercises.spec import find\n"
        "def running_sum(x):\n    return find('running_sum')[1].oracle(x)",
        "error",
    ),
}


@pytest.mark.parametrize(("source", "state"), HARM.values(), ids=HARM)
def test_harm_costs_only_its_question(submit, source, state):
    graded = submit({"running_sum": source}, seconds=3 if state == "time limit" else 20)
    assert graded.code == 0
    assert graded.states["running_sum"] == state
    assert graded.points == {"running_sum": 0, **OTHERS}


FRAMES = {
    "noise": "b'x' * 1000",
    "endless": "b'\\xff' * 64",
    "half": "b'\\x10\\0\\0\\0\\0\\0\\0\\0{'",
    "other reply": (
        "(lambda h: len(h).to_bytes(4, 'little') + b'\\0' * 4 + h)(b'[\"d\", [[\"id\", "
        '["v", ""]], ["outcome", ["v", "returned"]], ["value", ["v", 1]]]]\')'
    ),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_forged_replies_cost_only_their_question(submit, frame):
    source = (
        "import os\n"
        "def running_sum(x):\n"
        "    for pipe in range(3, 20):\n"
        "        try:\n"
        f"            os.write(pipe, {frame})\n"
        "        except OSError:\n"
        "            pass\n"
        "    return np.cumsum(x)\n"
    )
    graded = submit({"running_sum": source}, seconds=3)
    assert graded.points == {"running_sum": 0, **OTHERS}
    assert graded.states["running_sum"] in ("crash", "time limit")


@pytest.mark.parametrize(
    "noise",
    [
        "print('x' * 10_000_000)",
        "for _ in range(100_000): print('passed')",
        "import os, sys; os.write(1, b'x' * 1_000_000); sys.__stderr__.write('x' * 10**6)",
        "import warnings; warnings.warn('careful')",
    ],
)
def test_noise_costs_nothing(submit, noise):
    source = f"{noise}\ndef running_sum(x):\n    print('x' * 1000)\n    return np.cumsum(x)"
    assert submit({"running_sum": source}).points["running_sum"] == 3


def test_magic_is_left_out(submit):
    source = "%matplotlib inline\n!ls\n" + RIGHT["running_sum"] + "\n%timeit np.ones(3)"
    assert submit({"running_sum": source}).total == 6


def test_answer_may_use_what_other_cells_define(submit):
    use = "def slope_backward(dy, x):\n    return 3 * dy, {}(dy)[-1]"
    assert submit({"slope_backward": use.format("running_sum")}).total == 6

    def helper(made):
        made.cells[1].source += "\ndef helper(x):\n    return np.cumsum(x)"

    assert submit({"slope_backward": use.format("helper")}, helper).total == 6
    graded = submit({"slope_backward": use.format("helper")})
    assert graded.points["slope_backward"] == 0
    assert "No cell of yours gives it a value" in graded.says["slope_backward"]


def test_answer_that_uses_an_unwritten_one(submit):
    use = "def slope_backward(dy, x):\n    return 3 * dy, running_sum(dy)[-1]"
    graded = submit({"running_sum": stub(RIGHT["running_sum"]), "slope_backward": use})
    assert graded.states["slope_backward"] == "error"
    assert "not written yet" in graded.says["slope_backward"]


def test_cached_function_has_a_place(submit):
    source = FAST["sum_squares"].replace("@njit", "@njit(cache=True)")
    assert submit({"sum_squares": source}).total == 10


def wrong_sum(made):
    made.cells[2].source = "def running_sum(x):\n    return x"


def test_changed_checks_and_setup_change_nothing(submit):
    def forge(made):
        wrong_sum(made)
        made.cells[1].source = "def check(f):\n    print('passed')\n    return f"
        made.cells[3].source = "import os; os._exit(1)"

    assert submit(change=forge).points == {"running_sum": 0, **OTHERS}


def test_two_answers_are_none(submit):
    def twice(made):
        made.cells.append({**made.cells[2], "source": "def running_sum(x):\n    return x"})

    graded = submit(change=twice)
    assert graded.states["running_sum"] == "ambiguous"
    assert graded.points == {"running_sum": 0, **OTHERS}


def test_order_of_the_cells_does_not_count(submit):
    assert submit(change=lambda made: made.cells.reverse()).total == 6


def test_answer_without_its_id(submit):
    def strip(made):
        for cell in made.cells:
            cell.pop("id")
        made.cells[4].metadata["nbgrader"] = {"grade_id": "answer-slope_backward"}

    graded = submit(change=strip)
    assert graded.total == 6
    assert "(cell found by its function)" in graded.table
    assert "its grade_id" not in graded.table  # nothing unusual


def test_two_functions_without_ids_are_none(submit):
    def strip(made):
        made.cells.append({**made.cells[2], "source": "def running_sum(x):\n    return x"})
        for cell in made.cells:
            cell.pop("id", None)

    assert submit(change=strip).states["running_sum"] == "ambiguous"


def test_missing_answer(submit):
    assert submit(change=lambda made: made.cells.pop(2)).states["running_sum"] == "missing"


def test_strange_cells(submit):
    def strange(made):
        made.cells += [
            3,
            {"cell_type": "code"},
            {"cell_type": "code", "source": [1, None], "metadata": [], "id": {}},
            {"cell_type": "code", "source": 5, "metadata": {"nbgrader": 3, "tags": 3}},
        ]

    assert submit(change=strange).total == 6


def test_every_notebook_is_asked_something_else(submit, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"0123456789abcdef")
    wrong = {"running_sum": "def running_sum(x):\n    return np.cumsum(x) + (len(x) == 7)"}

    def says(secret, comment=""):
        source = {"running_sum": wrong["running_sum"] + comment}
        graded = submit(source, secret=secret)
        assert "wrong in" in graded.says["running_sum"]
        return graded.says["running_sum"], graded.table

    (first, table), (again, _) = says(None), says(None)
    assert first == again
    assert "Public cases" in table
    assert says(None, "  # other bytes")[0] != first
    secretly, table = says(secret)
    assert secretly != first
    assert "Public cases" not in table


def test_reports(submit):
    source = (
        "import os\ndef running_sum(x):\n"
        "    raise ValueError('<b>&\\x00\\x1b[31m\\u202e]]>' + os.getcwd())"
    )
    name = "Zoë & 数学.ipynb"
    graded = submit({"running_sum": source}, name=name)
    assert graded.total == 3
    suite = ElementTree.parse(graded.folder / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("4", "2")
    said = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert said["isolation"] == ISOLATION[choose("auto")]
    case = suite.find("testcase")
    assert case.get("classname") == name
    assert "<b>&" in case[0].text
    assert "ValueError: <b>&" in graded.table  # the table says what is wrong, not the case
    for file in ("results.json", "junit.xml"):
        text = (graded.folder / file).read_text("utf-8")
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "course-" not in text  # the folder of the child process
        assert "/tmp" not in text


def test_regrading_writes_the_same_bytes(submit):
    first = submit()
    bytes_of = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    files = {"submission.json", "results.json", "junit.xml", "student.html"}
    assert bytes_of.keys() == files | {"graded"}
    shutil.rmtree(first.folder)  # else nothing is graded again
    again = submit()
    assert bytes_of == {path.name: path.read_bytes() for path in again.folder.iterdir()}


WRONG = {
    "03_scores_to_loss": (
        "cross_entropy_mean",
        "def cross_entropy_mean(scores, labels):\n"
        "    s = scores - scores.max(axis=1, keepdims=True)\n"
        "    log_p = s - np.log(np.exp(s).sum(axis=1, keepdims=True))\n"
        "    return -log_p[np.arange(len(labels)), labels].sum()",
        "You return the sum over pictures.",
    ),
    "07_mlp": (
        "elu",
        "def elu(z, alpha):\n    return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))",
        "alpha",
    ),
    "09_convolution": (
        "corr2d",
        "def corr2d(x, w, stride=1):\n"
        "    (H, W), (KH, KW) = x.shape, w.shape\n"
        "    y = np.zeros(((H - KH) // stride + 1, (W - KW) // stride + 1))\n"
        "    for i, j in np.ndindex(y.shape):\n"
        "        u, v = i * stride, j * stride\n"
        "        y[i, j] = np.sum(x[u : u + KH, v : v + KW] * w[::-1, ::-1])\n"
        "    return y",
        "You flip the filter",
    ),
}


@pytest.fixture(scope="module")
def course_grades(tmp_path_factory):
    """Grade the course's solutions, exercises and wrong copies, as one would type it."""
    folder = tmp_path_factory.mktemp("course")
    for kind in ("solutions", "exercises"):
        shutil.copytree(ROOT / kind, folder / kind, ignore=shutil.ignore_patterns(".*"))
    (folder / "wrong").mkdir()
    for name, (function, source, _) in WRONG.items():
        made = json.loads((ROOT / "solutions" / f"{name}.ipynb").read_text("utf-8"))
        cell = next(cell for cell in made["cells"] if cell["id"] == f"answer-{function}")
        cell["source"], made["cells"] = source, [cell]
        (folder / "wrong" / f"{name}.ipynb").write_text(json.dumps(made), "utf-8")
    command = [sys.executable, "-m", "course", "grade", folder, "--out", folder / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr

    def results(kind):
        files = sorted((folder / "out" / "submissions" / kind).rglob("results.json"))
        assert len(files) == len(list((folder / kind).glob("*.ipynb"))) >= 3
        return [json.loads(file.read_text("utf-8")) for file in files]

    return results


def test_the_solutions_have_full_marks(course_grades):
    for result in course_grades("solutions"):
        assert result["score"] == result["extra_data"]["max_score"] > 0, result


def test_the_untouched_exercises_have_none(course_grades):
    for result in course_grades("exercises"):
        assert result["score"] == 0
        states = {test["extra_data"]["state"] for test in result["tests"]}
        assert states == {"not attempted"}, result


def test_a_wrong_answer_has_no_points_and_is_named(course_grades):
    for result in course_grades("wrong"):
        function, _, sentence = WRONG[result["extra_data"]["exercise"]]
        answers = {test["name"]: test for test in result["tests"]}
        assert result["score"] == 0
        assert answers[function]["extra_data"]["state"] == "wrong"
        assert sentence in answers[function]["output"]
