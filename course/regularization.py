"""Regularization: what keeps weights small, besides the data.

Equations

    (1)  loss[o] = sum over k of l1 * |w[o,k]| + l2/2 * w[o,k]^2
    (2)  dw[o,k] = dw[o,k] + l1 * sign(w[o,k]) + l2 * w[o,k]
    (3)  w[o,k]  = w[o,k] * min(1, limit / |w[o]|),  |w[o]|^2 = sum over k of w[o,k]^2
    (4)  dw[o,k] = dw[o,k] * min(1, limit / |dw|),   |dw|^2   = sum over all dw[o,k]^2

    The penalty, which joins the loss, is the sum of loss[o] over all outputs of all
    layers; (2) adds its gradient to that of the data, before the optimizer's step. (3)
    takes the place of a penalty, after the step. Biases and the scales of normalisation
    are left out; but not of (4), where |dw| is that of all layers together.

Shapes

    w, dw   (O, I)     float; row o is what output o sees its inputs with, in whatever
                       order of axes the layer keeps it
    loss    (O,)       float

Edges: |w| has no slope at 0, where sign(0) = 0 is taken. A row of zeros stays so.

Lecture: lectures/08_deep_nets_that_train.ipynb.  Symbols: GLOSSARY.md.
Source: L1: Tibshirani, J. R. Stat. Soc. B 58 (1996); L2: Krogh & Hertz, NIPS 1991;
MaxNorm: Hinton et al., arXiv 1207.0580 (2012).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite, sqrt
from typing import Any

import numpy as np

from course import cuda
from course.compiled import compiled
from course.cuda.reductions import warp_sum
from course.device import Array, empty, fill, host, launch, number, on_cpu
from course.layers import ConvTranspose2d, LocallyConnected2d
from course.layers.base import Layer


@compiled
def _loss_cpu(loss, w, l1, l2, first, past):
    """Equation (1); a thread has rows of w."""
    real = w.dtype.type
    l1, half = real(l1), real(l2 / 2)
    for o in range(first, past):
        total = real(0)
        for k in range(w.shape[1]):
            total += l1 * abs(w[o, k]) + half * w[o, k] * w[o, k]
        loss[o] = total


@cuda.jit
def _loss_cuda(loss, w, l1, half):
    """Equation (1), with half of l2; a warp has rows of w, a thread has numbers of them."""
    lane = cuda.threadIdx.x & 31
    for o in range(cuda.grid(1) >> 5, w.shape[0], cuda.gridsize(1) >> 5):
        total = w.dtype.type(0)
        for k in range(lane, w.shape[1], 32):
            total += l1 * abs(w[o, k]) + half * w[o, k] * w[o, k]
        total = warp_sum(total)
        if lane == 0:
            loss[o] = total


@compiled
def _dw_cpu(dw, w, l1, l2, first, past):
    """Equation (2), in place; a thread has rows of dw."""
    real = w.dtype.type
    l1, l2, zero = real(l1), real(l2), real(0)
    for o in range(first, past):
        for k in range(w.shape[1]):
            sign = real(w[o, k] > zero) - real(w[o, k] < zero)
            dw[o, k] += l1 * sign + l2 * w[o, k]


@cuda.jit
def _dw_cuda(dw, w, l1, l2):
    """Equation (2), in place; a thread has elements."""
    zero, one = w.dtype.type(0), w.dtype.type(1)
    for k in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        sign = one if w[k] > zero else (-one if w[k] < zero else zero)
        dw[k] += l1 * sign + l2 * w[k]


# Some layers keep the numbers of an output apart. For (3), w has four axes: output o is at
# o // w.shape[2], o % w.shape[2] of the first and the third, and sees along the others.


@compiled
def _w_cpu(w, limit, first, past):
    """Equation (3), in place; a thread has outputs."""
    real = w.dtype.type
    limit = real(limit)
    for o in range(first, past):
        a, b = o // w.shape[2], o % w.shape[2]
        total = real(0)
        for j in range(w.shape[1]):
            for k in range(w.shape[3]):
                total += w[a, j, b, k] * w[a, j, b, k]
        norm = sqrt(total)
        if norm > limit:
            for j in range(w.shape[1]):
                for k in range(w.shape[3]):
                    w[a, j, b, k] *= limit / norm


@cuda.jit
def _w_cuda(w, limit):
    """Equation (3), in place; a warp has outputs, a thread has numbers of them."""
    lane, inputs = cuda.threadIdx.x & 31, w.shape[1] * w.shape[3]
    for o in range(cuda.grid(1) >> 5, w.shape[0] * w.shape[2], cuda.gridsize(1) >> 5):
        a, b = o // w.shape[2], o % w.shape[2]
        total = w.dtype.type(0)
        for k in range(lane, inputs, 32):
            number = w[a, k // w.shape[3], b, k % w.shape[3]]
            total += number * number
        norm = math.sqrt(warp_sum(total))
        if norm > limit:
            for k in range(lane, inputs, 32):
                w[a, k // w.shape[3], b, k % w.shape[3]] *= limit / norm


@cuda.jit
def _dw_cuda_shortened(dw, share):
    """Equation (4), in place, where share is the minimum; a thread has elements."""
    for k in range(cuda.grid(1), dw.size, cuda.gridsize(1)):
        dw[k] *= share


def penalties(arrays: Sequence[Array], l1: float, l2: float) -> list[float]:
    """Return the sum of equation (1) over the outputs, for each of the arrays.

    On cuda all loss[o] go into one array, so that one is copied to the CPU, however many
    arrays there are. Raises nothing.

    >>> penalties([np.array([[3.0, -4.0]]), np.array([1.0, 2.0])], 0.5, 0.0)
    [3.5, 1.5]
    """
    loss = []
    if all(map(on_cpu, arrays)):
        for w in arrays:
            loss.append(np.empty(len(w), w.dtype))
            fill(_loss_cpu, len(w), loss[-1], _rows(w), l1, l2, steps=2 * w.size)
    else:
        pasts = np.cumsum([len(w) for w in arrays]).tolist()
        together = empty(pasts[-1], arrays[0].dtype, arrays[0])
        for w, past in zip(arrays, pasts, strict=True):
            mine, real = together[past - len(w) : past], w.dtype.type
            launch(_loss_cuda, 32 * len(w), mine, _rows(w), real(l1), real(l2 / 2))
        loss = np.split(host(together), pasts[:-1])
    return [float(part.sum(dtype=np.float64)) for part in loss]


class Regularizer:
    """What `fit` asks of a regularization. A layer that appears twice counts once."""

    def penalty(self, layers: Iterable[Layer]) -> float:
        """Return what joins the loss."""
        return 0.0

    def add_gradients(self, layers: Iterable[Layer]) -> None:
        """Add the penalty's gradient to the gradients of the layers, in place."""

    def project(self, layers: Iterable[Layer]) -> None:
        """Bring weights back to where they are allowed to be, in place."""


class _Penalty(Regularizer):
    """A penalty on the size of each weight: equations (1) and (2)."""

    def __init__(self, l1: float, l2: float):
        self._strengths = l1, l2

    def penalty(self, layers: Iterable[Layer]) -> float:
        """Return what joins the loss."""
        return sum(penalties([w for _, _, w in _weights(layers)], *self._strengths), 0.0)

    def add_gradients(self, layers: Iterable[Layer]) -> None:
        """Add the penalty's gradient to the gradients of the layers, in place.

        Raises RuntimeError if they are not there.
        """
        for layer, name, w in _weights(layers):
            dw = _gradient(layer, name)
            if on_cpu(w):
                arrays = _rows(dw), _rows(w)
                fill(_dw_cpu, len(w), *arrays, *self._strengths, steps=w.size)
            else:
                strengths = map(w.dtype.type, self._strengths)
                launch(_dw_cuda, w.size, dw.ravel(), w.ravel(), *strengths)


class L1(_Penalty):
    """strength * |w|, summed over all weights: many of them become 0 or nearly so.

    Raises ValueError for a negative strength.

    >>> from course.layers import Linear
    >>> layer = Linear(2, 1, rng=np.random.default_rng(0))
    >>> layer.params["weight"][:] = [3, -4]
    >>> L1(0.5).penalty([layer])
    3.5
    """

    def __init__(self, strength: float):
        self.strength = _size("strength", strength)
        super().__init__(self.strength, 0.0)


class L2(_Penalty):
    """strength/2 * w^2, summed over all weights: with SGD, the same as its weight_decay.

    Raises ValueError for a negative strength.

    >>> from course.layers import Linear
    >>> layer = Linear(2, 1, rng=np.random.default_rng(0))
    >>> layer.params["weight"][:] = [3, -4]
    >>> L2(0.5).penalty([layer])
    6.25
    """

    def __init__(self, strength: float):
        self.strength = _size("strength", strength)
        super().__init__(0.0, self.strength)


class MaxNorm(Regularizer):
    """No output's weights are longer than the limit: equation (3).

    The length is that of the vector of all weights through which an output sees its
    inputs: a row of a Linear's weight, a filter of a convolution. So weights cannot grow
    without end, however large the learning rate. Raises ValueError for a negative limit.

    >>> from course.layers import Linear
    >>> layer = Linear(2, 1, rng=np.random.default_rng(0), dtype=np.float64)
    >>> layer.params["weight"][:] = [3, -4]
    >>> MaxNorm(1).project([layer])
    >>> layer.params["weight"]
    array([[ 0.6, -0.8]])
    """

    def __init__(self, limit: float):
        self.limit = _size("limit", limit)

    def project(self, layers: Iterable[Layer]) -> None:
        """Shorten what is longer than the limit, in place."""
        for layer, _, w in _weights(layers):
            axes = _four_axes(layer, w)
            outputs = axes.shape[0] * axes.shape[2]
            if on_cpu(w):
                fill(_w_cpu, outputs, axes, self.limit, steps=2 * w.size)
                if not np.may_share_memory(axes, w):  # w was not in row-major order
                    w[...] = axes.reshape(w.shape)
            else:
                launch(_w_cuda, 32 * outputs, axes, w.dtype.type(self.limit))


def clip_norm(layers: Iterable[Layer], limit: float) -> float:
    """Shorten the gradient to the limit, equation (4); return its norm before.

    The norm is that of one vector of all gradients, biases too. If it is not finite,
    nothing changes: the caller sees that training has diverged. As
    torch.nn.utils.clip_grad_norm_. Raises ValueError for a negative limit, and
    RuntimeError if a gradient is not there.

    >>> from course.layers import Linear
    >>> layer = Linear(2, 1, bias=False, rng=np.random.default_rng(0))
    >>> layer.grads["weight"] = np.array([[3.0, -4.0]])
    >>> clip_norm([layer], 1)
    5.0
    >>> layer.grads["weight"]
    array([[ 0.6, -0.8]])
    """
    limit = _size("limit", limit)
    grads = [_gradient(layer, name) for layer in _leaves(layers) for name in layer.params]
    norm = sqrt(sum(penalties(grads, 0.0, 2.0)))
    if isfinite(norm) and norm > limit:
        for dw in grads:
            share = dw.dtype.type(limit / norm)
            if on_cpu(dw):
                dw *= share
            else:
                launch(_dw_cuda_shortened, dw.size, dw.ravel(), share)
    return norm


def _leaves(layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers that hold no others, each once."""
    return list(dict.fromkeys(leaf for layer in layers for _, leaf in layer.leaves()))


def _weights(layers: Iterable[Layer]) -> Iterator[tuple[Layer, str, Array]]:
    """Yield layer, name and array of every parameter but biases and the like."""
    for layer in _leaves(layers):
        for name, w in layer.params.items():
            if name not in layer.undecayed:
                yield layer, name, w


def _gradient(layer: Layer, name: str) -> Array:
    """Return a parameter's gradient, or say that backward has not run."""
    if name not in layer.grads:
        raise RuntimeError(
            f"a {type(layer).__name__} has no gradient of {name}: call backward first"
        )
    if on_cpu(layer.grads[name]):
        layer.grads[name] = np.asarray(layer.grads[name], order="C")  # changed in place
    return layer.grads[name]


def _rows(w: Array) -> Array:
    """Return the array with a row for each output, (O, ...) as (O, I)."""
    return w.reshape(len(w), -1)


def _four_axes(layer: Layer, w: Array) -> Array:
    """Return w in four axes, whose first and third count outputs."""
    if isinstance(layer, ConvTranspose2d):  # (C, F/G, KH, KW)
        groups = layer.window["groups"]
        return w.reshape(groups, w.shape[0] // groups, w.shape[1], -1)
    if isinstance(layer, LocallyConnected2d):  # (F, C, KH, KW, HO, WO)
        return w.reshape(w.shape[0], -1, w.shape[4] * w.shape[5], 1)
    return w.reshape(w.shape[0], 1, 1, -1)


def _size(name: str, value: Any) -> float:
    """Return the value as a float, or say in words that it must not be negative."""
    if number(name, value) < 0:
        raise ValueError(f"{name} must not be negative, it is {value}")
    return float(value)
