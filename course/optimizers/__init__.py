"""Optimizers: how a gradient changes the weights, one in each file."""

from course.optimizers.adadelta import Adadelta
from course.optimizers.adagrad import Adagrad
from course.optimizers.adam import Adam, AdamW
from course.optimizers.base import Optimizer
from course.optimizers.rmsprop import RMSprop
from course.optimizers.sgd import SGD

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"]
