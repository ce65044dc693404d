"""The notebook runs from top to bottom against the server and shows its outputs."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest

from tests.helpers import SAMPLES
from tests.notebook import NOTEBOOK, execute

LARGEST = 300_000  # bytes; it is shown on web pages
MEASURED = "measured"  # the tag of a cell whose output is another each time


@pytest.fixture(scope="module")
def stored_notebook():
    """Return the stored notebook."""
    return nbformat.read(NOTEBOOK, as_version=4)


def programs(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell):
    """Return a cell's output without the digits in which machines differ."""
    printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    return re.sub(r"\d+\.\d%", "%", printed)


def kinds(cell):
    """Return of which kinds a cell's outputs are."""
    return [sorted(output.get("data", {"text": ""})) for output in cell.outputs]


def test_the_notebook_runs_and_shows_its_outputs(server, stored_notebook, tmp_path):
    """A failing cell ends it."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "samples").symlink_to(SAMPLES)
    got = execute(Path(shutil.copy(NOTEBOOK, tmp_path / "docs")), server.url)
    for cell, kept in zip(programs(got), programs(stored_notebook), strict=True):
        assert kinds(cell) == kinds(kept), cell.source
        if MEASURED not in cell.metadata.get("tags", []):
            assert texts(cell) == texts(kept), "tests/notebook.py puts fresh outputs into it"


def test_the_stored_notebook_has_its_outputs(stored_notebook):
    assert [cell.execution_count for cell in programs(stored_notebook)] == list(
        range(1, len(programs(stored_notebook)) + 1)
    )
    found = [
        kind for cell in programs(stored_notebook) for output in kinds(cell) for kind in output
    ]
    assert found.count("image/png") >= 3
    assert "100%" in "".join(texts(cell) for cell in programs(stored_notebook)), "a progress bar"
    assert not any(
        output.output_type == "error"
        for cell in programs(stored_notebook)
        for output in cell.outputs
    )
    assert NOTEBOOK.stat().st_size < LARGEST
