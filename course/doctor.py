"""`course doctor`: what works on this machine, and how to mend what does not.

A line for each thing, and a fix line under each that does not work.

Each check returns a `Finding`. A check that fails unforeseen is a finding too: the doctor
goes on to the next. Libraries are imported inside the checks: what is missing is reported.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

PYTHONS = (3, 11), (3, 14)
MEMORY = 2.0  # GB free; training on MNIST takes about 1
SET_UP = "python3 run.py lab   (it sets up everything anew)"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes
    ----------
    good : does it work?
    topic, text : what was looked at, what was seen
    fix : what to do if it does not work
    needed : can the course not be used without it?
    """

    good: bool
    topic: str
    text: str
    fix: str = ""
    needed: bool = False

    def __str__(self) -> str:
        line = f"{'ok' if self.good else '--'}  {self.topic:<15} {self.text}"
        return line if self.good else f"{line}\n    fix: {self.fix}"


def python() -> Iterator[Finding]:
    """Look at the interpreter."""
    (oldest, newest), here = PYTHONS, sys.version_info[:2]
    yield Finding(
        oldest <= here <= newest,
        "Python",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        f"install Python {oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}, then {SET_UP}",
        needed=here < oldest,
    )


def memory() -> Iterator[Finding]:
    """Look at what memory is free."""
    import psutil

    seen = psutil.virtual_memory()
    free, whole = seen.available / 1e9, seen.total / 1e9
    yield Finding(
        free >= MEMORY,
        "memory",
        f"{free:.1f} GB free of {whole:.1f} GB",
        f"close other programs: training on MNIST wants {MEMORY:.0f} GB",
    )


def libraries() -> Iterator[Finding]:
    """Import what the lectures import."""
    for topic, module in (
        ("NumPy", "numpy"),
        ("SciPy", "scipy"),
        ("scikit-learn", "sklearn"),
        ("Matplotlib", "matplotlib"),
        ("JupyterLab", "jupyterlab"),
        ("widgets", "ipywidgets"),
    ):
        yield _library(topic, module, SET_UP, needed=True)
    yield _library(
        "PyTorch",
        "torch",
        "pip install torch==2.13.0   (only to compare with; no lecture needs it)",
        needed=False,
    )


def _library(topic: str, module: str, fix: str, needed: bool) -> Finding:
    """Say whether a library can be imported, and which version it is."""
    try:
        text = import_module(module).__version__
    except ImportError as error:
        return Finding(False, topic, f"cannot be imported: {error}", fix, needed)
    return Finding(True, topic, text)


def loops() -> Iterator[Finding]:
    """Compile a loop, and see that it computes the right thing."""
    import numba
    from llvmlite import binding

    from course.device import get_threads

    def squares(n):
        total = 0
        for k in range(n):
            total += k * k
        return total

    start = time.perf_counter()
    right = numba.njit(squares)(1000) == 332833500
    seconds = time.perf_counter() - start
    yield Finding(
        right and not numba.config.DISABLE_JIT,
        "compiled loops",
        f"Numba {numba.__version__} for {binding.get_host_cpu_name()}, "
        f"{get_threads()} threads; a small loop compiles in {seconds:.1f} s"
        + ", but NUMBA_DISABLE_JIT is set: loops are slow"
        * bool(numba.config.DISABLE_JIT),
        "unset NUMBA_DISABLE_JIT" if numba.config.DISABLE_JIT else SET_UP,
        needed=not right,
    )


def cache() -> Iterator[Finding]:
    """See whether compiled loops can be kept."""
    from course.compiled import FOLDER, user_cache

    yield Finding(
        FOLDER is not None,
        "cache",
        f"{user_cache()}"
        + " cannot be written: every start compiles all loops again" * (FOLDER is None),
        "set COURSE_CACHE to a folder that you may write",
    )


def data() -> Iterator[Finding]:
    """See which images are here."""
    from course.data import load
    from course.data.cifar10 import CIFAR10
    from course.data.idx import FASHION_MNIST, MNIST

    chosen = os.environ.get("COURSE_DATA")
    if chosen:
        there = Path(chosen).is_dir()
        yield Finding(
            there,
            "COURSE_DATA",
            chosen if there else f"{chosen} is not a folder",
            "set COURSE_DATA to the folder that holds the folder mnist, or unset it",
        )
    for name in ("digits", "glyphs"):
        yield Finding(True, name, repr(load(name)).removeprefix(f"{name}: "))
    for source in (MNIST, FASHION_MNIST, CIFAR10):
        yield _downloaded(source)


def _downloaded(source: Any) -> Finding:
    """Say whether the files of a source are here, whole and right."""
    from course.data import BadData
    from course.data.files import find

    files = source.sha256
    folder = (source.folders or (source.name,))[0]
    fix = (
        f"load({source.name!r}) of course.data downloads it once; or put its {len(files)} "
        f"files into a folder {folder}, set COURSE_DATA to what holds that"
    )
    try:
        paths = [path for file in files if (path := find(source, file))]
    except BadData as error:
        what, _, remedy = str(error).partition(": ")
        return Finding(False, source.name, what, remedy)
    if len(paths) < len(files):
        here = f"{len(paths)} of {len(files)} files are here"
        return Finding(False, source.name, here, fix)
    return Finding(True, source.name, str(paths[0].parent))


def sandbox() -> Iterator[Finding]:
    """Try the walls that `course grade` puts around the answers that it runs."""
    from course.grading.sandbox import tiers

    names = {"strict": "bubblewrap, Landlock, seccomp", "landlock": "Landlock, seccomp"}
    for tier, reason in tiers().items():
        what, _, remedy = reason.partition(": ")
        yield Finding(
            not reason,
            f"grade: {tier}",
            f"{names[tier]}: " + (what or "answers are isolated"),
            remedy or "see docs/grading.md; only teachers need this",
        )


def gpu() -> Iterator[Finding]:
    """Look for an NVIDIA GPU; if one can be used, see how fast it is."""
    from course.cuda import native

    found, driver = native.gpus()
    for one in found:
        capability = "{}.{}".format(*one.capability)
        yield Finding(
            True,
            "GPU",
            f"{one.name}: compute capability {capability}, {one.processors} "
            f"multiprocessors, {one.memory / 1e9:.0f} GB; driver for CUDA {driver}",
        )
    if not found:
        yield Finding(
            False,
            "GPU",
            "no NVIDIA GPU found, or no driver for it",
            "none needed: kernels run in the simulator, everything else on the CPU",
        )
    else:
        yield from _on_the_gpu()


def _on_the_gpu() -> Iterator[Finding]:
    """Run a kernel on the GPU, and say how long that takes."""
    import numpy as np

    from course.cuda import native
    from course.device import host, to
    from course.layers.relu import relu_forward

    if native.why_not():
        yield Finding(False, "kernels", native.why_not(), native.INSTALL)
        return
    library = native.library()

    def seconds(times, x):
        library.synchronize()
        start = time.perf_counter()
        for _ in range(times):
            y = relu_forward(x)
        library.synchronize()
        return (time.perf_counter() - start) / times, y

    x = np.linspace(-1, 1, 1000, dtype=np.float32)
    first, y = seconds(1, to("cuda", x))
    right = np.array_equal(host(y), np.maximum(x, 0))
    small, _ = seconds(1000, to("cuda", x))
    large, _ = seconds(20, to("cuda", np.ones(1 << 26, np.float32)))
    yield Finding(
        right,
        "kernels",
        f"ReLU is {'right' if right else 'WRONG'}; compiled in {first:.1f} s, a call takes "
        f"{small * 1e6:.0f} us, a large one moves {2**29 / large / 1e9:.0f} GB/s",
        native.INSTALL,
    )


def simulator() -> Iterator[Finding]:
    """Run a kernel whose threads wait for each other where no GPU is."""
    import numpy as np

    from course.device import host, simulated, to
    from course.layers.linear import linear_backward

    dy, x, w = np.ones((4, 2)), np.eye(4, 3), np.ones((2, 3))
    with simulated():
        found = map(host, linear_backward(*(to("cuda", a) for a in (dy, x, w))))
        right = all(map(np.array_equal, found, linear_backward(dy, x, w)))
    yield Finding(
        right,
        "simulator",
        f"a linear layer's kernels, as plain Python, are {'right' if right else 'WRONG'}",
        SET_UP,
    )


def compilers() -> Iterator[Finding]:
    """Look for what compiles kernels for GPUs, whether or not one is here."""
    from course.cuda import compile_check, native

    for tool in compile_check.tools():
        yield Finding(
            bool(tool.path),
            tool.name,
            f"{tool.version} in {Path(tool.path).parent}".strip()
            if tool.path
            else "not found; only a GPU and the compile check of the tests need it",
            f"{compile_check.INSTALL}   (for a GPU: {native.INSTALL})",
        )


CHECKS = (python, memory, libraries, loops, cache, data, sandbox, gpu, simulator, compilers)
OPTIONAL = (gpu, simulator, compilers)


def findings(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds; if it cannot be done, that is a finding."""
    try:
        yield from check()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        yield Finding(False, check.__name__, reason, SET_UP, check not in OPTIONAL)


def main() -> int:
    """Print the report; return 0 if the course can be used here, 1 if not."""
    broken = []
    for check in CHECKS:
        for finding in findings(check):
            print(finding, flush=True)
            if finding.needed and not finding.good:
                broken.append(finding.topic)
    if broken:
        print(f"\nThe course cannot be used here yet. Mend first: {', '.join(broken)}.")
        return 1
    print("\nThe course can be used here.")
    return 0


def add_parsers(subparsers: Any) -> None:
    """Add the verb `doctor`."""
    verb = subparsers.add_parser(
        "doctor",
        help="say what works on this machine, and how to mend what does not",
        description=__doc__.partition("\n")[0],
    )
    verb.set_defaults(run=lambda chosen: main())


if __name__ == "__main__":
    sys.exit(main())
