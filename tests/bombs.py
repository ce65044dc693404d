"""Make small files that are expensive to decode, each named by its excess."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from app.processing.jpeg_structure import walk_segments
from tests.helpers import encode, photo_like, png_chunk

MIB = 1 << 20
MANY = 32 * MIB
JPEG = encode(photo_like(), "JPEG")
GIF = encode(photo_like(mode="L"), "GIF")
GIF_BLOCKS = 13 + (3 << (GIF[10] & 7) + 1)  # their offset


def scans(more: int, side: int = 64) -> bytes:
    """Return a progressive JPEG whose last scan comes so many times more: 98 bytes each, at any size."""
    data = encode(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    *_, (_, table, _), (_, scan, _), (_, end, _) = walk_segments(data)
    assert data[table : table + 2] == b"\xff\xc4"
    assert data[scan : scan + 2] == b"\xff\xda"
    return data[:end] + data[table:end] * more + data[end:]


def segments(count: int) -> bytes:
    """Return a JPEG with so many empty segments before its first scan."""
    return JPEG[:2] + b"\xff\xe5\0\x02" * count + JPEG[2:]


def png(
    *chunks: bytes, width: int = 40, height: int = 30, depth: int = 8, colors: int = 0
) -> bytes:
    """Return a black PNG with more chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colors, 0, 0, 0)
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colors]
    rows = zlib.compress(bytes(height * (1 + width * depth * channels // 8)), 9)
    parts = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", rows), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def webp(*chunks: bytes) -> bytes:
    """Return an extended WebP with more chunks before its pixels."""
    image = encode(photo_like(), "WEBP")[12:]
    body = b"WEBP" + webp_chunk(b"VP8X", b"\0\0\0\0\x3b\0\0\x27\0\0") + b"".join(chunks) + image
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a WebP file."""
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def tiny_webp(side: int = 7060) -> bytes:
    """Return the smallest WebP of a size, 28 bytes: one code for each channel, of one symbol that takes no bits."""
    size = (side - 1) | (side - 1) << 14 | 1 << 28
    codes = sum(1 << 3 + 4 * channel for channel in range(5))
    body = b"WEBP" + webp_chunk(
        b"VP8L", b"/" + struct.pack("<I", size) + struct.pack("<I", codes)[:3]
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tables_webp(side: int = 1024, tables: int = 1 << 16) -> bytes:
    """Return a lossless WebP of 300 KB in which each block of 4 by 4 pixels has tables of its own: 365 MiB."""
    blocks = np.arange((side // 4) ** 2) % tables
    # All symbols of a channel by codes of 8 bits: "1" and "18" have a code of one bit among the lengths' own.
    every = "0" + "0001" + "000" + "100" + "000" * 9 + "100" + "0" + "0" * 256
    numbers = [f"{low:08b}{high:08b}" for low, high in zip(blocks & 255, blocks >> 8, strict=True)]
    lone = "1000" * 5  # five codes of one symbol
    bits = ["0", "0", "1", "000", "0", every + "1" + "1011000", every, "1000" * 3, *numbers]
    stream = np.frombuffer("".join([*bits, lone * tables]).encode(), np.uint8) - ord("0")
    size = struct.pack("<I", (side - 1) | (side - 1) << 14 | 1 << 28)
    packed = np.packbits(stream, bitorder="little").tobytes()
    body = b"WEBP" + webp_chunk(b"VP8L", b"/" + size + packed + bytes(8))
    return b"RIFF" + struct.pack("<I", len(body)) + body


def run_length_bmp(width: int, height: int, data: bytes) -> bytes:
    """Return a BMP of run-length coded pixels."""
    palette = bytes(value for level in range(256) for value in (level, level, 255 - level, 0))
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + palette + data


def gif(before: bytes) -> bytes:
    """Return a GIF with something before its image."""
    return GIF[:GIF_BLOCKS] + before + GIF[GIF_BLOCKS:]


def greedy_exif() -> bytes:
    """Return a JPEG of 61 KB whose EXIF has 5,000 entries that each claim 60,000 bytes: 300 MB."""
    entries = b"".join(struct.pack("<HHII", tag + 1, 7, 60_000, 0) for tag in range(5_000))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5_000) + entries
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + JPEG[2:]


# Refused files, and the words that name the count and the limit.
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "100 more scans": (lambda: scans(100), "101 scans; the limit is 100"),
    "scans, 32 MiB": (lambda: scans(MANY // 98), "101 scans; the limit is 100"),
    "segments, 32 MiB": (lambda: segments(MANY // 4), "2,001 segments; the limit is 2,000"),
    "segments after the first scan, 32 MiB": (
        lambda: JPEG[:-2] + b"\xff\xe5\0\x02" * (MANY // 4) + JPEG[-2:],
        "2,001 segments; the limit is 2,000",
    ),
    "fill bytes of a JPEG, 32 MiB": (
        lambda: JPEG[:-2] + b"\xff" * MANY + JPEG[-2:],
        "4,097 fill bytes in a row; the limit is 4,096",
    ),
    "chunks of a PNG, 32 MiB": (
        lambda: png(png_chunk(b"teSt", b"") * (MANY // 12)),
        "50,001 chunks; the limit is 50,000",
    ),
    "empty pieces of a PNG's pixels, 32 MiB": (
        lambda: png(png_chunk(b"IDAT", b"") * (MANY // 12)),
        "50,001 chunks; the limit is 50,000",
    ),
    "chunks of a WebP, 32 MiB": (
        lambda: webp(webp_chunk(b"some", b"") * (MANY // 8)),
        "50,001 chunks; the limit is 50,000",
    ),
    "comments of a GIF, 32 MiB": (
        lambda: gif(b"!\xfe" + b"\x01a" * (MANY // 2) + b"\0"),
        "10,001 blocks before its first image; the limit is 10,000",
    ),
    "empty extensions of a GIF, 32 MiB": (
        lambda: gif(b"!\xf9\0" * (MANY // 3)),
        "10,001 blocks before its first image; the limit is 10,000",
    ),
    "bytes between a GIF's blocks, 32 MiB": (
        lambda: gif(b"x" * MANY),
        "1,001 bytes outside of blocks; the limit is 1,000",
    ),
    "pixels of a run-length coded BMP": (
        lambda: run_length_bmp(3000, 2000, b"\xff\x01" * 24_000),
        "6,000,000 pixels; the limit is 4,000,000",
    ),
    "runs of a run-length coded BMP": (
        lambda: run_length_bmp(2000, 2000, b"\0\x02\0\0" * (MANY // 4)),
        "bytes; the limit is 4,000,000",
    ),
    "px in a row": (lambda: png(width=49_000_000, height=1), "49,000,000 .* the limit is 200,000"),
    "rows": (lambda: png(width=1, height=4_000_000), "4,000,000 .* the limit is 200,000"),
}

# Served files, because their excess never reaches a decoder.
HARMLESS: dict[str, Callable[[], bytes]] = {
    "90 more scans": lambda: scans(90, 3000),
    "EXIF that claims 300 MB": greedy_exif,
    "compressed texts of 2 GB": lambda: png(
        png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(MIB))) * 2000
    ),
    "49,000 empty pieces of pixels": lambda: png(png_chunk(b"IDAT", b"") * 49_000),
    "a run of stuffed bytes, 32 MiB": lambda: JPEG[:-2] + b"\xff\0" * (MANY // 2) + JPEG[-2:],
    "bytes before a JPEG's first segment, 32 MiB": lambda: JPEG[:2] + bytes(MANY) + JPEG[2:],
    "a second JPEG behind the first": lambda: JPEG + scans(500),
}
