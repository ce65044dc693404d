"""Routes: which live version answers a request.

A manifest says what is wanted; the routes say what is served. Labels, shares of the traffic and the default
move only once the version that they are to point to is live, all of them in one step on the hub. Until then,
and for as long as its load fails, they stay where they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from app.control.manifest import Key, Manifest
from app.errors import NotReady, UnknownModel
from app.serving.traffic import Target, choose_version, resolve_shares

Live = Mapping[str, Collection[int]]  # model → its live versions


@dataclass(frozen=True)
class Routes:
    """Where requests go.

    Attributes:
        default: the model of a request that names none.
        versions: model → the versions of which the highest answers a request that names none.
        labels: model → label → version.
        shares: model → version → share of the requests that name neither.
    """

    default: str = ""
    versions: Mapping[str, Collection[int]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    shares: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def follow(self, wanted: Manifest, live: Live) -> Routes:
        """Return the routes of a manifest as far as it is live; the rest of them stays as it is."""
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
        """Return whether a live version has to stay: it is wanted, or something points to it that cannot move yet."""
        name, version, *_ = key
        keys, versions = {entry.key for entry in wanted.entries}, versions_of(wanted, name)
        if key in keys:
            return True
        if any(other[:2] == key[:2] and other in keys for other in live):
            return False  # the same version with other weights has taken its place
        shared = {number for number, share in self.shares.get(name, {}).items() if share}
        pointed_to = {*self.labels.get(name, {}).values(), *shared, *versions}
        is_all_there_is = not any(other in keys for other in live if other[0] == name)
        is_model_served = bool(versions) or name == self.default
        return is_model_served and (version in pointed_to or is_all_there_is)

    def find(
        self, target: Target, wanted: Manifest, live: Live, failed: Collection[tuple[str, int]]
    ) -> tuple[str, int]:
        """Return the model and the version that answer a request.

        Args:
            target: what the request asks for.
            wanted: what is to be served.
            live: what can answer.
            failed: the model and version of those that could not be loaded.

        Raises:
            UnknownModel: that is not served.
            NotReady: it is to be served, but not live yet.
        """
        name, label, version = target.name or self.default, target.label, target.version
        expected, there = versions_of(wanted, name), live.get(name, ())
        if not there and not expected:
            known = {*live, *(entry.name for entry in wanted.entries)}
            raise UnknownModel(f"there is no model {name!r}; there is {list_all(known)}")
        if not there:
            raise not_live(name, any(name == other for other, _ in failed))
        if label:
            labels = self.labels.get(name, {})
            if label not in labels:
                raise UnknownModel(f"{name} has no label {label!r}; it has {list_all(labels)}")
            version = labels[label]
        if version is None:
            usual = set(self.versions.get(name, there)) & set(there) or there
            version = choose_version(self.shares.get(name, {}), usual, there, target.sticky)
        if version in there:
            return name, version
        if version in expected:
            raise not_live(f"{name}, version {version}", (name, version) in failed)
        raise UnknownModel(f"{name} has no version {version}; it has {list_all(there)}")

    def left_behind(self, wanted: Manifest) -> Iterator[str]:
        """Return a sentence for each thing that could not move to where the manifest wants it."""
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


def versions_of(wanted: Manifest, name: str) -> set[int]:
    """Return the versions of a model that are to be served."""
    return {entry.version for entry in wanted.entries if entry.name == name}


def not_live(what: str, has_failed: bool) -> NotReady:
    """Return the error of what is to be served and is not live."""
    return NotReady(f"{what} cannot be served" if has_failed else f"{what} is being loaded")


def list_all(items: Iterable[object]) -> str:
    """Return things in words."""
    return ", ".join(str(item) for item in sorted(items, key=str)) or "none"
