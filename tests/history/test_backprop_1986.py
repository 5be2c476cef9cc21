"""course/history/backprop_1986: the chain rule by hand, and how often XOR is learned."""

import numpy as np
import pytest
from scipy.special import expit

from course.history.backprop_1986 import XOR_T, XOR_X, learn_xor


def test_two_hidden_units_learn_xor_from_every_seed():
    learned = [learn_xor(seed=seed) for seed in range(20)]
    assert sum(one.solved for one in learned) == 20
    for one in learned:
        assert abs(one.model.forward(XOR_X) - XOR_T).max() < 0.1
        assert one.losses[-1] < 0.01 < 0.2 < one.losses[0]


def test_large_first_weights_get_stuck_more_often():
    wide = sum(learn_xor(seed=seed, spread=2.0, sweeps=800).solved for seed in range(10))
    assert 2 <= wide <= 8


def test_one_hidden_unit_never_learns_it():
    assert not any(learn_xor(1, seed=seed, sweeps=500).solved for seed in range(5))


def test_the_first_step_is_the_chain_rule_of_the_paper():
    """dE/dw_ji = dE/do_j * do_j/dw_ji, with do_j/dnet_j = o_j (1 - o_j)."""
    before, after = (learn_xor(seed=3, sweeps=k).model.params for k in (0, 1))
    before = {name: array.astype(float) for name, array in before.items()}
    hidden = expit(XOR_X @ before["0.weight"].T + before["0.bias"])
    out = expit(hidden @ before["2.weight"].T + before["2.bias"])
    delta_out = 2 / 4 * (out - XOR_T) * out * (1 - out)  # of the mean of four squares
    delta_hidden = delta_out @ before["2.weight"] * hidden * (1 - hidden)
    for name, gradient in {
        "0.weight": delta_hidden.T @ XOR_X,
        "0.bias": delta_hidden.sum(axis=0),
        "2.weight": delta_out.T @ hidden,
        "2.bias": delta_out.sum(axis=0),
    }.items():
        np.testing.assert_allclose(after[name], before[name] - gradient, 0, 1e-6)


def test_the_same_seed_gives_the_same_bits():
    one, other = learn_xor(seed=7, sweeps=50), learn_xor(seed=7, sweeps=50)
    np.testing.assert_array_equal(one.losses, other.losses)
    assert len(one.losses) == 50 and not one.solved


def test_a_net_without_hidden_units_is_refused():
    with pytest.raises(ValueError, match="hidden"):
        learn_xor(0, seed=0)
