"""course/cuda/simulator.py: what it computes, and what it refuses."""

import math

import greenlet
import numpy as np
import pytest
from numba import float32, int32, uint32

from course import cuda
from course.cuda import CudaError, simulator
from course.device import host, simulated, to
from tests.cuda.every import RUNS

pytestmark = pytest.mark.sim
LANES = np.arange(32)


def run(kernel, blocks, threads, *arguments, **settings):
    """Launch the kernel in the simulator; the arrays hold what it has written."""
    with simulated(), simulator.run_with(**settings):
        moved = [to("cuda", a) if isinstance(a, np.ndarray) else a for a in arguments]
        try:
            kernel[blocks, threads](*moved)
        finally:
            for a, b in zip(arguments, moved, strict=True):
                if isinstance(a, np.ndarray):
                    a[...] = host(b)


def line_of(kernel, text):
    """Return "file:line" of the kernel's line that has this text."""
    code = kernel.function.__code__
    file = code.co_filename
    with open(file, encoding="utf-8") as source:
        lines = source.read().splitlines()
    found = [k for k, line in enumerate(lines, 1) if k > code.co_firstlineno]
    number = next(k for k in found if text in lines[k - 1])
    return f"{file.replace(chr(92), '/').rpartition('/')[2]}:{number}"


# --- threads and blocks -----------------------------------------------------------------


@cuda.jit
def who_cuda(seen, sizes):
    x, y, z = cuda.grid(3)
    seen[z, y, x] = cuda.threadIdx.x + 10 * cuda.threadIdx.y + 100 * cuda.threadIdx.z
    seen[z, y, x] += 1000 * cuda.blockIdx.x + 10000 * cuda.blockIdx.y
    sizes[0], sizes[1], sizes[2] = cuda.gridsize(3)
    sizes[3] = cuda.blockDim.x * cuda.blockDim.y * cuda.blockDim.z
    sizes[4] = cuda.gridDim.x * cuda.gridDim.y * cuda.gridDim.z


def test_every_thread_runs_once_and_knows_its_place():
    seen, sizes = np.zeros((4, 3, 4), np.int64), np.zeros(5, np.int64)
    run(who_cuda, (2, 1, 2), (2, 3, 2), seen, sizes)
    z, y, x = np.indices(seen.shape)
    expected = x % 2 + 10 * (y % 3) + 100 * (z % 2) + 1000 * (x // 2)
    np.testing.assert_array_equal(seen, expected)
    assert list(sizes) == [4, 3, 4, 12, 4]


@cuda.jit
def order_cuda(order, count):
    order[cuda.atomic.add(count, 0, 1)] = cuda.grid(1)


def test_threads_and_blocks_run_in_the_order_of_the_settings():
    found = {}
    for order in ("forward", "reverse", 1, 2):
        for _ in range(2):
            seen = np.zeros(128, int)
            run(order_cuda, 2, 64, seen, np.zeros(1, int), order=order)
            assert sorted(seen) == list(range(128))
            assert found.setdefault(order, list(seen)) == list(seen), "repeatable"
    assert found["forward"] == list(range(128))
    assert found["reverse"] == list(range(127, -1, -1))
    assert found[1] != found[2]


def test_settings_come_back_after_an_error():
    with pytest.raises(KeyError), simulator.run_with(order="reverse", races=True):
        raise KeyError
    assert simulator.settings.order == "forward" and not simulator.settings.races
    with pytest.raises(TypeError, match="colour"), simulator.run_with(colour="red"):
        pass


@cuda.jit
def sum_before_cuda(y, x):
    """Each thread adds up what the threads before it wrote, warp after warp."""
    s = cuda.shared.array(64, int32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    n = 1
    while n < 64:
        left = s[t - n] if t >= n else 0
        cuda.syncthreads()
        s[t] += left
        cuda.syncthreads()
        n *= 2
    y[t] = s[t]


@pytest.mark.parametrize("settings", RUNS)
def test_barriers_hold_in_every_order(settings, rng):
    x, y = rng.integers(100, size=64).astype(np.int32), np.zeros(64, np.int32)
    run(sum_before_cuda, 1, 64, y, x, **settings)
    np.testing.assert_array_equal(y, np.cumsum(x))


# --- memory -----------------------------------------------------------------------------


@cuda.jit
def read_unwritten_cuda(floats, ints, yes):
    a = cuda.shared.array(2, float32)
    b = cuda.local.array((2, 3), int32)
    c = cuda.shared.array(1, np.bool_)
    floats[0], ints[0], yes[0] = a[1], b[1, 2], c[0]


def test_memory_begins_with_poison():
    floats, ints, yes = np.zeros(1, np.float32), np.zeros(1, np.int32), np.zeros(1, bool)
    run(read_unwritten_cuda, 1, 1, floats, ints, yes)
    assert np.isnan(floats[0]) and ints[0] == (2**31 - 1) // 3 and yes[0]


@cuda.jit
def left_behind_cuda(y):
    s = cuda.shared.array(1, float32)
    y[cuda.blockIdx.x] = s[0]
    s[0] = 5


def test_a_block_finds_nothing_of_the_block_before():
    y = np.zeros(3, np.float32)
    run(left_behind_cuda, 3, 1, y)
    assert np.isnan(y).all()


@cuda.jit
def one_line_cuda(y):
    a, b = cuda.shared.array(4, float32), cuda.shared.array(4, float32)
    t = cuda.threadIdx.x
    a[t], b[t] = 1, 2
    cuda.syncthreads()
    y[t] = 10 * a[3 - t] + b[3 - t]


def test_shared_arrays_on_one_line_are_two():
    y = np.zeros(4, np.float32)
    run(one_line_cuda, 1, 4, y)
    assert list(y) == [12] * 4


@cuda.jit
def own_local_cuda(y):
    own = cuda.local.array(1, int32)
    own[0] = cuda.threadIdx.x
    cuda.syncthreads()
    y[cuda.threadIdx.x] = own[0]


@pytest.mark.parametrize("settings", RUNS)
def test_local_memory_is_each_threads_own(settings):
    y = np.zeros(40, np.int32)
    run(own_local_cuda, 1, 40, y, **settings)
    np.testing.assert_array_equal(y, np.arange(40))


@cuda.jit
def views_cuda(y, x):
    """Write through views: rows and a column of x."""
    row, column = x[cuda.threadIdx.x], x[:, 1]
    y[cuda.threadIdx.x] = row[0] + column[2]
    y[3] = x[-1 + 2][2]


@pytest.mark.parametrize("races", [False, True])
def test_kernels_can_cut_views(races):
    x, y = np.arange(9.0).reshape(3, 3), np.zeros(4)
    run(views_cuda, 1, 3, y, x) if not races else None
    if races:  # three threads write y[3]
        with pytest.raises(CudaError, match=r"race on y\[3\]"):
            run(views_cuda, 1, 3, y, x, races=True)
    else:
        assert list(y) == [7, 10, 13, 5]


# --- warps, as the CUDA C++ Programming Guide defines them -------------------------------


@cuda.jit
def shuffles_cuda(y, x, n):
    t = cuda.threadIdx.x
    y[0, t] = cuda.shfl_sync(0xFFFFFFFF, x[t], n)
    y[1, t] = cuda.shfl_up_sync(0xFFFFFFFF, x[t], n)
    y[2, t] = cuda.shfl_down_sync(0xFFFFFFFF, x[t], n)
    y[3, t] = cuda.shfl_xor_sync(0xFFFFFFFF, x[t], n)
    y[4, t] = cuda.shfl_sync(0xFFFFFFFF, x[t], t * n)  # each its own, beyond 31 too


@pytest.mark.parametrize("n", [0, 1, 2, 5, 16, 31])
def test_shuffles(n, rng):
    x = rng.normal(size=64).astype(np.float32)
    y = np.zeros((5, 64), np.float32)
    run(shuffles_cuda, 1, 64, y, x, n, order=3)
    for w in (0, 1):
        warp = x[32 * w : 32 * w + 32]
        expected = (
            np.repeat(warp[n], 32),
            np.concatenate([warp[:n], warp[: 32 - n]]),  # below n: what they had
            np.concatenate([warp[n:], warp[32 - n :]]),
            warp[LANES ^ n],
            warp[LANES * n % 32],
        )
        np.testing.assert_array_equal(y[:, 32 * w : 32 * w + 32], expected)


@cuda.jit
def votes_cuda(y, holds):
    t = cuda.threadIdx.x
    y[0, t] = cuda.ballot_sync(0xFFFFFFFF, holds[t])
    y[1, t] = cuda.any_sync(0xFFFFFFFF, holds[t])
    y[2, t] = cuda.all_sync(0xFFFFFFFF, holds[t])
    y[3, t] = cuda.syncthreads_count(holds[t])
    y[4, t] = cuda.syncthreads_or(holds[t])
    y[5, t] = cuda.syncthreads_and(holds[t])


@pytest.mark.parametrize("which", [[], [3], [0, 31, 40], range(32), range(64)])
def test_votes(which):
    holds = np.isin(np.arange(64), list(which)).astype(np.int32)
    y = np.zeros((6, 64), np.int64)
    run(votes_cuda, 1, 64, y, holds)
    for w, warp in enumerate(holds.reshape(2, 32)):
        mine = y[:, 32 * w : 32 * w + 32]
        bits = sum(2**k for k in range(32) if warp[k])
        expected = bits, warp.any(), warp.all(), holds.sum(), holds.any(), holds.all()
        np.testing.assert_array_equal(mine, np.repeat([expected], 32, 0).T)


@cuda.jit
def halves_cuda(y, x):
    """Each half of a warp adds up its own, the lower one in a branch of its own."""
    t = cuda.threadIdx.x
    if t < 16:
        value = x[t]
        for bits in (8, 4, 2, 1):
            value += cuda.shfl_xor_sync(0xFFFF, value, bits)
        y[t] = value
    else:
        y[t] = cuda.ballot_sync(0xFFFF0000, t % 2)
    cuda.syncwarp()


@pytest.mark.parametrize("settings", RUNS)
def test_lanes_outside_a_mask_may_be_elsewhere(settings):
    y = np.zeros(32)
    run(halves_cuda, 1, 32, y, np.arange(32.0), **settings)
    assert list(y) == [120] * 16 + [0xAAAA0000] * 16


@cuda.jit
def wrong_mask_cuda(y, x, mask):
    t = cuda.threadIdx.x
    if t < 16:
        y[t] = cuda.shfl_xor_sync(mask, x[t], 1)


@pytest.mark.parametrize(
    "threads, mask, message",
    [
        (32, 0xFFFF, None),
        (32, 0xFFFFFFFF, None),  # the others have ended: that is allowed
        (32, 0xFF, "lane 8 is not in the mask 0xff"),
        (32, 0x5555, "lane 1 is not in the mask 0x5555"),
        (15, 0xFFFFFFFF, "lane 14 asks lane 15, which is not there"),
    ],
)
def test_a_mask_names_the_lanes_that_come(threads, mask, message):
    y, x = np.zeros(32), np.arange(32.0)
    if message:
        with pytest.raises(CudaError, match=message):
            run(wrong_mask_cuda, 1, threads, y, x, mask)
    else:
        run(wrong_mask_cuda, 1, threads, y, x, mask)
        np.testing.assert_array_equal(y[:16], LANES[:16] ^ 1)


@cuda.jit
def absent_lanes_cuda(y, x):
    t = cuda.threadIdx.x
    if t < 16:
        y[t] = cuda.shfl_xor_sync(0xFFFFFFFF, x[t], 1)
    cuda.syncthreads()


@cuda.jit
def two_shuffles_cuda(y, x):
    t = cuda.threadIdx.x
    if t < 16:
        y[t] = cuda.shfl_sync(0xFFFFFFFF, x[t], 1)
    else:
        y[t] = cuda.shfl_sync(0xFFFFFFFF, x[t], 2)


def test_a_mask_must_not_name_lanes_that_go_elsewhere():
    y, x = np.zeros(32), np.arange(32.0)
    with pytest.raises(CudaError, match=r"lanes 0 to 15 of warp 0 .* never come"):
        run(absent_lanes_cuda, 1, 32, y, x)
    with pytest.raises(CudaError, match="lanes of one warp wait in different places"):
        run(two_shuffles_cuda, 1, 32, y, x)


# --- barriers that not all reach --------------------------------------------------------


@cuda.jit
def two_barriers_cuda(y):
    if cuda.threadIdx.x < 4:
        cuda.syncthreads()  # some here
    else:
        cuda.syncthreads()  # others there


@cuda.jit
def early_return_cuda(y):
    if cuda.threadIdx.x == 3:
        return
    cuda.syncthreads()  # not all


def test_barriers_in_branches_are_errors():
    here = line_of(two_barriers_cuda, "# some here")
    there = line_of(two_barriers_cuda, "# others there")
    with pytest.raises(CudaError, match=f"different barriers: {here}, {there}"):
        run(two_barriers_cuda, 1, 8, np.zeros(1))
    line = line_of(early_return_cuda, "# not all")
    with pytest.raises(
        CudaError, match=f"1 threads have returned while 7 wait at the barrier in {line}"
    ):
        run(early_return_cuda, 1, 8, np.zeros(1))


# --- limits -----------------------------------------------------------------------------


@cuda.jit
def nothing_cuda(y):
    pass


@pytest.mark.parametrize(
    "blocks, threads, message",
    [
        (1, 1025, "1025 threads along x; there must be 1 to 1024"),
        (1, (32, 33), "1056 threads in a block; the most is 1024"),
        (1, (1, 1, 65), "65 threads along z"),
        ((1, 65536), 1, "65536 blocks along y"),
        (2**31, 1, "2147483648 blocks along x"),
        (0, 32, "0 blocks along x; there must be 1 to"),
        (1, 0, "0 threads along x"),
    ],
)
def test_a_launch_has_the_limits_of_a_gpu(blocks, threads, message):
    with pytest.raises(CudaError, match=message):
        run(nothing_cuda, blocks, threads, np.zeros(1))


@cuda.jit
def much_shared_cuda(y):
    a = cuda.shared.array(6144, float32)
    b = cuda.shared.array((64, 97), float32)
    y[0] = a.size + b.size


@cuda.jit
def all_shared_cuda(y):
    a = cuda.shared.array(12288, float32)
    y[0] = a.size


def test_shared_memory_has_an_end():
    with pytest.raises(CudaError, match="49408 bytes of shared memory in a block"):
        run(much_shared_cuda, 1, 1, np.zeros(1))
    run(all_shared_cuda, 1, 1, np.zeros(1))


# --- indices ----------------------------------------------------------------------------


@cuda.jit
def neighbour_cuda(y, x, d):
    t = cuda.grid(1)
    y[t] = x[t + d]  # the neighbour


@cuda.jit
def local_index_cuda(y, k):
    own = cuda.local.array(3, int32)
    own[k] = 1


@cuda.jit
def row_cuda(y, x, k):
    row = x[k]
    y[0] = row[0]


@pytest.mark.parametrize("races", [False, True])
def test_an_index_past_the_end_is_named(races):
    with pytest.raises(IndexError) as caught:
        run(neighbour_cuda, 2, 4, np.zeros(8), np.zeros(8), 1, races=races)
    line = line_of(neighbour_cuda, "# the neighbour")
    assert caught.value.__notes__ == [
        "in tests.cuda.test_simulator.neighbour_cuda, thread 3 of block 1, "
        f"{line}: y[t] = x[t + d]  # the neighbour"
    ]
    if races:
        assert str(caught.value) == "x[8]: its shape is (8,)"


@pytest.mark.parametrize(
    "kernel, arguments, message",
    [
        (neighbour_cuda, (np.zeros(8), np.zeros(8), -1), r"x\[-1\]: its shape is \(8,\)"),
        (local_index_cuda, (np.zeros(8), -1), r"local own\[-1\]: its shape is \(3,\)"),
        (row_cuda, (np.zeros(8), np.zeros((3, 2)), -3), r"x\[-3\]: its shape is \(3, 2\)"),
    ],
)
def test_a_negative_index_is_named_where_races_are_looked_for(kernel, arguments, message):
    with pytest.raises(IndexError, match=message):
        run(kernel, 1, 4, *arguments, races=True)


# --- races ------------------------------------------------------------------------------


@cuda.jit
def plain_count_cuda(h, x):
    h[x[cuda.grid(1)]] += 1


@cuda.jit
def atomic_count_cuda(h, x):
    cuda.atomic.add(h, x[cuda.grid(1)], 1)


@cuda.jit
def count_and_look_cuda(h, x):
    cuda.atomic.add(h, x[cuda.grid(1)], 1)  # changes
    x[cuda.grid(1)] = h[0]  # looks


def test_a_race_names_both_threads_and_lines():
    x = np.zeros(64, np.int32)
    with pytest.raises(CudaError) as caught:
        run(plain_count_cuda, 1, 64, np.zeros(4, int), x, races=True)
    line = line_of(plain_count_cuda, "+= 1")
    assert str(caught.value) == (
        f"race on h[0]: thread 0 of block 0 writes it in {line}, thread 1 of block 0 "
        f"reads it in {line}, and no barrier is between"
    )
    h = np.zeros(4, int)
    run(atomic_count_cuda, 2, 32, h, x, races=True)
    assert list(h) == [64, 0, 0, 0]
    with pytest.raises(CudaError) as caught:
        run(count_and_look_cuda, 1, 64, h, x, races=True)
    changes = line_of(count_and_look_cuda, "# changes")
    looks = line_of(count_and_look_cuda, "# looks")
    assert f"reads it in {looks}, thread 1 of block 0 changes it in {changes}" in str(
        caught.value
    )


@cuda.jit
def between_blocks_cuda(y, x):
    if cuda.blockIdx.x == 0:
        y[cuda.threadIdx.x] = x[0]
    cuda.syncthreads()
    x[cuda.blockIdx.x] = y[0]


def test_two_blocks_are_never_in_order():
    with pytest.raises(CudaError, match=r"of block 0 .* of block 1 .* no barrier"):
        run(between_blocks_cuda, 2, 1, np.zeros(1), np.zeros(2), races=True)


@cuda.jit
def through_shared_cuda(y, x, synced):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    if synced:
        cuda.syncwarp()
    else:
        cuda.shfl_sync(0xFFFFFFFF, x[t], 0)
    y[t] = s[t ^ 1]


@cuda.jit
def half_synced_cuda(y, x, mask):
    """Lanes 0 and 1 meet; lane 2 reads what lane 1 wrote."""
    s = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    if mask >> t & 1:
        cuda.syncwarp(mask)
    if t in (0, 2):
        y[t] = s[1]


def test_syncwarp_orders_the_lanes_it_names_and_a_shuffle_none():
    y, x = np.zeros(64, np.float32), np.arange(64, dtype=np.float32)
    run(through_shared_cuda, 1, 64, y, x, True, races=True)
    np.testing.assert_array_equal(y, np.arange(64) ^ 1)
    with pytest.raises(CudaError, match=r"race on shared s\[1\]"):
        run(through_shared_cuda, 1, 64, y, x, False, races=True)
    run(half_synced_cuda, 1, 32, y, x, 0b111, races=True)
    with pytest.raises(CudaError, match=r"race on shared s\[1\]: thread 1 .* thread 2 "):
        run(half_synced_cuda, 1, 32, y, x, 0b011, races=True)
    with pytest.raises(CudaError, match=r"race on shared s\[1\]: thread 0 .* thread 1 "):
        run(half_synced_cuda, 1, 32, y, x, 0b110, races=True)


def threads_of(block):
    """Return three lanes in each of two warps of a new block."""
    block = simulator.Block((block, 0, 0))
    return [simulator.Thread(k, (k, 0, 0), block) for k in (0, 1, 2, 32, 33, 34)]


@pytest.mark.parametrize("seed", range(200))
def test_the_race_check_keeps_no_less_than_it_needs(seed, monkeypatch):
    """It forgets most reads. Here is one that forgets nothing, with a clock per thread."""
    rng = np.random.default_rng(seed)
    blocks = [threads_of(0), threads_of(1)]
    every = [thread for block in blocks for thread in block]
    clocks = {thread: dict.fromkeys(every, 0) for thread in every}
    watched = simulator.Watched(np.zeros(2), "x", {})
    past = []  # place, kind, thread, its time

    def meet(threads):
        joined = {t: max(clocks[other][t] for other in threads) for t in every}
        for thread in threads:
            clocks[thread] = dict(joined)

    def races(place, kind, thread):
        return any(
            (where, other is thread) == (place, False)
            and not kind == what in ("read", "atomic")
            and clocks[thread][other] < time
            for where, what, other, time in past
        )

    with simulator.run_with(races=True):
        for block in blocks:  # one after the other, as they run
            for _ in range(30):
                what = rng.choice(["read", "write", "atomic", "warp", "block"], p=CHANCES)
                thread = block[rng.integers(6)]
                if what == "block":
                    meet(block)
                    for one in block:
                        one.barriers += 1
                elif what == "warp":
                    lanes = [t for t in block if t.warp == thread.warp]
                    some = [t for t in lanes if t is thread or rng.random() < 0.5]
                    meet(some)
                    for one in some:
                        one.place, one.together, one.value, one.waits_for = (
                            0,
                            None,
                            0,
                            "warp",
                        )
                    mask = sum(1 << t.lane for t in some)
                    assert simulator._pass(mask, some, lanes)
                else:
                    place = int(rng.integers(2))
                    monkeypatch.setattr(simulator, "now", thread)
                    clocks[thread][thread] += 1
                    if races(place, what, thread):
                        with pytest.raises(CudaError, match="race on x"):
                            watched.note(place, what)
                        return
                    watched.note(place, what)
                    past.append((place, what, thread, clocks[thread][thread]))


CHANCES = 0.2, 0.06, 0.04, 0.6, 0.1


@cuda.jit
def in_place_cuda(y, x):
    t = cuda.grid(1)
    y[t] = 2 * x[t]


@cuda.jit
def shifted_cuda(y, x):
    t = cuda.grid(1)
    if t > 0:
        y[t] = x[t - 1]


def test_races_are_found_by_memory_not_by_name():
    with simulated(), simulator.run_with(races=True):
        a = to("cuda", np.arange(8.0))
        in_place_cuda[1, 8](a, a)
        np.testing.assert_array_equal(host(a), 2 * np.arange(8))
        with pytest.raises(CudaError, match="race on"):
            shifted_cuda[1, 8](a, a)
        shifted_cuda[1, 4](a[4:], a[:4])  # two halves that share nothing
        np.testing.assert_array_equal(host(a)[5:], host(a)[:3])


def test_two_launches_are_in_order():
    with simulated(), simulator.run_with(races=True):
        a, b = to("cuda", np.arange(8.0)), to("cuda", np.arange(8.0))
        shifted_cuda[1, 8](b, a)
        shifted_cuda[1, 8](a, b)
        assert list(host(a)) == [0, 0, 0, 1, 2, 3, 4, 5]


def test_every_access_can_be_watched():
    seen = []

    def watch(array, index, kind, thread, line):
        seen.append((array, index, kind, thread.index, line))

    run(in_place_cuda, 1, 2, np.zeros(2), np.zeros(2), races=True, watch=watch)
    line = int(line_of(in_place_cuda, "y[t] =").rpartition(":")[2])
    assert seen == [
        (name, (t,), kind, (t, 0, 0), line)
        for t in (0, 1)
        for name, kind in (("x", "read"), ("y", "write"))
    ]


# --- atomics ----------------------------------------------------------------------------


@cuda.jit
def atomics_cuda(y, old):
    t = cuda.grid(1)
    old[0, t] = cuda.atomic.add(y, 0, 1)
    old[1, t] = cuda.atomic.max(y, 1, t)
    old[2, t] = cuda.atomic.min(y, 2, -t)
    old[3, t] = cuda.atomic.exch(y, 3, t)
    old[4, t] = cuda.atomic.cas(y, 4, 0, t + 1)


@pytest.mark.parametrize("settings", RUNS)
def test_atomics_return_what_was_there(settings):
    y, old = np.zeros(5, np.int64), np.zeros((5, 64), np.int64)
    run(atomics_cuda, 2, 32, y, old, **settings)
    assert list(y[:3]) == [64, 63, -63]
    assert sorted(old[0]) == list(range(64))
    assert sorted([*old[3], y[3]]) == [0, *range(64)]  # a chain: each was there once
    assert sorted(old[4])[0] == 0 and set(old[4]) == {0, y[4]}


@cuda.jit
def atomic_corner_cuda(y):
    cuda.atomic.add(y, (1, 1), 0.5)


def test_atomics_take_two_indices():
    y = np.zeros((2, 2))
    run(atomic_corner_cuda, 2, 16, y, races=True)
    assert y[1, 1] == 16 and y.sum() == 16


# --- arithmetic -------------------------------------------------------------------------


@cuda.jit
def edges_cuda(y, x):
    t = cuda.threadIdx.x
    zero = x.dtype.type(0)
    if t == 0:
        y[0] = math.exp(x[0])  # too large
        y[1] = math.log(zero)
        y[2] = math.log(-x[0])
        y[3] = x[0] / zero
        y[4] = zero / zero
        y[5] = math.sqrt(-x[0])
        y[6] = math.exp(-x[0])
    cuda.syncthreads()


def test_arithmetic_raises_nothing_as_on_a_gpu():
    y = np.zeros(7, np.float32)
    run(edges_cuda, 1, 2, y, np.array([1000], np.float32))
    inf, nan = np.inf, np.nan
    np.testing.assert_array_equal(y, np.float32([inf, -inf, nan, inf, nan, nan, 0]))


@cuda.jit
def larger_cuda(y, x):
    y[0], y[1] = max(x[0], x[1]), max(x[1], x[0])
    y[2], y[3] = min(x[0], x[1]), min(x[1], x[0])
    y[4], y[5] = max(x[1], x[2]), min(x[1], x[2])
    y[6] = max(x[1], x[2], x[3])


def test_a_nan_loses_in_max_and_min_as_on_a_gpu():
    """PTX: max.f32 and min.f32 return the number if one operand is NaN."""
    y = np.zeros(7, np.float32)
    run(larger_cuda, 1, 1, y, np.float32([np.nan, 1, 2, 3]))
    assert list(y) == [1, 1, 1, 1, 2, 1, 3]


@cuda.jit
def single_cuda(kinds, x):
    for value in (
        x[0] * 2,
        x[0] * 2.0,
        math.exp(x[0]),
        math.erf(x[0]),
        math.atan2(x[0], x[0]),
        math.fabs(x[0]),
        float32(1) / 3,
        max(x[0], x[0]),
    ):
        kinds[0] += value.dtype.itemsize == 4
    kinds[1] = x[math.floor(x[0]) + math.ceil(-x[0])]  # whole numbers, as an index is
    kinds[2] = int32(uint32(2**32 - 1) * uint32(3) >> uint32(1))


def test_float32_stays_float32_and_integers_wrap():
    kinds = np.zeros(3, np.int64)
    run(single_cuda, 1, 1, kinds, np.float32([1.5]))
    assert list(kinds) == [8, 1, (2**32 - 3) // 2]


# --- what surrounds a kernel ------------------------------------------------------------


@cuda.jit
def fails_cuda(y):
    cuda.syncthreads()
    if cuda.threadIdx.x == 5:
        y[100] = 1
    cuda.syncthreads()


def test_an_error_leaves_no_thread_behind(monkeypatch):
    class Noted(greenlet.greenlet):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    made = []
    monkeypatch.setattr(greenlet, "greenlet", Noted)
    for kernel in (fails_cuda, early_return_cuda, two_barriers_cuda):
        with pytest.raises((IndexError, CudaError)):
            run(kernel, 1, 32, np.zeros(4))
        assert len(made) == 32 and not any(made), "none has begun and not ended"
        made.clear()
    y = np.zeros(64, np.int32)
    run(sum_before_cuda, 1, 64, y, np.ones(64, np.int32))
    assert y[-1] == 64 and all(thread.dead for thread in made)


def test_kernel_words_are_for_kernels():
    with pytest.raises(CudaError, match="no kernel runs now"):
        cuda.syncthreads()
    with pytest.raises(CudaError, match="no kernel runs now"):
        cuda.shared.array(3, float32)


def test_a_redefined_device_function_is_the_one_that_runs():
    """As in a notebook, where a cell is changed and run again."""
    names = {"cuda": cuda}
    exec("@cuda.jit(device=True)\ndef f(x):\n    return x + 1\n", names)
    exec("@cuda.jit\ndef k(y):\n    y[0] = g(y[0])\n", names)
    exec("@cuda.jit(device=True)\ndef g(x):\n    return 10 * f(x)\n", names)
    y = np.ones(1)
    run(names["k"], 1, 1, y)
    assert y[0] == 20
    exec("@cuda.jit(device=True)\ndef f(x):\n    return x + 2\n", names)
    run(names["k"], 1, 1, y)
    assert y[0] == 220


def test_a_factory_makes_kernels_that_differ():
    def made(size):
        @cuda.jit(variant=str(size))
        def filled_cuda(y):
            s = cuda.shared.array(size, float32)
            s[cuda.threadIdx.x] = size
            cuda.syncthreads()
            y[0] = s[size - 1]

        return filled_cuda

    for kernel, size in [(made(4), 4), (made(8), 8)]:
        y = np.zeros(1, np.float32)
        run(kernel, 1, size, y)
        assert y[0] == size and kernel.name.endswith(f"filled_cuda[{size}]")
        assert cuda.KERNELS.pop(kernel.name) is kernel


def test_a_dry_run_notes_the_types_and_computes_nothing():
    y, x = np.zeros(8, np.float32), np.zeros((8, 1))
    run(neighbour_cuda, 1, 4, y, x, np.float32(1), dry=True)
    run(neighbour_cuda, 1, 8, y, x, np.float32(1), dry=True)
    assert neighbour_cuda.launched[("float32[1]", "float64[2]", "float32")] == 8
    assert not y.any()


@pytest.mark.parametrize("bad", ["text", None, [1]])
def test_a_kernel_takes_arrays_and_numbers(bad):
    with pytest.raises(TypeError, match=type(bad).__name__):
        run(neighbour_cuda, 1, 1, np.zeros(1), np.zeros(1), bad)
