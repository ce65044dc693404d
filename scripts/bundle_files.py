"""Write the files beside the weights in a bundle (``app/models/bundle.py`` reads them), and checkpoints on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from app.models.folders import CLASS_FILE


def write_class_names(folder: Path, class_names: Sequence[str]) -> None:
    """Write ``class_name.json``: one name for each output, in order."""
    write_json(folder / CLASS_FILE, {str(index): name for index, name in enumerate(class_names)})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that people read too. Raises ValueError for NaN and infinity, which JSON does not know."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; the old one stays whole until the new one is."""
    half_written = path.with_suffix(".tmp")
    torch.save(dict(state), half_written)
    half_written.replace(path)
