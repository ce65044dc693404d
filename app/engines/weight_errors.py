"""Messages about weights that cannot be served, each with a remedy for the most frequent mistakes."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from app.errors import first_line
from app.names import shorten

SAVE = "torch.save(model.state_dict(), 'model.pth')"
HEAD_BYTES = 256
MAX_NAMES = 3  # of tensors of each kind in a message

TERMINAL = re.compile(r"\x1b\[[0-9;]*m")  # torch prints in bold
CLASS = re.compile(r"GLOBAL ([A-Za-z_]\w*\.[\w.]+)")


def describe_unreadable(path: Path, error: Exception) -> str:
    """Return the reason why a file cannot be read as weights, and the remedy."""
    message = TERMINAL.sub("", str(error))
    original = f"{type(error).__name__}: {first_line(message)}"
    cause = find_cause(path, message) or original
    return f"{path} cannot be read as weights ({cause}); it must hold a state_dict: {SAVE}"


def find_cause(path: Path, message: str) -> str:
    """Return the kind of a file that holds no weights, and the remedy; "" if it is unknown."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            names = zipfile.ZipFile(file).namelist() if head.startswith(b"PK") else []
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return ""
    is_pth = path.suffix == ".pth"
    pickled = CLASS.search(message) if is_pth and "eights" in message else None
    onnx = head[:1] == b"\x08" and (b"onnx" in head or b"pytorch" in head)
    causes = (
        (not head, "it is empty"),
        (
            is_pth and any(name.endswith("constants.pkl") for name in names),
            f"it is a TorchScript archive; save torch.jit.load('{path.name}').state_dict()",
        ),
        (head.startswith(b"\x89HDF"), "it is an HDF5 file, such as Keras writes, none of torch's"),
        (onnx, "it is an ONNX file; save the weights of the torch model that it came from"),
        (is_pth and head[8:9] == b"{", "it is a .safetensors file: call it model.safetensors"),
        (
            pickled is not None,
            f"it holds a whole pickled model or other Python objects ({pickled and pickled[1]}), which "
            f"could run code; where you made it: model = torch.load('{path.name}', weights_only=False)",
        ),
    )
    return next((cause for applies, cause in causes if applies), "")


def describe_misfit(
    actual: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> str:
    """Return the differences between a file's shapes and a network's, or ""."""
    missing = [name for name in expected if name not in actual and not is_optional(name)]
    unknown = [name for name in actual if name not in expected]
    other = [
        f"{shorten(name)} is {actual[name]}, expected {expected[name]}"
        for name in expected
        if name in actual and not fits(actual[name], expected[name])
    ]
    parts = [
        f"{len(names)} {problem} ({', '.join(names[:MAX_NAMES])}{', …' if len(names) > MAX_NAMES else ''})"
        for names, problem in (
            (missing, "tensors are missing"),
            ([shorten(name) for name in unknown], "are not known to it"),
            (other, "have another shape"),
        )
        if names
    ]
    return "; ".join(parts)


def is_optional(name: str) -> bool:
    """Return whether a tensor may be missing: older files have no batch counts, and serving does not need them."""
    return name.endswith("num_batches_tracked")


def fits(actual: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Return whether torch accepts one shape for another: an equal one, or one number for a scalar."""
    return actual == expected or (expected == () and actual == (1,))


def is_same_network(
    actual: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> bool:
    """Return whether a file's tensors are a network's, for any size of the last layer."""
    last = list(expected)[-1].rpartition(".")[0]

    def body(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        return {name: () if name.startswith(last) else shape for name, shape in shapes.items()}

    return not describe_misfit(body(actual), body(expected))
