"""Walkers of image files: they validate segments, chunks or blocks before a decoder reads the file.

Pillow reads these parts one by one in Python and keeps unneeded ones: 32 MiB of empty segments kept it busy for
ten seconds and took a gigabyte. So the parts are counted, each kind has a limit, and the decoder gets
only the parts with pixels.

Nothing here decodes a pixel. The limits bound all loops; searches over all bytes run in slices, because they
hold the GIL.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

from app.errors import UnreadableImage
from app.processing.image_parts import (
    MAX_EXIF,
    UPRIGHT,
    Runs,
    Structure,
    check_count,
    read_orientation,
)
from app.processing.jpeg_structure import walk_jpeg

MAX_CHUNKS = 50_000  # of a PNG or WebP; libpng writes one for every 8 KiB: 4,096 in 32 MiB
MAX_BLOCKS = 10_000  # of a GIF before its first image, 255 bytes each at most
MAX_JUNK = 1_000  # bytes of a GIF that belong to no block
# Pillow decodes run-length encoded BMPs in Python: up to 0.1 µs a pixel, and 0.6 µs for a run of two bytes.
MAX_RLE_PIXELS = 4_000_000
MAX_RLE_BYTES = 4_000_000

# A lossless WebP may have tables for each block of 4 by 4 pixels, up to 65,536: 20 bits of the file are enough
# for one, and it takes 5.8 KB.
MAX_TABLES = 1 << 16
TABLE_BITS = 20
TABLE_BYTES = 5_900

PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
WEBP_IMAGE = {b"VP8 ", b"VP8L", b"ANMF"}
WEBP_BEFORE = {b"ALPH", b"ANIM"}  # needed by the image after them
WEBP_FLAGS = 0b10010  # alpha and animation, which the kept chunks need


def read_structure(data: bytes) -> Structure | None:
    """Walk a file; None if its first bytes are of no supported kind.

    Raises:
        UnreadableImage: it is truncated before its pixels.
        ImageTooLarge: it has more parts than the limit.
    """
    for magic, walk in WALKS.items():
        if data.startswith(magic) and (walk is not walk_webp or data[8:12] == b"WEBP"):
            structure = walk(data)
            copied = 0 if structure.data is data else len(structure.data)
            return replace(structure, copied_bytes=copied)
    return None


def walk_png(data: bytes) -> Structure:
    """Walk a PNG's chunks and keep those of the still image."""
    kept = Runs(data)
    kept.add(0, 8)
    orientation, rows, position = UPRIGHT, 0, 8
    count = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = min(position + 12 + length, len(data))
        count += 1
        check_count("PNG", count, "chunks", MAX_CHUNKS)
        if kind in PNG_KEPT or not kind.isalpha():  # the decoder refuses the latter
            kept.add(position, end)
        if kind == b"IHDR" and end - position >= 25:
            width, depth, color = struct.unpack_from(">I4xBB", data, position + 8)
            # The decoder works on two rows, which can be as long as the image is large.
            rows = 2 * (width * depth * PNG_CHANNELS.get(color, 4) // 8 + 2)
        elif kind == b"eXIf":
            orientation = read_orientation(data[position + 8 : min(end, position + MAX_EXIF)])
        if kind == b"IEND" or not kind.isalpha():
            break
        position = end
    return Structure("PNG", kept.join(), rows, orientation=orientation)


def walk_webp(data: bytes) -> Structure:
    """Walk a WebP's chunks and keep those of its first frame."""
    kept: list[bytes | memoryview] = []
    orientation, canvas, is_first, lossless = UPRIGHT, None, True, 0
    for count, (kind, chunk) in enumerate(webp_chunks(data), 1):
        check_count("WebP", count, "chunks", MAX_CHUNKS)
        if kind == b"VP8X" and count == 1 and len(chunk) >= 18:
            canvas = read_24_bits(chunk, 12) + 1, read_24_bits(chunk, 15) + 1
            kept.append(bytes(chunk[:8]) + bytes([chunk[8] & WEBP_FLAGS]) + bytes(chunk[9:]))
        elif kind in WEBP_IMAGE and is_first:
            canvas = canvas or webp_size(kind, chunk)
            is_first = False
            kept.append(chunk)
        elif kind in WEBP_BEFORE and is_first:
            kept.append(chunk)
        if kind != b"VP8 " and kept and chunk is kept[-1]:
            lossless += len(chunk)
        if kind == b"EXIF":
            orientation = read_orientation(bytes(chunk[8:MAX_EXIF]))
    if canvas is None:
        raise UnreadableImage(
            "image begins like a WebP but is damaged: it ends before its first frame"
        )
    size = struct.pack("<I", 4 + sum(map(len, kept)))
    whole = b"".join([b"RIFF", size, b"WEBP", *kept])
    # Pillow copies the file twice. The tables go before the last 4 of 12 bytes a pixel are taken.
    working = 2 * len(whole) + max(0, table_bytes(canvas, lossless) - 4 * canvas[0] * canvas[1])
    return Structure("WebP", whole, working, orientation=orientation, canvas=canvas)


def table_bytes(canvas: tuple[int, int], lossless: int) -> int:
    """Return the maximum size of a WebP's Huffman tables, by its size and its losslessly coded bytes."""
    blocks = -(-canvas[0] // 4) * -(-canvas[1] // 4)
    return TABLE_BYTES * min(MAX_TABLES, blocks, 8 * lossless // TABLE_BITS)


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield a WebP's chunks, each with its header and its padding; the last one may be truncated."""
    view, position = memoryview(data), 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        yield kind, view[position:end]
        position = end


def webp_size(kind: bytes, chunk: memoryview) -> tuple[int, int] | None:
    """Return width and height of a single-chunk WebP, or None."""
    if kind == b"VP8 " and len(chunk) >= 18:
        width, height = struct.unpack_from("<HH", chunk, 14)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and len(chunk) >= 13:
        bits = struct.unpack_from("<I", chunk, 9)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def read_24_bits(data: memoryview, offset: int) -> int:
    """Return a little-endian integer of three bytes."""
    return int.from_bytes(data[offset : offset + 3], "little")


def walk_gif(data: bytes) -> Structure:
    """Walk a GIF's blocks up to its first image; keep only the extension with its transparency."""
    flags = data[10] if len(data) > 10 else 0
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    kept, control = Runs(data), (position, position)
    kept.add(0, position)
    blocks = junk = 0
    while position < len(data) and data[position] not in b",;":
        if data[position] != ord("!"):
            junk += 1
            check_count("GIF", junk, "bytes outside of blocks", MAX_JUNK)
            position += 1
            continue
        start, position = position, position + 2
        length = 1
        while length and position < len(data):
            blocks += 1
            check_count("GIF", blocks, "blocks before its first image", MAX_BLOCKS)
            length = data[position]
            position += 1 + length
        if data[start + 1 : start + 3] == b"\xf9\x04":
            control = start, position
    kept.add(*control)
    kept.add(position, len(data))
    return Structure("GIF", kept.join(), canvas=gif_canvas(data, position))


def gif_canvas(data: bytes, position: int) -> tuple[int, int] | None:
    """Return width and height of a GIF's screen, extended by its first image at ``position``, or None.

    Pillow allocates as much when it opens a file whose image is to be cleared afterwards.
    """
    if len(data) < position + 9 or data[position] != ord(","):
        return None
    screen_width, screen_height = struct.unpack_from("<HH", data, 6)
    left, top, width, height = struct.unpack_from("<HHHH", data, position + 1)
    return max(screen_width, left + width), max(screen_height, top + height)


def walk_bmp(data: bytes) -> Structure:
    """Read a BMP's header."""
    if len(data) < 34:
        return Structure("BMP", data)
    size, width, height, bits, compression = struct.unpack_from("<III2xHI", data, 14)
    if size == 12:  # the oldest version, with shorter fields
        width, _, bits = struct.unpack_from("<HH2xH", data, 18)
        compression = 0
    if compression not in (1, 2):
        # Rows are decoded whole: a long one is assembled from pieces of the file.
        return Structure("BMP", data, 3 * (width * bits // 8))
    pixels = width * min(height, (1 << 32) - height)
    check_count("run-length coded BMP", pixels, "pixels", MAX_RLE_PIXELS)
    check_count("run-length coded BMP", len(data), "bytes", MAX_RLE_BYTES)
    return Structure("BMP", data, 3 * pixels)


# First bytes → walker. As few bytes as identify the kind, so that a file with damage after them is reported as
# damaged.
WALKS: dict[bytes, Callable[[bytes], Structure]] = {
    b"\xff\xd8": walk_jpeg,
    b"\x89PNG": walk_png,
    b"RIFF": walk_webp,
    b"GIF8": walk_gif,
    b"BM": walk_bmp,
}
