"""API keys: the file that ``SERVING_KEYS`` names, one key a line, and what reads it.

    # clients of the photo archive
    archive: 9f86d0…0a08 id=5f0c…91be scopes=predict,read expires=2027-01-01T00:00:00Z

A client sends ``ID.SECRET``: 96 random bits in hexadecimal and 256 in base64url. The file has the id, by which a key
is found, and the SHA-256 of the whole key, so a copy of the file opens nothing. A name may have several keys, all of
them valid, so that a key can be replaced while clients still use it. ``scripts/keys`` writes the file.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.errors import KeyFileError

# Scope → what it opens. Which route has which: app/web/scopes.py.
SCOPES = {
    "predict": "predictions and heat maps",
    "read": "models, versions, samples and the state of the server",
    "metrics": "metrics for Prometheus",
    "docs": "the OpenAPI document and Swagger UI",
    "page": "the page without its data",
    "admin": "changes by the API; today all of them are refused",
}
CLIENT_SCOPES = frozenset({"predict", "read"})  # of a new key
ID_BYTES, SECRET_BYTES = 12, 32
MAX_FILE_BYTES = 1024 * 1024
MAX_KEYS = 1000  # each name is a label of a metric
CHECK_S = 1.0  # between two looks at the file
EXPIRY = "%Y-%m-%dT%H:%M:%SZ"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LINE = re.compile(
    r"(?P<name>[^\s:]+):\s+(?P<digest>[0-9a-f]{64})\s+id=(?P<id>[0-9a-f]{24})\s+scopes=(?P<scopes>\S+)"
    r"(?:\s+expires=(?P<expires>\S+))?",
    re.ASCII,
)
FORM = "NAME: SHA256 id=ID scopes=SCOPE,SCOPE [expires=2027-01-01T00:00:00Z]"

logger = logging.getLogger("keys")


@dataclass(frozen=True)
class Key:
    """A line of the file.

    Attributes:
        name: the client's name, for logs and metrics; not unique.
        id: the first part of the key, unique.
        digest: SHA-256 of the key, in lowercase hexadecimal.
        scopes: what the key opens.
        expires: when it ends to be valid; None: never.
    """

    name: str
    id: str
    digest: str
    scopes: frozenset[str]
    expires: datetime | None = None

    @property
    def has_expired(self) -> bool:
        """Whether the key is no longer valid."""
        return self.expires is not None and datetime.now(UTC) >= self.expires

    @property
    def expiry(self) -> str:
        """When it expires, as in the file; empty: never."""
        return self.expires.strftime(EXPIRY) if self.expires else ""


def make_key(name: str, scopes: frozenset[str], expires: datetime | None = None) -> tuple[Key, str]:
    """Return a new key and the text for its client, which nothing can recover later."""
    id_ = secrets.token_hex(ID_BYTES)
    text = f"{id_}.{secrets.token_urlsafe(SECRET_BYTES)}"
    return Key(name, id_, hash_key(text), scopes, expires), text


def hash_key(text: str) -> str:
    """Return the SHA-256 of a key; it is random, so it needs neither salt nor a slow hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def parse_name(text: str) -> str:
    """Return a client's name. Raises ValueError."""
    if not NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name: up to 64 of A-Z a-z 0-9 . _ - are, the first a letter or a digit"
        )
    return text


def parse_scopes(text: str) -> frozenset[str]:
    """Return the scopes of a list with commas. Raises ValueError."""
    found = frozenset(part.strip() for part in text.split(","))
    if unknown := found - SCOPES.keys():
        raise ValueError(f"{min(unknown)!r} is no scope; there are {', '.join(SCOPES)}")
    return found


def parse_line(line: str) -> Key | None:
    """Return the key of a line; None for a comment or an empty line. Raises ValueError."""
    text = line.partition("#")[0].strip()
    if not text:
        return None
    match = LINE.fullmatch(text)
    if not match:  # the line is not repeated: somebody may have pasted a key
        raise ValueError(f"expected {FORM}")
    expires = None
    if match["expires"]:
        try:
            expires = datetime.strptime(match["expires"], EXPIRY).replace(tzinfo=UTC)
        except ValueError:
            raise ValueError(
                "expected a time in UTC after expires=, such as 2027-01-01T00:00:00Z"
            ) from None
    name, scopes = parse_name(match["name"]), parse_scopes(match["scopes"])
    return Key(name, match["id"], match["digest"], scopes, expires)


def format_line(key: Key) -> str:
    """Return the line of a key."""
    scopes = ",".join(scope for scope in SCOPES if scope in key.scopes)
    expires = f" expires={key.expiry}" if key.expires else ""
    return f"{key.name}: {key.digest} id={key.id} scopes={scopes}{expires}"


def parse_keys(lines: Iterable[str], where: object) -> dict[str, Key]:
    """Return the keys of a file's lines by id.

    Raises:
        KeyFileError: a line is malformed or repeats an id, or there are too many; it names ``where`` and the line.
    """
    keys: dict[str, Key] = {}
    for number, line in enumerate(lines, 1):
        try:
            if (key := parse_line(line)) is None:
                continue
            if key.id in keys:
                raise ValueError(f"the id {key.id} is there twice")
            if len(keys) == MAX_KEYS:
                raise ValueError(f"it has more than {MAX_KEYS:,} keys")
        except ValueError as error:
            raise KeyFileError(f"{where}, line {number}: {error}") from None
        keys[key.id] = key
    return keys


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file of keys.

    Raises:
        KeyFileError: it cannot be read, others can read it, or it is too large.
    """
    try:
        # O_NONBLOCK: opening a FIFO would wait for its other end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            check_status(path, os.fstat(file.fileno()))
            return file.read(MAX_FILE_BYTES).decode("utf-8").splitlines()
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{path} is not UTF-8: byte {error.start:,}") from None


def check_status(path: Path, status: os.stat_result) -> None:
    """Raise KeyFileError unless the file is a small private one."""
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{path} is no plain file")
    if mode & 0o037:
        raise KeyFileError(
            f"{path} has mode {mode:04o}; expected 0600, or 0640 for a group: chmod 600 {path}"
        )
    if status.st_size > MAX_FILE_BYTES:
        raise KeyFileError(f"{path} has {status.st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}")


def read_keys(path: Path) -> dict[str, Key]:
    """Return the keys of a file by id. Raises KeyFileError."""
    return parse_keys(read_lines(path), path)


class KeyFile:
    """The keys of a file, which is read again when it has changed; on one thread.

    A file that cannot be read leaves the keys as they were; without any earlier ones there are none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: Mapping[str, Key] = {}
        self._version: object = None  # of the file that was read last
        self._trouble = ""  # the error of the last try
        self._looked_at = -CHECK_S
        self.refresh()

    def find(self, text: str) -> Key | None:
        """Return the key that a client sent, which may have expired; None if there is no such key."""
        self.refresh()
        key = self._keys.get(text.partition(".")[0])
        return key if key and hmac.compare_digest(key.digest, hash_key(text)) else None

    def refresh(self) -> bool:
        """Read the file if it has changed; look at most once in ``CHECK_S``. Return whether it was read."""
        now = time.monotonic()
        if now - self._looked_at < CHECK_S:
            return False
        self._looked_at = now
        version = read_version(self._path)  # before the content: a change in between is read again
        if version == self._version:
            return False
        try:
            self._keys = read_keys(self._path)
        except KeyFileError as error:  # tried again: it may be this process that cannot read it
            if str(error) != self._trouble:
                logger.error("the API keys stay as they were: %s", error)
            self._trouble = str(error)
            return False
        self._version, self._trouble = version, ""
        names = len({key.name for key in self._keys.values()})
        logger.info("%d API keys of %d clients in %s", len(self._keys), names, self._path)
        return True


def read_version(path: Path) -> tuple[int, ...]:
    """Return what changes with each change of a file; empty if it cannot be found."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
