import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from course.data import BadData, DataNotFound, load, moments, normalize
from course.data.cifar10 import CIFAR10

COURSE_DATA = os.environ.get("COURSE_DATA")
FOLDERS = [Path(COURSE_DATA or "none", name) for name in CIFAR10.folders]
HERE = next((f for f in FOLDERS if (f / "test_batch.bin").is_file()), None)
real = pytest.mark.skipif(
    not (COURSE_DATA and HERE), reason="COURSE_DATA has no cifar-10-batches-bin"
)


@pytest.fixture
def linked(tmp_path, cache, monkeypatch):
    """A folder cifar10 under a COURSE_DATA of its own, with links to the real files."""
    folder = tmp_path / "mine" / "cifar10"
    folder.mkdir(parents=True)
    for file in CIFAR10.sha256:
        (folder / file).symlink_to((HERE / file).resolve())
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "mine"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing can be downloaded
    monkeypatch.setenv("NO_PROXY", "")
    return folder


@real
def test_all_of_cifar10_has_its_published_counts_and_moments():
    data = load("cifar10")
    assert repr(data) == "cifar10: 50000 + 10000 images of 32x32, 10 classes"
    assert data.x_train.shape == (50000, 3, 32, 32) and data.x_train.dtype == np.float32
    assert data.x_test.shape == (10000, 3, 32, 32) and data.x_test.dtype == np.float32
    assert data.t_train.dtype == data.t_test.dtype == np.int64
    assert data.x_train.min() == 0 and data.x_train.max() == 1
    assert (np.bincount(data.t_train) == 5000).all()
    assert (np.bincount(data.t_test) == 1000).all()
    mean, std = moments(data.x_train)
    np.testing.assert_allclose(mean, [0.49140, 0.48216, 0.44653], atol=5e-6)
    np.testing.assert_allclose(std, [0.24703, 0.24349, 0.26159], atol=5e-6)
    x = normalize(data.x_train, mean, std, out=data.x_train)
    assert x is data.x_train
    mean, std = moments(x)
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    np.testing.assert_allclose(std, 1, atol=1e-5)


@real
def test_records_are_read_as_the_makers_describe_them():
    data = load("cifar10", train=20_001, test=3)
    assert len(data.x_train) == len(data.t_train) == 20_001
    for x, t, file, record in (
        (data.x_train[0], data.t_train[0], "data_batch_1.bin", 0),
        (data.x_train[10_000], data.t_train[10_000], "data_batch_2.bin", 0),
        (data.x_train[19_999], data.t_train[19_999], "data_batch_2.bin", 9999),
        (data.x_train[20_000], data.t_train[20_000], "data_batch_3.bin", 0),
        (data.x_test[2], data.t_test[2], "test_batch.bin", 2),
    ):
        with open(HERE / file, "rb") as opened:
            opened.seek(record * 3073)
            one = opened.read(3073)
        assert one[0] == t
        for colour in range(3):
            for row, column in ((0, 0), (0, 31), (17, 5), (31, 31)):
                byte = one[1 + 1024 * colour + 32 * row + column]
                assert x[colour, row, column] == np.float32(byte) / np.float32(255)


@real
def test_the_first_images_are_a_frog_a_truck_and_a_cat():
    # as on the page that has the data set, and in every tutorial that shows them
    data = load("cifar10", train=2, test=1)
    names = [data.classes[t] for t in (*data.t_train, *data.t_test)]
    assert names == ["frog", "truck", "cat"]


@real
def test_a_few_images_need_only_the_files_that_hold_them(linked):
    for k in (2, 3, 4, 5):
        (linked / f"data_batch_{k}.bin").unlink()
    assert len(load("cifar10", train=10_000, test=1).x_train) == 10_000


@real
@pytest.mark.parametrize(
    "spoil, says",
    [
        pytest.param(lambda b: b[:-1], r"\(30729999 bytes\) has SHA-256", id="truncated"),
        pytest.param(
            lambda b: b[:99] + b"?" + b[100:], r"\(30730000 bytes\)", id="altered"
        ),
        pytest.param(lambda b: b + b"!", r"\(30730001 bytes\)", id="too long"),
        pytest.param(
            lambda b: (HERE / "data_batch_3.bin").read_bytes(),
            r"is a copy of data_batch_3\.bin",
            id="doubled",
        ),
        pytest.param(lambda b: b"\x80\x04pickle", r"\(8 bytes\)", id="foreign"),
    ],
)
def test_a_wrong_file_is_named_with_the_remedy(linked, spoil, says):
    path = linked / "data_batch_1.bin"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(spoil(data))
    with pytest.raises(BadData, match=rf"cifar10.data_batch_1\.bin {says}.*replace it"):
        load("cifar10")


@real
def test_a_missing_file_is_named_with_what_to_do(linked):
    (linked / "data_batch_4.bin").unlink()
    with pytest.raises(DataNotFound) as error:
        load("cifar10")
    message = str(error.value)
    assert message.startswith("cifar10: data_batch_4.bin is not on this machine")
    assert "cifar-10-binary.tar.gz: no connection" in message
    assert all(file in message for file in CIFAR10.sha256)
    assert "folder named cifar-10-batches-bin" in message and "COURSE_DATA" in message


@real
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc of Linux")
def test_reading_all_needs_no_second_copy():
    code = (
        "from course.data import load\n"
        "load('cifar10', train=1, test=1)\n"
        "def peak():\n"
        "    for line in open('/proc/self/status'):\n"
        "        if line.startswith('VmHWM'): return int(line.split()[1]) * 1024\n"
        "before = peak(); data = load('cifar10')\n"
        "print(peak() - before - data.x_train.nbytes - data.x_test.nbytes)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(child.stdout) < 40e6, child.stderr


@pytest.mark.parametrize(
    "options, error, says",
    [
        ({"train": 0}, ValueError, "train must be at least 1, not 0"),
        ({"train": 50_001}, ValueError, "train must be at most 50000, not 50001"),
        ({"test": 10_001}, ValueError, "test must be at most 10000"),
        ({"train": 1.5}, TypeError, "train must be a whole number, not 1.5"),
    ],
)
def test_counts_that_cannot_be_are_refused(options, error, says):
    with pytest.raises(error, match=says):
        load("cifar10", **options)
