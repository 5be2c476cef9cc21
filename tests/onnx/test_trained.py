"""Networks that others trained: the same answers as with them, image for image."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason='needs the extra: pip install "onnx>=1.20"')

from course.data import load as load_data
from course.onnx import load, save
from course.training import evaluate
from course.zoo import load_keras, resnet8

FOLDER = Path(os.environ.get("COURSE_DATA") or "none")
MNIST, CIFAR = FOLDER / "models/mnist-cntk", FOLDER / "models/resnet8-cifar10"
needs_mnist = pytest.mark.skipif(
    not ((MNIST / "model.onnx").is_file() and (FOLDER / "mnist").is_dir()),
    reason="COURSE_DATA has no models/mnist-cntk, or no mnist",
)
needs_cifar = pytest.mark.skipif(
    not (CIFAR / "weights.npz").is_file(),
    reason="COURSE_DATA has no models/resnet8-cifar10",
)


@pytest.fixture(scope="module")
def digits():
    """The MNIST test images as the network takes them, 0 to 255, and their labels."""
    data = load_data("mnist")
    return (data.x_test * 255).round().astype(np.float32), data.t_test


@needs_mnist
def test_the_network_of_cntk_reads_9891_digits(digits):
    x, t = digits
    result = evaluate(load(MNIST / "model.onnx"), x, t)
    assert (result.predictions == t).sum() == 9891
    reference = np.load(MNIST / "reference.npz")
    np.testing.assert_array_equal(result.predictions, reference["pred_full"])


@needs_mnist
def test_the_network_of_cntk_gives_the_scores_of_its_file(digits):
    """The scores are in the thousands: 1e-3 is about the last bit of the largest."""
    reference = np.load(MNIST / "reference.npz")
    scores = load(MNIST / "model.onnx")(digits[0][reference["test_index"]])
    np.testing.assert_allclose(scores, reference["logits"], rtol=1e-4, atol=1e-3)
    alone = load(MNIST / "model.onnx")(digits[0][reference["test_index"][:1]])
    np.testing.assert_allclose(alone, reference["logits"][:1], rtol=1e-4, atol=1e-3)


@needs_mnist
def test_the_network_of_cntk_reads_its_own_examples():
    network = load(MNIST / "model.onnx")
    for k in range(3):
        example = np.load(MNIST / f"test_data_{k}.npz")
        x = example["inputs"].reshape(1, 1, 28, 28).astype(np.float32)
        assert network(x).argmax() == example["outputs"].argmax()


@needs_mnist
def test_the_network_of_cntk_is_written_with_its_weights(digits, tmp_path):
    network, x = load(MNIST / "model.onnx"), digits[0][:50]
    for array in network.params.values():
        array *= 0.5
    save(network, tmp_path / "half.onnx")
    np.testing.assert_array_equal(load(tmp_path / "half.onnx")(x), network(x))


@needs_cifar
def test_the_network_of_mlperf_survives_the_way_through_a_file(tmp_path, rng):
    network = resnet8()
    load_keras(network, np.load(CIFAR / "weights.npz"))
    save(network.eval(), tmp_path / "resnet8.onnx")
    x = rng.integers(0, 256, (20, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(load(tmp_path / "resnet8.onnx")(x), network(x))


@needs_cifar
@pytest.mark.slow
def test_the_network_of_mlperf_reads_8719_photos(tmp_path):
    network = resnet8()
    load_keras(network, np.load(CIFAR / "weights.npz"))
    save(network.eval(), tmp_path / "resnet8.onnx")
    data = load_data("cifar10")
    x = (data.x_test * 255).round().astype(np.float32)
    result = evaluate(load(tmp_path / "resnet8.onnx"), x, data.t_test)
    assert (result.predictions == data.t_test).sum() == 8719
