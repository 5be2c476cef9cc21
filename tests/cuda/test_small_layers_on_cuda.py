"""Activations, softmax and layers that move numbers: what no row of every.py reaches."""

import re

import numpy as np
import pytest

from course import layers
from course.cuda import split
from course.device import to
from course.layers import (
    concat_backward,
    concat_forward,
    flatten_backward,
    flatten_forward,
    maxout_backward,
    maxout_forward,
    prelu_backward,
    prelu_forward,
    reshape_backward,
    reshape_forward,
    residual_sum_forward,
    zeropad2d_backward,
    zeropad2d_forward,
)
from tests.cuda.every import RUNS, close, every_place, moved, on_cuda
from tests.layers.every import each, several

# Functions whose backward wants x, and those whose backward wants y.
OF_X = ["elu", "gelu", "gelu-tanh", "leaky_relu", "relu", "silu", "softplus"]
OF_Y = ["log_softmax", "sigmoid", "softmax", "tanh"]
every_function = pytest.mark.parametrize("name", OF_X + OF_Y)


def forth_and_back(name, x, dy, *options):
    """Return y and dx of the functions of a layer; "gelu-tanh" is that with "tanh"."""
    stem, *option = name.split("-")
    options = *option, *options
    y = getattr(layers, f"{stem}_forward")(x, *options)
    seen = x if name in OF_X else y
    return y, getattr(layers, f"{stem}_backward")(dy, seen, *options)


def same_on_cuda(place, compute, *arrays):
    """Assert that compute(*arrays) is the same on cuda as on the CPU in float64."""
    found = on_cuda(place, lambda: compute(*map(moved, arrays)))
    expected = compute(*(each(np.float64, a) for a in arrays))
    close(several(found), several(expected))


@every_place
@every_function
@pytest.mark.parametrize("scale", [1e30, 1e4, 0, 1e-20])
def test_finite_numbers_stay_finite(place, name, scale, rng):
    x = (scale * rng.uniform(-1, 1, (3, 35))).astype(np.float32)
    x[0, :3] = scale, -scale, 0
    dy = rng.normal(size=x.shape).astype(np.float32)
    found = on_cuda(place, lambda: forth_and_back(name, moved(x), moved(dy)), RUNS[:1])
    close(found, forth_and_back(name, x.astype(float), dy.astype(float)))


@every_place
@pytest.mark.parametrize("name", ["log_softmax", "softmax"])
@pytest.mark.parametrize(
    "dim, shape", [(0, (33, 2)), (1, (2, 70)), (2, (1, 2, 70)), (1, (2, 9, 3))]
)
def test_softmax_along_every_axis(place, name, dim, shape, rng):
    x, dy = 5 * rng.normal(size=(2, *shape)).astype(np.float32)
    same_on_cuda(place, lambda x, dy: forth_and_back(name, x, dy, dim), x, dy)


@every_place
@pytest.mark.parametrize("name", ["log_softmax", "softmax"])
@pytest.mark.parametrize("dim", [0, 1])
def test_softmax_of_infinity(place, name, dim, rng):
    x = rng.normal(size=(6, 40)).astype(np.float32)
    x[::3, 3], x[:, 7], x[4], x[5, 39] = -np.inf, -np.inf, -np.inf, np.inf
    cpu = forth_and_back(name, x, np.ones_like(x), dim)
    there = on_cuda(
        place, lambda: forth_and_back(name, moved(x), moved(np.ones_like(x)), dim), RUNS[:1]
    )
    for a, b in zip(there, cpu, strict=True):
        np.testing.assert_allclose(a, b, 2e-6, 2e-6)  # NaN and infinity where it has them


@every_place
@pytest.mark.parametrize(
    "slopes, shape",
    [(1, (2, 1, 16, 17)), (2, (1, 2, 280)), (1, (70,)), (3, (0, 3, 300))],
)
def test_prelu_adds_up_large_planes_one_by_one(place, slopes, shape, rng):
    x, dy = rng.normal(size=(2, *shape)).astype(np.float32)
    w = rng.normal(size=slopes).astype(np.float32)
    same_on_cuda(
        *(place, lambda x, dy, w: (prelu_forward(x, w), *prelu_backward(dy, x, w))),
        *(x, dy, w),
    )


@every_place
@pytest.mark.parametrize("axis, sizes", [(0, (2, 3)), (1, (3, 0, 1)), (2, (5,))])
def test_concat_along_every_axis(place, axis, sizes, rng):
    shapes = [[2, 3, 4] for _ in sizes]
    for shape, size in zip(shapes, sizes, strict=True):
        shape[axis] = size
    x = tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)
    same_on_cuda(place, lambda x: concat_forward(x, axis), x)
    dy = np.concatenate(x, axis)
    same_on_cuda(place, lambda dy: concat_backward(dy, sizes, axis), dy)


@every_place
def test_first_of_equal_pieces_wins(place):
    x = np.array([[3, 1, 3, 1, 1, 1], [np.nan, 2, np.nan, 2, 5, np.nan]], np.float32)

    def compute():
        y, argmax = maxout_forward(moved(x), 3)
        return argmax, maxout_backward(y, argmax, 3)

    argmax, dx = on_cuda(place, compute)
    np.testing.assert_array_equal(argmax, [[0, 0], [0, 2]])
    np.testing.assert_array_equal(dx[0], [3, 0, 0, 1, 0, 0])


@every_place
def test_padding_is_the_same_on_cuda(place, rng):
    x = rng.normal(size=(2, 1, 3, 4)).astype(np.float32)
    for frame in (0, ((1, 0), (2, 3))):
        same_on_cuda(place, lambda x, frame=frame: zeropad2d_forward(x, frame), x)
    dy = rng.normal(size=(2, 1, 4, 9)).astype(np.float32)
    same_on_cuda(place, lambda dy: zeropad2d_backward(dy, x.shape, ((1, 0), (2, 3))), dy)


@pytest.mark.sim
@pytest.mark.parametrize("t, width", [(0, 1), (41, 7), (42, 7), (2**31 - 1, 46341)])
def test_split_divides(t, width):
    assert split(t, width) == divmod(t, width)


@every_place
def test_other_axes_are_a_view(place):
    """Nothing moves: what is written into y stands in x."""

    def compute():
        x = to("cuda", np.zeros((2, 3, 4), np.float32))
        y, z = flatten_forward(x), reshape_forward(x, (2, -1))
        back = flatten_backward(y, x.shape), reshape_backward(z, x.shape, (2, -1))
        for a, value in zip((y, z, *back), range(1, 5), strict=True):
            layers.relu._y_cuda[1, 32](a.ravel(), moved(np.full(24, value, np.float32)))
            np.testing.assert_array_equal(moved_back(x), np.full((2, 3, 4), value))
        return y, z, *back

    def moved_back(a):
        return to("cpu", a)

    shapes = [a.shape for a in on_cuda(place, compute)]
    assert shapes == [(2, 12), (2, 2, 6), (2, 3, 4), (2, 3, 4)]


@every_place
@every_function
def test_arrays_of_two_devices_are_refused(place, name):
    def refused():
        here = np.zeros((2, 3), np.float32)
        there = moved(here)
        back = getattr(layers, f"{name.partition('-')[0]}_backward")
        with pytest.raises(TypeError, match="dy is on cpu but"):
            back(here, there)
        with pytest.raises(TypeError, match="dy is on cuda but"):
            back(there, here)

    on_cuda(place, refused, RUNS[:1])


@every_place
def test_several_arrays_of_two_devices_are_refused(place):
    x, w = np.zeros((2, 4), np.float32), np.zeros(1, np.float32)
    argmax = np.zeros((2, 4), np.int32)
    calls = {
        "x[1]": lambda a, b: concat_forward([a, b]),
        "b": residual_sum_forward,
        "weight": lambda a, b: prelu_forward(a, to_place(w, b)),
        "dy": lambda a, b: prelu_backward(b, a, to_place(w, a)),
        "argmax": lambda a, b: maxout_backward(a, to_place(argmax, b), 2),
    }

    def to_place(a, like):
        return a if like is x else moved(a)

    def refused():
        for name, call in calls.items():
            for first, second, where in ((x, moved(x), "cuda"), (moved(x), x, "cpu")):
                with pytest.raises(TypeError, match=re.escape(f"{name} is on {where} but")):
                    call(first, second)

    on_cuda(place, refused, RUNS[:1])
