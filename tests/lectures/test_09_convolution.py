"""Lecture 9: what it shows, against the source documents, SciPy and NumPy."""

import doctest
from functools import cache

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy import linalg, ndimage, signal, special
from sklearn.datasets import load_sample_image

from tests.lectures.rows import numbers, row, shows
from tests.notebooks_here import ROOT, code, printed, read

LECTURE = "09_convolution"


def plane(digits):
    """Return a matrix from its rows: plane("12 30") is [[1, 2], [3, 0]]."""
    return np.array([[int(digit) for digit in row] for row in digits.split()])


X, W = plane("01210 41010 20111 12310 04320"), plane("010 101 210")
Z = np.array([[9, 5, 4], [8, 8, 10], [8, 15, 12]])  # as printed in the source document
EDGE = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]])
CROSS = np.array([[0, -1, 0], [1, 1, 1], [0, -1, 0]])
HOMEWORK = plane("12345 22111 32111 41111 51111")


@cache
def grey(name):
    return load_sample_image(name).astype(float) @ [0.299, 0.587, 0.114] / 255


def photo():
    return grey("china.jpg")[120:210, 235:325]


def moved(a, by):
    return ndimage.shift(a, (0, by), order=0)


def edges(a):
    return signal.correlate2d(a, EDGE, "same")


@row("S1-01", LECTURE)
def test_recap(text):
    shows(text, [1 * 1 - 1 * 3 + 1, 0.5 * (1 + 2 + 3) - 1])
    shows(text, [0, 2])
    shows(text, [[0, 0, 0], [1, 2, 3]])  # the first neuron is off


@row("S2-15", LECTURE)
def test_allowable_edges(text):
    assert "fully connected: 25 edges, 25 different weights" in text
    assert "local: 13 edges, 13 different weights" in text
    assert "local and shared: 13 edges, 3 different weights" in text


@row("S2-16", LECTURE)
def test_weights_of_fully_connected_layers(text):
    shows(text, [4, 3, 2, 4 * 3 + 3 * 2, 3 + 2])


@row("S2-22", LECTURE)
def test_200_by_200_pixels(text):
    for weights in (16_000_000_000, 40_000_000, 100, 1000):
        assert f" {weights:,} weights" in text
    shows(text, 64.0)  # GB: four bytes a weight


@row("S2-23", LECTURE)
def test_correlation_of_pixels(text):
    for name, photo in (("temple", "china.jpg"), ("flower", "flower.jpg")):
        image, said = grey(photo), text.split(f"photo of a {name}: ")[1]
        for distance in (1, 128):
            a, b = image[:, :-distance], image[:, distance:]
            a, b = a - a.mean(), b - b.mean()
            r = (a * b).mean() / np.sqrt((a**2).mean() * (b**2).mean())
            shows(said, [r, distance], atol=6e-4)
    left, right = numbers(text.split("shuffled: ")[1])[::2]
    assert max(abs(left), abs(right)) < 0.01


@row("S2-18", LECTURE)
def test_three_matrices(text):
    n = 5
    shows(text, [n**2, n**2, 3 * n - 2, 3 * n - 2, 3 * n - 2, 3])
    banded = linalg.toeplitz([0, 1, 0, 0, 0], [0, 1, 0, 0, 0])  # theta is 1, 0, 1
    shows(text, banded @ [1, 1, 1, 0, 0])


@row("S2-20", LECTURE)
def test_matrix_and_formula_are_not_the_same(text):
    x, theta = [1, 1, 1, 0, 0], [1, 0, 1]
    valid, same = (np.correlate(x, theta, mode) for mode in ("valid", "same"))
    shows(text, [*same, *valid, *same, *valid])


@row("S2-21", LECTURE)
def test_one_dimensional_example(text):
    shows(text, [2, 1, 1])
    shows(text, [1, 1, 0, 1, 1, 1, 2])  # weight, pixel, weight, pixel, ..., sum
    shows(text, [1, 1, 0, 1, 1, 0, 1])
    shows(text, [1, 1, 0, 0, 1, 0, 1])
    shows(text, [1, 2, 1, 1, 0])


@row("S0-07", LECTURE)
def test_worked_example_on_every_backend(text):
    for k, (i, j) in enumerate(np.ndindex(3, 3)):
        patch = X[i : i + 3, j : j + 3]
        terms = np.stack([W, patch], axis=-1).ravel()
        shows(text, [k + 1, *terms, Z[i, j]])
    for backend in (
        "Python loop",
        "compiled loop",
        "course.vision",
        "course.layers",
        "SciPy",
    ):
        line = text.split(backend)[1].split("\n")[0]
        assert numbers(line) == Z.ravel().tolist(), line


@row("S0-08", LECTURE)
def test_simplest_signature(text):
    shows(text, [5, 5, 3, 3, 3, 3, *Z.ravel()])


@row("S0-09", LECTURE)
def test_names(text):
    for slide, ours, rows, first in (
        ("X", "x", 5, X[0, 0]),
        ("W", "w", 3, W[0, 0]),
        ("I", "z", 3, 9),
        ("O", "a", 3, 9),
    ):
        line = text.split(f"slide {slide} ")[1].split("\n")[0]
        assert line.split()[:2] == ["here", ours]
        shows(line, [rows, rows, first])


@row("S0-10", LECTURE)
def test_counting_from_the_centre(text):
    shows(text, [*Z.ravel(), 0])


@row("S0-11", LECTURE)
def test_activation(text):
    shifted = np.array(Z) - 8
    shows(text, shifted)
    shows(text, np.where(shifted > 0, shifted, 0))
    shows(text, special.expit(shifted), atol=6e-4)


@row("S2-24", LECTURE)
def test_second_worked_example(text):
    image, kernel = plane("11100 01110 00111 00110 01100"), plane("101 010 101")
    expected = signal.correlate2d(image, kernel, "valid")
    assert expected[0, 0] == 4  # the only number that the source document gives
    shows(text, expected)


@row("S4-31", LECTURE)
def test_correlation_and_convolution(text):
    dot = np.zeros((5, 5))
    dot[2, 2] = 1
    for image, name in ((X, "worked example"), (dot, "one bright pixel")):
        shows(text.split(f"{name} ")[1], signal.correlate2d(image, W, "valid"))
        said = text.split(f"{name} ")[2]
        shows(said.split("\n")[0], signal.convolve2d(image, W, "valid"))
    shows(text, signal.convolve2d(X, W)[0])
    assert "x ∗ w = w ∗ x: True" in text
    assert "x ⋆ w = w ⋆ x: False" in text


@row("S2-25", LECTURE)
def test_filter_table(text):
    for kernel, total in (
        ([[1, 0, -1], [0, 0, 0], [-1, 0, 1]], 0),
        ([[0, 1, 0], [1, -4, 1], [0, 1, 0]], 0),
        ([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], 0),
        ([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], 1),
        (np.ones((3, 3)) / 9, 1),
        (np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16, 1),
    ):
        mean = signal.correlate2d(photo(), kernel, "valid").mean()
        shows(text, [*np.ravel(kernel), total, mean], atol=6e-4)
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    result = signal.correlate2d(photo(), sobel, "valid")
    shows(text, [*sobel.ravel(), 0, result.min(), result.max()], atol=6e-3)


@row("S2-17", LECTURE)
def test_the_window_finds_the_digit(text):
    shows(text, [(24 - 8 + 1) * (48 - 8 + 1), 4, 20])  # where the 3 was put


@row("S3-48", LECTURE)
def test_one_patch_gives_one_number(text):
    patch = load_sample_image("china.jpg")[110 + 29 : 110 + 32, 250 + 23 : 250 + 26] / 255
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    red, blue = (patch[:, :, 0] * sobel).sum(), -(patch[:, :, 2] * sobel).sum()
    shows(text, [30, 24, 27, 27, red, 0, abs(blue), red + blue], atol=6e-3)
    shows(text, [27, red + blue, red + blue], atol=6e-5)


@row("S2-19", LECTURE)
def test_equivariance(text):
    roof = photo()[:60, 30:90]
    apart = abs(edges(moved(roof, 5)) - moved(edges(roof), 5))
    assert (apart.max(axis=0) > 1e-9).sum() == 2
    shows(text, [2, 60, apart.max()], atol=6e-5)
    shows(text, [0, apart.max()], atol=6e-5)

    def strided(a):
        return signal.correlate2d(a, EDGE, "valid")[::2, ::2]

    response = moved(strided(roof), 1)
    for by in (2, 1):
        off = abs(strided(moved(roof, by)) - response)[:, 2:].max()
        shows(text, [2, by, 1, off], atol=6e-5)


@row("S3-47", LECTURE)
def test_equivariant_and_invariant(text):
    response = edges(photo()[:60, 30:90])[:, 1:41]
    column = 1 + np.unravel_index(response.argmax(), response.shape)[1]
    shows(text, [response.max(), column, response.max(), column + 5], atol=6e-5)
    shows(text, [200, 200, 40_000, 10, 10, 100])


@row("S2-30", LECTURE)
def test_masked_and_tied_dense_layer_is_the_convolution(text):
    shows(text, [225, 81, 9])
    shows(text, [*Z.ravel(), *Z.ravel()])
    shows(text, signal.correlate2d(X, np.ones((3, 3)), "valid"))  # dw for dz = 1
    assert text.count("equal to 8 digits: True") == 4
    assert "differ by less than 1e-12: True" in text
    shows(text, [60, 0, -1, 0, -1, 5, -1, 0, -1, 0])  # learned: the sharpen filter


@row("S3-58", LECTURE)
def test_three_reasons(text):
    lines = [line for line in text.splitlines() if "weights" in line]
    few, wide, conv, pool = (numbers(line)[-4:] for line in lines)
    for units, network in ((27, few), (192, wide)):
        assert network[0] == 64 * units + units + units * 10 + 10
    assert conv[0] == 3 * 25 + 3 + 3 * 64 * 10 + 10
    assert pool[0] == 11 * 25 + 11 + 11 * 16 * 10 + 10
    assert few[1] == wide[1] == conv[1] == pool[1] == 100
    assert pool[2] > few[2] > 90  # new digits, per cent
    assert abs(conv[2] - wide[2]) < 2  # a seventh of the weights: hardly worse
    assert abs(conv[3] - few[3]) < 6  # moved by one pixel: convolution alone is not enough
    assert pool[3] > conv[3] + 10
    field = np.zeros((9, 9))
    field[4, 4] = 1
    for depth, seen in ((1, 9), (2, 25), (3, 49)):
        field = signal.convolve2d(field, np.ones((3, 3)), "same")
        shows(text, [depth, seen, *field.ravel()])


@row("S4-48", LECTURE)
def test_homework(text):
    shows(text, [0, 1, 1, 2, 0, 3, 1, 2, 1, 2, 1, 1, 0, 3, 1, 2, 0, 1, 1])  # first window
    for padding, strides in ((0, [2]), (1, [2, 1])):
        z = signal.correlate2d(np.pad(HOMEWORK, padding), CROSS, "valid")[::2, ::2]
        a = z * (z > 0)
        said = text.split(f"padding {padding}: ")[1]
        shows(said, [*z.ravel(), *a.ravel()])
        for stride in strides:
            pools = sliding_window_view(a, (2, 2))[::stride, ::stride].max(axis=(2, 3))
            shows(said, [2, 2, stride, *pools.ravel()])
    shows(text, [1, -2, 3, 1, 1, 0, 3, 1, 2, 2, 2, 3])  # as the checklist has it


# what the slide gets wrong, and words of the call-out that sets it right
ERRATA = {
    "one symbol for two operations": ("True ∗ gives", r"9&7&2\\6&6&4\\10&9&8"),
    "matrix and formula": (r"\sum_u \theta_u x_{i+u-1}", "5 outputs from 5 inputs"),
    "translation invariant": ("equivariant", "breaks with a\n> stride"),
    "homework without padding": ("does not say the padding", "We take padding 0"),
    "the name of I": ("pre-activation", "Here it is $z$"),
    "only removed": ("removed **and tied**", "40 million"),
}


@pytest.mark.parametrize("words", ERRATA.values(), ids=ERRATA)
def test_erratum_is_called_out(words):
    texts = [cell.source for cell in read(ROOT / "lectures" / f"{LECTURE}.ipynb").cells]
    callouts = [part for text in texts for part in text.split("> **Erratum.**")[1:]]
    assert any(all(word in callout for word in words) for callout in callouts)


def test_the_numbers_of_the_errata():
    turned = signal.convolve2d(X, W, "valid")
    assert turned.tolist() == [[9, 7, 2], [6, 6, 4], [10, 9, 8]]
    assert (CROSS[::-1, ::-1] == CROSS).all()


def test_the_homework_is_translated():
    source = "\n".join(
        cell.source for cell in read(ROOT / "lectures" / f"{LECTURE}.ipynb").cells
    )
    assert "Задача на дом" in source
    assert "conv (depth 1, stride 2) → ReLU → max-pool" in source


def test_the_solution_says_three():
    solution = read(ROOT / "solutions" / f"{LECTURE}.ipynb")
    (cell,) = (cell for cell in code(solution) if cell.id == "homework-result")
    assert numbers(printed(cell)) == [3, 1, 8]


def test_two_layers_are_one_convolved_filter():
    rng = np.random.default_rng(0)  # the model answer to the open question
    x, w, w2 = rng.normal(size=(9, 9)), *rng.normal(size=(2, 3, 3))
    twice = signal.correlate2d(signal.correlate2d(x, w, "valid"), w2, "valid")
    once = signal.correlate2d(x, signal.convolve2d(w, w2), "valid")
    np.testing.assert_allclose(twice, once, atol=1e-12)


def answers():
    solution = read(ROOT / "solutions" / f"{LECTURE}.ipynb")
    cells = {cell.id: cell.source for cell in code(solution)}
    return [(id, cells["setup"], s) for id, s in cells.items() if id[:7] == "answer-"]


@pytest.mark.parametrize("id, setup, source", answers(), ids=[a[0] for a in answers()])
def test_worked_examples_in_the_docstrings(id, setup, source):
    names = {}
    exec(setup, names)
    exec(source, names)
    function = names[id.removeprefix("answer-")]
    function = getattr(function, "py_func", function)
    for example in doctest.DocTestFinder(recurse=False).find(function, globs=names):
        assert doctest.DocTestRunner().run(example).failed == 0
