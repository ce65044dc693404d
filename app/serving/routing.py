"""Routing: the live version that answers a request.

A manifest says what should be served; the routes say what is served. Labels, traffic shares and the default
move only once the version that they are to point to is live, all of them in one step on the hub. Until then,
and for as long as its load fails, they stay where they are.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from app.control.manifest import Key, Manifest
from app.errors import NotReady, UnknownModel

SPACE = 1 << 64

Live = Mapping[str, Collection[int]]  # model → its live versions


@dataclass(frozen=True)
class Target:
    """The model, version or label that a request addresses.

    Attributes:
        name: of the model; empty for the default.
        version: number of the version.
        label: label of the version. Without version and label the traffic shares decide, or the highest
            version answers.
        sticky: requests with the same key get the same version of those that share traffic.
    """

    name: str = ""
    version: int | None = None
    label: str = ""
    sticky: str = ""


ANY = Target()


@dataclass(frozen=True)
class Routes:
    """Maps targets to live versions.

    Attributes:
        default: the model of a request that names none.
        versions: model → its wanted live versions; the highest answers a request that names no version.
        labels: model → label → version.
        shares: model → version → share of the requests that name neither version nor label.
    """

    default: str = ""
    versions: Mapping[str, Collection[int]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    shares: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def follow(self, wanted: Manifest, live: Live) -> Routes:
        """Return the routes of a manifest as far as it is live; the rest stays as it is."""
        default = self.default if self.default in live else wanted.default
        return Routes(
            wanted.default if wanted.default in live else default,
            {name: versions_of(wanted, name) & set(live[name]) or live[name] for name in live},
            {name: self._labels_of(name, wanted, live[name]) for name in live},
            {name: self._shares_of(name, wanted, live[name]) for name in live},
        )

    def _labels_of(self, name: str, wanted: Manifest, live: Collection[int]) -> Mapping[str, int]:
        before = self.labels.get(name, {})
        if not versions_of(wanted, name):
            return before
        return {
            label: before[label] if version not in live and before.get(label) in live else version
            for label, version in wanted.labels.get(name, {}).items()
        }

    def _shares_of(self, name: str, wanted: Manifest, live: Collection[int]) -> Mapping[int, int]:
        before = self.shares.get(name, {})
        if not versions_of(wanted, name):
            return before
        shares = resolve_shares(wanted.traffic.get(name, {}), wanted.labels.get(name, {}))
        is_live = all(version in live for version, share in shares.items() if share)
        return shares if is_live or not set(before) & set(live) else before

    def needs(self, key: Key, wanted: Manifest, live: Collection[Key]) -> bool:
        """Return whether a live version has to stay: it is wanted, or a route to it cannot move yet."""
        name, version, *_ = key
        keys, versions = {entry.key for entry in wanted.entries}, versions_of(wanted, name)
        if key in keys:
            return True
        if any(other[:2] == key[:2] and other in keys for other in live):
            return False  # the same version with other weights has replaced it
        shared = {number for number, share in self.shares.get(name, {}).items() if share}
        pointed_to = {*self.labels.get(name, {}).values(), *shared, *versions}
        is_only_one = not any(other in keys for other in live if other[0] == name)
        is_model_served = bool(versions) or name == self.default
        return is_model_served and (version in pointed_to or is_only_one)

    def find(
        self, target: Target, wanted: Manifest, live: Live, failed: Collection[tuple[str, int]]
    ) -> tuple[str, int]:
        """Return the model and the version that answer a request.

        Args:
            target: the model, version or label that the request addresses.
            wanted: the current manifest.
            live: the versions that can answer.
            failed: model and version of those that could not be loaded.

        Raises:
            UnknownModel: the target is not in the manifest.
            NotReady: the target is in the manifest but not live.
        """
        name, label, version = target.name or self.default, target.label, target.version
        expected, live_versions = versions_of(wanted, name), live.get(name, ())
        if not live_versions and not expected:
            known = {*live, *(entry.name for entry in wanted.entries)}
            raise UnknownModel(f"there is no model {name!r}; there is {list_all(known)}")
        if not live_versions:
            raise not_live(name, any(name == other for other, _ in failed))
        if label:
            labels = self.labels.get(name, {})
            if label not in labels:
                raise UnknownModel(f"{name} has no label {label!r}; it has {list_all(labels)}")
            version = labels[label]
        if version is None:
            usual = set(self.versions.get(name, live_versions)) & set(live_versions)
            shares = self.shares.get(name, {})
            version = choose_version(shares, usual or live_versions, live_versions, target.sticky)
        if version in live_versions:
            return name, version
        if version in expected:
            raise not_live(f"{name}, version {version}", (name, version) in failed)
        raise UnknownModel(f"{name} has no version {version}; it has {list_all(live_versions)}")

    def left_behind(self, wanted: Manifest) -> Iterator[str]:
        """Yield a sentence for each route that could not move to where the manifest wants it."""
        if self.default != wanted.default:
            yield f"the default stays {self.default}: {wanted.default} is not live"
        for name, labels in wanted.labels.items():
            for label, version in labels.items():
                if self.labels.get(name, {}).get(label, version) != version:
                    stays = f"stays at version {self.labels[name][label]}"
                    yield f"{name}: the label {label} {stays}: version {version} is not live"
        for name, traffic in wanted.traffic.items():
            shares = resolve_shares(traffic, wanted.labels.get(name, {}))
            if name in self.shares and self.shares[name] != shares:
                yield f"{name}: the shares of the traffic stay: not all of their versions are live"


def resolve_shares(shares: Mapping[str, int], labels: Mapping[str, int]) -> dict[int, int]:
    """Return the traffic shares by version; the shares of a version and of its labels add up.

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
    """Choose a live version by the traffic shares.

    Args:
        shares: version → weight, 0 or more.
        usual: at least one version; the highest answers if none with a share is live.
        live: the versions that can answer.
        sticky: requests with the same key get the same version as long as shares and versions stay;
            empty for a random choice.
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


def versions_of(wanted: Manifest, name: str) -> set[int]:
    """Return the versions of a model in a manifest."""
    return {entry.version for entry in wanted.entries if entry.name == name}


def versions_by_model(keys: Iterable[Key]) -> dict[str, set[int]]:
    """Return model → versions."""
    found: dict[str, set[int]] = {}
    for name, version, *_ in keys:
        found.setdefault(name, set()).add(version)
    return found


def not_live(name: str, has_failed: bool) -> NotReady:
    """Return the error for a model or version of the manifest that is not live."""
    return NotReady(f"{name} cannot be served" if has_failed else f"{name} is being loaded")


def list_all(items: Iterable[object]) -> str:
    """Return the items as text, sorted."""
    return ", ".join(str(item) for item in sorted(items, key=str)) or "none"
