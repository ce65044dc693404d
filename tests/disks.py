"""Run code on full disks: small file systems in memory, each in its own namespace."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT

MOUNT = """
set -e
cp -r "$1" "$1.kept" && mount -t tmpfs -o size="$2"k tmpfs "$1" && cp -r "$1.kept/." "$1"
shift 2
exec "$@"
"""


def on_small_disk(
    folder: Path, kib: int, program: str, **environment: str
) -> subprocess.CompletedProcess:
    """Run Python with a folder on a disk of that many KiB that keeps its files; no root is needed."""
    unshare, python = shutil.which("unshare"), [sys.executable, "-c", program, str(folder)]
    return subprocess.run(
        [unshare, "-rm", "sh", "-c", MOUNT, "sh", str(folder), str(kib), *python],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
