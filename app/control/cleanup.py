"""Derived files that nobody uses any more are removed: ``app/commands/watch.py`` looks every hour.

A server marks what it uses by touching it each time, and its workers hold a lock on the networks that
they have loaded. What was not used for a day, by any server on the same folders, goes:

* in the cache, what belongs to no version that is served;
* beside a version that is served, what other weights left, and networks that newer ones replaced;
* drafts of killed processes.

What lies beside a version that is not served stays: it is part of that version, and a way back.
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

HOME = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{8})?-(\d+)")  # Optimized.homes: weights, card, format
# In the folders of other releases: since when this one has known them and no longer uses them.
MARK = ".unused"

logger = logging.getLogger(__name__)


def tidy(settings: Settings, manifest: Manifest) -> None:
    """Remove derived files that neither this manifest nor anybody else has used for a day."""
    try:
        in_use = [(entry, entry.open(settings.cache)) for entry in manifest.entries]
    except BundleError as error:
        logger.info("derived files are left as they are until the next manifest: %s", error)
        return
    for entry, artifacts in in_use:
        tidy_version(entry, artifacts)
    remove_leftovers(settings.cache)
    used = {home.name for _, artifacts in in_use for home in artifacts.homes}
    if manifest.entries:  # else it is not known what is in use
        remove_unused(folders(settings.cache, HOME), used)
    for entry, artifacts in in_use:
        folder = Path(entry.folder)
        remove_leftovers(folder)
        remove_leftovers(folder.parent)
        remove_unused(folders(folder / "optimized", HOME), used)
        for home in artifacts.homes:
            remove_unused(folders(home, NETWORK_FOLDER), names_in_use(artifacts, entry))


def tidy_version(entry: Entry, artifacts: Artifacts) -> None:
    """Mark what a version uses, and remove the drafts beside it."""
    for home in artifacts.homes:
        for path in (home, *(home / name for name in names_in_use(artifacts, entry))):
            with suppress(OSError):  # it is not there, or cannot be written and so not be removed
                os.utime(path)
        remove_leftovers(home)


def names_in_use(artifacts: Artifacts, entry: Entry) -> set[str]:
    """Return the names of the networks that a version uses, or would use after a restart."""
    latest = {artifacts.latest_name(kind) for kind in set(NETWORKS.values())}
    return {Path(entry.network).name, *latest} - {""}


def folders(home: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Return the folders in a folder that have such names."""
    with suppress(OSError):
        return [each for each in home.iterdir() if pattern.fullmatch(each.name) and is_folder(each)]
    return []


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder and no link to one."""
    return path.is_dir() and not path.is_symlink()


def remove_unused(candidates: Iterable[Path], used: set[str]) -> None:
    """Remove the folders that nobody has used for a day."""
    for folder in candidates:
        if folder.name not in used and is_unused(folder):
            logger.info("removed, not used for a day: %s", folder)
            shutil.rmtree(folder, ignore_errors=True)


def is_unused(folder: Path) -> bool:
    """Tell whether nobody has used a folder for a day; no worker has a network of it loaded."""
    home = HOME.fullmatch(folder.name)
    if home and int(home[2]) != FORMAT:
        mark = folder / MARK  # another release touches nothing: its day begins with the first look
        with suppress(OSError):
            mark.touch(exist_ok=False)
        if not os.path.exists(mark) or age_s(mark) < DAY_S:  # False too where it cannot be told
            return False
    elif age_s(folder) < DAY_S:
        return False
    for part in (folder, *folders(folder, NETWORK_FOLDER)):
        with lock_folder(part) as locked:
            if locked is False:
                return False
    return True
