"""The wire gives back what was sent, and refuses everything else in words."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course.grading.wire import SIZES, WireError, decode, encode


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
    | hnp.integer_dtypes()
    | hnp.unsigned_integer_dtypes()
    | hnp.floating_dtypes(sizes=(16, 32, 64))
    | hnp.complex_number_dtypes(sizes=(64, 128))
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
        encode([np.zeros(5_000_000), np.zeros(5_000_000)])
    deep = []
    for _ in range(50):
        deep = [deep]
    with pytest.raises(WireError, match="nested too deeply"):
        encode(deep)


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
    ],
)
def test_malformed_frames_are_refused(tree, body):
    with pytest.raises(WireError):
        decode(json.dumps(tree).encode(), body)


@pytest.mark.parametrize(
    "head",
    [b"", b"\xff", b"[", b"[" * 100_000, b"1" * 10_000, b'["v",' * 90 + b"1" + b"]" * 90],
)
def test_heads_that_are_no_json_are_refused(head):
    with pytest.raises(WireError):
        decode(head, b"")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["v", "<f8"]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@given(json_like, st.binary(max_size=64))
@example(["a", "<f8", [10**30], "C"], b"")
def test_anything_is_decoded_or_refused(tree, body):
    with contextlib.suppress(WireError):
        decode(json.dumps(tree).encode(), body)
