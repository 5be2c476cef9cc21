"""course/training.py: what fit promises, on real digits."""

import _thread
import signal
import threading
import time

import numpy as np
import pytest

from course import checkpoints
from course.data import load
from course.device import get_threads, set_threads
from course.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, ReLU
from course.losses import mean_squared_error, softmax_cross_entropy
from course.model import Sequential
from course.optimizers import SGD, Adam
from course.regularization import L2
from course.training import batches, evaluate, fit
from course.vision.augmentation import Shift
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


def test_a_training_is_what_its_definition_says():
    """Order of the images, means, penalty, momentum and schedule, all in NumPy."""
    rng = np.random.default_rng(1)
    x, t = rng.normal(size=(7, 3)), rng.integers(4, size=7)
    model = Sequential(Linear(3, 4, rng=rng, dtype=np.float64))
    w, b = (model.params[f"0.{name}"].copy() for name in ("weight", "bias"))
    mw, mb, losses, step = np.zeros_like(w), np.zeros_like(b), [], 0
    for epoch in (1, 2, 3):
        order = np.random.default_rng([5, epoch]).permutation(7)
        for first in (0, 3, 6):  # batches of 3, 3 and 1
            k = order[first : first + 3]
            s = x[k] @ w.T + b
            p = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
            penalty = 0.05 * np.sum(w * w)
            losses.append(-np.log(p[np.arange(len(k)), t[k]]).mean() + penalty)
            ds = (p - np.eye(4)[t[k]]) / len(k)
            mw = 0.9 * mw + ds.T @ x[k] + 0.1 * w
            mb = 0.9 * mb + ds.sum(axis=0)
            rate = 0.2 * (1 - step / 9)
            w, b, step = w - rate * mw, b - rate * mb, step + 1
    history = fit(
        model, x, t, epochs=3, batch_size=3, optimizer=SGD(0.2, 0.9), seed=5,
        schedule=lambda done: 1 - done, regularization=[L2(0.1)], progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(model.params["0.weight"], w, 1e-12)
    np.testing.assert_allclose(model.params["0.bias"], b, 1e-12)
    np.testing.assert_allclose(history.batch_loss, losses, 1e-12)
    np.testing.assert_allclose(
        history.train_loss, np.reshape(losses, (3, 3)).mean(1), 1e-12
    )
    np.testing.assert_allclose(history.learning_rate, 0.2 * (1 - np.arange(9) / 9))
    assert history.epoch_ends == [3, 6, 9]
    assert len(history.seconds) == 3 and min(history.seconds) > 0


def test_augment_draws_by_seed_epoch_and_batch(digits):
    draws = []

    def note(x, rng):
        draws.append(rng.random())
        return x

    train(perceptron(), digits, augment=note, batch_size=600, seed=7)
    expected = [
        np.random.default_rng([7, e, b]).random() for e in (1, 2) for b in (1, 2, 3)
    ]
    assert draws == expected


def test_augment_changes_what_is_learned_from_and_only_that(digits):
    before = digits.x_train.copy()
    plain, changed = perceptron(), perceptron()
    train(plain, digits)
    train(changed, digits, augment=Shift(1))
    assert not np.array_equal(plain.params["1.weight"], changed.params["1.weight"])
    np.testing.assert_array_equal(digits.x_train, before)


# --- evaluation ---------------------------------------------------------------------------


def normalised(seed=0):
    """Return a network whose modes, statistics and masks matter."""
    rng = np.random.default_rng(seed)
    return Sequential(
        Conv2d(1, 4, 3, rng=rng), BatchNorm2d(4), ReLU(), Flatten(), Dropout(0.5, rng=rng),
        Sequential(Linear(144, 10, rng=rng)),
    )  # fmt: skip


def lasting(model):
    """Return copies of all of a model that a step may change for good."""
    numbers = {name: array.copy() for name, array in model.state_dict().items()}
    counts = [leaf.next_step for _, leaf in model.leaves() if isinstance(leaf, Dropout)]
    return numbers, counts, [leaf.training for _, leaf in model.leaves()]


def assert_same(one, two):
    """Check that two of these are equal bit for bit."""
    np.testing.assert_equal(one, two)


def test_evaluation_is_in_eval_mode_and_changes_nothing(digits):
    model = normalised()
    train(model, digits, epochs=1)
    model.layers[1].eval()  # a layer that is frozen stays frozen
    before = lasting(model)
    result = evaluate(model, digits.x_test, digits.t_test)
    assert_same(lasting(model), before)
    model.eval()
    scores = model.forward(digits.x_test)
    np.testing.assert_array_equal(result.predictions, scores.argmax(axis=1))
    assert result.loss == softmax_cross_entropy(scores, digits.t_test)[0]


def test_fit_trains_a_model_that_was_in_use_and_leaves_frozen_layers_frozen(digits):
    model = normalised().eval()
    train(model, digits, epochs=1)
    assert model.training and model.layers[4].next_step == -(-len(digits.x_train) // 32)
    model.layers[1].eval()
    mean = model.buffers["1.running_mean"].copy()
    train(model, digits, epochs=1, validation=(digits.x_test, digits.t_test))
    assert not model.layers[1].training and model.layers[4].training
    np.testing.assert_array_equal(model.buffers["1.running_mean"], mean)


def test_targets_may_be_images(digits):
    """A network that gives back what it gets, through 32 numbers."""
    rng = np.random.default_rng(0)
    model = Sequential(Flatten(), Linear(64, 32, rng=rng), Linear(32, 64, rng=rng))
    x, t = digits.x_train, digits.x_train.reshape(-1, 64)
    unseen = digits.x_test, digits.x_test.reshape(-1, 64)
    history = fit(
        model, x, t, epochs=8, batch_size=32, optimizer=Adam(0.01), seed=0,
        loss=mean_squared_error, validation=unseen, progress=False,
    )  # fmt: skip
    result = evaluate(model, *unseen, loss=mean_squared_error)
    expected = np.mean((model.forward(unseen[0]) - unseen[1]) ** 2)
    np.testing.assert_allclose(result.loss, expected, 1e-5)
    assert result.loss == history.test_loss[-1] < np.var(t, axis=0).mean() / 5
    assert history.test_accuracy == [] and result.accuracy is None


def test_large_images_are_evaluated_in_small_parts():
    sizes = []

    class Notes(Flatten):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)[:, :2]

    t = np.zeros(600, int)
    evaluate(Sequential(Notes()), np.zeros((600, 1, 28, 28), np.float32), t)
    assert sizes == [500, 100]
    sizes.clear()
    evaluate(Sequential(Notes()), np.zeros((5, 3, 300, 300), np.float32), t[:5])
    assert sizes == [1, 1, 1, 1, 1]


# --- the end ------------------------------------------------------------------------------


def scripted(losses):
    """Return a loss that is 1 in training, and in evaluation the next of these."""
    left = iter(losses)

    def loss(scores, labels):
        value, dscores = softmax_cross_entropy(scores, labels)
        return (next(left) if len(labels) == 7 else value), dscores

    return loss


def test_patience_ends_training_and_the_best_weights_come_back(digits):
    model, weights = perceptron(), []
    seven = digits.x_test[:7], digits.t_test[:7]
    history = train(
        model, digits, epochs=9, batch_size=500, validation=seven, patience=2,
        restore_best=True, loss=scripted([3.0, 2.0, 1.0, 1.5, 1.0, 0.5]),
        after_epoch=lambda _: weights.append(model.params["1.weight"].copy()),
    )  # fmt: skip
    assert history.test_loss == [3.0, 2.0, 1.0, 1.5, 1.0]  # as low is not lower
    assert (history.best_epoch, history.stopped) == (3, "not better than after epoch 3")
    np.testing.assert_array_equal(model.params["1.weight"], weights[2])
    assert not np.array_equal(weights[2], weights[4])


def test_the_best_weights_outlive_the_process(digits, tmp_path):
    """The best epoch is before the interrupt; another model goes on after it."""
    first, weights = perceptron(), []
    settings = {
        **{"epochs": 9, "batch_size": 500, "patience": 2, "restore_best": True},
        **{"validation": (digits.x_test[:7], digits.t_test[:7])},
        **{"loss": scripted([2.0, 1.0, 1.5, 1.7]), "checkpoint": tmp_path / "run"},
    }

    def interrupt_after_three(history):
        weights.append(first.params["1.weight"].copy())
        if len(weights) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(first, digits, after_epoch=interrupt_after_three, **settings)
    model = perceptron(seed=1)
    assert train(model, digits, **settings).stopped == "not better than after epoch 2"
    np.testing.assert_array_equal(model.params["1.weight"], weights[1])
    assert not np.array_equal(weights[1], weights[2])


def test_without_restore_best_the_last_weights_stay(digits):
    model, weights = perceptron(), []
    train(
        model, digits, epochs=9, validation=(digits.x_test[:7], digits.t_test[:7]),
        patience=1, loss=scripted([1.0, 2.0, 0.0]),
        after_epoch=lambda _: weights.append(model.params["1.weight"].copy()),
    )  # fmt: skip
    np.testing.assert_array_equal(model.params["1.weight"], weights[-1])
    assert len(weights) == 2


@pytest.mark.parametrize("moment", ["after_step", "after_epoch"])
def test_a_callback_can_end_training(moment, digits):
    calls = []

    def stop(history):
        calls.append(len(history.batch_loss))
        return len(calls) == 3

    history = train(perceptron(), digits, epochs=5, batch_size=600, **{moment: stop})
    assert calls == ([1, 2, 3] if moment == "after_step" else [3, 6, 9])
    assert len(history.batch_loss) == calls[-1]
    assert history.stopped == f"{moment} said so"


# --- interrupts ---------------------------------------------------------------------------


def interrupt():
    """Interrupt this process as Ctrl-C and a notebook's stop button do."""
    signal.raise_signal(signal.SIGINT)


def train_normalised(model, digits, **options):
    """Train it with all that has a memory."""
    options = {"optimizer": Adam(0.01), "augment": Shift(1), "batch_size": 64} | options
    return train(model, digits, epochs=1, **options)


def after(steps, digits):
    """Return what a model is after so many steps that nobody disturbed."""
    model, optimizer = normalised(), Adam(0.01)
    train_normalised(
        model, digits, optimizer=optimizer,
        after_step=lambda history: len(history.batch_loss) == steps,
    )  # fmt: skip
    return lasting(model), optimizer.state_dict()


class InterruptedInStep(Adam):
    """Adam that is interrupted between two parameters of its fifth step."""

    _changes, _times = 0, 1

    def _change(self, *arguments):
        self._changes += 1
        if self._changes == 4 * 6 + 2:
            for _ in range(self._times):
                interrupt()
        super()._change(*arguments)


InterruptedInStep.__name__ = "Adam"  # for state_dict


def test_interrupted_between_two_parameters_the_step_is_finished(digits):
    model, optimizer = normalised(), InterruptedInStep(0.01)
    with pytest.raises(KeyboardInterrupt):
        train_normalised(model, digits, optimizer=optimizer)
    assert_same((lasting(model), optimizer.state_dict()), after(5, digits))


def test_a_second_interrupt_does_not_wait_and_is_not_kept(digits, tmp_path):
    path = tmp_path / "run.safetensors"
    model, optimizer = normalised(), InterruptedInStep(0.01)
    optimizer._times = 2
    with pytest.raises(KeyboardInterrupt):
        train_normalised(
            model, digits, optimizer=optimizer, checkpoint=path, checkpoint_every=4
        )
    state = checkpoints.read(path)[1]
    (numbers, _, _), _ = after(4, digits)
    assert_same(state["weights"], numbers)
    assert not np.array_equal(model.params["0.weight"], numbers["0.weight"])


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_interrupted_in_a_layer_the_step_is_undone(method, digits):
    class Stops(ReLU):
        calls = 0

    def stop(self, x):
        self.calls += 1
        if self.calls == 5:
            interrupt()
        return getattr(ReLU, method)(self, x)

    setattr(Stops, method, stop)
    model, optimizer = normalised(), Adam(0.01)
    model = Sequential(*model.layers[:4], Stops(), *model.layers[4:])
    with pytest.raises(KeyboardInterrupt):
        train_normalised(model, digits, optimizer=optimizer)
    (numbers, counts, _), state = after(4, digits)
    found = lasting(model)
    assert found[1] == counts
    assert_same(list(optimizer.state_dict().values()), list(state.values()))
    for mine, other in zip(found[0].values(), numbers.values(), strict=True):
        np.testing.assert_array_equal(mine, other)


# an interrupt between Python's opening of a file and its `with` leaves it to the collector
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_interrupted_over_and_over_it_ends_in_the_same_bits(digits, tmp_path):
    path, rng, interrupts = tmp_path / "run.safetensors", np.random.default_rng(0), 0
    expected = normalised()
    train_normalised(normalised(), digits)  # compiles
    start = time.perf_counter()
    whole = train_normalised(expected, digits)
    spent = time.perf_counter() - start
    while True:
        model = normalised(seed=int(path.exists()))  # then its weights are not used
        timer = threading.Timer(rng.uniform(0, spent), _thread.interrupt_main)
        try:
            timer.start()
            history = train_normalised(model, digits, checkpoint=path, checkpoint_every=5)
            timer.cancel()
            timer.join()
            break
        except KeyboardInterrupt:
            interrupts += 1
            timer.join()
    assert interrupts > 0
    assert history == whole
    assert_same(lasting(model), lasting(expected))


def test_afterwards_interrupts_are_as_before(digits):
    usual = signal.getsignal(signal.SIGINT)
    train(perceptron(), digits, epochs=1)
    assert signal.getsignal(signal.SIGINT) is usual
    with pytest.raises(KeyboardInterrupt):
        train(perceptron(), digits, after_step=lambda _: interrupt())
    assert signal.getsignal(signal.SIGINT) is usual


def test_fit_works_in_another_thread(digits):
    histories = []
    thread = threading.Thread(target=lambda: histories.append(train(perceptron(), digits)))
    thread.start()
    thread.join()
    assert histories[0] == train(perceptron(), digits)


def test_an_error_of_a_layer_loses_nothing(digits):
    model = normalised()
    before = lasting(model)
    with pytest.raises(ValueError, match="label 77 is not a class"):
        fit(
            model, digits.x_train[:9], np.full(9, 77), epochs=1, batch_size=9,
            optimizer=SGD(0.1), seed=0, progress=False,
        )  # fmt: skip
    assert_same(lasting(model), before)


# --- divergence ---------------------------------------------------------------------------


def test_divergence_stops_with_a_remedy(digits):
    with pytest.raises(FloatingPointError, match="try a learning rate below 1e"):
        train(perceptron(), digits, optimizer=SGD(1e20))


def diverges(model, digits, **changes):
    """Return what is said, and check that the model is what it was before the step."""
    settings = {"x": digits.x_train[:64].copy(), "t": digits.t_train[:64]} | changes
    x, t = settings.pop("x"), settings.pop("t")
    settings = {"epochs": 1, "batch_size": 64, "optimizer": SGD(0.1)} | settings
    before = lasting(model)
    with pytest.raises(FloatingPointError) as error, np.errstate(all="ignore"):
        fit(model, x, t, seed=0, progress=False, **settings)
    assert_same(lasting(model), before)
    assert "The model is as it was before this batch" in str(error.value)
    return str(error.value)


def test_an_image_with_nan_is_named(digits):
    x = digits.x_train[:64].copy()
    x[17, 0, 3, 3] = np.nan
    told = diverges(normalised(), digits, x=x)
    assert "in epoch 1, batch 1: x has NaN or infinity in image 17" in told


def test_a_target_with_nan_is_named(digits):
    t = np.ones((64, 10), np.float32)
    t[9, 3] = np.nan
    told = diverges(normalised(), digits, t=t, loss=mean_squared_error)
    assert "t has NaN or infinity in image 9" in told


def test_an_augmentation_that_makes_nan_is_named(digits):
    def broken(x, rng):
        x = x.copy()
        x[0] = np.inf
        return x

    first = np.random.default_rng([0, 1]).permutation(64)[0]
    told = diverges(normalised(), digits, augment=broken)
    assert f"augment made NaN or infinity in image {first}" in told


def test_weights_that_are_nan_are_named(digits):
    model = normalised()
    model.params["0.weight"][2, 0, 1, 1] = np.nan
    assert "0.weight is not finite from the start" in diverges(model, digits)


def test_a_step_that_left_weights_infinite_is_named(digits):
    x, t = np.full((8, 3), 1e30, np.float32), np.arange(8) % 2
    model = Sequential(Linear(3, 2, rng=np.random.default_rng(0)))
    with pytest.raises(FloatingPointError) as error:
        fit(
            model, x, t, epochs=1, batch_size=4, optimizer=SGD(1e10), seed=0, progress=False
        )
    told = str(error.value)
    assert "batch 2: the step before left 0.weight not finite" in told
    assert "try a learning rate below 1e+10" in told


def test_the_first_layer_that_is_not_finite_is_named(digits):
    class Overflows(ReLU):
        def forward(self, x):
            return super().forward(x) * np.float32(1e38) * np.float32(1e38)

    model = normalised()
    inner = Sequential(square=Overflows(), fc=model.layers[5])
    model = Sequential(*model.layers[:5], inner)
    told = diverges(model, digits)
    assert "layer 5.square (Overflows) was the first whose output is not finite" in told
    assert "images are best between -1 and 1" in told  # at the first step no rate is wrong


def test_the_first_gradient_that_is_not_finite_is_named(digits):
    class Broken(ReLU):
        def backward(self, dy):
            return super().backward(dy) * np.float32(np.nan)

    first, *rest = perceptron().layers
    model = Sequential(first, rest[0], Broken(), rest[2])
    told = diverges(model, digits)
    assert told.startswith("the loss is 2.")  # a number
    assert "layer 1 (Linear) was the first with a gradient that is not finite" in told


def test_a_loss_that_is_not_finite_of_finite_scores_is_told_apart(digits):
    def broken(scores, labels):
        return float("inf"), scores

    told = diverges(perceptron(), digits, loss=broken)
    assert "every layer's output is finite, the loss of it is not" in told


def test_a_last_step_into_infinity_is_found(digits):
    x, t = np.full((4, 3), 1e30, np.float32), np.array([0, 1, 0, 1])
    model = Sequential(Linear(3, 2, rng=np.random.default_rng(0)))
    with pytest.raises(FloatingPointError, match="last step of epoch 1 left 0"):
        fit(
            model, x, t, epochs=1, batch_size=4, optimizer=SGD(1e10), seed=0, progress=False
        )


@pytest.mark.parametrize(
    "change, words",
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"validation": (np.zeros((0, 1)), [])}, "validation x has 0 images"),
        ({"patience": 2}, "patience and restore_best need images"),
        ({"restore_best": True}, "patience and restore_best need images"),
        ({"checkpoint_every": 2}, "checkpoint_every needs a file"),
    ],
)
def test_impossible_settings_are_refused(change, words, digits):
    with pytest.raises(ValueError, match=words):
        train(perceptron(), digits, **change)


def test_labels_must_match_images(digits):
    with pytest.raises(ValueError, match="one label for each"):
        evaluate(perceptron(), digits.x_test, digits.t_test[:-1])
