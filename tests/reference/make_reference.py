"""Make the reference files of this folder: what PyTorch computes, on small inputs.

    python tests/reference/make_reference.py

Made with PyTorch 2.13.0 on a CPU. Every case is a few arrays, named "case/array", inputs
and results alike; a case's keywords are in this file. tests/test_reference.py compares
the course with the files, tests/test_torch.py compares the files with this script.
"""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent

CONV2D = {  # x, w, what torch is told; asymmetric padding is ((top, bottom), (left, right))
    "plain": ((2, 3, 6, 5), (4, 3, 3, 2), {}),
    "one_tap": ((2, 3, 4, 4), (2, 3, 1, 1), {}),
    "stride_padding": ((2, 2, 7, 8), (3, 2, 3, 3), {"stride": 2, "padding": 1}),
    "height_first": (
        (1, 2, 9, 10),
        (2, 2, 2, 3),
        {"stride": (2, 3), "padding": (1, 2), "dilation": (3, 2)},
    ),
    "same": ((1, 2, 5, 6), (2, 2, 4, 3), {"padding": "same", "dilation": (1, 2)}),
    "valid": ((1, 2, 5, 6), (2, 2, 4, 3), {"padding": "valid"}),
    "asymmetric": ((1, 2, 5, 4), (2, 2, 3, 3), {"padding": ((0, 2), (3, 1))}),
    "groups": ((2, 6, 5, 5), (4, 3, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 3, 6, 6), (6, 1, 3, 3), {"groups": 3, "stride": 2}),
    "in_padding": ((1, 1, 3, 3), (1, 1, 2, 2), {"padding": 3, "stride": 2}),
    "no_bias": ((1, 2, 4, 4), (2, 2, 3, 3), {"bias": False}),
}
MAXPOOL2D = {  # x, how many levels of grey (few: many ties), what torch is told
    "tiles": ((2, 3, 4, 6), 100, {"kernel_size": 2}),
    "remainder": ((2, 2, 5, 7), 100, {"kernel_size": 2}),
    "overlap": ((1, 2, 7, 6), 100, {"kernel_size": 3, "stride": 2, "padding": 1}),
    "height_first": (
        (1, 2, 9, 8),
        100,
        {"kernel_size": (2, 3), "stride": (3, 1), "padding": (1, 0), "dilation": (2, 1)},
    ),
    "ceil": ((2, 2, 5, 7), 100, {"kernel_size": 2, "ceil_mode": True}),
    "ceil_padding": (
        (1, 2, 6, 5),
        100,
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    ),
    "ceil_outside": (
        (1, 1, 4, 4),
        100,
        {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
    ),
    "ceil_small": (
        (1, 2, 2, 4),
        100,
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    ),
    "dilation": (
        (1, 2, 8, 8),
        100,
        {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2},
    ),
    "ties": ((2, 2, 6, 6), 2, {"kernel_size": 3, "stride": 1, "padding": 1}),
    "all_equal": ((1, 1, 5, 5), 1, {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
}
LINEAR = {"plain": (4, 5, 3), "one": (1, 1, 1), "wide": (3, 37, 2), "tall": (17, 2, 9)}
ACTIVATIONS = {  # PyTorch's name in torch.nn.functional, keywords
    "relu": ("relu", {}),
    "leaky_relu": ("leaky_relu", {}),
    "leaky_relu_steep": ("leaky_relu", {"negative_slope": 0.3}),
    "elu": ("elu", {}),
    "elu_alpha": ("elu", {"alpha": 1.7}),
    "sigmoid": ("sigmoid", {}),
    "tanh": ("tanh", {}),
}
EXTREMES = [0, -0.0, 1e-8, -1e-8, 1, -1, 8, -8, 30, -30, 87, -87, 1000, -1000]
CROSS_ENTROPY = {  # scores, scale
    "plain": ((5, 4), 1.0),
    "one_image": ((1, 10), 3.0),
    "two_classes": ((6, 2), 2.0),
    "sure": ((4, 3), 300.0),
    "one_class": ((3, 1), 1.0),
}


def backward(y, inputs, rng):
    """Return dy and the gradients of sum(y * dy) with respect to the inputs."""
    import torch

    dy = torch.from_numpy(rng.normal(size=tuple(y.shape))).to(y.dtype)
    return dy, *torch.autograd.grad(y, inputs, dy)


def leaf(a):
    """Return the array as a tensor that wants a gradient."""
    import torch

    return torch.from_numpy(a).requires_grad_()


def conv2d(x, w, b, padding=0, **keywords):
    """Return torch's convolution; it has no asymmetric padding of its own."""
    from torch.nn import functional

    if isinstance(padding, tuple) and isinstance(padding[0], tuple):
        (top, bottom), (left, right) = padding
        x, padding = functional.pad(x, (left, right, top, bottom)), 0
    return functional.conv2d(x, w, b, padding=padding, **keywords)


def conv2d_cases(rng):
    """Return the arrays of every case of CONV2D."""
    arrays = {}
    for case, (x_shape, w_shape, keywords) in CONV2D.items():
        keywords = dict(keywords)
        bias = keywords.pop("bias", True)
        x, w = leaf(rng.normal(size=x_shape)), leaf(rng.normal(size=w_shape))
        b = leaf(rng.normal(size=w_shape[0]))
        y = conv2d(x, w, b if bias else None, **keywords)
        if bias:
            dy, dx, dw, db = backward(y, (x, w, b), rng)
            found = {"b": b, "db": db}
        else:
            dy, dx, dw = backward(y, (x, w), rng)
            found = {}
        found |= {"x": x, "w": w, "y": y, "dy": dy, "dx": dx, "dw": dw}
        arrays |= {f"{case}/{name}": a.detach().numpy() for name, a in found.items()}
    return arrays


def maxpool2d_cases(rng):
    """Return the arrays of every case of MAXPOOL2D."""
    from torch.nn import functional

    arrays = {}
    for case, (shape, levels, keywords) in MAXPOOL2D.items():
        x = leaf(rng.integers(levels, size=shape) - float(levels))
        y, argmax = functional.max_pool2d(x, **keywords, return_indices=True)
        dy, dx = backward(y, (x,), rng)
        found = {"x": x, "y": y, "dy": dy, "dx": dx, "argmax": argmax}
        arrays |= {f"{case}/{name}": a.detach().numpy() for name, a in found.items()}
    return arrays


def linear_cases(rng):
    """Return the arrays of every case of LINEAR."""
    from torch.nn import functional

    arrays = {}
    for case, (N, I, O) in LINEAR.items():
        x, w, b = (leaf(rng.normal(size=size)) for size in ((N, I), (O, I), O))
        y = functional.linear(x, w, b)
        dy, dx, dw, db = backward(y, (x, w, b), rng)
        found = {"x": x, "w": w, "b": b, "y": y, "dy": dy, "dx": dx, "dw": dw, "db": db}
        arrays |= {f"{case}/{name}": a.detach().numpy() for name, a in found.items()}
    return arrays


def activations_cases(rng):
    """Return the arrays of every case of ACTIVATIONS, in both dtypes."""
    import torch
    from torch.nn import functional

    arrays = {}
    for dtype in (np.float32, np.float64):
        values = np.concatenate([EXTREMES, rng.normal(scale=3, size=18)]).reshape(4, 8)
        for case, (function, keywords) in ACTIVATIONS.items():
            x = leaf(values.astype(dtype))
            # torch.nn.functional has neither sigmoid nor tanh any more
            y = getattr(functional, function, getattr(torch, function, None))(x, **keywords)
            dy, dx = backward(y, (x,), rng)
            found = {"x": x, "y": y, "dy": dy, "dx": dx}
            arrays |= {
                f"{case}_{np.dtype(dtype)}/{name}": a.detach().numpy()
                for name, a in found.items()
            }
    return arrays


def cross_entropy_cases(rng):
    """Return the arrays of every case of CROSS_ENTROPY."""
    import torch
    from torch.nn import functional

    arrays = {}
    for case, (shape, scale) in CROSS_ENTROPY.items():
        scores = leaf(rng.normal(scale=scale, size=shape))
        labels = torch.from_numpy(rng.integers(shape[1], size=shape[0]))
        loss = functional.cross_entropy(scores, labels)
        (dscores,) = torch.autograd.grad(loss, scores)
        found = {"scores": scores, "labels": labels, "loss": loss, "dscores": dscores}
        arrays |= {f"{case}/{name}": a.detach().numpy() for name, a in found.items()}
    return arrays


FILES = {
    "conv2d": conv2d_cases,
    "maxpool2d": maxpool2d_cases,
    "linear": linear_cases,
    "activations": activations_cases,
    "cross_entropy": cross_entropy_cases,
}


def make(name):
    """Return the arrays of one file, by name."""
    return FILES[name](np.random.default_rng(sum(name.encode())))


def read(name):
    """Return what a file holds: case -> array name -> array."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(FOLDER / f"{name}.npz") as file:
        for key, array in file.items():
            case, what = key.split("/")
            cases.setdefault(case, {})[what] = array
    return cases


if __name__ == "__main__":
    for name in FILES:
        np.savez_compressed(FOLDER / f"{name}.npz", **make(name))
