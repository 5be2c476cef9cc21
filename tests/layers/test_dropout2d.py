"""course/layers/dropout2d.py: (1) against the words of Philox, and against probability."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import Dropout2d, dropout2d_backward, dropout2d_forward
from tests.test_philox import word

SHAPES = pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1),
        (2, 3, 4, 5),
        (3, 100, 2, 1),
        (2, 128, 1, 3),
        (0, 3, 2, 2),
        (2, 3, 0, 2),
    ],
    ids=str,
)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def oracle(x, p, seed, step):
    """Equation (1), one channel after the other, sharing no line with the course."""
    y = np.zeros_like(x)
    for place, (n, c) in enumerate(np.ndindex(x.shape[:2])):
        if word(place, seed, step) / 2**32 >= p:
            y[n, c] = x[n, c] / (1 - p)
    return y


@SHAPES
@DTYPES
@pytest.mark.parametrize("p", [0.0, 0.2, 0.5])
def test_forward_drops_what_the_words_say(shape, dtype, p, rng):
    x = rng.normal(size=shape).astype(dtype)
    y = dropout2d_forward(x, p, seed=11, step=3)
    assert y.dtype == dtype
    close = 2e-7 if dtype == np.float32 else 1e-15
    np.testing.assert_allclose(y, oracle(x.astype(float), p, 11, 3), close)


@SHAPES
@DTYPES
def test_backward_drops_the_same(shape, dtype, rng):
    dy = rng.normal(size=shape).astype(dtype)
    dx = dropout2d_backward(dy, 0.3, seed=5, step=8)
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx, dropout2d_forward(dy, 0.3, seed=5, step=8))


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_backward_is_the_slope(p, rng):
    layer = Dropout2d(p, rng=rng)
    check_layer(layer, rng.normal(size=(3, 5, 2, 3)), rng)
    check_layer(layer.eval(), rng.normal(size=(3, 5, 2, 3)), rng)


def test_channels_are_dropped_whole(rng):
    y = dropout2d_forward(1 + rng.random((40, 50, 3, 4)), 0.3, seed=2)
    zeros = (y == 0).sum(axis=(2, 3))
    assert set(np.unique(zeros)) == {0, 12}
    assert abs((zeros == 12).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)


@DTYPES
def test_dropped_is_zero_whatever_it_was(dtype):
    dropped = dropout2d_forward(np.ones((20, 5, 2, 2), dtype)) == 0
    for value in (np.nan, np.inf, -np.inf):
        y = dropout2d_forward(np.full((20, 5, 2, 2), value, dtype))
        np.testing.assert_array_equal(y, np.where(dropped, 0, dtype(value)))


def test_p_of_one_drops_all(rng):
    x = rng.normal(size=(2, 3, 4, 5))
    np.testing.assert_array_equal(dropout2d_forward(x, 1), np.zeros_like(x))


def test_every_forward_is_a_new_step_and_eval_passes_through(rng):
    layer, x = Dropout2d(0.5, rng=rng), rng.normal(size=(8, 10, 2, 2))
    first, second = layer(x), layer(x)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(layer.backward(x), second)
    assert layer.eval()(x) is x
    np.testing.assert_array_equal(layer.backward(x), x)


X = np.ones((2, 3, 4, 5))


@pytest.mark.parametrize(
    "arguments, error, says",
    [
        ((X[0],), ValueError, r"x has shape \(3, 4, 5\); it must be \(N, C, H, W\)"),
        ((X.astype(int),), TypeError, "x has dtype int64"),
        ((X, 1.5), ValueError, "p must be from 0 to 1, not 1.5"),
        ((X, 0.5, -1), ValueError, "seed must be at least 0"),
        ((X, 0.5, 0, 2**63), ValueError, r"step must be below 2\*\*63"),
    ],
)
def test_what_cannot_be_is_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        dropout2d_forward(*arguments)


def test_impossible_layer_is_refused(rng):
    with pytest.raises(ValueError, match="p must be from 0 to 1, not -1"):
        Dropout2d(-1, rng=rng)
    with pytest.raises(TypeError, match="rng is None; it must be a generator"):
        Dropout2d(rng=None)


def test_pytorch_drops_channels_too(rng):
    """PyTorch draws other masks; what it keeps, it scales alike."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = 1 + rng.random((30, 20, 3, 2))
    theirs = torch.nn.functional.dropout2d(torch.from_numpy(x), 0.3).numpy()
    mine = dropout2d_forward(x, 0.3)
    both = (theirs != 0) & (mine != 0)
    assert both.any()
    np.testing.assert_allclose(mine[both], theirs[both], 1e-14)
