"""Bugs of synchronisation, planted into real kernels: the simulator finds each of them.

A bug is a change of one line or two. Each is looked for as in the tests of the layers: in
two orders of the threads, whose answers are compared with NumPy's, and with the race check.
`pytest tests/cuda/test_planted_bugs.py -s` prints what found which.
"""

import inspect
import linecache
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from numba import float32

from course import cuda
from course.cuda import Code, CudaError, reductions, simulator
from course.device import empty_like, host, simulated, to
from course.layers import layernorm, linear, relu, softmax

pytestmark = pytest.mark.sim
SIZE = 16  # threads of the small kernels below


# --- small kernels, as every book on CUDA has them ---------------------------------------


@cuda.jit
def _histogram_cuda(count, x):
    for k in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        cuda.atomic.add(count, x[k], 1)


@cuda.jit
def _blur_cuda(y, x):
    """Add up three neighbours; a block has SIZE of them and its halo in shared memory."""
    s = cuda.shared.array(SIZE + 2, float32)
    t, k = cuda.threadIdx.x, cuda.grid(1)
    zero = float32(0)
    s[t + 1] = x[k] if k < x.size else zero
    if t == 0:
        s[0] = x[k - 1] if k > 0 else zero
    if t == SIZE - 1:
        s[t + 2] = x[k + 1] if k + 1 < x.size else zero
    cuda.syncthreads()
    if k < y.size:
        y[k] = s[t] + s[t + 1] + s[t + 2]


@cuda.jit
def _turned_cuda(y, x):
    """Turn the numbers of each warp round, through shared memory."""
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncwarp()
    y[t] = s[t ^ 31]


@cuda.jit
def _tree_cuda(y, x):
    """Add up 64 numbers of each block in a tree."""
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    s[t] = x[cuda.grid(1)]
    cuda.syncthreads()
    n = 32
    while n > 0:
        if t < n:
            s[t] += s[t + n]
        cuda.syncthreads()
        n //= 2
    if t == 0:
        y[cuda.blockIdx.x] = s[0]


@cuda.jit
def _neighbours_cuda(y, x):
    k = cuda.grid(1)
    if 0 < k < x.size:
        y[k] = x[k] - x[k - 1]


# --- how each is run: names of the kernels -> answer and truth ----------------------------

rng = np.random.default_rng(0)


def numbers(*shape):
    """Return random numbers in float32."""
    return rng.normal(size=shape).astype(np.float32)


X, W, B = numbers(17, 18), numbers(16, 18), numbers(16)
ROWS, DY, SCALE = numbers(2, 70), numbers(2, 70), numbers(70)
MEAN, INVSTD = ROWS.mean(1), 1 / ROWS.std(1)
LONG, LABELS = numbers(128), rng.integers(4, size=100)


def on_cuda(*arrays):
    """Return the arrays on cuda."""
    return [to("cuda", a) for a in arrays]


def y_of_linear(names):
    """Return x w^T + b by tiles, of which the last ones hang over."""
    x, w, b, y = on_cuda(X, W, B, np.zeros((17, 16), np.float32))
    names["_y_cuda_tiled"][(1, 2), (16, 16)](y, x, w, b)
    return y, X @ W.T + B


def dx_of_layernorm(names):
    """Return dx, for which a block adds up twice."""
    dy, x, w, mean, invstd = on_cuda(DY, ROWS, SCALE, MEAN, INVSTD)
    dx = empty_like(x)
    names["_dx_cuda"][2, 64](dx, dy, x, w, mean, invstd)
    g, z = SCALE * DY, (ROWS - MEAN[:, None]) * INVSTD[:, None]
    inner = g - g.mean(1)[:, None] - z * (g * z).mean(1)[:, None]
    return dx, INVSTD[:, None] * inner


def dw_of_layernorm(names):
    """Return dw, for which warps add up columns."""
    dy, x, mean, invstd, dw, db = on_cuda(DY, ROWS, MEAN, INVSTD, SCALE, SCALE)
    names["_dw_cuda"][3, 64](dw, db, dy, x, mean, invstd)
    return dw, (DY * (ROWS - MEAN[:, None]) * INVSTD[:, None]).sum(0)


def y_of_softmax(names):
    """Return the shares of rows, one for each of four warps in two blocks."""
    (x,) = on_cuda(X[:4])
    y = empty_like(x)
    names["_y_cuda"][2, 64](y, x)
    e = np.exp(X[:4])
    return y, e / e.sum(1)[:, None]


def y_of_relu(names):
    """Return what is above zero."""
    (x,) = on_cuda(LONG)
    y = empty_like(x)
    names["_y_cuda"][2, 32](y, x)
    return y, LONG * (LONG > 0)


def histogram(names):
    """Return how many labels of each kind there are."""
    count, x = on_cuda(np.zeros(4, int), LABELS)
    names["_histogram_cuda"][2, 32](count, x)
    return count, np.bincount(LABELS, minlength=4)


def blur(names):
    """Return the sums of neighbours: two full blocks and a part of one."""
    x, y = on_cuda(LONG[:40], LONG[:40])
    names["_blur_cuda"][3, SIZE](y, x)
    return y, np.convolve(LONG[:40], [1, 1, 1], "same")


def turned(names):
    """Return the warps turned round."""
    x, y = on_cuda(LONG[:64], LONG[:64])
    names["_turned_cuda"][1, 64](y, x)
    return y, LONG[:64].reshape(2, 32)[:, ::-1].ravel()


def tree(names):
    """Return the sums of two blocks."""
    x, y = on_cuda(LONG, LONG[:2])
    names["_tree_cuda"][2, 64](y, x)
    return y, LONG.reshape(2, 64).sum(1)


def neighbours(names, in_place=False):
    """Return the differences of neighbours; in place, if that is the bug."""
    x, y = on_cuda(LONG[:64], LONG[:64])
    names["_neighbours_cuda"][1, 64](x if in_place else y, x)
    return x if in_place else y, np.diff(LONG[:64], prepend=0)


def differences_in_place(names):
    """Return what `neighbours` does, but x is y."""
    return neighbours(names, in_place=True)


# --- the bugs -----------------------------------------------------------------------------

HERE = sys.modules[__name__]


@dataclass(frozen=True)
class Bug:
    """One line written wrongly.

    Attributes
    ----------
    module, function : where
    old, new : text of the function that is there once, and what stands there instead
    compute : runs the kernel that has it
    found : what each run says: forward, reverse, race check
    """

    name: str
    module: object
    function: str
    old: str
    new: str
    compute: object
    found: str

    def __str__(self):
        return self.name


BARRIER = "    cuda.syncthreads()\n"
BUGS = [
    Bug(
        "tiles: no barrier before the products",
        *(linear, "_y_cuda_tiled"),
        *("        cuda.syncthreads()\n        for", "        for"),
        *(y_of_linear, "poison poison race"),
    ),
    Bug(
        "tiles: no barrier after the products",
        *(linear, "_y_cuda_tiled"),
        *("        cuda.syncthreads()\n    if", "    if"),
        *(y_of_linear, "wrong wrong race"),
    ),
    Bug(
        "tiles: both in one shared array",
        *(linear, "_y_cuda_tiled"),
        *("ws = cuda.shared.array(SHARED, x.dtype)", "ws = xs"),
        *(y_of_linear, "wrong wrong wrong"),
    ),
    Bug(
        "tiles: barrier only where there is a sample",
        *(linear, "_y_cuda_tiled"),
        "        cuda.syncthreads()\n        for",
        "        if n0 + i < y.shape[0]:\n            cuda.syncthreads()\n        for",
        *(y_of_linear, "error error race"),
    ),
    Bug(
        "tiles: return before the barriers",
        *(linear, "_y_cuda_tiled"),
        "    for k0",
        "    if n0 + i >= y.shape[0]:\n        return\n    for k0",
        *(y_of_linear, "error error error"),
    ),
    Bug(
        "tiles: one row too many",
        *(linear, "_y_cuda_tiled"),
        *("if n0 + i < y.shape[0]", "if n0 + i <= y.shape[0]"),
        *(y_of_linear, "error error error"),
    ),
    Bug(
        "tiles: no zeros outside the matrix",
        *(linear, "_fetch"),
        *("tile[i, j] = 0", "pass"),
        *(y_of_linear, "wrong wrong wrong"),
    ),
    Bug(
        "block sum: no barrier before scratch is used again",
        *(reductions, "block_sum"),
        *("    cuda.syncthreads()  # somebody", "    # somebody"),
        *(dx_of_layernorm, "wrong wrong race"),
    ),
    Bug(
        "block sum: no barrier before scratch is read",
        *(reductions, "block_sum"),
        *("    cuda.syncthreads()\n    total", "    total"),
        *(dx_of_layernorm, "poison poison race"),
    ),
    Bug(
        "block sum: every lane writes, and all the same",
        *(reductions, "block_sum"),
        *("if cuda.threadIdx.x & 31 == 0:", "if True:"),
        *(dx_of_layernorm, "right right race"),
    ),
    Bug(
        "column sums: warps share a row of scratch",
        *(reductions, "lane_sum"),
        *("scratch[warp, lane] = value", "scratch[0, lane] = value"),
        *(dw_of_layernorm, "poison poison race"),
    ),
    Bug(
        "warp sum: mask of half a warp",
        *(reductions, "warp_sum"),
        *("(FULL,", "(0xFFFF,"),
        *(y_of_softmax, "error error error"),
    ),
    Bug(
        "warp sum: an exchange is missing",
        *(reductions, "warp_sum"),
        *("(16, 8, 4, 2, 1)", "(8, 4, 2, 1)"),
        *(y_of_softmax, "wrong wrong wrong"),
    ),
    Bug(
        "warp sum: the lane below instead of the other",
        *(reductions, "warp_sum"),
        *("shfl_xor_sync", "shfl_down_sync"),
        *(y_of_softmax, "wrong wrong wrong"),
    ),
    Bug(
        "softmax: only lanes with numbers take part in the sum",
        *(softmax, "_y_cuda"),
        "        share = x.dtype.type(1) / warp_sum(total)\n",
        "        if lane < C:\n            share = x.dtype.type(1) / warp_sum(total)\n",
        *(y_of_softmax, "error error error"),
    ),
    Bug(
        "softmax: two blocks do the same rows",
        *(softmax, "_y_cuda"),
        *("n, lane = cuda.grid(1) // 32", "n, lane = cuda.threadIdx.x // 32"),
        *(y_of_softmax, "poison poison race"),
    ),
    Bug(
        "ReLU: threads share elements",
        *(relu, "_y_cuda"),
        *("cuda.gridsize(1)", "cuda.blockDim.x"),
        *(y_of_relu, "right right race"),
    ),
    Bug(
        "histogram: += instead of an atomic",
        *(HERE, "_histogram_cuda"),
        *("cuda.atomic.add(count, x[k], 1)", "count[x[k]] += 1"),
        *(histogram, "right right race"),
    ),
    Bug(
        "blur: no halo",
        *(HERE, "_blur_cuda"),
        *("if t == SIZE - 1:", "if t == SIZE:"),
        *(blur, "poison poison poison"),
    ),
    Bug(
        "blur: no barrier",
        *(HERE, "_blur_cuda"),
        *(BARRIER, ""),
        *(blur, "poison poison race"),
    ),
    Bug(
        "blur: a negative index",
        *(HERE, "_blur_cuda"),
        *("if k > 0 else zero", "if k >= 0 else zero"),
        *(blur, "wrong wrong error"),
    ),
    Bug(
        "turned: a shuffle instead of syncwarp",
        *(HERE, "_turned_cuda"),
        *("cuda.syncwarp()", "cuda.shfl_sync(0xFFFFFFFF, x[t], 0)"),
        *(turned, "right right race"),
    ),
    Bug(
        "turned: no syncwarp",
        *(HERE, "_turned_cuda"),
        *("    cuda.syncwarp()\n", ""),
        *(turned, "poison poison race"),
    ),
    Bug(
        "tree: no barrier before the first sum",
        *(HERE, "_tree_cuda"),
        *("    cuda.syncthreads()\n    n", "    n"),
        *(tree, "poison right race"),
    ),
    Bug(
        "tree: no barrier between the sums",
        *(HERE, "_tree_cuda"),
        *("        cuda.syncthreads()\n        n", "        n"),
        *(tree, "wrong right race"),
    ),
    Bug(
        "tree: barrier only for those who add",
        *(HERE, "_tree_cuda"),
        "        cuda.syncthreads()\n        n",
        "            cuda.syncthreads()\n        n",
        *(tree, "error error error"),
    ),
    Bug(
        "neighbours: y is x",
        *(HERE, "_neighbours_cuda"),
        *("0 < k", "0 < k"),
        *(differences_in_place, "wrong right race"),
    ),
]


def planted(bug):
    """Return the names that the bug's kernel sees, with the bug among them."""
    computes = {y_of_softmax: softmax, y_of_linear: linear, y_of_relu: relu}
    computes |= {dx_of_layernorm: layernorm, dw_of_layernorm: layernorm}
    names = {}
    for module in dict.fromkeys((bug.module, computes.get(bug.compute, HERE))):
        seen = {**vars(module), **names, "__name__": "planted"}
        for name, code in vars(module).items():
            if not isinstance(code, Code) or code.__module__ != module.__name__:
                continue
            text = inspect.getsource(code.function)
            if (module, name) == (bug.module, bug.function):
                assert text.count(bug.old) == 1, text
                text = text.replace(bug.old, bug.new)
            file = f"<planted {module.__name__}.{name}>"
            linecache.cache[file] = len(text), None, text.splitlines(True), file
            exec(compile(text, file, "exec"), seen)
        names = {k: v for k, v in seen.items() if isinstance(v, Code)}
    for name in [name for name in cuda.KERNELS if name.startswith("planted.")]:
        del cuda.KERNELS[name]
    return names


def verdict(bug, names, settings):
    """Return what one run says."""
    try:
        with simulated(), simulator.run_with(**settings):
            found, truth = bug.compute(names)
            found = host(found)
    except (CudaError, IndexError) as error:
        return "race" if str(error).startswith("race on") else "error"
    if np.isnan(found).any():
        return "poison"
    return "right" if np.allclose(found, truth, atol=1e-4) else "wrong"


RUNS = {"forward": {}, "reverse": {"order": "reverse"}, "race check": {"races": True}}


@pytest.fixture(scope="module")
def table():
    """Print, after all, what found which bug."""
    rows = []
    yield rows
    print()
    for name, *words in [("", *RUNS), *rows]:
        print(f"{name:55}", *(f"{word:10}" for word in words))


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_planted_bug_is_found(bug, table):
    names = planted(bug)
    words = [verdict(bug, names, settings) for settings in RUNS.values()]
    table.append((bug.name, *words))
    assert set(words) != {"right"}
    assert " ".join(words) == bug.found


@pytest.mark.parametrize("compute", {bug.compute for bug in BUGS}, ids=lambda f: f.__name__)
def test_without_the_bug_nothing_is_found(compute):
    bug = next(bug for bug in BUGS if bug.compute is compute)
    names = planted(Bug(bug.name, bug.module, bug.function, bug.old, bug.old, compute, ""))
    words = [verdict(bug, names, settings) for settings in RUNS.values()]
    expected = ["right"] * 3
    if compute is differences_in_place:  # the bug is in the launch
        expected = bug.found.split()
    assert words == expected
