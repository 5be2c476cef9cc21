"""course/engine/matmul.py against NumPy, with every array fenced in."""

import numpy as np
import pytest

from course.engine import cpu, matmul
from course.engine.tile import tile_shape
from tests.engine.convolutions import (
    ROUNDING,
    SENTINEL,
    fenced,
    fenced_workspaces,
    untouched,
)

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZES = pytest.mark.parametrize(
    "N, I, O",
    [  # N x I times (O x I)^T, around multiples of a tile: 6 x 16, and of 256 products
        (4, 1, 1),
        (5, 3, 2),
        (6, 16, 16),
        (7, 17, 15),
        (11, 31, 33),
        (12, 256, 32),
        (13, 257, 17),
        (18, 255, 48),
        (6, 513, 7),
        (257, 5, 31),
        (256, 16, 33),
        (300, 40, 16),
        (24, 150, 33),  # in dx: SOME blocks of rows, and one more
        (25, 150, 33),
        (150, 47, 64),
        (600, 20, 49),
        (4, 1000, 100),
        (10, 131, 12),  # few columns: the lanes are products
        (9, 128, 1),
        (13, 600, 11),
        (29, 128, 81),  # rows that are a multiple of CROWDED apart
        (31, 300, 128),
    ],
)


def close(a, exact, scale):
    """Say whether the rounding errors are small beside the sums of |products|."""
    return not (~(np.abs(a - exact) <= ROUNDING[a.dtype.type] * scale)).any()


@SIZES
@TYPES
def test_linear_is_its_definition(N, I, O, dtype, rng):
    shapes = (N, I), (O, I), (O,), (N, O)
    x, w, b, dy = (fenced(rng.normal(size=k).astype(dtype)) for k in shapes)
    empty = [fenced(np.full(k, np.nan, dtype), SENTINEL) for k in (*shapes[:2], (N, O))]
    dx, dw, y = empty
    with fenced_workspaces(matmul):
        assert matmul.linear(y, x, w, b)
        assert matmul.linear_backward(dx, dw, dy, x, w)
    assert all(map(untouched, empty)), "written outside an array"
    x, w, b, dy = (a.astype(np.float64) for a in (x, w, b, dy))
    ax, aw, ab, ady = map(abs, (x, w, b, dy))
    assert close(y, x @ w.T + b, ax @ aw.T + ab)
    assert close(dx, dy @ w, ady @ aw)
    assert close(dw, dy.T @ x, ady.T @ ax)


@pytest.mark.parametrize("M", [1, 5, 6, 7, 143, 150])
@pytest.mark.parametrize("J", [1, 7, 8, 9, 15, 16, 17, 32, 47])
@pytest.mark.parametrize("K", [1, 5, 255, 256, 257, 520])
def test_a_product_of_any_size(M, J, K, rng):
    """Both ways to lie in memory, for a and for b."""
    a, b, bias = (rng.normal(size=k).astype(np.float32) for k in ((M, K), (K, J), (J,)))
    exact = a.astype(float) @ b.astype(float) + bias
    scale = abs(a).astype(float) @ abs(b) + abs(bias)
    for a_flat, a_steps in ((a, (K, 1)), (a.T, (1, M))):
        for b_flat, b_steps in ((b, (J, 1)), (b.T, (1, K))):
            target = fenced(np.full((M, J), np.nan, np.float32), SENTINEL)
            left, right = fenced(a_flat.ravel()), fenced(b_flat.ravel())
            with fenced_workspaces(matmul):
                matmul.multiply(target, left, right, fenced(bias), K, a_steps, b_steps)
            assert untouched(target)
            assert close(target, exact, scale)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("N, C, F, P", [(1, 3, 2, 16), (3, 7, 13, 49), (2, 300, 130, 256)])
@TYPES
def test_pointwise_is_its_definition(N, C, F, P, relu, dtype, rng):
    """A 1 x 1 convolution, forward and backward; the last one has crowded planes."""
    sizes = (N, C, P), (F, C), (F,), (N, F, P)
    x, w, b, dy = (fenced(rng.normal(size=k).astype(dtype)) for k in sizes)
    found = [fenced(np.full(k, np.nan, dtype), SENTINEL) for k in (*sizes, (F,))]
    dx, dw, db, y, _ = found
    with fenced_workspaces(matmul):
        matmul.pointwise(y, x, w, b, relu)
        matmul.pointwise_dx(dx, dy, w, np.zeros(C, dtype))
        matmul.pointwise_dw(dw, db, dy, x)
    assert all(map(untouched, found)), "written outside an array"
    x, w, b, dy = (a.astype(np.float64) for a in (x, w, b, dy))
    ax, aw, ab, ady = map(abs, (x, w, b, dy))
    sums = w @ x + b[:, None]
    assert close(y, np.maximum(sums, 0) if relu else sums, aw @ ax + ab[:, None])
    assert close(dx, w.T @ dy, aw.T @ ady)
    assert close(dw, np.einsum("nfp,ncp->fc", dy, x), np.einsum("nfp,ncp->fc", ady, ax))
    assert close(db, dy.sum((0, 2)), ady.sum((0, 2)))


@TYPES
def test_only_dw_if_nobody_needs_dx(dtype, rng):
    x, w, dy = (rng.normal(size=k).astype(dtype) for k in ((9, 20), (5, 20), (9, 5)))
    dx, dw, other = np.empty_like(x), np.empty_like(w), np.empty_like(w)
    assert matmul.linear_backward(None, dw, dy, x, w)
    assert matmul.linear_backward(dx, other, dy, x, w)
    assert dw.tobytes() == other.tobytes()


@pytest.mark.parametrize("N, I, O", [(0, 5, 3), (1, 5, 3), (3, 5, 3), (9, 0, 3), (9, 5, 0)])
def test_what_is_left_to_plain_loops_is_left_alone(N, I, O):
    """Few rows, which would leave a tile empty; and sums of nothing."""
    x, w, b, dy = (np.ones(k) for k in ((N, I), (O, I), (O,), (N, O)))
    y, dx, dw = (np.full_like(a, SENTINEL) for a in (dy, x, w))
    assert not matmul.linear(y, x, w, b)
    assert not matmul.linear_backward(dx, dw, dy, x, w)
    for a in (y, dx, dw):
        np.testing.assert_array_equal(a, SENTINEL)


@TYPES
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(value, dtype, rng):
    x, w, b = (rng.normal(size=k).astype(dtype) for k in ((20, 300), (40, 300), (40,)))
    x[13, 270] = value
    y = np.empty((20, 40), dtype)
    assert matmul.linear(y, x, w, b)
    assert np.argwhere(~np.isfinite(y).all(axis=1)).tolist() == [[13]]
    expected = value * np.sign(w[:, 270])
    np.testing.assert_array_equal(y[13], expected)


@pytest.mark.parametrize("threads", [2, 3])
@TYPES
def test_threads_change_no_bit(threads, dtype, rng, monkeypatch):
    shapes = (37, 300), (77, 300), (77,), (37, 77), (3, 300, 40)
    x, w, b, dy, images = (rng.normal(size=k).astype(dtype) for k in shapes)

    def all_of_them(count):
        monkeypatch.setattr(matmul, "get_threads", lambda: count)
        monkeypatch.setattr(matmul, "LITTLE", 0)
        y, dx, dw, dw_maps, db = map(np.empty_like, (dy, x, w, w, b))
        maps = np.empty((3, 77, 40), dtype)
        with fenced_workspaces(matmul):
            matmul.linear(y, x, w, b)
            matmul.linear_backward(dx, dw, dy, x, w)
            matmul.pointwise(maps, images, w, b, False)
            matmul.pointwise_dw(dw_maps, db, maps, images)
        return [a.tobytes() for a in (y, dx, dw, maps, dw_maps, db)]

    assert all_of_them(threads) == all_of_them(1)


def test_chunks_and_tiles_are_those_of_the_table():
    """The sizes above straddle them; say so if they move."""
    assert (cpu.CHUNK, matmul.FEW, matmul.SOME) == (256, 4, 4)
    assert (matmul.CROWDED, matmul.NARROW, matmul.LONG) == (128, 12, 128)
    assert tile_shape(np.dtype(np.float32)).rows in (6, 12)
