"""Compare the labels of a contender with those of the network itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from app.models.bundle import find_bundle
from app.settings import ROOT


def labels_in(answer: str) -> set[str]:
    """Return the class names that stand between quotes in an answer."""
    return set(re.split(r'[\\"]+', answer)) & set(find_bundle(ROOT / "models").class_names)


def reference(picture: Path) -> set[str]:
    """Return the labels that eager torch sees, in a process of its own: this one needs no torch."""
    command = [sys.executable, "-m", "scripts.bench.eager", str(picture)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return labels_in(done.stdout)
