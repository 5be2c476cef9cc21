"""Lecture 7: what it shows, against complex steps, SciPy, least squares, plain NumPy.

A complex step measures a derivative with no chain rule and no cancellation:
df/dw = Im f(w + ih) / h. It is the independent source of every gradient here.
"""

import re
from itertools import pairwise

import numpy as np
import pytest
from scipy.linalg import lstsq
from scipy.optimize import linprog
from scipy.special import expit

from tests.lectures.rows import numbers, row, shows
from tests.notebooks_here import ROOT, printed, read, tags

LECTURE = "07_mlp"
STEP = 1e-30
WEIGHTS = (
    [[1.0, -1.0], [2.0, 1.0], [-1.0, 1.0]],
    [[1.0, -1.0, 1.0], [0.5, 1.0, -2.0]],
    [[2.0, -1.0]],
)
BIASES = ([0.0, -1.0, 0.5], [0.0, 1.0], [0.5])
SAMPLE, LABEL = [1.0, 0.5], 1.0
XOR = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def squash(z):
    """The sigmoid, of complex numbers too."""
    return 1 / (1 + np.exp(-z))


def network(x, weights=WEIGHTS, biases=BIASES, bump=None):
    """The activations of one sample, by the definition.

    bump = (layer, i): z[i] of that layer moves by a complex step.
    """
    a = [np.asarray(x, complex)]
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True), start=2):
        z = np.array([np.dot(row, a[-1]) for row in np.asarray(w)]) + b
        if bump and bump[0] == layer:
            z[bump[1]] += 1j * STEP
        a.append(squash(z))
    return a


def loss(a, y=LABEL):
    """The cross-entropy of one sample."""
    p = a[-1][0]
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def delta(layer, size):
    """The derivative of the loss in z of a layer, by complex steps."""
    return [loss(network(SAMPLE, bump=(layer, i))).imag / STEP for i in range(size)]


def derivative(function, w):
    """The gradient of function(w), by complex steps."""
    w = np.asarray(w, complex)
    grad = np.zeros(w.shape)
    for index in np.ndindex(w.shape):
        moved = w.copy()
        moved[index] += 1j * STEP
        grad[index] = function(moved).imag / STEP
    return grad


def fifty():
    """The 50 samples of section 6."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(50, 2)), rng.integers(0, 2, (50, 1))[:, 0]


def total(weights=WEIGHTS, biases=BIASES):
    """The summed loss of the 50 samples."""
    return sum(loss(network(x, weights, biases), y) for x, y in zip(*fifty(), strict=True))


# ------------------------------------------------------------------------ rows


@row("S2-01", LECTURE)
def test_forward_by_the_definition(text):
    for layer, a in enumerate(network(SAMPLE), start=1):
        shows(text, [layer, *a.real.round(6)], rtol=0, atol=1e-9)


@row("S2-02", LECTURE)
def test_loss_has_its_minus_and_both_units(text):
    nats = -np.log(expit(2.0))
    shows(text, [2, 1, round(expit(2.0), 4), round(nats, 6), round(nats, 6)])
    shows(text, [round(nats / np.log(2), 6), -800, 1, 800])


@row("S2-05", LECTURE)
def test_delta_is_the_slope_of_the_loss_in_z(text):
    for layer, size in ((4, 1), (3, 2), (2, 3)):
        shows(text, [layer, *np.round(delta(layer, size), 6)], rtol=0, atol=1e-9)


@row("S2-06", LECTURE)
def test_gradient_of_the_weights_three_times(text):
    grad = derivative(
        lambda w: loss(network(SAMPLE, (WEIGHTS[0], w, WEIGHTS[2]))), WEIGHTS[1]
    )
    shows(text, [*grad.round(5).ravel()] * 3, rtol=0, atol=1e-9)
    assert "14 weights and 6 biases agree to 1e-9: True" in text


@row("S2-07", LECTURE)
def test_hidden_delta_as_a_sum_over_the_next_layer(text):
    for i, value in enumerate(np.round(delta(2, 3), 6), start=1):
        shows(text, [i, value], rtol=0, atol=1e-9)


@row("S2-08", LECTURE)
def test_general_and_special_derivative_agree(text):
    found = numbers(text)
    for value in np.round(delta(2, 3), 6):
        assert found.count(value) == 2


@row("S2-09", LECTURE)
def test_output_delta_is_a_minus_y(text):
    a = expit(0.5)
    for y in (1, 0):
        likelihood = round(y * (1 - a) - (1 - y) * a, 4)
        measured = derivative(
            lambda z, y=y: -(y * np.log(squash(z)) + (1 - y) * np.log(1 - squash(z))), 0.5
        )
        assert round(float(measured), 4) == -likelihood
        formula = [y, 1, 1]  # y = ...: y/g g' - (1-y)/(1-g) g'
        shows(text, [*formula, likelihood, -likelihood, -likelihood])


@row("S2-10", LECTURE)
def test_deltas_walk_from_right_to_left(text):
    steps = numbers(text)
    assert steps[4:8] == [5, 6, 3, 3], "the static picture is step 5 of 6"
    shows(text, np.round(delta(3, 2), 3), rtol=0, atol=1e-9)
    hidden = network(SAMPLE)[1].real
    shows(text, np.outer(delta(3, 2), hidden).round(3), rtol=0, atol=1e-9)


@row("S2-11", LECTURE)
def test_sample_by_sample_is_all_at_once(text):
    grad = derivative(lambda w: total((*WEIGHTS[:2], w)), WEIGHTS[2])
    shows(text, [3, *grad.round(6)[0], 3, *grad.round(6)[0]], rtol=0, atol=1e-9)
    assert "agree to 1e-12:  True" in text


@row("S2-12", LECTURE)
def test_penalty_spares_the_bias(text):
    def penalised(factor):
        return lambda w: total((*WEIGHTS[:2], w)) / 50 + factor * 0.1 * (w**2).sum()

    half = derivative(penalised(0.5), WEIGHTS[2]).round(5)[0]
    whole = derivative(penalised(1.0), WEIGHTS[2]).round(5)[0]
    bias = derivative(lambda b: total(biases=(*BIASES[:2], b)) / 50, BIASES[2]).round(5)
    shows(text, half, rtol=0, atol=1e-9)
    shows(text, [*half, 1, 2, *whole], rtol=0, atol=1e-9)  # 1/2 of the words "penalty ..."
    shows(text, [*bias, *bias], rtol=0, atol=1e-9)


@row("S2-16", LECTURE)
def test_parameters_are_counted(text):
    for sizes in ([2, 3, 2, 1], [784, 10], [784, 64, 10], [784, 100, 100, 10]):
        matrices = [np.empty((m, n)) for n, m in pairwise(sizes)]
        weights = sum(w.size for w in matrices)
        biases = sum(len(w) for w in matrices)
        shows(text, [weights, biases, weights + biases])


@row("S3-28", LECTURE)
def test_linear_layers_collapse(text):
    labels = (np.arange(16)[:, None] >> np.arange(4)) & 1
    alone = [t for t in labels if separable(t)]
    best = max((t == [0, 1, 1, 0]).sum() for t in alone)
    shows(text, [best, 4])
    A, B = np.array([[1, 2], [0, 1], [-1, 1]]), np.array([[1, 0, 2], [0, 1, -1]])
    C = np.einsum("ij,jk->ik", B, A)
    shows(text, C)
    shows(text, [2, 1, *C @ [2, 1], *C @ [2, 1]])
    straight, folded, bent = numbers(text)[-3:]
    assert straight == 0 < bent < folded, "only g(z) = z draws a straight line"


def separable(t):
    """Say whether a line parts the labels of the four corners (a linear program)."""
    sign = 2 * t - 1
    found = linprog(
        np.zeros(3),
        -sign[:, None] * np.c_[XOR, np.ones(4)],
        -np.ones(4),
        bounds=(None, None),
    )
    return found.status == 0


@row("S3-29", LECTURE)
def test_six_activations_and_maxout(text):
    z = np.array([-2.0, -0.5, 0.5, 2.0])
    s, up = expit(z), z > 0
    for g, dg in (
        (s, s * (1 - s)),
        (np.tanh(z), 1 / np.cosh(z) ** 2),
        (z * up, 1.0 * up),
        (np.where(up, z, 0.1 * z), np.where(up, 1, 0.1)),
        (np.where(up, z, 0.25 * z), np.where(up, 1, 0.25)),
        (np.where(up, z, 1.5 * (np.exp(z) - 1)), np.where(up, 1, 1.5 * np.exp(z))),
    ):
        shows(text, [*g.round(4), *dg.round(4)], rtol=0, atol=1e-9)
    shows(text, [-2, 3, *np.abs([-2, 3])])


@row("S3-30", LECTURE)
def test_mlp_is_a_composition(text):
    rng = np.random.default_rng(0)
    w1 = rng.normal(0, 1 / np.sqrt(2), (4, 2))
    w2 = rng.normal(0, 1 / np.sqrt(4), (3, 4))
    output = expit(w2 @ expit(w1 @ [0.5, -1.0])).round(6)
    shows(text, output, rtol=0, atol=1e-9)
    assert all(numbers(text).count(value) == 2 for value in output)


def curve(x):
    return np.sin(2 * np.pi * x) + 0.4 * np.sin(6 * np.pi * x)


def fitted(width):
    """Least squares over `width` evenly spaced sigmoids: error inside and outside."""

    def units(x):
        centre = (np.arange(width) + 0.5) / width
        return np.c_[np.ones(len(x)), expit(3 * width * (x[:, None] - centre))]

    inside = np.linspace(0, 1, 401)
    v = lstsq(units(inside), curve(inside), lapack_driver="gelsy")[0]
    around = np.linspace(-0.25, 1.25, 601)
    around = around[(around < 0) | (around > 1)]
    return [np.sqrt(np.mean((units(x) @ v - curve(x)) ** 2)) for x in (inside, around)]


@row("S3-31", LECTURE)
def test_a_polynomial_activation_stays_a_parabola(text):
    x = np.linspace(0, 1, 401)
    parabola = np.polyval(np.polyfit(x, curve(x), 2), x)
    floor = np.sqrt(np.mean((parabola - curve(x)) ** 2))
    shows(text, [round(floor, 4)] * 6)
    shows(text, [64, round(fitted(64)[1], 2)])


@row("S4-22", LECTURE)
def test_error_falls_with_the_width(text):
    errors = [round(fitted(width)[0], 4) for width in (2, 4, 8, 16, 32, 64)]
    assert errors == sorted(errors, reverse=True)
    shows(text, errors, rtol=0, atol=1e-9)
    shows(text, [8, 0, 1, errors[2]], rtol=0, atol=1e-9)


@row("S4-01", LECTURE)
def test_two_layers_with_a_bend(text):
    A, B = np.array([[1, 2], [0, 1], [-1, 1]]), np.array([[1, 0, 2], [0, 1, -1]])
    for x in ([2, 1], [-2, -1]):
        hidden = [max(0, value) for value in A @ x]
        shows(text, [*x, *(B @ A @ x), *(B @ A @ x), 0, *(B @ hidden)])  # 0: of max(0, Ax)


def trained_xor():
    """All 20 nets at once, each neuron's chain rule written out."""
    t = np.array([0.0, 1.0, 1.0, 0.0])
    w, v = np.empty((20, 2, 2)), np.empty((20, 2))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        w[seed], v[seed] = rng.normal(size=(2, 2)), rng.normal(size=2)
    b, c = np.zeros((20, 2)), np.zeros((20, 1))
    for _ in range(2000):
        h = expit(
            XOR[:, 0, None] * w[:, None, :, 0]
            + XOR[:, 1, None] * w[:, None, :, 1]
            + b[:, None]
        )
        o = expit((h * v[:, None]).sum(2) + c)
        dc = (o - t) * o * (1 - o)
        dh = dc[..., None] * v[:, None] * h * (1 - h)
        v, c = v - (dc[..., None] * h).sum(1), c - dc.sum(1, keepdims=True)
        b = b - dh.sum(1)
        w = w - np.einsum("sni,nj->sij", dh, XOR)
    return o, 0.5 * ((o - t) ** 2).sum(1)


@row("S4-13", LECTURE)
def test_xor_by_backprop_with_the_squared_error(text):
    o, E = trained_xor()
    solved = E < 0.01
    shows(text, [solved.sum(), 20])
    stuck = np.flatnonzero(~solved)[0]
    assert solved[0]
    for start in (0, stuck):
        shows(text, [E[start].round(4), *o[start].round(2)], rtol=0, atol=1e-9)


@row("S4-24", LECTURE)
def test_prelu_sums_its_slope_over_the_batch(text):
    z = np.array([[-2.0, 1.0], [-1.0, -4.0], [3.0, -0.5]])
    dy = np.array([[1.0, 2.0], [3.0, -1.0], [5.0, 4.0]])
    s = np.array([0.25, 0.5])

    def total(z, s):
        return (dy * np.where(z.real > 0, z, s * z)).sum()

    dz, ds = derivative(lambda z: total(z, s), z), derivative(lambda s: total(z, s), s)
    shows(text, np.where(z > 0, z, s * z))
    shows(text, [*dz.ravel(), *ds])
    shows(text, [*ds, *dz.ravel()])


# ---------------------------------------------------------------------- errata


def cells():
    return read(ROOT / "lectures" / f"{LECTURE}.ipynb").cells


def erratum(name):
    """What the cells of an erratum print."""
    texts = [printed(cell) for cell in cells() if f"erratum:{name}" in tags(cell)]
    assert texts, f"no cell is tagged erratum:{name}"
    return "\n".join(texts)


def test_each_erratum_says_what_is_wrong_what_is_right_and_why():
    quotes = [c.source for c in cells() if "> **Erratum.**" in c.source]
    assert sum(source.count("**Erratum.**") for source in quotes) == 8
    for source in quotes:
        for words in ("*The slide", "*Right is", "*because*"):
            assert source.count(words) >= source.count("**Erratum.**")


def test_minus_moves_the_prediction_up():
    up, down = expit(0.5), expit(-0.5)
    shows(erratum("E-03"), [0.5, round(up, 4), -0.5, round(down, 4)])


def test_wrong_sign_of_delta_climbs():
    frames = numbers(erratum("E-04"))
    (one, start, _, bad), (two, same, _, good) = frames[:4], frames[5:9]
    assert (one, two, start) == (1, 2, same)
    assert good < start < 1 < bad
    assert frames[10] == 2, "the frame that learns"


def test_label_is_stretched_over_a_hidden_layer():
    a = network(SAMPLE)
    text = erratum("E-15")
    shows(text, [4, *(a[3].real - 1).round(4)], rtol=0, atol=1e-9)
    shows(text, [3, *(a[2].real - 1).round(4)], rtol=0, atol=1e-9)


def test_maxout_has_twice_the_parameters():
    shows(erratum("E-16"), [4, 3, 2 * (3 * 4 + 3), 2, 3 * 4 + 3])


def test_approximation_needs_its_conditions():
    text = erratum("E-17")
    assert numbers(text)[-2] == 64 and numbers(text)[-1] > 0.5 > 100 * fitted(64)[0]


def test_biases_count():
    shows(erratum("E-19"), [50816, 74, 50890])


def test_bias_is_column_0():
    z = np.array(WEIGHTS[0]) @ SAMPLE + BIASES[0]
    shows(erratum("E-23"), [*z, 1, *z])  # 1: of the label "[1, a]"
    shows(erratum("E-23"), [0, *BIASES[0], 0, 0, 0, 0])  # 0: of the words "at x = 0"


def test_penalty_without_the_half_is_twice_as_steep():
    lines = [numbers(line)[-2:] for line in erratum("E-49").splitlines()[1:3]]
    half, whole = np.array(lines)
    np.testing.assert_allclose(whole - half, 0.1 * np.array(WEIGHTS[2][0]), atol=2e-5)


def test_leaky_slope_is_a_parameter():
    text = erratum("E-55")
    shows(text, [0.1, -0.2, -0.05, 0.5, 2, 0.1, 0.1, 1, 1])  # the first 0.1: of the name
    shows(text, [0.25, -0.5, -0.125, 0.5, 2, 0.25, 0.25, 1, 1])


# ----------------------------------------------------------- what else it claims


def shown_by(name):
    return next(printed(cell) for cell in cells() if cell.id == name)


def test_all_roads_agree_for_five_activations():
    assert shown_by("same").count("equal on three roads: True") == 5


def test_compiled_loops_are_much_faster():
    assert numbers(shown_by("speed"))[-1] > 20


def test_hidden_layer_reads_the_digits_better():
    linear, mlp = (np.array(numbers(line)) for line in shown_by("digits").splitlines()[1:3])
    assert linear[0] == 7850 and mlp[0] == 50890
    assert (linear[1:] > 94).all() and (mlp[1:] > linear[1:]).all()


@pytest.mark.parametrize("name, last", [("spirals", 200), ("cost", 101780)])
def test_predictions_have_their_answer(name, last):
    assert last in numbers(shown_by(name))


def test_training_of_the_spirals_never_climbs():
    lines = [line for line in shown_by("spirals").splitlines() if line.startswith("step")]
    losses = [numbers(line)[1] for line in lines]
    assert len(losses) == 5 and losses == sorted(losses, reverse=True)


def test_numbers_in_the_prose_are_printed_by_a_cell():
    shown = [n for c in cells() if c.cell_type == "code" for n in numbers(printed(c))]
    prose = "\n".join(c.source for c in cells() if c.cell_type == "markdown")
    decimals = set(
        re.findall(r"(?<![\d./:])\d+\.\d{3}(?!\d)", prose.split("## Sources")[0])
    )
    assert decimals == {"0.710"}, "a new number in the prose needs a cell that prints it"
    assert any(f"{n:.3f}" == "0.710" for n in shown)
    assert {1442, 355} <= {*shown}
