"""The sample images of a model: ``models/NAME/samples/``, next to its versions.

An optional ``labels.csv`` (columns ``image`` and ``labels``, separated by `` | ``) gives their order and labels.
Only image files whose header can be read are samples, so nothing else in the folder is ever sent to a client.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from app.errors import BundleError
from app.logs import warn_once
from app.models.bundle import Bundle
from app.models.untrusted_files import home_of, open_regular, read_bytes
from app.processing.decoding import DECODE_ERRORS, SIDEWAYS
from app.processing.image_parts import read_orientation

FOLDER = "samples"
TABLE = "labels.csv"
SEPARATOR = " | "
SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
MAX_SAMPLES = 48  # of one folder; a list reads the header of each
MAX_BYTES = 32 << 20  # of one file: the largest body that a client could send
MAX_TABLE_BYTES = 1 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """A sample image.

    Attributes:
        name: the file name.
        labels: its labels, by ``labels.csv``.
        size: width and height in px, upright by its EXIF orientation.
    """

    name: str
    labels: list[str]
    size: tuple[int, int]


def find_folder(bundle: Bundle) -> Path:
    """Return the folder of a model's samples; it need not exist."""
    return home_of(bundle.folder) / FOLDER


def list_samples(folder: Path) -> list[Sample]:
    """Return at most ``MAX_SAMPLES`` samples: those of ``labels.csv`` in its order, then the others by name."""
    table = read_table(folder)
    samples = []
    for name in list_names(folder, table):
        try:
            with open_sample(folder, name) as file:
                _, size = read_header(file)
        except (FileNotFoundError, BundleError) as error:
            warn_once(logger, f"the sample {folder / name} is left out: {error}")
        else:
            samples.append(Sample(name, table.get(name, []), size))
    return samples


def check_sample(folder: Path, name: str) -> tuple[str, os.stat_result]:
    """Return the media type and the status of a sample's file.

    Raises:
        FileNotFoundError: there is no sample of this name.
        BundleError: the file is not a readable image.
    """
    if name not in list_names(folder, read_table(folder)):
        raise FileNotFoundError(name)
    with open_sample(folder, name) as file:
        return read_header(file)[0], os.fstat(file.fileno())


def open_sample(folder: Path, name: str) -> BinaryIO:
    """Open a sample's file.

    Raises:
        FileNotFoundError: there is no such file.
        BundleError: it is not a regular file, too large, or a link that leads out of the folder's parent.
    """
    return open_regular(folder / name, MAX_BYTES, home=folder.parent)


def read_header(file: BinaryIO) -> tuple[str, tuple[int, int]]:
    """Return an image file's media type, and its width and height upright. Raises BundleError."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            sideways = read_orientation(image.info.get("exif", b"")) in SIDEWAYS
            return Image.MIME[image.format or ""], (height, width) if sideways else (width, height)
    except DECODE_ERRORS as error:
        raise BundleError("it is not a readable image") from error


def list_names(folder: Path, table: dict[str, list[str]]) -> list[str]:
    """Return the names of the image files in a folder, at most ``MAX_SAMPLES``; those of ``table`` first."""
    try:
        names = sorted(filter(is_image_name, os.listdir(folder)))
    except OSError:  # no such folder, or it cannot be read
        return []
    places = {name: place for place, name in enumerate(table)}
    names.sort(key=lambda name: places.get(name, len(places)))
    return names[:MAX_SAMPLES]


def is_image_name(name: str) -> bool:
    """Return whether a file name is that of an image, printable and not hidden."""
    is_plain = name.isprintable() and not name.startswith(".")
    return is_plain and name.lower().endswith(SUFFIXES)


def read_table(folder: Path) -> dict[str, list[str]]:
    """Return the labels of each image in ``labels.csv``, in its order; empty if it is missing or invalid."""
    table = folder / TABLE
    if not table.exists():
        return {}
    try:
        text = read_bytes(table, MAX_TABLE_BYTES).decode("utf-8-sig")
        return dict(read_rows(text))
    except (BundleError, ValueError, KeyError, csv.Error) as error:
        warn_once(logger, f"{table} cannot be read, so its samples have no labels: {error!r}")
        return {}


def read_rows(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the image and the labels of each row. Raises KeyError without the two columns."""
    for row in csv.DictReader(io.StringIO(text, newline="")):
        labels = (row["labels"] or "").split(SEPARATOR)
        yield row["image"], [label.strip() for label in labels if label.strip()]
