"""The recipes of `course reproduce`: what is trained, on what, and how."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from course.data import load, moments, normalize
from course.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU
from course.model import Sequential
from course.optimizers import SGD, Adadelta, Adam
from course.schedules import one_cycle
from course.vision.augmentation import Augment, Flip, Shift
from course.zoo import convnetjs, lenet5
from course.zoo.resnet_cifar import cifar_resnet


@dataclass(frozen=True)
class Recipe:
    """How one result is made.

    Attributes
    ----------
    title : what is trained, on what
    text : what is done, for the record
    data : () -> x_train, t_train, x_test, t_test
    network : rng -> the network
    optimizer : () -> ours
    theirs : (torch.optim, groups of parameters) -> PyTorch's
    schedule, augment : as in fit
    bars : what is demanded: figure -> least value, or greatest if it is in seconds
    """

    title: str
    text: str
    data: Callable[[], tuple[np.ndarray, ...]]
    network: Callable[[np.random.Generator], Any]
    optimizer: Callable[[], Any]
    theirs: Callable[[Any, list[dict]], Any]
    epochs: int
    batch_size: int
    weight_decay: float = 0.0
    schedule: Callable[[float], float] | None = None
    augment: Callable | None = None
    bars: dict[str, float] = field(default_factory=dict)


def _normalized(name: str) -> tuple[np.ndarray, ...]:
    """Return a set of images, each channel with mean 0 and deviation 1 in training."""
    data = load(name)
    how = moments(data.x_train)
    x, tests = (normalize(a, *how, out=a) for a in (data.x_train, data.x_test))
    return x, data.t_train, tests, data.t_test


def _centred() -> tuple[np.ndarray, ...]:
    """Return CIFAR-10 as ConvNetJS has it: pixels from -1/2 to 1/2."""
    data = load("cifar10")
    return (
        data.x_train - np.float32(0.5),
        data.t_train,
        data.x_test - np.float32(0.5),
        data.t_test,
    )


def _as_in_cs231n() -> tuple[np.ndarray, ...]:
    """Return 49 000 images of CIFAR-10, 0 to 255 less their mean image."""
    data = load("cifar10")
    x, tests = (a * np.float32(255) for a in (data.x_train[:49_000], data.x_test))
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    x -= mean
    tests -= mean
    return x, data.t_train[:49_000], tests, data.t_test


def _three_layers(rng: np.random.Generator) -> Any:
    """Return CS231n's network: 32 filters of 7x7, 500 hidden units, weights near 0."""
    model = Sequential(
        *(Conv2d(3, 32, 7, padding=3, rng=rng), ReLU(), MaxPool2d(2), Flatten()),
        *(Linear(32 * 16 * 16, 500, rng=rng), ReLU(), Linear(500, 10, rng=rng)),
    )
    for name, a in model.params.items():
        if name.endswith("weight"):
            a[...] = rng.normal(0, 1e-3, a.shape)
    return model


RECIPES = {
    "lenet5-mnist": Recipe(
        title="LeNet-5 on MNIST",
        text="LeNet-5 of today (ReLU, max pooling) on MNIST. SGD with momentum 0.9 and "
        "weight decay 1e-4, one cycle of learning rates up to 0.03, shifts by 2 pixels at "
        "most.",
        data=lambda: _normalized("mnist"),
        network=lambda rng: lenet5(rng=rng),
        optimizer=lambda: SGD(0.03, momentum=0.9, weight_decay=1e-4),
        theirs=lambda optim, groups: optim.SGD(groups, 0.03, momentum=0.9),
        weight_decay=1e-4,
        epochs=10,
        batch_size=64,
        schedule=one_cycle(),
        augment=Shift(2),
        bars={"test accuracy": 0.991},
    ),
    "lenet5-fashion-mnist": Recipe(
        title="LeNet-5 on Fashion-MNIST",
        text="The same network and settings on Fashion-MNIST, with mirrored images "
        "besides.",
        data=lambda: _normalized("fashion-mnist"),
        network=lambda rng: lenet5(rng=rng),
        optimizer=lambda: SGD(0.03, momentum=0.9, weight_decay=1e-4),
        theirs=lambda optim, groups: optim.SGD(groups, 0.03, momentum=0.9),
        weight_decay=1e-4,
        epochs=15,
        batch_size=64,
        schedule=one_cycle(),
        augment=Augment(Flip(), Shift(1)),
        bars={"test accuracy": 0.90},
    ),
    "convnetjs-cifar10": Recipe(
        title="the ConvNetJS network on CIFAR-10",
        text="The network, the augmentation (mirrored images, shifts by 2 pixels at most) "
        "and the trainer of Karpathy's demo: Adadelta with rho 0.95 and eps 1e-6, an L2 "
        "term of 1e-4 that it divides by the size of the batch, as it does the gradients, "
        "and batches of 4.",
        data=_centred,
        network=lambda rng: convnetjs(rng=rng),
        optimizer=lambda: Adadelta(1.0, rho=0.95, eps=1e-6, weight_decay=1e-4 / 4),
        theirs=lambda optim, groups: optim.Adadelta(groups, 1.0, rho=0.95, eps=1e-6),
        weight_decay=1e-4 / 4,
        epochs=5,
        batch_size=4,
        augment=Augment(Flip(), Shift(2)),
    ),
    "resnet-cifar10": Recipe(
        title="a small ResNet on CIFAR-10",
        text="A ResNet of 8 layers for CIFAR-10 (three blocks with 16, 32 and 64 filters, "
        "shortcuts of option A). SGD with momentum 0.9 and weight decay 5e-4, one cycle of "
        "learning rates up to 0.4; mirrored images, shifts by 4 pixels at most.",
        data=lambda: _normalized("cifar10"),
        network=lambda rng: cifar_resnet(8, rng=rng),
        optimizer=lambda: SGD(0.4, momentum=0.9, weight_decay=5e-4),
        theirs=lambda optim, groups: optim.SGD(groups, 0.4, momentum=0.9),
        weight_decay=5e-4,
        epochs=5,
        batch_size=128,
        schedule=one_cycle(0.25),
        augment=Augment(Flip(), Shift(4)),
        bars={"test accuracy": 0.70, "seconds": 600},
    ),
    "three-layers-cifar10": Recipe(
        title="CS231n's three-layer ConvNet on CIFAR-10",
        text="One epoch of the network of CS231n's second assignment, with its settings: "
        "weights of deviation 0.001, Adam at 1e-3, batches of 50, pixels 0 to 255 less the "
        "mean image, L2 of 0.001.",
        data=_as_in_cs231n,
        network=_three_layers,
        optimizer=lambda: Adam(1e-3, weight_decay=1e-3),
        theirs=lambda optim, groups: optim.Adam(groups, 1e-3),
        weight_decay=1e-3,
        epochs=1,
        batch_size=50,
        bars={"training accuracy": 0.40, "seconds": 60},
    ),
}
