"""The Neocognitron: S-cells learn features without a teacher, C-cells blur where they are.

Equations

    (1)  power[n,i,j]   = sqrt(sum over c,u,v of taper[u,v] * x[n,c,i+u,j+v]^2)
    (2)  y[n,f,i,j]     = r * max(0, (1 + e) / (1 + h) - 1)
                          with e = sum over c,u,v of w[f,c,u,v] * x[n,c,i+u,j+v]
                          and  h = 2*r/(1+r) * inhibit[f] * power[n,i,j]
    (3)  w[f,c,u,v]     = w[f,c,u,v] + q * taper[u,v] * x[n,c,i+u,j+v]
    (4)  inhibit[f]     = inhibit[f] + q/2 * power[n,i,j]
    (5)  pooled[n,f,i,j] = sum over u,v of blur[u,v] * x[n,f,p,q]
    (6)  y[n,f,i,j]      = z / (alpha + z)
                           with z = max(0, (1 + pooled) / (1 + mean over f of pooled) - 1)

    (1) to (4) are of a layer of S-cells, (5) and (6) of a layer of C-cells, where x is the
    y of its S-cells. taper and blur are fixed bells, highest in the middle of the window.
    p and q are as in a convolution.

A plane f of S-cells looks for one feature everywhere: its cells share the weights w. By (2)
a cell answers if what it sees is like what it has learned: the excitation e, a dot
product, must outdo the inhibition h, a product of lengths; so it is the angle between the
two that counts, and the selectivity r says how small it must be. C-cells answer to that
feature in any of several places, less and less the farther it is from the middle.

Layer after layer learns, the first until it is done, from images in the order they come:

    the S-cells compete in columns, in which all planes look at about the same place. In
    each column the cell that answers most wins, but a plane keeps only its best winner.
    Each winner learns what it sees, (3) and (4), and with it all of its plane. Where there
    is something to see but no cell answers, a new plane begins.

At the end each C-cell of the last layer is named after the class of most of those images
that it answers to most. That is the only use of the labels. A new image gets the name of
its strongest C-cell.

Shapes

    x         (N, C, H, W)      float
    y         (N, F, HO, WO)    float
    w         (F, C, KH, KW)    float
    inhibit   (F,)              float
    power     (N, 1, HO, WO)    float

Edges: an image to which no cell of the last layer answers has no class: -1.

What differs from the paper: it has three stages, this has two. There, planes begin with
small random weights, and a cell of such a plane wins where the others are silent; here
it begins with its first feature. For recognition r may be lower than for learning, so that
no image goes unanswered (Fukushima & Tanigawa). q is so large that one look is enough.

Lecture: lectures/04_history.ipynb.  Symbols: GLOSSARY.md.
Source: Fukushima, Biological Cybernetics 36 (1980), sections 2 and 3; Fukushima & Tanigawa,
Neurocomputing 11 (1996); planes that begin where all are silent: Fukushima, Neural Networks
40 (2013).
"""

from typing import Self

import numpy as np

from course.compiled import compiled
from course.device import Array, fill, floats
from course.history.order import generator
from course.layers import conv2d_forward

Q = np.float32(1000)  # q of (3) and (4)
ALPHA = 0.5  # alpha of (6)
COLUMN = 5  # cells along a side of a column
BATCH = 200  # images


@compiled
def _y_cpu(y, power, inhibit, r, first, past):
    """Equation (2), in place of the e that y comes with; a thread has planes (n, f)."""
    _, F, HO, WO = y.shape
    one, zero = y.dtype.type(1), y.dtype.type(0)
    for plane in range(first, past):
        n, f = divmod(plane, F)
        share = y.dtype.type(2 * r / (1 + r)) * inhibit[f]
        for i in range(HO):
            for j in range(WO):
                ratio = (one + y[n, f, i, j]) / (one + share * power[n, 0, i, j])
                y[n, f, i, j] = y.dtype.type(r) * max(zero, ratio - one)


@compiled
def _y_cpu_c(y, first, past):
    """Equation (6), in place of the `pooled` that y comes with; a thread has images."""
    _, F, HO, WO = y.shape
    one, zero = y.dtype.type(1), y.dtype.type(0)
    for n in range(first, past):
        for i in range(HO):
            for j in range(WO):
                total = zero
                for f in range(F):
                    total += y[n, f, i, j]
                share = one + total / y.dtype.type(F)
                for f in range(F):
                    z = max(zero, (one + y[n, f, i, j]) / share - one)
                    y[n, f, i, j] = z / (y.dtype.type(ALPHA) + z)


def bell(size: int, spread: float) -> Array:
    """Return a window of size x size weights, 1 in the middle and less away from it.

    At a distance of `spread` pixels they have fallen to exp(-1/2). Raises ValueError for a
    spread of 0.

    >>> bell(3, 1.0).round(2)
    array([[0.37, 0.61, 0.37],
           [0.61, 1.  , 0.61],
           [0.37, 0.61, 0.37]], dtype=float32)
    """
    if not spread > 0:
        raise ValueError(f"spread must be positive, not {spread}")
    away = np.arange(size) - (size - 1) / 2
    one = np.exp(-((away / spread) ** 2) / 2)
    return np.outer(one, one).astype(np.float32)


def s_cells(
    x: Array, w: Array, inhibit: Array, taper: Array, r: float
) -> tuple[Array, Array]:
    """Return y of equation (2), and power of equation (1).

    Raises TypeError or ValueError for arrays that do not fit.

    >>> x = np.array([[[[3.0, 4.0, 0.0, 5.0]]]], np.float32)
    >>> w = np.array([[[[3.0, 4.0]]], [[[0.0, 5.0]]]], np.float32) * 1000
    >>> inhibit, taper = np.full(2, 2500, np.float32), np.ones((1, 2), np.float32)
    >>> y, power = s_cells(x, w, inhibit, taper, r=3.0)
    >>> y[0, :, 0].round(3)
    array([[1. , 0. , 0.2],
           [0.2, 0. , 1. ]], dtype=float32)
    >>> power[0, 0, 0]
    array([5., 4., 5.], dtype=float32)
    """
    power = conv2d_forward(x * x, np.tile(taper, (1, x.shape[1], 1, 1)))
    power = np.sqrt(np.maximum(power, 0))  # rounding may have gone below
    if not len(w):
        return np.zeros((len(x), 0, *power.shape[2:]), x.dtype), power
    y = conv2d_forward(x, w)
    fill(_y_cpu, len(x) * len(w), y, power, inhibit, float(r))
    return y, power


def c_cells(x: Array, blur: Array, stride: int = 1, padding: int = 0) -> Array:
    """Return y of equations (5) and (6) for S-cells x.

    Raises TypeError or ValueError for arrays that do not fit.

    >>> x = np.array([[[[0.0, 2.0, 0.0]], [[0.0, 0.0, 0.0]]]], np.float32)
    >>> c_cells(x, np.array([[0.5, 1.0, 0.5]], np.float32), padding=(0, 1))[0, :, 0].round(
    ...     3
    ... )
    array([[0.4, 0.5, 0.4],
           [0. , 0. , 0. ]], dtype=float32)
    """
    F = x.shape[1]
    y = conv2d_forward(x, np.tile(blur, (F, 1, 1, 1)), None, stride, padding, groups=F)
    fill(_y_cpu_c, len(y), y)
    return y


class SCells:
    """A layer of S-cells, with weight (F, C, K, K) and inhibit (F,); learning adds planes.

    Attributes
    ----------
    r : the selectivity
    column : side of a column, in cells
    quiet : up to this power there is nothing to see
    most : planes, at most
    """

    def __init__(
        self, channels: int, size: int, r: float, column: int, quiet: float, most: int
    ):
        self.weight = np.zeros((0, channels, size, size), np.float32)
        self.inhibit = np.zeros(0, np.float32)
        self.r, self.column, self.quiet, self.most = r, column, quiet, most
        window = bell(size, size / 3)
        self.taper = window / (window.sum() * np.float32(channels))

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Return the answers y to x, and its power."""
        return s_cells(x, self.weight, self.inhibit, self.taper, self.r)

    def learn(self, x: Array) -> None:
        """Let the winners of one image x (1, C, H, W) learn, and a plane begin."""
        y, power = (a[0] for a in self(x))
        power, answer = power[0], y.max(axis=0, initial=0)
        winners: dict[int, tuple[int, int]] = {}  # plane -> the place of its best winner
        silent = []
        for column in self._columns(*answer.shape):
            place = _largest(answer, column)
            if answer[place] > 0:
                f = int(y[:, *place].argmax())
                if f not in winners or answer[place] > answer[winners[f]]:
                    winners[f] = place
            else:
                silent.append(_largest(power, column))
        best = max(silent, key=lambda place: power[place], default=None)
        if best and power[best] > self.quiet and len(self.weight) < self.most:
            winners[len(self.weight)] = best
            self.weight = np.pad(self.weight, ((0, 1), (0, 0), (0, 0), (0, 0)))
            self.inhibit = np.pad(self.inhibit, (0, 1))
        for f, place in winners.items():
            _reinforce(self, f, x[0], place, power[place])

    def _columns(self, HO: int, WO: int) -> list[tuple[slice, slice]]:
        """Return the columns of a map of HO x WO cells."""
        tops, lefts = range(0, HO, self.column), range(0, WO, self.column)
        return [
            np.s_[i : i + self.column, j : j + self.column] for i in tops for j in lefts
        ]


def _largest(a: Array, window: tuple[slice, slice]) -> tuple[int, int]:
    """Return where the largest number of a window of a is: row and column of a."""
    row, column = np.unravel_index(a[window].argmax(), a[window].shape)
    return window[0].start + int(row), window[1].start + int(column)


def _reinforce(
    cells: SCells, f: int, x: Array, place: tuple[int, int], power: float
) -> None:
    """Equations (3) and (4): plane f learns what its cell at a place of x sees."""
    K, (i, j) = len(cells.taper), place
    cells.weight[f] += Q * cells.taper * x[:, i : i + K, j : j + K]
    cells.inhibit[f] += Q / 2 * power


class CCells:
    """A layer of C-cells.

    With blur=False each listens to the one S-cell in the middle of its window: that is
    striding, which only thins out the planes.
    """

    def __init__(self, size: int, stride: int, padding: int, blur: bool = True):
        self.blur = bell(size, size / 3 if blur else 1e-3)
        self.window = {"stride": stride, "padding": padding}

    def __call__(self, x: Array) -> Array:
        """Return the answers y to S-cells x."""
        return c_cells(x, self.blur, **self.window)


def _answers(s: SCells, c: CCells, x: Array) -> Array:
    """Return what a stage makes of x, some images at a time."""
    starts = range(0, max(len(x), 1), BATCH)
    return np.concatenate([c(s(x[k : k + BATCH])[0]) for k in starts])


class Neocognitron:
    """Two stages of S- and C-cells for images of 28 x 28 pixels.

    28x28 pixels -> S 24x24 -> C 12x12 -> S 5x5 -> C 1x1, with as many planes as learning
    finds features: at most `planes` in the two stages. selectivity and recognition are
    their r while they learn and afterwards. blur=False puts striding in place of both
    layers of C-cells.
    """

    def __init__(
        self,
        planes: tuple[int, int] = (32, 400),
        selectivity: tuple[float, float] = (12.0, 5.0),
        recognition: tuple[float, float] = (12.0, 3.0),
        blur: bool = True,
    ):
        self.planes, self.selectivity, self.recognition = planes, selectivity, recognition
        self.c = CCells(5, 2, 2, blur), CCells(5, 1, 0, blur)
        self.s: list[SCells] = []

    def fit(self, x: Array, t: Array, rng: np.random.Generator) -> Self:
        """Learn features from images x (N, 1, 28, 28), in an order drawn from rng.

        Then name the last cells by labels t (N,) int, 0 and up, and return itself. Raises
        TypeError or ValueError for arrays that do not fit.
        """
        x = floats("x", x, "(N, C, H, W)", np.float32)
        if not len(x) or np.shape(t) != (len(x),):
            raise ValueError(
                f"x holds {len(x)} images and t has shape {np.shape(t)}; there must be "
                "one label for each of at least one image"
            )
        if np.asarray(t).dtype.kind not in "iu" or np.min(t) < 0:
            raise ValueError("t must hold whole numbers, 0 and up")
        order, seen, stages = generator(rng).permutation(len(x)), x, []
        for stage, (size, quiet) in enumerate([(5, 0.15), (8, 0.0)]):
            r, most = self.selectivity[stage], self.planes[stage]
            cells = SCells(seen.shape[1], size, r, COLUMN, quiet, most)
            for n in order:
                cells.learn(seen[n : n + 1])
            if not len(cells.weight):
                raise ValueError("there is nothing to see in these images: all are dark")
            cells.r = self.recognition[stage]
            stages.append(cells)
            seen = _answers(cells, self.c[stage], seen)
        answers = seen.max(axis=(2, 3))
        heard = answers.any(axis=1)
        votes = np.zeros((answers.shape[1], np.max(t) + 1), int)
        np.add.at(votes, (answers[heard].argmax(axis=1), t[heard]), 1)
        self.s, self.labels = stages, np.where(votes.any(1), votes.argmax(1), -1)
        return self

    def maps(self, x: Array) -> list[Array]:
        """Return what the C-cells of each stage answer to images x, (N, F, HO, WO)."""
        if not self.s:
            raise RuntimeError("nothing has been learned yet: call fit first")
        maps = [floats("x", x, "(N, C, H, W)", np.float32)]
        for s, c in zip(self.s, self.c, strict=True):
            maps.append(_answers(s, c, maps[-1]))
        return maps[1:]

    def __call__(self, x: Array) -> Array:
        """Return how strongly the last C-cells answer, (N, F)."""
        return self.maps(x)[-1].max(axis=(2, 3))

    def classify(self, x: Array) -> Array:
        """Return the class of each image, (N,) int; -1 if no cell answers to it."""
        answers = self(x)
        return np.where(answers.any(axis=1), self.labels[answers.argmax(axis=1)], -1)
