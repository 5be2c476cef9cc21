"""course/zoo beside networks that were written in PyTorch: same keys, scores, gradients.

What the keys are is checked by PyTorch, which refuses any other (see tests/zoo/theirs.py).
"""

from functools import partial

import numpy as np
import pytest

import course.zoo as zoo
from course.losses import softmax_cross_entropy
from tests.zoo.cheap import Repeated

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tests.zoo import theirs  # noqa: E402  (it needs PyTorch)
from tests.zoo.theirs import like  # noqa: E402

LARGE = {  # ours, theirs
    "resnet18": (zoo.resnet18, lambda: theirs.ResNet((2, 2, 2, 2), False)),
    "googlenet": (zoo.googlenet, theirs.GoogLeNet),
}
DEEP = {
    "resnet34": (zoo.resnet34, lambda: theirs.ResNet((3, 4, 6, 3), False)),
    "resnet50": (zoo.resnet50, lambda: theirs.ResNet((3, 4, 6, 3), True)),
    "resnet101": (zoo.resnet101, lambda: theirs.ResNet((3, 4, 23, 3), True)),
    "resnet152": (zoo.resnet152, lambda: theirs.ResNet((3, 8, 36, 3), True)),
}
HUGE = {  # and height and width of the image
    "vgg11": (zoo.vgg11, lambda: theirs.vgg(11), 224),
    "alexnet": (zoo.alexnet, theirs.alexnet, 227),
    "alexnet_torchvision": (
        partial(zoo.alexnet, variant="torchvision"), theirs.alexnet_torchvision, 224,
    ),
    "zfnet": (zoo.zfnet, theirs.zfnet, 224),
    "vgg11_bn": (
        partial(zoo.vgg11, batch_norm=True), lambda: theirs.vgg(11, batch_norm=True), 224,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """The machine has other tests to run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def near(mine, expected, close, name="", least=0.0):
    """Assert that they differ by no more than so much of the largest value.

    Where all values are below `least`, of that: some gradients are 0 but for rounding.
    """
    expected = expected.detach().numpy()
    largest = max(np.abs(expected).max(), least)
    np.testing.assert_allclose(mine, expected, 0, close * largest, err_msg=name)


def scores_agree(mine, network, size, rng, images=1):
    """Compare the scores in use, where no layer draws, in float32."""
    x = rng.normal(size=(images, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        near(mine(x), network(torch.from_numpy(x)), 1e-4)


def step_agrees(mine, network, x, t, close):
    """Compare the loss and every gradient."""
    loss, dscores = softmax_cross_entropy(mine(x), np.asarray(t))
    dx = mine.backward(dscores)
    images = torch.from_numpy(x).requires_grad_()
    expected = torch.nn.functional.cross_entropy(network(images), torch.tensor(t))
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), close)
    near(dx, images.grad, close, "dx")
    parameters = dict(network.named_parameters())
    assert parameters.keys() == mine.grads.keys()
    for name, parameter in parameters.items():
        near(mine.grads[name], parameter.grad, close, name, 1e-6)


@pytest.mark.parametrize("name", LARGE)
def test_scores_and_a_step_of_large_networks(name, rng):
    """The step in float64: in float32 a sum near 0 may be on the other side of a ReLU."""
    ours, other = LARGE[name]
    mine = ours().eval()
    scores_agree(mine, like(other, mine), 96, rng, images=2)
    mine = ours(dtype=np.float64).eval()
    step_agrees(mine, like(other, mine), rng.normal(size=(1, 3, 64, 64)), [3], 1e-10)


@pytest.mark.parametrize(
    "name", ["resnet50", *(pytest.param(name, marks=pytest.mark.slow) for name in DEEP)]
)
def test_scores_of_deep_networks(name, rng):
    ours, other = DEEP[name]
    mine = ours().eval()
    scores_agree(mine, like(other, mine), 64, rng)


@pytest.mark.parametrize("name", ["vgg11", "alexnet"])
def test_scores_of_huge_networks(name, rng):
    ours, other, size = HUGE[name]
    mine = ours(rng=Repeated()).eval()
    scores_agree(mine, like(other, mine), size, rng)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet_torchvision", "vgg11_bn", "zfnet"])
def test_scores_of_more_huge_networks(name, rng):
    test_scores_of_huge_networks(name, rng)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11", "alexnet"])
def test_a_step_of_huge_networks(name, rng):
    """In float32, as float64 needs 8 GB: each gradient as a whole, as some sums near 0
    are on the other side of a ReLU.
    """
    ours, other, size = HUGE[name]
    mine = ours(rng=Repeated()).eval()
    network = like(other, mine)
    x = rng.normal(size=(1, 3, size, size)).astype(np.float32)
    loss, dscores = softmax_cross_entropy(mine(x), np.array([3]))
    mine.learn(dscores)
    scores = network(torch.from_numpy(x))
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor([3]))
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), 1e-4)
    for key, parameter in network.named_parameters():
        gradient = parameter.grad.numpy()
        apart = np.linalg.norm(mine.grads[key] - gradient)
        assert apart < 0.02 * np.linalg.norm(gradient), key


SMALL = {
    "resnet20": (zoo.resnet20, lambda: theirs.ResNetCIFAR(20, "A")),
    "resnet20_B": (
        lambda **new: zoo.resnet20(shortcut="B", **new),
        lambda: theirs.ResNetCIFAR(20, "B"),
    ),
    "plain20": (zoo.plain20, lambda: theirs.ResNetCIFAR(20, "none")),
    "preactivation": (
        lambda **new: zoo.resnet20(preactivation=True, **new),
        lambda: theirs.PreResNet("A"),
    ),
    "preactivation_B": (
        lambda **new: zoo.resnet20(preactivation=True, shortcut="B", **new),
        lambda: theirs.PreResNet("B"),
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_step_of_training_of_small_networks(name, rng):
    """In float64, and with the batch's own statistics; the running ones follow alike."""
    ours, other = SMALL[name]
    mine = ours(dtype=np.float64)
    state = {key: array.copy() for key, array in mine.state_dict().items()}
    network = like(other, mine, state, training=True)
    x, t = rng.normal(size=(4, 3, 32, 32)), rng.integers(10, size=4)
    step_agrees(mine, network, x, t, 1e-10)
    for key, buffer in network.named_buffers():
        np.testing.assert_allclose(mine.buffers[key], buffer, 1e-12, 1e-14, err_msg=key)


def test_scores_of_resnet56_in_float32(rng):
    mine = zoo.resnet56().eval()
    network = like(lambda: theirs.ResNetCIFAR(56, "A"), mine)
    scores_agree(mine, network, 32, rng, images=2)
