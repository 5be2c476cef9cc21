"""Dropout on cuda drops what it drops on the CPU, bit for bit: course/philox.py."""

import numpy as np
import pytest

from course import cuda
from course.device import empty, to
from course.layers import Dropout, Dropout2d
from course.layers.dropout import dropout_forward
from course.layers.dropout2d import dropout2d_forward
from course.philox import four_words, random_word
from tests.cuda.every import RUNS, back, every_place, moved, on_cuda
from tests.test_philox import KNOWN, word

PLACES = pytest.mark.parametrize(
    "seed, step", [(0, 0), (12345, 2**35 + 1), (2**63 - 1, 7), (2**32, 2**63 - 1)]
)


@cuda.jit
def _counter_cuda(u, count, seed, step):
    """Write the four words of a counter."""
    if cuda.grid(1) == 0:
        u[0], u[1], u[2], u[3] = four_words(count, seed, step)


@cuda.jit
def _places_cuda(u, start, seed, step):
    """Write the words of the places from `start` on."""
    for k in range(cuda.grid(1), u.size, cuda.gridsize(1)):
        u[k] = random_word(start + k, seed, step)


def same_bits(found, expected):
    """Assert that all bits agree, the sign of zeros and of NaN too."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def words(kernel, count, *place):
    """Return the words that a kernel writes."""
    u = empty(count, np.uint32, like=to("cuda", np.zeros(1)))
    cuda.launch(kernel, count, u, *place)
    return u


@every_place
@KNOWN
def test_published_answers(place, counter, key, answer):
    count, step, seed = (
        np.uint64(low + (high << 32)) for low, high in (counter[:2], counter[2:], key)
    )
    found = on_cuda(place, lambda: words(_counter_cuda, 4, count, seed, step), RUNS[:1])
    assert tuple(found) == answer


@every_place
@PLACES
@pytest.mark.parametrize("start", [0, 256 * (2**26 - 1) + 192, 2**40 + 255])
def test_word_of_a_place(place, seed, step, start):
    found = on_cuda(place, lambda: words(_places_cuda, 130, start, seed, step), RUNS[:1])
    assert found.tolist() == [word(start + k, seed, step) for k in range(130)]


@every_place
@PLACES
@pytest.mark.parametrize(
    "size, dtype",
    [(1, np.float32), (255, np.float64), (257, np.float32), (700, np.float64)],
)
def test_same_numbers_are_dropped(place, seed, step, size, dtype, rng):
    x = rng.normal(size=size).astype(dtype)
    drawn = 0.3, seed, step
    found = on_cuda(place, lambda: dropout_forward(moved(x), *drawn), RUNS[:1])
    same_bits(found, dropout_forward(x, *drawn))


@every_place
@PLACES
@pytest.mark.parametrize(
    "shape, dtype",
    [((2, 3, 5, 7), np.float32), ((1, 70, 1, 2), np.float64), ((3, 1, 6, 0), np.float32)],
)
def test_same_channels_are_dropped(place, seed, step, shape, dtype, rng):
    x = rng.normal(size=shape).astype(dtype)
    drawn = 0.3, seed, step
    found = on_cuda(place, lambda: dropout2d_forward(moved(x), *drawn), RUNS[:1])
    same_bits(found, dropout2d_forward(x, *drawn))


@every_place
@pytest.mark.parametrize("p", [0, 1e-9, 0.5, 1 - 1e-9, 1])
@pytest.mark.parametrize("forward", [dropout_forward, dropout2d_forward])
def test_what_is_dropped_is_zero_whatever_it_was(place, forward, p):
    x = np.full((1, 40, 2, 2), np.nan, np.float32)
    x[:, ::2] = -np.inf
    same_bits(on_cuda(place, lambda: forward(moved(x), p, 3, 4)), forward(x, p, 3, 4))


@every_place
@pytest.mark.parametrize("forward, per", [(dropout_forward, 1), (dropout2d_forward, 6)])
def test_a_word_equal_to_p_is_kept_and_one_below_dropped(place, forward, per):
    x, u = np.ones((1, 9, 2, 3), np.float32), word(54 // per - 1, 3, 4)
    for least, kept in ((u, True), (u + 1, False)):
        drawn = least / 2**32, 3, 4
        y = on_cuda(place, lambda drawn=drawn: forward(moved(x), *drawn), RUNS[:1])
        assert (y[0, 8, 1, 2] > 0) == kept


@every_place
@pytest.mark.parametrize("kind", [Dropout, Dropout2d])
def test_layer_steps_as_on_the_cpu(place, kind, rng):
    x = rng.normal(size=(2, 5, 3, 3)).astype(np.float32)
    dy = rng.normal(size=x.shape).astype(np.float32)

    def run(x, dy):
        layer, answers = kind(0.4, rng=np.random.default_rng(5)), []
        for _ in range(3):
            answers += layer.forward(x), layer.backward(dy)
        layer.eval()
        assert layer.forward(x) is x
        return answers

    found = on_cuda(place, lambda: back(run(moved(x), moved(dy))), RUNS[:1])
    for a, b in zip(found, run(x, dy), strict=True):
        same_bits(a, b)
    assert found[0].tobytes() != found[2].tobytes(), "the next step drops others"
