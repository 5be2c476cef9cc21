"""Every loss on the GPU, or in the simulator; what is right, the CPU says in float64."""

from functools import partial

import numpy as np
import pytest

import course.losses
from course.cuda import CudaArray
from course.device import host
from course.losses import (
    binary_cross_entropy_with_logits,
    kl_divergence,
    log_softmax,
    mean_squared_error,
    multiclass_hinge,
    perceptron_loss,
    softmax_cross_entropy,
)
from course.losses.base import mean
from tests.cuda.every import RUNS, close, every_place, moved, on_cuda

N, C = 3, 41  # more classes than a warp has lanes


def labels(rng):
    return rng.integers(C, size=N)


def narrow_labels(rng):
    return labels(rng).astype(np.int32)


def rows(rng):
    p = rng.random((N, C)) * (rng.random((N, C)) > 0.2)
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def real(rng):
    return rng.normal(size=(N, C)).astype(np.float32)


def bits(rng):
    return rng.integers(2, size=(N, C))


WEIGHT = np.arange(C, dtype=np.float32) % 4 / 2  # some are 0
WEIGHTED = {"weight": WEIGHT, "label_smoothing": 0.25}

LOSSES = {  # name: what is called, how its second argument is drawn, and its options
    "softmax_cross_entropy": (softmax_cross_entropy, labels, {}),
    "softmax_cross_entropy-int32": (softmax_cross_entropy, narrow_labels, {}),
    "softmax_cross_entropy-rows": (softmax_cross_entropy, rows, {}),
    "softmax_cross_entropy-smooth": (softmax_cross_entropy, labels, {"label_smoothing": 1}),
    "softmax_cross_entropy-weight": (softmax_cross_entropy, labels, {"weight": WEIGHT}),
    "softmax_cross_entropy-all": (softmax_cross_entropy, narrow_labels, WEIGHTED),
    "softmax_cross_entropy-rows-all": (softmax_cross_entropy, rows, WEIGHTED),
    "binary_cross_entropy_with_logits": (binary_cross_entropy_with_logits, rows, {}),
    "binary_cross_entropy_with_logits-pos_weight": (
        *(binary_cross_entropy_with_logits, bits),
        {"pos_weight": WEIGHT},
    ),
    "mean_squared_error": (mean_squared_error, real, {}),
    "multiclass_hinge": (multiclass_hinge, labels, {}),
    "multiclass_hinge-margin": (multiclass_hinge, narrow_labels, {"margin": 0.5}),
    "perceptron_loss": (perceptron_loss, labels, {}),
    "kl_divergence": (kl_divergence, rows, {}),
}
NAMES = "loss_of, targets, options"
ALL = [pytest.param(*loss, id=key) for key, loss in LOSSES.items()]
every_loss = pytest.mark.parametrize(NAMES, ALL)
every_loss_of_labels = pytest.mark.parametrize(
    NAMES, [loss for loss in ALL if loss.values[1] in (labels, narrow_labels)]
)


def wide(a):
    """Return a float array in float64, anything else as it is."""
    return a.astype(float) if getattr(a, "dtype", None) == np.float32 else a


def run_on_cuda(loss_of, x, t, options):
    """Return the loss and its gradient on cuda."""
    options = {key: moved(value) for key, value in options.items()}
    loss, dx = loss_of(moved(x), moved(t), **options)
    assert type(loss) is float and isinstance(dx, CudaArray)
    return loss, dx


def test_no_loss_is_left_out():
    assert {key.partition("-")[0] for key in LOSSES} == (
        set(course.losses.__all__) - {"log_softmax"}
    )


@every_place
@every_loss
def test_loss_is_the_same_on_cuda(place, loss_of, targets, options, rng):
    x, t = real(rng), targets(rng)
    found = on_cuda(place, lambda: run_on_cuda(loss_of, x, t, options))
    assert found[1].dtype == np.float32
    options = {key: wide(value) for key, value in options.items()}
    close(map(np.asarray, found), map(np.asarray, loss_of(wide(x), wide(t), **options)))


@every_place
@every_loss
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e4, -1e4])
def test_nan_infinity_and_huge_scores(place, loss_of, targets, options, wrong, rng):
    x, t = real(rng), targets(rng)
    x[0, 2] = x[1, 35] = wrong
    cpu = loss_of(x, t, **options)
    found = on_cuda(place, lambda: run_on_cuda(loss_of, x, t, options), RUNS[:1])
    for a, b in zip(map(np.asarray, found), map(np.asarray, cpu), strict=True):
        same = np.isfinite(b)
        np.testing.assert_array_equal(a[~same], b[~same])
        np.testing.assert_allclose(a[same], b[same], 2e-6, 1e-6)


@every_place
@pytest.mark.parametrize(
    "weight", [2.5, np.float32(2.5), (7,), (3, 1), (2, 1, 1), (2, 3, 7)]
)
def test_yes_weighs_what_fits_a_sample(place, weight, rng):
    z = rng.normal(size=(3, 2, 3, 7)).astype(np.float32)
    t = rng.random(z.shape).astype(np.float32)
    if isinstance(weight, tuple):
        weight = rng.random(weight).astype(np.float32)
    options = {"pos_weight": weight}
    loss_of = binary_cross_entropy_with_logits
    found = on_cuda(place, lambda: run_on_cuda(loss_of, z, t, options))
    close(map(np.asarray, found), map(np.asarray, loss_of(wide(z), wide(t), wide(weight))))


@every_place
@pytest.mark.parametrize("right, loss", [((1, 0), 0.0), ((0, 1), np.inf)])
def test_sure_and_right_costs_nothing(place, right, loss):
    z, t = np.array([[np.inf, -np.inf]], np.float32), np.array([right])
    call = partial(run_on_cuda, binary_cross_entropy_with_logits, z, t, {})
    assert on_cuda(place, call)[0] == loss


@every_place
@every_loss_of_labels
@pytest.mark.parametrize("low, high", [(-1, C), (-(2**31), 2**31 - 1)])
def test_a_label_that_is_no_class_makes_its_row_nan(
    place, loss_of, targets, options, low, high, rng
):
    x, t = real(rng), targets(rng)
    t[0], t[2] = low, high
    loss, dx = on_cuda(place, lambda: run_on_cuda(loss_of, x, t, options), RUNS[2:])
    assert np.isnan(loss)
    assert np.isnan(dx[[0, 2]]).all() and np.isfinite(dx[1]).all()


@every_place
@every_loss
def test_arrays_of_two_devices_are_refused(place, loss_of, targets, options, rng):
    x, t = real(rng), targets(rng)

    def refused():
        there = {key: moved(value) for key, value in options.items()}
        one, other = r"\w+ is on cpu but the other arrays are on cuda", "on cuda but .* cpu"
        with pytest.raises(TypeError, match=one):
            loss_of(moved(x), t, **there)
        with pytest.raises(TypeError, match=other):
            loss_of(x, moved(t), **options)
        if any(isinstance(value, np.ndarray) for value in options.values()):
            with pytest.raises(TypeError, match=one):
                loss_of(moved(x), moved(t), **options)
            with pytest.raises(TypeError, match=other):
                loss_of(x, t, **there)

    on_cuda(place, refused, RUNS[:1])


@every_place
@every_loss
def test_what_cannot_be_is_refused_as_on_the_cpu(place, loss_of, targets, options, rng):
    x, t = real(rng), targets(rng)

    def refused():
        there = {key: moved(value) for key, value in options.items()}
        with pytest.raises(ValueError, match="mean loss of an empty batch does not exist"):
            loss_of(moved(x[:0]), moved(t[:0]), **there)
        with pytest.raises(ValueError, match="has shape"):
            loss_of(moved(x), moved(t[:-1]), **there)
        with pytest.raises(TypeError, match="has dtype int64; layers compute in"):
            loss_of(moved(x.astype(int)), moved(t), **there)

    on_cuda(place, refused, RUNS[:1])


@every_place
def test_first_of_equal_scores_is_the_largest(place, rng):
    s, t = np.zeros((N, C), np.float32), np.array([4, 0, 40])
    s[2, [33, 5, 38]] = 1
    loss, ds = on_cuda(place, lambda: run_on_cuda(perceptron_loss, s, t, {}))
    expected = np.zeros((N, C), np.float32)
    expected[[0, 2], [0, 5]], expected[[0, 2], [4, 40]] = 1, -1
    np.testing.assert_array_equal(ds, expected / np.float32(3))
    assert loss == np.float32(1) / 3


@every_place
def test_first_nan_is_the_largest_score(place):
    s, t = np.zeros((1, C), np.float32), np.array([8])
    s[0, 3], s[0, [36, 38]] = 9, np.nan
    loss, ds = on_cuda(place, lambda: run_on_cuda(perceptron_loss, s, t, {}))
    assert np.isnan(loss)
    assert ds[0, 36] == 1 and ds[0, 8] == -1 and np.abs(ds).sum() == 2


@every_place
def test_weights_that_add_up_to_nothing_give_nan(place, rng):
    t = np.full(N, 3)
    options = {"weight": np.float32(np.arange(C) != 3)}
    found = on_cuda(
        place, lambda: run_on_cuda(softmax_cross_entropy, real(rng), t, options), RUNS[:1]
    )
    assert np.isnan(found[0]) and np.isnan(found[1]).all()


@every_place
def test_log_softmax_on_cuda(place, rng):
    s = 100 * real(rng)
    found = on_cuda(place, lambda: log_softmax(moved(s)))
    close([found], [log_softmax(wide(s))])


@every_place
@pytest.mark.parametrize("count", [1, 32, 33, 257, 1000])
def test_mean_of_many_losses(place, count, rng):
    loss = rng.random(count).astype(np.float32)
    found = on_cuda(place, lambda: mean(moved(loss), count))
    np.testing.assert_allclose(found, loss.astype(float).mean(), 1e-6)


@every_place
def test_one_number_is_copied(place, rng, monkeypatch):
    """The loss: that is why a loss on cuda costs a wait."""
    copied = []

    def counted(a):
        copied.append(a.size)
        return host(a)

    monkeypatch.setattr(course.losses.base, "host", counted)
    t = labels(rng)
    on_cuda(
        *(place, lambda: run_on_cuda(softmax_cross_entropy, real(rng), t, WEIGHTED)),
        RUNS[:1],
    )
    assert set(copied) == {1}


@every_place
def test_float64_stays_float64(place, rng):
    s, t = wide(real(rng)), labels(rng)
    found = on_cuda(place, lambda: run_on_cuda(softmax_cross_entropy, s, t, {}), RUNS[:1])
    assert found[1].dtype == np.float64
    close(map(np.asarray, found), map(np.asarray, softmax_cross_entropy(s, t)), 1e-14)
