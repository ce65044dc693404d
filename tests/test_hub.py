"""No request blocks the hub: tests/hub_patched.py passes under gevent's monkey-patching, as in a Gunicorn worker."""

import pytest

from tests.test_patched import run_patched

pytestmark = pytest.mark.timing


def test_no_request_blocks_the_hub():
    run_patched("tests/hub_patched.py")
