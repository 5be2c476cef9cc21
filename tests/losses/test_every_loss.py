"""What holds for every loss, whatever it computes."""

import importlib

import numpy as np
import pytest

import course.losses
from course import device
from course.checks import slope
from course.losses import (
    binary_cross_entropy_with_logits,
    kl_divergence,
    mean_squared_error,
    multiclass_hinge,
    perceptron_loss,
    softmax_cross_entropy,
)
from tests.layers.test_every_layer import (
    backwards,
    fortran,
    read_only,
    sliced,
    transposed,
    types_within,
    unaligned,
)

N, C = 6, 5


def labels(rng, dtype):
    return rng.integers(C, size=N)


def rows(rng, dtype):
    p = rng.random((N, C)) + 0.1
    return (p / p.sum(axis=1, keepdims=True)).astype(dtype)


def real(rng, dtype):
    return rng.normal(size=(N, C)).astype(dtype)


def bits(rng, dtype):
    return rng.integers(2, size=(N, C)).astype(dtype)


WEIGHT = np.array([0.5, 2.0, 0.0, 1.0, 3.0])


def weighted(s, t):
    weight = WEIGHT.astype(getattr(s, "dtype", float))
    return softmax_cross_entropy(s, t, weight, 0.1)


def yes_weighs(z, t):
    return binary_cross_entropy_with_logits(z, t, WEIGHT)


LOSSES = {  # name: what is called, and how its second argument is drawn
    "softmax_cross_entropy": (softmax_cross_entropy, labels),
    "softmax_cross_entropy-distributions": (softmax_cross_entropy, rows),
    "softmax_cross_entropy-weighted": (weighted, labels),
    "softmax_cross_entropy-weighted-distributions": (weighted, rows),
    "binary_cross_entropy_with_logits": (binary_cross_entropy_with_logits, bits),
    "binary_cross_entropy_with_logits-pos_weight": (yes_weighs, rows),
    "mean_squared_error": (mean_squared_error, real),
    "multiclass_hinge": (multiclass_hinge, labels),
    "perceptron_loss": (perceptron_loss, labels),
    "kl_divergence": (kl_divergence, rows),
}
every_loss = pytest.mark.parametrize(
    "loss_of, targets", [pytest.param(*loss, id=key) for key, loss in LOSSES.items()]
)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def test_no_loss_is_left_out():
    tested = {key.partition("-")[0] for key in LOSSES}
    assert tested == set(course.losses.__all__) - {"log_softmax"}


@every_loss
@DTYPES
def test_loss_is_a_number_and_the_gradient_has_the_shape(loss_of, targets, dtype, rng):
    x = real(rng, dtype)
    loss, dx = loss_of(x, targets(rng, dtype))
    assert type(loss) is float
    assert dx.shape == x.shape and dx.dtype == dtype


@every_loss
def test_gradient_is_the_slope(loss_of, targets, rng):
    x, t = real(rng, float), targets(rng, float)
    _, dx = loss_of(x, t)
    np.testing.assert_allclose(dx, slope(lambda: loss_of(x, t)[0], x), 1e-7, 1e-9)


@every_loss
def test_float32_is_float64_to_its_last_digits(loss_of, targets, rng):
    x, t = real(rng, np.float32), targets(rng, np.float32)
    loss, dx = loss_of(x, t)
    wide = t.astype(float) if t.dtype.kind == "f" else t
    expected, gradient = loss_of(x.astype(float), wide)
    np.testing.assert_allclose(loss, expected, 2e-6)
    np.testing.assert_allclose(dx, gradient, 0, 2e-6 * np.abs(gradient).max())


@every_loss
@DTYPES
@pytest.mark.parametrize(
    "layout", [fortran, transposed, backwards, sliced, read_only, unaligned]
)
def test_memory_layout_changes_no_bit(loss_of, targets, dtype, layout, rng):
    x, t = real(rng, dtype), targets(rng, dtype)
    loss, dx = loss_of(x, t)
    again, odd = loss_of(layout(x), layout(t) if t.ndim == 2 else t)
    assert again == loss
    np.testing.assert_array_equal(odd, dx)


@every_loss
def test_arguments_are_left_alone(loss_of, targets, rng):
    x, t = real(rng, float), targets(rng, float)
    before = x.copy(), t.copy()
    loss_of(x, t)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(t, before[1])


@every_loss
@DTYPES
def test_any_number_of_threads_gives_the_same_bits(
    loss_of, targets, dtype, rng, monkeypatch
):
    monkeypatch.setattr(device, "SMALL", 0)
    x, t, before = real(rng, dtype), targets(rng, dtype), device.get_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            device.set_threads(threads)
            found.append(loss_of(x, t))
    finally:
        device.set_threads(before)
    for loss, dx in found[1:]:
        assert loss == found[0][0]
        np.testing.assert_array_equal(dx, found[0][1])


@every_loss
def test_float32_loops_compute_in_float32(loss_of, targets, rng, monkeypatch):
    """No variable of a loop is float64: it would be slower, and no result would show it."""
    seen = []

    def look(loops, count, *arguments, steps=0):
        found = types_within(loops, *arguments, 0, count)
        assert not {kind for kind in found if "float64" in kind}
        seen.append(found)
        loops(*arguments, 0, count)

    for module in {"cross_entropy", "binary_cross_entropy", "mean_squared_error"} | {
        *("hinge", "perceptron", "kl_divergence")
    }:
        monkeypatch.setattr(
            importlib.import_module(f"course.losses.{module}"), "fill", look
        )
    loss_of(real(rng, np.float32), targets(rng, np.float32))
    assert seen


@every_loss
@DTYPES
def test_nan_shows(loss_of, targets, dtype, rng):
    t = targets(rng, dtype)
    for place in ((0, 0), (2, 3), (N - 1, C - 1)):
        x = real(rng, dtype)
        x[place] = np.nan
        assert np.isnan(loss_of(x, t)[0])


@every_loss
@DTYPES
def test_huge_numbers_do_not_overflow(loss_of, targets, dtype, rng):
    x = (1e4 * rng.choice([-1, 1], (N, C))).astype(dtype)
    loss, dx = loss_of(x, targets(rng, dtype))
    assert np.isfinite(loss)
    assert np.isfinite(dx).all()


@every_loss
def test_mean_over_the_batch(loss_of, targets, rng):
    """A batch twice over has the same loss, and half the gradient for each of its rows."""
    x, t = real(rng, float), targets(rng, float)
    loss, dx = loss_of(x, t)
    twice, dxx = loss_of(np.concatenate([x, x]), np.concatenate([t, t]))
    np.testing.assert_allclose(twice, loss, 1e-14)
    np.testing.assert_allclose(dxx, np.concatenate([dx, dx]) / 2, 1e-13, 1e-16)


@every_loss
def test_what_cannot_be_is_refused(loss_of, targets, rng):
    x, t = real(rng, float), targets(rng, float)
    with pytest.raises(ValueError, match="mean loss of an empty batch does not exist"):
        loss_of(x[:0], t[:0])
    with pytest.raises(ValueError, match="has shape"):
        loss_of(x, t[:-1])
    with pytest.raises(TypeError, match="has dtype int64; layers compute in"):
        loss_of(x.astype(int), t)
    with pytest.raises(TypeError, match="is a list; it must be a NumPy array"):
        loss_of(x.tolist(), t)
