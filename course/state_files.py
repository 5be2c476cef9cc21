"""Files of weights: safetensors, and PyTorch's, which is a zip file with a pickle in it.

A pickle is a program: whoever unpickles it runs it, and it may call any function there is.
Here Python's unpickler never sees it. A machine of our own runs the few instructions that a
state dict needs. It has no instruction that calls a function of the file's choice: of the
names in a pickle it knows those of tensors, storages and OrderedDict, and each stands for
something that is done here. Whatever else a file asks for is an error, before it happens.

Layout of a PyTorch file (since version 1.6), a zip file that compresses nothing

    NAME/data.pkl     the pickle: names, shapes, strides, and which storage has the numbers
    NAME/data/0       the numbers of storage 0, and so on
    NAME/byteorder    little or big

Source: torch/serialization.py; Python's pickletools; github.com/huggingface/safetensors.
"""

import pickletools
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STORAGES = {  # PyTorch's name -> how its numbers lie in the file
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": np.uint16,  # the upper half of a float32
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
SAFETENSORS = {  # its name -> PyTorch's
    "F64": "DoubleStorage",
    "F32": "FloatStorage",
    "F16": "HalfStorage",
    "BF16": "BFloat16Storage",
    "I64": "LongStorage",
    "I32": "IntStorage",
    "I16": "ShortStorage",
    "I8": "CharStorage",
    "U8": "ByteStorage",
    "BOOL": "BoolStorage",
}
LONGEST = 4 << 20  # bytes of a pickle: ten times those of the deepest networks


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """Return name -> array of a file of weights: .safetensors, or else PyTorch's.

    Every number keeps its bits. float16 and bfloat16 come as float32, which has all their
    values; every other type as itself. Arrays are read-only, and may share memory. Of a
    checkpoint the state dict is returned, if it is called "state_dict" or there is only
    one; a "module." before every name, which DataParallel puts there, is left out.

    Nothing in the file is run. Raises ValueError for a file that is damaged, or holds
    anything but a state dict; the file before PyTorch 1.6 is not read.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    state = _state_dict(_read_pytorch(path), path)
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): array for name, array in state.items()}
    return state


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file."""
    from safetensors import SafetensorError, deserialize

    try:
        found = dict(deserialize(path.read_bytes()))
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None
    state = {}
    for name, view in found.items():
        if view["dtype"] not in SAFETENSORS:
            known = ", ".join(SAFETENSORS)
            raise ValueError(f"{name} in {path} has dtype {view['dtype']}, none of {known}")
        numbers = _numbers(view["data"], SAFETENSORS[view["dtype"]], "<")
        state[name] = numbers.reshape(view["shape"])
    return state


def _numbers(data: bytes, storage: str, order: str) -> np.ndarray:
    """Return the numbers of a storage as a read-only array."""
    kind = np.dtype(STORAGES[storage])
    raw = np.frombuffer(data, kind.newbyteorder(order), len(data) // kind.itemsize)
    raw = raw.astype(kind, copy=False)
    if storage == "HalfStorage":
        raw = raw.astype(np.float32)
    if storage == "BFloat16Storage":
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    raw.flags.writeable = False
    return raw


# --- PyTorch's file ---------------------------------------------------------------------


def _read_pytorch(path: Path) -> Any:
    """Return what torch.save wrote, with arrays in place of tensors."""
    with open(path, "rb") as raw:
        try:
            file = zipfile.ZipFile(raw)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ValueError(
                f"{path} is not a file of PyTorch 1.6 or later: {error}; if an older "
                "PyTorch wrote it, let a newer one do torch.save(torch.load(path), path)"
            ) from None
        try:
            return _read_zip(file, path.stat().st_size)
        except _Refused as error:
            raise ValueError(f"{path} is not a state dict: {error}") from None
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}") from None


def _read_zip(file: zipfile.ZipFile, length: int) -> Any:
    """Return the value that the pickle in an open zip file of this length makes."""
    entries = {entry.filename: entry for entry in file.infolist()}
    pickles = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1 or len(entries) != len(file.infolist()):
        raise _Refused("it is a zip file, but not one that torch.save wrote")
    plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries.values())
    size = sum(entry.file_size for entry in entries.values())
    if not plain or size > length:
        raise _Refused(f"its {length} bytes unpack to {size}; torch.save packs nothing")
    folder = pickles[0].removesuffix("data.pkl")
    if entries[pickles[0]].file_size > LONGEST:
        raise _Refused(f"its pickle is longer than {LONGEST} bytes")
    big = folder + "byteorder" in entries and file.read(folder + "byteorder") == b"big"
    read: dict[tuple[str, str], np.ndarray] = {}

    def storage(kind: str, key: str) -> np.ndarray:
        if (kind, key) not in read:
            if f"{folder}data/{key}" not in entries:
                raise _Refused(f"there is no storage {key!r}")
            data = file.read(f"{folder}data/{key}")
            read[kind, key] = _numbers(data, kind, "><"[not big])
        return read[kind, key]

    return _run(file.read(pickles[0]), storage)


class _Refused(Exception):
    """What a pickle asks for and does not get."""


class _Name(NamedTuple):
    """A name in a pickle, as torch.FloatStorage. It is a word; nothing is looked up."""

    module: str
    name: str


class _Storage(NamedTuple):
    """The numbers that tensors are views of."""

    numbers: np.ndarray


def _run(program: bytes, storage: Callable[[str, str], np.ndarray]) -> Any:
    """Run a pickle, instruction by instruction, and return the value that it makes.

    `storage(kind, key)` returns numbers. The values are dicts (OrderedDict, too), lists,
    tuples, strings, whole numbers, floats, True, False, None and arrays.
    """
    stack: list[Any] = []
    marked: list[list[Any]] = []  # the stacks under each mark
    memo: dict[int, Any] = {}
    try:
        for instruction, argument, _ in pickletools.genops(program):
            match instruction.name:
                case "PROTO":
                    pass
                case "STOP":
                    return stack.pop()
                case "NONE":
                    stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(instruction.name == "NEWTRUE")
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                    stack.append(argument)
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_TUPLE":
                    stack.append(())
                case "MARK":
                    marked.append(stack)
                    stack = []
                case "TUPLE":
                    made, stack = tuple(stack), marked.pop()
                    stack.append(made)
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(instruction.name[-1])
                    made = tuple(stack.pop() for _ in range(count))[::-1]
                    stack.append(made)
                case "APPEND":
                    value = stack.pop()
                    _list(stack[-1]).append(value)
                case "APPENDS":
                    values, stack = stack, marked.pop()
                    _list(stack[-1]).extend(values)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _set(stack[-1], [key, value])
                case "SETITEMS":
                    values, stack = stack, marked.pop()
                    _set(stack[-1], values)
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    stack.append(_known(*argument.split(" ", 1)))
                case "BINPERSID":
                    stack.append(_stored(stack.pop(), storage))
                case "REDUCE":
                    arguments, name = stack.pop(), stack.pop()
                    stack.append(_made(name, arguments))
                case "BUILD":  # the version numbers of a state dict, which nobody needs
                    stack.pop()
                    _set(stack[-1], [])
                case _:
                    raise _Refused(f"no tensor needs the instruction {instruction.name}")
    except (IndexError, KeyError):
        raise _Refused("its pickle is damaged: a value is missing") from None
    except ValueError as error:
        raise _Refused(f"its pickle is damaged: {error}") from None
    raise _Refused("its pickle is damaged: it does not end")


def _known(module: str, name: str) -> _Name:
    """Return one of the names that tensors need, as a word; there are no others."""
    words = {
        "torch": STORAGES,
        "torch._utils": ("_rebuild_tensor_v2", "_rebuild_parameter"),
        "collections": ("OrderedDict",),
    }
    if name not in words.get(module, ()):
        asked = f"{module}.{name}"[:80]
        raise _Refused(f"it asks for {asked!r}; save model.state_dict(), not the model")
    return _Name(module, name)


def _list(value: Any) -> list:
    """Return the value, which must be a list."""
    if type(value) is not list:
        raise _Refused(f"a {type(value).__name__} is not a list to append to")
    return value


def _set(value: Any, pairs: list) -> None:
    """Put keys and values, in turns, into the value, which must be a dict."""
    if type(value) is not dict:
        raise _Refused(f"a {type(value).__name__} is not a dict whose keys can be set")
    for key, entry in zip(pairs[::2], pairs[1::2], strict=True):
        if type(key) not in (str, int):
            raise _Refused(f"a {type(key).__name__} is neither a name nor a number")
        value[key] = entry


def _stored(place: Any, storage: Callable[[str, str], np.ndarray]) -> _Storage:
    """Return the storage of ("storage", torch.FloatStorage, key, device, numbers)."""
    match place:
        case ("storage", _Name("torch", kind), str(key), str(), int(count)):
            numbers = storage(kind, key)
            if not 0 <= count <= numbers.size:
                raise _Refused(f"storage {key!r} has {numbers.size} numbers, not {count}")
            return _Storage(numbers[:count])
    raise _Refused("a storage is described in an unknown way")


def _made(name: Any, arguments: Any) -> Any:
    """Return what one of three names makes of the arguments; no other name is known."""
    match name, arguments:
        case _Name("collections", "OrderedDict"), ():
            return {}
        case _Name("torch._utils", "_rebuild_parameter"), (np.ndarray() as array, _, _):
            return array
        case (
            _Name("torch._utils", "_rebuild_tensor_v2"),
            (_Storage(numbers), int(offset), tuple(sizes), tuple(strides), *_),
        ):
            return _tensor(numbers, offset, sizes, strides)
    raise _Refused("it calls a function as no tensor does")


def _tensor(numbers: np.ndarray, offset: int, sizes: tuple, strides: tuple) -> np.ndarray:
    """Return a view of the numbers; it must not reach beyond them."""
    whole = all(type(n) is int and n >= 0 for n in (offset, *sizes, *strides))
    if not whole or len(sizes) != len(strides):
        raise _Refused("the sizes and strides of a tensor are not whole numbers")
    if 0 in sizes:
        last = offset - 1
    else:
        last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if last >= numbers.size:
        raise _Refused(
            f"a tensor of sizes {sizes} needs {last + 1} numbers, its storage has "
            f"{numbers.size}"
        )
    steps = [
        step * numbers.itemsize if n > 1 else 0
        for n, step in zip(sizes, strides, strict=True)
    ]
    try:
        return np.lib.stride_tricks.as_strided(
            numbers[offset:], sizes, steps, writeable=False
        )
    except (ValueError, OverflowError):
        raise _Refused(f"a tensor has {prod(sizes)} numbers") from None


def _state_dict(value: Any, path: Path) -> dict[str, np.ndarray]:
    """Return the dict of arrays that the value is, or has among other things."""
    if isinstance(value, dict) and not any(map(_is_array, value.values())):
        inner = value.get("state_dict")
        dicts = [inner] if isinstance(inner, dict) else list(value.values())
        dicts = [
            d for d in dicts if isinstance(d, dict) and any(map(_is_array, d.values()))
        ]
        value = dicts[0] if len(dicts) == 1 else value
    if not isinstance(value, dict) or not any(map(_is_array, value.values())):
        raise ValueError(f"{path} holds a {type(value).__name__}, but not one state dict")
    for name, array in value.items():
        if not isinstance(name, str) or not _is_array(array):
            raise ValueError(
                f"entry {name!r} of the state dict in {path} is a {type(array).__name__}, "
                "not a tensor"
            )
    return value


def _is_array(value: Any) -> bool:
    """Say whether the value was a tensor."""
    return isinstance(value, np.ndarray)
