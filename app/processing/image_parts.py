"""Shared parts of the file walkers: their result, their limits, the EXIF orientation."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from app.errors import ImageTooLarge

UPRIGHT = 1
ORIENTATION = 0x0112  # EXIF's tag
MAX_EXIF = 1 << 16  # bytes that are searched
NUMBERS = {1: "B", 3: "H", 4: "I"}  # EXIF's types of whole numbers


@dataclass(frozen=True)
class Structure:
    """The structure of an image file, from its own headers.

    Attributes:
        kind: JPEG, PNG, WebP, GIF or BMP.
        data: the file without the parts that decoding does not need.
        working_bytes: the decoder's memory in addition to the decoded pixels.
        copied_bytes: the size of ``data`` if it is a copy.
        orientation: EXIF's, 1..8; 1 is upright.
        canvas: width and height of a WebP or a GIF, which Pillow may allocate when it opens the file.
    """

    kind: str
    data: bytes
    working_bytes: int = 0
    copied_bytes: int = 0
    orientation: int = UPRIGHT
    canvas: tuple[int, int] | None = None


class Runs:
    """The parts of a file to keep; adjacent parts are joined, so that few slices are copied."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._runs: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> None:
        """Keep the bytes from ``start`` to ``end``, which follow all kept ones."""
        if self._runs and self._runs[-1][1] == start:
            start = self._runs.pop()[0]
        self._runs.append((start, end))

    def join(self) -> bytes:
        """Return the kept bytes; a file that is kept whole is not copied."""
        if self._runs == [(0, len(self._data))]:
            return self._data
        view = memoryview(self._data)
        return b"".join([view[start:end] for start, end in self._runs])


def check_count(kind: str, count: int, parts: str, limit: int) -> None:
    """Raise ImageTooLarge if a file has more parts than the limit."""
    if count > limit:
        raise ImageTooLarge(
            f"image is a {kind} of at least {count:,} {parts}; the limit is {limit:,}"
        )


def read_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, 1..8; upright if there is none or the data is damaged.

    Pillow's reader decodes all entries, and raises any error at a damaged one.
    """
    exif = exif[:MAX_EXIF].removeprefix(b"Exif\x00\x00")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return UPRIGHT
    try:
        start = struct.unpack_from(f"{order}I", exif, 4)[0]
        entries = struct.unpack_from(f"{order}H", exif, start)[0]
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            tag, form = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == ORIENTATION and form in NUMBERS:
                value = int(struct.unpack_from(f"{order}{NUMBERS[form]}", exif, entry + 8)[0])
                return value if 1 <= value <= 8 else UPRIGHT
    except struct.error:  # truncated
        pass
    return UPRIGHT
