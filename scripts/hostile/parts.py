"""Image files split into their parts; the parts joined are the file again."""

from __future__ import annotations

import re
import struct

from scripts.hostile.pictures import PNG_MAGIC

# Where the sizes stand: (a pattern that ends right before them, how they are packed). WebP packs both into bits.
SIZE_FIELDS = {
    "jpeg": (re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]..\x08", re.DOTALL), ">HH"),
    "png": (re.compile(rb"IHDR"), ">II"),
    "gif": (re.compile(rb"GIF8[79]a"), "<HH"),
    "webp": (re.compile(rb"VP8 ....\S..\x9d\x01\x2a|VP8X....[\x00-\xff]{4}", re.DOTALL), "<HH"),
    "bmp": (re.compile(rb"BM.{12}\x28\0\0\0", re.DOTALL), "<ii"),
}


def split_file(data: bytes) -> list[bytes]:
    """Return a file's segments, chunks or blocks; a file without such a structure is one part."""
    if data.startswith(b"\xff\xd8"):
        return split_jpeg(data)
    if data.startswith(PNG_MAGIC):
        return split_chunks(data, len(PNG_MAGIC), ">I4s", extra=4)
    if data.startswith(b"RIFF"):
        return split_chunks(data, 12, "<4sI", extra=0)
    if data.startswith(b"GIF8"):
        return split_gif(data)
    return [data[:14], data[14:54], data[54:]] if data.startswith(b"BM") else [data]


def split_jpeg(data: bytes) -> list[bytes]:
    """Return a JPEG's segments; a scan's bytes belong to its header."""
    # In a scan FF is followed by 00 or is a restart marker; everything else begins a segment.
    starts = [0]
    for marker in re.finditer(rb"\xff[\xc0-\xcf\xd8-\xdf\xe0-\xef\xfe]", data):
        if marker.start() >= starts[-1] + segment_length(data, starts[-1]):
            starts.append(marker.start())
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def segment_length(data: bytes, start: int) -> int:
    """Return how many bytes a JPEG's segment claims; markers without a length claim two."""
    if data[start + 1 : start + 2] in (b"\xd8", b"\xd9") or len(data) < start + 4:
        return 2
    return 2 + int(struct.unpack_from(">H", data, start + 2)[0])


def split_chunks(data: bytes, at: int, head: str, extra: int) -> list[bytes]:
    """Return the file's signature and its chunks, each with a head of length and kind, in whichever order."""
    parts = [data[:at]]
    while len(data) >= at + 8:
        fields = struct.unpack_from(head, data, at)
        length = next(field for field in fields if isinstance(field, int))
        padding = length & 1 if head.startswith("<") else 0
        end = min(len(data), at + 8 + length + padding + extra)
        parts.append(data[at:end])
        at = end
    return [*parts, data[at:]] if at < len(data) else parts


def split_gif(data: bytes) -> list[bytes]:
    """Return a GIF's header with its palette, its extensions and images, and the trailer."""
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    parts = [data[:at]]
    while at < len(data):
        end = at + 1
        if data[at : at + 1] == b"!":
            end = skip_blocks(data, at + 2)
        elif data[at : at + 1] == b"," and len(data) > at + 9:
            palette = 3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0
            end = skip_blocks(data, at + 11 + palette)
        parts.append(data[at:end])
        at = end
    return parts


def skip_blocks(data: bytes, at: int) -> int:
    """Return where a GIF's chain of blocks ends."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1
