"""course/summary.py: costs and receptive fields as published, and by asking the pixels."""

from copy import deepcopy

import numpy as np
import pytest

from course.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Linear,
    LocallyConnected2d,
    MaxPool2d,
    ReLU,
    Reshape,
    Subsampling2d,
    Upsample,
)
from course.layers.base import Layer
from course.model import Branches, Residual, Sequential
from course.summary import summary
from course.zoo.lenet5 import lenet5


@pytest.fixture
def rng():
    """Return a generator."""
    return np.random.default_rng(0)


class Cheap(np.random.Generator):
    """Draws no numbers: only shapes matter here, and 138 million normals take seconds."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def normal(self, loc=0.0, scale=1.0, size=None):
        """Return zeros, of which the system gives memory when they are written."""
        return np.broadcast_to(np.float32(0), size)


class Shapes:
    """What the table needs of an array: its shape and size."""


def test_lenet5_by_hand(rng):
    """6*28*28*25, 16*10*10*150, 400*120, 120*84 and 84*10 products; fields by the rule."""
    table = lenet5(rng=rng).summary((1, 28, 28))
    products = [row.multiply_adds for row in table.rows if row.multiply_adds]
    assert products == [117_600, 240_000, 48_000, 10_080, 840]
    assert (table.parameters, table.multiply_adds) == (61_706, 416_520)
    fields = [(row.receptive_field, row.jump) for row in table.rows]
    assert fields[0] == ((5, 5), (1, 1))
    assert fields[2] == ((6, 6), (2, 2))
    assert fields[3] == ((14, 14), (2, 2))
    assert fields[5] == ((16, 16), (4, 4))
    assert fields[7] == ((32, 32), (4, 4))
    numbers = 2 * 6 * 28 * 28 + 6 * 14 * 14 + 2 * 16 * 10 * 10 + 16 * 5 * 5 + 2 * 204 + 10
    assert table.memory == 4 * numbers
    assert [row.output_shape for row in table.rows[-7:-4]] == [(16, 5, 5), (400,), (120,)]


def test_the_table_says_it_all(rng):
    text = repr(lenet5(rng=rng).summary((1, 28, 28))).splitlines()
    assert text[0] == "Sequential on 1 x 28 x 28"
    assert text[2].split() == [
        "layer", "kind", "output", "parameters", "multiply-adds", "memory", "field", "jump",
    ]  # fmt: skip
    assert " ".join(text[4].split()) == (
        "0 Conv2d 6 x 28 x 28 156 117 600 18.8 kB 5 x 5 1 x 1"
    )
    assert text[-1] == (
        "61 706 parameters (246.8 kB in float32), 416 520 multiply-adds and 58.4 kB of "
        "activations for one image."
    )
    assert (
        len(text) == 4 + 12 + 2
        and len({len(line) for line in text if "-" * 9 in line}) == 1
    )


def test_a_script_prints_it_and_a_notebook_shows_it(rng, capsys, monkeypatch):
    table = lenet5(rng=rng).summary((1, 28, 28))
    assert capsys.readouterr().out == f"{table!r}\n"
    monkeypatch.setattr("sys.ps1", ">>> ", raising=False)
    lenet5(rng=rng).summary((1, 28, 28))
    assert capsys.readouterr().out == ""


def test_the_network_may_say_its_shape(rng):
    model = lenet5(rng=rng)
    with pytest.raises(
        ValueError, match=r"say for which images: input_shape=\(3, 32, 32\)"
    ):
        model.summary()
    model.input_shape = (1, 28, 28)
    assert model.summary().multiply_adds == 416_520
    assert model.summary()["7"].parameters == 48_120
    with pytest.raises(KeyError, match="there is no layer fc"):
        model.summary()["fc"]


@pytest.mark.parametrize("shape", [28, (1, 0, 28), ("1", 28, 28), "128", (1.0, 28, 28)])
def test_what_is_no_shape_is_refused(shape, rng):
    with pytest.raises(ValueError, match="input_shape is .*; it must be like"):
        summary(lenet5(rng=rng), shape)


def test_images_that_do_not_fit_are_refused(rng):
    with pytest.raises(ValueError, match=r"^0: x has 3 channels, w expects 1$"):
        lenet5(rng=rng).summary((3, 28, 28))


# --- published numbers -------------------------------------------------------------------

DISTILL = "Araujo, Norris & Sim, Distill 2019"
COSTS = {  # in units of 1e9, as torchvision.models states them for 224 x 224
    "vgg11": 7.61,
    "vgg16": 15.47,
    "resnet18": 1.81,
    "resnet50": 4.09,
}
FIELDS = {  # DISTILL, table 1; VGG's layers by the same rule
    "vgg16": {"features.28": 196, "features.30": 212},
    "resnet50": {"layer4.2.after": 483},
    "resnet101": {"layer4.2.after": 1027},
}


@pytest.fixture(scope="module")
def tables():
    """Return name -> the summary of a large network, made when it is first asked for."""
    made = {}

    def table(name):
        if name not in made:
            network = __import__("course.zoo", fromlist=[name])
            made[name] = getattr(network, name)(rng=Cheap()).summary((3, 224, 224))
        return made[name]

    return table


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTS)
def test_costs_are_the_published_ones(name, tables):
    assert round(tables(name).multiply_adds / 1e9, 2) == COSTS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_the_published_ones(name, tables):
    table = tables(name)
    for layer, pixels in FIELDS[name].items():
        assert table[layer].receptive_field == (pixels, pixels), DISTILL


def field_of(*windows):
    """Return the field after windows (taps, stride), built from small layers."""
    rng = np.random.default_rng(0)
    layers = [
        Conv2d(1, 1, taps, stride, taps // 2, rng=rng) if taps > 1 else ReLU()
        for taps, stride in windows
    ]
    return Sequential(*layers).summary((1, 64, 64)).receptive_field
