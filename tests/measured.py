"""Record the executed lines of app/ in each process of xdist, as a plugin for pytest (``-n 3 -p tests.measured``)."""

import os

import coverage

measured = coverage.Coverage(data_suffix=True, source=["app"])
if "PYTEST_XDIST_WORKER" in os.environ:
    measured.start()


def pytest_sessionfinish() -> None:
    """Write the lines that this process has recorded."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        measured.stop()
        measured.save()
