"""What several of the named architectures share."""

from typing import Any

import numpy as np

from course.layers import Dropout, Linear, ReLU
from course.model import Sequential


def fresh(rng: np.random.Generator | None, dtype: Any) -> dict[str, Any]:
    """Return the keywords of a layer that learns; without a generator, that of seed 0."""
    return {"rng": np.random.default_rng(0) if rng is None else rng, "dtype": dtype}


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
