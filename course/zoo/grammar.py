"""A network from one line of text, in the grammar of CS231n's summary of architectures.

    [(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX

    network = chain "," "SOFTMAX", or "SOFTMAX" alone
    chain   = item, or item "-" chain
    item    = word, or "(" chain ")", or "[" chain "]"; and after it, if wanted, "*" number
    word    = "CONV", "RELU", "POOL", "POOL?" or "FC"

    CONV       3x3 convolution that keeps height and width; after each pool with twice as
               many filters
    RELU       max(x, 0)
    POOL       2x2 max pool, which halves height and width
    POOL?      the same, as long as the image has two rows and columns; else nothing
    FC         a dense layer; from here on there are no images
    SOFTMAX    a dense layer to the scores of the classes: the loss has the softmax

The usual advice is to have at most five CONV in a row and at most two FC: what goes beyond
is built, with a warning.

Lecture: lectures/13_build_and_train.ipynb.
Source: Karpathy, CS231n course notes, "Convolutional networks", layer patterns.
"""

import re
import warnings
from typing import Any, NamedTuple

import numpy as np

from course.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU
from course.layers.base import Layer
from course.model import Sequential
from course.shapes import integer
from course.zoo.base import fresh

TOKEN = re.compile(r"[A-Za-z]+\??|\d+|.", re.DOTALL)
WORDS = "CONV", "RELU", "POOL", "POOL?", "FC"
CLOSING = {"(": ")", "[": "]"}
MOST = 1000  # layers: more is a slip of the pen
MOST_CONV, MOST_FC = 5, 2  # the advice


class Token(NamedTuple):
    """A word or a sign, and the number of characters before it."""

    text: str
    start: int


class GrammarError(ValueError):
    """The text is no network; the message points at the character."""

    def __init__(self, text: str, start: int, why: str):
        self.start = start
        super().__init__(f"{why}, at character {start + 1}:\n{text}\n{' ' * start}^")


def from_grammar(
    text: str,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    *,
    filters: int = 16,
    hidden: int = 64,
    kernel_size: int = 3,
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> Sequential:
    """Return the network that the text describes, with fresh weights.

    `input_shape` is (C, H, W) of an image; `filters` are those of a CONV before the first
    pool, `hidden` the outputs of an FC, `kernel_size` is odd. Raises GrammarError, a
    ValueError, for a text that is no network or does not fit the image.

    >>> network = from_grammar("[(CONV-RELU)*2-POOL]*2-(FC-RELU)*1,SOFTMAX", (1, 28, 28))
    >>> [type(layer).__name__ for layer in network][:6]
    ['Conv2d', 'ReLU', 'Conv2d', 'ReLU', 'MaxPool2d', 'Conv2d']
    >>> from_grammar("(CONV-RELU)*2-POLL,SOFTMAX")
    Traceback (most recent call last):
    course.zoo.grammar.GrammarError: there is no word POLL; there are CONV, RELU, POOL, \
POOL?, FC, at character 15:
    (CONV-RELU)*2-POLL,SOFTMAX
                  ^
    """
    C, H, W = (integer("input_shape", size, 1) for size in input_shape)
    if integer("kernel_size", kernel_size, 1) % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; it must be odd: 1, 3, 5, ...")
    integer("filters", filters, 1), integer("hidden", hidden, 1)
    new, layers, inputs = fresh(rng, dtype), [], 0  # inputs: of a dense layer, once there
    in_a_row = dense = 0
    for word, start in parse(text):
        if word in ("CONV", "POOL") and inputs:
            raise GrammarError(text, start, f"{word} needs images, but an FC came before")
        if word == "CONV":
            layers.append(Conv2d(C, filters, kernel_size, padding="same", **new))
            C, in_a_row = filters, in_a_row + 1
            if in_a_row == MOST_CONV + 1:
                _advise(text, start, f"more than {MOST_CONV} CONV without a POOL")
        elif word == "RELU":
            layers.append(ReLU())
        elif word == "FC":
            layers += _dense(inputs, (C, H, W), hidden, new)
            inputs, dense = hidden, dense + 1
            if dense == MOST_FC + 1:
                _advise(text, start, f"more than {MOST_FC} FC")
        elif not inputs and min(H, W) >= 2:
            layers.append(MaxPool2d(2))
            H, W, filters, in_a_row = H // 2, W // 2, 2 * filters, 0
        elif word == "POOL":
            raise GrammarError(text, start, f"nothing to pool: images are {H} x {W} here")
    network = Sequential(*layers, *_dense(inputs, (C, H, W), classes, new))
    network.input_shape = tuple(input_shape)
    return network


def _dense(inputs: int, image: tuple[int, ...], outputs: int, new: dict) -> list[Layer]:
    """Return a dense layer; before the first, what makes rows of images."""
    if inputs:
        return [Linear(inputs, outputs, **new)]
    C, H, W = image
    return [Flatten(), Linear(C * H * W, outputs, **new)]


def _advise(text: str, start: int, what: str) -> None:
    """Warn that the network is not what one would build."""
    warnings.warn(f"{what}, at character {start + 1} of {text}", stacklevel=3)


def parse(text: str) -> list[Token]:
    """Return the words of the network in order, repeated as often as it says.

    Each has the place at which it stands. Raises GrammarError for what is no network.

    >>> [word for word, _ in parse("[CONV-POOL?]*2,SOFTMAX")]
    ['CONV', 'POOL?', 'CONV', 'POOL?']
    """
    if not isinstance(text, str):
        raise TypeError(f"the network is a {type(text).__name__}; it must be a string")
    found = TOKEN.finditer(text)
    tokens = [Token(one[0], one.start()) for one in found if not one[0].isspace()]
    tokens.append(Token("", len(text)))  # the end
    if tokens[0].text == "SOFTMAX":
        words, k = [], 0
    else:
        words, k = _chain(text, tokens, 0)
        k = _expect(text, tokens, k, ",", 'a "-" or ","')
    k = _expect(text, tokens, k, "SOFTMAX", "SOFTMAX")
    _expect(text, tokens, k, "", "the end after SOFTMAX")
    return words


def _expect(text: str, tokens: list[Token], k: int, sign: str, wanted: str) -> int:
    """Return the place after the sign, or say what is there in its stead."""
    if tokens[k].text != sign:
        there = tokens[k].text or "the end"
        raise GrammarError(text, tokens[k].start, f"{wanted} must stand here, not {there}")
    return k + 1


def _chain(text: str, tokens: list[Token], k: int) -> tuple[list[Token], int]:
    """Return the words of the chain that begins at token k, and what is after it."""
    words, k = _item(text, tokens, k)
    while tokens[k].text == "-":
        more, k = _item(text, tokens, k + 1)
        words = words + more
    return words, k


def _item(text: str, tokens: list[Token], k: int) -> tuple[list[Token], int]:
    """Return the words of the item that begins at token k, and what is after it."""
    first = tokens[k]
    if first.text in CLOSING:
        words, k = _chain(text, tokens, k + 1)
        closing = CLOSING[first.text]
        wanted = f'a "-" or the "{closing}" of character {first.start + 1}'
        k = _expect(text, tokens, k, closing, wanted)
    elif first.text in WORDS:
        words, k = [first], k + 1
    elif first.text.rstrip("?").isalpha():
        known = ", ".join(WORDS)
        why = f"there is no word {first.text}; there are {known}"
        if first.text == "SOFTMAX":
            why = 'SOFTMAX comes last, after a ","'
        raise GrammarError(text, first.start, why)
    else:
        there = first.text or "the end"
        raise GrammarError(text, first.start, f"a layer must stand here, not {there}")
    if tokens[k].text != "*":
        return words, k
    times = tokens[k + 1]
    if not times.text.isdecimal():
        there = times.text or "the end"
        raise GrammarError(text, times.start, f'a number must follow "*", not {there}')
    if len(times.text) > 4 or len(words) * int(times.text) > MOST:
        raise GrammarError(text, times.start, f"that would be more than {MOST} layers")
    return words * int(times.text), k + 2
