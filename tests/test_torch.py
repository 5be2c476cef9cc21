"""The course beside PyTorch on random geometries, where PyTorch is installed.

PyTorch is not in the lock; `pip install "torch==2.13.0"` brings it. Without it every
test here is skipped and counted as not run.
"""

from functools import partial

import numpy as np
import pytest

from course.layers import (
    conv2d_backward,
    conv2d_forward,
    maxpool2d_backward,
    maxpool2d_forward,
)
from tests.reference import make_reference as reference

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
functional = torch.nn.functional
torch.set_num_threads(1)  # the arrays are small, and the machine has other tests to run
MANY = 200  # geometries


def sizes(rng, low, high):
    """Return one whole number, or two, from low to high."""
    return (
        int(rng.integers(low, high + 1))
        if rng.random() < 0.5
        else tuple(int(n) for n in rng.integers(low, high + 1, 2))
    )


def both(ours, our_arguments, theirs, their_arguments, **keywords):
    """Run both; return their results, or None where both refuse."""
    try:
        expected = theirs(*their_arguments, **keywords)
    except RuntimeError as error:
        assert "size" in str(error)
        with pytest.raises(ValueError, match="does not fit"):
            ours(*our_arguments, **keywords)
        return None
    if isinstance(expected, tuple) and (expected[0] == -np.inf).any():
        # a window sees padding only: PyTorch answers -inf at a place outside the image
        with pytest.raises(ValueError, match="sees padding only"):
            ours(*our_arguments, **keywords)
        return None
    return ours(*our_arguments, **keywords), expected


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("dtype, close", [(np.float32, 2e-4), (np.float64, 1e-11)])
def test_conv2d(dtype, close, rng):
    refused = 0
    for _ in range(MANY):
        G = int(rng.integers(1, 4))
        CG, FG, N = (int(n) for n in rng.integers(1, 4, 3))
        x = rng.normal(size=(N, G * CG, *rng.integers(1, 10, 2))).astype(dtype)
        w = rng.normal(size=(G * FG, CG, *rng.integers(1, 5, 2))).astype(dtype)
        b = rng.normal(size=G * FG).astype(dtype)
        keywords = {"dilation": sizes(rng, 1, 3), "groups": G}
        if rng.random() < 0.2:  # PyTorch knows "same" for stride 1 only
            keywords["padding"] = str(rng.choice(["same", "valid"]))
        else:
            keywords |= {"stride": sizes(rng, 1, 3), "padding": sizes(rng, 0, 3)}
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
        result = both(conv2d_forward, (x, w, b), functional.conv2d, leaves, **keywords)
        if result is None:
            refused += 1
            continue
        y, expected = result
        dy = rng.normal(size=y.shape).astype(dtype)
        gradients = torch.autograd.grad(expected, leaves, torch.from_numpy(dy))
        found = y, *conv2d_backward(dy, x, w, **keywords)
        for name, a, t in zip(
            ("y", "dx", "dw", "db"), found, (expected, *gradients), strict=True
        ):
            assert a.dtype == dtype
            what = f"{name}: x {x.shape}, w {w.shape}, {keywords}"
            np.testing.assert_allclose(a, t.detach(), close, close, err_msg=what)
    assert MANY / 20 < refused < MANY / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_maxpool2d(dtype, rng):
    refused = 0
    for _ in range(MANY):
        kernel = tuple(int(n) for n in rng.integers(1, 5, 2))
        keywords = {
            "stride": None if rng.random() < 0.2 else sizes(rng, 1, 3),
            "padding": tuple(int(rng.integers(K // 2 + 1)) for K in kernel),
            "dilation": sizes(rng, 1, 2),
        }
        ceil_mode = bool(rng.random() < 0.5)
        levels = int(rng.choice([2, 1000]))  # of grey: many ties, few ties
        shape = tuple(int(n) for n in (*rng.integers(1, 3, 2), *rng.integers(1, 10, 2)))
        x = (rng.integers(levels, size=shape) - levels).astype(dtype)
        leaf = torch.tensor(x, requires_grad=True)
        result = both(
            *(maxpool2d_forward, (x, kernel)),
            *(partial(functional.max_pool2d, return_indices=True), (leaf, kernel)),
            **keywords,
            ceil_mode=ceil_mode,
        )
        if result is None:
            refused += 1
            continue
        (y, argmax), (expected_y, expected_argmax) = result
        what = f"x {shape}, kernel {kernel}, {keywords}, ceil_mode {ceil_mode}"
        np.testing.assert_array_equal(y, expected_y.detach(), what)
        np.testing.assert_array_equal(argmax, expected_argmax, what)
        dy = rng.integers(1, 9, y.shape).astype(dtype)  # whole numbers: exact sums
        (expected_dx,) = torch.autograd.grad(expected_y, leaf, torch.from_numpy(dy))
        dx = maxpool2d_backward(dy, argmax, shape, kernel, **keywords)
        np.testing.assert_array_equal(dx, expected_dx, what)
    assert MANY / 50 < refused < MANY / 2


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", reference.FILES)
def test_reference_files_are_what_the_script_makes(name):
    """On another machine PyTorch may add in another order: close, not equal."""
    made = reference.make(name)
    read = reference.read(name)
    assert made.keys() == {f"{case}/{key}" for case in read for key in read[case]}
    for key, array in made.items():
        case, what = key.split("/")
        rtol = 1e-6 if array.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(array, read[case][what], rtol, 1e-13, err_msg=key)
