"""Weights from Keras: another order of axes, and names that count the layers of a kind."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from course.layers import BatchNorm2d, Conv2d, Linear
from course.layers.base import Layer
from course.model import Container

NAMES = {  # of our parameters and buffers, for each kind of layer
    Conv2d: ("conv2d", {"weight": "kernel", "bias": "bias"}),
    Linear: ("dense", {"weight": "kernel", "bias": "bias"}),
    BatchNorm2d: (
        "batch_normalization",
        {
            "weight": "gamma",
            "bias": "beta",
            "running_mean": "moving_mean",
            "running_var": "moving_variance",
        },
    ),
}
AXES = {4: (3, 2, 0, 1), 2: (1, 0)}  # ours (F, C, KH, KW) of (KH, KW, C, F); (O, I)


def load_keras(network: Container, weights: Mapping[str, np.ndarray]) -> None:
    """Copy weights under Keras's names into a network with the same layers in that order.

    The first convolution is "conv2d", the next "conv2d_1", and so on, counted in the order
    of `network.leaves()`; likewise "dense" and "batch_normalization". A dense layer after
    Flatten needs images of one pixel: else Keras has flattened them in another order.
    Raises ValueError, and changes nothing, if a name is missing, is left over, or belongs
    to another shape.
    """
    state, used = {}, set()
    seen: Counter[type[Layer]] = Counter()
    for name, leaf in network.leaves():
        if type(leaf) not in NAMES:
            continue
        stem, names = NAMES[type(leaf)]
        number = f"_{seen[type(leaf)]}" if seen[type(leaf)] else ""
        seen[type(leaf)] += 1
        for ours in (leaf.params | leaf.buffers).keys() & names.keys():
            theirs = f"{stem}{number}/{names[ours]}"
            if theirs not in weights:
                raise ValueError(f"there is no {theirs}, which {name}.{ours} would be")
            array = np.asarray(weights[theirs])
            axes = AXES.get(array.ndim, range(array.ndim))
            state[f"{name}.{ours}"] = np.ascontiguousarray(array.transpose(axes))
            used.add(theirs)
    extra = sorted(set(weights) - used)
    if extra:
        raise ValueError(f"no layer of this network has {', '.join(extra)}")
    network.load_state_dict(network.state_dict() | state)
