"""Decoding a file to pixels matches the independent reference."""

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from app.errors import ImageTooLarge, ServingError, UnreadableImage, UnsupportedType
from app.processing.file_types import CONVERTIBLE
from app.processing.images import MAX_UNCUT, InputTransform, decode_image, prepare_pixels
from tests import reference
from tests.helpers import ROOT, STREET, encode, photo_like, png_bomb

LIMIT = 50_000_000


def decode(data: bytes, **options) -> np.ndarray:
    return decode_image(io.BytesIO(data), options.pop("max_pixels", LIMIT), **options)


def expected(data: bytes) -> np.ndarray:
    image = reference.as_rgb(data).resize((224, 224), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def gray_ramp_16_bit() -> Image.Image:
    return Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))


def animated_gif() -> bytes:
    frames = [photo_like().quantize(), Image.new("P", (60, 40))]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


IMAGES = {
    "JPEG": encode(photo_like(), "JPEG"),
    "JPEG, gray": encode(photo_like(mode="L"), "JPEG"),
    "JPEG, CMYK": encode(photo_like(mode="CMYK"), "JPEG"),
    "JPEG, progressive": encode(photo_like(300, 200), "JPEG", progressive=True),
    "JPEG of several pictures, as phones make them": encode(
        photo_like(), "MPO", save_all=True, append_images=[photo_like(30, 20)]
    ),
    "PNG": encode(photo_like(), "PNG"),
    "PNG, gray": encode(photo_like(mode="L"), "PNG"),
    "PNG, black and white": encode(photo_like(mode="1"), "PNG"),
    "PNG, palette": encode(photo_like().quantize(16), "PNG"),
    "PNG, palette with a transparent color": encode(
        photo_like().quantize(16), "PNG", transparency=3
    ),
    "PNG, gray with alpha": encode(photo_like(mode="LA"), "PNG"),
    "PNG, alpha": encode(photo_like(mode="RGBA"), "PNG"),
    "PNG, 16-bit gray": encode(gray_ramp_16_bit(), "PNG"),
    "WebP": encode(photo_like(), "WEBP"),
    "WebP, alpha": encode(photo_like(mode="RGBA"), "WEBP", lossless=True),
    "BMP": encode(photo_like(), "BMP"),
    "GIF": encode(photo_like().quantize(), "GIF"),
    "GIF, animated": animated_gif(),
    "WebP, animated": encode(
        photo_like(), "WEBP", save_all=True, append_images=[photo_like(mode="L")]
    ),
    "one pixel": encode(photo_like(1, 1), "PNG"),
    "a thin line": encode(photo_like(2000, 1), "PNG"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_any_kind_is_read_as_the_reference_reads_it(name):
    pixels = decode(IMAGES[name])
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == np.uint8
    assert pixels.flags["C_CONTIGUOUS"]
    difference = np.abs(pixels.astype(int) - expected(IMAGES[name]).astype(int))
    assert difference.max() <= (1 if "alpha" in name else 0)


def test_photographs_are_read_exactly_as_the_reference_reads_them(photos):
    for photo in photos:
        data = photo.read_bytes()
        assert np.array_equal(decode(data), expected(data)), photo.name


def test_transparent_pixels_become_white():
    hidden_red = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    assert (decode(encode(hidden_red, "PNG")) == 255).all()


def test_a_16_bit_ramp_keeps_its_middle_gray():
    assert 120 < decode(encode(gray_ramp_16_bit(), "PNG")).mean() < 135


def test_exif_orientation_is_ignored_unless_configured():
    upright = photo_like(60, 40)
    turned = encode(upright, "PNG", exif=exif_orientation(6))  # 6: turn by 90° to see it upright
    assert np.array_equal(decode(turned), expected(encode(upright, "PNG")))
    rotated = upright.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(decode(turned, exif_rotate=True), expected(encode(rotated, "PNG")))


def exif_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_decoded_at_a_fraction_of_its_size_is_nearly_the_same(mode):
    data = encode(photo_like(2000, 1500, "RGB").convert(mode), "JPEG", quality=90)
    difference = np.abs(decode(data, fast=True).astype(int) - expected(data))
    assert difference.mean() < 1
    assert difference.max() < 16


@pytest.mark.parametrize("kind", IMAGES)
def test_the_fast_path_stays_within_1_of_255(kind):
    difference = decode(IMAGES[kind], fast=True).astype(int) - expected(IMAGES[kind])
    assert np.abs(difference).max() <= 1


def test_photographs_decoded_by_the_fast_path_stay_within_1_of_255(photos):
    for data in [STREET.read_bytes(), *(path.read_bytes() for path in photos)]:
        assert np.abs(decode(data, fast=True).astype(int) - expected(data)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 100_000), (100_000, 1), (6000, 4000)])
def test_images_of_any_shape_are_resized_by_the_fast_path(size):
    data = encode(photo_like(*size), "BMP")
    assert np.abs(decode(data, fast=True).astype(int) - expected(data)).max() <= 1


def cropped(image: Image.Image, transform: InputTransform) -> np.ndarray:
    """Return torchvision's crop of an RGB image: (3, side, side) int."""
    steps = [transforms.Resize(transform.resize), transforms.CenterCrop(transform.side)]
    return np.asarray(transforms.Compose(steps)(image)).transpose(2, 0, 1).astype(int)


FRAMES = [
    InputTransform(224, 256),
    InputTransform(224, 224),
    InputTransform(96, 131),
    InputTransform(33, 200),
    InputTransform(1, 5),
]


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    size=st.one_of(
        st.tuples(st.integers(1, 400), st.integers(1, 400)),
        st.tuples(st.just(1), st.integers(1, 150)),
        st.tuples(st.integers(1, 150), st.just(1)),
    ),
    transform=st.sampled_from(FRAMES),
    seed=st.integers(0, 9),
)
def test_the_center_crop_of_any_shape_equals_torchvisions_exactly_and_the_fast_path_nearly(
    size, transform, seed
):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise)
    data = encode(image, "BMP")
    expected = cropped(image, transform)
    exact, fast = (decode(data, fast=fast, transform=transform) for fast in (False, True))
    if np.prod(transform.uncut(*size)) <= MAX_UNCUT:
        assert np.array_equal(exact, expected)
    check_near(exact, expected)
    check_near(fast, expected)


def check_near(pixels: np.ndarray, expected: np.ndarray) -> None:
    """Assert that values are within 1 of 255, but for a few that are 2 apart (see resize_fast)."""
    difference = np.abs(pixels - expected)
    assert difference.max() <= 2
    assert (difference > 1).sum() <= max(1, 1e-4 * difference.size)


@pytest.mark.parametrize("transform", [InputTransform(224, 256), InputTransform(300, 300)])
def test_photographs_are_cropped_as_torchvision_crops_them(photos, transform):
    for data in [STREET.read_bytes(), *(path.read_bytes() for path in photos)]:
        expected = cropped(reference.as_rgb(data), transform)
        assert np.array_equal(decode(data, transform=transform), expected)
        check_near(decode(data, fast=True, transform=transform), expected)


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)])
def test_only_the_center_of_a_very_long_image_is_resized(size):
    """The whole resized image would have 6.5 gigapixels. Its center comes from the 18 pixels in the center."""
    noise = np.random.default_rng(5).integers(0, 256, (100_000, 3), np.uint8)
    long, short = (
        Image.fromarray(part.reshape(len(part), 1, 3)) for part in (noise, noise[49_991:50_009])
    )
    if size[0] > size[1]:
        long, short = (image.transpose(Image.Transpose.TRANSPOSE) for image in (long, short))
    transform = InputTransform(224, 256)
    check_near(decode(encode(long, "BMP"), transform=transform), cropped(short, transform))


def test_a_large_jpeg_is_decoded_at_no_less_than_twice_the_size_of_a_crop():
    data = encode(photo_like(2000, 1500), "JPEG", quality=90)
    seen = {
        resize: np.abs(
            decode(data, fast=True, transform=InputTransform(224, resize)) - expected
        ).max()
        for resize in (300, 700, 760)
        for expected in [cropped(reference.as_rgb(data), InputTransform(224, resize))]
    }
    assert seen[300] > 1  # at a half: 750 px
    assert seen[700] <= seen[760] <= 1  # a half would be less than 1,400 px


@pytest.mark.parametrize("side", [1, 96, 299])
def test_an_image_is_resized_to_any_side_length(side):
    expected = np.asarray(Image.open(STREET).resize((side, side), Image.Resampling.BILINEAR))
    pixels = decode(STREET.read_bytes(), transform=InputTransform(side))
    assert np.array_equal(pixels, expected.transpose(2, 0, 1))
    fast = decode(STREET.read_bytes(), fast=True, transform=InputTransform(side)).astype(int)
    assert np.abs(fast - pixels).max() <= 1


def test_an_empty_file_is_reported():
    with pytest.raises(UnreadableImage, match="0 bytes"):
        decode(b"")


def test_a_text_file_is_reported_with_its_first_bytes():
    with pytest.raises(UnreadableImage, match="hello"):
        decode(b"hello, I am no picture")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_jpeg_is_refused(share):
    data = STREET.read_bytes()
    with pytest.raises(UnreadableImage, match="JPEG"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"II*\x00", "TIFF"),
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"\x00\x00\x00\x18ftypavif", "AVIF"),
        (b"\x00\x00\x00\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\x00\x00\x00\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\x00\x00\x00\x18ftypmif1\0\0\0\0mif1miaf", "HEIF"),
        (b"\x00\x00\x00\x18ftypisom", "a video"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns=", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg>", "SVG"),
        (b"<?xml version='1.0'?><note/>", "XML"),
        (b"\n<!DOCTYPE html><html><svg>", "an HTML page"),
    ],
)
def test_an_image_of_an_unsupported_type_is_named(head, name):
    with pytest.raises(UnsupportedType) as caught:
        decode(head + bytes(100))
    text = caught.value.message
    assert text.startswith(f"image is {name}; accepted are JPEG, PNG, WebP, BMP, GIF")
    assert text.endswith("; save it as JPEG or PNG") == (name in CONVERTIBLE)


def test_an_image_over_the_limit_is_refused_by_its_header_alone():
    with pytest.raises(ImageTooLarge, match=r"169,000,000 pixels .* limit is 50,000,000"):
        decode(png_bomb())


def test_an_image_at_the_limit_is_served():
    assert decode(encode(photo_like(100, 100), "PNG"), max_pixels=10_000).shape == (3, 224, 224)
    with pytest.raises(ImageTooLarge, match=r"10,100 pixels \(101 × 100\)"):
        decode(encode(photo_like(101, 100), "PNG"), max_pixels=10_000)


@pytest.mark.filterwarnings("ignore::UserWarning")
@hypothesis_settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(IMAGES)),
    edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=12),
    keep=st.floats(0.05, 1),
    fast=st.booleans(),
    transform=st.sampled_from([InputTransform(), InputTransform(224, 256)]),
)
def test_damaged_files_are_read_or_refused_but_never_raise_anything_else(
    name, edits, keep, fast, transform
):
    data = bytearray(IMAGES[name])
    for position, value in edits:
        data[position % len(data)] = value
    data = bytes(data[: max(1, int(len(data) * keep))])
    try:
        assert decode(data, fast=fast, transform=transform).shape == (3, 224, 224)
    except ServingError as error:
        assert error.status in (400, 413, 415)


def test_decoding_imports_nothing_more(tmp_path):
    """Two decode threads that import the same module under gevent's patches can wait forever."""
    for index, data in enumerate([b"hello", STREET.read_bytes(), *IMAGES.values()]):
        (tmp_path / str(index)).write_bytes(data)
    program = (
        "import pathlib, sys\n"
        "import app.web.app\n"
        "from app.processing.images import decode_image\n"
        "from app.errors import ServingError\n"
        "before = set(sys.modules)\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try:\n"
        "        decode_image(path.open('rb'), 10**9, exif_rotate=True)\n"
        "    except ServingError:\n"
        "        pass\n"
        "new = set(sys.modules) - before\n"
        "assert not new, new\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("size", [(60, 40), (1, 300), (900, 1000)])
def test_pixels_are_prepared_like_the_same_image_file(size, fast):
    image = photo_like(*size)
    prepared = prepare_pixels(np.asarray(image), LIMIT, fast)
    assert (prepared == decode(encode(image, "PNG"), fast=fast)).all()


def test_too_many_raw_pixels_are_refused_too():
    with pytest.raises(ImageTooLarge, match=r"2,400 pixels \(60 × 40\); the limit is 2,399"):
        prepare_pixels(np.asarray(photo_like()), 2399)
