"""Named architectures, one file each.

    from course.zoo import resnet20
    network = resnet20(shortcut="A")

Each is a function `name(classes, *, rng=None, dtype=np.float32)` that returns a network
with fresh weights; without a generator, those of seed 0. `NETWORKS` has them by name, and
`PUBLISHED` what is known about how large they are.
"""

from collections.abc import Callable

from course.model import Sequential
from course.zoo.alexnet import alexnet
from course.zoo.autoencoder import autoencoder
from course.zoo.convnetjs import convnetjs
from course.zoo.googlenet import googlenet
from course.zoo.grammar import GrammarError, from_grammar
from course.zoo.identity_shortcut import IdentityShortcut
from course.zoo.keras import load_keras
from course.zoo.lenet5 import lenet5
from course.zoo.lenet5_1998 import lenet5_1998
from course.zoo.published import PUBLISHED, Published
from course.zoo.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from course.zoo.resnet8 import resnet8
from course.zoo.resnet_cifar import plain20, resnet20, resnet56
from course.zoo.vgg import vgg11, vgg13, vgg16, vgg19
from course.zoo.zfnet import zfnet

NETWORKS: dict[str, Callable[..., Sequential]] = {
    function.__name__: function
    for function in (
        *(lenet5, lenet5_1998, convnetjs, alexnet, zfnet),
        *(vgg11, vgg13, vgg16, vgg19, googlenet),
        *(resnet18, resnet34, resnet50, resnet101, resnet152),
        *(resnet8, resnet20, resnet56, plain20, autoencoder),
    )
}

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
