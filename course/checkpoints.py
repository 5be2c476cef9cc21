"""Checkpoints: all that a training needs to go on where it was, in one file.

The file is a safetensors file. Its tensors are the arrays of the state, each under its path
in it ("weights/0.bias"); its metadata have the rest as JSON, and a SHA-256 of all. It is
written beside the old one and then renamed: whatever kills the process or stops the
machine, there is the old file or the new one, whole.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from course.cuda import CudaArray
from course.device import host
from course.files import write_whole
from course.layers.base import Layer

FORMAT = "convnet-course checkpoint 1"
ARRAY = "an array:"  # stands in the JSON where an array was, with its name


def write(path: Path, settings: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Write a state, nested dicts of arrays and of what JSON can say, and its settings."""
    arrays: dict[str, np.ndarray] = {}
    words = json.dumps({"settings": dict(settings), "state": _apart(state, "", arrays)})
    from safetensors.numpy import save

    metadata = {"format": FORMAT, "words": words, "sha256": _digest(words, arrays)}
    write_whole(path, save(arrays, metadata))


def read(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the settings and the state that `write` wrote.

    Raises ValueError, which names the file, for any other file and for a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = path.read_bytes()
    try:
        arrays = load(data)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no checkpoint, or it is damaged ({error}); training does not "
            "overwrite it: give another file, or remove it"
        ) from None
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = head.get("__metadata__", {})
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is a safetensors file, but no checkpoint of a training; it is not "
            "overwritten: give another file for the checkpoint"
        )
    if metadata["sha256"] != _digest(metadata["words"], arrays):
        raise ValueError(
            f"{path} is damaged: its contents do not have the SHA-256 that it states; "
            "remove it to train anew"
        )
    words = json.loads(metadata["words"])
    return words["settings"], _together(words["state"], arrays)


def resumed(path: Path, settings: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the state in the file, or None if there is no such file.

    Raises ValueError if the file is of a training with other settings: it names the first
    that differs.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file in it for the checkpoint")
    for left in path.parent.glob(f"{escape(path.name)}.*.partial"):
        left.unlink(missing_ok=True)  # of a process that was killed while it wrote
    if not path.exists():
        return None
    theirs, state = read(path)
    for name in theirs | dict(settings):
        there, here = theirs.get(name, "absent"), settings.get(name, "absent")
        if there != here:
            raise ValueError(
                f"{path} is the checkpoint of another training: {name} is {there} there "
                f"and {here} here. Make it {there} to go on; to train anew, give another "
                "file or remove this one"
            )
    return state


def _apart(value: Any, place: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return the value with a word in the place of each array, which goes into arrays."""
    if isinstance(value, Mapping):
        return {
            key: _apart(inner, f"{place}/{key}", arrays) for key, inner in value.items()
        }
    if isinstance(value, np.ndarray | CudaArray):
        arrays[place[1:]] = np.asarray(host(value), order="C")
        return ARRAY + place[1:]
    return value.item() if isinstance(value, np.generic) else value


def _together(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return what `_apart` took apart."""
    if isinstance(value, dict):
        return {key: _together(inner, arrays) for key, inner in value.items()}
    if isinstance(value, str) and value.startswith(ARRAY):
        return arrays[value.removeprefix(ARRAY)]
    return value


def _digest(words: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all that a checkpoint holds."""
    digest = hashlib.sha256(words.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.asarray(arrays[name], order="C").data)
    return digest.hexdigest()


def described(thing: Any) -> str:
    """Return what tells two settings apart: the name of a function; of others the numbers.

    >>> from course.regularization import L2
    >>> described(L2(0.5))
    'L2(strength=0.5)'
    >>> described(np.mean), described((1, np.float32(0.5)))
    ('mean', '(1, 0.5)')
    """
    if isinstance(thing, np.ndarray):
        return fingerprint(thing)
    if isinstance(thing, np.generic):
        return repr(thing.item())
    if isinstance(thing, list | tuple):
        return f"({', '.join(map(described, thing))})"
    if isinstance(thing, partial):
        return f"{described(thing.func)}{described((*thing.args, *thing.keywords.items()))}"
    if hasattr(thing, "__qualname__"):
        return thing.__qualname__
    if not hasattr(thing, "__dict__"):
        return repr(thing)
    said = [f"{k}={described(v)}" for k, v in vars(thing).items() if k[0] != "_"]
    return f"{type(thing).__name__}({', '.join(said)})"


def fingerprint(a: np.ndarray) -> str:
    """Return shape, dtype and the beginning of the SHA-256 of an array.

    >>> fingerprint(np.zeros((2, 3)))
    '(2, 3) float64, SHA-256 17b0761f87b081d5'
    """
    digest = hashlib.sha256(np.asarray(a, order="C").data).hexdigest()
    return f"{a.shape} {a.dtype}, SHA-256 {digest[:16]}"


def architecture(leaves: list[tuple[str, Layer]]) -> Iterator[tuple[str, str]]:
    """Yield for each layer its name, and how it was made with the shapes of its arrays."""
    for name, leaf in leaves:
        arrays = (leaf.params | leaf.buffers).items()
        shapes = [f"{key} {a.shape} {a.dtype}" for key, a in arrays]
        yield f"layer {name}", ", ".join([repr(leaf), *shapes])
