"""course/sanity.py: what is broken is told, and nothing is changed."""

import numpy as np
import pytest

from course.data import load
from course.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, ReLU
from course.losses import mean_squared_error
from course.model import Sequential
from course.optimizers import SGD, Adam
from course.sanity import lr_finder, overfit


@pytest.fixture(scope="module")
def digits():
    return load("digits", size=8)


def network(*more, seed=0):
    """Return a network for 8x8 digits that has all kinds of memory."""
    rng = np.random.default_rng(seed)
    return Sequential(
        Conv2d(1, 8, 3, rng=rng), BatchNorm2d(8), ReLU(), Flatten(), Dropout(0.2, rng=rng),
        Linear(288, 32, rng=rng), *more, ReLU(), Linear(32, 10, rng=rng),
    )  # fmt: skip


def plain(seed=0):
    """Return a small network without such."""
    rng = np.random.default_rng(seed)
    return Sequential(Flatten(), Linear(64, 32, rng=rng), ReLU(), Linear(32, 10, rng=rng))


def everything(model, optimizer):
    """Return all of both that training may change."""
    numbers = {name: array.copy() for name, array in model.state_dict().items()}
    modes = [(leaf.training, getattr(leaf, "next_step", 0)) for _, leaf in model.leaves()]
    memory = {key: np.copy(a) for key, a in optimizer.state_dict().items()}
    return numbers, modes, memory


def test_ten_images_are_learned_by_heart(digits):
    result = overfit(network(), digits.x_train, digits.t_train)
    assert result
    assert result.passed and result.accuracy == 1.0 and len(result.losses) == result.steps
    assert repr(result).startswith("OK, 10 images are learned by heart: loss ")
    assert "100% of the answers right." in repr(result)


def test_a_good_network_fits_images_too(digits):
    rng = np.random.default_rng(0)
    model = Sequential(Flatten(), Linear(64, 48, rng=rng), ReLU(), Linear(48, 64, rng=rng))
    x = digits.x_train
    result = overfit(model, x, x.reshape(-1, 64), loss=mean_squared_error)
    assert result.passed and result.accuracy is None
    assert "answers" not in repr(result)


def test_trials_change_nothing(digits):
    model, optimizer = network(), Adam(0.01)
    model.layers[1].eval()
    model.forward(digits.x_train[:4])
    optimizer_used = Sequential(*model.layers)
    optimizer_used.backward(np.ones((4, 10), np.float32))
    optimizer.step(model.layers)
    before = everything(model, optimizer)
    overfit(model, digits.x_train, digits.t_train, optimizer=optimizer, steps=20)
    lr_finder(model, digits.x_train, digits.t_train, optimizer, steps=60)
    np.testing.assert_equal(everything(model, optimizer), before)


def test_the_images_are_of_many_classes(digits):
    """Ten zeros are learned by a bias; of sorted labels the first ten are zeros."""
    order = np.argsort(digits.t_train, kind="stable")
    seen = []

    class Notes(Flatten):
        def forward(self, x):
            seen.append(x.copy())
            return super().forward(x)

    model = plain()
    model = Sequential(Notes(), *model.layers[1:])
    overfit(model, digits.x_train[order], digits.t_train[order], steps=1)
    labels = digits.t_train[order]
    firsts = [int(np.flatnonzero(labels == k)[0]) for k in range(10)]
    np.testing.assert_array_equal(seen[0], digits.x_train[order][firsts])


class Frozen(Linear):
    """A layer whose gradient is zero."""

    def backward(self, dy):
        dx = super().backward(dy)
        self.grads["weight"][:] = 0
        return dx


class WrongSign(Linear):
    """A layer that passes back the wrong gradient."""

    def backward(self, dy):
        return -super().backward(dy)


def dead():
    """Return a network in which nothing comes through the ReLU."""
    model = plain()
    model.params["1.bias"][:] = -100
    return model


def affine():
    """Return a network without an activation, too narrow for ten images."""
    rng = np.random.default_rng(0)
    return Sequential(Flatten(), Linear(64, 2, rng=rng), Linear(2, 10, rng=rng))


def frozen():
    """Return a network with a layer that does not learn."""
    rng = np.random.default_rng(0)
    return Sequential(Flatten(), Linear(64, 32, rng=rng), ReLU(), Frozen(32, 2, rng=rng))


@pytest.mark.parametrize(
    "model, changes, words",
    [
        (plain, {"optimizer": SGD(1e-4)}, "The loss still falls: try more steps"),
        (plain, {"optimizer": SGD(1e8)}, "The loss rises: try a learning rate ten times"),
        (plain, {"optimizer": SGD(1e30)}, "try a learning rate below 1e"),
        (dead, {}, r"Layer 1 \(Linear\) did not change its weight"),
        (affine, {}, "The network is one linear map: there is no activation"),
        (lambda: Sequential(Flatten()), {}, "The network has no parameters"),
    ],
)
def test_what_is_wrong_is_told(model, changes, words, digits):
    result = overfit(model(), digits.x_train, digits.t_train, steps=300, **changes)
    assert not result
    assert not result.passed
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(repr(result))
    assert repr(result).startswith("Not OK, 10 images are not learned by heart: loss ")


def test_a_layer_without_gradient_is_named(digits):
    t = digits.t_train % 2
    result = overfit(frozen(), digits.x_train, t, steps=30, optimizer=SGD(1e-3))
    assert "Layer 3 (Frozen) did not change its weight" in repr(result)


def test_equal_images_with_different_labels_are_told(digits):
    x, t = digits.x_train[:10].copy(), np.arange(10)
    x[7] = x[2]
    told = repr(overfit(plain(), x, t, steps=100))
    assert "Two of the images are equal, and their targets are 2 and 7" in told


def test_a_first_loss_that_is_too_large_is_told(digits):
    told = repr(overfit(plain(), 255 * digits.x_train, digits.t_train, steps=5))
    assert "nats, and who knows nothing has 2.3: the first weights or the images" in told
    fresh = repr(overfit(plain(), digits.x_train, digits.t_train, steps=5))
    assert "who knows nothing" not in fresh


def test_a_wrong_gradient_is_suspected(digits):
    rng = np.random.default_rng(0)
    model = Sequential(Flatten(), Linear(64, 3, rng=rng), ReLU(), WrongSign(3, 10, rng=rng))
    result = overfit(model, digits.x_train, digits.t_train, optimizer=SGD(0.05))
    assert not result


def test_rates_rise_by_one_factor(digits):
    search = lr_finder(
        plain(),
        digits.x_train,
        digits.t_train,
        SGD(0.3, 0.9),
        low=1e-4,
        high=1e-2,
        steps=50,
    )
    np.testing.assert_allclose(search.rates, np.geomspace(1e-4, 1e-2, 50))
    assert search.losses.shape == search.smooth.shape == (50,)
    assert search.tenth == search.lowest / 10
    assert search.steepest <= search.lowest


def test_the_running_mean_is_the_one_that_is_said(digits):
    search = lr_finder(plain(), digits.x_train, digits.t_train, SGD(1.0), steps=30)
    weights = 0.9 ** np.arange(30)
    for k in (0, 1, 7, len(search.losses) - 1):
        expected = np.average(search.losses[k::-1], weights=weights[: k + 1])
        np.testing.assert_allclose(search.smooth[k], expected)


def test_the_search_ends_where_steps_blow_up():
    """Of a mean of squares they do above 2 over the largest curvature: a theorem."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 5))
    t = x @ rng.normal(size=(5, 1))
    curvature = np.linalg.eigvalsh(2 / 64 * x.T @ x).max()
    model = Sequential(Linear(5, 1, bias=False, rng=rng, dtype=np.float64))
    search = lr_finder(
        model, x, t, SGD(1.0), low=1e-5, high=100.0, steps=200, batch_size=64,
        loss=mean_squared_error,
    )  # fmt: skip
    assert 0.1 < search.lowest / (2 / curvature) < 10
    assert search.rates[-1] < 100  # it has ended early
    assert len(search.rates) == len(search.losses) < 200


def test_the_suggested_rate_learns(digits):
    from course.training import evaluate, fit

    search = lr_finder(plain(), digits.x_train, digits.t_train, SGD(1.0, 0.9))
    model = plain()
    fit(
        model, digits.x_train, digits.t_train, epochs=3, batch_size=32, seed=0,
        optimizer=SGD(search.tenth, 0.9), progress=False,
    )  # fmt: skip
    assert evaluate(model, digits.x_test, digits.t_test).accuracy > 0.85
    assert f"try a tenth, {search.tenth:.2g}" in repr(search)


def test_a_search_without_a_fall_is_an_error(digits):
    with pytest.raises(ValueError, match="the loss never fell from"):
        lr_finder(plain(), digits.x_train, digits.t_train, SGD(1.0), low=1e3, high=1e9)
    with pytest.raises(ValueError, match=r"must be 0 < low < high, not 1 and 0\.1"):
        lr_finder(plain(), digits.x_train, digits.t_train, SGD(1.0), low=1, high=0.1)
