"""The walker of JPEG files: their segments and their scans.

libjpeg decodes each scan over the whole image, and a scan without changes takes 98 bytes: 32 MiB of
them kept a thread busy for hours. Pillow keeps every segment before the first scan.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from app.errors import UnreadableImage
from app.processing.image_parts import UPRIGHT, Runs, Structure, check_count, read_orientation

MAX_SCANS = 100  # encoders write up to about 12
MAX_SEGMENTS = 2_000  # 64 KiB each at most; a camera's depth map or panorama takes some hundreds

MAX_FILL = (
    4_096  # bytes FF in a row: libjpeg begins anew at the first of them with each piece of the file
)

# A marker after any position: FF is followed by 00 in compressed data and by FF in padding; RST0 to RST7 separate
# its parts. 01 has no length.
MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
SLICE = 1 << 18  # bytes that are searched without releasing the GIL: 3 ms at most

RESERVED = 0xC0  # markers below it
SOI, EOI, SOS, APP0, APP1, APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE
TABLES = {
    0xC4,
    0xCC,
    0xDB,
    0xDC,
    0xDD,
}  # Huffman, arithmetic, quantization, lines, restart interval
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
# JFIF's and Adobe's segments define the color space; all other APPn are metadata.
KEPT = TABLES | FRAMES | {APP0, APP14}
EXIF = b"Exif\x00\x00"


def walk_jpeg(data: bytes) -> Structure:
    """Walk a JPEG's segments up to its end; data after it, such as another image, is dropped.

    Raises:
        UnreadableImage: it is truncated before its pixels.
        ImageTooLarge: it has more segments or scans than the limit.
    """
    kept = Runs(data)
    kept.add(0, 2)
    frame, scans, orientation, buffers = b"", 0, UPRIGHT, 0
    for count, (marker, start, end) in enumerate(walk_segments(data), 1):
        check_count("JPEG", count, "segments", MAX_SEGMENTS)
        segment = data[start + 4 : end] if marker in FRAMES | {SOS, APP1} else b""
        if marker == SOS:
            scans += 1
            check_count("JPEG", scans, "scans", MAX_SCANS)
            if scans == 1:
                first = start
                buffers = coefficient_bytes(frame, segment)
        elif marker in FRAMES:
            if frame:
                raise UnreadableImage(
                    "image begins like a JPEG but is damaged: it has two frame headers"
                )
            frame = bytes([marker]) + segment
        elif marker == APP1 and orientation == UPRIGHT and segment.startswith(EXIF):
            orientation = read_orientation(segment)
        if not scans and marker in KEPT:
            kept.add(start, end)
    if not scans:
        raise UnreadableImage("image begins like a JPEG but is damaged: it holds no image data")
    end = end if marker == EOI else len(data)
    check_fill(data, first, end)
    kept.add(first, end)
    return Structure("JPEG", kept.join(), buffers, orientation=orientation)


def walk_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment, as libjpeg finds them; the end of the image last."""
    position = 2
    while (start := find_marker(data, position)) is not None:
        marker = data[start + 1]
        if marker in (SOI, EOI):  # at a second start libjpeg gives up
            yield EOI, start, start + 2
            return
        if start + 4 > len(data):
            return
        # A reserved marker has no length for libjpeg; what is shorter than its own length has none either.
        length = struct.unpack_from(">H", data, start + 2)[0] if marker >= RESERVED else 0
        position = start + 2 + max(2 if marker >= RESERVED else 0, length)
        yield marker, start, position


def find_marker(data: bytes, position: int) -> int | None:
    """Return the position of the next marker, or None."""
    while position < len(data):
        if found := MARKER.search(data, position, position + SLICE):
            return found.start()
        position += SLICE - 1
    return None


def check_fill(data: bytes, start: int, end: int) -> None:
    """Raise ImageTooLarge if there are more consecutive fill bytes than the limit."""
    run = b"\xff" * (MAX_FILL + 1)
    for position in range(start, end, SLICE):
        if data.find(run, position, min(position + SLICE + len(run), end)) >= 0:
            check_count("JPEG", len(run), "fill bytes in a row", MAX_FILL)


def coefficient_bytes(frame: bytes, scan: bytes) -> int:
    """Return the bytes of the coefficients that libjpeg keeps for an image of several scans.

    Args:
        frame: the frame header's marker and content: precision, height, width, components.
        scan: the first scan header's content.

    Raises:
        UnreadableImage: the headers contradict each other.
    """
    try:
        marker, _, height, width, components = struct.unpack_from(">BBHHB", frame)
        samplings = [divmod(frame[8 + 3 * index], 16) for index in range(components)]
        if marker not in PROGRESSIVE and scan[0] >= components:
            return 0
        across = -(-width // (8 * max(wide for wide, _ in samplings)))
        down = -(-height // (8 * max(high for _, high in samplings)))
    except (struct.error, LookupError, ValueError, ZeroDivisionError) as error:
        raise UnreadableImage(
            "image begins like a JPEG but is damaged: its header is cut off"
        ) from error
    return sum(across * wide * down * high * 64 * 2 for wide, high in samplings)
