"""Figures of lecture 3: the data they plot and the sentences they say."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from course.information import huffman
from course.viz import scores

FIVE = np.array([0.7, 0.8, 0.6, 0.3, 0.4])


def widths(axis):
    """Return the lengths of the horizontal bars, in the order they were drawn."""
    return [bar.get_width() for bar in axis.patches]


def words(axis):
    return [text.get_text() for text in axis.texts]


def test_lists_in_words():
    assert scores.listed([0.5]) == "0.5"
    assert scores.listed([1, 2]) == "1 and 2"
    assert scores.listed(np.array([0.25, 1 / 3, 4])) == "0.25, 0.333 and 4"


def test_sigmoid_and_slope_are_drawn():
    z = np.linspace(-4, 4, 81)
    picture = scores.sigmoid_curve(z, expit(z), expit(z) * expit(-z))
    curve, slope = picture.fig.axes[0].lines[:2]
    np.testing.assert_array_equal(curve.get_ydata(), expit(z))
    np.testing.assert_array_equal(slope.get_ydata(), expit(z) * expit(-z))
    assert "from 0.0180 at z = -4" in picture.alt and "0.25, at z = 0" in picture.alt


def test_bars_stand_beside_their_names_first_on_top():
    s = np.array([2.0, -1.0, 0.5])
    picture = scores.score_bars(s, softmax(s), ["cat", "dog", "ship"])
    left, right = picture.fig.axes
    np.testing.assert_allclose(widths(left), s)
    np.testing.assert_allclose(widths(right), softmax(s))
    assert [label.get_text() for label in left.get_yticklabels()] == ["cat", "dog", "ship"]
    low, high = left.get_ylim()
    assert low > high, "row 0 must be on top"
    assert words(left) == ["2.0", "-1.0", "0.5"]
    assert "largest is cat" in picture.alt


def test_last_layer_shows_its_numbers():
    a, w = np.array([2.0, 1.0, 3.0]), np.array([1.0, -2.0, 0.5])
    picture = scores.last_layer([2, 3, 1], a, w, -1.0, 0.5, 0.6225)
    shown = words(picture.fig.axes[0])
    for text in ("2", "1", "3", "× 1", "× −2", "× 0.5", "0.62"):
        assert text in shown
    assert "2, 3 and 1 neurons" in picture.alt and "p = 0.6225" in picture.alt


def test_quality_draws_both_means():
    axis = scores.quality(FIVE).fig.axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in axis.patches], FIVE)
    geometric, arithmetic = (line.get_ydata()[0] for line in axis.lines)
    np.testing.assert_allclose(geometric, np.prod(FIVE) ** (1 / 5))
    np.testing.assert_allclose(arithmetic, 0.56)
    assert axis.get_title(loc="left") == "Quality of the network: 53%"


def test_ladder_lays_the_losses_end_to_end():
    picture = scores.log_ladder(FIVE)
    left, right = picture.fig.axes
    rungs = [line.get_ydata()[0] for line in left.lines if line.get_marker() == "_"]
    np.testing.assert_allclose(np.diff(rungs), np.log(2))
    bars = right.patches[:5]
    ends = [bar.get_x() + bar.get_width() for bar in bars]
    np.testing.assert_allclose(ends, -np.log(np.cumprod(FIVE)))
    np.testing.assert_allclose(right.patches[5].get_width(), -np.log(FIVE).mean())
    assert "their mean is 0.6422" in picture.alt


def test_code_board_draws_surprise_beside_length():
    p = np.array([0.1, 0.4, 0.2, 0.2, 0.1])
    code = huffman(p)
    picture = scores.code_board(list("abcde"), p, code)
    tree, bars = picture.fig.axes
    order = sorted(range(5), key=lambda i: code[i])
    np.testing.assert_allclose(widths(bars)[:10:2], -np.log2(p[order]))
    assert widths(bars)[1:10:2] == [len(code[i]) for i in order]
    for name, word in zip("abcde", code, strict=True):
        assert f"{name}  {word}" in words(tree)
        assert f"{name} (p = " in picture.alt
    assert "Entropy 2.1219 bits, average length of a word 2.2000" in picture.alt


def test_branches_of_the_tree_do_not_cross():
    p = np.random.default_rng(0).dirichlet(np.ones(9))
    tree = scores.code_board(list("abcdefghi"), p, huffman(p)).fig.axes[0]
    for k in range(9):  # at each depth, the stretches from parent to child stay apart
        spans = sorted(
            sorted(line.get_ydata()[:2]) for line in tree.lines if line.get_xdata()[0] == k
        )
        ends = [end for _, end in spans]
        starts = [start for start, _ in spans[1:]]
        assert all(start >= end - 1e-9 for start, end in zip(starts, ends, strict=False))


def test_belief_touches_the_entropy_at_the_truth():
    q = np.linspace(0.1, 0.9, 9)
    cost = -0.7 * np.log2(q) - 0.3 * np.log2(1 - q)
    picture = scores.belief(0.7, q, cost, cost[6])
    np.testing.assert_array_equal(picture.fig.axes[0].lines[0].get_ydata(), cost)
    assert "0.8813 bits, at q = 0.70" in picture.alt


def test_overflow_marks_the_first_wrong_size():
    m = np.array([1.0, 10.0, 100.0, 1000.0])
    right = m + np.log(2)
    wrong = np.array([right[0], right[1], np.inf, np.inf])
    picture = scores.overflow(m, {"naive": wrong, "shifted": right})
    lines = picture.fig.axes[0].lines
    assert list(lines[0].get_xdata()) == [1, 10]
    assert list(lines[1].get_xdata()) == [100]
    assert list(lines[2].get_xdata()) == [1, 1000]
    assert "naive: right up to 10, inf from 100" in picture.alt
    assert "shifted: right up to 1000" in picture.alt


def test_overflow_finds_finite_wrong_numbers_too():
    m = np.array([1.0, 2.0])
    picture = scores.overflow(m, {"off": np.array([1 + np.log(2), 7.0])})
    assert "7 from 2" in picture.alt


@pytest.mark.parametrize("right", [0, 2])
def test_push_draws_the_gradient(right):
    p = softmax([2.0, 1.0, 0.1])
    gradient = p - np.eye(3)[right]
    picture = scores.push(["cat", "dog", "ship"], p, right, gradient)
    left, middle = picture.fig.axes
    np.testing.assert_allclose(widths(left), [*p, 1])
    assert left.patches[3].get_y() + 0.4 == right
    np.testing.assert_allclose(widths(middle), gradient)
    assert f"negative for {['cat', 'dog', 'ship'][right]} only" in picture.alt


def test_learning_curve_begins_at_step_1_beside_chance():
    loss = np.linspace(2.3, 0.1, 40)
    picture = scores.learning_curve(loss, np.array([20, 40]), np.array([1, 0.3]), 2.3026)
    batch, test, chance = picture.fig.axes[0].lines
    assert batch.get_xdata()[0] == 1 and list(test.get_xdata()) == [20, 40]
    assert chance.get_ydata()[0] == 2.3026
    assert "falls from 2.300" in picture.alt and "ends at 0.300" in picture.alt


def test_templates_share_one_scale_about_0():
    w = np.random.default_rng(1).normal(size=(3, 20))
    picture = scores.templates(w, (4, 5), "abc")
    images = [image for axis in picture.fig.axes for image in axis.images]
    for image, row in zip(images, w, strict=False):
        np.testing.assert_array_equal(image.get_array(), row.reshape(4, 5))
        assert image.get_clim() == (-np.abs(w).max(), np.abs(w).max())
    assert f"between {w.min():.2f} and {w.max():.2f}" in picture.alt


def test_sheet_shows_each_image_with_its_title():
    images = np.random.default_rng(2).random((5, 3, 3))
    picture = scores.sheet(images, [f"a {k}\nsure" for k in range(5)])
    shown = [axis.images[0].get_array() for axis in picture.fig.axes if axis.images]
    np.testing.assert_array_equal(shown, images)
    assert picture.alt == "5 images: a 0, sure; a 1, sure; a 2, sure; a 3, sure; a 4, sure."


def test_reliability_draws_what_was_said_against_what_came_true():
    said, true = np.array([0.1, 0.5, 0.9]), np.array([0.0, 0.6, 1.0])
    count = np.array([100, 25, 4])
    picture = scores.reliability({"one": (said, true, count), "two": (said, said, count)})
    first, second = picture.fig.axes
    np.testing.assert_array_equal(first.lines[1].get_xydata(), np.stack([said, true], 1))
    np.testing.assert_array_equal(second.lines[1].get_ydata(), said)
    bars = np.array([segment[:, 1] for segment in first.collections[0].get_segments()])
    np.testing.assert_allclose(bars[:, 0], [0.04, 0.3, 0.6])
    np.testing.assert_allclose(bars[:, 1], [0.16, 0.7, 1.0])
    assert words(first) == ["100", "25", "4"]
    assert "one: 0.100 said and 0.000 true (100)" in picture.alt
