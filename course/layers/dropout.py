"""Dropout: in training every number is dropped with probability p.

Equations

    (1)  y[k] = x[k] / (1 - p) if u[k] >= p, else 0

    with u[k] from [0, 1): the k-th random word of this seed and step, over 2^32. dx is
    equation (1) of dy: backward draws the same words again, and no mask is stored.

Shapes

    x, y, dx, dy   any shape, all alike   float

Edges: outside training nothing is dropped and nothing scaled. What is dropped becomes 0,
even NaN and infinity. p = 1 drops everything. The words depend on the place of a number
only, not on the number of threads or the dtype.

Lecture: lectures/08_deep_nets_that_train.ipynb.  Symbols: GLOSSARY.md.
Source: Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, JMLR 15 (2014), scaled
in training, as torch.nn.Dropout; random words: course/philox.py.
"""

from math import ceil

import numpy as np

from course import cuda
from course.compiled import compiled
from course.device import (
    Array,
    empty_like,
    fill,
    floats,
    full,
    launch,
    on_cpu,
    same_shape,
)
from course.layers.base import Layer
from course.philox import COUNTERS, WORDS, drawing, four_words, random_words, seed_of

STEPS = 4  # a random word takes about as long as so many products


@compiled
def _y_cpu(y, x, scale, least, seed, step, first, past):
    """Equation (1) with the words below `least` dropped; a thread has blocks of 256."""
    zero = x.dtype.type(0)
    u = np.empty(WORDS, np.uint32)
    for block in range(first, past):
        random_words(u, block, seed, step)
        y_block = y[block * WORDS : (block + 1) * WORDS]
        x_block = x[block * WORDS : (block + 1) * WORDS]
        for k in range(x_block.size):
            kept = x_block[k] * scale
            y_block[k] = kept if u[k] >= least else zero


@cuda.jit
def _y_cuda(y, x, scale, least, seed, step):
    """Equation (1) with the words below `least` dropped; a thread has counters.

    A counter has words for four elements, 64 apart.
    """
    zero = x.dtype.type(0)
    blocks = (y.size + WORDS - 1) // WORDS
    for count in range(cuda.grid(1), blocks * COUNTERS, cuda.gridsize(1)):
        k = count // COUNTERS * WORDS + count % COUNTERS
        for word in four_words(count, seed, step):
            if k < y.size:
                y[k] = x[k] * scale if word >= least else zero
            k += COUNTERS


def dropout_forward(
    x: Array, p: float = 0.5, seed: int = 0, step: int = 0, training: bool = True
) -> Array:
    """Return y of equation (1), in the shape and dtype of x; x itself if not training.

    The same seed and step drop the same numbers. Raises TypeError for a dtype that is
    not float32 or float64, and ValueError for a p outside [0, 1].

    >>> dropout_forward(np.arange(1.0, 9.0))
    array([ 0.,  4.,  0.,  0.,  0., 12., 14.,  0.])
    """
    x = floats("x", x, "any")
    p, *place = drawing(p, seed, step)
    if not training:
        return x
    least = ceil(p * 2**32)
    if least == 2**32:  # which is no word
        return full(x.shape, 0, x.dtype, x)
    y = empty_like(x)
    scale, least = x.dtype.type(1 / (1 - p)), np.uint32(least)
    blocks, arrays = -(-x.size // WORDS), (y.reshape(-1), x.reshape(-1))
    if on_cpu(x):
        fill(_y_cpu, blocks, *arrays, scale, least, *place, steps=STEPS * x.size)
    else:
        launch(_y_cuda, blocks * COUNTERS, *arrays, scale, least, *place)
    return y


def dropout_backward(
    dy: Array, p: float = 0.5, seed: int = 0, step: int = 0, training: bool = True
) -> Array:
    """Return dx, which is equation (1) of dy, in the shape and dtype of dy.

    The arguments are those of forward. Raises TypeError and ValueError as forward does.

    >>> dropout_backward(np.ones(8))
    array([0., 2., 0., 0., 0., 2., 2., 0.])
    """
    return dropout_forward(floats("dy", dy, "any"), p, seed, step, training)


class Dropout(Layer):
    """Dropout as a layer; it learns nothing. After eval() it passes x through.

    The generator is asked once, for the seed; each forward in training is the next step.
    Raises ValueError for a p outside [0, 1], and TypeError for a seed in place of rng.
    """

    kept = "seed", "next_step"

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator):
        super().__init__()
        self.seed = seed_of(rng)
        self.next_step = 0
        self.p = drawing(p, self.seed, self.next_step)[0]

    def forward(self, x: Array) -> Array:
        drawn = self.p, self.seed, self.next_step, self.training
        y = dropout_forward(x, *drawn)
        self.drawn, self.shape = drawn, y.shape
        self.next_step += self.training
        return y

    def backward(self, dy: Array) -> Array:
        drawn = self.remembered("drawn")
        dy = floats("dy", dy, "any")
        same_shape("dy", dy, self.shape, "the shape of x")
        return dropout_backward(dy, *drawn)
