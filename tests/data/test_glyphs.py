import hashlib
import os
from itertools import pairwise

import numpy as np
import pytest
from fontTools.pens.boundsPen import BoundsPen
from fontTools.ttLib import TTFont
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from course.data import glyphs, load
from course.data.polygons import GRID, add_ink

SMALL = {"train": 2, "test": 1}


def same(a, b):
    return all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in ("x_train", "t_train", "x_test", "t_test")
    )


def cached_file(cache):
    (file,) = (cache / "data").iterdir()
    return file


def test_drawn_again_the_file_has_the_same_bytes(cache):
    first = load("glyphs", **SMALL)
    file = cached_file(cache)
    before = file.read_bytes()
    file.unlink()
    assert same(first, load("glyphs", **SMALL))
    assert cached_file(cache).read_bytes() == before


def test_the_second_call_reads_what_the_first_one_drew(cache, monkeypatch):
    first = load("glyphs", **SMALL)
    monkeypatch.delattr(glyphs, "draw")
    assert same(first, load("glyphs", **SMALL))


def test_every_machine_draws_the_same_bytes(cache):
    # recorded on Linux x86-64 from the fonts of matplotlib 3.10.0 and 3.11.2
    data = load("glyphs", **SMALL)
    digest = hashlib.sha256(data.x_train.tobytes() + data.x_test.tobytes()).hexdigest()
    assert digest == ("b0e74ecb773f26f42945bf4827e3cdd727cf3d3f20c18c1bd1fa37e020fda4af")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda b: b"", id="empty"),
        pytest.param(lambda b: b[: len(b) // 2], id="cut short"),
        pytest.param(lambda b: b"not an archive" * 100, id="text"),
        pytest.param(lambda b: b[:5000] + bytes([b[5000] ^ 1]) + b[5001:], id="one bit"),
        pytest.param(lambda b: b.replace(b"test.npy", b"tset.npy"), id="a part missing"),
    ],
)
def test_a_damaged_file_is_drawn_again(cache, damage):
    first = load("glyphs", **SMALL)
    file = cached_file(cache)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert file.read_bytes() != whole
    assert same(first, load("glyphs", **SMALL))
    assert file.read_bytes() == whole


def test_a_file_of_another_count_is_drawn_again(cache):
    first = load("glyphs", **SMALL)
    file = cached_file(cache)
    whole = file.read_bytes()
    np.savez(file, train=np.zeros((1, 28, 28), np.uint8), test=np.zeros((1, 28, 28)))
    assert same(first, load("glyphs", **SMALL))
    assert file.read_bytes() == whole


def test_an_older_drawing_is_removed_and_another_seed_kept(cache):
    load("glyphs", **SMALL, seed=1)
    old = cache / "data" / "glyphs-2-1-0-0123456789abcdef.npz"
    old.write_bytes(b"")
    load("glyphs", **SMALL)
    assert not old.exists()
    assert len(list((cache / "data").iterdir())) == 2


def test_where_nothing_can_be_written_the_images_are_still_drawn(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load("glyphs", **SMALL).x_train) == 72
    assert os.listdir(tmp_path) == ["file"]


def test_another_seed_draws_other_images_and_a_larger_count_begins_the_same(cache):
    first = load("glyphs", **SMALL)
    assert not same(first, load("glyphs", **SMALL, seed=1))
    larger = load("glyphs", train=3, test=2)
    assert larger.x_train[:72].tobytes() == first.x_train.tobytes()
    assert larger.x_test[:36].tobytes() == first.x_test.tobytes()


def test_no_font_is_in_both_parts():
    assert not set(glyphs.TRAIN_FONTS) & set(glyphs.TEST_FONTS)
    assert not any(font.startswith("STIX") for font in glyphs.TRAIN_FONTS)


@pytest.mark.parametrize("font", (*glyphs.TRAIN_FONTS, *glyphs.TEST_FONTS))
def test_an_outline_has_the_extent_of_its_curves(font):
    with TTFont(glyphs._file(font)) as file:
        names, shapes = file.getBestCmap(), file.getGlyphSet()
        for character, (points, starts) in glyphs.outlines(font).items():
            pen = BoundsPen(shapes)  # solves for the extremes of each curve
            shapes[names[ord(character)]].draw(pen)
            left, bottom, right, top = pen.bounds
            stated = np.array([right - left, top - bottom])
            size = points.max(0) - points.min(0)
            np.testing.assert_allclose(size, 18 * stated / stated.max(), atol=0.1)
            np.testing.assert_allclose(points.max(0), -points.min(0), atol=1e-9)
            assert starts[0] == 0 and starts[-1] == len(points)


def test_the_most_distorted_characters_stay_inside_the_image():
    # each of turn, shear, stretch at its ends; both shifts at one end together
    corners = (np.arange(32)[:, None] >> [0, 1, 2, 3, 4, 4] & 1).astype(float)
    for font in (*glyphs.TRAIN_FONTS, *glyphs.TEST_FONTS):
        for points, _ in glyphs.outlines(font).values():
            for u in corners:
                placed = glyphs._distorted(points, u)
                assert placed.min() >= 0 and placed.max() <= 28 * GRID


def test_no_distortion_leaves_the_character_upright_in_the_middle():
    points = np.array([[-9.0, -4.0], [9.0, 4.0]])
    middle = np.array([0.5, 0.5, 0.75, 0.75, 0.5, 0.5])  # 0.85 + 0.2 * 0.75 = 1
    expected = [[5 * 256, 18 * 256], [23 * 256, 10 * 256]]
    np.testing.assert_array_equal(glyphs._distorted(points, middle), expected)


def test_turning_keeps_lengths_and_goes_no_further_than_12_degrees():
    points = np.array([[0.0, 0.0], [9.0, 0.0]])
    for share, degrees in ((0.0, -12), (1.0, 12)):
        u = np.array([share, 0.5, 0.75, 0.75, 0.5, 0.5])
        centre, tip = glyphs._distorted(points, u) / 256
        assert np.hypot(*(tip - centre)) == pytest.approx(9, abs=0.01)
        angle = np.degrees(np.arctan2(-(tip - centre)[1], (tip - centre)[0]))
        assert angle == pytest.approx(degrees, abs=0.05)


@pytest.mark.parametrize("font, character", [("DejaVuSerif", "B"), ("cmr10", "8")])
def test_ink_counts_the_points_whose_winding_number_is_not_0(font, character):
    points, starts = glyphs.outlines(font)[character]
    placed = glyphs._distorted(points, np.array([0.9, 0.2, 0.3, 1.0, 0.0, 0.7]))
    ink = np.zeros((28, 28), np.int64)
    add_ink(ink, placed, starts)

    at = (np.arange(28 * 8) + 0.5) * 32 + 1
    x, y = np.meshgrid(at, at)
    turns = np.zeros_like(x)
    for first, past in pairwise(starts):
        polygon = placed[first:past]
        for (x0, y0), (x1, y1) in zip(np.roll(polygon, 1, 0), polygon, strict=True):
            before, after = np.arctan2(y0 - y, x0 - x), np.arctan2(y1 - y, x1 - x)
            turns += (after - before + np.pi) % (2 * np.pi) - np.pi
    inside = np.abs(turns) > np.pi
    expected = inside.reshape(28, 8, 28, 8).sum(axis=(1, 3))
    np.testing.assert_array_equal(ink, expected)


def test_printing_keeps_to_the_stated_ranges():
    ink = np.full((28, 28), 64)
    grey = np.full((28, 28), 0.5)
    for u, full in ((0.0, 160), (1 - 1e-9, 255)):
        plain = glyphs._printed(ink, np.array([0.0, u, 0.0]), grey)
        assert plain.min() == plain.max() == full
    low, high = (
        glyphs._printed(ink * 0 + 32, np.array([0.0, 0.0, 1 - 1e-9]), grey * 0 + noise)
        for noise in (0.0, 1 - 1e-9)
    )
    assert (low == 80 - 24).all() and (high == 80 + 24).all()


def test_blurring_weighs_neighbours_by_1_2_1():
    dot = np.zeros((28, 28), np.int64)
    dot[10, 12] = 160
    expected = np.zeros((28, 28), np.int64)
    expected[9:12, 11:14] = 10 * np.outer([1, 2, 1], [1, 2, 1])
    np.testing.assert_array_equal(glyphs._blurred(dot), expected)


def test_labels_belong_to_their_images(cache):
    # the mean image of most classes looks most like that character as matplotlib draws it;
    # of the others, B looks like 8 and Q like 0 (labels one off: 0 of 36)
    data = load("glyphs", train=20, test=20)
    templates = np.stack([_unit(_as_matplotlib_draws(c)) for c in data.classes])
    for x, t in ((data.x_train, data.t_train), (data.x_test, data.t_test)):
        means = np.stack([_unit(x[t == c].mean(0)) for c in range(36)])
        alike = means @ templates.T
        assert (alike.argmax(axis=1) == np.arange(36)).sum() >= 26


def _unit(image):
    """The image as a vector of mean 0 and length 1."""
    vector = image.ravel() - image.mean()
    return vector / np.linalg.norm(vector)


def _as_matplotlib_draws(character):
    """The character in DejaVu Sans, 28x28, its longer side 18 pixels, 1 is ink."""
    font = FontProperties(family="DejaVu Sans")
    path = TextPath((0, 0), character, size=100, prop=font)
    box = path.get_extents()
    place = Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2)
    place.scale(18 / max(box.width, box.height)).translate(14, 14)
    figure = Figure(figsize=(1, 1), dpi=28)
    figure.add_artist(PathPatch(path, transform=place, color="black", linewidth=0))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return 1 - np.asarray(canvas.buffer_rgba())[:, :, 0] / 255


@pytest.mark.parametrize("options", [{"train": 0}, {"test": -1}, {"seed": -1}])
def test_counts_and_seeds_that_cannot_be_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        load("glyphs", **options)
