"""Convolutions that between them need every loop of the engine, and an oracle.

The oracle is NumPy in float64 and shares no line with the course. `check` runs one case
with every array fenced in: nothing outside an array may be written, nor change a result.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from course.engine import cpu, tile, winograd

FENCE = 160  # numbers on either side of an array: more than any vector reaches
SENTINEL = -12345.0
ROUNDING = {np.float32: 2e-6, np.float64: 4e-15}  # relative to the sum of |products|
NONE = (0, 0), (0, 0)
ONE = (1, 1), (1, 1)


class Case(NamedTuple):
    """A convolution, and the loops that compute y, dx, and dw in float32 with AVX2."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    y: str
    dx: str
    dw: str
    stride: tuple[int, int] = (1, 1)
    frame: tuple = NONE
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


P, F, D = "_along_pixels", "_along_filters", "_depthwise"
FEW, MANY, DW = "_few_weights", "_weights", "_depthwise_weights"
TILES = "_tiles"  # of Winograd
M = "_multiply"  # of matrices
CASES = {
    "few-filters": Case((2, 2, 5, 37), (3, 2, 3, 3), P, P, FEW, frame=ONE),
    "no-frame": Case((2, 2, 6, 40), (3, 2, 3, 2), P, P, FEW),
    "asymmetric": Case((2, 3, 6, 33), (2, 3, 2, 4), P, P, FEW, frame=((0, 2), (3, 1))),
    "twelve-filters": Case((2, 3, 10, 34), (12, 3, 3, 3), P, P, FEW),
    "one-filter": Case((1, 1, 4, 40), (1, 1, 3, 3), P, P, FEW, frame=ONE),
    "many-filters": Case((2, 19, 7, 7), (35, 19, 5, 5), F, F, MANY, frame=((2, 2), (2, 2))),
    "three-by-three": Case(
        *((3, 64, 21, 20), (64, 64, 3, 3), TILES, TILES, MANY), frame=((1, 1), (0, 2))
    ),
    "narrow-map": Case((3, 5, 9, 1), (33, 5, 3, 1), F, F, MANY, frame=((1, 1), (0, 0))),
    "one-pixel": Case((5, 40, 2, 2), (37, 40, 2, 2), F, F, MANY),
    "long-sums": Case((2, 70, 4, 4), (70, 70, 2, 3), F, F, MANY, frame=((1, 0), (1, 1))),
    "long-sums-along-pixels": Case((1, 36, 4, 32), (1, 36, 3, 3), P, P, FEW, frame=ONE),
    "long-blocks": Case((1, 32, 17, 17), (32, 32, 3, 2), F, F, MANY, frame=ONE),
    "many-images": Case((11, 3, 5, 4), (32, 3, 3, 3), F, F, MANY, stride=(2, 2)),
    "flattened": Case((2, 32, 5, 7), (16, 32, 1, 1), M, M, M),
    "flattened-groups": Case((2, 32, 5, 7), (16, 8, 1, 1), P, P, FEW, groups=4),
    "flattened-few": Case((2, 32, 3, 5), (16, 32, 1, 1), F, F, MANY),
    "one-tap-in-a-frame": Case((2, 3, 5, 17), (4, 3, 1, 1), P, P, FEW, frame=ONE),
    "phases": Case((2, 9, 9, 11), (34, 9, 3, 3), F, F, MANY, stride=(2, 3), frame=ONE),
    "phases-without-taps": Case((2, 4, 9, 10), (17, 4, 2, 1), F, F, MANY, stride=(3, 4)),
    "phases-of-rows": Case((1, 2, 9, 34), (3, 2, 3, 3), P, P, FEW, (2, 1), frame=ONE),
    "stride-beyond-the-map": Case((2, 5, 4, 3), (17, 5, 2, 2), F, F, MANY, stride=(9, 7)),
    "dilated": Case((2, 2, 8, 40), (3, 2, 3, 2), P, P, FEW, dilation=(2, 5)),
    "dilated-phases": Case(
        *((2, 5, 11, 12), (18, 5, 3, 2), F, F, MANY, (2, 3)),
        **{"frame": ((3, 2), (1, 4)), "dilation": (3, 2)},
    ),
    "groups": Case((2, 6, 5, 33), (4, 3, 3, 3), P, P, FEW, frame=ONE, groups=2),
    "groups-of-many": Case((2, 34, 6, 6), (40, 17, 3, 2), F, F, MANY, (2, 1), groups=2),
    "one-channel-each": Case((2, 3, 5, 34), (6, 1, 3, 3), P, P, FEW, frame=ONE, groups=3),
    "window-is-the-map": Case((6, 3, 5, 4), (40, 3, 5, 4), F, F, MANY),
    "wider-than-the-map": Case(
        *((2, 3, 2, 3), (20, 3, 5, 6), F, F, MANY), frame=((3, 2), (4, 3))
    ),
    "windows-in-the-frame": Case(
        *((2, 3, 3, 3), (16, 3, 2, 2), F, F, MANY), frame=((5, 4), (2, 3))
    ),
    "depthwise": Case((3, 5, 6, 21), (5, 1, 3, 3), D, D, DW, frame=ONE, groups=5),
    "depthwise-bare": Case((2, 4, 7, 40), (4, 1, 2, 3), D, D, DW, groups=4),
    "depthwise-nine": Case((2, 3, 6, 24), (3, 1, 3, 3), D, D, DW, groups=3),
    "depthwise-low": Case((2, 3, 5, 20), (3, 1, 3, 3), D, D, DW, groups=3),
    "depthwise-dilated": Case(
        *((2, 3, 9, 32), (3, 1, 4, 5), D, D, DW),
        **{"frame": ((0, 3), (4, 1)), "dilation": (2, 3), "groups": 3},
    ),
}


class Found(NamedTuple):
    """What one case gives."""

    y: Any
    dx: Any
    dw: Any
    db: Any
    z: Any


def windows(x: Any, case: Case) -> Any:
    """Return a view [n,g,c,i,j,u,v]: what tap (u,v) of window (i,j) sees in channel c."""
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *case.frame))
    (N, C, H, W), (KH, KW), G = x.shape, case.w[2:], case.groups
    (SH, SW), (DH, DW) = case.stride, case.dilation
    size = (H - DH * (KH - 1) - 1) // SH + 1, (W - DW * (KW - 1) - 1) // SW + 1
    n, c, h, w = x.strides
    steps = n, C // G * c, c, SH * h, SW * w, DH * h, DW * w
    return as_strided(x, (N, G, C // G, *size, KH, KW), steps)


def size_of_y(case: Case) -> tuple[int, ...]:
    """Return the shape of y."""
    return case.x[0], case.w[0], *windows(np.zeros(case.x), case).shape[3:5]


def oracle(x: Any, w: Any, b: Any, dy: Any, case: Case) -> Found:
    """Return y, dx, dw, db, and the 2 x 2 max-pool of relu(y), in float64."""
    x, w, b, dy = (a.astype(np.float64) for a in (x, w, b, dy))
    N, G, seen = len(x), case.groups, windows(x, case)
    filters = w.reshape(G, -1, *w.shape[1:])
    upstream = dy.reshape(N, G, -1, *dy.shape[2:])
    y = np.einsum("ngcijuv,gfcuv->ngfij", seen, filters, optimize=True).reshape(dy.shape)
    y += b[:, None, None]
    dw = np.einsum("ngcijuv,ngfij->gfcuv", seen, upstream, optimize=True).reshape(w.shape)
    (top, bottom), (left, right) = case.frame
    (H, W), (HO, WO) = x.shape[2:], dy.shape[2:]
    (SH, SW), (DH, DW) = case.stride, case.dilation
    dx = np.zeros((*x.shape[:2], H + top + bottom, W + left + right))
    for u, v in np.ndindex(w.shape[2:]):
        part = np.einsum("ngfij,gfc->ngcij", upstream, filters[..., u, v])
        rows = slice(u * DH, u * DH + SH * (HO - 1) + 1, SH)
        cols = slice(v * DW, v * DW + SW * (WO - 1) + 1, SW)
        dx[:, :, rows, cols] += part.reshape(*x.shape[:2], HO, WO)
    dx = dx[:, :, top : top + H, left : left + W]
    even = np.maximum(y, 0)[:, :, : HO // 2 * 2, : WO // 2 * 2]
    z = even.reshape(N, len(w), HO // 2, 2, WO // 2, 2).max(axis=(3, 5), initial=0)
    return Found(y, dx, dw, dy.sum(axis=(0, 2, 3)), z)


def fenced(a: Any, fence: float = np.nan) -> Any:
    """Return a copy of the array in the middle of a longer one, full of `fence`."""
    whole = np.full(a.size + 2 * FENCE + 1, fence, a.dtype)
    inside = whole[FENCE + 1 : FENCE + 1 + a.size].reshape(a.shape)
    inside[...] = a
    return inside


def untouched(inside: Any, fence: float = SENTINEL) -> bool:
    """Say whether the fence around the array is as it was."""
    whole = inside.base
    outside = np.concatenate([whole[: FENCE + 1], whole[FENCE + 1 + inside.size :]])
    return np.array_equal(outside, np.full_like(outside, fence), equal_nan=True)


@contextmanager
def fenced_workspaces(*modules: Any) -> Iterator[None]:
    """Give the modules workspaces no larger than they ask for, full of NaN."""
    given, before = [], [module.workspace for module in modules]

    def workspace(dtype, size):
        given.append(fenced(np.full(size, np.nan, dtype), SENTINEL))
        return given[-1]

    for module in modules:
        module.workspace = workspace
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.workspace = own
    assert all(map(untouched, given)), "written outside the workspace"


def arrays(case: Case, dtype: Any, seed: int = 0) -> list[Any]:
    """Return x, w, b, dy, normally distributed."""
    rng = np.random.default_rng(seed)
    shapes = case.x, case.w, case.w[:1], size_of_y(case)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def run(case: Case, x: Any, w: Any, b: Any, dy: Any) -> Found | None:
    """Return what the engine gives, all arrays fenced; None if it leaves the case."""
    window = case.stride, case.frame, case.dilation, case.groups
    x, w, b, dy = (fenced(a) for a in (x, w, b, dy))
    half = *dy.shape[:2], dy.shape[2] // 2, dy.shape[3] // 2
    shapes = [dy.shape, x.shape, w.shape, b.shape, half, dy.shape]
    empty = [fenced(np.full(shape, np.nan, x.dtype), SENTINEL) for shape in shapes]
    y, dx, dw, db, z, positive = empty
    with fenced_workspaces(cpu, winograd):
        if not cpu.convolve(y, x, w, b, *window):
            return None
        pooled = z if z.size else None
        assert cpu.convolve(positive, x, w, b, *window, relu=True, pooled=pooled)
        assert cpu.convolve_backward(dx, dw, db, dy, x, w, *window)
    assert all(map(untouched, empty)), "written outside an array"
    np.testing.assert_array_equal(positive, np.maximum(y, 0), "relu: other bits than y")
    return Found(y, dx, dw, db, z)


def compare(found: Found, case: Case, x: Any, w: Any, b: Any, dy: Any) -> None:
    """Compare with the oracle; rounding errors grow with the sum of |products|."""
    expected = oracle(x, w, b, dy, case)
    scale = oracle(*map(abs, (x, w, b, dy)), case)
    rounding = ROUNDING[x.dtype.type]
    for name, a, exact, size in zip(Found._fields, found, expected, scale, strict=True):
        error = np.abs(a - exact) > rounding * size
        assert not error.any() and not np.isnan(a).any(), (
            f"{name} is wrong in {(error | np.isnan(a)).sum()} of {a.size} places"
        )


def spied(used: list[str], real: Any) -> Any:
    """Return a launch that notes which loop it starts."""

    def launch(job, *arguments):
        used.append(job.__name__)
        real(job, *arguments)

    return launch


def main(*unit: str) -> None:
    """Check all cases in this process, in float32, and print the loops that ran.

    `unit`, if given, is the vector unit to compile for: bytes in a register, registers.
    """
    used: list[str] = []
    if unit:
        tile.vector_unit = lambda: tuple(map(int, unit))
    cpu.launch = spied(used, cpu.launch)
    for case in CASES.values():
        numbers = arrays(case, np.float32)
        compare(run(case, *numbers), case, *numbers)
    winograd._pays, winograd.launch = lambda *_: True, cpu.launch
    winograd._tiling.cache_clear()
    for case in CASES.values():
        if case.w[2:] == (3, 3):  # as many as Winograd's loops take
            numbers = arrays(case, np.float32)
            compare(run(case, *numbers), case, *numbers)
    print(*tile.tile_shape(np.dtype(np.float32)), *sorted(set(used)))


if __name__ == "__main__":
    main(*sys.argv[1:])
