"""One layer at a time, forward and backward, beside PyTorch's layer of the same name."""

from collections.abc import Iterator
from inspect import signature
from typing import Any

import numpy as np

import course.layers
from course.bench.cases import Case, Work

MAPS = 64, 32, 32, 32  # 8 MB
ROWS = 512, 1000
Layers = tuple[str, str, tuple, dict, tuple[int, ...]]
LAYERS: list[Layers] = [  # ours, PyTorch's, arguments, keywords, shape of x
    ("ReLU", "ReLU", (), {}, MAPS),
    ("LeakyReLU", "LeakyReLU", (), {}, MAPS),
    ("PReLU", "PReLU", (), {}, MAPS),
    ("ELU", "ELU", (), {}, MAPS),
    ("Sigmoid", "Sigmoid", (), {}, MAPS),
    ("Tanh", "Tanh", (), {}, MAPS),
    ("GELU", "GELU", (), {}, MAPS),
    ("SiLU", "SiLU", (), {}, MAPS),
    ("Softplus", "Softplus", (), {}, MAPS),
    ("Softmax", "Softmax", (1,), {}, ROWS),
    ("LogSoftmax", "LogSoftmax", (1,), {}, ROWS),
    ("MaxPool2d", "MaxPool2d", (2,), {}, MAPS),
    ("MaxPool2d", "MaxPool2d", (3, 2, 1), {}, MAPS),
    ("AvgPool2d", "AvgPool2d", (2,), {}, MAPS),
    ("LPPool2d", "LPPool2d", (2, 2), {}, MAPS),
    ("GlobalAvgPool2d", "AdaptiveAvgPool2d", (), {"output_size": 1}, MAPS),
    ("GlobalMaxPool2d", "AdaptiveMaxPool2d", (), {"output_size": 1}, MAPS),
    ("BatchNorm2d", "BatchNorm2d", (32,), {}, MAPS),
    ("BatchNorm1d", "BatchNorm1d", (1000,), {}, ROWS),
    ("LayerNorm", "LayerNorm", ((1000,),), {}, ROWS),
    ("GroupNorm", "GroupNorm", (8, 32), {}, MAPS),
    ("InstanceNorm2d", "InstanceNorm2d", (32,), {}, MAPS),
    ("LocalResponseNorm", "LocalResponseNorm", (5,), {}, MAPS),
    ("Dropout", "Dropout", (0.5,), {}, MAPS),
    ("Dropout2d", "Dropout2d", (0.5,), {}, MAPS),
    ("Upsample", "Upsample", (), {"scale_factor": 2}, (64, 32, 16, 16)),
    ("Upsample", "Upsample", (), {"scale_factor": 2, "mode": "bilinear"}, (64, 32, 16, 16)),
    ("Conv1d", "Conv1d", (32, 64, 5), {}, (64, 32, 256)),
    ("ConvTranspose2d", "ConvTranspose2d", (64, 32, 2, 2), {}, (64, 64, 16, 16)),
    ("Linear", "Linear", (784, 256), {}, (128, 784)),
    ("Flatten", "Flatten", (), {}, MAPS),
]
RANDOM = "Dropout", "Dropout2d"
FLOPS = {  # forward and backward, for each number of x; the others are not counted
    "ReLU": (1, 1),
    "MaxPool2d": (1, 1),
    "AvgPool2d": (1, 1),
    "BatchNorm2d": (7, 9),
    "Dropout": (2, 2),
}
MULTIPLY = "Linear", "Conv1d", "ConvTranspose2d", "Flatten"  # not bound by memory
SIZE = {"Upsample": 4, "GlobalAvgPool2d": 0, "GlobalMaxPool2d": 0} | dict.fromkeys(
    ("MaxPool2d", "AvgPool2d", "LPPool2d"), 1 / 4
)  # of y, as a share of x; 1 for the others


def ours(name: str, arguments: tuple, keywords: dict) -> Any:
    """Return a layer of the course, or raise ImportError if there is none yet."""
    if not hasattr(course.layers, name):
        raise ImportError(f"course.layers has no {name}")
    kind = getattr(course.layers, name)
    takes = signature(kind).parameters
    if "rng" in takes:
        keywords = keywords | {"rng": np.random.default_rng(0)}
    return kind(*arguments, **{k: v for k, v in keywords.items() if k != "output_size"})


def upstream(shape: tuple[int, ...]) -> np.ndarray:
    """Return dy, the same in every call."""
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def by_course(layer: Layers, x: np.ndarray) -> dict[str, Work]:
    """Return forward and backward of the course's layer."""
    name, _, arguments, keywords, _ = layer
    mine = ours(name, arguments, keywords)
    dy = upstream(mine.forward(x).shape)
    return {"forward": lambda: mine.forward(x), "backward": lambda: mine.backward(dy)}


def by_pytorch(layer: Layers, x: np.ndarray) -> dict[str, Work]:
    """Return forward and backward of PyTorch's layer, with our weights."""
    import torch

    name, theirs, arguments, keywords, _ = layer
    module = getattr(torch.nn, theirs)(*arguments, **keywords)
    try:
        params = ours(name, arguments, keywords).params.items()
        module.load_state_dict({k: torch.tensor(a) for k, a in params}, strict=False)
    except ImportError:
        pass
    leaf = torch.tensor(x, requires_grad=True)
    y, inputs = module(leaf), (leaf, *module.parameters())
    dy = torch.from_numpy(upstream(tuple(y.shape)))

    def backward() -> Any:
        return torch.autograd.grad(y, inputs, dy, retain_graph=True)[0]

    return {"forward": lambda: module(leaf), "backward": backward}


def traffic(name: str, x_size: int, what: str) -> float:
    """Return the least bytes: forward x and y; backward dy, dx and what was remembered."""
    y_size = SIZE.get(name, 1) * x_size
    remembered = 0 if name in ("AvgPool2d", "Upsample", *RANDOM) else y_size
    return 4 * (x_size + y_size + remembered * (what == "backward"))


def layers() -> Iterator[Case]:
    """Yield every layer that PyTorch has too, the loss, and an optimizer's step."""
    rng = np.random.default_rng(0)
    for layer in LAYERS:
        name, _, arguments, keywords, shape = layer
        x = rng.standard_normal(shape, np.float32)
        settings = ", ".join(map(str, (*arguments, *keywords.values())))
        flops = FLOPS.get(name, (0, 0))
        for k, what in enumerate(("forward", "backward")):
            yield Case(
                f"{name}({settings}) {what}, {'x'.join(map(str, shape))}",
                {
                    way: lambda b=build, a=(layer, x), what=what: b(*a)[what]
                    for way, build in (("course", by_course), ("pytorch", by_pytorch))
                },
                flops=x.size * flops[k],
                bytes=traffic(name, x.size, what) * (name not in MULTIPLY),
                agree=name not in RANDOM,
            )
    yield from losses()
    yield adam(foreach=True)
    yield adam(fused=True)


def losses() -> Iterator[Case]:
    """Yield softmax and cross-entropy with its gradient, of a small batch and a large."""
    rng = np.random.default_rng(0)
    for shape in ((64, 10), ROWS):
        s = rng.standard_normal(shape, np.float32)
        t = rng.integers(shape[1], size=len(s))
        yield Case(
            f"cross-entropy and gradient, {shape[0]}x{shape[1]}",
            {
                "course": lambda s=s, t=t: _our_loss(s, t),
                "pytorch": lambda s=s, t=t: _their_loss(s, t),
            },
            bytes=2 * s.nbytes,
        )


def _our_loss(s: np.ndarray, t: np.ndarray) -> Work:
    """Return the loss of the course."""
    from course.losses import softmax_cross_entropy

    return lambda: softmax_cross_entropy(s, t)


def _their_loss(s: np.ndarray, t: np.ndarray) -> Work:
    """Return the loss of PyTorch."""
    import torch

    leaf, labels = torch.tensor(s, requires_grad=True), torch.from_numpy(t)

    def work() -> tuple:
        loss = torch.nn.functional.cross_entropy(leaf, labels)
        return loss, torch.autograd.grad(loss, leaf)[0]

    return work


def adam(size: int = 1_000_000, **form: bool) -> Case:
    """Return a step of Adam; `form` is PyTorch's: foreach or fused."""
    start = np.random.default_rng(0).standard_normal((2, size), np.float32)

    def mine() -> Work:
        from course.layers.base import Layer
        from course.optimizers import Adam

        layer, optimizer = Layer(), Adam(1e-3)
        layer.params["weight"], layer.grads["weight"] = start.copy()

        def step() -> np.ndarray:
            optimizer.step([layer])
            return layer.params["weight"]

        return step

    def theirs() -> Work:
        import torch

        weight = torch.nn.Parameter(torch.tensor(start[0]))
        weight.grad = torch.tensor(start[1])
        optimizer = torch.optim.Adam([weight], 1e-3, **form)

        def step() -> Any:
            optimizer.step()
            return weight

        return step

    works = {"course": mine, "pytorch": theirs}
    # w, m and v are read and written, the gradient is read
    return Case(f"Adam, {size:,} weights, {next(iter(form))}", works, bytes=7 * 4 * size)
