"""Convolutions, forward and backward, in every way; and the rungs of the ladder."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from course.bench import numpy_way
from course.bench.cases import Case, Work
from course.bench.shapes import SHAPES, Shape
from course.device import fill
from course.layers import conv2d_backward, conv2d_forward
from course.shapes import framed

SMALL = "lenet1", "lenet2"  # shapes on which SciPy is not hopeless
MASKS = {  # which of dx, dw and db PyTorch is to compute
    "dx": [True, False, False],
    "dw": [False, True, True],
    "backward": [True, True, True],
}


def course(s: Shape) -> dict[str, Work]:
    """Return the public functions of the course, and the engine's dx and dw alone."""
    from course.engine.cpu import convolve_backward

    x, w, b, dy = s.arrays()
    window = (s.S, s.S), ((s.P, s.P), (s.P, s.P)), (s.D, s.D), s.G

    def weights() -> tuple[np.ndarray, ...]:
        dw, db = np.empty_like(w), np.empty_like(b)
        if not convolve_backward(None, dw, db, dy, x, w, *window):
            raise ImportError("plain loops do as well, and none does dw alone")
        return dw, db

    def image() -> np.ndarray:
        dx = np.empty_like(x)
        if not convolve_backward(dx, None, None, dy, x, w, *window):
            raise ImportError("plain loops do as well, and none does dx alone")
        return dx

    return {
        "forward": lambda: conv2d_forward(x, w, b, **s.window),
        "dx": image,
        "dw": weights,
        "backward": lambda: conv2d_backward(dy, x, w, **s.window),
    }


def loops(s: Shape) -> dict[str, Work]:
    """Return the plain loops of the equations, which the lecture shows."""
    from course.layers.conv2d import _db_cpu, _dw_cpu, _dx_cpu, _y_cpu

    x, w, b, dy = s.arrays()
    xp = framed(x, ((s.P, s.P), (s.P, s.P)))
    y, dxp, dw, db = (np.empty_like(a) for a in (dy, xp, w, b))
    window = s.G, s.S, s.S, s.D, s.D

    def forward() -> np.ndarray:
        fill(_y_cpu, s.N * s.F, y, xp, w, b, *window, steps=s.flops)
        return y

    def image() -> np.ndarray:
        fill(_dx_cpu, s.N * s.C, dxp, dy, w, *window, steps=s.flops)
        return dxp[:, :, s.P : s.P + s.H, s.P : s.P + s.H]

    def weights() -> tuple[np.ndarray, ...]:
        fill(_dw_cpu, w[:, :, 0, 0].size, dw, dy, xp, *window, steps=s.flops)
        fill(_db_cpu, s.F, db, dy)
        return dw, db

    return {
        "forward": forward,
        "dx": image,
        "dw": weights,
        "backward": lambda: (image(), *weights()),
    }


def runs(s: Shape) -> dict[str, Work]:
    """Return the loops that make one pass along memory for each tap, at stride 1."""
    from course.layers.conv2d import _y_cpu_run

    x, w, b, dy = s.arrays()
    xp, y = framed(x, ((s.P, s.P), (s.P, s.P))), np.empty_like(dy)

    def forward() -> np.ndarray:
        fill(_y_cpu_run, s.N * s.F, y, xp, w, b, s.G, s.D, s.D, steps=s.flops)
        return y

    return {"forward": forward}


def pytorch(s: Shape, layout: str = "contiguous_format", dtype: Any = np.float32) -> dict:
    """Return PyTorch's operators on tensors of the layout."""
    import torch

    tensors = [torch.from_numpy(a) for a in s.arrays(dtype)]
    layout = getattr(torch, layout)
    x, w, b, dy = (t.to(memory_format=layout) if t.ndim == 4 else t for t in tensors)
    window = [s.S] * 2, [s.P] * 2, [s.D] * 2
    gradients = torch.ops.aten.convolution_backward

    def backward(mask: list[bool]) -> Work:
        def work() -> tuple:
            found = gradients(dy, x, w, [s.F], *window, False, [0, 0], s.G, mask)
            return tuple(a for a in found if a is not None)

        return work

    forward = torch.nn.functional.conv2d
    return {"forward": lambda: forward(x, w, b, *window, s.G)} | {
        name: backward(mask) for name, mask in MASKS.items()
    }


def numpy(s: Shape, dtype: Any = np.float32) -> dict[str, Work]:
    """Return im2col; its backward has the columns from forward."""
    x, w, b, dy = s.arrays(dtype)
    _, cols = numpy_way.conv2d_forward(x, w, b, **s.window)

    def backward() -> tuple[np.ndarray, ...]:
        return numpy_way.conv2d_backward(dy, cols, x.shape, w, **s.window)

    return {
        "forward": lambda: numpy_way.conv2d_forward(x, w, b, **s.window)[0],
        "dx": lambda: backward()[0],
        "dw": lambda: backward()[1:],
        "backward": backward,
    }


def scipy(s: Shape) -> dict[str, Work]:
    """Return SciPy's correlation of one image with one filter, called for all of them."""
    from scipy.signal import correlate

    x, w, b, dy = s.arrays()
    xp, y = framed(x, ((s.P, s.P), (s.P, s.P))), np.empty_like(dy)

    def forward() -> np.ndarray:
        for n in range(s.N):
            for f in range(s.F):
                y[n, f] = correlate(xp[n], w[f], "valid", "direct")[0] + b[f]
        return y

    return {"forward": forward}


WAYS = {
    "course": course,
    "pytorch": pytorch,
    "channels last": lambda s: pytorch(s, "channels_last"),
    "numpy": numpy,
    "loops": loops,
    "runs": runs,
    "scipy": scipy,
}


def works(s: Shape, what: str, *names: str) -> dict[str, Callable[[], Work]]:
    """Return what sets up `what`, as "forward", in the ways of these names."""

    def set_up(name: str) -> Work:
        found = WAYS[name](s)
        if what not in found:
            raise ImportError(f"it cannot be asked for {what} alone")
        return found[what]

    return {name: partial(set_up, name) for name in names}


def convolutions() -> Iterator[Case]:
    """Yield the passes of every shape, with their errors against float64."""
    libraries = "course", "pytorch", "channels last"
    for name, s in SHAPES.items():
        for what, passes in (("forward", 1), ("dx", 1), ("dw", 1), ("backward", 2)):
            ways = libraries if passes == 1 else (*libraries, "numpy", "loops")
            if what == "forward":
                ways = *ways, "numpy", "loops", *(["scipy"] * (name in SMALL))
            truth = partial(_truth, s, what)
            flops, traffic = passes * s.flops, passes * s.bytes
            yield Case(f"{name} {what}", works(s, what, *ways), flops, traffic, truth)


def _truth(s: Shape, what: str) -> Any:
    """Return the result in float64: PyTorch's, or without it NumPy's."""
    try:
        return pytorch(s, dtype=np.float64)[what]()
    except ImportError:
        return numpy(s, dtype=np.float64)[what]()


def rungs(name: str = "vgg56n8") -> Iterator[Case]:
    """Yield one shape, forward: the loop nest, faster loops, the engine, the others."""
    s = SHAPES[name]
    ways = "course", "loops", "runs", "numpy", "pytorch", "channels last"
    yield Case(f"{name} forward", works(s, "forward", *ways), s.flops, s.bytes)
