"""Which files are sent: the pictures of folders, and single files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .errors import Stop

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif")


def find_pictures(given: Sequence[str]) -> tuple[list[str], list[OSError]]:
    """Return the pictures in folders, and single files, in the CSV's order; and which folders cannot be listed.

    Within a folder, at any depth, a picture is what is named as one and not hidden; a file that is given
    by itself is one whatever its name is.

    Raises:
        Stop: there is none.
        OSError: one of the paths cannot be looked at.
    """
    found: dict[str, None] = {}
    problems: list[OSError] = []
    for path in map(Path, given):
        if not path.exists():
            raise Stop(f"there is nothing at {path}")
        if not path.is_dir():
            found[str(path)] = None
            continue
        for folder, folders, names in os.walk(path, onerror=problems.append):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                    found[str(Path(folder, name))] = None
    if not found and not problems:
        raise Stop(f"no picture in {', '.join(given)}: no name ends with {', '.join(SUFFIXES)}")
    return list(found), problems
