"""The course beside PyTorch on random geometries, where PyTorch is installed.

PyTorch is not in the lock; `pip install "torch==2.13.0"` brings it. Without it every
test here is skipped and counted as not run.
"""

import inspect
from copy import deepcopy
from functools import partial

import numpy as np
import pytest

import course.layers
from course.layers import (
    ELU,
    GELU,
    LogSoftmax,
    PReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    conv2d_backward,
    conv2d_forward,
    maxpool2d_backward,
    maxpool2d_forward,
)
from course.shapes import col2im, im2col
from tests.layers.every import IMAGES, ROWS, classes, distinct
from tests.reference import make_reference as reference

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
functional = torch.nn.functional
torch.set_num_threads(1)  # the arrays are small, and the machine has other tests to run
MANY = 200  # geometries


def sizes(rng, low, high):
    """Return one whole number, or two, from low to high."""
    return (
        int(rng.integers(low, high + 1))
        if rng.random() < 0.5
        else tuple(int(n) for n in rng.integers(low, high + 1, 2))
    )


def both(ours, our_arguments, theirs, their_arguments, **keywords):
    """Run both; return their results, or None where both refuse."""
    try:
        expected = theirs(*their_arguments, **keywords)
    except RuntimeError as error:
        assert "size" in str(error)
        with pytest.raises(ValueError, match="does not fit"):
            ours(*our_arguments, **keywords)
        return None
    if isinstance(expected, tuple) and (expected[0] == -np.inf).any():
        # a window sees padding only: PyTorch answers -inf at a place outside the image
        with pytest.raises(ValueError, match="sees padding only"):
            ours(*our_arguments, **keywords)
        return None
    return ours(*our_arguments, **keywords), expected


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("dtype, close", [(np.float32, 2e-4), (np.float64, 1e-11)])
def test_conv2d(dtype, close, rng):
    refused = 0
    for _ in range(MANY):
        G = int(rng.integers(1, 4))
        CG, FG, N = (int(n) for n in rng.integers(1, 4, 3))
        x = rng.normal(size=(N, G * CG, *rng.integers(1, 10, 2))).astype(dtype)
        w = rng.normal(size=(G * FG, CG, *rng.integers(1, 5, 2))).astype(dtype)
        b = rng.normal(size=G * FG).astype(dtype)
        keywords = {"dilation": sizes(rng, 1, 3), "groups": G}
        if rng.random() < 0.2:  # PyTorch knows "same" for stride 1 only
            keywords["padding"] = str(rng.choice(["same", "valid"]))
        else:
            keywords |= {"stride": sizes(rng, 1, 3), "padding": sizes(rng, 0, 3)}
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
        result = both(conv2d_forward, (x, w, b), functional.conv2d, leaves, **keywords)
        if result is None:
            refused += 1
            continue
        y, expected = result
        dy = rng.normal(size=y.shape).astype(dtype)
        gradients = torch.autograd.grad(expected, leaves, torch.from_numpy(dy))
        found = y, *conv2d_backward(dy, x, w, **keywords)
        for name, a, t in zip(
            ("y", "dx", "dw", "db"), found, (expected, *gradients), strict=True
        ):
            assert a.dtype == dtype
            what = f"{name}: x {x.shape}, w {w.shape}, {keywords}"
            np.testing.assert_allclose(a, t.detach(), close, close, err_msg=what)
    assert MANY / 20 < refused < MANY / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_maxpool2d(dtype, rng):
    refused = 0
    for _ in range(MANY):
        kernel = tuple(int(n) for n in rng.integers(1, 5, 2))
        keywords = {
            "stride": None if rng.random() < 0.2 else sizes(rng, 1, 3),
            "padding": tuple(int(rng.integers(K // 2 + 1)) for K in kernel),
            "dilation": sizes(rng, 1, 2),
        }
        ceil_mode = bool(rng.random() < 0.5)
        levels = int(rng.choice([2, 1000]))  # of grey: many ties, few ties
        shape = tuple(int(n) for n in (*rng.integers(1, 3, 2), *rng.integers(1, 10, 2)))
        x = (rng.integers(levels, size=shape) - levels).astype(dtype)
        leaf = torch.tensor(x, requires_grad=True)
        result = both(
            *(maxpool2d_forward, (x, kernel)),
            *(partial(functional.max_pool2d, return_indices=True), (leaf, kernel)),
            **keywords,
            ceil_mode=ceil_mode,
        )
        if result is None:
            refused += 1
            continue
        (y, argmax), (expected_y, expected_argmax) = result
        what = f"x {shape}, kernel {kernel}, {keywords}, ceil_mode {ceil_mode}"
        np.testing.assert_array_equal(y, expected_y.detach(), what)
        np.testing.assert_array_equal(argmax, expected_argmax, what)
        dy = rng.integers(1, 9, y.shape).astype(dtype)  # whole numbers: exact sums
        (expected_dx,) = torch.autograd.grad(expected_y, leaf, torch.from_numpy(dy))
        dx = maxpool2d_backward(dy, argmax, shape, kernel, **keywords)
        np.testing.assert_array_equal(dx, expected_dx, what)
    assert MANY / 50 < refused < MANY / 2


def arguments(*values, **keywords):
    """Return the arguments of a constructor, ours and PyTorch's alike."""
    return values, keywords


SEQUENCES = 3, 4, 9
LAYERS = [  # name, what both constructors get, the shape of an x that suits it
    ("AvgPool2d", arguments(3, 2, 1, True, False), IMAGES),
    ("AvgPool2d", arguments((2, 3), 2, (1, 0), True, True), IMAGES),
    ("AvgPool2d", arguments((2, 3), (1, 2), (1, 1), count_include_pad=False), IMAGES),
    ("BatchNorm1d", arguments(12), ROWS),
    ("BatchNorm1d", arguments(4, 1e-3, None), SEQUENCES),
    ("BatchNorm2d", arguments(4, 1e-3, 0.3), IMAGES),
    ("BatchNorm2d", arguments(4, affine=False, track_running_stats=False), IMAGES),
    ("Conv1d", arguments(4, 6, 3, 2, 1, 2, 2), SEQUENCES),
    ("Conv1d", arguments(4, 6, 4, padding="same", bias=False), SEQUENCES),
    ("Conv2d", arguments(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2), IMAGES),
    ("Conv2d", arguments(4, 6, (4, 3), padding="same", bias=False), IMAGES),
    ("ConvTranspose2d", arguments(4, 6, (3, 2), (3, 2), (1, 0), (2, 1), 2), IMAGES),
    ("ConvTranspose2d", arguments(4, 6, 3, dilation=2, bias=False), IMAGES),
    ("ELU", arguments(0.7), IMAGES),
    ("Flatten", arguments(), IMAGES),
    ("GELU", arguments(), IMAGES),
    ("GELU", arguments("tanh"), IMAGES),
    ("GroupNorm", arguments(2, 4, 1e-3), IMAGES),
    ("InstanceNorm2d", arguments(4, 1e-3, affine=True), IMAGES),
    ("InstanceNorm2d", arguments(4), IMAGES),
    ("LPPool2d", arguments(2, (3, 2), 2, True), IMAGES),
    ("LPPool2d", arguments(2, 2), IMAGES),
    ("LayerNorm", arguments(12), ROWS),
    ("LayerNorm", arguments((7, 6), 1e-3, bias=False), IMAGES),
    ("LeakyReLU", arguments(0.2), IMAGES),
    ("Linear", arguments(12, 5), ROWS),
    ("Linear", arguments(12, 5, bias=False), ROWS),
    ("LocalResponseNorm", arguments(3, 0.5, 0.6, 2.0), IMAGES),
    ("LocalResponseNorm", arguments(2, 0.5), IMAGES),
    ("LogSoftmax", arguments(1), IMAGES),
    ("LogSoftmax", arguments(-1), ROWS),
    ("MaxPool2d", arguments((3, 2), (2, 1), (1, 0), 2, ceil_mode=True), IMAGES),
    ("MaxPool2d", arguments(2), IMAGES),
    ("PReLU", arguments(4, 0.1), IMAGES),
    ("PReLU", arguments(), ROWS),
    ("ReLU", arguments(), IMAGES),
    ("SiLU", arguments(), IMAGES),
    ("Sigmoid", arguments(), IMAGES),
    ("Softmax", arguments(1), IMAGES),
    ("Softmax", arguments(0), ROWS),
    ("Softplus", arguments(), IMAGES),
    ("Softplus", arguments(2.0, 3.0), IMAGES),
    ("Tanh", arguments(), IMAGES),
    ("Upsample", arguments(scale_factor=2, mode="nearest"), IMAGES),
    ("Upsample", arguments(scale_factor=(1.5, 0.5), mode="bilinear"), IMAGES),
    (
        "Upsample",
        arguments(scale_factor=3, mode="bilinear", align_corners=True),
        IMAGES,
    ),
    ("ZeroPad2d", arguments(2), IMAGES),
]
MORE = {"LPPool2d": ("padding", "dilation")}  # what PyTorch's layer does not have
RANDOM = {"Dropout", "Dropout2d"}  # their masks are their own: see their tests


def ours(name, *values, **keywords):
    """Return our layer in float64."""
    make = getattr(course.layers, name)
    new = {"rng": np.random.default_rng(0), "dtype": np.float64}
    known = inspect.signature(make).parameters
    return make(*values, **keywords, **{key: new[key] for key in new if key in known})


def test_no_layer_that_pytorch_has_is_left_out():
    both = {name for name in classes() if hasattr(torch.nn, name)}
    assert both == {name for name, *_ in LAYERS} | RANDOM


@pytest.mark.parametrize("name", sorted({name for name, *_ in LAYERS} | RANDOM))
def test_arguments_have_the_names_and_the_order_of_pytorch(name):
    """Some we leave out; after such a gap, and for what is ours alone, names are needed."""
    mine = inspect.signature(getattr(course.layers, name)).parameters.values()
    theirs = list(inspect.signature(getattr(torch.nn, name)).parameters)
    mine = [p for p in mine if p.name not in ("rng", "dtype")]
    shared = [p for p in mine if p.name in theirs]
    assert mine == [*shared, *(p for p in mine if p.name in MORE.get(name, ()))]
    positional = [p.name for p in shared if p.kind is not p.KEYWORD_ONLY]
    assert positional == [one for one in theirs if one in positional]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    "name, told, shape", [pytest.param(*row, id=row[0]) for row in LAYERS]
)
def test_layer_is_that_of_pytorch(name, told, shape, rng):
    """y, dx, every gradient and every running statistic, in float64."""
    (values, keywords) = told
    layer = ours(name, *values, **keywords)
    other = getattr(torch.nn, name)(*values, **keywords).double()
    assert layer.params.keys() == dict(other.named_parameters()).keys()
    for key, parameter in other.named_parameters():
        assert layer.params[key].shape == parameter.shape
        layer.params[key] = rng.normal(size=parameter.shape)
        parameter.data = torch.from_numpy(layer.params[key].copy())

    x = distinct(shape, rng)
    leaf = torch.tensor(x, requires_grad=True)
    y, expected = layer.forward(x), other(leaf)
    dy = rng.normal(size=y.shape)
    dx = layer.backward(dy)
    expected.backward(torch.from_numpy(dy))
    close = {"rtol": 1e-11, "atol": 1e-12}
    np.testing.assert_allclose(y, expected.detach(), **close)
    np.testing.assert_allclose(dx, leaf.grad, **close)
    for key, parameter in other.named_parameters():
        np.testing.assert_allclose(layer.grads[key], parameter.grad, **close, err_msg=key)
    for key, buffer in other.named_buffers():
        np.testing.assert_allclose(layer.buffers[key], buffer, **close, err_msg=key)

    np.testing.assert_allclose(layer.eval()(x), other.eval()(leaf).detach(), **close)


def test_columns_are_those_of_unfold_and_fold(rng):
    x = rng.normal(size=(2, 3, 9, 8))
    told = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 2), "dilation": (1, 3)}
    columns = im2col(x, **told)
    unfolded = functional.unfold(torch.from_numpy(x), **told)
    np.testing.assert_array_equal(columns, unfolded)
    g = rng.normal(size=columns.shape)
    folded = functional.fold(torch.from_numpy(g), x.shape[2:], **told)
    np.testing.assert_allclose(col2im(g, x.shape, **told), folded, 1e-12, 1e-12)


ACTIVATIONS = pytest.mark.parametrize(
    "layer, theirs",
    [
        (PReLU(5), torch.nn.PReLU(5)),
        (PReLU(init=-0.5), torch.nn.PReLU(init=-0.5)),
        (ELU(1.7), torch.nn.ELU(1.7)),
        (GELU(), torch.nn.GELU()),
        (GELU("tanh"), torch.nn.GELU("tanh")),
        (SiLU(), torch.nn.SiLU()),
        (Softplus(), torch.nn.Softplus()),
        (Softplus(0.5, 3), torch.nn.Softplus(0.5, 3)),
        (Sigmoid(), torch.nn.Sigmoid()),
        (Tanh(), torch.nn.Tanh()),
        (Softmax(), torch.nn.Softmax(1)),
        (Softmax(-1), torch.nn.Softmax(-1)),
        (LogSoftmax(), torch.nn.LogSoftmax(1)),
        (LogSoftmax(0), torch.nn.LogSoftmax(0)),
    ],
)


@ACTIVATIONS
@pytest.mark.parametrize("dtype, close", [(np.float32, 1e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("scale", [1, 10, 1e4])
@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3), (2, 5, 7, 9)])
def test_activations(layer, theirs, dtype, close, scale, shape, rng):
    x, dy = rng.normal(size=(2, *shape)).astype(dtype)
    x *= dtype(scale)
    layer, theirs = deepcopy(layer), deepcopy(theirs).to(torch.from_numpy(x).dtype)
    layer.params = {key: value.astype(dtype) for key, value in layer.params.items()}
    leaf = torch.from_numpy(x).requires_grad_()
    expected = theirs(leaf)
    y, dx = layer(x), layer.backward(dy)
    expected.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(y, expected.detach(), close, close)
    np.testing.assert_allclose(dx, leaf.grad, 4 * close, 8 * close)
    assert [name for name, _ in theirs.named_parameters()] == list(layer.grads)
    for key, value in theirs.named_parameters():
        largest = float(value.grad.abs().max())
        np.testing.assert_allclose(layer.grads[key], value.grad, 0, 20 * close * largest)


@pytest.mark.parametrize("make", [Softmax, LogSoftmax, GELU, SiLU, Softplus, Tanh, Sigmoid])
def test_nan_and_infinity_go_where_theirs_go(make):
    a = np.array([-np.inf, np.inf, np.nan, 0.0, 1.0, -1e4, 1e4])
    x = np.stack([a, np.roll(a, 1), np.zeros(7), np.full(7, -np.inf)])
    theirs = getattr(torch.nn, make.__name__)
    theirs = theirs(1) if "Softmax" in make.__name__ else theirs()
    expected = theirs(torch.from_numpy(x))
    np.testing.assert_allclose(make()(x), expected, 1e-14)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", reference.FILES)
def test_reference_files_are_what_the_script_makes(name):
    """On another machine PyTorch may add in another order: close, not equal."""
    made = reference.make(name)
    read = reference.read(name)
    assert made.keys() == {f"{case}/{key}" for case in read for key in read[case]}
    for key, array in made.items():
        case, what = key.split("/")
        rtol = 1e-6 if array.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(array, read[case][what], rtol, 1e-13, err_msg=key)
