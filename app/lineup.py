"""The lineup: the versions that all workers serve, each of them checked, converted and measured before.

One process decides (the ``Curator``: Gunicorn's master at the start and on a reload, ``app/follow.py``
from then on) and writes the lineup into a file; the workers follow it. So a version is converted
once, whoever serves it, and one that cannot be served never reaches a worker.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.bundle import (
    CARD_FILE,
    CLASS_FILE,
    SUMS_FILE,
    WEIGHT_FILES,
    check_sums,
    open_bundle,
    versions_of,
)
from app.errors import BundleError, first_line
from app.footprint import Footprint, find_footprint
from app.machine import hold_lock
from app.models_file import read_configs
from app.optimized import Optimized
from app.precision import REPORT_FILE
from app.repository import ModelConfig, choose_versions
from app.settings import Settings

LINEUP_FILE = "lineup.json"  # in the cache folder
LOOK_WAIT_S = 10  # for another process that looks at the same folders: it may convert for minutes
WATCHED = (*WEIGHT_FILES, CLASS_FILE, CARD_FILE, SUMS_FILE, REPORT_FILE)

FOLDERS = re.compile(r"(?<!\w)/(?:[^\s/:,;'\"]+/)*")  # before a file's name; not in "and/or"

Key = tuple[str, int, str, str, str]  # name, version, weights, engine, precision
Fingerprint = tuple[tuple[str, int, int], ...]  # (name, bytes, mtime in ns) of each watched file


@dataclass(frozen=True)
class Entry:
    """One version to serve.

    Attributes:
        name: the model's name.
        version: its number.
        folder: where it lies.
        weights_hash: ``Bundle.content_hash`` of what was checked.
        footprint: how it runs, and what that needs.
    """

    name: str
    version: int
    folder: str
    weights_hash: str
    footprint: Footprint

    @property
    def key(self) -> Key:
        """What makes it another thing to serve: a changed file in the same folder does."""
        engine, precision = self.footprint.engine, self.footprint.precision
        return self.name, self.version, self.weights_hash, engine, precision

    def open(self, cache: Path) -> Optimized:
        """Open its files. Raises BundleError, also where its card is another by now."""
        bundle = open_bundle(Path(self.folder), self.name, self.version)
        if not bundle.is_content(self.weights_hash):
            raise BundleError(
                f"{bundle.folder / CARD_FILE} has changed since the version was checked"
            )
        return Optimized(bundle, cache, self.weights_hash)


@dataclass(frozen=True)
class Refusal:
    """A version that was found and is not served, and why; ``folder`` is where it lies."""

    name: str
    version: int
    reason: str
    folder: str = ""

    @property
    def told(self) -> str:
        """The reason in short and for clients: it names files, but not the folders that they lie in."""
        reason = self.reason.replace(f"{self.folder}/", "") if self.folder else self.reason
        return f"it was refused: {first_line(FOLDERS.sub('', reason))}"


@dataclass(frozen=True)
class Lineup:
    """What is to be served.

    Attributes:
        default: the model that a request means which names none.
        entries: the versions.
        refusals: those that cannot be served.
        labels: model → label → version.
        traffic: model → label or version → share of the requests.
        problem: empty, or what is wrong with the models folder as a whole.
    """

    default: str = ""
    entries: tuple[Entry, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    traffic: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    problem: str = ""

    @property
    def failure(self) -> str:
        """Empty, or why nothing at all can be served."""
        if self.entries:
            return ""
        return self.problem or "; ".join(refusal.reason for refusal in self.refusals)

    def as_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Lineup:
        """Read ``as_text``. Raises ValueError, TypeError or LookupError on anything else."""
        content: dict[str, Any] = json.loads(text)
        content["entries"] = tuple(
            Entry(**{**entry, "footprint": Footprint(**entry["footprint"])})
            for entry in content["entries"]
        )
        content["refusals"] = tuple(Refusal(**refusal) for refusal in content["refusals"])
        return cls(**content)


class Curator:
    """Looks after the lineup: checks what is new in the models folder, and remembers what it has checked."""

    def __init__(self, settings: Settings, before: Lineup | None = None) -> None:
        """Begin; ``before`` is what is served already, to be kept where nothing else is found."""
        self._settings = settings
        self._lineup = before or Lineup()
        self._checked: dict[Path, tuple[Fingerprint, Entry | Refusal]] = {}
        self._seen: dict[Path, Fingerprint] = {}
        self._looked = False

    def look(self, wait_s: float = LOOK_WAIT_S) -> Lineup:
        """Return the lineup as the folders are now; takes seconds where something is new, else microseconds.

        Another process may be looking at the same folders. After ``wait_s`` this one stays with what
        it has, or, where that is nothing, looks all the same.

        The last versions of a model are kept when its folder is empty or gone: more likely a mount
        vanished than an operator wants an outage.
        """
        try:
            configs = read_configs(self._settings)
        except BundleError as error:
            self._lineup = dataclasses.replace(self._lineup, problem=str(error))
            return self._lineup
        # Two that look at once would convert everything twice.
        with hold_lock(self._settings.cache / "curator.lock", wait_s) as held:
            if not held and self._lineup.entries:
                return self._lineup
            parts = [self._look_at(config) for config in configs]
        self._looked = True
        self._lineup = Lineup(
            default=configs[0].name,
            entries=tuple(entry for entries, _, _ in parts for entry in entries),
            refusals=tuple(refusal for _, refusals, _ in parts for refusal in refusals),
            labels={config.name: dict(config.labels) for config in configs if config.labels},
            traffic={config.name: dict(config.traffic) for config in configs if config.traffic},
            problem="; ".join(problem for _, _, problem in parts if problem),
        )
        return self._lineup

    def _look_at(self, config: ModelConfig) -> tuple[list[Entry], list[Refusal], str]:
        """Return one model's entries and refusals, and a problem or empty."""
        kept = [entry for entry in self._lineup.entries if entry.name == config.name]
        try:
            versions = versions_of(config.folder)
            found = {folder: take_fingerprint(folder) for folder in versions.values()}
        except OSError as error:
            return kept, [], f"{config.folder} cannot be read: {error}"
        settled = {
            version: folder
            for version, folder in versions.items()
            if self._is_settled(folder, found[folder])
        }
        self._seen |= found
        results: dict[int, Entry | Refusal] = {}

        def is_servable(version: int, folder: Path) -> bool:
            results[version] = self._check(config.name, version, folder, found[folder])
            return isinstance(results[version], Entry)

        chosen = choose_versions(config.policy, settled, is_servable)
        entries = [result for v in chosen if isinstance(result := results[v], Entry)]
        refusals = [result for result in results.values() if isinstance(result, Refusal)]
        if entries:
            return entries, refusals, ""
        return kept, refusals, "" if versions else f"{config.folder} holds no version of the model"

    def _is_settled(self, folder: Path, fingerprint: Fingerprint) -> bool:
        """Tell whether a version looks finished: it came as a whole, or did not change since the last look."""
        unchanged = not self._looked or self._seen.get(folder) == fingerprint
        return unchanged or (folder / SUMS_FILE).exists()

    def _check(
        self, name: str, version: int, folder: Path, fingerprint: Fingerprint
    ) -> Entry | Refusal:
        """Check, convert and measure a version, unless that was done with these very files."""
        known = self._checked.get(folder)
        if known is not None and known[0] == fingerprint:
            return known[1]
        result: Entry | Refusal
        try:
            served = (entry.footprint for entry in self._lineup.entries if entry.name == name)
            result = check_version(self._settings, folder, name, version, next(served, None))
        except BundleError as error:
            result = Refusal(name, version, str(error), str(folder))
        self._checked[folder] = (fingerprint, result)
        return result


def check_version(
    settings: Settings, folder: Path, name: str, version: int, sibling: Footprint | None = None
) -> Entry:
    """Make sure that a version can be served, by serving it once in a process of its own.

    ``sibling`` is what another version needs, as ``find_footprint`` takes it.

    Raises:
        BundleError: it cannot; the text says why.
    """
    check_sums(folder)
    optimized = Optimized(open_bundle(folder, name, version), settings.cache)
    footprint = find_footprint(settings, optimized, sibling)
    return Entry(name, version, str(folder.resolve()), optimized.weights_hash, footprint)


def take_fingerprint(folder: Path) -> Fingerprint:
    """Return what tells, without reading a file, whether a version was changed."""
    paths = [folder / name for name in WATCHED]
    stats = [(path.name, path.stat()) for path in paths if path.exists()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


class LineupFile:
    """The file through which the workers learn what to serve."""

    def __init__(self, settings: Settings) -> None:
        """Find it; it need not be there yet."""
        self._path = settings.cache / LINEUP_FILE
        self._stat: tuple[int, int] | None = None
        self._lineup: Lineup | None = None

    def write(self, lineup: Lineup) -> None:
        """Replace it, whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(f".{os.getpid()}")
        draft.write_text(lineup.as_text(), encoding="utf-8")
        os.replace(draft, self._path)

    def read(self) -> Lineup | None:
        """Return the lineup; None where there is none that can be read. Costs one system call while nothing changes."""
        try:
            stat = self._path.stat()
            if (stat.st_ino, stat.st_mtime_ns) != self._stat:
                self._lineup = Lineup.from_text(self._path.read_text(encoding="utf-8"))
                self._stat = stat.st_ino, stat.st_mtime_ns
        except (OSError, ValueError, TypeError, LookupError):
            return None
        return self._lineup
