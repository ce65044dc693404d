"""The folders of models: finding models and their versions.

    models/NAME/VERSION/     each with the files that app/models/bundle.py reads
    models/NAME/             or these files directly: version 1
    models/                  the same: a bare model, named by this folder

Unreadable folders (an ext4 volume's ``lost+found``) and folders with an invalid name are skipped, with a
message for each.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from app.errors import BundleError
from app.names import name_problem, shorten

WEIGHT_FILES = ("model.pth", "model.safetensors", "model.npz")  # looked for in this order
CLASS_FILE = "class_name.json"
DEMO = "demo"  # the model that comes with the project; a user's own takes precedence
MAX_DIGITS = 18  # of a version number, which fits into 64 bits
MAX_SKIPPED = 20  # messages about skipped folders
MAX_SHOWN = 300  # characters of a path in an error


@dataclass(frozen=True)
class ModelFolders:
    """The models in a folder.

    Attributes:
        folders: name → folder of each model to serve, the oldest first.
        skipped: a message for each folder that was left out.
    """

    folders: dict[str, Path]
    skipped: tuple[str, ...] = ()


def find_models(models: Path, name: str = "") -> ModelFolders:
    """Find the models to serve: the one called ``name``, or all; the demo only if there is no other.

    Args:
        models: a folder of models, or a bare model.
        name: the only model to look for.

    Raises:
        BundleError: there is none; the message names the folder.
    """
    try:
        bare = {models.resolve().name: models} if find_weights(models) else {}
        if name:
            return ModelFolders(find_named(models, name) or bare or refuse_name(models, name))
        folders, skipped = list_models(models)
        folders |= bare
        if problem := next(filter(None, map(name_problem, bare)), ""):
            raise BundleError(f"{shorten(str(models), MAX_SHOWN)}: the folder's name {problem}")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise BundleError(f"the models folder cannot be read: {error}") from error
    if not folders:
        reasons = "".join(f"; {sentence}" for sentence in skipped)
        raise BundleError(
            f"{models} holds no model: expected NAME/{WEIGHT_FILES[0]} and NAME/{CLASS_FILE}{reasons}"
        )
    own = [candidate for candidate in folders if candidate != DEMO] or [DEMO]
    own.sort(key=lambda candidate: (first_time(folders[candidate]), candidate))
    return ModelFolders(
        {candidate: folders[candidate] for candidate in own}, tuple(skipped[:MAX_SKIPPED])
    )


def find_named(models: Path, name: str) -> dict[str, Path]:
    """Return name → folder of the model ``name``; empty if there is none. Raises OSError."""
    return {name: models / name} if versions_of(models / name) else {}


def refuse_name(models: Path, name: str) -> NoReturn:
    """Raise BundleError with the existing names."""
    others = ", ".join(list_models(models)[0]) or "none"
    raise BundleError(f"{models} holds no model {name!r}; it holds {others}")


def list_models(models: Path) -> tuple[dict[str, Path], list[str]]:
    """Return name → folder of each model, and a message for each skipped folder. Raises OSError."""
    folders, skipped = {}, []
    for child in sorted(models.iterdir()):
        if is_version(child.name) and find_weights(models):
            continue  # a bare model's
        try:
            if not versions_of(child):
                continue
        except OSError as error:
            skipped.append(f"{shorten(str(child), MAX_SHOWN)} is skipped: {error.strerror}")
            continue
        if problem := name_problem(child.name):
            shown = shorten(str(child), MAX_SHOWN)
            skipped.append(f"{shown} is skipped: its name {problem}; rename the folder")
        else:
            folders[child.name] = child
    return folders, skipped


def first_time(folder: Path) -> float:
    """Return the mtime of the weights of a model's first version, in seconds since 1970."""
    _, first = min(versions_of(folder).items())
    weights = find_weights(first)
    try:
        return weights.stat().st_mtime if weights else math.inf
    except OSError:
        return math.inf


def versions_of(folder: Path) -> dict[int, Path]:
    """Return a model's versions: numbered folders with weights, and the folder itself as version 1.

    Leading zeros are allowed; other names are ignored (drafts, for example). An unreadable numbered folder
    counts, so that it is reported.

    Raises:
        OSError: the folder cannot be read.
    """
    if folder.name.startswith(".") or not folder.is_dir():
        return {}
    numbered = [
        child
        for child in sorted(folder.iterdir())
        if is_version(child.name) and (find_weights(child) or is_closed(child))
    ]
    itself = {1: folder} if find_weights(folder) else {}
    return itself | {int(child.name): child for child in numbered}


def is_version(name: str) -> bool:
    """Return whether a folder name is a version number: 1 to 18 ASCII digits, not 0."""
    return name.isascii() and name.isdecimal() and len(name) <= MAX_DIGITS and int(name) > 0


def is_closed(folder: Path) -> bool:
    """Return whether a path is a folder without read permission."""
    return os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK)


def find_weights(folder: Path) -> Path | None:
    """Return the folder's weights file, of any kind, or None."""
    return next((folder / name for name in WEIGHT_FILES if os.path.lexists(folder / name)), None)
