"""What the course demands of itself, beside what was measured.

A bar is a number that one thread, or two, must reach. Ratios are the time of the other
over ours: above 1 the course is faster.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from course.bench.cases import Row


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean, under which 2 and 1/2 make 1.

    >>> geometric_mean([2.0, 0.5])
    1.0
    """
    return float(np.exp(np.mean(np.log(list(values)))))


@dataclass(frozen=True)
class Bar:
    """A demand.

    Attributes
    ----------
    item : what it says in the table
    rows : a pattern of "suite: case" that the rows match from their beginning
    value : from a row to its number, or None if it was not measured
    demands : for one thread and for two
    of : how the rows' numbers become one
    most : must the number be at most the demand, and not at least?
    """

    item: str
    rows: str
    value: Callable[[Row], float | None]
    demands: tuple[float, float]
    of: Callable[[Iterable[float]], float] = min
    most: bool = False


def over(way: str, ours: str = "course") -> Callable[[Row], float | None]:
    """Return the function from a row to the time of `way` over the time of `ours`."""

    def value(row: Row) -> float | None:
        if way not in row.ratios:
            return None
        return row.ratios[way] / (1 if ours == "course" else row.ratios[ours])

    return value


def share(row: Row) -> float | None:
    """Return our share of what the machine allows."""
    return row.ratios.get("roof")


def figure(row: Row) -> float | None:
    """Return what the course needs."""
    return row.figures.get("course")


def accuracy(row: Row) -> float | None:
    """Return our largest error, over what is allowed: twice PyTorch's, or 1e-6."""
    if not {"course", "pytorch"} <= row.error.keys():
        return None
    pairs = zip(row.error["course"], row.error["pytorch"], strict=True)
    return max(ours / max(2 * theirs, 1e-6) for ours, theirs in pairs)


BIG = "conv: (cifar2b|vgg56n8|vgg14n8|res3s2|dil2) forward"
MAPS = ", 64x32x32x32"
BARS = [
    *(
        bar
        for what, means, least in (
            ("forward", ((1.25, 1.35), (1.05, 1.05)), (0.95, 0.88)),
            ("backward", ((1.5, 1.5), (1.2, 1.2)), (0.95, 0.88)),
        )
        for way, mean, low in zip(("pytorch", "channels last"), means, least, strict=True)
        for bar in (
            Bar(
                f"convolution {what} / {way}, mean of the shapes",
                f"conv: .* {what}",
                over(way),
                mean,
                geometric_mean,
            ),
            Bar(
                f"convolution {what} / {way}, worst shape",
                f"conv: .* {what}",
                over(way),
                (low, low),
            ),
        )
    ),
    Bar("convolution / roof, 3x3, many images", BIG, share, (0.85, 0.85)),
    Bar(
        "convolution / roof, 3x3, one image",
        "conv: vgg..n1 forward",
        share,
        (0.78, 0.78),
    ),
    Bar(
        "convolution forward / NumPy's im2col, mean",
        "conv: .* forward",
        over("numpy"),
        (3, 3),
        geometric_mean,
    ),
    Bar(
        "convolution forward / plain loops, mean",
        "conv: .* forward",
        over("loops"),
        (80, 80),
        geometric_mean,
    ),
    Bar("loops by runs / PyTorch", "rungs: vgg56n8", over("pytorch", "runs"), (0.35, 0.35)),
    Bar("error against float64, in what is allowed", "conv", accuracy, (1, 1), max, True),
    Bar("linear / PyTorch's MKL, worst", "gemm: affine", over("pytorch"), (0.95, 0.95)),
    Bar("linear / NumPy's OpenBLAS, worst", "gemm: affine", over("numpy"), (1.1, 1.1)),
    Bar("square product / MKL, worst", "gemm: square", over("pytorch"), (0.9, 0.9)),
    Bar("square product / OpenBLAS, worst", "gemm: square", over("numpy"), (1, 1)),
    Bar("step of softmax, batch 64", "steps: softmax batch 64", over("pytorch"), (4, 4)),
    Bar("step of MLP, batch 64", "steps: MLP batch 64", over("pytorch"), (2, 2)),
    Bar("step of MLP, batch 128", "steps: MLP batch 128", over("pytorch"), (1.7, 1.7)),
    Bar(
        "step of MLP / scikit-learn, batch 64",
        "steps: MLP batch 64",
        over("scikit-learn"),
        (8, 8),
    ),
    Bar(
        "step of MLP / scikit-learn, batch 128",
        "steps: MLP batch 128",
        over("scikit-learn"),
        (4, 4),
    ),
    Bar(
        "step of LeNet-5, batch 64 and 128",
        "steps: LeNet-5 batch (64|128)",
        over("pytorch"),
        (3.5, 3.5),
    ),
    Bar(
        "step of LeNet-5 / channels last",
        "steps: LeNet-5 batch (64|128)",
        over("channels last"),
        (3, 3),
    ),
    Bar("step of CIFAR, batch 64", "steps: CIFAR batch 64", over("pytorch"), (1.5, 1.5)),
    Bar(
        "step of CIFAR / channels last",
        "steps: CIFAR batch 64",
        over("channels last"),
        (1.2, 1.2),
    ),
    Bar("step of CIFAR / roof", "steps: CIFAR batch 64", share, (0.77, 0.77)),
    Bar("any step / PyTorch compiled", "steps", over("compiled"), (1.9, 1.9)),
    Bar(
        "step of CS231n's network / NumPy's im2col",
        "steps: three-layer batch (64|128)",
        over("numpy"),
        (10, 10),
    ),
    *(
        Bar(f"{name} / PyTorch", f"layers: {pattern}", over("pytorch"), (least, least))
        for name, pattern, least in (
            ("batch norm forward", rf"BatchNorm2d\(32\) forward{MAPS}", 3),
            ("max pool forward", rf"MaxPool2d\(2\) forward{MAPS}", 15),
            ("dropout forward", rf"Dropout\(0.5\) forward{MAPS}", 20),
            ("Adam / foreach", "Adam.*foreach", 3),
            ("cross-entropy, 64x10", "cross-entropy.*64x10", 8),
        )
    ),
    *(
        Bar(f"{name} / {limit}", f"layers: {pattern}", value, (least, least))
        for name, pattern in (
            ("ReLU forward", rf"ReLU\(\) forward{MAPS}"),
            ("batch norm backward", rf"BatchNorm2d\(32\) backward{MAPS}"),
            ("max pool backward", rf"MaxPool2d\(2\) backward{MAPS}"),
            ("cross-entropy, 512x1000", "cross-entropy.*512x1000"),
        )
        for limit, value, least in (
            ("PyTorch", over("pytorch"), 0.95),
            ("roof", share, 0.8),
        )
    ),
    Bar(
        "cross-entropy 64x10, microseconds",
        "layers: cross-entropy.*64x10",
        lambda row: figure(row) and 1e6 * figure(row),
        (5, 5),
        max,
        True,
    ),
    *(
        Bar(f"{case}, seconds", f"start: {case}", figure, (most, most), max, True)
        for case, most in (
            ("import", 0.35),
            ("first LeNet-5 step, warm", 1.0),
            ("one layer, cold", 1.2),
            ("first LeNet-5 step, cold", 6),
        )
    ),
    Bar(
        "warmup by 1 and by 2 processes, seconds",
        "start: warmup",
        figure,
        (25, 13),
        max,
        True,
    ),
    Bar("peak memory of a step / PyTorch's", "memory", over("pytorch"), (1, 1)),
]


@dataclass(frozen=True)
class Verdict:
    """A bar and what was measured."""

    item: str
    threads: int
    demand: str
    value: float
    met: bool


def verdicts(rows: list[Row]) -> list[Verdict]:
    """Return each bar that was measured, with one thread and with two."""
    found = []
    for bar in BARS:
        for threads, demand in enumerate(bar.demands, 1):
            values = [
                value
                for row in rows
                if row.threads == threads and re.match(bar.rows, f"{row.suite}: {row.case}")
                if (value := bar.value(row)) is not None
            ]
            if values:
                value = bar.of(values)
                met = value <= demand if bar.most else value >= demand
                text = f"{'≤' if bar.most else '≥'} {demand:g}"
                found.append(Verdict(bar.item, threads, text, value, met))
    return [*found, *scaling(rows)]


def scaling(rows: list[Row]) -> list[Verdict]:
    """Return whether two threads are 1.8 times as fast, on shapes of 8 images and more."""
    pattern = re.compile(r"(?!.*n1 |stem).* (forward|backward)")
    times: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.suite == "conv" and pattern.fullmatch(row.case) and figure(row):
            times.setdefault(row.case, {})[row.threads] = figure(row)
    gains = [both[1] / both[2] for both in times.values() if both.keys() >= {1, 2}]
    if not gains:
        return []
    value = geometric_mean(gains)
    item = "convolution, one thread / two, mean of the shapes"
    return [Verdict(item, 2, "≥ 1.8", value, value >= 1.8)]
