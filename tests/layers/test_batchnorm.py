"""course/layers/batchnorm.py: (1) to (3) against NumPy, (4) to (6) against slopes."""

import numpy as np
import pytest

from course import device
from course.checks import check_layer
from course.layers import (
    BatchNorm1d,
    BatchNorm2d,
    batchnorm,
    batchnorm_backward,
    batchnorm_forward,
)

LAYERS_TAKE = [
    pytest.param((4, 3), id="rows"),
    pytest.param((2, 1), id="two-rows"),
    pytest.param((37, 5), id="many-rows"),
    pytest.param((3, 4, 5), id="signals"),
    pytest.param((1, 2, 2), id="one-signal"),
    pytest.param((3, 4, 5, 2), id="images"),
    pytest.param((1, 3, 4, 4), id="one-image"),
    pytest.param((6, 2, 1, 1), id="one-pixel"),
    pytest.param((2, 2, 1, 7), id="one-line"),
    pytest.param((2, 1, 19, 23), id="one-channel"),
]
FUNCTIONS_TAKE = [*LAYERS_TAKE, pytest.param((2, 3, 2, 3, 2), id="volumes")]
SHAPES = pytest.mark.parametrize("shape", FUNCTIONS_TAKE)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
CLOSE = {np.float32: 2e-6, np.float64: 1e-12}  # relative to the largest


def columns(a, ndim):
    """Return one number for each channel, shaped so that it meets axis 1."""
    return np.expand_dims(a, [axis for axis in range(ndim) if axis != 1])


def oracle(x, w, b, mean, var, eps):
    """Equation (3) in NumPy, in float64."""
    w, b, mean, var = (columns(np.float64(a), x.ndim) for a in (w, b, mean, var))
    return (x - mean) / np.sqrt(var + eps) * w + b


def moments(x):
    """Return equations (1) and (2) in NumPy, in float64."""
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    return np.float64(x).mean(axes), np.float64(x).var(axes)


def assert_close(a, expected, dtype):
    assert a.dtype == dtype
    assert a.shape == expected.shape
    np.testing.assert_allclose(a, expected, 0, CLOSE[dtype] * np.abs(expected).max())


def drawn(rng, shape, dtype):
    """Return x, weight, bias, running_mean, running_var."""
    C = shape[1]
    x = rng.normal(3, 2, shape).astype(dtype)
    w, b, running_mean = rng.normal(size=(3, C)).astype(dtype)
    return x, w, b, running_mean, rng.uniform(0.5, 2, C).astype(dtype)


@SHAPES
@DTYPES
def test_training_normalises_with_the_batch(shape, dtype, rng):
    x, w, b, running_mean, running_var = drawn(rng, shape, dtype)
    before = running_mean.copy(), running_var.copy()
    y, mean, invstd = batchnorm_forward(
        x, w, b, running_mean, running_var, True, momentum=0.3, eps=0.01
    )
    batch_mean, batch_var = moments(x)
    assert_close(y, oracle(x, w, b, batch_mean, batch_var, 0.01), dtype)
    assert_close(mean, batch_mean, dtype)
    assert_close(invstd, (batch_var + 0.01) ** -0.5, dtype)
    count = x.size // shape[1]
    assert_close(running_mean, 0.7 * before[0] + 0.3 * batch_mean, dtype)
    unbiased = batch_var * count / (count - 1)
    assert_close(running_var, 0.7 * before[1] + 0.3 * unbiased, dtype)


@SHAPES
@DTYPES
def test_in_use_it_normalises_with_the_running_statistics(shape, dtype, rng):
    x, w, b, running_mean, running_var = drawn(rng, shape, dtype)
    before = running_mean.copy(), running_var.copy()
    y, mean, invstd = batchnorm_forward(x, w, b, running_mean, running_var, False)
    assert_close(y, oracle(x, w, b, *before, 1e-5), dtype)
    np.testing.assert_array_equal(running_mean, before[0])
    np.testing.assert_array_equal(running_var, before[1])
    np.testing.assert_array_equal(mean, before[0])
    assert not np.shares_memory(mean, running_mean)
    assert_close(invstd, (before[1] + 1e-5) ** -0.5, dtype)


def layer_for(shape, rng, **keywords):
    """Return a float64 layer with random parameters and running statistics."""
    make = BatchNorm2d if len(shape) == 4 else BatchNorm1d
    layer = make(shape[1], dtype=np.float64, **keywords)
    for a in (*layer.params.values(), layer.buffers["running_mean"]):
        a[:] = rng.normal(size=a.shape)
    layer.buffers["running_var"][:] = rng.uniform(0.5, 2, shape[1])
    return layer


@pytest.mark.parametrize("shape", LAYERS_TAKE)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_backward_is_the_slope(shape, affine, training, rng):
    layer = layer_for(shape, rng, affine=affine)
    check_layer(layer.train() if training else layer.eval(), rng.normal(size=shape), rng)


@SHAPES
@DTYPES
def test_backward_in_training_feels_no_shift_and_no_stretch(shape, dtype, rng):
    """y stays as it is if a channel is moved or, eps apart, stretched: slope 0."""
    x, w, *_ = drawn(rng, shape, dtype)
    dy = rng.normal(size=shape).astype(dtype)
    _, mean, invstd = batchnorm_forward(x, w, None, None, None, True, eps=0)
    dx, _, _ = batchnorm_backward(dy, x, w, mean, invstd, True)
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    close = 10 * CLOSE[dtype] * (np.abs(dx).sum(axes) + 1)
    np.testing.assert_array_less(np.abs(dx.sum(axes)), close)
    along = (np.float64(dx) * (x - columns(mean, x.ndim))).sum(axes)
    np.testing.assert_array_less(np.abs(along), close)


@SHAPES
@pytest.mark.parametrize("training", [True, False])
@DTYPES
def test_as_pytorch(shape, training, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    arrays = drawn(rng, shape, dtype)
    dy = rng.normal(size=shape).astype(dtype)
    x, w, b, *running = (torch.tensor(a) for a in arrays)
    leaves = [a.requires_grad_() for a in (x, w, b)]
    expected = torch.nn.functional.batch_norm(x, *running, w, b, training)
    gradients = torch.autograd.grad(expected, leaves, torch.from_numpy(dy))
    y, mean, invstd = batchnorm_forward(*arrays, training)
    found = batchnorm_backward(dy, arrays[0], arrays[1], mean, invstd, training)
    close = 20 * CLOSE[dtype]
    for a, t in zip((y, *found), (expected, *gradients), strict=True):
        np.testing.assert_allclose(a, t.detach(), 0, close * max(1, np.abs(a).max()))
    for a, t in zip(arrays[3:], running, strict=True):
        np.testing.assert_allclose(a, t, close, close)


@pytest.mark.parametrize("momentum", [0.1, 0.25, None])
@pytest.mark.parametrize("track", [True, False])
def test_layer_as_pytorch_over_batches(momentum, track, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    keywords = {"momentum": momentum, "track_running_stats": track}
    ours = BatchNorm2d(3, 1e-3, **keywords, dtype=np.float64)
    theirs = torch.nn.BatchNorm2d(3, 1e-3, **keywords, dtype=torch.float64)
    for step in range(5):
        x = rng.normal(step, step + 1, (4, 3, 2, 5))
        np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach(), 1e-10)
    ours.eval()
    theirs.eval()
    np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach(), 1e-10)
    state = theirs.state_dict()
    assert state.keys() == ours.params.keys() | ours.buffers.keys()
    for key, a in ours.buffers.items():
        assert a.shape == tuple(state[key].shape)
        np.testing.assert_allclose(a, state[key], 1e-12)


@DTYPES
@pytest.mark.parametrize("shape", [(64, 3), (200, 3), (8, 3, 16, 16)])
def test_mean_may_be_far_larger_than_the_deviation(shape, dtype, rng):
    """The mean of the squares less the square of the mean would have no digit left."""
    x = (1e4 + 1e-2 * rng.normal(size=shape)).astype(dtype)
    y, _, invstd = batchnorm_forward(x, None, None, None, None, True, eps=1e-8)
    mean, var = moments(x)
    expected = oracle(x, np.ones(3), np.zeros(3), mean, var, 1e-8)
    rounding = {np.float32: 4e-6, np.float64: 1e-9}[dtype]
    np.testing.assert_allclose(invstd, (var + 1e-8) ** -0.5, rounding)
    np.testing.assert_allclose(y, expected, 0, rounding)


@DTYPES
@pytest.mark.parametrize("threads", [1, 3])
def test_more_rows_and_channels_than_are_added_at_once(dtype, threads, rng, monkeypatch):
    """Rows (N, C) have loops of their own, which add pieces of some channels."""
    monkeypatch.setattr(device, "_threads", threads)
    shape = 2 * batchnorm.PIECE + 3, batchnorm.WIDTH + 5
    x, w, b, *_ = drawn(rng, shape, dtype)
    x[0] = 1e3  # unlike the others
    dy = rng.normal(size=shape).astype(dtype)
    y, mean, invstd = batchnorm_forward(x, w, b, None, None, True)
    dx, dw, db = batchnorm_backward(dy, x, w, mean, invstd, True)
    x, dy, w = np.float64(x), np.float64(dy), np.float64(w)
    assert_close(y, oracle(x, w, b, *moments(x), 1e-5), dtype)
    scale = (x.var(0) + 1e-5) ** -0.5
    normal = (x - x.mean(0)) * scale
    assert_close(db, dy.sum(0), dtype)
    assert_close(dw, (dy * normal).sum(0), dtype)
    centred = dy - dy.mean(0) - normal * (dy * normal).mean(0)
    assert_close(dx, w * scale * centred, dtype)


def test_first_image_may_be_unlike_the_others(rng):
    """Distances are taken from its mean: of N images, N rounding errors at the most."""
    x = (1e4 + 1e-2 * rng.normal(size=(64, 2, 8, 8))).astype(np.float32)
    x[0] = 0
    y, _, _ = batchnorm_forward(x, None, None, None, None, True)
    expected = oracle(x, np.ones(2), np.zeros(2), *moments(x), 1e-5)
    rounding = len(x) * np.finfo(np.float32).eps
    np.testing.assert_allclose(y, expected, 0, rounding * np.abs(expected).max())


def test_first_rows_may_be_unlike_the_others(rng):
    """Distances are taken from their mean: a rounding error for every piece of rows."""
    pieces = 8
    x = (1e4 + 1e-2 * rng.normal(size=(pieces * batchnorm.PIECE, 2))).astype(np.float32)
    x[: batchnorm.PIECE] = 0
    y, _, _ = batchnorm_forward(x, None, None, None, None, True)
    expected = oracle(x, np.ones(2), np.zeros(2), *moments(x), 1e-5)
    rounding = 2 * pieces * np.finfo(np.float32).eps
    np.testing.assert_allclose(y, expected, 0, rounding * np.abs(expected).max())


@DTYPES
@pytest.mark.parametrize("value", [0, 0.1, -1e4, 1e4, 3e7])
def test_constant_channel_becomes_the_bias(value, dtype):
    x = np.full((5, 2, 3, 3), value, dtype)
    b = np.array([0.5, -2], dtype)
    y, _, invstd = batchnorm_forward(x, None, b, None, None, True)
    np.testing.assert_allclose(y, np.broadcast_to(columns(b, 4), x.shape), 1e-5)
    dx, dw, _ = batchnorm_backward(np.ones_like(x), x, None, b * 0 + x.max(), invstd, True)
    np.testing.assert_allclose(dx, 0, atol=1e-4)
    np.testing.assert_array_equal(dw, 0)


@DTYPES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 1, 0, 0), (2, 1, 1, 1)])
def test_nan_or_infinity_takes_its_channel(value, place, dtype, rng):
    x = rng.normal(size=(3, 3, 2, 2)).astype(dtype)
    x[place] = value
    y, mean, _ = batchnorm_forward(x, None, None, None, None, True)
    assert np.isnan(y[:, 1]).all()
    assert np.isfinite(y[:, [0, 2]]).all()
    assert not np.isfinite(mean[1])
    y, *_ = batchnorm_forward(x, None, None, np.zeros(3, dtype), np.ones(3, dtype), False)
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(x))


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0, 4), (2, 0, 4, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_empty_batch_moves_nothing(shape, training):
    C = shape[1]
    x, running = np.empty(shape), (np.full(C, 5.0), np.full(C, 6.0))
    y, mean, invstd = batchnorm_forward(x, None, None, *running, training)
    assert y.shape == shape
    np.testing.assert_array_equal(running, np.repeat([[5.0], [6.0]], C, axis=1))
    dx, dw, db = batchnorm_backward(x, x, None, mean, invstd, training)
    assert dx.shape == shape
    np.testing.assert_array_equal(dw, np.zeros(C))
    np.testing.assert_array_equal(db, np.zeros(C))


def test_empty_batch_is_not_counted():
    layer = BatchNorm2d(3)
    layer(np.empty((0, 3, 4, 4), np.float32))
    assert layer.buffers["num_batches_tracked"] == 0


def test_layer_starts_as_the_identity_and_forgets_nothing(rng):
    layer = BatchNorm2d(3, dtype=np.float64).eval()
    assert layer.params.keys() == {"weight", "bias"}
    assert list(layer.buffers) == ["running_mean", "running_var", "num_batches_tracked"]
    x = rng.normal(size=(2, 3, 4, 4))
    np.testing.assert_allclose(layer(x), x / np.sqrt(1 + 1e-5), 1e-14)
    buffers = dict(layer.buffers)
    layer.train()(x)
    for key, a in layer.buffers.items():  # changed in place: who saves them sees it
        assert a is buffers[key]
    assert layer.buffers["num_batches_tracked"] == 1


def test_backward_uses_the_mode_of_forward(rng):
    """A switch in between does not change what is differentiated."""
    x, dy = rng.normal(size=(2, 5, 3))
    layer = BatchNorm1d(3, dtype=np.float64)
    layer(x)
    expected = layer.backward(dy)
    np.testing.assert_array_equal(layer.eval().backward(dy), expected)
    layer(x)
    assert not np.allclose(layer.train().backward(dy), expected)


X, ONE = np.zeros((2, 3, 4, 4)), np.ones(3)


@pytest.mark.parametrize(
    "arguments, keywords, error, says",
    [
        (
            (X[0, 0, 0], None, None, ONE, ONE),
            {},
            ValueError,
            r"x has shape \(4,\); it must",
        ),
        (
            (X, ONE[:2], None, ONE, ONE),
            {},
            ValueError,
            r"weight has shape \(2,\); one numb",
        ),
        (
            (X, None, ONE[:2], ONE, ONE),
            {},
            ValueError,
            r"bias has shape \(2,\); one number",
        ),
        ((X, None, None, ONE[:2], ONE), {}, ValueError, "running_mean has shape"),
        ((X, None, None, ONE, ONE[:2]), {}, ValueError, "running_var has shape"),
        ((X, None, None, ONE[None], ONE), {}, ValueError, "running_mean has shape"),
        ((X, np.float32(ONE), None, ONE, ONE), {}, TypeError, "weight is float32 but"),
        (
            (X, None, None, ONE, np.float32(ONE)),
            {},
            TypeError,
            "running_var is float32 but",
        ),
        ((X, None, None, ONE, None), {}, ValueError, "both running_mean and running_var"),
        ((X, None, None, None, ONE), {}, ValueError, "both running_mean and running_var"),
        (
            (X, None, None, ONE, ONE),
            {"eps": -1},
            ValueError,
            "eps must be at least 0, not -",
        ),
        (
            (X, None, None, ONE, ONE),
            {"eps": "1"},
            TypeError,
            "eps must be a number, not '1'",
        ),
        (
            (X, None, None, ONE, ONE),
            {"momentum": None},
            TypeError,
            "momentum must be a numb",
        ),
        (
            (X[:1, :, :1, :1], None, None, ONE, ONE),
            {},
            ValueError,
            r"x has shape \(1, 3, 1, 1\): one value per channel has no variance; train on",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, keywords, error, says):
    with pytest.raises(error, match=says):
        batchnorm_forward(*arguments, True, **keywords)


def test_without_running_statistics_there_is_only_training():
    with pytest.raises(ValueError, match="without running_mean and running_var there is"):
        batchnorm_forward(X, None, None, None, None, False)


def test_one_value_is_enough_in_use():
    y, *_ = batchnorm_forward(np.full((1, 3), 4.0), None, None, ONE, ONE * 9, False, eps=0)
    np.testing.assert_array_equal(y, np.ones((1, 3)))


@pytest.mark.parametrize(
    "make, shape, says",
    [
        (BatchNorm2d, (2, 3, 4), r"x has shape \(2, 3, 4\); it must be \(N, C, H, W\)"),
        (BatchNorm2d, (2, 3), r"it must be \(N, C, H, W\)"),
        (BatchNorm1d, (2, 3, 4, 4), r"it must be \(N, C\) or \(N, C, L\)"),
        (BatchNorm1d, (2, 4), "x has 4 channels, the layer has 3"),
        (BatchNorm2d, (2, 1, 4, 4), "x has 1 channels, the layer has 3"),
    ],
)
def test_layer_refuses_another_shape(make, shape, says):
    with pytest.raises(ValueError, match=says):
        make(3)(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "keywords, error, says",
    [
        ({"num_features": 0}, ValueError, "num_features must be at least 1"),
        ({"num_features": 2.0}, TypeError, "num_features must be a whole number"),
        ({"num_features": 2, "eps": None}, TypeError, "eps must be a number"),
        ({"num_features": 2, "momentum": "x"}, TypeError, "momentum must be a number"),
    ],
)
def test_impossible_layer_is_refused(keywords, error, says):
    with pytest.raises(error, match=says):
        BatchNorm2d(**keywords)
