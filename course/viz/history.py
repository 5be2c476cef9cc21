"""Figures of the lecture on history: dials, bowls, votes, cells, and who reads better."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from course.viz.base import Picture, figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
MARKERS = "osD^v"


def potentiometers(
    epochs: Sequence[int], weights: np.ndarray, mistakes: Sequence[int]
) -> Picture:
    """Draw the weights of a perceptron's unit as dials, as motors turned them on Mark I.

    epochs : after how many passes each snapshot was taken
    weights : (snapshots, H, W);  mistakes : of all passes, first to last
    """
    snapshots, H, W = weights.shape
    largest = max(abs(weights).max(), 1e-12)
    fig, axes = figure(
        2, snapshots, width=9, height=4.6, squeeze=False, height_ratios=[3.2, 1]
    )
    words = []
    for axis, epoch, w in zip(axes[0], epochs, weights, strict=True):
        axis.imshow(w, cmap="PuOr_r", vmin=-1.4 * largest, vmax=1.4 * largest)
        turn = np.radians(135) * w / largest  # 0 points up, most is 135 degrees
        rows, columns = np.indices((H, W))
        tips = np.stack([columns + 0.44 * np.sin(turn), rows - 0.44 * np.cos(turn)], -1)
        hubs = np.stack([columns, rows], axis=-1)
        pointers = np.stack([hubs, tips], axis=2).reshape(-1, 2, 2)
        axis.add_collection(LineCollection(pointers, colors="black", linewidths=0.8))
        _bare(axis)
        axis.set_title(f"after pass {epoch}")
        words.append(f"after pass {epoch} from {w.min():.3g} to {w.max():.3g}")
    axes[0, 0].set_ylabel("weights")
    grid = axes[1, 0].get_gridspec()
    for axis in axes[1]:
        axis.remove()
    below = fig.add_subplot(grid[1, :])
    passes = np.arange(1, len(mistakes) + 1)
    below.bar(passes, mistakes, color=BLUE)
    below.set_xlabel("pass over all letters")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.set_ylabel("mistakes")
    total = int(np.sum(mistakes))
    return Picture(
        fig,
        f"Dials of {H} x {W} weights, {'; '.join(words)}. Up is 0, clockwise is positive. "
        f"{total} mistakes in {len(mistakes)} passes, {mistakes[-1]} in the last.",
    )


def mistakes(curves: Mapping[str, Sequence[int]], bound: float) -> Picture:
    """Draw how mistakes add up, pass after pass, beside what Novikoff's bound allows."""
    fig, axis = figure(height=2.8, width=7)
    words = []
    for (name, counts), marker in zip(curves.items(), MARKERS, strict=False):
        total = np.cumsum(counts)
        axis.plot(
            np.arange(1, len(total) + 1), total, marker=marker, markersize=4, label=name
        )
        words.append(f"{name}: {total[-1]} mistakes in {len(total)} passes")
    axis.axhline(bound, color=GREY, linestyle="--")
    axis.text(1, bound, f"bound {bound:.0f}", va="bottom", fontsize=9, color="#555555")
    axis.set_xlabel("pass over all samples")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel("mistakes so far")
    axis.set_ylim(bottom=0)
    axis.legend(loc="center right")
    return Picture(fig, f"{'; '.join(words)}. The bound is {bound:.1f}.")


def error_bowl(
    w: np.ndarray, b: np.ndarray, error: np.ndarray, paths: Mapping[str, np.ndarray]
) -> Picture:
    """Draw Adaline's mean squared error over a weight and a bias, and ways down.

    w : (W,) and b : (B,), the axes;  error : (B, W);  paths : name -> (steps, 2), (w, b)
    """
    fig, axis = figure(height=4.2, width=6.6)
    low = error.min()
    levels = low + (error.max() - low) * np.linspace(0, 1, 13) ** 2
    axis.contourf(w, b, error, levels, cmap="Blues", alpha=0.6)
    lines = axis.contour(w, b, error, levels[1:8:2], colors=GREY, linewidths=0.6)
    axis.clabel(lines, fontsize=7, fmt="%.2f")
    i, j = np.unravel_index(error.argmin(), error.shape)
    words = []
    colors = (ORANGE, BLUE, GREEN)
    for (name, path), color, marker in zip(paths.items(), colors, MARKERS, strict=False):
        axis.plot(*path.T, color=color, marker=marker, ms=3, lw=0.9, label=name)
        words.append(f"{name} ends at ({path[-1, 0]:.2f}, {path[-1, 1]:.2f})")
    axis.plot(w[j], b[i], "*", color="white", mec="black", ms=14, zorder=5)
    axis.set_xlabel("weight w")
    axis.set_ylabel("bias b")
    axis.set_xlim(w[0], w[-1])
    axis.set_ylim(b[0], b[-1])
    axis.legend(loc="upper right", frameon=True, framealpha=0.9)
    return Picture(
        fig,
        f"A bowl with its lowest point, {low:.3f}, near w = {w[j]:.2f}, b = {b[i]:.2f}; "
        f"{'; '.join(words)}.",
    )


def votes(grid: np.ndarray, sums: np.ndarray, x: np.ndarray, t: np.ndarray) -> Picture:
    """Draw where each unit of a Madaline says yes, and what the vote makes of it.

    grid : (G,), the values of both inputs;  sums : (G, G, O), second input first
    x : (N, 2) samples;  t : (N,) 1 or -1
    """
    O = sums.shape[2]
    fig, axes = figure(columns=O + 1, width=2.3 * (O + 1), height=2.6)
    yes = (sums > 0).sum(axis=2)
    panels = [*np.moveaxis(sums, 2, 0), np.median(sums, axis=2)]  # of an odd number
    for k, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        last = k == O
        axis.contourf(
            grid, grid, panel, [-np.inf, 0, np.inf], colors=["#9ecae1", "#fdd0a2"]
        )
        if panel.min() < 0 < panel.max():
            axis.contour(grid, grid, panel, [0], colors="black", linewidths=1.2)
        for side, marker, color in ((1, "o", ORANGE), (-1, "s", BLUE)):
            chosen = x[t == side]
            axis.plot(*chosen.T, marker, color=color, markeredgecolor="white", ms=11)
        axis.set_title(f"the vote of {O}" if last else f"unit {k + 1}")
        axis.set_xticks([-1, 1])
        axis.set_yticks([-1, 1])
        axis.set_aspect("equal")
    column = [abs(grid - value).argmin() for value in x[:, 0]]
    row = [abs(grid - value).argmin() for value in x[:, 1]]
    right = (np.where(yes[row, column] > O / 2, 1, -1) == t).sum()
    share = (yes > O / 2).mean()
    return Picture(
        fig,
        f"Plane cut by {O} lines; the vote says yes on {share:.0%} of it and is right on "
        f"{right} of {len(t)} samples. Circles should get a yes, squares a no.",
    )


def tuning(
    angles: np.ndarray,
    curves: Mapping[str, np.ndarray],
    field: np.ndarray,
    bars: np.ndarray,
    shown: Sequence[int],
) -> Picture:
    """Draw the answers of cells to bars of every angle, some bars, and a cell's field.

    angles : (N,) degrees;  curves : name -> (N,);  field : (H, W)
    bars : (N, H, W);  shown : which of them to draw below the curve
    """
    fig, axes = figure(
        2, len(shown) + 2, width=9, height=4, height_ratios=[2.4, 1], squeeze=False
    )
    grid = axes[0, 0].get_gridspec()
    for axis in (*axes[0], *axes[1, :2]):
        axis.remove()
    left, above = fig.add_subplot(grid[:, :2]), fig.add_subplot(grid[0, 2:])
    limit = abs(field).max()
    left.imshow(field, cmap="PuOr_r", vmin=-limit, vmax=limit)
    left.set_title("receptive field: + orange, − violet")
    _bare(left)
    words = []
    for (name, answers), marker in zip(curves.items(), MARKERS, strict=False):
        above.plot(angles, answers, marker=marker, markersize=4, label=name)
        best = answers.argmax()
        words.append(f"{name}: {answers[best]:.2f} at {angles[best]:g} degrees")
    for k in shown:
        above.axvline(angles[k], color="#cccccc", linewidth=0.8, zorder=0)
    above.set_xticks(np.asarray(angles)[list(shown)])
    above.set_xlabel("angle of the bar, degrees")
    above.set_ylabel("answer")
    above.set_ylim(bottom=0)
    above.legend()
    for axis, k in zip(axes[1, 2:], shown, strict=True):
        axis.imshow(bars[k], vmin=0, vmax=1)
        axis.set_title(f"{angles[k]:g}°", loc="center", fontsize=9)
        _bare(axis)
    return Picture(fig, f"Answers to a bar. Largest of {'; of '.join(words)}.")


def answers(
    across: Sequence[np.ndarray], panels: Mapping[str, Mapping[str, np.ndarray]]
) -> Picture:
    """Draw answers of cells against what changes; a panel for each, titled by it.

    panels : what changes -> name of the cell -> (N,);  across : the (N,) values of each
    """
    fig, axes = figure(columns=len(panels), width=9, height=2.8, squeeze=False)
    words = []
    for axis, values, (what, curves) in zip(axes[0], across, panels.items(), strict=True):
        for (name, y), marker in zip(curves.items(), MARKERS, strict=False):
            axis.plot(values, y, marker=marker, markersize=4, label=name)
            words.append(
                f"{name}, {what} {values[0]:g} to {values[-1]:g}: between {y.min():.2f} "
                f"and {y.max():.2f}, most at {values[y.argmax()]:g}"
            )
        axis.set_xlabel(what)
        axis.set_ylim(bottom=0)
        axis.legend()
    axes[0, 0].set_ylabel("answer")
    return Picture(fig, f"{'; '.join(words)}.")


def retinotopy(centres: np.ndarray, size: int) -> Picture:
    """Draw a map of cells, and where in the image each of them looks.

    centres : (HO, WO, 2), row and column;  size : pixels along a side of the image
    """
    HO, WO = centres.shape[:2]
    fig, (left, right) = figure(columns=2, width=7.5, height=3.6)
    cells = np.stack(np.indices((HO, WO)), axis=-1)
    shade = np.empty((HO, WO, 3))
    shade[..., 0] = cells[..., 0] / max(HO - 1, 1)
    shade[..., 1] = 0.45
    shade[..., 2] = cells[..., 1] / max(WO - 1, 1)
    for axis, places, title in (
        (left, cells, f"a map of {HO} x {WO} cells"),
        (right, centres, f"where they look, {size} x {size} pixels"),
    ):
        lines = [*places[..., ::-1], *places.transpose(1, 0, 2)[..., ::-1]]
        axis.add_collection(LineCollection(lines, colors="#bbbbbb", linewidths=0.8))
        axis.scatter(*places.reshape(-1, 2).T[::-1], c=shade.reshape(-1, 3), s=42, zorder=3)
        for i, j in ((0, 0), (0, WO - 1), (HO - 1, 0)):
            axis.annotate(
                f"{i},{j}",
                places[i, j][::-1],
                (4, 5),
                fontsize=7,
                textcoords="offset points",
            )
        axis.set_title(title)
        axis.set_aspect("equal")
    left.set_xlim(-0.7, WO - 0.3)
    left.set_ylim(HO - 0.3, -0.7)
    right.set_xlim(-0.5, size - 0.5)
    right.set_ylim(size - 0.5, -0.5)
    steps = [np.linalg.norm(np.diff(centres, axis=k), axis=2) for k in (0, 1)]
    apart = np.concatenate([step.ravel() for step in steps])
    far = np.linalg.norm(centres[-1, -1] - centres[0, 0])
    return Picture(
        fig,
        f"Neighbours in the map of {HO} x {WO} cells look at places {apart.mean():.1f} "
        f"pixels apart, opposite corners {far:.1f} pixels.",
    )


def features(weights: np.ndarray, images: np.ndarray, maps: np.ndarray) -> Picture:
    """Draw what S-cells have learned, an image, and where the C-cells find it.

    weights : (F, H, W);  images : (N, H, W), as many as are drawn;  maps : (N, F, HO, WO)
    """
    F, N = len(weights), len(images)
    shown = min(F, 12)
    fig, axes = figure(N + 1, shown + 1, width=9.5, height=0.85 * (N + 1))
    axes[0, 0].axis("off")
    axes[0, 0].text(0.5, 0.5, "learned", ha="center", va="center", fontsize=8)
    for axis, w in zip(axes[0, 1:], weights, strict=False):
        axis.imshow(w)
        _bare(axis)
    largest = maps.max()
    for row, image, seen in zip(axes[1:], images, maps, strict=True):
        row[0].imshow(image)
        _bare(row[0])
        for axis, plane in zip(row[1:], seen, strict=False):
            axis.imshow(plane, cmap="cividis", vmin=0, vmax=largest)
            _bare(axis)
    found = (maps.max(axis=(2, 3)) > 0).sum(axis=1)
    return Picture(
        fig,
        f"{shown} of {F} learned features, and where they are found in {N} images: of all "
        f"features, {', '.join(map(str, found))} are found in one.",
    )


def by_shift(shifts: Sequence[int], accuracy: Mapping[str, np.ndarray]) -> Picture:
    """Draw how many images nets read rightly, the farther the images are shifted.

    accuracy : name -> (seeds, shifts), from 0 to 1; the band goes from worst to best seed
    """
    fig, axis = figure(height=3, width=6.5)
    words = []
    for (name, scores), marker in zip(accuracy.items(), MARKERS, strict=False):
        mean = 100 * scores.mean(axis=0)
        (line,) = axis.plot(shifts, mean, marker=marker, label=name)
        low, high = 100 * scores.min(axis=0), 100 * scores.max(axis=0)
        axis.fill_between(shifts, low, high, color=line.get_color(), alpha=0.2, lw=0)
        axis.annotate(
            f"{mean[0]:.1f} %",
            (shifts[0], mean[0]),
            (6, 6),
            textcoords="offset points",
            fontsize=8,
        )
        words.append(
            f"{name}: {mean[0]:.1f} % in place ({low[0]:.1f} to {high[0]:.1f} over "
            f"{len(scores)} seeds), {mean[-1]:.1f} % shifted by {shifts[-1]} pixels"
        )
    axis.set_xticks(list(shifts))
    axis.set_ylim(0, 105)
    axis.set_xlabel("pixels by which test images are shifted")
    axis.set_ylabel("read rightly, %")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(accuracy))
    return Picture(fig, f"{'; '.join(words)}.")


def _bare(axis: Axes) -> None:
    """Take ticks and border away."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
