"""course/layers/local_response_norm.py: (1), (2) against NumPy, (3) slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import (
    LocalResponseNorm,
    local_response_norm_backward,
    local_response_norm_forward,
)

CASES = pytest.mark.parametrize(
    "shape, size, constants",
    [
        pytest.param((2, 7, 3, 2), 3, {"alpha": 2.0}, id="three-neighbours"),
        pytest.param((2, 7, 3, 2), 5, {"alpha": 0.5, "k": 2.0}, id="five-neighbours"),
        pytest.param((2, 7, 3, 2), 4, {"alpha": 0.5}, id="even"),
        pytest.param((1, 3, 2, 2), 2, {"alpha": 0.5}, id="two-neighbours"),
        pytest.param((1, 3, 2, 2), 1, {"alpha": 3.0}, id="alone"),
        pytest.param((1, 3, 2, 2), 9, {"alpha": 3.0}, id="wider-than-the-image-is-deep"),
        pytest.param((1, 4, 3, 1), 3, {"alpha": 1.0, "beta": 0.5}, id="another-power"),
        pytest.param((1, 4, 3, 1), 3, {"alpha": 1.0, "beta": 2.0}, id="large-power"),
        pytest.param((1, 4, 3, 1), 3, {"alpha": 1.0, "beta": -1.0}, id="negative-power"),
        pytest.param((1, 4, 3, 1), 3, {"alpha": 0.0}, id="no-neighbour-counts"),
        pytest.param((2, 5, 9), 3, {"alpha": 1.0, "k": 0.1}, id="signals"),
        pytest.param((1, 1, 17, 5), 5, {"alpha": 1.0}, id="one-channel"),
        pytest.param((2, 6, 4, 4), 5, {}, id="defaults"),
    ],
)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
CLOSE = {np.float32: 2e-6, np.float64: 1e-12}  # relative to the largest


def oracle(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """Equations (1) and (2) by a matrix of neighbours, in float64: y and scale."""
    x = np.float64(x)
    apart = np.arange(x.shape[1]) - np.arange(x.shape[1])[:, None]
    near = (-(size // 2) <= apart) & (apart <= (size - 1) // 2)
    scale = k + alpha / size * np.einsum("cv,nv...->nc...", near, x**2)
    return x / scale**beta, scale


def paper(x, n, k, alpha, beta):
    """Return b of section 3.3, as it is printed there; a is x."""
    b = np.empty_like(x)
    N = x.shape[1]
    for i in range(N):
        neighbours = x[:, max(0, i - n // 2) : min(N - 1, i + n // 2) + 1]
        b[:, i] = x[:, i] / (k + alpha * (neighbours**2).sum(axis=1)) ** beta
    return b


def assert_close(a, expected, dtype):
    assert a.dtype == dtype
    assert a.shape == expected.shape
    np.testing.assert_allclose(a, expected, 0, CLOSE[dtype] * np.abs(expected).max())


@CASES
@DTYPES
def test_forward_is_the_definition(shape, size, constants, dtype, rng):
    x = rng.normal(0, 2, shape).astype(dtype)
    found = local_response_norm_forward(x, size, **constants)
    for a, expected in zip(found, oracle(x, size, **constants), strict=True):
        assert_close(a, expected, dtype)


def test_the_papers_alpha_is_not_divided_by_its_n(rng):
    x = rng.normal(0, 50, (2, 9, 3, 3))
    expected = paper(x, n=5, k=2, alpha=1e-4, beta=0.75)
    y, _ = local_response_norm_forward(x, size=5, alpha=5e-4, beta=0.75, k=2)
    np.testing.assert_allclose(y, expected, 1e-12)


@CASES
def test_backward_is_the_slope(shape, size, constants, rng):
    check_layer(LocalResponseNorm(size, **constants), rng.normal(size=shape), rng)


@CASES
@DTYPES
def test_as_pytorch(shape, size, constants, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, dy = rng.normal(size=(2, *shape)).astype(dtype)
    leaf = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.local_response_norm(leaf, size, **constants)
    (expected_dx,) = torch.autograd.grad(expected, leaf, torch.from_numpy(dy))
    y, scale = local_response_norm_forward(x, size, **constants)
    keywords = {key: value for key, value in constants.items() if key != "k"}
    dx = local_response_norm_backward(dy, x, y, scale, size, **keywords)
    close = 5 * CLOSE[dtype]
    np.testing.assert_allclose(y, expected.detach(), 0, close * np.abs(y).max())
    np.testing.assert_allclose(dx, expected_dx, 0, close * np.abs(dx).max())


@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_dark_pixel_stays_dark(beta):
    x = np.zeros((1, 3, 2, 2))
    y, scale = local_response_norm_forward(x, 3, beta=beta, k=2)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(scale, x + 2)
    dx = local_response_norm_backward(x + 1, x, y, scale, 3, beta=beta)
    np.testing.assert_allclose(dx, x + 2**-beta, 1e-15)


@DTYPES
@pytest.mark.parametrize("sign", [1, -1])
def test_bright_pixel_outshines_its_neighbours(sign, dtype):
    """At 1e4 the constant 1 no longer counts: y is x / (alpha/size * x^2)^beta."""
    x = np.zeros((1, 5, 1, 1), dtype)
    x[0, 2], x[0, 3] = sign * 1e4, 1
    y, _ = local_response_norm_forward(x, 3, alpha=3.0, beta=0.75)
    np.testing.assert_allclose(y.ravel()[2:4], [sign * 1e-2, 1e-6], 1e-5)


@DTYPES
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_nan_takes_its_neighbours_and_infinity_darkens_them(beta, dtype):
    x = np.ones((1, 5, 1, 2), dtype)
    x[0, 2, 0, 0] = np.nan
    y, _ = local_response_norm_forward(x, 3, beta=beta)
    np.testing.assert_array_equal(np.isnan(y[0, :, 0, 0]), [0, 1, 1, 1, 0])
    assert np.isfinite(y[..., 1]).all()
    x[0, 2, 0, 0] = -np.inf
    y, _ = local_response_norm_forward(x, 3, beta=beta)
    np.testing.assert_array_equal(y[0, 1:4, 0, 0], [0, np.nan, 0])
    assert np.isfinite(y[0, [0, 4]]).all() and np.isfinite(y[..., 1]).all()


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 0, 2, 2), (2, 3, 0, 2)])
def test_empty_batch(shape):
    x = np.empty(shape)
    y, scale = local_response_norm_forward(x, 3)
    assert y.shape == scale.shape == shape
    assert local_response_norm_backward(x, x, y, scale, 3).shape == shape


X = np.zeros((1, 2, 3, 3))


@pytest.mark.parametrize(
    "arguments, keywords, error, says",
    [
        ((X[0, 0], 3), {}, ValueError, r"x has shape \(3, 3\); it must be \(N, C, L\) or"),
        ((X, 0), {}, ValueError, "size must be at least 1, not 0"),
        ((X, 2.0), {}, TypeError, "size must be a whole number, not 2.0"),
        ((X, 3), {"k": 0}, ValueError, "k=0.0 must be above 0 and alpha=0.0001 at least 0"),
        ((X, 3), {"alpha": -1}, ValueError, "alpha=-1.0 at least 0"),
        ((X, 3), {"beta": None}, TypeError, "beta must be a number, not None"),
        ((X, 3), {"beta": np.inf}, ValueError, "beta must be finite, not inf"),
    ],
)
def test_what_cannot_be_is_refused(arguments, keywords, error, says):
    with pytest.raises(error, match=says):
        local_response_norm_forward(*arguments, **keywords)
    with pytest.raises(error, match=says):
        LocalResponseNorm(arguments[1], **keywords)(arguments[0])


@pytest.mark.parametrize("wrong", range(3))
def test_backward_refuses_what_does_not_belong_together(wrong):
    arrays = [X, X, X + 1]  # dy, y, scale
    arrays[wrong] = arrays[wrong][:, :1]
    dy, y, scale = arrays
    says = f"{('dy', 'y', 'scale')[wrong]} has shape .* the shape of x"
    with pytest.raises(ValueError, match=says):
        local_response_norm_backward(dy, X, y, scale, 3)
