"""course/engine/elementary.py against NumPy with 64 binary digits, edges, and speed."""

import math
import platform
import re

import numpy as np
import pytest
from scipy.special import ndtr

from course.bench.rounds import in_turns
from course.compiled import compiled
from course.engine import elementary
from course.engine.elementary import (
    exp,
    expm1,
    larger,
    log1p,
    normal,
    quotient,
    sigmoid,
)

MANY = 1_000_000


@compiled
def _exp(y, x):
    for k in range(y.size):
        y[k] = exp(x[k])


@compiled
def _expm1(y, x):
    for k in range(y.size):
        y[k] = expm1(x[k])


@compiled
def _log1p(y, x):
    for k in range(y.size):
        y[k] = log1p(x[k])


@compiled
def _sigmoid(y, x):
    for k in range(y.size):
        y[k] = sigmoid(x[k])


@compiled
def _normal(y, bell, x):
    for k in range(y.size):
        y[k], bell[k] = normal(x[k])


@compiled
def _largest(x):
    largest = x[0]
    for k in range(x.size):
        largest = larger(largest, x[k])
    return largest


@compiled
def _scaled(y, x, a, b):
    for n in range(len(y)):
        scale = quotient(a[n], b[n])
        for k in range(y.shape[1]):
            y[n, k] = x[n, k] * scale


@compiled
def _math_exp(y, x):
    for k in range(y.size):
        y[k] = math.exp(x[k])


def run(loop, x):
    """Return what the loop makes of x."""
    y = np.empty_like(x)
    loop(y, x)
    return y


def logistic(x):
    """Return the sigmoid with nothing lost, for longdouble."""
    small = np.exp(-np.abs(x))
    return np.where(x > 0, 1, small) / (1 + small)


LONG = np.finfo(np.longdouble).nmant > 52  # else float64 is all there is to compare with
DTYPES = pytest.mark.parametrize(
    "dtype",
    [
        np.float32,
        pytest.param(
            np.float64,
            marks=pytest.mark.skipif(not LONG, reason="no float type here is longer"),
        ),
    ],
)
FUNCTIONS = pytest.mark.parametrize(
    "loop, exact, low, high, ulps",
    [
        (_exp, np.exp, -87.3, 88.7, 1.1),
        (_exp, np.exp, -1, 1, 1.1),
        (_expm1, np.expm1, -30, 88.7, 2),
        (_expm1, np.expm1, -1, 1, 2),
        (_log1p, np.log1p, 0, 1, 2),
        (_log1p, np.log1p, 0, 1e-3, 2),
        (_sigmoid, logistic, -87.3, 88.7, 2.5),
        (_sigmoid, logistic, -3, 3, 2.5),
    ],
)


@FUNCTIONS
@DTYPES
def test_error_in_units_of_the_last_place(loop, exact, low, high, ulps, dtype, rng):
    if dtype == np.float64 and abs(low) > 80:
        low, high = low * 8.1, high * 8  # as far as float64 goes
    x = rng.uniform(low, high, MANY).astype(dtype)
    expected = exact(x.astype(float if dtype == np.float32 else np.longdouble))
    unit = np.spacing(np.abs(expected).astype(dtype))
    error = np.abs(run(loop, x) - expected) / unit
    assert error.max() < ulps, x[error.argmax()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relative_error_of_exp(dtype, rng):
    """1.5e-7 is what the layers count on; 1.1 units are at most 1.1 * eps."""
    x = rng.uniform(-87.3, 88.7, MANY).astype(dtype)
    expected = np.exp(x.astype(np.longdouble))
    error = np.abs(run(_exp, x) / expected - 1)
    assert error.max() < (1.5e-7 if dtype == np.float32 else 3e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_exp_ends(dtype):
    info = np.finfo(dtype)
    with np.errstate(over="ignore", under="ignore"):
        most = np.log(info.max)  # rounded down or up: so one step aside
        least = np.log(info.smallest_subnormal)
    up, down = dtype(np.inf), dtype(-np.inf)
    x = np.array(
        [up, most * 1.001, 1e30, down, least * 1.01, -1e30, np.nan, 0, -0.0], dtype
    )
    expected = [np.inf, np.inf, np.inf, 0, 0, 0, np.nan, 1, 1]
    np.testing.assert_array_equal(run(_exp, x), expected)
    near = np.nextafter(most, dtype(0), dtype=dtype).reshape(1)
    expected = np.exp(near.astype(np.longdouble))
    np.testing.assert_allclose(run(_exp, near), expected, 1.5 * info.eps)


@pytest.mark.parametrize(
    "dtype, low, high", [(np.float32, -103, -87.4), (np.float64, -744, -709)]
)
def test_small_results_are_rounded_once(dtype, low, high, rng):
    """Subnormal numbers have fewer digits: the error is below one of their steps."""
    x = rng.uniform(low, high, 10_000).astype(dtype)
    step = np.finfo(dtype).smallest_subnormal
    error = np.abs(run(_exp, x) - np.exp(x.astype(np.longdouble))) / np.longdouble(step)
    assert error.max() < 1


@pytest.mark.parametrize(
    "dtype, low, high, tolerance",
    [
        (np.float32, -2, 2, 5e-7),
        (np.float32, -13, 9, 6e-6),
        (np.float64, -2, 2, 3e-15),
        (np.float64, -37, 37, 2e-13),
    ],
)
def test_normal(dtype, low, high, tolerance, rng):
    x = rng.uniform(low, high, MANY).astype(dtype)
    y, bell = np.empty_like(x), np.empty_like(x)
    _normal(y, bell, x)
    np.testing.assert_allclose(y, ndtr(x.astype(float)), tolerance)
    np.testing.assert_allclose(bell, np.exp(-(x.astype(float) ** 2) / 2), tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edges_of_normal(dtype):
    most = np.finfo(dtype).max
    x = np.array([-np.inf, -most, -100, 0, 100, most, np.inf, np.nan], dtype)
    y, bell = np.empty_like(x), np.empty_like(x)
    _normal(y, bell, x)
    np.testing.assert_array_equal(y, [0, 0, 0, 0.5, 1, 1, 1, np.nan])
    np.testing.assert_array_equal(bell, [0, 0, 0, 1, 0, 0, 0, np.nan])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edges(dtype):
    x = np.array([np.inf, -np.inf, np.nan, 0, 1e-30, -1e-30], dtype)
    np.testing.assert_array_equal(run(_expm1, x), [np.inf, -1, np.nan, 0, *x[4:]])
    np.testing.assert_array_equal(run(_sigmoid, x[:4]), [1, 0, np.nan, 0.5])
    x = np.array([0, 1e-30, np.nan], dtype)
    np.testing.assert_array_equal(run(_log1p, x), x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 7, 8, 31, 100])
def test_largest(dtype, size, rng):
    x = rng.normal(size=size).astype(dtype)
    for place in range(size):
        assert _largest(np.roll(x, place)) == x.max()
        odd = x.copy()
        odd[place] = -np.inf
        assert _largest(odd) == odd.max()
        odd[place] = np.inf
        assert _largest(odd) == np.inf
        odd[place] = np.nan
        assert np.isnan(_largest(odd))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loop", [_exp, _expm1, _log1p, _sigmoid])
def test_the_place_in_a_vector_changes_no_bit(loop, dtype, rng):
    """What is left over after the last full vector is computed alone, and alike."""
    x = rng.uniform(0, 1, 101).astype(dtype)
    together = run(loop, x)
    alone = [run(loop, x[k : k + 1])[0] for k in range(x.size)]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("name", ["exp", "expm1", "log1p", "sigmoid"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_python_computes_it_too(name, kind):
    """Without a compiler the functions are slow, not wrong."""
    value = getattr(elementary, name)(kind(0.7))
    expected = {"sigmoid": logistic}.get(name) or getattr(np, name)
    assert type(value) is kind
    np.testing.assert_allclose(value, expected(0.7), 4 * np.finfo(kind).eps)


def packed_products(loop, dtype):
    """Return how often the machine code multiplies several numbers at once."""
    loop(np.zeros(4, dtype), np.zeros(4, dtype))
    kind = str(np.dtype(dtype))
    (code,) = (loop.inspect_asm(s) for s in loop.signatures if kind in str(s))
    suffix = "ps" if dtype == np.float32 else "pd"
    return len(re.findall(rf"\bv?(?:mul|fn?m(?:add|sub)\d+){suffix}\b", code))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_python_computes_normal_too(kind):
    value, bell = normal(kind(0.7))
    assert type(value) is type(bell) is kind
    np.testing.assert_allclose(value, ndtr(0.7), 4 * np.finfo(kind).eps)
    np.testing.assert_allclose(bell, np.exp(-0.245), 4 * np.finfo(kind).eps)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="looks for x86 instructions"
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loops_are_vectors(dtype):
    for loop in (_exp, _expm1, _log1p, _sigmoid):
        assert packed_products(loop, dtype) >= 8
    assert packed_products(_math_exp, dtype) == 0


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="looks for x86 instructions"
)
def test_the_largest_is_found_in_vectors():
    x = np.ones(4, np.float32)
    _largest(x)
    (code,) = (_largest.inspect_asm(s) for s in _largest.signatures if "32" in str(s))
    assert re.search(r"maxps\b", code)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="looks for x86 instructions"
)
def test_a_quotient_stays_outside_the_loop(rng):
    x, a = rng.normal(size=(3, 99)).astype(np.float32), np.float32([0, 1, -3])
    y, b = np.empty_like(x), np.float32([2, 3, 0])
    _scaled(y, x, a, b)
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(y, x * (a / b)[:, None])
    (code,) = _scaled.inspect_asm().values()
    assert re.search(r"mulps\b", code) and not re.search(r"divps\b", code)


def test_it_pays(rng):
    """Measured 8 to 10 times faster than the C library's exp; 3 is asked for."""
    x = rng.normal(size=1 << 14).astype(np.float32)
    y = np.empty_like(x)
    times = in_turns(41, ours=lambda: _exp(y, x), theirs=lambda: _math_exp(y, x))
    assert np.median(times["ours"]) * 3 < np.median(times["theirs"])
