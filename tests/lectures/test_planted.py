"""Every seed test fails when the lecture shows a wrong value."""

from importlib import import_module
from pathlib import Path

import pytest

from tests.lectures.rows import ROWS, planted, shows, tagged_text

for module in sorted(Path(__file__).parent.glob("test_[0-9]*.py")):
    import_module(f"tests.lectures.{module.stem}")


@pytest.mark.parametrize(
    "seed, lecture, test",
    [pytest.param(*entry, id=f"{entry[0]}-{entry[2].__name__}") for entry in ROWS],
)
def test_a_planted_value_is_found(seed, lecture, test):
    text = tagged_text(lecture, seed)
    test(text)
    with pytest.raises(AssertionError):
        test(planted(text))


def test_shows():
    text = "[[9 5 4]\n [8 8 10]], 0.526 in 3 steps of −2.5."
    shows(text, [[9, 5, 4], [8, 8, 10]])
    shows(text, 0.526)
    shows(text, [3, -2.5])
    shows(text, 0.5261, rtol=1e-3)
    for wrong in ([9, 4], [5, 9], 0.5261, 2.5, 26, []):
        with pytest.raises(AssertionError):
            shows(text, wrong)
