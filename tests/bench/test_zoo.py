"""course/bench/zoo.py: every published network is a case, and both ways agree."""

import numpy as np
import pytest

from course.bench.zoo import by_course, by_pytorch, networks
from course.zoo import PUBLISHED, lenet5_1998, resnet20


def test_both_ways_give_the_same_scores(rng):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    network, x = resnet20().eval(), rng.normal(size=(2, 3, 32, 32)).astype(np.float32)
    mine, theirs = by_course(network, x)(), by_pytorch(network, x)()
    np.testing.assert_allclose(mine, theirs, 0, 1e-4 * np.abs(mine).max())


def test_what_pytorch_lacks_is_not_run(rng):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    with pytest.raises(ImportError, match="ScaledTanh"):
        by_pytorch(lenet5_1998(), np.zeros((1, 1, 28, 28), np.float32))


def test_a_case_names_both_counts():
    case = next(networks())
    assert PUBLISHED[0].name == "lenet5_1998"
    assert case.name == "lenet5_1998: 60,000 parameters published, 60,000 here"
    assert list(case.works) == ["course", "pytorch"]
    assert case.works["course"]()().shape == (1, 10)
