"""`course bench`: how fast the course is on this machine, beside PyTorch and others.

course bench conv       convolutions, forward and backward
course bench steps      training steps of whole networks
course bench zoo        the named architectures, one image forward
course bench layers     one layer at a time, losses, Adam
course bench gemm       matrix products
course bench rungs      from the loop nest to the engine, on one shape
course bench roof       what the machine can do at most
course bench memory     peak memory of a training step
course bench start      from the start of a process to the first result
course bench all        all of these

course bench gemm conv layers steps roof --device cuda     the same kinds on a GPU
"""

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from course.bench.rounds import Clock, cores, set_all_threads, steady_memory

WHAT = "conv", "steps", "zoo", "layers", "gemm", "rungs", "roof", "memory", "start"


def add_parsers(subparsers: Any) -> None:
    """Add the verb `bench`."""
    verb = subparsers.add_parser(
        "bench",
        help="measure the course beside PyTorch and others",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("what", nargs="+", choices=[*WHAT, "all"])
    verb.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    verb.add_argument(
        "--threads", type=int, nargs="+", help="default: 1, and 2 if there are"
    )
    verb.add_argument("--only", default="", help="cases in which this pattern is found")
    verb.add_argument("--shape", default="vgg56n8", help="the convolution of the rungs")
    verb.add_argument("--rounds", type=int, default=7)
    verb.add_argument("--block", type=float, default=0.1, help="seconds of a turn")
    verb.add_argument("--quick", action="store_true", help="one round, one call a turn")
    verb.add_argument("--compile", action="store_true", help="PyTorch compiled too: slow")
    verb.add_argument("--out", type=Path, help="also write OUT.json, OUT.md and OUT.png")
    verb.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Measure, print a line for each case, and write the report if it is asked for."""
    if chosen.device == "cuda":
        return on_cuda(chosen)
    from course.bench.bars import verdicts
    from course.bench.report import line, machine, write

    steady_memory()
    about = machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    found = []
    for row in rows(chosen):
        print(line(row), flush=True)
        found.append(row)
    for v in verdicts(found):
        met = "met    " if v.met else "not met"
        print(f"{met} {v.item}, {v.threads} threads: {v.value:.3g}, demanded {v.demand}")
    if chosen.out:
        command = shlex.join(["bench", *chosen.what, *(["--compile"] * chosen.compile)])
        for path in write(chosen.out, command, about, found):
            print(f"written: {path}")
    return 0


def on_cuda(chosen: argparse.Namespace) -> int:
    """Measure on a GPU, print a line for each case, and write the report if asked."""
    from course.bench import cuda
    from course.bench.report import line
    from course.cuda import native

    wanted = set(cuda.SUITES) if "all" in chosen.what else set(chosen.what)
    why = native.why_not()
    for unknown in sorted(wanted - set(cuda.SUITES)):
        why = f"no {unknown} on cuda; there are {', '.join(cuda.SUITES)}"
    if why:
        print(f"course bench: {why}", file=sys.stderr)
        return 2
    about = cuda.about()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    found = []
    rounds = 1 if chosen.quick else chosen.rounds
    for row in cuda.rows(wanted, re.compile(chosen.only).search, rounds):
        print(line(row), flush=True)
        found.append(row)
    if chosen.out:
        command = shlex.join(["bench", *chosen.what, "--device", "cuda"])
        for path in cuda.write(chosen.out, command, about, found):
            print(f"written: {path}")
    return 0


def rows(chosen: argparse.Namespace) -> Iterator[Any]:
    """Yield what was asked for, measured."""
    from course.bench import conv, fresh, gemm, layers, roof, steps, zoo
    from course.bench.cases import measured

    suites = {
        "rungs": lambda: conv.rungs(chosen.shape),
        "conv": conv.convolutions,
        "gemm": gemm.products,
        "layers": layers.layers,
        "steps": lambda: steps.steps(chosen.compile),
        "zoo": zoo.networks,
    }
    rounds, clock = chosen.rounds, Clock(chosen.block, tries=10)
    if chosen.quick:
        rounds, clock = 1, Clock()
    wanted = set(WHAT) if "all" in chosen.what else set(chosen.what)
    for threads in chosen.threads or range(1, min(cores(), 2) + 1):
        set_all_threads(threads)
        if "start" in wanted:
            yield from fresh.start(threads, rounds, clock)
        if "memory" in wanted:
            yield from fresh.memory(threads)
        if "roof" in wanted:
            yield from roof.rows(threads, clock)
        if not wanted & suites.keys():
            continue
        limits = roof.roof(threads, clock)
        for suite, cases in suites.items():
            for case in cases() if suite in wanted else ():
                if re.search(chosen.only, case.name):
                    set_all_threads(threads)  # of libraries that came with the last case
                    yield measured(suite, case, threads, rounds, clock, limits)
