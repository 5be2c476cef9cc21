"""How `pytest --nbval` compares the cells of a notebook.

nbval runs each cell and compares what it shows with what was saved, character by
character; a cell that was never run it passes unseen. Here such a cell fails, numbers
may differ as `course.notebooks.agree` says, and pictures are compared by their sentences.
"""

import numpy as np
import pytest
from nbval import plugin

from course.notebooks import agree, shown


class Cell(plugin.IPyNbCell):
    """A cell that must have been run, and whose numbers have a tolerance."""

    def runtest(self) -> None:
        if self.options["check"] and self.cell.execution_count is None:
            self.raise_cell_error(
                "this cell was saved without being run, so there is nothing to compare: "
                "python -m course notebooks run NOTEBOOK"
            )
        super().runtest()

    def compare_outputs(self, test, ref, skip_compare=None) -> bool:
        test, ref = plugin.coalesce_streams(shown(test)), shown(ref)
        for new, saved in zip(test, ref, strict=False):  # nbval reports another count
            new, saved = new.get("data", new), saved.get("data", saved)
            for key in new.keys() & saved.keys():
                if key.startswith("text") and agree(saved[key], new[key]):
                    new[key] = saved[key]
        return super().compare_outputs(test, ref, skip_compare)


def pytest_itemcollected(item) -> None:
    """Make each cell that nbval collects one of ours."""
    if type(item) is plugin.IPyNbCell:
        item.__class__ = Cell


@pytest.fixture(autouse=True)
def _numpy_in_doctests(doctest_namespace) -> None:
    """Let the examples in docstrings say np, as everybody does."""
    doctest_namespace["np"] = np
