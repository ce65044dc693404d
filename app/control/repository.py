"""The model repository: which models there are, and which of their versions are wanted.

The rules are TensorFlow Serving's (its guide "Serving configuration"; file_system_storage_path_source.cc):
a model is a folder of numbered versions, and a policy says which of them are served.

    latest:N   the N highest            all   every one            3,4   exactly these

One rule is stricter: a version that cannot be served (half copied, corrupt) does not count. With
``latest:1`` the highest that can be served is, also after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Policy:
    """Which versions: the ``latest`` so many; or all where it is 0; or just those of ``specific``, if any."""

    latest: int = 1
    specific: tuple[int, ...] = ()

    @classmethod
    def from_text(cls, text: str) -> Policy:
        """Read ``latest:N``, ``all`` or ``3,4``; ``app/settings.py`` has checked the form."""
        if text == "all":
            return cls(latest=0)
        kind, _, number = text.partition(":")
        if kind == "latest":
            return cls(latest=int(number))
        return cls(specific=tuple(int(part) for part in text.split(",")))


@dataclass(frozen=True)
class ServedModel:
    """One model as the operator wants it.

    Attributes:
        name: as clients call it.
        folder: holds its versions.
        policy: which of them to serve.
        labels: label → version.
        traffic: label or version → share of the requests that name neither; empty: the highest gets all.
    """

    name: str
    folder: Path
    policy: Policy = Policy()
    labels: Mapping[str, int] = field(default_factory=dict)
    traffic: Mapping[str, int] = field(default_factory=dict)


def choose_versions(
    policy: Policy, versions: Mapping[int, Path], is_servable: Callable[[int, Path], bool]
) -> list[int]:
    """Return the versions to serve, rising.

    Args:
        policy: which are wanted.
        versions: those that there are, with their folders.
        is_servable: asked, highest first, about as many as are needed.
    """
    wanted = policy.specific or tuple(versions)
    chosen: list[int] = []
    for version in sorted(set(wanted) & set(versions), reverse=True):
        if policy.latest and not policy.specific and len(chosen) == policy.latest:
            break
        if is_servable(version, versions[version]):
            chosen.append(version)
    return sorted(chosen)
