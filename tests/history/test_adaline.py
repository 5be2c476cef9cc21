"""course/history/adaline: LMS by its definition, where it ends, and when it cannot."""

import numpy as np
import pytest

from course.history.adaline import Adaline, largest_rate
from course.history.perceptron import Perceptron


def samples(seed=0, N=40, I=3):
    """Return samples, and what no line fits exactly."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, I))
    return x, x @ rng.normal(size=(I, 1)) + 0.5 + 0.3 * rng.normal(size=(N, 1))


def least_squares(x, t):
    """Return weights and bias with the smallest squared error."""
    return np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), t, rcond=None)[0]


def distance(model, x, t):
    """Return how far the model's weights are from the least-squares ones."""
    learned = np.column_stack([model.weight, model.bias]).T
    return np.linalg.norm(learned - least_squares(x, t))


@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_every_step_follows_the_mean_gap_of_its_batch(batch_size):
    x, t = samples()
    model = Adaline(3, learning_rate=0.05, dtype=np.float64)
    error = model.learn(x, t, batch_size)
    w, squares = np.zeros(4), 0.0
    rows = np.column_stack([x, np.ones(40)])
    for start in range(0, 40, batch_size):
        batch = slice(start, start + batch_size)
        gap = t[batch, 0] - rows[batch] @ w
        squares += (gap**2).sum()
        w = w + 0.05 * (gap[:, None] * rows[batch]).mean(axis=0)
    np.testing.assert_allclose([*model.weight[0], *model.bias], w, rtol=1e-12)
    np.testing.assert_allclose(error, squares / 40, rtol=1e-12)


def test_units_learn_alone():
    x, t = samples()
    both = Adaline(3, 2, dtype=np.float64)
    both.fit(x, np.hstack([t, -3 * t]), epochs=5)
    alone = Adaline(3, dtype=np.float64)
    alone.fit(x, -3 * t, epochs=5)
    np.testing.assert_array_equal(both.weight[1:], alone.weight)


@pytest.mark.parametrize("seed", range(5))
def test_one_batch_below_the_largest_rate_ends_at_least_squares(seed):
    x, t = samples(seed)
    model = Adaline(3, learning_rate=0.95 * largest_rate(x), dtype=np.float64)
    model.fit(x, t, epochs=2000, batch_size=40)
    assert distance(model, x, t) < 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_one_batch_above_the_largest_rate_diverges(seed):
    x, t = samples(seed)
    model = Adaline(3, learning_rate=1.05 * largest_rate(x), dtype=np.float64)
    errors = model.fit(x, t, epochs=300, batch_size=40)[:, 0]
    assert errors[-1] > 1e6 * errors[0]
    with pytest.raises(FloatingPointError, match="has diverged; the learning rate is"):
        model.fit(x, t, epochs=100_000, batch_size=40)


def test_one_sample_at_a_time_stays_near_least_squares_the_nearer_the_smaller_the_rate():
    x, t = samples()
    far = []
    for rate in (0.1, 0.01, 0.001):
        model = Adaline(3, learning_rate=rate, dtype=np.float64)
        model.fit(x, t, epochs=500, rng=np.random.default_rng(0))
        far.append(distance(model, x, t))
    assert far[0] > 3 * far[1] > 9 * far[2]
    assert far[2] < 0.002


def test_where_a_line_fits_exactly_so_does_lms():
    x, _ = samples()
    t = x @ np.array([[1.0], [-2.0], [0.5]]) + 0.25
    model = Adaline(3, learning_rate=0.1, dtype=np.float64)
    model.fit(x, t, epochs=200)
    np.testing.assert_allclose(model.weight, [[1, -2, 0.5]], rtol=1e-9)
    np.testing.assert_allclose(model.bias, [0.25], rtol=1e-9)


def test_on_noisy_data_adaline_beats_the_perceptron():
    """Two clouds that overlap: one follows every last mistake, the other the mean."""
    accuracy = {Adaline: [], Perceptron: []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        side = rng.choice([-1.0, 1.0], (2100, 1))
        x = rng.normal(size=(2100, 2)) + 0.8 * side
        for kind, t in ((Adaline, side), (Perceptron, (side + 1) / 2)):
            model = kind(2, learning_rate=0.01, dtype=np.float64)
            model.fit(x[:100], t[:100], epochs=50, rng=np.random.default_rng(seed))
            accuracy[kind].append((model(x[100:]) == t[100:]).mean())
    best = 0.871  # Phi(0.8 * sqrt(2)), of the line that the clouds were drawn by
    ours, theirs = np.mean(accuracy[Adaline]), np.mean(accuracy[Perceptron])
    assert theirs + 0.02 < ours < best + 0.01
    assert best - 0.02 < ours


def test_what_cannot_be_is_said_in_words():
    x, t = samples()
    model = Adaline(3, dtype=np.float64)
    with pytest.raises(ValueError, match=r"x has shape \(40, 2\); 3 inputs"):
        model.learn(x[:, :2], t)
    with pytest.raises(ValueError, match="a number for each sample and unit"):
        model.learn(x, t[:3])
    with pytest.raises(ValueError, match="batch_size"):
        model.learn(x, t, batch_size=0)
    with pytest.raises(ValueError, match="learning_rate must be positive, not -1"):
        Adaline(3, learning_rate=-1)
    with pytest.raises(ValueError, match=r"it must be \(N, I\), N at least 1"):
        largest_rate(x[:0])
    assert not model.weight.any()
