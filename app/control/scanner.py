"""The scanner of the model repository: it checks, converts and measures versions, and makes the manifest.

One process scans (Gunicorn's master at the start and on a reload, then ``app/commands/watch.py``) and writes the
manifest to a file that the workers follow. So a version is converted once for all workers, and one that
cannot be served never reaches a worker.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.control.footprint import Footprint, find_footprint, serving_network
from app.control.manifest import Entry, Manifest, RejectedVersion
from app.control.repository import Repository, ServedModel, read_repository
from app.errors import BundleError, TransientError, first_line
from app.models.artifacts import Artifacts
from app.models.bundle import CONFIG_FILE, SUMS_FILE, check_sums, open_bundle
from app.models.folders import CLASS_FILE, WEIGHT_FILES, versions_of
from app.models.precision import REPORT_FILE
from app.settings import Settings
from app.system.files import lock_file

# Pauses between retries of a check or a load (app/serving/registry.py) that failed for a transient reason:
# the first one, doubled each time up to the last.
RETRY_S, RETRY_MOST_S = 60, 3600
MAX_REASON = 1000  # characters
LOCK_WAIT_S = 10  # for another process that scans the same folders: a conversion may take minutes
WATCHED = (*WEIGHT_FILES, CLASS_FILE, CONFIG_FILE, SUMS_FILE, REPORT_FILE)

# (name, inode, bytes, mtime and ctime in ns) of each watched file
Fingerprint = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True)
class Check:
    """The outcome of checking a version.

    Attributes:
        fingerprint: of the checked files.
        result: the manifest's entry, or the rejected version.
        pause_s: seconds until the next check, after a transient failure; 0 after any other outcome.
        checked_at: time of the check, by the scanner's clock.
    """

    fingerprint: Fingerprint
    result: Entry | RejectedVersion
    pause_s: float = 0
    checked_at: float = 0


@dataclass(frozen=True)
class ModelScan:
    """The scan of one model's folder.

    Attributes:
        entries: the versions to serve, rising.
        rejected: the versions that cannot be served.
        problem: the reason why the folder has no version; empty if it has one.
    """

    entries: tuple[Entry, ...]
    rejected: tuple[RejectedVersion, ...] = ()
    problem: str = ""


class RepositoryScanner:
    """Keeps the manifest up to date; a version is checked once until its files change."""

    def __init__(
        self,
        settings: Settings,
        before: Manifest | None = None,
        default: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without any check.

        Args:
            settings: name the models folder or the models file.
            before: the current manifest, kept if the scan finds nothing.
            default: the default model of the previous start, kept unless the settings name one.
            clock: returns seconds.
        """
        self._settings = settings
        self._manifest = before or Manifest(default)
        self._clock = clock
        self._checks: dict[tuple[str, Path], Check] = {}
        self._fingerprints: dict[Path, Fingerprint] = {}  # of the last scan
        self._has_scanned = False

    def scan(self, wait_s: float = LOCK_WAIT_S) -> Manifest:
        """Scan the folders and return the manifest; seconds for a new version, microseconds without changes.

        Another process may hold the scan's lock. After ``wait_s`` the current manifest is returned, or, if
        it is empty, the folders are scanned anyway.

        If the scan finds nothing to serve, the current entries are kept: an empty or missing folder is more
        likely a lost mount than an intended outage. Never raises, whatever the folders hold.
        """
        try:
            self._manifest = self._scan(wait_s)
        except BundleError as error:
            self._manifest = dataclasses.replace(self._manifest, problem=cut_reason(error))
        except Exception as error:  # noqa: BLE001  (untrusted files must not end the master)
            problem = f"the models cannot be scanned: {type(error).__name__}: {first_line(error)}"
            self._manifest = dataclasses.replace(self._manifest, problem=problem)
        return self._manifest

    def _scan(self, wait_s: float) -> Manifest:
        """Return the new manifest. Raises BundleError if the repository's configuration is invalid."""
        repository = read_repository(self._settings)
        # Two concurrent scans would convert everything twice.
        with lock_file(self._settings.cache / "scanner.lock", wait_s) as held:
            if held is False and self._manifest.entries:
                return self._manifest
            scans = [self._scan_model(model) for model in repository.models]
        self._has_scanned = True
        entries = tuple(entry for scan in scans for entry in scan.entries)
        manifest = Manifest(
            default=self._choose_default(repository, {entry.name for entry in entries}),
            entries=entries,
            rejected=tuple(version for scan in scans for version in scan.rejected),
            labels={model.name: dict(model.labels) for model in repository.models if model.labels},
            traffic={
                model.name: dict(model.traffic) for model in repository.models if model.traffic
            },
            problem="; ".join(scan.problem for scan in scans if scan.problem),
            skipped=repository.skipped,
        )
        if manifest.entries or not self._manifest.entries:
            return manifest
        return dataclasses.replace(
            self._manifest,
            rejected=manifest.rejected,
            problem=manifest.problem,
            skipped=manifest.skipped,
        )

    def _choose_default(self, repository: Repository, served: set[str]) -> str:
        """Return the default model: the configured one, else the current one, else the first servable one.

        So a further model changes nothing for requests that name no model.
        """
        names = [model.name for model in repository.models]
        if repository.is_default_set:
            return names[0]
        current = self._manifest.default
        return next((name for name in (current, *names) if name in served), names[0])

    def _scan_model(self, model: ServedModel) -> ModelScan:
        current = {
            entry.version: entry for entry in self._manifest.entries if entry.name == model.name
        }
        try:
            folders = versions_of(model.folder)
            fingerprints = {folder: take_fingerprint(folder) for folder in folders.values()}
        except OSError as error:
            return ModelScan(
                tuple(current.values()), problem=f"{model.folder} cannot be read: {error}"
            )
        previous, self._fingerprints = self._fingerprints, self._fingerprints | fingerprints
        entries: list[Entry] = []
        rejected: list[RejectedVersion] = []
        for version in model.policy.candidates(folders):
            if len(entries) == model.policy.limit:
                break
            folder = folders[version]
            fingerprint = fingerprints[folder]
            result: Entry | RejectedVersion | None = current.get(version)
            # A version that is being copied is not checked yet, and one that is being changed in place stays.
            if not self._has_scanned or previous.get(folder) == fingerprint or has_sums(folder):
                result = self._check(model.name, version, folder, fingerprint)
            if isinstance(result, Entry):
                entries.insert(0, result)
            elif result:
                rejected.append(result)
        if entries:
            return ModelScan(tuple(entries), tuple(rejected))
        problem = "" if folders else f"{model.folder} holds no version of the model"
        return ModelScan(tuple(current.values()), tuple(rejected), problem)

    def _check(
        self, name: str, version: int, folder: Path, fingerprint: Fingerprint
    ) -> Entry | RejectedVersion:
        """Check a version unless the result for these files is known; retry transient failures, with backoff."""
        last = self._checks.get((name, folder))
        pause_s: float = RETRY_S
        if last is not None and last.fingerprint == fingerprint:
            is_final = not last.pause_s and last.result.is_whole()
            if is_final or self._clock() < last.checked_at + last.pause_s:
                return last.result
            pause_s = min(max(last.pause_s * 2, RETRY_S), RETRY_MOST_S)
        served = (entry.footprint for entry in self._manifest.entries if entry.name == name)
        result: Entry | RejectedVersion
        try:
            result = check_version(self._settings, folder, name, version, next(served, None))
            pause_s = 0
        except (TransientError, OSError, MemoryError) as error:
            reason = f"{cut_reason(error) or type(error).__name__}; it is tried again, at longer and longer intervals"
            result = RejectedVersion(name, version, reason, str(folder))
        except BundleError as error:
            result, pause_s = RejectedVersion(name, version, cut_reason(error), str(folder)), 0
        except Exception as error:  # noqa: BLE001  (untrusted files must not end the master)
            reason = f"{folder}: {type(error).__name__}: {first_line(error)}"
            result, pause_s = RejectedVersion(name, version, reason, str(folder)), 0
        self._checks[name, folder] = Check(fingerprint, result, pause_s, self._clock())
        return result


def cut_reason(error: Exception) -> str:
    """Return an error's text, cut to ``MAX_REASON`` characters for the log and the manifest's file."""
    return str(error)[:MAX_REASON]


def check_version(
    settings: Settings, folder: Path, name: str, version: int, sibling: Footprint | None = None
) -> Entry:
    """Verify that a version can be served: its checksums, its conversion, and a load in a process of its own.

    Args:
        settings: the settings.
        folder: the version's folder.
        name: the model's name.
        version: the version's number.
        sibling: the footprint of another version of the model; see ``find_footprint``.

    Raises:
        BundleError: it cannot be served; the message says why.
    """
    check_sums(folder)
    artifacts = Artifacts(open_bundle(folder, name, version), settings.cache)
    footprint = find_footprint(settings, artifacts, sibling)
    network = serving_network(artifacts, footprint)
    return Entry(
        name,
        version,
        str(folder.resolve()),
        artifacts.weights_digest,
        footprint,
        network,
        artifacts.bundle.config.digest(),
    )


def has_sums(folder: Path) -> bool:
    """Return whether a version was published as a whole: SHA256SUMS is its last file."""
    return os.path.exists(folder / SUMS_FILE)


def take_fingerprint(folder: Path) -> Fingerprint:
    """Return inode, size and times of each watched file; no file is read.

    A file without a status (a link in a circle) counts as missing: its reader reports the reason.
    """
    fingerprint = []
    for name in WATCHED:
        with suppress(OSError):
            stat = (folder / name).stat()
            # ctime too: a copy can keep size and mtime.
            fingerprint.append(
                (name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            )
    return tuple(fingerprint)
