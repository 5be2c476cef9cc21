"""What holds for every layer, whatever it computes; the rows are in every.py."""

import importlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numba import config, njit, typeof
from numba.core.typed_passes import NativeLowering

import course.layers
from course.checks import check_layer
from course.compiled import compiled
from course.engine import cpu, matmul
from course.layers import ELU, LeakyReLU, ReLU, ResidualSum, Sigmoid, Tanh
from tests.layers.every import (
    DTYPES,
    LAYERS,
    classes,
    distinct,
    each,
    every_layer,
    name,
    new,
    run,
    several,
    without_loops,
)

# In training a sample's y depends on the others: on their mean, or its place among them.
NOT_ALONE = {"BatchNorm1d", "BatchNorm2d", "Dropout", "Dropout2d"}


def test_no_layer_is_left_out():
    assert classes() == {name(entry) for entry in LAYERS}


def test_functions_come_in_pairs_and_with_a_layer():
    """x_forward has its x_backward, and the class beside them has a row."""
    pairs = {
        half: {one.removesuffix(half) for one in course.layers.__all__ if half in one}
        for half in ("_forward", "_backward")
    }
    assert pairs["_forward"] == pairs["_backward"]
    homes = {
        getattr(course.layers, f"{one}_forward").__module__ for one in pairs["_forward"]
    }
    assert homes == {getattr(course.layers, one).__module__ for one in classes()}


@every_layer
def test_backward_is_the_slope(make, shape, rng):
    check_layer(new(make), distinct(shape, rng), rng)


def largest(a):
    """Return the largest magnitude in the array; 1 if it is empty or zero."""
    return np.max(np.abs(a), initial=0) or 1


@every_layer
def test_float32_is_float64_to_its_last_digits(make, shape, rng):
    x = distinct(shape, rng, np.float32)
    found, dy = run(make, x)
    expected, _ = run(make, each(np.float64, x), np.float64(dy))
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.dtype == np.float32 and b.dtype == np.float64
        np.testing.assert_allclose(a, b, 0, 2e-6 * largest(b), err_msg=str(k))


@every_layer
@DTYPES
@pytest.mark.parametrize("scale", [5000, 0, 1e-20])
def test_finite_numbers_stay_finite(make, shape, dtype, scale, rng):
    """From -10 000 to 10 000, all zeros, and numbers too small to be squared."""
    x = each(lambda a: a * dtype(scale), distinct(shape, rng, dtype))
    for a in run(make, x)[0]:
        assert np.isfinite(a).all()


@every_layer
@DTYPES
def test_dtype_and_shapes_are_kept(make, shape, dtype, rng):
    layer = new(make, dtype)
    x = distinct(shape, rng, dtype)
    y = layer(x)
    dx = layer.backward(np.ones_like(y))
    assert y.dtype == dtype
    for d, a in zip(several(dx), several(x), strict=True):
        assert d.dtype == dtype and d.shape == a.shape
    assert layer.grads.keys() == layer.params.keys() <= {"weight", "bias"}
    for key, value in layer.params.items():
        assert layer.grads[key].shape == value.shape
        assert layer.grads[key].dtype == value.dtype == dtype


def fortran(a):
    return np.asfortranarray(a)


def transposed(a):
    return np.ascontiguousarray(a.T).T


def backwards(a):
    return a[::-1, ..., ::-1].copy()[::-1, ..., ::-1]


def sliced(a):
    wide = np.full([2 * n for n in a.shape], np.nan, a.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def channels_last(a):
    return np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    odd = np.frombuffer(b"-" + a.tobytes(), a.dtype, offset=1).reshape(a.shape)
    assert not odd.flags.aligned
    return odd


@every_layer
@DTYPES
@pytest.mark.parametrize(
    "layout",
    [fortran, transposed, backwards, sliced, channels_last, read_only, unaligned],
)
def test_memory_layout_changes_no_bit(make, shape, dtype, layout, rng):
    x = distinct(shape, rng, dtype)
    plain, dy = run(make, x)
    odd, _ = run(make, each(layout, x), layout(dy))
    for a, b in zip(plain, odd, strict=True):
        np.testing.assert_array_equal(a, b)


@every_layer
def test_inputs_are_left_alone(make, shape, rng):
    layer = new(make)
    x = distinct(shape, rng)
    dy = rng.normal(size=layer(x).shape)
    arrays = [*several(x), dy, *layer.params.values()]
    before = [a.copy() for a in arrays]
    layer(x)
    layer.backward(dy)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


@every_layer
def test_batch_is_its_samples_one_by_one(make, shape, rng):
    """No sample sees another; the gradients of the parameters add up."""
    x = distinct(shape, rng)
    (y, *rest), dy = run(make, x)
    if name((make, shape)) in NOT_ALONE and new(make).training:
        others, _ = run(make, x[1:], dy[1:])
        assert not np.allclose(y[1:], others[0]), "then it is no exception"
        return
    samples = zip(*(np.split(a, len(a)) for a in several(x)), strict=True)
    alone = [
        run(make, sample if isinstance(x, tuple) else sample[0], dy_n)[0]
        for sample, dy_n in zip(samples, np.split(dy, len(dy)), strict=True)
    ]
    np.testing.assert_allclose(y, np.concatenate([y_n for y_n, *_ in alone]), 1e-13, 1e-13)
    for k, a in enumerate(rest):
        parts = [rest_n[k] for _, *rest_n in alone]
        whole = np.concatenate(parts) if k < len(several(x)) else sum(parts)
        np.testing.assert_allclose(a, whole, 1e-12, 1e-12)


@every_layer
@DTYPES
def test_empty_batch(make, shape, dtype, rng):
    x = each(lambda a: a[:0], distinct(shape, rng, dtype))
    (y, *rest), _ = run(make, x)
    assert len(y) == 0
    for k, a in enumerate(several(x)):
        assert rest[k].shape == a.shape
    for grad in rest[len(several(x)) :]:
        np.testing.assert_array_equal(grad, np.zeros_like(grad))


@every_layer
def test_gradients_are_replaced_not_added(make, shape, rng):
    x = distinct(shape, rng)
    layer = new(make)
    dy = rng.normal(size=layer(x).shape)
    layer.backward(dy)
    first = {key: grad.copy() for key, grad in layer.grads.items()}
    layer.backward(dy)
    for key, grad in layer.grads.items():
        np.testing.assert_array_equal(grad, first[key])


@every_layer
def test_backward_before_forward_is_refused(make, shape, rng):
    layer = make(rng=rng, dtype=np.float32)
    dy = np.zeros(shape if np.isscalar(shape[0]) else shape[0])
    with pytest.raises(RuntimeError, match=f"{type(layer).__name__}.*call forward first"):
        layer.backward(dy)


@every_layer
@pytest.mark.parametrize(
    "change, says",
    [
        (lambda a: a.astype(int), "has dtype int64"),
        (lambda a: a.astype(complex), "has dtype complex128"),
        (lambda a: a.astype(np.float16), "has dtype float16; layers compute in"),
        (lambda a: a.tolist(), "is a list; it must be a NumPy array"),
        (lambda a: None, "is a NoneType; it must be a NumPy array"),
    ],
)
def test_what_is_no_float_array_is_refused(make, shape, change, says, rng):
    layer = new(make)
    x = distinct(shape, rng)
    with pytest.raises(TypeError, match=f"{'' if isinstance(x, tuple) else 'x '}{says}"):
        layer.forward(each(change, x))
    y = layer.forward(x)
    with pytest.raises(TypeError, match=f"dy {says}"):
        layer.backward(change(y))


@every_layer
def test_wrong_dy_is_refused(make, shape, rng):
    layer = new(make)
    y = layer.forward(distinct(shape, rng))
    for dy in (y[:-1], np.zeros((*y.shape[:-1], y.shape[-1] + 1)), y[..., None]):
        with pytest.raises(ValueError, match="has shape"):
            layer.backward(dy)


@every_layer
def test_dy_of_another_dtype_is_refused_or_kept(make, shape, rng):
    """Kept where dy is all that backward needs."""
    layer = new(make, np.float32)
    y = layer.forward(distinct(shape, rng, np.float32))
    try:
        dx = layer.backward(y.astype(float))
    except TypeError as error:
        assert "dy is float64 but the other arrays are float32" in str(error)
    else:
        assert not layer.params
        assert {a.dtype for a in several(dx)} == {np.dtype(float)}


@every_layer
@DTYPES
@pytest.mark.parametrize("poisoned", ["x", "dy"])
@pytest.mark.parametrize("corner", [True, False], ids=["corner", "centre"])
def test_nan_and_infinity_go_where_the_number_went(
    make, shape, dtype, poisoned, corner, rng
):
    """One number becomes NaN or infinite: nothing changes but what it had a say in.

    What it has a say in we learn by pushing it to other numbers. What has no say in a sum
    may still be multiplied by it: a tap that sees only padding, 0, makes 0 * NaN of dw.
    So with dy in a corner the gradients of parameters are left out; so they are with x in
    a corner of a transposed convolution, whose padding is on the side of y.
    """
    parameters_too = not corner or (
        poisoned == "x" and name((make, shape)) != "ConvTranspose2d"
    )
    x = distinct(shape, rng, dtype)
    before, dy = run(make, x)

    def after(value):
        changed = (each(np.copy, x), dy.copy())
        target = several(changed[0])[0] if poisoned == "x" else changed[1]
        target[tuple(0 if corner else n // 2 for n in target.shape)] = value
        found, _ = run(make, *changed)
        return found if parameters_too else found[: 1 + len(several(x))]

    reach = [np.zeros(a.shape, bool) for a in before]
    for value in (1000, -1000, 0.1, -0.1, 2.1, -2.1):
        for here, a, b in zip(reach, after(value), before, strict=False):
            here |= a != b
    for value in (np.nan, np.inf, -np.inf):
        for k, (a, b, here) in enumerate(zip(after(value), before, reach, strict=False)):
            np.testing.assert_array_equal(a[~here], b[~here], f"{value} in {k}")
            if np.isnan(value) and (poisoned == "x") == (k == 0):
                assert np.isnan(a[here]).all(), k


@pytest.mark.parametrize("make", [ReLU, LeakyReLU, ELU, Sigmoid, Tanh])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (2, 3, 4, 5, 6)])
def test_activations_take_any_shape(make, shape, rng):
    x = np.asarray(rng.normal(size=shape))
    layer = make()
    assert layer(x).shape == layer.backward(x).shape == shape


def types_within(loops, *arguments):
    """Return the type of every variable of compiled loops, as numba infers them."""
    return inferred(loops.py_func, tuple(map(typeof, arguments)))


@cache
def inferred(function, kinds):
    """Return the types for arguments of these kinds; many rows have the same."""
    found = {}

    def stop(self, state):
        found.update(state.typemap)
        raise NotImplementedError("types are enough; machine code takes longer")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(NotImplementedError):
        patch.setattr(NativeLowering, "run_pass", stop)
        njit(function).compile(kinds)
    return {str(kind) for kind in found.values()}


@every_layer
def test_float32_loops_compute_in_float32(make, shape, rng, monkeypatch):
    """No variable of a loop is float64: it would be slower, and no result would show it."""
    layer = new(make, np.float32)
    module = importlib.import_module(type(layer).__module__)
    seen = []

    def look(loops, *arguments):
        seen.append(loops.py_func.__name__)
        found = types_within(loops, *arguments)
        assert not {kind for kind in found if "float64" in kind}, seen[-1]
        loops(*arguments)

    def fill(loops, count, *arguments, steps=0):
        look(loops, *arguments, 0, count)

    def launch(job, shares, *arguments):
        look(job, *arguments, 0, 1)

    monkeypatch.setattr(module, "fill", fill, raising=not without_loops(layer))
    monkeypatch.setattr(cpu, "launch", launch)
    monkeypatch.setattr(matmul, "launch", launch)
    layer.backward(layer(distinct(shape, rng, np.float32)))
    passes_dy_on = isinstance(layer, ResidualSum)
    at_rest = without_loops(layer) or not layer.training
    assert at_rest or len(seen) >= 2 - passes_dy_on


@compiled
def _creeps(a):
    """Add as a beginner does: 0.0 is a float64, and so is the sum."""
    total = 0.0
    for k in range(len(a)):
        total += a[k]
    return total


def test_float64_would_be_seen():
    assert "float64" in types_within(_creeps, np.zeros(3, np.float32))


@compiled
def _past_the_end(a):
    """Read one element too far."""
    return a[len(a)]


def test_no_loop_leaves_its_arrays():
    """The geometry tables once more, with numba's check of every index switched on.

    Without it a wrong index reads what happens to lie there; the last test shows that
    the check is on.
    """
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider"),
            *("-k", "test_backward_is_the_slope or test_bounds_are_checked"),
            str(Path(__file__).parent),
        ],
        env=os.environ | {"NUMBA_BOUNDSCHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    assert "test_bounds_are_checked PASSED" in result.stdout


if config.BOUNDSCHECK:  # in the run that test_no_loop_leaves_its_arrays starts

    def test_bounds_are_checked():
        with pytest.raises(IndexError):
            _past_the_end(np.zeros(3))
