"""course/layers/dropout.py: (1) against the words of Philox, and against probability."""

import numpy as np
import pytest

from course import device
from course.checks import check_layer
from course.layers import Dropout, dropout_backward, dropout_forward
from tests.test_philox import word

SHAPES = pytest.mark.parametrize(
    "shape",
    [(), (0,), (1,), (255,), (256,), (257,), (3, 5), (2, 3, 7, 9), (4, 0, 2), (33, 31)],
    ids=str,
)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def oracle(x, p, seed, step):
    """Equation (1), one word after the other, sharing no line with the course."""
    kept = [word(k, seed, step) / 2**32 >= p for k in range(x.size)]
    return np.where(np.reshape(kept, x.shape), x / (1 - p), 0)


@SHAPES
@DTYPES
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.75, 1 / 3])
def test_forward_drops_what_the_words_say(shape, dtype, p, rng):
    x = np.asarray(rng.normal(size=shape)).astype(dtype)
    y = dropout_forward(x, p, seed=11, step=3)
    assert y.dtype == dtype and y.shape == x.shape
    close = 2e-7 if dtype == np.float32 else 1e-15
    np.testing.assert_allclose(y, oracle(x.astype(float), p, 11, 3), close)


@SHAPES
@DTYPES
def test_backward_drops_the_same(shape, dtype, rng):
    dy = np.asarray(rng.normal(size=shape)).astype(dtype)
    dx = dropout_backward(dy, 0.3, seed=5, step=8)
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx, dropout_forward(dy, 0.3, seed=5, step=8))
    mask = dropout_forward(np.ones_like(dy), 0.3, seed=5, step=8)
    np.testing.assert_allclose(dx, dy * mask, 1e-6)


@pytest.mark.parametrize("p", [0.0, 0.25, 0.9, 1.0])
def test_backward_is_the_slope(p, rng):
    layer = Dropout(p, rng=rng)
    check_layer(layer, rng.normal(size=(3, 100)), rng)
    layer.forward(rng.normal(size=4))  # and of a later step
    check_layer(layer, rng.normal(size=(3, 100)), rng)
    check_layer(layer.eval(), rng.normal(size=(2, 5)), rng)


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9])
def test_share_and_mean_are_those_of_p(p):
    """Within five standard deviations of a fair draw."""
    count = 1 << 20
    y = dropout_forward(np.ones(count), p, seed=1)
    deviation = np.sqrt(p * (1 - p) / count)
    assert abs((y == 0).mean() - p) < 5 * deviation
    assert abs(y.mean() - 1) < 5 * deviation / (1 - p)


def test_masks_do_not_correlate():
    """Neighbours in a mask, masks of neighbouring steps and of neighbouring seeds."""
    draws = [
        dropout_forward(np.ones(1 << 18), 0.5, *at) - 1 for at in ((0, 0), (0, 1), (1, 0))
    ]
    bound = 5 / np.sqrt(1 << 18)
    for distance in (1, 2, 63, 64, 128, 192, 256):
        assert abs(np.mean(draws[0][distance:] * draws[0][:-distance])) < bound
    assert abs(np.mean(draws[0] * draws[1])) < bound
    assert abs(np.mean(draws[0] * draws[2])) < bound
    assert abs(np.mean(draws[1] * draws[2])) < bound


def test_mask_is_that_of_any_thread_count_and_dtype(monkeypatch):
    monkeypatch.setattr(device, "SMALL", 0)
    x = np.ones(10_001, np.float32)
    before = device.get_threads()
    try:
        masks = []
        for threads in (1, 2, 3, 7):
            device.set_threads(threads)
            masks.append(dropout_forward(x, 0.4, 9, 2) > 0)
    finally:
        device.set_threads(before)
    masks.append(dropout_forward(x.astype(float), 0.4, 9, 2) > 0)
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


def test_p_of_one_drops_all_and_of_zero_nothing(rng):
    x = rng.normal(size=(4, 100))
    np.testing.assert_array_equal(dropout_forward(x, 1), np.zeros_like(x))
    np.testing.assert_array_equal(dropout_forward(x, np.nextafter(1, 0)), np.zeros_like(x))
    np.testing.assert_array_equal(dropout_forward(x, 0), x)


@DTYPES
def test_dropped_is_zero_whatever_it_was(dtype):
    dropped = dropout_forward(np.ones(500, dtype), 0.5) == 0
    for value in (np.nan, np.inf, -np.inf):
        y = dropout_forward(np.full(500, value, dtype), 0.5)
        np.testing.assert_array_equal(y, np.where(dropped, 0, dtype(value)))


def test_every_forward_is_a_new_step_and_eval_passes_through(rng):
    layer, x = Dropout(0.5, rng=np.random.default_rng(3)), rng.normal(size=(8, 40))
    first, second = layer(x), layer(x)
    assert not np.array_equal(first, second)
    assert layer.eval() is layer
    assert layer(x) is x
    np.testing.assert_array_equal(layer.backward(x), x)
    third = layer.train()(x)
    np.testing.assert_array_equal(layer.backward(x), third)
    again = Dropout(0.5, rng=np.random.default_rng(3))
    for expected in (first, second, third):  # what eval saw was no step
        np.testing.assert_array_equal(again(x), expected)


def test_backward_belongs_to_its_forward(rng):
    """What train() and eval() say in between does not count."""
    layer, x = Dropout(0.5, rng=rng), rng.normal(size=(8, 40))
    y = layer(x)
    np.testing.assert_array_equal(layer.eval().backward(x), y)


def test_generator_is_asked_once():
    """Other layers draw the same weights, however long a dropout layer trained."""
    rng, same = np.random.default_rng(0), np.random.default_rng(0)
    layer = Dropout(rng=rng)
    layer(np.ones(3))
    same.integers(2**63)
    assert rng.random() == same.random()


X = np.ones(4)


@pytest.mark.parametrize(
    "arguments, error, says",
    [
        ((X.astype(int),), TypeError, "x has dtype int64"),
        ((X, -0.1), ValueError, "p must be from 0 to 1, not -0.1"),
        ((X, 1.5), ValueError, "p must be from 0 to 1, not 1.5"),
        ((X, float("nan")), ValueError, "p must be finite"),
        ((X, "half"), TypeError, "p must be a number"),
        ((X, 0.5, -1), ValueError, "seed must be at least 0"),
        ((X, 0.5, 0.5), TypeError, "seed must be a whole number"),
        ((X, 0.5, 2**63), ValueError, r"seed must be below 2\*\*63"),
        ((X, 0.5, 0, -1), ValueError, "step must be at least 0"),
    ],
)
def test_what_cannot_be_is_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        dropout_forward(*arguments)


def test_impossible_layer_is_refused(rng):
    with pytest.raises(ValueError, match="p must be from 0 to 1, not 2"):
        Dropout(2, rng=rng)
    with pytest.raises(TypeError, match="rng is 0; it must be a generator"):
        Dropout(rng=0)


def test_scale_is_that_of_pytorch(rng):
    """PyTorch draws other masks; what it keeps, it scales alike."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = rng.normal(size=1000)
    theirs = torch.nn.functional.dropout(torch.from_numpy(x), 0.3).numpy()
    mine = dropout_forward(x, 0.3)
    both = (theirs != 0) & (mine != 0)
    assert both.any()
    np.testing.assert_allclose(mine[both], theirs[both], 1e-14)
