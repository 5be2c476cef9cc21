"""course/losses/binary_cross_entropy.py: the definition in NumPy, and PyTorch."""

import numpy as np
import pytest

from course.losses import binary_cross_entropy_with_logits, softmax_cross_entropy


def oracle(z, t, pos_weight=1.0):
    """The loss from its definition, in float64, sharing no line with the course."""
    z, t = z.astype(np.float64), np.asarray(t, np.float64)
    p = 1 / (1 + np.exp(-z))
    loss = -(pos_weight * t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    return loss, ((1 - t) * p - pos_weight * t * (1 - p)) / z.size


SHAPES = pytest.mark.parametrize(
    "shape", [(1,), (7,), (5, 1), (4, 3), (2, 3, 4, 5)], ids=str
)


@SHAPES
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("pos_weight", [None, 0.0, 3.0])
def test_loss_and_gradient_are_the_definition(shape, dtype, tolerance, pos_weight, rng):
    z = 3 * rng.normal(size=shape).astype(dtype)
    for t in (rng.integers(2, size=shape), rng.random(shape), rng.random(shape) < 0.5):
        t = t if t.dtype != float else t.astype(dtype)
        loss, dz = binary_cross_entropy_with_logits(z, t, pos_weight)
        expected, gradient = oracle(z, t, 1.0 if pos_weight is None else pos_weight)
        assert dz.dtype == dtype
        np.testing.assert_allclose(loss, expected, tolerance, 1e-15)
        np.testing.assert_allclose(dz, gradient, 0, tolerance * np.abs(gradient).max())


def test_gradient_is_p_minus_y_over_n(rng):
    z, t = rng.normal(size=6), rng.integers(2, size=6)
    _, dz = binary_cross_entropy_with_logits(z, t)
    np.testing.assert_allclose(dz, (1 / (1 + np.exp(-z)) - t) / 6, 1e-13)


def test_two_classes_of_which_one_scores_zero(rng):
    """The softmax of (0, z) gives sigmoid(z) to the second class."""
    z, t = rng.normal(size=8), rng.integers(2, size=8)
    loss, dz = binary_cross_entropy_with_logits(z, t)
    expected, ds = softmax_cross_entropy(np.stack([np.zeros(8), z], axis=1), t)
    np.testing.assert_allclose(loss, expected, 1e-13)
    np.testing.assert_allclose(dz, ds[:, 1], 1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_scores_keep_their_loss(dtype):
    z = np.array([1e4, -1e4, 1e4, -1e4], dtype)
    loss, dz = binary_cross_entropy_with_logits(z, np.array([1, 0, 0, 1]))
    assert loss == 5000  # 0, 0, 1e4 and 1e4
    np.testing.assert_array_equal(dz, [0, 0, 0.25, -0.25])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sure_and_right_keeps_its_small_gradient(dtype):
    """1 - sigmoid(20) would be 0 in float32, and has seven digits less in float64."""
    loss, dz = binary_cross_entropy_with_logits(np.array([20.0], dtype), np.array([1]))
    np.testing.assert_allclose(loss, np.exp(-20.0), 1e-6)
    np.testing.assert_allclose(dz, -np.exp(-20.0), 1e-6)


def test_infinite_scores():
    """What has no weight counts nothing; what has, counts infinitely much."""
    z = np.array([np.inf, -np.inf])
    assert binary_cross_entropy_with_logits(z, np.array([1, 0]))[0] == 0
    assert binary_cross_entropy_with_logits(z, np.array([0, 0]))[0] == np.inf
    assert binary_cross_entropy_with_logits(z, np.array([1, 1]))[0] == np.inf


@pytest.mark.parametrize(
    "shape, fits", [((5,), ()), ((6, 4), (4,)), ((3, 2, 4, 5), (2, 1, 1))]
)
def test_pytorch_agrees(shape, fits, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for _ in range(20):
        z, t, w = 5 * rng.normal(size=shape), rng.random(shape), 3 * rng.random(fits)
        leaf = torch.tensor(z, requires_grad=True)
        theirs = torch.nn.functional.binary_cross_entropy_with_logits(
            leaf, torch.tensor(t), pos_weight=torch.tensor(w)
        )
        theirs.backward()
        loss, dz = binary_cross_entropy_with_logits(z, t, w)
        np.testing.assert_allclose(loss, theirs.item(), 1e-12)
        np.testing.assert_allclose(dz, leaf.grad, 1e-12, 1e-15)


Z, T = np.zeros((2, 3)), np.zeros((2, 3))


@pytest.mark.parametrize(
    "z, t, pos_weight, error, words",
    [
        (Z, T[0], None, ValueError, r"t has shape \(3,\); the shape of z is \(2, 3\)"),
        (Z, T + 2, None, ValueError, "t holds 2.0 to 2.0; probabilities are from 0 to 1"),
        (Z, T - 1, None, ValueError, "t holds -1.0 to -1.0"),
        (Z, T * np.nan, None, ValueError, "t holds nan to nan"),
        (Z, T.astype(complex), None, TypeError, "t has dtype complex128"),
        (Z, T, -1.0, ValueError, "pos_weight must not be negative, it is -1.0"),
        (Z, T, np.inf, ValueError, "pos_weight must not be negative"),
        (Z, T, np.ones(2), ValueError, r"pos_weight has shape \(2,\); that does not fit"),
        (np.zeros(()), np.zeros(()), None, ValueError, r"z has shape \(\)"),
    ],
)
def test_what_cannot_be_is_refused(z, t, pos_weight, error, words):
    with pytest.raises(error, match=words):
        binary_cross_entropy_with_logits(z, t, pos_weight)
