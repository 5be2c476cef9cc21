"""The compile check: kernels become machine code for real GPUs, and none is needed.

    python -m course.cuda.compile_check course.layers.relu._y_cuda "float32[1], float32[1]"

The simulator (course/cuda/simulator.py) says whether a kernel computes the right thing.
This says what Python cannot: whether Numba can compile it at all; whether a float64 has
crept in, thirty times slower than float32 on most GPUs; how many registers a thread needs,
whether some of them went to memory (spills), and so how many blocks fit on a
multiprocessor; what share of the hottest loop is arithmetic.

Numba's front end runs once for a kernel, NVIDIA's libNVVM and ptxas once for each
architecture. Needed are numba-cuda, libNVVM, ptxas and nvdisasm, from wheels or from a CUDA
toolkit; no driver. On a GPU numba-cuda links by nvJitLink, which may choose a few registers
more or less.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from course.cuda import KERNELS, THREADS, Kernel, native

ARCHITECTURES = 75, 80, 90  # Turing (T4), Ampere (A100), Hopper (H100)
INSTALL = "python3 run.py python -m pip install --require-hashes -r requirements-cuda.lock"
PACKAGES = "numba-cuda", "cuda-bindings"
WARP, REGISTERS = 32, 65536  # threads; of a multiprocessor, 256 of them at a time
HOT = 64  # multiply-adds in the text of a kernel whose hottest loop is looked at
LIMITS = {  # of a multiprocessor: threads, blocks, shared bytes, those that a block costs
    75: (1024, 16, 64 << 10, 0),
    80: (2048, 32, 164 << 10, 1 << 10),
    90: (2048, 32, 228 << 10, 1 << 10),
}


# --- the tools --------------------------------------------------------------------------


@dataclass(frozen=True)
class Tool:
    """A program or library that the check needs; without a path, it is not there."""

    name: str
    path: str = ""
    version: str = ""


@cache
def tools() -> tuple[Tool, ...]:
    """Look for what the check needs, in wheels first, then in a CUDA toolkit."""
    try:
        native.library()
        from cuda import pathfinder
    except (native.NoGPU, ImportError):
        return tuple(map(Tool, ("numba-cuda", "libNVVM", "ptxas", "nvdisasm")))
    try:
        path = pathfinder.load_nvidia_dynamic_lib("nvvm").abs_path
    except pathfinder.DynamicLibNotFoundError:
        path = ""
    versions = " with cuda-bindings ".join(map(metadata.version, PACKAGES))
    return (
        Tool("numba-cuda", native.library().__path__[0], versions),
        Tool("libNVVM", path),
        *(_program(name, pathfinder) for name in ("ptxas", "nvdisasm")),
    )


def _program(name: str, pathfinder: Any) -> Tool:
    """Say where a program of the toolkit is, and ask it for its version."""
    path = pathfinder.find_nvidia_binary_utility(name)
    if not path:
        return Tool(name)
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    return Tool(name, path, said.rpartition("release ")[2].partition(",")[0])


def missing() -> str:
    """Return what is missing and how to install it; an empty text if nothing is."""
    absent = [tool.name for tool in tools() if not tool.path]
    return f"no {', '.join(absent)} here: {INSTALL}" if absent else ""


# --- one kernel -------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    """What became of a kernel, for one set of types and one architecture.

    Attributes
    ----------
    name, types, architecture : what was compiled; 90 is sm_90
    threads : of a block, for `blocks`
    error : why it could not be compiled; empty if it could
    needs : an architecture, if the kernel uses what only that one and newer ones have
    registers, spills, shared : of a thread; bytes; bytes of a block
    doubles : how many instructions compute in float64
    loop : which instructions the loop with the most arithmetic has, and how often; for
        the newest architecture, and kernels with much arithmetic
    """

    name: str
    types: tuple[str, ...]
    architecture: int
    threads: int = THREADS
    error: str = ""
    needs: int = 0
    registers: int = 0
    spills: int = 0
    shared: int = 0
    doubles: int = 0
    loop: Counter = field(default_factory=Counter)

    @property
    def blocks(self) -> int:
        """Return how many blocks fit on a multiprocessor, by what each needs."""
        threads, blocks, shared, taken = LIMITS[self.architecture]
        warps = -(-self.threads // WARP)
        of_a_warp = -(-self.registers * WARP // 256) * 256
        fits = [threads // (warps * WARP), blocks, REGISTERS // max(1, of_a_warp * warps)]
        if self.shared:
            fits.append(shared // (self.shared + taken))
        return min(fits)

    @property
    def arithmetic(self) -> float:
        """Return what share of the hottest loop multiplies and adds."""
        return (self.loop["FFMA"] + self.loop["HMMA"]) / max(1, self.loop.total())


def spelled(name: str) -> str:
    """Return a type, as the simulator notes it, as Numba spells it.

    >>> spelled("float32[2]"), spelled("(int64, int64)"), spelled("int64")
    ('float32[:, ::1]', 'Tuple((int64, int64,))', 'int64')
    """
    if name.startswith("("):
        inner = ", ".join(map(spelled, re.findall(r"[\w\[\]]+", name)))
        return f"Tuple(({inner},))"
    kind, _, axes = name.rstrip("]").partition("[")
    return f"{kind}[{':, ' * (int(axes) - 1)}::1]" if axes else kind


Launch = tuple[Kernel, tuple[str, ...], int]  # the types, and how many threads in a block


def check(launches: Iterable[Launch]) -> list[Compiled]:
    """Compile each kernel for the types of each of its launches, for all architectures.

    The front end, which is Python, has this thread; libNVVM and ptxas have two others.
    """
    found: list[Any] = []
    with ThreadPoolExecutor(2) as pool, tempfile.TemporaryDirectory() as folder:
        for kernel, types, threads in launches:
            start = partial(Compiled, kernel.name, types, threads=threads)
            try:
                code = native.intermediate(kernel, ", ".join(map(spelled, types)))
            except Exception as error:  # Numba has many kinds
                found += [start(k, error=f"{error}") for k in ARCHITECTURES]
                continue
            for k in ARCHITECTURES:
                place = Path(folder) / f"{len(found)}.ptx"
                found.append(pool.submit(_assemble, start, k, code, kernel, place))
        return [one if isinstance(one, Compiled) else one.result() for one in found]


def _assemble(
    start: Callable, architecture: int, code: list[str], kernel: Kernel, place: Path
) -> Compiled:
    """Make machine code for one architecture, and read what ptxas says of it."""
    _, _, ptxas, nvdisasm = tools()
    options, cubin = kernel.options, place.with_suffix(".cubin")
    try:
        text = native.ptx(code, architecture, options.get("fastmath", False))
    except Exception as error:
        return start(architecture, error=f"libNVVM: {error}")
    place.write_text(text)
    command = [ptxas.path, "-v", f"-arch=sm_{architecture}", str(place), "-o", str(cubin)]
    if limit := options.get("max_registers"):
        command.append(f"-maxrregcount={limit}")
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if needs := re.search(r"requires \.target sm_(\d+)", said):
        return start(architecture, needs=int(needs[1]))
    if done.returncode:
        return start(architecture, error=said)
    loop: Counter = Counter()
    hot = text.count("fma.rn.f32") + 8 * text.count("mma.sync") >= HOT
    if hot and architecture == max(ARCHITECTURES):  # nvdisasm takes its time
        command = [nvdisasm.path, "-c", str(cubin)]
        loop = hottest_loop(subprocess.check_output(command, text=True))
    return start(
        architecture,
        registers=_most(r"Used (\d+) registers", said),
        spills=sum(map(int, re.findall(r"(\d+) bytes spill", said))),
        shared=_most(r"(\d+) bytes smem", said),
        doubles=text.count(".f64"),
        loop=loop,
    )


def _most(pattern: str, text: str) -> int:
    """Return the largest number that the pattern finds; 0 if there is none."""
    return max(map(int, re.findall(pattern, text)), default=0)


INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]+)(.*?);")


def hottest_loop(listing: str) -> Counter:
    """Return the instructions of the innermost loop with the most arithmetic.

    `listing` is nvdisasm's. A loop is what a branch backwards encloses; that it is an
    innermost one means that it encloses no other.
    """
    words, labels, loops = [], {}, []
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_\w+):", line):
            labels[label[1]] = len(words)
        elif found := INSTRUCTION.search(line):
            target = re.search(r"\.L_\w+", found[3])
            if found[2].startswith("BRA") and target and target[0] in labels:
                loops.append((labels[target[0]], len(words) + 1))
            words.append(_word(found[2]))
    inner = [
        Counter(words[a:b])
        for a, b in loops
        if not any((a, b) != (c, d) and a <= c and d <= b for c, d in loops)
    ]
    return max(inner, key=lambda loop: loop["FFMA"] + loop["HMMA"], default=Counter())


def _word(instruction: str) -> str:
    """Return FFMA for FFMA.FTZ; of loads and stores keep the width: LDS.128."""
    word, *more = instruction.split(".")
    width = [part for part in more if part in ("64", "128")]
    return ".".join([word, *width]) if word[:2] in ("LD", "ST") else word


# --- the table --------------------------------------------------------------------------


def table(rows: Iterable[Compiled]) -> str:
    """Return a line for each kernel and its types: registers, blocks, and the hot loop."""
    text = [f"{'kernel':48} {'shared':>6}  registers/blocks on {_names(ARCHITECTURES)}"]
    lines: dict[tuple, list[Compiled]] = {}
    for row in rows:
        lines.setdefault((row.name, row.types), []).append(row)
    for (name, types), compiled in lines.items():
        if sum(other == name for other, _ in lines) > 1:  # then say which
            name += f" ({','.join(re.findall('[0-9]+(?=])', ' '.join(types)))})"
        cells = []
        for one in compiled:
            cell = f"{one.registers}/{one.blocks}"
            cell = f"(sm_{one.needs})" if one.needs else "error" if one.error else cell
            cells.append(cell + f" {one.spills} B spilled" * bool(one.spills))
        last = compiled[-1]
        name = name.removeprefix("course.").replace("make.<locals>.", "")
        line = f"{name:48} {last.shared:6}  "
        line += "  ".join(f"{cell:7}" for cell in cells)
        if last.doubles:
            line += f"  {last.doubles} of float64"
        if last.loop:
            most = ", ".join(f"{count} {word}" for word, count in last.loop.most_common(5))
            line += f"  loop {last.arithmetic:.2f} of {last.loop.total()}: {most}"
        text.append(line.rstrip())
        text += [f"    {one.error.strip()}" for one in compiled[:1] if one.error]
    return "\n".join(text)


def _names(architectures: Iterable[int]) -> str:
    """Return 75 and 80 as sm_75, sm_80."""
    return ", ".join(f"sm_{k}" for k in architectures)


def main(arguments: list[str] | None = None) -> int:
    """Compile a kernel that the command line names for the types that it names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kernel", help="course.layers.relu._y_cuda")
    parser.add_argument("types", help='of its arguments: "float32[1], int64"')
    parser.add_argument("--threads", type=int, default=THREADS, help="of a block")
    chosen = parser.parse_args(arguments)
    if missing():
        parser.error(missing())
    import_module(chosen.kernel.partition("[")[0].rpartition(".")[0])
    if chosen.kernel not in KERNELS:
        parser.error(f"{chosen.kernel} is none of {', '.join(KERNELS)}")
    types = tuple(re.findall(r"\([^)]*\)|[\w\[\]]+", chosen.types))
    rows = check([(KERNELS[chosen.kernel], types, chosen.threads)])
    print(table(rows))
    return int(any(row.error for row in rows))


if __name__ == "__main__":
    sys.exit(main())
