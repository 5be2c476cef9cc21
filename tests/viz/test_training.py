"""course/viz/training.py: what the figures draw and say."""

import numpy as np
import pytest

from course.training import Evaluation, History
from course.viz.training import confused, learning_curve


def test_learning_curve_draws_the_history():
    losses = np.linspace(2.3, 0.1, 120).tolist()
    history = History(losses, [1.5, 0.5], [1.0, 0.4], [0.7, 0.91])
    picture = learning_curve(history)
    left, right = picture.fig.axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), losses)
    np.testing.assert_allclose(left.lines[1].get_ydata()[-1], np.mean(losses[-7:]))
    np.testing.assert_allclose(left.lines[2].get_xydata(), [[60, 1.0], [120, 0.4]])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [70, 91])
    assert "from 2.30 to" in picture.alt
    assert "70.00, 91.00 %" in picture.alt


def test_a_run_without_validation_has_one_panel():
    assert len(learning_curve(History([2.0, 1.0], [1.5])).fig.axes) == 1


def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match="training has not begun"):
        learning_curve(History())


def test_surest_mistakes_come_first():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    t, predictions = np.array([0, 0, 0, 1]), probabilities.argmax(axis=1)
    result = Evaluation(1.0, 0.5, predictions, probabilities)
    x = np.arange(4.0).reshape(4, 1, 1, 1) * np.ones((4, 1, 3, 3)) / 4
    picture = confused(x, t, result, ["cat", "dog"])
    assert picture.alt.startswith("2 of 4 images are answered wrongly")
    drawn = [axis for axis in picture.fig.axes if axis.images]
    shown = [axis.images[0].get_array()[0, 0] for axis in drawn]
    assert shown == [0.5, 0.25]
    assert drawn[0].get_title(loc="center") == "cat read as dog\n80 % sure"


def test_no_mistakes_is_said():
    result = Evaluation(0.0, 1.0, np.array([0]), np.array([[1.0, 0.0]]))
    picture = confused(np.zeros((1, 1, 2, 2)), np.array([0]), result, ["a", "b"])
    assert "0 of 1 images are answered wrongly" in picture.alt
