"""Synthetic labeled scenes for the demo model: pictograms of the twenty classes before natural backdrops.

Nothing is downloaded. The pictograms are glyphs of Debian's ``fonts-noto-color-emoji`` (SIL OFL 1.1);
the backdrops are drawn (``demo_backdrops``). Some scenes show other pictograms as well, or only those,
or nothing: the demo shall learn that most images show none of its classes. Scenes have JPEG artifacts
and varying aspect ratios, as clients' uploads do.

    .venv/bin/python -m scripts.demo_scenes FOLDER --count 2000     scenes for scripts/optimize --pictures
"""

from __future__ import annotations

import argparse
import functools
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scripts.demo_backdrops import Painter, paint_backdrop

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
# Glyphs among OTHERS that show an animal or a person, or a plant in a pot, a bottle or a plate.
LIKE_A_CLASS = {
    *range(0x1F638, 0x1F641),
    *(0x1F33B, 0x1F33C, 0x1F33D, 0x1F37D, 0x1F37E, 0x1F385, 0x1F38D, 0x1F38E, 0x1F3A0),
    *(0x1F48F, 0x1F491, 0x1F5FD, 0x1F9F4, 0x1F9F8),
}
# Glyphs of none of the classes, and like none of them: weather, plants, food, things, faces, tools.
OTHERS = tuple(
    chr(code)
    for first, last in (
        (0x1F30B, 0x1F320),
        (0x1F332, 0x1F335),
        (0x1F337, 0x1F36F),
        (0x1F380, 0x1F393),
        (0x1F3A0, 0x1F3BF),
        (0x1F3E0, 0x1F3F0),
        (0x1F451, 0x1F463),
        (0x1F489, 0x1F4B3),
        (0x1F4C0, 0x1F4E9),
        (0x1F508, 0x1F53D),
        (0x1F5FB, 0x1F644),
        (0x1F6A5, 0x1F6AD),
        (0x1F910, 0x1F917),
        (0x1F950, 0x1F96F),
        (0x1F9C0, 0x1F9CA),
        (0x1F9E0, 0x1F9FF),
    )
    for code in range(first, last + 1)
    if code not in LIKE_A_CLASS
)
EMPTY_SHARE = 0.4  # of the scenes show none of the classes
OTHERS_SHARE, MOST_OTHERS = (
    0.5,
    3,
)  # of the scenes show pictograms of no class as well, so many at most

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
def load_pictogram(glyph: str) -> Image.Image:
    """Return a glyph of the font, cropped to its bounding box, as RGBA.

    Raises:
        FileNotFoundError: the font is not installed; the text names the Debian package.
        ValueError: the font has no such glyph.
    """
    if not FONT_PATH.exists():
        raise FileNotFoundError(f"{FONT_PATH} is missing: apt-get install {FONT_PACKAGE}")
    font = ImageFont.truetype(str(FONT_PATH), STRIKE_PX)
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((8, 8), glyph, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"{FONT_PATH} has no glyph for U+{ord(glyph[0]):04X}")
    return canvas.crop(box)


def draw_scene(
    rng: np.random.Generator,
    labels: tuple[int, ...] | None = None,
    backdrop: Painter | None = None,
) -> Scene:
    """Draw one scene.

    Args:
        rng: source of all random choices: a seed determines the scene.
        labels: class indices to draw, and nothing else; by default none, or one to four at random,
            and pictograms of other things as well.
        backdrop: paints the backdrop; by default a random one.
    """
    width, height = (int(side) for side in rng.integers(200, 481, 2))
    others: tuple[str, ...] = ()
    if labels is None:
        labels = choose_labels(rng)
        others = choose_others(rng)
    scene = paint_backdrop(rng, width, height, backdrop)
    for glyph in others:  # first, so that they cover no pictogram of a class
        pictogram = vary_pictogram(rng, glyph, min(width, height))
        if spot := find_place(rng, pictogram, [], width, height):
            scene.paste(pictogram, spot, pictogram)
    placed: list[Placed] = []
    shown = []
    for label in labels:
        pictogram = vary_pictogram(rng, GLYPHS[CLASS_NAMES[label]], min(width, height))
        spot = find_place(rng, pictogram, placed, width, height)
        if spot is None:  # no room left: the scene is valid with fewer pictograms
            continue
        scene.paste(pictogram, spot, pictogram)
        shown.append(label)
    quality = int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
    return Scene(through_jpeg(scene, quality), tuple(sorted(shown)))


def choose_labels(rng: np.random.Generator) -> tuple[int, ...]:
    """Return no class with the probability EMPTY_SHARE, or one to MOST_PICTOGRAMS."""
    if rng.random() < EMPTY_SHARE:
        return ()
    count = int(rng.integers(1, MOST_PICTOGRAMS + 1))
    return tuple(int(i) for i in rng.choice(len(CLASS_NAMES), count, replace=False))


def choose_others(rng: np.random.Generator) -> tuple[str, ...]:
    """Return up to MOST_OTHERS glyphs of no class."""
    if rng.random() >= OTHERS_SHARE:
        return ()
    return tuple(str(glyph) for glyph in rng.choice(OTHERS, int(rng.integers(1, MOST_OTHERS + 1))))


def through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Return the image after a JPEG round trip."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return decoded.convert("RGB")


def vary_pictogram(rng: np.random.Generator, glyph: str, shorter_side: int) -> Image.Image:
    """Return a glyph (RGBA) with random size, aspect ratio, mirroring, rotation and brightness."""
    drawn = load_pictogram(glyph)
    scale = rng.uniform(*SIZE_RANGE) * shorter_side / max(drawn.size)
    stretch = rng.uniform(0.85, 1.18)
    size = (max(8, int(drawn.width * scale * stretch)), max(8, int(drawn.height * scale / stretch)))
    drawn = drawn.resize(size, Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        drawn = drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turn_deg = float(rng.uniform(-MOST_TURN_DEG, MOST_TURN_DEG))
    drawn = drawn.rotate(turn_deg, Image.Resampling.BILINEAR, expand=True)
    red, green, blue, alpha = drawn.split()
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
