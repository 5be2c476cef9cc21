"""What the grader and its child process say to each other: frames, and no pickle.

A frame is two lengths (4 bytes each, little-endian), a JSON head of the first length, and
a body of the second that holds the bytes of the arrays, one after the other. In the head
each value is a list that begins with its kind:

    ["v", value]                    None, a bool, an int or a str
    ["f", "1.5"]                    a float, exact, also nan and inf
    ["c", "1.0", "2.0"]             a complex number
    ["t", [...]], ["l", [...]]      a tuple, a list
    ["d", [[key, value], ...]]      a dict; keys are strings
    ["a", "<f8", [2, 3], "C"]       an array: dtype, shape, order in memory (C, F, or A
                                    for neither: every second element of a larger array)
    ["s", "<f4"]                    a NumPy scalar
    ["o", "set"]                    anything else: only the name of its type is sent

`decode` believes nothing: sizes, kinds and depth are checked before a byte is used.
"""

import json
import math
import struct
from typing import Any

import numpy as np

from course.exercises.call import spread

SIZES = struct.Struct("<II")
KINDS = "biufc"  # dtype kinds: bool, int, unsigned, float, complex
HEAD_LIMIT, BODY_LIMIT = 8 << 20, 64 << 20  # bytes
DEPTH_LIMIT = 20


class WireError(ValueError):
    """A frame that is not what this module writes."""


def encode(value: Any) -> bytes:
    """Return the frame of a value."""
    body: list[bytes] = []
    head = json.dumps(_tree(value, body)).encode()
    size = sum(map(len, body))
    if len(head) > HEAD_LIMIT or size > BODY_LIMIT:
        raise WireError(f"{len(head) + size} bytes are too many for a message")
    return b"".join([SIZES.pack(len(head), size), head, *body])


def _tree(value: Any, body: list[bytes], depth: int = 0) -> list:
    """Return the head of a value; append the bytes of its arrays to the body."""
    if depth > DEPTH_LIMIT:
        raise WireError("a value is nested too deeply")
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in KINDS:
        scalar = isinstance(value, np.generic)
        array = np.asarray(value)
        if array.nbytes > BODY_LIMIT:
            raise WireError(f"an array of {array.nbytes} bytes is too large for a message")
        flags = array.flags
        order = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        body.append(array.tobytes("F" if order == "F" else "C"))
        if scalar:
            return ["s", array.dtype.str]
        return ["a", array.dtype.str, list(array.shape), order]
    if value is None or isinstance(value, bool | str):
        return ["v", value]
    if isinstance(value, int):
        return ["v", int(value)]
    if isinstance(value, float):
        return ["f", float.__repr__(value)]
    if isinstance(value, complex):
        return ["c", repr(value.real), repr(value.imag)]
    if isinstance(value, tuple | list):
        kind = "t" if isinstance(value, tuple) else "l"
        return [kind, [_tree(part, body, depth + 1) for part in value]]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return ["d", [[k, _tree(part, body, depth + 1)] for k, part in value.items()]]
    return ["o", type(value).__name__]


def decode(head: bytes, body: bytes) -> Any:
    """Return the value of a frame. Raises WireError for anything `encode` never writes."""
    try:
        value, used = _value(json.loads(head), body, 0, 0)
    except WireError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise WireError(f"a message cannot be read ({type(error).__name__})") from None
    if used != len(body):
        raise WireError(f"{len(body) - used} bytes of a message belong to no array")
    return value


def _value(tree: Any, body: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Return the value of a head, and where in the body the next array begins."""
    if depth > DEPTH_LIMIT or not isinstance(tree, list):
        raise WireError("a message is nested too deeply, or not at all")
    match tree:
        case ["v", None | bool() | int() | str() as value]:
            return value, at
        case ["f", str(text)]:
            return float(text), at
        case ["c", str(real), str(imag)]:
            return complex(float(real), float(imag)), at
        case ["t" | "l" as kind, list(parts)]:
            values = []
            for part in parts:
                value, at = _value(part, body, at, depth + 1)
                values.append(value)
            return (tuple(values) if kind == "t" else values), at
        case ["d", list(pairs)]:
            result = {}
            for key, part in pairs:
                if not isinstance(key, str):
                    raise WireError("a key is no string")
                result[key], at = _value(part, body, at, depth + 1)
            return result, at
        case ["a", str(dtype), list(shape), "C" | "F" | "A" as order]:
            return _array(dtype, shape, order, body, at)
        case ["s", str(dtype)]:
            array, at = _array(dtype, [], "C", body, at)
            return array[()], at
        case ["o", str(name)]:
            return type(name[:40], (), {})(), at  # knows nothing but its name
    raise WireError("a message holds a value of no known kind")


def _array(
    dtype: str, shape: list, order: str, body: bytes, at: int
) -> tuple[np.ndarray, int]:
    """Return a new writable array from the body, and where the next one begins."""
    kind = np.dtype(dtype)
    if kind.kind not in KINDS or kind.shape or kind.names:
        raise WireError(f"arrays of {dtype[:20]!r} are not sent")
    if len(shape) > 16 or any(type(n) is not int or not 0 <= n < 1 << 40 for n in shape):
        raise WireError("an array has an impossible shape")
    count = math.prod(shape)
    past = at + count * kind.itemsize
    if past > len(body):
        raise WireError("an array is longer than its message")
    flat = np.frombuffer(body, kind, count, at)
    if order == "A" and shape:
        return spread(flat.reshape(shape)), past
    return flat.reshape(shape, order="F" if order == "F" else "C").copy("K"), past
