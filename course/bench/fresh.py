"""What needs a fresh process: peak memory, and how long the first result takes.

Each figure is measured in a process of its own, started for it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory

import numpy as np

from course.bench.cases import Row
from course.bench.rounds import Clock

BATCH = 64

MEMORY = """
import re, sys
import numpy as np
import {library}
from course.bench.steps import NETS, {way}

def peak():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read())[1]) * 1024

net, shape = NETS[{net!r}]
before = peak()
rng = np.random.default_rng(0)
x, t = rng.standard_normal(({batch}, *shape), np.float32), rng.integers(10, size={batch})
step = {way}(net, x, t)
for _ in range(3):
    step()
print(peak() - before)
"""

FIRST_STEP = {
    "course": """
import numpy as np
from course.losses import softmax_cross_entropy
from course.optimizers import SGD
from course.zoo.lenet5 import lenet5

rng = np.random.default_rng(0)
model = lenet5(rng=rng)
x, t = rng.standard_normal((64, 1, 28, 28), np.float32), rng.integers(10, size=64)
loss, dscores = softmax_cross_entropy(model(x), t)
model.backward(dscores)
SGD(0.01).step(model)
""",
    "pytorch": """
import torch
from torch.nn import Conv2d, CrossEntropyLoss, Flatten, Linear, MaxPool2d, ReLU, Sequential

model = Sequential(
    *(Conv2d(1, 6, 5, padding=2), ReLU(), MaxPool2d(2)),
    *(Conv2d(6, 16, 5), ReLU(), MaxPool2d(2), Flatten()),
    *(Linear(400, 120), ReLU(), Linear(120, 84), ReLU(), Linear(84, 10)),
)
x, t = torch.randn(64, 1, 28, 28), torch.randint(10, (64,))
CrossEntropyLoss()(model(x), t).backward()
torch.optim.SGD(model.parameters(), 0.01).step()
""",
}

LAYER = """
import time
import numpy as np
from course.layers import conv2d_backward, conv2d_forward

x, w = np.ones((2, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
start = time.perf_counter()
conv2d_backward(conv2d_forward(x, w), x, w)
print(time.perf_counter() - start)
"""


WARMUP = """
from course.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["warmup", "--processes", "{}"]))
"""


def run(program: str, threads: int, cache: str | None = None) -> tuple[float, str]:
    """Run the program in a fresh process; return its seconds and what it printed.

    Raises ImportError if it needs what is not there.
    """
    environment = os.environ | {"NUMBA_NUM_THREADS": str(threads)}
    environment |= {"OMP_NUM_THREADS": str(threads)}
    if cache:
        environment["COURSE_CACHE"] = cache
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    spent = time.perf_counter() - start
    if done.returncode:
        raise ImportError(done.stderr.strip().splitlines()[-1])
    return spent, done.stdout


def compared(row: Row, figures: dict[str, Callable[[], float]]) -> Row:
    """Return the row with the figure of each way, and the ratio to ours."""
    for way, figure in figures.items():
        try:
            row.figures[way] = figure()
        except ImportError as error:
            row.not_run[way] = str(error)
    if {"course", "pytorch"} <= row.figures.keys():
        row.ratios["pytorch"] = row.figures["pytorch"] / row.figures["course"]
    return row


def memory(threads: int) -> Iterator[Row]:
    """Yield the peak memory of training steps, above that of the imports."""
    for net in ("LeNet-5", "CIFAR") if sys.platform == "linux" else ():
        programs = {
            way: MEMORY.format(way=f"by_{way}", library=library, net=net, batch=BATCH)
            for way, library in (("course", "numba"), ("pytorch", "torch"))
        }
        run(programs["course"], threads)  # compiles, which takes memory of its own
        row = Row("memory", f"{net} batch {BATCH}, peak above imports", threads, {}, "byte")
        figures = {
            way: lambda program=program: float(run(program, threads)[1])
            for way, program in programs.items()
        }
        yield compared(row, figures)


def start(threads: int, rounds: int, clock: Clock) -> Iterator[Row]:
    """Yield the seconds from the start of a process to its result, medians of rounds.

    Cold means that nothing is compiled yet: such a case runs once, with a cache folder of
    its own. What one layer takes cold is counted from the end of the imports.
    """

    def median(program: str, cache: str | None = None) -> float:
        times = [
            clock.undisturbed(lambda: run(program, threads, cache)[0])
            for _ in range(rounds)
        ]
        return float(np.median(times))

    def cold(program: str, inside: bool = False) -> float:
        def measure() -> float:
            with TemporaryDirectory() as cache:
                spent, printed = run(program, threads, cache)
            return float(printed) if inside else spent

        return clock.undisturbed(measure)

    def warm() -> float:
        with TemporaryDirectory() as cache:
            run(FIRST_STEP["course"], threads, cache)
            return median(FIRST_STEP["course"], cache)

    for case, figures in {
        "Python itself": {"course": lambda: median("")},
        "import": {
            "course": lambda: median("import course.layers"),
            "pytorch": lambda: median("import torch"),
        },
        "first LeNet-5 step, warm": {
            "course": warm,
            "pytorch": lambda: median(FIRST_STEP["pytorch"]),
        },
        "first LeNet-5 step, cold": {"course": lambda: cold(FIRST_STEP["course"])},
        "one layer, cold, after imports": {"course": lambda: cold(LAYER, inside=True)},
        f"warmup by {threads}, cold": {"course": lambda: cold(WARMUP.format(threads))},
    }.items():
        before, row = clock.disturbed, Row("start", case, threads, {})
        compared(row, figures).disturbed = clock.disturbed - before
        yield row
