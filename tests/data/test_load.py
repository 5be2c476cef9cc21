import subprocess
import sys

import numpy as np
import pytest

from course.data import NAMES, load


@pytest.mark.parametrize("name", ["digits", "glyphs"])
def test_every_set_has_the_same_form(name, cache):
    options = {"train": 2, "test": 1} if name == "glyphs" else {}
    data = load(name, **options)
    assert data.name == name
    for x, t in ((data.x_train, data.t_train), (data.x_test, data.t_test)):
        assert x.dtype == np.float32 and t.dtype == np.int64
        assert x.shape == (len(t), 1, 28, 28)
        assert x.min() == 0 and 0.6 < x.max() <= 1
        assert set(t) == set(range(len(data.classes)))
        assert x.flags.c_contiguous and x.flags.writeable and t.flags.writeable


def test_an_unknown_name_is_answered_by_the_names_and_the_nearest():
    with pytest.raises(ValueError) as error:
        load("fashion_mnist")
    assert all(name in str(error.value) for name in NAMES)
    assert str(error.value).endswith("did you mean 'fashion-mnist'?")


@pytest.mark.parametrize("name", ["zzz", "", None, 3])
def test_a_name_like_none_of_ours_gets_no_guess(name):
    with pytest.raises(ValueError, match="there are digits, glyphs") as error:
        load(name)
    assert "did you mean" not in str(error.value)


def test_an_option_that_does_not_exist_is_named():
    with pytest.raises(TypeError, match="sise"):
        load("digits", sise=8)


def test_importing_the_names_imports_no_reader():
    code = (
        "import sys, course.data; "
        "print([m for m in ('sklearn', 'numba', 'pooch', 'fontTools') if m in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.stdout.strip() == "[]", child.stderr
