"""course/layers/groupnorm.py: (1) to (3) against NumPy, (4) to (6) against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import GroupNorm, groupnorm_backward, groupnorm_forward

SHAPES = pytest.mark.parametrize(
    "shape, G",
    [
        pytest.param((2, 4, 3, 2), 2, id="two-groups"),
        pytest.param((2, 4, 3, 2), 1, id="one-group"),
        pytest.param((2, 4, 3, 2), 4, id="a-group-for-each-channel"),
        pytest.param((3, 6), 2, id="rows"),
        pytest.param((1, 2), 1, id="two-numbers"),
        pytest.param((2, 6, 5), 3, id="signals"),
        pytest.param((2, 2, 17, 13), 1, id="large-planes"),
        pytest.param((1, 35, 1, 1), 5, id="one-pixel"),
    ],
)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
CLOSE = {np.float32: 2e-6, np.float64: 1e-12}  # relative to the largest


def oracle(x, G, w, b, eps):
    """Equations (1) to (3) in NumPy, in float64: y, mean, invstd."""
    y = np.empty(x.shape)
    mean, invstd = np.empty((2, len(x), G))
    channels = np.array_split(np.arange(x.shape[1]), G)
    for n, image in enumerate(np.float64(x)):
        for g, group in enumerate(channels):
            mean[n, g] = image[group].mean()
            invstd[n, g] = (image[group].var() + eps) ** -0.5
            for c in group:
                y[n, c] = (image[c] - mean[n, g]) * invstd[n, g] * w[c] + b[c]
    return y, mean, invstd


def assert_close(a, expected, dtype):
    assert a.dtype == dtype
    assert a.shape == expected.shape
    np.testing.assert_allclose(a, expected, 0, CLOSE[dtype] * np.abs(expected).max())


def drawn(rng, shape, dtype):
    """Return x, weight and bias."""
    w, b = rng.normal(size=(2, shape[1])).astype(dtype)
    return rng.normal(3, 2, shape).astype(dtype), w, b


@SHAPES
@DTYPES
def test_forward_is_the_definition(shape, G, dtype, rng):
    x, w, b = drawn(rng, shape, dtype)
    found = groupnorm_forward(x, G, w, b, 0.01)
    for a, expected in zip(found, oracle(x, G, w, b, 0.01), strict=True):
        assert_close(a, expected, dtype)


@SHAPES
@pytest.mark.parametrize("affine", [True, False])
def test_backward_is_the_slope(shape, G, affine, rng):
    layer = GroupNorm(G, shape[1], affine=affine, dtype=np.float64)
    for a in layer.params.values():
        a[:] = rng.normal(size=a.shape)
    check_layer(layer, rng.normal(size=shape), rng)


@SHAPES
@DTYPES
def test_as_pytorch(shape, G, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, w, b = drawn(rng, shape, dtype)
    dy = rng.normal(size=shape).astype(dtype)
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    expected = torch.nn.functional.group_norm(leaves[0], G, *leaves[1:])
    gradients = torch.autograd.grad(expected, leaves, torch.from_numpy(dy))
    y, *statistics = groupnorm_forward(x, G, w, b)
    found = groupnorm_backward(dy, x, w, *statistics)
    close = 20 * CLOSE[dtype]
    for a, t in zip((y, *found), (expected, *gradients), strict=True):
        np.testing.assert_allclose(a, t.detach(), 0, close * max(1, np.abs(a).max()))


@DTYPES
def test_mean_may_be_far_larger_than_the_deviation(dtype, rng):
    x = (1e4 + 1e-2 * rng.normal(size=(2, 4, 9, 9))).astype(dtype)
    y, _, invstd = groupnorm_forward(x, 2, eps=1e-8)
    expected_y, _, expected_invstd = oracle(x, 2, np.ones(4), np.zeros(4), 1e-8)
    rounding = {np.float32: 4e-6, np.float64: 1e-9}[dtype]
    np.testing.assert_allclose(invstd, expected_invstd, rounding)
    np.testing.assert_allclose(y, expected_y, 0, rounding)


@DTYPES
@pytest.mark.parametrize("value", [0, 0.1, -1e4, 3e7])
def test_constant_group_becomes_the_bias(value, dtype):
    b = np.array([0.5, -2], dtype)
    y, *_ = groupnorm_forward(np.full((1, 2, 3), value, dtype), 1, None, b)
    np.testing.assert_allclose(y[0], np.repeat(b, 3).reshape(2, 3), 1e-5)


@DTYPES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_takes_its_group(value, dtype, rng):
    x = rng.normal(size=(2, 4, 2, 2)).astype(dtype)
    x[1, 2, 0, 1] = value
    y, *_ = groupnorm_forward(x, 2)
    assert np.isnan(y[1, 2:]).all()
    y[1, 2:] = 0
    assert np.isfinite(y).all()


def test_empty_batch():
    x = np.empty((0, 4, 3, 3))
    y, mean, invstd = groupnorm_forward(x, 2)
    assert y.shape == x.shape and mean.shape == invstd.shape == (0, 2)
    dx, dw, db = groupnorm_backward(x, x, None, mean, invstd)
    assert dx.shape == x.shape
    np.testing.assert_array_equal([dw, db], np.zeros((2, 4)))


X, W = np.zeros((2, 4, 3)), np.ones(4)


@pytest.mark.parametrize(
    "arguments, error, says",
    [
        (
            (X[0, 0], 2),
            ValueError,
            r"x has shape \(3,\); it must be \(N, C\) or \(N, C, ...",
        ),
        ((X, 3), ValueError, "num_groups=3 must divide the 4 channels of x"),
        ((X, 0), ValueError, "num_groups must be at least 1, not 0"),
        ((X, 2.0), TypeError, "num_groups must be a whole number, not 2.0"),
        (
            (X[:, :, 0], 4),
            ValueError,
            "with num_groups=4 a group has one value, and one va",
        ),
        (
            (X, 2, W[:2]),
            ValueError,
            r"weight has shape \(2,\); for x of shape \(2, 4, 3\) it",
        ),
        ((X, 2, W, W[:2]), ValueError, "bias has shape"),
        ((X, 2, np.float32(W)), TypeError, "weight is float32 but"),
        ((X, 2, None, None, -1), ValueError, "eps must be at least 0, not -1"),
    ],
)
def test_what_cannot_be_is_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        groupnorm_forward(*arguments)


S = np.ones((2, 2))


@pytest.mark.parametrize(
    "dy, mean, invstd, says",
    [
        (X[:1], S, S, "dy has shape .* the shape of x"),
        (X, S[0], S, r"mean has shape \(2,\); it must be \(N, G\)"),
        (X, np.ones((2, 3)), S, "num_groups=3 must divide the 4 channels"),
        (X, np.ones((3, 2)), S, "mean has shape"),
        (X, S, S[:1], "invstd has shape"),
    ],
)
def test_backward_refuses_what_does_not_belong_together(dy, mean, invstd, says):
    with pytest.raises(ValueError, match=says):
        groupnorm_backward(dy, X, None, mean, invstd)


def test_layer_refuses_other_channels():
    with pytest.raises(ValueError, match="x has 4 channels, the layer has 6"):
        GroupNorm(2, 6, dtype=np.float64)(X)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ((3, 4), "num_groups=3 must divide num_channels=4"),
        ((0, 4), "num_groups must be at least 1"),
        ((1, 0), "num_channels must be at least 1"),
    ],
)
def test_impossible_layer_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        GroupNorm(*arguments)
