"""The two threads and sockets work under gevent's monkey-patching, as in a Gunicorn worker."""

import subprocess
import sys

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.slow

TESTS = [
    "tests/test_batcher.py",
    "tests/test_serving.py",
    "tests/test_web.py",
    "tests/urls_patched.py",
]
PROGRAM = """
from gevent import monkey
monkey.patch_all()
import sys
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:threadexception", *sys.argv[1:]]))
"""


def run_patched(*tests: str) -> None:
    """Run tests in a separate process patched by gevent, and assert that they pass."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


def test_the_threads_work_under_monkey_patching_too():
    run_patched(*TESTS)
