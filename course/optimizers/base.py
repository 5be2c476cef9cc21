"""What every optimizer does: go through the layers, and remember for each parameter."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from course.device import Array, device_of, full, host, number, on_cpu, same_device, to
from course.layers.base import Layer

OTHER = "is of another network"


class Optimizer:
    """The step from gradients to weights, and the memory that it needs.

    A layer that appears at several places is stepped once. A parameter that joins later
    starts as the others did.

    Attributes
    ----------
    learning_rate : may be changed between steps, by a schedule
    """

    _kept: tuple[str, ...] = ()  # the arrays that are remembered for each parameter

    def __init__(self, learning_rate: float, weight_decay: float):
        self.learning_rate = positive("learning_rate", learning_rate)
        self.weight_decay = not_negative("weight_decay", weight_decay)
        self._memory: dict[tuple, list] = {}  # (0, "weight") -> step, parameter, *kept
        self._loaded = False

    def step(self, layers: Iterable[Layer]) -> None:
        """Change every parameter of the layers by its gradient, in place.

        Raises RuntimeError if a gradient is not there, and ValueError if a gradient or what
        is remembered does not fit its parameter, and TypeError if a gradient is on another
        device. Then nothing has changed.
        """
        if not 0 <= self.learning_rate < np.inf:
            raise ValueError(f"learning_rate cannot become {self.learning_rate}")
        rate, found = float(self.learning_rate), []
        leaves = dict.fromkeys(leaf for layer in layers for _, leaf in layer.leaves())
        for position, layer in enumerate(leaves):
            for name, w in layer.params.items():
                dw = layer.grads.get(name)
                if dw is None:
                    raise RuntimeError(
                        f"layer {position} ({type(layer).__name__}) has no gradient of "
                        f"{name}: call backward before step"
                    )
                if dw.shape != w.shape or dw.dtype != w.dtype:
                    raise ValueError(
                        f"the gradient of {position}.{name} is {dw.shape} {dw.dtype}, "
                        f"but the parameter is {w.shape} {w.dtype}"
                    )
                if type(dw) is not type(w) and on_cpu(dw) != on_cpu(w):
                    same_device(f"the gradient of {position}.{name}", dw, w)
                memory = self._memory.get((position, name))
                if memory is None or memory[1] is not w:
                    memory = self._meet(position, name, w)
                decay = 0.0 if name in layer.undecayed else self.weight_decay
                found.append((dw, decay, memory))
        if self._loaded and len(found) < len(self._memory):
            raise ValueError(f"what was loaded {OTHER}, with more parameters")
        self._loaded = False
        for dw, decay, memory in found:
            memory[0] += 1
            step, w, *kept = memory
            self._change(dw.ravel(), rate, decay, step, w.ravel(), *kept)

    def _meet(self, position: int, name: str, w: Array) -> list:
        """Return the memory of a parameter that is new, or another array than before."""
        if on_cpu(w) and not w.flags.c_contiguous:
            raise ValueError(f"{position}.{name} must be in row-major order to be changed")
        if (position, name) not in self._memory:
            if self._loaded:
                raise ValueError(f"what was loaded {OTHER}, without {position}.{name}")
            kept = (full(w.size, 0, w.dtype, like=w) for _ in self._kept)
            self._memory[position, name] = [0, w, *kept]
        memory = self._memory[position, name]
        for a in memory[2:]:
            if a.size != w.size or a.dtype != w.dtype:
                raise ValueError(
                    f"what is remembered of {position}.{name} {OTHER}: {a.size} numbers in "
                    f"{a.dtype}, but the parameter is {w.shape} {w.dtype}"
                )
        memory[1:] = [w, *(to(device_of(w), a) for a in memory[2:])]
        return memory

    def _change(
        self, dw: Array, rate: float, decay: float, step: int, w: Array, *kept: Array
    ) -> None:
        """Change one parameter; all arrays are flat, and step is 1 at first."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on, besides weights and gradients.

        The settings stand under names such as "SGD.momentum". What is remembered of a
        parameter stands under its layer's position and its name: "0.weight.m", flat
        arrays, copies only of those on cuda; and "0.weight.step", how many steps it has
        made. Everything is a number, a tuple of numbers or an array on the CPU:
        `np.asarray` of it can be saved.
        """
        kind, names = type(self).__name__, ("step", *self._kept)
        state = {f"{kind}.{name}": getattr(self, name) for name in self._settings()}
        for (position, owned), (step, _, *kept) in self._memory.items():
            for name, a in zip(names, (step, *map(host, kept)), strict=True):
                state[f"{position}.{owned}.{name}"] = a
        return state

    def _settings(self) -> list[str]:
        """Return the names of the constructor's arguments."""
        return [name for name in vars(self) if not name.startswith("_")]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become the optimizer that gave this state, with copies of its arrays.

        Raises ValueError, and changes nothing, for the state of another kind of optimizer.
        That of another network is found out by the next step.
        """
        parts: dict[str, dict[str, Array]] = {}
        for key, a in state.items():
            owner, _, name = key.rpartition(".")
            parts.setdefault(owner, {})[name] = np.array(a)
        kind = type(self).__name__
        settings = parts.pop(kind, {})
        known = settings.keys() == set(self._settings())
        if not known or not all(self._knows(*part) for part in parts.items()):
            raise ValueError(
                f"this is not the state of an optimizer {kind} with its settings, and with "
                f"step, {', '.join(self._kept)} of each parameter: it begins with "
                f"{list(state)[:5]}"
            )
        for name, a in settings.items():
            setattr(self, name, tuple(a.tolist()) if a.ndim else a.item())
        self._memory = {}
        for owner, part in parts.items():
            position, _, name = owner.partition(".")
            kept = (part[name] for name in self._kept)
            self._memory[int(position), name] = [int(part["step"]), np.empty(0), *kept]
        self._loaded = bool(self._memory)

    def _knows(self, owner: str, part: Mapping[str, Array]) -> bool:
        """Say whether this can be the memory of the parameter with this name."""
        if part.keys() != {"step", *self._kept} or not owner.split(".")[0].isdecimal():
            return False
        alike = {(a.shape, a.dtype) for name, a in part.items() if name != "step"}
        flat = part[self._kept[0]].ndim == 1
        return part["step"].ndim == 0 and len(alike) == 1 and flat


def positive(name: str, value: Any) -> float:
    """Return the value as a float, or say in words that it must be positive.

    >>> positive("eps", 0)
    Traceback (most recent call last):
    ValueError: eps must be positive, not 0
    """
    if not number(name, value) > 0:
        raise ValueError(f"{name} must be positive, not {value}")
    return float(value)


def not_negative(name: str, value: Any) -> float:
    """Return the value as a float, or say in words that it must not be negative.

    >>> not_negative("momentum", 1)
    1.0
    """
    if not number(name, value) >= 0:
        raise ValueError(f"{name} must not be negative, it is {value}")
    return float(value)


def below_one(name: str, value: Any) -> float:
    """Return the value as a float, or say in words that it must be in [0, 1).

    >>> below_one("momentum", 0.9)
    0.9
    """
    if not 0 <= number(name, value) < 1:
        raise ValueError(f"{name} must be in [0, 1), not {value}")
    return float(value)
