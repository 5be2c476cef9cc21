"""The course against what PyTorch computed: the files of tests/reference."""

import numpy as np
import pytest

from course import layers
from course.layers import (
    conv2d_backward,
    conv2d_forward,
    linear_backward,
    linear_forward,
    maxpool2d_backward,
    maxpool2d_forward,
)
from course.losses import softmax_cross_entropy
from tests.reference import make_reference as reference

CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def cases(name):
    """Return a decorator: one test for each case of a file, with its arrays."""
    return pytest.mark.parametrize(
        "case, a",
        [pytest.param(*case, id=case[0]) for case in reference.read(name).items()],
    )


@cases("conv2d")
def test_conv2d(case, a):
    keywords = dict(reference.CONV2D[case][2])
    keywords.pop("bias", None)
    y = conv2d_forward(a["x"], a["w"], a.get("b"), **keywords)
    dx, dw, db = conv2d_backward(a["dy"], a["x"], a["w"], **keywords)
    np.testing.assert_allclose(y, a["y"], **CLOSE)
    np.testing.assert_allclose(dx, a["dx"], **CLOSE)
    np.testing.assert_allclose(dw, a["dw"], **CLOSE)
    if "db" in a:
        np.testing.assert_allclose(db, a["db"], **CLOSE)


@cases("maxpool2d")
def test_maxpool2d(case, a):
    keywords = dict(reference.MAXPOOL2D[case][2])
    y, argmax = maxpool2d_forward(a["x"], **keywords)
    keywords.pop("ceil_mode", None)
    dx = maxpool2d_backward(a["dy"], argmax, a["x"].shape, **keywords)
    np.testing.assert_array_equal(y, a["y"])
    np.testing.assert_array_equal(argmax, a["argmax"])
    np.testing.assert_allclose(dx, a["dx"], **CLOSE)


@cases("linear")
def test_linear(case, a):
    y = linear_forward(a["x"], a["w"], a["b"])
    dx, dw, db = linear_backward(a["dy"], a["x"], a["w"])
    for name, found in {"y": y, "dx": dx, "dw": dw, "db": db}.items():
        np.testing.assert_allclose(found, a[name], **CLOSE, err_msg=name)


@cases("activations")
def test_activations(case, a):
    name, dtype = case.rsplit("_", 1)
    function, keywords = reference.ACTIVATIONS[name]
    y = getattr(layers, f"{function}_forward")(a["x"], **keywords)
    memory = a["y"] if function in ("sigmoid", "tanh") else a["x"]
    dx = getattr(layers, f"{function}_backward")(a["dy"], memory, **keywords)
    assert y.dtype == dx.dtype == np.dtype(dtype)
    # float32 below 1e-38 has fewer digits; PyTorch may round it to zero
    rtol, atol = (1e-6, 1e-37) if dtype == "float32" else (1e-14, 1e-300)
    np.testing.assert_allclose(y, a["y"], rtol, atol)
    np.testing.assert_allclose(dx, a["dx"], rtol, atol)


@cases("cross_entropy")
def test_cross_entropy(case, a):
    loss, dscores = softmax_cross_entropy(a["scores"], a["labels"])
    np.testing.assert_allclose(loss, a["loss"], **CLOSE)
    np.testing.assert_allclose(dscores, a["dscores"], **CLOSE)


def test_files_are_small():
    sizes = [path.stat().st_size for path in reference.FOLDER.glob("*.npz")]
    assert len(sizes) == len(reference.FILES)
    assert sum(sizes) < 200_000
