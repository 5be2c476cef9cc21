"""One layer, one file: its equations, its loops, its pure functions, its class."""

from course.layers.avgpool2d import AvgPool2d, avgpool2d_backward, avgpool2d_forward
from course.layers.base import Layer
from course.layers.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    batchnorm_backward,
    batchnorm_forward,
)
from course.layers.concat import Concat, concat_backward, concat_forward
from course.layers.conv1d import Conv1d, conv1d_backward, conv1d_forward
from course.layers.conv2d import Conv2d, conv2d_backward, conv2d_forward
from course.layers.conv_transpose2d import (
    ConvTranspose2d,
    conv_transpose2d_backward,
    conv_transpose2d_forward,
)
from course.layers.dropout import Dropout, dropout_backward, dropout_forward
from course.layers.dropout2d import Dropout2d, dropout2d_backward, dropout2d_forward
from course.layers.elu import ELU, elu_backward, elu_forward
from course.layers.flatten import Flatten, flatten_backward, flatten_forward
from course.layers.gelu import GELU, gelu_backward, gelu_forward
from course.layers.global_avgpool2d import (
    GlobalAvgPool2d,
    global_avgpool2d_backward,
    global_avgpool2d_forward,
)
from course.layers.global_maxpool2d import (
    GlobalMaxPool2d,
    global_maxpool2d_backward,
    global_maxpool2d_forward,
)
from course.layers.groupnorm import GroupNorm, groupnorm_backward, groupnorm_forward
from course.layers.instancenorm import (
    InstanceNorm2d,
    instancenorm_backward,
    instancenorm_forward,
)
from course.layers.layernorm import LayerNorm, layernorm_backward, layernorm_forward
from course.layers.leaky_relu import LeakyReLU, leaky_relu_backward, leaky_relu_forward
from course.layers.linear import Linear, linear_backward, linear_forward
from course.layers.local_response_norm import (
    LocalResponseNorm,
    local_response_norm_backward,
    local_response_norm_forward,
)
from course.layers.locally_connected2d import (
    LocallyConnected2d,
    locally_connected2d_backward,
    locally_connected2d_forward,
)
from course.layers.log_softmax import LogSoftmax, log_softmax_backward, log_softmax_forward
from course.layers.lppool2d import LPPool2d, lppool2d_backward, lppool2d_forward
from course.layers.maxout import Maxout, maxout_backward, maxout_forward
from course.layers.maxpool2d import MaxPool2d, maxpool2d_backward, maxpool2d_forward
from course.layers.prelu import PReLU, prelu_backward, prelu_forward
from course.layers.relu import ReLU, relu_backward, relu_forward
from course.layers.reshape import Reshape, reshape_backward, reshape_forward
from course.layers.residual_sum import (
    ResidualSum,
    residual_sum_backward,
    residual_sum_forward,
)
from course.layers.sigmoid import Sigmoid, sigmoid_backward, sigmoid_forward
from course.layers.silu import SiLU, silu_backward, silu_forward
from course.layers.softmax import Softmax, softmax_backward, softmax_forward
from course.layers.softplus import Softplus, softplus_backward, softplus_forward
from course.layers.subsampling2d import (
    Subsampling2d,
    subsampling2d_backward,
    subsampling2d_forward,
)
from course.layers.tanh import Tanh, tanh_backward, tanh_forward
from course.layers.upsample import Upsample, upsample_backward, upsample_forward
from course.layers.zeropad2d import ZeroPad2d, zeropad2d_backward, zeropad2d_forward

__all__ = [
    "ELU",
    "GELU",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Concat",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "Dropout2d",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "GroupNorm",
    "InstanceNorm2d",
    "LPPool2d",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "LocallyConnected2d",
    "LogSoftmax",
    "MaxPool2d",
    "Maxout",
    "PReLU",
    "ReLU",
    "Reshape",
    "ResidualSum",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Subsampling2d",
    "Tanh",
    "Upsample",
    "ZeroPad2d",
    "avgpool2d_backward",
    "avgpool2d_forward",
    "batchnorm_backward",
    "batchnorm_forward",
    "concat_backward",
    "concat_forward",
    "conv1d_backward",
    "conv1d_forward",
    "conv2d_backward",
    "conv2d_forward",
    "conv_transpose2d_backward",
    "conv_transpose2d_forward",
    "dropout2d_backward",
    "dropout2d_forward",
    "dropout_backward",
    "dropout_forward",
    "elu_backward",
    "elu_forward",
    "flatten_backward",
    "flatten_forward",
    "gelu_backward",
    "gelu_forward",
    "global_avgpool2d_backward",
    "global_avgpool2d_forward",
    "global_maxpool2d_backward",
    "global_maxpool2d_forward",
    "groupnorm_backward",
    "groupnorm_forward",
    "instancenorm_backward",
    "instancenorm_forward",
    "layernorm_backward",
    "layernorm_forward",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "linear_backward",
    "linear_forward",
    "local_response_norm_backward",
    "local_response_norm_forward",
    "locally_connected2d_backward",
    "locally_connected2d_forward",
    "log_softmax_backward",
    "log_softmax_forward",
    "lppool2d_backward",
    "lppool2d_forward",
    "maxout_backward",
    "maxout_forward",
    "maxpool2d_backward",
    "maxpool2d_forward",
    "prelu_backward",
    "prelu_forward",
    "relu_backward",
    "relu_forward",
    "reshape_backward",
    "reshape_forward",
    "residual_sum_backward",
    "residual_sum_forward",
    "sigmoid_backward",
    "sigmoid_forward",
    "silu_backward",
    "silu_forward",
    "softmax_backward",
    "softmax_forward",
    "softplus_backward",
    "softplus_forward",
    "subsampling2d_backward",
    "subsampling2d_forward",
    "tanh_backward",
    "tanh_forward",
    "upsample_backward",
    "upsample_forward",
    "zeropad2d_backward",
    "zeropad2d_forward",
]
