"""course/history/perceptron: the rule by hand, Novikoff's bound, and XOR."""

import numpy as np
import pytest
from scipy.optimize import minimize

from course import device
from course.data import load
from course.history.perceptron import Perceptron, cycle, margin, mistake_bound

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
EITHER = np.array([[0], [1], [1], [1]], np.float32)
XOR = np.array([[0], [1], [1], [0]], np.float32)


def separable(seed, N=60, I=5):
    """Return samples and answers of a line drawn at random, none of them too near."""
    rng = np.random.default_rng(seed)
    x, line = rng.normal(size=(N, I)), rng.normal(size=I + 1)
    side = x @ line[:I] + line[I]
    far = abs(side) > 0.2 * np.linalg.norm(line)
    return x[far], (side[far, None] > 0).astype(float)


def one_epoch(w, b, x, t, order, alpha):
    """Return the weights after one epoch, by the definition, and the mistakes."""
    mistakes = 0
    for n in order:
        y = float(w @ x[n] + b > 0)
        w, b = w + alpha * (t[n] - y) * x[n], b + alpha * (t[n] - y)
        mistakes += y != t[n]
    return w, b, mistakes


def largest_margin(x, t):
    """Return gamma by a general solver, from the shortest weights with sums beyond 1."""
    rows = np.where(t > 0, 1, -1)[:, None] * np.column_stack([x, np.ones(len(x))])
    found = minimize(
        lambda w: w @ w,
        np.ones(rows.shape[1]),
        jac=lambda w: 2 * w,
        constraints={"type": "ineq", "fun": lambda w: rows @ w - 1, "jac": lambda w: rows},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    assert (rows @ found.x > 1 - 1e-6).all()
    return 1 / np.linalg.norm(found.x)


def test_each_unit_learns_by_the_rule(rng):
    x = rng.normal(size=(30, 4))
    t = (rng.random((30, 3)) > 0.5).astype(float)
    model = Perceptron(4, 3, learning_rate=0.5, dtype=np.float64)
    mistakes = model.fit(x, t, epochs=3)
    for o in range(3):
        w, b = np.zeros(4), 0.0
        for epoch in range(3):
            w, b, wrong = one_epoch(w, b, x, t[:, o], range(30), 0.5)
            assert mistakes[epoch, o] == wrong
        np.testing.assert_allclose(model.weight[o], w, rtol=1e-12)
        np.testing.assert_allclose(model.bias[o], b, rtol=1e-12)


def test_the_order_is_the_generator_s():
    x, t = separable(0)
    model = Perceptron(5, dtype=np.float64)
    model.learn(x, t, np.random.default_rng(3))
    order = np.random.default_rng(3).permutation(len(x))
    w, b, _ = one_epoch(np.zeros(5), 0.0, x, t[:, 0], order, 1.0)
    np.testing.assert_allclose(model.weight[0], w, rtol=1e-12)
    np.testing.assert_allclose(model.bias[0], b, rtol=1e-12)


def test_a_sum_of_zero_does_not_fire():
    assert Perceptron(2)(CORNERS).sum() == 0
    unit = Perceptron(2)
    assert unit.learn(CORNERS, np.zeros((4, 1), np.float32)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_margin_is_the_largest_there_is(seed):
    x, t = separable(seed, N=40, I=3)
    assert margin(x, t[:, 0]) == pytest.approx(largest_margin(x, t[:, 0]), rel=1e-5)


def test_margin_of_or_by_hand():
    """b = -1/3, w = (2/3, 2/3): (0, 0), (0, 1) and (1, 0) are all 1/3 away."""
    assert margin(CORNERS, EITHER[:, 0]) == pytest.approx(1 / 3)
    assert mistake_bound(CORNERS, EITHER[:, 0]) == pytest.approx(3 * 9)


@pytest.mark.parametrize("seed", range(20))
def test_mistakes_stay_within_novikoff_s_bound(seed):
    x, t = separable(seed)
    model = Perceptron(5, dtype=np.float64)
    mistakes = model.fit(x, t, epochs=10_000, rng=np.random.default_rng(seed))
    R = np.sqrt((x**2).sum(axis=1).max() + 1)
    bound = (R / largest_margin(x, t[:, 0])) ** 2
    assert mistakes[-1] == 0
    np.testing.assert_array_equal(model(x), t)
    assert 0 < mistakes.sum() <= bound
    assert mistake_bound(x, t[:, 0]) == pytest.approx(bound, rel=1e-4)


def test_mark_one_learns_letters_within_the_bound():
    data = load("letters", train=20, shift=1.0)
    x, x_test = (a.reshape(len(a), 400) for a in (data.x_train, data.x_test))
    t = np.eye(26, dtype=np.float32)[data.t_train]
    model = Perceptron(400, 26)
    mistakes = model.fit(x, t, epochs=100, rng=np.random.default_rng(0))
    assert not mistakes[-1].any()
    for letter in range(0, 26, 5):
        assert mistakes[:, letter].sum() <= mistake_bound(x, t[:, letter])
    right = model.scores(x_test).argmax(axis=1) == data.t_test
    assert right.mean() > 0.85


def test_the_learning_rate_changes_no_answer():
    x, t = separable(1)
    one, other = (Perceptron(5, learning_rate=a, dtype=np.float64) for a in (1, 0.125))
    np.testing.assert_array_equal(one.fit(x, t, epochs=50), other.fit(x, t, epochs=50))
    np.testing.assert_array_equal(one.weight, 8 * other.weight)


def test_xor_never_ends():
    """The weights come back to where they were, with mistakes on the way: so for ever."""
    assert margin(CORNERS, XOR[:, 0]) == 0
    assert mistake_bound(CORNERS, XOR[:, 0]) == np.inf
    first, again = cycle(CORNERS, XOR)
    model = Perceptron(2)
    states, mistakes = [], model.fit(CORNERS, XOR, epochs=1000)
    assert len(mistakes) == 1000 and mistakes.all()
    model = Perceptron(2)
    for _ in range(again + 1):
        states.append((*model.weight[0], *model.bias))
        model.learn(CORNERS, XOR)
    assert states[first] == states[again]
    assert len(set(states[:again])) == again, "the first state that comes back"


@pytest.mark.parametrize("seed", range(20))
def test_xor_never_ends_in_any_order(seed):
    mistakes = Perceptron(2).fit(CORNERS, XOR, epochs=300, rng=np.random.default_rng(seed))
    assert len(mistakes) == 300 and mistakes.all()


def test_there_is_no_cycle_where_learning_ends():
    assert cycle(CORNERS, EITHER) is None
    with pytest.raises(RuntimeError, match="2 epochs brought neither an end nor a cycle"):
        cycle(CORNERS, XOR, epochs=2)


def test_any_number_of_threads_learns_the_same_bits(rng):
    x = rng.random((400, 400), np.float32)
    t = (rng.random((400, 26)) > 0.9).astype(np.float32)
    before, learned = device.get_threads(), []
    try:
        for threads in (1, 3):
            device.set_threads(threads)
            model = Perceptron(400, 26)
            model.learn(x, t)
            learned.append(model.weight)
    finally:
        device.set_threads(before)
    np.testing.assert_array_equal(*learned)


def test_what_cannot_be_is_said_in_words():
    model = Perceptron(2)
    for x, t, error, words in (
        (CORNERS[:, :1], EITHER, ValueError, r"x has shape \(4, 1\); 2 inputs"),
        (CORNERS, EITHER[:3], ValueError, "an answer for each sample and unit"),
        (CORNERS, 2 * EITHER, ValueError, "t must hold 0 and 1 only"),
        (CORNERS.astype(int), EITHER, TypeError, "x has dtype int64"),
    ):
        with pytest.raises(error, match=words):
            model.learn(x, t)
    with pytest.raises(TypeError, match="rng is 7; it must be a generator"):
        model.fit(CORNERS, EITHER, epochs=1, rng=7)
    assert not model.weight.any(), "nothing was learned from them"
    with pytest.raises(ValueError, match="learning_rate must be positive, not 0"):
        Perceptron(2, learning_rate=0)
    with pytest.raises(ValueError, match=r"they must be \(N, I\), \(N,\)"):
        margin(CORNERS, EITHER)
