"""course/losses/hinge.py: the definition, the numbers of CS231n, and PyTorch."""

import numpy as np
import pytest

from course.checks import slope
from course.losses import multiclass_hinge


def oracle(scores, labels, margin):
    """Equations (1) and (2), one class of one image after the other."""
    N, C = scores.shape
    loss, gradient = 0.0, np.zeros((N, C))
    for n in range(N):
        for k in set(range(C)) - {int(labels[n])}:
            above = float(scores[n, k]) - float(scores[n, labels[n]]) + margin
            if above > 0:
                loss += above / N
                gradient[n, k] += 1 / N
                gradient[n, labels[n]] -= 1 / N
    return loss, gradient


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (5, 3), (20, 10), (3, 100)])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("margin", [0, 0.3, 1.0, 5])
def test_loss_and_gradient_are_the_definition(shape, dtype, tolerance, margin, rng):
    scores = rng.normal(size=shape).astype(dtype)
    labels = rng.integers(shape[1], size=shape[0])
    loss, dscores = multiclass_hinge(scores, labels, margin)
    expected, gradient = oracle(scores, labels, margin)
    assert dscores.dtype == dtype
    np.testing.assert_allclose(loss, expected, tolerance, 1e-12)
    np.testing.assert_allclose(dscores, gradient, tolerance, 1e-15)


def test_cat_car_and_frog():
    """The losses of CS231n's three images are 2.9, 0 and 12.9: 5.27 in the mean."""
    scores = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    losses = [multiclass_hinge(scores[[n]], np.array([n]))[0] for n in range(3)]
    np.testing.assert_allclose(losses, [2.9, 0, 12.9], atol=1e-12)
    assert round(multiclass_hinge(scores, np.arange(3))[0], 2) == 5.27


def test_first_loss_is_the_number_of_wrong_classes():
    assert multiclass_hinge(np.zeros((4, 10)), np.arange(4))[0] == 9


def test_at_the_margin_nothing_is_due():
    loss, dscores = multiclass_hinge(np.array([[1.0, 0.0]]), np.array([0]))
    assert loss == 0
    np.testing.assert_array_equal(dscores, [[0, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_scores_keep_the_small_loss(dtype):
    """The right class is not counted and taken away again: 0.25 would be lost in 1e8."""
    scores = np.array([[1e8, 0.0, -1e8]], dtype)
    assert multiclass_hinge(scores, np.array([0]))[0] == 0
    scores = np.array([[2.0, 1.0 + 2**-20]], dtype)
    assert multiclass_hinge(scores, np.array([0]))[0] == 2**-20


def test_gradient_is_the_slope_for_other_margins(rng):
    scores, labels = rng.normal(size=(4, 5)), np.array([0, 4, 2, 2])
    for margin in (0.1, 2.0):
        _, ds = multiclass_hinge(scores, labels, margin)
        expected = slope(
            lambda margin=margin: multiclass_hinge(scores, labels, margin)[0], scores
        )
        np.testing.assert_allclose(ds, expected, 1e-7, 1e-9)


def test_pytorch_divides_by_the_classes_besides(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    scores, labels = rng.normal(size=(9, 7)), rng.integers(7, size=9)
    leaf = torch.tensor(scores, requires_grad=True)
    theirs = torch.nn.functional.multi_margin_loss(leaf, torch.from_numpy(labels))
    theirs.backward()
    loss, dscores = multiclass_hinge(scores, labels)
    np.testing.assert_allclose(loss / 7, theirs.item(), 1e-13)
    np.testing.assert_allclose(dscores / 7, leaf.grad, 1e-13)


@pytest.mark.parametrize(
    "labels, margin, error, words",
    [
        ([0, 3], 1.0, ValueError, "label 3 is not a class; scores has classes 0 to 2"),
        ([0.0, 1.0], 1.0, TypeError, "class numbers"),
        ([0, 1], -1.0, ValueError, "margin must not be negative, it is -1.0"),
        ([0, 1], np.inf, ValueError, "margin must be finite"),
        ([0, 1], "1", TypeError, "margin must be a number"),
    ],
)
def test_what_cannot_be_is_refused(labels, margin, error, words):
    with pytest.raises(error, match=words):
        multiclass_hinge(np.zeros((2, 3)), np.array(labels), margin)
