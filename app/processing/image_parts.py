"""What the walks over image files share: their result, their limits' refusal, the orientation in EXIF."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from app.errors import ImageTooLarge

UPRIGHT = 1
ORIENTATION = 0x0112  # EXIF's tag
MAX_EXIF = 1 << 16  # bytes that are searched for it
NUMBERS = {1: "B", 3: "H", 4: "I"}  # EXIF's types of whole numbers


@dataclass(frozen=True)
class Structure:
    """What a file's own headers tell.

    Attributes:
        kind: JPEG, PNG, WebP, GIF or BMP.
        data: the file without what decoding does not need.
        working_bytes: what the decoder holds beside the decoded pixels.
        copied_bytes: of data, where it is not the file itself.
        orientation: EXIF's, 1..8; 1 is upright.
        canvas: width and height of a WebP or a GIF, which opening one may allocate already.
    """

    kind: str
    data: bytes
    working_bytes: int = 0
    copied_bytes: int = 0
    orientation: int = UPRIGHT
    canvas: tuple[int, int] | None = None


class Runs:
    """The parts of a file that are kept; neighbours are joined, so that few slices are copied."""

    def __init__(self, data: bytes) -> None:
        """Start without any."""
        self._data = data
        self._runs: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> None:
        """Keep the bytes of start..end, which follow all that were kept before."""
        if self._runs and self._runs[-1][1] == start:
            start = self._runs.pop()[0]
        self._runs.append((start, end))

    def join(self) -> bytes:
        """Return what was kept; a file that was kept whole is not copied."""
        if self._runs == [(0, len(self._data))]:
            return self._data
        view = memoryview(self._data)
        return b"".join([view[start:end] for start, end in self._runs])


def check_count(kind: str, count: int, what: str, limit: int) -> None:
    """Raise ImageTooLarge where a file has more parts than that."""
    if count > limit:
        raise ImageTooLarge(
            f"image is a {kind} of at least {count:,} {what}; the limit is {limit:,}"
        )


def read_orientation(exif: bytes) -> int:
    """Return the orientation that EXIF data tells, 1..8; upright where it tells none or is damaged.

    Pillow's reader decodes all entries, and raises what it likes at a damaged one.
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
    except struct.error:  # it breaks off
        pass
    return UPRIGHT
