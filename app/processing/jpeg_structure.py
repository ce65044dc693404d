"""What a JPEG file is made of: its segments and its scans.

libjpeg decodes each scan over the whole image, and a scan that changes nothing takes 98 bytes: 32 MiB of
them kept a thread for hours. Pillow keeps every segment before the first scan.
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

# A marker, wherever a decoder looks for the next one: FF is followed by 00 inside of compressed data, by
# FF where it fills up, and RST0 to RST7 stand between its pieces. 01 is the one that has no length.
MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
SLICE = 1 << 18  # bytes that are searched without letting go of the GIL: 3 ms at most

RESERVED = 0xC0  # markers below it
SOI, EOI, SOS, APP0, APP1, APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE
TABLES = {
    0xC4,
    0xCC,
    0xDB,
    0xDC,
    0xDD,
}  # Huffman, arithmetic, quantisation, lines, restart interval
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
# JFIF's and Adobe's tell what the colours mean; all the others are metadata.
KEPT = TABLES | FRAMES | {APP0, APP14}
EXIF = b"Exif\x00\x00"


def walk_jpeg(data: bytes) -> Structure:
    """Walk a JPEG's segments up to its end; what follows there, such as another image, is left out.

    Raises:
        UnreadableImage: it breaks off before its pixels.
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
                raise UnreadableImage("image is a damaged JPEG: it has two frame headers")
            frame = bytes([marker]) + segment
        elif marker == APP1 and orientation == UPRIGHT and segment.startswith(EXIF):
            orientation = read_orientation(segment)
        if not scans and marker in KEPT:
            kept.add(start, end)
    if not scans:
        raise UnreadableImage("image is a damaged JPEG: it ends before its first scan")
    end = end if marker == EOI else len(data)
    check_fill(data, first, end)
    kept.add(first, end)
    return Structure("JPEG", kept.join(), buffers, orientation=orientation)


def walk_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each segment as libjpeg will find it: its marker, its start and its end; the end of the image last."""
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
    """Return where the next marker is."""
    while position < len(data):
        if found := MARKER.search(data, position, position + SLICE):
            return found.start()
        position += SLICE - 1
    return None


def check_fill(data: bytes, start: int, end: int) -> None:
    """Raise ImageTooLarge where more fill bytes stand in a row than the limit."""
    run = b"\xff" * (MAX_FILL + 1)
    for position in range(start, end, SLICE):
        if data.find(run, position, min(position + SLICE + len(run), end)) >= 0:
            check_count("JPEG", len(run), "fill bytes in a row", MAX_FILL)


def coefficient_bytes(frame: bytes, scan: bytes) -> int:
    """Return the bytes of the coefficients, which libjpeg keeps of the whole image if it takes several scans.

    Args:
        frame: the frame header's marker and content: precision, height, width, components.
        scan: the first scan header's content.

    Raises:
        UnreadableImage: they do not belong together.
    """
    try:
        marker, _, height, width, components = struct.unpack_from(">BBHHB", frame)
        samplings = [divmod(frame[8 + 3 * each], 16) for each in range(components)]
        if marker not in PROGRESSIVE and scan[0] >= components:
            return 0
        across = -(-width // (8 * max(wide for wide, _ in samplings)))
        down = -(-height // (8 * max(high for _, high in samplings)))
    except (struct.error, LookupError, ValueError, ZeroDivisionError) as error:
        raise UnreadableImage("image is a damaged JPEG: its frame header is cut off") from error
    return sum(across * wide * down * high * 64 * 2 for wide, high in samplings)
