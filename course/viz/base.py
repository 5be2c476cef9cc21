"""What every figure shares: the style, the text alternative, the slider with a fallback.

A figure is drawn on a `matplotlib.figure.Figure` of its own, never through pyplot, so that
nothing is left open and a slider can redraw it from any thread.
"""

from base64 import b64encode
from collections.abc import Callable
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

STYLE = matplotlib.rc_params_from_file(
    Path(__file__).with_name("course.mplstyle"), use_default_template=False
)
DPI = 96  # dots per inch: a figure 8 inches wide fills a notebook's column


class Picture:
    """A matplotlib figure with a sentence that says what it shows.

    As the last value of a cell it is displayed. Browsers draw the picture; screen readers,
    plain text and the tests get the sentence, whose numbers come from the same arrays.
    Raises ValueError if the sentence is empty.
    """

    def __init__(self, fig: Figure, alt: str):
        self.fig, self.alt = fig, " ".join(alt.split())
        if not self.alt:
            raise ValueError("alt is empty; say in a sentence what the figure shows")

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
        """Return the picture in every form that a notebook may choose from.

        JupyterLab draws an image/png without a text alternative, but takes text/html
        before it; in that the sentence reaches screen readers. A notebook saved by
        `course notebooks run` keeps the image/png alone, which every viewer can show.
        """
        png = b64encode(self.png()).decode()
        html = _img(png, self)
        data = {"text/plain": self.alt, "text/html": html, "image/png": png}
        return data, {"image/png": {"alt": self.alt}}


def _img(png: str, picture: Picture) -> str:
    """Return the PNG, in base64, as an HTML image with its sentence and its size."""
    width, height = (round(inches * DPI) for inches in picture.fig.get_size_inches())
    return (
        f'<img src="data:image/png;base64,{png}" alt="{escape(picture.alt)}" '
        f'width="{width}" height="{height}" style="max-width: 100%; height: auto">'
    )


def figure(
    rows: int = 1,
    columns: int = 1,
    width: float = 8.0,
    height: float = 3.0,
    **subplots: Any,
) -> tuple[Figure, Any]:
    """Return a figure in the course's style and its axes, as plt.subplots would.

    Width and height are in inches. The style goes into matplotlib's settings and stays
    there, because lines and texts take theirs when they are added.
    """
    matplotlib.rcParams.update(STYLE)
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **subplots)


def interactive(draw: Callable[..., Picture], across: int = 1, **controls: Any) -> None:
    """Show draw(**values) with one control for each keyword; redraw when one moves.

    A control is what `ipywidgets.interactive` takes: (low, high, step) for a slider, a
    list or dict for a menu, a bool for a box; or a widget. Where no widgets can be shown
    (a saved notebook, a web page) the first picture stands, and tests compare its
    sentence. `across` controls stand in a row. Raises TypeError if draw returns anything
    but a Picture.
    """
    import ipywidgets
    from IPython.display import display

    widgets = ipywidgets.interactive(lambda **values: None, **controls).children[:-1]

    def current() -> tuple[dict, dict]:
        values = [widget.value for widget in widgets]
        picture = draw(**dict(zip(controls, values, strict=True)))
        if not isinstance(picture, Picture):
            raise TypeError(f"{draw.__name__} must return a Picture, not {picture!r}")
        return picture._repr_mimebundle_()

    data, metadata = current()
    image = ipywidgets.HTML(data["text/html"])  # its Image has no text alternative

    def redraw(_: Any) -> None:
        image.value = current()[0]["text/html"]

    for widget in widgets:
        widget.observe(redraw, "value")
    rows = [
        ipywidgets.HBox(widgets[k : k + across]) for k in range(0, len(widgets), across)
    ]
    view = ipywidgets.VBox([*rows, image])._repr_mimebundle_() or {}
    display({**view, **data}, metadata=metadata, raw=True)
