"""The GPU's engine against NumPy in float64, on shapes small enough for the simulator.

Cases run in two orders of the threads, with the same bits. The race check is slow: it
looks at each tile, and at each way to find the numbers.
"""

import numpy as np
import pytest

from course.cuda import CudaError, native
from course.cuda.vectors import ld4, tf32
from course.device import empty, host, simulated, to
from course.engine import cuda as engine
from course.engine import cuda_conv, cuda_matmul, cuda_tile
from course.engine.cuda_tile import TILES
from tests.cuda.every import RUNS, every_place, on_cuda
from tests.engine.convolutions import NONE, ONE, Case, arrays, oracle

ORDERS, FORWARD = RUNS[:2], RUNS[:1]
ROUNDING = {"float32": 2e-6, "tf32": 1e-3}  # of the norm


@pytest.fixture(autouse=True)
def _however_small(monkeypatch):
    monkeypatch.setattr(engine, "FEW", 0)
    monkeypatch.setattr(engine, "NARROW", 0)


def only_tile(monkeypatch, name):
    """Let the engine compute everything with one tile."""
    for module in (cuda_conv, cuda_matmul):
        monkeypatch.setattr(module, "choose", lambda *_, **__: name)


def close(found, expected, precision="float32"):
    """Assert that the norm of the error is small."""
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape and a.dtype == np.float32
        error = np.linalg.norm(np.float64(a) - b)
        assert error <= ROUNDING[precision] * np.linalg.norm(b), f"answer {k}: {error}"


# --- matrices ---------------------------------------------------------------------------


def linear(place, N, I, O, relu=False, runs=ORDERS):
    """Return y, dx, dw of the engine, and of NumPy."""
    rng = np.random.default_rng(N)
    shapes = (N, I), (O, I), (O,), (N, O)
    x, w, b, dy = (rng.normal(size=shape).astype(np.float32) for shape in shapes)

    def compute():
        xc, wc, bc, dyc = (to("cuda", a) for a in (x, w, b, dy))
        y, dx, dw = (empty(a.shape, a.dtype, xc) for a in (dy, x, w))
        assert engine.linear(y, xc, wc, bc, relu=relu)
        assert engine.linear_backward(dx, dw, dyc, xc, wc)
        return y, dx, dw

    found = on_cuda(place, compute, runs)
    x, w, b, dy = map(np.float64, (x, w, b, dy))
    y = x @ w.T + b
    return found, (np.maximum(y, 0) if relu else y, dy @ w, dy.T @ x)


@every_place
@pytest.mark.parametrize(
    "N, I, O", [(1, 1, 1), (130, 3, 8), (3, 12, 8), (2, 4, 70), (17, 8, 20)]
)
def test_product_of_matrices(place, N, I, O):
    close(*linear(place, N, I, O))


@every_place
def test_relu_is_fused_and_no_threads_race(place):
    close(*linear(place, 5, 7, 9, relu=True, runs=RUNS))


@every_place
@pytest.mark.parametrize("O", [3, 33])
def test_long_sums_are_cut_into_shares(place, O, monkeypatch):
    monkeypatch.setattr(cuda_matmul, "LONG", 8)
    close(*linear(place, 5, 33, O, relu=True, runs=FORWARD))


@every_place
@pytest.mark.parametrize("name", TILES)
def test_every_tile_multiplies_matrices_without_races(place, name, monkeypatch):
    only_tile(monkeypatch, name)
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((18, 17), (5, 17)))

    def compute():
        xc, wc = to("cuda", x), to("cuda", w)
        y = empty((18, 5), np.float32, xc)
        assert engine.linear(y, xc, wc, None)
        return (y,)

    found = on_cuda(place, compute, RUNS[2:])
    close(found, [np.float64(x) @ np.float64(w).T], name if name == "tf32" else "float32")


@every_place
def test_views_that_begin_anywhere(place):
    """Four numbers at once may be read at multiples of 16 bytes only."""
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 8), (4, 8)))
    flat = np.concatenate([np.zeros(1, np.float32), x.ravel()])

    def compute():
        view, wc = to("cuda", flat)[1:].reshape(4, 8), to("cuda", w)
        y = empty(17, np.float32, wc)[1:].reshape(4, 4)
        assert engine.linear(y, view, wc, None)
        return (y,)

    close(on_cuda(place, compute, FORWARD), [np.float64(x) @ np.float64(w).T])


@every_place
def test_nothing_but_the_target_is_written_and_nan_stays_in_its_row(place):
    x, w = np.ones((5, 9), np.float32), np.ones((3, 9), np.float32)
    x[2, 8] = np.nan

    def compute():
        xc, wc = to("cuda", x), to("cuda", w)
        whole = to("cuda", np.full(4 + 15 + 4, -1, np.float32))
        assert engine.linear(whole[4:19].reshape(5, 3), xc, wc, None)
        return whole

    whole = on_cuda(place, compute, ORDERS)
    y = whole[4:19].reshape(5, 3)
    assert (whole[:4] == -1).all() and (whole[19:] == -1).all()
    assert np.isnan(y[2]).all() and (y[[0, 1, 3, 4]] == 9).all()


# --- convolutions -----------------------------------------------------------------------


def case(x, w, **window):
    """Return a case, whatever the CPU computes it with."""
    return Case(x, w, "", "", "", **window)


CASES = {
    "plain": case((2, 3, 4, 4), (4, 3, 3, 2)),
    "framed": case((2, 2, 3, 3), (3, 2, 3, 3), frame=ONE),
    "asymmetric": case((1, 3, 4, 3), (2, 3, 2, 4), frame=((0, 2), (3, 1))),
    "stride": case((2, 2, 5, 4), (3, 2, 3, 3), stride=(2, 2), frame=ONE),
    "stride-of-two-kinds": case((2, 2, 5, 7), (5, 2, 3, 3), stride=(2, 3)),
    "stride-beyond-the-window": case((1, 2, 9, 8), (2, 2, 2, 1), stride=(4, 3)),
    "stride-beyond-the-map": case((2, 3, 4, 3), (4, 3, 2, 2), stride=(9, 7)),
    "dilated": case((1, 2, 5, 6), (3, 2, 3, 2), dilation=(2, 3), frame=ONE),
    "dilated-stride": case(
        (1, 2, 6, 7), (3, 2, 3, 2), stride=(2, 3), frame=((3, 2), (1, 4)), dilation=(3, 2)
    ),
    "groups": case((2, 6, 3, 3), (4, 3, 3, 3), frame=ONE, groups=2),
    "one-channel-each": case((2, 3, 4, 4), (6, 1, 3, 3), frame=ONE, groups=3),
    "one-tap": case((2, 5, 3, 3), (7, 5, 1, 1)),
    "one-tap-in-a-frame": case((2, 3, 2, 2), (4, 3, 1, 1), frame=ONE),
    "window-is-the-map": case((3, 2, 3, 4), (5, 2, 3, 4)),
    "wider-than-the-map": case((2, 1, 2, 3), (3, 1, 5, 6), frame=((3, 2), (3, 3))),
    "many-pixels": case((1, 1, 9, 10), (2, 1, 2, 2)),
}
RACED = "asymmetric", "stride"


def convolution(place, chosen, relu=False, runs=ORDERS):
    """Return y, dx, dw of the engine, and of NumPy."""
    x, w, b, dy = arrays(chosen, np.float32)
    window = chosen.stride, chosen.frame, chosen.dilation, chosen.groups

    def compute():
        xc, wc, bc, dyc = (to("cuda", a) for a in (x, w, b, dy))
        y, dx, dw = (empty(a.shape, a.dtype, xc) for a in (dy, x, w))
        assert engine.conv2d(y, xc, wc, bc, *window, relu=relu)
        assert engine.conv2d_backward(dx, dw, dyc, xc, wc, *window)
        return y, dx, dw

    found = on_cuda(place, compute, runs)
    y, dx, dw, *_ = oracle(x, w, b, dy, chosen)
    return found, (np.maximum(y, 0) if relu else y, dx, dw)


@every_place
@pytest.mark.parametrize("name", CASES)
def test_convolution(place, name):
    runs = RUNS if name in RACED else ORDERS
    close(*convolution(place, CASES[name], relu=name == "framed", runs=runs))


@every_place
@pytest.mark.parametrize("name", TILES)
def test_every_tile_convolves(place, name, monkeypatch):
    only_tile(monkeypatch, name)
    found, expected = convolution(place, CASES["one-tap-in-a-frame"], runs=FORWARD)
    close(found, expected, name if name == "tf32" else "float32")


@every_place
def test_sums_over_the_batch_are_cut_into_shares(place, monkeypatch):
    monkeypatch.setattr(cuda_conv, "LONG", 8)
    close(*convolution(place, case((3, 1, 3, 4), (3, 1, 3, 3), frame=ONE)))


@every_place
def test_without_bias_and_without_dx(place):
    x, w, _, dy = arrays(CASES["plain"], np.float32)
    window = (1, 1), NONE, (1, 1), 1

    def compute():
        xc, wc, dyc = (to("cuda", a) for a in (x, w, dy))
        y, dw = empty(dy.shape, dy.dtype, xc), empty(w.shape, w.dtype, xc)
        assert engine.conv2d(y, xc, wc, None, *window)
        assert engine.conv2d_backward(None, dw, dyc, xc, wc, *window)
        return y, dw

    y, _, dw, *_ = oracle(x, w, 0 * w[:, 0, 0, 0], dy, CASES["plain"])
    close(on_cuda(place, compute, FORWARD), (y, dw))


@every_place
def test_a_table_is_sent_once(place):
    made = cuda_conv.y_plan.cache_info().misses
    convolution(place, CASES["one-tap"])
    assert cuda_conv.y_plan.cache_info().misses <= made + 1


# --- precision and choice ---------------------------------------------------------------


@every_place
def test_tensor_cores_are_used_when_asked_for(place):
    """In TF32 3 + 2**-11 is 3: sums of float32 products would see the difference."""
    x = np.full((40, 3), 3 + 2**-11, np.float32)

    def compute():
        xc, wc = to("cuda", x), to("cuda", x)
        y = empty((40, 40), np.float32, xc)
        with engine.precision("tf32"):
            assert engine.linear(y, xc, wc, None)
        z = empty((40, 40), np.float32, xc)
        assert engine.linear(z, xc, wc, None)
        return y, z

    y, z = on_cuda(place, compute, FORWARD)
    assert (y == 27).all()
    close([z], [np.float64(x) @ np.float64(x).T])


def test_unknown_precision():
    with pytest.raises(ValueError, match="'half'"), engine.precision("half"):
        pass


def test_precision_ends_with_its_block():
    with pytest.raises(KeyError), engine.precision("tf32"):
        raise KeyError
    with simulated():
        assert not engine._tf32(to("cuda", np.zeros(1)))


def test_an_old_gpu_has_no_tf32(monkeypatch):
    class Old:
        simulated = False

    monkeypatch.setattr(native, "capability", lambda: (7, 5))
    with engine.precision("tf32"), pytest.raises(RuntimeError, match=r"8\.0.*7\.5"):
        engine._tf32(Old())
    assert not engine._tf32(Old())


TWO = (1, 2, 1, 3), (2, 1, 1, 3)  # one channel for each of two filters


def test_what_is_left_to_the_plain_kernels(monkeypatch):
    with simulated():
        x, y = to("cuda", np.zeros((2, 3))), to("cuda", np.zeros((2, 2)))
        w, b = to("cuda", np.zeros((2, 3))), to("cuda", np.zeros(2))
        assert not engine.linear(y, x, w, b)  # float64
        x, y, w, b = (to("cuda", host(a).astype(np.float32)) for a in (x, y, w, b))
        assert engine.linear(y, x, w, b)
        assert not engine.linear(y[:0], x[:0], w, b)  # no products
        monkeypatch.setattr(engine, "FEW", 13)
        assert not engine.linear(y, x, w, b)
        assert not engine.linear_backward(None, w, y, x, w)
        images, filters = (to("cuda", np.zeros((1, 1, 1, 3), np.float32)) for _ in "xw")
        y = to("cuda", np.zeros((1, 1, 1, 1), np.float32))
        window = (1, 1), NONE, (1, 1), 1
        assert not engine.conv2d(y, images, filters, None, *window)
        assert not engine.conv2d_backward(None, filters, y, images, filters, *window)
        monkeypatch.setattr(engine, "FEW", 0)
        monkeypatch.setattr(engine, "NARROW", 4)
        images, filters = (to("cuda", np.zeros(s, np.float32)) for s in TWO)
        y = to("cuda", np.zeros((1, 2, 1, 1), np.float32))
        assert not engine.conv2d(y, images, filters, None, *window[:3], 2)


def test_the_tile_fits_the_shape():
    choose = cuda_tile.choose
    assert choose(6, 10**6) == choose(16, 10**5) == "16x256"
    assert choose(17, 10**5) == "32x256" and choose(64, 10**6) == "64x128"
    assert choose(512, 10**5) == "128x128"  # enough of them for a large GPU,
    assert choose(512, 1024) == "64x128"  # not quite,
    assert choose(120, 256) == "32x32"  # and not at all
    assert choose(512, 1024, 16) == "128x128"
    assert choose(512, 512, tf32=True) == "tf32"
    assert choose(6, 10**6, tf32=True) == "16x256"  # most of a tile would be empty


# --- the instructions -------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, rounded",
    [
        (1 + 2**-11, 1 + 2**-10),  # a tie goes away from zero
        (-1 - 2**-11, -1 - 2**-10),
        (1 + 2**-12, 1),
        (1 + 3 * 2**-12, 1 + 2**-10),
        (2 - 2**-12, 2),
        (np.inf, np.inf),
        (0, 0),
    ],
)
def test_tf32_has_ten_bits(value, rounded):
    assert tf32(np.float32(value)) == rounded


def test_nan_stays_nan():
    assert np.isnan(tf32(np.float32(np.nan)))


def test_four_at_once_begin_at_a_multiple_of_four():
    assert ld4(np.arange(8), 4) == (4, 5, 6, 7)
    with pytest.raises(CudaError, match="not at 3"):
        ld4(np.arange(8), 3)
