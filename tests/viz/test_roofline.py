"""course/viz/roofline.py: where the roofs and the kernels are drawn."""

import numpy as np

from course.viz.roofline import roofline


def test_kernels_stand_under_their_roof():
    roofs = {"FMA peak": 100e9, "copy, 8 MB": 1e9, "triad, 8 MB": 20e9}
    kernels = {
        "conv: big": (8e9, 1e8, 0.1),  # 80 flops a byte, 80 GF/s
        "conv: small": (1e9, 1e9, 0.1),  # 1 flop a byte, 10 GF/s
        "layers: ReLU": (1e8, 1e9, 0.1),
    }
    picture = roofline({1: (roofs, kernels), 2: (roofs, {"gemm: x": (4e9, 2e9, 1.0)})})
    left, right = picture.fig.axes
    roof, conv, layers = left.lines
    np.testing.assert_allclose(roof.get_xydata(), [[0.05, 1], [5, 100], [160, 100]])
    np.testing.assert_allclose(conv.get_xydata(), [[80, 80], [1, 10]])
    np.testing.assert_allclose(layers.get_xydata(), [[0.1, 1]])
    assert conv.get_marker() != layers.get_marker()
    np.testing.assert_allclose(right.lines[0].get_xydata()[:, 1], [20, 80, 80])
    assert "1 thread: at most 100 GF/s; of 3 kernels" in picture.alt
    assert "conv: big with 80 GF/s, the slowest layers: ReLU with 1.0 GF/s" in picture.alt
    assert "2 threads: " in picture.alt
