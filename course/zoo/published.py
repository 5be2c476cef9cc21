"""How large the named architectures are, as published."""

from typing import Any, NamedTuple


class Published(NamedTuple):
    """A network and its size.

    Attributes
    ----------
    name : one of `course.zoo.NETWORKS`
    options : what its function is called with
    image : (C, H, W) of what it sees
    parameters : how many numbers it learns
    source : who says so
    """

    name: str
    options: dict[str, Any]
    image: tuple[int, int, int]
    parameters: int
    source: str

    def __str__(self) -> str:
        options = ", ".join(f"{k}={value!r}" for k, value in self.options.items())
        return f"{self.name}({options})" if options else self.name


PAPER = "the layer table of the paper"
TORCHVISION = "torchvision's table of models"
PUBLISHED = (
    Published("lenet5_1998", {}, (1, 28, 28), 60_000, "the paper"),
    Published("lenet5", {}, (1, 28, 28), 61_706, "the layers as built today"),
    Published("convnetjs", {}, (3, 32, 32), 22_466, "the layers of the demo"),
    Published("alexnet", {}, (3, 227, 227), 60_965_224, PAPER),
    Published("alexnet", {"variant": "ungrouped"}, (3, 227, 227), 62_378_344, PAPER),
    Published(
        "alexnet", {"variant": "torchvision"}, (3, 224, 224), 61_100_840, TORCHVISION
    ),
    Published("zfnet", {}, (3, 224, 224), 62_357_608, PAPER),
    Published("vgg11", {}, (3, 224, 224), 132_863_336, TORCHVISION),
    Published("vgg13", {}, (3, 224, 224), 133_047_848, TORCHVISION),
    Published("vgg16", {}, (3, 224, 224), 138_357_544, TORCHVISION),
    Published("vgg19", {}, (3, 224, 224), 143_667_240, TORCHVISION),
    Published("googlenet", {}, (3, 224, 224), 6_998_552, PAPER),
    Published("resnet18", {}, (3, 224, 224), 11_689_512, TORCHVISION),
    Published("resnet34", {}, (3, 224, 224), 21_797_672, TORCHVISION),
    Published("resnet50", {}, (3, 224, 224), 25_557_032, TORCHVISION),
    Published("resnet101", {}, (3, 224, 224), 44_549_160, TORCHVISION),
    Published("resnet152", {}, (3, 224, 224), 60_192_808, TORCHVISION),
    Published("resnet8", {}, (3, 32, 32), 78_186, "the trained weights"),
    Published("resnet20", {}, (3, 32, 32), 269_722, "the paper says 0.27 M"),
    Published("resnet20", {"shortcut": "B"}, (3, 32, 32), 272_474, "the usual code"),
    Published("resnet56", {}, (3, 32, 32), 853_018, "the paper says 0.85 M"),
)
