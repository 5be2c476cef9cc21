"""Networks of the course as ONNX files: others compute the same from them, and so do we."""

import os

import numpy as np
import pytest

pytest.importorskip("onnx", reason='needs the extra: pip install "onnx>=1.20"')

import onnx
from onnx.reference import ReferenceEvaluator

import course.zoo
from course.layers import (
    ELU,
    GELU,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Dropout2d,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    PReLU,
    ReLU,
    Reshape,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Subsampling2d,
    Tanh,
    Upsample,
    ZeroPad2d,
)
from course.model import Branches, Residual, Sequential
from course.onnx import load, save
from course.zoo import resnet20

NEW = {"rng": np.random.default_rng(0), "dtype": np.float64}
D = {"dtype": np.float64}
X = (2, 4, 7, 6)
LAYERS = {  # a layer, and the shape of an x that suits it
    "conv": (Conv2d(4, 6, (3, 2), (2, 1), ((1, 0), (0, 2)), (1, 2), 2, **NEW), X),
    "conv-same": (Conv2d(4, 3, 4, padding="same", bias=False, **NEW), X),
    "conv-valid": (Conv2d(4, 3, 4, padding="valid", **NEW), X),
    "conv1d": (Conv1d(4, 6, 3, 2, (1, 0), 2, 2, **NEW), (2, 4, 9)),
    "conv1d-same": (Conv1d(4, 6, 4, 2, "same", **NEW), (2, 4, 9)),
    "transpose": (ConvTranspose2d(4, 6, 3, (2, 3), (1, 0), (1, 2), 1, **NEW), X),
    "transpose-same": (ConvTranspose2d(4, 6, (3, 4), (2, 1), "same", **NEW), X),
    "linear": (Linear(5, 3, **NEW), (2, 5)),
    "linear-no-bias": (Linear(5, 3, bias=False, **NEW), (2, 5)),
    "max": (MaxPool2d((3, 2), 2, 1, (1, 2), True), X),
    "max-same": (MaxPool2d(3, 2, "same"), X),
    "average": (AvgPool2d(3, 2, ((1, 0), (0, 1)), True), X),
    "average-padding": (AvgPool2d(3, 2, 1, count_include_pad=True), X),
    "global-average": (GlobalAvgPool2d(), X),
    "global-max": (GlobalMaxPool2d(), X),
    "batchnorm": (BatchNorm2d(4, 1e-2, **D), X),
    "batchnorm-rows": (BatchNorm1d(4, momentum=None, affine=False, **D), (3, 4)),
    "instancenorm": (InstanceNorm2d(4, **D), X),
    "instancenorm-affine": (InstanceNorm2d(4, affine=True, **D), X),
    "layernorm": (LayerNorm((7, 6), **D), X),
    "layernorm-no-bias": (LayerNorm(6, bias=False, **D), X),
    "groupnorm": (GroupNorm(2, 4, **D), X),
    "groupnorm-plain": (GroupNorm(2, 4, affine=False, **D), X),
    "lrn": (LocalResponseNorm(3, 0.5, 0.6, 2.0), (4, 4, 5, 3)),  # not fewer images: theirs
    # looks at as many channels as there are images
    "relu": (ReLU(), X),
    "leaky": (LeakyReLU(0.2), X),
    "prelu": (PReLU(4, **D), X),
    "prelu-one": (PReLU(**D), (2, 5)),
    "elu": (ELU(0.7), X),
    "silu": (SiLU(), X),
    "sigmoid": (Sigmoid(), X),
    "tanh": (Tanh(), X),
    "softplus": (Softplus(), X),
    "softmax": (Softmax(-1), X),
    "logsoftmax": (LogSoftmax(), X),
    "dropout": (Dropout(0.3, rng=NEW["rng"]), X),
    "dropout2d": (Dropout2d(0.3, rng=NEW["rng"]), X),
    "flatten": (Flatten(), X),
    "reshape": (Reshape(3, -1), X),
    "pad": (ZeroPad2d(((1, 2), (0, 3))), X),
    "subsampling": (Subsampling2d(4, (2, 3), **D), X),
    "residual": (
        Residual(
            Sequential(conv1=Conv2d(4, 3, 1, **NEW), relu=ReLU()),
            Conv2d(4, 3, 1, **NEW),
            ReLU(),
        ),
        X,
    ),
    "branches": (Branches(Sequential(), ReLU(), sum=Conv2d(4, 2, 1, **NEW)), X),
    "nothing": (Sequential(), X),
    "clash": (Sequential(x=ReLU(), y=Tanh(), sum=Residual(Sequential(ReLU()))), X),
}


def moved(network, rng):
    """Return the network in use, with numbers in it that are neither 0 nor 1."""
    for _, leaf in network.leaves():
        for array in (leaf.params | leaf.buffers).values():
            if array.dtype.kind == "f" and array.ndim < 2:
                array[...] = rng.uniform(0.5, 1.5, array.shape)
    return network.eval()


def check(network, x, path, theirs=True):
    """Raise AssertionError unless the file makes the same of x, by us and by others."""
    save(network, path, input_shape=x.shape[1:])
    onnx.checker.check_model(onnx.load(path), full_check=True)
    y = network(x)
    # an attribute is a float32, and the statistics of a group are computed in it
    rtol = 1e-6 if x.dtype == np.float64 else 1e-4
    back = load(path)
    np.testing.assert_allclose(back(x), y, rtol=1e-6, atol=1e-6 * abs(y).max())
    if theirs:
        (other,) = ReferenceEvaluator(str(path)).run(None, {back.inputs[0].name: x})
        assert other.dtype == y.dtype
        np.testing.assert_allclose(other, y, rtol=rtol, atol=rtol * abs(y).max())
    return back


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS.keys())
def test_every_layer_means_the_same_to_others(case, tmp_path, rng):
    layer, shape = case
    network = moved(Sequential(layer), rng)
    x = rng.normal(size=shape).astype(np.float64 if network.state_dict() else np.float32)
    check(network, x, tmp_path / "layer.onnx")


def test_groups_of_a_transposed_convolution_come_back(tmp_path, rng):
    """The package's own evaluator cannot compute them for several images."""
    network = moved(Sequential(ConvTranspose2d(4, 6, 3, 2, groups=2, **NEW)), rng)
    check(network, rng.normal(size=X), tmp_path / "layer.onnx", theirs=False)


SMALL = {
    "lenet5": (1, 28, 28),
    "lenet5_1998": (1, 28, 28),
    "convnetjs": (3, 32, 32),
    "resnet8": (3, 32, 32),
    "resnet20": (3, 32, 32),
    "autoencoder": (1, 28, 28),
}


@pytest.mark.parametrize("name, shape", SMALL.items())
def test_networks_of_the_zoo_mean_the_same_to_others(name, shape, tmp_path, rng):
    network = moved(getattr(course.zoo, name)(), rng)
    x = rng.normal(size=(1, *shape)).astype(np.float32)
    back = check(network, x, tmp_path / "network.onnx")
    same = {k for k in network.params if not k.startswith(("squash", "c3", "s2", "s4"))}
    assert same <= back.params.keys()


def test_an_inception_module_means_the_same_to_others(tmp_path, rng):
    network = course.zoo.googlenet()
    module = Sequential(inception=network.children["inception3a"])
    x = rng.normal(size=(1, 192, 7, 7)).astype(np.float32)
    check(moved(module, rng), x, tmp_path / "network.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "vgg11", "googlenet", "resnet50"])
def test_large_networks_come_back(name, tmp_path, rng):
    network = moved(getattr(course.zoo, name)(), rng)
    x = rng.normal(size=(1, *network.input_shape)).astype(np.float32)
    check(network, x, tmp_path / "network.onnx", theirs=False)


def test_the_shortcut_without_parameters_means_the_same(tmp_path, rng):
    network = moved(resnet20(shortcut="A"), rng)
    x = rng.normal(size=(1, 3, 32, 32)).astype(np.float32)
    back = check(network, x, tmp_path / "network.onnx")
    np.testing.assert_array_equal(back(x), network(x))
    assert back.params.keys() == network.params.keys()


def test_weights_come_back_bit_for_bit(tmp_path, rng):
    network = moved(course.zoo.lenet5(), rng)
    save(network, tmp_path / "a.onnx")
    back = load(tmp_path / "a.onnx")
    x = rng.normal(size=(3, 1, 28, 28)).astype(np.float32)
    np.testing.assert_array_equal(back(x), network(x))
    for name, array in network.params.items():
        np.testing.assert_array_equal(back.params[name], array)


@pytest.mark.parametrize(
    "network, words",
    [
        (
            Sequential(block=Sequential(act=GELU())),
            "block.act is a GELU, which has no ONNX",
        ),
        (Sequential(Upsample(2)), "0 is a Upsample, which has no ONNX form here; these"),
        (Sequential(LocalResponseNorm(4)), "take an odd size"),
        (Sequential(Softplus(2.0)), r"only 1 and 20 have an ONNX form"),
        (Sequential(BatchNorm2d(4, track_running_stats=False)), "no running statistics"),
        (
            Sequential(ConvTranspose2d(4, 4, 2, 3, "same", **NEW)),
            "stride above the kernel has no ONNX form",
        ),
    ],
)
def test_a_layer_without_a_form_is_named(network, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        save(network, tmp_path / "network.onnx", input_shape=(4, 6, 6))
    assert os.listdir(tmp_path) == []


class Mine(ReLU):
    """A student's own layer, which may compute anything."""


def test_a_students_own_layer_is_not_taken_for_ours(tmp_path):
    with pytest.raises(ValueError, match="0 is a Mine, which has no ONNX form"):
        save(Sequential(Mine()), tmp_path / "network.onnx", input_shape=(4,))


def test_the_first_layer_says_the_shape_or_the_caller(tmp_path):
    network = Sequential(Flatten(), Linear(12, 3, rng=np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"input_shape=\(1, 28, 28\)"):
        save(network, tmp_path / "network.onnx")
    save(network, tmp_path / "network.onnx", input_shape=(3, 2, 2))
    (value,) = load(tmp_path / "network.onnx").inputs
    assert value.shape == (None, 3, 2, 2) and value.dtype == np.float32
    save(course.zoo.convnetjs(), tmp_path / "network.onnx")
    assert load(tmp_path / "network.onnx").inputs[0].shape == (None, 3, None, None)


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "network.onnx"
    save(Sequential(ReLU()), path, input_shape=(4,))
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(Sequential(Tanh()), path, input_shape=(4,))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
