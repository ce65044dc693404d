"""What was derived from a bundle's weights, kept so that it is made once.

    models/NAME/VERSION/optimized/HASH/     HASH is the network's: other weights, another folder
        fp32.json, int8.json                which of the folders beside it is that network now; int8 only
                                            together with the report that was measured with it
        fp32-DIGEST/                        the network as OpenVINO reads it
            network.xml, network.bin
            gradients.npy                   how its logits change with its features, where it gives them
            answers.npy                     what it answers to a few pictures of noise
            sums.json                       size and SHA-256 of each of these, written last; DIGEST is its own
        int8-DIGEST/                        the same, quantised by ``scripts/optimize``
        footprints.json                     what one worker was found to need (``app/control/footprint.py``)

Where the models folder cannot be written (a read-only mount), the same lies under the cache folder.
All of it may be deleted; what is missing is made again. A network whose parts are not what its
sums say is removed when it is looked for, so it is missing too.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from app.errors import BundleError, PassingFailure
from app.logs import warn_once
from app.models.bundle import Bundle
from app.models.checksums import (
    ANSWERS_FILE,
    GRADIENTS_FILE,
    NETWORK_FILE,
    find_damage,
    read_hint,
    read_small,
    take_digest,
    write_sums,
)
from app.models.precision import FP32, INT8, REPORT_FILE, Report, read_report
from app.system.files import draft_folder, move_folder, try_lock, write_file

FORMAT = 3  # part of the folder's name; raised when the files of an older version no longer fit
# Which network a precision reads. The ones that are not here read fp32's.
NETWORKS = {FP32: FP32, "bf16": FP32, INT8: INT8}
NETWORK_FOLDER = re.compile(r"(fp32|int8)-[0-9a-f]{16}")
FOOTPRINTS_FILE = "footprints.json"

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Artifacts:
    """The derived files of one bundle. Files appear whole or not at all, whoever writes at the same time.

    Attributes:
        bundle: whose files they are.
        weights_hash: the bundle's content hash.
        homes: the folder beside the model and, where that cannot be written, the one in the cache.
    """

    def __init__(
        self, bundle: Bundle, cache: Path, weights_hash: str = "", network: str = ""
    ) -> None:
        """Find the folders; ``cache`` is the second choice.

        Args:
            bundle: whose files they are.
            cache: the folder to use where the bundle's cannot be written.
            weights_hash: the bundle's content hash where it is known; it takes reading the weights.
            network: the name of the network's folder that must be used; empty takes the latest.

        Raises:
            BundleError: the weights cannot be read.
        """
        self.bundle = bundle
        self.weights_hash = weights_hash or bundle.content_hash()
        # Another crop or decision is another thing to serve and to measure, but the same network.
        key = f"{self.weights_hash.removesuffix(bundle.config.rule_suffix())}-{FORMAT}"
        self.homes = (bundle.folder / "optimized" / key, cache / key)
        self._chosen = {network.partition("-")[0]: network} if network else {}
        self._sound: dict[
            Path, int
        ] = {}  # networks that were checked, each with the folder held open

    def __del__(self) -> None:
        """Release the folders."""
        for handle in getattr(self, "_sound", {}).values():
            os.close(handle)

    def check_weights(self) -> None:
        """Compare the weights with what was checked, for an engine that has just read them.

        Raises:
            BundleError: they are others by now: another worker's answers would not be this one's.
        """
        if self.bundle.content_hash() != self.weights_hash:
            raise BundleError(
                f"{self.bundle.weights} has changed since the version was checked; "
                "it is loaded once the changed file was checked"
            )

    def find_network(self, kind: str) -> Path | None:
        """Return the OpenVINO network (its .xml) ``fp32`` or ``int8``, or None.

        Its parts are read once and compared with their sums; one that is damaged is removed. It is
        held as in use (``app/control/cleanup.py``) as long as this object lives.
        """
        for home in self.homes:
            name = self._read_name(home, kind)
            if name and self._is_sound(home / name):
                return home / name / NETWORK_FILE
        return None

    def latest_name(self, kind: str) -> str:
        """Return the name of the network that whoever starts now would use; nothing is checked."""
        names = (str(read_pointer(home, kind).get("network", "")) for home in self.homes)
        return next(filter(None, names), "")

    def name_network(self, kind: str) -> str:
        """Return the name of a network's folder, which tells it from every other; empty where there is none."""
        network = self.find_network(kind)
        return network.parent.name if network else ""

    def add_network(
        self,
        kind: str,
        save: Callable[[Path], np.ndarray],
        gradients: np.ndarray | None = None,
    ) -> Path:
        """Keep a network. This object uses it at once, others use int8 only once ``add_report`` has told of it.

        Args:
            kind: ``fp32`` or ``int8``.
            save: writes NAME.xml and NAME.bin to the path that it is given, and returns what the
                network answers to ``noise.make_noise``.
            gradients: its constant gradients, (classes, channels) float32; None takes those of fp32.

        Raises:
            BundleError: there is nowhere to write it.
        """
        if gradients is None:
            gradients = self.read_gradients()

        def write(home: Path) -> Path:
            with draft_folder(home) as draft:
                folder = draft / "network"
                folder.mkdir()
                np.save(folder / ANSWERS_FILE, save(folder / NETWORK_FILE))
                if gradients is not None:
                    np.save(folder / GRADIENTS_FILE, gradients)
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
        """Return a network's constant gradients, or None."""
        return self._read_array(kind, GRADIENTS_FILE)

    def read_answers(self, kind: str = FP32) -> np.ndarray | None:
        """Return what a network answered to pictures of noise when it was made, or None."""
        return self._read_array(kind, ANSWERS_FILE)

    def report_path(self) -> Path:
        """Return where the precision report lies, or would lie: in the bundle, or in the cache."""
        cached = self.homes[1] / REPORT_FILE
        return cached if os.path.exists(cached) else self.bundle.folder / REPORT_FILE

    def read_report(self) -> Report | None:
        """Return the precision report; see ``precision.read_report``."""
        return read_report(self.report_path(), self.weights_hash, self.find_network(INT8))

    def add_report(self, text: str) -> Path:
        """Keep the precision report: in the bundle, or in the cache where the bundle cannot be written.

        An int8 network that was added before is what it was measured with. Who is killed in between
        leaves one that does not go with the report, so nobody serves it.
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
                cached.unlink()  # an older one, which would go first
            return path

        return self._keep("the report", write)

    def read_footprints(self) -> dict[str, Any]:
        """Return the measured footprints by their key; nothing where there are none or they cannot be read."""
        # Both: beside a model that cannot be written by now lie those of earlier days.
        beside, cached = (read_hint(home / FOOTPRINTS_FILE) for home in self.homes)
        return beside | cached

    def add_footprint(self, key: str, footprint: dict[str, Any]) -> None:
        """Keep a measured footprint. Raises BundleError where there is nowhere to write it."""
        text = json.dumps(self.read_footprints() | {key: footprint}, indent=1)
        self._keep("the footprint", lambda home: write_file(home / FOOTPRINTS_FILE, text))

    def _read_name(self, home: Path, kind: str) -> str:
        """Return the name of a network's folder, or empty."""
        if kind in self._chosen:
            return self._chosen[kind]
        latest = read_pointer(home, kind)
        is_measured = latest.get("report", "") in ("", self._report_digest())
        return str(latest.get("network", "")) if is_measured else ""

    def _report_digest(self) -> str:
        """Return what tells the precision report from every other; empty where there is none."""
        try:
            return take_digest(read_small(self.report_path()))
        except (OSError, ValueError):
            return ""

    def _is_sound(self, folder: Path) -> bool:
        """Tell whether a network's parts are what its sums say; remove one that is damaged."""
        if folder in self._sound:
            return folder.is_dir()
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            return False  # it is gone
        if damage := find_damage(folder):
            os.close(handle)
            shutil.rmtree(folder, ignore_errors=True)
            # What cannot be removed is found again and again.
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

    def _keep(self, what: str, write: Callable[[Path], T]) -> T:
        """Have something written into the first home that can be. Raises PassingFailure where none can."""
        problems = []
        for home in self.homes:
            try:
                return write(home)
            except OSError as error:
                problems.append(f"{home}: {error.strerror or error}")
        raise PassingFailure(
            f"{what} cannot be written ({'; '.join(problems)}); set SERVING_CACHE to a folder that can"
        )


def read_pointer(home: Path, kind: str) -> dict[str, Any]:
    """Return which network a kind is in a home; nothing where no network can have such a name."""
    latest = read_hint(home / f"{kind}.json")
    name = str(latest.get("network", ""))
    return latest if NETWORK_FOLDER.fullmatch(name) and name.startswith(f"{kind}-") else {}
