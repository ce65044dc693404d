"""The CSV file: one row per image."""

from __future__ import annotations

import codecs
import contextlib
import csv
import fcntl
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from .errors import Stop

COLUMNS = ["file", "status", "labels", "scores", "model", "version", "error"]
OK = "ok"  # the status of a row with an answer; of any other it is the error's code


class Table:
    """The CSV file, opened or created and locked; failed and incomplete rows are removed from it.

    Args:
        path: the file.

    Attributes:
        done: the image files that have an answer in it.

    Raises:
        Stop: it has another format, or another run holds the lock.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._file = self._first = lock(self._path, "a+b")
        self.done: set[str] = set()
        self._file.seek(0)
        header = self._file.readline()
        first = header.removeprefix(codecs.BOM_UTF8).replace(
            b"\r\n", b"\n"
        )  # as spreadsheets write it
        is_whole = first == HEADER
        if not is_whole and not HEADER.startswith(header):
            raise Stop(f"{path} is no CSV file of this program; name another with --csv")
        kept = []
        for start, end, row in read_rows(self._file):
            if len(row) == len(COLUMNS) and row[1] == OK:
                kept.append((start, end))
                self.done.add(row[0])
        size = self._file.seek(0, os.SEEK_END)
        if not is_whole or len(header) + sum(end - start for start, end in kept) < size:
            self._rewrite(kept)

    def add(self, row: Sequence[str]) -> None:
        """Append and flush a row."""
        self._file.write(encode(row))
        self._file.flush()

    def close(self) -> None:
        """Close the file and release its lock."""
        self._file.close()
        self._first.close()

    def _rewrite(self, kept: list[tuple[int, int]]) -> None:
        """Replace the file atomically by the header and some of its rows."""
        part = self._path.with_name(self._path.name + ".part")
        new = lock(part, "w+b")
        new.write(HEADER)
        for start, end in kept:
            self._file.seek(start)
            new.write(self._file.read(end - start))
        new.flush()
        os.fsync(new.fileno())
        shutil.copymode(self._path, part)
        part.replace(self._path)
        self._file = new  # the first stays locked: another run may have opened it just now


def lock(path: Path, mode: str) -> BinaryIO:
    """Open and lock a file. Raises Stop if another run holds the lock, and OSError."""
    file = cast("BinaryIO", path.open(mode))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise Stop(f"another run is writing {path}") from error
    return file


def encode(row: Sequence[str]) -> bytes:
    """Encode a row as UTF-8; bytes of file names that are not UTF-8 are kept."""
    text = io.StringIO()
    csv.writer(text).writerow(row)  # its default "\r\n" makes it quote cells with either character
    return (text.getvalue()[:-2] + "\n").encode("utf-8", "surrogateescape")


HEADER = encode(COLUMNS)


def read_rows(file: BinaryIO) -> Iterator[tuple[int, int, list[str]]]:
    """Yield (start, end, cells) of each complete row, positions in bytes."""
    csv.field_size_limit(sys.maxsize)  # the scores of 22,000 classes take a megabyte
    start = end = 0
    line = b""

    def read_lines() -> Iterator[str]:
        nonlocal end, line
        file.seek(0)
        for line in file:
            end += len(line)
            yield line.decode("utf-8", "surrogateescape")

    with contextlib.suppress(csv.Error):  # the file ends within quotes
        for row in csv.reader(read_lines(), strict=True):
            if line.endswith(b"\n"):
                yield start, end, row
            start = end


def make_row(file: str, answer: dict[str, Any]) -> list[str]:
    """Return the row of an answered image. Raises LookupError or TypeError."""
    (picture,), model = answer["images"], answer["model"]
    labels = [one["label"] for one in picture["labels"]]
    scores = {one["label"]: one["score"] for one in picture.get("scores", picture["labels"])}
    cell = json.dumps(scores, ensure_ascii=False)
    return [file, OK, " | ".join(labels), cell, model["name"], str(model["version"]), ""]


def make_failure(file: str, code: str, detail: str) -> list[str]:
    """Return the row of a failed image."""
    return [file, code, "", "", "", "", detail]
