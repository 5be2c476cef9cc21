"""course/losses/cross_entropy.py: against the definition, known numbers and PyTorch."""

import numpy as np
import pytest

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


def weighted_oracle(scores, t, weight, e):
    """Equations (4) to (6) in float64, one class of one image after the other.

    t are labels or distributions; the divisor follows PyTorch's documentation.
    """
    N, C = scores.shape
    loss, gradient, divisor = 0.0, np.zeros((N, C)), 0.0
    for n in range(N):
        p = np.exp(scores[n].astype(float)) / np.exp(scores[n].astype(float)).sum()
        divisor += weight[t[n]] if t.ndim == 1 else 1
        for k in range(C):
            share = float(k == t[n]) if t.ndim == 1 else t[n, k]
            target = weight[k] * ((1 - e) * share + e / C)
            loss -= target * np.log(p[k])
            for j in range(C):
                gradient[n, j] += target * (p[j] - float(j == k))
    return loss / divisor, gradient / divisor


def distributions_of(rng, shape, dtype=float):
    """Return random rows that sum to 1, some with a zero."""
    p = rng.random(shape) * (rng.random(shape) > 0.2) + 1e-3
    return (p / p.sum(axis=1, keepdims=True)).astype(dtype)


SETTINGS = pytest.mark.parametrize(
    "weighted, smoothing, soft",
    [
        *((False, 0.2, False), (True, 0.0, False), (True, 0.3, False)),
        *((False, 0.0, True), (False, 1.0, True), (True, 0.1, True)),
    ],
)


@SETTINGS
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 5e-6), (np.float64, 1e-12)])
def test_weights_smoothing_and_distributions(
    weighted, smoothing, soft, dtype, tolerance, rng
):
    scores = rng.normal(size=(7, 4)).astype(dtype)
    weight = np.array([0.5, 2, 0, 1.25], dtype) if weighted else None
    t = distributions_of(rng, (7, 4), dtype) if soft else rng.integers(4, size=7)
    loss, dscores = softmax_cross_entropy(scores, t, weight, smoothing)
    ones = np.ones(4) if weight is None else weight
    expected, gradient = weighted_oracle(scores, t, ones, smoothing)
    assert dscores.dtype == dtype
    np.testing.assert_allclose(loss, expected, tolerance)
    np.testing.assert_allclose(dscores, gradient, 0, tolerance)


@SETTINGS
def test_weights_smoothing_and_distributions_are_those_of_pytorch(
    weighted, smoothing, soft, rng
):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for _ in range(20):
        N, C = (int(n) for n in rng.integers(1, 9, 2))
        scores = 3 * rng.normal(size=(N, C))
        weight = rng.random(C) + 0.1 if weighted else None
        t = distributions_of(rng, (N, C)) if soft else rng.integers(C, size=N)
        loss, dscores = softmax_cross_entropy(scores, t, weight, smoothing)
        leaf = torch.tensor(scores, requires_grad=True)
        theirs = torch.nn.functional.cross_entropy(
            leaf,
            torch.from_numpy(t),
            None if weight is None else torch.from_numpy(weight),
            label_smoothing=smoothing,
        )
        theirs.backward()
        np.testing.assert_allclose(loss, theirs.item(), 1e-12, 1e-14)
        np.testing.assert_allclose(dscores, leaf.grad, 1e-12, 1e-14)


def test_one_hot_distributions_are_labels(rng):
    scores, labels = rng.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    loss, dscores = softmax_cross_entropy(scores, labels)
    soft, dsoft = softmax_cross_entropy(scores, np.eye(3)[labels])
    np.testing.assert_allclose(soft, loss, 1e-14)
    np.testing.assert_allclose(dsoft, dscores, 1e-13, 1e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_impossible_class_costs_nothing_where_it_is_not_wanted(dtype):
    """0 * log 0 is 0, as the limit says; wanted, it costs infinitely much."""
    scores = np.array([[0, -np.inf, 0]], dtype)
    last, middle = np.array([2]), np.array([1])
    one_hot = np.eye(3, dtype=dtype)
    for t in (last, one_hot[last]):
        loss, dscores = softmax_cross_entropy(scores, t)
        np.testing.assert_allclose(loss, np.log(2), 1e-6)
        np.testing.assert_allclose(dscores, [[0.5, 0, -0.5]], 1e-6)
    for t in (middle, one_hot[middle]):
        assert softmax_cross_entropy(scores, t)[0] == np.inf


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
        (np.zeros((2, 3)), np.ones((2, 3)), ValueError, "row 0 of labels sums to 3, not"),
        (np.zeros((2, 3)), np.eye(3), ValueError, "labels has shape .* one row of prob"),
        (np.zeros((2, 2)), [[2.0, -1.0]] * 2, ValueError, "labels holds -1.0; a probabi"),
        (np.zeros((2, 2)), [[np.nan, 1.0]] * 2, ValueError, "labels holds nan; a probab"),
        (np.zeros((0, 2)), np.zeros((0, 2)), ValueError, "empty batch"),
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


@pytest.mark.parametrize(
    "keywords, error, words",
    [
        ({"weight": np.ones(2)}, ValueError, "weight must be 3 numbers that are not neg"),
        ({"weight": np.array([1, -1, 1.0])}, ValueError, "weight must be 3 numbers"),
        ({"weight": np.array([1, np.nan, 1])}, ValueError, "weight must be 3 numbers"),
        ({"weight": np.ones(3, np.float32)}, TypeError, "weight is float32 but the othe"),
        ({"weight": [1, 1, 1]}, TypeError, "weight is a list"),
        ({"weight": np.array([0, 0, 1.0])}, ValueError, "every label .* has the weight 0"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing must be from 0 to 1"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing must be from 0 to 1"),
        ({"label_smoothing": "a"}, TypeError, "label_smoothing must be a number"),
    ],
)
def test_impossible_weights_are_refused(keywords, error, words):
    with pytest.raises(error, match=words):
        softmax_cross_entropy(np.zeros((2, 3)), np.array([0, 1]), **keywords)
