"""Traffic: whom a request means, and which of several versions answers one that names none."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass

SPACE = 1 << 64


@dataclass(frozen=True)
class Target:
    """Whom a request means.

    Attributes:
        name: which model; empty is the default one.
        version: which version.
        label: or which label; neither: as the model's traffic is shared out, or the highest version.
        sticky: requests with the same text here get the same version of those that share traffic.
    """

    name: str = ""
    version: int | None = None
    label: str = ""
    sticky: str = ""


ANY = Target()


def choose_version(
    shares: Mapping[str, int], labels: Mapping[str, int], live: Collection[int], sticky: str = ""
) -> int:
    """Choose by the shares, among what is live.

    Args:
        shares: label or version → weight, 0 or more.
        labels: label → version.
        live: the versions that can answer, at least one.
        sticky: requests with the same text get the same version, as long as shares and versions stay;
            empty: by chance.

    Returns:
        A version; the highest where none with a share is live.
    """
    weights: dict[int, int] = {}
    for target, share in shares.items():
        version = labels[target] if target in labels else int(target)
        if version in live:
            weights[version] = weights.get(version, 0) + share
    total = sum(weights.values())
    if not total:
        return max(live)
    digest = hashlib.sha256(sticky.encode()).digest()
    point = int.from_bytes(digest[:8]) / SPACE if sticky else random.random()  # noqa: S311
    for version, weight in sorted(weights.items()):
        point -= weight / total
        if point < 0:
            return version
    return max(weights)
