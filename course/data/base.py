"""The form that every set of images has, and what can be wrong with its files."""

from dataclasses import dataclass

import numpy as np


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
    x_train, x_test : (N, 1, H, W) float32, 0 is background and 1 full ink
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
