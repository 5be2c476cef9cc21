"""The four normalisations on cuda: what tests/layers/every.py does not reach."""

import numpy as np
import pytest

from course.device import to
from course.layers import (
    BatchNorm1d,
    BatchNorm2d,
    batchnorm_backward,
    batchnorm_forward,
    groupnorm_backward,
    groupnorm_forward,
    instancenorm_backward,
    instancenorm_forward,
    layernorm_backward,
    layernorm_forward,
)
from tests.cuda.every import RUNS, close, every_place, moved, on_cuda

F = np.float32


def batch(x, w, b, dy):
    """Return all that the two functions return, with statistics of the batch."""
    y, *statistics = batchnorm_forward(x, w, b, None, None, True)
    return [y, *statistics, *batchnorm_backward(dy, x, w, *statistics, True)]


def layer(x, w, b, dy):
    """Return all that the two functions return."""
    y, *statistics = layernorm_forward(x, w, b)
    return [y, *statistics, *layernorm_backward(dy, x, w, *statistics)]


def group(x, w, b, dy):
    """Return all that the two functions return, with two groups."""
    y, *statistics = groupnorm_forward(x, 2, w, b)
    return [y, *statistics, *groupnorm_backward(dy, x, w, *statistics)]


def instance(x, w, b, dy):
    """Return all that the two functions return."""
    y, *statistics = instancenorm_forward(x, w, b)
    return [y, *statistics, *instancenorm_backward(dy, x, w, *statistics)]


CASES = [  # and sizes of more than a warp, than a block, than 32 columns
    pytest.param(batch, (2, 2, 5, 37), 2, id="batch"),
    pytest.param(batch, (70, 3), 3, id="batch-rows"),
    pytest.param(layer, (9, 70), 70, id="layer"),
    pytest.param(layer, (2, 300), 300, id="layer-long"),
    pytest.param(group, (2, 4, 9, 9), 4, id="group"),
    pytest.param(group, (1, 66), 66, id="group-rows"),
    pytest.param(instance, (1, 2, 13, 11), 2, id="instance"),
]
every_case = pytest.mark.parametrize("both, shape, size", CASES)


def drawn(rng, shape, size, dtype):
    """Return x, w, b and dy."""
    x, dy = rng.normal(size=(2, *shape))
    w, b = rng.normal(size=(2, size))
    return tuple(a.astype(dtype) for a in (x, w, b, dy))


@every_place
@every_case
@pytest.mark.parametrize("dtype", [F, np.float64])
def test_large_and_small(place, both, shape, size, dtype, rng):
    arrays = drawn(rng, shape, size, dtype)
    runs = RUNS[::2] if dtype == F else RUNS[:1]
    found = on_cuda(place, lambda: both(*moved(arrays)), runs)
    assert {a.dtype for a in found} == {np.dtype(dtype)}
    close(found, both(*(np.float64(a) for a in arrays)), 2e-6 if dtype == F else 1e-13)


@every_place
@every_case
def test_a_mean_far_from_0_costs_no_digits(place, both, shape, size, rng):
    """As on the CPU. Near 1e4 a float32 is off by up to 5e-4: so is the mean, y is less."""
    x, w, b, dy = drawn(rng, shape, size, F)
    x += F(1e4)
    found = on_cuda(place, lambda: both(*moved((x, w, b, dy)))[:3], RUNS[:1])
    expected = both(*(np.float64(a) for a in (x, w, b, dy)))[:3]
    close(found, expected)
    np.testing.assert_allclose(found[1], expected[1], 0, 5.5e-4)


@every_place
@every_case
def test_all_alike_is_bias(place, both, shape, size, rng):
    _, w, b, dy = drawn(rng, shape, size, F)
    x = np.full(shape, 0.1, F)
    found = on_cuda(place, lambda: both(*moved((x, w, b, dy))), RUNS[:1])
    cpu = both(x, w, b, dy)
    close(found[:2], cpu[:2])
    for a in found:
        assert np.isfinite(a).all()


@every_place
@every_case
def test_without_weight_and_bias(place, both, shape, size, rng):
    if both is layer:
        pytest.skip("layernorm's weight says which axes it normalises")
    x, _, _, dy = drawn(rng, shape, size, F)
    found = on_cuda(place, lambda: both(*moved((x, None, None, dy))), RUNS[:1])
    close(found, both(np.float64(x), None, None, np.float64(dy)))


@every_place
@every_case
@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_devices_do_not_mix(place, both, shape, size, left, rng):
    arrays = drawn(rng, shape, size, F)

    def compute():
        there = [a if k == left else to("cuda", a) for k, a in enumerate(arrays)]
        with pytest.raises(TypeError, match=r"on cpu but .* on cuda|on cuda but .* on cpu"):
            both(*there)
        return 0

    on_cuda(place, compute, RUNS[:1])


# --- running statistics -----------------------------------------------------------------


def trained(make, batches, dy):
    """Return what a layer answers in use after some batches, and its buffers."""
    net = make()
    for key in ("running_mean", "running_var"):
        net.buffers[key] = moved(net.buffers[key])
    for key, a in net.params.items():
        net.params[key] = moved(a)
    for x in batches:
        net.forward(moved(x))
    y = net.eval().forward(moved(batches[0]))
    return [y, net.backward(moved(dy)), *net.buffers.values()]


@every_place
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(
    "make, shape", [(BatchNorm2d, (2, 3, 4, 5)), (BatchNorm1d, (6, 3))]
)
def test_running_statistics_stay_on_the_device(place, make, shape, momentum, rng):
    batches = [rng.normal(k, k + 1, shape).astype(F) for k in range(3)]
    batches.insert(1, np.empty((0, *shape[1:]), F))
    dy = rng.normal(size=shape).astype(F)

    def compute():
        return trained(lambda: make(3, 1e-3, momentum), batches, dy)

    found = on_cuda(place, compute, RUNS[::2])
    net = make(3, 1e-3, momentum, dtype=np.float64)
    for x in batches:
        net.forward(np.float64(x))
    y = net.eval().forward(np.float64(batches[0]))
    close(found, [y, net.backward(np.float64(dy)), *net.buffers.values()])
    assert found[-1] == 3 and found[-1].dtype == np.int64


@every_place
def test_in_use_mean_is_a_copy(place, rng):
    """It must not follow when the running arrays go on."""
    x = rng.normal(size=(4, 3)).astype(F)
    before = rng.uniform(1, 2, (2, 3)).astype(F)

    def compute():
        there = to("cuda", x)
        running = [to("cuda", a) for a in before]
        _, *statistics = batchnorm_forward(there, None, None, *running, False, eps=0)
        batchnorm_forward(there, None, None, *running, True)
        return statistics

    close(on_cuda(place, compute, RUNS[:1]), [before[0], np.float64(before[1]) ** -0.5])
