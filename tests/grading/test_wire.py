"""The wire gives back what was sent, and refuses everything else in words."""

import contextlib
import json
import os
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course.exercises.call import Handle, Script
from course.grading.wire import (
    BODY_LIMIT,
    HEAD_LIMIT,
    SIZES,
    WireError,
    decode,
    encode,
)


def parts(frame):
    head, body = SIZES.unpack(frame[: SIZES.size])
    assert len(frame) == SIZES.size + head + body
    return frame[SIZES.size :][:head], frame[SIZES.size + head :]


def same(a, b):
    if isinstance(a, np.ndarray | np.generic):
        return (
            type(a) is type(b)
            and (a.dtype, a.shape) == (b.dtype, b.shape)
            and a.tobytes() == b.tobytes()
        )
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and repr(a) == repr(b)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.complex_numbers()
    | st.text()
)
dtypes = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="=")
    | hnp.unsigned_integer_dtypes(endianness="=")
    | hnp.floating_dtypes(endianness="=", sizes=(16, 32, 64))
    | hnp.complex_number_dtypes(endianness="=", sizes=(64, 128))
)
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
values = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
def test_what_is_sent_arrives(value):
    assert same(decode(*parts(encode(value))), value)


@pytest.mark.parametrize(
    "value", [np.float32(1.5), np.int64(-3), np.bool_(True), np.float64("nan")]
)
def test_numpy_numbers_stay_numpy_numbers(value):
    arrived = decode(*parts(encode(value)))
    assert type(arrived) is type(value)
    assert arrived.tobytes() == value.tobytes()


def test_order_in_memory_stays_and_arrays_can_be_written():
    a = np.arange(24.0).reshape(2, 3, 4)
    for sent in (a, a.T, a[:, :, ::2], a[::-1], a.transpose(1, 0, 2)):
        arrived = decode(*parts(encode(sent)))
        np.testing.assert_array_equal(arrived, sent)
        assert arrived.flags.c_contiguous == sent.flags.c_contiguous
        assert arrived.flags.f_contiguous == sent.flags.f_contiguous
        arrived[...] = 0


def test_what_cannot_be_sent_leaves_its_name():
    class Thing:
        def __reduce__(self):
            raise AssertionError("pickled")

    for value in (Thing(), {1: 2}, {1, 2}, np.array([None])):
        arrived = decode(*parts(encode(value)))
        assert type(arrived).__name__ == type(value).__name__


def test_too_much_is_not_sent():
    with pytest.raises(WireError, match="too large"):
        encode(np.zeros(10_000_000))
    with pytest.raises(WireError, match="too many"):
        encode([np.zeros(3_000_000), np.zeros(3_000_000)])
    with pytest.raises(WireError, match="too large"):
        encode(np.zeros(1000), 2000)
    with pytest.raises(WireError, match="too many"):
        encode(["x" * 1000] * 3, 2000)
    with pytest.raises(WireError, match="129 bits"):
        encode(1 << 128)
    deep = []
    for _ in range(50):
        deep = [deep]
    with pytest.raises(WireError, match="nested too deeply"):
        encode(deep)


def test_strange_numbers_become_plain_ones():
    for sent, kind in (
        (np.arange(3.0, dtype=">f8"), "<f8"),
        (np.arange(3, dtype=">i2"), "<i2"),
        (np.arange(3, dtype=np.longdouble), "<f8"),
        (np.arange(3, dtype=np.clongdouble), "<c16"),
    ):
        arrived = decode(*parts(encode(sent)))
        assert arrived.dtype == np.dtype(kind)
        np.testing.assert_array_equal(arrived, sent)
    assert type(decode(*parts(encode(np.longdouble(2))))) is np.float64
    assert decode(*parts(encode("a\ud800"))) == "a?"


def test_scripts_and_handles_arrive():
    script = Script([("new", (1,)), ("call", Handle(0), "add", (Handle(0), [2]))])
    arrived = decode(*parts(encode(script)))
    assert type(arrived) is Script
    assert arrived == script


def array(dtype="<f8", shape=(2,), order="C"):
    return ["a", dtype, shape, order]


@pytest.mark.parametrize(
    ("tree", "body"),
    [
        (array(), b"\0" * 15),
        (array(), b"\0" * 17),
        (array(shape=(-2,)), b""),
        (array(shape=(1 << 60,)), b""),
        (array(shape=(1 << 39, 1 << 39)), b""),
        (array(shape=(True, 2)), b"\0" * 16),
        (array(shape=("2",)), b"\0" * 16),
        (array(shape=(1,) * 40), b"\0" * 8),
        (array(dtype="O"), b"\0" * 16),
        (array(dtype="V8"), b"\0" * 16),
        (array(dtype="<f8,<f8"), b"\0" * 32),
        (array(dtype="(2,)f8"), b"\0" * 32),
        (array(dtype="U2"), b"\0" * 16),
        (array(dtype="no such"), b"\0" * 16),
        (array(order="Z"), b"\0" * 16),
        (["v", [1]], b""),
        (["v", {"__class__": "x"}], b""),
        (["v", 1.5], b""),
        (["f", "one"], b""),
        (["f", 1.0], b""),
        (["d", [[1, ["v", 1]]]], b""),
        (["d", [["a"]]], b""),
        (["t", 3], b""),
        (["o", "a\0b"], b""),
        (["x", 1], b""),
        ([], b""),
        ({}, b""),
        (None, b""),
        (["v", None], b"x"),
        (array(dtype=">f8"), b"\0" * 16),
        (array(dtype="f8"), b"\0" * 16),
        (array(dtype="<f16"), b"\0" * 32),
        (array(dtype="S8"), b"\0" * 16),
        (array(dtype="|b1"), b"\1\2"),
        (array(shape=(0, 1 << 30, 1 << 30, 1 << 30)), b""),
        (["v", 1 << 129], b""),
        (["v", "\ud800"], b""),
        (["d", [["a", ["v", 1]], ["a", ["v", 1]]]], b""),
        (["d", [["\ud800", ["v", 1]]]], b""),
        (["d", ["ab"]], b""),
        (["o", "x" * 41], b""),
        (["l", [["o", "x"]] * 101], b""),
        (["f", "1" * 33], b""),
        (["h", -1], b""),
        (["h", True], b""),
        (["p", 1], b""),
    ],
)
def test_malformed_frames_are_refused(tree, body):
    with pytest.raises(WireError):
        decode(json.dumps(tree).encode(), body)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff",
        '["v", 1]'.encode("utf-16"),
        '["v", "é"]'.encode(),
        b'["v", NaN]',
        b"[",
        b"[" * 100_000,
        b"1" * 10_000,
        b'["v",' * 90 + b"1" + b"]" * 90,
    ],
)
def test_heads_that_are_no_json_are_refused(head):
    with pytest.raises(WireError):
        decode(head, b"")


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([*"vfctlphdaos", "<f8", "|b1", "<c16", "C", "F", "A", "1.5"]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)
FUZZ = int(os.environ.get("COURSE_FUZZ", "2000"))


def decoded(head, body):
    """Decode, or be refused in words: nothing else may happen."""
    with contextlib.suppress(WireError):
        return decode(head, body)


@settings(max_examples=max(FUZZ // 10, 100), deadline=None)
@given(json_like, st.binary(max_size=64))
@example(["a", "<f8", [10**30], "C"], b"")
def test_anything_is_decoded_or_refused(tree, body):
    decoded(json.dumps(tree).encode(), body)


def test_damaged_frames_are_decoded_or_refused():
    """Real frames with bytes changed, put in, left out, and parts of others."""
    rng = np.random.default_rng(0)
    sent = [
        {"id": "1", "outcome": "returned", "value": (np.ones((3, 4)), [1, 2.5, "x", None])},
        {"id": "2", "outcome": "raised", "value": ["ValueError", "says", 3, "x = 1"]},
        [np.float32(1), np.ones((2, 2), bool), 1j, {"a": (1 << 100)}, {1}, Handle(3)],
        Script([("new", (np.arange(6).reshape(2, 3).T,))]),
    ]
    frames = [parts(encode(value)) for value in sent]
    alive = 0
    for _ in range(FUZZ):
        head, body = map(bytearray, frames[rng.integers(len(frames))])
        for _ in range(rng.integers(1, 4)):
            damage(head if rng.random() < 0.8 else body, frames, rng)
        if (value := decoded(bytes(head), bytes(body))) is not None:
            alive += 1
            encode(value)  # what is let in can be sent again
    assert alive > FUZZ // 100  # else the damage is too great to try anything


def damage(data, frames, rng):
    """Change some bytes."""
    at = int(rng.integers(len(data) + 1))
    past = at + int(rng.integers(4))
    other = frames[rng.integers(len(frames))][0]
    start = int(rng.integers(len(other)))
    choices = [b"", rng.bytes(past - at), b"[", b"]", b"9", b"-", b"0" * 30, b'"', b"\\u"]
    choices += [other[start : start + int(rng.integers(20))]]
    data[at:past] = choices[rng.integers(len(choices))]


def test_the_worst_frame_takes_little_time():
    """What fills the limits: very many small things, deep things, and one large array."""
    size = HEAD_LIMIT - 100

    def many(part):
        return b'["l", [' + b", ".join([part] * (size // (len(part) + 2))) + b"]]"

    worst = {
        "numbers": (many(b'["v",1]'), b""),
        "empty lists": (many(b'["l",[]]'), b""),
        "empty arrays": (many(b'["a","<f8",[0],"C"]'), b""),
        "strided arrays": (many(b'["a","<f8",[0],"A"]'), b""),
        "floats": (many(b'["f","1"]'), b""),
        "digits": (many(b'["v",' + b"9" * 4000 + b"]"), b""),
        "brackets": (b"[" * size, b""),
        "large": (b'["a","<f8",[%d],"A"]' % (BODY_LIMIT // 8), bytes(BODY_LIMIT)),
    }
    for name, (head, body) in worst.items():
        start = time.process_time()
        decoded(head, body)
        assert time.process_time() - start < 3, name  # 0.5 s on a quiet machine
