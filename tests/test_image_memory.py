"""The estimate of decoding memory from the header is compared with the measured memory."""

import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from app.errors import ImageTooLarge
from app.processing.decoding import STRIP_PIXELS, open_image
from app.processing.image_structure import MAX_TABLES, TABLE_BYTES
from app.processing.images import InputTransform, decode_image
from app.processing.memory import (
    FIXED,
    MIB,
    check_memory,
    draft_size,
    estimate_canvas_bytes,
    estimate_decode_bytes,
)
from tests import reference
from tests.bombs import greedy_exif, png, tables_webp, tiny_webp
from tests.helpers import ROOT, encode, photo_like

pytestmark = pytest.mark.slow

SIDE = 2000  # px: nothing that does not grow with the image matters
TABLES = ("lossy-alpha.webp", "lossless.webp", "lossless-alpha.webp")
SLACK = 3 * MIB  # of the estimates: memory of the interpreter itself


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def make_files(width: int, height: int) -> dict[str, bytes]:
    """Return an image of one size in every format and mode."""
    rgba = photo_like(width, height, "RGBA")
    rgb, gray, colors = rgba.convert("RGB"), rgba.convert("L"), rgba.convert("RGB").quantize(64)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) << 8)
    quick = {"compress_level": 1}
    light = {"method": 0, "quality": 0}
    return {
        "rgb.jpg": encode(rgb, "JPEG"),
        "turned.jpg": encode(rgb, "JPEG", exif=exif(6)),
        "progressive.jpg": encode(rgb, "JPEG", progressive=True),
        "progressive-444.jpg": encode(rgb, "JPEG", progressive=True, subsampling=0),
        "gray.jpg": encode(gray, "JPEG"),
        "cmyk.jpg": encode(rgb.convert("CMYK"), "JPEG"),
        "rgb.png": encode(rgb, "PNG", **quick),
        "rgb-transparent.png": encode(rgb, "PNG", transparency=(1, 2, 3), **quick),
        "rgba.png": encode(rgba, "PNG", **quick),
        "gray.png": encode(gray, "PNG", **quick),
        "gray-alpha.png": encode(rgba.convert("LA"), "PNG", **quick),
        "black.png": encode(gray.convert("1"), "PNG", **quick),
        "palette.png": encode(colors, "PNG", **quick),
        "palette-transparent.png": encode(colors, "PNG", transparency=bytes(range(64)), **quick),
        "deep.png": encode(deep, "PNG", **quick),
        "turned.png": encode(rgba, "PNG", exif=exif(8), **quick),
        "palette.gif": encode(colors, "GIF"),
        "palette-transparent.gif": encode(colors, "GIF", transparency=3),
        "rgb.bmp": encode(rgb, "BMP"),
        "palette.bmp": encode(colors, "BMP"),
        "lossy.webp": encode(rgb, "WEBP", **light),
        "lossy-alpha.webp": encode(rgba, "WEBP", **light),
        "lossless.webp": encode(rgb, "WEBP", lossless=True, **light),
        "lossless-alpha.webp": encode(rgba, "WEBP", lossless=True, **light),
    }


@pytest.fixture(scope="module")
def files():
    return make_files(SIDE, SIDE)


def measure(folder, files):
    """Return (file, way, peak, estimate) of each file."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    command = [sys.executable, "-m", "tests.peaks", str(folder)]
    # Freed memory is returned, or a decoding would reuse the leftovers of another.
    quick = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, cwd=ROOT, env=quick, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tables(name: str) -> int:
    """Return the estimate for tables that only a hostile file has."""
    return MAX_TABLES * TABLE_BYTES if name in TABLES else 0


def test_decoding_takes_no_more_than_estimated_and_not_much_less(files, tmp_path):
    wrong = [
        f"{name}, {way}: {peak / MIB:.0f} MiB, estimated {estimate / MIB:.0f}"
        for name, way, peak, estimate in measure(tmp_path, files)
        if not peak - SLACK <= estimate <= 1.5 * peak + 8 * MIB + tables(name)
    ]
    assert not wrong


def test_a_pixel_takes_at_most_ten_bytes_and_in_webp_thirteen(files):
    for name, data in files.items():
        image = open_image(io.BytesIO(data), 10**9)
        most = (estimate_decode_bytes(image) - FIXED - tables(name)) / SIDE**2
        assert most < (14 if name.endswith("webp") else 11), name


def test_claims_of_small_files_take_no_memory_or_are_counted(tmp_path):
    files = {"greedy.jpg": greedy_exif(), "thin.png": png(width=200_000), "t.webp": tables_webp()}
    peaks = measure(tmp_path, files)
    assert max(peak for name, _, peak, _ in peaks if name == "greedy.jpg") < 16 * MIB
    assert all(peak <= estimate + SLACK for _, _, peak, estimate in peaks)


@pytest.mark.parametrize("size", [(701, 523), (STRIP_PIXELS, 2), (1, 200_000)])
def test_large_images_are_converted_to_rgb_in_strips_exactly(size):
    assert size[0] * size[1] > STRIP_PIXELS or size[0] == 1
    for name, data in make_files(
        min(size[0], 16_000), size[1] if size[1] < 65_000 else 16_000
    ).items():
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            expected = reference.as_rgb(data)
            if image.has_transparency_data and image.mode != "I;16":
                layered, expected = image.convert("RGBA"), Image.new("RGB", image.size, "white")
                expected.paste(layered, mask=layered.getchannel("A"))
        small = np.asarray(expected.resize((224, 224), Image.Resampling.BILINEAR)).transpose(
            2, 0, 1
        )
        assert np.array_equal(decode_image(io.BytesIO(data), 10**9), small), name


def test_a_scaled_decoding_takes_less_but_a_progressive_one_keeps_its_coefficients(files):
    def estimate(name, **options):
        return estimate_decode_bytes(open_image(io.BytesIO(files[name]), 10**9), **options)

    assert estimate("rgb.jpg", fast=True) < estimate("rgb.jpg") / 3
    assert estimate("rgb.jpg", fast=True, transform=InputTransform(1000)) > 4 * SIDE**2
    assert estimate("progressive.jpg", fast=True) > 3 * SIDE**2


@pytest.mark.parametrize("size", [(2600, 1300), (450, 449), (897, 5000), (20, 3000)])
@pytest.mark.parametrize("needed", [(448, 448), (1024, 512), (1, 1)])
def test_the_size_of_a_scaled_decoding_is_the_one_that_pillow_takes(size, needed):
    image = open_image(io.BytesIO(encode(photo_like(*size), "JPEG")), 10**9)
    expected_size = draft_size(image, needed)
    image.draft(None, needed)
    assert image.size == expected_size


def test_28_bytes_that_take_half_a_gigabyte_are_refused_with_their_memory():
    data = tiny_webp()
    assert len(data) == 28
    image = open_image(io.BytesIO(data), 10**9)
    needed = estimate_decode_bytes(image)
    expected = (
        r"image needs 575 MiB to decode \(7,060 × 7,060 px, WebP, RGBA\); the limit is 512 MiB"
    )
    with pytest.raises(ImageTooLarge, match=expected):
        check_memory(image, needed, 512 * MIB)
    check_memory(image, needed, needed)


def test_a_small_image_counts_as_small():
    image = open_image(io.BytesIO(encode(photo_like(1600, 1200), "JPEG")), 10**9)
    assert estimate_decode_bytes(image) < 24 * MIB
    assert estimate_canvas_bytes(image) < 64 * MIB


def test_a_burst_of_large_images_among_photographs_leaves_little_memory_behind():
    """The allocator's settings are those of Gunicorn; one large image is decoded at a time."""
    program = (
        "import io, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from app.processing.images import decode_image\n"
        "from tests.bombs import png, tiny_webp\n"
        "from tests.helpers import STREET, encode, photo_like\n"
        "from tests.peaks import read_peak\n"
        "def decode(data):\n"
        "    decode_image(io.BytesIO(data), 10**9)\n"
        "def read_rest():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(line.split()[1]) << 10 for line in lines if line.startswith('VmRSS'))\n"
        "photo = encode(photo_like(1600, 1200), 'JPEG')\n"
        "plain = png(width=6500, height=6500, colors=2)\n"
        "large = [plain, tiny_webp(6500), encode(photo_like(6500, 6500), 'JPEG')]\n"
        "lane, pool = ThreadPoolExecutor(1), ThreadPoolExecutor(4)\n"
        "list(pool.map(decode, [photo, STREET.read_bytes()] * 10))\n"
        "rest = read_rest()\n"
        "burst = lane.map(decode, large * 2), pool.map(decode, [photo] * 40)\n"
        "list(burst[0]), list(burst[1])\n"
        "print(read_peak() - rest, read_rest() - rest)\n"
    )
    script = (ROOT / "scripts" / "run-gunicorn").read_text()
    allocator = dict(re.findall(r"export (MALLOC_\w+)=.*:-(\d+)", script))
    assert len(allocator) == 2
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | allocator,
        capture_output=True,
        text=True,
        check=True,
    )
    peak, left = map(int, done.stdout.split())
    assert peak < 600 * MIB
    assert left < 100 * MIB
