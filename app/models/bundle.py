"""The bundle: a model version on disk, its weights and class names validated before it is served.

    models/NAME/VERSION/     or a bare folder, which is version 1
        model.pth            a ``state_dict``, the last layer sized by the class count;
                             or model.safetensors, or model.npz
        class_name.json      {"0": "Aeroplane", "1": "Bicycle", …}, or a list of the names in order
        model.json           optional: the model config, a description and measured scores
                             (``app/models/config.py``)
        calibration/         optional: representative images, for ``scripts/optimize``
        SHA256SUMS           optional: in sha256sum's format; verified
        precision.json       written by ``scripts/optimize``: the measured agreement of each precision
        optimized/           artifacts (``app/models/artifacts.py``); may be deleted

Nothing here needs torch: ``app/engines/weights.py`` reads the tensors.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import BundleError
from app.models.config import DEFAULT, Fields, ModelConfig, read_config, read_description
from app.models.folders import (
    CLASS_FILE,
    MAX_DIGITS,
    WEIGHT_FILES,
    find_models,
    find_weights,
    is_closed,
    is_version,
    versions_of,
)
from app.models.untrusted_files import read_bytes, read_json, take_sum
from app.names import shorten, text_problem

SUMS_FILE = "SHA256SUMS"
CONFIG_FILE = "model.json"
SUMMED = (*WEIGHT_FILES, CLASS_FILE, CONFIG_FILE)  # the files that SHA256SUMS can name
HASH_DIGITS = 16
MAX_CLASSES = 100_000
MAX_WEIGHTS_BYTES = 8 << 30  # torchvision's largest classifier, in 64 bits, takes 5.2 GB
MAX_SUMS_BYTES = 1 << 16


@dataclass(frozen=True)
class Bundle:
    """A validated model folder; ``app/engines/weights.py`` reads its weights.

    Attributes:
        name: the model's name, a folder name.
        version: 1 or higher.
        weights: the weights file.
        class_names: one for each output of the network, in order.
        description: a text for users; may be empty.
        config: the model config.
    """

    name: str
    version: int
    weights: Path
    class_names: tuple[str, ...]
    description: str = ""
    config: ModelConfig = DEFAULT

    @property
    def folder(self) -> Path:
        """The version's folder."""
        return self.weights.parent

    def weights_digest(self) -> str:
        """Return ``HASH_DIGITS`` hexadecimal digits of the weights' SHA-256. Raises BundleError."""
        return take_sum(self.weights, MAX_WEIGHTS_BYTES)[:HASH_DIGITS]


def find_bundle(models: Path, name: str = "") -> Bundle:
    """Open the highest version of the only model, or of the model ``name``.

    Raises:
        BundleError: there is no such model, or more than one; the message names the folder.
    """
    folders = find_models(models, name).folders
    if len(folders) > 1:
        raise BundleError(f"{models} holds {', '.join(folders)}: set SERVING_MODEL to one of them")
    ((chosen, folder),) = folders.items()
    version, folder = max(versions_of(folder).items())
    return open_bundle(folder, chosen, version)


def put_in_place(folder: Path, model: Path) -> Path:
    """Rename a finished folder to the model's next version number, atomically, and return its path.

    Args:
        folder: on the same file system as ``model``.
        model: the model's folder.
    """
    while True:
        # Higher than every existing number, valid or not: a version number must never be reused.
        taken = [int(child.name) for child in model.iterdir() if is_version(child.name)]
        version = model / str(max([*taken, *versions_of(model)], default=0) + 1)
        if not is_version(version.name):
            raise BundleError(f"{version}: a version's number has at most {MAX_DIGITS} digits")
        try:
            return folder.rename(version)
        except OSError:
            if not version.exists():
                raise  # else another process has published this number


def open_bundle(folder: Path, name: str, version: int) -> Bundle:
    """Read and validate everything but the weights.

    Raises:
        BundleError: a file is missing or invalid; the message names it.
    """
    if is_closed(folder):
        raise BundleError(f"{folder} cannot be read by user {os.getuid()}: chmod -R a+rX {folder}")
    weights = find_weights(folder)
    if weights is None:
        raise BundleError(f"{folder} holds none of {', '.join(WEIGHT_FILES)}")
    names = read_class_names(folder / CLASS_FILE)
    path = folder / CONFIG_FILE
    content = read_json(path) if os.path.lexists(path) else {}
    if not isinstance(content, dict):
        raise BundleError(f"{path}: expected a JSON object, found {type(content).__name__}")
    fields = Fields(path, content)
    return Bundle(
        name, version, weights, names, read_description(fields), read_config(fields, len(names))
    )


def check_sums(folder: Path) -> None:
    """Verify ``SHA256SUMS``, if present, against truncated copies and disk corruption.

    Raises:
        BundleError: a file is missing or differs, or is not a bundle's file; the message names it.
    """
    sums = folder / SUMS_FILE
    if not os.path.lexists(sums):
        return
    for line in read_bytes(sums, MAX_SUMS_BYTES).decode("utf-8", "replace").splitlines():
        if not line.strip():
            continue
        expected, _, name = line.partition(" ")
        name = name[1:]  # without sha256sum's second blank or its mark of a binary file
        if name not in SUMMED:
            raise BundleError(
                f"{sums} names {shorten(name)}; it can name only {', '.join(SUMMED)}: remove that line"
            )
        if take_sum(folder / name, MAX_WEIGHTS_BYTES) != expected.lower():
            raise BundleError(f"{folder / name} is not what {SUMS_FILE} says: copy it again")


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` of the weights, the class names and the config; derived files are not included."""
    lines = [
        f"{take_sum(folder / name, MAX_WEIGHTS_BYTES)}  {name}\n"
        for name in SUMMED
        if (folder / name).is_file()
    ]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read the class names: ``{"0": "Rust", …}``, ``["Rust", …]`` or ``{"Rust": 0, …}``, ImageFolder's class_to_idx.

    Raises:
        BundleError: an index is missing, there are too many, or a name is not printable text.
    """
    names = order_class_names(path, read_json(path))
    if len(names) > MAX_CLASSES:
        raise BundleError(f"{path} has {len(names)} names; at most {MAX_CLASSES} are allowed")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise BundleError(f"{path}: a class name must be a text, found {shorten(name)}")
        if problem := text_problem(name):
            raise BundleError(f"{path}: the name of class {index}, {shorten(name)}, {problem}")
    return tuple(names)


def order_class_names(path: Path, content: Any) -> list[Any]:
    """Return the names in the order of the network's outputs. Raises BundleError."""
    if isinstance(content, list) and content:
        return content
    if not isinstance(content, dict):
        raise BundleError(
            f"{path}: expected a JSON object or a list of names, found {shorten(content)}"
        )
    indices = list(content.values())
    if all(type(index) is int for index in indices) and len(set(indices)) == len(indices):
        content = {str(index): name for name, index in content.items()}
    expected = [str(index) for index in range(len(content))]
    if not content or set(content) != set(expected):
        found = shorten(sorted(content)[:5])
        raise BundleError(f'{path}: expected the keys "0" to "N" without a gap, found {found}')
    return [content[key] for key in expected]
