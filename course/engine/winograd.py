"""Winograd's convolution: 3 x 3 windows at stride 1, with 16 products instead of 36.

A tile is 2 x 2 neighbouring pixels of y. Their windows see 4 x 4 pixels d of x; the filter
is g, 3 x 3. The definition takes 4 * 9 products for each channel. Winograd takes 16: one
for each element of two 4 x 4 matrices,

    (1)  u = G g G^T                   once for each filter and channel
    (2)  v = B^T d B                   once for each tile and channel
    (3)  m = sum over channels of u * v          element by element
    (4)  y = A^T m A + b               once for each tile and filter

           | 1   0   0  |           | 1  0 -1  0 |
       G = | 1/2 1/2 1/2|     B^T = | 0  1  1  0 |     A^T = | 1  1  1  0 |
           | 1/2-1/2 1/2|           | 0 -1  1  0 |           | 0  1 -1 -1 |
           | 0   0   1  |           | 0  1  0 -1 |

Multiply it out in one dimension, two pixels of y and a filter of three, to see why:
m0 = (d0 - d2) g0, m1 = (d1 + d2)(g0 + g1 + g2)/2, m2 = (d2 - d1)(g0 - g1 + g2)/2,
m3 = (d1 - d3) g2, and m0 + m1 + m2 = d0 g0 + d1 g1 + d2 g2.

(2) and (4) are sums only, and each is paid once for many products if there are many filters
and channels. (3) is 16 matrix products, of filters x channels by channels x tiles: register
tiles of 6 filters x 16 tiles, as in course/engine/matmul.py. A block of tiles goes through
(2) to (4) before the next, so that v and m stay in the second cache.

dx is the same with dy in place of x, the filters turned by half a turn, and their channels
exchanged.

Edges: tiles that hang over an odd edge see zeros there, and what they find is dropped. A
NaN or an infinity would spread over its tile, since inf - inf is NaN; so would sums above
the largest number. An image in which one comes out is left to the loops of
course/engine/cpu.py, which keep to the definition. Rounding errors are those of sums over C
numbers, not 9 C: smaller than in the plain loops.

A thread owns the blocks it computes. What is in a tile does not depend on its block: the
same bits, whatever the number of threads and images.

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
section 4.1; Winograd, "Arithmetic Complexity of Computations", SIAM 1980.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from course.compiled import compiled
from course.device import Array
from course.engine.launch import launch
from course.engine.matmul import _rows_times_columns
from course.engine.plan import Plan, whole, workspace
from course.engine.tile import (
    _load,
    _pointer,
    _store,
    each_col,
    each_lane,
    each_row,
    lanes_at,
    rows_at,
    shape_of,
    store,
    tile_shape,
    times,
    transpose,
    zeros,
)

G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
B = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # transposed, as in (2)
A = ((1, 1, 1, 0), (0, 1, -1, -1))  # and (4)
EACH = tuple(range(16))  # the elements of a 4 x 4 matrix,
TAPS = tuple(range(9))  # and of a filter
