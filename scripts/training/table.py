"""Reads a CSV file of images and labels.

    image,labels,part
    street.jpg,Bus; Car; Person,train
    empty-street.jpg,,val

``image`` is a path, relative to the CSV file's folder. ``labels`` are separated by ``;`` or ``|``,
because names may contain spaces and commas; an empty cell is an image without labels. ``part`` is
``train`` or ``val``; the column is optional.
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from app.errors import BundleError
from app.models.bundle import read_class_names
from scripts.training.errors import TrainingError
from scripts.training.examples import Example, Examples

SEPARATORS = re.compile(r"[;|]")
PARTS = ("train", "val")


@dataclass(frozen=True)
class Row:
    """A row of the table. ``image``: as written; ``place``: file and line, for errors; ``part``: may be empty."""

    image: str
    labels: tuple[str, ...]
    part: str
    place: str


def read_table(file: Path, classes: Path | None = None, validation_share: float = 0.2) -> Examples:
    """Read a table.

    Args:
        file: the CSV file, UTF-8.
        classes: a ``class_name.json`` with the classes in order; by default all labels, sorted.
        validation_share: share of images for validation if there is no column ``part``, 0..1.

    Raises:
        TrainingError: the table is not as expected; the text names the line.
    """
    rows = read_rows(file)
    names = choose_class_names(file, rows, classes)
    indices = {name: index for index, name in enumerate(names)}
    for row in rows:
        for label in row.labels:
            if label not in indices:
                raise TrainingError(
                    f"{row.place}: unknown class {label!r}; {classes} names {', '.join(names)}"
                )
    held_out = choose_validation(rows, validation_share)
    parts: dict[bool, list[Example]] = {False: [], True: []}
    for row in rows:
        labels = tuple(sorted({indices[label] for label in row.labels}))
        parts[row.image in held_out].append(Example(file.parent / row.image, labels))
    return Examples(str(file), file.name, names, tuple(parts[False]), tuple(parts[True])).check()


def read_rows(file: Path) -> list[Row]:
    """Read the rows. Raises TrainingError."""
    try:
        with file.open(
            encoding="utf-8-sig", newline=""
        ) as text:  # -sig: spreadsheets write a byte order mark
            table = csv.DictReader(text, skipinitialspace=True)
            columns = [name.strip() for name in table.fieldnames or []]
            table.fieldnames = columns
            if missing := [name for name in ("image", "labels") if name not in columns]:
                raise TrainingError(
                    f"{file}: the column {missing[0]!r} is missing; expected a first line "
                    f"'image,labels' or 'image,labels,part', found {','.join(columns)!r}"
                )
            rows = [read_row(cells, f"{file}, line {table.line_num}") for cells in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{file} cannot be read as CSV in UTF-8: {error}") from error
    first: dict[str, str] = {}
    for row in rows:
        if row.image in first:
            raise TrainingError(f"{row.place}: {row.image!r} stands at {first[row.image]} already")
        first[row.image] = row.place
    if "part" in columns and (bad := next((row for row in rows if row.part not in PARTS), None)):
        raise TrainingError(f"{bad.place}: the part is {bad.part!r}; expected train or val")
    return rows


def read_row(cells: dict[str | None, str | None], place: str) -> Row:
    """Read a row's cells. Raises TrainingError."""
    image, labels = ((cells[name] or "").strip() for name in ("image", "labels"))
    if not image:
        raise TrainingError(f"{place}: no image; expected a path")
    if None in cells:  # DictReader's key for cells beyond the last column
        raise TrainingError(
            f"{place}: more cells than columns; labels are separated by ';', not by ','"
        )
    split = tuple(label.strip() for label in SEPARATORS.split(labels) if label.strip())
    return Row(image, split, (cells.get("part") or "").strip(), place)


def choose_class_names(file: Path, rows: list[Row], classes: Path | None) -> tuple[str, ...]:
    """Return the class names in the order of the outputs. Raises TrainingError."""
    if classes:
        try:
            return read_class_names(classes)
        except BundleError as error:
            raise TrainingError(str(error)) from error
    names = sorted({label for row in rows for label in row.labels})
    if not names:
        raise TrainingError(f"{file}: no line has a label; expected some in the column 'labels'")
    return tuple(names)


def choose_validation(rows: list[Row], share: float) -> set[str]:
    """Return the images of the validation part: by column ``part``, else those with the lowest name hashes.

    A hash instead of a random choice keeps an image in its part for every seed and row order, and
    mostly when the table grows.
    """
    if any(row.part for row in rows):
        return {row.image for row in rows if row.part == "val"}
    hashed = sorted(rows, key=lambda row: hashlib.sha256(row.image.encode()).digest())
    return {row.image for row in hashed[: max(1, round(share * len(rows)))]}
