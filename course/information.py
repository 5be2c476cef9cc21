"""Information: entropy, cross-entropy, divergence, and a code that comes close to them.

Equations

    (1)  H(p)      = - sum over i of p[i] * log p[i]
    (2)  H(p, q)   = - sum over i of p[i] * log q[i]
    (3)  KL(p, q)  =   sum over i of p[i] * log(p[i] / q[i])  =  H(p, q) - H(p)

    with 0 * log 0 = 0. Base 2 counts bits, base e counts nats: 1 nat = 1/ln 2 bits.

Shapes

    p, q    (C,)   probabilities of C symbols: not negative, sum 1

Edges: a symbol that occurs (p > 0) but that q calls impossible (q = 0) costs infinity.

Lecture: lectures/03_scores_to_loss.ipynb.  Symbols: GLOSSARY.md.
Source: Shannon, Bell System Technical Journal 27 (1948); Kullback & Leibler, Annals of
Mathematical Statistics 22 (1951); Huffman, Proc. IRE 40 (1952).
"""

import heapq
from math import log

import numpy as np
from numpy.typing import ArrayLike


def _probabilities(name: str, p: ArrayLike) -> np.ndarray:
    """Return p as a float64 vector, or say in words why it is no distribution."""
    p = np.asarray(p, np.float64)
    if p.ndim != 1 or p.size == 0:
        raise ValueError(f"{name} has shape {p.shape}; it must be (C,) with C >= 1")
    if not (p >= 0).all():
        raise ValueError(f"{name} has an entry {p[~(p >= 0)][0]}; probabilities are >= 0")
    if abs(p.sum() - 1) > 1e-6:
        raise ValueError(f"{name} sums to {p.sum()}, not 1: divide it by its sum")
    return p


def cross_entropy(p: ArrayLike, q: ArrayLike, base: float = 2.0) -> float:
    """Return H(p, q) of equation (2): the average cost of a code made for q, fed by p.

    Raises ValueError if p or q is no distribution or they differ in length.

    >>> cross_entropy([0.5, 0.25, 0.25], [0.25, 0.25, 0.5])
    1.75
    """
    p, q = _probabilities("p", p), _probabilities("q", q)
    if p.shape != q.shape:
        raise ValueError(f"p has {len(p)} symbols, q has {len(q)}: they must agree")
    occurs = p > 0
    with np.errstate(divide="ignore"):  # log 0 = -inf: the cost is infinite
        cost = -np.log(q[occurs]) / log(base)
    return float(p[occurs] @ cost) + 0.0


def entropy(p: ArrayLike, base: float = 2.0) -> float:
    """Return H(p) of equation (1): no code can cost less on average.

    Raises ValueError if p is no distribution.

    >>> entropy([0.5, 0.25, 0.25])
    1.5
    """
    return cross_entropy(p, p, base)


def kl_divergence(p: ArrayLike, q: ArrayLike, base: float = 2.0) -> float:
    """Return KL(p, q) of equation (3): what believing q costs when p is true.

    Raises as cross_entropy does.

    >>> kl_divergence([1.0, 0.0], [0.25, 0.75])
    2.0
    """
    return cross_entropy(p, q, base) - entropy(p, base)


def huffman(p: ArrayLike) -> list[str]:
    """Return a code word for each symbol: no code has a smaller average length.

    No word begins another, so that a stream of words can be read without gaps. The two
    rarest symbols differ in their last digit only; join them and ask again. Raises
    ValueError if p is no distribution.

    >>> huffman([0.5, 0.25, 0.25])
    ['0', '10', '11']
    """
    p = _probabilities("p", p)
    words = [""] * len(p)
    groups = [(share, i, [i]) for i, share in enumerate(p.tolist())]
    heapq.heapify(groups)
    for joined in range(len(p), 2 * len(p) - 1):  # this number settles ties
        share_0, _, group_0 = heapq.heappop(groups)
        share_1, _, group_1 = heapq.heappop(groups)
        for i in group_0:
            words[i] = "0" + words[i]
        for i in group_1:
            words[i] = "1" + words[i]
        heapq.heappush(groups, (share_0 + share_1, joined, group_0 + group_1))
    return words
