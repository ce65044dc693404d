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


def resolve_shares(shares: Mapping[str, int], labels: Mapping[str, int]) -> dict[int, int]:
    """Return the shares by version; those of a version and of its labels add up.

    Args:
        shares: label or version → weight, 0 or more.
        labels: label → version.
    """
    weights: dict[int, int] = {}
    for target, share in shares.items():
        version = labels[target] if target in labels else int(target)
        weights[version] = weights.get(version, 0) + share
    return weights


def choose_version(
    shares: Mapping[int, int],
    usual: Collection[int],
    live: Collection[int],
    sticky: str = "",
) -> int:
    """Choose by the shares, among what is live.

    Args:
        shares: version → weight, 0 or more.
        usual: of which the highest answers where none with a share is live; at least one.
        live: the versions that can answer.
        sticky: requests with the same text get the same version, as long as shares and versions stay;
            empty: by chance.
    """
    weights = {version: share for version, share in shares.items() if version in live}
    total = sum(weights.values())
    if not total:
        return max(usual)
    digest = hashlib.sha256(sticky.encode()).digest()
    point = int.from_bytes(digest[:8]) / SPACE if sticky else random.random()  # noqa: S311
    for version, weight in sorted(weights.items()):
        point -= weight / total
        if point < 0:
            return version
    return max(weights)
