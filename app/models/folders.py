"""The folders of models: which models there are, and which versions each of them has.

    models/NAME/VERSION/     each with the files that app/models/bundle.py reads
    models/NAME/             or these files at once: version 1
    models/                  the same: a bare model, named by this folder

Folders that cannot be read (an ext4 volume's ``lost+found``), and such whose name cannot be a model's,
are left out, with a sentence that says so.
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
DEMO = "demo"  # the model that comes with the project; anybody's own goes first
MAX_DIGITS = 18  # of a version's number: all of them fit into 64 bits
MAX_SKIPPED = 20  # folders that are left out, told one by one
MAX_SHOWN = 300  # characters of a path in an error


@dataclass(frozen=True)
class Found:
    """What a folder of models holds.

    Attributes:
        folders: name → folder of each model to serve, the one that was there first before the others.
        skipped: for each folder that was left out, a sentence that says why.
    """

    folders: dict[str, Path]
    skipped: tuple[str, ...] = ()


def find_models(models: Path, name: str = "") -> Found:
    """Find the models to serve: the one called ``name``, or all; the demo only where there is no other.

    Args:
        models: a folder of models, or a bare model.
        name: which model; then no other folder is looked at.

    Raises:
        BundleError: there is none; the text names the folder.
    """
    try:
        bare = {models.resolve().name: models} if find_weights(models) else {}
        if name:
            return Found(find_named(models, name) or bare or refuse_name(models, name))
        found, skipped = list_models(models)
        found |= bare
        if problem := next(filter(None, map(name_problem, bare)), ""):
            raise BundleError(f"{shorten(str(models), MAX_SHOWN)}: the folder's name {problem}")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise BundleError(f"the models folder cannot be read: {error}") from error
    if not found:
        told = "".join(f"; {sentence}" for sentence in skipped)
        raise BundleError(
            f"{models} holds no model: expected NAME/{WEIGHT_FILES[0]} and NAME/{CLASS_FILE}{told}"
        )
    own = [candidate for candidate in found if candidate != DEMO] or [DEMO]
    own.sort(key=lambda candidate: (first_time(found[candidate]), candidate))
    return Found({candidate: found[candidate] for candidate in own}, tuple(skipped[:MAX_SKIPPED]))


def find_named(models: Path, name: str) -> dict[str, Path]:
    """Return the name and folder of the model called ``name``; empty where there is none. Raises OSError."""
    return {name: models / name} if versions_of(models / name) else {}


def refuse_name(models: Path, name: str) -> NoReturn:
    """Raise BundleError with the names that there are."""
    others = ", ".join(list_models(models)[0]) or "none"
    raise BundleError(f"{models} holds no model {name!r}; it holds {others}")


def list_models(models: Path) -> tuple[dict[str, Path], list[str]]:
    """Return name → folder of every model in a folder, and why others are left out. Raises OSError."""
    found, skipped = {}, []
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
            found[child.name] = child
    return found, skipped


def first_time(folder: Path) -> float:
    """Return when a model's first version came, by its weights' time of change; seconds since 1970."""
    _, first = min(versions_of(folder).items())
    weights = find_weights(first)
    try:
        return weights.stat().st_mtime if weights else math.inf
    except OSError:
        return math.inf


def versions_of(folder: Path) -> dict[int, Path]:
    """Return a model's versions: its numbered folders that hold weights, and itself as version 1 where it does.

    Leading zeros are allowed; all other names are somebody's own affair, a draft's above all. A
    numbered folder that cannot be read counts, so that somebody hears of it.

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
    """Tell whether a folder's name is a version's number: ASCII digits, at most 18, not 0."""
    return name.isascii() and name.isdecimal() and len(name) <= MAX_DIGITS and int(name) > 0


def is_closed(folder: Path) -> bool:
    """Tell whether something is a folder that may not be read."""
    return os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK)


def find_weights(folder: Path) -> Path | None:
    """Return the folder's weights file, whatever it is, or None."""
    return next((folder / name for name in WEIGHT_FILES if os.path.lexists(folder / name)), None)
