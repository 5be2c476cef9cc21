"""Augmentation against NumPy: flips, shifts, crops, colours, and what is drawn for them."""

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.data import normalize
from course.device import get_threads, set_threads
from course.vision.augmentation import (
    Augment,
    Color,
    Crop,
    Flip,
    Normalize,
    Shift,
    color_images,
    crop_images,
    flip_images,
    shift_images,
)

ALL = Flip(), Shift((1, 3)), Crop((5, 9), padding=2), Color(0.5, 0.5, 0.5)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture
def x(rng):
    return rng.random((6, 3, 7, 11))


# --- the functions, against NumPy -------------------------------------------------------


@DTYPES
def test_a_flipped_image_is_read_from_the_right(x, dtype):
    x = x.astype(dtype)
    y = flip_images(x, np.array([1, 0, 0, 1, 1, 0], bool))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y[[0, 3, 4]], x[[0, 3, 4], :, :, ::-1])
    np.testing.assert_array_equal(y[[1, 2, 5]], x[[1, 2, 5]])


def rolled(image, down, across):
    """The image shifted by np.roll, what came round set to 0."""
    y = np.roll(image, (down, across), axis=(1, 2))
    H, W = image.shape[1:]
    y[:, : max(0, down)] = 0
    y[:, max(0, H + down) :] = 0
    y[:, :, : max(0, across)] = 0
    y[:, :, max(0, W + across) :] = 0
    return y


sizes = st.integers(0, 9)
far = st.integers(-12, 12)


@settings(deadline=None)
@given(st.data(), st.integers(0, 3), st.integers(1, 4), sizes, sizes)
def test_shifts_and_crops_are_numpys_for_images_of_any_size(data, N, C, H, W):
    x = np.random.default_rng(H * W).random((N, C, H, W)) + 1
    before = x.copy()
    first, second = (np.array([data.draw(far) for _ in range(N)], int) for _ in range(2))
    shifted = shift_images(x, first, second)
    size = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    cropped = crop_images(x, first, second, size)
    assert shifted.shape == x.shape and cropped.shape == (N, C, *size)
    framed = np.pad(x, ((0, 0), (0, 0), (12, 24), (12, 24)))
    for n in range(N):
        np.testing.assert_array_equal(shifted[n], rolled(x[n], first[n], second[n]))
        rows = slice(12 + first[n], 12 + first[n] + size[0])
        columns = slice(12 + second[n], 12 + second[n] + size[1])
        np.testing.assert_array_equal(cropped[n], framed[n][:, rows, columns])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("far", [2**62, -(2**62), 2**63 - 1, -(2**63) + 1])
def test_an_absurd_shift_leaves_an_empty_image(x, far):
    still, gone = np.zeros(6, int), np.full(6, far)
    assert not shift_images(x, gone, still).any()
    assert not crop_images(x, still, gone, 3).any()


def test_pixels_are_copied_even_those_that_are_no_number():
    x = np.full((1, 1, 2, 2), np.nan)
    y = shift_images(x, np.array([1]), np.array([0]))
    np.testing.assert_array_equal(y[0, 0], [[0, 0], [np.nan, np.nan]])


def colored(x, brightness, contrast, saturation):
    """The definition of torchvision's adjust functions, one after the other."""
    shares = np.array([0.299, 0.587, 0.114])[:, None, None]
    x = np.clip(x * brightness, 0, 1)
    mean = (x * shares).sum(axis=0).mean()
    x = np.clip(contrast * x + (1 - contrast) * mean, 0, 1)
    return np.clip(saturation * x + (1 - saturation) * (x * shares).sum(axis=0), 0, 1)


@pytest.mark.parametrize("dtype, close", [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_colours_are_as_defined(x, rng, dtype, close):
    factors = rng.uniform(0, 2, (3, 6))
    y = color_images(x.astype(dtype), *factors)
    assert y.dtype == dtype
    for n in range(6):
        np.testing.assert_allclose(y[n], colored(x[n], *factors[:, n]), atol=close)


def test_factors_of_1_leave_colours_as_they_are(x):
    one = np.ones(6)
    np.testing.assert_allclose(color_images(x, one, one, one), x, atol=1e-15)


def test_saturation_keeps_the_hue(x):
    one, grey = np.ones(6), x * 0.4 + 0.3  # far from 0 and 1: nothing is cut
    y = color_images(grey, one, one, 0.5 * one)
    for place in ((0, 0, 0), (3, 6, 10), (5, 2, 4)):
        n, p, q = place
        before, after = (colorsys.rgb_to_hls(*a[n, :, p, q]) for a in (grey, y))
        assert after[0] == pytest.approx(before[0], abs=1e-9)
        assert after[2] < before[2]


def test_grey_images_have_no_saturation(x, rng):
    grey, factors = x[:, :1], rng.uniform(0.5, 1.5, (3, 6))
    y = color_images(grey, *factors)
    np.testing.assert_allclose(y, color_images(grey, *factors[:2], np.ones(6)), atol=1e-15)
    mean = np.clip(grey * factors[0].reshape(-1, 1, 1, 1), 0, 1).mean(axis=(2, 3))
    np.testing.assert_allclose(color_images(grey, factors[0], np.zeros(6), factors[2])
                               .mean(axis=(2, 3)), mean, atol=1e-12)  # fmt: skip


# --- the steps --------------------------------------------------------------------------


@pytest.mark.parametrize("step", [*ALL, Augment(*ALL)], ids=lambda s: type(s).__name__)
@DTYPES
def test_a_step_gives_new_images_of_the_same_kind_and_leaves_the_old(x, step, dtype):
    x = x.astype(dtype)
    before = x.copy()
    y = step(x, np.random.default_rng(1))
    assert y.dtype == dtype and y.flags.c_contiguous and not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, before)
    again = step(x, np.random.default_rng(1))
    assert again.tobytes() == y.tobytes()
    assert step(x, np.random.default_rng(2)).tobytes() != y.tobytes()


def test_threads_do_not_change_a_bit():
    x = np.random.default_rng(0).random((40, 3, 50, 50), np.float32)
    before, results = get_threads(), set()
    try:
        for count in (1, 2, 3):
            set_threads(count)
            results.add(Augment(*ALL[:2], ALL[3])(x, np.random.default_rng(5)).tobytes())
    finally:
        set_threads(before)
    assert len(results) == 1


@pytest.mark.parametrize("p", [0, 0.25, 1])
def test_so_many_images_are_flipped(p):
    x = np.zeros((4000, 1, 1, 2))
    x[..., 1] = 1
    share = Flip(p)(x, np.random.default_rng(0))[:, 0, 0, 0].mean()
    assert share == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 4000))


def test_shifts_reach_each_place_within_two_pixels_equally_often():
    x = np.zeros((5000, 1, 5, 5))
    x[:, :, 2, 2] = 1
    counts = Shift(2)(x, np.random.default_rng(0)).sum(axis=(0, 1))
    assert counts.sum() == 5000
    assert (np.abs(counts - 200) < 4.5 * np.sqrt(200)).all()


def test_crops_begin_anywhere_in_the_frame_equally_often():
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3).repeat(4900, axis=0)
    y = Crop(2, padding=(2, 1))(x, np.random.default_rng(0))
    corners, counts = np.unique(y.reshape(4900, 4), axis=0, return_counts=True)
    framed = np.pad(x[0, 0], ((2, 2), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (2, 2)).reshape(-1, 4)
    expected, places = np.unique(windows, axis=0, return_counts=True)
    np.testing.assert_array_equal(corners, expected)
    assert (np.abs(counts - 4900 * places / 24) < 5 * np.sqrt(4900 * places / 24)).all()


def test_factors_of_color_are_even_between_their_ends():
    x = np.full((4000, 1, 1, 1), 0.25)
    found = Color(brightness=0.4)(x, np.random.default_rng(0)).ravel() / 0.25
    assert found.min() >= 0.6 and found.max() <= 1.4
    counts, _ = np.histogram(found, 8, (0.6, 1.4))
    assert (np.abs(counts - 500) < 4.5 * np.sqrt(500)).all()


def test_a_strength_above_1_never_makes_a_factor_below_0():
    x = np.full((1000, 1, 1, 1), 0.25)
    y = Color(brightness=3)(x, np.random.default_rng(0))
    assert y.min() >= 0 and y.max() > 0.9


def test_steps_run_in_their_order(x):
    mean, std = [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]
    ours = Augment(Flip(), Normalize(mean, std))(x, np.random.default_rng(3))
    theirs = normalize(Flip()(x, np.random.default_rng(3)), mean, std)
    np.testing.assert_array_equal(ours, theirs)


def test_any_function_of_a_batch_and_a_generator_is_a_step(x, rng):
    y = Augment(Shift(0), lambda x, rng: 1 - x)(x, rng)
    np.testing.assert_array_equal(y, 1 - x)


@pytest.mark.parametrize(
    "step", [*ALL, Normalize(0.5, 0.1)], ids=lambda s: type(s).__name__
)
def test_an_empty_batch_stays_empty(step, rng):
    x = np.empty((0, 3, 7, 11), np.float32)
    y = step(x, rng)
    assert len(y) == 0 and y.shape[1] == 3 and y.dtype == np.float32


# --- what is refused --------------------------------------------------------------------

X = np.zeros((2, 3, 4, 5))
ONE, NONE, NO = np.ones(2), np.zeros(2, int), np.zeros(2, bool)


@pytest.mark.parametrize(
    "call, error, says",
    [
        (lambda: flip_images(X[0], NO), ValueError, r"x has shape .* \(N, C, H, W\)"),
        (lambda: flip_images(X.astype(int), NO), TypeError, "x has dtype int64"),
        (lambda: flip_images(X, NONE), TypeError, "flipped has dtype int64; it must be bo"),
        (lambda: flip_images(X, NO[:1]), ValueError, "one for each image of x is"),
        (lambda: shift_images(X, ONE, NONE), TypeError, "down has dtype float64; it must"),
        (lambda: shift_images(X, NONE, NONE[0]), ValueError, r"across has shape \(\)"),
        (lambda: crop_images(X, NONE, NONE, 0), ValueError, "size must be at least 1"),
        (lambda: color_images(X + 2, ONE, ONE, ONE), ValueError, "from 2 to 2; .*Nor"),
        (lambda: color_images(X * np.nan, ONE, ONE, ONE), ValueError, "pixels from nan"),
        (lambda: color_images(X, ONE, -ONE, ONE), ValueError, "contrast has the factor -1"),
        (lambda: color_images(X, ONE, ONE, ONE[:1]), ValueError, "saturation has shape"),
        (lambda: color_images(X[:, :2], ONE, ONE, ONE), ValueError, "C = 3, or 1 for grey"),
        (lambda: Flip(1.5), ValueError, "p must be from 0 to 1, not 1.5"),
        (lambda: Flip("x"), TypeError, "p must be a number, not 'x'"),
        (lambda: Shift(-1), ValueError, "pixels must be at least 0, not -1"),
        (lambda: Shift(1.5), TypeError, "pixels must be a whole number, not 1.5"),
        (lambda: Crop(0), ValueError, "size must be at least 1"),
        (lambda: Crop(3, padding=-1), ValueError, "padding must be at least 0"),
        (lambda: Color(saturation=-0.1), ValueError, "saturation must be from 0"),
        (lambda: Color(np.inf), ValueError, "brightness must be finite"),
        (lambda: Augment(), ValueError, "there is no step"),
        (lambda: Augment(Flip), TypeError, r"Flip.* is no step; one is Flip\(\)"),
        (lambda: Flip()(X, 0), TypeError, "rng is 0; it must be a generator"),
        (lambda: Crop(6, padding=(0, 1))(X, np.random.default_rng(0)), ValueError,
         r"crop of \(6, 6\) does not fit images of \(4, 5\) padded by \(0, 1\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()
