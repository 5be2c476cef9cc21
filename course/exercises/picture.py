"""A picture of the smallest case that is wrong: numbers in grids, as SVG.

There is no script in it and no font, and all text is escaped: it may stand in a page, or be
an image of its own. It has its own white ground, so that it can be read on a dark page, and
a title that says in words what it shows.
"""

from base64 import b64encode
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

SHOWN = 8  # rows and columns of a grid at most
LIMIT = 20_000  # bytes of a picture
WIDTH = 720  # pixels; more panels than fit begin a new row
CHARACTER, HEIGHT, GAP = 7.3, 22, 26  # pixels: of a digit, of a row, between panels
WINDOW, YOURS, EXPECTED = "#5a5a5a", "#b34700", "#00609c"  # frames; each grid has a title


@dataclass(frozen=True)
class Panel:
    """One grid of numbers, with a frame around some of them.

    Attributes
    ----------
    title : what the numbers are
    values : an array, or what NumPy makes one of
    at : index of the first number in the frame; None for no frame
    size : rows and columns of the frame, or the count in a vector
    colour : of the frame
    digits : of a number
    """

    title: str
    values: Any
    at: tuple[int, ...] | None = None
    size: tuple[int, ...] = (1, 1)
    colour: str = WINDOW
    digits: int = 4


@dataclass(frozen=True)
class Window:
    """What is behind one number of the right answer: in words, and as panels."""

    text: str
    panels: tuple[Panel, ...] = ()


def comparison(
    yours: Any, expected: Any, index: tuple[int, ...] | None, panels: tuple = ()
) -> str:
    """Return the SVG of an answer beside the expected one, after the panels.

    `index` is that of the first wrong number. Without an expected answer, that stays
    untold. Returns "" if the answer is no array of numbers: there is nothing to show.
    """
    a, b = numbers(yours), numbers(expected)
    if a is None:
        return ""
    digits = 4
    if b is not None and index is not None and _text(a[index], 4) == _text(b[index], 4):
        digits = 9  # the two are close
    pair = [Panel("yours", a, index, (1, 1), YOURS, digits)]
    if b is not None:
        pair.append(Panel("expected", b, index, (1, 1), EXPECTED, digits))
    while len(svg := draw((*panels, *pair))) > LIMIT and panels:
        panels = panels[:-1]
    return svg


def numbers(values: Any) -> np.ndarray | None:
    """Return the values as an array of numbers, or None if they are none."""
    try:
        array = np.asarray(values)
    except Exception:  # it may be anything
        return None
    return array if array.dtype.kind in "biufc" else None


def draw(panels: tuple[Panel, ...]) -> str:
    """Return the SVG of some panels, one beside the other."""
    grids = [_Grid(panel) for panel in panels]
    parts, x, y, below, right = [], 12.0, 10.0, 0.0, 0.0
    for grid in grids:
        if x > 12 and x + grid.width > WIDTH:
            x, y, below = 12.0, y + below + 14, 0.0
        parts.append(grid.svg(x, y))
        x, below = x + grid.width + GAP, max(below, grid.height)
        right = max(right, x - GAP)
    width, height = round(right + 12), round(y + below + 12)
    title = "; ".join(grid.says for grid in grids)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" font-family="monospace" '
        f'font-size="12" fill="#111111"><title>{_escaped(title)}</title>'
        f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>'
        f"{''.join(parts)}</svg>"
    )


def alternative(svg: str) -> str:
    """Return the title of a picture, still escaped: what it shows, in words."""
    return svg.partition("<title>")[2].partition("</title>")[0]


class Shown:
    """A picture as the output of a cell, with its words for those who cannot see it."""

    def __init__(self, svg: str):
        self.svg = svg

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        words, data = alternative(self.svg), b64encode(self.svg.encode()).decode()
        image = f'<img alt="{words}" src="data:image/svg+xml;base64,{data}">'
        return {"text/plain": f"[picture: {words}]", "text/html": image}


class _Grid:
    """The part of a panel that is shown, and its size in pixels."""

    def __init__(self, panel: Panel):
        self.panel, self.ndim = panel, np.ndim(panel.values)
        self.title, table, at, size = _table(panel)
        spans = (None, None) if at is None else zip(at, size, strict=True)
        self.rows, self.columns = map(_shown, table.shape, spans)
        self.shape = table.shape
        self.cells = [
            [_text(table[i, j], panel.digits) for j in self.columns] for i in self.rows
        ]
        self.frame = None
        if at is not None:
            top, left = max(at[0], self.rows.start), max(at[1], self.columns.start)
            bottom = min(at[0] + size[0], self.rows.stop)
            right = min(at[1] + size[1], self.columns.stop)
            if top < bottom and left < right:
                self.frame = (top, left), (bottom, right)
        longest = max((len(text) for row in self.cells for text in row), default=0)
        self.cell = round(max(26, longest * CHARACTER + 10))
        self.margin = 22 if self.ndim > 1 else 0
        self.width = max(self.margin + self.cell * len(self.columns), len(self.title) * 7)
        self.height = 34 + HEIGHT * len(self.rows)

    @property
    def says(self) -> str:
        """Return in words what the panel shows."""
        if self.frame is None:
            return self.title
        (top, left), (bottom, right) = self.frame
        rows = f"{_span('row', top, bottom)}, " if self.ndim > 1 else ""
        place = f", framed: {rows}{_span('column', left, right)}" if self.ndim else ""
        inside = [
            self.cells[i - self.rows.start][j - self.columns.start]
            for i in range(top, bottom)
            for j in range(left, right)
        ]
        return f"{self.title}{place}: {' '.join(inside[:16])}"

    def svg(self, x: float, y: float) -> str:
        """Return the drawing with its upper left corner at (x, y)."""
        x, y, cell = round(x), round(y), self.cell
        parts = [
            f'<text x="{x}" y="{y + 10}" font-weight="bold">{_escaped(self.title)}</text>'
        ]
        x, y = x + self.margin, y + 34
        if self.ndim:
            parts.append('<g font-size="10" fill="#595959" text-anchor="middle">')
            for k, j in enumerate(self.columns):
                text = _label(j, self.columns, self.shape[1])
                parts.append(
                    f'<text x="{x + k * cell + cell // 2}" y="{y - 5}">{text}</text>'
                )
            for k, i in enumerate(self.rows if self.ndim > 1 else ()):
                text = _label(i, self.rows, self.shape[0])
                parts.append(f'<text x="{x - 11}" y="{y + k * HEIGHT + 15}">{text}</text>')
            parts.append("</g>")
        wide, high = cell * len(self.columns), HEIGHT * len(self.rows)
        lines = [f"M{x} {y + k * HEIGHT}h{wide}" for k in range(len(self.rows) + 1)]
        lines += [f"M{x + k * cell} {y}v{high}" for k in range(len(self.columns) + 1)]
        parts.append(f'<path d="{"".join(lines)}" stroke="#b8b8b8" fill="none"/>')
        if self.frame:
            (top, left), (bottom, right) = self.frame
            box = (
                f'x="{x + (left - self.columns.start) * cell}" '
                f'y="{y + (top - self.rows.start) * HEIGHT}" '
                f'width="{(right - left) * cell}" height="{(bottom - top) * HEIGHT}"'
            )
            dashes = ' stroke-dasharray="6 3"' if self.panel.colour == WINDOW else ""
            parts.append(
                f'<rect {box} fill="{self.panel.colour}" fill-opacity="0.12" '
                f'stroke="{self.panel.colour}" stroke-width="3"{dashes}/>'
            )
        parts.append('<g text-anchor="end">')
        for k, row in enumerate(self.cells):
            for j, text in enumerate(row):
                place = f'x="{x + (j + 1) * cell - 5}" y="{y + k * HEIGHT + 15}"'
                parts.append(f"<text {place}>{text}</text>")
        parts.append("</g>")
        return "".join(parts)


def _table(panel: Panel) -> tuple[str, np.ndarray, Any, Any]:
    """Return a panel's title, its numbers as a table, and corner and size of its frame."""
    array, at, size = np.asarray(panel.values), panel.at, panel.size
    if array.ndim == 0:
        return panel.title, array.reshape(1, 1), None if at is None else (0, 0), (1, 1)
    if array.ndim == 1:
        title = f"{panel.title}, {array.size} number{'s' * (array.size != 1)}"
        return title, array[None], None if at is None else (0, *at), (1, size[-1])
    title, shape = panel.title, array.shape
    if array.ndim > 2:  # show the plane with the frame
        plane = (0,) * (array.ndim - 2) if at is None else at[:-2]
        title = f"{title}[{', '.join(map(str, plane))}]"
        array = array[plane] if array.size else array.reshape(0, 0)
        at = None if at is None else at[-2:]
    return f"{title}, {'×'.join(map(str, shape))}", array, at, size


def _shown(count: int, framed: tuple[int, int] | None) -> range:
    """Return which of `count` rows or columns are shown: those about the frame."""
    first, size = framed or (0, 1)
    start = max(0, min(first - max(0, SHOWN - size) // 2, count - SHOWN))
    return range(start, min(start + SHOWN, count))


def _span(word: str, first: int, past: int) -> str:
    return f"{word}s {first} to {past - 1}" if past - first > 1 else f"{word} {first}"


def _label(k: int, shown: range, count: int) -> str:
    """Return the number of a row or column, with dots where the array goes on."""
    before = "…" if k == shown.start and k else ""
    return f"{before}{k}{'…' if k == shown.stop - 1 and k < count - 1 else ''}"


def _text(value: Any, digits: int) -> str:
    """Return a number of an array in at most 12 characters or so."""
    if value.dtype.kind == "b":
        return str(bool(value))
    if value.dtype.kind in "iu" and abs(int(value)) < 10**6:
        return str(int(value))
    if value.dtype.kind == "c":
        return f"{complex(value):.3g}"
    return f"{float(value) + 0.0:.{digits}g}"  # -0 is 0


def _escaped(text: str) -> str:
    """Return the text for XML: no markup, no character that cannot be printed."""
    return escape("".join(c if c.isprintable() else " " for c in text))
