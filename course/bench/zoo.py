"""The named architectures beside PyTorch: how large they are, and one image forward."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import course.zoo
from course.bench.cases import Case, Work
from course.bench.twin import twin
from course.model import Sequential


def by_course(network: Sequential, x: np.ndarray) -> Work:
    """Return the course's way from images to scores."""
    return lambda: network(x)


def by_pytorch(network: Sequential, x: np.ndarray) -> Work:
    """Return PyTorch's, with the same weights; ImportError if it lacks a layer."""
    import torch

    try:
        module = twin(network)
    except (TypeError, ValueError) as error:
        raise ImportError(str(error)) from None
    images = torch.from_numpy(x)

    def forward() -> Any:
        with torch.inference_mode():
            return module(images)

    return forward


def networks() -> Iterator[Case]:
    """Yield every network whose size is published, with that size and ours."""
    for row in course.zoo.PUBLISHED:
        network = getattr(course.zoo, row.name)(**row.options).eval()
        count = sum(array.size for array in network.params.values())
        x = np.random.default_rng(0).standard_normal((1, *row.image), np.float32)
        yield Case(
            f"{row}: {row.parameters:,} parameters published, {count:,} here",
            {
                "course": lambda network=network, x=x: by_course(network, x),
                "pytorch": lambda network=network, x=x: by_pytorch(network, x),
            },
        )
