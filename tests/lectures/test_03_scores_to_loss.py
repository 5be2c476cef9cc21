"""Lecture 3: what it shows, against SciPy, scikit-learn, exact arithmetic, plain NumPy."""

import heapq
import re
from decimal import Decimal
from fractions import Fraction
from functools import cache
from statistics import fmean, geometric_mean

import numpy as np
from scipy.special import expit, softmax
from scipy.stats import entropy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from course.data import load
from tests.lectures.rows import numbers, row, shows
from tests.notebooks_here import ROOT, printed, read, tags

LECTURE = "03_scores_to_loss"
FIVE = [0.7, 0.8, 0.6, 0.3, 0.4]
ANSWERS = [[7, 2, 1], [1, 8, 1], [3, 1, 6], [3, 5, 2], [2, 4, 4]]  # tenths
LABELS = [0, 1, 2, 0, 1]


@row("S2-03", LECTURE)
def test_sigmoid_is_stable_and_its_slope_is_a_quarter_at_most(text):
    a = expit([-1000, -2, 0, 2, 1000])
    shows(text, a.round(4))
    shows(text, (a * (1 - a)).round(4))
    assert "nan" in text, "the careless form must be seen to fail"
    shows(text, expit([-6]).round(4))
    shows(text, [0.25, 0])  # the slope at z = 0, in the figure's sentence


@row("S2-14", LECTURE)
def test_last_layer_is_binary_logistic_regression(text):
    model = LogisticRegression()
    model.classes_ = np.array([0, 1])
    model.coef_, model.intercept_ = np.array([[1.0, -2.0, 0.5]]), np.array([-1.0])
    yes = model.predict_proba([[2.0, 1.0, 3.0]])[0, 1]
    shows(text, [0.5, round(yes, 4)])
    shows(text, [2, 1, 3, 1, -2, 0.5, -1, 0.5, round(yes, 4)])


@row("S3-20", LECTURE)
def test_softmax_of_two_is_the_sigmoid_and_the_limits_are_0_and_1(text):
    for z in (-1000, -1, 0, 1, 1000):
        two = softmax([z, 0])[0]
        shows(text, [z, 0, two.round(6), expit(z).round(6)], rtol=0)
    shows(text, [1000, 1, 0, *softmax([1000, 1, 0])])


@row("S3-21", LECTURE)
def test_quality_is_the_geometric_mean(text):
    product = float(np.prod([Fraction(str(p)) for p in FIVE]))
    shows(text, [product, round(geometric_mean(FIVE), 4), round(fmean(FIVE), 4)])
    worse = [*FIVE[:4], 0.001]
    shows(text, [round(geometric_mean(worse), 4)])
    shows(text, [round(fmean(worse), 4)])
    shows(text, [*FIVE, 0.56, 0.5261])  # 0.53 on the slide


@row("S3-22", LECTURE)
def test_worst_is_0_and_guessing_is_one_in_C(text):
    shows(text, [1, 0, 1, 0.1, round(float(Decimal(10).ln()), 4)])
    shows(text, [0.001, round(float(Decimal(1000).ln()), 4)])
    assert re.search(r"sure and wrong +quality 0\.000 .*= inf", text)


@row("S3-23", LECTURE)
def test_minus_log_makes_the_product_a_sum(text):
    nats = [-float(Decimal(str(p)).ln()) for p in FIVE]
    shows(text, np.round(nats, 4))
    shows(text, [round(fmean(nats), 4), round(fmean(nats) / np.log(2), 4)])
    shows(text, [0.6422, 0.9265])
    thousand = Decimal("0.04032") ** 200
    assert thousand > Decimal("5e-324") and thousand < Decimal(float(np.float32(1e-45)))
    shows(text, [1000, 0, float(f"{thousand:.3e}"), 0.6422])
    shows(text, [2000, 0, 0, 0.6422])
    shows(text, [0.1, 1000, 0.0])


@row("S3-24", LECTURE)
def test_three_ways_and_the_library_agree(text):
    shows(text, [round(log_loss(LABELS, np.array(ANSWERS) / 10), 4)] * 4)


@row("S2-02", LECTURE)
def test_binary_cross_entropy_has_the_minus(text):
    z, y = np.array([2.0, -1.0, 0.0, 3.0]), np.array([1, 0, 1, 0])
    right = expit(np.where(y == 1, z, -z))
    shows(text, (-np.log(right)).round(4))
    nats = log_loss(y, expit(z))
    shows(text, [round(nats, 4), round(nats / np.log(2), 4)])
    shows(text, [-1000, 1, 1000])  # z, y, loss
    before = next(line for line in text.splitlines() if line.startswith("before"))
    shows(before, right.round(2))
    for words, sign in (("with the minus", 1), ("as on the slide", -1)):
        moved = z.copy()
        for _ in range(20):
            moved += sign * 0.5 * (y - expit(moved))
        after = expit(np.where(y == 1, moved, -moved)).round(2)
        line = next(line for line in text.splitlines() if line.startswith(words))
        shows(line, [20, *after])
        assert (after > right).all() if sign > 0 else (after < right).all()


@cache
def retrained():
    """Train the same classifier in NumPy; return test scores after 1 and 60 epochs."""
    digits = load("digits")
    x, x_test = (
        a.reshape(len(a), -1).astype(float) for a in (digits.x_train, digits.x_test)
    )
    t, rng = digits.t_train, np.random.default_rng(0)
    w, b, scores = 0.01 * rng.normal(size=(10, 784)), np.zeros(10), {}
    for epoch in range(1, 61):
        order = rng.permutation(len(x))
        for batch in np.split(order, range(50, len(x), 50)):
            gradient = softmax(x[batch] @ w.T + b, axis=1) - np.eye(10)[t[batch]]
            w -= 0.2 * gradient.T @ x[batch] / len(batch)
            b -= 0.2 * gradient.mean(axis=0)
        scores[epoch] = x_test @ w.T + b
    return scores[1], scores[60], digits.t_test


@row("S3-25", LECTURE)
def test_reliability_is_that_of_a_classifier_trained_here(text):
    early, late, t = retrained()
    true = np.eye(10)[t].ravel()
    edges = [0, 0.1, 0.35, 0.65, 0.9, 1 + 1e-12]
    for scores in (early, late, 4 * late):
        p = softmax(scores, axis=1).ravel()
        count, _ = np.histogram(p, edges)
        said = np.histogram(p, edges, weights=p)[0] / count
        share = np.histogram(p, edges, weights=true)[0] / count
        shows(text, [*said.round(3), *share.round(3), *count], rtol=0, atol=1.1e-3)
    shows(text, np.round([log_loss(t, softmax(late, axis=1))], 3))


def test_classifier_is_as_good_as_the_lecture_says():
    _, late, t = retrained()
    text = cell_text("train")
    shows(text, np.round([log_loss(t, softmax(late, axis=1))], 3))
    assert f"{(late.argmax(axis=1) == t).mean():.1%} of {len(t)} pictures" in text


def shortest(p):
    """Return the average word of the best code: the sum of all that is ever joined."""
    p, joined = list(p), Fraction(0)
    heapq.heapify(p)
    while len(p) > 1:
        both = heapq.heappop(p) + heapq.heappop(p)
        joined += both
        heapq.heappush(p, both)
    return float(joined)


@row("S3-26", LECTURE)
def test_entropy_and_the_average_word_of_huffmans_code(text):
    coin = [Fraction(9, 10), Fraction(1, 10)]
    two = [a * b for a in coin for b in coin]
    three = [a * b for a in two for b in coin]
    for name, p in {
        "weather": [Fraction(k, 8) for k in (4, 2, 1, 1)],
        "fair coin": [Fraction(1, 2)] * 2,
        "die": [Fraction(1, 6)] * 6,
        "8 equal classes": [Fraction(1, 8)] * 8,
        "10 equal classes": [Fraction(1, 10)] * 10,
        "coin, 90 % heads": coin,
        "the same, 2 tosses": two,
        "the same, 3 tosses": three,
    }.items():
        line = next(line for line in text.splitlines() if line.startswith(name))
        H = entropy(np.array(p, float), base=2)
        shows(line[len(name) :], [round(H, 4), round(shortest(p), 4)])
    shows(text, [3, round(shortest(three) / 3, 4)])
    shows(text, [0.0])


@row("S3-27", LECTURE)
def test_cross_entropy_is_entropy_and_waste(text):
    p, q = np.array([4, 2, 1, 1]) / 8, np.array([1, 4, 1, 2]) / 8
    H, KL = entropy(p, base=2), entropy(p, q, base=2)
    average = p @ [3, 1, 3, 2]  # words as long as -log2 q
    shows(text, [average, round(H + KL, 4), round(H, 4), round(KL, 4)])
    shows(text, [round(entropy(q, base=2) + entropy(q, p, base=2), 4)])
    shows(text, [round(entropy([0.7, 0.3], base=2), 4), 0.70])
    for answer in ([0.7, 0.2, 0.1], [0.1, 0.2, 0.7]):
        shows(text, [*answer, *np.round([-np.log2(answer[0])] * 2, 4)])


# ---------------------------------------------------------------------- errata


def cells():
    return read(ROOT / "lectures" / f"{LECTURE}.ipynb").cells


def cell_text(name):
    return next(printed(cell) for cell in cells() if cell.id == name)


def erratum(name):
    texts = [printed(cell) for cell in cells() if f"erratum:{name}" in tags(cell)]
    assert texts, f"no cell shows the numbers of {name}"
    return "\n".join(texts)


def test_each_erratum_says_what_is_wrong_what_is_right_and_why():
    source = "\n\n".join(c.source for c in cells() if c.cell_type == "markdown")
    notes = re.findall(r"> \*\*Erratum\.\*\*(?:.*\n?)(?:>.*\n?)*", source)
    assert len(notes) == 8
    for note in notes:
        assert re.search(r"\*The slides?", note), note
        assert "*Right is" in note and "*because*" in note, note


def test_sigmoids_do_not_sum_to_1_and_softmax_is_sensitive():
    text, s = erratum("E-24"), [2, 1, 0.1]
    shows(text, [1.0, round(expit(s).sum(), 4)])
    for gap in (1, 2, 4, 8):
        shows(text, [gap, round(np.exp(gap), 1), 1])


def test_line_5_has_lost_its_minus():
    right = round(fmean(-np.log(FIVE)), 4)
    steps = [number for k in range(1, 5) for number in (k, right)]
    shows(erratum("E-11"), [*steps, 5, -right, 5])


def test_n_by_n_and_label_free_loss():
    text, p = erratum("E-62"), np.array(ANSWERS) / 10
    shows(text, [5, 5, -round(log_loss(LABELS, p), 4)])
    free = round(-fmean(entropy(p, axis=1)), 4)
    shows(text, [round(log_loss(LABELS, p), 4), free])
    shows(text, [round(log_loss([1, 2, 0, 1, 2], p), 4), free])


def test_half_to_the_1075_underflows():
    assert Decimal("0.5") ** 1074 > Decimal(2.0**-1074) / 2  # nearest number: the smallest
    shows(erratum("E-25"), [0.5, 1074, 2.0**-1074, 0.5, 1075, 0.0])


def test_0_6422_nats_are_0_9265_bits():
    shows(erratum("E-13b"), [0.6422, 0.9265])


def test_numbers_in_the_prose_are_printed_by_a_cell():
    shown = np.array(
        [n for c in cells() if c.cell_type == "code" for n in numbers(printed(c))]
    )
    prose = [c for c in cells() if c.cell_type == "markdown" and c.id != "sources"]
    checked = [
        (cell.id, number)
        for cell in prose
        for number in re.findall(r"(?<![\d.])\d+\.\d{3,}(?!\d)", cell.source)
    ]
    assert len(checked) >= 8
    for name, number in checked:
        rounding = 0.5001 * 10.0 ** -len(number.split(".")[1])
        near = np.abs(shown - float(number)) <= rounding
        assert near.any(), f"{name}: no cell prints {number}"
