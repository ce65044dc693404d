"""scripts/publish: check a model and put it in place as the next version, whole or not at all.

    scripts/publish SOURCE models/NAME     SOURCE: a folder with weights, class_name.json, perhaps model.json

The version appears under its number by one rename, so a server that follows the folder never sees
half of it. By then it has been converted, run once, and measured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from app.bundle import (
    CARD_FILE,
    CLASS_FILE,
    find_weights,
    open_bundle,
    put_in_place,
    write_sums,
)
from app.errors import BundleError, SettingsError
from app.files import PUBLISHING, draft_folder, remove_leftovers, sync, sync_tree
from app.footprint import find_footprint
from app.logs import say
from app.optimized import Optimized
from app.precision import REPORT_FILE
from app.settings import Settings


def publish(source: Path, model: Path, settings: Settings) -> Path:
    """Check ``source`` and make it the next version of ``model``; return the version's folder.

    Raises:
        BundleError: it cannot be served; nothing was changed.
    """
    model.mkdir(parents=True, exist_ok=True)
    remove_leftovers(model)
    with draft_folder(model, PUBLISHING) as draft:
        folder = draft / "version"
        copy_bundle(source, folder)
        say(f"checking {source}")
        optimized = Optimized(open_bundle(folder, model.name, 1), settings.cache)
        footprint = find_footprint(settings, optimized)
        say(f"it runs in {footprint.engine}, {footprint.precision}: {footprint.reason}")
        write_sums(folder)
        sync_tree(folder)
        version = put_in_place(folder, model)
        sync(model)
        return version


def copy_bundle(source: Path, folder: Path) -> None:
    """Copy what a version is made of.

    Raises:
        BundleError: there is no model in the source.
    """
    weights = find_weights(source) if source.is_dir() else None
    if weights is None:
        raise BundleError(
            f"{source} holds no model: expected a folder with model.pth and {CLASS_FILE}"
        )
    folder.mkdir()
    for path in (weights, *(source / name for name in (CLASS_FILE, CARD_FILE, REPORT_FILE))):
        if path.exists():
            shutil.copyfile(path, folder / path.name)
    for name in ("calibration", "optimized"):
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name)


def main() -> None:
    """Publish, as the arguments and the environment say."""
    parser = argparse.ArgumentParser(prog="scripts/publish", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with weights and class_name.json")
    parser.add_argument("model", type=Path, help="the model's folder, such as models/voc")
    arguments = parser.parse_args()
    try:
        print(publish(arguments.source, arguments.model, Settings.from_env(os.environ)))
    except (BundleError, SettingsError) as error:
        sys.exit(f"not published: {error}")
    except OSError as error:
        sys.exit(f"not published: {error}; nothing was changed")


if __name__ == "__main__":
    main()
