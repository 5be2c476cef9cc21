"""Figures of lecture 7: the data they plot and the sentences they say."""

import numpy as np
import pytest

from course.viz import mlp

THETA = {1: np.array([[1.0, -1.0], [2.0, 1.0]]), 2: np.array([[2.0, -0.5]])}
A = {1: np.array([[1.0, 0.5]]), 2: np.array([[0.25, 0.75]]), 3: np.array([[0.6]])}
DELTA = {2: np.array([[-0.1, 0.2]]), 3: np.array([[-0.4]])}
GRADIENTS = {1: np.outer(DELTA[2], A[1]), 2: np.outer(DELTA[3], A[2])}


def words(axis):
    return [text.get_text() for text in axis.texts]


def network(step):
    picture = mlp.network(THETA, A, DELTA, GRADIENTS, step)
    return picture, picture.fig.axes[0]


def test_network_names_each_neuron_and_writes_each_weight():
    picture, axis = network(0)
    shown = words(axis)
    for weight in ("+1", "-1", "+2", "-0.5"):
        assert weight in shown
    assert {f"$a^{{({l})}}_{i}$" for l, i in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1))} <= {
        *shown
    }
    assert not any("delta" in text for text in shown)
    assert len(axis.lines) == 6, "one edge for each weight"
    assert "Network 2-2-1, step 0 of 4" in picture.alt


def test_network_fills_activations_to_the_right():
    picture, axis = network(1)
    shown = " ".join(words(axis))
    assert "0.250" in shown and "0.750" in shown and "0.600" not in shown
    assert "a(2) = [0.250, 0.750]" in picture.alt
    assert "a(3) = [0.600]" in network(2)[0].alt


def test_network_paints_gradients_to_the_left():
    picture, axis = network(3)
    shown = words(axis)
    assert "-0.100" in shown and "-0.300" in shown, "delta(3) times a(2)"
    assert "+1" in shown, "the edges on the left still carry their weights"
    assert "delta(3) = [-0.400]" in picture.alt and "[-0.100, -0.300]" in picture.alt
    picture, axis = network(4)
    assert "[-0.100, -0.050, 0.200, 0.100]" in picture.alt
    colors = [line.get_color() for line in axis.lines[:4]]
    assert colors == [mlp.BLUE, mlp.BLUE, mlp.ORANGE, mlp.ORANGE], "sign of the gradient"


def test_network_has_no_further_steps():
    with pytest.raises(
        ValueError, match=r"step is 5; a net of 2 weight matrices has 0 to 4"
    ):
        network(5)


def test_collapse_measures_the_bend():
    x = np.linspace(-1, 1, 101)
    picture = mlp.collapse(x, {"line": 3 * x + 1, "square": x**2})
    np.testing.assert_array_equal(picture.fig.axes[1].lines[1].get_ydata(), x**2)
    bend = np.abs(x**2 - np.mean(x**2)).max()  # the best line of an even curve is level
    assert f"line: 0.0000, square: {bend:.4f}" in picture.alt


CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR = np.array([0, 1, 1, 0])


def points(axis):
    return [
        np.asarray(spots.get_offsets()) for spots in axis.collections if spots.get_label()
    ]


def test_straight_cut_counts_what_it_gets_right():
    picture = mlp.straight_cut(CORNERS, XOR, np.array([1.0, 1.0]), 0.5)
    assert "puts 3 of 4 points on the right side; on the wrong side: (1, 1)." in picture.alt
    picture = mlp.straight_cut(CORNERS, np.array([0, 0, 1, 1]), np.array([1.0, 0.0]), 0.5)
    assert "4 of 4" in picture.alt and "none" in picture.alt


def test_xor_is_drawn_in_both_spaces():
    hidden = np.array([[0.0, 0.1], [0.1, 0.9], [0.2, 0.8], [0.9, 1.0]])
    axis = np.linspace(-0.3, 1.3, 21)
    field = 1.0 * (np.abs(axis + axis[:, None] - 1) < 0.5)
    picture = mlp.xor_spaces(XOR, hidden, field, np.array([-0.3, -1.0, 1.0]))
    left, right = picture.fig.axes
    drawn = {
        tuple(spot) for axis in (left, right) for group in points(axis) for spot in group
    }
    assert {*map(tuple, CORNERS), *map(tuple, hidden)} <= drawn
    assert words(right) == ["(0,0)", "(0,1)", "(1,0)", "(1,1)"]
    (line,) = right.lines
    x, y = line.get_data()
    np.testing.assert_allclose(-0.3 - x + y, 0, atol=1e-12)
    assert "straight line puts" in picture.alt and "[0.900, 1.000]" in picture.alt
    worse = mlp.xor_spaces(XOR, hidden, field, np.array([0.3, -1.0, 1.0]))
    assert "does not put" in worse.alt


FIELDS = {0: np.full((11, 11), 0.4), 5: np.tile(np.linspace(0, 1, 11), (11, 1))}
LOSSES = [0.9, 0.8, 0.7, 0.6, 0.5, 0.25]


def test_strip_has_a_panel_for_each_step():
    picture = mlp.boundary_strip(CORNERS, XOR, FIELDS, LOSSES, 1.5)
    titles = [axis.get_title(loc="left") for axis in picture.fig.axes]
    assert titles == ["step 0, loss 0.900", "step 5, loss 0.250"]
    assert "0.9000 after step 0, 0.2500 after step 5" in picture.alt


def test_boundary_marks_its_step_on_the_loss():
    picture = mlp.boundary(CORNERS, XOR, FIELDS, LOSSES, 5, 1.5)
    curve, mark = picture.fig.axes[1].lines
    np.testing.assert_array_equal(curve.get_ydata(), LOSSES)
    assert [*mark.get_xdata(), *mark.get_ydata()] == [6, 0.25]
    assert "Step 5 of 5: the loss is 0.2500 nats; it began at 0.9000" in picture.alt


def test_wall_draws_value_and_derivative():
    z = np.linspace(-2, 2, 41)
    picture = mlp.activation_wall(z, {"tanh": (np.tanh(z), 1 / np.cosh(z) ** 2)})
    lines = picture.fig.axes[0].lines
    np.testing.assert_array_equal(lines[-2].get_ydata(), np.tanh(z))
    np.testing.assert_array_equal(lines[-1].get_ydata(), 1 / np.cosh(z) ** 2)
    assert lines[-1].get_linestyle() == "--"
    assert "tanh: 0.071, 0.071" in picture.alt


@pytest.mark.parametrize("count, panels", [(1, 4), (3, 4), (4, 8), (7, 8)])
def test_wall_has_room_for_one_legend(count, panels):
    z = np.linspace(-2, 2, 5)
    picture = mlp.activation_wall(z, {f"g{k}": (z, z) for k in range(count)})
    axes = picture.fig.axes
    assert len(axes) == panels
    assert [k for k, axis in enumerate(axes) if axis.get_legend()] == [count]


def test_approximation_draws_the_sum_of_its_parts():
    x = np.linspace(-0.5, 1.5, 21)
    parts = np.stack([np.ones(21), x, x**2], axis=1)
    errors = {"sigmoid": {1: 0.5, 2: 0.25}, "z²": {1: 0.5, 2: 0.5}}
    picture = mlp.approximation(x, np.sin(x), parts, errors, (0, 1))
    left, right = picture.fig.axes
    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    np.testing.assert_allclose(drawn["sum of 2"], 1 + x + x**2)
    np.testing.assert_array_equal(drawn["target"], np.sin(x))
    assert right.lines[0].get_ydata().tolist() == [0.5, 0.25]
    assert right.lines[-1].get_ydata().tolist() == [0.25], "the circle of this width"
    assert "With 2 hidden units" in picture.alt and "[0, 1] is 0.2500" in picture.alt


def test_mended_shows_what_only_the_second_reads():
    t = np.array([0, 1, 2, 3])
    before, after = np.array([0, 7, 9, 3]), np.array([0, 1, 2, 8])
    images = np.arange(16.0).reshape(4, 1, 2, 2) / 16
    picture = mlp.mended(images, t, before, after)
    axes = picture.fig.axes
    np.testing.assert_array_equal(axes[0].images[0].get_array(), images[1, 0])
    assert [a.get_title(loc="left") for a in axes] == [
        "linear: 7\nMLP: 1",
        "linear: 9\nMLP: 2",
    ]
    assert "2 test images" in picture.alt and "(1 the other way round)" in picture.alt


def test_mended_can_be_empty():
    t = np.array([1])
    picture = mlp.mended(np.zeros((1, 1, 2, 2)), t, t, t)
    assert "0 test images" in picture.alt
