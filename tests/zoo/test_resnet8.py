"""course/zoo/resnet8.py and keras.py: a network that others trained gives their answers.

The weights and the expected scores are MLPerf Tiny's, from COURSE_DATA/models; the images
are CIFAR-10's test images. Without them every test that needs them is skipped.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from course.zoo import load_keras, resnet8
from tests.zoo.cheap import count

DATA = Path(os.environ.get("COURSE_DATA", "/nowhere"))
MODEL = DATA / "models/resnet8-cifar10"
IMAGES = DATA / "cifar-10-batches-bin/test_batch.bin"
needs_model = pytest.mark.skipif(
    not MODEL.is_dir(), reason="COURSE_DATA has no models/resnet8-cifar10"
)
needs_images = pytest.mark.skipif(
    not IMAGES.is_file(), reason="COURSE_DATA has no cifar-10-batches-bin/test_batch.bin"
)


@pytest.fixture(scope="module")
def weights():
    with np.load(MODEL / "weights.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def reference():
    with np.load(MODEL / "reference.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def images():
    """Test images with pixels 0 to 255, and their classes."""
    rows = np.frombuffer(IMAGES.read_bytes(), np.uint8).reshape(10_000, 1 + 3 * 32 * 32)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]


@pytest.fixture(scope="module")
def trained(weights):
    network = resnet8()
    load_keras(network, weights)
    return network.eval()


@needs_model
def test_every_number_of_the_file_is_used(weights):
    """78 186 that are learned, and mean and variance of 240 channels."""
    network = resnet8()
    assert count(network) == 78_186
    assert sum(array.size for array in weights.values()) == count(network) + 2 * 240


@needs_model
@needs_images
def test_scores_are_the_reference_s(trained, reference, images):
    x = images[0][reference["test_index"]].astype(np.float32)
    np.testing.assert_allclose(trained(x), reference["logits"], 0, 1e-3)


@needs_model
@needs_images
def test_exactly_8719_of_10000_images_are_right(trained, reference, images):
    x, t = images
    parts = [trained(x[k : k + 500].astype(np.float32)) for k in range(0, 10_000, 500)]
    found = np.concatenate(parts).argmax(axis=1)
    assert (found == t).sum() == 8719
    np.testing.assert_array_equal(found, reference["pred_full"])


# --- weights of Keras -------------------------------------------------------------------


def keras_weights(rng):
    """Return weights as Keras would have them for our network, and our network."""
    network = resnet8(rng=rng)
    return network, {
        f"{stem}{f'_{k}' if k else ''}/{name}": rng.normal(size=size).astype(np.float32)
        for stem, count, shapes in (
            ("conv2d", 9, None),
            ("batch_normalization", 7, None),
            ("dense", 1, {"kernel": (64, 10), "bias": (10,)}),
        )
        for k in range(count)
        for name, size in (shapes or _shapes(stem, k)).items()
    }


def _shapes(stem, k):
    C = [3, 16, 16, 16, 32, 16, 32, 64, 32]
    F = [16, 16, 16, 32, 32, 32, 64, 64, 64]
    if stem == "conv2d":
        taps = 1 if k in (5, 8) else 3
        return {"kernel": (taps, taps, C[k], F[k]), "bias": (F[k],)}
    channels = [16, 16, 16, 32, 32, 64, 64][k]
    names = "gamma", "beta", "moving_mean", "moving_variance"
    return dict.fromkeys(names, (channels,))


def test_axes_of_keras_become_ours(rng):
    network, weights = keras_weights(rng)
    load_keras(network, weights)
    kernel = weights["conv2d_3/kernel"]  # height, width, channels in, channels out
    ours = network.params["layer2.conv1.weight"]
    for u, v, c, f in [(0, 0, 0, 0), (2, 1, 15, 31), (1, 2, 3, 4)]:
        assert ours[f, c, u, v] == kernel[u, v, c, f]
    assert network.params["linear.weight"][3, 5] == weights["dense/kernel"][5, 3]
    moving = weights["batch_normalization_6/moving_variance"]
    np.testing.assert_array_equal(network.buffers["layer3.bn2.running_var"], moving)
    shortcut = weights["conv2d_8/bias"]
    np.testing.assert_array_equal(network.params["layer3.shortcut.bias"], shortcut)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda w: w.pop("conv2d_4/bias"), "there is no conv2d_4/bias, which layer2.conv2"),
        (lambda w: w.update({"dense_1/bias": np.zeros(3)}), "no layer .* has dense_1/bias"),
        (
            lambda w: w.update({"conv2d/kernel": np.zeros((5, 5, 3, 16), np.float32)}),
            r"conv1.weight is \(16, 3, 5, 5\)",
        ),
    ],
)
def test_weights_of_another_network_change_nothing(change, words, rng):
    network, weights = keras_weights(rng)
    before = {key: array.copy() for key, array in network.state_dict().items()}
    change(weights)
    with pytest.raises(ValueError, match=words):
        load_keras(network, weights)
    for key, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[key])
