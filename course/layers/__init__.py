"""One layer, one file: its equations, its loops, its pure functions, its class."""

from course.layers.base import Layer
from course.layers.conv2d import Conv2d, conv2d_backward, conv2d_forward
from course.layers.elu import ELU, elu_backward, elu_forward
from course.layers.flatten import Flatten, flatten_backward, flatten_forward
from course.layers.leaky_relu import LeakyReLU, leaky_relu_backward, leaky_relu_forward
from course.layers.linear import Linear, linear_backward, linear_forward
from course.layers.maxpool2d import MaxPool2d, maxpool2d_backward, maxpool2d_forward
from course.layers.relu import ReLU, relu_backward, relu_forward
from course.layers.sigmoid import Sigmoid, sigmoid_backward, sigmoid_forward
from course.layers.tanh import Tanh, tanh_backward, tanh_forward

__all__ = [
    "ELU",
    "Conv2d",
    "Flatten",
    "Layer",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "ReLU",
    "Sigmoid",
    "Tanh",
    "conv2d_backward",
    "conv2d_forward",
    "elu_backward",
    "elu_forward",
    "flatten_backward",
    "flatten_forward",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "linear_backward",
    "linear_forward",
    "maxpool2d_backward",
    "maxpool2d_forward",
    "relu_backward",
    "relu_forward",
    "sigmoid_backward",
    "sigmoid_forward",
    "tanh_backward",
    "tanh_forward",
]
