"""Measure the memory of decodings, in a separate program since other work would leave memory behind.

``python -m tests.peaks FOLDER`` decodes each file of a folder in each way, every time in a fork of its own, and
prints JSON: (file, way, the bytes of the peak over rest, the bytes that were estimated).
"""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from app.processing.decoding import open_image
from app.processing.heatmap import HeatMap, Style, draw_heat_map, open_canvas
from app.processing.images import WHOLE, InputTransform, prepare_image
from app.processing.memory import estimate_canvas_bytes, estimate_decode_bytes
from tests.helpers import STREET

LIMIT = 10**9
CROPPED = InputTransform(224, 256)


def decode(data: bytes, **options: object) -> None:
    prepare_image(open_image(io.BytesIO(data), LIMIT), **options)


def draw(data: bytes) -> None:
    canvas = open_canvas(io.BytesIO(data), LIMIT)
    spot = HeatMap(np.eye(7, dtype=np.float32), 1.0)
    draw_heat_map(canvas, spot, WHOLE, Style(enlarged=True))


def way(**options: object) -> tuple[Callable[[bytes], None], Callable[[Image.Image], int]]:
    """Return a function that decodes, and one that estimates its memory."""
    return (
        lambda data: decode(data, **options),
        lambda image: estimate_decode_bytes(image, **options),
    )


WAYS = {
    "exact": way(),
    "fast": way(fast=True),
    "cropped": way(fast=True, transform=CROPPED),
    "lanczos": way(transform=InputTransform(224, 256, "lanczos")),
    "sampled": way(transform=InputTransform(224, 256, antialias=False)),
    "turned": way(exif_rotate=True),
    "drawn": (draw, estimate_canvas_bytes),
}


def read_peak() -> int:
    """Return the most bytes of memory that this process had since its peak was reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure(data: bytes, work: Callable[[bytes], None]) -> int:
    """Run a function in a fork and return its peak over rest, in bytes."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        rest = read_peak()
        work(data)
        os.write(writer, str(read_peak() - rest).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        peak = int(pipe.read())
    os.waitpid(child, 0)
    return peak


def main(folder: Path) -> None:
    for work, _ in WAYS.values():
        work(STREET.read_bytes())
    rows = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for name, (work, estimate) in WAYS.items():
            estimated = estimate(open_image(io.BytesIO(data), LIMIT))
            rows.append((path.name, name, measure(data, work), estimated))
    print(json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
