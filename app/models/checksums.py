"""Checksums of a converted network's files, and small JSON files that may be damaged or foreign."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from stat import S_ISREG
from typing import Any

from app.logs import warn_once
from app.models.bundle import MAX_WEIGHTS_BYTES

NETWORK_FILE, NUMBERS_FILE = "network.xml", "network.bin"
GRADIENTS_FILE, ANSWERS_FILE, SUMS_FILE = "gradients.npy", "answers.npy", "sums.json"
HEAD_FILES = ("head.xml", "head.bin")
REQUIRED = {NETWORK_FILE, NUMBERS_FILE, ANSWERS_FILE}
OPTIONAL = {GRADIENTS_FILE, *HEAD_FILES}
MAX_HINT_BYTES = 1 << 20

logger = logging.getLogger(__name__)


def read_hint(path: Path) -> dict[str, Any]:
    """Read a small, reproducible JSON object; {} if it is missing or, with a warning, damaged."""
    try:
        content = json.loads(read_small(path))
        if not isinstance(content, dict):
            raise ValueError(f"expected a JSON object, found {type(content).__name__}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        warn_once(logger, f"{path} is ignored and made again: {error}")
        return {}
    return content


def read_small(path: Path) -> bytes:
    """Return a small file's content, without blocking on a pipe. Raises OSError or ValueError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        # Before open(), which leaks the handle of a directory.
        if not S_ISREG(os.fstat(handle).st_mode):
            raise ValueError(f"{path.name} is no file")
        with open(handle, "rb", closefd=False) as file:
            content = file.read(MAX_HINT_BYTES + 1)
    finally:
        os.close(handle)
    if len(content) > MAX_HINT_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_HINT_BYTES} bytes")
    return content


def write_sums(folder: Path) -> str:
    """Write size and SHA-256 of a network's files beside them; return the digest of that file."""
    sums = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            sums[path.name] = [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
    text = json.dumps(sums, indent=1)
    (folder / SUMS_FILE).write_text(text, encoding="utf-8")
    return take_digest(text.encode())


def take_digest(content: bytes) -> str:
    """Return 16 hexadecimal digits of the SHA-256; those of its sums name a network's folder."""
    return hashlib.sha256(content).hexdigest()[:16]


def find_damage(folder: Path) -> str:
    """Return how a network's files differ from their sums, or "". Reads all of them: 0.1 s for 100 MB."""
    try:
        text = read_small(folder / SUMS_FILE)
        if take_digest(text) != folder.name.partition("-")[2]:
            raise ValueError(f"{SUMS_FILE} is another one")
        sums = json.loads(text)
        if not isinstance(sums, dict) or set(sums) - OPTIONAL != REQUIRED:
            raise ValueError(f"{SUMS_FILE} names other files than {sorted(REQUIRED)}")
        for name, (size, digest) in sums.items():
            check_part(folder / name, size, digest)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return str(error)
    return ""


def check_part(path: Path, size: int, digest: str) -> None:
    """Verify a file's size and SHA-256. Raises OSError or ValueError."""
    status = path.lstat()
    if not S_ISREG(status.st_mode):
        raise ValueError(f"{path.name} is no file")
    if status.st_size > MAX_WEIGHTS_BYTES:
        raise ValueError(
            f"{path.name} has {status.st_size} bytes; at most {MAX_WEIGHTS_BYTES} are read"
        )
    if status.st_size != size:
        raise ValueError(f"{path.name} has {status.st_size} bytes instead of {size}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise ValueError(f"the content of {path.name} is not what {SUMS_FILE} says")
