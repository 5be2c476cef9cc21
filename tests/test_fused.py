"""course/fused.py: convolution, ReLU and max-pool in one pass, against one by one."""

from copy import deepcopy

import numpy as np
import pytest

from course.device import get_threads, set_threads
from course.fused import Fused, fuse
from course.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU
from course.model import Sequential

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
NETS = {  # images, then what the convolution is told; the pool comes last
    "even": ((3, 3, 12, 20), (3, 8, 3), {"padding": 1}),
    "odd": ((3, 3, 11, 19), (3, 5, 3), {"padding": 1}),
    "odd-height": ((5, 2, 5, 8), (2, 3, 3), {"padding": 1}),
    "odd-width": ((5, 2, 6, 9), (2, 3, 3), {"padding": 1}),
    "narrow": ((4, 2, 9, 4), (2, 19, 3), {"padding": 1}),
    "two-rows": ((4, 2, 4, 30), (2, 19, 3), {}),
    "one-window": ((2, 1, 4, 4), (1, 1, 3), {}),
    "one-tap": ((3, 6, 6, 7), (6, 17, 1), {}),
    "stride": ((2, 3, 13, 21), (3, 7, 3), {"stride": 2}),
    "dilation": ((2, 3, 13, 21), (3, 7, 3), {"dilation": 2, "padding": "same"}),
    "groups": ((2, 6, 7, 18), (6, 4, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((3, 4, 8, 18), (4, 4, 3), {"groups": 4, "padding": 1}),
    "depthwise-odd": ((3, 4, 7, 19), (4, 4, 3), {"groups": 4, "padding": 1}),
    "depthwise-narrow": ((3, 4, 6, 3), (4, 4, 3), {"groups": 4, "padding": 1}),
    "depthwise-stride": ((3, 4, 9, 21), (4, 4, 3), {"groups": 4, "stride": 2}),
    "no-bias": ((3, 3, 8, 8), (3, 6, 5), {"bias": False, "padding": 2}),
    "many": ((2, 16, 10, 10), (16, 32, 3), {"padding": 1}),
    "no-image": ((0, 3, 8, 8), (3, 6, 3), {}),
}
EACH = pytest.mark.parametrize("shape, sizes, keywords", NETS.values(), ids=NETS.keys())


def twins(sizes, keywords, dtype, pool=True):
    """Return a network of one step, and its layers once more."""
    rng = np.random.default_rng(1)
    conv = Conv2d(*sizes, **keywords, rng=rng, dtype=dtype)
    if "bias" in conv.params:
        conv.params["bias"][:] = rng.normal(size=sizes[1])
    layers = [conv, ReLU(), *([MaxPool2d(2)] if pool else [])]
    model = Sequential(*layers)
    assert [type(step) for step in model._steps] == [Fused]
    return model, deepcopy(layers)


def forward(layers, x):
    """Return what the layers make of x, one by one."""
    for layer in layers:
        x = layer.forward(x)
    return x


def backward(layers, dy):
    """Return dx, one layer after the other."""
    for layer in reversed(layers):
        dy = layer.backward(dy)
    return dy


def same_bits(a, b):
    """Raise unless the arrays are alike, bit for bit; one NaN is like another."""
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.signbit(a[a == 0]), np.signbit(b[b == 0]))


def same_grads(conv, other):
    """Raise unless both convolutions found the same gradients."""
    assert conv.grads.keys() == other.grads.keys() == conv.params.keys()
    for key, gradient in conv.grads.items():
        same_bits(gradient, other.grads[key])


@EACH
@TYPES
@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_same_bits_as_one_by_one(shape, sizes, keywords, dtype, pool, threads, rng):
    model, layers = twins(sizes, keywords, dtype, pool)
    x = rng.normal(size=shape).astype(dtype)
    before = get_threads()
    set_threads(threads)
    try:
        y = model.forward(x)
        same_bits(y, forward(layers, x))
        dy = rng.normal(size=y.shape).astype(dtype)
        same_bits(model.backward(dy), backward(layers, dy))
    finally:
        set_threads(before)
    same_grads(model.layers[0], layers[0])


@EACH
@TYPES
def test_ties_and_zeros(shape, sizes, keywords, dtype, rng):
    """Small whole numbers: half of the windows have equal pixels, many have only zeros."""
    model, layers = twins(sizes, keywords, dtype)
    for conv in (model.layers[0], layers[0]):
        for array in conv.params.values():
            array[...] = np.random.default_rng(2).integers(-1, 2, array.shape)
    x = rng.integers(-1, 2, shape).astype(dtype)
    y = model.forward(x)
    same_bits(y, forward(layers, x))
    dy = rng.normal(size=y.shape).astype(dtype)
    same_bits(model.backward(dy), backward(layers, dy))
    same_grads(model.layers[0], layers[0])


@EACH
@TYPES
def test_what_is_not_finite(shape, sizes, keywords, dtype, rng):
    """NaN and infinities, in x and in dy."""
    model, layers = twins(sizes, keywords, dtype)
    x = rng.normal(size=shape).astype(dtype)
    places = rng.random(shape)
    x[places < 0.01], x[places > 0.995] = np.nan, np.inf
    y = model.forward(x)
    np.testing.assert_array_equal(y, forward(layers, x))
    dy = rng.normal(size=y.shape).astype(dtype)
    places = rng.random(dy.shape)
    dy[places < 0.02], dy[places > 0.98] = np.nan, -np.inf
    np.testing.assert_array_equal(model.backward(dy), backward(layers, dy))
    for key, gradient in model.layers[0].grads.items():
        np.testing.assert_array_equal(gradient, layers[0].grads[key])


@EACH
def test_layers_go_backward_alone(shape, sizes, keywords, rng):
    """After a forward in one step, each layer remembers what its own backward needs."""
    model, layers = twins(sizes, keywords, np.float32)
    x = rng.normal(size=shape).astype(np.float32)
    y = model.forward(x)
    forward(layers, x)
    dy = rng.normal(size=y.shape).astype(np.float32)
    for layer, other in zip(reversed(model.layers), reversed(layers), strict=True):
        given = dy
        dy = layer.backward(given)
        same_bits(dy, other.backward(given))
    same_grads(model.layers[0], layers[0])


@EACH
@TYPES
def test_learn_finds_the_gradients_of_backward(shape, sizes, keywords, dtype, rng):
    model, _ = twins(sizes, keywords, dtype)
    x = rng.normal(size=shape).astype(dtype)
    dy = rng.normal(size=model.forward(x).shape).astype(dtype)
    model.learn(dy)
    found = dict(model.layers[0].grads)
    model.layers[0].grads.clear()
    model.backward(dy)
    assert found.keys() == model.layers[0].params.keys()
    for key, gradient in model.layers[0].grads.items():
        assert found[key] is not gradient
        same_bits(found[key], gradient)


def test_a_whole_network_learns_alike(rng):
    """Forward, backward, and learn again, with other sizes in between."""
    model = Sequential(
        *(Conv2d(1, 4, 3, padding=1, rng=rng), ReLU(), MaxPool2d(2)),
        *(Conv2d(4, 6, 3, rng=rng), ReLU()),
        *(Conv2d(6, 5, 2, rng=rng), ReLU(), MaxPool2d(2)),
        *(Flatten(), Linear(5 * 2 * 3, 3, rng=rng)),
    )
    kinds = [type(step) for step in model._steps]
    assert kinds == [Fused, Fused, Fused, Flatten, Linear]
    for count in (3, 7, 2):
        layers = deepcopy(model.layers)
        x = rng.normal(size=(count, 1, 15, 18)).astype(np.float32)
        y = model.forward(x)
        same_bits(y, forward(layers, x))
        dy = rng.normal(size=y.shape).astype(np.float32)
        same_bits(model.backward(dy), backward(layers, dy))
        for layer, other in zip(model.layers, layers, strict=True):
            same_grads(layer, other)
        model.learn(dy)
        for layer, other in zip(model.layers, layers, strict=True):
            same_grads(layer, other)


class Loud(ReLU):
    """A student's own ReLU."""

    def forward(self, x):
        return super().forward(x) + 1


class MyConv(Conv2d):
    """A student's own convolution."""

    def backward(self, dy):
        return -super().backward(dy)


class MyPool(MaxPool2d):
    """A student's own pool."""


def test_a_students_own_layer_is_asked(rng):
    def conv(kind=Conv2d):
        return kind(1, 2, 3, rng=np.random.default_rng(0))

    def kinds(*layers):
        return [type(step) for step in fuse(layers)]

    assert kinds(conv(), Loud(), MaxPool2d(2)) == [Conv2d, Loud, MaxPool2d]
    assert kinds(conv(MyConv), ReLU(), MaxPool2d(2)) == [MyConv, ReLU, MaxPool2d]
    assert kinds(conv(), ReLU(), MyPool(2)) == [Fused, MyPool]
    x = rng.normal(size=(2, 1, 6, 6)).astype(np.float32)
    loud, plain = Sequential(conv(), Loud()), Sequential(conv(), ReLU())
    same_bits(loud.forward(x), plain.forward(x) + 1)


@pytest.mark.parametrize(
    "pool, together",
    [
        (MaxPool2d(2), True),
        (MaxPool2d((2, 2), stride=(2, 2)), True),
        (MaxPool2d(2, padding="valid"), True),
        (MaxPool2d(2, padding=((0, 0), (0, 0))), True),
        (MaxPool2d(3), False),
        (MaxPool2d(2, stride=1), False),
        (MaxPool2d((2, 1)), False),
        (MaxPool2d(2, stride=(2, 1)), False),
        (MaxPool2d(2, padding=1), False),
        (MaxPool2d(2, padding="same"), False),
        (MaxPool2d(2, padding=((0, 1), (0, 0))), False),
        (MaxPool2d(2, dilation=2), False),
        (MaxPool2d(2, ceil_mode=True), False),
    ],
)
def test_only_quarters_are_pooled_on_the_way(pool, together, rng):
    conv = Conv2d(2, 3, 3, rng=rng)
    model = Sequential(conv, ReLU(), pool)
    assert len(model._steps) == 2 - together
    x = rng.normal(size=(2, 2, 9, 12)).astype(np.float32)
    layers = deepcopy(model.layers)
    y = model.forward(x)
    same_bits(y, forward(layers, x))
    dy = rng.normal(size=y.shape).astype(np.float32)
    same_bits(model.backward(dy), backward(layers, dy))


def test_other_orders_are_left_alone(rng):
    layers = [ReLU(), Conv2d(1, 1, 3, rng=rng), MaxPool2d(2), ReLU()]
    assert fuse(tuple(layers)) == layers
    assert fuse(()) == []


@pytest.mark.parametrize("side", [1, 2])
def test_too_small_to_be_pooled_is_said_as_ever(side, rng):
    model, layers = twins((1, 2, 3), {}, np.float32)
    x = np.zeros((1, 1, side + 2, 3), np.float32)
    with pytest.raises(ValueError, match="does not fit") as alone:
        forward(layers, x)
    with pytest.raises(ValueError) as together:
        model.forward(x)
    assert str(together.value) == f"2: {alone.value}"  # and which layer says so


@pytest.mark.parametrize(
    "change",
    [
        lambda dy: dy.tolist(),
        lambda dy: dy.astype(np.float64),
        lambda dy: dy.astype(int),
        lambda dy: dy[:1],
        lambda dy: dy[..., 0],
        lambda dy: None,
    ],
)
def test_a_wrong_dy_is_refused_as_ever(change, rng):
    model, layers = twins((1, 2, 3), {}, np.float32)
    x = rng.normal(size=(2, 1, 8, 8)).astype(np.float32)
    y = model.forward(x)
    forward(layers, x)
    with pytest.raises((TypeError, ValueError)) as alone:
        backward(layers, change(y))
    with pytest.raises((TypeError, ValueError)) as together:
        model.backward(change(y))
    assert str(together.value) == str(alone.value)


def test_a_dy_in_any_order(rng):
    """Read-only, and not in row-major order."""
    model, layers = twins((2, 4, 3), {"padding": 1}, np.float32)
    x = rng.normal(size=(3, 2, 8, 18)).astype(np.float32)
    y = model.forward(x)
    forward(layers, x)
    dy = rng.normal(size=y.shape[::-1]).astype(np.float32).T
    dy.flags.writeable = False
    same_bits(model.backward(dy), backward(layers, dy))


def test_backward_before_forward_is_refused(rng):
    model, _ = twins((1, 2, 3), {}, np.float32)
    with pytest.raises(RuntimeError, match="call forward first"):
        model.backward(np.zeros((1, 2, 3, 3), np.float32))
