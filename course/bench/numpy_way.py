"""The layers in NumPy alone, as one writes them without a compiler.

A convolution lays every window of the images out as a column of a matrix, which BLAS
multiplies (im2col): the way taught with CS231n's assignments. The classes have PyTorch's
names, so that a network is written once and built from any of the three libraries.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from course.shapes import framed, out_size


def columns(x: np.ndarray, K: int, S: int, P: int, D: int) -> np.ndarray:
    """Return the windows of x as a (C*K*K, N*HO*WO) matrix, window after window."""
    N, C, H, W = x.shape
    HO, WO = out_size(H, K, S, P, D), out_size(W, K, S, P, D)
    xp = framed(x, ((P, P), (P, P)))
    n, c, h, w = xp.strides
    windows = as_strided(
        xp, (C, K, K, N, HO, WO), (c, D * h, D * w, n, S * h, S * w), writeable=False
    )
    return windows.reshape(C * K * K, N * HO * WO)


def images(
    cols: np.ndarray, shape: tuple[int, ...], K: int, S: int, P: int, D: int
) -> np.ndarray:
    """Return the images whose pixels are the sums of their entries in the columns."""
    N, C, H, W = shape
    HO, WO = out_size(H, K, S, P, D), out_size(W, K, S, P, D)
    xp = np.zeros((C, N, H + 2 * P, W + 2 * P), cols.dtype)
    taps = cols.reshape(C, K, K, N, HO, WO)
    for u in range(K):
        for v in range(K):
            rows = slice(u * D, u * D + S * (HO - 1) + 1, S)
            xp[:, :, rows, v * D : v * D + S * (WO - 1) + 1 : S] += taps[:, u, v]
    return np.ascontiguousarray(xp[:, :, P : P + H, P : P + W].swapaxes(0, 1))


def conv2d_forward(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return y, and the columns of each group, which backward needs."""
    F, _, K, _ = w.shape
    cols = [columns(a, K, stride, padding, dilation) for a in np.split(x, groups, axis=1)]
    filters = w.reshape(groups, F // groups, -1)
    y = np.concatenate([a @ c for a, c in zip(filters, cols, strict=True)])
    HO, WO = (out_size(n, K, stride, padding, dilation) for n in x.shape[2:])
    y = (y + b[:, None]).reshape(F, len(x), HO, WO)
    return np.ascontiguousarray(y.swapaxes(0, 1)), cols


def conv2d_backward(
    dy: np.ndarray,
    cols: list[np.ndarray],
    input_shape: tuple[int, ...],
    w: np.ndarray,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dx, dw and db, from the columns that forward made."""
    F, CG, K, _ = w.shape
    N, _, H, W = input_shape
    dy = dy.swapaxes(0, 1).reshape(groups, F // groups, -1)
    filters = w.reshape(groups, F // groups, -1)
    dw = [d @ c.T for d, c in zip(dy, cols, strict=True)]
    dx = [
        images(a.T @ d, (N, CG, H, W), K, stride, padding, dilation)
        for a, d in zip(filters, dy, strict=True)
    ]
    return np.concatenate(dx, 1), np.concatenate(dw).reshape(w.shape), dy.sum(2).ravel()


class Conv2d:
    """Convolution of square windows; `weight` and `bias` are set from outside."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding=0):
        self.padding = padding

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.shape = x.shape
        y, self.cols = conv2d_forward(x, self.weight, self.bias, padding=self.padding)
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dx, self.dweight, self.dbias = conv2d_backward(
            dy, self.cols, self.shape, self.weight, padding=self.padding
        )
        return dx


class MaxPool2d:
    """Max pooling whose windows tile the image; equal maxima share the gradient."""

    def __init__(self, kernel_size: int):
        self.kernel_size = kernel_size

    def forward(self, x: np.ndarray) -> np.ndarray:
        (N, C, H, W), K = x.shape, self.kernel_size
        tiles = x.reshape(N, C, H // K, K, W // K, K)
        y = tiles.max(axis=(3, 5), keepdims=True)
        self.wins = tiles == y
        return y[:, :, :, 0, :, 0]

    def backward(self, dy: np.ndarray) -> np.ndarray:
        N, C, HO, K, WO, _ = self.wins.shape
        share = dy[:, :, :, None, :, None] / self.wins.sum(axis=(3, 5), keepdims=True)
        return (self.wins * share.astype(dy.dtype)).reshape(N, C, HO * K, WO * K)


class ReLU:
    """max(x, 0)."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.passes = x > 0
        return np.maximum(x, 0)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy * self.passes


class Flatten:
    """Images as rows."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy.reshape(self.shape)


class Linear:
    """scores = x @ weight.T + bias; `weight` and `bias` are set from outside."""

    def __init__(self, in_features: int, out_features: int):
        pass

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        return x @ self.weight.T + self.bias

    def backward(self, dy: np.ndarray) -> np.ndarray:
        self.dweight, self.dbias = dy.T @ self.x, dy.sum(0)
        return dy @ self.weight


class Sequential:
    """Layers one after the other, with the weights of another library's network."""

    def __init__(self, *layers: Any, params: dict[str, np.ndarray]):
        self.layers = layers
        for key, array in params.items():
            position, name = key.split(".")
            setattr(layers[int(position)], name, array.copy())

    def learners(self) -> Iterator[Any]:
        """Yield the layers that have weights."""
        return (layer for layer in self.layers if hasattr(layer, "weight"))

    def step(self, x: np.ndarray, t: np.ndarray, learning_rate: float) -> float:
        """Do one step of gradient descent on the cross-entropy; return the loss before."""
        for layer in self.layers:
            x = layer.forward(x)
        x = x - x.max(axis=1, keepdims=True)
        e = np.exp(x)
        total = e.sum(axis=1, keepdims=True)
        rows = np.arange(len(t))
        loss = float((np.log(total[:, 0]) - x[rows, t]).mean())
        dy = e / total
        dy[rows, t] -= 1
        dy /= len(t)
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        for layer in self.learners():
            layer.weight -= learning_rate * layer.dweight
            layer.bias -= learning_rate * layer.dbias
        return loss
