"""Polygons filled on an image, in whole numbers: every machine gets the same bits.

A pixel's ink is how many of its 8x8 points lie inside the polygons, 0 to 64.
"""

from math import prod

import numpy as np

from course.compiled import compiled

POINTS = 8  # in a row of a pixel
GRID = 256  # coordinates are whole multiples of 1/GRID pixel
FULL = POINTS**2  # the ink of a pixel that lies inside


def shares(seed: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """Return random numbers u, 0 <= u < 1, as `rng.random()` makes them of PCG64's own.

    NumPy promises to keep these: the same seed gives the same numbers for ever.

    >>> shares([0], (2,)) == np.random.default_rng(0).random(2)
    array([ True,  True])
    """
    raw = np.random.PCG64(seed).random_raw(prod(shape))
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)


def on_grid(points: np.ndarray) -> np.ndarray:
    """Return coordinates in pixels as whole numbers of 1/GRID pixel, the nearest even ones.

    The points that `add_ink` looks at are odd, so that none is on a corner.

    >>> on_grid(np.array([0.5, 3.0]))
    array([128, 768])
    """
    return 2 * np.rint(points * (GRID / 2)).astype(np.int64)


@compiled
def add_ink(ink, points, starts):
    """Count in ink[row, column] the 8x8 points of the pixel inside the polygons.

    points : (V, 2) int, x to the right and y down, in 1/GRID pixel, polygon after polygon
    starts : where in `points` each polygon begins, and where the last one ends

    Along each row of points, every edge that crosses it changes the winding number of all
    points to its right by +1 or -1; a point is inside where the number is not 0.
    """
    step = GRID // POINTS
    rows, columns = ink.shape[0] * POINTS, ink.shape[1] * POINTS
    top, bottom = points[0, 1], points[0, 1]
    for k in range(len(points)):
        top, bottom = min(top, points[k, 1]), max(bottom, points[k, 1])
    turns = np.zeros(columns + 1, np.int64)
    for row in range(max(0, top // step), min(rows, bottom // step + 1)):
        y = row * step + step // 2 + 1
        left, right = columns, 0
        for polygon in range(len(starts) - 1):
            first, past = starts[polygon], starts[polygon + 1]
            for k in range(first, past):
                x0, y0 = points[k - 1 if k > first else past - 1]
                x1, y1 = points[k]
                if (y0 < y) != (y1 < y):
                    x = x0 + (y - y0) * (x1 - x0) // (y1 - y0)
                    column = min(max((x - step // 2 - 1) // step + 1, 0), columns)
                    turns[column] += 1 if y0 < y1 else -1
                    left, right = min(left, column), max(right, column)
        winding = 0
        for column in range(left, right):
            winding += turns[column]
            turns[column] = 0
            if winding != 0:
                ink[row // POINTS, column // POINTS] += 1
        turns[right] = 0
