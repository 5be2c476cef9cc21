"""course/layers/layernorm.py: (1) to (3) against NumPy, (4) to (6) against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import LayerNorm, layernorm_backward, layernorm_forward

SHAPES = pytest.mark.parametrize(
    "shape, axes",  # of x, and how many of them are normalised
    [
        pytest.param((4, 3), 1, id="rows"),
        pytest.param((1, 2), 1, id="two-numbers"),
        pytest.param((5, 67), 1, id="long-rows"),
        pytest.param((2, 3, 5), 1, id="last-axis-of-three"),
        pytest.param((2, 3, 5), 2, id="two-axes-of-three"),
        pytest.param((2, 3, 4, 5), 3, id="images"),
        pytest.param((2, 3, 4, 5), 2, id="planes"),
        pytest.param((7,), 1, id="one-sample-without-a-batch"),
    ],
)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
CLOSE = {np.float32: 2e-6, np.float64: 1e-12}  # relative to the largest


def oracle(x, w, b, eps):
    """Equations (1) to (3) in NumPy, in float64: y, mean, invstd."""
    axes = tuple(range(-w.ndim, 0))
    x = np.float64(x)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    y = (x - mean) / np.sqrt(var + eps) * w + b
    return y, mean.squeeze(axes), ((var + eps) ** -0.5).squeeze(axes)


def assert_close(a, expected, dtype):
    assert a.dtype == dtype
    assert a.shape == expected.shape
    np.testing.assert_allclose(a, expected, 0, CLOSE[dtype] * np.abs(expected).max())


def drawn(rng, shape, axes, dtype):
    """Return x, weight and bias."""
    w, b = rng.normal(size=(2, *shape[-axes:])).astype(dtype)
    return rng.normal(3, 2, shape).astype(dtype), w, b


@SHAPES
@DTYPES
def test_forward_is_the_definition(shape, axes, dtype, rng):
    x, w, b = drawn(rng, shape, axes, dtype)
    for a, expected in zip(
        layernorm_forward(x, w, b, 0.01), oracle(x, w, b, 0.01), strict=True
    ):
        assert_close(a, expected, dtype)


@SHAPES
@pytest.mark.parametrize("keywords", [{}, {"elementwise_affine": False}, {"bias": False}])
def test_backward_is_the_slope(shape, axes, keywords, rng):
    layer = LayerNorm(shape[-axes:], dtype=np.float64, **keywords)
    for a in layer.params.values():
        a[:] = rng.normal(size=a.shape)
    check_layer(layer, rng.normal(size=shape), rng)


@SHAPES
@DTYPES
def test_as_pytorch(shape, axes, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    arrays = drawn(rng, shape, axes, dtype)
    dy = rng.normal(size=shape).astype(dtype)
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = torch.nn.functional.layer_norm(leaves[0], shape[-axes:], *leaves[1:])
    gradients = torch.autograd.grad(expected, leaves, torch.from_numpy(dy))
    y, *statistics = layernorm_forward(*arrays)
    found = layernorm_backward(dy, *arrays[:2], *statistics)
    close = 20 * CLOSE[dtype]
    for a, t in zip((y, *found), (expected, *gradients), strict=True):
        np.testing.assert_allclose(a, t.detach(), 0, close * max(1, np.abs(a).max()))


@DTYPES
def test_mean_may_be_far_larger_than_the_deviation(dtype, rng):
    x = (1e4 + 1e-2 * rng.normal(size=(6, 500))).astype(dtype)
    w = np.ones(500, dtype)
    y, _, invstd = layernorm_forward(x, w, eps=1e-8)
    expected_y, _, expected_invstd = oracle(x, w, 0, 1e-8)
    rounding = {np.float32: 4e-6, np.float64: 1e-9}[dtype]
    np.testing.assert_allclose(invstd, expected_invstd, rounding)
    np.testing.assert_allclose(y, expected_y, 0, rounding)


@DTYPES
@pytest.mark.parametrize("value", [0, 0.1, -1e4, 3e7])
def test_constant_sample_becomes_the_bias(value, dtype):
    b = np.array([0.5, -2, 1], dtype)
    y, *_ = layernorm_forward(np.full((2, 3), value, dtype), np.ones(3, dtype), b)
    np.testing.assert_allclose(y, [b, b], 1e-5)


@DTYPES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_takes_its_sample(value, dtype, rng):
    x = rng.normal(size=(3, 4)).astype(dtype)
    x[1, 2] = value
    y, *_ = layernorm_forward(x, np.ones(4, dtype))
    np.testing.assert_array_equal(np.isnan(y), np.repeat([[0], [1], [0]], 4, axis=1))


def test_empty_batch():
    x, w = np.empty((0, 3)), np.ones(3)
    y, mean, invstd = layernorm_forward(x, w)
    assert y.shape == (0, 3) and mean.shape == invstd.shape == (0,)
    dx, dw, db = layernorm_backward(x, x, w, mean, invstd)
    assert dx.shape == (0, 3)
    np.testing.assert_array_equal([dw, db], np.zeros((2, 3)))


def test_layer_starts_with_weight_1_and_bias_0(rng):
    layer = LayerNorm((3, 2))
    assert {key: a.tolist() for key, a in layer.params.items()} == {
        "weight": [[1, 1]] * 3,
        "bias": [[0, 0]] * 3,
    }
    assert LayerNorm(3, bias=False).params.keys() == {"weight"}
    assert LayerNorm(3, elementwise_affine=False).params == {}


X, W = np.zeros((2, 3)), np.ones(3)


@pytest.mark.parametrize(
    "arguments, error, says",
    [
        (
            (X, W[:2]),
            ValueError,
            r"x has shape \(2, 3\); its last axes must be normalized_",
        ),
        ((X, np.ones((5, 2, 3))), ValueError, "its last axes must be normalized_shape"),
        ((X, np.ones(())), ValueError, "its last axes must be normalized_shape"),
        ((X, None), TypeError, "weight is a NoneType"),
        (
            (X, np.float32(W)),
            TypeError,
            "weight is float32 but the other arrays are float64",
        ),
        (
            (X, W, W[:2]),
            ValueError,
            r"bias has shape \(2,\); the shape of weight is \(3,\)",
        ),
        ((X, W, None, -1), ValueError, "eps must be at least 0, not -1"),
        ((X, W, None, "1"), TypeError, "eps must be a number, not '1'"),
    ],
)
def test_what_cannot_be_is_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        layernorm_forward(*arguments)


@pytest.mark.parametrize(
    "dy, mean, invstd, says",
    [
        (X[:1], W[:2], W[:2], "dy has shape .* the shape of x"),
        (X, W, W[:2], r"mean has shape \(3,\); one number for each sample of x is \(2,\)"),
        (X, W[:2], W, "invstd has shape"),
    ],
)
def test_backward_refuses_what_does_not_belong_together(dy, mean, invstd, says):
    with pytest.raises(ValueError, match=says):
        layernorm_backward(dy, X, W, mean, invstd)


@pytest.mark.parametrize(
    "shape, error, says",
    [
        (0, ValueError, "normalized_shape must be at least 1, not 0"),
        ((3, -1), ValueError, "normalized_shape must be at least 1, not -1"),
        ((), ValueError, r"normalized_shape is \(\); it must name at least one axis"),
        (2.5, TypeError, "normalized_shape must be a whole number"),
    ],
)
def test_impossible_layer_is_refused(shape, error, says):
    with pytest.raises(error, match=says):
        LayerNorm(shape)
