"""Simple shapes, in which each of the seven challenges of recognition can be turned up.

Eight classes: circle, square, triangle, star, cross, ring, crescent, arrow. With every
challenge at 0 all images of a class are alike: light on dark, upright, in the middle. Each
challenge has a strength, from 0 (off) to 1:

    viewpoint      the camera moves: the shape turns by up to 90 degrees, tilts away by up
                   to 60, and leaves the middle by up to an eighth of the image
    scale          it is 0.4 to 1.4 times as large
    deformation    it bends and twists, as rubber would
    occlusion      a bar stands in front of it
    illumination   the light is weak, fades towards one side, and has a colour
    clutter        other things lie behind it
    intra_class    its own proportions and its colour: a star is thin or thick

They do not touch one another. An image has its own random numbers for each challenge, and
the strength only scales what these do: one can be turned up while all else about the
images stays as it is.

A shape is a polygon of 120 corners, which viewpoint, scale and deformation move. Polygons
are filled and images made of whole numbers, after single + - * / of float64, which round
alike on every machine: the same seed gives the same bytes.

Source: the challenges are those of CS231n (Stanford), "Image Classification".
"""

from typing import Any

import numpy as np

from course.compiled import compiled
from course.data.base import Dataset
from course.data.polygons import FULL, add_ink, on_grid, shares
from course.device import fill, number
from course.shapes import integer

CLASSES = "circle", "square", "triangle", "star", "cross", "ring", "crescent", "arrow"
OUTLINE = 120  # corners of a shape
RADIUS = 0.32  # of an image's side: how far a shape reaches from its middle
PIECES = 16  # of clutter
CHALLENGES = {  # name -> how many random numbers an image has for it
    "viewpoint": 5,
    "scale": 1,
    "deformation": 6,
    "occlusion": 6,
    "illumination": 6,
    "clutter": PIECES * 13,  # of a piece: where, its four corners, its colour
    "intra_class": 6,
}
DARK, LIGHT = (56, 62, 76), (240, 214, 120)  # red, green, blue of background and shape
GREY = np.array([77, 150, 29], np.uint16)  # of red, green and blue, in 256
BAR = 4 * PIECES + OUTLINE  # the first corner of the bar, which is in front of all
STARTS = np.array([*range(0, BAR - OUTLINE + 1, 4), BAR, BAR + 4])  # of polygons
OPAQUE = 256
FULL_LIGHT = 1 << 16


def shapes(
    train: int = 100,
    test: int = 25,
    seed: int = 0,
    *,
    size: int = 32,
    channels: int = 3,
    viewpoint: float = 0.0,
    scale: float = 0.0,
    deformation: float = 0.0,
    occlusion: float = 0.0,
    illumination: float = 0.0,
    clutter: float = 0.0,
    intra_class: float = 0.0,
) -> Dataset:
    """Return so many images of each class to learn from, and to test on.

    size : pixels of each side, at least 8
    channels : 3 for colours, 1 for the same images in grey
    viewpoint ... intra_class : the strength of each challenge, 0 to 1

    Raises TypeError or ValueError for what is no count, seed, size or strength.

    >>> shapes(train=10, test=5, viewpoint=0.5, clutter=1)
    shapes: 80 + 40 images of 32x32, 8 classes
    """
    given = viewpoint, scale, deformation, occlusion, illumination, clutter, intra_class
    strengths = {}
    for name, value in zip(CHALLENGES, given, strict=True):
        strengths[name] = number(name, value)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be from 0 (off) to 1, not {value}")
    counts = integer("train", train, 1), integer("test", test, 1)
    seed, size = integer("seed", seed, 0), integer("size", size, 8, 1024)
    if channels not in (1, 3):
        raise ValueError(f"channels must be 3, or 1 for grey, not {channels!r}")
    parts: list[Any] = []
    for part, count in enumerate(counts):
        images = draw(count, [seed, part], size, strengths)
        if channels == 1:
            images = (images * GREY[:, None, None]).sum(1, np.uint16, keepdims=True) >> 8
        labels = np.tile(np.arange(len(CLASSES)), count)
        parts += np.divide(images, np.float32(255), dtype=np.float32), labels
    return Dataset("shapes", *parts, CLASSES)


def draw(count: int, seed: list[int], size: int, strengths: dict[str, float]) -> np.ndarray:
    """Return `count` images of each class in turn, (N, 3, size, size) uint8.

    A larger count begins with the same images.
    """
    N = count * len(CLASSES)
    u = shares(seed, (N, sum(CHALLENGES.values())))
    ends = np.cumsum(list(CHALLENGES.values()))[:-1]
    u = dict(zip(CHALLENGES, np.split(u, ends, axis=1), strict=True))
    colours, opaque = _colours(u, strengths)
    lights = _lights(u["illumination"], strengths["illumination"], size)
    images = np.empty((N, 3, size, size), np.uint8)
    points, work = on_grid((_points(u, strengths) + 0.5) * size), 8 * images.size
    fill(_paint, N, images, points, STARTS, colours, opaque, *lights, steps=work)
    return images


def _points(u: dict[str, np.ndarray], strengths: dict[str, float]) -> np.ndarray:
    """Return all corners of each image, (N, corners, 2), from the middle of one 1 wide."""
    # v is from minus the strength to the strength: 0 where a challenge is off
    v = {name: strength * (2 * u[name] - 1) for name, strength in strengths.items()}
    N = len(u["clutter"])
    points = np.empty((N, BAR + 4, 2))
    points[:, : BAR - OUTLINE] = _pieces(u["clutter"])
    for label, name in enumerate(CLASSES):
        mine = slice(label, N, len(CLASSES))
        outline = _bent(_outline(name, v["intra_class"][mine]), v["deformation"][mine])
        outline = _viewed(outline, u["viewpoint"][mine], v["viewpoint"][mine])
        points[mine, BAR - OUTLINE : BAR] = outline
    points[:, BAR:] = _bar(u["occlusion"], strengths["occlusion"])
    points[:, BAR - OUTLINE :] *= RADIUS * _factor(v["scale"])[:, None]
    points[:, BAR - OUTLINE :] += v["viewpoint"][:, None, 3:] / 8
    return points


def _colours(
    u: dict[str, np.ndarray], strengths: dict[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return red, green, blue of each polygon, (N, polygons, 3), and how opaque it is."""
    colours = np.empty((len(u["clutter"]), PIECES + 2, 3))
    colours[:, :PIECES] = 20 + 225 * u["clutter"].reshape(-1, PIECES, 13)[..., 10:]
    other = 110 + 145 * u["intra_class"][:, 3:]
    colours[:, PIECES] = LIGHT + strengths["intra_class"] * (other - LIGHT)
    colours[:, PIECES + 1] = 30 + 150 * u["occlusion"][:, 3:]
    opaque = np.full(PIECES + 2, OPAQUE)
    opaque[:PIECES] = round(OPAQUE * strengths["clutter"])
    return np.rint(colours).astype(np.int64), opaque


@compiled
def _paint(images, points, starts, colours, opaque, light, tint, first, past):
    """Fill the polygons, one over the other, then let light fall; a thread has images n."""
    C, H, W = images.shape[1:]
    pixels, ink = np.empty((H, W, C), np.int64), np.empty((H, W), np.int64)
    for n in range(first, past):
        for p in range(H):
            for q in range(W):
                for c in range(C):
                    pixels[p, q, c] = DARK[c]
        for polygon in range(len(opaque)):
            if opaque[polygon] == 0:
                continue
            for p in range(H):
                for q in range(W):
                    ink[p, q] = 0
            corners = points[n, starts[polygon] : starts[polygon + 1]]
            add_ink(ink, corners, np.array([0, len(corners)]))
            for p in range(H):
                for q in range(W):
                    if ink[p, q] > 0:
                        share = ink[p, q] * opaque[polygon]
                        for c in range(C):
                            change = colours[n, polygon, c] - pixels[p, q, c]
                            pixels[p, q, c] += change * share // (FULL * OPAQUE)
        for p in range(H):
            for q in range(W):
                here = max(light[n, 0] + p * light[n, 1] + q * light[n, 2], 0)
                for c in range(C):
                    lit = pixels[p, q, c] * here // FULL_LIGHT * tint[n, c] // 256
                    images[n, c, p, q] = min(lit, 255)


def _arc(count: int, begin: float, end: float) -> np.ndarray:
    """Return points on a circle of radius 1, (count, 2); degrees clockwise from the top."""
    angle = np.radians(np.linspace(begin, end, count))
    return np.round(np.stack([np.sin(angle), -np.cos(angle)], 1), 9)  # alike everywhere


CIRCLE = _arc(OUTLINE + 1, 0, 360)[:-1]
AROUND, HALF = _arc(OUTLINE // 2, 0, 360), _arc(OUTLINE // 2, 0, 180)
MOON = _arc(OUTLINE // 2, 40, -220)


def _outline(name: str, v: np.ndarray) -> np.ndarray:
    """Return the shape of a class for each row of v, (N, 120, 2), x right and y down.

    It reaches about 1 from its middle. v[:, 0] makes it wide or high; v[:, 1] and v[:, 2]
    change its proportions.
    """
    a, b = v[:, 1], v[:, 2]
    if name == "circle":
        points = np.tile(CIRCLE, (len(v), 1, 1))
    elif name == "square":
        lean = 0.25 * a
        upper, lower = [(lean - 0.8, -0.8), (lean + 0.8, -0.8)], [(0.8, 0.8), (-0.8, 0.8)]
        points = _polygon(*upper, *lower)
    elif name == "triangle":
        points = _polygon((0.7 * a, -0.95), (0.95, 0.75), (-0.95, 0.75))
    elif name == "star":
        inner, corners = 0.42 + 0.14 * a, CIRCLE[:: OUTLINE // 10]
        lengths = [1, inner] * 5
        points = _polygon(
            *((r * x, r * y) for r, (x, y) in zip(lengths, corners, strict=True))
        )
    elif name == "cross":
        a, b = 0.3 + 0.13 * a, 0.3 + 0.13 * b
        points = _polygon(
            *((-a, -0.95), (a, -0.95), (a, -b), (0.95, -b), (0.95, b), (a, b)),
            *((a, 0.95), (-a, 0.95), (-a, b), (-0.95, b), (-0.95, -b), (-a, -b)),
        )
    elif name == "ring":  # once around, and back along a smaller circle
        inner = (0.55 + 0.2 * a)[:, None, None]
        points = np.concatenate([np.tile(AROUND, (len(v), 1, 1)), inner * AROUND[::-1]], 1)
    elif name == "crescent":  # along a circle, and back along half an ellipse
        top, deep = MOON[0], np.stack([1 + 0.25 * a, np.ones(len(v))], 1)[:, None]
        inner = top * [1, 0] + deep * HALF[::-1] * [-1, -top[1]]
        points = np.concatenate([np.tile(MOON, (len(v), 1, 1)), inner], 1)
    else:
        head, half = 0.3 * a, 0.25 + 0.1 * b
        points = _polygon(
            *((0, -1), (0.8, head), (half, head), (half, 0.95)),
            *((0, 0.95), (-half, 0.95), (-half, head), (-0.8, head)),
        )
    return points * (1 + 0.25 * v[:, 0, None, None] * [1, -1])


def _polygon(*corners: tuple) -> np.ndarray:
    """Return polygons of 120 points, (N, 120, 2): as many on every side.

    A corner is (x, y), each a number or one for each polygon.
    """
    flat = np.broadcast_arrays(*(value for corner in corners for value in corner))
    here = np.stack(flat, 1).reshape(len(flat[0]), len(corners), 1, 2)
    share = np.arange(OUTLINE // len(corners))[:, None] / (OUTLINE // len(corners))
    points = here + share * (np.roll(here, -1, axis=1) - here)
    return points.reshape(len(here), OUTLINE, 2)


def _turn(half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine and sine of the angle whose half has this tangent."""
    return (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)


def _bent(points: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the points bent along parabolas, then twisted, more so further out."""
    v = v.T[:, :, None]
    x, y = points[..., 0], points[..., 1]
    x, y = (
        x + v[0] * 0.45 * (y * y - 0.4) + v[1] * 0.3 * x * y + v[2] * 0.3 * y * y * y,
        y + v[3] * 0.45 * (x * x - 0.4) + v[4] * 0.3 * x * y,
    )
    cosine, sine = _turn(v[5] * 0.3 * (x * x + y * y))
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], -1)


def _viewed(points: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the points tilted about an axis, seen from 3 away, and turned."""
    v = v.T[:, :, None]
    x, y = points[..., 0], points[..., 1]
    away = _turn(2 * u[:, :1] - 1)
    cosine, sine = _turn(v[1] / 3**0.5)
    across = x * away[0] + y * away[1]  # of the axis: this far it goes into the image
    nearer = 1 / (1 + across * sine / 3)
    x = nearer * (x + (cosine - 1) * across * away[0])
    y = nearer * (y + (cosine - 1) * across * away[1])
    cosine, sine = _turn(v[2])
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], -1)


def _factor(v: np.ndarray) -> np.ndarray:
    """Return how many times as large a shape is: 0.4 for v = -1, 1 for 0, 1.4 for 1."""
    return 1 / (1 - 1.5 * np.minimum(v, 0)) + 0.4 * np.maximum(v, 0)


def _bar(u: np.ndarray, strength: float) -> np.ndarray:
    """Return the corners of a bar over the shape, (N, 4, 2); the strength is its width."""
    u = u.T[:, :, None]
    cosine, sine = _turn(2 * u[0] - 1)
    along, sides = np.array([-3, 3, 3, -3]), np.array([-1, -1, 1, 1])
    across = 0.3 * (2 * u[1] - 1) + strength * (0.25 + 0.13 * u[2]) * sides
    return np.stack([cosine * along - sine * across, sine * along + cosine * across], -1)


def _pieces(u: np.ndarray) -> np.ndarray:
    """Return the corners of the clutter, (N, 4 * PIECES, 2), each piece somewhere."""
    u = u.reshape(len(u), PIECES, 13)
    corners = (u[..., 2:10] - 0.5).reshape(len(u), PIECES, 4, 2) * 0.7
    return (u[..., None, :2] - 0.5 + corners).reshape(len(u), -1, 2)


def _lights(u: np.ndarray, strength: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how light falls on each image, in whole numbers.

    light : (N, 3) at the first pixel, and what is added from row to row, column to column
    tint : (N, 3) how much of red, green and blue there is, of 256
    """
    whole = 1 - strength * 0.4 * u[:, 0]
    down, across = _turn(2 * u[:, 1] - 1)
    fade = 0.7 * (u[:, 2] - 0.5) + np.where(u[:, 2] < 0.5, -0.35, 0.35)
    fade *= whole * strength * 2 / size
    middle = (size - 1) / 2
    first = whole - fade * (down + across) * middle
    light = np.rint(FULL_LIGHT * np.stack([first, fade * down, fade * across], 1))
    tint = np.rint(256 - 112 * strength * u[:, 3:])
    return light.astype(np.int64), tint.astype(np.int64)
