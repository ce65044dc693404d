"""No request holds the hub: tests/hub_patched.py under gevent's monkey-patching, as in a Gunicorn worker."""

import subprocess
import sys

from tests.helpers import ROOT
from tests.test_patched import PROGRAM


def test_no_request_holds_the_hub():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "tests/hub_patched.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
