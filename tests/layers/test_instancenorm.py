"""course/layers/instancenorm.py: (1) to (3) against NumPy, (4) to (6) against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import InstanceNorm2d, instancenorm_backward, instancenorm_forward

LAYERS_TAKE = [
    pytest.param((2, 3, 4, 5), id="images"),
    pytest.param((1, 1, 1, 2), id="two-pixels"),
    pytest.param((3, 2, 7, 1), id="one-column"),
    pytest.param((1, 2, 17, 13), id="large-planes"),
]
SHAPES = pytest.mark.parametrize(
    "shape", [*LAYERS_TAKE, pytest.param((2, 3, 5), id="signals")]
)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
CLOSE = {np.float32: 2e-6, np.float64: 1e-12}  # relative to the largest


def oracle(x, w, b, eps):
    """Equations (1) to (3) in NumPy, in float64: y, mean, invstd."""
    y = np.empty(x.shape)
    mean, invstd = np.empty((2, *x.shape[:2]))
    for n, c in np.ndindex(x.shape[:2]):
        plane = np.float64(x[n, c])
        mean[n, c], invstd[n, c] = plane.mean(), (plane.var() + eps) ** -0.5
        y[n, c] = (plane - mean[n, c]) * invstd[n, c] * w[c] + b[c]
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
def test_forward_is_the_definition(shape, dtype, rng):
    x, w, b = drawn(rng, shape, dtype)
    found = instancenorm_forward(x, w, b, 0.01)
    for a, expected in zip(found, oracle(x, w, b, 0.01), strict=True):
        assert_close(a, expected, dtype)


@pytest.mark.parametrize("shape", LAYERS_TAKE)
@pytest.mark.parametrize("affine", [True, False])
def test_backward_is_the_slope(shape, affine, rng):
    layer = InstanceNorm2d(shape[1], affine=affine, dtype=np.float64)
    for a in layer.params.values():
        a[:] = rng.normal(size=a.shape)
    check_layer(layer, rng.normal(size=shape), rng)


@SHAPES
@DTYPES
def test_as_pytorch(shape, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, w, b = drawn(rng, shape, dtype)
    dy = rng.normal(size=shape).astype(dtype)
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    expected = torch.nn.functional.instance_norm(
        leaves[0], weight=leaves[1], bias=leaves[2]
    )
    gradients = torch.autograd.grad(expected, leaves, torch.from_numpy(dy))
    y, *statistics = instancenorm_forward(x, w, b)
    found = instancenorm_backward(dy, x, w, *statistics)
    close = 20 * CLOSE[dtype]
    for a, t in zip((y, *found), (expected, *gradients), strict=True):
        np.testing.assert_allclose(a, t.detach(), 0, close * max(1, np.abs(a).max()))


@DTYPES
def test_mean_may_be_far_larger_than_the_deviation(dtype, rng):
    x = (1e4 + 1e-2 * rng.normal(size=(2, 3, 12, 12))).astype(dtype)
    y, _, invstd = instancenorm_forward(x, eps=1e-8)
    expected_y, _, expected_invstd = oracle(x, np.ones(3), np.zeros(3), 1e-8)
    rounding = {np.float32: 4e-6, np.float64: 1e-9}[dtype]
    np.testing.assert_allclose(invstd, expected_invstd, rounding)
    np.testing.assert_allclose(y, expected_y, 0, rounding)


@DTYPES
@pytest.mark.parametrize("value", [0, 0.1, -1e4, 3e7])
def test_constant_plane_becomes_the_bias(value, dtype):
    b = np.array([0.5, -2], dtype)
    y, *_ = instancenorm_forward(np.full((1, 2, 3), value, dtype), None, b)
    np.testing.assert_allclose(y[0], np.repeat(b, 3).reshape(2, 3), 1e-5)


@DTYPES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_takes_its_plane(value, dtype, rng):
    x = rng.normal(size=(2, 3, 2, 2)).astype(dtype)
    x[1, 2, 0, 1] = value
    y, *_ = instancenorm_forward(x)
    assert np.isnan(y[1, 2]).all()
    y[1, 2] = 0
    assert np.isfinite(y).all()


def test_empty_batch():
    x = np.empty((0, 4, 3, 3))
    y, mean, invstd = instancenorm_forward(x)
    assert y.shape == x.shape and mean.shape == invstd.shape == (0, 4)
    dx, dw, db = instancenorm_backward(x, x, None, mean, invstd)
    assert dx.shape == x.shape
    np.testing.assert_array_equal([dw, db], np.zeros((2, 4)))


def test_layer_learns_nothing_unless_told_so():
    assert InstanceNorm2d(3).params == {}
    params = InstanceNorm2d(2, affine=True).params
    assert {key: a.tolist() for key, a in params.items()} == {
        "weight": [1, 1],
        "bias": [0, 0],
    }


X, W, S = np.zeros((2, 3, 4, 5)), np.ones(3), np.ones((2, 3))


@pytest.mark.parametrize(
    "arguments, error, says",
    [
        ((X[0, 0],), ValueError, r"x has shape \(4, 5\); it must be \(N, C, L\) or \(N, C"),
        (
            (X[:, :, :1, :1],),
            ValueError,
            r"\(2, 3, 1, 1\): a plane of one pixel has no var",
        ),
        (
            (X, W[:2]),
            ValueError,
            r"weight has shape \(2,\); for x of shape \(2, 3, 4, 5\) it",
        ),
        ((X, W, W[:2]), ValueError, "bias has shape"),
        ((X, np.float32(W)), TypeError, "weight is float32 but"),
        ((X, None, None, -1), ValueError, "eps must be at least 0, not -1"),
    ],
)
def test_what_cannot_be_is_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        instancenorm_forward(*arguments)


@pytest.mark.parametrize(
    "dy, mean, invstd, says",
    [
        (X[:1], S, S, "dy has shape .* the shape of x"),
        (X, S[0], S, "mean has shape"),
        (X, S, S[:1], "invstd has shape"),
    ],
)
def test_backward_refuses_what_does_not_belong_together(dy, mean, invstd, says):
    with pytest.raises(ValueError, match=says):
        instancenorm_backward(dy, X, None, mean, invstd)


def test_layer_refuses_another_shape():
    layer = InstanceNorm2d(4, dtype=np.float64)
    with pytest.raises(ValueError, match="x has 3 channels, the layer has 4"):
        layer(X)
    with pytest.raises(ValueError, match=r"it must be \(N, C, H, W\)"):
        layer(X[0])


def test_impossible_layer_is_refused():
    with pytest.raises(ValueError, match="num_features must be at least 1"):
        InstanceNorm2d(0)
