"""CIFAR-10: 60000 colour photos of 32x32 pixels, in ten classes.

Six files of 10000 records: a byte for the class, then 1024 bytes of red, 1024 of green
and 1024 of blue, row after row. They lie in a folder `cifar-10-batches-bin` or `cifar10`.

Each file is read, divided by 255 into its place in the result, and dropped: all images
take 737 MB (float32), and reading them at most 31 MB more.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; the
"binary version" of https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import numpy as np

from course.data.base import Dataset
from course.data.files import Source, locate
from course.shapes import integer

PER_FILE = 10_000  # images
PIXELS = 3, 32, 32

CIFAR10 = Source(
    "cifar10",
    (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    {
        "data_batch_1.bin": (
            "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"
        ),
        "data_batch_2.bin": (
            "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"
        ),
        "data_batch_3.bin": (
            "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"
        ),
        "data_batch_4.bin": (
            "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"
        ),
        "data_batch_5.bin": (
            "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"
        ),
        "test_batch.bin": (
            "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"
        ),
    },
    ("https://www.cs.toronto.edu/~kriz/",),
    ("cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530"),
    ("cifar-10-batches-bin", "cifar10"),
)
*TRAIN, TEST = CIFAR10.sha256


def cifar10(train: int = 50_000, test: int = 10_000) -> Dataset:
    """Return the first so many images to learn from, and to test on.

    Only the files that hold these are read. Raises BadData, which names the file, for one
    that is not the makers', and DataNotFound if one is not there.
    """
    train = integer("train", train, 1, PER_FILE * len(TRAIN))
    test = integer("test", test, 1, PER_FILE)
    x_test, t_test = _first([TEST], test)  # one file: a wrong folder is noticed soon
    x_train, t_train = _first(TRAIN, train)
    return Dataset("cifar10", x_train, t_train, x_test, t_test, CIFAR10.classes)


def _first(files: list[str], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images (count, 3, 32, 32) of the files, and their labels."""
    x, t = np.empty((count, *PIXELS), np.float32), np.empty(count, np.int64)
    for first, file in zip(range(0, count, PER_FILE), files, strict=False):
        records = np.fromfile(locate(CIFAR10, file), np.uint8).reshape(PER_FILE, -1)
        part = slice(first, min(first + PER_FILE, count))
        records = records[: part.stop - first]
        t[part] = records[:, 0]
        np.divide(records[:, 1:], np.float32(255), out=x.reshape(count, -1)[part])
    return x, t
