"""course/history/neocognitron: cells by the paper's equations, digits without a teacher."""

import numpy as np
import pytest

from course import device
from course.data import load
from course.history.neocognitron import CCells, Neocognitron, SCells, c_cells, s_cells

STRIDING_AT_ITS_BEST = {"selectivity": (4.0, 6.0), "recognition": (4.0, 1.0)}


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def accuracy(net, data):
    """Return the share of test images that the net names rightly."""
    return (net.classify(data.x_test) == data.t_test).mean()


def test_s_cells_answer_by_the_paper_s_equation(rng):
    x = rng.random((2, 3, 6, 7), np.float32)
    w = rng.random((4, 3, 3, 2), np.float32) * 5
    inhibit, taper = rng.random(4, np.float32) * 9, rng.random((3, 2), np.float32)
    y, power = s_cells(x, w, inhibit, taper, 1.7)
    for n, f, i, j in np.ndindex(y.shape):
        seen = x[n, :, i : i + 3, j : j + 2].astype(float)
        v = np.sqrt((taper * seen**2).sum())
        e, h = (w[f] * seen).sum(), 2 * 1.7 / 2.7 * inhibit[f] * v
        assert power[n, 0, i, j] == pytest.approx(v, rel=1e-5)
        expected = 1.7 * max(0, (1 + e) / (1 + h) - 1)
        assert y[n, f, i, j] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_c_cells_answer_by_the_paper_s_equation(rng):
    x = rng.random((2, 3, 5, 5), np.float32)
    blur = rng.random((3, 3), np.float32)
    y = c_cells(x, blur, stride=2, padding=1)
    framed = np.pad(x.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for n, i, j in np.ndindex(2, 3, 3):
        window = framed[n, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        pooled = (blur * window).sum(axis=(1, 2))
        z = np.maximum(0, (1 + pooled) / (1 + pooled.mean()) - 1)
        np.testing.assert_allclose(y[n, :, i, j], z / (0.5 + z), 1e-4, 1e-6)


def test_a_cell_answers_fully_to_what_it_has_learned_and_not_to_what_is_unlike_it(rng):
    """The answer is (1 + r) cos - r: 1 for the feature itself, 0 beyond some angle."""
    cells = SCells(2, 3, r=4.0, column=1, quiet=0.0, most=1)
    feature = rng.random((1, 2, 3, 3), np.float32)
    cells.learn(feature)
    assert cells(feature)[0].item() == pytest.approx(1, abs=0.02)
    assert cells(3 * feature)[0].item() == pytest.approx(1, abs=0.02), "brighter, the same"
    other = rng.random((1, 2, 3, 3), np.float32)
    a, b = (np.sqrt(cells.taper) * p[0].astype(float) for p in (feature, other))
    cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    expected = max(0, 5 * cosine - 4)
    assert cells(other)[0].item() == pytest.approx(expected, abs=0.02)


def test_a_plane_begins_where_there_is_most_to_see_and_nobody_answers():
    x = np.zeros((1, 1, 9, 9), np.float32)
    x[0, 0, 2, 1:8] = 1  # a line, and one that is twice as bright
    x[0, 0, 4:9, 6] = 2
    cells = SCells(1, 3, r=8.0, column=3, quiet=0.1, most=9)
    cells.learn(x)
    assert cells.weight.shape == (1, 1, 3, 3)
    learned = cells.weight[0, 0] / cells.taper
    assert (learned[:, 0] == learned[:, 2]).all() and learned[1, 1] > learned[1, 0]
    cells.learn(x)
    assert len(cells.weight) == 2, "the bright line has its plane, now the other begins"
    assert cells.inhibit[0] > 1.5 * cells.inhibit[1], "and the first has learned again"


def test_a_plane_learns_only_from_its_best_winner():
    """Its feature stands on the left, and less than its feature on the right."""
    feature = np.array([[1, 1, 1], [0, 1, 0], [0, 1, 0]], np.float32)
    worse = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0]], np.float32)
    cells = SCells(1, 3, r=2.0, column=4, quiet=0.0, most=1)
    x = np.zeros((1, 1, 3, 10), np.float32)
    x[0, 0, :, 1:4], x[0, 0, :, 6:9] = feature, worse
    cells.learn(feature[None, None])
    before = cells.weight.copy()
    assert 0 < cells(x)[0][0, 0, 0, 6] < cells(x)[0][0, 0, 0, 1]
    cells.learn(x)
    learned = (cells.weight - before)[0, 0] / (1000 * cells.taper)
    np.testing.assert_allclose(learned, feature, 0, 1e-3)


def test_no_more_planes_begin_than_there_may_be(rng):
    cells = SCells(1, 3, r=50.0, column=1, quiet=0.0, most=3)
    for _ in range(5):
        cells.learn(rng.random((1, 1, 3, 3), np.float32))
    assert len(cells.weight) == 3


def test_nothing_is_learned_from_an_empty_image():
    cells = SCells(1, 3, r=4.0, column=3, quiet=0.0, most=9)
    cells.learn(np.zeros((1, 1, 9, 9), np.float32))
    assert len(cells.weight) == 0


def test_striding_takes_the_cell_in_the_middle():
    taps = CCells(5, 2, 2, blur=False).blur
    assert taps[2, 2] == taps.sum() == 1
    assert (np.diff(CCells(5, 2, 2).blur[2, :3]) > 0).all(), "and blurring is a bell"


def test_it_learns_digits_and_striding_does_worse(digits):
    """A quarter of the images in one order; the whole comparison is a slow test."""
    x, t = digits.x_train[:360], digits.t_train[:360]
    scores = []
    for options in ({}, {"blur": False, **STRIDING_AT_ITS_BEST}):
        net = Neocognitron(**options).fit(x, t, np.random.default_rng(0))
        scores.append(accuracy(net, digits))
    assert scores[0] > 0.85
    assert scores[1] < scores[0] - 0.05


@pytest.mark.slow
def test_it_reads_nine_digits_of_ten_and_beats_striding_from_every_seed(digits):
    """Even if striding may have the selectivities that suit it best."""
    ours = []
    for seed in range(5):
        scores = []
        for options in ({}, {"blur": False}, {"blur": False, **STRIDING_AT_ITS_BEST}):
            rng = np.random.default_rng(seed)
            net = Neocognitron(**options).fit(digits.x_train, digits.t_train, rng)
            scores.append(accuracy(net, digits))
        assert scores[0] >= 0.9
        assert max(scores[1:]) <= scores[0] - 0.03
        ours.append(scores[0])
    assert np.mean(ours) >= 0.95


def test_labels_name_the_last_cells_and_teach_nothing(digits):
    x, t = digits.x_train[:60], digits.t_train[:60]
    nets = [
        Neocognitron().fit(x, labels, np.random.default_rng(0)) for labels in (t, 9 - t)
    ]
    for one, other in zip(*(net.s for net in nets), strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)
    named = nets[0].classify(x)
    np.testing.assert_array_equal(nets[1].classify(x), np.where(named < 0, -1, 9 - named))


def test_an_image_that_nobody_answers_to_has_no_class(digits):
    x, t = digits.x_train[:60], digits.t_train[:60]
    net = Neocognitron().fit(x, t, np.random.default_rng(0))
    assert net.classify(np.zeros_like(x[:2])).tolist() == [-1, -1]
    assert net.classify(x[:0]).shape == (0,)
    assert (net.classify(x) >= 0).any()


def test_any_number_of_threads_learns_the_same_bits(digits):
    x, t = digits.x_train[:60], digits.t_train[:60]
    before, weights = device.get_threads(), []
    try:
        for threads in (1, 3):
            device.set_threads(threads)
            net = Neocognitron().fit(x, t, np.random.default_rng(0))
            weights.append(net.s[1].weight)
    finally:
        device.set_threads(before)
    np.testing.assert_array_equal(*weights)


def test_what_cannot_be_is_said_in_words(digits):
    x, t = digits.x_train[:5], digits.t_train[:5]
    with pytest.raises(RuntimeError, match="call fit first"):
        Neocognitron().classify(x)
    with pytest.raises(ValueError, match=r"5 images and t has shape \(4,\)"):
        Neocognitron().fit(x, t[:4], np.random.default_rng(0))
    with pytest.raises(TypeError, match="float32"):
        Neocognitron().fit(x.astype(float), t, np.random.default_rng(0))
    with pytest.raises(TypeError, match="rng is 0; it must be a generator"):
        Neocognitron().fit(x, t, 0)
    for labels in (t - 9, t / 2):
        with pytest.raises(ValueError, match="t must hold whole numbers, 0 and up"):
            Neocognitron().fit(x, labels, np.random.default_rng(0))
    with pytest.raises(ValueError, match="nothing to see in these images"):
        Neocognitron().fit(0 * x, t, np.random.default_rng(0))
