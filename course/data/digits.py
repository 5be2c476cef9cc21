"""Real handwritten digits on every machine: scikit-learn's 1797 images of 8x8 pixels.

They are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and
C. Kaynak, UCI Machine Learning Repository, 1998): 32x32 bitmaps, the ink of each 4x4 block
counted, 0 to 16.

Test images: every fifth of each class, in the order of the file, 355 of 1797. The file
does not say who wrote what, so the same hands are in both parts. Expect less on a hand
that no training image shows.

28x28 pixels: each image is enlarged to 20x20 by bilinear interpolation and stands in the
middle of 28x28, as in MNIST. Pixel centres are at half-integers, and a point beyond the
outermost centres takes the outermost pixel:

    (1)  x[p,q] = sum over i,j of a[p,i] * a[q,j] * image[i,j]
    (2)  a[p,i] = max(0, 1 - |s - i|),   s = 0.4 p - 0.3 cut to 0..7

All a[p,i] are tenths, so that sums are sums of whole numbers: every machine gets the same
bits.
"""

import numpy as np

from course.data.base import Dataset, unit

SIDE, ENLARGED, FRAMED = 8, 20, 28  # pixels along a side
FULL_INK = 16
ONE_TEST_IN = 5


def digits(size: int = FRAMED) -> Dataset:
    """Return the digits, enlarged to 28x28 pixels, or with size=8 as they are.

    >>> digits(size=8)
    digits: 1442 + 355 images of 8x8, 10 classes
    """
    from sklearn.datasets import load_digits

    if size not in (SIDE, FRAMED):
        raise ValueError(f"digits come in size {SIDE} or {FRAMED}, not {size!r}")
    bunch = load_digits()
    images, t = bunch.images.astype(np.int64), bunch.target.astype(np.int64)
    x = unit(images, FULL_INK) if size == SIDE else enlarged(images)
    test = _is_test(t)
    classes = tuple("0123456789")
    return Dataset("digits", x[~test], t[~test], x[test], t[test], classes)


def enlarged(images: np.ndarray) -> np.ndarray:
    """Return (N, 8, 8) whole numbers 0..16 as (N, 1, 28, 28) float32: equation (1)."""
    tenths = _tenths()
    frame = np.zeros((len(images), FRAMED, FRAMED), np.int64)
    edge = (FRAMED - ENLARGED) // 2
    middle = slice(edge, edge + ENLARGED)
    frame[:, middle, middle] = tenths @ images @ tenths.T
    return unit(frame, 10 * 10 * FULL_INK)


def _tenths() -> np.ndarray:
    """Return a[p, i] of equation (2), (20, 8), in tenths."""
    s = np.clip(4 * np.arange(ENLARGED) - 3, 0, 10 * (SIDE - 1))
    return np.maximum(0, 10 - np.abs(s[:, None] - 10 * np.arange(SIDE)))


def _is_test(t: np.ndarray) -> np.ndarray:
    """Return a mask: every fifth image of each class."""
    mask = np.zeros(len(t), bool)
    for c in np.unique(t):
        mask[np.flatnonzero(t == c)[ONE_TEST_IN - 1 :: ONE_TEST_IN]] = True
    return mask
