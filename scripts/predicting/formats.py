"""Output formats: how rows are written, and how the rows of an earlier run are found again."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from .errors import Stop
from .rows import OK, Row

COLUMNS = ["file", "status", "labels", "scores", "model", "version", "error"]
FIXED = ["file", "status", "labels", "model", "version", "error"]  # before a column for each class
KEPT = ("bytes", "width", "height", "labels", "scores")  # members of an answer in JSON lines


class Found(NamedTuple):
    """A complete row in a file: its position in bytes, its image and its status."""

    start: int
    end: int
    file: str
    status: str


class Format(ABC):
    """A format of rows.

    Attributes:
        header: the bytes before the first row.
    """

    header: bytes = b""

    @abstractmethod
    def encode(self, row: Row) -> bytes:
        """Return a row as bytes. Raises Stop if it does not fit the header."""

    @abstractmethod
    def read_header(self, file: BinaryIO) -> int:
        """Return the end of the header, or 0 if it is missing or incomplete. Raises ValueError for another format."""

    @abstractmethod
    def read_rows(self, file: BinaryIO, start: int) -> Iterator[Found]:
        """Yield each complete row from ``start`` on. Raises ValueError for another format."""


class JsonLines(Format):
    """One JSON object per line."""

    def encode(self, row: Row) -> bytes:
        """Return the line of a row; bytes of file names that are not UTF-8 are lone surrogates."""
        content: dict[str, Any] = {"file": row.file, "status": row.status}
        if row.status == OK:
            content |= {"model": row.model, "version": row.version}
            content |= {name: row.image[name] for name in KEPT if name in row.image}
        else:
            content["error"] = row.error
        return json.dumps(content).encode() + b"\n"

    def read_header(self, file: BinaryIO) -> int:
        """Return 0: there is no header."""
        return 0

    def read_rows(self, file: BinaryIO, start: int) -> Iterator[Found]:
        """Yield each complete line; the last one may be incomplete."""
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
                yield Found(start, start + len(line), row["file"], row["status"])
            except (LookupError, TypeError) as error:
                raise ValueError("a line without a file and its status") from error
            start += len(line)


class Csv(Format):
    """CSV with a header.

    Args:
        classes: class names, for a column of scores each; None puts all scores into one column.
        bom: begin with a byte-order mark, by which Excel recognizes UTF-8.
    """

    def __init__(self, classes: Sequence[str] | None = None, bom: bool = False) -> None:
        self._classes = classes
        self._columns = COLUMNS if classes is None else [*FIXED, *classes]
        self.header = (codecs.BOM_UTF8 if bom else b"") + encode_cells(self._columns)

    def encode(self, row: Row) -> bytes:
        """Return the line of a row."""
        labels = " | ".join(row.labels)
        version = str(row.version) if row.status == OK else ""
        if self._classes is None:
            scores = json.dumps(dict(row.scores), ensure_ascii=False) if row.status == OK else ""
            cells = [row.file, row.status, labels, scores, row.model, version, row.error]
            return encode_cells(cells)
        if row.status == OK and [label for label, _ in row.scores] != list(self._classes):
            raise Stop(
                f"{row.model}, version {row.version} has other classes than the columns of the file"
            )
        values = [str(score) for _, score in row.scores] or [""] * len(self._classes)
        fixed = [row.file, row.status, labels, row.model, version, row.error]
        return encode_cells([*fixed, *values])

    def read_header(self, file: BinaryIO) -> int:
        """Return the end of the header; a spreadsheet may have added a byte-order mark."""
        size = file.seek(0, os.SEEK_END)
        for _, end, cells in read_cells(file, 0):
            if [cells[0].lstrip("\ufeff"), *cells[1:]] != self._columns:
                raise ValueError("other columns")
            return end
        file.seek(0)
        begun = file.read(size).removeprefix(codecs.BOM_UTF8[:size])
        if not self.header.removeprefix(codecs.BOM_UTF8).startswith(begun):
            raise ValueError("no header")
        return 0

    def read_rows(self, file: BinaryIO, start: int) -> Iterator[Found]:
        """Yield each complete row; those with another number of cells are left out."""
        for begin, end, cells in read_cells(file, start):
            if len(cells) == len(self._columns):
                yield Found(begin, end, cells[0], cells[1])


def encode_cells(cells: Sequence[str]) -> bytes:
    """Return a line of CSV in UTF-8; bytes of file names that are not UTF-8 are kept."""
    text = io.StringIO()
    csv.writer(text).writerow(
        cells
    )  # its default "\r\n" makes it quote cells with either character
    return (text.getvalue()[:-2] + "\n").encode("utf-8", "surrogateescape")


def read_cells(file: BinaryIO, start: int) -> Iterator[tuple[int, int, list[str]]]:
    """Yield (start, end, cells) of each complete line of CSV, positions in bytes."""
    csv.field_size_limit(sys.maxsize)  # the scores of 22,000 classes take a megabyte
    end = start
    line = b""

    def read_lines() -> Iterator[str]:
        nonlocal end, line
        file.seek(start)
        for line in file:
            end += len(line)
            yield line.decode("utf-8", "surrogateescape")

    begin = start
    with contextlib.suppress(csv.Error):  # the file ends within quotes
        for cells in csv.reader(read_lines(), strict=True):
            if line.endswith(b"\n"):
                yield begin, end, cells
            begin = end
