"""course/summary.py: costs and receptive fields as published, and by asking the pixels."""

from copy import deepcopy

import numpy as np
import pytest

from course import zoo
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
    model = Sequential(*lenet5(rng=rng))
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
    with pytest.raises(ValueError, match=r"input_shape is .*; it must be like"):
        summary(lenet5(rng=rng), shape)


def test_images_that_do_not_fit_are_refused(rng):
    with pytest.raises(ValueError, match=r"^0: x has 3 channels, w expects 1$"):
        lenet5(rng=rng).summary((3, 28, 28))


# --- published numbers -------------------------------------------------------------------

COSTS = {  # in units of 1e9, as torchvision.models states them for its networks
    ("vgg16", 224): 15.47,
    ("resnet18", 224): 1.81,
    ("resnet50", 224): 4.09,
    ("alexnet", 224): 0.71,
}
FIELDS = {  # Araujo, Norris & Sim, Distill 2019, table 1; VGG's conv5_3 by the same rule
    ("vgg16", 224): {"features.28": 196, "features.30": 212},
    ("resnet50", 224): {"layer4.2.after": 483},
    ("resnet101", 224): {"layer4.2.after": 1027},
    ("alexnet", 224): {"features.12": 195},
}


@pytest.fixture(scope="module")
def large():
    """Return (name, pixels) -> the network and its summary; each is made once."""
    made = {}

    def network(name, pixels):
        if (name, pixels) not in made:
            options = {"variant": "torchvision"} if name == "alexnet" else {}
            model = getattr(zoo, name)(rng=Cheap(), **options)
            made[name, pixels] = model, model.summary((3, pixels, pixels))
        return made[name, pixels]

    return network


@pytest.mark.parametrize("name, pixels", COSTS)
def test_costs_are_the_published_ones(name, pixels, large):
    _, table = large(name, pixels)
    assert round(table.multiply_adds / 1e9, 2) == COSTS[name, pixels]


@pytest.mark.parametrize("name, pixels", FIELDS)
def test_fields_are_the_published_ones(name, pixels, large):
    model, table = large(name, pixels)
    if name.startswith(
        "resnet"
    ):  # torchvision has moved the stride; the paper has it first
        for stage in (model.children[f"layer{k}"] for k in (2, 3, 4)):
            first = stage.layers[0].children
            first["conv1"].window["stride"], first["conv2"].window["stride"] = (
                (2, 2),
                (1, 1),
            )
        table = model.summary((3, pixels, pixels))
    for layer, size in FIELDS[name, pixels].items():
        assert table[layer].receptive_field == (size, size)


# --- by asking the pixels ----------------------------------------------------------------


def seen_by_the_middle(model, shape):
    """Return how many rows and columns of the input reach the output in the middle.

    A row of NaN in the image makes NaN of every number that depends on it.
    """
    C, H, W = shape
    rows, columns = np.ones((2, H, C, H, W))
    for k in range(H):
        rows[k, :, k], columns[k, :, :, k] = np.nan, np.nan
    found = []
    for x in (rows, columns):
        y = model.forward(x)
        middle = y if y.ndim == 2 else y[:, :, y.shape[2] // 2, y.shape[3] // 2]
        reached = np.flatnonzero(np.isnan(middle).any(axis=1))
        assert (np.diff(reached) <= 3).all()
        found.append(int(reached[-1] - reached[0] + 1))
    return tuple(found)


def chains():
    """Return name -> network, for images of 2 x 41 x 41."""
    options = {"rng": np.random.default_rng(0), "dtype": np.float64}

    def conv(C, F, *window, **more):
        return Conv2d(C, F, *window, **more, **options)

    wide = Sequential(conv(2, 3, 3, padding=1), ReLU(), conv(3, 3, 5, padding=2))
    return {
        "one": [conv(2, 2, 3, padding=1)],
        "rectangle": [conv(2, 2, (3, 5), padding=(1, 2)), conv(2, 2, (1, 3), (2, 1))],
        "pools": [conv(2, 2, 3, padding=1), MaxPool2d(2), conv(2, 2, 3), AvgPool2d(2)],
        "stride": [conv(2, 2, 5, 2), ReLU(), conv(2, 2, 3, 2), conv(2, 2, 3)],
        "dilation": [
            conv(2, 2, 3, dilation=2),
            conv(2, 2, 3, 2),
            conv(2, 2, 3, dilation=3),
        ],
        "overlapping": [MaxPool2d(3, 2), MaxPool2d(3, 2, ceil_mode=True)],
        "sub-sampling": [Subsampling2d(2, 3, dtype=np.float64), conv(2, 2, 2)],
        "residual": [Residual(wide, conv(2, 3, 1)), conv(3, 2, 3)],
        "identity": [Residual(Sequential(conv(2, 2, 3, padding=1)), after=ReLU())],
        "branches": [Branches(conv(2, 2, 1), wide, conv(2, 2, 3, padding=1)), AvgPool2d(2)],
        "norm": [
            conv(2, 2, 3),
            BatchNorm2d(2, dtype=np.float64),
            Dropout(rng=options["rng"]),
        ],
        "doubled": [MaxPool2d(2), Upsample(2), conv(2, 2, 3)],
        "upwards": [MaxPool2d(4), ConvTranspose2d(2, 2, 2, 2, **options), conv(2, 2, 3)],
        "local": [AvgPool2d(8), LocallyConnected2d(2, 2, 5, 3, **options)],
    }


@pytest.mark.parametrize("name", chains())
def test_the_field_is_what_reaches_a_number(name):
    """Not by the rule: which pixels change an output, in the middle of the image."""
    model = Sequential(*chains()[name]).eval()
    table = model.summary((2, 41, 41))
    assert seen_by_the_middle(model, (2, 41, 41)) == table.receptive_field


def test_a_dense_layer_sees_all_of_its_input():
    """After a 3 x 3 window with stride 2, 5 x 5 numbers reach 3 + 4 * 2 = 11 pixels."""
    options = {"rng": np.random.default_rng(0), "dtype": np.float64}
    model = Sequential(Conv2d(2, 2, 3, 2, **options), Flatten(), Linear(50, 3, **options))
    table = model.summary((2, 11, 11))
    assert table["1"].receptive_field == (3, 3)
    assert seen_by_the_middle(model, (2, 11, 11)) == table.receptive_field == (11, 11)


@pytest.mark.parametrize("last", [GlobalAvgPool2d(), GroupNorm(1, 2, dtype=np.float64)])
def test_what_averages_a_plane_sees_the_plane(last):
    options = {"rng": np.random.default_rng(0), "dtype": np.float64}
    model = Sequential(Conv2d(2, 2, 3, 2, **options), last)
    assert model.summary((2, 11, 11)).receptive_field == (11, 11)
    assert seen_by_the_middle(model, (2, 11, 11)) == (11, 11)


def test_what_is_unfolded_from_one_number_sees_what_it_saw():
    """A decoder after a code: every pixel depends on the whole input, and on no more."""
    options = {"rng": np.random.default_rng(0), "dtype": np.float64}
    model = Sequential(
        Flatten(), Linear(32, 3, **options), Linear(3, 9, **options), Reshape(1, 3, 3),
        ConvTranspose2d(1, 1, 2, 2, **options), Conv2d(1, 1, 3, padding=1, **options),
    )  # fmt: skip
    table = model.summary((2, 4, 4))
    assert table.receptive_field == (4, 4) and table.jump == (0, 0)


def test_the_jump_after_doubling_is_half():
    options = {"rng": np.random.default_rng(0)}
    model = Sequential(Conv2d(1, 1, 3, 2, **options), Upsample(2), Upsample(2))
    table = model.summary((1, 9, 9))
    assert [row.jump[0] for row in table.rows] == [2, 1, 0.5]
    assert "1/2 x 1/2" in repr(table)


class Mystery(Layer):
    """A layer of a student's own that halves images in its own way."""

    def forward(self, x):
        return np.ascontiguousarray(x[:, :, ::2, ::2])


class Squared(Layer):
    """A layer of a student's own that takes each pixel alone."""

    def forward(self, x):
        return x * x


def test_nobody_knows_what_an_unknown_layer_sees(rng):
    table = Sequential(Squared(), Mystery(), Conv2d(1, 1, 3, rng=rng)).summary((1, 8, 8))
    assert [row.receptive_field for row in table.rows] == [(1, 1), None, None]
    assert repr(table).splitlines()[5].split()[-2:] == ["?", "?"]
    assert table.multiply_adds == 2 * 2 * 9


def test_signals_have_one_axis(rng):
    table = Sequential(Conv1d(2, 3, 5, 2, rng=rng), ReLU()).summary((2, 20))
    assert table.receptive_field == (5,) and table.rows[0].output_shape == (3, 8)
    assert table.multiply_adds == 3 * 8 * 2 * 5


def test_rows_of_numbers_see_nothing_of_an_image(rng):
    table = Sequential(Linear(4, 3, rng=rng), ReLU()).summary((4,))
    assert table.receptive_field == () and table.multiply_adds == 12
    assert Sequential().summary((4,)).rows == []


def test_products_of_every_kind_of_layer(rng):
    """Counted by hand: each output is a sum of so many products."""
    for layer, shape, products in (
        (Conv2d(4, 6, 3, groups=2, bias=False, rng=rng), (4, 5, 5), 6 * 9 * 2 * 9),
        (ConvTranspose2d(4, 6, 3, 2, rng=rng), (4, 5, 5), 4 * 25 * 6 * 9),
        (LocallyConnected2d(4, 6, 5, 3, rng=rng), (4, 5, 5), 6 * 9 * 4 * 9),
        (BatchNorm2d(4), (4, 5, 5), 0),
        (MaxPool2d(2), (4, 5, 5), 0),
    ):
        assert Sequential(layer).summary(shape).multiply_adds == products


def test_shared_weights_count_once(rng):
    conv = Conv2d(2, 2, 3, padding=1, rng=rng)
    table = Sequential(conv, ReLU(), conv).summary((2, 6, 6))
    assert [row.parameters for row in table.rows] == [38, 0, 0]
    assert table.parameters == 38 and table.multiply_adds == 2 * 36 * 36
    assert table.receptive_field == (5, 5)


# --- it changes nothing ------------------------------------------------------------------


def test_a_summary_changes_nothing(rng):
    """Neither statistics, masks, modes nor memories: the next step has the same bits."""

    def network():
        rng = np.random.default_rng(1)
        return Sequential(
            Conv2d(1, 3, 3, rng=rng), BatchNorm2d(3), ReLU(), MaxPool2d(2),
            Residual(Sequential(Conv2d(3, 3, 3, padding=1, rng=rng), BatchNorm2d(3))),
            Dropout(rng=rng), Flatten(), Linear(27, 2, rng=rng),
        )  # fmt: skip

    model, other = network(), network()
    model.layers[1].eval()
    other.layers[1].eval()
    x = rng.normal(size=(4, 1, 8, 8)).astype(np.float32)
    for net in (model, other):
        net.forward(x)
    before = deepcopy(model.state_dict())
    assert model.summary((1, 8, 8)).parameters == 30 + 6 + 84 + 6 + 56
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert [leaf.training for _, leaf in model.leaves()] == [
        leaf.training for _, leaf in other.leaves()
    ]
    dy = np.ones((4, 2), np.float32)
    np.testing.assert_array_equal(model.backward(dy), other.backward(dy))
    np.testing.assert_array_equal(model.forward(x), other.forward(x))


def test_a_network_for_training_is_seen_as_in_use(rng):
    """One number has no variance: batch normalisation must not be asked for it."""
    model = Sequential(GlobalAvgPool2d(), BatchNorm2d(2))
    assert model.summary((2, 3, 3)).memory == 4 * 4 and model.training


@pytest.mark.parametrize(
    "name", ["lenet5", "lenet5_1998", "convnetjs", "resnet20", "plain20"]
)
def test_a_network_of_the_zoo_knows_its_images(name):
    """From the first layer to as many scores as there are classes."""
    model = getattr(zoo, name)()
    assert model.summary().rows[-1].output_shape == (10,)


def test_other_images_make_other_networks():
    assert zoo.autoencoder((3, 32, 32)).input_shape == (3, 32, 32)
    assert zoo.from_grammar("CONV,SOFTMAX", (1, 9, 9)).input_shape == (1, 9, 9)
    assert zoo.alexnet(rng=Cheap()).input_shape == (3, 227, 227)
    assert zoo.alexnet(variant="torchvision", rng=Cheap()).input_shape == (3, 224, 224)


def test_a_network_from_a_file_has_the_same_table(tmp_path):
    """What an ONNX file describes is a graph without blocks; it costs and sees the same."""
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    from course import onnx

    rng = np.random.default_rng(0)
    body = Sequential(
        Conv2d(2, 3, 3, 2, 1, rng=rng), ReLU(), Conv2d(3, 3, 3, padding=1, rng=rng)
    )
    model = Sequential(
        Residual(body, Conv2d(2, 3, 1, 2, rng=rng), ReLU()),
        Branches(MaxPool2d(3, 1, 1), Conv2d(3, 2, 5, padding=2, rng=rng)),
        Flatten(), Linear(80, 4, rng=rng),
    )  # fmt: skip
    model.input_shape = (2, 8, 8)
    mine = model.summary()
    onnx.save(model, tmp_path / "model.onnx")
    theirs = onnx.load(tmp_path / "model.onnx").summary((2, 8, 8))
    assert theirs.receptive_field == mine.receptive_field == (21, 21)
    assert (theirs.parameters, theirs.multiply_adds) == (
        mine.parameters,
        mine.multiply_adds,
    )
