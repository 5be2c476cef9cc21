from fractions import Fraction

import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_digits

from course.data import load
from course.data.digits import enlarged


@pytest.fixture(scope="module")
def raw():
    return load_digits()


def test_size_8_is_the_original_divided_by_16(raw):
    data = load("digits", size=8)
    fifth = np.zeros(len(raw.target), bool)
    seen = [0] * 10
    for n, c in enumerate(raw.target):
        seen[c] += 1
        fifth[n] = seen[c] % 5 == 0
    for x, t, part in (
        (data.x_test, data.t_test, fifth),
        (data.x_train, data.t_train, ~fifth),
    ):
        np.testing.assert_array_equal(x[:, 0] * 16, raw.images[part])
        np.testing.assert_array_equal(t, raw.target[part])


def test_the_split_is_the_same_for_both_sizes(raw):
    small, large = load("digits", size=8), load("digits")
    np.testing.assert_array_equal(small.t_test, large.t_test)
    np.testing.assert_array_equal(small.t_train, large.t_train)
    back = np.rint(small.x_test[:, 0] * 16).astype(int)
    np.testing.assert_array_equal(enlarged(back), large.x_test)


def test_a_fifth_of_each_class_is_for_testing():
    data = load("digits")
    train, test = np.bincount(data.t_train), np.bincount(data.t_test)
    np.testing.assert_array_equal(test, (train + test) // 5)
    assert (train + test).sum() == 1797


def test_enlarging_is_bilinear_as_scipy_computes_it(raw):
    x = enlarged(raw.images.astype(int))
    where = (np.arange(20) + 0.5) * 8 / 20 - 0.5
    grid = np.meshgrid(where, where, indexing="ij")
    for n in (0, 1, 1000, 1796):
        expected = ndimage.map_coordinates(raw.images[n], grid, order=1, mode="nearest")
        np.testing.assert_allclose(x[n, 0, 4:24, 4:24], expected / 16, atol=1e-7)


def test_the_frame_is_four_empty_pixels_wide(raw):
    x = enlarged(raw.images.astype(int))
    frame = np.ones((28, 28), bool)
    frame[4:24, 4:24] = False
    assert not x[:, 0, frame].any()


def test_every_bit_is_that_of_exact_fractions(raw):
    image = raw.images[7].astype(int)
    x = enlarged(image[None])[0, 0]
    for p in range(20):
        for q in range(20):
            exact = sum(
                weight_i * weight_j * int(image[i, j])
                for i, weight_i in _weights(p)
                for j, weight_j in _weights(q)
            )
            # a fraction is rounded once, from more digits than float32 has
            assert x[p + 4, q + 4] == np.float32(float(exact / 16))


def _weights(p):
    """The two neighbours of an output pixel, and how near it is to each."""
    s = min(max(Fraction(2 * p + 1, 5) - Fraction(1, 2), Fraction(0)), Fraction(7))
    i = min(int(s), 6)
    return (i, 1 - (s - i)), (i + 1, s - i)


def test_another_size_is_refused():
    with pytest.raises(ValueError, match="size 8 or 28, not 32"):
        load("digits", size=32)
