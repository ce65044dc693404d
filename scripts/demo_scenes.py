"""Synthetic labeled scenes for the demo model: pictograms of the twenty classes on cluttered backgrounds.

Nothing is downloaded. The pictograms are glyphs of Debian's ``fonts-noto-color-emoji`` (SIL OFL 1.1);
the backgrounds are gradients, noise, stripes, shapes and horizons. Scenes have JPEG artifacts and
varying aspect ratios, as clients' uploads do.

    .venv/bin/python -m scripts.demo_scenes FOLDER --count 2000     scenes for scripts/optimize --pictures
"""

from __future__ import annotations

import argparse
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONT_PATH = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_PACKAGE = "fonts-noto-color-emoji"
STRIKE_PX = 109  # the font's only bitmap size; FreeType rejects any other

# One glyph per class, in the order of the network's outputs (Pascal VOC's twenty).
GLYPHS: dict[str, str] = {
    "Aeroplane": "\u2708",
    "Bicycle": "\U0001f6b2",
    "Bird": "\U0001f426",
    "Boat": "\u26f5",
    "Bottle": "\U0001f37e",
    "Bus": "\U0001f68c",
    "Car": "\U0001f697",
    "Cat": "\U0001f408",
    "Chair": "\U0001fa91",
    "Cow": "\U0001f404",
    "Dining Table": "\U0001f37d",
    "Dog": "\U0001f415",
    "Horse": "\U0001f40e",
    "Motorbike": "\U0001f3cd",
    "Person": "\U0001f9cd",
    "Potted Plant": "\U0001fab4",
    "Sheep": "\U0001f411",
    "Sofa": "\U0001f6cb",
    "Train": "\U0001f686",
    "TV Monitor": "\U0001f4fa",
}
CLASS_NAMES = list(GLYPHS)

MOST_PICTOGRAMS = 4
SIZE_RANGE = (0.24, 0.52)  # a pictogram's side, as a share of the scene's shorter side
MOST_TURN_DEG = 25.0
MOST_COVERED = (
    0.35  # share of a pictogram that later ones may cover; more would make the label ambiguous
)
PLACING_TRIES = 30
JPEG_QUALITY = (45, 95)
# Scenes for calibrating and comparing precisions, from a seed not used in training. The first ones are
# in git with the demo.
CALIBRATION_SEED, CALIBRATION_SCENES = 3, 500


@dataclass(frozen=True)
class Scene:
    """A drawn image. ``image``: RGB, 200 to 480 px a side; ``labels``: class indices, ascending."""

    image: Image.Image
    labels: tuple[int, ...]

    def target(self) -> np.ndarray:
        """Return the labels as a (20,) float32 vector of zeros and ones."""
        vector = np.zeros(len(CLASS_NAMES), np.float32)
        vector[list(self.labels)] = 1.0
        return vector


@functools.cache
def load_pictogram(name: str) -> Image.Image:
    """Return a class's glyph, cropped to its bounding box, as RGBA.

    Raises:
        FileNotFoundError: the font is not installed; the text names the Debian package.
    """
    if not FONT_PATH.exists():
        raise FileNotFoundError(f"{FONT_PATH} is missing: apt-get install {FONT_PACKAGE}")
    font = ImageFont.truetype(str(FONT_PATH), STRIKE_PX)
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((8, 8), GLYPHS[name], font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"the font has no glyph for {name}")
    return canvas.crop(box)


def draw_scene(
    rng: np.random.Generator, labels: tuple[int, ...] | None = None, backdrop: str | None = None
) -> Scene:
    """Draw one scene of 1 to 4 pictograms.

    Args:
        rng: source of all random choices: a seed determines the scene.
        labels: class indices to draw; by default one to four at random.
        backdrop: a key of BACKDROPS; by default a random one.
    """
    width, height = (int(side) for side in rng.integers(200, 481, 2))
    if labels is None:
        count = int(rng.integers(1, MOST_PICTOGRAMS + 1))
        labels = tuple(int(i) for i in rng.choice(len(CLASS_NAMES), count, replace=False))
    paint = BACKDROPS[backdrop or str(rng.choice(list(BACKDROPS)))]
    scene = soften(rng, Image.fromarray(paint(rng, width, height)))
    placed: list[Placed] = []
    shown = []
    for label in labels:
        pictogram = vary_pictogram(rng, CLASS_NAMES[label], min(width, height))
        spot = find_place(rng, pictogram, placed, width, height)
        if spot is None:  # no room left: the scene is valid with fewer pictograms
            continue
        scene.paste(pictogram, spot, pictogram)
        shown.append(label)
    quality = int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
    return Scene(through_jpeg(scene, quality), tuple(sorted(shown)))


def through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Return the image after a JPEG round trip."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return decoded.convert("RGB")


def vary_pictogram(rng: np.random.Generator, name: str, shorter_side: int) -> Image.Image:
    """Return a class's glyph (RGBA) with random size, aspect ratio, mirroring, rotation and brightness."""
    glyph = load_pictogram(name)
    scale = rng.uniform(*SIZE_RANGE) * shorter_side / max(glyph.size)
    stretch = rng.uniform(0.85, 1.18)
    size = (max(8, int(glyph.width * scale * stretch)), max(8, int(glyph.height * scale / stretch)))
    glyph = glyph.resize(size, Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turn_deg = float(rng.uniform(-MOST_TURN_DEG, MOST_TURN_DEG))
    glyph = glyph.rotate(turn_deg, Image.Resampling.BILINEAR, expand=True)
    red, green, blue, alpha = glyph.split()
    light = rng.uniform(0.75, 1.15)
    bands = [band.point(lambda value: min(255, int(value * light))) for band in (red, green, blue)]
    return Image.merge("RGBA", (*bands, alpha))


@dataclass
class Placed:
    """A pictogram in the scene: its opaque area in px and the mask of what is still visible, (height, width) bool."""

    ink_px: int
    seen: np.ndarray


def find_place(
    rng: np.random.Generator, pictogram: Image.Image, placed: list[Placed], width: int, height: int
) -> tuple[int, int] | None:
    """Choose a (left, top) that covers no earlier pictogram by more than MOST_COVERED, and append to ``placed``."""
    free_x, free_y = width - pictogram.width, height - pictogram.height
    if free_x < 0 or free_y < 0:
        return None
    opaque = np.asarray(pictogram.getchannel("A")) > 127
    for _ in range(PLACING_TRIES):
        left, top = int(rng.integers(0, free_x + 1)), int(rng.integers(0, free_y + 1))
        ink = np.zeros((height, width), bool)
        ink[top : top + pictogram.height, left : left + pictogram.width] = opaque
        if all((p.seen & ~ink).sum() >= (1 - MOST_COVERED) * p.ink_px for p in placed):
            for p in placed:
                p.seen &= ~ink
            placed.append(Placed(int(ink.sum()), ink))
            return left, top
    return None


# Backdrops: (height, width, 3) uint8. Colors are random, so that none correlates with a class.


def random_color(rng: np.random.Generator) -> np.ndarray:
    """Return a random RGB color as (3,) float32 in 0..255."""
    return rng.uniform(10, 245, 3).astype(np.float32)


def paint_gradient(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Paint a linear gradient in a random direction."""
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    angle = rng.uniform(0, 2 * np.pi)
    share = ((across * np.cos(angle) + down * np.sin(angle)) / 2.83 + 0.5)[..., None]
    faded: np.ndarray = random_color(rng) * share + random_color(rng) * (1 - share)
    return faded.astype(np.uint8)


def paint_clouds(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Paint smooth noise of random scale."""
    cells = int(rng.integers(2, 24))
    coarse = np.clip(random_color(rng) + rng.normal(0, 50, (cells, cells, 3)), 0, 255)
    cloud = Image.fromarray(coarse.astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.asarray(cloud)


def paint_stripes(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Paint two-color stripes of random width and direction."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    angle, period_px = rng.uniform(0, np.pi), rng.uniform(12, 90)
    phase = (across * np.cos(angle) + down * np.sin(angle)) / period_px
    odd = (np.floor(phase) % 2 == 1)[..., None]
    return np.where(odd, random_color(rng), random_color(rng)).astype(np.uint8)


def paint_shapes(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Paint random ellipses and boxes as clutter."""
    canvas = Image.new("RGB", (width, height), tuple(int(c) for c in random_color(rng)))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(4, 18))):
        left, top = float(rng.uniform(-20, width)), float(rng.uniform(-20, height))
        box = (left, top, left + float(rng.uniform(10, 160)), top + float(rng.uniform(10, 160)))
        color = tuple(int(c) for c in random_color(rng))
        (pen.ellipse if rng.random() < 0.5 else pen.rectangle)(box, fill=color)
    return np.asarray(canvas)


def paint_horizon(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Paint sky and ground as noisy gradients."""
    horizon = int(height * rng.uniform(0.3, 0.75))
    rows = np.empty((height, 1, 3), np.float32)
    for part in (slice(0, horizon), slice(horizon, height)):
        share = np.linspace(0, 1, len(range(*part.indices(height))))[:, None, None]
        start = random_color(rng)
        rows[part] = start + share * rng.uniform(-60, 60, 3)
    grain = rng.normal(0, rng.uniform(1, 10), (height, width, 1))
    return np.clip(rows + grain, 0, 255).astype(np.uint8)


BACKDROPS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "gradient": paint_gradient,
    "clouds": paint_clouds,
    "stripes": paint_stripes,
    "shapes": paint_shapes,
    "horizon": paint_horizon,
}


def soften(rng: np.random.Generator, backdrop: Image.Image) -> Image.Image:
    """Blur half of the backdrops slightly, as a camera would."""
    if rng.random() < 0.5:
        return backdrop
    return backdrop.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 3))))


def write_scenes(folder: Path, count: int) -> None:
    """Write scenes as JPEG files: the first ``count`` of ``CALIBRATION_SEED``."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        scene = draw_scene(np.random.default_rng([CALIBRATION_SEED, index]))
        scene.image.save(folder / f"{index:03}.jpg", quality=80)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="scripts.demo_scenes", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=CALIBRATION_SCENES)
    options = parser.parse_args()
    write_scenes(options.folder, options.count)


if __name__ == "__main__":
    main()
