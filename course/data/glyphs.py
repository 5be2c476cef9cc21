"""Digits and capital letters, 28x28 pixels, drawn here from the fonts of matplotlib.

36 classes: 0-9 and A-Z. There are no small letters: at this size c, o, s, v, w, x and z
look like their capitals. Test images come from typefaces that no training image shows
(TRAIN_FONTS, TEST_FONTS): what is measured is how well a network reads a new typeface.

Each image is made in three steps, with whole numbers or single + - * / of float64 only,
which round alike on every machine:

1. the outline of the character is read from the font file and scaled so that its longer
   side is 18 pixels;
2. it is turned by up to 12 degrees, sheared by up to 0.2, stretched by 0.85 to 1.05 along
   each axis, shifted by up to 1 pixel; then filled, a pixel's ink being how many of its
   8x8 points lie inside (nonzero winding);
3. full ink becomes 160 to 255; the image is blurred 0, 1 or 2 times by [1 2 1] / 4 along
   both axes; each pixel gets noise of up to 0 to 24 either way, cut to 0..255.

Random choices are made of the raw numbers of PCG64, which NumPy promises to keep. So the
same seed gives the same bytes as long as matplotlib ships the same fonts.
"""

import hashlib
import logging
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from fontTools.pens.basePen import BasePen
from fontTools.ttLib import TTFont

from course.compiled import user_cache
from course.data import polygons
from course.data.base import Dataset, unit
from course.data.polygons import FULL, add_ink, on_grid, shares
from course.files import write_whole
from course.shapes import integer

CLASSES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_STYLES = "", "-Bold", "-Oblique", "-BoldOblique"
TRAIN_FONTS = (
    *(f"DejaVuSans{style}" for style in _STYLES),
    *(f"DejaVuSansMono{style}" for style in _STYLES),
    *(f"DejaVuSerif{style.replace('Oblique', 'Italic')}" for style in _STYLES),
    *("cmr10", "cmb10", "cmtt10"),
)
TEST_FONTS = (
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    "cmss10",
)

SIDE = 28  # pixels
FITTED = 18  # pixels, the longer side of a character before it is distorted
SEGMENTS = 6  # straight pieces of a curve
HALF_TURN = 0.1051  # tan(12 degrees / 2)
CHOICES = 10  # random numbers for one image before its noise

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it dislikes the date of a font


def glyphs(train: int = 150, test: int = 30, seed: int = 0) -> Dataset:
    """Return so many images of each class to learn from, and to test on.

    The first call draws them, some seconds for the default; later ones read the cache.

    >>> glyphs(train=2, test=1)
    glyphs: 72 + 36 images of 28x28, 36 classes
    """
    counts = {"train": integer("train", train, 1), "test": integer("test", test, 1)}
    seed = integer("seed", seed, 0)
    path = cache_path(**counts, seed=seed)
    pixels = _cached(path, counts)
    if pixels is None:
        pixels = {
            "train": draw(TRAIN_FONTS, counts["train"], [seed, 0]),
            "test": draw(TEST_FONTS, counts["test"], [seed, 1]),
        }
        _keep(path, pixels)
    x_train, x_test = unit(pixels["train"], 255), unit(pixels["test"], 255)
    t_train, t_test = _labels(counts["train"]), _labels(counts["test"])
    return Dataset("glyphs", x_train, t_train, x_test, t_test, CLASSES)


def _labels(count: int) -> np.ndarray:
    """Return the class of each image: 0, 1, ..., 35, 0, 1, ..."""
    return np.tile(np.arange(len(CLASSES)), count)


def draw(fonts: tuple[str, ...], count: int, seed: list[int]) -> np.ndarray:
    """Return `count` images of each class in turn, (N, 28, 28) uint8.

    A larger count begins with the same images.
    """
    drawn = [outlines(font) for font in fonts]
    N = count * len(CLASSES)
    u = shares(seed, (N, CHOICES + SIDE * SIDE))
    images = np.empty((N, SIDE, SIDE), np.uint8)
    for n in range(N):
        font = drawn[int(u[n, 0] * len(fonts))]
        points, starts = font[CLASSES[n % len(CLASSES)]]
        ink = np.zeros((SIDE, SIDE), np.int64)
        add_ink(ink, _distorted(points, u[n, 1:7]), starts)
        images[n] = _printed(ink, u[n, 7:CHOICES], u[n, CHOICES:].reshape(SIDE, SIDE))
    return images


class _Polygons(BasePen):
    """A pen that records an outline as closed polygons, in the font's own units."""

    def __init__(self, shapes: Any):
        super().__init__(shapes)
        self.polygons: list[list[np.ndarray]] = []

    def _moveTo(self, point: tuple) -> None:
        self.polygons.append([np.array(point, float)])

    def _lineTo(self, point: tuple) -> None:
        self.polygons[-1].append(np.array(point, float))

    def _qCurveToOne(self, corner: tuple, point: tuple) -> None:
        share = (np.arange(SEGMENTS) + 1)[:, None] / SEGMENTS
        rest, start = 1 - share, self._getCurrentPoint()
        ends = rest * rest * np.array(start) + share * share * np.array(point)
        self.polygons[-1].extend(ends + 2 * rest * share * np.array(corner))


@cache
def outlines(font: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each character as polygons, its box centred on 0, longer side 18 pixels.

    points : (V, 2) float, x to the right and y up, polygon after polygon
    starts : (polygons + 1,) int, where in `points` each polygon begins, and V
    """
    found = {}
    with TTFont(_file(font)) as file:
        shapes, names = file.getGlyphSet(), file.getBestCmap()
        for character in CLASSES:
            pen = _Polygons(shapes)
            shapes[names[ord(character)]].draw(pen)
            points = np.concatenate(pen.polygons)
            low, high = points.min(axis=0), points.max(axis=0)
            points = (points - (low + high) / 2) * (FITTED / (high - low).max())
            found[character] = points, np.cumsum([0, *map(len, pen.polygons)])
    return found


def _file(font: str) -> Path:
    """Return the file of a font that matplotlib ships."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")


def _distorted(points: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the points on the image, (V, 2) int, x and y down, in 1/GRID pixel.

    u : (6,) turn, shear, stretch of x and of y, shift of x and of y, each 0 to 1
    """
    half = HALF_TURN * (2 * u[0] - 1)  # tan(angle / 2) gives sine and cosine by + - * /
    cosine = (1 - half * half) / (1 + half * half)
    sine = 2 * half / (1 + half * half)
    shear = 0.2 * (2 * u[1] - 1)
    stretch, shift = 0.85 + 0.2 * u[2:4], 2 * u[4:6] - 1
    x = stretch[0] * points[:, 0] + shear * points[:, 1]
    y = stretch[1] * points[:, 1]
    columns = SIDE / 2 + shift[0] + (cosine * x - sine * y)
    rows = SIDE / 2 + shift[1] - (sine * x + cosine * y)
    return on_grid(np.stack([columns, rows], 1))


def _printed(ink: np.ndarray, u: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return ink 0..64, (28, 28) int, as pixels 0..255, blurred, faded and with noise.

    u : (3,) blur, full ink, size of the noise, each 0 to 1;  noise : (28, 28), 0 to 1
    """
    full, size = 160 + int(96 * u[1]), int(25 * u[2])
    pixels = ink * full // FULL
    for _ in range(int(3 * u[0])):
        pixels = _blurred(pixels)
    return np.clip(pixels + ((2 * size + 1) * noise).astype(np.int64) - size, 0, 255)


def _blurred(pixels: np.ndarray) -> np.ndarray:
    """Return the image weighed by [1 2 1] / 4 along both axes, rounded."""
    framed = np.pad(pixels, 1)
    rows = framed[:-2] + 2 * framed[1:-1] + framed[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) // 16


def cache_path(train: int, test: int, seed: int) -> Path:
    """Return where the images are kept; the name changes with this file and the fonts."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(Path(polygons.__file__).read_bytes())
    for font in (*TRAIN_FONTS, *TEST_FONTS):
        digest.update(_file(font).read_bytes())
    name = f"glyphs-{train}-{test}-{seed}-{digest.hexdigest()[:16]}.npz"
    return user_cache() / "data" / name


def _cached(path: Path, counts: dict[str, int]) -> dict[str, np.ndarray] | None:
    """Return the pixels that `_keep` wrote, or None if there is no such whole file."""
    try:
        with np.load(BytesIO(path.read_bytes())) as file:
            pixels = {part: file[part] for part in counts}
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        return None  # absent or damaged
    for part, count in counts.items():
        if pixels[part].shape != (count * len(CLASSES), SIDE, SIDE):
            return None
    return pixels


def _keep(path: Path, pixels: dict[str, np.ndarray]) -> None:
    """Write the pixels to the cache, if it can be written, in place of older drawings."""
    file = BytesIO()
    np.savez(file, **pixels)
    try:
        write_whole(path, file.getvalue())
        for other in path.parent.glob(f"{path.name.rpartition('-')[0]}-*.npz"):
            if other != path:
                other.unlink(missing_ok=True)
    except OSError:
        pass  # the next call draws again; `course doctor` says why
