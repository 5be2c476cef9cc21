"""What every figure shares: the style, the text alternative, the slider with a fallback.

A figure is drawn on a `matplotlib.figure.Figure` of its own, never through pyplot, so that
nothing is left open and a slider can redraw it from any thread.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("course.mplstyle")
DPI = 96  # dots per inch: a figure 8 inches wide fills a notebook's column


class Picture:
    """A matplotlib figure with a sentence that says what it shows.

    As the last value of a cell it is displayed. Browsers draw the picture; screen readers,
    plain text and the tests get the sentence, whose numbers come from the same arrays.
    """

    def __init__(self, fig: Figure, alt: str):
        self.fig, self.alt = fig, " ".join(alt.split())

    def png(self) -> bytes:
        """Return the figure as the bytes of a PNG file."""
        buffer = BytesIO()
        self.fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the figure as a PNG file that carries its sentence as Description."""
        self.fig.savefig(path, format="png", dpi=DPI, metadata={"Description": self.alt})

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple:
        data = {"image/png": self.png(), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}


def figure(
    rows: int = 1,
    columns: int = 1,
    width: float = 8.0,
    height: float = 3.0,
    **subplots: Any,
) -> tuple[Figure, Any]:
    """Return a figure in the course's style and its axes, as plt.subplots would.

    Width and height are in inches.
    """
    with matplotlib.rc_context(fname=str(STYLE)):
        fig = Figure(figsize=(width, height), layout="constrained")
        axes = fig.subplots(rows, columns, **subplots)
    return fig, axes


def interactive(draw: Callable[..., Picture], **controls: Any) -> Any:
    """Show draw(**values) with one control for each keyword; redraw when one moves.

    A control is what `ipywidgets.interactive` takes: (low, high, step) for a slider, a
    list or dict for a menu, a bool for a box; or a widget. Where no widgets can be shown
    (a saved notebook, a web page, a screen reader) the first picture stands, and tests
    compare its sentence.
    """
    import ipywidgets
    from IPython.display import display

    widgets = ipywidgets.interactive(lambda **values: None, **controls).children[:-1]
    names = [widget.description for widget in widgets]

    def current() -> Picture:
        values = (widget.value for widget in widgets)
        return draw(**dict(zip(names, values, strict=True)))

    first = current()
    image = ipywidgets.Image(value=first.png(), format="png", alt=first.alt)

    def redraw(_: Any) -> None:
        picture = current()
        image.value, image.alt = picture.png(), picture.alt

    for widget in widgets:
        widget.continuous_update = True
        widget.observe(redraw, "value")
    box = ipywidgets.VBox([*widgets, image])
    bundle, _ = first._repr_mimebundle_()
    view = box._repr_mimebundle_() or {}
    live = {k: v for k, v in view.items() if k != "text/plain"}
    display({**live, **_base64(bundle)}, raw=True)


def _base64(bundle: dict[str, Any]) -> dict[str, Any]:
    """Return the bundle with bytes as base64 text, as the notebook format stores them."""
    from base64 import b64encode

    return {
        kind: b64encode(data).decode() if isinstance(data, bytes) else data
        for kind, data in bundle.items()
    }
