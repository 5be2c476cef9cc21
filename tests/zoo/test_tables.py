"""course/zoo: the layer tables in the files are what is built, and the published counts."""

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import course.zoo
from course.layers import Conv2d, GlobalAvgPool2d, Linear
from course.model import Sequential
from course.zoo import NETWORKS, PUBLISHED
from tests.zoo.cheap import Zeros, count

HEAD = re.compile(r"^Layers of (\w+), for images of ([\d x]+), and how many", re.MULTILINE)
ROW = re.compile(r"^ {4}(\S+)  +\S.*?  +(\d[\dx ]*?)(?:  +(\d[\d ]*))?$")
FILES = sorted(Path(course.zoo.__file__).parent.glob("*.py"))


def tables():
    """Return name -> image, rows (key, shape, numbers learned), sum; of all docstrings."""
    found = {}
    for path in FILES:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for head in HEAD.finditer(text):
            block = text[head.end() :].split("\n\n")[1].splitlines()
            rows = [
                (key, whole(shape, "x"), int((learned or "0").replace(" ", "")))
                for key, shape, learned in (ROW.match(line).groups() for line in block[:-1])
            ]
            found[head[1]] = whole(head[2], "x"), rows, int(block[-1].replace(" ", ""))
    return found


def whole(text, between):
    """Return "6 x 28 x 28" as (6, 28, 28)."""
    return tuple(int(number.replace(" ", "")) for number in text.split(between))


TABLES = tables()


def outputs(layer, x, key=""):
    """Return the y of the layer, and key -> shape of what every part of a chain makes."""
    if not isinstance(layer, Sequential):
        y = layer(x)
        return y, {key: y.shape[1:]}
    shapes = {}
    for name, child in layer.children.items():
        x, inner = outputs(child, x, f"{key}.{name}".lstrip("."))
        shapes |= inner
    return x, shapes | {key: x.shape[1:]}


def test_every_network_has_its_table():
    """Or, of several in a file, one of them has; those of the others are their counts."""
    families = {"vgg": "vgg16", "resnet": "resnet50", "resnet_cifar": "resnet20"}
    for name in NETWORKS:
        file = getattr(course.zoo, name).__module__.split(".")[-1]
        assert families.get(file, name) in TABLES, name


@pytest.mark.parametrize("name", TABLES)
def test_table_is_what_is_built(name):
    image, rows, total = TABLES[name]
    network = getattr(course.zoo, name)(rng=Zeros()).eval()
    _, shapes = outputs(network, np.zeros((1, *image), np.float32))
    learned = 0
    for key, shape, numbers in rows:
        assert shapes[key] == shape, key
        inside = [a.size for k, a in network.params.items() if k.startswith(f"{key}.")]
        assert sum(inside) == numbers, key
        learned += numbers
    assert learned == total == count(network)


@pytest.mark.parametrize("row", PUBLISHED, ids=str)
def test_published_count(row):
    assert (
        count(getattr(course.zoo, row.name)(**row.options, rng=Zeros())) == row.parameters
    )


@pytest.mark.parametrize(
    "name, batch_norm, published",  # torchvision's table of models
    [("vgg11", True, 132_868_840), ("vgg16", True, 138_365_992)],
)
def test_published_count_with_batch_normalisation(name, batch_norm, published):
    assert count(getattr(course.zoo, name)(batch_norm=batch_norm, rng=Zeros())) == published


def test_zfnet_with_more_filters():
    """107.6 million, the paper's larger model."""
    network = course.zoo.zfnet(filters=(512, 1024, 512), rng=Zeros())
    assert count(network) == 107_627_624


def test_counts_in_the_text_are_those_published():
    """A number of six digits or more that a docstring names belongs to some network."""
    known = {row.parameters for row in PUBLISHED} | {107_627_624}
    for path in FILES:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        prose = [line for line in text.splitlines() if not ROW.match(line)]
        for number in re.findall(r"\d{1,3}(?: \d{3})+", "\n".join(prose)):
            n = int(number.replace(" ", ""))
            assert n in known or n == TABLES[path.stem][2], f"{path.name}: {number}"


# --- what the counts teach --------------------------------------------------------------


def test_the_first_dense_layer_is_three_quarters_of_vgg16():
    network = course.zoo.vgg16(rng=Zeros())
    sizes = {key: array.size for key, array in network.params.items()}
    first = sizes["classifier.0.weight"] + sizes["classifier.0.bias"]
    dense = sum(n for key, n in sizes.items() if key.startswith("classifier"))
    assert first == 102_764_544
    assert round(100 * first / sum(sizes.values()), 1) == 74.3
    assert round(100 * dense / sum(sizes.values())) == 89


@pytest.mark.parametrize(
    "name, channels, share",  # of all parameters, in percent
    [("googlenet", 1024, 14.6), ("resnet50", 2048, 8.0), ("resnet18", 512, 4.4)],
)
def test_an_average_leaves_one_small_dense_layer(name, channels, share):
    """With a dense layer of VGG's width in its place there would be far more."""
    network = getattr(course.zoo, name)(rng=Zeros())
    assert any(isinstance(layer, GlobalAvgPool2d) for layer in network)
    dense = [leaf for _, leaf in network.leaves() if isinstance(leaf, Linear)]
    assert [layer.params["weight"].shape for layer in dense] == [(1000, channels)]
    learned = sum(a.size for a in dense[0].params.values())
    assert learned == 1000 * channels + 1000
    assert round(100 * learned / count(network), 1) == share
    flat = 49 * channels * 4096  # 7 x 7 pixels to a layer as wide as VGG's
    assert flat > 100 * learned


def test_separable_convolution_needs_an_eighth():
    """3x3 from 64 to 128 channels: at once, or each channel alone and then 1x1."""
    at_once = Conv2d(64, 128, 3, bias=False, rng=Zeros())
    apart = Sequential(
        Conv2d(64, 64, 3, groups=64, bias=False, rng=Zeros()),
        Conv2d(64, 128, 1, bias=False, rng=Zeros()),
    )
    assert count(Sequential(at_once)) == 73_728
    assert count(apart) == 8_768


def test_images_larger_than_224_fit_where_an_average_is_taken():
    x = np.zeros((1, 3, 64, 96), np.float32)
    assert course.zoo.resnet18(rng=Zeros()).eval()(x).shape == (1, 1000)
    with pytest.raises(ValueError):
        course.zoo.vgg11(5, rng=Zeros()).eval()(x)


# --- the package ------------------------------------------------------------------------


def test_a_name_is_the_network_whatever_was_imported_before():
    """A file and its function have one name; in the package it is the function's."""
    program = """
        from course.zoo.lenet5 import lenet5 as first
        import course.zoo.alexnet
        from course.zoo import alexnet, googlenet, lenet5, resnet20
        import course.zoo
        assert lenet5 is first is course.zoo.lenet5
        assert [f.__name__ for f in (alexnet, googlenet)] == ["alexnet", "googlenet"]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_only_what_is_asked_for_is_loaded():
    program = """
        import sys
        from course.zoo.lenet5 import lenet5
        print(*sorted(name for name in sys.modules if name.startswith("course.zoo.")))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert out.split() == ["course.zoo.base", "course.zoo.lenet5"]


def test_a_name_that_is_not_there_is_said():
    with pytest.raises(ImportError, match="cannot import name 'resnet21'"):
        from course.zoo import resnet21  # noqa: F401


def test_every_network_is_exported_and_counted():
    counted = {row.name for row in PUBLISHED}
    for name in NETWORKS:
        assert getattr(course.zoo, name).__name__ == name
        assert name in course.zoo.__all__
        assert name in counted | {"plain20", "autoencoder"}


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998", "convnetjs", "resnet20"])
def test_without_a_generator_weights_are_those_of_seed_0(name):
    build = getattr(course.zoo, name)
    mine, other = build(), build(rng=np.random.default_rng(1))
    for key, array in build(rng=np.random.default_rng(0)).state_dict().items():
        np.testing.assert_array_equal(mine.state_dict()[key], array)
    assert any((other.params[key] != mine.params[key]).any() for key in mine.params)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("resnet20", {"shortcut": "C"}, 'shortcut is .C.; it must be "A", "B" or None'),
        ("alexnet", {"variant": "small"}, "variant is .small.; it must be one of grouped"),
    ],
)
def test_an_option_that_is_not_there_is_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        getattr(course.zoo, name)(**options)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998", "resnet8", "autoencoder"])
def test_a_seed_in_place_of_a_generator_is_refused(name):
    with pytest.raises(TypeError, match=r"np.random.default_rng\(0\)"):
        getattr(course.zoo, name)(rng=7)


SMALL = "lenet5", "lenet5_1998", "convnetjs", "resnet8", "resnet20", "plain20", "resnet56"


@pytest.mark.parametrize("name", SMALL)
def test_classes_are_the_outputs(name):
    image = (1, 28, 28) if "lenet" in name else (3, 32, 32)
    assert getattr(course.zoo, name)(7)(np.zeros((2, *image), np.float32)).shape == (2, 7)
