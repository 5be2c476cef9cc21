"""The operators of ONNX: how each becomes a layer.

An operator whose weights are in the file, and nobody else's, becomes the layer of this
course. Any other becomes an `Op`, a layer of several inputs, of which it may hold some.

Source: the ONNX operator specification, operator sets 1 to 28.
"""

from collections.abc import Callable
from functools import partial

from course.layers import (
    ELU,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from course.layers.base import Layer
from course.onnx.activations import PRelu, activation, clip, dropout, softmax
from course.onnx.losses import NegativeLogLikelihood, SoftmaxCrossEntropy, loss
from course.onnx.node import Node
from course.onnx.normalisation import batch_norm, group_norm, layer_norm, lrn
from course.onnx.products import Add, MatMul, Mul, elementwise, gemm, reduce_mean
from course.onnx.rearranging import Identity, Transpose, concat, flatten, pad, reshape
from course.onnx.windows import average_pool, conv, conv_transpose, global_pool, max_pool

OPERATORS: dict[str, Callable[[Node], Layer]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": lambda node: MatMul(),
    "Add": partial(elementwise, Add),
    "Mul": partial(elementwise, Mul),
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": partial(global_pool, GlobalAvgPool2d),
    "GlobalMaxPool": partial(global_pool, GlobalMaxPool2d),
    "BatchNormalization": batch_norm,
    "LRN": lrn,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "Relu": partial(activation, lambda node: ReLU()),
    "LeakyRelu": partial(activation, lambda node: LeakyReLU(node.get("alpha", 0.01))),
    "PRelu": partial(activation, lambda node: PRelu(node.opset < 7)),
    "Elu": partial(activation, lambda node: ELU(node.get("alpha", 1.0))),
    "Sigmoid": partial(activation, lambda node: Sigmoid()),
    "Tanh": partial(activation, lambda node: Tanh()),
    "Softplus": lambda node: Softplus(),
    "Softmax": partial(softmax, Softmax),
    "LogSoftmax": partial(softmax, LogSoftmax),
    "Clip": clip,
    "Dropout": dropout,
    "Flatten": flatten,
    "Reshape": reshape,
    "Transpose": lambda node: Transpose(node.get("perm")),
    "Concat": concat,
    "Pad": pad,
    "Identity": lambda node: Identity(),
    "ReduceMean": reduce_mean,
    "SoftmaxCrossEntropyLoss": partial(loss, SoftmaxCrossEntropy),
    "NegativeLogLikelihoodLoss": partial(loss, NegativeLogLikelihood),
}  # and Constant, which becomes an array
