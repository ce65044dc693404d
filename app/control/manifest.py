"""The manifest: the versions that all workers serve, each checked, converted and measured, and its file.

The file belongs to one running instance: it lies in the runtime folder beside Gunicorn's socket, not in the
cache, which several servers may share, and holds the id of the master that wrote it. So a worker never
follows another server's manifest, nor one of an earlier start.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from app.control.footprint import Footprint
from app.errors import BundleError, first_line
from app.models.artifacts import Artifacts
from app.models.bundle import CONFIG_FILE, open_bundle
from app.system.files import remove_leftovers, write_file
from app.system.machine import read_stat

FOLDERS = re.compile(r"(?<!\w)/(?:[^\s/:,;'\"]+/)*")  # of a file's path; not in "and/or"

# name, version, weights, config, engine, precision, network
Key = tuple[str, int, str, str, str, str, str]


@dataclass(frozen=True)
class Entry:
    """One version to serve.

    Attributes:
        name: the model's name.
        version: its number.
        folder: the version's folder.
        weights_digest: of the checked weights.
        footprint: engine, precision and memory of a worker.
        network: the folder of the checked converted network; empty if the engine needs none.
        config_digest: of the checked model config.
    """

    name: str
    version: int
    folder: str
    weights_digest: str
    footprint: Footprint
    network: str = ""
    config_digest: str = ""

    @property
    def key(self) -> Key:
        """The identity of a loaded version: changed weights, config, network or precision make another one."""
        return (
            self.name,
            self.version,
            self.weights_digest,
            self.config_digest,
            self.footprint.engine,
            self.footprint.precision,
            Path(self.network).name,
        )

    def open(self, cache: Path) -> Artifacts:
        """Open its files. Raises BundleError, also if the config has changed since the check."""
        bundle = open_bundle(Path(self.folder), self.name, self.version)
        if bundle.config.digest() != self.config_digest:
            raise BundleError(
                f"{bundle.folder / CONFIG_FILE} has changed since the version was checked"
            )
        return Artifacts(bundle, cache, self.weights_digest, Path(self.network).name)

    def is_whole(self) -> bool:
        """Return whether its network still exists: a worker that finds it damaged removes it."""
        return not self.network or Path(self.network).is_dir()


@dataclass(frozen=True)
class RejectedVersion:
    """A version that cannot be served, with the reason; ``folder`` is its folder."""

    name: str
    version: int
    reason: str
    folder: str = ""

    def is_whole(self) -> bool:
        """Return True: it has no network that could be removed."""
        return True

    @property
    def short_reason(self) -> str:
        """The reason in short, for clients: with the names of files, but without their folders."""
        reason = self.reason.replace(f"{self.folder}/", "") if self.folder else self.reason
        return f"it was refused: {first_line(FOLDERS.sub('', reason))}"


@dataclass(frozen=True)
class Manifest:
    """The versions to serve.

    Attributes:
        default: the model of requests that name none.
        entries: the versions.
        rejected: the versions that cannot be served.
        labels: model → label → version.
        traffic: model → label or version → share of the requests.
        problem: a problem of the whole repository, or "".
        skipped: a message for each folder that was left out.
    """

    default: str = ""
    entries: tuple[Entry, ...] = ()
    rejected: tuple[RejectedVersion, ...] = ()
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    traffic: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    problem: str = ""
    skipped: tuple[str, ...] = ()

    @property
    def default_note(self) -> str:
        """If there are several models, a sentence about the default and how to choose another; else ""."""
        names = sorted({entry.name for entry in self.entries})
        if len(names) < 2:
            return ""
        return (
            f"{', '.join(names)} are served; requests that name no model are answered by {self.default} "
            "(SERVING_MODEL serves one alone, the order of a models file chooses another)"
        )

    @property
    def failure(self) -> str:
        """The reason why nothing can be served, or ""."""
        if self.entries:
            return ""
        return self.problem or "; ".join(rejected.reason for rejected in self.rejected)

    def as_text(self) -> str:
        """Return the manifest as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Manifest:
        """Parse ``as_text``. Raises ValueError, TypeError or LookupError on anything else."""
        content: dict[str, Any] = json.loads(text)
        content["entries"] = tuple(
            Entry(**{**entry, "footprint": Footprint(**entry["footprint"])})
            for entry in content["entries"]
        )
        content["rejected"] = tuple(RejectedVersion(**rejected) for rejected in content["rejected"])
        content["skipped"] = tuple(content["skipped"])
        return cls(**content)


@cache
def instance_id() -> str:
    """Return this master's id, with its process's mark as prefix; its workers inherit it."""
    return f"{process_mark(os.getpid())}-{secrets.token_hex(8)}"


def process_mark(pid: int) -> str:
    """Return an id of a process that is unique across reuse of its PID; "" if it has ended."""
    try:
        return f"{pid}-{read_stat(pid)[19]}"  # the start time, proc(5)'s field 22
    except (OSError, ValueError, IndexError):
        return ""


class ManifestFile:
    """The manifest's file, for the master, a worker or the watcher.

    Args:
        run: the runtime folder (``SERVING_RUN``).
        instance: the id of the master whose manifest it is; empty: any master's is read.

    Attributes:
        instance: the id of the manifest's master; the watcher takes over the id in the file.
    """

    def __init__(self, run: Path, instance: str = "") -> None:
        self._path = run / "manifest.json"
        self._own = instance
        self._stat: tuple[int, int] | None = None
        self._manifest: Manifest | None = None
        self.instance = instance

    def write(self, manifest: Manifest) -> None:
        """Replace the file, atomically, also on a power failure. Raises OSError."""
        if not self._own:
            self.read()  # another master may have started since
        remove_leftovers(self._path.parent)
        content = {"instance": self.instance, "manifest": manifest.as_text()}
        write_file(self._path, json.dumps(content))

    def try_write(self, manifest: Manifest) -> str:
        """Replace the file; on failure remove it, since an earlier start's would be wrong, and return the reason."""
        try:
            self.write(manifest)
        except OSError as error:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            return (
                f"{self._path} cannot be written ({first_line(error)}): "
                "new versions are taken over on a reload only"
            )
        return ""

    def read(self) -> Manifest | None:
        """Return the manifest; None if the file is missing, unreadable or another instance's.

        Costs one system call while nothing changes.
        """
        try:
            stat = self._path.stat()
            if (stat.st_ino, stat.st_mtime_ns) != self._stat:
                self._manifest = None
                content = json.loads(self._path.read_text(encoding="utf-8"))
                if self._own in ("", content["instance"]):
                    self._manifest = Manifest.from_text(content["manifest"])
                    self.instance = str(content["instance"])
                self._stat = stat.st_ino, stat.st_mtime_ns
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            return None
        return self._manifest

    def read_current(self) -> Manifest | None:
        """Return the manifest like ``read``, but only of a running master, not of an earlier start."""
        manifest = self.read()
        pid = self.instance.partition("-")[0]
        mark = process_mark(int(pid)) if pid.isdecimal() else ""
        return manifest if mark and self.instance.startswith(f"{mark}-") else None


def last_default(run: Path) -> str:
    """Return the default model of the last start in a runtime folder, or ""."""
    manifest = ManifestFile(run).read()
    return manifest.default if manifest else ""
