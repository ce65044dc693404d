"""The CSV file: a row for each picture, and what is done already."""

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
    """The CSV file, locked. A row is in the file as soon as it is added.

    Attributes:
        done: the files that have an answer in it.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file; throw away failures, and a row that is written by half.

        Raises:
            Stop: it holds something else, or another run writes it.
            OSError: it cannot be read or written.
        """
        self._path = path.resolve()
        self._file = self._first = lock(self._path, "a+b")
        self.done: set[str] = set()
        self._file.seek(0)
        header = self._file.readline()
        first = header.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")  # spreadsheets'
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
        """Append a row."""
        self._file.write(encode(row))
        self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._first.close()

    def _rewrite(self, kept: list[tuple[int, int]]) -> None:
        """Put the header and some rows in the file's place, all or nothing."""
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
        self._file = (
            new  # the first keeps its lock: whoever has just opened that one is refused too
        )


def lock(path: Path, mode: str) -> BinaryIO:
    """Open a file for this run alone. Raises Stop where another run has it, and OSError."""
    file = cast("BinaryIO", path.open(mode))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise Stop(f"another run is writing {path}") from error
    return file


def encode(row: Sequence[str]) -> bytes:
    """Return a row as it stands in the file: UTF-8, but names that are none byte by byte as they are."""
    text = io.StringIO()
    csv.writer(text).writerow(row)  # with its own "\r\n" at the end it quotes either of the two
    return (text.getvalue()[:-2] + "\n").encode("utf-8", "surrogateescape")


HEADER = encode(COLUMNS)


def read_rows(file: BinaryIO) -> Iterator[tuple[int, int, list[str]]]:
    """Yield where each row begins and ends, in bytes, and its cells; not a last one that breaks off."""
    csv.field_size_limit(sys.maxsize)  # the scores of 22,000 classes are a megabyte
    start = end = 0
    line = b""

    def read_lines() -> Iterator[str]:
        nonlocal end, line
        file.seek(0)
        for line in file:
            end += len(line)
            yield line.decode("utf-8", "surrogateescape")

    with contextlib.suppress(csv.Error):  # breaks off within quotes
        for row in csv.reader(read_lines(), strict=True):
            if line.endswith(b"\n"):
                yield start, end, row
            start = end


def make_row(file: str, answer: dict[str, Any]) -> list[str]:
    """Return the row of a picture that was answered. Raises LookupError or TypeError."""
    (picture,), model = answer["images"], answer["model"]
    labels = [one["label"] for one in picture["labels"]]
    scores = {one["label"]: one["score"] for one in picture.get("scores", picture["labels"])}
    told = json.dumps(scores, ensure_ascii=False)
    return [file, OK, " | ".join(labels), told, model["name"], str(model["version"]), ""]


def make_failure(file: str, code: str, detail: str) -> list[str]:
    """Return the row of a picture that has no answer."""
    return [file, code, "", "", "", "", detail]
