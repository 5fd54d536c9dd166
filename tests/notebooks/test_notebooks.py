"""Every notebook runs whole, on the real model and a real log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real_parts import needs_real_parts

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_is_a_quickstart() -> None:
    assert FOLDER / "01_quickstart.ipynb" in NOTEBOOKS


@needs_real_parts
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_whole(path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_defines_nothing(path: Path) -> None:
    import nbformat

    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert not any(line.startswith(("def ", "class ")) for line in cell.source.splitlines())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_widget_has_a_table_for_readers_without_a_kernel(path: Path) -> None:
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    widgets = [data for data in outputs if "application/vnd.jupyter.widget-view+json" in data]
    assert all("<table>" in data["text/html"] for data in widgets)
    assert len(widgets) == sum("EditSliders(" in cell.source for cell in cells)
