"""course/zoo/autoencoder.py: shapes both ways, and that it learns to copy."""

import numpy as np
import pytest

from course.data import load
from course.losses import mean_squared_error
from course.optimizers import Adam
from course.zoo import autoencoder


@pytest.mark.parametrize("image", [(1, 28, 28), (3, 32, 32), (1, 20, 12)])
def test_an_image_comes_back_in_its_own_shape(image, rng):
    network = autoencoder(image, code=5)
    x = rng.random((3, *image), np.float32)
    assert network.children["encoder"](x).shape == (3, 5)
    y = network(x)
    assert y.shape == x.shape and y.dtype == np.float32
    assert ((y > 0) & (y < 1)).all()


@pytest.mark.parametrize("image", [(1, 30, 28), (1, 28, 6)])
def test_a_size_that_cannot_be_halved_twice_is_refused(image):
    with pytest.raises(ValueError, match="4 must divide its height and width"):
        autoencoder(image)


def test_it_learns_to_copy_digits():
    """After seventy steps it is nearer than the mean digit, which needs no code at all."""
    x = load("digits").x_train[:32]
    network, optimizer = autoencoder(), Adam(5e-3)
    losses = []
    for _ in range(70):
        loss, dy = mean_squared_error(network(x), x)
        losses.append(loss)
        network.learn(dy)
        optimizer.step(network)
    mean_digit, _ = mean_squared_error(np.broadcast_to(x.mean(axis=0), x.shape).copy(), x)
    assert losses[-1] < mean_digit < losses[0]


def test_a_step_is_that_of_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    nn = torch.nn
    theirs = nn.Sequential()
    theirs.encoder = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 32),
    )  # fmt: skip
    theirs.decoder = nn.Sequential(
        nn.Linear(32, 32 * 7 * 7), nn.ReLU(), nn.Unflatten(1, (32, 7, 7)),
        nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Sigmoid(),
    )  # fmt: skip
    mine = autoencoder(dtype=np.float64)
    theirs.double().load_state_dict({k: torch.tensor(a) for k, a in mine.params.items()})
    x = rng.random((4, 1, 28, 28))
    expected = nn.functional.mse_loss(theirs(torch.tensor(x)), torch.tensor(x))
    expected.backward()
    loss, dy = mean_squared_error(mine(x), x)
    mine.backward(dy)
    np.testing.assert_allclose(loss, expected.item(), 1e-12)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(
            mine.grads[name], parameter.grad, 1e-9, 1e-13, err_msg=name
        )
