"""course/philox.py: the published answers, and the paper's rounds on Python's integers."""

import numpy as np
import pytest

from course.philox import WORDS, random_words


def philox(counter, key):
    """Philox 4x32-7 as in the paper's section 4.3, sharing no line with the course."""
    left, right = (counter[2], counter[3]), (counter[0], counter[1])
    k = list(key)
    for _ in range(7):
        high0, low0 = divmod(0xD2511F53 * right[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * left[0], 2**32)
        right, left = (
            (high1 ^ right[1] ^ k[0], low1),
            (high0 ^ left[1] ^ k[1], low0),
        )
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return *right, *left


def word(place, seed, step):
    """Return the random word of a place: which counter, which of its four words."""
    block, inside = divmod(place, 256)
    lane, i = divmod(inside, 64)
    count = 64 * block + i
    halves = [half for n in (count, step, seed) for half in (n % 2**32, n >> 32)]
    return philox(halves[:4], halves[4:])[lane]


KNOWN = pytest.mark.parametrize(
    "counter, key, answer",
    [  # the file kat_vectors of Random123, lines "philox4x32 7"
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48),
        ),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A),
        ),
    ],
)


@KNOWN
def test_published_answers(counter, key, answer):
    assert philox(counter, key) == answer
    count, step, seed = (
        (low + (high << 32) + 2**63) % 2**64 - 2**63  # 64 bits as a signed number
        for low, high in (counter[:2], counter[2:], key)
    )
    u = np.empty(WORDS, np.uint32)
    random_words(u, count // 64, seed, step)
    assert tuple(u[count % 64 :: 64]) == answer


@pytest.mark.parametrize("block", [0, 1, 77, 2**26 - 1, 2**26, 2**40])
@pytest.mark.parametrize("seed, step", [(0, 0), (2**63 - 1, 5), (12345, 2**35 + 1)])
def test_every_word_of_a_block(block, seed, step):
    u = np.empty(WORDS, np.uint32)
    random_words(u, block, seed, step)
    assert u.tolist() == [word(256 * block + k, seed, step) for k in range(256)]
