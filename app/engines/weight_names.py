"""The names of the tensors in a weights file, translated to those of torchvision's networks.

Training programs wrap a network, replace its last layer, or use the names of an older release. Each translation is
told in a note, for the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from app.names import shorten

PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning
COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside the network's tensors
# torchvision's own files of densenets and vision transformers have the names of its first releases.
OLDER = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)"), r"\1"),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
PARAMETERS = {"weight", "bias"}  # of a class layer


def translate_names(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Return name → name in the file, and the notes."""
    originals = {name: name for name in names}
    notes = []
    if len(originals) > 1 and originals.pop(COUNTER, ""):
        notes.append(f"{COUNTER} is left out")
    stripped = ""
    while prefix := find_prefix(originals):
        originals = {name.removeprefix(prefix): old for name, old in originals.items()}
        stripped += prefix
    if stripped:
        notes.append(f"the prefix {shorten(stripped)} is left out")
    renamed = {modernize(name): old for name, old in originals.items()}
    if len(renamed) == len(originals) and renamed.keys() != originals.keys():
        notes.append("names of an older torchvision are read as today's")
        originals = renamed
    return originals, notes


def find_prefix(names: Iterable[str]) -> str:
    """Return a prefix that all names share and no torchvision network has, or ""."""
    names = list(names)
    if not names:
        return ""
    known = next((prefix for prefix in PREFIXES if all_start(names, prefix)), "")
    first = names[0].partition(".")[0] + "."
    if known or not all_start(names, first):
        return known
    # A network within another one, such as "backbone."; one layer alone is none.
    rest = (name.removeprefix(first) for name in names)
    return first if len({name.partition(".")[0] for name in rest if "." in name}) > 1 else ""


def all_start(names: Iterable[str], prefix: str) -> bool:
    """Return whether all names start with a prefix and continue after it."""
    return all(name.startswith(prefix) and name != prefix for name in names)


def modernize(name: str) -> str:
    """Return today's name of a tensor."""
    for pattern, replacement in OLDER:
        name = pattern.sub(replacement, name)
    return name


def class_layer(names: Sequence[str]) -> str:
    """Return the name of a network's class layer; every torchvision classifier ends with it."""
    return names[-1].rpartition(".")[0]


def match_head(names: Iterable[str], expected: Mapping[str, object]) -> dict[str, str]:
    """Return name → expected name of a class layer that training has wrapped or moved; empty if none has been.

    ``nn.Sequential(nn.Dropout(), nn.Linear(…))`` in place of ``fc`` has ``fc.1.weight``: all but the linear
    layer does nothing when a network is served, or is what ``activation`` states.

    Args:
        names: of the tensors in the file, translated.
        expected: the network's, in order.
    """
    last = class_layer(list(expected))
    head = last.rpartition(".")[0]
    shares = [name for name in expected if name.startswith(f"{head}.")]
    if not head or not all_start(shares, f"{last}."):
        head = last  # other layers of the network come before it, such as a hidden one
    own = [name for name in names if name.startswith(f"{head}.")]
    layers = {name.rpartition(".")[0] for name in own}
    if len(layers) != 1 or layers == {last}:
        return {}
    parts = {name: name.rpartition(".")[2] for name in own}
    if not PARAMETERS.issuperset(parts.values()):
        return {}
    return {name: f"{last}.{part}" for name, part in parts.items()}
