"""What several of the named architectures share."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from course.layers import Dropout, Linear, ReLU
from course.model import Sequential


def fresh(rng: np.random.Generator | None, dtype: Any) -> dict[str, Any]:
    """Return the keywords of a layer that learns; without a generator, that of seed 0."""
    return {"rng": np.random.default_rng(0) if rng is None else rng, "dtype": dtype}


def sees(*shape: int) -> Callable[[Callable], Callable]:
    """Return a decorator: networks of the function say that they see such images."""

    def decorate(function: Callable) -> Callable:
        @wraps(function)
        def build(*arguments: Any, **keywords: Any) -> Sequential:
            network = function(*arguments, **keywords)
            network.input_shape = network.input_shape or shape
            return network

        return build

    return decorate


def classifier(inputs: int, classes: int, new: dict[str, Any]) -> Sequential:
    """Return the three dense layers, with dropout, at the end of AlexNet and its heirs."""
    return Sequential(
        Linear(inputs, 4096, **new),
        ReLU(),
        Dropout(0.5, rng=new["rng"]),
        Linear(4096, 4096, **new),
        ReLU(),
        Dropout(0.5, rng=new["rng"]),
        Linear(4096, classes, **new),
    )
