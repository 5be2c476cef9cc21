"""What `check` makes of numba's errors: mistakes of beginners, numba's own messages."""

import numpy as np
import pytest
from numba import njit

from course.exercises.call import Raised, call
from course.exercises.numba_words import sentence

TABLE = [1.0, 2.0]
NAMES = {"a": 1}


def helper(x):
    return x.sum()


def adds_text(x):
    return "a" + x


def changes_type(x):
    total = 0
    for _ in x:
        total = x
    return total


def returns_two_types(x):
    if len(x) > 3:
        return 1.0
    return x


def too_many_indices(x):
    y = np.zeros(len(x))
    y[0, 0] = x[0]
    return y


def row_of_a_vector(x):
    return x[0, 0]


def array_into_an_element(x):
    y = np.zeros(len(x))
    y[0] = x
    return y


def text_into_a_list(x):
    y = [0, 0]
    y[0] = "a"
    return x


def two_kinds_in_a_tuple(x):
    t, total = (1, 2.0), 0.0
    for k in range(2):
        total += t[k]
    return total


def fractional_size(x):
    return np.zeros(len(x) / 2)


def size_in_a_list(x):
    return np.zeros([len(x), 2])


def empty_list(x):
    y = []
    return np.array(y)


def calls_plain_python(x):
    return helper(x)


def outer_list(x):
    return x + TABLE[0]


def outer_dict(x):
    return x * NAMES["a"]


def unknown_function_of_numpy(x):
    return np.apply_along_axis(np.sum, 0, x)


def unknown_keyword(x):
    return x.sum(axis=0, keepdims=True)


def missing_argument(x):
    return np.dot(x)


def unknown_method(x):
    return x.cumsom()


def shape_of_two(x):
    H, W = x.shape
    return H + W


def reshapes_with_a_list(x):
    return x.reshape([1, 2])


def formats_text(x):
    return f"{x[0]:.3f}"


def catches_one_error(x):
    try:
        return x[0]
    except ZeroDivisionError:
        return 0.0


def sums_a_generator(x):
    return sum(v * v for v in x)


def imports_inside(x):
    import math

    return math.pi * x


def makes_a_class(x):
    class A:
        pass

    return x


def opens_a_file(x):
    with open("a") as file:
        return file


MISTAKES = {  # function: its wrong line, counted from the def, and what is said
    adds_text: (1, "str + 1-D array of float64: these types do not go together"),
    changes_type: (4, "total changes its type, from int to 1-D array of float64; give it"),
    returns_two_types: (3, "the function returns different types in different places: "),
    too_many_indices: (2, "2 indices for a 1-D array"),
    row_of_a_vector: (1, "2 indices for a 1-D array"),
    array_into_an_element: (2, "one element cannot hold a 1-D array of float64"),
    text_into_a_list: (2, "a str cannot be put into a list of int64"),
    two_kinds_in_a_tuple: (
        3,
        "a tuple of int64, float64 has numbers of two kinds: numba",
    ),
    fractional_size: (1, "a size must be a whole number: use // for /"),
    size_in_a_list: (1, "give the size as a tuple, as (2, 3), not as a list"),
    empty_list: (1, "the list y is empty, so that its type is unknown: fill an array"),
    calls_plain_python: (1, "helper is a function of plain Python: put @njit above it"),
    outer_list: (1, "TABLE is a list outside of the function: make it an array, np.arr"),
    outer_dict: (1, "NAMES is a dict outside of the function, which numba cannot use"),
    unknown_function_of_numpy: (1, "numba does not have np.apply_along_axis, or not like"),
    unknown_keyword: (1, "numba's version of this function has no keepdims=: do it in"),
    missing_argument: (1, "an argument is missing here, b"),
    unknown_method: (1, "a 1-D array of float64 has no cumsom in numba"),
    shape_of_two: (1, "2 names on the left, but 1 on the right: the number of axes diff"),
    reshapes_with_a_list: (
        1,
        "numba cannot translate .reshape(list of int64): it has noth",
    ),
    formats_text: (1, "numba has no formats as {x:.3f}: leave the text out"),
    catches_one_error: (3, "numba catches everything or nothing: use `except Exception:`"),
    sums_a_generator: (1, "numba has no (... for ... in ...): write the loop"),
    imports_inside: (1, "an import belongs above the function, not into it"),
    makes_a_class: (1, "numba cannot make a class in a function"),
    opens_a_file: (None, "numba has no `with`: leave it out of the function"),
}


@pytest.mark.parametrize("function", MISTAKES, ids=lambda function: function.__name__)
def test_mistake_is_told_in_one_sentence_with_its_line(function):
    line, says = MISTAKES[function]
    found = call(njit(function), (np.array([1.0, 2.0]),))
    assert isinstance(found, Raised)
    assert found.says.startswith(says)
    assert len(found.says) <= 120
    assert not any(strange in found.says for strange in ("<", "0x", "Literal", "iv="))
    first = function.__code__.co_firstlineno
    assert found.line == (0 if line is None else first + line)
    assert (found.text != "") == (line is not None)


def test_unknown_message_keeps_its_first_line():
    assert sentence("Failed in nopython mode pipeline (x)\nOdd.\n\nMore.") == "Odd."
    assert sentence("") == ""
