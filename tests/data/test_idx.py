import gzip
import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from course.data import BadData, idx, load
from course.data.files import Source

COURSE_DATA = os.environ.get("COURSE_DATA")


def idx_bytes(array):
    """An array as an IDX file before gzip, written from the format's description."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def images():
    return (np.arange(6 * 28 * 28) % 251).astype(np.uint8).reshape(6, 28, 28)


LABELS = np.array([0, 1, 2, 2, 1, 0], np.uint8)


@pytest.fixture
def source(tmp_path, images):
    """A set of 6 + 3 images, its files in tmp_path/files/small, and no address."""
    folder = tmp_path / "files" / "small"
    folder.mkdir(parents=True)
    arrays = images, LABELS, images[:3], LABELS[:3]
    for file, array in zip(idx.FILES, arrays, strict=True):
        (folder / file).write_bytes(gzip.compress(idx_bytes(array), mtime=0))
    sha256 = {f: hashlib.sha256((folder / f).read_bytes()).hexdigest() for f in idx.FILES}
    return Source("small", ("a", "b", "c"), sha256, ())


@pytest.mark.parametrize("shape", [(5,), (0,), (2, 3, 4), (0, 28, 28)])
def test_what_was_written_is_read(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx_bytes(array)))
    read = idx.read_idx(path, len(shape))
    np.testing.assert_array_equal(read, array)
    assert read.shape == shape and read.dtype == np.uint8


WHOLE = idx_bytes(np.zeros((2, 3, 4), np.uint8))
NOT_GZIP = "not a whole gzip file"
DAMAGED = {  # what happened -> the file, the axes asked for, what the error says
    "gzip cut short": (gzip.compress(WHOLE)[:-9], 3, NOT_GZIP),
    "gzip overwritten": (gzip.compress(WHOLE)[:30] + b"\xff" * 9, 3, NOT_GZIP),
    "not gzip": (WHOLE, 3, NOT_GZIP),
    "empty": (b"", 3, "begins with "),
    "nothing packed": (gzip.compress(b""), 3, "begins with "),
    "floats": (gzip.compress(b"\0\0\x0d\3" + WHOLE[4:]), 3, "00 00 0d 03, not 00 00 08 03"),
    "images for labels": (gzip.compress(WHOLE), 1, "00 00 08 03, not 00 00 08 01"),
    "header cut": (gzip.compress(WHOLE[:10]), 3, "ends inside its header, after 10 bytes"),
    "a byte missing": (gzip.compress(WHOLE[:-1]), 3, "= 24 bytes but holds 23: it is cut"),
    "a byte too many": (gzip.compress(WHOLE + b"!"), 3, "24 bytes but holds 25: it is too"),
    "absurd size": (
        gzip.compress(b"\0\0\x08\3" + b"\xff" * 12),
        3,
        f"= {(2**32 - 1) ** 3} bytes but holds 0",
    ),
}


@pytest.mark.parametrize("data, axes, says", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, data, axes, says):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(data)
    with pytest.raises(BadData) as error:
        idx.read_idx(path, axes)
    assert str(path) in str(error.value) and says in str(error.value)


def test_images_and_labels_must_belong_together(tmp_path, images):
    x, t = tmp_path / "x.gz", tmp_path / "t.gz"
    x.write_bytes(gzip.compress(idx_bytes(images)))
    t.write_bytes(gzip.compress(idx_bytes(LABELS[:5])))
    with pytest.raises(BadData, match=r"x\.gz has 6 images but .*t\.gz has 5 labels"):
        idx._pair(x, t, 3)
    t.write_bytes(gzip.compress(idx_bytes(LABELS)))
    with pytest.raises(BadData, match=r"t\.gz has label 2; there are 2 classes"):
        idx._pair(x, t, 2)


def test_files_under_course_data_are_used(source, images, tmp_path, cache, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "files"))
    data = idx.dataset(source)
    assert repr(data) == "small: 6 + 3 images of 28x28, 3 classes"
    np.testing.assert_array_equal(data.x_train[:, 0], images.astype(np.float32) / 255)
    np.testing.assert_array_equal(data.t_test, [0, 1, 2])
    assert not cache.exists()


def test_offline_and_absent_says_the_two_things_to_do(cache, tmp_path):
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    env = {**os.environ, **nowhere, "COURSE_DATA": str(tmp_path / "mine"), "NO_PROXY": ""}
    code = "from course.data import load; load('mnist')"
    child = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True
    )
    assert child.returncode == 1
    message = child.stderr.partition("DataNotFound: ")[2]
    assert message.count("no connection") == len(idx.MNIST.mirrors)
    connect, put = [line for line in message.splitlines() if line.startswith("- ")]
    assert "connect to the internet once" in connect and str(cache) in connect
    assert "COURSE_DATA" in put and str(tmp_path / "mine") in put
    assert all(file in put for file in idx.FILES)
    assert message.strip().endswith("without any files: digits, glyphs, letters, shapes.")


def real(name):
    """Skip a test where the real files of a set are absent."""
    there = COURSE_DATA and Path(COURSE_DATA, name, idx.FILES[0]).is_file()
    return pytest.mark.skipif(not there, reason=f"COURSE_DATA has no {name}")


@real("mnist")
def test_mnist_has_its_published_counts_and_moments():
    data = load("mnist")
    np.testing.assert_array_equal(
        np.bincount(data.t_train),
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    )
    np.testing.assert_array_equal(
        np.bincount(data.t_test), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )
    _moments(data, 0.1307, 0.3081)
    assert data.classes == tuple("0123456789")


@real("fashion-mnist")
def test_fashion_mnist_has_its_published_counts_and_moments():
    data = load("fashion-mnist")
    assert (np.bincount(data.t_train) == 6000).all()
    assert (np.bincount(data.t_test) == 1000).all()
    _moments(data, 0.2860, 0.3530)
    assert data.classes[9] == "Ankle boot" and data.t_train[0] == 9


def _moments(data, mean, deviation):
    x = data.x_train
    assert x.shape == (60000, 1, 28, 28) and data.x_test.shape == (10000, 1, 28, 28)
    assert x.dtype == np.float32 and x.min() == 0 and x.max() == 1
    assert x.mean(dtype=np.float64) == pytest.approx(mean, abs=5e-5)
    square = np.einsum("nchw,nchw->n", x, x).sum(dtype=np.float64) / x.size
    assert np.sqrt(square - mean**2) == pytest.approx(deviation, abs=1e-4)


@real("mnist")
@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-1], lambda b: b[:99] + b"?" + b[100:]], ids=["cut", "changed"]
)
def test_one_byte_cut_or_changed_in_mnist_is_noticed(tmp_path, monkeypatch, spoil):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for file in idx.FILES:
        (folder / file).symlink_to(Path(COURSE_DATA, "mnist", file).resolve())
    path = folder / idx.FILES[2]
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(spoil(data))
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(BadData, match=r"t10k-images-idx3-ubyte\.gz .* has SHA-256"):
        load("mnist")
