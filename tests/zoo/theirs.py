"""The networks in PyTorch, written from the papers' tables; the keys are torchvision's.

None has weights: `like` puts ours into it, not copies of them. Import this module where
PyTorch is installed only.
"""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn, F = torch.nn, torch.nn.functional


def like(build, network, state=None, training=False):
    """Return what `build()` makes, with the arrays of our network, or those of `state`."""
    with torch.device("meta"):
        theirs = build()
    state = {k: torch.from_numpy(a) for k, a in (state or network.state_dict()).items()}
    theirs.load_state_dict(state, assign=True)  # strict: the keys are the same
    return theirs.train(training)


def dense(inputs, classes):
    return nn.Sequential(
        nn.Linear(inputs, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, classes),
    )  # fmt: skip


class Chain(nn.Module):
    """Features, then a classifier of what they are in a row."""

    def __init__(self, features, classifier):
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


def alexnet(classes=1000):
    def normalise():
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    features = nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), normalise(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), normalise(),
        nn.MaxPool2d(3, 2), nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    return Chain(features, dense(256 * 6 * 6, classes))


def alexnet_torchvision(classes=1000):
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes),
    )  # fmt: skip
    return Chain(features, classifier)


def zfnet(classes=1000):
    class Normalise(nn.LocalResponseNorm):
        def __init__(self):
            super().__init__(5, alpha=5e-4, beta=0.75, k=2.0)

    features = nn.Sequential(
        nn.Conv2d(3, 96, 7, stride=2, padding=1), nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True), Normalise(),
        nn.Conv2d(96, 256, 5, stride=2), nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True), Normalise(),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    return Chain(features, dense(256 * 6 * 6, classes))


VGG = {  # M is a pool
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    16: (64, 64, "M", 128, 128, "M", *3 * (256,), "M", *3 * (512,), "M", *3 * (512,), "M"),
}


def vgg(depth, classes=1000, batch_norm=False):
    layers, channels = [], 3
    for width in VGG[depth]:
        if width == "M":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        layers += [nn.BatchNorm2d(width)] * batch_norm
        layers.append(nn.ReLU())
        channels = width
    return Chain(nn.Sequential(*layers), dense(512 * 7 * 7, classes))


class Unit(nn.Module):
    """A convolution and ReLU."""

    def __init__(self, *arguments, **keywords):
        super().__init__()
        self.conv = nn.Conv2d(*arguments, **keywords)

    def forward(self, x):
        return F.relu(self.conv(x))


class Inception(nn.Module):
    def __init__(self, C, one, few3, three, few5, five, pooled):
        super().__init__()
        self.branch1 = Unit(C, one, 1)
        self.branch2 = nn.Sequential(Unit(C, few3, 1), Unit(few3, three, 3, padding=1))
        self.branch3 = nn.Sequential(Unit(C, few5, 1), Unit(few5, five, 5, padding=2))
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), Unit(C, pooled, 1)
        )

    def forward(self, x):
        branches = self.branch1, self.branch2, self.branch3, self.branch4
        return torch.cat([branch(x) for branch in branches], 1)


class GoogLeNet(nn.Module):
    """Table 1 of the paper, with the normalisations of its figure 3."""

    def __init__(self, classes=1000):
        super().__init__()
        self.conv1 = Unit(3, 64, 7, stride=2, padding=3)
        self.conv2 = Unit(64, 64, 1)
        self.conv3 = Unit(64, 192, 3, padding=1)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.fc = nn.Linear(1024, classes)

    def forward(self, x):
        def half(x):
            return F.max_pool2d(x, 3, 2, ceil_mode=True)

        x = F.local_response_norm(half(self.conv1(x)), 5)
        x = half(F.local_response_norm(self.conv3(self.conv2(x)), 5))
        x = half(self.inception3b(self.inception3a(x)))
        x = self.inception4c(self.inception4b(self.inception4a(x)))
        x = half(self.inception4e(self.inception4d(x)))
        return self.fc(self.inception5b(self.inception5a(x)).mean((2, 3)))


class Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck, and what goes round them."""

    def __init__(self, C, width, stride, bottleneck=False, option=None):
        super().__init__()
        out = 4 * width if bottleneck else width
        self.stride, self.option, self.bottleneck = stride, option, bottleneck
        if bottleneck:
            sizes = (C, width, 1), (width, width, 3), (width, out, 1)
        else:
            sizes = (C, width, 3), (width, width, 3)
        self.strided = 2 if bottleneck else 1
        for k, (a, b, taps) in enumerate(sizes, 1):
            step = stride if k == self.strided else 1
            conv = nn.Conv2d(a, b, taps, step, padding=taps // 2, bias=False)
            setattr(self, f"conv{k}", conv)
            setattr(self, f"bn{k}", nn.BatchNorm2d(b))
        self.last, self.changes = len(sizes), stride != 1 or out != C
        if self.changes and option != "A":
            round_it = nn.Sequential(
                nn.Conv2d(C, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )
            setattr(self, "shortcut" if option else "downsample", round_it)

    def forward(self, x):
        y = x
        for k in range(1, self.last + 1):
            y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
            if k < self.last:
                y = F.relu(y)
        if self.option == "none":
            return F.relu(y)
        if self.changes and self.option == "A":
            more = y.shape[1] - x.shape[1]
            x = F.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0) + 2 * (more // 2,)
            )
        elif self.changes:
            x = (self.shortcut if self.option else self.downsample)(x)
        return F.relu(y + x)


class ResNet(nn.Module):
    """For large images."""

    def __init__(self, counts, bottleneck, classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        C = 64
        for k, count in enumerate(counts):
            blocks = []
            for j in range(count):
                stride = 2 if j == 0 and k > 0 else 1
                blocks.append(Block(C, 64 * 2**k, stride, bottleneck))
                C = 64 * 2**k * (4 if bottleneck else 1)
            setattr(self, f"layer{k + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(C, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class ResNetCIFAR(nn.Module):
    """For small images; option "A", "B" or "none"."""

    def __init__(self, depth, option, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        C = 16
        for k, width in enumerate((16, 32, 64), 1):
            blocks = []
            for j in range((depth - 2) // 6):
                stride = 2 if j == 0 and k > 1 else 1
                blocks.append(Block(C, width, stride, option=option))
                C = width
            setattr(self, f"layer{k}", nn.Sequential(*blocks))
        self.linear = nn.Linear(C, classes)
        if option == "none":  # nothing goes round, so nothing is learned there
            for block in (*self.layer2, *self.layer3):
                if hasattr(block, "shortcut"):
                    del block.shortcut

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Before(nn.Module):
    """A block whose normalisations come first; round it goes x, or a projection of x."""

    def __init__(self, C, width, stride, option):
        super().__init__()
        self.stride, self.option = stride, option
        self.bn1, self.bn2 = nn.BatchNorm2d(C), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(C, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        if stride > 1 and option == "B":
            self.shortcut = nn.Sequential(
                nn.Conv2d(C, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y)))
        if self.stride > 1 and self.option == "B":
            return y + self.shortcut(x)
        if self.stride > 1:
            half = (y.shape[1] - x.shape[1]) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return y + x


class PreResNet(nn.Module):
    """ResNet-20 for small images, of such blocks."""

    def __init__(self, option, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        C = 16
        for k, width in enumerate((16, 32, 64), 1):
            strides = (1 if k == 1 else 2), 1, 1
            blocks = []
            for stride in strides:
                blocks.append(Before(C, width, stride, option))
                C = width
            setattr(self, f"layer{k}", nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(64)
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.linear(F.relu(self.bn(x)).mean((2, 3)))
