"""Figures of the lecture on history: what they draw and the sentences they say."""

import numpy as np
import pytest

from course.viz import history


def test_a_dial_points_up_at_zero_and_as_far_as_its_weight_says():
    weights = np.zeros((2, 2, 3))
    weights[1] = [[2.0, -2.0, 1.0], [0.0, 0.0, 0.0]]
    picture = history.potentiometers([1, 4], weights, [7, 2, 1, 0])
    first, second, below = picture.fig.axes
    for axis, snapshot in ((first, weights[0]), (second, weights[1])):
        segments = np.array(axis.collections[0].get_segments())
        along = segments[:, 1] - segments[:, 0]
        turned = np.degrees(np.arctan2(along[:, 0], -along[:, 1]))
        np.testing.assert_allclose(turned, 135 / 2 * snapshot.ravel(), atol=1e-9)
    assert [bar.get_height() for bar in below.patches] == [7, 2, 1, 0]
    assert "after pass 4 from -2 to 2" in picture.alt
    assert "10 mistakes in 4 passes, 0 in the last" in picture.alt


def test_mistakes_add_up_beside_the_bound():
    picture = history.mistakes({"OR": [1, 2, 0], "XOR": [2, 3, 4, 4]}, 27.0)
    axis = picture.fig.axes[0]
    assert axis.lines[0].get_ydata().tolist() == [1, 3, 3]
    assert axis.lines[1].get_ydata().tolist() == [2, 5, 9, 13]
    assert set(axis.lines[2].get_ydata()) == {27}
    assert "OR: 3 mistakes in 3 passes; XOR: 13 mistakes in 4 passes" in picture.alt
    assert "bound is 27.0" in picture.alt


def test_the_bowl_has_its_lowest_point_and_the_ways_there():
    w, b = np.linspace(-1, 1, 21), np.linspace(0, 2, 21)
    error = 0.25 + (w[None, :] - 0.5) ** 2 + 2 * (b[:, None] - 1.2) ** 2
    path = np.array([[0.0, 0.0], [0.3, 1.0], [0.45, 1.25]])
    picture = history.error_bowl(w, b, error, {"LMS": path})
    way, star = picture.fig.axes[0].lines
    np.testing.assert_array_equal(np.transpose(way.get_data()), path)
    np.testing.assert_allclose(np.ravel(star.get_data()), [0.5, 1.2])
    assert "lowest point, 0.250, near w = 0.50, b = 1.20" in picture.alt
    assert "LMS ends at (0.45, 1.25)" in picture.alt


def test_votes_are_counted_and_each_sample_has_its_mark():
    grid = np.linspace(-1, 1, 5)
    x = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    t = np.array([-1, 1, 1, -1])
    across, up = np.meshgrid(grid, grid)
    sums = np.stack([across + up + 1, 1 - across - up, -1 + 0 * up], axis=2)
    picture = history.votes(grid, sums, x, t)
    titles = [axis.get_title(loc="left") for axis in picture.fig.axes]
    assert titles == ["unit 1", "unit 2", "unit 3", "the vote of 3"]
    circles, squares = picture.fig.axes[3].lines
    np.testing.assert_array_equal(np.transpose(circles.get_data()), x[t == 1])
    np.testing.assert_array_equal(np.transpose(squares.get_data()), x[t == -1])
    inside = (abs(across + up) < 1).mean()
    assert f"yes on {inside:.0%} of it and is right on 4 of 4" in picture.alt
    assert "right on 2 of 4" in history.votes(grid, sums[..., [0, 0, 0]] * 0 + 1, x, t).alt


def test_tuning_curves_stand_above_their_bars():
    angles = np.array([0.0, 60, 120])
    bars = np.arange(12.0).reshape(3, 2, 2)
    picture = history.tuning(
        angles, {"simple": np.array([1.0, 4, 0.5])}, np.eye(2), bars, [1, 2]
    )
    left, above, *below = picture.fig.axes[::-1][:2][::-1] + picture.fig.axes[:-2]
    np.testing.assert_array_equal(left.images[0].get_array(), np.eye(2))
    np.testing.assert_array_equal(above.lines[0].get_ydata(), [1, 4, 0.5])
    assert [axis.get_title(loc="center") for axis in below] == ["60°", "120°"]
    np.testing.assert_array_equal(below[1].images[0].get_array(), bars[2])
    assert "simple: 4.00 at 60 degrees" in picture.alt


def test_answers_have_a_panel_for_each_thing_that_changes():
    shift, length = np.arange(3.0), np.arange(10.0, 13)
    panels = {
        "shift": {"simple": np.array([0.0, 2, 0]), "complex": np.array([1.0, 2, 1.5])},
        "length": {"hypercomplex": np.array([3.0, 1, 0])},
    }
    picture = history.answers([shift, length], panels)
    left, right = picture.fig.axes
    assert [line.get_label() for line in left.lines] == ["simple", "complex"]
    np.testing.assert_array_equal(right.lines[0].get_xdata(), length)
    assert "complex, shift 0 to 2: between 1.00 and 2.00, most at 1" in picture.alt
    assert "hypercomplex, length 10 to 12: between 0.00 and 3.00, most at 10" in picture.alt


def test_a_map_of_cells_and_where_they_look_have_the_same_colours():
    centres = 3 + 4.0 * np.stack(np.indices((3, 2)), axis=-1)
    picture = history.retinotopy(centres, 16)
    cells, places = (axis.collections[1] for axis in picture.fig.axes)
    np.testing.assert_array_equal(cells.get_facecolors(), places.get_facecolors())
    np.testing.assert_array_equal(places.get_offsets()[:, ::-1], centres.reshape(-1, 2))
    assert "4.0 pixels apart, opposite corners 8.9 pixels" in picture.alt


def test_features_stand_above_where_they_are_found(rng):
    weights, images = rng.random((14, 5, 5)), rng.random((2, 8, 8))
    maps = np.zeros((2, 14, 4, 4))
    maps[0, :3] = maps[1, 5] = 0.5
    picture = history.features(weights, images, maps)
    assert len(picture.fig.axes) == 3 * 13
    np.testing.assert_array_equal(picture.fig.axes[1].images[0].get_array(), weights[0])
    np.testing.assert_array_equal(picture.fig.axes[14].images[0].get_array(), maps[0, 0])
    assert "12 of 14 learned features" in picture.alt and "3, 1 are found" in picture.alt


def test_accuracy_is_a_mean_with_a_band_from_worst_to_best():
    scores = {
        "C-cells": np.array([[0.98, 0.9], [0.96, 0.8]]),
        "striding": np.full((2, 2), 0.5),
    }
    picture = history.by_shift([0, 3], scores)
    axis = picture.fig.axes[0]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [97, 85])
    corners = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert corners.min() == pytest.approx(80) and corners.max() == pytest.approx(98)
    assert "C-cells: 97.0 % in place (96.0 to 98.0 over 2 seeds), 85.0 %" in picture.alt
    assert "striding: 50.0 % in place" in picture.alt
