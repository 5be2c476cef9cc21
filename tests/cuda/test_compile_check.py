"""Every kernel becomes machine code for three GPUs, within a budget; no GPU is needed.

python -m tests.cuda.test_compile_check conv2d      the table, for names with this in it
"""

import sys
from collections import Counter
from copy import deepcopy
from functools import cache, partial

import numpy as np
import pytest

from course import cuda
from course.cuda import compile_check, simulator
from course.cuda.compile_check import ARCHITECTURES, Compiled, check, hottest_loop, table
from course.device import simulated, to
from course.engine import cuda as engine
from course.engine import cuda_conv, cuda_matmul
from course.engine.cuda_tile import TILES
from course.layers import Conv2d, ConvTranspose2d, Linear
from course.losses import binary_cross_entropy_with_logits
from course.regularization import L1, L2, MaxNorm, clip_norm
from course.zoo.identity_shortcut import IdentityShortcut
from course.zoo.lenet5_1998 import ChosenConv2d, Distance, ScaledTanh
from tests.cuda import test_losses_on_cuda as on_losses
from tests.cuda import test_optimizers_on_cuda as on_optimizers
from tests.cuda.every import modules, run_on_cuda
from tests.layers.every import LAYERS, distinct, new

MOST_REGISTERS = 128
SHARES = {  # of the hottest loop, at least, that multiplies and adds, for each kind of tile
    "weights 128x128]": 0.60,
    "128x128]": 0.70,
    "weights 64x128]": 0.45,  # small tiles have fewer products for each number that they
    "64x128]": 0.55,  # fetch, which is why they are not used for large products
    "weights 32x256]": 0.38,
    "32x256]": 0.48,
    "weights 16x256]": 0.24,
    "16x256]": 0.33,
    "weights 32x32]": 0.34,
    "32x32]": 0.40,
}
here = pytest.mark.skipif(
    bool(compile_check.missing()), reason=compile_check.missing() or "-"
)


def layers():
    """Yield what runs each row of the table of layers."""
    rng = np.random.default_rng(0)
    for make, shape in LAYERS:
        x = distinct(shape, rng, np.float32)
        dy = np.zeros(new(make, np.float32).forward(x).shape, np.float32)
        yield partial(run_on_cuda, make, x, dy)


def losses():
    """Yield what runs each loss."""
    rng = np.random.default_rng(0)
    for loss_of, targets, options in on_losses.LOSSES.values():
        arguments = loss_of, on_losses.real(rng), targets(rng), options
        yield partial(on_losses.run_on_cuda, *arguments)


def optimizers():
    """Yield what runs each optimizer, and each regularization."""
    for optimizer in (*on_optimizers.OPTIMIZERS.values(), L1(0.1), L2(0.1), MaxNorm(1)):

        def run(optimizer=optimizer):
            optimizer = deepcopy(optimizer)  # it remembers what it has seen
            moved = on_optimizers.moved(on_optimizers.layers(np.float32), "cuda")
            for name in ("step", "penalty", "add_gradients", "project"):
                getattr(optimizer, name, len)(moved)
            clip_norm(moved, 0.1)

        yield run


def others():
    """Yield what runs the kernels that small layers have no use for."""
    for layer, shape in (
        (Linear(32, 32, rng=np.random.default_rng(0)), (32, 32)),
        (Conv2d(2, 2, 1, rng=np.random.default_rng(0)), (2, 2, 64, 64)),
        (IdentityShortcut(4, 2), (2, 3, 4, 4)),
        (ScaledTanh(), (2, 3)),
        (ChosenConv2d([[1, 0]], 3, rng=np.random.default_rng(0)), (2, 2, 4, 4)),
        (Distance([[1, -1, 1]]), (2, 3)),
    ):
        x = np.zeros(shape, np.float32)
        dy = np.zeros_like(layer.forward(x))
        yield partial(run_on_cuda, lambda layer=layer, **_: layer, x, dy)
    s, weight = np.zeros((2, 3, 4), "f"), np.ones((3, 1), "f")
    options = {"pos_weight": weight}
    yield partial(on_losses.run_on_cuda, binary_cross_entropy_with_logits, s, s, options)


def products():
    """Yield what runs each tile of the engine, and adds up the shares of a long sum."""
    new = {"rng": np.random.default_rng(0), "dtype": np.float32}
    for tile in TILES:
        yield partial(run_on_engine, tile, Linear(64, 64, **new), (5000, 64))
        yield partial(run_on_engine, tile, Conv2d(4, 4, 3, **new), (2, 4, 8, 8))
        yield partial(run_on_engine, tile, ConvTranspose2d(4, 4, 3, **new), (2, 4, 8, 8))


def run_on_engine(tile, layer, shape):
    """Run a layer on the engine, however small it is, by tiles of this kind."""
    with pytest.MonkeyPatch.context() as changed, engine.precision("float32"):
        changed.setattr(engine, "FEW", 0)
        for module in (cuda_conv, cuda_matmul):
            changed.setattr(module, "choose", lambda *_, **__: tile)
        layer.to("cuda").backward(layer.forward(to("cuda", np.zeros(shape, np.float32))))


@cache
def dry():
    """Run all cases, without computing; return what they launched, and what failed.

    What kernels know of earlier launches is left as it is. Optimizers do compute: whether
    they clip a gradient depends on it.
    """
    modules()
    kernels = [k for name, k in cuda.KERNELS.items() if name.startswith("course.")]
    before, failed, launches = [kernel.launched for kernel in kernels], [], []
    for kernel in kernels:
        kernel.launched = {}
    for group in (layers, losses, optimizers, others, products):
        with simulated(), simulator.run_with(dry=group is not optimizers):
            for case in group():
                try:
                    case()
                except Exception as error:
                    failed.append((group.__name__, case, error))
    for kernel, known in zip(kernels, before, strict=True):
        launches += [(kernel, types, n) for types, n in kernel.launched.items()]
        kernel.launched = known
    return kernels, launches, failed


@cache
def compiled():
    """Return what became of every kernel of the course."""
    return check(dry()[1])


def over_budget(row: Compiled) -> list[str]:
    """Return what is wrong with a compiled kernel."""
    engine = row.name.startswith("course.engine.")
    share = next((k for tile, k in SHARES.items() if row.name.endswith(tile)), 0)
    wrong = {
        f"error: {row.error}": row.error,
        f"{row.spills} bytes spilled": row.spills,
        f"{row.doubles} of float64": row.doubles and "float64" not in " ".join(row.types),
        f"{row.registers} registers": row.registers > MOST_REGISTERS,
        f"{row.blocks} blocks": engine and not row.needs and row.blocks < 2,
        f"sm_{row.needs} is needed": row.needs and "tensor_core" not in row.name,
        f"arithmetic {row.arithmetic:.2f}": row.loop and row.arithmetic < share,
    }
    return [what for what, holds in wrong.items() if holds]


def test_every_kernel_is_launched_by_a_case():
    kernels, launches, failed = dry()
    assert failed == []
    assert len(kernels) > 100
    known = {launch[0].name for launch in launches}
    assert [kernel.name for kernel in kernels if kernel.name not in known] == []


@here
def test_every_kernel_compiles_within_the_budget(record_testsuite_property):
    names = ", ".join(f"sm_{k}" for k in ARCHITECTURES)
    count = f"{len(dry()[0])} kernels compiled for {names}"
    record_testsuite_property("compile check", count)
    wrong = [
        f"{row.name} {row.types} sm_{row.architecture}: {', '.join(over_budget(row))}"
        for row in compiled()
        if over_budget(row)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


# --- does the check see what it should? -------------------------------------------------


@cuda.jit
def doubles(y, x):
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = 0.1 * x[k]


@cuda.jit
def wrong_name(y, x):
    y[0] = x.no_such_thing


@cuda.jit(max_registers=24)
def spills(y, x):
    k = cuda.grid(1)
    a, b, c, d, e, f = x[k], x[k + 1], x[k + 2], x[k + 3], x[k + 4], x[k + 5]
    g, h, i, j = x[k + 6], x[k + 7], x[k + 8], x[k + 9]
    for m in range(x.size):
        a, b, c, d, e = b * x[m], c + a, d * e, e + f, f * a + j
        f, g, h, i, j = a + g, h * a, i * b * c, j + d, a + h
    y[k] = a + b * c + d * e + f * g + h + i * j


@cuda.jit
def good(y, x):
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = x[k]


def alone(kernel, *types, threads=256):
    """Compile one kernel for these types."""
    return check([(kernel, types, threads)])


@here
def test_a_good_kernel_has_a_row_for_each_architecture():
    rows = alone(good, "float32[1]", "float32[1]")
    assert [row.architecture for row in rows] == list(ARCHITECTURES)
    for row in rows:
        assert 0 < row.registers < 40 and over_budget(row) == []
    assert len(table(rows).splitlines()) == 2


@here
def test_float64_in_a_float32_kernel_is_seen():
    for row in alone(doubles, "float32[1]", "float32[1]"):
        assert row.doubles > 0 and over_budget(row) == [f"{row.doubles} of float64"]
    for row in alone(doubles, "float64[1]", "float64[1]"):
        assert row.doubles > 0 and over_budget(row) == []


@here
def test_what_cannot_be_compiled_is_an_error_that_names_it():
    rows = alone(wrong_name, "float32[1]", "float32[1]")
    assert all("no_such_thing" in row.error for row in rows)
    assert all(over_budget(row) for row in rows)
    assert "no_such_thing" in table(rows)


@here
def test_spilled_registers_are_seen():
    for row in alone(spills, "float32[1]", "float32[1]"):
        assert row.registers <= 24 and row.spills
        assert over_budget(row) == [f"{row.spills} bytes spilled"]


def test_blocks_of_a_multiprocessor():
    """By hand: registers go by 256 to a warp; sm_80 takes 1 KiB of each block's share."""

    def blocks(architecture, **needs):
        return Compiled("", (), architecture, **needs).blocks

    assert blocks(90, threads=256, registers=128, shared=16896) == 2  # 65536 / (256 * 128)
    assert blocks(90, threads=256, registers=127) == 2  # 127 * 32 is rounded up to 4096
    assert blocks(90, threads=256, registers=129) == 1
    assert blocks(90, threads=256, registers=32) == 8  # 2048 threads
    assert blocks(75, threads=256, registers=32) == 4  # 1024 threads
    assert blocks(80, threads=32, registers=16, shared=40 << 10) == 4  # 164 / (40 + 1)
    assert blocks(75, threads=32, registers=16) == 16


LISTING = """
.L_x_1:
        /*0010*/   @!P0 BRA `(.L_x_3) ;
.L_x_2:
        /*0020*/                   LDS.128 R4, [R2] ;
        /*0030*/                   FFMA.FTZ R1, R2, R3, R1 ;
        /*0040*/              @P1  FFMA R1, R2, R3, R1 ;
        /*0050*/               @P0 BRA `(.L_x_2) ;
        /*0060*/                   FFMA R1, R2, R3, R1 ;
        /*0070*/                   BRA `(.L_x_1) ;
.L_x_3:
        /*0080*/                   EXIT ;
"""


def test_the_hottest_loop_is_an_innermost_one():
    assert hottest_loop(LISTING) == Counter({"FFMA": 2, "LDS.128": 1, "BRA": 1})


def test_without_the_tools_the_reason_says_what_to_install(monkeypatch):
    def nothing():
        raise compile_check.native.NoGPU

    monkeypatch.setattr(compile_check.native, "library", nothing)
    compile_check.tools.cache_clear()
    reason = compile_check.missing()
    compile_check.tools.cache_clear()
    assert reason.startswith("no numba-cuda, libNVVM, ptxas, nvdisasm here: python3 run.py")


if __name__ == "__main__":
    part = (*sys.argv[1:], "")[0]
    print(table(check(launch for launch in dry()[1] if part in launch[0].name)))
    print(*dry()[2], sep="\n")
