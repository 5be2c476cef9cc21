"""Spatial dropout: in training every channel is dropped whole, with probability p.

Equations

    (1)  y[n,c,i,j] = x[n,c,i,j] / (1 - p) if u[n*C + c] >= p, else 0

    with u[k] from [0, 1): the k-th random word of this seed and step, over 2^32. dx is
    equation (1) of dy: backward draws the same words again, and no mask is stored.

Shapes

    x, y, dx, dy   (N, C, H, W)   float

Edges: outside training nothing is dropped and nothing scaled. What is dropped becomes 0,
even NaN and infinity. p = 1 drops everything. The words depend on the place of a channel
only, not on the number of threads or the dtype.

Lecture: lectures/08_deep_nets_that_train.ipynb.  Symbols: GLOSSARY.md.
Source: Tompson, Goroshin, Jain, LeCun & Bregler, CVPR 2015, section 3.2; as
torch.nn.Dropout2d; random words: course/philox.py.
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
from course.philox import WORDS, drawing, random_word, random_words, seed_of


@compiled
def _y_cpu(y, x, scale, least, seed, step, first, past):
    """Equation (1) with the words below `least` dropped; a thread has blocks of 256."""
    u = np.empty(WORDS, np.uint32)
    for block in range(first, past):
        random_words(u, block, seed, step)
        y_block = y[block * WORDS : (block + 1) * WORDS]
        x_block = x[block * WORDS : (block + 1) * WORDS]
        for k in range(len(x_block)):
            y_plane, x_plane = y_block[k], x_block[k]
            if u[k] < least:
                y_plane[:] = 0
            else:
                for i in range(x_plane.size):
                    y_plane[i] = x_plane[i] * scale


@cuda.jit
def _y_cuda(y, x, scale, least, seed, step):
    """Equation (1) with the words below `least` dropped; a warp has planes.

    y and x are (N*C, H*W). A thread has every 32nd pixel of a plane.
    """
    zero = x.dtype.type(0)
    for plane in range(cuda.grid(1) // 32, len(y), cuda.gridsize(1) // 32):
        kept = random_word(plane, seed, step) >= least
        for k in range(cuda.threadIdx.x % 32, y.shape[1], 32):
            y[plane, k] = x[plane, k] * scale if kept else zero


def dropout2d_forward(
    x: Array, p: float = 0.5, seed: int = 0, step: int = 0, training: bool = True
) -> Array:
    """Return y of equation (1), in the shape and dtype of x; x itself if not training.

    The same seed and step drop the same channels. Raises TypeError for a dtype that is
    not float32 or float64, and ValueError for a p outside [0, 1].

    >>> dropout2d_forward(np.ones((1, 4, 1, 2)))[0, :, 0]
    array([[0., 0.],
           [2., 2.],
           [0., 0.],
           [0., 0.]])
    """
    x = floats("x", x, "(N, C, H, W)")
    p, *place = drawing(p, seed, step)
    if not training:
        return x
    least = ceil(p * 2**32)
    if least == 2**32:  # which is no word
        return full(x.shape, 0, x.dtype, x)
    y = empty_like(x)
    N, C, H, W = x.shape
    scale, least = x.dtype.type(1 / (1 - p)), np.uint32(least)
    arrays = y.reshape(N * C, H * W), x.reshape(N * C, H * W)
    if on_cpu(x):
        fill(_y_cpu, -(-N * C // WORDS), *arrays, scale, least, *place)
    else:
        launch(_y_cuda, 32 * N * C, *arrays, scale, least, *place)
    return y


def dropout2d_backward(
    dy: Array, p: float = 0.5, seed: int = 0, step: int = 0, training: bool = True
) -> Array:
    """Return dx, which is equation (1) of dy, in the shape and dtype of dy.

    The arguments are those of forward. Raises TypeError and ValueError as forward does.

    >>> dropout2d_backward(np.ones((1, 2, 1, 2)))[0, :, 0]
    array([[0., 0.],
           [2., 2.]])
    """
    dy = floats("dy", dy, "(N, C, H, W)")
    return dropout2d_forward(dy, p, seed, step, training)


class Dropout2d(Layer):
    """Spatial dropout as a layer; it learns nothing. After eval() it passes x through.

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
        y = dropout2d_forward(x, *drawn)
        self.drawn, self.shape = drawn, y.shape
        self.next_step += self.training
        return y

    def backward(self, dy: Array) -> Array:
        drawn = self.remembered("drawn")
        dy = floats("dy", dy, "(N, C, H, W)")
        same_shape("dy", dy, self.shape, "the shape of x")
        return dropout2d_backward(dy, *drawn)
