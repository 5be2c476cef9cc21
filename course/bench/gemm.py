"""Matrix products, as the linear layer does them, beside MKL and OpenBLAS."""

from collections.abc import Callable, Iterator

import numpy as np

from course.bench.cases import Case, Work
from course.layers import linear_backward, linear_forward

SIZES = {  # rows, inputs, outputs
    **{f"square {n}": (n, n, n) for n in (256, 512, 1024)},
    "affine 64x784x256": (64, 784, 256),
    "affine 128x784x256": (128, 784, 256),
    "affine 64x4096x512": (64, 4096, 512),
    "affine 64x400x120": (64, 400, 120),
    "affine 64x4096x10": (64, 4096, 10),
}


def course(x, w, b, dy) -> dict[str, Work]:
    """Return the public functions of the course."""
    return {
        "forward": lambda: linear_forward(x, w, b),
        "backward": lambda: linear_backward(dy, x, w),
    }


def pytorch(x, w, b, dy) -> dict[str, Work]:
    """Return PyTorch's products, which are MKL's on x86."""
    import torch

    x, w, b, dy = (torch.from_numpy(a) for a in (x, w, b, dy))
    return {
        "forward": lambda: torch.addmm(b, x, w.T),
        "backward": lambda: (torch.mm(dy, w), torch.mm(dy.T, x), dy.sum(0)),
    }


def numpy(x, w, b, dy) -> dict[str, Work]:
    """Return NumPy's products, which are OpenBLAS's on most machines."""
    return {
        "forward": lambda: x @ w.T + b,
        "backward": lambda: (dy @ w, dy.T @ x, dy.sum(0)),
    }


WAYS: dict[str, Callable] = {"course": course, "pytorch": pytorch, "numpy": numpy}


def products() -> Iterator[Case]:
    """Yield forward and backward of the linear layer."""
    rng = np.random.default_rng(0)
    for name, (N, C, F) in SIZES.items():
        sizes = (N, C), (F, C), (F,), (N, F)
        arrays = [rng.standard_normal(size, np.float32) for size in sizes]
        for what, passes in (("forward", 1), ("backward", 2)):
            ways = {
                way: lambda build=build, a=arrays, what=what: build(*a)[what]
                for way, build in WAYS.items()
            }
            traffic = 4 * passes * (N * C + F * C + N * F)
            yield Case(f"{name} {what}", ways, passes * 2 * N * C * F, traffic)
