"""course/layers/upsample.py: (1) against NumPy's interpolation, (2) against slopes."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from course.checks import check_layer
from course.layers import Upsample, upsample_backward, upsample_forward

NEAREST, BILINEAR = ("nearest", False), ("bilinear", False)
CORNERS = "bilinear", True

GEOMETRY = pytest.mark.parametrize(
    "shape, scale, size",
    [
        pytest.param(*row, id=f"{row[0][2:]} times {row[1]}".replace(" ", ""))
        for row in [
            ((2, 3, 3, 4), 1, (3, 4)),
            ((2, 1, 3, 4), 2, (6, 8)),
            ((1, 2, 2, 3), (3, 2), (6, 6)),
            ((1, 1, 1, 1), 5, (5, 5)),
            ((1, 2, 1, 3), (1, 4), (1, 12)),
            ((1, 2, 3, 4), 1.5, (4, 6)),
            ((1, 1, 4, 3), (2.75, 1.4), (11, 4)),
            ((1, 1, 7, 6), 0.5, (3, 3)),
            ((2, 1, 5, 4), (0.3, 2.5), (1, 10)),
            ((2, 2, 3, 37), 2, (6, 74)),  # a row fills a vector, and not a whole number
        ]
    ],
)
MODES = pytest.mark.parametrize("mode, align_corners", [NEAREST, BILINEAR, CORNERS])


def weights(size, out, scale, mode, align_corners):
    """Return the matrix (out, size) that widens one axis, from the definition."""
    if mode == "nearest":
        scale = Fraction(scale)  # exactly the float that was given
        places = [min(floor(i / scale), size - 1) for i in range(out)]
    elif align_corners:
        places = np.linspace(0, size - 1, out)
    else:
        places = [(i + 0.5) / scale - 0.5 for i in range(out)]
    unit = np.eye(size)
    return np.array([[np.interp(p, range(size), row) for row in unit] for p in places])


def oracle(x, scale, size, mode, align_corners):
    """Equation (1) as two matrix products, sharing no line with the course."""
    down, across = (
        weights(n, out, s, mode, align_corners)
        for n, out, s in zip(x.shape[2:], size, np.broadcast_to(scale, 2), strict=True)
    )
    return np.einsum("ip,jq,ncpq->ncij", down, across, x), down, across


@GEOMETRY
@MODES
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_forward_and_backward_are_matrix_products(
    shape, scale, size, mode, align_corners, dtype, tolerance, rng
):
    x = rng.normal(size=shape).astype(dtype)
    dy = rng.normal(size=(*shape[:2], *size)).astype(dtype)
    y = upsample_forward(x, scale, mode, align_corners)
    dx = upsample_backward(dy, shape, scale, mode, align_corners)
    assert y.dtype == dx.dtype == dtype
    expected, down, across = oracle(x.astype(float), scale, size, mode, align_corners)
    np.testing.assert_allclose(y, expected, tolerance, tolerance * np.abs(expected).max())
    expected = np.einsum("ip,jq,ncij->ncpq", down, across, dy.astype(float))
    np.testing.assert_allclose(dx, expected, tolerance, tolerance * np.abs(expected).max())


@GEOMETRY
@MODES
def test_backward_is_the_slope(shape, scale, size, mode, align_corners, rng):
    check_layer(Upsample(scale, mode, align_corners), rng.normal(size=shape), rng)


@MODES
def test_pytorch_computes_the_same(mode, align_corners, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    told = {"mode": mode} | ({"align_corners": align_corners} if mode != "nearest" else {})
    for _ in range(60):
        scale = tuple(
            float(s) for s in rng.choice([0.5, 0.75, 1, 1.25, 2, 2.1, 2.5, 3, 4.3], 2)
        )
        x = rng.normal(size=(2, 2, *rng.integers(2, 9, 2)))
        leaf = torch.tensor(x, requires_grad=True)
        expected = torch.nn.functional.interpolate(leaf, scale_factor=scale, **told)
        dy = rng.normal(size=expected.shape)
        (expected_dx,) = torch.autograd.grad(expected, leaf, torch.from_numpy(dy))
        y = upsample_forward(x, scale, mode, align_corners)
        np.testing.assert_allclose(y, expected.detach(), 1e-12, 1e-12, err_msg=str(scale))
        dx = upsample_backward(dy, x.shape, scale, mode, align_corners)
        np.testing.assert_allclose(dx, expected_dx, 1e-12, 1e-12, err_msg=str(scale))


@pytest.mark.parametrize("scale", range(1, 101))
def test_nearest_repeats_each_pixel_exactly(scale):
    """49 * (1/49) is below 1: as a product of floats, pixel 49 would be too early."""
    x = np.arange(5.0).reshape(1, 1, 1, 5)
    y = upsample_forward(x, (1, scale))[0, 0, 0]
    np.testing.assert_array_equal(y, np.repeat(x.reshape(-1), scale))


def test_bilinear_by_hand():
    x = np.array([[[[0.0, 4.0], [8.0, 12.0]]]])
    y = upsample_forward(x, 2, "bilinear")[0, 0]
    np.testing.assert_array_equal(
        y, [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    )
    y = upsample_forward(x, 1.5, "bilinear", align_corners=True)[0, 0]
    np.testing.assert_array_equal(y, [[0, 2, 4], [4, 6, 8], [8, 10, 12]])


def test_a_scale_that_changes_no_size_changes_nothing():
    x = np.array([[[[1.0, 2.0, 4.0]]]])
    np.testing.assert_array_equal(upsample_forward(x, 1.3), x)
    np.testing.assert_array_equal(upsample_forward(x, 1.3, "bilinear"), x)
    y = upsample_forward(x, (1, 2.3))
    np.testing.assert_array_equal(y, [[[[1, 1, 2, 2, 4, 4]]]])


@pytest.mark.parametrize("mode, align_corners", [BILINEAR, CORNERS])
def test_a_plane_stays_a_plane(mode, align_corners, rng):
    """Between the outermost pixels, blending follows a slope exactly."""
    p, q = np.mgrid[:6, :5]
    x = (2.0 * p - 3 * q)[None, None]
    y = upsample_forward(x, 3, mode, align_corners)[0, 0, 3:-3, 3:-3]
    np.testing.assert_allclose(np.diff(y, 2, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(y, 2, axis=1), 0, atol=1e-12)


@MODES
def test_gradient_is_shared_out_whole(mode, align_corners, rng):
    """Every output is a weighted mean, so that no gradient is lost or made."""
    dy = rng.normal(size=(1, 1, 9, 8))
    dx = upsample_backward(dy, (1, 1, 3, 4), (3, 2), mode, align_corners)
    np.testing.assert_allclose(dx.sum(), dy.sum(), 1e-12, 1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_seen_does_no_harm(value):
    """With corners aligned every second output is a pixel itself, weight 1."""
    x = np.array([[[[0.0, value, 2.0]]]])
    y = upsample_forward(x, (1, 5 / 3), "bilinear", align_corners=True)[0, 0, 0]
    np.testing.assert_array_equal(y, [0, value, value, value, 2])
    y = upsample_forward(x, (1, 2))[0, 0, 0]
    np.testing.assert_array_equal(y, [0, 0, value, value, 2, 2])


@MODES
def test_empty_batch(mode, align_corners):
    x = np.empty((0, 2, 4, 4))
    y = upsample_forward(x, 2, mode, align_corners)
    assert y.shape == (0, 2, 8, 8)
    assert upsample_backward(y, x.shape, 2, mode, align_corners).shape == x.shape


X, DY = np.zeros((1, 2, 5, 6)), np.zeros((1, 2, 10, 12))


@pytest.mark.parametrize(
    "x, arguments, error, says",
    [
        (X[0], (2,), ValueError, r"x has shape \(2, 5, 6\); it must be \(N, C, H, W\)"),
        (X.astype(int), (2,), TypeError, "x has dtype int64"),
        (X, (0,), ValueError, "scale_factor must be above 0, not 0"),
        (X, ((2, -1),), ValueError, "scale_factor must be above 0, not -1"),
        (X, ((2, 2, 2),), ValueError, r"must be a number or \(height, width\), not"),
        (X, ("2",), TypeError, "scale_factor must be a number, not '2'"),
        (X, (True,), TypeError, "scale_factor must be a number, not True"),
        (X, (np.inf,), ValueError, "scale_factor must be finite, not inf"),
        (X, (0.19,), ValueError, "5 pixels times scale_factor 0.19 leave none"),
        (X[:, :, :0], (2,), ValueError, "0 pixels times scale_factor 2.0 leave none"),
        (
            X,
            (2, "cubic"),
            ValueError,
            'mode must be "nearest" or "bilinear", not \'cubic\'',
        ),
        (X, (2, "nearest", True), ValueError, 'align_corners belongs to mode="bilinear"'),
    ],
)
def test_what_cannot_be_is_refused(x, arguments, error, says):
    with pytest.raises(error, match=says):
        upsample_forward(x, *arguments)


@pytest.mark.parametrize(
    "dy, input_shape, error, says",
    [
        (DY, (1, 2, 5, 5), ValueError, "dy has shape .* y for this input_shape"),
        (DY, (2, 5, 6), ValueError, r"input_shape is \(2, 5, 6\); it must be"),
        (DY[0], X.shape, ValueError, "it must be .N, C, HO, WO."),
        (DY.astype(int), X.shape, TypeError, "dy has dtype int64"),
    ],
)
def test_backward_refuses_what_does_not_belong_together(dy, input_shape, error, says):
    with pytest.raises(error, match=says):
        upsample_backward(dy, input_shape, 2)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ((0,), "scale_factor must be above 0"),
        ((2, "cubic"), "mode must be"),
        ((2, "nearest", True), "align_corners belongs to"),
    ],
)
def test_impossible_layer_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        Upsample(*arguments)
