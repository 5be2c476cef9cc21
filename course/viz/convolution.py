"""Figures of lecture 9: windows, filters and shared weights, drawn from the arrays.

Positive numbers stand on orange, negative ones on blue, and every number is written out,
so that nothing hangs on a colour.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course.viz.base import Picture, figure

WINDOW = "#D55E00"  # the colour of the window's frame
STYLES = ("-", "--", ":")  # one for each of three shared weights


def rows_in_words(a: np.ndarray) -> str:
    """Return a matrix as text, its rows divided by slashes; NaN is left out.

    >>> rows_in_words(np.array([[1.0, -2.0], [0.5, np.nan]]))
    '1 -2 / 0.5'
    """
    rows = np.atleast_2d(a)
    return " / ".join(" ".join(_number(v) for v in r if not np.isnan(v)) for r in rows)


def sum_in_words(patch: np.ndarray, w: np.ndarray) -> str:
    """Return the sum over a window with all its terms, weight times pixel.

    >>> sum_in_words(np.array([[1, 2]]), np.array([[3, -1]]))
    '3·1 - 1·2 = 1'
    """
    total = _number((w * patch).sum())
    return f"{' '.join(_terms(patch, w)).removeprefix('+ ')} = {total}"


def _terms(patch: np.ndarray, w: np.ndarray) -> list[str]:
    """Return "+ weight·pixel" or "- weight·pixel" for every tap."""
    return [
        f"{'-' if weight < 0 else '+'} {_number(abs(weight))}·{_number(pixel)}"
        for weight, pixel in zip(w.ravel(), patch.ravel(), strict=True)
    ]


def _number(value: float) -> str:
    """Return a number with at most three digits, a whole one without its point."""
    return f"{value + 0.0:.3g}"


def _fraction(value: float) -> str:
    """Return a number as a fraction with a small denominator, "1/16" for 0.0625."""
    return str(Fraction(value).limit_denominator(16))


def _grid(
    axis: Axes,
    a: np.ndarray,
    title: str = "",
    size: float = 10,
    written: Callable[[float], str] = _number,
) -> None:
    """Draw a matrix as cells with their numbers of a font size; NaN cells stay empty."""
    a = np.atleast_2d(np.asarray(a, float))
    H, W = a.shape
    largest = np.nanmax(np.abs(a), initial=1e-12)
    axis.imshow(a, cmap="PuOr_r", vmin=-2 * largest, vmax=2 * largest)
    for (i, j), value in np.ndenumerate(a):
        if not np.isnan(value):
            axis.text(j, i, written(value), ha="center", va="center", fontsize=size)
    line = {"color": "#aaaaaa", "linewidth": 0.6, "clip_on": False}
    axis.hlines(np.arange(H + 1) - 0.5, -0.5, W - 0.5, **line)
    axis.vlines(np.arange(W + 1) - 0.5, -0.5, H - 0.5, **line)
    _bare(axis)
    axis.set_title(title, fontsize=10)


def _bare(axis: Axes) -> None:
    """Take ticks and border away."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def _row(arrays: Mapping[str, np.ndarray], height: float) -> tuple[Figure, np.ndarray]:
    """Return a figure with matrices side by side, all cells of one size, and its axes."""
    shapes = [np.atleast_2d(a).shape for a in arrays.values()]
    tallest = max(H for H, _ in shapes)
    fig, axes = figure(
        columns=len(arrays),
        height=height,
        width=min(9.5, max(4, 0.42 * sum(W for _, W in shapes) + 1.0 * len(shapes))),
        squeeze=False,
        gridspec_kw={"width_ratios": [max(W, 2) for _, W in shapes]},
    )
    for axis, (H, _), (title, a) in zip(axes[0], shapes, arrays.items(), strict=True):
        _grid(axis, a, title)
        axis.set_ylim(tallest / 2 + H / 2 - 0.5, H / 2 - tallest / 2 - 0.5)
    return fig, axes[0]


def _frame(axis: Axes, i: int, j: int, KH: int, KW: int) -> None:
    """Draw the frame of the window whose first pixel is (i, j)."""
    axis.add_patch(
        Rectangle(
            (j - 0.5, i - 0.5), KW, KH, fill=False, color=WINDOW, linewidth=3, zorder=3
        )
    )


def _image(axis: Axes, a: np.ndarray, title: str, limit: float | None = None) -> None:
    """Draw an image; with a limit, zero is grey and +-limit are white and black."""
    low, high = (-limit, limit) if limit else (0, 1)
    axis.imshow(a, cmap="gray", vmin=low, vmax=high)
    _bare(axis)
    axis.set_title(title, fontsize=9)


def numbers(
    arrays: Mapping[str, np.ndarray], between: Sequence[str] = (), height: float = 2.3
) -> Picture:
    """Draw matrices side by side, cells of one size, with signs such as "=" between."""
    fig, axes = _row(arrays, height)
    for axis, sign in zip(axes[1:], between, strict=False):
        axis.text(
            -0.1, 0.5, sign, transform=axis.transAxes, fontsize=20, ha="right", va="center"
        )
    words = "; ".join(f"{title}: {rows_in_words(a)}" for title, a in arrays.items())
    return Picture(fig, f"{words}.")


def edges(taps: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> Picture:
    """Draw which edges a layer may have, and the matrix that holds their weights.

    taps : title -> (outputs, inputs) int; which weight an edge uses, -1 where there is
        no edge. Two edges with one number share one weight.
    labels : title -> the same shape, str; what is written into the matrix
    """
    fig, axes = figure(
        rows=2, columns=len(taps), height=5.4, gridspec_kw={"height_ratios": [1, 1.25]}
    )
    words = []
    for (net, matrix), (title, which) in zip(axes.T, taps.items(), strict=True):
        O, I = which.shape
        weights = np.unique(which[which >= 0])
        shared = len(weights) < (which >= 0).sum()
        for i, j in np.argwhere(which >= 0):
            style = STYLES[which[i, j] % len(STYLES)] if shared else "-"
            net.plot([0, 1], [j, i], style, color="#0072B2", linewidth=1.4)
        net.plot([0] * I, range(I), "o", color="white", mec="black", ms=11)
        net.plot([1] * O, range(O), "o", color="white", mec="black", ms=11)
        for k in range(I):
            net.text(0, k, f"{k}", ha="center", va="center", fontsize=7)
        for k in range(O):
            net.text(1, k, f"{k}", ha="center", va="center", fontsize=7)
        net.set_ylim(max(O, I) - 0.4, -0.6)
        net.set_xlim(-0.25, 1.25)
        net.axis("off")
        net.set_title(f"{title}\n{len(weights)} weights", fontsize=10)
        shade = np.where(which < 0, np.nan, which % 3 if shared else 1.0)
        matrix.imshow(shade, cmap="Oranges", vmin=-1.5, vmax=6)
        for (i, j), label in np.ndenumerate(labels[title]):
            matrix.text(j, i, label, ha="center", va="center", fontsize=9)
        matrix.set_xticks(range(I))
        matrix.set_yticks(range(O))
        matrix.set_xlabel("input")
        matrix.set_ylabel("output")
        words.append(
            f"{title}: {(which >= 0).sum()} edges, {len(weights)} different weights"
        )
    return Picture(fig, "; ".join(words) + ".")


def frames(x: np.ndarray, w: np.ndarray, z: np.ndarray) -> Picture:
    """Draw a one-dimensional filter at each of its places, with the sum it gives."""
    K = len(w)
    fig, axes = figure(columns=len(z), height=2.1)
    words = []
    for k, axis in enumerate(np.atleast_1d(axes)):
        board = np.full((3, len(x)), np.nan)
        board[0], board[1, k : k + K] = x, w
        board[2, : k + 1] = z[: k + 1]
        _grid(axis, board)
        _frame(axis, 0, k, 2, K)
        axis.set_yticks([0, 1, 2], ["x", "θ", "z"] if k == 0 else [""] * 3)
        axis.tick_params(length=0)
        words.append(sum_in_words(x[k : k + K], w))
        axis.set_title(words[-1], fontsize=10)
    return Picture(fig, f"The filter at {len(z)} places: {'; '.join(words)}.")


def correlation(distances: np.ndarray, curves: Mapping[str, np.ndarray]) -> Picture:
    """Draw how alike two pixels are, against how far they are apart."""
    fig, axis = figure(height=3.0)
    axis.axhline(0, color="#777777", linewidth=0.8)
    words = []
    for (name, values), marker in zip(curves.items(), "os^Dv", strict=False):
        apart = distances[: len(values)]
        axis.plot(apart, values, marker=marker, markersize=5, label=name)
        words.append(
            f"{name}: {values[0]:.3f} at distance {apart[0]} and "
            f"{values[-1]:.3f} at distance {apart[-1]}"
        )
    axis.set_xscale("log", base=2)
    axis.set_xticks(distances, [str(d) for d in distances])
    axis.set_xlabel("distance between two pixels of one row, in pixels")
    axis.set_ylabel("correlation")
    axis.legend()
    return Picture(fig, f"Correlation of two pixels. {'; '.join(words)}.")


def film(
    x: np.ndarray, w: np.ndarray, y: np.ndarray, step: int = 0, stride: int = 1
) -> Picture:
    """Draw window number `step` of a cross-correlation y, or all of them for step 0."""
    KH, KW = w.shape
    corners = [(i * stride, j * stride) for i, j in np.ndindex(y.shape)]
    sums = [sum_in_words(x[i : i + KH, j : j + KW], w) for i, j in corners]
    if step:
        fig = _film_frame(x, w, y, step, corners[step - 1], sums[step - 1])
        return Picture(fig, f"Step {step}: {sums[step - 1]}.")
    fig, axes = figure(*y.shape, width=8, height=9.2)
    for axis, (i, j), z in zip(axes.flat, corners, y.flat, strict=True):
        lines = (" ".join(_terms(x[i + u, j : j + KW], w[u])) for u in range(KH))
        title = "\n".join(lines).removeprefix("+ ")
        _grid(axis, x, f"{title} = {_number(z)}", size=9)
        _lay(axis, w, i, j)
    said = " ".join(f"Step {k}: {text}." for k, text in enumerate(sums, 1))
    return Picture(fig, said)


def _film_frame(
    x: np.ndarray,
    w: np.ndarray,
    y: np.ndarray,
    step: int,
    corner: tuple[int, int],
    text: str,
) -> Figure:
    """Return the figure of one step: image, filter, and the output so far."""
    done = np.full(y.size, np.nan)
    done[:step] = y.ravel()[:step]
    shown = {"image x": x, "filter w": w, "output z": done.reshape(y.shape)}
    fig, (left, _, right) = _row(shown, height=3.4)
    i, j = corner
    _lay(left, w, i, j)
    row, column = divmod(step - 1, y.shape[1])
    _frame(right, row, column, 1, 1)
    fig.suptitle(f"z[{row},{column}] = {text}", fontsize=11)
    return fig


def _lay(axis: Axes, w: np.ndarray, i: int, j: int) -> None:
    """Frame the window with first pixel (i, j), and write each weight beside its pixel."""
    _frame(axis, i, j, *w.shape)
    for (u, v), weight in np.ndenumerate(w):
        axis.text(j + v + 0.45, i + u + 0.42, f"×{_number(weight)}", ha="right", fontsize=7)


def flip(
    x: np.ndarray, w: np.ndarray, star: np.ndarray, convolved: bool, y: np.ndarray
) -> Picture:
    """Draw an image, the kernel as it is written and as it is laid down, and the result.

    star : the kernel as it is laid on the image; `convolved` says that it was rotated
    """
    name, sign = ("convolution", "∗") if convolved else ("cross-correlation", "⋆")
    picture = numbers(
        {
            "x": x,
            "w as written": w,
            "w as laid on x": star,
            f"{name}  x {sign} w": y,
        },
        [sign, "→", "="],
        height=2.6,
    )
    return Picture(picture.fig, f"{name}. {picture.alt}")


def filter_table(
    image: np.ndarray, kernels: Mapping[str, np.ndarray], results: Sequence[np.ndarray]
) -> Picture:
    """Draw an image, and each kernel above what it makes of it, with its sum."""
    columns = (len(kernels) + 2) // 2
    fig, axes = figure(
        4, columns, width=9, height=7.2, gridspec_kw={"height_ratios": [1, 2.3, 1, 2.3]}
    )
    for axis in axes.flat:
        axis.axis("off")
    _image(axes[1, 0], image, "the photo")
    words = []
    for k, ((name, w), y) in enumerate(zip(kernels.items(), results, strict=True), 1):
        row, column = divmod(k, columns)
        above, below = axes[2 * row : 2 * row + 2, column]
        _grid(above, w, name, size=8, written=_fraction)
        total = w.sum().round(9)
        limit = None if total else np.quantile(np.abs(y), 0.99)
        _image(below, y, f"sum of weights {_number(total)}", limit)
        words.append(
            f"{name} ({rows_in_words(w)}): weights sum to {_number(total)}, result has "
            f"mean {y.mean().round(3) + 0.0:.3f}"
        )
    return Picture(fig, f"Image with mean {image.mean():.3f}. {'; '.join(words)}.")


def filtered(image: np.ndarray, w: np.ndarray, y: np.ndarray) -> Picture:
    """Draw an image, a kernel and the result; without brightness left, zero is grey."""
    fig, (left, middle, right) = figure(
        columns=3, width=9, height=3.4, gridspec_kw={"width_ratios": [2.2, 1, 2.2]}
    )
    total = w.sum()
    limit = None if abs(total) > 0.01 else max(np.quantile(np.abs(y), 0.99), 1e-6)
    _image(left, image, "image")
    _grid(middle, w, f"filter, sum {_number(total)}")
    _image(right, y, "result" + ", zero is grey" * (limit is not None), limit=limit)
    return Picture(
        fig,
        f"Filter {rows_in_words(w)}, sum {_number(total)}: the result runs from "
        f"{y.min():.2f} to {y.max():.2f}.",
    )


def shift(
    x: np.ndarray,
    moved: np.ndarray,
    y: np.ndarray,
    y_of_moved: np.ndarray,
    moved_y: np.ndarray,
) -> Picture:
    """Draw an image and its moved copy, their responses, and where the rule breaks.

    The rule: the response to the moved image is the moved response.
    """
    difference = np.abs(y_of_moved - moved_y)
    border = difference.max(axis=0) > 1e-9
    fig, axes = figure(columns=5, width=9.5, height=2.4)
    limit = np.abs(y).max()
    _image(axes[0], x, "x")
    _image(axes[1], moved, "moved x")
    _image(axes[2], y, "response to x", limit)
    _image(axes[3], y_of_moved, "response to moved x", limit)
    _image(axes[4], difference < 1e-9, "black: not the\nmoved response")
    return Picture(
        fig,
        f"The response moves along with the image, except in {border.sum()} of "
        f"{len(border)} columns, where the largest difference is {difference.max():.4f}.",
    )


def score_map(scene: np.ndarray, template: np.ndarray, scores: np.ndarray) -> Picture:
    """Draw a scene, a template, and the score of every place; the best is framed."""
    KH, KW = template.shape
    i, j = np.unravel_index(scores.argmax(), scores.shape)
    fig, (left, middle, right) = figure(
        columns=3, width=9.5, height=2.6, gridspec_kw={"width_ratios": [3, 1, 3]}
    )
    _image(left, scene, "scene, best window framed")
    _frame(left, i, j, KH, KW)
    _image(middle, template, "template\n(zero is grey)", np.abs(template).max())
    shown = right.imshow(scores, cmap="cividis")
    right.plot(j, i, "x", color="white", markersize=9, markeredgewidth=2)
    right.set_title("score of every window, best one crossed", fontsize=9)
    _bare(right)
    fig.colorbar(shown, ax=right, shrink=0.8)
    return Picture(
        fig,
        f"{scores.size} windows; the best has its first pixel at row {i}, column {j} and "
        f"scores {scores[i, j]:.2f}; the median window scores {np.median(scores):.2f}.",
    )


def patch(image: np.ndarray, w: np.ndarray, i: int, j: int) -> Picture:
    """Draw a patch of a colour image, channel by channel, and the one number it gives.

    image : (C, H, W) from 0 to 1;  w : (C, KH, KW), centred on pixel (i, j)
    """
    C, KH, KW = w.shape
    top, left = i - KH // 2, j - KW // 2
    pixels = image[:, top : top + KH, left : left + KW]
    fig, axes = figure(2, C + 1, width=9.5, height=4.6)
    axes[0, 0].imshow(image.transpose(1, 2, 0))
    _bare(axes[0, 0])
    axes[0, 0].set_title("image, window framed", fontsize=9)
    _frame(axes[0, 0], top, left, KH, KW)
    sums = []
    for c, name in zip(range(C), ("red", "green", "blue"), strict=False):
        sums.append((pixels[c] * w[c]).sum())
        _grid(axes[0, c + 1], pixels[c].round(2), f"{name} pixels", size=9)
        _grid(axes[1, c + 1], w[c], f"weights: products sum to {sums[c]:.2f}", size=9)
    axes[1, 0].axis("off")
    said = f"{' + '.join(f'{s:.2f}' for s in sums)} = {sum(sums):.2f}"
    said = said.replace("+ -", "- ")
    axes[1, 0].text(
        0.5, 0.5, f"{said}\none number,\nat the centre", ha="center", fontsize=11
    )
    return Picture(
        fig,
        f"Pixel ({i}, {j}): {pixels.size} pixels times {w.size} weights. Sums of the "
        f"channels: {said}.",
    )


def tied(taps: np.ndarray, w: np.ndarray) -> Picture:
    """Draw the dense matrix that equals a filter: which tap stands where.

    taps : (outputs, inputs) int, -1 where there is no edge;  w : (KH, KW)
    """
    O, I = taps.shape
    fig, axis = figure(width=9, height=3.9)
    axis.imshow(np.where(taps < 0, np.nan, w.ravel()[taps]), cmap="PuOr_r", vmin=-4, vmax=4)
    for i, j in np.argwhere(taps >= 0):
        tap = "".join(map(str, divmod(taps[i, j], w.shape[1])))
        axis.text(j, i, f"w{tap}", ha="center", va="center", fontsize=7.5)
    axis.set_xticks(range(I))
    axis.set_yticks(range(O))
    axis.set_xticks(np.arange(I + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(O + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="#dddddd", linewidth=0.5)
    axis.tick_params(which="minor", length=0)
    axis.set_xlabel("pixel of x, row after row")
    axis.set_ylabel("pixel of z")
    used = (taps >= 0).sum()
    return Picture(
        fig,
        f"A matrix of {O} x {I} = {taps.size} places: {taps.size - used} are removed, "
        f"{used} hold one of {len(np.unique(taps[taps >= 0]))} shared weights.",
    )
