"""Draw a VOCdevkit: a few small images of colored shapes, annotated as in Pascal VOC."""

import pytest
from PIL import Image, ImageDraw

from scripts.training.errors import TrainingError

# Classes in the drawn images: VOC's name → color of the shape.
SHAPES = {"aeroplane": "white", "car": "red", "diningtable": "green", "tvmonitor": "blue"}
TRAINING, VALIDATION = 12, 6


def write_annotation(year, name, objects):
    rows = "".join(
        f"<object><name>{label}</name><difficult>{difficult}</difficult>"
        "<part><name>head</name></part></object>"
        for label, difficult in objects
    )
    text = f"<annotation><filename>{name}.jpg</filename>{rows}</annotation>"
    (year / "Annotations" / f"{name}.xml").write_text(text)


def draw_image(path, labels, size=(90, 70)):
    image = Image.new("RGB", size, "gray")
    pen = ImageDraw.Draw(image)
    for label in labels:
        left = 5 + 20 * list(SHAPES).index(label)
        pen.rectangle((left, 20, left + 18, 50), fill=SHAPES[label])
    image.save(path, quality=90)


def draw_devkit(devkit, year="VOC2007", training=TRAINING, validation=VALIDATION):
    """Draw a year of a VOCdevkit: image i shows the shapes of i's bits; the validation part has no tvmonitor."""
    folder = devkit / year
    for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    for part, start, count in (("train", 1, training), ("val", 101, validation)):
        names = [f"{start + index:06}" for index in range(count)]
        (folder / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for index, name in enumerate(names, 1):
            labels = [
                label
                for bit, label in enumerate(SHAPES)
                if index >> bit & 1 and (part, label) != ("val", "tvmonitor")
            ]
            draw_image(folder / "JPEGImages" / f"{name}.jpg", labels)
            write_annotation(folder, name, [(label, 0) for label in labels])
    return folder


def error_of(read, *words, **named):
    """Return the text of the error that a call must end with."""
    with pytest.raises(TrainingError) as caught:
        read(*words, **named)
    return str(caught.value)
