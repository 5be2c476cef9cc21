"""A network as a drawing: a block for each layer, as large as what the layer makes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import ceil, prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle, FancyArrowPatch, Patch, Polygon
from matplotlib.path import Path

from course.layers import Linear, ZeroPad2d
from course.layers.base import Layer
from course.model import Branches, Container, Residual
from course.summary import Row, Summary, slides, summary
from course.viz.base import Picture, figure

KINDS = {  # of a block: its colour and hatch, and what one is called
    "input": ("#999999", "", "input"),
    "convolution": ("#0072B2", "", "convolution"),
    "pooling": ("#D55E00", "/////", "pool"),
    "up-sampling": ("#CC79A7", ".....", "up-sampling"),
    "joined channels": ("#E69F00", "|||||", "join of branches"),
    "dense": ("#009E73", "", "dense layer"),
}
LINE = "#555555"
WIDE = 8.4  # inches: a longer network is drawn smaller, and a very long one in rows
SIDE = 1.5  # inches: the largest feature map, if it is not drawn smaller or larger
LARGEST = 1.3  # how much larger a short network is drawn
BELOW = 0.55  # inches for what is written below a row
LEAN = 0.36, 0.26  # how far the depth of a block goes to the right and up, for each inch
CLOSE, APART, FORK, BOW = 0.06, 0.16, 0.14, 0.1  # inches between what is drawn


class _Box(NamedTuple):
    """What one layer makes: (C, H, W), (C, L) or (numbers,)."""

    kind: str
    shape: tuple[int, ...]


class _Fork(NamedTuple):
    """Several chains side by side, and what they make together."""

    lanes: list[list]
    joined: _Box


class _Around(NamedTuple):
    """A chain with a way round it; `plain` if no layer is on that way."""

    body: list
    plain: bool


def architecture(model: Container, input_shape: Sequence[int] | None = None) -> Picture:
    """Return the network as blocks, from the input on the left to the output.

    The face of a block shows height and width of the feature map, its thickness the
    channels, a bar the numbers of a dense layer; all by their square root, so that small
    ones can be seen. Activations, normalisation and what only looks at its input in another
    way are left out. A bow goes round the body of a Residual, dashed if layers are on it;
    Branches lie one above the other. Below are channels and, under the line, height x
    width. `input_shape` is that of one image, as (3, 32, 32); without it that of
    `model.input_shape` is taken. Raises as `course.summary.summary` does.
    """
    table = summary(model, input_shape)
    rows = {row.name: row for row in table.rows}
    items = [_Box("input", table.input_shape), *_items(model, "", rows)]
    drawing = _Drawing(items)
    lines = drawing.lines(items)
    heights = [max(map(drawing.up, line)) for line in lines]
    kinds = [kind for kind in KINDS if any(box.kind == kind for box in _boxes(items))]
    wide = max(max(drawing.places(line)[1] for line in lines), 1.2 * len(kinds))
    high = sum(heights) + BELOW * len(lines) + 0.6
    fig, axes = figure(width=wide + 0.4, height=high)
    fig.get_layout_engine().set(w_pad=0, h_pad=0)
    axes.set(xlim=(-0.2, wide + 0.2), ylim=(0, high), aspect="equal")
    axes.axis("off")
    title = f"{_grouped(table.parameters)} parameters, {_rounded(table.multiply_adds)}"
    axes.text(-0.1, high - 0.12, f"{title} multiply-adds", va="center")
    top = high - 0.3
    for k, (line, height) in enumerate(zip(lines, heights, strict=True)):
        drawing.line(axes, line, top - height / 2, top - height, k < len(lines) - 1)
        top -= height + BELOW
    patches = [
        Patch(fc=_tint(KINDS[k][0], 0.5), ec=LINE, hatch=KINDS[k][1], lw=0.6) for k in kinds
    ]
    axes.legend(
        patches, kinds, loc="lower center", ncols=len(kinds), borderaxespad=0, fontsize=8
    )
    return Picture(fig, _alt(table, items))


# --- what there is to draw --------------------------------------------------------------


def _items(layer: Layer, name: str, rows: dict[str, Row]) -> list:
    """Return what there is to draw of a layer with this full name."""
    dot = f"{name}." if name else ""
    if isinstance(layer, Residual):
        after = _items(layer.after, f"{dot}after", rows) if layer.after else []
        return [_Around(_chain(layer.body, dot, rows), layer.shortcut is None), *after]
    if isinstance(layer, Branches):
        lanes = [_items(child, dot + k, rows) for k, child in layer.children.items()]
        return [_Fork(lanes, _Box("joined channels", rows[name].output_shape))]
    if isinstance(layer, Container):
        return _chain(layer, dot, rows)
    row = rows.get(name)
    kind = row and _kind(layer, row.input_shape, row.output_shape)
    return [_Box(kind, row.output_shape)] if kind else []


def _chain(layer: Container, dot: str, rows: dict[str, Row]) -> list:
    """Return what there is to draw of the children, one after the other."""
    return [item for k, c in layer.children.items() for item in _items(c, dot + k, rows)]


def _kind(layer: Layer, before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """Return what kind of block a layer is, or nothing if it is not drawn."""
    layer = getattr(layer, "layer", layer)  # of one that only prepares the input of another
    weights = slides(layer) and "weight" in layer.params
    if len(after) == 1:
        dense = isinstance(layer, Linear) or (len(before) == 1 and before != after)
        return "dense" if dense else ""
    if weights:
        return "convolution"
    if len(before) != len(after) or isinstance(layer, ZeroPad2d):
        return ""
    less, more = prod(after[1:]) < prod(before[1:]), prod(after[1:]) > prod(before[1:])
    return "pooling" if less or slides(layer) else "up-sampling" * more  # perhaps stride 1


def _boxes(items: list) -> Iterator[_Box]:
    """Yield every block, also those in lanes and bodies."""
    for item in items:
        if isinstance(item, _Box):
            yield item
        elif isinstance(item, _Around):
            yield from _boxes(item.body)
        else:
            for lane in item.lanes:
                yield from _boxes(lane)
            yield item.joined


def _alt(table: Summary, items: list) -> str:
    """Return in words what is drawn, with the numbers."""
    counts = Counter(KINDS[box.kind][2] for box in _boxes(items) if box.kind != "input")
    counts["residual sum"] = sum(isinstance(item, _Around) for item in _all(items))
    words = [_counted(count, word) for word, count in counts.items() if count]
    maps = [_by(shape) for shape, _ in groupby(box.shape for box in _main(items))]
    return (
        f"A network of {_listed(words)}, from left to right. It makes {' -> '.join(maps)}. "
        f"It has {_grouped(table.parameters)} parameters and takes "
        f"{_grouped(table.multiply_adds)} multiply-adds for one image."
    )


def _all(items: list) -> Iterator[Any]:
    """Yield every item, and those inside others."""
    for item in items:
        yield item
        inner = getattr(item, "lanes", [getattr(item, "body", [])])
        for chain in inner:
            yield from _all(chain)


def _main(items: list) -> Iterator[_Box]:
    """Yield the blocks on the way from input to output, none of a lane."""
    for item in items:
        if isinstance(item, _Box):
            yield item
        elif isinstance(item, _Around):
            yield from _main(item.body)
        else:
            yield item.joined


# --- how it is drawn --------------------------------------------------------------------


class _Drawing:
    """The sizes of a network's blocks, in inches, and how they are drawn."""

    def __init__(self, items: list):
        boxes = list(_boxes(items))
        maps = [box.shape for box in boxes if len(box.shape) > 1]
        self.pixels = max((n for shape in maps for n in shape[1:]), default=1)
        self.channels = max((shape[0] for shape in maps), default=1)
        self.numbers = max((b.shape[0] for b in boxes if len(b.shape) == 1), default=1)
        self.scale = 1.0
        self.painted = 10  # how many blocks there are already: later ones are in front

    def lines(self, items: list) -> list[list]:
        """Return the items in one row, or in several; and choose the scale."""
        places, wide = self.places(items)
        count = 1 if wide < 1.6 * WIDE else ceil(wide / (1.2 * WIDE))
        lines = [[] for _ in range(count)]
        for item, place in zip(items, places, strict=True):
            lines[int(place / wide * count)].append(item)
        lines = [line for line in lines if line]
        wide = max(self.places(line)[1] for line in lines)
        self.scale = min(LARGEST, WIDE / wide)
        return lines

    def block(self, box: _Box) -> tuple[float, float, float]:
        """Return thickness, height and depth of a block; a bar has no depth."""
        if len(box.shape) == 1:
            high = 0.15 + 0.85 * SIDE * sqrt(box.shape[0] / self.numbers)
            return 0.1 * self.scale, high * self.scale, 0.0
        C, H, W = box.shape if len(box.shape) == 3 else (box.shape[0], 1, box.shape[1])
        thick = 0.04 + 0.26 * sqrt(C / self.channels)
        high, deep = (max(SIDE * sqrt(n / self.pixels), 0.09) for n in (H, W))
        return thick * self.scale, high * self.scale, deep * self.scale

    def up(self, item: Any) -> float:
        """Return how high an item is, as drawn."""
        if isinstance(item, _Box):
            _, high, deep = self.block(item)
            return high + LEAN[1] * deep
        if isinstance(item, _Around):
            return max(map(self.up, item.body), default=0.2) + 2 * BOW * self.scale
        return max(sum(map(self.lane, item.lanes)), self.up(item.joined))

    def lane(self, items: list) -> float:
        """Return how high a lane is, with some air."""
        return max(map(self.up, items), default=0.1 * self.scale) + 0.06 * self.scale

    def across(self, item: Any) -> float:
        """Return how wide an item is, as drawn."""
        if isinstance(item, _Box):
            thick, _, deep = self.block(item)
            return thick + LEAN[0] * deep
        if isinstance(item, _Around):
            return self.places(item.body)[1] + (FORK + BOW) * self.scale
        lanes = max(self.places(lane)[1] for lane in item.lanes)
        return lanes + 2 * FORK * self.scale + self.across(item.joined)

    def places(self, items: list) -> tuple[list[float], float]:
        """Return where each item begins, and how wide all of them are together."""
        places, x = [], 0.0
        for k, item in enumerate(items):
            before = items[k - 1] if k else item
            pair = isinstance(before, _Box) and isinstance(item, _Box)
            if k and pair and self.near(before, item):
                x -= LEAN[0] * self.block(before)[2]
                x += CLOSE * self.scale
            elif k:
                bars = pair and len(item.shape) == 1
                x += (2 if bars else 1) * APART * self.scale
            places.append(x)
            x += self.across(item)
        return places, x

    @staticmethod
    def near(before: _Box, box: _Box) -> bool:
        """Say whether a block stands close to the one before it, and hides part of it."""
        if len(before.shape) != len(box.shape) or len(box.shape) == 1:
            return False
        return before.shape[1:] == box.shape[1:] or box.kind == "pooling"

    def line(self, axes: Axes, items: list, y: float, low: float, goes_on: bool) -> None:
        """Draw a row of items along the height y, and what is written below it."""
        written: list[tuple[float, float, _Box]] = []
        end = self.chain(axes, items, 0.0, y, written)
        axes.plot([0, end], [y, y], color=LINE, lw=0.8, zorder=0)
        if goes_on:
            arrow = {"arrowstyle": "-|>", "color": LINE, "lw": 0.8}
            axes.annotate("", (end + 0.2, y), (end, y), arrowprops=arrow)
        words = {"ha": "center", "va": "center", "fontsize": 7.5}
        for _, group in groupby(written, key=lambda p: (p[2].shape[0], len(p[2].shape))):
            places = list(group)
            middle = (places[0][0] + places[-1][1]) / 2
            axes.text(middle, low - 0.09, places[0][2].shape[0], **words)
        taken = -1.0  # how far to the right there are letters already
        for size, group in groupby(written, key=lambda place: place[2].shape[1:]):
            places = list(group)
            left, right = places[0][0], places[-1][1]
            if not size or size == (1, 1):
                continue
            axes.plot([left, right], [low - 0.19] * 2, color=LINE, lw=0.8)
            middle, half = (left + right) / 2, 0.033 * len(_by(size))
            down = 0.12 if middle - half < taken else 0.0
            axes.text(middle, low - 0.28 - down, _by(size), color=LINE, **words)
            taken = middle + half

    def chain(self, axes: Axes, items: list, x: float, y: float, written: list) -> float:
        """Draw items from x on, along the height y; return where they end."""
        places, wide = self.places(items)
        for item, place in zip(items, places, strict=True):
            if isinstance(item, _Box):
                self.box(axes, item, x + place, y, written)
            elif isinstance(item, _Around):
                self.around(axes, item, x + place, y, written)
            else:
                self.fork(axes, item, x + place, y, written)
        return x + wide

    def box(self, axes: Axes, box: _Box, x: float, y: float, written: list) -> None:
        """Draw a block, its left edge at x and its middle at the height y."""
        thick, high, deep = self.block(box)
        right, back = LEAN[0] * deep, LEAN[1] * deep
        low = y - (high + back) / 2
        a, b, c, d = (x, low), (x + thick, low), (x + thick, low + high), (x, low + high)
        away = np.array([right, back])
        colour, hatch, _ = KINDS[box.kind]
        self.painted += 1
        faces = [
            ((d, c, c + away, d + away), 0.35),  # the top
            ((b, c, c + away, b + away), 0.2),  # the feature map
            ((a, b, c, d), 0.55),  # the front: its width are the channels
        ]
        for corners, tint in faces if deep else faces[2:]:
            axes.add_patch(
                Polygon(
                    np.array([tuple(corner) for corner in corners]),
                    fc=_tint(colour, tint),
                    ec=LINE,
                    lw=0.5,
                    hatch=hatch if tint == 0.55 else "",
                    zorder=self.painted,
                )
            )
        written.append((x, x + thick, box))

    def around(self, axes: Axes, item: _Around, x: float, y: float, written: list) -> None:
        """Draw a chain and the bow round it, which ends in a plus."""
        start, radius = x + 0.3 * FORK * self.scale, 0.055 * self.scale
        end = self.chain(axes, item.body, x + FORK * self.scale, y, written)
        plus = end + BOW * self.scale - radius
        above = y + max(map(self.up, item.body), default=0.2) / 2 + 0.6 * BOW * self.scale
        turn = 0.08 * self.scale
        points = [
            (start, y), (start, above - turn), (start, above), (start + turn, above),
            (plus - turn, above), (plus, above), (plus, above - turn), (plus, y + radius),
        ]  # fmt: skip
        corner = [Path.LINETO, Path.CURVE3, Path.CURVE3]
        codes = [Path.MOVETO, *corner, *corner, Path.LINETO]
        axes.add_patch(
            FancyArrowPatch(
                path=Path(points, codes),
                arrowstyle="-|>",
                mutation_scale=5,
                shrinkA=0,
                shrinkB=0,
                color=LINE,
                lw=0.9,
                ls="-" if item.plain else (0, (3, 2)),
                zorder=self.painted + 1,
            )
        )
        self.painted += 2
        axes.add_patch(Circle((plus, y), radius, fc="white", ec=LINE, zorder=self.painted))
        for across, up in ((0.6 * radius, 0), (0, 0.6 * radius)):
            axes.plot(
                [plus - across, plus + across],
                [y - up, y + up],
                color=LINE,
                lw=0.8,
                zorder=self.painted,
            )

    def fork(self, axes: Axes, item: _Fork, x: float, y: float, written: list) -> None:
        """Draw the lanes one above the other, and what they make together."""
        x += FORK * self.scale * 0.3
        first = x + 0.7 * FORK * self.scale
        wide = max(self.places(lane)[1] for lane in item.lanes)
        last = first + wide + 0.6 * FORK * self.scale
        top = y + sum(map(self.lane, item.lanes)) / 2
        ends = []
        for lane in item.lanes:
            middle = top - self.lane(lane) / 2
            top -= self.lane(lane)
            ends.append(middle)
            axes.plot([x, last], [middle, middle], color=LINE, lw=0.8, zorder=1)
            inside = (wide - self.places(lane)[1]) / 2
            self.chain(axes, lane, first + inside, middle, [])
        for place in (x, last):
            axes.plot([place, place], [ends[0], ends[-1]], color=LINE, lw=0.8, zorder=1)
        axes.plot([x, last], [y, y], color="white", lw=1.6, zorder=0.5)
        self.box(axes, item.joined, last + 0.4 * FORK * self.scale, y, written)


# --- words and colours ------------------------------------------------------------------


def _tint(colour: str, strength: float) -> tuple[float, ...]:
    """Return the colour on white, thinned."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))


def _grouped(count: int) -> str:
    """Return the number with a space after every three digits."""
    return f"{count:,}".replace(",", " ")


def _rounded(count: int) -> str:
    """Return the number with three digits, and million or billion."""
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{f'{count / size:#.3g}'.rstrip('.')} {word}"
    return _grouped(count)


def _counted(count: int, word: str) -> str:
    """Return "1 pool", "2 pools" or "2 joins of branches"."""
    head, *rest = word.split(" of ")
    return f"{count} {' of '.join([head + 's' * (count != 1), *rest])}"


def _by(shape: Sequence[int]) -> str:
    """Return the sizes as 6 x 28 x 28."""
    return " x ".join(map(str, shape))


def _listed(words: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
