"""A bundle's weights, read into tensors. Weights never run code.

``.pth`` is read with ``weights_only=True``, ``.npz`` with ``allow_pickle=False``; ``.safetensors``
cannot hold code.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from app.errors import BundleError, first_line

# What the readers raise on damaged files and on files of another kind.
READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    RuntimeError,
    SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a weights file of any kind.

    Returns:
        Parameter name → CPU tensor; floating tensors as float32 whatever they were stored as.

    Raises:
        BundleError: the file is damaged or holds something else than tensors; the text says how to
            mend it.
    """
    try:
        tensors = READERS[path.suffix](path)
    except READ_ERRORS as error:
        raise BundleError(
            f"{path} cannot be read as weights ({type(error).__name__}: {first_line(error)}); "
            "it must hold a state_dict: torch.save(model.state_dict(), 'model.pth')"
        ) from error
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def read_pth(path: Path) -> dict[str, torch.Tensor]:
    """Read torch's own format; takes ``{"state_dict": …}`` and names with DataParallel's ``module.`` too."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not isinstance(content, dict) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise ValueError("it holds no dictionary of tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def read_npz(path: Path) -> dict[str, torch.Tensor]:
    """Read NumPy's compressed archive; half-precision zeros compress well, so a pruned network stays small."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


READERS: dict[str, Callable[[Path], dict[str, torch.Tensor]]] = {
    ".pth": read_pth,
    ".safetensors": load_file,
    ".npz": read_npz,
}
