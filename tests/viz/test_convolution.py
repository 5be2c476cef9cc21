"""Figures of lecture 9: what is drawn, and the sentences that say it."""

import re

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from scipy import signal

from course.viz import convolution as figures

X = np.arange(20.0).reshape(4, 5)
W = np.array([[1.0, 0.0], [-2.0, 0.5]])
Z = signal.correlate2d(X, W, "valid")


def texts(axis):
    return [text.get_text() for text in axis.texts]


def frames(axis):
    """Return (row, column, height, width) of every frame, in pixels."""
    return [
        (p.get_y() + 0.5, p.get_x() + 0.5, p.get_height(), p.get_width())
        for p in axis.patches
        if isinstance(p, Rectangle)
    ]


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text)]


def test_rows_and_sums_in_words():
    assert figures.rows_in_words([[1.0, -0.0], [0.25, 1 / 3]]) == "1 0 / 0.25 0.333"
    said = figures.sum_in_words(X[:2, :2], W)
    assert said == "1·0 + 0·1 - 2·5 + 0.5·6 = -7"


def test_all_steps_of_the_film():
    picture = figures.film(X, W, Z)
    assert len(picture.fig.axes) == Z.size
    for axis, (i, j) in zip(picture.fig.axes, np.ndindex(Z.shape), strict=True):
        assert frames(axis) == [(i, j, 2, 2)]
        assert numbers(axis.get_title(loc="left"))[-1] == Z[i, j]
        laid = [text for text in texts(axis) if text[0] == "×"]
        assert [float(text[1:]) for text in laid] == W.ravel().tolist()
        pixels = [float(text) for text in texts(axis) if text[0] != "×"]
        assert pixels == X.ravel().tolist()
    assert picture.alt.count("Step") == Z.size
    for k, z in enumerate(Z.flat, 1):
        assert numbers(picture.alt.split(f"Step {k}:")[1].split(". Step")[0])[-1] == z


@pytest.mark.parametrize("step", [1, 4, 12])
def test_one_step_of_the_film(step):
    picture = figures.film(X, W, Z, step)
    image, kernel, output = picture.fig.axes
    i, j = divmod(step - 1, Z.shape[1])
    assert frames(image) == [(i, j, 2, 2)]
    assert frames(output) == [(i, j, 1, 1)]
    assert [float(text) for text in texts(output)] == Z.ravel()[:step].tolist()
    assert [float(text) for text in texts(kernel)] == W.ravel().tolist()
    assert numbers(picture.alt)[0] == step
    assert numbers(picture.alt)[-1] == Z[i, j]


def test_a_film_with_a_stride():
    picture = figures.film(X, W, Z[::2, ::2], 4, stride=2)
    image, _, output = picture.fig.axes
    assert frames(image) == [(2, 2, 2, 2)]
    assert frames(output) == [(1, 1, 1, 1)]
    assert numbers(picture.alt)[-1] == Z[2, 2]


def test_numbers_side_by_side():
    picture = figures.numbers({"one": X, "two": W, "three": Z}, ["⋆", "="])
    one, two, three = picture.fig.axes
    for axis, a in ((one, X), (two, W), (three, Z)):
        np.testing.assert_array_equal(axis.images[0].get_array(), a)
    assert texts(two)[-1] == "⋆"
    assert texts(three)[-1] == "="
    heights = {np.ptp(axis.get_ylim()) for axis in picture.fig.axes}
    assert heights == {4}  # cells of one size
    assert f"two: {figures.rows_in_words(W)};" in picture.alt


def test_edges_and_weights_are_counted():
    shared = np.array([[1, 2, -1], [0, 1, 2], [-1, 0, 1]])
    full = np.arange(9).reshape(3, 3)
    labels = {"all": full.astype(str), "few": shared.astype(str)}
    picture = figures.edges({"all": full, "few": shared}, labels)
    assert picture.alt == (
        "all: 9 edges, 9 different weights; few: 7 edges, 3 different weights."
    )
    all_edges, few_edges, _, matrix = picture.fig.axes
    assert len(all_edges.lines) == 9 + 2  # two more for the nodes
    assert len(few_edges.lines) == 7 + 2
    assert len({line.get_linestyle() for line in few_edges.lines[:7]}) == 3
    np.testing.assert_array_equal(
        np.ma.getmaskarray(matrix.images[0].get_array()), shared < 0
    )


def test_one_dimensional_frames():
    x, w = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0])
    picture = figures.frames(x, w, np.array([7.0, 14.0]))
    assert [frames(axis) for axis in picture.fig.axes] == [[(0, 0, 2, 2)], [(0, 1, 2, 2)]]
    assert "1·1 + 3·2 = 7; 1·2 + 3·4 = 14" in picture.alt


def test_correlation_curves():
    distances = np.array([1, 2, 4])
    curves = {"long": np.array([0.9, 0.5, 0.125]), "short": np.array([0.25, -0.5])}
    picture = figures.correlation(distances, curves)
    drawn = {line.get_label(): line.get_xydata() for line in picture.fig.axes[0].lines[1:]}
    np.testing.assert_allclose(drawn["long"], np.stack([distances, curves["long"]], 1))
    np.testing.assert_allclose(drawn["short"], np.stack([[1, 2], curves["short"]], 1))
    assert "long: 0.900 at distance 1 and 0.125 at distance 4" in picture.alt
    assert "short: 0.250 at distance 1 and -0.500 at distance 2" in picture.alt


@pytest.mark.parametrize("convolved", [True, False])
def test_the_flip_switch(convolved):
    laid = W[::-1, ::-1] if convolved else W
    picture = figures.flip(X, W, laid, convolved, Z)
    name = "convolution" if convolved else "cross-correlation"
    assert picture.alt.startswith(f"{name}. ")
    assert f"w as laid on x: {figures.rows_in_words(laid)};" in picture.alt
    assert ("∗" if convolved else "⋆") in texts(picture.fig.axes[1])


def test_filter_table():
    rng = np.random.default_rng(0)
    image = rng.random((8, 9))
    kernels = {"blur": np.full((2, 2), 0.25), "edge": np.array([[1.0, -1.0]])}
    results = [signal.correlate2d(image, w, "valid") for w in kernels.values()]
    picture = figures.filter_table(image, kernels, results)
    drawn = [axis for axis in picture.fig.axes if axis.images]
    arrays = {axis.get_title(loc="left"): axis.images[0].get_array() for axis in drawn}
    np.testing.assert_array_equal(arrays["the photo"], image)
    np.testing.assert_array_equal(arrays["sum of weights 1"], results[0])
    np.testing.assert_array_equal(arrays["sum of weights 0"], results[1])
    assert texts(next(a for a in drawn if a.get_title(loc="left") == "blur")) == ["1/4"] * 4
    assert f"result has mean {results[0].mean():.3f}" in picture.alt
    assert "edge (1 -1): weights sum to 0" in picture.alt


def test_filtered():
    y = signal.correlate2d(X, W, "valid")
    picture = figures.filtered(X, W, y)
    assert f"sum -0.5: the result runs from {y.min():.2f} to {y.max():.2f}" in picture.alt
    plain = figures.filtered(X, W - W.mean(), y).fig.axes[2].images[0]
    assert plain.get_clim()[0] == -plain.get_clim()[1]  # zero is grey


def test_shift_counts_the_columns_that_differ():
    y = np.zeros((4, 6))
    y[:, 2] = 1
    other = y.copy()
    other[1, 5] = 0.5
    picture = figures.shift(X, X, y, other, y)
    assert "except in 1 of 6 columns" in picture.alt
    assert "difference is 0.5000" in picture.alt
    white = picture.fig.axes[4].images[0].get_array()
    assert np.argwhere(~white).tolist() == [[1, 5]]


def test_score_map_frames_the_best_window():
    scores = np.zeros((3, 4))
    scores[1, 2] = 5
    picture = figures.score_map(X, np.ones((2, 2)), scores)
    assert frames(picture.fig.axes[0]) == [(1, 2, 2, 2)]
    assert "12 windows" in picture.alt
    assert "row 1, column 2 and scores 5.00; the median window scores 0.00" in picture.alt


def test_patch_adds_the_channels():
    rng = np.random.default_rng(1)
    image, w = rng.random((3, 6, 7)), rng.normal(size=(3, 3, 3)).round(1)
    sums = [signal.correlate2d(image[c], w[c], "valid")[1, 3] for c in range(3)]
    picture = figures.patch(image, w, 2, 4)  # the centre; its window begins at (1, 3)
    assert frames(picture.fig.axes[0]) == [(1, 3, 3, 3)]
    said = " + ".join(f"{s:.2f}" for s in sums).replace("+ -", "- ")
    assert f"27 pixels times 27 weights. Sums of the channels: {said}" in picture.alt
    assert picture.alt.endswith(f"= {sum(sums):.2f}.")


def test_tied_matrix():
    taps = np.array([[0, 1, -1], [-1, 0, 1]])
    picture = figures.tied(taps, np.array([[3.0, -1.0]]))
    assert texts(picture.fig.axes[0]) == ["w00", "w01", "w00", "w01"]
    shown = picture.fig.axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(shown, 0), [[3, -1, 0], [0, 3, -1]])
    assert picture.alt == (
        "A matrix of 2 x 3 = 6 places: 2 are removed, 4 hold one of 2 shared weights."
    )
