"""A box seen from the grader: whose fault an end is, and that nothing is left behind."""

import os
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from course.exercises.call import Raised
from course.grading import sandbox
from course.grading.box import Box, Lost, NotGraded

BEST = sandbox.choose("auto")


@pytest.fixture
def box():
    made = Box(BEST)
    yield made
    made.close()


def load(box, source, name="f"):
    return box.ask(60, do="load", name=name, cells=[("answer.py", source)])


def test_an_answer_is_called_and_timed(box):
    assert (
        load(box, "import time\ndef f(x):\n    time.sleep(0.2)\n    return 2 * x") is None
    )
    for verb in ("call", "time"):
        np.testing.assert_array_equal(box.ask(60, do=verb, arguments=(np.ones(3),)), 2)
        assert box.took >= 0.2
    assert box.silent


def test_an_error_has_its_line_though_there_is_no_file(box):
    load(box, "def f(x):\n    y = x\n    return y / 0")
    found = box.ask(60, do="call", arguments=(1,))
    assert found == Raised("ZeroDivisionError", "division by zero", 3, "return y / 0")


def test_what_ends_before_any_answer_is_our_own_trouble(box):
    box.process.kill()
    box.process.wait()
    with pytest.raises(NotGraded, match="before it had any answer"):
        load(box, "import numpy", name="")


def test_what_ends_later_is_the_students(box):
    load(box, "def f():\n    import os\n    os._exit(3)")
    with pytest.raises(Lost, match="exit code 3") as caught:
        box.ask(60, do="call", arguments=())
    assert caught.value.state == "crash"


def test_a_loop_ends_at_its_time(box):
    load(box, "def f():\n    while True: pass")
    with pytest.raises(Lost) as caught:
        box.ask(0.3, do="call", arguments=())
    assert caught.value.state == "time limit"


def test_a_large_reply_is_refused_by_the_worker_or_not_read(box):
    load(box, "import numpy as np\ndef f(n):\n    return np.zeros(n)")
    assert box.ask(60, 1 << 20, do="call", arguments=(1000,)).size == 1000
    found = box.ask(60, 1 << 20, do="call", arguments=(1 << 20,))
    assert isinstance(found, Raised) and "too large" in found.says
    flood = "import os\ndef f():\n    os.write(4, (1 << 30).to_bytes(4, 'little') * 2)\n"
    load(box, flood + "    while True: os.write(4, bytes(1 << 20))")
    with pytest.raises(Lost, match="more than enough"):
        box.ask(60, do="call", arguments=())


def test_a_reply_before_the_question_is_seen(box):
    late = (
        "import os, threading, time\ndef f():\n    threading.Timer(0.2, lambda: os.write("
    )
    load(box, late + "4, b'x')).start()\n    return 1")
    assert box.ask(60, do="call", arguments=()) == 1
    threading.Event().wait(1)
    assert not box.silent
    with pytest.raises(Lost, match="before it was asked"):
        box.ask(60, do="call", arguments=())


def test_what_the_set_up_cells_import_is_there_and_says_so_when_called(box):
    cells = [
        ("setup.py", "import sklearn.datasets as d\nfrom course.viz import mlp\nd.x.y"),
        ("answer.py", "def f():\n    return mlp.draw(1)"),
    ]
    assert box.ask(60, do="load", name="f", cells=cells) is None
    found = box.ask(60, do="call", arguments=())
    assert "draw is not there when this question is graded: write it" in found.says


def test_magic_is_left_out_and_a_cell_of_magic_is_named(box):
    magic = (
        "%matplotlib inline\nx = !ls\nget_ipython().system('ls')\nlen?\ndef f(): return x"
    )
    assert load(box, magic) is None
    assert "all of it is magic" in load(box, "%%bash\necho 'x").says


def test_nothing_is_left_behind():
    Box(BEST).close()  # what is made once
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    box = Box(BEST)
    assert load(box, "def f():\n    while True: pass") is None
    inner = psutil.Process(box.process.pid).children(recursive=True)
    children = [box.process.pid, *(process.pid for process in inner)]
    with pytest.raises(Lost):
        box.ask(0.2, do="call", arguments=())
    box.close()
    for _ in range(100):
        if not any(map(psutil.pid_exists, children)):
            break
        threading.Event().wait(0.05)
    assert not any(map(psutil.pid_exists, children))
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_broken_image_is_our_own_trouble():
    made = sandbox.image(("course.shapes",))
    Path(made.folder, "course/grading/worker.py").unlink()
    with pytest.raises(NotGraded, match="before it had any answer"):
        Box("none", ("course.shapes",))
