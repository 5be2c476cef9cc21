"""Pictures carry their sentence everywhere, and a slider redraws picture and sentence."""

from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import ipywidgets
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

from course.viz import Picture, figure, interactive

MARKUP = 'Lines of slope 1 < 2 & "3"\n   and   more.'
SENTENCE = 'Lines of slope 1 < 2 & "3" and more.'


def line(slope=1, alt=None):
    """Draw a line."""
    fig, ax = figure(width=4, height=2)
    ax.plot(slope * np.arange(3))
    return Picture(fig, alt or f"A line of slope {slope}.")


def image(html):
    """Return the attributes of the one <img> of an HTML text."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))
    parser.feed(html)
    (tag, attributes), *others = found
    assert tag == "img" and not others
    return attributes


def test_the_sentence_is_in_every_form():
    picture = line(alt=MARKUP)
    data, metadata = picture._repr_mimebundle_()
    assert repr(picture) == data["text/plain"] == SENTENCE
    assert metadata["image/png"]["alt"] == SENTENCE
    assert image(data["text/html"])["alt"] == SENTENCE


def test_every_form_shows_the_same_picture(tmp_path):
    picture = line()
    data, _ = picture._repr_mimebundle_()
    attributes = image(data["text/html"])
    assert b64decode(data["image/png"]) == picture.png()
    assert attributes["src"] == f"data:image/png;base64,{data['image/png']}"
    height, width, _ = imread(BytesIO(picture.png())).shape
    assert (int(attributes["width"]), int(attributes["height"])) == (width, height)
    assert (width, height) == (384, 192)

    picture.save(tmp_path / "a.png")
    saved = Image.open(tmp_path / "a.png")
    assert saved.info["Description"] == picture.alt
    np.testing.assert_array_equal(saved, Image.open(BytesIO(picture.png())))


def test_the_same_arrays_give_the_same_bytes():
    assert line(2).png() == line(2).png()
    assert line(2).png() != line(3).png()


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_a_picture_without_a_sentence_is_refused(alt):
    with pytest.raises(ValueError, match="alt is empty"):
        Picture(Figure(), alt)


def test_the_style_is_the_course_s_whatever_the_user_has_set():
    ours = line().png()
    with matplotlib.rc_context({"lines.linewidth": 9, "xtick.labelsize": 20}):
        assert line().png() == ours


@pytest.fixture
def shown(monkeypatch):
    """What a cell displays: a list of (data, metadata)."""
    displayed = []
    monkeypatch.setattr(
        "IPython.display.display",
        lambda data, metadata=None, raw=False: displayed.append((data, metadata)),
    )
    return displayed


def widgets(displayed):
    """Return the rows of controls and the HTML widget of what was displayed."""
    ((data, _),) = displayed
    model = data["application/vnd.jupyter.widget-view+json"]["model_id"]
    *rows, html = ipywidgets.widgets.widget._instances[model].children
    return [row.children for row in rows], html


def test_a_slider_redraws_picture_and_sentence(shown):
    interactive(line, slope=(1, 5, 1))
    [[slider]], html = widgets(shown)
    assert isinstance(slider, ipywidgets.IntSlider)
    assert (slider.min, slider.max, slider.description) == (1, 5, "slope")
    assert html.value == line(slider.value)._repr_mimebundle_()[0]["text/html"]
    slider.value = 5
    assert html.value == line(5)._repr_mimebundle_()[0]["text/html"]


def test_what_stands_where_no_widget_can_is_the_first_picture(shown):
    interactive(line, slope=ipywidgets.IntSlider(4, 1, 5, description="steepness"))
    data, metadata = shown[0]
    view = "application/vnd.jupyter.widget-view+json"
    assert {k: v for k, v in data.items() if k != view} == line(4)._repr_mimebundle_()[0]
    assert metadata == line(4)._repr_mimebundle_()[1]


def test_controls_reach_the_arguments_of_their_names(shown):
    def draw(flag, count, kind):
        assert (flag, count, kind) in [(True, 2, "b"), (False, 2, "b")]
        return line(alt=f"{flag} {count} {kind}.")

    interactive(draw, count=ipywidgets.IntText(2), kind={"one": "b", "two": "c"}, flag=True)
    [[_], [_], [flag]], html = widgets(shown)
    assert image(html.value)["alt"] == "True 2 b."
    flag.value = False
    assert image(html.value)["alt"] == "False 2 b."


def test_controls_stand_in_rows(shown):
    numbers = {f"n{k}": ipywidgets.IntText(k) for k in range(5)}
    interactive(lambda **values: line(alt=f"{values}."), across=3, **numbers)
    rows, html = widgets(shown)
    assert [[control.value for control in row] for row in rows] == [[0, 1, 2], [3, 4]]
    rows[1][0].value = 7
    assert "'n3': 7" in image(html.value)["alt"]


def test_draw_must_return_a_picture(shown):
    with pytest.raises(TypeError, match="draw must return a Picture, not None"):

        def draw(n):
            pass

        interactive(draw, n=(1, 3, 1))
