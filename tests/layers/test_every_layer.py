"""What holds for every layer, whatever it computes."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import config, njit, typeof
from numba.core.typed_passes import NativeLowering

import course.layers
from course.compiled import compiled
from course.layers import (
    ELU,
    Conv2d,
    Flatten,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Tanh,
)

IMAGES, ROWS = (3, 4, 7, 6), (5, 12)
LAYERS = [  # how to make it, and an x that suits it
    (lambda **new: Conv2d(4, 6, (3, 2), padding=1, groups=2, **new), IMAGES),
    (lambda **new: Conv2d(4, 3, 3, stride=2, padding="same", **new), IMAGES),
    (lambda **new: Linear(12, 5, **new), ROWS),
    (lambda **_: MaxPool2d(3, 2, 1), IMAGES),
    (lambda **_: ReLU(), IMAGES),
    (lambda **_: LeakyReLU(), IMAGES),
    (lambda **_: ELU(), IMAGES),
    (lambda **_: Sigmoid(), IMAGES),
    (lambda **_: Tanh(), IMAGES),
    (lambda **_: Flatten(), IMAGES),
]


def name(entry):
    """Return the name of the layer that an entry makes."""
    return type(entry[0](rng=np.random.default_rng(0))).__name__


every_layer = pytest.mark.parametrize(
    "make, shape", [pytest.param(*entry, id=name(entry)) for entry in LAYERS]
)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def run(make, x, dy=None):
    """Return y, dx and the gradients of a new layer, and the dy that was sent back."""
    layer = make(rng=np.random.default_rng(1), dtype=x.dtype)
    y = layer.forward(x)
    if dy is None:
        dy = np.random.default_rng(2).normal(size=y.shape).astype(x.dtype)
    return [y, layer.backward(dy), *layer.grads.values()], dy


def test_no_layer_is_left_out():
    classes = {
        name
        for name, value in vars(course.layers).items()
        if inspect.isclass(value) and issubclass(value, Layer) and value is not Layer
    }
    assert classes == {name(entry) for entry in LAYERS}


@every_layer
@DTYPES
def test_dtype_and_shapes_are_kept(make, shape, dtype, rng):
    layer = make(rng=rng, dtype=dtype)
    x = rng.normal(size=shape).astype(dtype)
    y = layer(x)
    dx = layer.backward(np.ones_like(y))
    assert y.dtype == dx.dtype == dtype
    assert dx.shape == x.shape
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
    x = rng.normal(size=shape).astype(dtype)
    plain, dy = run(make, x)
    odd, _ = run(make, layout(x), layout(dy))
    for a, b in zip(plain, odd, strict=True):
        np.testing.assert_array_equal(a, b)


@every_layer
def test_inputs_are_left_alone(make, shape, rng):
    layer = make(rng=rng, dtype=np.float64)
    x = rng.normal(size=shape)
    dy = rng.normal(size=layer(x).shape)
    arrays = [x, dy, *layer.params.values()]
    before = [a.copy() for a in arrays]
    layer(x)
    layer.backward(dy)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


@every_layer
def test_batch_is_its_samples_one_by_one(make, shape, rng):
    """No sample sees another; the gradients of the parameters add up."""
    x = rng.normal(size=shape)
    (y, dx, *grads), dy = run(make, x)
    alone = [run(make, x[n : n + 1], dy[n : n + 1])[0] for n in range(len(x))]
    for n, (y_n, dx_n, *_) in enumerate(alone):
        np.testing.assert_allclose(y[n : n + 1], y_n, 1e-14, 1e-14)
        np.testing.assert_allclose(dx[n : n + 1], dx_n, 1e-14, 1e-14)
    for k, grad in enumerate(grads):
        total = sum(grads_n[k] for _, _, *grads_n in alone)
        np.testing.assert_allclose(grad, total, 1e-12, 1e-12)


@every_layer
@DTYPES
def test_empty_batch(make, shape, dtype):
    x = np.empty((0, *shape[1:]), dtype)
    (y, dx, *grads), _ = run(make, x)
    assert len(y) == 0 and dx.shape == x.shape
    for grad in grads:
        np.testing.assert_array_equal(grad, np.zeros_like(grad))


@every_layer
def test_gradients_are_replaced_not_added(make, shape, rng):
    x = rng.normal(size=shape)
    layer = make(rng=rng, dtype=np.float64)
    dy = rng.normal(size=layer(x).shape)
    layer.backward(dy)
    first = {key: grad.copy() for key, grad in layer.grads.items()}
    layer.backward(dy)
    for key, grad in layer.grads.items():
        np.testing.assert_array_equal(grad, first[key])


@every_layer
def test_backward_before_forward_is_refused(make, shape, rng):
    layer = make(rng=rng)
    with pytest.raises(RuntimeError, match=f"{type(layer).__name__}.*call forward first"):
        layer.backward(np.zeros(shape))


@every_layer
@pytest.mark.parametrize(
    "change, error, says",
    [
        (lambda a: a.astype(int), TypeError, "has dtype int64"),
        (lambda a: a.astype(complex), TypeError, "has dtype complex128"),
        (lambda a: a.astype(np.float16), TypeError, "has dtype float16; layers compute in"),
        (lambda a: a.tolist(), TypeError, "is a list; it must be a NumPy array"),
        (lambda a: None, TypeError, "is a NoneType; it must be a NumPy array"),
    ],
)
def test_what_is_no_float_array_is_refused(make, shape, change, error, says, rng):
    layer = make(rng=rng, dtype=np.float64)
    with pytest.raises(error, match=f"x {says}"):
        layer.forward(change(np.zeros(shape)))
    y = layer.forward(np.zeros(shape))
    with pytest.raises(error, match=f"dy {says}"):
        layer.backward(change(y))


@every_layer
def test_wrong_dy_is_refused(make, shape, rng):
    layer = make(rng=rng, dtype=np.float64)
    y = layer.forward(np.zeros(shape))
    for dy in (y[:-1], np.zeros((*y.shape[:-1], y.shape[-1] + 1)), y[..., None]):
        with pytest.raises(ValueError, match="has shape"):
            layer.backward(dy)


@every_layer
def test_dy_of_another_dtype_is_refused(make, shape, rng):
    layer = make(rng=rng, dtype=np.float32)
    y = layer.forward(np.zeros(shape, np.float32))
    if isinstance(layer, MaxPool2d | Flatten):  # they move dy and keep its dtype
        assert layer.backward(y.astype(float)).dtype == float
        return
    with pytest.raises(TypeError, match="dy is float64 but the other arrays are float32"):
        layer.backward(y.astype(float))


@pytest.mark.parametrize("make", [ReLU, LeakyReLU, ELU, Sigmoid, Tanh])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (2, 3, 4, 5, 6)])
def test_activations_take_any_shape(make, shape, rng):
    x = np.asarray(rng.normal(size=shape))
    layer = make()
    assert layer(x).shape == layer.backward(x).shape == shape


def types_within(loops, *arguments):
    """Return the type of every variable of compiled loops, as numba infers them."""
    found = {}

    def stop(self, state):
        found.update(state.typemap)
        raise NotImplementedError("types are enough; machine code takes longer")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(NotImplementedError):
        patch.setattr(NativeLowering, "run_pass", stop)
        njit(loops.py_func).compile(tuple(map(typeof, arguments)))
    return {str(kind) for kind in found.values()}


@every_layer
def test_float32_loops_compute_in_float32(make, shape, rng, monkeypatch):
    """No variable of a loop is float64: it would be slower, and no result would show it."""
    layer = make(rng=rng, dtype=np.float32)
    module = sys.modules[type(layer).__module__]
    seen = []

    def look(loops, count, *arguments, steps=0):
        seen.append(loops.py_func.__name__)
        found = types_within(loops, *arguments, 0, count)
        assert not {kind for kind in found if "float64" in kind}, seen[-1]
        loops(*arguments, 0, count)

    monkeypatch.setattr(module, "fill", look, raising=not isinstance(layer, Flatten))
    layer.backward(layer(rng.normal(size=shape).astype(np.float32)))
    assert isinstance(layer, Flatten) or len(seen) >= 2


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
