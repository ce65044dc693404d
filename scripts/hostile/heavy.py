"""Bodies at the limit of their size, most of them a few kilobytes on the way: each may cost something, none much."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from scripts.hostile.judge import Case
from scripts.hostile.pictures import base_pictures
from scripts.hostile.routes import BOUNDARY, FORM, JSON, MODEL, form
from scripts.hostile.wire import build

LIMIT = 32 << 20  # bytes of a body
PICTURE = "jpeg-baseline"
URL_ENCODED = "application/x-www-form-urlencoded"


def picture() -> bytes:
    """Return a small good picture."""
    return base_pictures()[PICTURE]


def heavy_cases(size: int) -> Iterator[Case]:
    """Yield bodies that inflate to the limit and beyond: each may cost time and memory, none much."""
    v1, v2 = f"/v1/models/{MODEL}", f"/v2/models/{MODEL}/infer"
    nines = b"9" * 4300
    count = max(10, min(400, size // 4300))
    shape = (
        b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1'
        + (b"," + nines) * count
        + b'],"data":[]}]}'
    )
    keys = b",".join(b'"%d":1' % i for i in range(size // 1500))
    context = (
        b'{"context":{"image_bytes":1,'
        + keys
        + b'},"examples":['
        + b"{}," * (size // 500)
        + b"{}]}"
    )
    texts = {
        "big shape": (v2, shape),
        "context": (f"{v1}:classify", context),
        "long name": (
            f"{v1}:predict",
            b'{"signature_name":"' + b"x" * (size - 100) + b'","instances":[1]}',
        ),
        "surrogate": (f"{v1}:predict", b'{"signature_name":"\\ud800","instances":[1]}'),
        "digits": (f"{v1}:predict", b'{"instances":[' + b"9" * (size - 100) + b"]}"),
        "values": ("/predict", b'{"images":[' + b"1," * (size // 2 - 50) + b"1]}"),
        "lists": (f"{v1}:predict", b'{"instances":[' + b"[]," * (size // 3 - 50) + b"1]}"),
        "pixels": (f"{v1}:predict", b'{"instances":[' + b"7," * 3_900_000 + b"7]}"),
        "blanks": ("/predict", b'{"images":[{"b64":"' + b" " * (size - 100) + b'"}]}'),
        "nesting": (f"{v1}:predict", b'{"instances":' + b"[" * (size - 100)),
        "names": ("/predict", b"{" + b",".join(b'"%d":1' % i for i in range(size // 12)) + b"}"),
        "escapes": ("/predict", b'{"heatmap":"' + b"\\u00e9" * (size // 6 - 50) + b'"}'),
        "bomb": (f"{v1}:predict", bytes(8 * LIMIT)),
    }
    for name, (path, text) in texts.items():
        headers = {"Content_Type": JSON, "Content_Encoding": "gzip"}
        yield Case(f"heavy {name}", build("POST", path, gzip.compress(text, 1, mtime=0), **headers))
    for option in ("heatmap", "model", "odd"):
        data = form(picture(), **{option: "a" * (size - 10_000)})
        yield Case(f"heavy field {option}", build("POST", "/predict", data, Content_Type=FORM))
    flood = (b"&a1" * size)[: size - 100]
    yield Case("heavy fields", build("POST", "/predict", flood, Content_Type=URL_ENCODED))
    lot = form(picture()).replace(BOUNDARY.encode(), b"b") * (size // 2000)
    kind = "multipart/form-data; boundary=b"
    yield Case("heavy parts", build("POST", "/predict", lot, Content_Type=kind))
