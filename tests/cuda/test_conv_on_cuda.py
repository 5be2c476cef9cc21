"""Linear layers and convolutions on cuda, against NumPy in float64.

The oracle of convolutions is that of tests/engine/convolutions.py: it has no loop over
pixels, no kernel and no line of the course. tests/cuda/test_layers_on_cuda.py runs the
layers in several orders of threads and looks for races.
"""

import numpy as np
import pytest

from course.cuda import simulator
from course.device import empty, full, host, launch, simulated, to
from course.engine import cuda as cuda_engine
from course.fused import Fused
from course.layers import (
    Conv2d,
    Linear,
    MaxPool2d,
    ReLU,
    conv1d_backward,
    conv1d_forward,
    conv2d_backward,
    conv2d_forward,
    conv_transpose2d_backward,
    conv_transpose2d_forward,
    linear,
    linear_backward,
    linear_forward,
)
from tests.cuda.every import RUNS, close, every_place, moved, on_cuda
from tests.engine.convolutions import Case, arrays, oracle

LARGE = 1 << 40  # products; the engine takes nothing smaller
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}


def keywords(case):
    """Return what the public functions are told about the window."""
    return {
        "stride": case.stride,
        "padding": case.frame,
        "dilation": case.dilation,
        "groups": case.groups,
    }


def drawn(seed):
    """Return a small convolution, drawn at random, and a dtype."""
    rng = np.random.default_rng(seed)
    N, G, CG, FG, KH, KW, SH, SW, DH, DW = rng.integers(1, 4, 10).tolist()
    if seed % 4 == 0:  # depthwise
        CG = FG = 1
    if seed % 5 == 0:  # one tap
        KH = KW = 1
    frame = tuple(map(tuple, rng.integers(0, 4, (2, 2)).tolist()))
    spans = DH * (KH - 1) + 1, DW * (KW - 1) + 1
    H, W = (
        max(1, reach - sum(sides)) + more
        for reach, sides, more in zip(spans, frame, rng.integers(0, 4, 2), strict=True)
    )
    case = Case(
        *((N, G * CG, int(H), int(W)), (G * FG, CG, KH, KW), "", "", ""),
        *((SH, SW), frame, (DH, DW), G),
    )
    return case, np.float64 if seed % 3 == 0 else np.float32


def once(seed):
    """Return one run, whose order of threads is drawn; one in eight looks for races."""
    return [{"order": seed, "races": seed % 8 == 1}]


@every_place
@pytest.mark.parametrize("seed", range(48))
def test_conv2d_is_the_definition(place, seed, monkeypatch):
    case, dtype = drawn(seed)
    if seed % 2:  # few outputs, and yet a block for every weight
        monkeypatch.setattr("course.layers.conv2d.LONG", 0)
    x, w, b, dy = arrays(case, dtype, seed)
    window = keywords(case)

    def compute():
        dev = [moved(a) for a in (x, w, b, dy)]
        y = conv2d_forward(*dev[:3], **window)
        return [y, *conv2d_backward(dev[3], *dev[:2], **window)]

    found = on_cuda(place, compute, once(seed))
    close(found, oracle(x, w, b, dy, case)[:4], TOLERANCE[dtype])


@every_place
@pytest.mark.parametrize("seed", range(100, 116))
def test_conv1d_is_a_convolution_of_one_row(place, seed):
    case, dtype = drawn(seed)
    N, C, _, W = case.x
    case = case._replace(
        **{"x": (N, C, 1, W), "w": (*case.w[:2], 1, case.w[3])},
        **{"stride": (1, case.stride[1]), "frame": ((0, 0), case.frame[1])},
    )
    x, w, b, dy = arrays(case, dtype, seed)
    window = {"stride": case.stride[1], "padding": case.frame[1]}
    window |= {"dilation": case.dilation[1], "groups": case.groups}

    def compute():
        rows = [moved(np.ascontiguousarray(a[:, :, 0])) for a in (x, w, dy)]
        y = conv1d_forward(*rows[:2], moved(b), **window)
        return [y, *conv1d_backward(rows[2], *rows[:2], **window)]

    y, dx, dw, db = oracle(x, w, b, dy, case)[:4]
    found = on_cuda(place, compute, once(seed))
    close(found, [y[:, :, 0], dx[:, :, 0], dw[:, :, 0], db], TOLERANCE[dtype])


@every_place
@pytest.mark.parametrize("seed", range(200, 216))
def test_conv_transpose2d_is_the_transpose(place, seed):
    """Forward it is the backward of a convolution, backward its forward."""
    case, dtype = drawn(seed)
    upstream, w, _, x = arrays(case, dtype, seed)
    b = np.random.default_rng(seed).normal(size=case.x[1]).astype(dtype)
    window = keywords(case)
    window["output_padding"] = tuple(
        (n + sum(sides) - D * (K - 1) - 1) % S
        for n, sides, D, K, S in zip(
            *(case.x[2:], case.frame, case.dilation, case.w[2:], case.stride), strict=True
        )
    )

    def compute():
        dev = [moved(a) for a in (x, w, b, upstream)]
        y = conv_transpose2d_forward(*dev[:3], **window)
        return [y, *conv_transpose2d_backward(dev[3], *dev[:2], **window)]

    none = np.zeros(len(w))
    y = oracle(upstream, w, none, x, case).dx + b[:, None, None]
    dx, _, dw = oracle(upstream, w, none, x, case)[:3]
    found = on_cuda(place, compute, once(seed))
    close(found, [y, dx, dw, upstream.sum(axis=(0, 2, 3), dtype=float)], TOLERANCE[dtype])


# --- linear: the plain kernels, and those with tiles --------------------------------------

EDGES = [(3, 17, 18), (1, 1, 1), (16, 16, 16), (17, 33, 16), (15, 18, 47), (33, 1, 17)]


def matrices(N, O, I, dtype, rng):
    """Return x, w, b, dy, and y, dx, dw, db in float64."""
    x, w, b, dy = (
        rng.normal(size=shape).astype(dtype) for shape in ((N, I), (O, I), (O,), (N, O))
    )
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    exact = [wide[0] @ wide[1].T + wide[2], wide[3] @ wide[1], wide[3].T @ wide[0]]
    return (x, w, b, dy), [*exact, wide[3].sum(axis=0)]


@every_place
@pytest.mark.parametrize("N, O, I", EDGES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("way", ["", "_tiled"])
def test_both_kernels_of_linear_at_the_edges(place, way, dtype, N, O, I, rng):
    given, exact = matrices(N, O, I, dtype, rng)

    def compute():
        x, w, b, dy = moved(given)
        found = [empty(shape, dtype, x) for shape in ((N, O), (N, I), (O, I))]
        sums = [("_y_cuda", (x, w, b)), ("_dx_cuda", (dy, w)), ("_dw_cuda", (dy, x))]
        for a, (kernel, factors) in zip(found, sums, strict=True):
            kernel = getattr(linear, kernel + way)
            if way:
                blocks = -(-a.shape[1] // 16), -(-a.shape[0] // 16)
                kernel[blocks, (16, 16)](a, *factors)
            else:
                launch(kernel, a.size, a, *factors)
        return found

    runs = RUNS if N == 3 and dtype == np.float32 else RUNS[1:2]
    close(on_cuda(place, compute, runs), exact[:3], TOLERANCE[dtype])


@every_place
@pytest.mark.parametrize("N, O, I", [(0, 3, 5), (5, 3, 0), (5, 0, 3), (20, 18, 40)])
def test_linear_of_any_size(place, N, O, I, rng):
    given, exact = matrices(N, O, I, np.float32, rng)

    def compute():
        x, w, b, dy = moved(given)
        return [linear_forward(x, w, b), *linear_backward(dy, x, w)]

    close(on_cuda(place, compute, RUNS[2:] if N == 5 else RUNS[:1]), exact)


@pytest.mark.sim
@pytest.mark.parametrize(
    "N, O, I, tiled", [(16, 16, 16, "y dw dx"), (15, 16, 99, ""), (99, 15, 16, "")]
)
def test_tiles_are_for_matrices_that_fill_them(N, O, I, tiled, rng, monkeypatch):
    """A product of two matrices of which one is thin stays with the plain kernels."""
    used = []

    class Noted:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, configuration):
            return lambda *arrays: used.append(self.name)

    for name in ("y", "dw", "dx"):
        monkeypatch.setattr(linear, f"_{name}_cuda_tiled", Noted(name))
    given, _ = matrices(N, O, I, np.float32, rng)
    with simulated(), simulator.run_with(dry=True):
        x, w, b, dy = moved(given)
        linear_forward(x, w, b)
        linear_backward(dy, x, w)
    assert " ".join(used) == tiled


# --- what goes for all --------------------------------------------------------------------


def halves(*shape):
    """Return an array of that shape."""
    return np.full(shape, 0.5, np.float32)


IMAGES, SIGNALS = halves(2, 4, 5, 5), halves(2, 4, 7)
FUNCTIONS = {  # forward, x, w, dy, backward
    "linear": (linear_forward, halves(3, 4), halves(4, 4), halves(3, 4), linear_backward),
    "conv1d": (
        *(conv1d_forward, SIGNALS, halves(4, 4, 3), halves(2, 4, 5)),
        conv1d_backward,
    ),
    "conv2d": (
        *(conv2d_forward, IMAGES, halves(4, 4, 3, 3), halves(2, 4, 3, 3)),
        conv2d_backward,
    ),
    "conv_transpose2d": (
        *(conv_transpose2d_forward, IMAGES, halves(4, 4, 3, 3), halves(2, 4, 7, 7)),
        conv_transpose2d_backward,
    ),
}
every_function = pytest.mark.parametrize(
    "forward, x, w, dy, backward", FUNCTIONS.values(), ids=FUNCTIONS
)


@every_place
@every_function
def test_no_bias_is_a_bias_of_zero(place, forward, x, w, dy, backward):
    def compute():
        x_, w_ = moved((x, w))
        return [forward(x_, w_), forward(x_, w_, full(4, 0, np.float32, x_))]

    without, zero = on_cuda(place, compute, RUNS[:1])
    np.testing.assert_array_equal(without, zero)


@every_place
@every_function
def test_an_empty_batch_teaches_nothing(place, forward, x, w, dy, backward):
    def compute():
        none, w_ = moved((x[:0], w))
        y = forward(none, w_)
        return [y, *backward(y, none, w_)]

    y, dx, dw, db = on_cuda(place, compute, RUNS[:1])
    assert y.shape == dy[:0].shape and dx.shape == x[:0].shape
    np.testing.assert_array_equal(dw, np.zeros_like(w))
    np.testing.assert_array_equal(db, np.zeros(4))


@pytest.mark.sim
@every_function
@pytest.mark.parametrize("wrong", ["x", "w", "b", "dy"])
def test_arrays_on_two_devices_are_refused(forward, x, w, dy, backward, wrong):
    """By the name of the array, and both devices."""
    arrays = {"x": x, "w": w, "b": halves(4), "dy": dy}
    for here, there in ("cpu", "cuda"), ("cuda", "cpu"):
        with simulated():
            a = {k: to(there if k == wrong else here, v) for k, v in arrays.items()}
        name, at, others = (wrong, there, here) if wrong != "x" else ("w", here, there)
        says = f"{name} is on {at} but the other arrays are on {others}"
        if wrong != "dy":
            with pytest.raises(TypeError, match=says):
                forward(a["x"], a["w"], a["b"])
        if wrong != "b":
            with pytest.raises(TypeError, match=says):
                backward(a["dy"], a["x"], a["w"])


@every_place
@pytest.mark.parametrize("name", ["linear", "conv2d"])
def test_dx_that_nobody_needs_is_left_out(place, name):
    _, x, w, dy, backward = FUNCTIONS[name]

    def compute():
        arrays = moved((dy, x, w))
        dx, dw, db = backward(*arrays, need_dx=False)
        assert dx is None
        return [dw, db, *backward(*arrays)[1:]]

    dw, db, dw_too, db_too = on_cuda(place, compute, RUNS[:1])
    np.testing.assert_array_equal(dw, dw_too)
    np.testing.assert_array_equal(db, db_too)


@every_place
@every_function
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_engine_is_asked_first(
    place, forward, x, w, dy, backward, dtype, monkeypatch, rng
):
    """What it takes comes out as from the plain kernels; it takes float32."""
    given = tuple(rng.normal(size=a.shape).astype(dtype) for a in (x, w, halves(4), dy))
    taken = []

    def asked(function):
        def ask(*arguments, **more):
            taken.append(function(*arguments, **more))
            return taken[-1]

        return ask

    for name in ("linear", "linear_backward", "conv2d", "conv2d_backward"):
        monkeypatch.setattr(cuda_engine, name, asked(getattr(cuda_engine, name)))

    def compute():
        x, w, b, dy = moved(given)
        return [forward(x, w, b), *backward(dy, x, w)]

    plain = on_cuda(place, compute, RUNS[:1])
    assert not any(taken)
    taken.clear()
    monkeypatch.setattr(cuda_engine, "FEW", 0)
    close(on_cuda(place, compute, RUNS[:1]), plain, TOLERANCE[dtype])
    assert len(taken) >= 2 and set(taken) == {dtype == np.float32}


@every_place
@pytest.mark.parametrize("pool, few", [(False, LARGE), (True, LARGE), (True, 0)])
def test_a_fused_step_is_its_layers(place, pool, few, rng, monkeypatch):
    """Also where the engine cuts its sums at zero itself."""
    conv = Conv2d(2, 3, 3, padding=1, rng=rng)
    params = dict(conv.params)
    x = rng.normal(size=(2, 2, 6, 5)).astype(np.float32)
    dy = rng.normal(size=(2, 3, 3, 2) if pool else (2, 3, 6, 5)).astype(np.float32)

    def compute():
        conv.params = {k: moved(a) for k, a in params.items()}
        monkeypatch.setattr(cuda_engine, "FEW", LARGE)
        layers = [conv, ReLU(), *([MaxPool2d(2)] * pool)]
        y, dx = moved((x, dy))
        for layer in layers:
            y = layer.forward(y)
        for layer in reversed(layers):
            dx = layer.backward(dx)
        alone = [y, dx, *conv.grads.values()]
        monkeypatch.setattr(cuda_engine, "FEW", few)
        del conv.x  # what the step goes back with is its own
        step = Fused(conv, ReLU(), MaxPool2d(2) if pool else None)
        y, dx = step.forward(moved(x)), step.backward(moved(dy))
        return [*alone, y, dx, *conv.grads.values()]

    found = on_cuda(place, compute, RUNS[:1])
    close(found[4:], found[:4])


@every_place
def test_learning_is_backward_without_dx(place, rng):
    conv, dense = Conv2d(4, 4, 3, rng=rng), Linear(4, 4, rng=rng)
    for layer, x in (
        (conv, IMAGES),
        (Fused(conv, ReLU(), None), IMAGES),
        (dense, halves(3, 4)),
    ):
        owner = conv if isinstance(layer, Fused) else layer
        params = {k: host(a) for k, a in owner.params.items()}

        def compute(layer=layer, x=x, owner=owner, params=params):
            owner.params.update({k: moved(a) for k, a in params.items()})
            dy = layer.forward(moved(x))
            layer.learn(dy)
            learnt = list(owner.grads.values())
            layer.backward(dy)
            return [*learnt, *owner.grads.values()]

        dw, db, dw_too, db_too = on_cuda(place, compute, RUNS[:1])
        assert np.abs(dw).max() > 0
        np.testing.assert_array_equal(dw, dw_too)
        np.testing.assert_array_equal(db, db_too)
