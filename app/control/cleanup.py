"""Removal of unused derived files, every hour by ``app/commands/watch.py``.

A server touches the files that it uses at each cleanup, and its workers hold a lock on their loaded networks.
Files unused for a day, by any server on the same folders, are removed:

* in the cache, those of versions that are not served;
* beside a served version, those of other weights, and networks that newer ones replaced;
* drafts of killed processes.

Files beside a version that is not served stay: they are needed for a rollback.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from app.control.manifest import Entry, Manifest
from app.errors import BundleError
from app.models.artifacts import FORMAT, NETWORK_FOLDER, NETWORKS, Artifacts
from app.settings import Settings
from app.system.files import DAY_S, age_s, lock_folder, remove_leftovers

HOME = re.compile(r"[0-9a-f]{16}-(\d+)")  # Artifacts.homes: network digest, format
# In the folders of other releases: its mtime is the time of this release's first cleanup.
MARK = ".unused"

logger = logging.getLogger(__name__)


def clean_up(settings: Settings, manifest: Manifest) -> None:
    """Remove derived files unused for a day, by this manifest or any other server."""
    try:
        in_use = [(entry, entry.open(settings.cache)) for entry in manifest.entries]
    except BundleError as error:
        logger.info("derived files are left as they are until the next manifest: %s", error)
        return
    for entry, artifacts in in_use:
        clean_version(entry, artifacts)
    remove_leftovers(settings.cache)
    used = {home.name for _, artifacts in in_use for home in artifacts.homes}
    if manifest.entries:  # else the folders in use are unknown
        remove_unused(folders(settings.cache, HOME), used)
    for entry, artifacts in in_use:
        folder = Path(entry.folder)
        remove_leftovers(folder)
        remove_leftovers(folder.parent)
        remove_unused(folders(folder / "optimized", HOME), used)
        for home in artifacts.homes:
            remove_unused(folders(home, NETWORK_FOLDER), names_in_use(artifacts, entry))


def clean_version(entry: Entry, artifacts: Artifacts) -> None:
    """Touch the files that a version uses, and remove the drafts beside it."""
    for home in artifacts.homes:
        for path in (home, *(home / name for name in names_in_use(artifacts, entry))):
            # It does not exist, or is read-only and cannot be removed either.
            with suppress(OSError):
                os.utime(path)
        remove_leftovers(home)


def names_in_use(artifacts: Artifacts, entry: Entry) -> set[str]:
    """Return the folder names of the networks that a version uses, or would use after a restart."""
    latest = {artifacts.latest_name(kind) for kind in set(NETWORKS.values())}
    return {Path(entry.network).name, *latest} - {""}


def folders(home: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Return the folders in a folder with matching names."""
    with suppress(OSError):
        return [path for path in home.iterdir() if pattern.fullmatch(path.name) and is_folder(path)]
    return []


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def remove_unused(candidates: Iterable[Path], used: set[str]) -> None:
    """Remove the folders that are unused for a day."""
    for folder in candidates:
        if folder.name not in used and is_unused(folder):
            logger.info("removed, not used for a day: %s", folder)
            shutil.rmtree(folder, ignore_errors=True)


def is_unused(folder: Path) -> bool:
    """Return whether a folder is unused for a day and no worker has loaded a network of it."""
    home = HOME.fullmatch(folder.name)
    if home and int(home[1]) != FORMAT:
        # Another release may touch nothing: its day begins with the first cleanup.
        mark = folder / MARK
        with suppress(OSError):
            mark.touch(exist_ok=False)
        if not os.path.exists(mark) or age_s(mark) < DAY_S:  # a mark that cannot be made keeps it
            return False
    elif age_s(folder) < DAY_S:
        return False
    for part in (folder, *folders(folder, NETWORK_FOLDER)):
        with lock_folder(part) as locked:
            if locked is False:
                return False
    return True
