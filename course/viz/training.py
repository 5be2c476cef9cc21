"""Figures of a training run: the learning curve, and the images it gets wrong."""

from collections.abc import Sequence

import numpy as np

from course.training import Evaluation, History
from course.viz.base import Picture, figure

SMOOTH = 50  # batches at most whose losses are averaged for the curve


def learning_curve(history: History) -> Picture:
    """Draw the loss of every batch, smoothed, and the results after each epoch."""
    loss = np.array(history.batch_loss)
    if not loss.size:
        raise ValueError("there is no batch in this history: training has not begun")
    width = min(SMOOTH, 1 + loss.size // 20)
    smooth = np.convolve(loss, np.ones(width) / width, "valid")
    epochs = len(history.train_loss)
    per_epoch = loss.size / epochs if epochs else loss.size
    fig, axes = figure(1, 2 if history.test_accuracy else 1, squeeze=False)
    left = axes[0, 0]
    left.plot(loss, color="0.8", linewidth=0.6, label="each batch")
    left.plot(np.arange(width - 1, loss.size), smooth, label=f"mean of {width} batches")
    if history.test_loss:
        ends = per_epoch * np.arange(1, len(history.test_loss) + 1)
        left.plot(ends, history.test_loss, "o", color="black", label="held-out images")
    left.set(xlabel="batch", ylabel="cross-entropy, nats", yscale="log")
    left.legend()
    alt = (
        f"Learning curve: over {loss.size} batches the loss falls from {loss[0]:.2f} "
        f"to {smooth[-1]:.3f} nats (mean of the last {width})."
    )
    if history.test_accuracy:
        right = axes[0, 1]
        percent = 100 * np.array(history.test_accuracy)
        right.plot(np.arange(1, percent.size + 1), percent, "o-")
        right.set(xlabel="epoch", ylabel="accuracy on held-out images, %")
        right.set_xticks(np.arange(1, percent.size + 1))
        for epoch, value in enumerate(percent, 1):
            right.annotate(
                f"{value:.2f}", (epoch, value), (6, -10), textcoords="offset points"
            )
        right.margins(0.2)
        listed = ", ".join(f"{value:.2f}" for value in percent)
        alt += f" Accuracy on held-out images after each epoch: {listed} %."
    return Picture(fig, alt)


def confused(
    x: np.ndarray, t: np.ndarray, result: Evaluation, classes: Sequence[str], most: int = 24
) -> Picture:
    """Draw the images that were answered wrongly, the surest mistakes first.

    x (N, 1, H, W) and t (N,) are the images and labels that were evaluated.
    """
    wrong = np.flatnonzero(result.predictions != t)
    sure = result.probabilities[wrong, result.predictions[wrong]]
    chosen = wrong[np.argsort(-sure, kind="stable")][:most]
    columns = 8
    rows = max(1, -(-len(chosen) // columns))
    fig, axes = figure(rows, columns, height=1.25 * rows + 0.3, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, k in zip(axes.flat, chosen, strict=False):
        answer = result.predictions[k]
        axis.imshow(x[k, 0], vmin=0, vmax=1, cmap="gray_r")
        axis.set_title(
            f"{classes[t[k]]} read as {classes[answer]}\n"
            f"{100 * result.probabilities[k, answer]:.0f} % sure",
            fontsize=8,
            loc="center",
        )
    if not len(chosen):
        axes[0, 0].set_title("no mistakes")
    pairs = ", ".join(
        f"{classes[t[k]]} read as {classes[result.predictions[k]]}" for k in chosen[:5]
    )
    return Picture(
        fig,
        f"{len(wrong)} of {len(t)} images are answered wrongly; shown are the "
        f"{len(chosen)} surest mistakes" + (f": {pairs} ..." if pairs else "") + ".",
    )
