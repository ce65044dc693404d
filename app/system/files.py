"""Atomic writes and locks between processes.

A file or folder appears complete or not at all, even if several processes write it, one is killed, or
the power fails. New content is written to a draft first: a folder next to the destination whose name
begins with ``.new-`` or ``.publishing-``. Its writer holds a lock on it, which the kernel releases
when the process ends, so drafts of killed processes can be told from those in use.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

DRAFT, PUBLISHING = ".new-", ".publishing-"
DAY_S = 86_400  # unused files older than this may be removed
LOCK_POLL_S = 0.05


def read_boot_id() -> str:
    """Return eight characters that identify this boot of this machine, or "" if the kernel has no boot id."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return ""


BOOT = read_boot_id()  # part of a draft's name: locks say nothing about writers on other machines


@contextmanager
def draft_folder(home: Path, prefix: str = DRAFT) -> Iterator[Path]:
    """Yield a new empty folder inside ``home`` and remove it afterwards. Raises OSError."""
    home.mkdir(parents=True, exist_ok=True)
    draft, handle = create_draft(home, prefix)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(handle)


def create_draft(home: Path, prefix: str) -> tuple[Path, int]:
    """Create and lock a draft; return its path and the descriptor that holds the lock."""
    while True:
        draft = Path(tempfile.mkdtemp(dir=home, prefix=f"{prefix}{BOOT}-"))
        with suppress(FileNotFoundError):
            handle = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # a file system without locks: only the draft's age counts
                fcntl.flock(handle, fcntl.LOCK_EX)
            if draft.exists():
                return draft, handle
            os.close(handle)  # another process removed it as a leftover before it was locked


def write_file(path: Path, content: str, *, private: bool = False) -> None:
    """Replace a file atomically and durably.

    Args:
        path: the file.
        content: its new content.
        private: only its owner may read it; if it is there already, it keeps its owner, group and mode.

    Raises:
        OSError: it cannot be written.
    """
    with draft_folder(path.parent) as draft:  # nobody else can look into it
        part = draft / path.name
        part.write_text(content, encoding="utf-8")
        if private:
            make_private(part, path)
        sync(part)
        os.replace(part, path)
        sync(path.parent)


def make_private(part: Path, path: Path) -> None:
    """Give a file the owner, group and mode of the one that it replaces; without one, the mode 0600."""
    mode = 0o600
    with suppress(FileNotFoundError):
        before = path.stat()
        mode = stat.S_IMODE(before.st_mode)
        mine = part.stat()
        if (before.st_uid, before.st_gid) != (mine.st_uid, mine.st_gid):
            os.chown(part, before.st_uid, before.st_gid)
    part.chmod(mode)


def move_folder(folder: Path, destination: Path) -> None:
    """Rename a complete folder after all of it has reached the disk. Raises OSError."""
    sync_tree(folder)
    os.rename(folder, destination)
    sync(destination.parent)


def sync_tree(folder: Path) -> None:
    """Flush a folder and everything in it to the disk. Raises OSError."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync folders
            raise
    finally:
        os.close(handle)


def remove_leftovers(home: Path) -> None:
    """Remove the drafts of dead processes from a folder; drafts in use stay."""
    with suppress(OSError):  # it is gone, or cannot be read
        for path in list(home.iterdir()):
            if path.name.startswith((DRAFT, PUBLISHING)):
                remove_leftover(path)


def remove_leftover(draft: Path) -> None:
    """Remove a draft if its writer is dead: its lock is free, or, if locks prove nothing, it is a day old."""
    with lock_folder(draft) as locked:
        if locked is False:
            return
        of_this_boot = bool(BOOT) and draft.name.partition("-")[2].startswith(f"{BOOT}-")
        if (locked and of_this_boot) or age_s(draft) > DAY_S:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool | None]:
    """Lock a folder without waiting.

    Yields:
        True if the lock is held, False if another process holds it or the folder cannot be opened,
        None if its file system has no locks.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        yield try_lock(handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)


@contextmanager
def lock_file(path: Path, timeout_s: float) -> Iterator[bool | None]:
    """Hold an exclusive lock on a file, which is created if needed; blocks the whole thread.

    The body runs without the lock if that cannot be had: doing the work twice is better than not at all.

    Args:
        path: the file.
        timeout_s: how long to wait for another holder.

    Yields:
        True if the lock is held, False after the timeout, None if the file cannot be created or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_RDWR with O_NONBLOCK: opening a FIFO in its place would wait for its other end.
        lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666))
    except OSError:
        yield None
        return
    with lock:  # closing it releases the lock, and so does the kernel when the process ends
        yield wait_for_lock(lock, timeout_s)


@contextmanager
def lock_host(name: str, timeout_s: float) -> Iterator[bool | None]:
    """Hold a lock that all servers on this host share, whatever their folders; yields as ``lock_file``.

    The file is in a folder that everybody can write, so it is not trusted: links are not followed,
    nothing is written to it, and a file of any owner is accepted if it can be opened.
    """
    try:
        lock = open_shared(Path(tempfile.gettempdir(), f"resnet-serving-{name}.lock"))
    except OSError:
        yield None
        return
    with lock:
        yield wait_for_lock(lock, timeout_s)


def open_shared(path: Path) -> IO[str]:
    """Open a regular file that another user may have created, or create it. Raises OSError."""
    # Without O_NONBLOCK a FIFO would block. With O_CREAT the kernel may refuse another user's file.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another process was faster
            created = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
            os.fchmod(created, 0o644)  # whatever the umask: other users have to open it too
            os.close(created)
        descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no plain file")
    return os.fdopen(descriptor)


def wait_for_lock(lock: IO[str], timeout_s: float) -> bool | None:
    """Poll for an exclusive lock on an open file; returns as ``try_lock``, after the timeout False."""
    until = time.monotonic() + timeout_s
    while (held := try_lock(lock.fileno(), fcntl.LOCK_EX)) is False and time.monotonic() < until:
        time.sleep(LOCK_POLL_S)
    return held


def try_lock(handle: int, kind: int) -> bool | None:
    """Lock an open file or folder without waiting.

    Args:
        handle: its descriptor.
        kind: ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``.

    Returns:
        True if it is locked now, False if another process holds it, None if its file system has no locks.
    """
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def age_s(path: Path) -> float:
    """Return the seconds since a file or folder was modified; 0 if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
