"""course/layers/linear.py: (1) against NumPy, (2) to (4) against slopes."""

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import Linear, linear_backward, linear_forward

SIZES = pytest.mark.parametrize(
    "N, I, O",
    [
        pytest.param(3, 4, 5, id="ordinary"),
        pytest.param(1, 4, 5, id="one-sample"),
        pytest.param(3, 1, 5, id="one-feature"),
        pytest.param(3, 4, 1, id="one-output"),
        pytest.param(1, 1, 1, id="one-number"),
        pytest.param(7, 33, 17, id="not-a-multiple-of-a-vector"),
    ],
)


def arrays(N, I, O, rng, dtype=np.float64):
    """Return x, w, b, normally distributed."""
    return [rng.normal(size=size).astype(dtype) for size in [(N, I), (O, I), O]]


@SIZES
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_forward_is_the_matrix_product(N, I, O, dtype, tolerance, rng):
    x, w, b = arrays(N, I, O, rng, dtype)
    y = linear_forward(x, w, b)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, x @ w.T + b, tolerance, tolerance)


@SIZES
def test_backward_is_the_slope(N, I, O, rng):
    layer = Linear(I, O, rng=rng, dtype=np.float64)
    layer.params["bias"] = rng.normal(size=O)  # away from its initial 0
    check_layer(layer, rng.normal(size=(N, I)), rng)


@SIZES
def test_float32_gradients_are_the_matrix_products(N, I, O, rng):
    x, w, _ = arrays(N, I, O, rng, np.float32)
    dy = rng.normal(size=(N, O)).astype(np.float32)
    found = linear_backward(dy, x, w)
    for a, expected in zip(found, (dy @ w, dy.T @ x, dy.sum(axis=0)), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, expected, 1e-5, 1e-5)


def test_a_row_of_w_is_the_template_of_one_output():
    x = np.array([[1.0, 2, 3]])
    w = np.array([[1.0, 0, 0], [0, 0, 1]])
    y = linear_forward(x, w, np.array([10.0, 20]))
    np.testing.assert_array_equal(y, [[11, 23]])


def test_empty_batch():
    x, w = np.empty((0, 3)), np.ones((2, 3))
    y = linear_forward(x, w)
    assert y.shape == (0, 2)
    dx, dw, db = linear_backward(y, x, w)
    assert dx.shape == (0, 3)
    np.testing.assert_array_equal(dw, np.zeros((2, 3)))
    np.testing.assert_array_equal(db, np.zeros(2))


def test_no_bias_is_a_bias_of_zero(rng):
    x, w, b = arrays(3, 4, 5, rng)
    expected = linear_forward(x, w, np.zeros_like(b))
    np.testing.assert_array_equal(linear_forward(x, w), expected)
    layer = Linear(4, 5, bias=False, rng=rng, dtype=np.float64)
    assert layer.params.keys() == {"weight"}
    check_layer(layer, x, rng)


def test_weight_starts_as_he_says(rng):
    weight = Linear(100, 80, rng=rng).params["weight"]
    assert weight.shape == (80, 100) and weight.dtype == np.float32
    np.testing.assert_allclose(weight.var(), 2 / 100, rtol=0.05)
    np.testing.assert_allclose(weight.mean(), 0, atol=0.01)


X, W, B = np.zeros((2, 3)), np.zeros((4, 3)), np.zeros(4)


@pytest.mark.parametrize(
    "x, w, b, error, says",
    [
        (X[0], W, B, ValueError, r"x has shape \(3,\); it must be \(N, I\)"),
        (X[None, None], W, B, ValueError, "put a Flatten before the layer"),
        (X, W[0], B, ValueError, r"w has shape \(3,\); it must be \(O, I\)"),
        (X, W.T, B, ValueError, "x has 3 features, w expects 4"),
        (X, W, B[:3], ValueError, r"b has shape \(3,\); one bias for each row of w is"),
        (X, W, B[None], ValueError, r"b has shape \(1, 4\); it must be \(O,\)"),
        (X.tolist(), W, B, TypeError, "x is a list"),
        (X.astype(int), W, B, TypeError, "x has dtype int64"),
        (X, W.astype(np.float32), B, TypeError, "w is float32 but the other"),
        (X, W, B.astype(np.float32), TypeError, "b is float32 but the other"),
        (X, W, 0.0, TypeError, "b is a float"),
    ],
)
def test_what_cannot_be_is_refused(x, w, b, error, says):
    with pytest.raises(error, match=says):
        linear_forward(x, w, b)


@pytest.mark.parametrize(
    "dy, error, says",
    [
        (np.zeros((2, 3)), ValueError, r"dy has shape \(2, 3\); .*is \(2, 4\)"),
        (np.zeros(4), ValueError, r"dy has shape \(4,\); it must be \(N, O\)"),
        (np.zeros((2, 4), np.float32), TypeError, "dy is float32 but the other"),
        (np.zeros((2, 4), bool), TypeError, "dy has dtype bool"),
    ],
)
def test_wrong_dy_is_refused(dy, error, says):
    with pytest.raises(error, match=says):
        linear_backward(dy, X, W)


@pytest.mark.parametrize(
    "sizes, error, says",
    [
        ((0, 1), ValueError, "in_features must be at least 1, not 0"),
        ((1, -1), ValueError, "out_features must be at least 1, not -1"),
        ((1, 2.5), TypeError, "out_features must be a whole number, not 2.5"),
    ],
)
def test_impossible_layer_is_refused(sizes, error, says, rng):
    with pytest.raises(error, match=says):
        Linear(*sizes, rng=rng)
