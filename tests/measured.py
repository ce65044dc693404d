"""A plugin for pytest: note which lines of app/ run in each process of xdist (``-n 2 -p tests.measured``)."""

import os

import coverage

measured = coverage.Coverage(data_suffix=True, source=["app"])
if "PYTEST_XDIST_WORKER" in os.environ:
    measured.start()


def pytest_sessionfinish() -> None:
    """Write what this process has noted."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        measured.stop()
        measured.save()
