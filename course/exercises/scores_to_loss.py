"""Exercise 3: sigmoid, softmax, the two cross-entropies with gradients, entropy, KL.

Scores are (N, C), one row a picture; labels are (N,) class numbers; a binary score z and
its truth y are (N,). Losses are means in nats, entropies are in bits.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from math import exp, log

import numpy as np

from course.exercises.picture import Panel, Window
from course.exercises.spec import Mutant, Question, Speed

HUGE = 1000.0  # exp of it is infinite, in float64 too


def quiet(function: Callable) -> Callable:
    """Return the function without NumPy's warnings: wrong answers overflow on purpose."""

    @wraps(function)
    def run(*arguments):
        with np.errstate(all="ignore"):
            return function(*arguments)

    return run


def wrong(says: str) -> Callable[[Callable], Mutant]:
    """Turn a function into a wrong answer with the sentence that explains it."""
    return lambda function: Mutant(says, quiet(function))


# ---------------------------------------------------------------- right answers


def sigmoid(z):
    """1/(1 + e^-z), from the side on which the exponential is at most 1."""
    z = np.asarray(z, np.float64)
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + small), small / (1 + small))


def log_softmax(s):
    """Subtract log-sum-exp from each row."""
    s = np.asarray(s, np.float64)
    return s - log_sum_exp(s)[:, None]


def log_sum_exp(s):
    """The log of the sum of the exps of each row, about its largest score."""
    s = np.asarray(s, np.float64)
    return np.array([row.max() + log(np.exp(row - row.max()).sum()) for row in s])


def softmax(s):
    """exp of the scores, divided by their sum."""
    return np.exp(log_softmax(s))


def one_hot(labels, C):
    """A row for each label: 1 in its column, 0 elsewhere."""
    return (labels[:, None] == np.arange(C)).astype(np.float64)


def cross_entropy(scores, labels):
    """The mean over pictures of -log p of the right class."""
    return -(one_hot(labels, scores.shape[1]) * log_softmax(scores)).sum() / len(labels)


def cross_entropy_gradient(scores, labels):
    """(p - y)/N."""
    return (softmax(scores) - one_hot(labels, scores.shape[1])) / len(labels)


def bce(z, y):
    """The mean of -(y log p + (1-y) log(1-p)), with log p = -log(1 + e^-z)."""
    z = np.asarray(z, np.float64)
    return (y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)).mean()


def bce_gradient(z, y):
    """(a - y)/N."""
    return (sigmoid(z) - y) / len(z)


def entropy(p):
    """The sum of p * -log2 p over what occurs."""
    return -sum(share * np.log2(share) for share in p if share > 0) + 0.0


def kl(p, q):
    """The sum of p * log2(p/q) over what occurs."""
    pairs = zip(p, q, strict=True)
    return sum((a * np.log2(a / b) for a, b in pairs if a > 0), start=0.0)


def hopeless(C):
    """Be sure of class 1 when class 0 is right: quality 0, loss infinite."""
    p = np.zeros((1, C))
    p[0, 1] = 1.0
    return p, np.array([0])


# ----------------------------------------------------------------------- cases


def layouts(rng: np.random.Generator, N: int, C: int, scale: float, k: int) -> np.ndarray:
    """Return random scores (N, C), by turns float32, strided, or in column order."""
    s = scale * rng.normal(size=(N, C))
    if k % 4 == 1:
        return s.astype(np.float32)
    if k % 4 == 2:
        wide = np.zeros((N, 2 * C))
        wide[:, ::2] = s
        return wide[:, ::2]
    return np.asfortranarray(s) if k % 4 == 3 else s


def cases_z(rng: np.random.Generator) -> Iterator[tuple]:
    """Scores for a sigmoid: vectors and tables."""
    yield (np.array([0.0, 1.0, -1.0]),)
    yield (np.array([-30.0, 30.0, 4.0]),)
    yield (np.array([-HUGE, HUGE, 2.0]),)
    for k in range(45):
        scale = (1, 10, 300)[k % 3]
        s = layouts(rng, k % 5 + 1, k % 7 + 1, scale, k)
        yield (s[0] if k % 2 else s,)


def cases_scores(rng: np.random.Generator) -> Iterator[tuple]:
    """Tables of scores: small, huge, rows far apart."""
    yield (np.array([[0.0, 1.0], [3.0, 1.0]]),)
    yield (np.array([[1.0, 2.0, 4.0]]),)
    yield (np.array([[HUGE, HUGE + 1]]),)
    yield (np.array([[-HUGE, -HUGE - 1, -HUGE]]),)
    yield (np.array([[0.0, 1.0], [HUGE, HUGE + 2]]),)
    for k in range(45):
        yield (layouts(rng, k % 6 + 1, k % 9 + 2, (1, 5, 400)[k % 3], k),)


def cases_fast(rng: np.random.Generator) -> Iterator[tuple]:
    """Few kinds of arrays, since each is compiled anew: both dtypes, row after row."""
    for (scores,) in cases_scores(rng):
        yield (np.ascontiguousarray(scores),)


def cases_labelled(rng: np.random.Generator) -> Iterator[tuple]:
    """The same with a label for each row."""
    for k, (scores,) in enumerate(cases_scores(rng)):
        N, C = scores.shape
        labels = rng.integers(0, C, N)
        if k < 2:
            labels = np.array([0, 1])[:N]
        yield scores, labels


def cases_binary(rng: np.random.Generator) -> Iterator[tuple]:
    """Binary scores with truths 0 and 1."""
    yield np.array([0.0, 2.0]), np.array([1.0, 0.0])
    yield np.array([-1.0, 3.0, 1.0]), np.array([1.0, 1.0, 0.0])
    yield np.array([HUGE, -HUGE]), np.array([1.0, 0.0])
    yield np.array([HUGE, -HUGE, 1.0]), np.array([0.0, 1.0, 1.0])
    for k in range(45):
        N = k % 8 + 1
        z = layouts(rng, 1, N, (1, 5, 400)[k % 3], k)[0]
        yield z, rng.integers(0, 2, N).astype(z.dtype)


def distribution(rng: np.random.Generator, C: int) -> np.ndarray:
    """Return C random probabilities."""
    return rng.dirichlet(np.ones(C))


def cases_p(rng: np.random.Generator) -> Iterator[tuple]:
    """Distributions, some with symbols that never occur."""
    yield (np.array([0.5, 0.25, 0.25]),)
    yield (np.array([0.0, 1.0]),)
    yield (np.array([0.25, 0.0, 0.75, 0.0]),)
    yield (np.full(6, 1 / 6),)
    for k in range(40):
        p = distribution(rng, k % 10 + 2)
        if k % 4 == 0:
            p[0], p[1] = 0.0, p[0] + p[1]
        yield (p,)


def cases_pq(rng: np.random.Generator) -> Iterator[tuple]:
    """Pairs of distributions; q is positive wherever p is."""
    yield np.array([0.5, 0.5]), np.array([0.25, 0.75])
    yield np.array([1.0, 0.0]), np.array([0.5, 0.5])
    yield np.array([0.5, 0.5, 0.0]), np.array([0.75, 0.25, 0.0])
    yield np.array([0.5, 0.5]), np.array([1e-15, 1 - 1e-15])
    for k, (p,) in enumerate(cases_p(rng)):
        q = distribution(rng, len(p))
        yield p, (p.copy() if k == 9 else q)


def cases_classes(rng: np.random.Generator) -> Iterator[tuple]:
    """Numbers of classes."""
    for C in range(2, 30):
        yield (C,)


# --------------------------------------------------------------- wrong answers

SHIFT = "exp of a large score is infinite. Subtract each row's largest score first."
SUMMED = "You return the sum over pictures. The loss is the mean: divide by N."
MINUS = "The minus is lost: this is a log-likelihood, and it is negative. A loss is >= 0."
BASE_2 = "You took log2, which counts bits. Losses are in nats: use np.log."
EACH = "You return a loss for each picture. The loss is one number: their mean."
ONE_NUMBER = "math.exp takes one number. np.exp takes an array, and gives one."
PAIRS = "logp[:, labels] takes every label in every row. Pair them: [np.arange(N), labels]."


def naive_p(s):
    """Softmax without the shift."""
    e = np.exp(s)
    return e / e.sum(axis=1, keepdims=True)


def rounded_p(s):
    """Softmax in the type of s: small probabilities round to 0."""
    return naive_p(s - s.max(axis=1, keepdims=True))


def picked(a, labels):
    """The entry of each row that its label names."""
    return a[np.arange(len(labels)), labels]


def sigmoid_window(arguments, index):
    """Show which score stands at this index."""
    z = float(arguments[0][index])
    text = f"z = {z:.6g}, e^-|z| = {exp(-abs(z)):.4g}"
    return Window(text, (Panel("z", arguments[0], index),))


def of_row(text, s, n):
    """Show row n of a table, and say what becomes of it."""
    return Window(f"row {n}: {text}", (Panel("scores", s, (n, 0), (1, s.shape[1])),))


SIGMOID = Question(
    name="sigmoid_stable",
    points=2,
    oracle=sigmoid,
    cases=cases_z,
    rtol=1e-5,
    atol=1e-15,
    window=sigmoid_window,
    mutants=(
        wrong("e^z/(1 + e^z) is inf/inf for a large z. Divide both by e^z first.")(
            lambda z: np.exp(z) / (1 + np.exp(z))
        ),
        wrong("This falls where it should rise: the exponent is -z, not z.")(
            lambda z: sigmoid(-np.asarray(z))
        ),
        wrong("This goes from -1 to 1: it is tanh. A probability goes from 0 to 1.")(
            lambda z: np.tanh(z)
        ),
        wrong("This is the slope a(1 - a). The question asks for a itself.")(
            lambda z: sigmoid(z) * sigmoid(-np.asarray(z))
        ),
        *(
            wrong(f"Clipping z at {end} makes small probabilities wrong. None is needed.")(
                lambda z, end=end: sigmoid(np.clip(z, -end, end))
            )
            for end in (10, 20, 30)
        ),
        wrong("Brackets are missing: 1/1 + e^-z is not 1/(1 + e^-z).")(
            lambda z: 1 / 1 + np.exp(-z)
        ),
        wrong("With |z| in it, -z gives what z gives. For z < 0 it is small/(1 + small).")(
            lambda z: sigmoid(np.abs(z))
        ),
        wrong("`if` cannot look at a whole array. Use np.where(z >= 0, ..., ...).")(
            lambda z: sigmoid(z) if z >= 0 else 1 - sigmoid(-z)
        ),
        wrong(ONE_NUMBER)(lambda z: 1 / (1 + exp(-z))),
        wrong("The 1 is missing below the line: e^-z alone is not 1 + e^-z.")(
            lambda z: 1 / np.exp(-np.asarray(z, np.float64))
        ),
    ),
    hints=(
        "1/(1 + e^-z) and e^z/(1 + e^z) are the same number. Which one is safe for z > 0?",
        "np.exp(-abs(z)) is never larger than 1: it cannot overflow.",
        "np.where(z >= 0, 1 / (1 + small), small / (1 + small)), small = np.exp(-abs(z)).",
    ),
)


def softmax_window(arguments, index):
    """Show which numbers make the probability at this index."""
    row = np.asarray(arguments[0], np.float64)[index[0]]
    text = (
        f"score {row[index[1]]:.4g}, largest {row.max():.4g}, "
        f"exp({row[index[1]] - row.max():.4g}) over {np.exp(row - row.max()).sum():.4g}"
    )
    return of_row(text, arguments[0], index[0])


SOFTMAX = Question(
    name="softmax_rows",
    points=3,
    oracle=softmax,
    cases=cases_scores,
    rtol=1e-5,
    window=softmax_window,
    mutants=(
        wrong(SHIFT)(naive_p),
        wrong("Your columns sum to 1. A row is a picture: sum over axis=1.")(
            lambda s: softmax(np.asarray(s).T).T
        ),
        wrong("Two slips: a row is a picture, so axis=1; and subtract its largest score.")(
            lambda s: np.exp(s) / np.exp(s).sum(axis=0)
        ),
        wrong("e.sum(axis=1) lies along the columns. keepdims=True makes it a column.")(
            lambda s: (e := np.exp(s - s.max(axis=1, keepdims=True))) / e.sum(axis=1)
        ),
        wrong("s.max(axis=1) and the sum lie along the columns: keepdims=True for both.")(
            lambda s: (e := np.exp(s - s.max(axis=1))) / e.sum(axis=1)
        ),
        wrong("You divide by the sum of the whole table. Each row has its own: axis=1.")(
            lambda s: softmax(np.asarray(s).reshape(1, -1)).reshape(s.shape)
        ),
        wrong("One shift for the whole table leaves other rows 0/0. Shift row by row.")(
            lambda s: naive_p(np.asarray(s, np.float64) - s.max())
        ),
        wrong("exp is missing: you divide the scores themselves by their sum.")(
            lambda s: np.asarray(s, np.float64) / s.sum(axis=1, keepdims=True)
        ),
        wrong("These are log-probabilities. Take exp of them.")(log_softmax),
        wrong("You took powers of 2. Softmax takes powers of e: np.exp.")(
            lambda s: softmax(np.asarray(s, np.float64) * np.log(2))
        ),
        wrong("You forgot to divide by the sum: the rows do not sum to 1.")(
            lambda s: np.exp(s - s.max(axis=1, keepdims=True))
        ),
    ),
    hints=(
        "Adding one number to a whole row of scores does not change its softmax.",
        "Subtract s.max(axis=1, keepdims=True): every exponent is then at most 0.",
        "Divide by e.sum(axis=1, keepdims=True); keepdims makes it a column.",
    ),
)


def losses_window(losses):
    """Show which losses the mean is of: those of the pictures, up to six in words."""
    some = ", ".join(f"{loss:.4g}" for loss in losses[:6])
    text = f"-log p of the right classes: {some}{', ...' * (len(losses) > 6)}; their mean"
    panel = Panel("-log p of the right class", losses, (0,), losses.shape)
    return Window(text, (panel,))


def cross_entropy_window(arguments, index):
    """Show which loss each picture has."""
    scores, labels = arguments
    return losses_window(-picked(log_softmax(scores), labels))


CROSS_ENTROPY = Question(
    name="cross_entropy_mean",
    points=3,
    oracle=cross_entropy,
    cases=cases_labelled,
    rtol=1e-5,
    window=cross_entropy_window,
    mutants=(
        wrong(SHIFT)(lambda s, labels: -np.log(picked(naive_p(s), labels)).mean()),
        wrong(SUMMED)(lambda s, labels: cross_entropy(s, labels) * len(labels)),
        wrong(MINUS)(lambda s, labels: -cross_entropy(s, labels)),
        wrong(BASE_2)(lambda s, labels: cross_entropy(s, labels) / np.log(2)),
        wrong(PAIRS)(lambda s, labels: -log_softmax(s)[:, labels].mean()),
        wrong("logp[labels] takes whole rows. Pair them: logp[np.arange(N), labels].")(
            lambda s, labels: -log_softmax(s)[labels].mean()
        ),
        wrong(EACH)(lambda s, labels: -picked(log_softmax(s), labels)),
        wrong("The log is missing: this is the mean of -p, not of -log p.")(
            lambda s, labels: -picked(softmax(s), labels).mean()
        ),
        wrong("log-sum-exp of shifted scores goes with the shifted score, not with s.")(
            lambda s, labels: (
                log_sum_exp(s) - np.max(s, axis=1) - picked(s, labels)
            ).mean()
        ),
        *(
            wrong(
                f"log(p + {small}) caps a loss at {-log(small):.1f}. Keep log p = s - lse."
            )(
                lambda s, labels, small=small: (
                    -np.log(picked(softmax(s), labels) + small).mean()
                )
            )
            for small in (1e-15, 1e-12, 1e-10, 1e-9, 1e-8)
        ),
        wrong("You divide by N times C. The mean is over the N pictures only.")(
            lambda s, labels: cross_entropy(s, labels) / s.shape[1]
        ),
        wrong("You take the largest p of each row. Take the p of the right class.")(
            lambda s, labels: -log_softmax(s).max(axis=1).mean()
        ),
        wrong("You take the log of the mean. Take the mean of the logs.")(
            lambda s, labels: -np.log(picked(softmax(s), labels).mean())
        ),
        wrong("softmax is fine, but log of a p that is 0 is -inf. Keep log p = s - lse.")(
            lambda s, labels: -np.log(picked(rounded_p(s), labels)).mean()
        ),
        wrong("log-softmax is missing: you average the scores of the right classes.")(
            lambda s, labels: -picked(np.asarray(s, np.float64), labels).mean()
        ),
    ),
    hints=(
        "log p of class k is s[k] minus log-sum-exp of the row: no division, no p.",
        "z = s - s.max(axis=1, keepdims=True); logp = z - log of the row sums of exp(z).",
        "logp[np.arange(len(labels)), labels] takes one entry from each row.",
    ),
)


def gradient_window(arguments, index):
    """Show which numbers make the gradient at this index."""
    scores, labels = arguments
    n, k = index
    p, y = softmax(scores), one_hot(labels, scores.shape[1])
    return Window(
        f"picture {n}, class {k}: p = {p[n, k]:.4g}, y = {y[n, k]:g}, N = {len(labels)}",
        (Panel("p", p, index), Panel("y", y, index)),
    )


CROSS_ENTROPY_GRADIENT = Question(
    name="cross_entropy_grad",
    points=3,
    oracle=cross_entropy_gradient,
    cases=cases_labelled,
    rtol=1e-5,
    window=gradient_window,
    mutants=(
        wrong("This is y - p, uphill. The gradient of the loss is p - y.")(
            lambda s, labels: -cross_entropy_gradient(s, labels)
        ),
        wrong("Two slips: it is p - y, not y - p, and the mean brings 1/N.")(
            lambda s, labels: -cross_entropy_gradient(s, labels) * len(labels)
        ),
        wrong("The loss is a mean, so its gradient has 1/N too: (p - y)/N.")(
            lambda s, labels: cross_entropy_gradient(s, labels) * len(labels)
        ),
        wrong(SHIFT)(
            lambda s, labels: (naive_p(s) - one_hot(labels, s.shape[1])) / len(labels)
        ),
        wrong("Only p is divided by N. Subtract the 1 first, then divide all by N.")(
            lambda s, labels: softmax(s) / len(labels) - one_hot(labels, s.shape[1])
        ),
        wrong("You subtract the numbers of the classes. Subtract 1 where the label is.")(
            lambda s, labels: (softmax(s) - labels[:, None]) / len(labels)
        ),
        wrong("You return p/N. Subtract 1/N in the column of the right class.")(
            lambda s, labels: softmax(s) / len(labels)
        ),
        wrong("This is -1/p, the gradient by p. Asked is the gradient by the scores.")(
            lambda s, labels: (
                -one_hot(labels, s.shape[1]) / (softmax(s) + 1e-300) / len(labels)
            )
        ),
        wrong("p[:, labels] changes those columns in every row. Pair rows with labels.")(
            lambda s, labels: (
                (softmax(s) - one_hot(labels, s.shape[1]).max(axis=0)) / len(labels)
            )
        ),
        wrong("You divide by N times C. The mean is over the N pictures only.")(
            lambda s, labels: cross_entropy_gradient(s, labels) / s.shape[1]
        ),
        wrong("Only the right class has a gradient here. The others have p/N.")(
            lambda s, labels: (
                cross_entropy_gradient(s, labels) * one_hot(labels, s.shape[1])
            )
        ),
    ),
    hints=(
        "The gradient by the scores is what was said minus what was right: p - y.",
        "Start from softmax, computed with the shift. Subtract 1 where the label is.",
        "p[np.arange(N), labels] -= 1, then divide everything by N.",
    ),
)


def clipped_bce(z, y, small):
    """Binary cross-entropy with p, in the type of z, kept away from 0 and 1."""
    p = np.clip(1 / (1 + np.exp(-z)), small, 1 - small)
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()


def naive_bce(z, y, small=0):
    """Binary cross-entropy by way of p, in the type of z."""
    p = 1 / (1 + np.exp(-z))
    return -(y * np.log(p + small) + (1 - y) * np.log(1 - p + small)).mean()


def bce_window(arguments, index):
    """Show which loss each score has."""
    z, y = np.asarray(arguments, np.float64)
    return losses_window(np.logaddexp(0, np.where(y == 1, -z, z)))


BCE = Question(
    name="bce_mean",
    points=3,
    oracle=bce,
    cases=cases_binary,
    rtol=1e-5,
    window=bce_window,
    mutants=(
        wrong(MINUS)(lambda z, y: -bce(z, y)),
        wrong("log p is -inf when p rounds to 0. Use log p = -np.logaddexp(0, -z).")(
            naive_bce
        ),
        *(
            wrong(
                f"p clipped at {small} caps a loss at {-log(small):.1f}. Use np.logaddexp."
            )(lambda z, y, small=small: clipped_bce(z, y, small))
            for small in (1e-15, 1e-12, 1e-9, 1e-8, 1e-7)
        ),
        *(
            wrong(f"log(p + {small}) caps a loss at {-log(small):.1f}. Use np.logaddexp.")(
                lambda z, y, small=small: naive_bce(z, y, small)
            )
            for small in (1e-15, 1e-12, 1e-10, 1e-9, 1e-8)
        ),
        wrong(
            "e^z is infinite for a large z. np.logaddexp(0, z) is log(1 + e^z) for any z."
        )(
            lambda z, y: (
                y * np.log(1 + np.exp(-z)) + (1 - y) * np.log(1 + np.exp(z))
            ).mean()
        ),
        wrong(EACH)(lambda z, y: np.logaddexp(0, np.where(y == 1, -z, z))),
        wrong("Half is missing: where y is 0 it must cost -log(1 - p).")(
            lambda z, y: (y * np.logaddexp(0, -np.asarray(z, np.float64))).mean()
        ),
        wrong(SUMMED)(lambda z, y: bce(z, y) * len(z)),
        wrong(BASE_2)(lambda z, y: bce(z, y) / np.log(2)),
        wrong("y and 1 - y have changed places.")(lambda z, y: bce(z, 1 - y)),
        wrong("This is the squared error (p - y)^2, not the cross-entropy.")(
            lambda z, y: ((sigmoid(z) - y) ** 2).mean()
        ),
    ),
    hints=(
        "-log p = log(1 + e^-z) and -log(1 - p) = log(1 + e^z).",
        "np.logaddexp(0, z) is log(1 + e^z), without overflow.",
        "The mean of y * logaddexp(0, -z) + (1 - y) * logaddexp(0, z).",
    ),
)


def bce_gradient_window(arguments, index):
    """Show which numbers make the gradient at this index."""
    z, y = arguments
    a = sigmoid(z)
    return Window(
        f"z = {z[index]:.4g}: a = {a[index]:.4g}, y = {y[index]:g}, N = {len(z)}",
        (Panel("a", a, index), Panel("y", y, index)),
    )


BCE_GRADIENT = Question(
    name="bce_grad",
    points=2,
    oracle=bce_gradient,
    cases=cases_binary,
    rtol=1e-5,
    window=bce_gradient_window,
    mutants=(
        wrong("This is y - a, uphill. The gradient of the loss is a - y.")(
            lambda z, y: -bce_gradient(z, y)
        ),
        wrong("Two slips: it is a - y, not y - a, and the mean brings 1/N.")(
            lambda z, y: -bce_gradient(z, y) * len(z)
        ),
        wrong("The loss is a mean, so its gradient has 1/N too: (a - y)/N.")(
            lambda z, y: bce_gradient(z, y) * len(z)
        ),
        wrong("One factor a(1 - a) too many: with this loss the slope cancels.")(
            lambda z, y: bce_gradient(z, y) * sigmoid(z) * sigmoid(-np.asarray(z))
        ),
        wrong("This is the gradient by a. Multiply by da/dz = a(1 - a).")(
            lambda z, y: bce_gradient(z, y) / (sigmoid(z) * (1 - sigmoid(z)))
        ),
        wrong("e^z/(1 + e^z) is inf/inf for a large z. Use the stable sigmoid.")(
            lambda z, y: (np.exp(z) / (1 + np.exp(z)) - y) / len(z)
        ),
        wrong("You return one number. Each of the N scores has its own gradient.")(
            lambda z, y: bce_gradient(z, y).sum()
        ),
    ),
    hints=(
        "It is the two-class case of softmax: what was said minus what was right.",
        "a = sigmoid of z, computed so that a large z does not overflow.",
        "(a - y) / len(z)",
    ),
)

NATS = "You took the natural log: nats. Bits need np.log2."
ZERO = "0 * log 0 gave nan. What never occurs costs nothing: leave p = 0 out."

TWO_SLIPS = "Two slips: bits need np.log2, and 0 * log 0 gave nan: leave p = 0 out."


def bits_window(arguments, index):
    """Show what each symbol adds to the sum."""
    p, q = arguments if len(arguments) == 2 else (arguments[0], np.ones_like(arguments[0]))
    sign = 1 if len(arguments) == 2 else -1
    terms = [sign * kl([a], [b]) + 0.0 for a, b in zip(p[:8], q[:8], strict=True)]
    text = " + ".join(f"{term:.4g}" for term in terms).replace("+ -", "- ")
    panels = tuple(Panel(name, a) for name, a in zip("pq", arguments, strict=False))
    return Window(
        text + " + ..." * (len(p) > 8),
        (*panels, Panel("bits of each", terms, (0,), (len(terms),))),
    )


ENTROPY = Question(
    name="entropy_bits",
    points=2,
    oracle=entropy,
    cases=cases_p,
    window=bits_window,
    mutants=(
        wrong(NATS)(lambda p: entropy(p) * np.log(2)),
        wrong(ZERO)(lambda p: -(p * np.log2(p)).sum()),
        wrong(TWO_SLIPS)(lambda p: -(p * np.log(p)).sum()),
        wrong("The minus is lost: an entropy is never negative.")(lambda p: -entropy(p)),
        wrong("Weigh each -log2 p by how often it occurs, p, and take the sum.")(
            lambda p: -np.log2(p[p > 0]).sum()
        ),
        wrong("p is the weight already: take the sum, not the mean.")(
            lambda p: entropy(p) / len(p)
        ),
        wrong("log2 of the number of symbols is right only if all are equally likely.")(
            lambda p: np.log2(len(p))
        ),
    ),
    hints=(
        "A symbol of probability p carries -log2 p bits. Average with weights p.",
        "log2(0) is -inf and 0 * -inf is nan: keep p = p[p > 0].",
    ),
)

KL = Question(
    name="kl_bits",
    points=2,
    oracle=kl,
    cases=cases_pq,
    window=bits_window,
    mutants=(
        wrong("p and q have changed places: the data come from p, the code is for q.")(
            lambda p, q: (q * np.log2(q / p))[q > 0].sum()
        ),
        wrong(NATS)(lambda p, q: kl(p, q) * np.log(2)),
        wrong("This is the cross-entropy H(p, q). Subtract the entropy H(p).")(
            lambda p, q: kl(p, q) + entropy(p)
        ),
        wrong("The sign is wrong: it is log2(p/q), and the sum is never negative.")(
            lambda p, q: -kl(p, q)
        ),
        wrong(ZERO)(lambda p, q: (p * np.log2(p / q)).sum()),
        wrong(TWO_SLIPS)(lambda p, q: (p * np.log(p / q)).sum()),
        wrong("p[p > 0] and q[q > 0] keep different symbols. Use p > 0 for both.")(
            lambda p, q: (p[p > 0] * np.log2(p[p > 0] / q[q > 0])).sum()
        ),
        wrong("The weight is q. The data come from p: weigh with p.")(
            lambda p, q: (q[p > 0] * np.log2(p[p > 0] / q[p > 0])).sum()
        ),
        *(
            wrong(
                f"q + {small} changes what a rare symbol costs. Leave p = 0 out instead."
            )(lambda p, q, small=small: (p * np.log2((p + small) / (q + small))).sum())
            for small in (1e-15, 1e-12, 1e-10, 1e-9, 1e-8)
        ),
        wrong("The weight p is missing before the log.")(
            lambda p, q: np.log2(p[p > 0] / q[p > 0]).sum()
        ),
    ),
    hints=(
        "A symbol costs -log2 q with the code for q, -log2 p with its own: subtract.",
        "Average the difference log2(p/q) with weights p.",
        "used = p > 0, then (p[used] * np.log2(p[used] / q[used])).sum().",
    ),
)


def plain_log_sum_exp(s):
    """The loops of the answer, in plain Python."""
    N, C = s.shape
    out = np.empty(N)
    for n in range(N):
        largest = s[n, 0]
        for k in range(1, C):
            largest = max(largest, s[n, k])
        total = 0.0
        for k in range(C):
            total += exp(s[n, k] - largest)
        out[n] = largest + log(total)
    return out


def running_total(s):
    """Log-sum-exp whose total is set to 0 once, not for each row."""
    largest = s.max(axis=1)
    totals = np.exp(s - largest[:, None]).sum(axis=1).cumsum()
    return largest + np.log(totals)


def log_sum_exp_window(arguments, index):
    """Show which numbers make the output of this row."""
    row = np.asarray(arguments[0], np.float64)[index[0]]
    total = np.exp(row - row.max()).sum()
    text = f"largest {row.max():.4g}, plus the log of {total:.4g}"
    return of_row(text, arguments[0], index[0])


LOG_SUM_EXP = Question(
    name="log_sum_exp_rows",
    points=3,
    oracle=log_sum_exp,
    cases=cases_fast,
    rtol=1e-5,
    window=log_sum_exp_window,
    speed=Speed(
        plain=plain_log_sum_exp,
        arguments=lambda rng: (rng.normal(size=(3000, 10)),),
        floor=8.0,
    ),
    mutants=(
        wrong(SHIFT)(lambda s: np.log(np.exp(s).sum(axis=1))),
        wrong("You subtracted the largest score. Add it back after the log.")(
            lambda s: log_sum_exp(s) - s.max(axis=1)
        ),
        wrong("The last column is left out: range(C - 1) ends one too early.")(
            lambda s: log_sum_exp(s[:, :-1])
        ),
        wrong("One shift for the whole table: other rows sum to 0. Shift row by row.")(
            lambda s: s.max() + np.log(np.exp(np.asarray(s, float) - s.max()).sum(axis=1))
        ),
        wrong("Starting the maximum at 0 is wrong when all scores are far below 0.")(
            lambda s: (
                np.maximum(s.max(axis=1), 0.0)
                + np.log(np.exp(s - np.maximum(s.max(axis=1), 0.0)[:, None]).sum(axis=1))
            )
        ),
        wrong("total goes on from row to row. Set it to 0 inside the loop over n.")(
            running_total
        ),
        wrong("The first score of a row may be far from the largest. Find the largest.")(
            lambda s: s[:, 0] + np.log(np.exp(s - s[:, :1]).sum(axis=1))
        ),
        wrong("The log is missing.")(lambda s: np.exp(log_sum_exp(s))),
        wrong("This is the largest score. The other scores add to it: log of the sum.")(
            lambda s: np.asarray(s, np.float64).max(axis=1)
        ),
    ),
    hints=(
        "Two loops over a row: the first finds the largest score, the second sums.",
        "total += np.exp(s[n, k] - largest); out[n] = largest + np.log(total).",
        "Put @njit on the line above def.",
    ),
)

NO_ROWS = "A row of p is a distribution: entries >= 0 that sum to 1."
NOT_BELOW = "The quality of your p is not below 1/C. Give the right class less than 1/C."
NO_PAIR = "Return two arrays: p of shape (N, C) and labels of shape (N,), with N >= 1."
NO_LABEL = "Labels are whole numbers (an array of ints) from 0 to C - 1."


def judge_below_chance(arguments, answer):
    """Return None if the answer refutes "never worse than 1/C", else what is missing."""
    (C,) = arguments
    try:
        p, labels = answer
        p, labels = np.asarray(p, np.float64), np.array([*labels], object)
    except (TypeError, ValueError):
        return NO_PAIR
    if p.ndim != 2 or len(p) < 1 or p.shape[1] != C or labels.shape != (len(p),):
        return NO_PAIR
    if any(not isinstance(n, int | np.integer) or not 0 <= n < C for n in labels):
        return NO_LABEL
    if not ((p >= 0).all() and np.allclose(p.sum(axis=1), 1)):
        return NO_ROWS
    with np.errstate(divide="ignore"):
        quality = np.exp(np.log(picked(p, labels.astype(int))).mean())
    return None if quality < 1 / C - 1e-9 else NOT_BELOW


BELOW_CHANCE = Question(
    name="below_chance",
    points=2,
    oracle=hopeless,
    cases=cases_classes,
    judge=judge_below_chance,
    mutants=(
        wrong(NOT_BELOW)(lambda C: (np.full((1, C), 1 / C), np.array([0]))),
        wrong(NO_ROWS)(lambda C: (np.zeros((1, C)), np.array([0]))),
        wrong(NO_PAIR)(lambda C: np.eye(C)[1]),
        wrong(NO_LABEL)(lambda C: (np.eye(C)[:1], np.array([C]))),
    ),
    hints=(
        "1/C is what a model gets that knows nothing. What does a liar get?",
        "One picture is enough: give nearly everything to a class that is not right.",
    ),
)

QUESTIONS = (
    SIGMOID,
    SOFTMAX,
    CROSS_ENTROPY,
    CROSS_ENTROPY_GRADIENT,
    BCE,
    BCE_GRADIENT,
    ENTROPY,
    KL,
    LOG_SUM_EXP,
    BELOW_CHANCE,
)
