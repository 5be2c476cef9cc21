"""Capital letters for 400 photocells: 20x20 pixels, each on (1) or off (0).

The Mark I perceptron looked at the world through 20x20 photocells (F. Rosenblatt, 1958),
and learned to tell letters apart, wherever in its field of view they stood.

Outlines come from three fonts of `course.data.glyphs` that have no serifs; a letter is
14 pixels long. Each image chooses a font, is turned and shifted, then a cell is on if more
than half of it is inked. At last some cells, chosen at random, go wrong: on for off.

Random choices are made of the raw numbers of PCG64, and all is computed by + - * /: the
same seed gives the same bits on every machine that has the same fonts.
"""

import numpy as np

from course.data.base import Dataset
from course.data.glyphs import FITTED, outlines
from course.data.polygons import FULL, add_ink, on_grid, shares
from course.device import number
from course.shapes import integer

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FONTS = "DejaVuSans", "DejaVuSans-Bold", "cmss10"
SIDE = 20  # photocells
LONG = 14  # pixels, the longer side of a letter
CHOICES = 4  # random numbers for one image before those of its cells


def letters(
    train: int = 50,
    test: int = 10,
    seed: int = 0,
    *,
    letters: str = ALPHABET,
    shift: float = 2.0,
    turn: float = 0.1,
    noise: float = 0.0,
) -> Dataset:
    """Return so many images of each letter to learn from, and to test on.

    Each is shifted by up to `shift` pixels down and across, and turned by up to `turn`
    radians, either way; a share `noise` of all cells is wrong. Changing one of these, or
    the letters, leaves the random choices of the others as they are. Raises TypeError or
    ValueError for what is no letter, count, seed, or strength.

    >>> letters(train=3, letters="EX")
    letters: 6 + 20 images of 20x20, 2 classes
    """
    chosen = _chosen(letters)
    counts = integer("train", train, 1), integer("test", test, 1)
    seed = integer("seed", seed, 0)
    strengths = {"shift": number("shift", shift), "turn": number("turn", turn)}
    strengths["noise"] = number("noise", noise)
    for (name, value), most in zip(strengths.items(), (SIDE, 1, 1), strict=True):
        if not 0 <= value <= most:
            raise ValueError(f"{name} must be from 0 to {most}, not {value}")
    parts = []
    for part, count in enumerate(counts):
        x = [_draw(letter, count, [seed, part], **strengths) for letter in chosen]
        t = np.tile(np.arange(len(chosen)), count)
        parts += np.stack(x, axis=1).reshape(-1, 1, SIDE, SIDE), t
    return Dataset("letters", *parts, tuple(chosen))


def _chosen(letters: str) -> str:
    """Return the letters, or say in words what is wrong with them."""
    if not isinstance(letters, str) or not letters:
        raise ValueError(f'letters must be capitals such as "EX", not {letters!r}')
    for letter in letters:
        if letter not in ALPHABET:
            raise ValueError(f"letters has {letter!r}; it must be of {ALPHABET}")
        if letters.count(letter) > 1:
            raise ValueError(f"letters has {letter!r} twice: {letters!r}")
    return letters


def _draw(
    letter: str, count: int, seed: list[int], shift: float, turn: float, noise: float
) -> np.ndarray:
    """Return images of one letter, (count, 20, 20) float32; more begin with the same."""
    u = shares([*seed, ALPHABET.index(letter)], (count, CHOICES + SIDE * SIDE))
    x = np.empty((count, SIDE, SIDE), np.float32)
    for n in range(count):
        points, starts = outlines(FONTS[int(u[n, 0] * len(FONTS))])[letter]
        ink = np.zeros((SIDE, SIDE), np.int64)
        add_ink(ink, _placed(points * (LONG / FITTED), u[n, 1:4], shift, turn), starts)
        x[n] = 2 * ink > FULL
    wrong = u[:, CHOICES:].reshape(x.shape) < noise
    return np.where(wrong, 1 - x, x)


def _placed(points: np.ndarray, u: np.ndarray, shift: float, turn: float) -> np.ndarray:
    """Return the points on the image, (V, 2) int, x and y down, in 1/GRID pixel."""
    half = turn / 2 * (2 * u[0] - 1)  # nearly tan(angle / 2)
    cosine, sine = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    x, y = points.T
    middle = SIDE / 2 + shift * (2 * u[1:] - 1)
    columns, rows = cosine * x - sine * y, -(sine * x + cosine * y)
    return on_grid(np.stack([columns, rows], 1) + middle)
