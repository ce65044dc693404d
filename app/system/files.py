"""Files that appear whole or not at all, whoever writes at the same time, is killed, or loses power.

What is written lies in a draft first: a folder beside its place, under a name that begins with
``.new-`` or ``.publishing-``. Its writer holds a lock on it, which the kernel releases when the
process ends, so the drafts of killed processes can be told from those in use.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.system.machine import try_lock

DRAFT, PUBLISHING = ".new-", ".publishing-"
DAY_S = 86_400  # what is unused for so long may be removed


def read_boot() -> str:
    """Return what tells this boot of this machine from others, as far as is known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return ""


BOOT = read_boot()  # in a draft's name: locks tell nothing about writers on other machines


@contextmanager
def draft_folder(home: Path, prefix: str = DRAFT) -> Iterator[Path]:
    """Yield an empty folder inside ``home``, which is removed afterwards. Raises OSError."""
    home.mkdir(parents=True, exist_ok=True)
    draft, handle = make_draft(home, prefix)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(handle)


def make_draft(home: Path, prefix: str) -> tuple[Path, int]:
    """Make a draft and lock it; return it and the open folder that holds the lock."""
    while True:
        draft = Path(tempfile.mkdtemp(dir=home, prefix=f"{prefix}{BOOT}-"))
        with suppress(FileNotFoundError):
            handle = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # a file system without locks: only its age tells
                fcntl.flock(handle, fcntl.LOCK_EX)
            if draft.exists():
                return draft, handle
            os.close(handle)  # it was taken for a leftover before it was locked


def write_file(path: Path, content: str) -> None:
    """Replace a file, whole or not at all, also when the power fails. Raises OSError."""
    with draft_folder(path.parent) as draft:
        part = draft / path.name
        part.write_text(content, encoding="utf-8")
        sync(part)
        os.replace(part, path)
        sync(path.parent)


def move_folder(folder: Path, place: Path) -> None:
    """Move a finished folder to a place that is free, once all of it is on the disk. Raises OSError."""
    sync_tree(folder)
    os.rename(folder, place)
    sync(place.parent)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and everything in it is on the disk. Raises OSError."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot do it for folders
            raise
    finally:
        os.close(handle)


def remove_leftovers(home: Path) -> None:
    """Remove the drafts of killed processes from a folder; those in use stay."""
    with suppress(OSError):  # it is gone, or cannot be read
        for path in list(home.iterdir()):
            if path.name.startswith((DRAFT, PUBLISHING)):
                remove_leftover(path)


def remove_leftover(draft: Path) -> None:
    """Remove a draft whose writer is gone: its lock is free, or, where locks tell nothing, it is a day old."""
    with lock_folder(draft) as locked:
        if locked is False:
            return
        of_this_boot = bool(BOOT) and draft.name.partition("-")[2].startswith(f"{BOOT}-")
        if (locked and of_this_boot) or age_s(draft) > DAY_S:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool | None]:
    """Hold a folder that nobody else holds; yield False where somebody does, None where that is unknown."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False  # no folder, or not ours: leave it
        return
    try:
        yield try_lock(handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)


def age_s(path: Path) -> float:
    """Return how long ago a file or folder was changed; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
