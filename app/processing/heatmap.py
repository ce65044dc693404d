"""Heat maps: the areas of an image that a label is based on, as numbers and as colors over the image.

A map has few cells, 7 × 7 for most networks at 224 px, which cover the network's view of the image. A cell's
value is its contribution to the label's logit (``app/engines/gradcam.py``); negative contributions count as 0.

Everything here is stateless CPU work: safe on any thread. Long calls release the GIL.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from app.processing.decoding import decode_rgb, open_image
from app.processing.images import InputTransform

MAX_SIDE = 1024  # px of a drawing's longer side
SMOOTH = Image.Resampling.BICUBIC  # bilinear leaves a star around every cell
LEVELS = np.linspace(0, 1, 256)

# The colors from cold to hot: dark violet, red, light yellow. Each is lighter than the one before, so
# that the order is visible in grayscale and with color blindness.
ANCHORS = (
    (38, 12, 80),
    (110, 20, 120),
    (190, 45, 100),
    (240, 100, 60),
    (253, 175, 50),
    (252, 250, 150),
)
PALETTE = np.stack(
    [
        np.interp(LEVELS, np.linspace(0, 1, len(ANCHORS)), channel)
        for channel in zip(*ANCHORS, strict=True)
    ],
    axis=1,
)
# Coverage of the image by a level's color, at an opacity of 1: low at the cold end, rising smoothly, steep
# at first.
COLD = 0.2
COVER = COLD + (1 - COLD) * (LEVELS**2 * (3 - 2 * LEVELS)) ** 0.6


@dataclass(frozen=True)
class HeatMap:
    """The heat map of one label.

    Attributes:
        values: (height, width) float32 in 0..1; 1 at the peak, all 0 without a positive contribution.
        peak: the contribution to the logit at the value 1.
    """

    values: np.ndarray
    peak: float


@dataclass(frozen=True)
class Style:
    """The style of a drawing.

    Attributes:
        opacity: 0..1, of the colors over the image.
        enlarged: return a number for every pixel of the drawing instead of every cell.
    """

    opacity: float = 0.5
    enlarged: bool = False


@dataclass(frozen=True)
class Drawing:
    """A heat map over its image.

    Attributes:
        png: the drawing's file.
        numbers: the map as JSON, rows of numbers in 0..1, from the top left.
        took_s: the duration of the drawing.
    """

    png: bytes
    numbers: bytes
    took_s: float


def make_heat_map(features: np.ndarray, gradient: np.ndarray) -> HeatMap:
    """Return the Grad-CAM of one label.

    Args:
        features: (channels, height, width) float32, the last feature map.
        gradient: (channels,) float32, of the label's logit, summed over the map's area.
    """
    channels, height, width = features.shape
    shares = gradient @ features.reshape(channels, -1) / (height * width)
    values = np.maximum(shares, 0, dtype=np.float32).reshape(height, width)
    peak = float(values.max())
    return HeatMap(values / peak if peak > 0 else values, peak)


def open_canvas(
    source: BinaryIO | np.ndarray, max_pixels: int, exif_rotate: bool = False
) -> Image.Image:
    """Read an image to draw on: RGB, at most ``MAX_SIDE`` px, in the network's orientation.

    Args:
        source: a file, as for ``decode_image``; or RGB pixels, (height, width, 3) uint8.
        max_pixels: as for ``decode_image``.
        exif_rotate: as for ``decode_image``.

    Raises:
        ServingError: like ``decode_image``.
    """
    if isinstance(source, np.ndarray):
        canvas = Image.fromarray(source)
    else:
        image = open_image(source, max_pixels)
        canvas = decode_rgb(image, exif_rotate, fit(image.size))
    return canvas.resize(fit(canvas.size), Image.Resampling.BICUBIC, reducing_gap=2)


def draw_heat_map(
    canvas: Image.Image, heat_map: HeatMap, transform: InputTransform, style: Style
) -> Drawing:
    """Draw a heat map over its image.

    Args:
        canvas: the image, from ``open_canvas``.
        heat_map: the map.
        transform: the model's; defines the network's view.
        style: the style.
    """
    began = time.monotonic()
    spread = enlarge(heat_map.values, canvas.size, transform)
    png = write_png(lay_over(canvas, spread, transform, style.opacity))
    numbers = write_numbers(spread if style.enlarged else heat_map.values)
    return Drawing(png, numbers, time.monotonic() - began)


def fit(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a drawing for an image of this size."""
    scale = min(1.0, MAX_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def enlarge(values: np.ndarray, size: tuple[int, int], transform: InputTransform) -> np.ndarray:
    """Return a map resized to its image.

    Args:
        values: (rows, columns) float32 in 0..1.
        size: width and height of the image.
        transform: defines the network's view; the rest of the result is 0.

    Returns:
        (height, width) float32 in 0..1, of the image's size.
    """
    left, top, right, bottom = locate(size, transform)
    smooth = Image.fromarray(values).resize((right - left, bottom - top), SMOOTH)
    enlarged = np.zeros((size[1], size[0]), np.float32)
    enlarged[top:bottom, left:right] = np.asarray(smooth).clip(0, 1)
    return enlarged


def locate(size: tuple[int, int], transform: InputTransform) -> tuple[int, int, int, int]:
    """Return the network's view of an image: left, top, right, bottom, in whole px, never empty."""
    left, top, width, height = transform.seen(*size)
    right, bottom = round(left + width), round(top + height)
    return min(round(left), right - 1), min(round(top), bottom - 1), right, bottom


def lay_over(
    canvas: Image.Image, values: np.ndarray, transform: InputTransform, opacity: float
) -> Image.Image:
    """Draw a map over an image: its colors over the image's grays, so that all color is heat.

    Args:
        canvas: RGB.
        values: (height, width) float32 in 0..1, of the image's size.
        transform: defines the network's view; the rest of the image is faded.
        opacity: 0..1; 0 leaves the image unchanged, from 0.5 on none of its own colors is left.
    """
    seen = locate(canvas.size, transform)
    grays = Image.blend(canvas, ImageOps.grayscale(canvas).convert("RGB"), min(1.0, 2 * opacity))
    drawn = Image.blend(grays, Image.new("RGB", canvas.size, "white"), opacity)
    levels = Image.fromarray((values * 255).round().astype(np.uint8)).crop(seen)
    cover = levels.point((COVER * opacity * 255).round().astype(int).tolist())
    levels.putpalette(PALETTE.round().astype(np.uint8).tobytes())
    drawn.paste(Image.composite(levels.convert("RGB"), grays.crop(seen), cover), seen)
    return drawn


def write_png(image: Image.Image) -> bytes:
    """Return a drawing as a PNG file, at the fastest compression, which is nearly as small."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def write_numbers(values: np.ndarray) -> bytes:
    """Return (height, width) values in 0..1 as JSON, with three digits; 15 ms for a million, without the GIL."""
    rows = NUMBERS[np.rint(values * 1000).astype(np.intp)].reshape(len(values), -1)
    return b"[" + b",".join(b"[" + row.tobytes()[:-1] + b"]" for row in rows) + b"]"


# Each number of three digits, with a comma after it.
NUMBERS = np.frombuffer(b"".join(b"%.3f," % (step / 1000) for step in range(1001)), np.uint8)
NUMBERS = NUMBERS.reshape(1001, -1)
