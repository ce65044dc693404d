"""Names of the file types that are often sent instead of a supported image, found by their first bytes."""

from __future__ import annotations

import re

HEAD_BYTES = 1024
MAX_QUOTED = 40  # characters of a text that are quoted

# Type → its first bytes.
MAGIC = {
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    "JPEG 2000": (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"),
    "JPEG XL": (b"\x00\x00\x00\x0cJXL ", b"\xff\x0a"),
    "PSD": (b"8BPS",),
    "ICO": (b"\x00\x00\x01\x00",),
    "PDF": (b"%PDF",),
    "a ZIP archive": (b"PK\x03\x04",),
    "a gzip file": (b"\x1f\x8b",),
    "a video": (b"\x1aE\xdf\xa3",),  # Matroska, WebM
}
# Type → brands of ISO media files, which follow "ftyp".
BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"),
    "HEIF": (b"mif1", b"msf1"),
    "a raw photo": (b"crx ",),
}
CONVERTIBLE = {"TIFF", "JPEG 2000", "JPEG XL", "PSD", "ICO", "SVG", "AVIF", "HEIC", "HEIF"}
CONVERTIBLE |= {"a raw photo"}
BASE64 = re.compile(rb"data:image/|/9j/|iVBORw0KGgo|R0lGOD|UklGR")  # of the supported formats


def name_type(data: bytes) -> str:
    """Return the type of a file that is no supported image, or an empty string if it is unknown."""
    if data[4:8] == b"ftyp":
        return name_media(data)
    for name, starts in MAGIC.items():
        if data.startswith(starts):
            return name
    return name_markup(data[:HEAD_BYTES])


def name_media(data: bytes) -> str:
    """Return the type of an ISO media file by its major brand; HEIF files may name a closer one behind it."""
    size = min(int.from_bytes(data[:4], "big"), HEAD_BYTES)
    brands = [data[8:12], *(data[place : place + 4] for place in range(16, size - 3, 4))]
    found = {name for name, known in BRANDS.items() if set(known) & set(brands)}
    if not set(brands[:1]) & {brand for known in BRANDS.values() for brand in known}:
        return "a video"
    return next(name for name in BRANDS if name in found)


def name_markup(head: bytes) -> str:
    """Return the type of a file of tags, or an empty string."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype")) and b"<svg" in text:
        return "SVG"
    return "XML" if text.startswith(b"<?xml") else ""


def describe_unknown(data: bytes) -> str:
    """Return what can be said of a file of unknown type: that it is text, or nothing."""
    head = data[:HEAD_BYTES]
    if BASE64.match(head):
        return "it is base64 text: decode it, or send it as 'b64'"
    text = " ".join(head.decode("ascii", "replace").split())
    if not text or not all(" " <= letter <= "~" for letter in text):
        return "its type is unknown"
    shown = text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}…"
    return f'it is text that begins with "{shown}"'
