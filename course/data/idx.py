"""MNIST and Fashion-MNIST: four IDX files each, in a folder named as the set.

IDX: two bytes 0, one byte for the type (8: unsigned bytes), one for the number of axes,
the length of each axis as a big-endian 32-bit number, then the bytes, last axis fastest.

Sources: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits";
H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747 (MIT licence).
"""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from course.data.base import BadData, Dataset, unit
from course.data.files import Source, locate

UNSIGNED_BYTES = 8

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)

MNIST = Source(
    "mnist",
    tuple("0123456789"),
    {
        FILES[0]: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        FILES[1]: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        FILES[2]: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        FILES[3]: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)
FASHION_MNIST = Source(
    "fashion-mnist",
    (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    {
        FILES[0]: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        FILES[1]: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        FILES[2]: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        FILES[3]: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
        "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
)


def mnist() -> Dataset:
    """Return MNIST: 60000 + 10000 handwritten digits of 28x28 pixels."""
    return dataset(MNIST)


def fashion_mnist() -> Dataset:
    """Return Fashion-MNIST: 60000 + 10000 pictures of clothes of 28x28 pixels."""
    return dataset(FASHION_MNIST)


def dataset(source: Source) -> Dataset:
    """Return the images of a source, wherever its files are."""
    files = [locate(source, file) for file in FILES]
    x_train, t_train = _pair(files[0], files[1], len(source.classes))
    x_test, t_test = _pair(files[2], files[3], len(source.classes))
    return Dataset(source.name, x_train, t_train, x_test, t_test, source.classes)


def _pair(images: Path, labels: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels that belong together."""
    x, t = read_idx(images, 3), read_idx(labels, 1)
    if len(x) != len(t):
        raise BadData(f"{images} has {len(x)} images but {labels} has {len(t)} labels")
    if t.max(initial=0) >= classes:
        raise BadData(f"{labels} has label {t.max()}; there are {classes} classes")
    return unit(x, 255), t.astype(np.int64)


def read_idx(path: Path, axes: int) -> np.ndarray:
    """Return the array of a gzipped IDX file of unsigned bytes with so many axes.

    Raises BadData, which names the file, for anything that is not exactly that.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise BadData(f"{path} is not a whole gzip file: {error}") from None
    head = 4 + 4 * axes
    magic = bytes([0, 0, UNSIGNED_BYTES, axes])
    if data[:4] != magic:
        raise BadData(
            f"{path} begins with {data[:4].hex(' ')}, not {magic.hex(' ')}: it is no IDX "
            f"file of unsigned bytes with {axes} {'axis' if axes == 1 else 'axes'}"
        )
    if len(data) < head:
        raise BadData(f"{path} ends inside its header, after {len(data)} bytes")
    shape = tuple(np.frombuffer(data, ">u4", axes, 4).tolist())
    there, announced = len(data) - head, prod(shape)
    if there != announced:
        raise BadData(
            f"{path} announces {' x '.join(map(str, shape))} = {announced} bytes "
            f"but holds {there}: it is {'cut short' if there < announced else 'too long'}"
        )
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
