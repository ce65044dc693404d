"""The artifacts of a bundle: files derived from its weights and config, kept so that they are made once.

    models/NAME/VERSION/optimized/DIGEST/   the network digest: of the weights and the config's network part
        fp32.json, int8.json                pointers to the current networks; int8's is valid only
                                            together with the report that was measured with it
        fp32-DIGEST/                        a network in OpenVINO's format
            network.xml, network.bin
            gradients.npy                   the constant gradients of its logits, if it has them
            head.xml, head.bin              a network that computes the gradients of another
            answers.npy                     its answers to the self-check's images
            sums.json                       size and SHA-256 of each file, written last; DIGEST is its own
        int8-DIGEST/                        the same, quantized by ``scripts/optimize``
        footprints.json                     measured footprints of a worker (``app/control/footprint.py``)

If the models folder is read-only, they are kept in the cache folder. All of them may be deleted; missing ones
are made again. A network that fails its checksums is removed when it is looked up, so it counts as missing.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from app.errors import BundleError, TransientError
from app.logs import warn_once
from app.models.bundle import Bundle
from app.models.checksums import (
    ANSWERS_FILE,
    GRADIENTS_FILE,
    HEAD_FILES,
    NETWORK_FILE,
    find_damage,
    read_hint,
    read_small,
    take_digest,
    write_sums,
)
from app.models.precision import FP32, INT8, REPORT_FILE, Report, read_report
from app.system.files import draft_folder, move_folder, try_lock, write_file

FORMAT = 3  # part of the folder's name; raised when older files become incompatible
# Precision → network; the others read the weights themselves and are checked against fp32.
NETWORKS = {FP32: FP32, "bf16": FP32, INT8: INT8}
NETWORK_FOLDER = re.compile(r"(fp32|int8)-[0-9a-f]{16}")
FOOTPRINTS_FILE = "footprints.json"

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Artifacts:
    """The artifacts of one bundle. Files appear whole or not at all, with any number of concurrent writers.

    Attributes:
        bundle: the bundle.
        weights_digest: the bundle's weights digest.
        homes: the folder beside the model, and the fallback in the cache.
    """

    def __init__(
        self, bundle: Bundle, cache: Path, weights_digest: str = "", network: str = ""
    ) -> None:
        """Locate the folders.

        Args:
            bundle: the bundle.
            cache: the fallback if the bundle's folder is read-only.
            weights_digest: the bundle's, if known; computing it reads the weights.
            network: the folder name of the network to use; empty uses the latest.

        Raises:
            BundleError: the weights cannot be read.
        """
        self.bundle = bundle
        self.weights_digest = weights_digest or bundle.weights_digest()
        key = f"{bundle.config.network_digest(self.weights_digest)}-{FORMAT}"
        self.homes = (bundle.folder / "optimized" / key, cache / key)
        self._chosen = {network.partition("-")[0]: network} if network else {}
        self._sound: dict[Path, int] = {}  # verified networks → handle of the locked folder

    def __del__(self) -> None:
        """Release the lock on the networks."""
        for handle in getattr(self, "_sound", {}).values():
            os.close(handle)

    def check_weights(self) -> None:
        """Verify the weights after an engine has read them.

        Raises:
            BundleError: they have changed since the check: workers would answer differently.
        """
        if self.bundle.weights_digest() != self.weights_digest:
            raise BundleError(
                f"{self.bundle.weights} has changed since the version was checked; "
                "it is loaded once the changed file was checked"
            )

    def find_network(self, kind: str) -> Path | None:
        """Return the path of an OpenVINO network's .xml, or None.

        Its files are verified once; a damaged network is removed. It stays locked against removal
        (``app/control/cleanup.py``) during the lifetime of this object.

        Args:
            kind: ``fp32`` or ``int8``.
        """
        for home in self.homes:
            name = self._read_name(home, kind)
            if name and self._is_sound(home / name):
                return home / name / NETWORK_FILE
        return None

    def latest_name(self, kind: str) -> str:
        """Return the folder name of the network that a new process would use, unverified; or ""."""
        names = (str(read_pointer(home, kind).get("network", "")) for home in self.homes)
        return next(filter(None, names), "")

    def name_network(self, kind: str) -> str:
        """Return the folder name of a verified network, which holds its digest; or ""."""
        network = self.find_network(kind)
        return network.parent.name if network else ""

    def add_network(
        self,
        kind: str,
        save: Callable[[Path], np.ndarray],
        gradients: np.ndarray | None = None,
        save_head: Callable[[Path], None] | None = None,
    ) -> Path:
        """Write a network. This object uses it at once; others use int8 only after ``add_report``.

        Args:
            kind: ``fp32`` or ``int8``.
            save: writes NAME.xml and NAME.bin at the given path and returns the network's answers to
                ``self_check.make_noise``.
            gradients: its constant gradients, (classes, channels) float32; None copies fp32's.
            save_head: writes the network of its gradients at the given path; None copies fp32's.

        Raises:
            BundleError: no folder is writable.
        """
        if gradients is None:
            gradients = self.read_gradients()
        if save_head is None and (head := self.find_head()):
            save_head = partial(copy_network, head)

        def write(home: Path) -> Path:
            with draft_folder(home) as draft:
                folder = draft / "network"
                folder.mkdir()
                np.save(folder / ANSWERS_FILE, save(folder / NETWORK_FILE))
                if gradients is not None:
                    np.save(folder / GRADIENTS_FILE, gradients)
                if save_head is not None:
                    save_head(folder / HEAD_FILES[0])
                place = home / f"{kind}-{write_sums(folder)}"
                if not (place.exists() and self._is_sound(place)):
                    move_folder(folder, place)
            if kind == FP32:
                write_file(home / f"{kind}.json", json.dumps({"network": place.name}))
            return place / NETWORK_FILE

        path = self._keep(f"the {kind} network", write)
        self._chosen[kind] = path.parent.name
        return path

    def read_gradients(self, kind: str = FP32) -> np.ndarray | None:
        """Return a network's constant gradients, (classes, channels) float32, or None."""
        return self._read_array(kind, GRADIENTS_FILE)

    def find_head(self, kind: str = FP32) -> Path | None:
        """Return the path of the network that computes a network's gradients, or None."""
        network = self.find_network(kind)
        path = network.with_name(HEAD_FILES[0]) if network else None
        return path if path and path.exists() else None

    def read_answers(self, kind: str = FP32) -> np.ndarray | None:
        """Return a network's recorded self-check answers, (n, classes) float32, or None."""
        return self._read_array(kind, ANSWERS_FILE)

    def report_path(self) -> Path:
        """Return the path of the precision report, existing or not: in the bundle or in the cache."""
        cached = self.homes[1] / REPORT_FILE
        return cached if os.path.exists(cached) else self.bundle.folder / REPORT_FILE

    def read_report(self) -> Report | None:
        """Return the precision report; see ``precision.read_report``."""
        config = self.bundle.config.digest()
        return read_report(self.report_path(), self.weights_digest, config, self.find_network(INT8))

    def add_report(self, text: str) -> Path:
        """Write the precision report, into the cache if the bundle is read-only, and activate its int8 network.

        If the process is killed in between, the pointer names another report and int8 is not served.
        """
        cached = self.homes[1] / REPORT_FILE
        network = self.find_network(INT8)
        latest = {
            "network": network.parent.name if network else "",
            "report": take_digest(text.encode()),
        }

        def write(home: Path) -> Path:
            if network:
                write_file(network.parent.parent / f"{INT8}.json", json.dumps(latest))
            path = cached if home == self.homes[1] else self.bundle.folder / REPORT_FILE
            write_file(path, text)
            if path != cached and os.path.exists(cached):
                cached.unlink()  # an older one, which would take precedence
            return path

        return self._keep("the report", write)

    def read_footprints(self) -> dict[str, Any]:
        """Return the kept footprints by key; empty if there are none or they are unreadable."""
        # Both: a model folder that has become read-only may hold older ones.
        beside, cached = (read_hint(home / FOOTPRINTS_FILE) for home in self.homes)
        return beside | cached

    def add_footprint(self, key: str, footprint: dict[str, Any]) -> None:
        """Keep a measured footprint. Raises BundleError if no folder is writable."""
        text = json.dumps(self.read_footprints() | {key: footprint}, indent=1)
        self._keep("the footprint", lambda home: write_file(home / FOOTPRINTS_FILE, text))

    def _read_name(self, home: Path, kind: str) -> str:
        if kind in self._chosen:
            return self._chosen[kind]
        latest = read_pointer(home, kind)
        is_measured = latest.get("report", "") in ("", self._report_digest())
        return str(latest.get("network", "")) if is_measured else ""

    def _report_digest(self) -> str:
        try:
            return take_digest(read_small(self.report_path()))
        except (OSError, ValueError):
            return ""

    def _is_sound(self, folder: Path) -> bool:
        """Verify a network's checksums, lock its folder, and remove it if it is damaged."""
        if folder in self._sound:
            return folder.is_dir()
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            return False
        if damage := find_damage(folder):
            os.close(handle)
            shutil.rmtree(folder, ignore_errors=True)
            # A folder that cannot be removed is found at every lookup.
            warn = warn_once if folder.exists() else logging.Logger.warning
            warn(logger, f"{folder} is damaged and is made again: {damage}")
            return False
        try_lock(handle, fcntl.LOCK_SH)
        self._sound[folder] = handle
        return True

    def _read_array(self, kind: str, name: str) -> np.ndarray | None:
        network = self.find_network(kind)
        path = network.with_name(name) if network else None
        if path is None or not path.exists():
            return None
        array: np.ndarray = np.load(path)
        return array

    def _keep(self, name: str, write: Callable[[Path], T]) -> T:
        """Call ``write`` with the first writable home. Raises TransientError if there is none."""
        problems = []
        for home in self.homes:
            try:
                return write(home)
            except OSError as error:
                problems.append(f"{home}: {error.strerror or error}")
        raise TransientError(
            f"{name} cannot be written ({'; '.join(problems)}); set SERVING_CACHE to a folder that can"
        )


def copy_network(source: Path, target: Path) -> None:
    """Copy an OpenVINO network's two files. Raises OSError."""
    for suffix in (".xml", ".bin"):
        shutil.copyfile(source.with_suffix(suffix), target.with_suffix(suffix))


def read_pointer(home: Path, kind: str) -> dict[str, Any]:
    """Return a pointer's content; empty if it names no valid network folder."""
    latest = read_hint(home / f"{kind}.json")
    name = str(latest.get("network", ""))
    return latest if NETWORK_FOLDER.fullmatch(name) and name.startswith(f"{kind}-") else {}
