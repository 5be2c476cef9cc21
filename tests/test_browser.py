"""Lectures in a real JupyterLab, in a real browser. `run.py test --all` runs these."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course import notebooks as tool
from tests import lab
from tests.notebooks_here import every

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(lab.missing()), reason=str(lab.missing())),
]
SLIDER = """
import numpy as np
from course.viz import Picture, figure, interactive

def draw(slope):
    fig, ax = figure()
    ax.plot(slope * np.arange(3))
    return Picture(fig, f"A line of slope {slope}.")

interactive(draw, slope=(1, 5, 1))
"""
IMAGES = """() => [...document.querySelectorAll('.jp-OutputArea-output img')].map(
  e => ({alt: e.alt, src: e.src, width: e.naturalWidth}))"""


@pytest.fixture
def notebook(tmp_path):
    """A saved notebook with a slider and a picture that stands still."""
    path = tmp_path / "a.ipynb"
    cells = [
        new_markdown_cell("# A line: $y = 2x$", id="title"),
        new_code_cell(SLIDER, id="slider"),
        new_code_cell("draw(4)", id="still"),
    ]
    nbformat.write(new_notebook(cells=cells), path)
    tool.write(tool.tidy(tool.execute(path)), path)
    return path


def images(page):
    """Return alt, src and width of each picture that a cell shows."""
    return page.evaluate(IMAGES)


def test_a_saved_notebook_shows_its_pictures_and_a_running_one_its_slider(notebook):
    with lab.opened(notebook) as opened:
        page = opened.page
        before = images(page)
        assert [image["width"] for image in before] == [768, 768]
        assert page.locator(".noUi-handle").count() == 0

        opened.run_all()
        slider, still = images(page)
        assert slider["alt"] == "A line of slope 3."
        assert still["alt"] == "A line of slope 4."
        assert still["src"] == before[1]["src"]

        page.locator(".noUi-handle").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(".jupyter-widgets img[alt='A line of slope 4.']")
        assert images(page)[0]["src"] == still["src"]
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("img[alt='A line of slope 5.']")
        assert images(page)[0]["src"] != still["src"]
        assert images(page)[1] == still

        assert opened.failures() == []
        assert opened.errors == []
        assert opened.outside == []


def test_the_slider_works_while_a_cell_runs_or_soon_after(notebook):
    slow = read_and_add(notebook, "import time\ntime.sleep(3)\n'done'")
    with lab.opened(slow) as opened:
        page = opened.page
        opened.choose_run_all()
        page.wait_for_selector("img[alt='A line of slope 4.']")
        page.locator(".noUi-handle").focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("img[alt='A line of slope 2.']")
        opened.wait()
        assert opened.failures() == []
        assert opened.errors == []


def read_and_add(path, source):
    """Add a code cell to the notebook."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(new_code_cell(source, id="last"))
    nbformat.write(notebook, path)
    return path


@every("lectures", "solutions", "exercises")
def test_it_runs_in_jupyterlab(path, tmp_path):
    with lab.opened(path) as opened:
        opened.run_all()
        assert opened.failures() == []
        assert opened.errors == []
        assert opened.outside == []
        for image in images(opened.page):
            assert image["alt"], "a picture without a text alternative"
        for handle in opened.page.locator(".noUi-handle").all():
            before = [image["src"] for image in images(opened.page)]
            handle.focus()
            for key in ("ArrowRight", "ArrowLeft", "ArrowLeft"):  # one of them can move
                opened.page.keyboard.press(key)
                opened.wait()
                if [image["src"] for image in images(opened.page)] != before:
                    break
            else:
                raise AssertionError("a slider that changes no picture")
