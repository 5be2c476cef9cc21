"""course/schedules.py: the formulas by hand, and PyTorch where it is installed."""

import warnings

import numpy as np
import pytest

from course.layers import Linear
from course.model import Sequential
from course.optimizers import SGD
from course.schedules import (
    cosine,
    exponential,
    linear,
    one_cycle,
    step,
    table,
    warm_up,
)
from course.training import fit

STEPS = 90


def pytorch(make, steps=STEPS):
    """Return the rates of a scheduler that is called after each step, from a peak of 1.

    `make` gets torch.optim.lr_scheduler and an optimizer.
    """
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    scheduler, rates = make(torch.optim.lr_scheduler, optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SequentialLR uses what PyTorch warns of
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    "schedule, make",
    [
        (step([1 / 3, 2 / 3]), lambda t, o: t.StepLR(o, STEPS // 3)),
        (step([0.1, 0.7], 0.5), lambda t, o: t.MultiStepLR(o, [9, 63], 0.5)),
        (linear(), lambda t, o: t.LinearLR(o, 1.0, 0.0, STEPS)),
        (linear(0.2), lambda t, o: t.LinearLR(o, 1.0, 0.2, STEPS)),
        (cosine(), lambda t, o: t.CosineAnnealingLR(o, STEPS)),
        (cosine(0.1), lambda t, o: t.CosineAnnealingLR(o, STEPS, 0.1)),
        (exponential(0.01), lambda t, o: t.ExponentialLR(o, 0.01 ** (1 / STEPS))),
        (
            warm_up(0.1, cosine(), start=0.25),
            lambda t, o: t.SequentialLR(
                o, [t.LinearLR(o, 0.25, 1.0, 9), t.CosineAnnealingLR(o, STEPS - 9)], [9]
            ),
        ),
    ],
)
def test_rates_are_those_of_pytorch(schedule, make):
    np.testing.assert_allclose(table(schedule, STEPS), pytorch(make), 0, 1e-12)


@pytest.mark.parametrize("steps", [10, 90])
def test_one_cycle_is_that_of_pytorch(steps):
    """There the last step is at share 1, and the peak a step before the warm-up's end."""
    theirs = pytorch(lambda t, o: t.OneCycleLR(o, 1.0, total_steps=steps), steps - 1)
    mine = one_cycle(warm=(0.3 * steps - 1) / (steps - 1))
    found = [mine(done / (steps - 1)) for done in range(steps - 1)]
    np.testing.assert_allclose(found, theirs, 0, 1e-12)
    np.testing.assert_allclose(mine(1.0), 1e-4 / 25)


def test_rate_falls_at_the_milestone_itself():
    """Whatever the number of steps: k/n is the same number wherever it is computed."""
    for steps in range(2, 400):
        for milestone in (1, steps // 2, steps - 1):
            found = table(step([milestone / steps], 0.5), steps)
            expected = np.where(np.arange(steps) < milestone, 1.0, 0.5)
            np.testing.assert_array_equal(found, expected)


def test_corners_of_cosine_and_one_cycle():
    np.testing.assert_allclose([cosine(0.2)(share) for share in (0, 0.5, 1)], [1, 0.6, 0.2])
    cycle = one_cycle(0.25, 0.1, 0.01)
    found = [cycle(share) for share in (0, 0.125, 0.25, 0.625, 1)]
    np.testing.assert_allclose(found, [0.1, 0.55, 1, 0.505, 0.01])


def test_cosine_and_exponential_between_their_ends():
    """At a quarter the cosine is that of 45 degrees; half of an exponential is a root."""
    np.testing.assert_allclose(cosine(0.2)(0.25), 0.2 + 0.8 * (1 + 0.5**0.5) / 2)
    np.testing.assert_allclose([exponential(0.01)(0.5), exponential(0.01)(1)], [0.1, 0.01])


def test_after_warming_up_the_other_schedule_has_its_whole_range():
    schedule = warm_up(0.5, linear(0.5), start=0.2)
    found = [schedule(share) for share in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(found, [0.2, 0.6, 1, 0.75, 0.5])


@pytest.mark.parametrize("schedule", [warm_up(0, linear()), warm_up(1, linear())])
def test_no_warm_up_and_nothing_else(schedule):
    assert schedule(1.0) == (0.0 if schedule(0.0) else 1.0)


@pytest.mark.parametrize("warm", [0, 1])
def test_one_cycle_may_only_fall_or_only_rise(warm):
    cycle = one_cycle(warm, start=0.1, end=0.2)
    assert [cycle(0.0), cycle(1.0)] == pytest.approx([[1, 0.2], [0.1, 1]][warm])


def test_training_takes_the_scheduled_steps(rng):
    """Weights of a linear score move with the rate: their path tells the schedule."""
    x = np.ones((8, 1), np.float64)
    paths = []
    for schedule in (None, step([0.5], gamma=0.5)):
        model = Sequential(Linear(1, 2, bias=False, rng=rng, dtype=np.float64))
        model.params["0.weight"][:] = 0
        path, optimizer = [0.0], SGD(1e-4)
        fit(
            model, x, np.zeros(8, int), epochs=4, batch_size=8, optimizer=optimizer,
            seed=0, schedule=schedule, progress=False,
            after_epoch=lambda _, m=model, p=path: p.append(m.params["0.weight"][0, 0]),
        )  # fmt: skip
        assert optimizer.learning_rate == 1e-4
        paths.append(np.diff(path))
    np.testing.assert_allclose(paths[1] / paths[0], [1, 1, 0.5, 0.5], 1e-3)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: step([30, 60]), ValueError, "epoch 30 of 90 is 30 / 90"),
        (lambda: step([0.7, 0.3]), ValueError, "milestones are shares of training"),
        (lambda: step(["a"]), TypeError, "a milestone must be a number, not 'a'"),
        (lambda: step([0.5], 0), ValueError, "gamma is a share, above 0, at most 1, not 0"),
        (lambda: step([0.5], 10), ValueError, "gamma is a share, above 0, at most 1"),
        (lambda: linear(-0.1), ValueError, "floor is a share, 0 to 1, not -0.1"),
        (lambda: cosine(1.1), ValueError, "floor is a share, 0 to 1, not 1.1"),
        (lambda: exponential(0), ValueError, "floor is a share, above 0, at most 1, not 0"),
        (lambda: warm_up(5, linear()), ValueError, "warm is a share, 0 to 1, not 5"),
        (lambda: warm_up(0.1, linear(), 2), ValueError, "start is a share, 0 to 1, not 2"),
        (lambda: one_cycle(end=-1), ValueError, "end is a share, 0 to 1, not -1"),
        (lambda: one_cycle("0.3"), TypeError, "warm must be a number, not '0.3'"),
    ],
)
def test_impossible_settings_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
