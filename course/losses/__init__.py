"""Losses, one a file: how wrong the outputs are, as one number, and its gradient."""

from course.losses.binary_cross_entropy import binary_cross_entropy_with_logits
from course.losses.cross_entropy import log_softmax, softmax_cross_entropy
from course.losses.hinge import multiclass_hinge
from course.losses.kl_divergence import kl_divergence
from course.losses.mean_squared_error import mean_squared_error
from course.losses.perceptron import perceptron_loss

__all__ = [
    "binary_cross_entropy_with_logits",
    "kl_divergence",
    "log_softmax",
    "mean_squared_error",
    "multiclass_hinge",
    "perceptron_loss",
    "softmax_cross_entropy",
]
