"""The notebooks of the course, for the tests that go through all of them."""

from pathlib import Path

import pytest
from nbformat import NotebookNode

from course.notebooks import read

__all__ = ["ROOT", "code", "every", "notebooks", "printed", "read", "tags"]
ROOT = Path(__file__).parents[1]


def notebooks(*folders: str) -> list[Path]:
    """Return the notebooks of the folders."""
    return [path for folder in folders for path in sorted((ROOT / folder).glob("*.ipynb"))]


def every(*folders: str) -> pytest.MarkDecorator:
    """Run a test that takes `path` on every notebook of the folders."""
    return pytest.mark.parametrize(
        "path", notebooks(*folders), ids=lambda path: f"{path.parent.name}-{path.stem}"
    )


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def printed(cell: NotebookNode) -> str:
    """Return what the cell shows as plain text, pictures by their sentences."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain")
        for output in cell.outputs
    ]
    return "\n".join(filter(None, texts))
