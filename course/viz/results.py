"""The picture of a result: the loss of our training and of PyTorch's, and their times."""

from typing import Any

import numpy as np

from course.viz.base import Picture, figure


def side_by_side(result: dict[str, Any]) -> Picture:
    """Draw what `course reproduce` found: losses over the epochs, seconds of each epoch."""
    fig, (left, right) = figure(1, 2)
    ways = {"the course": (result["loss"], result["ours"], "-")}
    if "pytorch" in result:
        ways["PyTorch"] = result["pytorch loss"], result["pytorch"], "--"
    epochs, said = result["epochs"], []
    for k, (way, (losses, found, style)) in enumerate(ways.items()):
        ends = epochs * np.arange(1, len(losses) + 1) / len(losses)
        left.plot(ends, losses, style, label=way)
        seconds = np.array(found["seconds per epoch"])
        place = np.arange(1, epochs + 1) + 0.38 * (k - (len(ways) - 1) / 2)
        right.bar(place, seconds, 0.36, label=way, hatch="" if k == 0 else "//")
        said.append(
            f"{way} ends at a loss of {losses[-1]:.3f} nats and a test accuracy of "
            f"{found['test accuracy']:.2%}, in {np.median(seconds):.1f} s per epoch"
        )
    left.set(xlabel="epoch", ylabel="cross-entropy, nats")
    right.set(xlabel="epoch", ylabel="seconds", xticks=np.arange(1, epochs + 1))
    left.legend()
    title = result["title"]
    return Picture(fig, f"{title[0].upper()}{title[1:]}: {'; '.join(said)}.")
