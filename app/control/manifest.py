"""The file through which workers and follower learn what to serve.

It belongs to one running instance: it lies in the runtime folder beside Gunicorn's socket, not in the
cache, which several servers may share, and it carries the id of the master that wrote it. So a worker
never follows another server's manifest, nor one that an earlier start left there.
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
from app.settings import Settings
from app.system.files import remove_leftovers, write_file
from app.system.machine import read_stat


def manifest_path() -> Path:
    """Return the path of the manifest's file, in the runtime folder (``SERVING_RUN``)."""
    return Settings.from_env(os.environ).run / "manifest.json"


FOLDERS = re.compile(r"(?<!\w)/(?:[^\s/:,;'\"]+/)*")  # before a file's name; not in "and/or"

Key = tuple[str, int, str, str, str, str]  # name, version, weights, engine, precision, network


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


@cache
def instance_id() -> str:
    """Return this master's id, which begins with its process's; its workers inherit it."""
    return f"{process_mark(os.getpid())}-{secrets.token_hex(8)}"


def process_mark(pid: int) -> str:
    """Return what tells a process from every other that had or will have its number; empty where it has ended."""
    try:
        return f"{pid}-{read_stat(pid)[19]}"  # when it started: proc(5) counts it as the 22nd
    except (OSError, ValueError, IndexError):
        return ""


class ManifestFile:
    """The manifest's file, as the master, a worker or the follower sees it.

    Attributes:
        instance: whose manifest it is; the follower takes over the id that it finds.
    """

    def __init__(self, instance: str = "") -> None:
        """Find it; it need not be there yet. Without an ``instance`` any master's is read."""
        self._path = manifest_path()
        self._own = instance
        self._stat: tuple[int, int] | None = None
        self._manifest: Manifest | None = None
        self.instance = instance

    def write(self, manifest: Manifest) -> None:
        """Replace it, whole or not at all, also when the power fails. Raises OSError."""
        if not self._own:
            self.read()  # a master that started meanwhile has another id
        remove_leftovers(self._path.parent)
        content = {"instance": self.instance, "manifest": manifest.as_text()}
        write_file(self._path, json.dumps(content))

    def try_write(self, manifest: Manifest) -> str:
        """Replace it; return empty, or why that cannot be done. What an earlier start left is removed then."""
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
        """Return the manifest; None where there is none that can be read, or it is another instance's.

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
        """Return the manifest as ``read``, but only that of a master which runs now, not what an earlier start left."""
        manifest = self.read()
        pid = self.instance.partition("-")[0]
        mark = process_mark(int(pid)) if pid.isdecimal() else ""
        return manifest if mark and self.instance.startswith(f"{mark}-") else None


def last_default() -> str:
    """Return the default model of the last start in this folder; empty where there was none."""
    manifest = ManifestFile().read()
    return manifest.default if manifest else ""
