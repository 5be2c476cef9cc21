"""Pictures of a graph of course.graph: values go to the right, gradients come back.

On each wire stand the value that goes along it and, below or behind the sign ∂, the
gradient that came back along it: of numbers themselves, of arrays the shape and, of the
gradient, its Euclidean norm. Where a variable is used several times, each wire has a part
of its gradient, and Σ∂ at the variable is their sum.
"""

import re
from collections import Counter
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from course.graph import Variable
from course.viz.base import Picture, figure

GREEN, ORANGE, GREY = "#00785A", "#C24E00", "#767676"
SIGNS = {
    **{"add": "+", "residual_sum": "+", "sub": "−", "neg": "−", "mul": "×", "div": "÷"},
    **{"matmul": "@", "pow 2": "x²", "pow 3": "x³", "maximum": "max"},
}
ROW = 0.75  # inches
BEND = 0.9  # inches between the middles of wires from one variable to one operation
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 0.4}
INPUT = {"facecolor": "white", "edgecolor": "none"}
OPERATION = {"facecolor": "#FFF3CC", "edgecolor": "black"}
SORTING, MOVING = 24, 200  # sweeps over the columns, to the right and to the left


class Wire(NamedTuple):
    """One line of the picture: from a variable to what uses it, or to nobody at the end."""

    source: Variable
    target: Variable | None
    grad: np.ndarray | None


class Mermaid(str):
    """The text of a Mermaid diagram; as the last value of a cell it is drawn."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/vnd.mermaid": str(self), "text/plain": str(self)}


def to_mermaid(root: Variable) -> Mermaid:
    """Return the graph that led to root as a Mermaid flowchart, for a notebook or a page.

    Raises ValueError if backward has taken it apart.

    >>> f = Variable(2.0, name="x") * 3
    >>> f.backward(retain_graph=True)
    >>> print(to_mermaid(f))
    flowchart LR
        n0(["x"])
        n1(["3"])
        n2["×"]
        out(["out"])
        n0 -->|"2<br/>∂ 3"| n2
        n1 --> n2
        n2 -->|"6<br/>∂ 1"| out
    """
    nodes, wires = _found(root)
    names: dict[Variable | None, str] = {node: f"n{k}" for k, node in enumerate(nodes)}
    names[None] = "out"
    totals, lines = _totals(wires), ["flowchart LR"]
    for node, name in names.items():
        title = _escaped(_title(node, root))
        if node in totals:
            title += f"<br/>{_escaped(totals[node])}"
        leaf = node is None or not node.operation
        lines.append(f'{name}(["{title}"])' if leaf else f'{name}["{title}"]')
    for wire in wires:
        label = "<br/>".join(map(_escaped, filter(None, _texts(wire))))
        arrow = f'-->|"{label}"|' if label else "-->"
        lines.append(f"{names[wire.source]} {arrow} {names[wire.target]}")
    return Mermaid("\n    ".join(lines))


def circuit(root: Variable) -> Picture:
    """Return the graph that led to root as a circuit, in the manner of CS231n.

    Raises ValueError if backward has taken it apart.
    """
    nodes, wires = _found(root)
    titles = {node: _title(node, root) for node in [*nodes, None]}
    ways, places = _layout(nodes, wires)
    column = 1.25 + 0.045 * max(map(len, titles.values()))
    inches = {place: np.multiply(at, (column, ROW)) for place, at in places.items()}
    low, high = np.min([*inches.values()], axis=0), np.max([*inches.values()], axis=0)
    low, high = low - (column / 2, 0.45), np.add(high, (column / 2, 0.4))
    fig, axes = figure(width=high[0] - low[0], height=high[1] - low[1])
    axes.axis("off")
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    uses, alike = Counter(w.source for w in wires), Counter(w[:2] for w in wires)
    seen: Counter = Counter()
    for wire, way in zip(wires, ways, strict=True):
        bend = BEND * (seen[wire[:2]] - (alike[wire[:2]] - 1) / 2)
        seen[wire[:2]] += 1
        _draw_wire(axes, wire, [inches[p] for p in way], bend, uses[wire.source] > 1)
    totals = _totals(wires)
    for node, title in titles.items():
        box = OPERATION if node is not None and node.operation else INPUT
        round_one = "circle" if len(title) < 3 else "round"
        look = box | {"boxstyle": f"{round_one if box is OPERATION else 'round'},pad=0.35"}
        size, weight = (
            (8.5 if len(title) > 3 else 10),
            ("bold" if box is INPUT else "normal"),
        )
        _write(axes, inches[node], title, size, "black", weight=weight, bbox=look)
        below = inches[node] - (0, 0.28)
        _write(axes, below, totals.get(node, ""), 8, ORANGE, weight="bold")
    return Picture(fig, _alt(root, nodes))


def _found(root: Variable) -> tuple[list[Variable], list[Wire]]:
    """Return all that led to root, the oldest first, and the wires between them."""
    found, todo = {root}, [root]
    while todo:
        node = todo.pop()
        if node.operation and not node.edges:
            raise ValueError(
                f"backward has taken {node} out of the graph: call "
                "backward(retain_graph=True) to draw it afterwards"
            )
        for edge in node.edges:
            if edge.variable not in found:
                found.add(edge.variable)
                todo.append(edge.variable)
    nodes = sorted(found, key=lambda node: node.number)
    wires = [Wire(e.variable, node, e.grad) for node in nodes for e in node.edges]
    return nodes, [*wires, Wire(root, None, root.grad)]


def _title(node: Variable | None, root: Variable) -> str:
    """Return what is written in a node; None is the end of the last wire."""
    if node is None:
        return root.name or "out"
    if node.operation:
        return SIGNS.get(node.operation, node.operation.replace("pow ", "x^"))
    return node.name or _short(node.value)


def _short(a: np.ndarray) -> str:
    """Return a number in three digits, of an array the shape."""
    return "×".join(map(str, a.shape)) if a.ndim else _digits(a.item())


def _digits(number: float) -> str:
    """Return the number in three digits, or more before the point."""
    digits = ".0f" if 1000 <= abs(number) < 1e6 else ".3g"
    return f"{number:{digits}}".replace("-", "−")


def _slope(grad: np.ndarray | None) -> str:
    """Return the gradient, or an array's norm, behind its sign; "" if there is none."""
    if grad is None:
        return ""
    return f"‖∂‖ {_digits(np.linalg.norm(grad))}" if grad.ndim else f"∂ {_short(grad)}"


def _texts(wire: Wire) -> tuple[str, str]:
    """Return what is written above and below a wire: a bare number is its own title."""
    source = wire.source
    value = _short(source.value) if source.operation or source.name else ""
    return value, _slope(wire.grad)


def _totals(wires: list[Wire]) -> dict[Variable, str]:
    """Return, for each variable that is used several times, its whole gradient."""
    uses = Counter(wire.source for wire in wires)
    return {
        node: f"Σ{_slope(node.grad)}"
        for node, count in uses.items()
        if count > 1 and node.grad is not None
    }


def _escaped(text: str) -> str:
    """Return the text for a quoted Mermaid label: all but letters and a few as #code;."""
    return re.sub(r"[^\w .,:()+×÷−∂Σ‖²³-]", lambda sign: f"#{ord(sign[0])};", text)


def _alt(root: Variable, nodes: list[Variable]) -> str:
    """Return what the picture says, in a sentence or two."""
    leaves = [node for node in nodes if not node.operation]
    counts = {"input": len(leaves), "operation": len(nodes) - len(leaves)}
    size = " and ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in counts.items())
    slopes = [
        f"{leaf.name or _short(leaf.value)} {_slope(leaf.grad)[2:].replace('‖', 'norm')}"
        for leaf in leaves
        if leaf.grad is not None
    ]
    told = f" Gradients: {', '.join(slopes)}." if slopes else ""
    return f"A graph of {size}: {root.name or 'out'} = {_short(root.value)}.{told}"


# --- where everything stands --------------------------------------------------------------


def _layout(nodes: list[Variable], wires: list[Wire]) -> tuple[list, dict]:
    """Return the places each wire goes through, and the (column, row) of every place.

    A node stands right of all that it needs, an input just left of its first use. A wire
    that passes a column takes a place in it, as if it were a node; places move towards
    the mean of their neighbours, a few times.
    """
    column: dict[Any, int] = {}
    for node in nodes:
        column[node] = 1 + max((column[e.variable] for e in node.edges), default=-1)
    column[None] = column[wires[-1].source] + 1
    for node in nodes:
        if not node.operation:
            users = [column[wire.target] for wire in wires if wire.source is node]
            column[node] = min(users) - 1
    ways = []
    for k, wire in enumerate(wires):
        between = range(column[wire.source] + 1, column[wire.target])
        ways.append([wire.source, *((k, c) for c in between), wire.target])
        column |= {(k, c): c for c in between}
    beside: dict[Any, list] = {place: [] for place in column}
    for way in ways:
        for left, right in pairwise(way):
            beside[left].append(right)
            beside[right].append(left)
    columns: list[list] = [[] for _ in range(max(column.values()) + 1)]
    for place, c in column.items():
        columns[c].append(place)
    row = {p: -k for stack in columns for k, p in enumerate(stack)}
    for turn in range(SORTING + MOVING):
        for stack in columns[:: 1 if turn % 2 else -1]:
            wanted = {place: _wanted(place, beside[place], row) for place in stack}
            if turn < SORTING:
                stack.sort(key=lambda place: -wanted[place])
            row |= _apart(stack, wanted)
    return ways, {place: (c, row[place]) for place, c in column.items()}


def _weight(place: Any) -> float:
    """Return how much a place pulls its neighbours: a passing wire most, an input least."""
    if isinstance(place, Variable) and not place.operation:
        return 0.1
    return 4 if isinstance(place, tuple) else 1


def _wanted(place: Any, neighbours: list, row: dict[Any, float]) -> float:
    """Return the mean row of the neighbours."""
    weights = [_weight(place) * _weight(there) for there in neighbours]
    total = sum(w * row[n] for w, n in zip(weights, neighbours, strict=True))
    return total / sum(weights)


def _apart(stack: list, wanted: dict[Any, float]) -> dict[Any, float]:
    """Return the rows nearest the wanted ones, from the top down, one row apart or more.

    Nearest is least squares: those that are too close are moved together, as one block
    about their mean. Source: Ayer et al., Ann. Math. Stat. 26 (1955).
    """
    blocks: list[list] = []  # weight, mean of wanted + k, size
    for k, place in enumerate(stack):
        block = [_weight(place), wanted[place] + k, 1]
        while blocks and blocks[-1][1] < block[1]:
            weight, mean, size = blocks.pop()
            both = weight + block[0]
            mean = (weight * mean + block[0] * block[1]) / both
            block = [both, mean, size + block[2]]
        blocks.append(block)
    means = [mean for _, mean, size in blocks for _ in range(size)]
    return {
        place: mean - k for k, (place, mean) in enumerate(zip(stack, means, strict=True))
    }


def _draw_wire(axes: Axes, wire: Wire, points: list, bend: float, forked: bool) -> None:
    """Draw a wire through its points, the value above it and the gradient below.

    They stand near its beginning, or near its end if it shares the beginning with others;
    wires that share both bend differently.
    """
    pieces = []
    for start, end in pairwise(points):
        half = np.array([(end[0] - start[0]) / 2, 0])
        pieces.append([start, start + half + (0, bend), end - half + (0, bend), end])
    line = [points[0], *(corner for piece in pieces for corner in piece[1:])]
    path = Path(line, [Path.MOVETO, *[Path.CURVE4] * (len(line) - 1)])
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=GREY, lw=1.2, zorder=1))
    t, piece = (0.6, pieces[-1]) if forked else (0.45, pieces[0])
    place = np.dot([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], piece)
    above, below = _texts(wire)
    for text, up, color in ((above, 0.09, GREEN), (below, -0.09, ORANGE)):
        _write(axes, np.add(place, (0, up)), text, 8, color, bbox=PAPER)


def _write(axes: Axes, place: Any, text: str, size: float, color: str, **look: Any) -> None:
    """Write a text with its middle at a place, if there is one."""
    if text:
        middle = {"ha": "center", "va": "center", "zorder": 3}
        axes.text(*place, text, fontsize=size, color=color, **middle, **look)
