"""Random words from a counter: Philox 4x32-7.

A word is a function of its place, the step and the seed, and of no word before it. So
any thread, and a GPU, may compute any share of the words, and all get the same ones.

Seven times over, four words of a counter c and two of a key k are mixed:

    c0, c1, c2, c3 <- high(B*c2) ^ c1 ^ k0, low(B*c2), high(A*c0) ^ c3 ^ k1, low(A*c0)
    k0, k1         <- k0 + 0x9E3779B9, k1 + 0xBB67AE85

where high and low are the halves of a 64-bit product. Seed and step are 64 bits each: the
seed is the key, low half first; the step is c2 and c3; c0 and c1 count.

Words come in blocks of 256. Counter i of a block (0 <= i < 64) gives its four words to
the places i, 64 + i, 128 + i and 192 + i: neighbours in memory are neighbours in count,
and a vector register computes as many at once as it holds.

Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011; checked against the known answers that its authors publish with Random123. Of the
numbers of rounds that pass all tests of TestU01, seven is the smallest.
"""

import numpy as np
from numba import uint64

from course import cuda
from course.compiled import inside, job
from course.device import number
from course.shapes import integer

COUNTERS = 64  # in a block
WORDS = 4 * COUNTERS

A, B = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
NEXT_K0, NEXT_K1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
HALF, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def _rounds(c0, c1, c2, c3, k0, k1):
    """Return the four words, each 32 bits in a 64-bit number, as the products are."""
    for _ in range(7):
        a, b = A * c0, B * c2
        c0, c1 = (b >> HALF) ^ c1 ^ k0, b & LOW
        c2, c3 = (a >> HALF) ^ c3 ^ k1, a & LOW
        k0, k1 = (k0 + NEXT_K0) & LOW, (k1 + NEXT_K1) & LOW
    return c0, c1, c2, c3


_seven_rounds, _seven_rounds_cuda = inside(_rounds), cuda.jit(device=True)(_rounds)


@job(forceinline=True)
def random_words(u, block, seed, step):
    """Fill u, 256 words of 32 bits, with the random words of a block of a step.

    >>> u = np.empty(WORDS, np.uint32)
    >>> random_words(u, 0, 0, 0)
    >>> hex(u[0]), hex(u[64]), hex(u[128]), hex(u[192])
    ('0x5f6fb709', '0xd893f64', '0x4f121f81', '0x4f730a48')
    """
    u0, u1 = u[:COUNTERS], u[COUNTERS : 2 * COUNTERS]
    u2, u3 = u[2 * COUNTERS : 3 * COUNTERS], u[3 * COUNTERS : WORDS]
    begin, seed, step = np.uint64(block * COUNTERS), np.uint64(seed), np.uint64(step)
    low, high = begin & LOW, begin >> HALF  # which a block shares
    for i in range(COUNTERS):
        state = low + np.uint64(i), high, step & LOW, step >> HALF
        u0[i], u1[i], u2[i], u3[i] = _seven_rounds(*state, seed & LOW, seed >> HALF)


@cuda.jit(device=True)
def four_words(count, seed, step):
    """Return the four random words of a counter, for a thread of a kernel.

    Counter `count` is counter count % 64 of block count // 64: see above for their places.
    """
    c, step, seed = uint64(count), uint64(step), uint64(seed)
    return _seven_rounds_cuda(
        c & LOW, c >> HALF, step & LOW, step >> HALF, seed & LOW, seed >> HALF
    )


@cuda.jit(device=True)
def random_word(k, seed, step):
    """Return the random word of place k, for a thread of a kernel."""
    block, place = k // WORDS, k % WORDS
    words = four_words(block * COUNTERS + place % COUNTERS, seed, step)
    return words[place // COUNTERS]


def drawing(p: float, seed: int, step: int) -> tuple[float, int, int]:
    """Return all three, or say in words what is no probability, seed or step.

    >>> drawing(2, 0, 0)
    Traceback (most recent call last):
    ValueError: p must be from 0 to 1, not 2.0
    """
    p = number("p", p)
    if not 0 <= p <= 1:
        raise ValueError(f"p must be from 0 to 1, not {p}")
    for name, value in (("seed", seed), ("step", step)):
        if integer(name, value, 0) >= 1 << 63:
            raise ValueError(f"{name} must be below 2**63, not {value}")
    return p, int(seed), int(step)


def seed_of(rng: np.random.Generator) -> int:
    """Draw a seed from the generator. Raises TypeError for a seed in place of rng.

    >>> seed_of(np.random.default_rng(0)) < 2**63
    True
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is {rng!r}; it must be a generator: np.random.default_rng(0)")
    return int(rng.integers(2**63))
