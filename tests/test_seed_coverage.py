"""Every row of the seed checklist is shown by its lecture and tested.

A row that two lectures share is shown by each; its test is about the part shown there.
"""

import pytest

from tests.lectures import test_planted  # noqa: F401  imports every lecture's row tests
from tests.lectures.rows import ROWS, tagged_text
from tests.notebooks_here import code, every, read, tags

TAUGHT = {
    "03_scores_to_loss": """
        S2-02 S2-03 S2-14 S3-20 S3-21 S3-22 S3-23 S3-24 S3-25 S3-26 S3-27
    """,
    "07_mlp": """
        S2-01 S2-02 S2-05 S2-06 S2-07 S2-08 S2-09 S2-10 S2-11 S2-12 S2-16
        S3-28 S3-29 S3-30 S3-31 S4-01 S4-13 S4-22 S4-24
    """,
    "09_convolution": """
        S0-07 S0-08 S0-09 S0-10 S0-11 S1-01 S2-15 S2-16 S2-17 S2-18 S2-19 S2-20
        S2-21 S2-22 S2-23 S2-24 S2-25 S2-30 S3-47 S3-48 S3-58 S4-31 S4-48
    """,
}
PAIRS = [(lecture, row) for lecture, rows in TAUGHT.items() for row in rows.split()]


@pytest.mark.parametrize("lecture, row", PAIRS)
def test_row_is_shown_and_tested(lecture, row):
    assert tagged_text(lecture, row).strip(), f"{lecture} prints nothing for {row}"
    tested = {(seed, notebook) for seed, notebook, _ in ROWS}
    assert (row, lecture) in tested, f"no test of {row} in tests/lectures"


@every("lectures")
def test_no_row_is_claimed_that_belongs_elsewhere(path):
    shown = {
        tag[5:] for cell in code(read(path)) for tag in tags(cell) if tag[:5] == "seed:"
    }
    assert shown <= set(TAUGHT[path.stem].split())
