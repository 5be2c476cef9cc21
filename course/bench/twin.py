"""The same network in PyTorch: same layers, same keys, same weights.

What a comparison needs is built from our network itself, so that the two cannot drift
apart. A layer that is not in the table is an error.
"""

from collections.abc import Callable
from typing import Any

import course.layers as L
from course.layers.base import Layer
from course.model import Branches, Residual, Sequential
from course.zoo.identity_shortcut import IdentityShortcut


def twin(layer: Layer) -> Any:
    """Return a torch.nn.Module that does what the layer does, with a copy of its weights.

    Raises TypeError, which names the layer, if there is no such module.
    """
    import torch

    state = {key: torch.tensor(a) for key, a in (layer.params | layer.buffers).items()}
    module = _module(layer)
    if state:
        module.to(next(iter(state.values())).dtype)
    own = module.state_dict()
    module.load_state_dict(
        {key: state.get(key, old).reshape(old.shape) for key, old in own.items()}
    )
    return module.train(layer.training)


def _module(layer: Layer) -> Any:
    """Return the module, with weights of its own."""
    from torch import nn

    if isinstance(layer, Sequential):
        chain = nn.Sequential()
        for name, child in layer.children.items():
            chain.add_module(name, _module(child))
        return chain
    if isinstance(layer, Residual | Branches):
        return _joined(layer)
    make = TABLE.get(type(layer))
    if make is None:
        raise TypeError(f"there is no twin in PyTorch of {type(layer).__name__}")
    return make(nn, layer)


def _joined(layer: Residual | Branches) -> Any:
    """Return the module of a network that forks."""
    import torch

    class Joined(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, child in layer.children.items():
                self.add_module(name, _module(child))

        def forward(self, x: Any) -> Any:
            parts = dict(self.named_children())
            if isinstance(layer, Branches):
                return torch.cat([part(x) for part in parts.values()], 1)
            named = {id(child): parts[name] for name, child in layer.children.items()}
            y = x
            for child in layer.body:
                y = named[id(child)](y)
            y = y + (x if layer.shortcut is None else named[id(layer.shortcut)](x))
            return y if layer.after is None else named[id(layer.after)](y)

    return Joined()


def _conv(nn: Any, layer: L.Conv2d) -> Any:
    F, CG, *kernel = layer.params["weight"].shape
    C, bias = CG * layer.window["groups"], "bias" in layer.params
    return nn.Conv2d(C, F, kernel, **layer.window, bias=bias)


def _identity_shortcut(nn: Any, layer: IdentityShortcut) -> Any:
    from torch.nn.functional import pad

    class Shortcut(nn.Module):
        def forward(self, x: Any) -> Any:
            x = x[:, :, :: layer.stride, :: layer.stride]
            more = layer.channels - x.shape[1]
            return pad(x, (0, 0, 0, 0, more // 2, more - more // 2))

    return Shortcut()


def _linear(nn: Any, layer: L.Linear) -> Any:
    O, I = layer.params["weight"].shape
    return nn.Linear(I, O, bias="bias" in layer.params)


def _batch_norm(nn: Any, layer: L.BatchNorm2d) -> Any:
    return nn.BatchNorm2d(layer.channels, layer.eps, layer.momentum)


TABLE: dict[type[Layer], Callable[[Any, Any], Any]] = {
    L.Conv2d: _conv,
    L.Linear: _linear,
    IdentityShortcut: _identity_shortcut,
    L.BatchNorm2d: _batch_norm,
    L.MaxPool2d: lambda nn, a: nn.MaxPool2d(**a.window, ceil_mode=a.ceil_mode),
    L.GlobalAvgPool2d: lambda nn, a: nn.AdaptiveAvgPool2d(1),
    L.LocalResponseNorm: lambda nn, a: nn.LocalResponseNorm(a.size, a.alpha, a.beta, a.k),
    L.Dropout: lambda nn, a: nn.Dropout(a.p),
    L.Flatten: lambda nn, a: nn.Flatten(),
    L.ReLU: lambda nn, a: nn.ReLU(),
    L.Tanh: lambda nn, a: nn.Tanh(),
    L.Sigmoid: lambda nn, a: nn.Sigmoid(),
}
