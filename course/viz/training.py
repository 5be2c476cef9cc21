"""Figures of a training run: learning curve, search for a rate, wrong answers."""

from collections.abc import Sequence

import numpy as np

from course.sanity import RateSearch
from course.training import Evaluation, History
from course.viz.base import Picture, figure

SMOOTH = 50  # batches at most whose losses are averaged for the curve
FEW = 8  # epochs at most that all have their accuracy beside them


def learning_curve(history: History, loss: str = "cross-entropy, nats") -> Picture:
    """Draw the loss of every batch, smoothed, and the results after each epoch.

    `loss` says what the loss is and in which unit.
    """
    losses = np.array(history.batch_loss)
    if not losses.size:
        raise ValueError("there is no batch in this history: training has not begun")
    width = min(SMOOTH, 1 + losses.size // 20)
    smooth = np.convolve(losses, np.ones(width) / width, "valid")
    fig, axes = figure(1, 2 if history.test_accuracy else 1, squeeze=False)
    left = axes[0, 0]
    left.plot(losses, color="0.8", linewidth=0.6, label="each batch")
    left.plot(np.arange(width - 1, losses.size), smooth, label=f"mean of {width} batches")
    alt = (
        f"Learning curve: over {losses.size} batches the loss falls from {losses[0]:.2f} "
        f"to {smooth[-1]:.3f} (mean of the last {width}; {loss})."
    )
    if history.test_loss:
        best = history.best_epoch
        ends = np.array(history.epoch_ends)
        left.plot(ends, history.test_loss, "o-", color="black", label="held-out images")
        lowest = ends[best - 1], history.test_loss[best - 1]
        left.plot(
            *lowest, "o", color="none", mec="black", ms=11, label=f"lowest: epoch {best}"
        )
        alt += (
            f" On held-out images it is lowest after epoch {best} of {len(ends)}, at "
            f"{lowest[1]:.3f}."
        )
    left.set(xlabel="batch", ylabel=loss)
    if losses.min() > 0:
        left.set(yscale="log", ylim=(min([*smooth, *history.test_loss]) / 3, None))
    left.legend()
    if history.test_accuracy:
        right = axes[0, 1]
        percent = 100 * np.array(history.test_accuracy)
        right.plot(np.arange(1, percent.size + 1), percent, "o-")
        right.set(xlabel="epoch", ylabel="accuracy on held-out images, %")
        right.xaxis.get_major_locator().set_params(integer=True)
        best = int(percent.argmax())
        for epoch in range(percent.size) if percent.size <= FEW else [best]:
            right.annotate(
                f"{percent[epoch]:.2f}",
                (epoch + 1, percent[epoch]),
                (6, -10),
                textcoords="offset points",
            )
        right.margins(0.2)
        if percent.size <= FEW:
            listed = ", ".join(f"{value:.2f}" for value in percent)
            alt += f" Accuracy on held-out images after each epoch: {listed} %."
        else:
            alt += (
                f" Accuracy on held-out images is {percent[0]:.2f} % after the first "
                f"epoch, {percent[-1]:.2f} % after the last and highest, "
                f"{percent[best]:.2f} %, after epoch {best + 1}."
            )
    return Picture(fig, alt)


def lr_curve(search: RateSearch) -> Picture:
    """Draw the loss over the learning rate, and the two rates that are worth a try."""
    fig, axis = figure()
    axis.plot(search.rates, search.losses, color="0.8", linewidth=0.6, label="each batch")
    axis.plot(search.rates[: search.smooth.size], search.smooth, label="running mean")
    for rate, mark, name in (
        (search.steepest, "v", "falls fastest"),
        (search.tenth, "s", "a tenth of the lowest"),
        (search.lowest, "o", "lowest"),
    ):
        height = np.interp(np.log(rate), np.log(search.rates), search.smooth)
        axis.plot(rate, height, mark, color="black", label=f"{name}: {rate:.2g}")
    floor, start = search.smooth.min(), search.smooth[0]
    span = start - floor
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axis.set_ylim(floor - 0.2 * span, start + 0.8 * span)
    axis.legend()
    return Picture(
        fig,
        f"Loss against a learning rate that rises from {search.rates[0]:.2g} to "
        f"{search.rates[-1]:.2g}: it falls from {start:.3g} to {floor:.3g}, lowest at "
        f"{search.lowest:.2g}. It falls fastest at {search.steepest:.2g}; a tenth of the "
        f"lowest is {search.tenth:.2g}.",
    )


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
