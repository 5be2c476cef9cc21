"""course/shapes.py: windows counted one by one, and everything that cannot be."""

import re
from itertools import product

import numpy as np
import pytest

from course.shapes import (
    DoesNotFit,
    framed,
    integer,
    out_size,
    pads,
    pair,
    span,
    to_nchw,
    to_nhwc,
)

EVERY = list(product(range(8), (1, 2, 3), (1, 2, 3, 4), (0, 1, 3), (0, 2), (1, 2)))


def windows(size, K, S, before, after, D, hang_over):
    """Return how many windows fit, by laying them down one after the other."""
    end = size + before + after
    count = 0
    while True:
        first, last = count * S, count * S + (K - 1) * D
        fits = last < end
        hangs = hang_over and first < size + before and last < end + S - 1
        if not (fits or hangs):
            return count
        count += 1


@pytest.mark.parametrize("hang_over", [False, True])
def test_out_size_counts_windows(hang_over):
    """Every small geometry, against windows laid down one by one."""
    impossible = 0
    for size, K, S, before, after, D in EVERY:
        count = windows(size, K, S, before, after, D, hang_over)
        if count:
            assert out_size(size, K, S, (before, after), D, hang_over) == count
        else:
            impossible += 1
            with pytest.raises(ValueError, match="does not fit"):
                out_size(size, K, S, (before, after), D, hang_over)
    assert 20 < impossible < len(EVERY) / 2


@pytest.mark.parametrize(
    "arguments, expected",
    [  # published: LeNet-5's C1 and S2, AlexNet's conv1, VGG, ResNet's stem
        ({"size": 32, "K": 5}, 28),
        ({"size": 28, "K": 2, "S": 2}, 14),
        ({"size": 227, "K": 11, "S": 4}, 55),
        ({"size": 224, "K": 3, "P": 1}, 224),
        ({"size": 224, "K": 7, "S": 2, "P": 3}, 112),
    ],
)
def test_out_size_of_known_networks(arguments, expected):
    assert out_size(**arguments) == expected


def test_strict_refuses_a_remainder_and_names_what_would_fit():
    """Every setting that a message proposes does fit; there always is one."""
    refused = 0
    for size, K, S, P, D in product(
        range(1, 15), (1, 2, 3, 5), (2, 3, 4), (0, 1, 4), (1, 2)
    ):
        if size + 2 * P < span(K, D):
            continue
        left_over = (size + 2 * P - span(K, D)) % S
        if not left_over:
            assert out_size(size, K, S, P, D, strict=True) == out_size(size, K, S, P, D)
            continue
        refused += 1
        with pytest.raises(DoesNotFit) as caught:
            out_size(size, K, S, P, D, strict=True)
        message = str(caught.value)
        assert message.startswith(f"n={size}, k={K}, s={S}, p={P}: {left_over} pixel")
        proposed = message.split("; ")[1]
        paddings = [int(p) for p in re.findall(r"p=(\d+)", proposed)]
        strides = [int(s) for s in re.findall(r"\d+", proposed.split("s=")[1])]
        assert strides
        for p in paddings:
            assert p != P
            assert out_size(size, K, S, p, D, strict=True)
        for s in strides:
            assert s != S
            assert out_size(size, K, s, P, D, strict=True)
    assert refused > 100


def test_strict_proposes_the_nearest_padding():
    with pytest.raises(DoesNotFit, match="p=4 or s=1, 2 would fit"):
        out_size(7, K=3, S=3, P=5, strict=True)


@pytest.mark.parametrize("K, S, D", list(product((1, 2, 3, 5), (1, 2, 3), (1, 2))))
def test_same_gives_one_window_for_each_stride(K, S, D):
    for n in range(1, 12):
        (frame, _) = pads("same", (n, n), (K, K), (S, S), (D, D))
        assert out_size(n, K, S, frame, D) == -(-n // S)
        before, after = frame
        assert after - before in (0, 1)  # the odd pixel comes last
        if before + after:  # and one pixel less would lose a window
            with_less = windows(n, K, S, before, after - 1, D, False)
            assert with_less < -(-n // S)


@pytest.mark.parametrize(
    "padding, expected",
    [
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ([[1, 2], [3, 4]], ((1, 2), (3, 4))),
        (np.int64(1), ((1, 1), (1, 1))),
        ("valid", ((0, 0), (0, 0))),
        ("VALID", ((0, 0), (0, 0))),
        ("same", ((0, 1), (1, 2))),
        ("Same", ((0, 1), (1, 2))),
    ],
)
def test_padding_is_spelt_in_many_ways(padding, expected):
    assert pads(padding, (6, 6), (3, 5), (2, 2), (1, 1)) == expected


@pytest.mark.parametrize(
    "padding, error, says",
    [
        (-1, ValueError, "padding must be at least 0, not -1"),
        ((1, -1), ValueError, "padding must be at least 0, not -1"),
        (1.5, TypeError, "padding must be a whole number, not 1.5"),
        (True, TypeError, "padding must be a whole number, not True"),
        (None, TypeError, "padding must be a whole number, not None"),
        ((1, 2, 3), ValueError, r"padding must be an int or \(height, width\), not"),
        ((), ValueError, r"padding must be an int or \(height, width\), not \(\)"),
        (((1, 2),), ValueError, r"padding must be \(\(top, bottom\), \(left, right\)\)"),
        ("full", ValueError, 'padding must be "same" or "valid", not \'full\''),
    ],
)
def test_impossible_padding_is_refused(padding, error, says):
    with pytest.raises(error, match=says):
        pads(padding, (6, 6), (3, 5), (2, 2), (1, 1))


@pytest.mark.parametrize(
    "arguments, error, says",
    [
        ({"K": 0}, ValueError, "K must be at least 1, not 0"),
        ({"K": 2, "S": 0}, ValueError, "S must be at least 1, not 0"),
        ({"K": 2, "D": 0}, ValueError, "D must be at least 1, not 0"),
        ({"K": 2, "P": -1}, ValueError, "P must be at least 0, not -1"),
        ({"K": 2.0}, TypeError, "K must be a whole number, not 2.0"),
        ({"K": 9}, ValueError, "spans 9 pixels does not fit in 7 pixels padded by 0 and"),
    ],
)
def test_impossible_window_is_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        out_size(7, **arguments)


@pytest.mark.parametrize(
    "value, expected",
    [(3, (3, 3)), ((2, 3), (2, 3)), ([2, 3], (2, 3)), (np.int8(2), (2, 2))],
)
def test_pair(value, expected):
    assert pair("size", value) == expected
    assert all(type(number) is int for number in pair("size", value))


@pytest.mark.parametrize("value", ["3", 3.0, None, True, np.bool_(True), np.ones(2)])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(TypeError, match="size must be a whole number, not"):
        integer("size", value, 0)


def test_frame_is_of_zeros(rng):
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    for padding in (((1, 2), (3, 0)), ((0, 0), (0, 1)), ((2, 2), (2, 2))):
        xp = framed(x, padding)
        assert xp.dtype == x.dtype
        np.testing.assert_array_equal(xp, np.pad(x, ((0, 0), (0, 0), *padding)))
    assert framed(x, ((0, 0), (0, 0))) is x


def test_channels_move_last_and_back(rng):
    x = rng.normal(size=(2, 3, 4, 5))
    assert to_nhwc(x).shape == (2, 4, 5, 3)
    assert to_nhwc(x)[1, 2, 3, 0] == x[1, 0, 2, 3]
    np.testing.assert_array_equal(to_nchw(to_nhwc(x)), x)
    assert to_nhwc(x).flags.c_contiguous and to_nchw(to_nhwc(x)).flags.c_contiguous
