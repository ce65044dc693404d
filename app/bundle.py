"""A model on disk: a folder with weights and class names, read and checked before anything is served from it.

    models/NAME/VERSION/     or a bare folder, which is version 1
        model.pth            a ``state_dict``, the last layer sized by the class count;
                             or model.safetensors, or model.npz
        class_name.json      {"0": "Aeroplane", "1": "Bicycle", …}
        model.json           optional: a description, measured scores, and what is not a ResNet-50
                             with many labels (``app/card.py``)
    calibration/         optional: pictures of the kind that will come, for ``scripts/optimize``
    SHA256SUMS           optional: as sha256sum writes it; what it names must be as it says
    precision.json       written by ``scripts/optimize``: how far each precision was found to agree
    optimized/           what was derived from the weights (``app/optimized.py``); may be deleted

Nothing here needs torch: ``app/weights.py`` reads the tensors.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.card import DEFAULT, Card, Fields, is_text, read_card
from app.errors import BundleError

SUMS_FILE = "SHA256SUMS"
WEIGHT_FILES = ("model.pth", "model.safetensors", "model.npz")  # looked for in this order
CLASS_FILE = "class_name.json"
CARD_FILE = "model.json"
HASH_DIGITS = 16
DEMO = "demo"  # the model that comes with the project; anybody's own goes first


@dataclass(frozen=True)
class Bundle:
    """A model folder whose names were checked; ``app/weights.py`` reads its weights.

    Attributes:
        name: the model's name, a folder's name.
        version: 1 or higher.
        weights: the weights file.
        class_names: one for each output of the network, in order.
        description: what the model knows, in a sentence; may be empty.
        card: how the weights are to be used.
    """

    name: str
    version: int
    weights: Path
    class_names: tuple[str, ...]
    description: str = ""
    card: Card = DEFAULT

    @property
    def folder(self) -> Path:
        """The version's folder."""
        return self.weights.parent

    def is_content(self, content_hash: str) -> bool:
        """Tell whether an earlier ``content_hash`` was taken with this card; the weights are not read."""
        return content_hash[HASH_DIGITS:] == self.card.suffix()

    def content_hash(self) -> str:
        """Return what tells this model's answers from all others'.

        That is ``HASH_DIGITS`` hexadecimal digits of the weights' SHA-256 and, where the card is not
        the default, what tells it apart (``Card.suffix``).

        Raises:
            BundleError: the file cannot be read.
        """
        try:
            digits = take_sum(self.weights)[:HASH_DIGITS]
        except OSError as error:
            raise BundleError(f"{self.weights}: {error}") from error
        return digits + self.card.suffix()


def find_bundle(models: Path, name: str = "") -> Bundle:
    """Open the highest version of the model that ``find_model`` chooses; raises as that does."""
    chosen, folder = find_model(models, name)
    version, folder = max(versions_of(folder).items())
    return open_bundle(folder, chosen, version)


def find_model(models: Path, name: str = "") -> tuple[str, Path]:
    """Choose the model to serve: the one called ``name``, or the only one.

    Args:
        models: a folder of models, or a bare model.
        name: which model; empty takes the only one, or the only one beside the demo.

    Returns:
        Its name and its folder.

    Raises:
        BundleError: there is none, or more than one to choose from; the text names the folder.
    """
    try:
        if find_weights(models):
            return models.resolve().name, models
        found = {child.name: child for child in sorted(models.iterdir()) if versions_of(child)}
    except OSError as error:
        raise BundleError(f"the models folder cannot be read: {error}") from error
    if not found:
        raise BundleError(
            f"{models} holds no model: expected NAME/{WEIGHT_FILES[0]} and NAME/{CLASS_FILE}"
        )
    own = [candidate for candidate in found if candidate != DEMO] or [DEMO]
    if name and name not in found:
        raise BundleError(f"{models} holds no model {name!r}; it holds {', '.join(found)}")
    if not name and len(own) > 1:
        raise BundleError(f"{models} holds {', '.join(found)}: set SERVING_MODEL to one of them")
    chosen = name or own[0]
    return chosen, found[chosen]


def versions_of(folder: Path) -> dict[int, Path]:
    """Return a model's versions: its numbered folders that hold weights, and itself as version 1 where it does.

    Leading zeros are allowed; all other names are somebody's own affair, a draft's above all.
    """
    if not folder.is_dir() or folder.name.startswith("."):
        return {}
    numbered = [
        child
        for child in sorted(folder.iterdir())
        if child.name.isdecimal() and int(child.name) and find_weights(child)
    ]
    itself = {1: folder} if find_weights(folder) else {}
    return itself | {int(child.name): child for child in numbered}


def put_in_place(folder: Path, model: Path) -> Path:
    """Rename a finished folder to the model's next version, and return it: it is there whole or not at all.

    Args:
        folder: on the same disk as ``model``.
        model: the model's folder.
    """
    while True:
        # After every number that is taken, whatever it holds: a version once seen must not come back
        # as another.
        taken = [int(child.name) for child in model.iterdir() if child.name.isdecimal()]
        version = model / str(max([*taken, *versions_of(model)], default=0) + 1)
        try:
            return folder.rename(version)
        except OSError:
            if not version.exists():
                raise  # else somebody published meanwhile


def find_weights(folder: Path) -> Path | None:
    """Return the folder's weights file, or None."""
    return next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)


def open_bundle(folder: Path, name: str, version: int) -> Bundle:
    """Read everything but the weights.

    Raises:
        BundleError: a file is missing or not as expected; the text names it.
    """
    weights = find_weights(folder)
    if weights is None:
        raise BundleError(f"{folder} holds none of {', '.join(WEIGHT_FILES)}")
    names = read_class_names(folder / CLASS_FILE)
    path = folder / CARD_FILE
    fields = Fields(path, read_json(path) if path.exists() else {})
    description = fields.read("description", "", is_text, "a text")
    return Bundle(name, version, weights, names, description, read_card(fields, len(names)))


def check_sums(folder: Path) -> None:
    """Compare the files with ``SHA256SUMS``, where there is one: a copy may have broken off, a disk may rot.

    Raises:
        BundleError: a file is missing or is another one; the text names it.
    """
    sums = folder / SUMS_FILE
    try:
        for line in sums.read_text(encoding="utf-8").splitlines() if sums.exists() else []:
            expected, _, name = line.partition("  ")
            found = take_sum(folder / name)
            if found != expected:
                raise BundleError(f"{folder / name} is not what {SUMS_FILE} says: {found[:16]} …")
    except (OSError, ValueError) as error:
        raise BundleError(f"{sums}: {error}") from error


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` over the files that a version is made of; what is derived or added later stays out."""
    lines = []
    for name in (*WEIGHT_FILES, CLASS_FILE, CARD_FILE):
        if (folder / name).is_file():
            lines.append(f"{take_sum(folder / name)}  {name}\n")
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def take_sum(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read ``{"0": "Aeroplane", …}``: one name for each number from 0 on.

    Raises:
        BundleError: a number is missing, or a name is empty or no text.
    """
    names = read_json(path)
    expected = [str(index) for index in range(len(names))]
    if not names or set(names) != set(expected):
        raise BundleError(
            f'{path}: expected the keys "0" to "N" without a gap, found {sorted(names)[:5]} …'
        )
    ordered = tuple(names[key] for key in expected)
    if wrong := [name for name in ordered if not isinstance(name, str) or not name.strip()]:
        raise BundleError(f"{path}: a class name must be a text, found {wrong[0]!r}")
    return ordered


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise BundleError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
