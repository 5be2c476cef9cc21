"""Filters over one plane, against SciPy and the definition."""

import numpy as np
import pytest
from scipy import signal

from course.device import get_threads, set_threads
from course.vision.filters import FILTERS, convolve2d, corr1d, corr2d

GEOMETRIES = [
    pytest.param((5, 5), (3, 3), id="square"),
    pytest.param((7, 4), (2, 3), id="tall-image-wide-kernel"),
    pytest.param((4, 9), (3, 2), id="wide-image-tall-kernel"),
    pytest.param((3, 3), (3, 3), id="kernel-is-the-image"),
    pytest.param((1, 6), (1, 3), id="one-row"),
    pytest.param((6, 1), (4, 1), id="one-column"),
    pytest.param((4, 5), (1, 1), id="one-tap"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size, kernel", GEOMETRIES)
def test_valid_and_full_agree_with_scipy(size, kernel, dtype):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=size).astype(dtype), rng.normal(size=kernel).astype(dtype)
    full = kernel[0] - 1, kernel[1] - 1
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for ours, theirs in ((corr2d, signal.correlate2d), (convolve2d, signal.convolve2d)):
        for padding, mode in ((0, "valid"), ("valid", "valid"), (full, "full")):
            y = ours(x, w, padding)
            assert y.dtype == dtype
            np.testing.assert_allclose(y, theirs(x, w, mode), tolerance, tolerance)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (5, 3)])
def test_same_agrees_with_scipy_for_odd_kernels(kernel):
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(6, 7)), rng.normal(size=kernel)
    np.testing.assert_allclose(
        corr2d(x, w, "same"), signal.correlate2d(x, w, "same"), atol=1e-12
    )
    np.testing.assert_allclose(
        convolve2d(x, w, "same"), signal.convolve2d(x, w, "same"), atol=1e-12
    )


@pytest.mark.parametrize("size, kernel", GEOMETRIES)
def test_the_definition_window_by_window(size, kernel):
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=size), rng.normal(size=kernel)
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel)
    np.testing.assert_allclose(
        corr2d(x, w), np.einsum("ijuv,uv->ij", windows, w), atol=1e-12
    )


def test_worked_example_of_the_source_documents():
    rows = "01210", "41010", "20111", "12310", "04320"
    x = np.array([[int(pixel) for pixel in row] for row in rows])
    w = np.array([[0, 1, 0], [1, 0, 1], [2, 1, 0]])
    for dtype in (np.float32, np.float64):
        y = corr2d(x.astype(dtype), w.astype(dtype))
        assert y.tolist() == [[9, 5, 4], [8, 8, 10], [8, 15, 12]]


def test_any_memory_layout():
    rng = np.random.default_rng(3)
    big, w = rng.normal(size=(12, 16)), rng.normal(size=(3, 3))
    for x in (big[::2, ::-1], big.T, np.asfortranarray(big)):
        np.testing.assert_allclose(
            corr2d(x, w.T), signal.correlate2d(x, w.T, "valid"), atol=1e-12
        )


def test_threads_do_not_change_a_bit():
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=(200, 300)), rng.normal(size=(5, 5))
    before = get_threads()
    try:
        results = []
        for count in (1, 2, 3):
            set_threads(count)
            results.append(corr2d(x, w).tobytes())
    finally:
        set_threads(before)
    assert len(set(results)) == 1


@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_corr1d_agrees_with_numpy(K):
    rng = np.random.default_rng(K)
    x, w = rng.normal(size=9), rng.normal(size=K)
    np.testing.assert_allclose(corr1d(x, w), np.correlate(x, w, "valid"), atol=1e-12)
    np.testing.assert_allclose(corr1d(x, w, K - 1), np.correlate(x, w, "full"), atol=1e-12)
    framed = np.pad(x, ((K - 1) // 2, K // 2))
    np.testing.assert_allclose(
        corr1d(x, w, "same"), np.correlate(framed, w, "valid"), atol=1e-12
    )
    np.testing.assert_allclose(
        corr1d(x, w, (2, 0)), np.correlate(np.pad(x, (2, 0)), w, "valid"), atol=1e-12
    )


def test_the_six_filters_keep_or_remove_brightness():
    sums = [w.sum() for w in FILTERS.values()]
    np.testing.assert_allclose(sums, [0, 0, 0, 1, 1, 1], atol=1e-15)
    for w in FILTERS.values():
        np.testing.assert_array_equal(w, np.rot90(w, 2))  # so both operations agree


@pytest.mark.parametrize(
    "x, w, error, words",
    [
        (np.zeros((3, 3), int), np.zeros((2, 2)), TypeError, "x has dtype int64"),
        (np.zeros((3, 3)), np.zeros((2, 2), "f"), TypeError, "make them alike"),
        (np.zeros((3, 3)), np.zeros((4, 2)), ValueError, "does not fit in 3 pixels"),
        (np.zeros((3, 3)), np.zeros((0, 2)), ValueError, "at least 1 x 1 taps"),
        (np.zeros((1, 3, 3)), np.zeros((2, 2)), ValueError, r"it must be \(H, W\)"),
        ([[1.0]], np.zeros((1, 1)), TypeError, "x is a list"),
    ],
)
def test_errors_in_words(x, w, error, words):
    for function in (corr2d, convolve2d):
        with pytest.raises(error, match=words):
            function(x, w)


def test_corr1d_errors_in_words():
    with pytest.raises(ValueError, match=r"it must be \(W,\)"):
        corr1d(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="padding must be at least 0"):
        corr1d(np.zeros(3), np.zeros(2), -1)
