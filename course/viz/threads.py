"""The picture of a kernel: which thread reads and writes what, counted in the simulator.

A hue says who writes an element: each block has its own, and the last threads of a block
are the darkest. Grey says how often an element is read. Orange belongs to one thread: a
frame around what it reads, a full cell for what it writes, arrows from one to the other.
"""

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.patheffects import withStroke

from course.viz.base import Picture, figure

CHOSEN = "#D55E00"
HUES = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9")
INK, FAINT = "#222222", "#767676"
MOST = 4096  # elements of an array that can be drawn
ROW = 32  # elements: an array of one axis goes on below
WIDTH, TALLEST, MARGIN, GAP, HEAD = 8.0, 5.6, 0.12, 0.45, 0.4  # inches
CELLS = (0.32, 0.28, 0.24, 0.2, 0.17, 0.14, 0.12, 0.1, 0.08, 0.065, 0.05, 0.035)  # inches
WRITTEN = 0.2  # inches: numbers are written into cells as large as this
HALO = [withStroke(linewidth=3, foreground="white")]  # arrows pass under words
SCORE = "global reads", "global writes", "shared reads", "shared writes"

Triple = tuple[int, int, int]
Who = tuple[Triple, Triple]  # block and thread


@dataclass
class Seen:
    """An array as the threads saw it: of each element, how often it was read, and by whom
    it was written last, as block and number of the thread."""

    name: str
    shape: tuple[int, ...]
    shared: bool

    def __post_init__(self):
        if prod(self.shape) > MOST:
            raise ValueError(
                f"{self.name} has shape {self.shape}; at most {MOST} elements can be drawn"
            )
        self.reads = np.zeros(self.shape, int)
        self.writes = np.zeros(self.shape, int)
        self.writer: dict[tuple[int, ...], Who] = {}

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the row and the column where each element is drawn, in flat order.

        More than two axes become planes, a cell apart: along the last of those axes from
        left to right, along all others from top to bottom.
        """
        if len(self.shape) < 2:
            return np.divmod(np.arange(prod(self.shape)), ROW)
        H, W = self.shape[-2:]
        across = self.shape[-3] if len(self.shape) > 2 else 1
        down, right, i, j = np.indices((prod(self.shape[:-3]), across, H, W))
        return (down * (H + 1) + i).ravel(), (right * (W + 1) + j).ravel()


def threads(
    kernel: Any,
    blocks: int | tuple[int, ...],
    threads: int | tuple[int, ...],
    *arguments: Any,
    thread: int | tuple[int, ...] | None = None,
) -> Picture:
    """Draw which elements the threads of a kernel read and write, and count them.

    The kernel runs in the simulator as kernel[blocks, threads](*arguments), on copies of
    the arrays, wherever they are. `thread` is the one in orange, by the numbers that
    cuda.grid gives it; with None it is one of the busiest. Of shared memory that of its
    block is drawn. Raises ValueError for an array too large to draw and for a thread that
    the grid does not have, and whatever the simulator finds wrong with the kernel.
    """
    blocks, threads = _three(blocks), _three(threads)
    steps, arrays = _run(kernel, blocks, threads, arguments)
    who = _chosen(steps, threads, thread)
    for other, done in steps.items():
        for name, index, kind in done:
            a = arrays[name]
            if a.shared and other[0] != who[0]:
                continue
            a.reads[index] += kind != "write"
            if kind != "read":
                a.writes[index] += 1
                a.writer[index] = other
    scores = {other: _score(done, arrays) for other, done in steps.items()}
    touched = [a for a in arrays.values() if a.reads.any() or a.writes.any()]
    grid = f"{_count(blocks)} {_plural('block', blocks)} of {_count(threads)} threads"
    words = [f"Kernel {kernel.__name__}, {grid}.", *(_in_words(a) for a in touched)]
    words.append(_scores_in_words(scores))
    name = f"thread {_short(who[1], threads)} of block {_short(who[0], blocks)}"
    words.append(f"In orange, {name} {_steps_in_words(steps[who], arrays)}.")
    title = f"{kernel.__name__}: {grid}", f"in orange: {name}, what it reads"
    fig = _draw(title, touched, threads, steps[who], scores)
    return Picture(fig, " ".join(words))


# --- what happens -----------------------------------------------------------------------


def _run(kernel: Any, blocks: Triple, threads: Triple, arguments: tuple) -> tuple:
    """Return the accesses of every thread, in order, and the arrays by name."""
    from course.cuda import simulator
    from course.device import Array, host, simulated, to

    steps: dict[Who, list] = {
        (b[::-1], t[::-1]): []
        for b in product(*map(range, blocks[::-1]))
        for t in product(*map(range, threads[::-1]))
    }
    names = kernel.function.__code__.co_varnames
    arrays = {
        name: Seen(name, a.shape, False)
        for name, a in zip(names, arguments, strict=False)
        if isinstance(a, Array)
    }

    def watch(name: str, index: tuple, kind: str, thread: Any, _: int) -> None:
        if name not in arrays:
            for a in thread.block.shared.values():
                arrays.setdefault(a.name, Seen(a.name, a.shape, True))
        steps[thread.block.index, thread.index].append((name, index, kind))

    with simulated():
        moved = [to("cuda", host(a)) if isinstance(a, Array) else a for a in arguments]
        with simulator.run_with(races=True, watch=watch, order="forward", dry=False):
            kernel[blocks, threads](*moved)
    return steps, arrays


def _three(numbers: int | tuple[int, ...]) -> Triple:
    """Return how many there are along x, y and z."""
    given = numbers if isinstance(numbers, tuple) else (numbers,)
    return (*given, 1, 1, 1)[:3]


def _chosen(steps: dict, threads: Triple, thread: int | tuple[int, ...] | None) -> Who:
    """Return the block and the thread at this place of the grid, or a busy one."""
    if thread is None:
        most = max(map(len, steps.values()))
        busy = [who for who, done in steps.items() if len(done) == most]
        return busy[len(busy) * 3 // 5]  # not in a corner
    place = (*(thread if isinstance(thread, tuple) else (thread,)), 0, 0)[:3]
    both = [divmod(k, size) for k, size in zip(place, threads, strict=True)]
    who = tuple(k for k, _ in both), tuple(k for _, k in both)
    if who not in steps:
        raise ValueError(f"thread {thread} is none of this grid")
    return who


def _score(done: list, arrays: dict[str, Seen]) -> tuple[int, ...]:
    """Return how often a thread reads and writes global and shared memory."""
    found = [0, 0, 0, 0]
    for name, _, kind in done:
        place = 2 * arrays[name].shared
        found[place] += kind != "write"
        found[place + 1] += kind != "read"
    return tuple(found)


def _flows(done: list, arrays: dict[str, Seen]) -> dict:
    """Return the first way from each array that a thread reads to each that it writes.

    {(from, to): (index read, index written)}. What is read before a write counts as its
    cause; between two shared arrays there is no way, it goes through registers.
    """
    last, found = {}, {}
    for name, index, kind in done:
        if kind == "write":
            for source, read in last.items():
                if not (arrays[source].shared and arrays[name].shared) and source != name:
                    found.setdefault((source, name), (read, index))
            last = {}
        else:
            last[name] = index
    return found


# --- in words ---------------------------------------------------------------------------


def _count(sizes: Triple) -> str:
    """Return (8, 1, 1) as "8", (16, 16, 1) as two numbers with a sign between."""
    used = list(sizes)
    while len(used) > 1 and used[-1] == 1:
        used.pop()
    return " × ".join(map(str, used))


def _plural(word: str, sizes: Triple) -> str:
    """Return the word, with an s unless there is one."""
    return word + "s" * (prod(sizes) != 1)


def _short(index: Triple, sizes: Triple) -> str:
    """Return as many of the numbers as the sizes have axes: "3", "(3, 0)"."""
    axes = max([k + 1 for k, size in enumerate(sizes) if size > 1], default=1)
    return str(index[0]) if axes == 1 else f"({', '.join(map(str, index[:axes]))})"


def _times(counts: np.ndarray) -> str:
    """Return "once", "3 times" or "1 to 9 times", of those that are not 0."""
    low, high = counts[counts > 0].min(), counts.max()
    if low < high:
        return f"{low} to {high} times"
    return "once" if low == 1 else f"{low} times"


def _use(a: Seen) -> str:
    """Return how often the elements of an array are read and written."""
    verbs = ("read", a.reads), ("written", a.writes)
    return ", ".join(f"{verb} {_times(n)}" for verb, n in verbs if n.any())


def _in_words(a: Seen) -> str:
    """Return name, shape and use of an array."""
    return f"{a.name} ({' × '.join(map(str, a.shape))}): {_use(a)}."


def _number(values: list[int]) -> str:
    """Return the number that all threads have, or the least and the most."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


def _scores_in_words(scores: dict[Who, tuple[int, ...]]) -> str:
    """Return what a thread reads and writes, and all of them together."""
    columns = list(zip(*scores.values(), strict=True))
    each = [f"{what} {_number(n)}" for n, what in zip(columns, SCORE, strict=True)]
    total = [f"{what} {sum(n)}" for n, what in zip(columns, SCORE, strict=True)]
    return f"Each thread: {', '.join(each)}. All together: {', '.join(total)}."


def _region(name: str, places: list[tuple[int, ...]]) -> str:
    """Return elements as a box, x[0, 3:5], or how many they are."""
    axes = [sorted(set(axis)) for axis in zip(*places, strict=True)]
    full = all(axis[-1] - axis[0] + 1 == len(axis) for axis in axes)
    if not full or prod(map(len, axes)) != len(places):
        return f"{len(places)} elements of {name}"
    spans = [str(k[0]) if len(k) == 1 else f"{k[0]}:{k[-1] + 1}" for k in axes]
    return f"{name}[{', '.join(spans)}]"


def _touched(done: list, name: str, kinds: tuple[str, ...]) -> list[tuple[int, ...]]:
    """Return which elements of an array a thread touches, each once."""
    return sorted({index for other, index, kind in done if other == name and kind in kinds})


def _steps_in_words(done: list, arrays: dict[str, Seen]) -> str:
    """Return what one thread reads and writes."""
    said = []
    for verb, kinds in (("reads", ("read", "atomic")), ("writes", ("write", "atomic"))):
        found = {name: _touched(done, name, kinds) for name in arrays}
        regions = [_region(name, places) for name, places in found.items() if places]
        said.append(f"{verb} {', '.join(regions) or 'nothing'}")
    return " and ".join(said)


# --- in ink -----------------------------------------------------------------------------


@dataclass
class Panel:
    """Where an array is drawn: its corner and the size of its cells, in inches."""

    a: Seen
    x: float
    y: float
    cell: float

    def __post_init__(self):
        rows, columns = self.a.cells()
        places = self.x + columns * self.cell, self.y + rows * self.cell
        self.corners = np.stack(places, axis=1).reshape(*self.a.shape, 2)

    def corner(self, index: tuple[int, ...]) -> tuple[float, float]:
        """Return where the element's cell begins."""
        x, y = self.corners[index]
        return x, y


def _layout(arrays: list[Seen]) -> tuple[list[Panel], float]:
    """Return the panels, with the largest cells that fit, and how far down they reach.

    What is only read comes first, then shared memory, then what is written: from left to
    right, and below where the line is full.
    """
    order = sorted(arrays, key=lambda a: (a.shared or a.writes.any(), not a.shared))
    panels, bottom = [], 0.0
    for cell in CELLS:
        panels, x, y, bottom, wide = [], MARGIN, 0.78, 0.0, MARGIN
        for k, a in enumerate(order):
            rows, columns = a.cells()
            width = (columns.max(initial=0) + 1) * cell
            new = k and a.shared and not order[k - 1].shared
            if x > MARGIN and (new or x + max(width, _text(a)) > WIDTH - MARGIN):
                x, y = MARGIN, bottom + 0.2
            panels.append(Panel(a, x, y + HEAD, cell))
            wide = max(wide, x + width)
            bottom = max(bottom, y + HEAD + (rows.max(initial=0) + 1) * cell)
            x += max(width, _text(a)) + GAP
        if bottom <= TALLEST and wide <= WIDTH - MARGIN:
            break
    return panels, bottom


def _text(a: Seen) -> float:
    """Return how wide the two lines above an array are, in inches, about."""
    return 0.065 * max(len(a.name) + 4 * len(a.shape) + 3, len(_use(a)))


def _shade(color: str, much: float) -> tuple[float, ...]:
    """Return the colour, or as much of it as is not white."""
    return tuple(1 - much * (1 - part) for part in to_rgb(color))


def _hue(block: Triple) -> str:
    """Return the colour of a block, other than those of its neighbours."""
    x, y, z = block
    return HUES[(x + 2 * y + z) % len(HUES)]


def _rank(index: Triple, sizes: Triple) -> int:
    """Return the number of a thread in its block."""
    return index[0] + sizes[0] * (index[1] + sizes[1] * index[2])


def _draw(
    title: tuple[str, str], arrays: list[Seen], threads: Triple, done: list, scores: dict
) -> Figure:
    """Draw the arrays, what the chosen thread does, and the score; all in inches."""
    panels, bottom = _layout(arrays)
    height = bottom + 1.3
    fig, axis = figure(width=WIDTH, height=height)
    fig.set_layout_engine("none")
    axis.set(position=(0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axis.axis("off")
    large = panels[0].cell >= WRITTEN
    words = (
        f"coloured: the block that writes{', and the number of its thread' * large};  "
        f"grey: only read{', and how often' * large}"
    )
    for y, size, color, text in (
        (0.22, 12, INK, title[0]),
        (0.46, 9, CHOSEN, f"{title[1]} (framed) and writes (full)"),
        (0.68, 8, FAINT, words),
    ):
        axis.text(MARGIN, y, text, fontsize=size, color=color, va="center")
    for panel in panels:
        _panel(axis, panel, threads, _touched(done, panel.a.name, ("write", "atomic")))
        _frame(axis, panel, _touched(done, panel.a.name, ("read", "atomic")))
    where = {panel.a.name: panel for panel in panels}
    flows = _flows(done, {a.name: a for a in arrays})
    for (source, target), (read, written) in flows.items():
        _arrow(axis, where[source], read, where[target], written)
    _board(axis, scores, bottom + 0.3)
    return fig


def _panel(axis: Axes, panel: Panel, threads: Triple, written: list) -> None:
    """Draw an array: who writes an element, or how often it is read."""
    a, s = panel.a, panel.cell
    size, most = prod(threads), a.reads.max()
    if (a.reads == most).all():
        most *= 2  # nothing to compare with: a lighter grey
    patches, colors = [], []
    for index in np.ndindex(a.shape):
        x, y = panel.corner(index)
        color, label = (1.0, 1.0, 1.0), ""
        if index in a.writer:
            block, thread = a.writer[index]
            rank = _rank(thread, threads)
            color = _shade(_hue(block), 0.25 + 0.6 * (rank + 1) / size)
            label = str(rank)
        elif a.reads[index]:
            color = _shade("#000000", 0.03 + 0.3 * a.reads[index] / most)
            label = str(a.reads[index])
        if index in written:
            color = to_rgb(CHOSEN)
        patches.append(Rectangle((x, y), s, s))
        colors.append(color)
        if s >= WRITTEN and label:
            axis.text(
                x + s / 2,
                y + s / 2,
                label,
                ha="center",
                va="center",
                fontsize=min(8, 30 * s),
                color="white" if index in written or sum(color) < 1.6 else INK,
                gid=a.name,
            )
    line = {"edgecolor": "#b5b5b5", "linewidth": 0.5}
    if s < 0.1:  # too small for lines
        line = {"edgecolor": "none", "antialiased": False}
    cells = PatchCollection(patches, facecolor=colors, **line)
    cells.set_gid(a.name)
    axis.add_collection(cells, autolim=False)
    shape = " × ".join(map(str, a.shape))
    words = {"path_effects": HALO, "zorder": 5}
    axis.text(panel.x, panel.y - 0.24, f"{a.name}  {shape}", fontsize=9, color=INK, **words)
    axis.text(panel.x, panel.y - 0.08, _use(a), fontsize=8, color=FAINT, **words)


def _frame(axis: Axes, panel: Panel, read: list) -> None:
    """Draw a line around these elements of an array."""
    s, corners = panel.cell, [panel.corner(index) for index in read]
    inside = {(round(x / s, 3), round(y / s, 3)) for x, y in corners}
    lines = []
    for x, y in corners:
        for dx, dy, edge in (
            (-1, 0, [(0, 0), (0, 1)]),
            (1, 0, [(1, 0), (1, 1)]),
            (0, -1, [(0, 0), (1, 0)]),
            (0, 1, [(0, 1), (1, 1)]),
        ):
            if (round(x / s + dx, 3), round(y / s + dy, 3)) not in inside:
                lines.append([(x + u * s, y + v * s) for u, v in edge])
    frame = LineCollection(
        lines,
        colors=CHOSEN,
        linewidths=min(2.2, max(1, 12 * s)),
        capstyle="projecting",
        zorder=3,
    )
    axis.add_collection(frame, autolim=False)


def _arrow(axis: Axes, source: Panel, read: tuple, target: Panel, written: tuple) -> None:
    """Draw an arrow from a cell of one array to a cell of another."""
    ends = [
        (x + panel.cell / 2, y + panel.cell / 2)
        for panel, (x, y) in (
            (source, source.corner(read)),
            (target, target.corner(written)),
        )
    ]
    axis.add_patch(
        FancyArrowPatch(
            *ends,
            connectionstyle="arc3,rad=0.16",
            arrowstyle="-|>",
            mutation_scale=11,
            color=CHOSEN,
            linewidth=1.4,
            shrinkA=36 * source.cell,
            shrinkB=36 * target.cell,
            zorder=4,
        )
    )


def _board(axis: Axes, scores: dict, y: float) -> None:
    """Write the score: four numbers, for each thread and for all."""
    axis.hlines(y - 0.12, MARGIN, WIDTH - MARGIN, color="#d0d0d0", linewidth=0.8)
    words: dict[str, Any] = {"va": "center", "fontsize": 9}
    axis.text(MARGIN, y + 0.2, "each thread", color=FAINT, **words)
    axis.text(MARGIN, y + 0.76, "all together", color=FAINT, **words)
    for k, (what, values) in enumerate(
        zip(SCORE, zip(*scores.values(), strict=True), strict=True)
    ):
        x, ink = 2.0 + 1.6 * k, INK if any(values) else "#b5b5b5"
        words = {"va": "center", "ha": "center", "color": ink}
        axis.text(x, y + 0.2, _number(values), fontsize=17, **words)
        axis.text(x, y + 0.5, what, fontsize=9, **words)
        axis.text(x, y + 0.76, str(sum(values)), fontsize=9, **words)
