"""Bugs planted into the GPU's engine: the simulator finds each of them.

A bug is a change of a line or two in the source text. Two orders of the threads look for it
by their answers, and the race check by what threads touch. With `pytest -s` one sees which
found it: "wrong" is a wrong number, "error" what the simulator refuses, "race" a race.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from course import cuda
from course.cuda import CudaError, simulator
from course.device import empty, host, simulated, to
from course.engine import cuda as engine
from course.engine import cuda_conv, cuda_matmul, cuda_tile, tensor_core
from tests.cuda.every import RUNS
from tests.engine.convolutions import ONE, Case, arrays, oracle

pytestmark = pytest.mark.sim


@dataclass(frozen=True)
class Bug:
    """A change of a module's source text."""

    name: str
    module: ModuleType
    old: str
    new: str

    def __str__(self) -> str:
        return self.name


BUGS = [
    Bug(
        "no barrier before the first step",
        cuda_tile,
        "        cuda.syncthreads()\n\n        # What it multiplies",
        "\n        # What it multiplies",
    ),
    Bug(
        "no barrier in the loop",
        cuda_tile,
        "                cuda.syncthreads()\n\n",
        "\n",
    ),
    Bug(
        "one buffer instead of two",
        cuda_tile,
        "a_half, b_half = uint32(A_HALF - a_half), uint32(B_HALF - b_half)",
        "pass",
    ),
    Bug(
        "only a changes its buffer",
        cuda_tile,
        "uint32(A_HALF - a_half), uint32(B_HALF - b_half)",
        "uint32(A_HALF - a_half), b_half",
    ),
    Bug(
        "the next step goes to the wrong buffer",
        cuda_tile,
        "put(a_tile, a_half + a_put, A_STEP, a_four)",
        "put(a_tile, a_put, A_STEP, a_four)",
    ),
    Bug(
        "a and b in one shared array",
        cuda_tile,
        "b_tile = cuda.shared.array(B_BOTH, float32, 16)",
        "b_tile = a_tile",
    ),
    Bug(
        "chunks of neighbours overlap",
        cuda_tile,
        "(number & uint32(1)) << uint32(2)",
        "(number & uint32(1)) << uint32(1)",
    ),
    Bug(
        "one row too many is written",
        cuda_tile,
        "if row < p.rows:",
        "if row <= p.rows:",
    ),
    Bug(
        "one column too many is written",
        cuda_tile,
        "if c2 < p.columns:",
        "if c2 <= p.columns:",
    ),
    Bug(
        "one number too many is fetched",
        cuda_matmul,
        "if uint32(k + uint32(3)) < past:",
        "if uint32(k + uint32(3)) <= past:",
    ),
    Bug(
        "no zeros above and below the image",
        cuda_conv,
        "inside = uint32(start[1] + uint32(down)) < p.H",
        "inside = True",
    ),
    Bug(
        "no zeros left and right of the image",
        cuda_conv,
        "if inside and uint32(start[2] + uint32(across)) < p.W:",
        "if inside:",
    ),
    Bug(
        "two shares of a sum in one place",
        cuda_conv,
        "uint32(z * rows * columns)",
        "uint32(group * rows * columns)",
    ),
    Bug(
        "tensor cores: no barrier in the loop",
        tensor_core,
        "                cuda.syncthreads()\n",
        "",
    ),
    Bug(
        "tensor cores: one buffer instead of two",
        tensor_core,
        "other = k < p.past, uint32(HALF - half)",
        "other = k < p.past, half",
    ),
    Bug(
        "tensor cores: written without the exchange of places",
        tensor_core,
        "a_put, d_put = spot(a_line, a_k), spot(d_line, d_k)",
        "a_put, d_put = a_line * uint32(16) + a_k, spot(d_line, d_k)",
    ),
]


def changed(module, old="", new=""):
    """Return what is in the module, made from its source text with the change."""
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert not old or text.count(old) == 1, "the bug's line has changed: mend the test"
    names = {"__name__": "planted", "__file__": module.__file__}
    exec(compile(text.replace(old, new) if old else text, module.__file__, "exec"), names)
    return names


def product(names, tile):
    """Return x w^T, of 3 steps, and what it should be."""
    rng = np.random.default_rng(0)
    K = 19 if tile == "32x32" else 36
    x, w = (rng.normal(size=(rows, K)).astype(np.float32) for rows in (10, 9))
    xc, wc = to("cuda", x), to("cuda", w)
    y = empty((10, 9), np.float32, xc)
    names["multiply"](y, xc, (K, 1), wc, (K, 1), K, tf32=tile == "tf32")
    return y, np.float64(x) @ np.float64(w).T


CASE = Case((2, 2, 3, 4), (3, 2, 3, 3), "", "", "", frame=ONE)


def convolution(names):
    """Return dw, in two shares, and what it should be."""
    x, w, b, dy = arrays(CASE, np.float32)
    xc, dyc = to("cuda", x), to("cuda", dy)
    dw = empty(w.shape, w.dtype, xc)
    g = cuda_conv.Geometry(x.shape, w.shape, dy.shape[2:], (1, 1), ONE, (1, 1), 1)
    names["LONG"] = 8
    names["backward_w"](dw, dyc, xc, cuda_conv.Geometry(*g), False)
    return dw, oracle(x, w, b, dy, CASE).dw


def compute(bug, monkeypatch):
    """Return what a kernel with the bug gives, and what it should give."""
    if bug.module is cuda_conv:
        return convolution(changed(bug.module, bug.old, bug.new))
    if bug.module is cuda_matmul:
        return product(changed(bug.module, bug.old, bug.new), "32x32")
    tile = "tf32" if bug.module is tensor_core else "32x32"
    make = changed(bug.module, bug.old, bug.new)["make"]
    form = [cuda_matmul.PRODUCT] if tile == "tf32" else [cuda_matmul.PRODUCT, tile]
    monkeypatch.setitem(cuda_matmul.KERNELS, tile, make(*form))
    monkeypatch.setattr(cuda_matmul, "choose", lambda *_, **__: tile)
    return product(vars(cuda_matmul), tile)


def verdict(bug, settings, monkeypatch):
    """Return what one run says of the bug."""
    with simulated(), simulator.run_with(**settings):
        try:
            found, expected = compute(bug, monkeypatch)
        except CudaError as error:
            return "race" if "race" in str(error) else "error"
        except IndexError:
            return "error"
    largest = np.abs(expected).max()
    right = np.allclose(host(found), expected, rtol=0, atol=largest * 1e-3)
    return "right" if right else "wrong"


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    """Let nobody else see the kernels that are made here."""
    monkeypatch.setattr(engine, "FEW", 0)
    monkeypatch.setattr(cuda, "KERNELS", dict(cuda.KERNELS))


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_planted_bug_is_found(bug, monkeypatch):
    said = [verdict(bug, settings, monkeypatch) for settings in RUNS]
    print(f"\n{bug.name:52}  {'  '.join(said)}", end="")
    assert set(said) != {"right"}
    if "barrier" in bug.name:
        assert said[-1] == "race"


@pytest.mark.parametrize("module", [cuda_tile, cuda_matmul, cuda_conv, tensor_core])
def test_without_a_bug_nothing_is_found(module, monkeypatch):
    for settings in RUNS[1:]:
        assert verdict(Bug("", module, "", ""), settings, monkeypatch) == "right"
