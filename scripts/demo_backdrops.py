"""Backdrops of the demo's scenes: what photographs look like where nothing of the twenty classes is shown.

Photographs have few saturated colors and a spectrum that falls with the frequency (about 1/f), and their edges
come from objects that cover each other. Networks learn useful features from drawn images with these properties
(Baradad et al., "Learning to See by Looking at Noise", arXiv:2106.05963), among them the "dead leaves" model.
Colors and places are random, so that none correlates with a class.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

TILE_PX = 512  # a side of a texture tile; scenes have up to 480 px
TILES = 32
TILE_SEED = 4
EXPONENTS = (0.7, 1.8)  # amplitude is frequency to minus this; 1 is typical of photographs
TINT = 0.35  # how much each channel of a texture differs from its brightness
SPOTTED_SHARE = 0.2  # of the surfaces have spots of a second color, as hides and foliage

Color = tuple[int, int, int]  # RGB
Painter = Callable[[np.random.Generator, int, int], np.ndarray]


def random_color(rng: np.random.Generator) -> np.ndarray:
    """Return a color as (3,) float32 in 0..255: any hue and brightness, mostly of low saturation."""
    hue, saturation, value = rng.random(), rng.beta(1.3, 2.5), rng.uniform(0.08, 0.98)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32) * 255


@functools.cache
def load_tiles() -> np.ndarray:
    """Return noise with falling spectra, (TILES, TILE_PX, TILE_PX) float32 of mean 0 and deviation 1.

    A tile continues seamlessly at its opposite side.
    """
    rng = np.random.default_rng(TILE_SEED)
    across, down = np.meshgrid(np.fft.rfftfreq(TILE_PX), np.fft.fftfreq(TILE_PX))
    tiles = np.empty((TILES, TILE_PX, TILE_PX), np.float32)
    for tile in tiles:
        # Wood, water and cloth have a direction: their spectrum is an ellipse.
        frequency = np.hypot(across * rng.uniform(0.3, 3), down)
        frequency[0, 0] = np.inf
        phases = np.exp(2j * np.pi * rng.random(frequency.shape))
        noise = np.fft.irfft2(phases / frequency ** rng.uniform(*EXPONENTS), (TILE_PX, TILE_PX))
        tile[:] = noise / noise.std()
    return tiles


def cut_texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return a random part of a random tile, (height, width) float32."""
    tile = load_tiles()[int(rng.integers(TILES))]
    if rng.random() < 0.5:
        tile = tile.T
    left, top = (int(start) for start in rng.integers(0, TILE_PX, 2))
    rows, columns = np.arange(top, top + height), np.arange(left, left + width)
    part: np.ndarray = tile.take(rows, 0, mode="wrap").take(columns, 1, mode="wrap")
    return part


def paint_surface(
    rng: np.random.Generator,
    width: int,
    height: int,
    contrast: tuple[float, float] = (2, 45),
    color: Color | None = None,
) -> np.ndarray:
    """Paint one material under uneven light, as (height, width, 3) float32 in about 0..255."""
    base = random_color(rng) if color is None else np.array(color, np.float32)
    texture = cut_texture(rng, width, height)[..., None]
    if color is None and rng.random() < SPOTTED_SHARE:
        surface = np.where(texture > rng.uniform(-1, 1), base, random_color(rng))
    else:
        tint = 1 + TINT * rng.normal(size=3).astype(np.float32)
        surface = base + rng.uniform(*contrast) * texture * tint
    light = paint_light(rng, width, height)[..., None]
    return np.asarray(surface * light)


def paint_light(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return a brightness that changes in a random direction, (height, width) float32 around 1."""
    across = np.linspace(-1, 1, width, dtype=np.float32)
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    light: np.ndarray = 1 + strength * (across * np.cos(angle) + down * np.sin(angle)) / 1.42
    return light.astype(np.float32)


def paint_texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Paint a single surface: a wall, a lawn, water, a sky."""
    return paint_surface(rng, width, height)


def paint_gradient(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Paint a change from one color to another in a random direction."""
    share = np.clip(2 * (paint_light(rng, width, height) - 0.5) / 1.5, 0, 1)[..., None]
    return np.asarray(random_color(rng) * share + random_color(rng) * (1 - share))


def paint_horizon(
    rng: np.random.Generator,
    width: int,
    height: int,
    above: Color | None = None,
    below: Color | None = None,
    contrast: tuple[float, float] = (2, 45),
) -> np.ndarray:
    """Paint a smooth sky over ground of some contrast, or a wall over a floor."""
    ground = paint_surface(rng, width, height, contrast, below)
    sky = paint_surface(rng, width, height, contrast=(0, 18), color=above)
    horizon = height * rng.uniform(0.25, 0.75) + width * rng.uniform(-0.1, 0.1) * np.linspace(
        -1, 1, width
    )
    ridge = rng.uniform(0, 0.06) * height * cut_texture(rng, width, 1)[0]
    is_ground = np.arange(height)[:, None] > horizon + ridge
    return np.where(is_ground[..., None], ground, sky)


def paint_leaves(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Paint many surfaces that cover each other: the "dead leaves" model, sizes by a power law."""
    canvas = paint_surface(rng, width, height)
    side = min(width, height)
    boxy = rng.random()
    for _ in range(int(rng.integers(6, 70))):
        size = side * min(0.9, 0.06 * rng.pareto(1.3) + 0.04)
        cover_with_leaf(rng, canvas, size, boxy)
    return canvas


def cover_with_leaf(
    rng: np.random.Generator, canvas: np.ndarray, size_px: float, boxy: float
) -> None:
    """Paint an ellipse, or with the probability ``boxy`` a polygon, at a random place of ``canvas``."""
    height, width = canvas.shape[:2]
    leaf_width, leaf_height = (max(4, int(size_px * rng.uniform(0.5, 1.7))) for _ in range(2))
    mask = Image.new("L", (leaf_width, leaf_height), 0)
    pen = ImageDraw.Draw(mask)
    if rng.random() < boxy:
        corners = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
        middle, reach = np.array([leaf_width, leaf_height]) / 2, np.array([leaf_width, leaf_height])
        points = middle + 0.6 * reach * np.stack([np.cos(corners), np.sin(corners)], 1)
        pen.polygon([tuple(point) for point in points.tolist()], fill=255)
    else:
        pen.ellipse((0, 0, leaf_width - 1, leaf_height - 1), fill=255)
    left = int(rng.integers(-leaf_width // 2, width - leaf_width // 2))
    top = int(rng.integers(-leaf_height // 2, height - leaf_height // 2))
    rows = slice(max(0, top), min(height, top + leaf_height))
    columns = slice(max(0, left), min(width, left + leaf_width))
    part = np.asarray(mask)[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    if part.size:
        surface = paint_surface(rng, part.shape[1], part.shape[0])
        canvas[rows, columns] = np.where(part[..., None] > 127, surface, canvas[rows, columns])


def paint_clutter(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Paint leaves behind branches, wires, fences, rims and frames: thin things of one color."""
    image = to_image(paint_leaves(rng, width, height))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 9))):
        is_line = rng.random() < 0.6
        color, stroke_px = to_color(random_color(rng)), int(rng.integers(1, 8))
        start, size_px = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0.1, 0.8) * width
        step = rng.normal(0, 0.15, 2) * width  # between one and the next, as in a railing
        for index in range(int(rng.choice([1, 1, 2, 6]))):
            left, top = (start + index * step).tolist()
            if is_line:
                bends = rng.normal(0, size_px / 3, (3, 2)).cumsum(0) + start + index * step
                pen.line([(left, top), *map(tuple, bends.tolist())], color, stroke_px)
            else:
                box = (left, top, left + size_px, top + size_px * rng.uniform(0.5, 1.5))
                outline = pen.ellipse if rng.random() < 0.7 else pen.rectangle
                outline(box, outline=color, width=stroke_px)
    return np.asarray(image)


def to_color(color: np.ndarray) -> Color:
    """Return a color as Pillow takes it."""
    red, green, blue = (int(part) for part in color)
    return red, green, blue


def paint_bokeh(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Paint leaves far out of focus, as behind a portrait."""
    blur = ImageFilter.GaussianBlur(float(rng.uniform(0.02, 0.07)) * min(width, height))
    return np.asarray(to_image(paint_leaves(rng, width, height)).filter(blur))


BACKDROPS: dict[str, Painter] = {
    "texture": paint_texture,
    "gradient": paint_gradient,
    "horizon": paint_horizon,
    "leaves": paint_leaves,
    "clutter": paint_clutter,
    "bokeh": paint_bokeh,
}


def paint_backdrop(
    rng: np.random.Generator, width: int, height: int, painter: Painter | None = None
) -> Image.Image:
    """Paint a backdrop, RGB; half of them blurred slightly, as by a camera.

    Args:
        rng: source of all random choices.
        width: px, up to TILE_PX.
        height: px, up to TILE_PX.
        painter: one of those above; by default a random one.
    """
    painter = painter or BACKDROPS[str(rng.choice(list(BACKDROPS)))]
    image = to_image(painter(rng, width, height))
    if rng.random() < 0.5:
        return image
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 3))))


def to_image(colors: np.ndarray) -> Image.Image:
    """Return (height, width, 3) of any type, about 0..255, as an image."""
    return Image.fromarray(np.clip(colors, 0, 255).astype(np.uint8))
