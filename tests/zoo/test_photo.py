"""VGG-16 and ResNet-50 on a photo of 224 x 224 pixels, beside PyTorch; and their memory."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from course.zoo import resnet50, vgg16
from tests.zoo.cheap import Repeated

PHOTO = Path(os.environ.get("COURSE_DATA", "/nowhere")) / "photos/chelsea.png"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels


@pytest.fixture(scope="module")
def photo():
    """Return the photo as torchvision would hand it over: (1, 3, 224, 224)."""
    if not PHOTO.is_file():
        pytest.skip("COURSE_DATA has no photos/chelsea.png")
    with Image.open(PHOTO) as image:
        pixels = np.asarray(image.convert("RGB").resize((224, 224)), np.float32)
    return ((pixels / 255 - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)[None]


@pytest.mark.parametrize("name, build", [("vgg16", vgg16), ("resnet50", resnet50)])
def test_scores_of_a_photo_are_pytorch_s(name, build, photo):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from tests.zoo import theirs

    other = {
        "vgg16": lambda: theirs.vgg(16),
        "resnet50": lambda: theirs.ResNet((3, 4, 6, 3), True),
    }[name]
    mine = build(rng=Repeated()).eval()
    scores = mine(np.ascontiguousarray(photo))
    assert scores.shape == (1, 1000) and np.isfinite(scores).all()
    with torch.no_grad():
        expected = theirs.like(other, mine)(torch.from_numpy(photo).contiguous()).numpy()
    np.testing.assert_allclose(scores, expected, 0, 1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc of Linux")
def test_vgg16_is_built_within_two_gigabytes():
    """138 million weights are 0.55 GB; while they are drawn, there is a float64 too."""
    program = """
        from pathlib import Path
        from course.zoo import vgg16
        network = vgg16()
        print(sum(array.size for array in network.params.values()))
        print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    count, kilobytes = map(int, out.split())
    assert count == 138_357_544
    assert kilobytes < 2 * 2**20
