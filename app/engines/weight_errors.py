"""Messages about weights that cannot be served, each with a remedy for the most frequent mistakes."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from app.errors import first_line
from app.names import shorten

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
)  # keys of checkpoints that hold the state_dict
HEAD_BYTES = 4096
MAX_NAMES = 3  # of tensors of each kind in a message

TERMINAL = re.compile(r"\x1b\[[0-9;]*m")  # torch prints in bold
CLASS = re.compile(r"GLOBAL ([A-Za-z_]\w*\.[\w.]+)")
DICTIONARY = re.compile(rb"\x80.\}", re.DOTALL)  # the first bytes of a pickled dictionary


def describe_unreadable(path: Path, error: Exception) -> str:
    """Return the reason why a file cannot be read as weights, and the remedy."""
    message = TERMINAL.sub("", str(error))
    cause, remedy = find_cause(path, message)
    cause = cause or f"{type(error).__name__}: {first_line(message)}"
    remedy = remedy or f"it must hold a state_dict: {save('model')}"
    return f"{path} cannot be read as weights: {cause}; {remedy}"


def save(source: str) -> str:
    """Return the Python line that saves the state_dict of ``source``."""
    return f"torch.save({source}.state_dict(), 'model.pth')"


def find_cause(path: Path, message: str) -> tuple[str, str]:
    """Return the kind of a file that holds no weights, and the remedy; "" for what is unknown."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            names = zipfile.ZipFile(file).namelist() if head.startswith(b"PK") else []
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return "", ""
    is_pth = path.suffix == ".pth"
    if is_pth and any(name.endswith("constants.pkl") for name in names):
        loading = f"model = torch.jit.load('{path.name}')"
        return "it is a TorchScript archive", f"convert it in Python: {loading}; {save('model')}"
    if is_pth and "eights" in message and (pickled := CLASS.search(message)):
        return describe_pickle(path, head, pickled[1])
    onnx = head[:1] == b"\x08" and (b"onnx" in head or b"pytorch" in head)
    causes = (
        (not head, "it is empty"),
        (head.startswith(b"\x89HDF"), "it is an HDF5 file, such as Keras writes, none of torch's"),
        (onnx, "it is an ONNX file; save the weights of the torch model that it came from"),
        (is_pth and head[8:9] == b"{", "it is a .safetensors file: call it model.safetensors"),
    )
    return next((cause for applies, cause in causes if applies), ""), ""


def describe_pickle(path: Path, head: bytes, found: str) -> tuple[str, str]:
    """Return what a pickle with objects of the class ``found`` holds, and the remedy.

    Args:
        path: the file.
        head: its first bytes; torch's archives begin with the pickle.
        found: the first class that is not a tensor's.
    """
    start = "convert it in Python, where it was made: "
    loading = f"torch.load('{path.name}', weights_only=False)"
    wrapper = next((key for key in WRAPPERS if pickled_text(key) in head), "")
    if wrapper and DICTIONARY.search(head):
        return (
            f"it is a checkpoint with other Python objects ({found}), which could run code",
            f"{start}checkpoint = {loading}; torch.save(checkpoint['{wrapper}'], 'model.pth')",
        )
    return (
        f"it holds a whole pickled model or other Python objects ({found}), which could run code",
        f"{start}model = {loading}; {save('model')}",
    )


def pickled_text(text: str) -> bytes:
    """Return a text as torch's pickles hold it."""
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


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
