"""course/zoo/lenet5.py: its layer table, and that it can learn at all."""

import numpy as np

from course.optimizers import SGD
from course.training import fit
from course.zoo.lenet5 import lenet5


def test_parameters_are_those_of_the_table(rng):
    sizes = {name: array.size for name, array in lenet5(rng=rng).params.items()}
    by_layer = [sizes[f"{k}.weight"] + sizes[f"{k}.bias"] for k in (0, 3, 7, 9, 11)]
    assert by_layer == [156, 2416, 48120, 10164, 850]
    assert sum(by_layer) == 61706


def test_shapes_are_those_of_the_table(rng):
    x, shapes = np.zeros((2, 1, 28, 28), np.float32), []
    for layer in lenet5(rng=rng):
        x = layer(x)
        shapes.append(x.shape[1:])
    assert [shapes[k] for k in (0, 2, 3, 5, 7, 9, 11)] == [
        (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,),
    ]  # fmt: skip


def test_ten_images_can_be_learned_by_heart(rng):
    """A network that cannot overfit ten images is broken, whatever its labels."""
    x, t = rng.normal(size=(10, 1, 28, 28)).astype(np.float32), np.arange(10)
    history = fit(
        lenet5(rng=rng), x, t, epochs=40, batch_size=10, optimizer=SGD(0.02, 0.9),
        seed=0, progress=False,
    )  # fmt: skip
    assert history.train_loss[-1] < 0.01


def test_a_step_is_that_of_pytorch(rng):
    """Loss and every gradient of the whole network, in float64."""
    import pytest

    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, 10),
    ).double()  # fmt: skip
    mine = lenet5(rng=rng, dtype=np.float64)
    theirs.load_state_dict({k: torch.tensor(a) for k, a in mine.params.items()})
    x, t = rng.normal(size=(8, 1, 28, 28)), rng.integers(10, size=8)
    expected = nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(t))
    expected.backward()

    from course.losses import softmax_cross_entropy

    loss, dscores = softmax_cross_entropy(mine(x), t)
    mine.backward(dscores)
    np.testing.assert_allclose(loss, expected.item(), 1e-12)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(
            mine.grads[name], parameter.grad, 1e-9, 1e-12, err_msg=name
        )
