"""Figures of lecture 7: networks, boundaries, activations, approximation.

Weights, biases, activations and deltas of a network come as the lecture keeps them: in
dictionaries keyed by the number of the layer, one sample (row 0) drawn.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from course.viz.base import Picture, figure

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY = "#666666"
Arrays = Mapping[int, np.ndarray]


def network(theta: Arrays, a: Arrays, delta: Arrays, Delta: Arrays, step: int) -> Picture:
    """Return the network at a step of its pass: forward to the right, then backward.

    Step 0 gives every neuron its name. Step k up to L writes the activations of layer
    k+1; the L steps after it write the deltas, from the last layer to the second, and
    paint on each edge that arrives there the gradient of its weight.
    Raises ValueError for a step beyond 2 L.
    """
    L = len(theta)
    if not 0 <= step <= 2 * L:
        raise ValueError(f"step is {step}; a net of {L} weight matrices has 0 to {2 * L}")
    known = min(step, L) + 1 if step else 0  # activations up to this layer
    reached = 2 * L + 2 - step if step > L else L + 2  # deltas from this layer on
    fig, axes = figure(width=8.5, height=3.7)
    axes.axis("off")
    places = {layer: _column(layer, a[layer].shape[1]) for layer in a}
    for layer in theta:
        name = rf"$\Theta^{{({layer})}}$"
        axes.text(layer + 0.5, -0.72, name, ha="center", va="bottom", fontsize=11)
        for i, j in np.ndindex(theta[layer].shape):
            start, end = places[layer][j], places[layer + 1][i]
            if layer + 1 >= reached:
                value = Delta[layer][i, j]
                color = GREY if value == 0 else ORANGE if value > 0 else BLUE
                label = f"{value:+.3f}"
                weight = 1.0 + 2.5 * min(abs(value) / _largest(Delta), 1.0)
            else:
                color, weight = "#B0B0B0", 1.0
                label = f"{theta[layer][i, j]:+g}"
            axes.plot(*zip(start, end, strict=True), color=color, lw=weight, zorder=1)
            place = start + (0.3 + 0.16 * (i % 3)) * (end - start)
            axes.text(
                *place,
                label,
                color="black" if layer + 1 < reached else color,
                fontsize=7.5,
                ha="center",
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )
    for layer, column in places.items():
        for i, (across, up) in enumerate(column):
            face = "#FFF3CC" if layer <= known else "white"
            axes.scatter(across, up, s=1500, c=face, edgecolor="black", zorder=2)
            name = rf"$a^{{({layer})}}_{i + 1}$"
            if layer <= known:
                name += f"\n{a[layer][0, i]:.3f}"
            axes.text(across, up, name, ha="center", va="center", fontsize=8, zorder=3)
            if layer >= reached:
                axes.text(
                    across,
                    up - 0.47,
                    rf"$\delta^{{({layer})}}_{i + 1}={delta[layer][0, i]:+.3f}$",
                    color=ORANGE if delta[layer][0, i] > 0 else BLUE,
                    ha="center",
                    va="center",
                    fontsize=8.5,
                    fontweight="bold",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
                    zorder=3,
                )
    if step == 0:
        said = "The names: neuron i of layer l is a(l)_i, and each edge carries a weight."
        title = "Step 0: names and weights"
    elif step <= L:
        said = f"Forward to layer {known}: a({known}) = {_listed(a[known][0])}."
        title = rf"Step {step}: forward, $a^{{({known})}}$ is known"
    else:
        said = (
            f"Backward to layer {reached}: delta({reached}) = "
            f"{_listed(delta[reached][0])}, gradients on the edges that arrive there: "
            f"{_listed(Delta[reached - 1].ravel())}."
        )
        title = (
            rf"Step {step}: backward, $\delta^{{({reached})}}$ is known; on the edges "
            rf"$\delta^{{({reached})}}_i\,a^{{({reached - 1})}}_j$"
        )
    axes.set_title(title)
    axes.set_xlim(0.7, L + 1.3)
    axes.set_ylim(-0.75, _tallest(a) - 0.55)
    sizes = "-".join(str(a[layer].shape[1]) for layer in sorted(a))
    return Picture(fig, f"Network {sizes}, step {step} of {2 * L}. {said}")


def _column(layer: int, size: int) -> np.ndarray:
    """Return the (across, up) places of the neurons of a layer, first on top."""
    up = np.arange(size)[::-1] + (3 - size) / 2
    return np.stack([np.full(size, layer), up], axis=1).astype(float)


def _tallest(a: Arrays) -> float:
    """Return the height of the tallest column."""
    return max(3, *(layer.shape[1] for layer in a.values())) / 2 + 1.5


def _largest(Delta: Arrays) -> float:
    """Return the largest absolute gradient."""
    return max(np.abs(layer).max() for layer in Delta.values()) or 1.0


def _listed(values: np.ndarray) -> str:
    """Return the numbers with three digits after the point, in brackets."""
    return "[" + ", ".join(f"{value:.3f}" for value in values) + "]"


def collapse(x: np.ndarray, curves: Mapping[str, np.ndarray]) -> Picture:
    """Return one panel a curve: what the same random deep net makes of x (N,)."""
    fig, axes = figure(1, len(curves), height=2.4, sharex=True)
    bends = {}
    for axis, (name, y) in zip(axes, curves.items(), strict=True):
        line = np.polyval(np.polyfit(x, y, 1), x)
        bends[name] = np.abs(y - line).max()
        axis.plot(x, line, color=GREY, lw=1, ls="--", label="best straight line")
        axis.plot(x, y, label="the network")
        axis.set(title=name, xlabel="x")
    axes[0].set_ylabel("output")
    axes[0].legend()
    told = ", ".join(f"{name}: {bend:.4f}" for name, bend in bends.items())
    return Picture(
        fig, f"Largest distance of the network's output from a straight line: {told}."
    )


def straight_cut(
    x: np.ndarray, t: np.ndarray, normal: np.ndarray, threshold: float
) -> Picture:
    """Return the points x (N, 2) with labels t (N,), cut where x @ normal = threshold."""
    fig, axes = figure(width=3.2, height=2.8)
    low, high = x.min() - 0.3, x.max() + 0.3
    axis = np.linspace(low, high, 81)
    score = normal[0] * axis + normal[1] * axis[:, None] - threshold
    _regions(axes, x, t, score, axis, 0.0, 70)
    axes.set(xlabel="$x_1$", ylabel="$x_2$", title="one straight cut")
    right = (x @ normal > threshold) == (t == 1)
    missed = ", ".join(f"({a:g}, {b:g})" for a, b in x[~right])
    return Picture(
        fig,
        f"A straight cut puts {right.sum()} of {len(t)} points on the right side; on the "
        f"wrong side: {missed or 'none'}.",
    )


def xor_spaces(
    t: np.ndarray, hidden: np.ndarray, field: np.ndarray, line: np.ndarray
) -> Picture:
    """Return XOR twice: in the plane of the inputs, and in the plane of the hidden layer.

    t (4,) labels of (0,0), (0,1), (1,0), (1,1); hidden (4, 2) their hidden activations;
    field (M, M) the network's output over [-0.3, 1.3] squared, first axis x2; line (3,)
    bias and two weights of the last layer.
    """
    fig, (left, right) = figure(1, 2, height=3.5)
    points = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    axis = np.linspace(-0.3, 1.3, len(field))
    _regions(left, points, t, field, axis, 0.5, 90)
    left.set(title="the inputs", xlabel="$x_1$", ylabel="$x_2$")
    right.set(
        title="the hidden layer",
        xlabel="$a^{(2)}_1$",
        ylabel="$a^{(2)}_2$",
        xlim=(-0.15, 1.15),
        ylim=(-0.15, 1.15),
        aspect="equal",
    )
    across = np.array([-0.15, 1.15])
    right.plot(across, -(line[0] + line[1] * across) / line[2], "k-", lw=1.2)
    _two_classes(right, hidden, t, 90)
    for n, spot in enumerate(hidden):
        name = f"({points[n, 0]:.0f},{points[n, 1]:.0f})"
        up = 9 if n % 3 else -14  # (0,1) and (1,0) may meet in one place
        shift = (-14, up) if n == 2 else (8, up)
        right.annotate(name, spot, shift, textcoords="offset points", fontsize=8)
    side = line[0] + hidden @ line[1:] > 0
    apart = "puts" if (side == (t == 1)).all() else "does not put"
    shown = "; ".join(_listed(row) for row in hidden)
    return Picture(
        fig,
        f"Hidden activations of (0,0), (0,1), (1,0), (1,1): {shown}. In that plane one "
        f"straight line {apart} the two labels on two sides.",
    )


def _two_classes(axes: Axes, x: np.ndarray, t: np.ndarray, size: float) -> None:
    """Scatter the points: label 0 blue circles, label 1 orange triangles."""
    for label, marker, color in ((0, "o", BLUE), (1, "^", ORANGE)):
        axes.scatter(
            *x[t == label].T,
            s=size,
            c=color,
            marker=marker,
            edgecolor="white",
            linewidth=0.6,
            label=f"label {label}",
            zorder=3,
        )


def boundary_strip(
    x: np.ndarray,
    t: np.ndarray,
    fields: Mapping[int, np.ndarray],
    losses: Sequence[float],
    half: float,
) -> Picture:
    """Return one panel a snapshot: the regions of a net while it trains.

    x (N, 2) and t (N,) the data; fields step -> (M, M) the net's output over
    [-half, half] squared, first axis x2; losses the loss of every step, in nats.
    """
    fig, axes = figure(1, len(fields), height=2.5, sharex=True, sharey=True)
    for axis, (step, field) in zip(axes, fields.items(), strict=True):
        _regions(axis, x, t, field, _across(half, field), 0.5, 14)
        axis.set(title=f"step {step}, loss {losses[step]:.3f}", xticks=[], yticks=[])
    told = ", ".join(f"{losses[step]:.4f} after step {step}" for step in fields)
    return Picture(fig, f"The regions of a network that learns. Its loss in nats: {told}.")


def boundary(
    x: np.ndarray,
    t: np.ndarray,
    fields: Mapping[int, np.ndarray],
    losses: Sequence[float],
    step: int,
    half: float,
) -> Picture:
    """Return the regions at one step, beside the loss of every step (in nats)."""
    fig, (left, right) = figure(1, 2, height=3.6)
    _regions(left, x, t, fields[step], _across(half, fields[step]), 0.5, 14)
    left.set(title=f"step {step}", xlabel="$x_1$", ylabel="$x_2$")
    left.legend(loc="upper left", frameon=True)
    right.plot(np.arange(len(losses)) + 1, losses)
    right.plot(step + 1, losses[step], "o", color=ORANGE)
    right.set(xscale="log", yscale="log", title="loss", xlabel="step + 1", ylabel="nats")
    return Picture(
        fig,
        f"Step {step} of {len(losses) - 1}: the loss is {losses[step]:.4f} nats; it began "
        f"at {losses[0]:.4f}.",
    )


def _across(half: float, field: np.ndarray) -> np.ndarray:
    """Return the places of a field's rows and columns over [-half, half]."""
    return np.linspace(-half, half, len(field))


def _regions(
    axes: Axes,
    x: np.ndarray,
    t: np.ndarray,
    field: np.ndarray,
    axis: np.ndarray,
    border: float,
    size: float,
) -> None:
    """Draw where the field is below and above the border, the line between, the points."""
    low, high = min(field.min(), border) - 1, max(field.max(), border) + 1
    axes.contourf(axis, axis, field, [low, border, high], colors=["#D6E6F2", "#F8DFCF"])
    if field.min() < border < field.max():
        axes.contour(axis, axis, field, [border], colors="black", linewidths=1.2)
    _two_classes(axes, x, t, size)
    axes.set_aspect("equal")


def activation_wall(
    z: np.ndarray, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> Picture:
    """Return one panel an activation: g(z) as a full line, its derivative dashed.

    z (M,); curves name -> g, dg, each (M,).
    """
    rows = len(curves) // 4 + 1  # the last panel is for the legend
    fig, axes = figure(rows, 4, width=8.5, height=2.0 * rows, squeeze=False, sharey=True)
    for axis, (name, (g, dg)) in zip(axes.flat, curves.items(), strict=False):
        axis.axhline(0, color="#B0B0B0", lw=0.8)
        axis.axvline(0, color="#B0B0B0", lw=0.8)
        axis.plot(z, g, label="g(z)")
        axis.plot(z, dg, "--", label="g'(z)")
        axis.set(title=name, ylim=(-2.2, 3.2), xlabel="z")
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    lines = axes[0, 0].get_legend_handles_labels()
    axes.flat[len(curves)].legend(*lines, loc="center", fontsize=11)
    told = "; ".join(
        f"{name}: {dg[0]:.3f}, {dg[-1]:.3f}" for name, (_, dg) in curves.items()
    )
    return Picture(
        fig,
        f"Activations and their derivatives. Derivative at z = {z[0]:g} and at "
        f"z = {z[-1]:g}: {told}.",
    )


def approximation(
    x: np.ndarray,
    target: np.ndarray,
    parts: np.ndarray,
    errors: Mapping[str, Mapping[int, float]],
    inside: tuple[float, float],
) -> Picture:
    """Return a curve, the sum of bent pieces that fits it, and error against width.

    x, target (M,); parts (M, width + 1) the constant and each hidden unit times its
    output weight, so that the fit is their sum; errors name -> width -> root mean
    square error, the first name being the one drawn; inside is the fitted interval.
    """
    width, fit = parts.shape[1] - 1, parts.sum(axis=1)
    fig, (left, right) = figure(1, 2, height=3.4)
    left.axvspan(*inside, color="#EEEEEE", zorder=0)
    for unit, part in enumerate(parts.T[1:]):
        name = None if unit else "one hidden unit"
        left.plot(x, part - part[0], color=GREEN, lw=0.7, alpha=0.7, label=name)
    left.plot(x, target, color="black", lw=1.2, label="target")
    left.plot(x, fit, "--", color=ORANGE, label=f"sum of {width}")
    span = np.abs(target).max()
    left.set(title=f"width {width}", xlabel="x", ylim=(-2.2 * span, 2.4 * span))
    left.legend(loc="upper right", ncols=3, columnspacing=1, handlelength=1.4)
    for marker, (name, curve) in zip("os^", errors.items(), strict=False):
        right.loglog(list(curve), list(curve.values()), f"{marker}-", label=name)
    first = next(iter(errors.values()))
    right.plot(width, first[width], "o", ms=11, mfc="none", mec="black")
    right.set(title="error on the grey interval", xlabel="width", ylabel="RMS error")
    right.set_xticks(list(first), [str(w) for w in first])
    right.set_xticks([], minor=True)
    right.legend()
    return Picture(
        fig,
        f"With {width} hidden units the root mean square error on "
        f"[{inside[0]:g}, {inside[1]:g}] is {first[width]:.4f}.",
    )


def mended(
    images: np.ndarray,
    t: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    names: Sequence[str] = ("linear", "MLP"),
    most: int = 8,
) -> Picture:
    """Return the test images that the first classifier misreads and the second does not.

    images (N, 1, H, W); t, before, after (N,) right class and the two answers. At most
    `most` of them are drawn.
    """
    chosen = np.flatnonzero((before != t) & (after == t))
    broken = int(((before == t) & (after != t)).sum())
    columns = max(1, min(most, len(chosen)))
    fig, axes = figure(1, columns, width=columns, height=1.4, squeeze=False)
    for axis in axes[0]:
        axis.axis("off")
    for axis, n in zip(axes[0], chosen, strict=False):
        axis.imshow(images[n, 0], cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(f"{names[0]}: {before[n]}\n{names[1]}: {after[n]}", fontsize=8)
    return Picture(
        fig,
        f"{len(chosen)} test images that the {names[0]} classifier misreads and the "
        f"{names[1]} reads right ({broken} the other way round).",
    )
