"""course/losses/mean_squared_error.py: the definition in NumPy, and PyTorch."""

import numpy as np
import pytest

from course.losses import mean_squared_error

SHAPES = pytest.mark.parametrize(
    "shape", [(1,), (7,), (5, 1), (4, 3), (2, 3, 4, 5)], ids=str
)


@SHAPES
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_loss_and_gradient_are_the_definition(shape, dtype, tolerance, rng):
    y, t = rng.normal(size=(2, *shape)).astype(dtype)
    loss, dy = mean_squared_error(y, t)
    gap = y.astype(float) - t.astype(float)
    assert dy.dtype == dtype
    np.testing.assert_allclose(loss, np.average(gap**2), tolerance)
    np.testing.assert_allclose(dy, 2 * gap / gap.size, tolerance, tolerance)


def test_known_numbers():
    """Gaps 1, -2 and 0: (1 + 4 + 0)/3."""
    loss, dy = mean_squared_error(np.array([2.0, 1.0, 5.0]), np.array([1.0, 3.0, 5.0]))
    np.testing.assert_allclose(loss, 5 / 3)
    np.testing.assert_allclose(dy, [2 / 3, -4 / 3, 0])


@SHAPES
def test_pytorch_agrees(shape, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    y, t = rng.normal(size=(2, *shape))
    leaf = torch.tensor(y, requires_grad=True)
    theirs = torch.nn.functional.mse_loss(leaf, torch.tensor(t))
    theirs.backward()
    loss, dy = mean_squared_error(y, t)
    np.testing.assert_allclose(loss, theirs.item(), 1e-13)
    np.testing.assert_allclose(dy, leaf.grad, 1e-13)


def test_infinity_shows():
    loss, _ = mean_squared_error(np.array([np.inf, 0.0]), np.zeros(2))
    assert loss == np.inf


@pytest.mark.parametrize(
    "y, t, error, words",
    [
        (
            np.zeros((2, 3)),
            np.zeros((3, 2)),
            ValueError,
            r"t has shape \(3, 2\); the shape",
        ),
        (np.zeros((2, 1)), np.zeros(2), ValueError, r"t has shape \(2,\); the shape of y"),
        (np.zeros(2), np.zeros(2, int), TypeError, "t has dtype int64"),
        (np.zeros(2), np.zeros(2, np.float32), TypeError, "t is float32 but the other"),
        (np.zeros(()), np.zeros(()), ValueError, r"y has shape \(\)"),
    ],
)
def test_what_cannot_be_is_refused(y, t, error, words):
    with pytest.raises(error, match=words):
        mean_squared_error(y, t)
