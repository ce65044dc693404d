"""Listing of image files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .errors import Stop

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif")


def find_pictures(given: Sequence[str]) -> tuple[list[str], list[OSError]]:
    """List image files in the order of the CSV file.

    A folder is searched recursively for names with an image suffix that are not hidden; a file given
    directly is taken whatever its name.

    Returns:
        The files, and the errors of folders that cannot be listed.

    Raises:
        Stop: there are no images.
        OSError: a path cannot be accessed.
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
