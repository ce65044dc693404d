"""The manifest: the versions that all workers serve, each of them checked, converted and measured before.

One process decides (the ``RepositoryScanner``: Gunicorn's master at the start and on a reload, then
``app/commands/watch.py``) and writes the manifest into a file; the workers follow it. So a version is converted
once, whoever serves it, and one that cannot be served never reaches a worker.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.control.footprint import Footprint, find_footprint, serving_network
from app.control.models_file import Wanted, read_wanted
from app.control.repository import ServedModel, choose_versions
from app.errors import BundleError, PassingFailure, first_line
from app.models.artifacts import Artifacts
from app.models.bundle import CONFIG_FILE, SUMS_FILE, check_sums, open_bundle
from app.models.folders import CLASS_FILE, WEIGHT_FILES, versions_of
from app.models.precision import REPORT_FILE
from app.settings import Settings
from app.system.files import lock_file

# What failed for a reason that may pass, a check or a load (app/serving/registry.py), is tried again after the
# first pause, then after twice as long, up to the last.
RETRY_S, RETRY_MOST_S = 60, 3600
MAX_REASON = 1000  # characters
LOOK_WAIT_S = 10  # for another process that looks at the same folders: it may convert for minutes
WATCHED = (*WEIGHT_FILES, CLASS_FILE, CONFIG_FILE, SUMS_FILE, REPORT_FILE)

FOLDERS = re.compile(r"(?<!\w)/(?:[^\s/:,;'\"]+/)*")  # before a file's name; not in "and/or"

Key = tuple[str, int, str, str, str, str]  # name, version, weights, engine, precision, network
# (name, inode, bytes, mtime and ctime in ns) of each watched file
Fingerprint = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True)
class Entry:
    """One version to serve.

    Attributes:
        name: the model's name.
        version: its number.
        folder: where it lies.
        weights_hash: ``Bundle.content_hash`` of what was checked.
        footprint: how it runs, and what that needs.
        network: the folder of the converted network that was checked; empty where it needs none.
    """

    name: str
    version: int
    folder: str
    weights_hash: str
    footprint: Footprint
    network: str = ""

    @property
    def key(self) -> Key:
        """What makes it another thing to serve: a changed file in the same folder does, another network too."""
        engine, precision = self.footprint.engine, self.footprint.precision
        network = Path(self.network).name
        return self.name, self.version, self.weights_hash, engine, precision, network

    def open(self, cache: Path) -> Artifacts:
        """Open its files. Raises BundleError, also where its card is another by now."""
        bundle = open_bundle(Path(self.folder), self.name, self.version)
        if not bundle.is_content(self.weights_hash):
            raise BundleError(
                f"{bundle.folder / CONFIG_FILE} has changed since the version was checked"
            )
        return Artifacts(bundle, cache, self.weights_hash, Path(self.network).name)

    def is_whole(self) -> bool:
        """Tell whether its network is still there: a worker that finds it damaged removes it."""
        return not self.network or Path(self.network).is_dir()


@dataclass(frozen=True)
class RejectedVersion:
    """A version that was found and is not served, and why; ``folder`` is where it lies."""

    name: str
    version: int
    reason: str
    folder: str = ""

    def is_whole(self) -> bool:
        """Tell that it stays as it is: it has no network that could go."""
        return True

    @property
    def told(self) -> str:
        """The reason in short and for clients: it names files, but not the folders that they lie in."""
        reason = self.reason.replace(f"{self.folder}/", "") if self.folder else self.reason
        return f"it was refused: {first_line(FOLDERS.sub('', reason))}"


@dataclass(frozen=True)
class Manifest:
    """What is to be served.

    Attributes:
        default: the model that a request means which names none.
        entries: the versions.
        rejected: those that cannot be served.
        labels: model → label → version.
        traffic: model → label or version → share of the requests.
        problem: empty, or what is wrong with the models folder as a whole.
        skipped: for each folder that was left out, a sentence that says why.
    """

    default: str = ""
    entries: tuple[Entry, ...] = ()
    rejected: tuple[RejectedVersion, ...] = ()
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    traffic: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    problem: str = ""
    skipped: tuple[str, ...] = ()

    @property
    def default_told(self) -> str:
        """Empty, or where there are several models which is the default, and how to choose another."""
        names = sorted({entry.name for entry in self.entries})
        if len(names) < 2:
            return ""
        return (
            f"{', '.join(names)} are served; requests that name no model are answered by {self.default} "
            "(SERVING_MODEL serves one alone, the order of a models file chooses another)"
        )

    @property
    def failure(self) -> str:
        """Empty, or why nothing at all can be served."""
        if self.entries:
            return ""
        return self.problem or "; ".join(rejected.reason for rejected in self.rejected)

    def as_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Manifest:
        """Read ``as_text``. Raises ValueError, TypeError or LookupError on anything else."""
        content: dict[str, Any] = json.loads(text)
        content["entries"] = tuple(
            Entry(**{**entry, "footprint": Footprint(**entry["footprint"])})
            for entry in content["entries"]
        )
        content["rejected"] = tuple(RejectedVersion(**rejected) for rejected in content["rejected"])
        content["skipped"] = tuple(content["skipped"])
        return cls(**content)


@dataclass(frozen=True)
class Checked:
    """What a check found, and the files that it was about.

    Attributes:
        fingerprint: of these files.
        result: an entry, or why there is none.
        pause_s: where the reason may pass, how long the next check waits; 0 where it cannot pass.
        at: when it was checked, by the scanner's clock.
    """

    fingerprint: Fingerprint
    result: Entry | RejectedVersion
    pause_s: float = 0
    at: float = 0


class RepositoryScanner:
    """Looks after the manifest: checks what is new in the models folder, and remembers what it has checked."""

    def __init__(
        self,
        settings: Settings,
        before: Manifest | None = None,
        default: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            settings: where the models are, and which are wanted.
            before: what is served already, to be kept where nothing else is found.
            default: the default model of an earlier start; it stays that where none is set.
            clock: tells the time in seconds.
        """
        self._settings = settings
        self._manifest = before or Manifest(default)
        self._clock = clock
        self._checked: dict[tuple[str, Path], Checked] = {}
        self._seen: dict[Path, Fingerprint] = {}
        self._looked = False

    def look(self, wait_s: float = LOOK_WAIT_S) -> Manifest:
        """Return the manifest as the folders are now; takes seconds where something is new, else microseconds.

        Another process may be looking at the same folders. After ``wait_s`` this one stays with what
        it has, or, where that is nothing, looks all the same.

        What is served is kept where nothing else can be: a folder that is empty or gone is more likely
        a mount that vanished than an operator who wants an outage. Nothing that lies in the folders
        makes this raise.
        """
        try:
            self._manifest = self._look(wait_s)
        except BundleError as error:
            self._manifest = dataclasses.replace(self._manifest, problem=bounded(error))
        except Exception as error:  # noqa: BLE001  (foreign ground: nothing there may end the master)
            problem = f"the models cannot be looked at: {type(error).__name__}: {first_line(error)}"
            self._manifest = dataclasses.replace(self._manifest, problem=problem)
        return self._manifest

    def _look(self, wait_s: float) -> Manifest:
        """Return the manifest as the folders are now. Raises BundleError where they do not tell what is wanted."""
        wanted = read_wanted(self._settings)
        # Two that look at once would convert everything twice.
        with lock_file(self._settings.cache / "scanner.lock", wait_s) as held:
            if held is False and self._manifest.entries:
                return self._manifest
            parts = [self._look_at(config) for config in wanted.configs]
        self._looked = True
        entries = tuple(entry for entries, _, _ in parts for entry in entries)
        found = Manifest(
            default=self._choose_default(wanted, {entry.name for entry in entries}),
            entries=entries,
            rejected=tuple(one for _, several, _ in parts for one in several),
            labels={one.name: dict(one.labels) for one in wanted.configs if one.labels},
            traffic={one.name: dict(one.traffic) for one in wanted.configs if one.traffic},
            problem="; ".join(problem for _, _, problem in parts if problem),
            skipped=wanted.skipped,
        )
        if found.entries or not self._manifest.entries:
            return found
        return dataclasses.replace(
            self._manifest, rejected=found.rejected, problem=found.problem, skipped=found.skipped
        )

    def _choose_default(self, wanted: Wanted, served: set[str]) -> str:
        """Return the model that requests mean which name none.

        It is the one that the operator named. Else it stays what it was, or is the first that can be
        served: another model beside it changes nothing for those who name none.
        """
        names = [config.name for config in wanted.configs]
        if wanted.is_named:
            return names[0]
        before = self._manifest.default
        return next((name for name in (before, *names) if name in served), names[0])

    def _look_at(self, config: ServedModel) -> tuple[list[Entry], list[RejectedVersion], str]:
        """Return one model's entries and refusals, and a problem or empty."""
        kept = {
            entry.version: entry for entry in self._manifest.entries if entry.name == config.name
        }
        try:
            versions = versions_of(config.folder)
            found = {folder: take_fingerprint(folder) for folder in versions.values()}
        except OSError as error:
            return list(kept.values()), [], f"{config.folder} cannot be read: {error}"
        settled = {
            version
            for version, folder in versions.items()
            if self._is_settled(folder, found[folder])
        }
        self._seen |= found
        results: dict[int, Entry | RejectedVersion] = {}

        def is_servable(version: int, folder: Path) -> bool:
            if version in settled:
                results[version] = self._check(config.name, version, folder, found[folder])
            elif version in kept:  # it is being changed in place: until that is done it stays
                results[version] = kept[version]
            return isinstance(results.get(version), Entry)

        chosen = choose_versions(config.policy, versions, is_servable)
        entries = [result for v in chosen if isinstance(result := results[v], Entry)]
        rejected = [result for result in results.values() if isinstance(result, RejectedVersion)]
        if entries:
            return entries, rejected, ""
        problem = "" if versions else f"{config.folder} holds no version of the model"
        return list(kept.values()), rejected, problem

    def _is_settled(self, folder: Path, fingerprint: Fingerprint) -> bool:
        """Tell whether a version looks finished: it came as a whole, or did not change since the last look."""
        unchanged = not self._looked or self._seen.get(folder) == fingerprint
        return unchanged or os.path.exists(folder / SUMS_FILE)  # False too where it cannot be told

    def _check(
        self, name: str, version: int, folder: Path, fingerprint: Fingerprint
    ) -> Entry | RejectedVersion:
        """Check, convert and measure a version, unless that was done with these very files.

        What was refused for a reason that may pass is checked again, after pauses that double.
        """
        known = self._checked.get((name, folder))
        if known is not None and known.fingerprint == fingerprint:
            if not known.pause_s and known.result.is_whole():
                return known.result
            if self._clock() < known.at + known.pause_s:
                return known.result
            pause_s = min(max(known.pause_s * 2, RETRY_S), RETRY_MOST_S)
        else:
            pause_s = RETRY_S
        result: Entry | RejectedVersion
        try:
            served = (entry.footprint for entry in self._manifest.entries if entry.name == name)
            result = check_version(self._settings, folder, name, version, next(served, None))
            pause_s = 0
        except (PassingFailure, OSError, MemoryError) as error:
            reason = f"{bounded(error) or type(error).__name__}; it is tried again, at longer and longer intervals"
            result = RejectedVersion(name, version, reason, str(folder))
        except BundleError as error:
            result, pause_s = RejectedVersion(name, version, bounded(error), str(folder)), 0
        except Exception as error:  # noqa: BLE001  (foreign ground: nothing there may end the master)
            reason = f"{folder}: {type(error).__name__}: {first_line(error)}"
            result, pause_s = RejectedVersion(name, version, reason, str(folder)), 0
        self._checked[name, folder] = Checked(fingerprint, result, pause_s, self._clock())
        return result


def bounded(error: Exception) -> str:
    """Return an error's text, as much of it as a log and the manifest's file shall hold."""
    return str(error)[:MAX_REASON]


def check_version(
    settings: Settings, folder: Path, name: str, version: int, sibling: Footprint | None = None
) -> Entry:
    """Make sure that a version can be served, by serving it once in a process of its own.

    ``sibling`` is what another version needs, as ``find_footprint`` takes it.

    Raises:
        BundleError: it cannot; the text says why.
    """
    check_sums(folder)
    artifacts = Artifacts(open_bundle(folder, name, version), settings.cache)
    footprint = find_footprint(settings, artifacts, sibling)
    network = serving_network(artifacts, footprint)
    return Entry(name, version, str(folder.resolve()), artifacts.weights_hash, footprint, network)


def take_fingerprint(folder: Path) -> Fingerprint:
    """Return what tells, without reading a file, whether a version was changed.

    What cannot be looked at (a link in a circle) counts as missing: whoever reads it says why.
    """
    found = []
    for name in WATCHED:
        with suppress(OSError):
            stat = (folder / name).stat()
            # The time of change too: a copy can keep size and time of modification.
            found.append((name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return tuple(found)
