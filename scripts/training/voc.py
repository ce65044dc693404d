"""Reads Pascal VOC's folders.

    VOCdevkit/VOC2007/ImageSets/Main/train.txt    image names, one per line; val.txt and so on
                      Annotations/000012.xml      the objects of an image
                      JPEGImages/000012.jpg
              VOC2012/                            the same; all years are read

The classes are VOC's twenty under this project's names, in its order.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from scripts.demo_scenes import CLASS_NAMES
from scripts.training.errors import TrainingError
from scripts.training.examples import Example, Examples

# VOC writes "diningtable" and "tvmonitor".
CLASS_INDICES = {name.replace(" ", "").lower(): index for index, name in enumerate(CLASS_NAMES)}


def read_voc(devkit: Path, training: str = "train", validation: str = "val") -> Examples:
    """Read all years of a VOCdevkit.

    Args:
        devkit: the folder of VOC2007 and other years.
        training: the training image set: a file name in ``ImageSets/Main`` without ``.txt``.
        validation: the validation image set.

    Raises:
        TrainingError: a folder or file is missing or not as expected; the text names it.
    """
    years = [folder for folder in sorted(devkit.glob("VOC[0-9]*")) if folder.is_dir()]
    if not years:
        raise TrainingError(f"{devkit} holds no VOC2007 or VOC2012; expected the folder VOCdevkit")
    for year in years:
        for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
            if not (year / name).is_dir():
                raise TrainingError(f"the folder {year / name} is missing")
    title = " and ".join(year.name for year in years)
    parts = [read_image_set(years, name) for name in (training, validation)]
    return Examples(str(devkit), title, tuple(CLASS_NAMES), *parts).check()


def read_image_set(years: list[Path], name: str) -> tuple[Example, ...]:
    """Read an image set of every year that has it: VOC2012 has no ``test``. Raises TrainingError."""
    files = [year / "ImageSets" / "Main" / f"{name}.txt" for year in years]
    if not any(file.is_file() for file in files):
        raise TrainingError(f"{files[0]} is missing; expected the names of pictures, one a line")
    return tuple(
        read_example(year, picture)
        for year, file in zip(years, files, strict=True)
        if file.is_file()
        for picture in read_names(file)
    )


def read_names(file: Path) -> list[str]:
    """Read the unique image names of an image set. Raises TrainingError."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    for number, words in enumerate(lines, 1):
        if len(words) > 1:  # aeroplane_train.txt and its like
            raise TrainingError(
                f"{file}, line {number}: expected the name of a picture alone, found {' '.join(words)!r}"
            )
    return list(dict.fromkeys(words[0] for words in lines if words))


def read_example(year: Path, picture: str) -> Example:
    """Read an image's annotation.

    A difficult object makes its class unsure, unless another object of the class is not difficult:
    VOC's own evaluation excludes such images for that class.

    Raises:
        TrainingError: the annotation is missing, damaged, or names a class that is none of VOC's.
    """
    file = year / "Annotations" / f"{picture}.xml"
    try:
        root = ElementTree.parse(file).getroot()  # noqa: S314 (the user's own data; expat bounds entity expansion)
    except FileNotFoundError as error:
        raise TrainingError(f"{file} is missing, though {picture} is in an image set") from error
    except (OSError, ElementTree.ParseError) as error:
        raise TrainingError(f"{file} cannot be read as XML: {error}") from error
    clear: set[int] = set()
    difficult: set[int] = set()
    for found in root.findall("object"):
        name = (found.findtext("name") or "").strip()
        if name not in CLASS_INDICES:
            raise TrainingError(
                f"{file}: unknown class {name!r}; expected one of {', '.join(CLASS_INDICES)}"
            )
        is_difficult = (found.findtext("difficult") or "0").strip() != "0"
        (difficult if is_difficult else clear).add(CLASS_INDICES[name])
    return Example(
        year / "JPEGImages" / f"{picture}.jpg",
        tuple(sorted(clear)),
        tuple(sorted(difficult - clear)),
    )
