"""Figures of lecture 3: from scores to probabilities to a loss.

Every number in a text alternative is computed from the arrays that are drawn.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.patches import FancyBboxPatch

from course.viz.base import Picture, figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"


def listed(values: object, digits: int = 3) -> str:
    """Return numbers as text for an alternative: "0.7, 0.8 and 0.6"."""
    words = [f"{value:.{digits}g}" for value in np.asarray(values).ravel()]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _bars(axis, names, values, digits, color=BLUE, limits=None):
    """Draw one horizontal bar a name, first on top, with its value written beside it."""
    places = np.arange(len(names))
    axis.barh(places, values, color=color)
    axis.set_yticks(places, names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.axvline(0, color="black", linewidth=0.8)
    low, high = limits or (min(0, *values), max(0, *values))
    span = (high - low) or 1
    axis.set_xlim(low - 0.16 * span * (low < 0), high + 0.16 * span)
    for place, value in zip(places, values, strict=True):
        side = "right" if value < 0 else "left"
        gap = -0.012 * span if value < 0 else 0.012 * span
        axis.text(
            value + gap, place, f"{value:.{digits}f}", va="center", ha=side, fontsize=8
        )


def sigmoid_curve(z: np.ndarray, a: np.ndarray, slope: np.ndarray) -> Picture:
    """Draw the sigmoid a of z, and its slope."""
    fig, axis = figure(height=2.8)
    axis.plot(z, a, label="σ(z)")
    axis.plot(z, slope, "--", label="slope σ(z)(1 − σ(z))")
    for level in (0, 1):
        axis.axhline(level, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_xlabel("score z")
    axis.set_title("The sigmoid turns any score into a number between 0 and 1")
    axis.legend(loc="center left")
    top = np.argmax(slope)
    return Picture(
        fig,
        f"""The sigmoid rises from {a[0]:.4f} at z = {z[0]:g} to {a[-1]:.4f} at
        z = {z[-1]:g}. Its slope is largest, {slope[top]:.2f}, at z = {z[top]:g},
        where the sigmoid is {a[top]:.2f}, and nearly 0 at both ends.""",
    )


def score_bars(
    scores: np.ndarray, p: np.ndarray, names: Sequence[str], note: str = ""
) -> Picture:
    """Draw the scores of one picture beside the probabilities that come from them."""
    fig, (left, right) = figure(columns=2, height=0.9 + 0.26 * len(names), sharey=True)
    _bars(left, names, scores, 1)
    left.set_title(f"scores {note}".strip())
    _bars(right, names, p, 3, GREEN, limits=(0, 1))
    right.set_title("softmax: probabilities, sum 1")
    top = int(np.argmax(p))
    return Picture(
        fig,
        f"""Scores {note} for {", ".join(names)}: {listed(scores)}. Their softmax:
        {listed(p)}. The largest is {names[top]} with {p[top]:.3f}.""",
    )


def last_layer(
    sizes: Sequence[int], a: np.ndarray, w: np.ndarray, b: float, z: float, p: float
) -> Picture:
    """Draw a network whose last layer, boxed, takes a and gives p = sigmoid(w a + b)."""
    fig, axis = figure(height=3.2)
    places = [
        [(1.9 * layer, (count - 1) / 2 - i) for i in range(count)]
        for layer, count in enumerate(sizes)
    ]
    for layer, (here, there) in enumerate(pairwise(places)):
        last = layer == len(sizes) - 2
        for i, (x0, y0) in enumerate(here):
            for x1, y1 in there:
                color, thick = (BLUE, 1.8) if last else ("0.8", 0.8)
                axis.plot([x0, x1], [y0, y1], color=color, linewidth=thick, zorder=1)
                if last:
                    axis.text(
                        x0 + 0.42 * (x1 - x0),
                        y0 + 0.42 * (y1 - y0),
                        f"× {w[i]:g}".replace("-", "−"),
                        fontsize=9,
                        ha="center",
                        va="center",
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                    )
    for layer, column in enumerate(places):
        for i, (x0, y0) in enumerate(column):
            axis.scatter(x0, y0, s=620, facecolor="white", edgecolor="black", zorder=2)
            text = "" if layer < len(sizes) - 2 else f"{a[i]:g}"
            if layer == len(sizes) - 1:
                text = f"{p:.2f}"
            axis.text(x0, y0, text, ha="center", va="center", fontsize=9, zorder=3)
    x0 = places[-2][0][0]
    tall = max(sizes[-2:]) / 2
    axis.add_patch(
        FancyBboxPatch(
            (x0 - 0.4, -tall - 0.1),
            2.75,
            2 * tall + 0.2,
            boxstyle="round,pad=0.05",
            facecolor="none",
            edgecolor=ORANGE,
            linewidth=1.8,
            linestyle="--",
        )
    )
    axis.text(x0 - 0.35, tall + 0.28, "binary logistic regression", color=ORANGE)
    axis.text(
        places[-1][0][0] + 0.62,
        0,
        f"z = w·a + b = {z:g}\n(with b = {b:g})\np = σ(z) = {p:.4f}".replace("-", "−"),
        va="center",
        fontsize=9,
    )
    axis.set_xlim(-0.5, places[-1][0][0] + 2.4)
    axis.set_ylim(-max(sizes) / 2 - 0.3, max(sizes) / 2 + 0.6)
    axis.set_axis_off()
    return Picture(
        fig,
        f"""A network with layers of {listed(sizes)} neurons. A box around the last
        layer is labelled binary logistic regression: inputs a = {listed(a)}, weights
        w = {listed(w)}, bias b = {b:g}, score z = {z:g}, output p = {p:.4f}.""",
    )


def quality(p: np.ndarray) -> Picture:
    """Draw the probability of the right class of each picture and two averages."""
    arithmetic, geometric = p.mean(), np.exp(np.log(p).mean())
    fig, axis = figure(height=2.7)
    places = np.arange(1, len(p) + 1)
    axis.bar(places, p, color="0.75")
    for place, value in zip(places, p, strict=True):
        axis.text(place, value + 0.015, f"{value:.3g}", ha="center", fontsize=8)
    axis.axhline(geometric, color=BLUE, label=f"geometric mean {geometric:.4f}")
    axis.axhline(
        arithmetic, color=ORANGE, linestyle="--", label=f"arithmetic mean {arithmetic:.4f}"
    )
    axis.set_xlabel("picture")
    axis.set_ylabel("p(right class)")
    axis.set_ylim(0, 1.1)
    axis.set_xlim(0.4, len(p) + 2.4)
    axis.set_xticks(places)
    axis.legend(loc="upper right")
    axis.set_title(f"Quality of the network: {geometric:.0%}")
    return Picture(
        fig,
        f"""Bars of the probability that {len(p)} pictures got for their right class:
        {listed(p)}. Arithmetic mean {arithmetic:.4f}, geometric mean {geometric:.4f}.""",
    )


def log_ladder(p: np.ndarray) -> Picture:
    """Draw -ln p with a rung for each halving, and the losses of pictures laid in a row."""
    fig, (left, right) = figure(columns=2, height=3.2, width_ratios=(1, 1.2))
    curve = np.linspace(0.012, 1, 400)
    left.plot(curve, -np.log(curve), color=GREY)
    for rung in range(6):
        x, y = 2.0**-rung, rung * np.log(2)
        left.plot([x, 1.03], [y, y], ":", color=GREY, linewidth=1, zorder=0)
        left.plot(x, y, "_", color=GREY, markersize=10)
        half = "1" if rung == 0 else f"1/{2**rung}"
        left.text(1.04, y, f"p = {half}: {y:.2f}", fontsize=8, va="center")
    losses = -np.log(p)
    left.plot(p, losses, "o", color=BLUE)
    left.set_xlim(0, 1.45)
    left.set_xticks([0, 0.25, 0.5, 0.75, 1])
    left.set_xlabel("probability p of the right class")
    left.set_ylabel("loss −ln p, in nats")
    left.set_title("Each halving of p climbs one rung: ln 2 = 0.69")
    starts = np.concatenate([[0.0], losses.cumsum()[:-1]])
    shades = np.where(np.arange(len(p)) % 2, "#56B4E9", "#A6D5F2")
    right.barh(1, losses, left=starts, color=shades, height=0.5)
    for start, loss, value in zip(starts, losses, p, strict=True):
        right.text(start + loss / 2, 1.36, f"{value:.3g}", ha="center", fontsize=8)
        right.text(start + loss / 2, 1, f"{loss:.2f}", ha="center", va="center", fontsize=7)
    right.text(0, 1.62, "p of each picture:", fontsize=8)
    right.barh(0, losses.mean(), color=ORANGE, height=0.5)
    right.text(losses.mean() + 0.04, 0, f"mean {losses.mean():.4f}", va="center")
    right.text(losses.sum() + 0.04, 1, f"sum\n{losses.sum():.4f}", va="center", fontsize=8)
    right.set_xlim(0, losses.sum() * 1.22)
    right.set_ylim(-0.5, 1.95)
    right.set_yticks([])
    right.spines["left"].set_visible(False)
    right.set_xlabel("nats")
    right.set_title("A product of p is a sum of losses")
    return Picture(
        fig,
        f"""Left: the curve -ln p falls to 0 at p = 1 and rises by {np.log(2):.4f} nats
        each time p is halved. Right: the losses of probabilities {listed(p)} are
        {listed(losses)} nats; laid in a row they reach {losses.sum():.4f}; their mean is
        {losses.mean():.4f}.""",
    )


def code_board(names: Sequence[str], p: np.ndarray, words: Sequence[str]) -> Picture:
    """Draw the tree of a prefix code, and each word's length beside -log2 p."""
    p = np.asarray(p, float)
    order = sorted(range(len(p)), key=lambda i: words[i])
    fig, (tree, bars) = figure(columns=2, height=1.1 + 0.32 * len(p), sharey=True)
    height = {words[i]: float(place) for place, i in enumerate(order)}
    inner = {word[:k] for word in words for k in range(len(word))}
    for node in sorted(inner, key=len, reverse=True):
        height[node] = (height[node + "0"] + height[node + "1"]) / 2
    for node in inner:
        for digit in "01":
            y0, y1, x = height[node], height[node + digit], len(node)
            tree.plot([x, x, x + 1], [y0, y1, y1], color=GREY, linewidth=1.2)
            tree.text(x + 0.5, y1 - 0.08, digit, fontsize=9, ha="center", va="bottom")
    for i in order:
        tree.text(
            len(words[i]) + 0.07,
            height[words[i]],
            f"{names[i]}  {words[i]}",
            va="center",
            fontsize=9,
            weight="bold",
        )
    tree.set_xlim(-0.1, max(map(len, words)) + 1.4)
    tree.set_axis_off()
    tree.set_title("walk from the left, read the digits")
    surprise = -np.log2(p)
    lengths = np.array([len(word) for word in words])
    for place, i in enumerate(order):
        bars.barh(place - 0.17, surprise[i], 0.32, color=BLUE)
        bars.barh(place + 0.17, lengths[i], 0.32, color=ORANGE, hatch="//", alpha=0.75)
        bars.text(
            max(surprise[i], lengths[i]) + 0.08, place, f"p = {p[i]:.3g}", va="center"
        )
    bars.barh(np.nan, 0, color=BLUE, label="information −log₂ p")
    bars.barh(np.nan, 0, color=ORANGE, hatch="//", alpha=0.75, label="length of the word")
    bars.set_ylim(len(p) - 0.4, -0.6)
    bars.set_xlim(0, max(surprise.max(), lengths.max()) * 1.35)
    bars.set_yticks([])
    bars.set_xlabel("bits")
    entropy, average = float(p @ surprise), float(p @ lengths)
    bars.set_title(f"entropy {entropy:.4f} bits, average word {average:.4f}")
    fig.legend(loc="outside lower right", ncols=2)
    said = ", ".join(f"{names[i]} (p = {p[i]:.3g}) {words[i]}" for i in order)
    return Picture(
        fig,
        f"""A code tree with the words {said}. Entropy {entropy:.4f} bits, average
        length of a word {average:.4f} bits.""",
    )


def belief(p: float, q: np.ndarray, cost: np.ndarray, least: float) -> Picture:
    """Draw what a coin costs to transmit when it shows heads with p and one believes q."""
    fig, axis = figure(height=2.9)
    axis.plot(q, cost, label="cross-entropy H(p, q): what you pay")
    axis.axhline(least, color=ORANGE, linestyle="--", label=f"entropy H(p) = {least:.4f}")
    axis.fill_between(q, least, cost, color=BLUE, alpha=0.15, label="KL(p, q): the waste")
    lowest = np.argmin(cost)
    axis.plot(q[lowest], cost[lowest], "o", color=BLUE)
    axis.annotate(
        f"q = p = {p:g}",
        (q[lowest], cost[lowest]),
        (q[lowest], cost[lowest] + 0.55),
        ha="center",
        fontsize=9,
        arrowprops={"arrowstyle": "->"},
    )
    axis.set_ylim(0, None)
    axis.set_xlabel("q, the probability of heads that the code was made for")
    axis.set_ylabel("bits for a toss")
    axis.set_title(f"A coin that shows heads with p = {p:g}")
    axis.legend(loc="upper center")
    return Picture(
        fig,
        f"""The average cost of a toss, over what is believed about a coin with
        p = {p:g}. It is least, {cost[lowest]:.4f} bits, at q = {q[lowest]:.2f}, where it
        touches the entropy {least:.4f}; at q = {q[-1]:.2f} it is {cost[-1]:.4f} bits.""",
    )


def overflow(largest: np.ndarray, results: dict[str, np.ndarray]) -> Picture:
    """Draw up to which size m each loop gets log(exp(m) + exp(m)) = m + ln 2 right."""
    fig, axis = figure(height=0.9 + 0.42 * len(results))
    said = []
    for place, (name, values) in enumerate(results.items()):
        right = np.isclose(values, largest + np.log(2), rtol=1e-5)
        last = largest[right].max()
        axis.plot([largest[0], last], [place, place], linewidth=7, solid_capstyle="butt")
        if right.all():
            said.append(f"{name}: right up to {last:g}, the end of the axis")
        else:
            first = largest[~right].min()
            axis.plot(first, place, "X", color="black", markersize=9)
            axis.text(
                first * 1.2, place, f"{values[~right][0]:g} from {first:g}", va="center"
            )
            said.append(
                f"{name}: right up to {last:g}, {values[~right][0]:g} from {first:g}"
            )
    axis.set_xscale("log")
    axis.set_yticks(range(len(results)), results)
    axis.set_ylim(len(results) - 0.4, -0.6)
    axis.set_xlabel("size m of the two scores (logarithmic scale)")
    axis.set_title("Where log(exp(m) + exp(m)) comes out right")
    return Picture(fig, f"""Log-sum-exp of two scores m. {"; ".join(said)}.""")


def push(names: Sequence[str], p: np.ndarray, right: int, gradient: np.ndarray) -> Picture:
    """Draw what is said beside what is true, and how the loss changes with each score."""
    fig, (left, middle) = figure(columns=2, height=0.9 + 0.34 * len(names), sharey=True)
    _bars(left, names, p, 3, GREEN, limits=(0, 1))
    left.barh(right, 1, facecolor="none", edgecolor="black", linestyle="--")
    left.set_title("probabilities p; dashed: what is right, y")
    _bars(middle, names, gradient, 3, np.where(gradient > 0, ORANGE, BLUE))
    middle.set_title("gradient p − y: a step goes the other way")
    return Picture(
        fig,
        f"""For {", ".join(names)} the probabilities are {listed(p)} and
        {names[right]} is right. The gradient of the loss with respect to the scores is
        {listed(gradient)}: negative for {names[right]} only, and its sum is
        {abs(gradient.sum()):.3f}.""",
    )


def learning_curve(
    batch_loss: np.ndarray, steps: np.ndarray, test_loss: np.ndarray, chance: float
) -> Picture:
    """Draw the loss of every batch, of the test set, and of guessing."""
    fig, axis = figure(height=2.9)
    axis.plot(np.arange(1, len(batch_loss) + 1), batch_loss, linewidth=0.8, alpha=0.6)
    axis.lines[0].set_label("training batch")
    axis.plot(steps, test_loss, "o-", color=ORANGE, markersize=4, label="test images")
    axis.axhline(chance, color="black", linestyle=":", label=f"guessing: {chance:.4f}")
    axis.set_ylim(0, None)
    axis.set_xlabel("step")
    axis.set_ylabel("loss, in nats")
    axis.set_title("A softmax classifier learns the digits")
    axis.legend()
    return Picture(
        fig,
        f"""The loss of a batch falls from {batch_loss[0]:.3f}, near the {chance:.3f} of
        guessing, to a mean of {np.mean(batch_loss[-20:]):.3f} over the last 20 of
        {len(batch_loss)} steps. The test loss ends at {test_loss[-1]:.3f}.""",
    )


def templates(w: np.ndarray, shape: tuple[int, int], classes: Sequence[str]) -> Picture:
    """Draw the rows of w, each as a picture in the shape of the input."""
    columns = (len(w) + 1) // 2
    fig, axes = figure(2, columns, height=3.3)
    limit = float(np.abs(w).max())
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, row, name in zip(axes.flat, w, classes, strict=False):
        shown = axis.imshow(row.reshape(shape), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(f"class {name}", loc="center")
    bar = fig.colorbar(shown, ax=axes, shrink=0.8, ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels(["ink counts against", "no matter", "ink counts for"])
    zero = w[0].reshape(shape)
    middle, ring = zero[shape[0] // 2, shape[1] // 2], zero.max()
    return Picture(
        fig,
        f"""The {len(w)} rows of w as pictures of {shape[0]} by {shape[1]} pixels. The
        weights lie between {w.min():.2f} and {w.max():.2f}. In the template of class
        {classes[0]} the centre has the weight {middle:.2f}, the strongest pixel
        {ring:.2f}.""",
    )


def sheet(images: np.ndarray, titles: Sequence[str]) -> Picture:
    """Draw small images in rows of four, each with its title."""
    rows = -(-len(images) // 4)
    fig, axes = figure(rows, 4, height=1.95 * rows, squeeze=False)
    for axis in axes.flat[len(images) :]:
        axis.set_axis_off()
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(title, loc="center", fontsize=9)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color="0.7")
    said = "; ".join(title.replace("\n", ", ") for title in titles)
    return Picture(fig, f"{len(images)} images: {said}.")


def reliability(
    panels: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> Picture:
    """Draw, for each named (said, came true, count) of bins, how often what is said is so.

    The grey bars hold 95 of 100 points of an honest network: two standard errors of a
    share of `count` trials to either side of what is said.
    """
    fig, axes = figure(
        columns=len(panels), height=3.3, sharex=True, sharey=True, squeeze=False
    )
    alts = []
    for axis, (name, (said, true, count)) in zip(axes[0], panels.items(), strict=True):
        error = 2 * np.sqrt(said * (1 - said) / count)
        low, high = np.maximum(said - error, 0), np.minimum(said + error, 1)
        axis.plot([0, 1], [0, 1], ":", color="black")
        axis.vlines(said, low, high, color="0.8", linewidth=7)
        axis.plot(said, true, "o-", markersize=5, linewidth=1.2)
        for x, y, n in zip(said, true, count, strict=True):
            below = y <= x or x < 0.1
            axis.annotate(
                f"{n}",
                (x, y),
                (8, -10) if below else (-8, 3),
                textcoords="offset points",
                ha="left" if below else "right",
                fontsize=8,
            )
        axis.set_title(name)
        axis.set_xlim(-0.12, 1.12)
        axis.set_ylim(-0.1, 1.12)
        axis.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        axis.set_xlabel("said: mean p of the bin")
        pairs = ", ".join(
            f"{x:.3f} said and {y:.3f} true ({n})"
            for x, y, n in zip(said, true, count, strict=True)
        )
        alts.append(f"{name}: {pairs}.")
    axes[0, 0].set_ylabel("came true: share of the bin")
    return Picture(fig, " ".join(alts))
