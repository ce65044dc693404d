"""Run the notebook.

``.venv/bin/python -m tests.notebook http://localhost:8999`` puts fresh outputs into it, from a server in fp32.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.helpers import ROOT

NOTEBOOK = ROOT / "docs" / "tour.ipynb"
PLAIN = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def execute(path: Path, url: str) -> nbformat.NotebookNode:
    """Return the notebook after running every cell against a server; raise if one failed."""
    content = nbformat.read(path, as_version=4)
    client = NotebookClient(
        content,
        timeout=120,
        record_timing=False,
        coalesce_streams=True,  # a progress bar is one line
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env=os.environ | {"SERVER_URL": url})
    content.metadata = nbformat.from_dict(PLAIN)  # not this machine's
    return content


if __name__ == "__main__":
    NOTEBOOK.write_text(nbformat.writes(execute(NOTEBOOK, sys.argv[1]), indent=1) + "\n")
