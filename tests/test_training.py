"""course/training.py: what fit promises, on real digits."""

import _thread
import threading

import numpy as np
import pytest

from course.data import load
from course.device import get_threads, set_threads
from course.layers import Flatten, Linear, ReLU
from course.model import Sequential
from course.optimizers import SGD
from course.training import batches, evaluate, fit
from course.zoo.lenet5 import lenet5


@pytest.fixture(scope="module")
def digits():
    return load("digits", size=8)


def perceptron(seed=0):
    """Return a small network for 8x8 digits."""
    rng = np.random.default_rng(seed)
    return Sequential(Flatten(), Linear(64, 32, rng=rng), ReLU(), Linear(32, 10, rng=rng))


def train(model, digits, **options):
    """Train for two epochs unless told otherwise."""
    settings = {"epochs": 2, "batch_size": 32, "seed": 0, "progress": False}
    optimizer = options.pop("optimizer", SGD(0.1, 0.9))
    settings |= options
    return fit(model, digits.x_train, digits.t_train, optimizer=optimizer, **settings)


def test_digits_are_learned(digits):
    model = perceptron()
    history = train(model, digits, validation=(digits.x_test, digits.t_test), epochs=5)
    assert abs(history.batch_loss[0] - np.log(10)) < 1.0  # a fresh network knows nothing
    assert history.train_loss[-1] < 0.3
    assert history.test_accuracy[-1] > 0.9
    assert len(history.train_loss) == len(history.test_loss) == 5


def test_evaluate_counts_right_answers(digits):
    class Knows(Sequential):
        def forward(self, x):  # the right class for the first half, another for the rest
            shift = (np.arange(len(x)) >= len(x) / 2).astype(int)
            return 50 * np.eye(10)[(digits.t_test[: len(x)] + shift) % 10]

    count = 200
    result = evaluate(Knows(), digits.x_test[:count], digits.t_test[:count])
    assert result.accuracy == 0.5
    np.testing.assert_allclose(result.loss, 25.0)
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1.0)


def test_same_seed_same_bits_whatever_the_threads(digits):
    weights = []
    usual = get_threads()
    for threads in (1, 2, 3):
        set_threads(threads)
        model = lenet5(rng=np.random.default_rng(0))
        x = np.kron(digits.x_train[:64], np.ones((1, 1, 3, 3), np.float32))
        x = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
        fit(
            model, x, digits.t_train[:64], epochs=1, batch_size=32,
            optimizer=SGD(0.1, 0.9), seed=0, progress=False,
        )  # fmt: skip
        weights.append(model.params)
    set_threads(usual)
    for name, array in weights[0].items():
        for other in weights[1:]:
            np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_another_seed_gives_another_order(digits):
    one, two = perceptron(), perceptron()
    train(one, digits, seed=0)
    train(two, digits, seed=1)
    assert not np.array_equal(one.params["1.weight"], two.params["1.weight"])


def test_every_image_is_used_once_an_epoch():
    seen = np.concatenate(list(batches(103, 10, np.random.default_rng(0))))
    np.testing.assert_array_equal(np.sort(seen), np.arange(103))
    assert not np.array_equal(seen, np.arange(103))


def test_schedule_is_followed_and_undone(digits):
    rates = []

    class Notes(SGD):
        def step(self, layers):
            rates.append(self.learning_rate)
            super().step(layers)

    optimizer = Notes(0.1)
    train(perceptron(), digits, optimizer=optimizer, schedule=lambda done: 1 - done)
    steps = len(rates)
    np.testing.assert_allclose(rates, 0.1 * (1 - np.arange(steps) / steps))
    assert optimizer.learning_rate == 0.1


def test_interrupt_keeps_the_weights_of_the_last_step(digits):
    """A real interrupt of the main thread, as Ctrl-C and a notebook's stop button send."""
    model = perceptron()
    start = model.params["1.weight"].copy()
    losses = []

    def stop(history):
        losses.extend(history.batch_loss)
        if len(history.train_loss) == 2:
            threading.Timer(0.01, _thread.interrupt_main).start()

    with pytest.raises(KeyboardInterrupt):
        train(model, digits, epochs=100_000, after_epoch=stop)
    assert losses
    assert not np.array_equal(model.params["1.weight"], start)
    assert all(np.isfinite(array).all() for array in model.params.values())
    assert evaluate(model, digits.x_test, digits.t_test).accuracy > 0.5


def test_divergence_stops_with_a_remedy(digits):
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match="try a learning rate below 1e"),
    ):
        train(perceptron(), digits, optimizer=SGD(1e20))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"validation": (np.zeros((0, 1)), [])}, "validation x has 0 images"),
    ],
)
def test_impossible_settings_are_refused(change, words, digits):
    with pytest.raises(ValueError, match=words):
        train(perceptron(), digits, **change)


def test_labels_must_match_images(digits):
    with pytest.raises(ValueError, match="one label for each"):
        evaluate(perceptron(), digits.x_test, digits.t_test[:-1])
