"""Trials before a long training: can it learn at all, and at which learning rate?

Both work on copies: the model and the optimizer are afterwards what they were, bit for bit.
"""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import combinations
from math import ceil, log

import numpy as np

from course.device import Array, host, number, to
from course.losses import softmax_cross_entropy
from course.model import Container
from course.optimizers import Adam, Optimizer
from course.shapes import integer
from course.training import History, Loss, are_classes, evaluate, fit

LEARNED = 0.1  # a loss of classes below which their images are known by heart
SHARE = 0.05  # of its first loss, for targets that are no classes
EVERY = 10  # steps from one look at the result to the next

SMOOTH = 0.9  # share of the mean so far that stays at each step
BLOWN_UP = 4  # times the lowest loss, where a search ends


@dataclass(frozen=True)
class Overfit:
    """What came of learning a few images by heart; true if it went well.

    Attributes
    ----------
    passed : all answers are right and the loss is tiny
    steps : how many it took, or all there were
    losses : the loss of each step
    accuracy : in the end, 0 to 1; None where targets are not classes
    verdict : a sentence on it, and if it failed, what is likely wrong
    """

    passed: bool
    steps: int
    losses: list[float] = field(repr=False)
    accuracy: float | None
    verdict: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.verdict


def overfit(
    model: Container,
    x: Array,
    t: Array,
    *,
    optimizer: Optimizer | None = None,
    loss: Loss = softmax_cross_entropy,
    images: int = 10,
    steps: int = 500,
    seed: int = 0,
) -> Overfit:
    """Train a copy of the model on a few images until it knows them by heart.

    A network that cannot do that will not learn more images either: something is broken.
    Of labels that are wrong it says nothing, as these too are learned by heart. The images
    are of as many classes as possible. Without an optimizer it is Adam(0.001); give yours
    to try its learning rate.

    Source: Karpathy, "A Recipe for Training Neural Networks" (2019); CS231n, "overfit a
    tiny subset of data".
    """
    chosen = _mixed(np.asarray(t), integer("images", images, 1))
    x, t = np.asarray(x)[chosen], np.asarray(t)[chosen]
    copy = deepcopy(model)
    optimizer = Adam(1e-3) if optimizer is None else deepcopy(optimizer)
    first = evaluate(copy, x, t, loss)
    enough = LEARNED if are_classes(t) else SHARE * first.loss
    history, result = History(), first

    def learned(so_far: History) -> bool:
        nonlocal history, result
        history = so_far
        if len(so_far.batch_loss) % EVERY:
            return False
        result = evaluate(copy, x, t, loss)
        return result.loss < enough and result.accuracy in (1.0, None)

    trouble = ""
    try:
        fit(
            copy, x, t, epochs=integer("steps", steps, 1), batch_size=len(x), loss=loss,
            optimizer=optimizer, seed=seed, after_step=learned, progress=False,
        )  # fmt: skip
        result = evaluate(copy, x, t, loss)
    except FloatingPointError as error:
        trouble = "T" + str(error)[1:]
    losses = history.batch_loss
    passed = not trouble and result.loss < enough and result.accuracy in (1.0, None)
    told = f"loss {first.loss:.3g}, after {len(losses)} steps {result.loss:.3g}"
    if result.accuracy is not None:
        told += f", {result.accuracy:.0%} of the answers right"
    if passed:
        verdict = f"OK, {len(x)} images are learned by heart: {told}."
    else:
        trouble = trouble or _likely(model, copy, x, t, losses)
        verdict = f"Not OK, {len(x)} images are not learned by heart: {told}. {trouble}."
    if loss is softmax_cross_entropy and result.predictions is not None:
        blind = log(first.probabilities.shape[1])
        if first.loss > 2 * blind:
            verdict += (
                f" It began at {first.loss:.3g} nats, and who knows nothing has "
                f"{blind:.3g}: the first weights or the images are large."
            )
    return Overfit(passed, len(losses), losses, result.accuracy, verdict)


def _mixed(t: Array, count: int) -> Array:
    """Return indices of so many targets, of as many classes as possible."""
    if not are_classes(t):
        return np.arange(min(count, len(t)))
    seen: Counter[int] = Counter()
    turns = []  # how many of its class come before it
    for k in t.tolist():
        turns.append(seen[k])
        seen[k] += 1
    return np.sort(np.argsort(turns, kind="stable")[:count])


def _likely(
    before: Container, model: Container, x: Array, t: Array, losses: list[float]
) -> str:
    """Say what is likely wrong with a model that could not learn x and t."""
    if not model.params:
        return "The network has no parameters, so that there is nothing to learn"
    for k, m in combinations(range(len(x)), 2):
        if np.array_equal(x[k], x[m]) and not np.array_equal(t[k], t[m]):
            return f"Two of the images are equal, and their targets are {t[k]} and {t[m]}"
    tenth = -(-len(losses) // 10)
    last = np.mean(losses[-tenth:])
    if last > losses[0]:
        return "The loss rises: try a learning rate ten times smaller"
    for (name, old), (_, new) in zip(before.leaves(), model.leaves(), strict=True):
        pairs = ((key, host(a), host(new.params[key])) for key, a in old.params.items())
        same = [key for key, a, b in pairs if np.array_equal(a, b)]
        if same:
            return (
                f"Layer {name} ({type(new).__name__}) did not change its {same[0]}: no "
                "gradient comes through to it, as behind a ReLU whose inputs are all "
                "negative"
            )
    with model.unchanged():
        y = host(model.eval().forward(to(model.device, x)))
        between = (x[:1] + x[1:2]) / 2  # of one image there is no second
        middle = host(model.forward(to(model.device, between))) if len(x) > 1 else y
    if np.ptp(y, axis=0).max() <= 1e-3 * np.abs(y).max():
        return "The outputs are the same for all images: on the way, something lost them"
    if np.abs(x).max() > 20:
        return f"The images reach {np.abs(x).max():.3g}: bring them to about -1 to 1"
    if len(x) > 1 and np.allclose(middle[0], (y[0] + y[1]) / 2, 1e-3, 1e-4):
        return "The network is one linear map: there is no activation between its layers"
    if np.mean(losses[-2 * tenth : -tenth] or last) - last > 0.03 * (losses[0] - last):
        return "The loss still falls: try more steps, or a learning rate ten times larger"
    return (
        "The loss stays where it is: the learning rate may be wrong by a factor of ten or "
        "more, dropout too strong, or a backward wrong (course.checks.check_layer finds "
        "out)"
    )


@dataclass(frozen=True, eq=False)
class RateSearch:
    """The loss at learning rates that rise from step to step.

    Attributes
    ----------
    rates, losses : (steps,) the learning rate and the loss of each batch
    smooth : (steps,) the running mean of the losses
    lowest : the rate at which smooth is lowest
    tenth : a tenth of that: where the loss still falls, at a safe distance
    steepest : the rate below it in the middle of the tenth of the search in which smooth
        falls most
    """

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray
    lowest: float
    tenth: float
    steepest: float

    def __repr__(self) -> str:
        return (
            f"The loss is lowest at a learning rate of {self.lowest:.2g}: try a tenth, "
            f"{self.tenth:.2g}, or {self.steepest:.2g}, where it falls fastest"
        )


def lr_finder(
    model: Container,
    x: Array,
    t: Array,
    optimizer: Optimizer,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    loss: Loss = softmax_cross_entropy,
    seed: int = 0,
) -> RateSearch:
    """Train a copy for so many steps, at rates from low to high, and return the losses.

    Each rate is the one before times the same factor. The search ends early when the loss
    has blown up. `course.viz.training.lr_curve` draws it.

    Source: Smith, WACV 2017, section 3.3; rates that grow by a factor, and the two
    suggestions: Howard & Gugger, "fastai", Information 11 (2020).

    Raises ValueError unless 0 < low < high, and if the loss blows up before it ever falls.
    """
    low, high, steps = number("low", low), number("high", high), integer("steps", steps, 10)
    if not 0 < low < high:
        raise ValueError(f"low and high must be 0 < low < high, not {low:g} and {high:g}")
    epochs = ceil(steps / ceil(len(x) / integer("batch_size", batch_size, 1)))
    total = epochs * ceil(len(x) / batch_size)
    mean, smooth, history = 0.0, [], History()

    def stop(so_far: History) -> bool:
        nonlocal history, mean
        history, count = so_far, len(so_far.batch_loss)
        mean = SMOOTH * mean + (1 - SMOOTH) * so_far.batch_loss[-1]
        smooth.append(mean / (1 - SMOOTH**count))  # of which a mean of so few lacks
        return count == steps or smooth[-1] > BLOWN_UP * min(smooth)

    optimizer = deepcopy(optimizer)
    optimizer.learning_rate = low
    try:
        fit(
            deepcopy(model), x, t, epochs=epochs, batch_size=batch_size, loss=loss,
            optimizer=optimizer, seed=seed, after_step=stop, progress=False,
            schedule=lambda done: (high / low) ** (round(done * total) / (steps - 1)),
        )  # fmt: skip
    except FloatingPointError:
        if len(smooth) < 3:
            raise
    rates, curve = np.array(history.learning_rate), np.array(smooth)
    best = int(curve.argmin())
    if best < 2:
        raise ValueError(
            f"the loss never fell from {curve[0]:.3g}: begin below low={low:g}, or see "
            "what course.sanity.overfit says"
        )
    width = min(steps // 10, best)
    first = width if best > 2 * width else 0  # before it the mean is of too few losses
    falls = curve[first : best + 1 - width] - curve[first + width : best + 1]
    steepest = float(rates[first + falls.argmax() + width // 2])
    lowest = float(rates[best])
    return RateSearch(
        rates, np.array(history.batch_loss), curve, lowest, lowest / 10, steepest
    )
