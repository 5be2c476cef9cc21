"""Convolutions and pools of ONNX."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from course.device import Array
from course.layers import (
    AvgPool2d,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    MaxPool2d,
    conv2d_backward,
    conv2d_forward,
)
from course.layers.base import Layer
from course.onnx.node import Node, Op, first_gradient, shell
from course.shapes import pads, pool_geometry, span

ONES = (1, 1)


class Applied(Op):
    """A layer of the course whose weights are inputs, or whose signals have one axis.

    Signals (N, C, W) go through it as images (N, C, 1, W). `settle` gives the part of its
    window that depends on the size of the image.
    """

    def __init__(
        self,
        layer: Layer,
        *keys: str,
        settle: Callable[..., dict[str, Any]] | None = None,
    ):
        super().__init__()
        self.layer, self.weights, self.settle = layer.eval(), keys, settle
        layer.params.clear()
        self.keys = {k: key for k, key in enumerate(keys, 1) if "running" not in key}
        self.undecayed = layer.undecayed

    def compute(self, x: Array, *weights: Array | None) -> Array:
        self.signals = x.ndim == 3
        self.shapes = [None if w is None else w.shape for w in weights]
        for key, w in zip(self.weights, weights, strict=False):
            store = self.layer.buffers if "running" in key else self.layer.params
            if w is None:
                store.pop(key, None)
            else:
                store[key] = w[:, :, None] if self.signals and w.ndim == 3 else w
        x = x[:, :, None] if self.signals else x
        if self.settle is not None:
            kernel = weights[0].shape[2:] if weights else self.layer.window["kernel_size"]
            self.layer.window |= self.settle(x.shape[2:], (1, *kernel)[-2:])
        y = self.layer.forward(x)
        return y[:, :, 0] if self.signals else y

    def gradients(self, dy: Array) -> list[Array | None]:
        dx = self.layer.backward(dy[:, :, None] if self.signals else dy)
        grads = [
            None
            if shape is None or key not in self.layer.grads
            else self.layer.grads[key].reshape(shape)
            for key, shape in zip(self.weights, self.shapes, strict=False)
        ]
        return [dx[:, :, 0] if self.signals else dx, *grads]


class MaxPoolIndices(Applied):
    """Max pooling that also says where each maximum was, as an index into all of x."""

    def __init__(self, layer: MaxPool2d, columns_first: bool, settle: Callable | None):
        super().__init__(layer, settle=settle)
        self.columns_first = columns_first

    def compute(self, x: Array) -> tuple[Array, Array]:
        y = super().compute(x)
        H, W = (1, *x.shape[2:])[-2:]
        places = self.layer.argmax.astype(np.int64)
        if self.columns_first:
            places = places % W * H + places // W
        planes = np.arange(prod(x.shape[:2])).reshape(*x.shape[:2], 1, 1)
        return y, (places + planes * (H * W)).reshape(y.shape)

    def gradients(self, dy: tuple[Array | None, None]) -> list[Array | None]:
        return super().gradients(first_gradient(dy, self))


class DilatedAvgPool(Op):
    """Average pooling with gaps between the taps, as a convolution of each channel."""

    def __init__(self, kernel, stride, padding, dilation, ceil_mode, count_include_pad):
        super().__init__()
        self.window = kernel, stride, padding, dilation, ceil_mode
        self.count_include_pad = count_include_pad

    def compute(self, x: Array) -> Array:
        self.signals = x.ndim == 3
        x = x[:, :, None] if self.signals else x
        image = x.shape[2:]
        kernel, stride, frame, dilation, size = pool_geometry(image, *self.window)
        more = [  # the last window may hang over
            max((out - 1) * S + span(K, D) - n - before - after, -after)
            for out, S, K, D, n, (before, after) in zip(
                size, stride, kernel, dilation, image, frame, strict=True
            )
        ]
        reach = tuple((a, b + m) for (a, b), m in zip(frame, more, strict=True))
        window = {"stride": stride, "dilation": dilation}
        seen, padding = np.ones((1, 1, *image), x.dtype), reach
        if self.count_include_pad:
            seen = np.pad(seen, ((0, 0), (0, 0), *frame), constant_values=1)
            padding = tuple((0, max(m, 0)) for m in more)
        one = np.ones((1, 1, *kernel), x.dtype)
        self.count = conv2d_forward(seen, one, padding=padding, **window)
        self.count = self.count[:, :, : size[0], : size[1]]
        self.x, self.taps = x, np.repeat(one, x.shape[1], axis=0)
        self.how = {**window, "padding": reach, "groups": x.shape[1]}
        y = conv2d_forward(x, self.taps, **self.how) / self.count
        return y[:, :, 0] if self.signals else y

    def gradients(self, dy: Array) -> list[Array]:
        dy = (dy[:, :, None] if self.signals else dy) / self.count
        dx = conv2d_backward(dy, self.x, self.taps, **self.how)[0]
        return [dx[:, :, 0] if self.signals else dx]


def _dims(node: Node, weights: bool) -> int:
    """Return along how many axes the node's window slides, or say that it cannot."""
    kernel = node.get("kernel_shape")
    known = [len(kernel)] if kernel else []
    if weights and 1 in node.constants:
        shape = node.constants[1].shape
        if kernel and tuple(kernel) != shape[2:]:
            raise ValueError(f"{node}: kernel_shape={kernel}, but its weights are {shape}")
        known.append(len(shape) - 2)
    known += [rank - 2 for rank in node.ranks[: 1 + weights] if rank is not None]
    if len(set(known)) != 1:
        raise ValueError(f"{node}: cannot tell if it is 1-D or 2-D; give kernel_shape")
    if known[0] not in (1, 2):
        raise ValueError(f"{node} is {known[0]}-D; supported: 1-D and 2-D")
    return known[0]


def _lower(size, kernel, *, stride, dilation) -> dict[str, Any]:
    """Return the padding of SAME_LOWER: the odd pixel at the top and left."""
    frame = pads("same", size, kernel, stride, dilation)
    return {"padding": tuple(side[::-1] for side in frame)}


def _window(node: Node, dims: int) -> tuple[dict[str, Any], Callable | None]:
    """Return stride, padding and dilation as pairs, and what settles the padding."""
    stride = node.numbers("strides", 1, dims, 1)
    dilation = node.numbers("dilations", 1, dims, 1)
    given = "pads" in node.attributes
    sides = node.numbers("pads", 0, 2 * dims, 0)
    auto = node.get("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        raise node.wrong("auto_pad", auto, "it is NOTSET, SAME_UPPER, SAME_LOWER or VALID")
    if auto != "NOTSET" and given and any(sides):
        raise node.wrong("pads", sides, f"auto_pad={auto} says how much")
    first = [1] * (2 - dims)
    window = {
        "stride": (*first, *stride),
        "padding": ((0, 0), *zip(sides[:dims], sides[dims:], strict=True))[-2:],
        "dilation": (*first, *dilation),
    }
    if auto == "SAME_UPPER":
        window["padding"] = "same"
    settle = None
    if auto == "SAME_LOWER":
        settle = partial(_lower, stride=window["stride"], dilation=window["dilation"])
    return window, settle


def conv(node: Node) -> Layer:
    """Return the layer of a node Conv."""
    dims = _dims(node, True)
    window, settle = _window(node, dims)
    plain = settle is None and node.owns(1, 2) and 1 in node.constants
    groups = node.numbers("group", 1, 1, 1)[0]
    if not plain:
        layer = shell(Conv2d, 1, 1, 1, **window, groups=groups)
        return Applied(layer, "weight", "bias", settle=settle)
    F, CG, *kernel = node.constants[1].shape
    kind, kernel = Conv2d, tuple(kernel)
    if dims == 1:
        kind, (kernel,) = Conv1d, kernel
        window = {name: v if v == "same" else v[1] for name, v in window.items()}
    layer = shell(kind, CG * groups, F, kernel, **window, groups=groups)
    return node.take(layer, weight=1, bias=2)


def _stamps(size, kernel, *, stride, dilation, more, out, upper) -> dict[str, Any]:
    """Return the padding that gives a transposed convolution its output size."""
    frame, extra = [], []
    for n, K, S, D, rest, wanted in zip(
        size, kernel, stride, dilation, more, out or (None, None), strict=True
    ):
        wanted = n * S if wanted is None else wanted
        total = S * (n - 1) + rest + span(K, D) - wanted
        half = total // 2
        before, after = (half, total - half) if upper else (total - half, half)
        if before < 0:
            raise ValueError(
                f"output_shape {wanted} is too large: without padding there are "
                f"{wanted + total}"
            )
        frame.append((before, max(after, 0)))
        extra.append(rest + max(-after, 0))
    return {"padding": tuple(frame), "output_padding": tuple(extra)}


def conv_transpose(node: Node) -> Layer:
    """Return the layer of a node ConvTranspose."""
    dims = _dims(node, True)
    auto = node.attributes.get("auto_pad", "NOTSET")
    window, _ = _window(node, dims)
    first = [0] * (2 - dims)
    more = (*first, *node.numbers("output_padding", 0, dims, 0))
    out = node.get("output_shape")
    if out is not None:
        out = (*[1] * (2 - dims), *out[-dims:])  # some files give N and C, too
    settle = None
    if out is not None or auto.startswith("SAME"):
        sizes = {"stride": window["stride"], "dilation": window["dilation"]}
        settle = partial(_stamps, **sizes, more=more, out=out, upper=auto == "SAME_UPPER")
        window["padding"] = 0
    groups = node.numbers("group", 1, 1, 1)[0]
    keywords = {**window, "output_padding": more, "groups": groups}
    if dims == 2 and settle is None and node.owns(1, 2) and 1 in node.constants:
        C, FG, *kernel = node.constants[1].shape
        layer = shell(ConvTranspose2d, C, FG * groups, tuple(kernel), **keywords)
        return node.take(layer, weight=1, bias=2)
    layer = shell(ConvTranspose2d, 1, 1, 1, **keywords)
    return Applied(layer, "weight", "bias", settle=settle)


def max_pool(node: Node) -> Layer:
    """Return the layer of a node MaxPool."""
    kernel, dims = node.attributes.get("kernel_shape"), _dims(node, False)
    window, settle = _window(node, dims)
    ceil, columns_first = node.flag("ceil_mode"), node.flag("storage_order")
    layer = MaxPool2d((1, *kernel)[-2:], **window, ceil_mode=ceil)
    if node.makes(1):
        return MaxPoolIndices(layer, columns_first, settle)
    return layer if dims == 2 and settle is None else Applied(layer, settle=settle)


def average_pool(node: Node) -> Layer:
    """Return the layer of a node AveragePool."""
    kernel, dims = node.attributes.get("kernel_shape"), _dims(node, False)
    window, settle = _window(node, dims)
    kernel, dilation = (1, *kernel)[-2:], window.pop("dilation")
    ceil, counted = node.flag("ceil_mode"), node.flag("count_include_pad")
    if dilation != ONES:
        if settle is not None:
            raise node.wrong("auto_pad", "SAME_LOWER", "with dilations give pads")
        return DilatedAvgPool(
            kernel, window["stride"], window["padding"], dilation, ceil, counted
        )
    layer = AvgPool2d(kernel, **window, ceil_mode=ceil, count_include_pad=counted)
    return layer if dims == 2 and settle is None else Applied(layer, settle=settle)


class GlobalPool(Op):
    """Global pooling of any number of axes."""

    def __init__(self, layer: Layer):
        super().__init__()
        self.layer = layer

    def compute(self, x: Array) -> Array:
        self.shape = x.shape
        N, C, *sizes = x.shape
        y = self.layer.forward(x.reshape(N, C, 1, prod(sizes)))
        return y.reshape(N, C, *[1] * len(sizes))

    def gradients(self, dy: Array) -> list[Array]:
        return [self.layer.backward(dy.reshape(*dy.shape[:2], 1, 1)).reshape(self.shape)]


def global_pool(kind: type[Layer], node: Node) -> Layer:
    """Return the layer of a node GlobalAveragePool or GlobalMaxPool."""
    return kind() if node.ranks[0] == 4 else GlobalPool(kind())
