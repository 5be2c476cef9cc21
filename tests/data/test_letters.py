import hashlib
from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import linprog

from course.data import glyphs, load
from course.data.letters import ALPHABET, FONTS, LONG

STILL = {"shift": 0, "turn": 0}


def parts(data):
    return (data.x_train, data.t_train), (data.x_test, data.t_test)


def test_letters_are_400_cells_on_or_off():
    data = load("letters", train=4, test=2)
    assert repr(data) == "letters: 104 + 52 images of 20x20, 26 classes"
    assert data.classes == tuple(ALPHABET)
    for x, t in parts(data):
        assert x.dtype == np.float32 and t.dtype == np.int64
        assert x.shape == (len(t), 1, 20, 20) and x.flags.c_contiguous
        assert set(np.unique(x)) == {0, 1}
        np.testing.assert_array_equal(t, np.arange(len(t)) % 26)
        assert (x.sum(axis=(1, 2, 3)) > 13).all()


def test_chosen_letters_are_those_of_the_whole_alphabet():
    every, two = (load("letters", train=3, letters=chosen) for chosen in (ALPHABET, "XE"))
    assert two.classes == ("X", "E")
    for label, letter in enumerate("XE"):
        theirs = every.x_train[every.t_train == ALPHABET.index(letter)]
        np.testing.assert_array_equal(two.x_train[two.t_train == label], theirs)


def test_a_cell_is_on_where_the_outline_covers_most_of_it():
    x = load("letters", train=40, test=1, **STILL).x_train[:, 0]
    seen = np.unique(x[ALPHABET.index("L") :: 26], axis=0)
    assert len(seen) == len(FONTS)
    for font in FONTS:
        share = covered(glyphs.outlines(font)["L"][0])
        clear = np.abs(share - 0.5) > 0.1
        assert any((image == (share > 0.5))[clear].all() for image in seen)


def covered(outline):
    """The share of each cell inside one polygon, by crossing counts on a fine grid."""
    x, y = outline.T * LONG / 18
    x, y = x + 10, 10 - y
    at = (np.arange(320) + 0.5) / 16
    inside = np.zeros((320, 320), bool)
    for k in range(len(x)):
        low, high = sorted((y[k - 1], y[k]))
        rows = (low <= at) & (at < high)
        if rows.any():
            where = x[k] + (at[rows] - y[k]) * (x[k - 1] - x[k]) / (y[k - 1] - y[k])
            inside[rows] ^= at > where[:, None]
    return inside.reshape(20, 16, 20, 16).mean(axis=(1, 3))


def test_without_shift_and_turn_a_letter_has_one_form_for_each_font():
    x, t = parts(load("letters", train=30, **STILL))[0]
    for label in range(26):
        assert 1 < len(np.unique(x[t == label], axis=0)) <= len(FONTS)


def test_a_letter_is_never_cut_off_by_the_usual_shifts_and_turns():
    x = load("letters", train=40).x_train[:, 0]
    frame = np.ones((20, 20), bool)
    frame[1:-1, 1:-1] = False
    assert not x[:, frame].any()


def test_shifts_move_the_middle_of_a_letter_as_far_as_they_say():
    x = load("letters", train=300, letters="O", shift=3, turn=0).x_train[:, 0]
    cells = np.arange(20) + 0.5 - 10
    down = np.einsum("npq,p->n", x, cells) / x.sum(axis=(1, 2))
    across = np.einsum("npq,q->n", x, cells) / x.sum(axis=(1, 2))
    for moved in (down, across):
        assert np.abs(moved).max() == pytest.approx(3, abs=0.3)
        assert moved.mean() == pytest.approx(0, abs=4 * 3 / np.sqrt(3 * 300))
    assert abs(np.corrcoef(down, across)[0, 1]) < 4 / np.sqrt(300)


@pytest.mark.parametrize("turn", [0.2, 0.5])
def test_a_letter_turns_as_far_as_it_says(turn):
    x = load("letters", train=200, letters="I", shift=0, turn=turn).x_train[:, 0]
    rows, columns = np.mgrid[:20, :20] + 0.5 - 10
    angles = []
    for image in x:
        spread = np.cov(np.stack([rows[image > 0], columns[image > 0]]))
        angles.append(0.5 * np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1]))
    assert max(angles) == pytest.approx(turn, abs=0.06)
    assert min(angles) == pytest.approx(-turn, abs=0.06)


@pytest.mark.parametrize("noise", [0.02, 0.2, 1.0])
def test_noise_is_the_share_of_wrong_cells(noise):
    clean, noisy = (load("letters", train=20, noise=n).x_train for n in (0.0, noise))
    wrong = (clean != noisy).mean()
    assert wrong == pytest.approx(noise, abs=4 * np.sqrt(noise * (1 - noise) / clean.size))


def separable(x, t):
    """Say by linear programming whether a plane parts class 0 from class 1."""
    signs = np.where(t == 0, -1.0, 1.0)
    rows = -signs[:, None] * np.column_stack([x.reshape(len(x), -1), np.ones(len(x))])
    found = linprog(np.zeros(rows.shape[1]), rows, -np.ones(len(x)), bounds=(None, None))
    return found.status == 0


@pytest.mark.parametrize("pair", ["EX", "OI", "AT"])
def test_two_letters_without_noise_can_be_parted_by_a_plane(pair):
    # 1000 images in 400 dimensions: points at random could not (Cover, 1965)
    x, t = parts(load("letters", train=500, letters=pair))[0]
    assert len(np.unique(x, axis=0)) > 850
    assert separable(x, t)
    assert not separable(x, np.random.default_rng(0).permutation(t))


def same(a, b):
    return all(
        x.tobytes() == y.tobytes() and np.array_equal(s, t)
        for (x, s), (y, t) in zip(parts(a), parts(b), strict=True)
    )


def test_a_seed_decides_on_every_bit_and_a_larger_count_begins_the_same():
    first = load("letters", train=3, test=2, seed=5, noise=0.1)
    assert same(first, load("letters", train=3, test=2, seed=5, noise=0.1))
    assert not same(first, load("letters", train=3, test=2, seed=6, noise=0.1))
    larger = load("letters", train=4, test=3, seed=5, noise=0.1)
    np.testing.assert_array_equal(larger.x_train[:78], first.x_train)
    np.testing.assert_array_equal(larger.x_test[:52], first.x_test)


def test_what_is_tested_on_was_drawn_apart():
    data = load("letters", train=10, test=10)
    assert (data.x_train != data.x_test).any(axis=(1, 2, 3)).mean() > 0.95


def test_every_machine_draws_the_same_bytes():
    # recorded on Linux x86-64 from the fonts of matplotlib 3.11.2
    data = load("letters", train=2, test=1, noise=0.05)
    digest = hashlib.sha256(data.x_train.tobytes() + data.x_test.tobytes()).hexdigest()
    assert digest == "39d346b03f7d85a175a032c48582547cad1b9404f60fab480798e903da887898"


def test_different_letters_look_different():
    x, t = parts(load("letters", train=6, **STILL))[0]
    means = np.stack([x[t == label].mean(axis=0).ravel() for label in range(26)])
    for one, other in combinations(range(26), 2):
        assert np.abs(means[one] - means[other]).sum() > 10


@pytest.mark.parametrize(
    "options, error, says",
    [
        ({"letters": ""}, ValueError, "letters must be capitals such as"),
        ({"letters": 3}, ValueError, "letters must be capitals .* not 3"),
        ({"letters": "Ex"}, ValueError, "letters has 'x'; it must be of ABC"),
        ({"letters": "EXE"}, ValueError, "letters has 'E' twice: 'EXE'"),
        ({"shift": -1}, ValueError, "shift must be from 0 to 20, not -1"),
        ({"turn": 2}, ValueError, "turn must be from 0 to 1, not 2"),
        ({"noise": 1.1}, ValueError, "noise must be from 0 to 1, not 1.1"),
        ({"noise": "some"}, TypeError, "noise must be a number"),
        ({"train": 0}, ValueError, "train must be at least 1"),
        ({"test": 1.5}, TypeError, "test must be a whole number"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ],
)
def test_what_cannot_be_is_refused(options, error, says):
    with pytest.raises(error, match=says):
        load("letters", **options)
