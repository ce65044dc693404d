"""The output file: one row per image, kept from run to run."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from .errors import Stop
from .formats import Format, Found
from .rows import OK, Row

OPTIONS_SUFFIX = ".options"  # of the file beside the output that records the options


class Table:
    """The output file, opened or created and locked; failed and incomplete rows are removed from it.

    Args:
        path: the file.
        form: its format.
        options: what its rows depend on, by name; recorded beside it.

    Attributes:
        done: the image files that have an answer in it.

    Raises:
        Stop: it has another format or was written with other options, or another run holds the lock.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, form: Format, options: Mapping[str, Any]) -> None:
        self._path, self._form = path.resolve(), form
        self._file = self._first = lock(self._path, "a+b")
        self.done: set[str] = set()
        try:
            self._resume(options)
        except BaseException:
            self.close()
            raise

    def _resume(self, options: Mapping[str, Any]) -> None:
        """Find the rows of earlier runs with the same options, and remove all others. Raises like the class."""
        form, before = self._form, read_options(self._path)
        try:
            header = form.read_header(self._file)
            kept = [row for row in form.read_rows(self._file, header) if row.status == OK]
        except ValueError as error:
            check_options(self._path, before, options)
            raise Stop(
                f"{self._path} is no file of this program with these columns; name another one"
            ) from error
        self.done = {row.file for row in kept}
        if self.done:
            check_options(self._path, before, options)
        size = self._file.seek(0, os.SEEK_END)
        if header < len(form.header) or header + sum(row.end - row.start for row in kept) < size:
            self._rewrite(header, kept)
        options_path(self._path).write_text(json.dumps(options) + "\n", encoding="utf-8")

    def add(self, row: Row) -> None:
        """Append and flush a row."""
        self._file.write(self._form.encode(row))
        self._file.flush()

    def close(self) -> None:
        """Close the file and release its lock."""
        self._file.close()
        self._first.close()

    def _rewrite(self, header: int, kept: list[Found]) -> None:
        """Replace the file atomically by its header of that many bytes, or a new one, and some of its rows."""
        part = self._path.with_name(self._path.name + ".part")
        new = lock(part, "w+b")
        self._file.seek(0)
        new.write(self._file.read(header) or self._form.header)
        for row in kept:
            self._file.seek(row.start)
            new.write(self._file.read(row.end - row.start))
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


def options_path(path: Path) -> Path:
    """Return the file that records the options of an output file."""
    return path.with_name(path.name + OPTIONS_SUFFIX)


def read_options(path: Path) -> dict[str, Any]:
    """Return the recorded options of an output file; empty if there are none."""
    try:
        content = json.loads(options_path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_options(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise Stop, naming the differences, if an output file was written with other options."""
    names = [name for name in now if before and before.get(name) != now[name]]
    if names:
        was, are = (show_options(each, names) for each in (before, now))
        raise Stop(f"{path} was written with {was}, this run has {are}: name another file")


def show_options(options: Mapping[str, Any], names: list[str]) -> str:
    """Return some options as on the command line."""
    shown = []
    for name in names:
        value, option = options.get(name), "--" + name.replace("_", "-")
        if value in (None, False):
            shown.append(f"no {option}")
        else:
            shown.append(option if value is True else f"{option} {value}")
    return ", ".join(shown)
