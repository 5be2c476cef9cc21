"""course/losses/perceptron.py: the definition in NumPy, and the rule of 1958."""

import numpy as np
import pytest

from course.losses import perceptron_loss


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (5, 3), (20, 10), (3, 100)])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-13)])
@pytest.mark.parametrize("levels", [2, 1000])  # many ties, few ties
def test_loss_and_gradient_are_the_definition(shape, dtype, tolerance, levels, rng):
    N, C = shape
    scores = (rng.integers(levels, size=shape) / 8).astype(dtype)
    labels = rng.integers(C, size=N)
    loss, dscores = perceptron_loss(scores, labels)
    gap = scores.max(axis=1) - scores[np.arange(N), labels]
    gradient = (np.eye(C)[scores.argmax(axis=1)] - np.eye(C)[labels]) / N
    assert dscores.dtype == dtype
    np.testing.assert_allclose(loss, np.average(gap.astype(float)), tolerance)
    np.testing.assert_allclose(dscores, gradient, tolerance)


def test_two_classes_are_the_rule_of_rosenblatt(rng):
    """max(0, -y*z): -y for every wrong sign, 0 for every right one."""
    z, y = rng.normal(size=50), rng.choice([-1, 1], 50)
    scores, labels = np.stack([-z / 2, z / 2], axis=1), (y + 1) // 2
    loss, ds = perceptron_loss(scores, labels)
    np.testing.assert_allclose(loss, np.mean(np.where(y * z < 0, -y * z, 0)), 1e-13)
    dz = (ds[:, 1] - ds[:, 0]) / 2
    np.testing.assert_allclose(dz, np.where(y * z < 0, -y, 0) / 50, 1e-13)


def test_first_of_equal_scores_is_the_largest():
    loss, dscores = perceptron_loss(np.zeros((2, 3)), np.array([0, 2]))
    assert loss == 0
    np.testing.assert_array_equal(dscores, [[0, 0, 0], [0.5, 0, -0.5]])


def test_infinite_scores():
    scores = np.array([[np.inf, 0.0]])
    assert perceptron_loss(scores, np.array([1]))[0] == np.inf
    assert perceptron_loss(-scores, np.array([1]))[0] == 0


def test_steps_separate_what_can_be_separated(rng):
    """The perceptron's theorem: a finite number of corrections, then none."""
    x = rng.normal(size=(60, 2))
    x = x[np.abs(x @ [1, -2]) > 0.3]  # a margin, on both sides of a line
    labels = (x @ [1, -2] > 0).astype(int)
    w = np.zeros((2, 2))
    for _ in range(1000):
        loss, ds = perceptron_loss(x @ w.T, labels)
        w -= ds.T @ x
        if not ds.any():
            break
    assert loss == 0
    assert ((x @ w.T).argmax(axis=1) == labels).all()


@pytest.mark.parametrize(
    "labels, error, words",
    [
        ([0, -1], ValueError, "label -1 is not a class; scores has classes 0 to 2"),
        ([0.0, 1.0], TypeError, "class numbers"),
        ([0], ValueError, "labels has shape"),
    ],
)
def test_what_cannot_be_is_refused(labels, error, words):
    with pytest.raises(error, match=words):
        perceptron_loss(np.zeros((2, 3)), np.array(labels))
