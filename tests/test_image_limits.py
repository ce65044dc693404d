"""Hostile, damaged and odd files are refused at once or served soon, with plain messages."""

import io
import struct
import subprocess
import sys
import time
from base64 import b64encode

import numpy as np
import pytest
from PIL import Image, ImageOps

from app.errors import ImageTooLarge, ServingError, UnreadableImage
from app.processing.decoding import open_image
from app.processing.image_parts import read_orientation
from app.processing.images import WHOLE, InputTransform, decode_image
from tests.bombs import HARMLESS, REFUSED, scans, webp
from tests.helpers import ROOT, STREET, encode, photo_like
from tests.test_images import IMAGES

LIMIT = 50_000_000
KINDS = ("JPEG", "PNG", "WebP", "GIF", "BMP")
PLAIN = {
    kind: encode(photo_like(300, 200, "P" if kind == "GIF" else "RGB"), kind) for kind in KINDS
}


def decode(data: bytes, **options) -> np.ndarray:
    return decode_image(io.BytesIO(data), LIMIT, **options)


def message(data: bytes, **options) -> str:
    """Return the message that refuses a file."""
    with pytest.raises(ServingError) as caught:
        decode(data, **options)
    return caught.value.message


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_too_many_parts_is_refused_at_once_with_the_count_and_the_limit(name):
    make, words = REFUSED[name]
    data = make()
    began = time.thread_time()
    with pytest.raises(ImageTooLarge, match=words):
        open_image(io.BytesIO(data), LIMIT)
    assert time.thread_time() - began < 1


@pytest.mark.parametrize("name", HARMLESS)
def test_data_that_does_not_reach_the_decoder_costs_little(name):
    data = HARMLESS[name]()
    began = time.thread_time()
    assert decode(data).shape == (3, 224, 224)
    assert time.thread_time() - began < 4


def test_skipped_data_changes_no_pixel():
    odd = Image.Exif()
    odd[0x010E] = "a description"
    extra = {
        "exif": odd,
        "comment": b"about it",
        "icc_profile": bytes(100_000),
        "progressive": True,
    }
    photo = photo_like(300, 200)
    assert np.array_equal(
        decode(encode(photo, "JPEG", **extra)), decode(encode(photo, "JPEG", progressive=True))
    )
    assert np.array_equal(decode(webp()), decode(encode(photo_like(), "WEBP")))


def test_a_video_behind_a_photograph_does_not_count_as_scans():
    video = np.random.default_rng(3).integers(0, 256, 8 << 20, np.uint8).tobytes()
    assert video.count(b"\xff\xda") > 100
    assert np.array_equal(decode(PLAIN["JPEG"] + video), decode(PLAIN["JPEG"]))


def test_all_ordinary_scans_are_decoded():
    assert np.array_equal(decode(scans(90)), decode(scans(0)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(kind, orientation):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a maker", orientation
    data = encode(photo_like(90, 60), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = upright.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    assert np.array_equal(decode(data, exif_rotate=True), np.asarray(expected).transpose(2, 0, 1))


def test_damaged_exif_does_not_change_an_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = exif.tobytes()
    assert read_orientation(whole) == 6
    rng = np.random.default_rng(2)
    for _ in range(2000):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        assert 1 <= read_orientation(bytes(damaged[: rng.integers(1, len(damaged) + 1)])) <= 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [8, 14, 25, 40, 400])
def test_a_truncated_file_is_reported_as_a_damaged_one_of_its_format(kind, keep):
    if kind == "WebP" and keep < 12:
        keep = 12  # before that it is a RIFF of any kind
    text = message(PLAIN[kind][:keep])
    assert text.startswith(f"image begins like a {kind} but is damaged: ")
    assert_plain(text)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello, I am none", 'it is text that begins with "hello, I am none"'),
        (b"image,labels\nstreet.jpg", 'it is text that begins with "image,labels street.jpg"'),
        (b"x" * 500, f'it is text that begins with "{"x" * 40}…"'),
        (b64encode(PLAIN["JPEG"]), "it is base64 text: decode it, or send it as 'b64'"),
        (b"data:image/png;base64,iVBO", "it is base64 text: decode it, or send it as 'b64'"),
        (b"\x00\x01'\"\xff", "its type is unknown"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "its type is unknown"),
    ],
)
def test_other_files_are_described_in_plain_words(data, words):
    assert message(data) == f"image is neither JPEG, PNG, WebP, BMP nor GIF; {words}"


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_file_that_was_cut_off_is_reported_as_one(keep):
    for kind in ("JPEG", "PNG", "BMP", "GIF"):
        data = PLAIN[kind][: int(len(PLAIN[kind]) * keep)]
        text = message(data)
        assert text == f"image begins like a {kind} but is damaged: the file ends too early"


def assert_plain(text: str) -> None:
    """Assert that a message is for people: no Python in it, and not long."""
    assert len(text) <= 300
    assert all(" " <= letter <= "~" or letter == "×" for letter in text), text
    for python in ("b'", 'b"', "<_io", "object at", "\\x", "None", "Error"):
        assert python not in text, text


def test_an_image_that_memory_cannot_hold_is_refused():
    """A separate process has 100 MiB for an image that needs 190."""
    program = (
        "import io, resource\n"
        "from app.errors import ImageTooLarge\n"
        "from app.processing.images import decode_image\n"
        "from tests.bombs import png\n"
        "data = png(width=7000, height=7000, colors=2)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))\n"
        "try:\n"
        "    decode_image(io.BytesIO(data), 50_000_000)\n"
        "except ImageTooLarge as error:\n"
        "    print(error.message)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "image is a PNG that needs more memory than is free\n", done.stderr


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a damaged file: changed bytes, a piece cut out, doubled or moved, the end cut off."""
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        start = int(rng.integers(len(damaged)))
        piece = damaged[start : start + int(rng.integers(1, 64))]
        match rng.integers(5):
            case 0:
                damaged[start] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
            case 1:
                damaged[start : start + len(piece)] = rng.bytes(len(piece))
            case 2 if len(damaged) > 2 * len(piece):
                del damaged[start : start + len(piece)]
            case 3:
                damaged[start:start] = piece * int(rng.integers(1, 20))
            case 4 if rng.random() < 0.3:
                damaged = damaged[: max(2, start)]
    return bytes(damaged)


def test_two_thousand_mutations_are_read_or_refused_with_a_plain_message():
    rng = np.random.default_rng(11)
    files = [*IMAGES.values(), webp(), scans(2), STREET.read_bytes()[:20_000]]
    for index in range(2000):
        data = mutate(files[index % len(files)], rng)
        options = {"fast": bool(index % 2), "exif_rotate": bool(index % 3)}
        transform = WHOLE if index % 5 else InputTransform(224, 256)
        try:
            assert decode(data, transform=transform, **options).shape == (3, 224, 224)
        except UnreadableImage as error:
            assert_plain(error.message)
        except ServingError as error:
            assert error.status in (413, 415)


def test_a_gif_whose_image_lies_far_outside_of_its_screen_is_refused_before_it_is_opened(
    monkeypatch,
):
    """Pillow allocates the grown screen, 17 gigabytes here, if the image is to be cleared afterwards."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 65_535, 65_535, 65_535, 65_535, 0) + b"\x02\0"
    bomb = screen + b"!\xf9\x04\x08\0\0\0\0" + frame + b";"

    def never(*_, **__):
        raise AssertionError("it was opened")

    monkeypatch.setattr(Image, "open", never)
    with pytest.raises(ImageTooLarge, match=r"131,070 × 131,070"):
        decode_image(io.BytesIO(bomb), 50_000_000)
