"""Downloads of large files: resumed after an interruption, and verified by the SHA-256 in their name."""

from __future__ import annotations

import fcntl
import hashlib
import re
import sys
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from app import __version__
from app.logs import say
from app.system.files import try_lock

HASH = re.compile(r"-([0-9a-f]{8,64})\.")  # torch.hub's: the first digits of the file's SHA-256
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30  # without a byte
MAX_FAILURES = 5  # in succession, without a byte between them
PAUSE_S = 2.0  # after the first failure; doubled after each further one
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
ALL_SENT = 416  # the answer to a request for what follows the last byte


class DownloadError(Exception):
    """A download that failed; the message is a sentence for a person."""


class Interrupted(Exception):
    """A connection that failed and may work at the next attempt."""


class Unreachable(Interrupted):
    """A host to which no connection can be made."""


def download(url: str, folder: Path) -> Path:
    """Download a file into a folder and return its path; a partial one is continued.

    Args:
        url: ends with a name that holds the first digits of the file's SHA-256, as torch.hub's do.
        folder: made if it does not exist.

    Raises:
        DownloadError: the host cannot be reached, does not have the file, or has another one.
        OSError: the file cannot be written.
    """
    path = folder / url.rpartition("/")[2]
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("ab") as file:
        if try_lock(file.fileno(), fcntl.LOCK_EX) is False:
            raise DownloadError(f"{part} is being written by another download")
        receive(url, file)
    try:
        check_hash(part, path.name)
    except DownloadError:
        part.unlink()  # nothing to continue from
        raise
    return part.rename(path)


def check_hash(path: Path, name: str) -> None:
    """Raise DownloadError if a file's SHA-256 does not begin with the digits in ``name``."""
    expected = HASH.search(name)
    if expected is None:
        raise DownloadError(f"{name} holds no digits of a SHA-256 to check it by")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if not actual.startswith(expected[1]):
        shown = actual[: len(expected[1])]
        raise DownloadError(
            f"{path} is not {name}: its SHA-256 begins with {shown}, expected {expected[1]}"
        )


def receive(url: str, file: BinaryIO) -> None:
    """Append to an open file what it lacks. Raises DownloadError."""
    began, failures = file.tell(), 0
    while True:
        before = file.tell()
        try:
            receive_part(url, file)
        except Interrupted as error:
            if isinstance(error, Unreachable) and file.tell() == began:
                raise DownloadError(f"{url} cannot be downloaded: {error}") from error
            failures = 1 if file.tell() > before else failures + 1
            if failures >= MAX_FAILURES:
                raise DownloadError(
                    f"{url}: {error}; {file.tell():,} bytes are kept, and the same command continues"
                ) from error
            say(f"{error}; trying again")
            time.sleep(PAUSE_S * 2 ** (failures - 1))
        else:
            return


def receive_part(url: str, file: BinaryIO) -> None:
    """Append to an open file what one connection brings.

    Raises:
        Interrupted: the connection ended before the last byte.
        DownloadError: another attempt is pointless.
    """
    start = file.tell()
    with connect(url, start) as response:
        found = RANGE.match(response.headers.get("Content-Range", ""))
        if response.status == ALL_SENT:
            return
        if found is None or int(found[1]) != start:  # the host sends all of it
            start = file.seek(file.truncate(0))
        total = int(found[2]) if found else int(response.headers.get("Content-Length", 0))
        progress = Progress(url.rpartition("/")[2], total)
        while chunk := read(response):
            file.write(chunk)
            progress.show(file.tell())
    if file.tell() < total:
        raise Interrupted(f"the connection ended after {file.tell():,} of {total:,} bytes")


def connect(url: str, start: int) -> HTTPResponse:
    """Request a file from a byte on. Raises as ``receive_part``."""
    headers = {"User-Agent": f"resnet-serving/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)  # noqa: S310  (main checks it)
    except HTTPError as error:
        if error.code == ALL_SENT:
            return error  # type: ignore[return-value]  # it is the response, too
        failure = Interrupted if error.code in TEMPORARY else DownloadError
        raise failure(f"{url} answers {error.code} {error.reason}") from error
    except (URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        reason = getattr(reason, "strerror", None) or reason
        raise Unreachable(f"the host cannot be reached ({reason})") from error
    return response


def read(response: HTTPResponse) -> bytes:
    """Return the next bytes of a response; empty at its end. Raises Interrupted."""
    try:
        return response.read(CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        raise Interrupted(f"the connection failed ({error or type(error).__name__})") from error


class Progress:
    """Progress of a download on standard error: one line on a terminal, one for each tenth elsewhere."""

    def __init__(self, name: str, total: int) -> None:
        self._name = name
        self._total = total
        self._shown = -1

    def show(self, count: int) -> None:
        """Show the number of received bytes, if that has changed by a percent."""
        percent = 100 * count // self._total if self._total else count // 1_000_000
        is_terminal = sys.stderr.isatty()
        if percent == self._shown or (
            not is_terminal and percent < self._shown + 10 and count < self._total
        ):
            return
        self._shown = percent
        share = f" of {self._total / 1e6:.1f} MB, {percent} %" if self._total else " MB"
        line = f"{self._name}: {count / 1e6:.1f}{share}"
        end = "" if is_terminal and count < self._total else "\n"
        print(f"\r\033[K{line}" if is_terminal else line, end=end, file=sys.stderr, flush=True)
