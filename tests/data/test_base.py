import numpy as np
import pytest

from course.data import moments, normalize


@pytest.fixture
def x(rng):
    return rng.random((2500, 3, 4, 5), np.float32) * np.float32([[[1]], [[2]], [[9]]])


def test_moments_are_those_of_numpy_channel_by_channel(x):
    mean, std = moments(x)
    assert mean.dtype == std.dtype == np.float64
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, x.std(axis=(0, 2, 3), dtype=np.float64), rtol=1e-10)


def test_moments_of_one_colour_are_that_colour_and_0():
    mean, std = moments(np.full((3, 2, 4, 4), 0.1, np.float32))
    np.testing.assert_allclose(mean, np.float32(0.1))
    np.testing.assert_allclose(std, 0, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalized_images_have_mean_0_and_deviation_1(x, dtype):
    x = x.astype(dtype)
    before = x.copy()
    y = normalize(x, *moments(x))
    assert y.dtype == dtype
    np.testing.assert_array_equal(x, before)
    for axis in range(3):
        assert y[:, axis].mean() == pytest.approx(0, abs=1e-4)
        assert y[:, axis].std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(normalize(x, 0.5, 2), (x - dtype(0.5)) / dtype(2))


def test_in_place_gives_the_same_bits_and_no_second_array(x):
    mean, std = moments(x)
    y = normalize(x, mean, std)
    assert normalize(x, mean, std, out=x) is x
    np.testing.assert_array_equal(x, y)


X = np.ones((2, 3, 4, 5))


@pytest.mark.parametrize(
    "call, error, says",
    [
        (lambda: moments(X[0]), ValueError, r"x has shape \(3, 4, 5\); it must be \(N, C"),
        (lambda: moments(X[:0]), ValueError, r"\(0, 3, 4, 5\); .* with pixels"),
        (
            lambda: normalize(X.astype(int), 0, 1),
            TypeError,
            "x has dtype int64; it must be",
        ),
        (lambda: normalize(X[0], 0, 1), ValueError, r"x has shape \(3, 4, 5\)"),
        (
            lambda: normalize(X, [1, 2], 1),
            ValueError,
            r"mean has shape \(2,\); .* 3 channel",
        ),
        (lambda: normalize(X, 0, [1, 0, 1]), ValueError, r"std is \[1, 0, 1\]; .* above 0"),
        (lambda: normalize(X, 0, np.nan), ValueError, "std is nan"),
    ],
)
def test_what_cannot_be_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()
