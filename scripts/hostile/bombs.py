"""Pictures that cost far more than their bytes, or are very many of something small; made when asked for."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image

from scripts.hostile.parts import split_file
from scripts.hostile.pictures import PNG_MAGIC, png_chunk, run_length_bmp, save

SIDE = 7060  # px; its square is just below the limit of 50 megapixels
MIB = 1 << 20


def make_bombs(size: int) -> dict[str, Callable[[], bytes]]:
    """Return makers of bombs by their names; those that are long have about ``size`` bytes."""
    jpeg, png, gif = save("RGB", "JPEG"), save("RGB", "PNG"), save("P", "GIF")
    return {
        "webp-38-bytes": lambda: flat_webp(SIDE, SIDE),
        "webp-16383": lambda: flat_webp(16383, 3000),
        "jpeg-scans": lambda: scan_bomb(min(3000, size // 100)),
        "jpeg-empty-segments": lambda: insert(jpeg, 1, repeat(b"\xff\xe1\x00\x02", size)),
        "jpeg-comments": lambda: insert(jpeg, 1, repeat(b"\xff\xfe\x00\x03x", size)),
        "jpeg-fill-bytes": lambda: insert(jpeg, 1, b"\xff" * size),
        "jpeg-tables": lambda: insert(jpeg, 1, repeat(table_of(jpeg, b"\xff\xdb"), size)),
        "jpeg-huffman-tables": lambda: insert(jpeg, 1, repeat(table_of(jpeg, b"\xff\xc4"), size)),
        "jpeg-icc": lambda: insert(jpeg, 1, repeat(app(2, b"ICC_PROFILE\0\x01\x01"), size)),
        "jpeg-photoshop": lambda: insert(
            jpeg, 1, repeat(app(13, b"Photoshop 3.0\0" + PHOTOSHOP), size)
        ),
        "jpeg-exif": lambda: insert(jpeg, 1, repeat(app(1, b"Exif\0\0" + WIDE_IFD), size)),
        "jpeg-mpo": lambda: insert(jpeg, 1, app(2, b"MPF\0" + WIDE_IFD)),
        "jpeg-restarts": lambda: jpeg[:-2] + repeat(b"\xff\xd0", size),
        "png-169-megapixels": lambda: flat_png(13_000, 13_000, 0, 1),
        "png-rgba": lambda: flat_png(SIDE, SIDE, 6, 8),
        "png-palette": lambda: flat_png(
            SIDE, SIDE, 3, 8, png_chunk(b"PLTE", bytes(768)), png_chunk(b"tRNS", b"a")
        ),
        "png-16-bit": lambda: flat_png(SIDE, SIDE, 0, 16),
        "png-interlaced": lambda: flat_png(SIDE, SIDE, 6, 8, interlaced=1),
        "png-empty-chunks": lambda: insert(png, 2, repeat(png_chunk(b"teSt", b""), size)),
        "png-empty-IDATs": lambda: insert(png, -2, repeat(png_chunk(b"IDAT", b""), size)),
        "png-text-bombs": lambda: insert(png, 2, repeat(png_chunk(b"zTXt", TEXT_BOMB), size)),
        "png-texts": lambda: insert(png, 2, repeat(png_chunk(b"tEXt", b"a\0b"), size)),
        "png-icc-bomb": lambda: insert(
            png, 2, png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(64 * MIB)))
        ),
        "png-trailing-IDAT": lambda: insert(png, -1, png_chunk(b"IDAT", bytes(size))),
        "gif-comments": lambda: insert(gif, 1, repeat(b"!\xfe\x01a\0", size)),
        "gif-comment-blocks": lambda: insert(gif, 1, b"!\xfe" + repeat(b"\x01a", size) + b"\0"),
        "gif-extensions": lambda: insert(gif, 1, repeat(b"!\xf9\x04\0\0\0\0\0", size)),
        "gif-zero-bytes": lambda: insert(gif, 1, bytes(size)),
        "gif-disposal": gif_outside,
        "png-without-palette": lambda: flat_png(1, 1, 3, 8),
        "png-wide": lambda: flat_png(8_000_000, 1, 0, 1),
        "png-tall": lambda: flat_png(1, 8_000_000, 0, 1),
        "gif-large": lambda: flat("P", "GIF"),
        "bmp-rle-runs": lambda: run_length_bmp(SIDE, SIDE, 8, b"\x01\x05" * (size // 2)),
        "bmp-rle-ends": lambda: run_length_bmp(SIDE, SIDE, 8, b"\0\0" * (size // 2)),
        "bmp-rle-nothing": lambda: run_length_bmp(SIDE, SIDE, 8, b"\0\x01"),
        "bmp-rle-jumps": lambda: run_length_bmp(SIDE, SIDE, 8, b"\0\x02\xff\xff" * (size // 4)),
        "bmp-rle4-long-runs": lambda: run_length_bmp(
            SIDE, SIDE, 4, b"\xff\x15" * min(size // 2, 195_000)
        ),
        "bmp-thin": lambda: run_length_bmp(1, 49_000_000, 8, b"\0\0" * min(size // 2, 1000)),
        "webp-chunks": lambda: insert(
            save("RGBA", "WEBP", exif=b"Exif\0\0"), 2, repeat(b"teSt\0\0\0\0", size)
        ),
    }


PHOTOSHOP = b"8BIM\x04\x04\0\0\0\0\0\0" * 1000
WIDE_IFD = (
    b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + b"\x0e\x01\x02\0\xff\xff\0\0\x08\0\0\0" * 5000
)
TEXT_BOMB = b"a\0\0" + zlib.compress(bytes(MIB - 100))


def repeat(part: bytes, size: int) -> bytes:
    """Return a part as often as it goes into so many bytes."""
    return part * (size // len(part))


def insert(data: bytes, place: int, addition: bytes) -> bytes:
    """Return a file with something inserted before one of its parts."""
    parts = split_file(data)
    return b"".join([*parts[:place], addition, *parts[place:]])


def app(number: int, data: bytes) -> bytes:
    """Return an application segment of a JPEG."""
    return bytes([0xFF, 0xE0 + number]) + struct.pack(">H", len(data) + 2) + data


def table_of(jpeg: bytes, marker: bytes) -> bytes:
    """Return a JPEG's first segment of that kind."""
    return next(part for part in split_file(jpeg) if part.startswith(marker))


def flat(mode: str, kind: str, **options: object) -> bytes:
    """Return a large picture of one color."""
    file = io.BytesIO()
    Image.new(mode, (SIDE, SIDE)).save(file, kind, **options)
    return file.getvalue()


def scan_bomb(scans: int) -> bytes:
    """Return a progressive JPEG whose last scan, which says nothing, is repeated."""
    *before, last, end = split_file(flat("L", "JPEG", progressive=True))
    return b"".join([*before, last * scans, end])


def flat_webp(width: int, height: int) -> bytes:
    """Return a lossless WebP of one color in a few bytes: codes of a single symbol take no bits at all."""
    bits = (width - 1) | (height - 1) << 14 | 1 << 28  # with alpha, version 0
    bits |= sum(
        0b0001 << 35 + 4 * code for code in range(5)
    )  # after three bits: no transform, no cache, one group
    data = b"\x2f" + bits.to_bytes(17, "little")
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def gif_outside() -> bytes:
    """Return a GIF whose only frame lies far outside of its screen and is to be cleared after it."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 65_535, 65_535, 65_535, 65_535, 0) + b"\x02\0"
    return screen + b"!\xf9\x04\x08\0\0\0\0" + frame + b";"


def flat_png(
    width: int, height: int, color_type: int, bits: int, *chunks: bytes, interlaced: int = 0
) -> bytes:
    """Return a PNG of zeros."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    row = bytes(1 + -(-width * channels * bits // 8))
    packer = zlib.compressobj(9)
    rows = height + height // 2 if interlaced else height  # the passes have more, shorter rows
    some = max(1, min(rows, MIB // len(row)))
    packed = [packer.compress(row * some) for _ in range(-(-rows // some))]
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlaced)
    data = png_chunk(b"IDAT", b"".join([*packed, packer.flush()]))
    start = [PNG_MAGIC, png_chunk(b"IHDR", header), *chunks]
    return b"".join([*start, data, png_chunk(b"IEND", b"")])
