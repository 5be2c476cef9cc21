"""Entropies against SciPy, Huffman's code against every code of small alphabets."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from course.information import cross_entropy, entropy, huffman, kl_divergence


def distributions(count=40):
    rng = np.random.default_rng(3)
    for k in range(count):
        size = k % 12 + 1
        p, q = rng.dirichlet(np.ones(size)), rng.dirichlet(np.ones(size))
        if k % 3 == 0 and size > 1:
            p[0], p[1] = 0.0, p[0] + p[1]
        yield p, q


@pytest.mark.parametrize("base", [2.0, np.e, 10.0])
def test_entropies_agree_with_scipy(base):
    for p, q in distributions():
        H, KL = scipy_entropy(p, base=base), scipy_entropy(p, q, base=base)
        np.testing.assert_allclose(entropy(p, base), H, atol=1e-12)
        np.testing.assert_allclose(kl_divergence(p, q, base), KL, atol=1e-12)
        np.testing.assert_allclose(cross_entropy(p, q, base), H + KL, atol=1e-12)


def test_a_symbol_called_impossible_costs_infinity():
    assert cross_entropy([0.5, 0.5], [1.0, 0.0]) == np.inf
    assert kl_divergence([0.5, 0.5], [1.0, 0.0]) == np.inf
    assert cross_entropy([1.0, 0.0], [1.0, 0.0]) == 0.0


def shortest_average(p):
    """Return the least average length over all word lengths that a prefix code can have.

    Kraft: words of lengths l[i] exist, none beginning another, iff sum 2^-l[i] <= 1.
    """
    lengths = product(range(1, len(p)), repeat=len(p))
    allowed = (np.array(each) for each in lengths if sum(2.0**-k for k in each) <= 1)
    return min(float(p @ each) for each in allowed)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_no_code_is_shorter_than_huffmans(size):
    for p in np.random.default_rng(size).dirichlet(np.ones(size), 4):
        lengths = [len(word) for word in huffman(p)]
        np.testing.assert_allclose(p @ lengths, shortest_average(p), rtol=1e-12)


def test_no_word_begins_another_and_entropy_is_the_limit():
    for p, _ in distributions():
        words = huffman(p)
        for i, one in enumerate(words):
            others = words[:i] + words[i + 1 :]
            assert not any(other.startswith(one) for other in others)
        average = p @ [len(word) for word in words]
        assert scipy_entropy(p, base=2) - 1e-12 <= average
        assert average < scipy_entropy(p, base=2) + 1


@pytest.mark.parametrize(
    "p, words",
    [
        ([0.5, 0.6], "sums to 1.1"),
        ([1.5, -0.5], "-0.5"),
        ([np.nan, 1.0], "nan"),
        ([[0.5, 0.5]], r"\(1, 2\)"),
        ([], r"\(0,\)"),
    ],
)
@pytest.mark.parametrize("function", [entropy, huffman, lambda p: cross_entropy(p, p)])
def test_what_is_no_distribution_is_refused(function, p, words):
    with pytest.raises(ValueError, match=words):
        function(p)


def test_two_distributions_must_have_one_length():
    with pytest.raises(ValueError, match="p has 2 symbols, q has 3"):
        cross_entropy([0.5, 0.5], [0.5, 0.25, 0.25])
