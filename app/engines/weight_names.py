"""The names of the tensors in a weights file, translated to those of torchvision's networks.

Training programs wrap a network, replace its last layer, or use the names of an older release. Each translation is
told in a note, for the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from app.names import shorten

PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning
# The least share of the tensors with one of these; others are those of a loss or of an average's counter.
MIN_SHARE = 0.9
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
    notes, stripped, others = [], "", []
    while prefix := find_prefix(originals):
        others += [old for name, old in originals.items() if not continues(name, prefix)]
        originals = {
            name.removeprefix(prefix): old
            for name, old in originals.items()
            if continues(name, prefix)
        }
        stripped += prefix
    if stripped:
        notes.append(f"the prefix {shorten(stripped)} is left out")
    if others:
        notes.append(f"so are {shorten(others)}, which do not have it")
    renamed = {modernize(name): old for name, old in originals.items()}
    if len(renamed) == len(originals) and renamed.keys() != originals.keys():
        notes.append("names of an older torchvision are read as today's")
        originals = renamed
    return originals, notes


def find_prefix(names: Iterable[str]) -> str:
    """Return a prefix that a network's names share and no torchvision network has, or ""."""
    names = list(names)
    for prefix in PREFIXES:
        if sum(continues(name, prefix) for name in names) >= max(1, MIN_SHARE * len(names)):
            return prefix
    # A network within another one, such as "backbone."; one layer alone is none.
    first = names[0].partition(".")[0] + "." if names else ""
    rest = [name.removeprefix(first) for name in names if continues(name, first)]
    layers = {name.partition(".")[0] for name in rest if "." in name}
    return first if len(rest) == len(names) and len(layers) > 1 else ""


def continues(name: str, prefix: str) -> bool:
    """Return whether a name starts with a prefix and continues after it."""
    return name.startswith(prefix) and name != prefix


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
    if not head or not all(name.startswith(f"{last}.") for name in shares):
        head = last  # other layers of the network come before it, such as a hidden one
    own = [name for name in names if name.startswith(f"{head}.")]
    layers = {name.rpartition(".")[0] for name in own}
    if len(layers) != 1 or layers == {last}:
        return {}
    parts = {name: name.rpartition(".")[2] for name in own}
    if not PARAMETERS.issuperset(parts.values()):
        return {}
    return {name: f"{last}.{part}" for name, part in parts.items()}
