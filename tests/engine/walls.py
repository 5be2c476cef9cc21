"""Run every case with arrays that end, or begin, where the memory does.

A load or store one number too far ends the process: no page follows. NumPy's own memory
would let it pass. Needs mprotect, so not on Windows.
"""

import ctypes
import mmap
from typing import Any

import numpy as np

from course.engine import cpu, matmul, winograd
from tests.engine.convolutions import CASES, Found, arrays, compare

PAGE = mmap.PAGESIZE
NO_ACCESS = 0


def walled(a: Any, at_end: bool) -> Any:
    """Return a copy of the array between two pages that nobody may touch."""
    pages = -(-a.nbytes // PAGE)
    memory = np.frombuffer(mmap.mmap(-1, (pages + 2) * PAGE), np.uint8)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for wall in (0, pages + 1):
        start = ctypes.c_void_p(memory.ctypes.data + wall * PAGE)
        assert protect(start, ctypes.c_size_t(PAGE), NO_ACCESS) == 0
    first = (pages + 1) * PAGE - a.nbytes if at_end else PAGE
    inside = memory[first : first + a.nbytes].view(a.dtype).reshape(a.shape)
    inside[...] = a
    return inside


def convolutions(at_end: bool, dtype: Any) -> None:
    """Check every convolution between walls, workspaces as well."""
    cpu.workspace = lambda kind, size: walled(np.full(size, np.nan, kind), at_end)
    winograd.workspace = matmul.workspace = cpu.workspace
    for case in CASES.values():
        numbers = [walled(a, at_end) for a in arrays(case, dtype)]
        x, w, b, dy = numbers
        window = case.stride, case.frame, case.dilation, case.groups
        N, F, HO, WO = dy.shape
        shapes = dy.shape, x.shape, w.shape, b.shape, (N, F, HO // 2, WO // 2), dy.shape
        y, dx, dw, db, z, both = (walled(np.zeros(k, dtype), at_end) for k in shapes)
        assert cpu.convolve(y, x, w, b, *window)
        pooled = z if z.size else None
        assert cpu.convolve(both, x, w, b, *window, relu=True, pooled=pooled)
        assert cpu.convolve_backward(dx, dw, db, dy, x, w, *window)
        compare(Found(y, dx, dw, db, z), case, *numbers)
        if z.size:
            cpu.pool_relu_dx(both, walled(z, at_end), walled(both, at_end))


def products(at_end: bool, dtype: Any) -> None:
    """Check matrix products around the size of a tile between walls."""
    matmul.workspace = lambda kind, size: walled(np.full(size, np.nan, kind), at_end)
    sizes = (4, 1, 1), (7, 17, 15), (13, 257, 33), (150, 16, 48), (256, 31, 7)
    for N, I, O in (*sizes, (29, 128, 81), (31, 300, 128)):
        rng = np.random.default_rng(N)
        shapes = (N, I), (O, I), (O,), (N, O)
        x, w, b, dy = (walled(rng.normal(size=k).astype(dtype), at_end) for k in shapes)
        dx, dw, y = (walled(np.zeros_like(a), at_end) for a in (x, w, dy))
        assert matmul.linear(y, x, w, b)
        assert matmul.linear_backward(dx, dw, dy, x, w)
        for a, exact in ((y, x @ w.T + b), (dx, dy @ w), (dw, dy.T @ x)):
            np.testing.assert_allclose(a, exact, 1e-3, 1e-3)


def main() -> None:
    """Check all of it, in both types, at both ends of a page."""
    for at_end in (True, False):
        for dtype in (np.float32, np.float64):
            convolutions(at_end, dtype)
            products(at_end, dtype)
    print("nothing touched the walls")


if __name__ == "__main__":
    main()
