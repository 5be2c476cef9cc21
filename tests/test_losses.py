"""course/losses.py: against the definition in NumPy, slopes, and known numbers."""

import numpy as np
import pytest

from course.checks import slope
from course.losses import log_softmax, softmax_cross_entropy


def oracle(scores, labels):
    """The loss from its definition, in float64, sharing no line with the course."""
    scores = scores.astype(np.float64)
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    y = np.eye(scores.shape[1])[labels]
    return -(y * np.log(p)).sum() / len(labels), (p - y) / len(labels)


@pytest.mark.parametrize("shape", [(1, 2), (3, 1), (5, 10), (64, 1000)])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_loss_and_gradient_are_the_definition(shape, dtype, tolerance, rng):
    scores = rng.normal(size=shape).astype(dtype)
    labels = rng.integers(shape[1], size=shape[0])
    loss, dscores = softmax_cross_entropy(scores, labels)
    expected, gradient = oracle(scores, labels)
    assert dscores.dtype == dtype
    np.testing.assert_allclose(loss, expected, tolerance, tolerance)
    np.testing.assert_allclose(dscores, gradient, tolerance, tolerance)


def test_gradient_is_the_slope(rng):
    scores, labels = rng.normal(size=(4, 3)), np.array([0, 2, 1, 1])
    _, dscores = softmax_cross_entropy(scores, labels)
    expected = slope(lambda: softmax_cross_entropy(scores, labels)[0], scores)
    np.testing.assert_allclose(dscores, expected, 1e-7, 1e-9)


def test_known_gradient():
    """t = (2, 1, 0.1), y = e1: the gradient is (-0.341, 0.242, 0.099)."""
    _, dscores = softmax_cross_entropy(np.array([[2.0, 1.0, 0.1]]), np.array([0]))
    np.testing.assert_allclose(dscores[0], [-0.341, 0.242, 0.099], atol=5e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_scores_do_not_overflow(dtype):
    scores = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    loss, dscores = softmax_cross_entropy(scores, np.array([0, 0]))
    assert loss == 1e4  # 0 for the first, 2e4 for the second
    np.testing.assert_array_equal(dscores, [[0, 0], [-0.5, 0.5]])
    np.testing.assert_array_equal(log_softmax(scores), [[0, -2e4], [-2e4, 0]])


def test_nan_shows():
    loss, _ = softmax_cross_entropy(np.array([[np.nan, 1.0, 2.0]]), np.array([1]))
    assert np.isnan(loss)


def test_any_layout_and_label_type(rng):
    scores = np.asfortranarray(rng.normal(size=(6, 4)))
    labels = np.array([0, 9, 1, 9, 2, 9, 3, 9, 0, 9, 1, 9], np.uint8)[::2]
    loss, dscores = softmax_cross_entropy(scores, labels)
    expected, gradient = oracle(scores, labels.astype(int))
    np.testing.assert_allclose(loss, expected)
    np.testing.assert_allclose(dscores, gradient)


@pytest.mark.parametrize(
    "scores, labels, error, words",
    [
        (np.zeros((2, 3), int), [0, 1], TypeError, "scores has dtype int64"),
        (np.zeros(3), [0, 1], ValueError, r"it must be \(N, C\)"),
        (np.zeros((2, 3)), [0.0, 1.0], TypeError, "class numbers"),
        (np.zeros((2, 3)), [0], ValueError, "one class number for each row"),
        (np.zeros((2, 3)), [[1, 0, 0], [0, 1, 0]], ValueError, "one class number"),
        (np.zeros((2, 3)), [0, 3], ValueError, "label 3 is not a class"),
        (np.zeros((2, 3)), [-1, 0], ValueError, "label -1 is not a class"),
        (np.zeros((0, 3)), np.zeros(0, int), ValueError, "empty batch"),
    ],
)
def test_what_cannot_be_is_refused(scores, labels, error, words):
    with pytest.raises(error, match=words):
        softmax_cross_entropy(scores, np.array(labels))
