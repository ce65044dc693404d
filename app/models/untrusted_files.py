"""Safe reading of untrusted files: none of them can harm, block or exhaust this process.

Only regular files up to a size limit are read, and only inside the model's own folder: a link may lead
elsewhere in it (Kubernetes mounts ConfigMaps so), but not out of it. A FIFO or a device never blocks the
reader, because its type is checked before and after it is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from app.errors import BundleError, TransientError
from app.names import shorten

MAX_JSON_BYTES = 8 << 20  # 100,000 class names of 80 bytes; parsed it takes up to twenty times that
MAX_JSON_DEPTH = 32
KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: Path, most_bytes: int, home: Path | None = None) -> BufferedReader:
    """Open a file of a model for reading.

    Args:
        path: the file.
        most_bytes: the size limit.
        home: the folder that must hold it after all links are resolved; the default is the model's (``home_of``).

    Raises:
        BundleError: it is not a regular file, too large, or outside of ``home``; the message names it.
        TransientError: it cannot be opened for another reason.
        FileNotFoundError: there is no such file.
    """
    home = home or home_of(path.parent)
    try:
        check_kind(path, os.stat(path))  # opening a device may have side effects
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TransientError(f"{path} cannot be read: {error.strerror}") from error
    file = os.fdopen(descriptor, "rb")
    try:
        status = os.fstat(descriptor)
        check_kind(path, status)  # again: it may have been replaced since
        real = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if not real.is_relative_to(home):
            raise BundleError(
                f"{path} is a link that leads out of {home}: copy the file itself to its place"
            )
        if status.st_size > most_bytes:
            raise BundleError(
                f"{path} has {status.st_size} bytes; at most {most_bytes} are read from such a file"
            )
    except BaseException:
        file.close()
        raise
    return file


def home_of(folder: Path) -> Path:
    """Return the folder that a version's links may lead to: its model's, resolved."""
    real = Path(os.path.realpath(folder))
    return real.parent if real.name.isdecimal() else real


def check_kind(path: Path, status: os.stat_result) -> None:
    """Raise BundleError if a path is not a regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise BundleError(f"{path} is {kind}; expected a regular file")


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """Read a small file whole. Raises BundleError, also if it is missing."""
    try:
        with open_regular(path, most_bytes) as file:
            content = file.read(most_bytes + 1)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing") from error
    except OSError as error:
        raise TransientError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > most_bytes:  # it has grown since it was opened
        raise BundleError(f"{path} has more than {most_bytes} bytes")
    return content


def take_sum(path: Path, most_bytes: int) -> str:
    """Return a file's SHA-256 in hexadecimal digits. Raises BundleError, also if it is missing."""
    try:
        with open_regular(path, most_bytes) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing") from error
    except OSError as error:
        raise TransientError(f"{path} cannot be read: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """Read JSON of bounded size and depth without duplicate keys; a byte-order mark is ignored.

    Raises:
        BundleError: it is invalid; the message names the file.
    """
    content = read_bytes(path, MAX_JSON_BYTES)
    try:
        value = json.loads(content.decode("utf-8-sig"), object_pairs_hook=reject_duplicate_keys)
    except UnicodeDecodeError as error:
        raise BundleError(
            f"{path} is not in UTF-8 (byte {error.start}): save it in that encoding"
        ) from error
    except RecursionError:
        raise BundleError(f"{path} is nested too deep; at most {MAX_JSON_DEPTH} levels") from None
    except ValueError as error:
        raise BundleError(f"{path} is no JSON: {error}") from error
    check_depth(path, value)
    return value


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of its pairs. Raises ValueError on a duplicate key."""
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shorten(double)} is there twice")
    return content


def check_depth(path: Path, content: Any) -> None:
    """Raise BundleError if JSON is nested deeper than recursive readers can follow."""
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise BundleError(f"{path} is nested too deep; at most {MAX_JSON_DEPTH} levels")
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
