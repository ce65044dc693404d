"""A bundle's weights, read into tensors; without running code, and without more memory than the network needs.

``.pth`` is read with ``weights_only=True``, ``.npz`` with ``allow_pickle=False``; ``.safetensors``
cannot hold code. Callers compare ``shapes`` with the network first: a small file may claim, or unpack
to, terabytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from app.engines.weight_errors import describe_unreadable
from app.errors import BundleError, TransientError
from app.models.bundle import MAX_WEIGHTS_BYTES
from app.models.untrusted_files import open_regular

Shape = tuple[int, ...]

PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning
WRAPPERS = ("state_dict", "model")  # keys of checkpoints that hold the state_dict
MAX_HEADER_BYTES = 1 << 16  # of an array in an .npz
MAX_INDEX_BYTES = 1 << 23  # of the index of .safetensors: 70,000 tensors
MAX_ITEM_BYTES = 8  # of a number
LENGTH_BYTES = 8  # of the length of the index of .safetensors


@dataclass(frozen=True)
class Weights:
    """An open weights file.

    Attributes:
        shapes: parameter name → shape, known without reading the numbers of an ``.npz`` or ``.safetensors``.
        originals: parameter name → its name in the file.
        path: the file.
        fetch: reads a tensor by its name in the file.
    """

    shapes: Mapping[str, Shape]
    originals: Mapping[str, str]
    path: Path
    fetch: Callable[[str], torch.Tensor]

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


@contextmanager
def open_weights(path: Path, most_bytes: int, home: Path | None = None) -> Iterator[Weights]:
    """Open a weights file of any kind, of at most ``most_bytes``; ``home`` is ``open_regular``'s.

    Raises:
        BundleError: the file is damaged or holds no plain tensors; the message has the remedy.
    """
    with ExitStack() as stack:
        with translate_parser_errors(path):
            file = stack.enter_context(open_regular(path, most_bytes, home))
            shapes, fetch = READERS[path.suffix](file, stack)
        originals = strip_prefixes(shapes)
        yield Weights({new: shapes[old] for new, old in originals.items()}, originals, path, fetch)


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


def strip_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Return name → name in the file, without the prefixes common to all names."""
    originals = {name: name for name in names}
    while originals and (prefix := next((p for p in PREFIXES if all_start(originals, p)), "")):
        originals = {name.removeprefix(prefix): old for name, old in originals.items()}
    return originals


def all_start(names: Iterable[str], prefix: str) -> bool:
    """Return whether all names start with a prefix and continue after it."""
    return all(name.startswith(prefix) and name != prefix for name in names)


Opened = tuple[dict[str, Shape], Callable[[str], torch.Tensor]]


def open_pth(file: BufferedReader, _stack: ExitStack) -> Opened:
    """Read torch's format, also ``{"state_dict": …}``. Takes as much memory as the file has bytes."""
    if zipfile.is_zipfile(file):
        check_stored(file)
    file.seek(0)
    content = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(content, dict):
        content = next((content[k] for k in WRAPPERS if isinstance(content.get(k), dict)), content)
    if not isinstance(content, dict) or not content or not all(map(is_plain, content.values())):
        raise ValueError("it holds no dictionary of tensors")
    tensors = {str(name): tensor for name, tensor in content.items()}
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors.__getitem__


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


def open_safetensors(file: BufferedReader, stack: ExitStack) -> Opened:
    """Read the index of a ``.safetensors``."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > MAX_INDEX_BYTES:
        raise ValueError(f"its index has {length} bytes; at most {MAX_INDEX_BYTES} are read")
    # By its handle: another file may have its name by now.
    opened = stack.enter_context(safe_open(f"/proc/self/fd/{file.fileno()}", framework="pt"))
    shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return shapes, opened.get_tensor


def open_npz(file: BufferedReader, stack: ExitStack) -> Opened:
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

    return {name: read_shape(archive, member) for name, member in members.items()}, fetch


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


READERS: dict[str, Callable[[BufferedReader, ExitStack], Opened]] = {
    ".pth": open_pth,
    ".safetensors": open_safetensors,
    ".npz": open_npz,
}
