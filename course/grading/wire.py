"""What the grader and its box say to each other: frames, and no pickle.

A frame is two lengths (4 bytes each, little-endian), a JSON head of the first length, and
a body of the second that holds the bytes of the arrays, one after the other. In the head
each value is a list that begins with its kind:

    ["v", value]                    None, a bool, an int or a str
    ["f", "1.5"]                    a float, exact, also nan and inf
    ["c", "1.0", "2.0"]             a complex number
    ["t", [...]], ["l", [...]]      a tuple, a list
    ["p", [...]]                    the steps of a `course.exercises.call.Script`
    ["h", 3]                        a `course.exercises.call.Handle`
    ["d", [[key, value], ...]]      a dict; keys are strings
    ["a", "<f8", [2, 3], "C"]       an array: dtype, shape, order in memory (C, F, or A
                                    for neither: every second element of a larger array)
    ["s", "<f4"]                    a NumPy scalar
    ["o", "set"]                    anything else: only the name of its type is sent

`decode` believes nothing: sizes, kinds and depth are checked before a byte is used, and
there is one way to write each thing. It needs little more memory than the frame has
bytes, and less than a second for the longest one.
"""

import json
import math
import struct
from typing import Any

import numpy as np

from course.exercises.call import Handle, Script, spread

SIZES = struct.Struct("<II")
KINDS = "? i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8 c8 c16"
DTYPES = {np.dtype(kind).str: np.dtype(kind) for kind in KINDS.split()}
HEAD_LIMIT, BODY_LIMIT = 2 << 20, 32 << 20  # bytes
DEPTH_LIMIT = 20
INT_BITS = 128
FLOAT_LENGTH = 32  # characters
OTHERS_LIMIT = 100  # values of other kinds in a frame: each makes a type


class WireError(ValueError):
    """A frame that is not what this module writes, or a value too large for one."""


def encode(value: Any, limit: int = HEAD_LIMIT + BODY_LIMIT) -> bytes:
    """Return the frame of a value. Raises WireError if it would be longer than `limit`."""
    body: list[bytes] = []
    head = json.dumps(_tree(value, body, limit)).encode()
    size = sum(map(len, body))
    if len(head) > HEAD_LIMIT or size > BODY_LIMIT or len(head) + size > limit:
        raise WireError(f"{len(head) + size} bytes are too many for a message")
    return b"".join([SIZES.pack(len(head), size), head, *body])


def _tree(value: Any, body: list[bytes], limit: int, depth: int = 0) -> list:
    """Return the head of a value; append the bytes of its arrays to the body."""
    if depth > DEPTH_LIMIT:
        raise WireError("a value is nested too deeply")
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        if value.nbytes > min(limit, BODY_LIMIT):
            raise WireError(f"an array of {value.nbytes} bytes is too large for a message")
        array = _plain(np.asarray(value))
        flags = array.flags
        order = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        body.append(array.tobytes("F" if order == "F" else "C"))
        if isinstance(value, np.generic):
            return ["s", array.dtype.str]
        return ["a", array.dtype.str, list(array.shape), order]
    if value is None or isinstance(value, bool):
        return ["v", value]
    if isinstance(value, str):
        return ["v", value.encode("utf-8", "replace").decode()]
    if isinstance(value, int):
        if int(value).bit_length() > INT_BITS:
            raise WireError(f"an int of {int(value).bit_length()} bits is too large")
        return ["v", int(value)]
    if isinstance(value, float):
        return ["f", float.__repr__(value)]
    if isinstance(value, complex):
        return ["c", repr(value.real), repr(value.imag)]
    if isinstance(value, Handle):
        return ["h", value.step]
    if isinstance(value, tuple | list):
        kind = (
            "p" if isinstance(value, Script) else "t" if isinstance(value, tuple) else "l"
        )
        return [kind, [_tree(part, body, limit, depth + 1) for part in value]]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        pairs = [_tree(pair, body, limit, depth + 1)[1] for pair in value.items()]
        return ["d", [[key[1], part] for key, part in pairs]]
    return ["o", type(value).__name__[:40]]


def _plain(array: np.ndarray) -> np.ndarray:
    """Return the array in the machine's own byte order, with at most 8 bytes a number."""
    kind = array.dtype.newbyteorder("=")
    if kind.str not in DTYPES:  # long double
        kind = np.dtype(complex if kind.kind == "c" else float)
    with np.errstate(all="ignore"):
        return array.astype(kind, "K", copy=False)


def decode(head: bytes, body: bytes) -> Any:
    """Return the value of a frame. Raises WireError for anything `encode` never writes."""
    if len(head) > HEAD_LIMIT or len(body) > BODY_LIMIT:
        raise WireError(f"{len(head) + len(body)} bytes are too many for a message")
    reader = _Reader(body)
    try:
        value = reader.value(json.loads(head.decode("ascii")), 0)
    except WireError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise WireError(f"a message cannot be read ({type(error).__name__})") from None
    if reader.at != len(body):
        raise WireError(f"{len(body) - reader.at} bytes of a message belong to no array")
    return value


class _Reader:
    """Reads a head; `at` is where in the body the next array begins."""

    def __init__(self, body: bytes):
        self.body, self.at, self.others = body, 0, 0

    def value(self, tree: Any, depth: int) -> Any:
        """Return the value of a head."""
        if depth > DEPTH_LIMIT or not isinstance(tree, list):
            raise WireError("a message is nested too deeply, or not at all")
        match tree:
            case ["v", None | bool() as value]:
                return value
            case ["v", int(value)] if value.bit_length() <= INT_BITS:
                return value
            case ["v", str(value)]:
                return _text(value)
            case ["f", str(text)]:
                return _float(text)
            case ["c", str(real), str(imag)]:
                return complex(_float(real), _float(imag))
            case ["t" | "l" | "p" as kind, list(parts)]:
                made = {"t": tuple, "l": list, "p": Script}[kind]
                return made([self.value(part, depth + 1) for part in parts])
            case ["d", list(pairs)]:
                result = {_text(key): self.value(part, depth + 1) for key, part in pairs}
                if len(result) != len(pairs):
                    raise WireError("a dict has a key twice")
                return result
            case ["a", str(dtype), list(shape), "C" | "F" | "A" as order]:
                return self.array(dtype, shape, order)
            case ["s", str(dtype)]:
                return self.array(dtype, [], "C")[()]
            case ["h", int(step)] if type(step) is int and 0 <= step < 1 << 16:
                return Handle(step)
            case ["o", str(name)] if len(name) <= 40 and self.others < OTHERS_LIMIT:
                self.others += 1
                return type(_text(name), (), {})()  # knows nothing but its name
        raise WireError("a message holds a value of no known kind")

    def array(self, dtype: str, shape: list, order: str) -> np.ndarray:
        """Return a new writable array from the body."""
        kind = DTYPES.get(dtype)
        if kind is None:
            raise WireError(f"arrays of {dtype[:20]!r} are not sent")
        if len(shape) > 16 or any(
            type(n) is not int or not 0 <= n < 1 << 31 for n in shape
        ):
            raise WireError("an array has an impossible shape")
        count = math.prod(shape)
        if self.at + count * kind.itemsize > len(self.body):
            raise WireError("an array is longer than its message")
        flat = np.frombuffer(self.body, kind, count, self.at)
        if kind.kind == "b" and flat.view(np.uint8).max(initial=0) > 1:
            raise WireError("a bool is neither 0 nor 1")
        self.at += count * kind.itemsize
        if order == "A" and shape:
            return spread(flat.reshape(shape))
        return flat.reshape(shape, order="F" if order == "F" else "C").copy("K")


def _text(value: Any) -> str:
    """Return a string that can be written anywhere."""
    if not isinstance(value, str):
        raise WireError("a key is no string")
    value.encode()  # half a character of a pair raises an error
    return value


def _float(text: str) -> float:
    if len(text) > FLOAT_LENGTH:
        raise WireError("a float has too many digits")
    return float(text)
