"""Named architectures, one file each, loaded when they are asked for.

    from course.zoo import resnet20
    network = resnet20(shortcut="A")

Each is a function `name(classes, *, rng=None, dtype=np.float32)` that returns a network
with fresh weights; without a generator, those of seed 0. `NETWORKS` has their names, and
`PUBLISHED` what is known about how large they are.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_FILES = {  # name -> the file that has it
    "lenet5": "lenet5",
    "lenet5_1998": "lenet5_1998",
    "convnetjs": "convnetjs",
    "alexnet": "alexnet",
    "zfnet": "zfnet",
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), "vgg"),
    "googlenet": "googlenet",
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), "resnet"),
    "resnet152": "resnet",
    "resnet8": "resnet8",
    **dict.fromkeys(("resnet20", "resnet56", "plain20"), "resnet_cifar"),
    "autoencoder": "autoencoder",
}
NETWORKS = tuple(_FILES)
_FILES |= dict.fromkeys(("from_grammar", "GrammarError"), "grammar")
_FILES |= dict.fromkeys(("PUBLISHED", "Published"), "published")
_FILES |= {"IdentityShortcut": "identity_shortcut", "load_keras": "keras"}

__all__ = [
    "NETWORKS",
    "PUBLISHED",
    "GrammarError",
    "IdentityShortcut",
    "Published",
    "alexnet",
    "autoencoder",
    "convnetjs",
    "from_grammar",
    "googlenet",
    "lenet5",
    "lenet5_1998",
    "load_keras",
    "plain20",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet152",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "zfnet",
]


def __getattr__(name: str) -> Any:
    """Load a network when it is first asked for."""
    if name not in _FILES:
        raise AttributeError(f"module 'course.zoo' has no attribute {name!r}")
    return getattr(import_module(f"course.zoo.{_FILES[name]}"), name)


class _Package(ModuleType):
    """The package, in which `lenet5` is the network and not the file of that name.

    Importing a file puts it into its package under its name, whatever is there.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _FILES:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
