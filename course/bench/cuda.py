"""`course bench --device cuda`: kernels and training steps on a GPU, beside PyTorch.

    gemm     square products in float32, and on tensor cores (TF32)
    conv     convolutions of VGG-16 and ResNet-50: forward, dx and dw, each alone
    layers   what the memory limits, in shares of the bandwidth of a copy
    steps    training steps of LeNet-5 and ResNet-20
    roof     what the GPU can do at most

Times are taken between two CUDA events, over so many calls that their launches overlap, and
in turns. PyTorch runs twice, with TF32 off and on. The course's functions write into the
same memory in every call, so that kernels are timed, and not `cudaMalloc`; a training step
is timed as it is.
"""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from course import zoo
from course.bench.cases import Case, Row, Work
from course.bench.report import machine, readable, table
from course.bench.rounds import in_turns
from course.bench.shapes import Shape
from course.bench.twin import twin
from course.cuda import CudaArray, native
from course.device import assign, empty_like, host, to
from course.engine import cuda as engine
from course.files import write_whole
from course.layers import BatchNorm2d, Dropout, MaxPool2d, ReLU
from course.losses import softmax_cross_entropy
from course.optimizers import SGD, Adam

SUITES = "gemm", "conv", "layers", "steps", "roof"
AGREE = 5e-3  # of the largest value: TF32 keeps 10 bits behind the point
TURN = 0.02  # seconds
DEVICE = "cuda"  # PyTorch's
CORES = {(7, 5): 64, (8, 0): 64}  # of a multiprocessor; 128 in the others
SIZES = 1024, 2048, 4096, 8192
CONVOLUTIONS = {
    **{
        f"VGG-16 {C}x{H}x{H} to {F}": Shape(32, C, H, F)
        for C, H, F in (
            *((3, 224, 64), (64, 224, 64), (64, 112, 128), (128, 112, 128)),
            *((128, 56, 256), (256, 56, 256), (256, 28, 512), (512, 28, 512)),
            (512, 14, 512),
        )
    },
    "ResNet-50 stem 7x7": Shape(32, 3, 224, 64, 7, 2, 3),
    **{
        f"ResNet-50 {K}x{K}/{S} {C}x{H}x{H} to {F}": Shape(32, C, H, F, K, S, K // 2)
        for C, H, F, K, S in (
            *((64, 56, 64, 1, 1), (64, 56, 64, 3, 1), (64, 56, 256, 1, 1)),
            *((128, 56, 128, 3, 2), (512, 28, 128, 1, 1), (128, 28, 128, 3, 1)),
            *((256, 14, 256, 3, 1), (1024, 14, 256, 1, 1), (512, 7, 512, 3, 1)),
        )
    },
}
MAPS, ROWS, WEIGHTS = (64, 64, 128, 128), (65536, 1000), 1 << 26  # 256 MB each
STEPS = {"LeNet-5": (zoo.lenet5, 256), "ResNet-20": (zoo.resnet20, 128)}


class Events:
    """A clock on the GPU."""

    def turn(self, work: Work) -> float:
        """Return the seconds of a call, one of as many as fill a turn."""
        calls = int(min(max(TURN / self.span(work, 1), 1), 500))
        return self.span(work, calls) / calls

    def span(self, work: Work, calls: int) -> float:
        """Return the seconds from before the first call until the last has ended."""
        library = native.library()
        start, end = library.event(), library.event()
        start.record()
        for _ in range(calls):
            work()
        end.record()
        end.synchronize()
        return library.event_elapsed_time(start, end) / 1e3


# --- the ways ---------------------------------------------------------------------------


def same_memory(work: Work) -> Work:
    """Return the work, whose later calls write where the first one wrote."""
    made: list[Any] = []

    def again() -> Any:
        before, handed = native.allocate, iter(tuple(made))

        def allocate(shape: tuple[int, ...], dtype: Any) -> Any:
            memory = next(handed, None)
            if memory is None:
                memory = before(shape, dtype)
                made.append(memory)
            return memory

        native.allocate = allocate
        try:
            return work()
        finally:
            native.allocate = before

    return again


def by_tensor_cores(work: Work) -> Work:
    """Return the work with its products in TF32; ImportError if the GPU has none."""

    def run() -> Any:
        with engine.precision("tf32"):
            return work()

    try:
        run()
    except RuntimeError as error:
        raise ImportError(str(error)) from None
    return run


def by_torch(make: Callable[[Any], Work], tf32: bool) -> Work:
    """Return PyTorch's work, with or without TF32; it is on if nobody asks."""
    import torch

    if DEVICE == "cuda" and not torch.cuda.is_available():
        raise ImportError("this PyTorch sees no GPU")
    torch.backends.cudnn.benchmark = True
    work = make(torch)

    def run() -> Any:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        return work()

    return run


def ways(
    course: Callable[[], Work], torch: Callable[[Any], Work], tf32: bool = True
) -> dict[str, Callable[[], Work]]:
    """Return the works of a case by name, each still to be set up."""
    found = {"course": course, "pytorch": partial(by_torch, torch, False)}
    if tf32:
        found["course tf32"] = lambda: by_tensor_cores(course())
        found["pytorch tf32"] = partial(by_torch, torch, True)
    return found


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Return normal numbers in float32, the same in every call."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def tensor(torch: Any, a: np.ndarray) -> Any:
    """Return the array as PyTorch's, on its device."""
    return torch.tensor(a, device=DEVICE)


# --- what is measured -------------------------------------------------------------------


def gemm(sizes: tuple[int, ...] = SIZES) -> Iterator[Case]:
    """Yield square products x w^T."""

    def ours(x: np.ndarray, w: np.ndarray) -> Work:
        x, w = to("cuda", x), to("cuda", w)
        y = empty_like(x)
        return lambda: (engine.linear(y, x, w, None), y)[1]

    def theirs(x: np.ndarray, w: np.ndarray, torch: Any) -> Work:
        x, w = tensor(torch, x), tensor(torch, w)
        y = torch.empty_like(x)
        return lambda: torch.mm(x, w.T, out=y)

    for n in sizes:
        a = normal(n, n), normal(n, n, seed=1)
        works = ways(partial(ours, *a), partial(theirs, *a))
        yield Case(f"{n} x {n} x {n}", works, 2 * n**3, 12 * n * n)


def convolutions(shapes: dict[str, Shape] = CONVOLUTIONS) -> Iterator[Case]:
    """Yield the passes of convolutions, each alone."""

    def ours(s: Shape, what: str) -> Work:
        x, w, b, dy = (to("cuda", a) for a in s.arrays())
        window = (s.S, s.S), ((s.P, s.P), (s.P, s.P)), (s.D, s.D), s.G
        y, dx, dw = empty_like(dy), empty_like(x), empty_like(w)
        return {
            "forward": lambda: (engine.conv2d(y, x, w, b, *window), y)[1],
            "dx": lambda: (engine.conv2d_backward(dx, None, dy, x, w, *window), dx)[1],
            "dw": lambda: (engine.conv2d_backward(None, dw, dy, x, w, *window), dw)[1],
        }[what]

    def theirs(s: Shape, what: str, torch: Any) -> Work:
        x, w, b, dy = (tensor(torch, a) for a in s.arrays())
        window = [s.S] * 2, [s.P] * 2, [s.D] * 2
        if what == "forward":
            return lambda: torch.nn.functional.conv2d(x, w, b, *window, s.G)
        wanted = what == "dx", what == "dw", False
        backward = torch.ops.aten.convolution_backward
        rest = *window, False, [0, 0], s.G, wanted
        return lambda: backward(dy, x, w, None, *rest)[wanted.index(True)]

    for name, s in shapes.items():
        for what in ("forward", "dx", "dw"):
            works = ways(partial(ours, s, what), partial(theirs, s, what))
            yield Case(f"{name} {what}", works, s.flops, s.bytes)


def layers(
    maps: tuple[int, ...] = MAPS, rows: tuple[int, int] = ROWS, weights: int = WEIGHTS
) -> Iterator[Case]:
    """Yield what the memory limits, with the traffic that cannot be avoided."""
    x, scores = normal(*maps), normal(*rows)
    labels = np.random.default_rng(0).integers(rows[1], size=rows[0])
    rng = np.random.default_rng(0)
    for layer, *passes in (  # how often forward and backward read or write an x
        (ReLU(), 2, 3),
        (MaxPool2d(2), 1.5, 1.5),  # argmax is as large as y
        (BatchNorm2d(maps[1]), 3, 5),  # x is read for the mean, and again
        (Dropout(0.5, rng=rng), 2, 2),
    ):
        for what, times in zip(("forward", "backward"), passes, strict=True):
            works = ways(
                partial(_our_layer, layer, x, what),
                partial(_their_layer, layer, x, what),
                tf32=False,
            )
            same = not isinstance(layer, Dropout)
            name = f"{type(layer).__name__} {what}"
            yield Case(name, works, bytes=times * x.nbytes, agree=same)

    def our_loss() -> Work:
        a = to("cuda", scores), to("cuda", labels)
        return same_memory(lambda: softmax_cross_entropy(*a)[1])

    def their_loss(torch: Any) -> Work:
        t = tensor(torch, labels)
        a = tensor(torch, scores).requires_grad_()

        def both() -> Any:
            loss = torch.nn.functional.cross_entropy(a, t)
            return torch.autograd.grad(loss, a)[0]

        return both

    works = ways(our_loss, their_loss, tf32=False)
    yield Case("cross-entropy and its gradient", works, bytes=2 * scores.nbytes)
    for name, ours, options, times in (
        ("SGD with momentum", SGD(0.01, 0.9), {"lr": 0.01, "momentum": 0.9}, 5),
        ("Adam", Adam(0.01), {"lr": 0.01}, 7),
    ):
        works = ways(
            partial(_our_steps, ours, weights),
            partial(_their_steps, name.split()[0], options, weights),
            tf32=False,
        )
        yield Case(name, works, bytes=times * 4 * weights, agree=False)


def _our_layer(layer: Any, x: np.ndarray, what: str) -> Work:
    layer, x = deepcopy(layer).to("cuda"), to("cuda", x)
    y = layer.forward(x)
    if what == "forward":
        return same_memory(lambda: layer.forward(x))
    dy = to("cuda", normal(*y.shape, seed=1))
    return same_memory(lambda: layer.backward(dy))


def _their_layer(layer: Any, x: np.ndarray, what: str, torch: Any) -> Work:
    module = twin(layer).to(DEVICE)
    x = tensor(torch, x).requires_grad_(what == "backward")
    y = module(x)
    if what == "forward":
        return lambda: module(x)
    dy = tensor(torch, normal(*y.shape, seed=1))
    return lambda: torch.autograd.grad(y, x, dy, retain_graph=True)[0]


def _our_steps(optimizer: Any, weights: int) -> Work:
    layer = _Weights(to("cuda", normal(weights)), to("cuda", normal(weights, seed=1)))
    return lambda: optimizer.step([layer])


def _their_steps(name: str, options: dict, weights: int, torch: Any) -> Work:
    weight = torch.nn.Parameter(tensor(torch, normal(weights)))
    weight.grad = tensor(torch, normal(weights, seed=1))
    return getattr(torch.optim, name)([weight], foreach=True, **options).step


class _Weights(ReLU):
    """A layer that is nothing but weights."""

    def __init__(self, w: CudaArray, dw: CudaArray):
        super().__init__()
        self.params["weight"], self.grads["weight"] = w, dw


def steps(networks: dict[str, tuple[Callable, int]] = STEPS) -> Iterator[Case]:
    """Yield training steps: forward, loss, backward and SGD, a launch at a time."""

    def ours(make: Callable, x: np.ndarray, t: np.ndarray) -> Work:
        model, optimizer = make(rng=np.random.default_rng(0)).to("cuda"), SGD(0.01, 0.9)
        x, t = to("cuda", x), to("cuda", t)

        def step() -> float:
            loss, dscores = softmax_cross_entropy(model(x), t)
            model.learn(dscores)
            optimizer.step(model)
            return loss

        return step

    def theirs(make: Callable, x: np.ndarray, t: np.ndarray, torch: Any) -> Work:
        model = twin(make(rng=np.random.default_rng(0))).to(DEVICE)
        x, t = tensor(torch, x), tensor(torch, t)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, foreach=True)

        def step() -> Any:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), t)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    for name, (make, N) in networks.items():
        x = normal(N, *make().input_shape)
        batch = make, x, np.random.default_rng(0).integers(10, size=N)
        works = ways(partial(ours, *batch), partial(theirs, *batch))
        yield Case(f"{name} batch {N}", works)


# --- measuring --------------------------------------------------------------------------


def numbers(result: Any) -> np.ndarray:
    """Return a result, the course's or PyTorch's, as an array of the CPU."""
    if isinstance(result, CudaArray):
        return host(result)
    return result.detach().cpu().numpy() if hasattr(result, "detach") else np.array(result)


def measured(
    suite: str, case: Case, rounds: int, clock: Any, roof: dict[str, float]
) -> Row:
    """Time the works of a case in turns; one whose library is missing is not run.

    Raises ArithmeticError if two works compute different things.
    """
    works, not_run, first = {}, {}, None
    for name, build in case.works.items():
        try:
            works[name] = build()
        except ImportError as error:
            not_run[name] = str(error)
            continue
        result = works[name]()
        if case.agree:
            a = numbers(result)
            first = a if first is None else first
            if not np.abs(a - first).max() <= AGREE * np.abs(first).max():
                raise ArithmeticError(f"{suite}: {case.name}: {name} differs")
    times = in_turns(rounds, clock, **works)
    ours = times["course"]
    figures = {name: float(np.median(values)) for name, values in times.items()}
    ratios = {k: float(np.median(v / ours)) for k, v in times.items() if k != "course"}
    least = max(case.flops / roof["FMA peak"], case.bytes / roof["bandwidth"])
    if least:
        ratios["roof"] = least / figures["course"]
    return Row(
        suite, case.name, 1, figures, "s", ratios, case.flops, case.bytes, {}, not_run
    )


def limits(clock: Any, size: int = WEIGHTS) -> dict[str, float]:
    """Return the "FMA peak" of the GPU's clock and cores, and the "bandwidth" of a copy."""
    a, b = to("cuda", normal(size)), to("cuda", normal(size))
    work = partial(assign, a, b)
    work()
    peak = float("inf")
    if not a.simulated:
        gpu = native.library().get_current_device()
        cores = gpu.MULTIPROCESSOR_COUNT * CORES.get(native.capability(), 128)
        peak = 2e3 * cores * gpu.CLOCK_RATE  # kHz
    return {"FMA peak": peak, "bandwidth": 2 * a.nbytes / clock.turn(work)}


def rows(wanted: set[str], only: Callable[[str], Any], rounds: int) -> Iterator[Row]:
    """Yield what was asked for, measured."""
    clock = Events()
    roof = limits(clock)
    if "roof" in wanted:
        units = {"FMA peak": "flop/s", "bandwidth": "byte/s"}
        for name, value in roof.items():
            yield Row("roof", name, 1, {"course": value}, units[name])
    suites = {"gemm": gemm, "conv": convolutions, "layers": layers, "steps": steps}
    for suite, cases in suites.items():
        for case in cases() if suite in wanted else ():
            if only(case.name):
                yield measured(suite, case, rounds, clock, roof)


def about() -> dict[str, str]:
    """Return what the figures depend on."""
    found = machine() | {"gpu": ", ".join(native.cuda_devices())}
    capability = ".".join(map(str, native.capability()))
    return found | {"capability": capability, "numba-cuda": native.library().__version__}


def markdown(command: str, about: dict[str, str], rows: list[Row]) -> str:
    """Return the report as Markdown."""
    text = ["# The course on a GPU, beside PyTorch", ""]
    text += [", ".join(f"{name} {value}" for name, value in about.items()) + ".", ""]
    text += [f"    python3 run.py {command}", "", *__doc__.splitlines()[2:]]
    for suite in dict.fromkeys(row.suite for row in rows):
        chosen = [row for row in rows if row.suite == suite]
        text += ["", f"## {suite}", ""]
        if suite == "roof":
            text += [f"{r.case}: {readable(r.figures['course'], r.unit)}  " for r in chosen]
        else:
            text += table(chosen)
    return "\n".join(text) + "\n"


def write(stem: Path, command: str, about: dict, rows: list[Row]) -> list[Path]:
    """Write stem.json and stem.md; return their paths."""
    data = {"command": command, "machine": about, "rows": [asdict(row) for row in rows]}
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("json", "md")]
    write_whole(paths[0], (json.dumps(data, indent=1) + "\n").encode())
    write_whole(paths[1], markdown(command, about, rows).encode())
    return paths
