import hashlib

import numpy as np
import pytest
from matplotlib.path import Path

from course.data import load
from course.data.polygons import add_ink, on_grid
from course.data.shapes import CHALLENGES, CLASSES, _outline, draw
from course.device import get_threads, set_threads

ALL = dict.fromkeys(CHALLENGES, 0.7)
each = pytest.mark.parametrize("challenge", CHALLENGES)


def test_with_all_challenges_off_the_images_of_a_class_are_alike():
    data = load("shapes", train=3, test=2)
    assert repr(data) == "shapes: 24 + 16 images of 32x32, 8 classes"
    for x, t in ((data.x_train, data.t_train), (data.x_test, data.t_test)):
        assert x.shape[1:] == (3, 32, 32) and x.dtype == np.float32
        np.testing.assert_array_equal(t, np.arange(len(t)) % 8)
        np.testing.assert_array_equal(x, data.x_train[t])
    assert len(np.unique(data.x_train, axis=0)) == 8


def test_every_class_is_drawn_as_matplotlib_says_what_lies_inside():
    x = load("shapes", train=1, test=1, size=64).x_train[:, 0]
    light, dark = x.max(), x.min()
    at = (np.arange(64) + 0.5) / 64 - 0.5
    points = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    for name, image in zip(CLASSES, x, strict=True):
        outline = 0.32 * _outline(name, np.zeros((1, 6)))[0]
        if name == "ring":  # two circles: matplotlib counts crossings
            inside = np.hypot(*points.T) < 0.32
            inside &= np.hypot(*points.T) > 0.55 * 0.32
        else:
            inside = Path(outline, closed=False).contains_points(points)
        drawn = image > (light + dark) / 2
        assert (drawn.ravel() != inside).mean() < 0.005, name


def test_edges_are_smooth():
    circle = load("shapes", train=1, test=1).x_train[0, 0]
    assert len(np.unique(circle)) > 10
    share = (circle - circle.min()) / (circle.max() - circle.min())
    assert share.sum() == pytest.approx(np.pi * (0.32 * 32) ** 2, rel=0.003)


def same(a, b):
    return a.x_train.tobytes() == b.x_train.tobytes() and (
        a.x_test.tobytes() == b.x_test.tobytes()
    )


def test_a_seed_decides_on_every_bit_whatever_the_number_of_threads():
    before, drawn = get_threads(), []
    try:
        for count in (1, 3):
            set_threads(count)
            drawn.append(load("shapes", train=6, test=2, seed=4, **ALL))
    finally:
        set_threads(before)
    assert same(*drawn)
    assert not same(drawn[0], load("shapes", train=6, test=2, seed=5, **ALL))


def test_every_machine_draws_the_same_bytes():
    # recorded on Linux x86-64
    digest = hashlib.sha256(draw(2, [0, 0], 32, ALL).tobytes()).hexdigest()
    assert digest == ("045842cc83ca60d0a058a82961d38a6a833a17fe53474921dc765b58dd66295c")


def test_a_larger_count_begins_with_the_same_images():
    small, large = (load("shapes", train=n, test=n, **ALL) for n in (2, 3))
    np.testing.assert_array_equal(small.x_train, large.x_train[:16])
    np.testing.assert_array_equal(small.x_test, large.x_test[:16])


def test_what_is_tested_on_was_not_learned():
    data = load("shapes", train=50, test=50, **ALL)
    both = np.concatenate([data.x_train, data.x_test])
    assert len(np.unique(both, axis=0)) == len(both)


@each
def test_each_challenge_alone_changes_the_images(challenge):
    off = load("shapes", train=4, test=1)
    on = load("shapes", train=4, test=1, **{challenge: 1.0})
    changed = np.abs(on.x_train - off.x_train).mean(axis=(1, 2, 3))
    assert (changed > 0.002).mean() > 0.9
    less = load("shapes", train=4, test=1, **{challenge: 0.3})
    assert np.abs(less.x_train - off.x_train).mean() < 0.7 * changed.mean()


@each
def test_turning_on_one_challenge_takes_no_random_number_from_the_others(challenge):
    others = {**ALL, challenge: 0.0}
    off = load("shapes", train=10, test=1, **others).x_train
    on = load("shapes", train=10, test=1, **{**others, challenge: 1e-9}).x_train
    np.testing.assert_allclose(on, off, atol=2.5 / 255)


@pytest.mark.parametrize("challenge", ["viewpoint", "scale", "deformation", "intra_class"])
def test_the_clutter_stays_where_it_is_whatever_happens_in_front(challenge):
    def images(**strengths):
        return load("shapes", train=10, test=1, **strengths).x_train

    plain, cluttered = images(), images(clutter=1.0)
    changed, both = images(**{challenge: 1.0}), images(**{challenge: 1.0, "clutter": 1.0})
    background = plain[0, :, 0, 0].reshape(1, 3, 1, 1)
    behind = ((plain == background) & (changed == background)).all(1, keepdims=True)
    behind = np.broadcast_to(behind, plain.shape)
    assert behind.mean() > 0.4 and (both != changed)[behind].mean() > 0.3
    np.testing.assert_array_equal(both[behind], cluttered[behind])


def test_light_falls_alike_on_whatever_is_there():
    def images(**strengths):
        return load("shapes", train=10, test=1, **strengths).x_train

    lit = images(illumination=1.0) / images()
    unlit, both = images(viewpoint=1.0), images(viewpoint=1.0, illumination=1.0)
    expected = lit * unlit
    uncut = (expected < 0.98) & (lit * images() < 0.98)
    np.testing.assert_allclose(both[uncut], expected[uncut], atol=0.03)


A_LITTLE = dict.fromkeys(CHALLENGES, 0.2)


@pytest.fixture(scope="module")
def learned():
    """Softmax regression, 5 epochs on 800 images with a little of each challenge."""
    data = load("shapes", train=100, test=1, channels=1, **A_LITTLE)
    x, right = data.x_train.reshape(800, -1), np.eye(8)[data.t_train]
    mean, w, rng = x.mean(axis=0), np.zeros((1024, 8)), np.random.default_rng(0)
    for _ in range(5):
        for batch in rng.permutation(800).reshape(-1, 20):
            e = np.exp((x[batch] - mean) @ w)
            p = e / e.sum(axis=1, keepdims=True)
            w += 0.01 * (x[batch] - mean).T @ (right[batch] - p)
    return mean, w


@each
def test_a_linear_classifier_falls_with_the_strength_of_each_challenge(learned, challenge):
    mean, w = learned
    accuracy = []
    for strength in (0.0, 0.5, 1.0):
        options = {**A_LITTLE, challenge: strength}
        data = load("shapes", train=1, test=100, channels=1, **options)
        scores = (data.x_test.reshape(800, -1) - mean) @ w
        accuracy.append((scores.argmax(axis=1) == data.t_test).mean())
    assert 0.9 < accuracy[0] > accuracy[1] > accuracy[2]
    assert accuracy[2] < accuracy[0] - 0.05


def test_grey_images_are_the_coloured_ones_in_grey():
    colour, grey = (load("shapes", train=3, test=1, channels=c, **ALL) for c in (3, 1))
    assert grey.x_train.shape == (24, 1, 32, 32) and grey.x_train.dtype == np.float32
    expected = np.einsum("nchw,c->nhw", colour.x_train, [0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey.x_train[:, 0], expected, atol=2 / 255)


@pytest.mark.parametrize("size", [8, 15, 96])
def test_another_size_shows_the_same_picture(size):
    small = load("shapes", train=1, test=1, size=size, **ALL).x_train
    large = load("shapes", train=1, test=1, size=4 * size, **ALL).x_train
    assert small.shape == (8, 3, size, size)
    pooled = large.reshape(8, 3, size, 4, size, 4).mean(axis=(3, 5))
    assert np.abs(pooled - small).mean() < 0.02


@pytest.mark.parametrize("height, width", [(5, 9), (12, 3)])
def test_ink_is_the_area_of_a_polygon_also_beyond_the_image(height, width):
    corners = np.array([[1.0, 1.0], [width + 4, 1.0], [width + 4, 3.5], [1.0, 3.5]])
    ink = np.zeros((height, width), np.int64)
    add_ink(ink, on_grid(corners), np.array([0, 4]))
    rows = np.clip(3.5 - np.arange(height), 0, 1) * (np.arange(height) >= 1)
    columns = (np.arange(width) >= 1).astype(float)
    np.testing.assert_array_equal(ink, 64 * np.outer(rows, columns))


@pytest.mark.parametrize(
    "options, error, says",
    [
        ({"clutter": 1.5}, ValueError, r"clutter must be from 0 \(off\) to 1, not 1.5"),
        ({"scale": -0.1}, ValueError, "scale must be from 0"),
        ({"viewpoint": "much"}, TypeError, "viewpoint must be a number, not 'much'"),
        ({"occlusion": np.nan}, ValueError, "occlusion must be finite"),
        ({"size": 4}, ValueError, "size must be at least 8, not 4"),
        ({"channels": 2}, ValueError, "channels must be 3, or 1 for grey, not 2"),
        ({"train": 0}, ValueError, "train must be at least 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"rotation": 1}, TypeError, "rotation"),
    ],
)
def test_what_cannot_be_is_refused(options, error, says):
    with pytest.raises(error, match=says):
        load("shapes", **options)
