"""course/losses/kl_divergence.py: the definition, other formulas for it, and PyTorch."""

import numpy as np
import pytest

from course.information import entropy
from course.losses import kl_divergence, log_softmax, softmax_cross_entropy


def rows(rng, shape, dtype=float):
    """Return random distributions, some with a zero."""
    p = rng.random(shape) * (rng.random(shape) > 0.2)
    p[:, 0] += 0.01
    return (p / p.sum(axis=1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (5, 3), (20, 10), (3, 100)])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_loss_and_gradient_are_the_definition(shape, dtype, tolerance, rng):
    logq, p = np.log(rng.random(shape) + 0.01).astype(dtype), rows(rng, shape, dtype)
    loss, dlogq = kl_divergence(logq, p)
    wide, q = p.astype(float), np.exp(logq.astype(float))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(wide > 0, wide * np.log(wide / q), 0)
    assert dlogq.dtype == dtype
    np.testing.assert_allclose(loss, terms.sum() / len(p), tolerance, tolerance)
    np.testing.assert_allclose(dlogq, -wide / len(p), tolerance)


def test_it_is_cross_entropy_less_entropy(rng):
    scores, p = rng.normal(size=(6, 4)), rows(rng, (6, 4))
    loss, _ = kl_divergence(log_softmax(scores), p)
    surprise, _ = softmax_cross_entropy(scores, p)
    own = np.mean([entropy(row, np.e) for row in p])
    np.testing.assert_allclose(loss, surprise - own, 1e-12)


def test_nothing_is_lost_by_assuming_the_truth(rng):
    scores = rng.normal(size=(6, 4))
    logq = log_softmax(scores)
    np.testing.assert_allclose(kl_divergence(logq, np.exp(logq))[0], 0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeros(dtype):
    """0 * log 0 is 0, as the limit says; where q alone is 0 the loss is infinite."""
    logq = np.array([[0, -np.inf]], dtype)
    loss, dlogq = kl_divergence(logq, np.array([[1, 0]], dtype))
    assert loss == 0
    np.testing.assert_array_equal(dlogq, [[-1, 0]])
    assert kl_divergence(logq, np.array([[0.5, 0.5]], dtype))[0] == np.inf


def test_pytorch_agrees(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for _ in range(20):
        shape = tuple(int(n) for n in rng.integers(1, 9, 2))
        logq, p = log_softmax(rng.normal(size=shape)), rows(rng, shape)
        leaf = torch.tensor(logq, requires_grad=True)
        theirs = torch.nn.functional.kl_div(leaf, torch.tensor(p), reduction="batchmean")
        theirs.backward()
        loss, dlogq = kl_divergence(logq, p)
        np.testing.assert_allclose(loss, theirs.item(), 1e-12, 1e-14)
        np.testing.assert_allclose(dlogq, leaf.grad, 1e-13)


Q = np.log(np.full((2, 2), 0.5))


@pytest.mark.parametrize(
    "logq, p, error, words",
    [
        (Q, np.ones((2, 2)), ValueError, "row 0 of p sums to 2, not to 1"),
        (Q, np.array([[2.0, -1.0]] * 2), ValueError, "p holds -1.0; a probability is not"),
        (Q, np.eye(2)[:1], ValueError, "p has shape"),
        (Q, np.eye(2, dtype=np.float32), TypeError, "p is float32 but the other arrays"),
        (Q[0], np.eye(2), ValueError, r"logq has shape \(2,\); it must be \(N, C\)"),
    ],
)
def test_what_cannot_be_is_refused(logq, p, error, words):
    with pytest.raises(error, match=words):
        kl_divergence(logq, p)
