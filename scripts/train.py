#!/usr/bin/env python3
"""Set up what is missing, then fine-tune ResNet-50 on a labeled data set and write it as a bundle.

scripts/train.py --data VOCdevkit --out models/voc     Pascal VOC's folders
scripts/train.py --data pictures.csv --out models/own  a table: image,labels
scripts/train.py --help

After an interruption the same command resumes. See docs/training.md; scripts/training is the program.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run the setup, then exec the program in .venv; relative paths keep the caller's folder."""
    setup = subprocess.run([ROOT / "scripts" / "setup", "dev"], check=False)
    if setup.returncode:
        sys.exit(setup.returncode)
    python = str(ROOT / ".venv" / "bin" / "python")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # -P: never import from the current folder.
    words = [python, "-P", "-m", "scripts.training", *sys.argv[1:]]
    os.execve(python, words, {**os.environ, "PYTHONPATH": path})  # noqa: S606 (no shell is meant)


if __name__ == "__main__":
    main()
