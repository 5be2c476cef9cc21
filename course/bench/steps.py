"""Training steps: forward, loss, backward and SGD on one batch that is in memory.

A network is written once; `nn` is a library whose layers have PyTorch's names: PyTorch,
the course, or `course.bench.numpy_way`. All start from the same weights.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import course.layers
from course.bench import numpy_way
from course.bench.cases import Case, Work
from course.losses import softmax_cross_entropy
from course.model import Sequential
from course.optimizers import SGD

RATE = 0.01
BATCHES = 1, 64, 128


def softmax(nn: Any, **new: Any) -> list:
    """Return the softmax classifier of MNIST's pixels."""
    return [nn.Linear(784, 10, **new)]


def mlp(nn: Any, **new: Any) -> list:
    """Return a perceptron with one hidden layer."""
    return [nn.Linear(784, 256, **new), nn.ReLU(), nn.Linear(256, 10, **new)]


def lenet5(nn: Any, **new: Any) -> list:
    """Return LeNet-5 as in `course.zoo.lenet5`."""
    return [
        *(nn.Conv2d(1, 6, 5, padding=2, **new), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5, **new), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120, **new), nn.ReLU(), nn.Linear(120, 84, **new), nn.ReLU()),
        nn.Linear(84, 10, **new),
    ]


def cifar(nn: Any, **new: Any) -> list:
    """Return a network for CIFAR-10: twice two convolutions and a pool, then linear."""
    return [
        *(nn.Conv2d(3, 32, 3, padding=1, **new), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1, **new), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1, **new), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1, **new), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(4096, 10, **new)),
    ]


def three_layer(nn: Any, **new: Any) -> list:
    """Return the three-layer network of CS231n's second assignment."""
    return [
        *(nn.Conv2d(3, 32, 7, padding=3, **new), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(8192, 100, **new), nn.ReLU()),
        nn.Linear(100, 10, **new),
    ]


NETS: dict[str, tuple[Callable, tuple[int, ...]]] = {
    "softmax": (softmax, (784,)),
    "MLP": (mlp, (784,)),
    "LeNet-5": (lenet5, (1, 28, 28)),
    "CIFAR": (cifar, (3, 32, 32)),
    "three-layer": (three_layer, (3, 32, 32)),
}


def ours(net: Callable) -> Sequential:
    """Return the network made of the course's layers."""
    return Sequential(*net(course.layers, rng=np.random.default_rng(0)))


def by_course(net: Callable, x: np.ndarray, t: np.ndarray) -> Work:
    """Return a step of the course."""
    model, optimizer = ours(net), SGD(RATE)

    def step() -> float:
        loss, dscores = softmax_cross_entropy(model(x), t)
        model.learn(dscores)
        optimizer.step(model)
        return loss

    return step


def by_pytorch(
    net: Callable, x: np.ndarray, t: np.ndarray, *, last: bool = False, compiled=False
) -> Work:
    """Return a step of PyTorch: eager or compiled, channels second or last."""
    import torch

    model = torch.nn.Sequential(*net(torch.nn))
    params = {key: torch.tensor(a) for key, a in ours(net).params.items()}
    model.load_state_dict(params)
    x, t = torch.from_numpy(x), torch.from_numpy(t)
    if last:
        x = x.to(memory_format=torch.channels_last)
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), RATE)

    def loss_of(x: Any, t: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x), t)

    if compiled:
        loss_of = torch.compile(loss_of)

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of(x, t)
        loss.backward()
        optimizer.step()
        return loss

    return step


def by_numpy(net: Callable, x: np.ndarray, t: np.ndarray) -> Work:
    """Return a step of NumPy."""
    model = numpy_way.Sequential(*net(numpy_way), params=ours(net).params)
    return lambda: model.step(x, t, RATE)


def by_sklearn(net: Callable, x: np.ndarray, t: np.ndarray) -> Work:
    """Return a step of scikit-learn's perceptron."""
    from sklearn.neural_network import MLPClassifier

    hidden = [len(a) for key, a in ours(net).params.items() if key.endswith("bias")][:-1]
    settings = {"solver": "sgd", "momentum": 0, "alpha": 0, "batch_size": len(t)}
    model = MLPClassifier(hidden, learning_rate_init=RATE, **settings)
    model.partial_fit(x, t, classes=np.arange(10))
    for key, a in ours(net).params.items():
        position = int(key.split(".")[0]) // 2
        if key.endswith("weight"):
            model.coefs_[position][...] = a.T
        else:
            model.intercepts_[position][...] = a
    return lambda: model.partial_fit(x, t).loss_


def flops(net: Callable, shape: tuple[int, ...]) -> int:
    """Return the sums and products for one image, in convolutions and linear layers.

    Each multiplies three times: forward, dw and dx; no step needs the dx of the images.
    """
    found, passes, x = 0, 2, np.zeros((1, *shape), np.float32)
    for layer in ours(net):
        x = layer(x)
        if "weight" in layer.params:
            weight = layer.params["weight"]
            found += passes * 2 * weight.size * (x.size // len(weight))
            passes = 3
    return found


def steps(compiled: bool = False) -> Iterator[Case]:
    """Yield every network at every batch size; with PyTorch compiled too if asked."""
    rng = np.random.default_rng(0)
    for name, (net, shape) in NETS.items():
        for N in BATCHES:
            x = rng.standard_normal((N, *shape), np.float32)
            batch = net, x, rng.integers(10, size=N)
            ways = {"course": by_course, "pytorch": by_pytorch, "numpy": by_numpy}
            works = {k: lambda way=way, batch=batch: way(*batch) for k, way in ways.items()}
            if len(shape) == 3:
                works["channels last"] = lambda batch=batch: by_pytorch(*batch, last=True)
            if name == "MLP":
                works["scikit-learn"] = lambda batch=batch: by_sklearn(*batch)
            if compiled:
                works["compiled"] = lambda batch=batch: by_pytorch(*batch, compiled=True)
            yield Case(f"{name} batch {N}", works, N * flops(net, shape))
