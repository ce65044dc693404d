"""Writers of a bundle's JSON files (``app/models/bundle.py`` reads them) and of checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from app.models.folders import CLASS_FILE


def write_class_names(folder: Path, class_names: Sequence[str]) -> None:
    """Write ``class_name.json``: one name per output, in order."""
    write_json(folder / CLASS_FILE, {str(index): name for index, name in enumerate(class_names)})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON. Raises ValueError for NaN and infinity, which JSON lacks."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically."""
    half_written = path.with_suffix(".tmp")
    torch.save(dict(state), half_written)
    half_written.replace(path)
