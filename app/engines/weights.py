"""A bundle's weights, read into tensors; without running code, and without more memory than the network needs.

``.pth`` is read with ``weights_only=True``, ``.npz`` with ``allow_pickle=False``; ``.safetensors``
cannot hold code. Callers compare ``shapes`` with the network first: a small file may claim, or unpack
to, terabytes.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open

from app.engines.weight_errors import WRAPPERS, describe_unreadable
from app.engines.weight_names import match_head, translate_names
from app.errors import BundleError, TransientError
from app.models.bundle import MAX_WEIGHTS_BYTES
from app.models.untrusted_files import open_regular
from app.names import shorten

Shape = tuple[int, ...]

MAX_HEADER_BYTES = 1 << 16  # of an array in an .npz
MAX_INDEX_BYTES = 1 << 23  # of the index of .safetensors: 70,000 tensors
MAX_ITEM_BYTES = 8  # of a number
LENGTH_BYTES = 8  # of the length of the index of .safetensors

# The options of a training program, in checkpoints of torchvision's own: attributes and no code.
torch.serialization.add_safe_globals([argparse.Namespace])


@dataclass(frozen=True)
class Weights:
    """An open weights file.

    Attributes:
        shapes: parameter name → shape, known without reading the numbers of an ``.npz`` or ``.safetensors``.
        originals: parameter name → its name in the file.
        path: the file.
        fetch: reads a tensor by its name in the file.
        notes: what was unwrapped or renamed.
    """

    shapes: Mapping[str, Shape]
    originals: Mapping[str, str]
    path: Path
    fetch: Callable[[str], torch.Tensor]
    notes: tuple[str, ...] = ()

    def read(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Return these parameters as CPU tensors; floating-point ones as float32.

        Raises:
            BundleError: the file is damaged.
        """
        tensors = {}
        with translate_parser_errors(self.path):
            for name in names:
                tensor = self.fetch(self.originals[name])
                tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
        return tensors

    def fit_head(self, expected: Mapping[str, Shape]) -> Weights:
        """Return these weights with the names that the ``expected`` network has for its class layer."""
        renamed = match_head(self.shapes, expected)
        if not renamed:
            return self
        found, layer = (name.rpartition(".")[0] for name in next(iter(renamed.items())))
        return replace(
            self,
            shapes={renamed.get(name, name): shape for name, shape in self.shapes.items()},
            originals={renamed.get(name, name): old for name, old in self.originals.items()},
            notes=(*self.notes, f"{shorten(found)} is read as {layer}, the class layer"),
        )


@contextmanager
def open_weights(path: Path, most_bytes: int, home: Path | None = None) -> Iterator[Weights]:
    """Open a weights file of any kind, of at most ``most_bytes``; ``home`` is ``open_regular``'s.

    Raises:
        BundleError: the file is damaged or holds no plain tensors; the message has the remedy.
    """
    with ExitStack() as stack:
        with translate_parser_errors(path):
            file = stack.enter_context(open_regular(path, most_bytes, home))
            content = READERS.get(path.suffix, open_pth)(file, stack)
        originals, notes = translate_names(content.shapes)
        if content.wrapper:
            notes.insert(0, f"the state_dict is the checkpoint's {shorten(content.wrapper)}")
        shapes = {new: content.shapes[old] for new, old in originals.items()}
        yield Weights(shapes, originals, path, content.fetch, tuple(notes))


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a whole trusted weights file at any path; raises like ``open_weights``."""
    with open_weights(path, MAX_WEIGHTS_BYTES, Path("/")) as weights:
        return weights.read(weights.shapes)


@contextmanager
def translate_parser_errors(path: Path) -> Iterator[None]:
    """Translate all errors of a parser into BundleError."""
    try:
        yield
    except BundleError:
        raise
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing") from error
    except MemoryError as error:
        raise TransientError(f"{path}: there is not enough memory to read it") from error
    except Exception as error:
        raise BundleError(describe_unreadable(path, error)) from error


class Content(NamedTuple):
    """The content of an open file: name → shape, a reader by name, and the checkpoint's key that holds it or ""."""

    shapes: dict[str, Shape]
    fetch: Callable[[str], torch.Tensor]
    wrapper: str = ""


def open_pth(file: BufferedReader, _stack: ExitStack) -> Content:
    """Read torch's format, also a checkpoint around a state_dict. Takes as much memory as the file has bytes."""
    if zipfile.is_zipfile(file):
        check_stored(file)
    file.seek(0)
    content = torch.load(file, map_location="cpu", weights_only=True)
    wrapper = find_wrapper(content) if isinstance(content, dict) else ""
    content = content[wrapper] if wrapper else content
    if not is_state_dict(content):
        keys = f"; its keys are {shorten(list(content))}" if isinstance(content, dict) else ""
        raise ValueError(f"it holds no dictionary of tensors{keys}")
    tensors = {str(name): tensor for name, tensor in content.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Content(shapes, tensors.__getitem__, wrapper)


def find_wrapper(checkpoint: dict[Any, Any]) -> str:
    """Return the key of a checkpoint's state_dict: a usual one, or the only one that holds one; or ""."""
    keys = [
        key for key, value in checkpoint.items() if isinstance(key, str) and is_state_dict(value)
    ]
    usual = next((key for key in WRAPPERS if key in keys), "")
    return usual or (keys[0] if len(keys) == 1 else "")


def is_state_dict(value: object) -> bool:
    """Return whether a value is a dictionary of tensors."""
    return isinstance(value, dict) and bool(value) and all(map(is_plain, value.values()))


def is_plain(value: object) -> bool:
    """Return whether a value is a dense CPU tensor of real numbers."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_complex()
    )


def check_stored(file: BufferedReader) -> None:
    """Raise ValueError if a zip is compressed, as torch.save never writes one: it could unpack to any size."""
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        packed = any(m.compress_type != zipfile.ZIP_STORED for m in archive.infolist())
    if packed or unpacked > file.seek(0, io.SEEK_END):
        raise ValueError("it is compressed, which torch.save never does: save it again")


def open_safetensors(file: BufferedReader, stack: ExitStack) -> Content:
    """Read the index of a ``.safetensors``."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > MAX_INDEX_BYTES:
        raise ValueError(f"its index has {length} bytes; at most {MAX_INDEX_BYTES} are read")
    # By its handle: another file may have its name by now.
    opened = stack.enter_context(safe_open(f"/proc/self/fd/{file.fileno()}", framework="pt"))
    shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return Content(shapes, opened.get_tensor)


def open_npz(file: BufferedReader, stack: ExitStack) -> Content:
    """Read the headers of NumPy's compressed archive.

    Half-precision zeros compress well, so a pruned network stays small.
    """
    archive = stack.enter_context(zipfile.ZipFile(file))
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise ValueError("two of its arrays have one name")

    def fetch(name: str) -> torch.Tensor:
        with archive.open(members[name]) as member:
            array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        return torch.from_numpy(array)

    shapes = {name: read_shape(archive, member) for name, member in members.items()}
    return Content(shapes, fetch)


def read_shape(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Shape:
    """Return the shape in an array's header. Raises ValueError unless it holds plain numbers."""
    with archive.open(member) as content:
        head = io.BytesIO(content.read(MAX_HEADER_BYTES))
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(head)
    if dtype.kind not in "fiub" or dtype.itemsize > MAX_ITEM_BYTES or dtype.subdtype:
        raise ValueError(f"{member.filename} is no array of numbers")
    return tuple(shape)


READERS: dict[str, Callable[[BufferedReader, ExitStack], Content]] = {
    ".pth": open_pth,
    ".safetensors": open_safetensors,
    ".npz": open_npz,
}
