"""course/viz/networks.py: the drawing of a network, and the sentence that says it."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Circle, FancyArrowPatch, Polygon

from course import zoo
from course.layers import (
    BatchNorm2d,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
    Upsample,
)
from course.model import Branches, Residual, Sequential
from course.viz import architecture
from course.zoo.lenet5 import lenet5


def conv(C, F, kernel=3, stride=1):
    """Return a convolution that keeps height and width, or halves them."""
    return Conv2d(C, F, kernel, stride, kernel // 2, rng=np.random.default_rng(0))


def block(C, F, stride):
    """Return a residual block, whose shortcut has a layer if the shape changes."""
    body = Sequential(conv(C, F, 3, stride), BatchNorm2d(F), ReLU(), conv(F, F))
    return Residual(body, None if C == F else conv(C, F, 1, stride), ReLU())


def forks():
    """Return a network with branches, of which one is empty and one a sum."""
    return Sequential(
        Branches(conv(2, 3), Sequential(MaxPool2d(3, 1, 1), conv(2, 4)), Sequential()),
        Branches(block(9, 9, 1), conv(9, 2, 5)),
        GlobalAvgPool2d(),
    )


def fronts(picture):
    """Return the fronts of the blocks, as (left, low, right, high), in drawing order."""
    found = []
    for patch in picture.fig.axes[0].patches:
        corners = patch.get_xy() if isinstance(patch, Polygon) else np.empty((0, 2))
        a, b, c = corners[:3] if len(corners) == 5 else np.zeros((3, 2))
        if a[1] == b[1] < c[1] and b[0] == c[0]:
            found.append((*a, *c))
    return np.array(found)


def texts(picture):
    """Return what is written."""
    return [text.get_text() for text in picture.fig.axes[0].texts if text.get_text()]


def test_lenet5_in_words():
    picture = architecture(lenet5(rng=np.random.default_rng(0)), (1, 28, 28))
    assert picture.alt == (
        "A network of 2 convolutions, 2 pools and 3 dense layers, from left to right. It "
        "makes 1 x 28 x 28 -> 6 x 28 x 28 -> 6 x 14 x 14 -> 16 x 10 x 10 -> 16 x 5 x 5 -> "
        "120 -> 84 -> 10. It has 61 706 parameters and takes 416 520 multiply-adds for one "
        "image."
    )
    assert texts(picture) == [
        "61 706 parameters, 416 520 multiply-adds", "1", "6", "16", "120", "84", "10",
        "28 x 28", "14 x 14", "10 x 10", "5 x 5",
    ]  # fmt: skip


def test_blocks_are_as_large_as_the_square_roots_say():
    """28, 28, 14, 10 and 5 pixels; 1, 6 and 16 channels; 120, 84 and 10 numbers."""
    picture = architecture(lenet5(rng=np.random.default_rng(0)), (1, 28, 28))
    left, low, right, high = fronts(picture).T
    pixels = ((high - low)[:5] / (high - low)[0]) ** 2 * 28
    np.testing.assert_allclose(pixels, [28, 28, 14, 10, 5])
    thick = (right - left)[:5].round(6)
    assert thick[0] < thick[1] == thick[2] < thick[3] == thick[4]
    bars = (high - low)[5:]
    assert bars[0] > bars[1] > bars[2] and len(bars) == 3


def test_rectangles_are_rectangles():
    """A map of 8 x 32 is half as high as it is deep; 1-D signals are one pixel high."""
    wide = architecture(Sequential(conv(1, 1)), (1, 8, 32))
    corners = [p.get_xy() for p in wide.fig.axes[0].patches][1]  # the face of the input
    assert corners[1, 1] - corners[0, 1] < np.ptp(corners[:, 1])
    deep = (corners[2, 0] - corners[1, 0]) / 0.36
    np.testing.assert_allclose((corners[1, 1] - corners[0, 1]) / deep, 0.5)
    signal = Sequential(Conv1d(2, 3, 5, rng=np.random.default_rng(0)), ReLU())
    assert "1 convolution, from left to right. It makes 2 x 20 -> 3 x 16." in (
        architecture(signal, (2, 20)).alt
    )


def test_a_bow_goes_round_every_body():
    """Dashed where the shape changes; it ends in a plus."""
    model = Sequential(conv(3, 4), ReLU(), block(4, 4, 1), block(4, 8, 2), block(8, 8, 1))
    picture = architecture(model, (3, 16, 16))
    patches = picture.fig.axes[0].patches
    bows = [patch for patch in patches if isinstance(patch, FancyArrowPatch)]
    assert [bow.get_linestyle() == "-" for bow in bows] == [True, False, True]
    assert sum(isinstance(patch, Circle) for patch in patches) == 3
    assert "7 convolutions and 3 residual sums" in picture.alt
    highest = fronts(picture)[:, 3].max()
    assert all(bow.get_path().vertices[:, 1].max() > 0 for bow in bows) and highest > 0


def test_branches_lie_one_above_the_other():
    picture = architecture(forks(), (2, 12, 12))
    assert picture.alt.startswith(
        "A network of 5 convolutions, 2 pools, 2 joins of branches and 1 residual sum, "
    )
    assert "2 x 12 x 12 -> 9 x 12 x 12 -> 11 x 12 x 12 -> 11 x 1 x 1." in picture.alt
    boxes = fronts(picture)
    one, pool, four, joined = boxes[1:5]
    middles = [(low + high) / 2 for _, low, _, high in (one, pool, four, joined)]
    assert middles[0] > middles[3] and middles[1] == middles[2] < middles[0]
    assert joined[0] > max(one[2], four[2])


def test_networks_that_grow_again():
    options = {"rng": np.random.default_rng(0)}
    model = Sequential(
        conv(1, 2, 3, 2), Upsample(2), ConvTranspose2d(2, 1, 2, 2, **options), Flatten(),
        Linear(256, 3, **options),
    )  # fmt: skip
    picture = architecture(model, (1, 8, 8))
    assert "2 convolutions, 1 up-sampling and 1 dense layer" in picture.alt
    legend = [text.get_text() for text in picture.fig.axes[0].get_legend().get_texts()]
    assert legend == ["input", "convolution", "up-sampling", "dense"]


@pytest.mark.parametrize(
    "name, shape",
    [
        ("lenet5_1998", (1, 28, 28)),
        ("convnetjs", (3, 32, 32)),
        ("resnet8", (3, 32, 32)),
        ("resnet20", (3, 32, 32)),
        ("resnet56", (3, 32, 32)),
        ("autoencoder", (1, 28, 28)),
        ("googlenet", (3, 224, 224)),
    ],
)
def test_every_kind_of_network_fits_its_figure(name, shape):
    """Nothing is cut off, no block hides the front of another, no label lies on another."""
    picture = architecture(getattr(zoo, name)(), shape)
    axes = picture.fig.axes[0]
    wide, high = picture.fig.get_size_inches()
    assert wide <= 9 and high <= 16
    boxes = fronts(picture)
    (left, right), (low, top) = axes.get_xlim(), axes.get_ylim()
    assert boxes[:, 0].min() >= left and boxes[:, 2].max() <= right
    assert boxes[:, 1].min() >= low and boxes[:, 3].max() <= top
    for k, (a, b, c, d) in enumerate(boxes):
        for e, f, g, h in boxes[k + 1 :]:
            assert e >= c or g <= a or f >= d or h <= b
    canvas = FigureCanvasAgg(picture.fig)
    canvas.draw()
    renderer = canvas.get_renderer()
    words = [text for text in axes.texts if text.get_text()]
    places = [text.get_window_extent(renderer) for text in words]
    assert len(places) > 8
    whole = picture.fig.bbox
    for k, place in enumerate(places):
        assert whole.x0 <= place.x0 and place.x1 <= whole.x1, words[k].get_text()
        for other, word in zip(places[k + 1 :], words[k + 1 :], strict=True):
            same = place.overlaps(other.padded(-1))
            assert not same, f"{words[k].get_text()} on {word.get_text()}"


def test_the_network_may_say_its_shape():
    model = Sequential(*lenet5(rng=np.random.default_rng(0)))
    with pytest.raises(ValueError, match="say for which images"):
        architecture(model)
    model.input_shape = (1, 28, 28)
    assert architecture(model).alt == architecture(model, (1, 28, 28)).alt


def test_drawing_changes_nothing():
    model = Sequential(BatchNorm2d(2), ReLU())
    before = [array.copy() for array in model.state_dict().values()]
    architecture(model, (2, 4, 4))
    assert model.training and all(map(np.array_equal, before, model.state_dict().values()))
