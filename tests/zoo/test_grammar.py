"""course/zoo/grammar.py: what a text becomes, random networks, where a text is wrong."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.layers import Conv2d, Linear
from course.losses import softmax_cross_entropy
from course.optimizers import SGD
from course.zoo import GrammarError, from_grammar
from course.zoo.grammar import parse

TAUGHT = "[(CONV-RELU)*2-POOL]*2-(FC-RELU)*1,SOFTMAX"


def kinds(network):
    """Return the layers in one word each."""
    return " ".join(type(layer).__name__ for layer in network)


def test_the_text_of_the_lecture():
    network = from_grammar(TAUGHT, (1, 28, 28), 10, filters=8, hidden=32)
    twice = "Conv2d ReLU Conv2d ReLU MaxPool2d "
    assert kinds(network) == twice * 2 + "Flatten Linear ReLU Linear"
    shapes = [a.shape for key, a in network.params.items() if key.endswith("weight")]
    assert shapes == [
        (8, 1, 3, 3), (8, 8, 3, 3), (16, 8, 3, 3), (16, 16, 3, 3),
        (32, 16 * 7 * 7), (10, 32),
    ]  # fmt: skip
    assert network(np.zeros((2, 1, 28, 28), np.float32)).shape == (2, 10)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("SOFTMAX", "Flatten Linear"),
        ("FC,SOFTMAX", "Flatten Linear Linear"),
        ("(FC-RELU)*0,SOFTMAX", "Flatten Linear"),
        ("[CONV]*0-FC-RELU,SOFTMAX", "Flatten Linear ReLU Linear"),
        ("CONV-RELU-POOL,SOFTMAX", "Conv2d ReLU MaxPool2d Flatten Linear"),
        (" CONV * 2 , SOFTMAX ", "Conv2d Conv2d Flatten Linear"),
        ("((CONV)*2-[POOL])*1,SOFTMAX", "Conv2d Conv2d MaxPool2d Flatten Linear"),
        ("[POOL?]*9,SOFTMAX", "MaxPool2d MaxPool2d MaxPool2d Flatten Linear"),  # 8 4 2 1
    ],
)
def test_what_a_text_becomes(text, expected):
    network = from_grammar(text, (2, 8, 9), 3)
    assert kinds(network) == expected
    assert network(np.zeros((2, 2, 8, 9), np.float32)).shape == (2, 3)


def test_words_know_where_they_stand():
    text = "[(CONV-RELU)*2-POOL]*2,SOFTMAX"
    for word, start in parse(text):
        assert text[start:].startswith(word)
    assert len(parse(text)) == 10


# --- any network ------------------------------------------------------------------------

nets = st.builds(
    "{}{}{},SOFTMAX".format,
    st.builds(
        "[(CONV-RELU)*{}{}]*{}-".format,
        st.integers(1, 5),
        st.sampled_from(["", "-POOL?", "-POOL"]),
        st.integers(0, 2),
    ),
    st.sampled_from(["", "(CONV-RELU-CONV-RELU-POOL?)-", "CONV-"]),
    st.builds("(FC-RELU)*{}".format, st.integers(0, 2)),
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    text=nets,
    image=st.tuples(st.integers(1, 3), st.integers(4, 9), st.integers(4, 9)),
    classes=st.integers(2, 5),
    filters=st.integers(1, 4),
)
def test_any_network_trains_one_step(text, image, classes, filters):
    """Sizes fit, gradients are finite and reach every layer, and the loss gets smaller."""
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # six CONV in a row are against the advice
        network = from_grammar(text, image, classes, filters=filters, hidden=5, rng=rng)
    x = rng.normal(size=(3, *image)).astype(np.float32)
    t = rng.integers(classes, size=3)
    before, dscores = softmax_cross_entropy(network(x), t)
    network.learn(dscores)
    assert network.grads.keys() == network.params.keys()
    assert all(np.isfinite(gradient).all() for gradient in network.grads.values())
    SGD(1e-4).step(network)
    after, _ = softmax_cross_entropy(network(x), t)
    assert after < before
    words = [word for word, _ in parse(text)]
    leaves = [leaf for _, leaf in network.leaves()]
    assert sum(isinstance(leaf, Conv2d) for leaf in leaves) == words.count("CONV")
    assert sum(isinstance(leaf, Linear) for leaf in leaves) == words.count("FC") + 1


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(
            ["CONV", "RELU", "POOL", "POOL?", "FC", "SOFTMAX", *"()[]-*,?09", "X", " "]
        ),
        max_size=12,
    ).map("".join)
)
def test_any_text_is_a_network_or_an_error_within_the_text(text):
    try:
        words = parse(text)
    except GrammarError as error:
        assert 0 <= error.start <= len(text)
        *_, shown, caret = str(error).splitlines()
        assert shown == text and caret == " " * error.start + "^"
    else:
        assert text.replace(" ", "").endswith("SOFTMAX")
        assert all(word in ("CONV", "RELU", "POOL", "POOL?", "FC") for word, _ in words)


# --- what is wrong, and where -----------------------------------------------------------


@pytest.mark.parametrize(
    "text, place, words",  # the text with a | before the character that is wrong
    [
        ("", "|", "a layer must stand here, not the end"),
        ("CONV", "CONV|", 'a "-" or "," must stand here, not the end'),
        ("CONV,", "CONV,|", "SOFTMAX must stand here, not the end"),
        ("CONV,SOFTMAX-FC", "CONV,SOFTMAX|-FC", "the end after SOFTMAX"),
        ("CONV-SOFTMAX", "CONV-|SOFTMAX", 'SOFTMAX comes last, after a ","'),
        ("CONV-,SOFTMAX", "CONV-|,SOFTMAX", "a layer must stand here, not ,"),
        ("CONVV-RELU,SOFTMAX", "|CONVV-RELU,SOFTMAX", "there is no word CONVV"),
        ("conv,SOFTMAX", "|conv,SOFTMAX", "there is no word conv"),
        ("CONV?,SOFTMAX", "|CONV?,SOFTMAX", r"there is no word CONV\?"),
        ("(CONV-RELU,SOFTMAX", "(CONV-RELU|,SOFTMAX", r'"\)" of character 1'),
        ("[(CONV]),SOFTMAX", "[(CONV|]),SOFTMAX", r'"\)" of character 2'),
        ("CONV),SOFTMAX", "CONV|),SOFTMAX", 'a "-" or ","'),
        ("(CONV)*,SOFTMAX", "(CONV)*|,SOFTMAX", r'a number must follow "\*", not ,'),
        ("(CONV)*N,SOFTMAX", "(CONV)*|N,SOFTMAX", r'a number must follow "\*", not N'),
        ("(CONV)*-1,SOFTMAX", "(CONV)*|-1,SOFTMAX", r'a number must follow "\*", not -'),
        ("(CONV)*2*2,SOFTMAX", "(CONV)*2|*2,SOFTMAX", "must stand here"),
        ("CONV*99999999,SOFTMAX", "CONV*|99999999,SOFTMAX", "more than 1000 layers"),
        ("((CONV*99)*99),SOFTMAX", "((CONV*99)*|99),SOFTMAX", "more than 1000 layers"),
        ("FC-CONV,SOFTMAX", "FC-|CONV,SOFTMAX", "CONV needs images"),
        ("FC-RELU-POOL,SOFTMAX", "FC-RELU-|POOL,SOFTMAX", "POOL needs images"),
        ("[POOL]*4,SOFTMAX", "[|POOL]*4,SOFTMAX", "nothing to pool: images are 1 x 1 here"),
    ],
)
def test_an_error_points_at_the_character(text, place, words):
    with pytest.raises(GrammarError, match=words) as caught:
        from_grammar(text, (1, 8, 8))
    assert caught.value.start == place.index("|")
    assert isinstance(caught.value, ValueError)
    assert f"at character {place.index('|') + 1}:" in str(caught.value)


@pytest.mark.parametrize(
    "text, words",
    [
        ("(CONV-RELU)*6,SOFTMAX", "more than 5 CONV without a POOL, at character 2"),
        ("(FC-RELU)*3,SOFTMAX", "more than 2 FC, at character 2"),
    ],
)
def test_against_the_advice_is_built_with_a_warning(text, words):
    with pytest.warns(UserWarning, match=words):
        network = from_grammar(text, (1, 4, 4))
    assert network(np.zeros((1, 1, 4, 4), np.float32)).shape == (1, 10)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"kernel_size": 4}, "kernel_size is 4; it must be odd"),
        ({"filters": 0}, "filters must be at least 1, not 0"),
        ({"hidden": 0}, "hidden must be at least 1, not 0"),
        ({"input_shape": (0, 8, 8)}, "input_shape must be at least 1, not 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        from_grammar(TAUGHT, **options)


def test_what_is_no_text_is_refused():
    with pytest.raises(TypeError, match="the network is a list; it must be a string"):
        from_grammar(["CONV"])
