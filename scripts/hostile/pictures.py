"""The undamaged pictures that the mutators start from: small files of every format and mode that is served."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

WIDTH, HEIGHT = 61, 43  # odd, so that blocks, rows and passes end unevenly
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Adam7: first column, first row, column step, row step of each pass.
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


@cache
def base_pictures() -> dict[str, bytes]:
    """Return a file for each format and mode by its name; the name begins with the format."""
    return dict([*jpegs(), *pngs(), *gifs(), *webps(), *bmps()])


def draw(mode: str, shift: int = 0) -> Image.Image:
    """Return a smooth picture with all its channels busy; the same each time."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    waves = [128 + 127 * np.sin((rows * a + columns * b + shift) / 9) for a, b in COURSES]
    picture = Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8), "RGBA")
    if mode == "I;16":
        return Image.fromarray((waves[0] * 256).astype(np.uint16))
    if mode == "PA":
        return picture.quantize(32)
    return picture.convert(mode)


COURSES = ((1, 2), (2, -1), (-1, 1), (0, 1))


def save(mode: str, kind: str, shift: int = 0, **options: object) -> bytes:
    """Return a drawn picture as a file."""
    file = io.BytesIO()
    draw(mode, shift).save(file, kind, **options)
    return file.getvalue()


def jpegs() -> Iterator[tuple[str, bytes]]:
    """Yield JPEG files."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    exif[0x010E] = "a description"
    yield "jpeg-baseline", save("RGB", "JPEG")
    yield "jpeg-progressive", save("RGB", "JPEG", progressive=True)
    yield "jpeg-444", save("RGB", "JPEG", subsampling=0, quality=95)
    yield "jpeg-grey", save("L", "JPEG")
    yield "jpeg-grey-progressive", save("L", "JPEG", progressive=True)
    yield "jpeg-cmyk", save("CMYK", "JPEG")
    yield "jpeg-restarts", save("RGB", "JPEG", restart_marker_blocks=2)
    yield "jpeg-exif", save("RGB", "JPEG", exif=exif, comment=b"a comment", dpi=(72, 72))
    yield "jpeg-icc", save("RGB", "JPEG", icc_profile=bytes(range(256)) * 8)
    # Pillow reads arithmetic coding but cannot write it: the header alone says so here.
    yield "jpeg-arithmetic", save("RGB", "JPEG").replace(b"\xff\xc0", b"\xff\xc9", 1)


def pngs() -> Iterator[tuple[str, bytes]]:
    """Yield PNG files."""
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "PA"):
        yield f"png-{mode}", save(mode, "PNG")
    yield "png-P-tRNS", save("P", "PNG", transparency=bytes(range(256)))
    yield "png-RGB-tRNS", save("RGB", "PNG", transparency=(128, 128, 128))
    yield "png-I;16-tRNS", save("I;16", "PNG", transparency=1000)
    texts = PngInfo()
    texts.add_text("Comment", "x" * 500, zip=True)
    texts.add_itxt("Title", "ünïcode", "de", "Titel", zip=True)
    yield (
        "png-texts",
        save("RGB", "PNG", pnginfo=texts, dpi=(72, 72), exif=b"Exif\0\0II*\0\x08\0\0\0"),
    )
    yield "png-icc", save("RGB", "PNG", icc_profile=bytes(range(256)) * 8)
    frames = [draw("RGBA", shift) for shift in (9, 18)]
    yield "png-animated", save("RGBA", "PNG", save_all=True, append_images=frames)
    yield "png-interlaced", interlace(np.asarray(draw("RGB")), 2)
    yield "png-interlaced-grey", interlace(np.asarray(draw("L"))[..., None], 0)


def gifs() -> Iterator[tuple[str, bytes]]:
    """Yield GIF files."""
    frames = [draw("P", shift) for shift in (9, 18)]
    yield "gif-plain", save("P", "GIF", interlace=0)
    yield "gif-interlaced", save("L", "GIF", interlace=1)
    yield "gif-transparent", save("P", "GIF", transparency=7)
    yield "gif-comment", save("P", "GIF", comment=b"a comment " * 60)
    yield "gif-animated", save("P", "GIF", save_all=True, append_images=frames, loop=0, disposal=2)


def webps() -> Iterator[tuple[str, bytes]]:
    """Yield WebP files."""
    frames = [draw("RGBA", shift) for shift in (9, 18)]
    yield "webp-lossy", save("RGB", "WEBP", quality=60)
    yield "webp-lossless", save("RGB", "WEBP", lossless=True)
    yield "webp-alpha", save("RGBA", "WEBP", quality=60)
    yield "webp-alpha-lossless", save("RGBA", "WEBP", lossless=True)
    yield "webp-exif", save("RGB", "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0", icc_profile=b"icc" * 99)
    yield "webp-animated", save("RGBA", "WEBP", save_all=True, append_images=frames, duration=40)


def bmps() -> Iterator[tuple[str, bytes]]:
    """Yield BMP files; Pillow writes no run-length encoding."""
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"bmp-{mode}", save(mode, "BMP")
    rows = b"".join(bytes([WIDTH, row, 0, 0]) for row in range(HEIGHT))
    mixed = b"\x00\x05abcde\x00" + b"\x00\x02\x03\x01" + b"\x08\x09\x00\x00" + rows[4 * 2 :]
    yield "bmp-rle8", run_length_bmp(WIDTH, HEIGHT, 8, rows + b"\x00\x01")
    yield "bmp-rle8-mixed", run_length_bmp(WIDTH, HEIGHT, 8, mixed + b"\x00\x01")
    yield "bmp-rle4", run_length_bmp(WIDTH, HEIGHT, 4, rows + b"\x00\x01")


def run_length_bmp(width: int, height: int, bits: int, data: bytes) -> bytes:
    """Return a BMP whose pixels are run-length encoded as they are given."""
    colors = 1 << bits
    palette = b"".join(bytes([i * 255 // (colors - 1)] * 3 + [0]) for i in range(colors))
    offset = 14 + 40 + len(palette)
    kind = {8: 1, 4: 2}[bits]
    head = struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset)
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, kind, len(data), 2835, 2835, colors, 0
    )
    return head + info + palette + data


def interlace(pixels: np.ndarray, color_type: int) -> bytes:
    """Return (height, width, channels) uint8 as a PNG of seven passes; Pillow reads them but writes none."""
    height, width, _ = pixels.shape
    raw = b"".join(
        b"\x00" + row.tobytes()
        for left, top, across, down in ADAM7
        for row in pixels[top::down, left::across]
        if row.size
    )
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return PNG_MAGIC + b"".join(png_chunk(kind, data) for kind, data in chunks)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
