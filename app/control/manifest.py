"""The file through which workers and follower learn what to serve.

It belongs to one running instance: it lies in the runtime folder beside Gunicorn's socket, not in the
cache, which several servers may share, and it carries the id of the master that wrote it. So a worker
never follows another server's manifest, nor one that an earlier start left there.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path

from app.control.scanner import Manifest
from app.errors import first_line
from app.settings import Settings
from app.system.files import remove_leftovers, write_file
from app.system.machine import read_stat


def manifest_path() -> Path:
    """Return the path of the manifest's file, in the runtime folder (``SERVING_RUN``)."""
    return Settings.from_env(os.environ).run / "manifest.json"


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
