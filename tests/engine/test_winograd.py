"""course/engine/winograd.py against NumPy in float64, with every array fenced in."""

import numpy as np
import pytest

from course.device import get_threads, set_threads
from course.engine import cpu, winograd
from tests.engine.convolutions import (
    NONE,
    ONE,
    Case,
    arrays,
    compare,
    oracle,
    run,
    spied,
)

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
CASES = {
    "one-number": ((1, 1, 1, 1), 1, ONE),
    "one-tile": ((1, 3, 4, 4), 5, NONE),
    "even": ((2, 3, 8, 16), 7, ONE),
    "odd": ((2, 8, 7, 9), 6, ONE),
    "odd-rows": ((3, 9, 5, 14), 13, ONE),
    "odd-columns": ((3, 2, 6, 33), 12, ONE),
    "no-frame": ((2, 17, 9, 12), 4, NONE),
    "wide-frame": ((2, 5, 6, 15), 3, ((2, 2), (2, 2))),
    "uneven-frame": ((2, 5, 6, 18), 3, ((0, 1), (2, 1))),
    "other-uneven-frame": ((2, 5, 5, 17), 3, ((2, 0), (1, 0))),
    "frame-above-only": ((1, 4, 1, 34), 3, ((2, 0), (0, 0))),
    "column": ((4, 6, 11, 1), 8, ONE),
    "two-vectors": ((1, 2, 3, 32), 2, ONE),
    "more-than-two-vectors": ((1, 2, 4, 37), 2, ONE),
    "many-small-images": ((19, 3, 3, 3), 5, ONE),
    "one-pixel-each": ((33, 4, 1, 1), 7, ONE),
    "channels-of-whole-vectors": ((1, 32, 6, 6), 18, ONE),
    "blocks-end-within-images": ((5, 40, 7, 8), 12, ONE),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def case_of(case):
    """Return the case in full; no loops of course/engine/cpu.py are expected."""
    x, F, frame = case
    return Case(x, (F, x[1], 3, 3), "", "", "", frame=frame)


@pytest.fixture
def always(monkeypatch):
    """Return the loops that ran, where Winograd's run whether they pay or not."""
    names = []
    monkeypatch.setattr(winograd, "_pays", lambda *_: True)
    monkeypatch.setattr(cpu, "LITTLE", 0)
    for module in (winograd, cpu):
        monkeypatch.setattr(module, "launch", spied(names, module.launch))
    winograd._tiling.cache_clear()
    yield names
    winograd._tiling.cache_clear()


@pytest.fixture
def threads():
    """Return the function that sets the number of threads, undone at the end."""
    before = get_threads()
    yield set_threads
    set_threads(before)


def small_blocks(monkeypatch):
    """Let no block hold more than a row or two of tiles."""
    monkeypatch.setattr(winograd, "ROOM", 1)
    winograd._tiling.cache_clear()


@EACH
@TYPES
def test_a_convolution_is_its_definition(case, dtype, always):
    """Forward, with relu and pooling, and dx; nothing is written outside an array."""
    case = case_of(case)
    numbers = arrays(case, dtype)
    compare(run(case, *numbers), case, *numbers)
    assert always.count("_tiles") == 3
    assert not {"_along_pixels", "_along_filters"} & set(always)


@EACH
def test_the_same_bits_whatever_the_threads_and_the_blocks(
    case, always, threads, monkeypatch
):
    case = case_of(case)
    numbers = arrays(case, np.float32)
    found = []
    for count in (1, 2, 3, 1):
        threads(count)
        if len(found) == 3:
            small_blocks(monkeypatch)
        found.append(run(case, *numbers))
    for other in found[1:]:
        for name in ("y", "dx", "z"):
            np.testing.assert_array_equal(getattr(other, name), getattr(found[0], name))


@TYPES
def test_an_image_does_not_depend_on_the_others(dtype, always):
    case = case_of(CASES["blocks-end-within-images"])
    x, w, b, _ = arrays(case, dtype)
    window = case.stride, case.frame, case.dilation, 1
    together = np.empty((5, 12, 7, 8), dtype)
    assert cpu.convolve(together, x, w, b, *window)
    for n in range(5):
        alone = np.empty((1, 12, 7, 8), dtype)
        assert cpu.convolve(alone, x[n : n + 1].copy(), w, b, *window)
        np.testing.assert_array_equal(alone[0], together[n])


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (3, 4), (6, 7), (2, 7), (6, 0)])
@pytest.mark.parametrize("relu", [False, True])
def test_what_is_not_finite_stays_where_it_is(number, place, relu, always):
    """The image with it is as the definition says, the others keep their bits."""
    case = case_of(CASES["blocks-end-within-images"])
    x, w, b, _ = arrays(case, np.float32)
    window = case.stride, case.frame, case.dilation, 1
    clean, found = np.empty((5, 12, 7, 8), np.float32), np.empty((5, 12, 7, 8), np.float32)
    pooled = np.empty((5, 12, 3, 4), np.float32)
    assert cpu.convolve(clean, x, w, b, *window, relu=relu)
    x[2, 5][place] = number
    assert cpu.convolve(found, x, w, b, *window, relu=relu, pooled=pooled)
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(clean, 2, 0))
    i, j = np.indices((7, 8))
    sees = (abs(i - place[0]) <= 1) & (abs(j - place[1]) <= 1)
    assert np.isfinite(found[2][:, ~sees]).all()
    tap = w[:, 5, place[0] - i[sees] + 1, place[1] - j[sees] + 1]
    expected = number * tap
    expected = np.where(expected <= 0, 0, expected) if relu else expected
    reached = found[2][:, sees]
    lost = ~np.isfinite(expected)
    np.testing.assert_array_equal(reached[lost], expected[lost])
    assert np.isfinite(reached[~lost]).all()
    quarters = found[:, :, :6].reshape(5, 12, 3, 2, 4, 2)
    np.testing.assert_array_equal(pooled, quarters.max(axis=(3, 5)))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_spoils_its_filter_only(number, always):
    case = case_of(CASES["odd"])
    x, w, b, dy = arrays(case, np.float32)
    w[3, 2, 0, 0] = number  # sees zeros of the frame in the first row and column
    y, dx = np.empty_like(dy), np.empty_like(x)
    window = case.stride, case.frame, case.dilation, 1
    assert cpu.convolve(y, x, w, b, *window)
    assert np.isfinite(np.delete(y, 3, 1)).all()
    assert not np.isfinite(y[:, 3, 1:, 1:]).any()
    assert cpu.convolve_backward(dx, None, None, dy, x, w, *window)
    assert np.isfinite(np.delete(dx, 2, 1)).all()
    assert not np.isfinite(dx[:, 2, :-1, :-1]).any()


def test_sums_above_the_largest_number_on_the_way_do_no_harm(always):
    """The four numbers of an element of v, or m, may be too large where y is not."""
    case = case_of(CASES["even"])
    x, w, b, dy = arrays(case, np.float32)
    x[1], w[...] = 3e38, 0
    w[:, 0, 1, 1] = 0.5
    y = np.empty_like(dy)
    assert cpu.convolve(y, x, w, b, case.stride, case.frame, case.dilation, 1)
    np.testing.assert_allclose(y[1], 1.5e38, rtol=1e-6)
    compared = oracle(x, w, b, dy, case).y
    np.testing.assert_allclose(
        y[0], compared[0], rtol=0, atol=2e-6 * abs(compared[0]).max()
    )


def test_rounding_errors_are_no_larger_than_those_of_the_other_loops(monkeypatch):
    case = Case((2, 64, 14, 14), (48, 64, 3, 3), "", "", "", frame=ONE)
    numbers = arrays(case, np.float32)
    exact, errors = oracle(*numbers, case), []
    for pays in (True, False):
        monkeypatch.setattr(winograd, "_pays", lambda *_, pays=pays: pays)
        winograd._tiling.cache_clear()
        found = run(case, *numbers)
        errors.append([abs(found.y - exact.y).max(), abs(found.dx - exact.dx).max()])
    winograd._tiling.cache_clear()
    assert (np.array(errors[0]) <= 2 * np.array(errors[1])).all()


@pytest.mark.parametrize(
    "case, runs",
    [
        (Case((8, 64, 56, 56), (64, 64, 3, 3), "", "", "", frame=ONE), True),
        (Case((64, 64, 16, 16), (64, 64, 3, 3), "", "", "", frame=ONE), True),
        (Case((64, 3, 32, 32), (32, 3, 3, 3), "", "", "", frame=ONE), False),
        (Case((64, 16, 32, 32), (16, 16, 3, 3), "", "", "", frame=ONE), False),
        (Case((1, 512, 7, 7), (512, 512, 3, 3), "", "", "", frame=ONE), False),
        (Case((8, 64, 56, 56), (64, 64, 3, 3), "", "", "", (2, 2), ONE), False),
        (Case((8, 64, 56, 56), (64, 64, 3, 3), "", "", "", (1, 1), ONE, (2, 2)), False),
        (Case((8, 64, 56, 56), (64, 64, 5, 5), "", "", "", frame=ONE), False),
        (Case((8, 64, 56, 56), (64, 64, 3, 3), "", "", "", frame=((3, 3), (3, 3))), False),
        (Case((8, 64, 56, 56), (64, 1, 3, 3), "", "", "", frame=ONE, groups=64), False),
        (Case((8, 64, 56, 56), (64, 32, 3, 3), "", "", "", frame=ONE, groups=2), False),
    ],
)
def test_it_runs_where_it_is_faster(case, runs, monkeypatch):
    """Sixteen products pay for the sums if there are many channels, filters and tiles."""
    names = []
    monkeypatch.setattr(winograd, "launch", lambda job, *_: names.append(job.__name__))
    x, w = np.zeros(case.x, np.float32), np.zeros(case.w, np.float32)
    key = cpu._key(x.shape, w.shape, case.stride, case.frame, case.dilation, case.groups)
    HO, WO = (
        (n + sum(pad) - D * (K - 1) - 1) // S + 1
        for n, pad, D, K, S in zip(
            case.x[2:], case.frame, case.dilation, case.w[2:], case.stride, strict=True
        )
    )
    y, b = np.zeros((len(x), len(w), HO, WO), np.float32), np.zeros(len(w), np.float32)
    winograd.correlate(y, None, x, w, b, key)
    assert names == (["_filters", "_tiles"] if runs else [])


@pytest.mark.parametrize(
    "N, C, F, size", [(8, 256, 256, 14), (1, 64, 64, 16), (3, 48, 33, 9)]
)
def test_what_runs_does_not_depend_on_the_threads(N, C, F, size):
    """Else the bits would."""
    sizes = N, C, F, size, size, 1, 1, size, size, False, False, False
    dtype = np.dtype(np.float32)
    chosen = {winograd._tiling(dtype, *sizes, shares) is None for shares in range(1, 9)}
    assert len(chosen) == 1
