"""Images to learn from, all in one form.

    data = load("digits")
    data.x_train, data.t_train, data.x_test, data.t_test, data.classes

`digits`, `glyphs`, `letters` and `shapes` are there on every machine, with no network.
`mnist`, `fashion-mnist` and `cifar10` are found on this machine, or downloaded once and
checked.
"""

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from course.data.base import BadData, DataNotFound, Dataset, moments, normalize

__all__ = ["NAMES", "BadData", "DataNotFound", "Dataset", "load", "moments", "normalize"]

# name -> the module and the function in it; a module is imported when it is needed
_LOADERS = {
    "digits": ("digits", "digits"),
    "glyphs": ("glyphs", "glyphs"),
    "letters": ("letters", "letters"),
    "shapes": ("shapes", "shapes"),
    "mnist": ("idx", "mnist"),
    "fashion-mnist": ("idx", "fashion_mnist"),
    "cifar10": ("cifar10", "cifar10"),
}
NAMES = tuple(_LOADERS)


def load(name: str, **options: Any) -> Dataset:
    """Return a set of images by its name.

    Options belong to the set: `load("digits", size=8)`, `load("glyphs", seed=1)`,
    `load("letters", letters="EX")`, `load("shapes", clutter=0.5)`,
    `load("cifar10", train=10_000)`; the module of each says which it has. Raises ValueError
    for a name that does not exist, DataNotFound if the files cannot be had, BadData if
    they are not what they should be.

    >>> load("digits")
    digits: 1442 + 355 images of 28x28, 10 classes
    """
    if name not in _LOADERS:
        near = get_close_matches(str(name).lower(), NAMES, 1)
        raise ValueError(
            f"there is no data set {name!r}; there are {', '.join(NAMES)}"
            + "".join(f"; did you mean {one!r}?" for one in near)
        )
    module, function = _LOADERS[name]
    return getattr(import_module(f"course.data.{module}"), function)(**options)
