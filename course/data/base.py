"""The form that every set of images has, and what can be wrong with its files."""

from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK = 1000  # images


class DataNotFound(FileNotFoundError):
    """The files are not on this machine and could not be downloaded."""


class BadData(ValueError):
    """A file is damaged, or is not the file it should be."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and their labels, some to learn from and others to test on.

    Attributes
    ----------
    name : as in `load(name)`
    x_train, x_test : (N, C, H, W) float32, 0 to 1. One channel: 0 is background, 1 full
        ink. Three: red, green, blue
    t_train, t_test : (N,) int64, the class of each image
    classes : the name of each class
    """

    name: str
    x_train: np.ndarray
    t_train: np.ndarray
    x_test: np.ndarray
    t_test: np.ndarray
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        train, (_, _, H, W) = len(self.x_train), self.x_test.shape
        return (
            f"{self.name}: {train} + {len(self.x_test)} images of {H}x{W}, "
            f"{len(self.classes)} classes"
        )


def unit(pixels: np.ndarray, largest: int) -> np.ndarray:
    """Return whole numbers 0..largest, (N, H, W), as float32 0..1, (N, 1, H, W).

    >>> unit(np.array([[[0, 4, 16]]]), 16)
    array([[[[0.  , 0.25, 1.  ]]]], dtype=float32)
    """
    x = pixels[:, None].astype(np.float32)
    x /= np.float32(largest)
    return x


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel of x (N, C, H, W), in float64.

    Raises ValueError for another shape, and if there is no pixel.

    >>> moments(np.array([[[[0.0, 1.0]], [[3.0, 3.0]]]]))
    (array([0.5, 3. ]), array([0.5, 0. ]))
    """
    if x.ndim != 4 or not x.size:
        raise ValueError(f"x has shape {x.shape}; it must be (N, C, H, W), with pixels")
    sums, squares = np.zeros((2, x.shape[1]))
    for first in range(0, len(x), BLOCK):  # a block in float64 at a time, not all of x
        part = x[first : first + BLOCK].astype(np.float64)
        sums += part.sum(axis=(0, 2, 3))
        squares += np.einsum("nchw,nchw->c", part, part)
    count = x.size // x.shape[1]
    mean = sums / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def normalize(
    x: np.ndarray, mean: Any, std: Any, out: np.ndarray | None = None
) -> np.ndarray:
    """Return (x - mean) / std for images x (N, C, H, W), in the dtype of x.

    Mean and std are numbers, or have one for each channel, as `moments` of the training
    images has. `out=x` needs no second copy of x. Raises TypeError for x of whole numbers,
    ValueError for shapes that do not fit together and for a std that is not above 0.

    >>> normalize(np.array([[[[0.0, 4.0]]]]), mean=2, std=0.5)
    array([[[[-4.,  4.]]]])
    """
    if x.dtype not in (np.float32, np.float64):
        raise TypeError(f"x has dtype {x.dtype}; it must be float: x.astype(np.float32)")
    if x.ndim != 4:
        raise ValueError(f"x has shape {x.shape}; it must be (N, C, H, W)")
    columns = []
    for name, value in (("mean", mean), ("std", std)):
        column = np.asarray(value, x.dtype)
        if column.shape not in ((), x.shape[1:2]):
            raise ValueError(
                f"{name} has shape {column.shape}; it must be one number, or one for each "
                f"of the {x.shape[1]} channels of x"
            )
        columns.append(column.reshape(-1, 1, 1))
    if not (columns[1] > 0).all():
        raise ValueError(f"std is {std}; it must be above 0 in every channel")
    out = np.subtract(x, columns[0], out=out)
    out /= columns[1]
    return out
