"""course/history/madaline: least disturbance by hand, and XOR."""

import numpy as np
import pytest

from course.history.madaline import Madaline

CORNERS = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32)
XOR = np.array([-1, 1, 1, -1], np.float32)


def with_weights(weight, bias, **options):
    """Return a Madaline with these weights."""
    model = Madaline(2, len(bias), rng=np.random.default_rng(0), **options)
    model.weight[...], model.bias[...] = weight, bias
    return model


def solved(seed, units=3, epochs=100):
    """Say whether a Madaline learns XOR."""
    rng = np.random.default_rng(seed)
    model = Madaline(2, units, rng=rng)
    mistakes = model.fit(CORNERS, XOR, epochs=epochs, rng=rng)
    right = bool((model(CORNERS) == XOR).all())
    assert right or mistakes[-1], "no mistake in an epoch: nothing moved in it"
    return right


def test_madaline_learns_xor_from_every_seed():
    assert sum(map(solved, range(20))) == 20


def test_most_votes_win():
    model = with_weights([[1, 0], [0, 1], [0, 0]], [0, 0, -1])
    np.testing.assert_array_equal(model(CORNERS), [-1, -1, -1, 1])


def test_of_those_who_voted_wrongly_only_the_least_sure_learns():
    """Sums at (1, 1) are -0.25, -1 and 2, t is 1: unit 0 moves by half its gap to 1."""
    model = with_weights([[0, 0], [0, 0], [1, 1]], [-0.25, -1, 0])
    assert model.learn(CORNERS[3:], XOR[3:] * -1) == 1
    step = 0.5 * (1 + 0.25) / 3  # |x|^2 + 1 = 3
    np.testing.assert_allclose(model.weight, [[step, step], [0, 0], [1, 1]], rtol=1e-6)
    np.testing.assert_allclose(model.bias, [-0.25 + step, -1, 0], rtol=1e-6)
    np.testing.assert_allclose(model.scores(CORNERS[3:])[0, 0], -0.25 + 3 * step, 1e-6)


def test_as_many_learn_as_have_to_change_sides():
    """Sums -0.5, -0.25 and -1: two must turn, and the surest is left alone."""
    model = with_weights(np.zeros((3, 2)), [-0.5, -0.25, -1], learning_rate=1.0)
    assert model.learn(CORNERS[3:], -XOR[3:]) == 1
    np.testing.assert_allclose(model.scores(CORNERS[3:]), [[1, 1, -1]], rtol=1e-6)


def test_a_vote_that_is_right_teaches_nobody():
    model = with_weights(np.zeros((3, 2)), [0.5, 0.25, -1])
    assert model.learn(CORNERS[3:], -XOR[3:]) == 0
    np.testing.assert_array_equal(model.bias, np.array([0.5, 0.25, -1], np.float32))


def test_one_adaline_alone_never_learns_xor():
    assert not any(solved(seed, units=1) for seed in range(20))


def test_the_same_seed_gives_the_same_bits():
    weights = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        model = Madaline(2, rng=rng)
        model.fit(CORNERS, XOR, epochs=100, rng=rng)
        weights.append(model.weight)
    np.testing.assert_array_equal(*weights)


def test_what_cannot_be_is_said_in_words():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="units is 4; a vote needs an odd number"):
        Madaline(2, 4, rng=rng)
    with pytest.raises(ValueError, match="learning_rate must be between 0 and 2, not 2"):
        Madaline(2, learning_rate=2, rng=rng)
    model = Madaline(2, rng=rng)
    with pytest.raises(ValueError, match="t must hold 1 and -1 only"):
        model.learn(CORNERS, 0 * XOR)
    with pytest.raises(ValueError, match="an answer for each sample"):
        model.learn(CORNERS, XOR[:3])
