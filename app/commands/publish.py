"""scripts/publish: check a model and publish it as the next version, atomically.

    scripts/publish SOURCE models/NAME     SOURCE: a folder with weights, class_name.json, perhaps model.json

The version appears by one rename, so a server that watches the folder never sees a part of it. By then it has been
converted, run once, and measured. Only files made by people are copied: converted networks and precision reports
are made anew, because nothing ties theirs to these weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path

from app.control.footprint import find_footprint
from app.control.manifest import last_default
from app.control.repository import read_repository
from app.errors import BundleError, SettingsError
from app.logs import log_to_terminal, say
from app.models.artifacts import Artifacts
from app.models.bundle import (
    CONFIG_FILE,
    MAX_WEIGHTS_BYTES,
    SUMS_FILE,
    check_sums,
    open_bundle,
    put_in_place,
    write_sums,
)
from app.models.folders import CLASS_FILE, find_weights
from app.models.untrusted_files import open_regular
from app.names import name_problem
from app.settings import Settings
from app.system.files import PUBLISHING, draft_folder, remove_leftovers, sync, sync_tree

CALIBRATION = "calibration"
# Suffixes of files that may hold weights → the name that a bundle has for them.
CHECKPOINTS = dict.fromkeys((".pt", ".pth", ".ckpt", ".tar", ".bin"), "model.pth")
CHECKPOINTS |= {".safetensors": "model.safetensors", ".npz": "model.npz"}
MAX_IMAGE_BYTES = 1 << 28  # of an image in calibration/
FILE_MODE, FOLDER_MODE = 0o644, 0o755  # the server may be another user: in the container it is


def publish(source: Path, model: Path, settings: Settings) -> Path:
    """Check ``source`` and publish it as the next version of ``model``; return the version's folder.

    Raises:
        BundleError: it cannot be served; nothing was changed.
    """
    if problem := name_problem(model.name):
        raise BundleError(f"{model}: a model's name {problem}")
    is_new = not model.exists()
    model.mkdir(parents=True, exist_ok=True)
    if is_new:
        model.chmod(FOLDER_MODE)
    try:
        remove_leftovers(model)
        with draft_folder(model, PUBLISHING) as draft:
            folder = draft / "version"
            copy_bundle(source, folder)
            say(f"checking {source}")
            check(folder, source, model.name, settings)
            write_sums(folder)
            (folder / SUMS_FILE).chmod(FILE_MODE)
            sync_tree(folder)
            version = put_in_place(folder, model)
            sync(model)
            return version
    except BaseException:
        if is_new:
            with suppress(OSError):  # another process has published into it
                model.rmdir()
        raise


def check(folder: Path, source: Path, name: str, settings: Settings) -> None:
    """Convert and measure a copy. Raises BundleError with the ``source``'s paths."""
    try:
        check_sums(folder)  # the source's own, if it has any
        artifacts = Artifacts(open_bundle(folder, name, 1), settings.cache)
        footprint = find_footprint(settings, artifacts)
    except BundleError as error:
        message = str(error).replace(str(folder.resolve()), str(source))
        raise type(error)(message.replace(str(folder), str(source))) from error
    say(f"it runs in {footprint.engine}, {footprint.precision}: {footprint.reason}")


def copy_bundle(source: Path, folder: Path) -> None:
    """Copy a bundle's own files.

    Raises:
        BundleError: the source holds no model, or something else than regular files.
    """
    weights = find_weights(source) if source.is_dir() else None
    if weights is None:
        raise BundleError(
            f"{source} holds no model: expected a folder with model.pth and {CLASS_FILE}"
            f"{suggest_name(source)}"
        )
    make_folder(folder)
    for path in (weights, *(source / name for name in (CLASS_FILE, CONFIG_FILE, SUMS_FILE))):
        if os.path.lexists(path):
            copy_file(path, folder / path.name, MAX_WEIGHTS_BYTES)
    if os.path.lexists(source / CALIBRATION):
        copy_images(source / CALIBRATION, folder / CALIBRATION)


def suggest_name(source: Path) -> str:
    """Return a hint if a folder, or a path itself, is a checkpoint of another name; or ""."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    found = next((path for path in files if path.suffix in CHECKPOINTS and path.is_file()), None)
    if found is None:
        return ""
    return f"; if {found} is a state_dict, call it {CHECKPOINTS[found.suffix]}"


def copy_images(source: Path, folder: Path) -> None:
    """Copy a folder of images, recursively. Raises BundleError on anything but folders and regular files."""
    if not stat.S_ISDIR(source.lstat().st_mode):
        raise BundleError(f"{source} is no folder; expected one of images, and no link")
    make_folder(folder)
    for child in sorted(source.iterdir()):
        if stat.S_ISDIR(child.lstat().st_mode):
            copy_images(child, folder / child.name)
        else:
            copy_file(child, folder / child.name, MAX_IMAGE_BYTES)


def copy_file(source: Path, target: Path, most_bytes: int) -> None:
    """Copy one regular file. Raises BundleError on a link or anything else."""
    if source.is_symlink():
        raise BundleError(
            f"{source} is a link, which is not followed: publish a copy made with cp -rL"
        )
    # Confined to its own folder: a link that replaces the file meanwhile is refused.
    home = Path(os.path.realpath(source.parent))
    with open_regular(source, most_bytes, home) as file, target.open("xb") as copy:
        shutil.copyfileobj(file, copy)
    target.chmod(FILE_MODE)


def make_folder(folder: Path) -> None:
    """Make a folder that every user can read."""
    folder.mkdir()
    folder.chmod(FOLDER_MODE)


def describe_answer(version: Path, settings: Settings) -> str:
    """Return a sentence about the requests that a server with these settings answers by a new version."""
    model = version.parent.resolve()
    if settings.models_file is None:
        is_bare = model == settings.models.resolve()
        settings = dataclasses.replace(settings, models=model if is_bare else model.parent)
    try:
        repository = read_repository(settings)
    except BundleError as error:
        return f"a server with these settings does not serve it: {error}"
    models = repository.models
    names = [served.name for served in models if served.folder.resolve() == model]
    if not names:
        what = settings.models_file or f"SERVING_MODEL={settings.model}"
        return f"it is not served: {what} names another folder"
    policy = models[0].policy
    if policy.specific and int(version.name) not in policy.specific:
        return f"it is not served: only the versions {policy.specific} are wanted"
    last = "" if repository.is_default_set else last_default(settings.run)
    default = last if last in {served.name for served in models} else models[0].name
    answers = f"it answers as {', '.join(names)}, version {int(version.name)}"
    if default in names:
        return f"{answers}, and is the default: requests that name no model get it"
    return (
        f"{answers}; requests that name no model go on to {default} "
        "(SERVING_MODEL serves one alone, the order of a models file chooses another)"
    )


def main() -> None:
    """Publish by the arguments and the environment."""
    parser = argparse.ArgumentParser(prog="scripts/publish", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with weights and class_name.json")
    parser.add_argument("model", type=Path, help="the model's folder, such as models/voc")
    arguments = parser.parse_args()
    log_to_terminal()
    try:
        settings = Settings.from_env(os.environ)
        version = publish(arguments.source, arguments.model, settings)
    except (BundleError, SettingsError) as error:
        sys.exit(f"not published: {error}")
    except OSError as error:
        sys.exit(f"not published: {error}; nothing was changed")
    print(version)
    say(describe_answer(version, settings))


if __name__ == "__main__":
    main()
