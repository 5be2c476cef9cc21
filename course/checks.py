"""The checks every layer must pass, whatever it computes.

The tests, the exercises and the lectures share them.
"""

from collections.abc import Callable
from copy import deepcopy

import numpy as np

from course.device import Array
from course.layers.base import Layer

STEP = 1e-5  # of the central difference, in float64
TOLERANCE = 1e-7  # relative; "you should be happy", cs231n.github.io/neural-networks-3


def slope(loss: Callable[[], float], a: Array) -> Array:
    """Return dloss/da by central differences: the gradient, without calculus.

    `loss` takes no argument and reads a, which is moved one element at a time and put
    back. Raises TypeError unless a is float64: float32 has too few digits for the step.

    >>> a = np.array([1.0, 3.0])
    >>> slope(lambda: a[0] * a[1], a).round(6)
    array([3., 1.])
    """
    if not isinstance(a, np.ndarray) or a.dtype != np.float64:
        kind = getattr(a, "dtype", type(a).__name__)
        raise TypeError(f"a slope needs a float64 array, not {kind}")
    grad = np.empty_like(a)
    for index in np.ndindex(a.shape):
        old = a[index]
        a[index] = old + STEP
        up = loss()
        a[index] = old - STEP
        down = loss()
        a[index] = old
        grad[index] = (up - down) / (2 * STEP)
    return grad


def check_layer(
    layer: Layer, x: Array | tuple[Array, ...], rng: np.random.Generator
) -> None:
    """Check every gradient of the float64 layer at x against its slope.

    The loss is sum(y * r) with r random: then dy = r, and no two outputs weigh alike. The
    layer itself does not run, only copies of it: one that draws at random draws the same
    in each. A layer of several inputs gets a tuple. Raises AssertionError, which names the
    gradient that is wrong.

    >>> from course.layers import Sigmoid
    >>> check_layer(Sigmoid(), np.array([1.0, -2.0]), np.random.default_rng(0))
    """
    ran = deepcopy(layer)
    r = rng.normal(size=ran.forward(x).shape)
    dx = ran.backward(r)

    def loss() -> float:
        return np.sum(deepcopy(layer).forward(x) * r)

    assert ran.grads.keys() == layer.params.keys()
    if isinstance(x, tuple):
        triples = [(f"x[{k}]", *pair) for k, pair in enumerate(zip(dx, x, strict=True))]
    else:
        triples = [("x", dx, x)]
    triples += [(key, ran.grads[key], a) for key, a in layer.params.items()]
    for name, gradient, a in triples:
        np.testing.assert_allclose(
            gradient, slope(loss, a), TOLERANCE, TOLERANCE, err_msg=f"d{name}"
        )
