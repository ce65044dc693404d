"""What was derived from a bundle's weights, kept so that it is made once.

    models/NAME/VERSION/optimized/HASH/     HASH is the network's: other weights, another folder
        fp32.xml, fp32.bin                  the network as OpenVINO reads it
        gradients.npy                       how its logits change with its features, where it gives them
        int8.xml, int8.bin                  the same, quantised by ``scripts/optimize``
        footprints.json                     what one worker was found to need (``app/footprint.py``)

Where the models folder cannot be written (a read-only mount), the same lies under the cache folder.
All of it may be deleted; what is missing is made again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.bundle import Bundle
from app.errors import BundleError
from app.precision import REPORT_FILE

GRADIENTS_FILE = "gradients.npy"
FORMAT = 2  # part of the folder's name; raised when the files of an older version no longer fit


class Optimized:
    """The derived files of one bundle. Files appear whole or not at all, whoever writes at the same time."""

    def __init__(self, bundle: Bundle, cache: Path, weights_hash: str = "") -> None:
        """Find the folders; ``cache`` is the second choice.

        Args:
            bundle: whose files they are.
            cache: the folder to use where the bundle's cannot be written.
            weights_hash: the bundle's content hash where it is known; it takes reading the weights.

        Raises:
            BundleError: the weights cannot be read.
        """
        self.bundle = bundle
        self.weights_hash = weights_hash or bundle.content_hash()
        # Another crop or decision is another thing to serve and to measure, but the same network.
        key = f"{self.weights_hash.removesuffix(bundle.card.rule_suffix())}-{FORMAT}"
        self._beside = bundle.folder / "optimized" / key
        self._cache = cache / key

    def find_network(self, precision: str) -> Path | None:
        """Return the OpenVINO network (its .xml) of ``fp32`` or ``int8``, or None."""
        return self._find(f"{precision}.xml")

    def add_network(self, precision: str, save: Callable[[Path], None]) -> Path:
        """Keep a network; ``save`` writes NAME.xml and NAME.bin to the path that it is given."""
        with self._new_folder() as draft:
            name = f"{precision}.xml"
            save(Path(draft) / name)
            home = Path(draft).parent
            # The weights first: who finds the .xml finds both.
            for part in (f"{precision}.bin", name):
                os.replace(Path(draft) / part, home / part)
            return home / name

    def add_gradients(self, gradients: np.ndarray) -> None:
        """Keep the network's constant gradients: (classes, channels) float32."""
        with self._new_folder() as draft:
            path = Path(draft) / GRADIENTS_FILE
            np.save(path, gradients)
            os.replace(path, Path(draft).parent / path.name)

    def read_gradients(self) -> np.ndarray | None:
        """Return the network's constant gradients, or None."""
        path = self._find(GRADIENTS_FILE)
        return np.load(path) if path else None

    def report_path(self) -> Path:
        """Return where the precision report lies, or would lie: in the bundle, or in the cache."""
        cached = self._cache / REPORT_FILE
        return cached if cached.exists() else self.bundle.folder / REPORT_FILE

    def add_report(self, text: str) -> Path:
        """Keep the precision report: in the bundle, or in the cache where the bundle cannot be written."""
        cached = self._cache / REPORT_FILE
        for path in (self.bundle.folder / REPORT_FILE, cached):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                if path != cached:
                    cached.unlink(missing_ok=True)  # an older one, which would go first
                return path
            except OSError:
                continue
        raise BundleError(f"neither {self.bundle.folder} nor {self._cache} can be written")

    def read_footprints(self) -> dict[str, Any]:
        """Return the measured footprints by their key; nothing where there are none or they cannot be read."""
        path = self._find("footprints.json")
        try:
            content = json.loads(path.read_text(encoding="utf-8")) if path else {}
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def add_footprint(self, key: str, footprint: dict[str, Any]) -> None:
        """Keep a measured footprint."""
        footprints = self.read_footprints() | {key: footprint}
        with self._new_folder() as draft:
            path = Path(draft) / "footprints.json"
            path.write_text(json.dumps(footprints, indent=1), encoding="utf-8")
            os.replace(path, Path(draft).parent / path.name)

    def _find(self, name: str) -> Path | None:
        places = (self._beside / name, self._cache / name)
        return next((place for place in places if place.is_file()), None)

    def _new_folder(self) -> tempfile.TemporaryDirectory[str]:
        """Return an empty folder inside the first of the two homes that can be written."""
        for home in (self._beside, self._cache):
            try:
                home.mkdir(parents=True, exist_ok=True)
                return tempfile.TemporaryDirectory(dir=home, prefix=".new-")
            except OSError:
                continue
        raise BundleError(
            f"neither {self._beside} nor {self._cache} can be written; set SERVING_CACHE to a folder that can"
        )
