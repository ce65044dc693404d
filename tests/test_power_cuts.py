"""The next start recovers from kill -9 at every step of publishing, converting and optimizing on the disk."""

import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.slow(30)


@pytest.mark.timeout(900)  # 30 s of computing; machines are shared
def test_the_next_start_after_any_kill_serves_the_right_answers(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.walk", tmp_path],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    walked = dict(re.findall(r"(\w+): (\d+) steps", done.stdout))
    assert int(walked["publish"]) > 40
    assert int(walked["optimize"]) > 20
