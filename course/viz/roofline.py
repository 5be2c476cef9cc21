"""The roofline: how fast each kernel is, under what the machine can do at most."""

from course.viz.base import Picture, figure

Roofs = dict[str, float]  # "FMA peak" in flop/s, and "triad, PLACE" in byte/s
Kernels = dict[str, tuple[float, float, float]]  # "KIND: NAME" -> flops, bytes, seconds
MARKERS = "osD^vPX"


def roofline(panels: dict[int, tuple[Roofs, Kernels]]) -> Picture:
    """Draw, for each number of threads, flop/s over flops per byte, both logarithmic.

    A kernel under the sloping part of the roof waits for memory, one under the flat part
    computes. Each kind of kernel has its marker.
    """
    fig, axes = figure(1, len(panels), 5.0 * len(panels), 4.5, squeeze=False, sharey=True)
    sentences = []
    for axis, (threads, (roofs, kernels)) in zip(axes[0], panels.items(), strict=True):
        plural = f"{threads} thread" + "s" * (threads > 1)
        dots = {
            name: (flops / moved, flops / seconds / 1e9)
            for name, (flops, moved, seconds) in kernels.items()
        }
        peak = roofs["FMA peak"] / 1e9
        _roofs(axis, roofs, peak, [intensity for intensity, _ in dots.values()])
        kinds = list(dict.fromkeys(name.split(":")[0] for name in dots))
        for kind, marker in zip(kinds, MARKERS, strict=False):
            chosen = [dot for name, dot in dots.items() if name.split(":")[0] == kind]
            axis.plot(*zip(*chosen, strict=True), marker, markersize=5, label=kind)
        axis.set(xscale="log", yscale="log", xlabel="flops for each byte that must move")
        for numbers in axis.xaxis, axis.yaxis:
            numbers.set_major_formatter("{x:g}")
            numbers.set_minor_formatter("")
        axis.set_title(f"{plural}, at most {peak:.0f} GF/s")
        axis.legend(loc="lower right")
        best, worst = (pick(dots, key=lambda name: dots[name][1]) for pick in (max, min))
        sentences.append(
            f"{plural}: at most {peak:.0f} GF/s; of {len(dots)} kernels the fastest is "
            f"{best} with {dots[best][1]:.0f} GF/s, the slowest {worst} with "
            f"{dots[worst][1]:.1f} GF/s."
        )
    axes[0, 0].set_ylabel("GF/s")
    return Picture(fig, "Roofline. " + " ".join(sentences))


def _roofs(axis, roofs: Roofs, peak: float, intensities: list[float]) -> None:
    """Draw min(peak, bandwidth * intensity) for each triad."""
    left, right = min(intensities) / 2, max(intensities) * 2
    slopes = {name: value / 1e9 for name, value in roofs.items() if "triad" in name}
    for (name, slope), style in zip(slopes.items(), ("--", "-", ":"), strict=False):
        ridge = min(max(peak / slope, left), right)
        heights = [min(peak, slope * place) for place in (left, ridge, right)]
        label = f"{name.removeprefix('triad, ')} arrays: {slope:.0f} GB/s"
        axis.plot([left, ridge, right], heights, style, color="0.4", label=label)
