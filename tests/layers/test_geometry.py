"""Convolution and pooling on geometries that nobody chose, and what holds on all of them.

The oracles lay the windows down in NumPy as views and share no line with the course.
Hypothesis draws the same geometries in every run. The sizes reach past every tile and
vector of the fast loops, so that each of their remainders occurs.
"""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from course.layers import (
    avgpool2d_backward,
    avgpool2d_forward,
    conv2d_backward,
    conv2d_forward,
    conv_transpose2d_backward,
    conv_transpose2d_forward,
    linear_backward,
    linear_forward,
    maxpool2d_backward,
    maxpool2d_forward,
)
from course.shapes import col2im, im2col

EXAMPLES = 300
drawn = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
few = settings(drawn, max_examples=60)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


# --- windows in NumPy -------------------------------------------------------------------


class Axis(NamedTuple):
    """Windows along one axis: K taps, D apart, every S pixels, on a padded image."""

    size: int
    K: int
    S: int
    before: int
    after: int
    D: int

    def count(self, ceil_mode=False):
        """Return how many windows there are, by laying them down one after the other."""
        starts = self.starts()
        hangs_over = self.rest() and starts[-1] + self.S < self.before + self.size
        return len(starts) + bool(ceil_mode and hangs_over)

    def starts(self):
        """Return where in the padded image each window begins."""
        last = self.before + self.size + self.after - self.D * (self.K - 1) - 1
        return range(0, last + 1, self.S)

    def rest(self):
        """Return how many pixels of the padded image lie behind the last window."""
        end = self.before + self.size + self.after
        return end - self.starts()[-1] - self.D * (self.K - 1) - 1


def windows(x, rows, columns, size, outside=0):
    """Return what each window sees, (N, C, HO, WO, KH, KW), as a view of the framed x."""
    frame = [(axis.before, axis.after + axis.S) for axis in (rows, columns)]
    xp = np.pad(x, ((0, 0), (0, 0), *frame), constant_values=outside)
    n, c, p, q = xp.strides
    steps = n, c, p * rows.S, q * columns.S, p * rows.D, q * columns.D
    shape = *x.shape[:2], *size, rows.K, columns.K
    return as_strided(xp, shape, steps, writeable=False)


def places(shape, rows, columns, size):
    """Return the number of the pixel that each tap of each window sees; -1 in the frame."""
    return windows(np.arange(np.prod(shape)).reshape(shape), rows, columns, size, -1)


def gather(values, shape, rows, columns):
    """Return what pixels get if each tap of each window gives its value to its pixel."""
    where = places(shape, rows, columns, values.shape[2:4])
    inside = where >= 0
    total = np.bincount(where[inside], values[inside], np.prod(shape))
    return total.reshape(shape)


def by_groups(what, G, a, b, axes):
    """Return einsum(what, a, b) of each of the G groups, joined along the axis of each."""
    one, other, joined = axes
    pairs = zip(np.split(a, G, one), np.split(b, G, other), strict=True)
    return np.concatenate([np.einsum(what, *p, optimize=True) for p in pairs], joined)


def correlation(seen, w, G):
    """Return y (N, F, HO, WO) of the windows seen and the filters w (F, C/G, KH, KW)."""
    return by_groups("ncijuv,fcuv->nfij", G, seen, w, axes=(1, 0, 1))


def stamps(dy, w, G):
    """Return what each tap of each window gives back: (N, C, HO, WO, KH, KW)."""
    return by_groups("nfij,fcuv->ncijuv", G, dy, w, axes=(1, 0, 1))


def products(seen, dy, G):
    """Return dw (F, C/G, KH, KW): what each tap saw, times what came back there."""
    return by_groups("ncijuv,nfij->fcuv", G, seen, dy, axes=(1, 1, 0))


# --- what is drawn ----------------------------------------------------------------------


@st.composite
def axes(draw, taps=5, padding=3):
    """Draw an axis of up to 20 pixels, or a few more, on which at least one window fits."""
    K, D = draw(st.integers(1, taps)), draw(st.sampled_from([1, 1, 2, 3]))
    before, after = draw(st.integers(0, padding)), draw(st.integers(0, padding))
    least = max(1, D * (K - 1) + 1 - before - after)
    size = draw(st.integers(least, max(least, 20)))
    return Axis(size, K, draw(st.sampled_from([1, 1, 2, 3])), before, after, D)


@st.composite
def channels(draw):
    """Draw (C, F, G): up to 20 channels and 40 filters, in groups that divide both."""
    G = draw(st.sampled_from([1, 1, 2, 3, 5]))
    return draw(st.integers(1, 20 // G)) * G, draw(st.integers(1, 40 // G)) * G, G


IMAGES, SEEDS = st.integers(1, 3), st.integers(0, 2**32 - 1)


def normal(rng, dtype, *shape):
    """Return normal numbers of the type; those of float32 are exact in float64."""
    return rng.normal(size=shape).astype(np.float32).astype(dtype)


def keywords(rows, columns, **others):
    """Return how the course is told of the windows."""
    return {
        "stride": (rows.S, columns.S),
        "padding": ((rows.before, rows.after), (columns.before, columns.after)),
        "dilation": (rows.D, columns.D),
        **others,
    }


NAMES = "y", "dx", "dw", "db"


def alike(found, definition, *arrays):
    """Compare each result with the definition in float64, relative to its largest number.

    A short sum of large products may be small by chance, and its error is that of the
    products. So at the least their root of squares counts as large: what such a sum
    typically is.
    """
    arrays = [np.float64(a) for a in arrays]
    typical = definition(*(a**2 for a in arrays))
    for name, a, b, c in zip(NAMES, found, definition(*arrays), typical, strict=False):
        close = 2e-6 if a.dtype == np.float32 else 1e-12
        most = max(np.max(np.abs(b), initial=0), np.sqrt(np.max(c, initial=0)))
        np.testing.assert_allclose(a, b, 0, close * most, err_msg=name)


# --- against the definition -------------------------------------------------------------


@DTYPES
@drawn
@given(axes(), axes(), channels(), IMAGES, SEEDS)
def test_conv2d(dtype, rows, columns, sizes, N, seed):
    C, F, G = sizes
    rng = np.random.default_rng(seed)
    size = rows.count(), columns.count()
    x = normal(rng, dtype, N, C, rows.size, columns.size)
    w, b = normal(rng, dtype, F, C // G, rows.K, columns.K), normal(rng, dtype, F)
    dy = normal(rng, dtype, N, F, *size)
    told = keywords(rows, columns, groups=G)
    found = conv2d_forward(x, w, b, **told), *conv2d_backward(dy, x, w, **told)

    def definition(x, w, b, dy):
        seen = windows(x, rows, columns, size)
        return (
            correlation(seen, w, G) + b[:, None, None],
            gather(stamps(dy, w, G), x.shape, rows, columns),
            products(seen, dy, G),
            dy.sum(axis=(0, 2, 3)),
        )

    alike(found, definition, x, w, b, dy)


@DTYPES
@drawn
@given(axes(), axes(), channels(), IMAGES, SEEDS)
def test_conv_transpose2d(dtype, rows, columns, sizes, N, seed):
    """Forward is what a convolution from y to x does in backward, and the reverse.

    The drawn sizes are those of y. Rows that no window reaches are the output padding,
    which must stay below the stride or the dilation, as it does: it is a remainder.
    """
    F, C, G = sizes
    rng = np.random.default_rng(seed)
    size = rows.count(), columns.count()  # of x
    x = normal(rng, dtype, N, C, *size)
    w, b = normal(rng, dtype, C, F // G, rows.K, columns.K), normal(rng, dtype, F)
    y_shape = N, F, rows.size, columns.size
    dy = normal(rng, dtype, *y_shape)
    told = keywords(rows, columns, groups=G, output_padding=(rows.rest(), columns.rest()))
    found = (
        conv_transpose2d_forward(x, w, b, **told),
        *conv_transpose2d_backward(dy, x, w, **told),
    )

    def definition(x, w, b, dy):
        seen = windows(dy, rows, columns, size)
        return (
            gather(stamps(x, w, G), y_shape, rows, columns) + b[:, None, None],
            correlation(seen, w, G),
            products(seen, x, G),
            dy.sum(axis=(0, 2, 3)),
        )

    alike(found, definition, x, w, b, dy)


def pool_windows(shape, rows, columns, ceil_mode):
    """Return the number of the pixel that each tap sees, taps along the last axis.

    Geometries with a window that sees only padding are not kept.
    """
    size = rows.count(ceil_mode), columns.count(ceil_mode)
    where = places(shape, rows, columns, size).reshape(*shape[:2], *size, -1)
    assume((where >= 0).any(axis=-1).all())
    return where


@DTYPES
@drawn
@given(
    axes(),
    axes(),
    st.booleans(),
    st.integers(1, 9),
    IMAGES,
    st.sampled_from([2, 99]),
    SEEDS,
)
def test_maxpool2d(dtype, rows, columns, ceil_mode, C, N, levels, seed):
    """Few levels of grey make many ties; dy of whole numbers makes exact sums."""
    rng = np.random.default_rng(seed)
    shape = N, C, rows.size, columns.size
    where = pool_windows(shape, rows, columns, ceil_mode)
    x = rng.integers(-levels, levels, shape).astype(dtype)
    pixels = np.where(where >= 0, x.flat[where], -np.inf)
    best = pixels.argmax(axis=-1)[..., None]  # the first of equal ones
    winner = np.take_along_axis(where, best, -1)[..., 0]
    dy = rng.integers(1, 9, winner.shape).astype(dtype)

    told = (rows.K, columns.K), *keywords(rows, columns).values()
    y, argmax = maxpool2d_forward(x, *told, ceil_mode)
    dx = maxpool2d_backward(dy, argmax, shape, *told)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(y, x.flat[winner])
    np.testing.assert_array_equal(argmax, winner % (rows.size * columns.size))
    np.testing.assert_array_equal(dx.flat, np.bincount(winner.flat, dy.flat, x.size))


@DTYPES
@drawn
@given(axes(), axes(), st.booleans(), st.booleans(), st.integers(1, 9), IMAGES, SEEDS)
def test_avgpool2d(dtype, rows, columns, ceil_mode, include, C, N, seed):
    """The sum of a window by the pixels that it sees; padding counts only if included.

    What hangs over beyond the padding never counts.
    """
    rows, columns = rows._replace(D=1), columns._replace(D=1)
    assume(all(axis.size + axis.before + axis.after >= axis.K for axis in (rows, columns)))
    rng = np.random.default_rng(seed)
    shape = N, C, rows.size, columns.size
    where = pool_windows(shape, rows, columns, ceil_mode)
    size = where.shape[2:4]
    inside = where >= 0
    padded = [
        axis._replace(size=axis.before + axis.size + axis.after, before=0, after=0)
        for axis in (rows, columns)
    ]
    counted = np.ones((1, 1, padded[0].size, padded[1].size))
    seen = windows(counted, *padded, size).sum(axis=(4, 5))
    counts = seen if include else inside.sum(axis=-1)
    x = normal(rng, dtype, *shape)
    dy = normal(rng, dtype, N, C, *size)

    told = (rows.K, columns.K), (rows.S, columns.S), keywords(rows, columns)["padding"]
    y = avgpool2d_forward(x, *told, ceil_mode, include)
    dx = avgpool2d_backward(dy, shape, *told, ceil_mode, include)
    assert y.dtype == dx.dtype == dtype

    def definition(x, dy):
        shares = np.broadcast_to((dy / counts)[..., None], where.shape)
        sums = np.where(inside, x.flat[where], 0).sum(axis=-1)
        given = np.bincount(where[inside], shares[inside], x.size)
        return sums / counts, given.reshape(shape)

    alike((y, dx), definition, x, dy)


# --- windows as columns of a matrix -----------------------------------------------------


@few
@given(axes(), axes(), st.integers(1, 4), IMAGES, SEEDS)
def test_im2col_and_col2im_are_transposes(rows, columns, C, N, seed):
    """<im2col x, g> = <x, col2im g>, and both are what the definition says."""
    rng = np.random.default_rng(seed)
    size = rows.count(), columns.count()
    x = rng.normal(size=(N, C, rows.size, columns.size))
    told = (rows.K, columns.K), *keywords(rows, columns).values()
    matrix = im2col(x, *told)
    seen = windows(x, rows, columns, size)
    np.testing.assert_array_equal(
        matrix, seen.transpose(0, 1, 4, 5, 2, 3).reshape(matrix.shape)
    )
    g = rng.normal(size=matrix.shape)
    back = col2im(g, x.shape, *told)
    values = g.reshape(N, C, rows.K, columns.K, *size).transpose(0, 1, 4, 5, 2, 3)
    np.testing.assert_allclose(back, gather(values, x.shape, rows, columns), 1e-12, 1e-12)
    np.testing.assert_allclose(np.vdot(matrix, g), np.vdot(x, back), 1e-10, 1e-10)


@few
@given(axes(), axes(), st.integers(1, 6), st.integers(1, 6), IMAGES, SEEDS)
def test_convolution_is_a_product_with_the_columns(rows, columns, C, F, N, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, C, rows.size, columns.size))
    w = rng.normal(size=(F, C, rows.K, columns.K))
    told = keywords(rows, columns)
    y = conv2d_forward(x, w, **told)
    matrix = im2col(x, w.shape[2:], *told.values())
    np.testing.assert_allclose((w.reshape(F, -1) @ matrix).flat, y.flat, 1e-11, 1e-11)
    dy = rng.normal(size=y.shape)
    dx, dw, _ = conv2d_backward(dy, x, w, **told)
    dy = dy.reshape(N, F, -1)
    dcolumns = w.reshape(F, -1).T @ dy
    again = col2im(dcolumns, x.shape, w.shape[2:], *told.values())
    np.testing.assert_allclose(dx, again, 1e-11, 1e-11)
    total = np.sum(dy @ matrix.transpose(0, 2, 1), axis=0)
    np.testing.assert_allclose(dw.flat, total.flat, 1e-11, 1e-11)


def test_columns_of_another_image_are_refused():
    with pytest.raises(ValueError, match=r"columns has shape \(1, 4, 3\); im2col of an x"):
        col2im(np.zeros((1, 4, 3)), (1, 1, 3, 3), 2)
    with pytest.raises(ValueError, match=r"input_shape is \(3, 3\); it must be \(N, C, H"):
        col2im(np.zeros((1, 4, 4)), (3, 3), 2)
    with pytest.raises(ValueError, match=r"x has shape \(3, 3\); it must be \(N, C, H, W"):
        im2col(np.zeros((3, 3)), 2)


# --- properties -------------------------------------------------------------------------


@few
@given(axes(), axes(), channels(), SEEDS)
def test_convolutions_are_transposes_of_each_other(rows, columns, sizes, seed):
    """<conv x, g> = <x, conv_transpose g>, with the same weights."""
    C, F, G = sizes
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, C, rows.size, columns.size))
    w = rng.normal(size=(F, C // G, rows.K, columns.K))
    told = keywords(rows, columns, groups=G)
    y = conv2d_forward(x, w, **told)
    g = rng.normal(size=y.shape)
    rest = rows.rest(), columns.rest()
    back = conv_transpose2d_forward(g, w, **told, output_padding=rest)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(y, g), np.vdot(x, back), 1e-9, 1e-9)


def layers_that_are_linear(rng):
    """Return name -> a function that is linear in its array, and the array's shape."""
    x, w = rng.normal(size=(2, 6, 9, 8)), rng.normal(size=(4, 3, 3, 2))
    rows, matrix = rng.normal(size=(7, 13)), rng.normal(size=(5, 13))
    back = rng.normal(size=(6, 2, 3, 2))
    window = {"stride": 2, "padding": 1, "groups": 2}
    return {
        "conv2d in x": (lambda a: conv2d_forward(a, w, **window), x.shape),
        "conv2d in w": (lambda a: conv2d_forward(x, a, **window), w.shape),
        "conv2d, stride 1": (lambda a: conv2d_forward(a, w, groups=2), x.shape),
        "conv_transpose2d in x": (
            lambda a: conv_transpose2d_forward(a, back, **window),
            x.shape,
        ),
        "conv_transpose2d in w": (
            lambda a: conv_transpose2d_forward(x, a, **window),
            back.shape,
        ),
        "avgpool2d": (lambda a: avgpool2d_forward(a, 3, 2, 1), x.shape),
        "linear in x": (lambda a: linear_forward(a, matrix), rows.shape),
        "linear in w": (lambda a: linear_forward(rows, a), matrix.shape),
        "linear, dx in dy": (lambda a: linear_backward(a, rows, matrix)[0], (7, 5)),
        "linear, dw in dy": (lambda a: linear_backward(a, rows, matrix)[1], (7, 5)),
        "conv2d, dx in dy": (
            lambda a: conv2d_backward(a, x, w, **window)[0],
            (2, 4, 5, 5),
        ),
        "conv2d, dw in dy": (
            lambda a: conv2d_backward(a, x, w, **window)[1],
            (2, 4, 5, 5),
        ),
    }


@pytest.mark.parametrize("name", layers_that_are_linear(np.random.default_rng(0)))
def test_linearity(name, rng):
    """f(3a - 2b) = 3 f(a) - 2 f(b)."""
    f, shape = layers_that_are_linear(rng)[name]
    a, b = rng.normal(size=(2, *shape))
    np.testing.assert_allclose(f(3 * a - 2 * b), 3 * f(a) - 2 * f(b), 1e-12, 1e-12)


@DTYPES
@few
@given(
    *(st.tuples(*[st.integers(low, high)] * 2) for low, high in [(1, 3), (1, 3), (0, 3)]),
    SEEDS,
)
def test_a_shifted_image_has_a_shifted_map(dtype, stride, dilation, shift, seed):
    """S pixels down in x are one down in y, bit for bit: the products are the same ones."""
    (SH, SW), (i, j) = stride, shift
    rng = np.random.default_rng(seed)
    x, w = normal(rng, dtype, 2, 3, 24, 23), normal(rng, dtype, 5, 3, 3, 2)
    told = {"stride": stride, "dilation": dilation}
    y = conv2d_forward(x, w, **told)
    shifted = conv2d_forward(np.roll(x, (i * SH, j * SW), (2, 3)), w, **told)
    HO, WO = y.shape[2:]
    close = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(
        shifted[:, :, i:, j:], y[:, :, : HO - i, : WO - j], close, close
    )


@DTYPES
def test_a_turned_image_under_a_turned_filter_has_a_turned_map(dtype, rng):
    """Turned by 180°: correlation with the turned filter is convolution."""
    x, w = normal(rng, dtype, 2, 3, 9, 8), normal(rng, dtype, 4, 3, 3, 4)
    turned = conv2d_forward(x[:, :, ::-1, ::-1], w[:, :, ::-1, ::-1])
    y = conv2d_forward(x, w)[:, :, ::-1, ::-1]
    np.testing.assert_allclose(turned, y, 1e-5, 1e-5)


# --- what is not a number ---------------------------------------------------------------


@DTYPES
@settings(drawn, max_examples=100)
@given(axes(), axes(), channels(), st.sampled_from([np.nan, np.inf, -np.inf]), SEEDS)
def test_conv2d_sends_nan_where_the_window_sees_it(
    dtype, rows, columns, sizes, value, seed
):
    """Of one pixel that is no finite number, every window that sees it tells, and no other.

    The same for dx: what an output gives to the pixels it saw, it gives to no other.
    """
    C, F, G = sizes
    rng = np.random.default_rng(seed)
    size = rows.count(), columns.count()
    x = normal(rng, dtype, 2, C, rows.size, columns.size)
    w = normal(rng, dtype, F, C // G, rows.K, columns.K)
    dy = normal(rng, dtype, 2, F, *size)
    told = keywords(rows, columns, groups=G)

    pixel = rng.integers(x.size)
    x.flat[pixel] = value
    y = conv2d_forward(x, w, **told)
    n, c, *_ = np.unravel_index(pixel, x.shape)
    group = np.arange(F) // (F // G) == c // (C // G)
    seen = places(x.shape, rows, columns, size)[n, c] == pixel
    touched = np.zeros(y.shape, bool)
    touched[n, group] = seen.any(axis=(2, 3))
    np.testing.assert_array_equal(~np.isfinite(y), touched)
    x.flat[pixel] = 0

    output = rng.integers(dy.size)
    dy.flat[output] = value
    dx = conv2d_backward(dy, x, w, **told)[0]
    n, f, i, j = np.unravel_index(output, dy.shape)
    group = np.arange(C) // (C // G) == f // (F // G)
    seen = places(x.shape, rows, columns, size)[n, group, i, j]
    touched = np.zeros(x.size, bool)
    touched[seen[seen >= 0]] = True
    np.testing.assert_array_equal(~np.isfinite(dx.flat), touched)


@settings(drawn, max_examples=100)
@given(axes(), axes(), st.sampled_from([np.nan, np.inf]), SEEDS)
def test_conv2d_sends_nan_to_the_taps_that_saw_it(rows, columns, value, seed):
    rng = np.random.default_rng(seed)
    size = rows.count(), columns.count()
    x, w = (
        rng.normal(size=(2, 3, rows.size, columns.size)),
        np.ones((4, 3, rows.K, columns.K)),
    )
    dy = rng.normal(size=(2, 4, *size))
    pixel = rng.integers(x.size)
    x.flat[pixel] = value
    dw = conv2d_backward(dy, x, w, **keywords(rows, columns))[1]
    saw = (places(x.shape, rows, columns, size) == pixel).any(axis=(0, 2, 3))
    np.testing.assert_array_equal(~np.isfinite(dw), np.broadcast_to(saw, dw.shape))


# --- errors in words --------------------------------------------------------------------

X = np.zeros((2, 3, 5, 6))


def conv2d(x, K, **told):
    return conv2d_forward(x, np.ones((4, 3, K, K)), **told)


def maxpool2d(x, K, **told):
    return maxpool2d_forward(x, K, **told)[0]


WINDOWED = pytest.mark.parametrize("slide", [conv2d, maxpool2d, avgpool2d_forward, im2col])


@WINDOWED
def test_a_window_larger_than_the_image_is_refused(slide):
    with pytest.raises(ValueError, match="spans 6 pixels does not fit in 5 pixels"):
        slide(X, 6)


@pytest.mark.parametrize("slide", [conv2d, maxpool2d, im2col])
def test_a_window_that_reaches_out_of_the_image_is_refused(slide):
    with pytest.raises(ValueError, match="spans 7 pixels does not fit in 5 pixels"):
        slide(X, 3, dilation=3)
    with pytest.raises(ValueError, match="spans 8589934589 pixels does not fit"):
        slide(X, 5, dilation=2**31 - 1)


@WINDOWED
@pytest.mark.parametrize("stride", [6, 10**6, 2**31 - 1])
def test_a_huge_stride_leaves_one_window(slide, stride, rng):
    x = rng.normal(size=(2, 3, 5, 6))
    one = slide(x, 3, stride=stride)
    expected = slide(x[:, :, :3, :3], 3)
    np.testing.assert_allclose(one, expected, 1e-13)
    with pytest.raises(ValueError, match="stride must be at most 2147483647, not 1000000"):
        slide(x, 3, stride=10**30)


@WINDOWED
def test_no_images_make_no_windows(slide):
    assert slide(X[:0], 3, stride=2, padding=1).shape[0] == 0


@WINDOWED
@pytest.mark.parametrize("empty", [X[:, :, :0], X[:, :, :, :0]])
def test_images_without_pixels_are_refused(slide, empty):
    with pytest.raises(ValueError, match="does not fit in 0 pixels"):
        slide(empty, 1)


def test_no_channels_make_a_map_of_biases(rng):
    """An empty sum is 0; there is nothing to refuse, and nothing to read."""
    b = rng.normal(size=4)
    y = conv2d_forward(X[:, :0], np.zeros((4, 0, 3, 3)), b)
    np.testing.assert_array_equal(y, np.broadcast_to(b[:, None, None], y.shape))
    dx, dw, db = conv2d_backward(y, X[:, :0], np.zeros((4, 0, 3, 3)))
    assert dx.shape == (2, 0, 5, 6) and dw.shape == (4, 0, 3, 3)
    np.testing.assert_allclose(db, y.sum(axis=(0, 2, 3)))


def test_no_filters_are_refused():
    w = np.zeros((0, 3, 3, 3))
    with pytest.raises(ValueError, match=r"w has shape \(0, 3, 3, 3\).*at least"):
        conv2d_forward(X, w)
    with pytest.raises(ValueError, match=r"w has shape \(0, 3, 3, 3\).*at least"):
        conv2d_backward(np.zeros((2, 0, 3, 4)), X, w)


@pytest.mark.parametrize("shape", [(2, 0, 5, 6), (0, 3, 5, 6)])
def test_pooling_nothing_gives_nothing(shape):
    y, argmax = maxpool2d_forward(np.zeros(shape), 2)
    assert y.shape == argmax.shape == (*shape[:2], 2, 3)
    assert maxpool2d_backward(y, argmax, shape, 2).shape == shape
