"""course/viz/training.py: what the figures draw and say."""

import numpy as np
import pytest

from course.sanity import RateSearch
from course.training import Evaluation, History
from course.viz.training import confused, learning_curve, lr_curve


def test_learning_curve_draws_the_history():
    losses = np.linspace(2.3, 0.1, 120).tolist()
    history = History(losses, [1.5, 0.5], [1.0, 0.4], [0.7, 0.91], epoch_ends=[60, 120])
    picture = learning_curve(history)
    left, right = picture.fig.axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), losses)
    np.testing.assert_allclose(left.lines[1].get_ydata()[-1], np.mean(losses[-7:]))
    np.testing.assert_allclose(left.lines[2].get_xydata(), [[60, 1.0], [120, 0.4]])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [70, 91])
    assert "from 2.30 to" in picture.alt
    assert "lowest after epoch 2 of 2, at 0.400" in picture.alt
    assert "70.00, 91.00 %" in picture.alt


def test_a_run_without_validation_has_one_panel():
    assert len(learning_curve(History([2.0, 1.0], [1.5])).fig.axes) == 1


def test_a_run_that_was_interrupted_has_its_epochs_in_their_places():
    history = History([1.0] * 25, [1.0, 1.0], [0.5, 0.7], [0.8, 0.7], epoch_ends=[10, 20])
    left = learning_curve(history).fig.axes[0]
    np.testing.assert_allclose(left.lines[2].get_xydata(), [[10, 0.5], [20, 0.7]])
    np.testing.assert_allclose(left.lines[3].get_xydata(), [[10, 0.5]])  # the lowest


def test_many_epochs_are_summed_up():
    percent = np.append(np.linspace(50, 95, 10), 94)
    history = History(
        [1.0] * 11, [1.0] * 11, [0.5] * 11, (percent / 100).tolist(),
        epoch_ends=list(range(1, 12)),
    )  # fmt: skip
    picture = learning_curve(history)
    assert "50.00 % after the first epoch, 94.00 % after the last" in picture.alt
    assert "highest, 95.00 %, after epoch 10." in picture.alt
    assert [note.get_text() for note in picture.fig.axes[1].texts] == ["95.00"]


def test_other_losses_are_called_by_their_name():
    history = History([0.2, 0.1, 0.0], [0.1], [0.05], epoch_ends=[3])  # 0 has no logarithm
    picture = learning_curve(history, loss="mean squared error")
    (axis,) = picture.fig.axes
    assert axis.get_ylabel() == "mean squared error"
    assert axis.get_yscale() == "linear"
    assert "mean squared error" in picture.alt and "nats" not in picture.alt


def test_search_for_a_rate_draws_its_points():
    rates = np.geomspace(1e-3, 10, 5)
    smooth = np.array([2.0, 1.8, 1.0, 0.5, 3.0])
    search = RateSearch(rates, smooth + 0.1, smooth, 1.0, 0.1, 0.05)
    picture = lr_curve(search)
    (axis,) = picture.fig.axes
    np.testing.assert_allclose(axis.lines[0].get_xydata(), np.c_[rates, smooth + 0.1])
    np.testing.assert_allclose(axis.lines[1].get_ydata(), smooth)
    points = {line.get_label(): line.get_xydata() for line in axis.lines[2:]}
    np.testing.assert_allclose(points["lowest: 1"], [[1.0, 0.5]])
    np.testing.assert_allclose(points["a tenth of the lowest: 0.1"], [[0.1, 1.0]])
    assert axis.get_xscale() == "log"
    assert "from 0.001 to 10: it falls from 2 to 0.5, lowest at 1." in picture.alt


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
