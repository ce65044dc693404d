#!/usr/bin/env python3
"""Set up what is missing, then fine-tune ResNet-50 on one's own pictures and write it as a bundle.

scripts/train.py --data VOCdevkit --out models/voc     Pascal VOC's folders
scripts/train.py --data pictures.csv --out models/own  a table: image,labels
scripts/train.py --help

Interrupted, the same command goes on. docs/training.md has the rest; scripts/training is the program.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Become the program, in the environment that has torch; paths stay relative to where one stands."""
    setup = subprocess.run([ROOT / "scripts" / "setup", "dev"], check=False)
    if setup.returncode:
        sys.exit(setup.returncode)
    python = str(ROOT / ".venv" / "bin" / "python")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # -P: what lies where one stands is not imported. No shell is wanted.
    words = [python, "-P", "-m", "scripts.training", *sys.argv[1:]]
    os.execve(python, words, {**os.environ, "PYTHONPATH": path})  # noqa: S606 (no shell is meant)


if __name__ == "__main__":
    main()
