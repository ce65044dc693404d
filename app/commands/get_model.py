"""scripts/get-model: download a torchvision classifier trained on ImageNet and publish it as a model.

    scripts/get-model resnet50                          publishes models/resnet50-imagenet/1
    scripts/get-model resnet50 --weights IMAGENET1K_V1
    scripts/get-model --list

The input transform and the class names are those that torchvision records with the weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torchvision
from safetensors.torch import save_file

from app.commands.download import DownloadError, check_hash, download
from app.commands.publish import describe_answer, publish
from app.engines.network import AUXILIARY, list_architectures
from app.engines.weights import load_weights
from app.errors import BundleError, SettingsError
from app.logs import log_to_terminal, say
from app.models.bundle import CONFIG_FILE
from app.models.folders import CLASS_FILE, DEMO, versions_of
from app.models.untrusted_files import read_json
from app.settings import Settings
from app.system.files import draft_folder, write_file

TOP_K = 5  # ImageNet's usual measure
HALVES = [0.5, 0.5, 0.5]
LICENSE = (
    "torchvision: BSD-3-Clause; the weights may be subject to the terms of the data that they were trained "
    "on (ImageNet)"
)
SWAG_LICENSE = "CC-BY-NC 4.0, not for commercial use"  # of the weights named SWAG

Weights = Any  # a member of a torchvision.models.WeightsEnum


def list_weights(architecture: str) -> list[Weights]:
    """Return an architecture's weights with class names, the default first."""
    weights = torchvision.models.get_model_weights(architecture)
    default = weights.DEFAULT
    return sorted(
        (each for each in weights if each.meta["categories"]), key=lambda each: each is not default
    )


def find_weights(architecture: str, name: str) -> Weights:
    """Return weights by name; the default for "". Raises BundleError with the known names."""
    known = list_architectures()
    if architecture not in known:
        close = get_close_matches(architecture.lower(), known, n=5, cutoff=0.4)
        raise BundleError(
            f"torchvision has no classifier {architecture!r}; it has {', '.join(close or known[:5])}, … "
            "(scripts/get-model --list)"
        )
    weights = {each.name: each for each in list_weights(architecture)}
    if name and name not in weights:
        raise BundleError(f"{architecture} has no weights {name!r}; it has {', '.join(weights)}")
    return weights[name] if name else next(iter(weights.values()))


def describe_weights(architecture: str, weights: Weights) -> dict[str, Any]:
    """Return the model config of weights, from what torchvision records with them."""
    transform = weights.transforms()
    mean, deviation = transform.mean, transform.std
    if architecture in AUXILIARY:
        # torchvision normalizes these twice, by ImageNet's statistics and inside of the network
        # (transform_input); both together are this.
        mean = deviation = HALVES
    license_url = weights.meta.get("license", "")
    return {
        "description": f"{architecture} of torchvision, trained on ImageNet ({weights.name}): the {TOP_K} "
        f"most likely of {len(weights.meta['categories']):,} classes.",
        "source": weights.url,
        "license": f"{SWAG_LICENSE}: {license_url}" if "SWAG" in license_url else LICENSE,
        "scores": weights.meta["_metrics"],
        "architecture": architecture,
        "input_size": transform.crop_size[0],
        "crop": {"resize": transform.resize_size[0]},
        "interpolation": transform.interpolation.value,
        "antialias": transform.antialias is not False,
        "mean": list(mean),
        "deviation": list(deviation),
        "activation": "softmax",
        "top_k": TOP_K,
    }


def write_bundle(folder: Path, file: Path, architecture: str, weights: Weights) -> None:
    """Write a bundle of torchvision's own weights file. Raises BundleError if it cannot be read."""
    tensors = {name: tensor.contiguous() for name, tensor in load_weights(file).items()}
    save_file(tensors, folder / "model.safetensors")
    write_file(folder / CLASS_FILE, to_json(list(weights.meta["categories"])))
    write_file(folder / CONFIG_FILE, to_json(describe_weights(architecture, weights)))


def find_version(model: Path, source: str) -> Path | None:
    """Return the latest version of a model if it has been made of this source."""
    if not (versions := versions_of(model)):
        return None
    latest = versions[max(versions)]
    try:
        config = read_json(latest / CONFIG_FILE)
    except BundleError:
        return None
    return latest if isinstance(config, dict) and config.get("source") == source else None


def get_model(
    settings: Settings, architecture: str, weights: Weights, file: Path | None, mirror: str
) -> Path:
    """Publish weights as a model of the models folder; return the version's folder.

    Args:
        settings: the settings.
        architecture: the network.
        weights: of the network.
        file: torchvision's file, if it is here already.
        mirror: the URL of a folder with torchvision's files; "" for torchvision's own.

    Raises:
        DownloadError: the file cannot be had, or is another one.
        BundleError: it cannot be served.
    """
    model = settings.models / f"{architecture}-imagenet"
    if version := find_version(model, weights.url):
        say(f"{version} holds these weights already")
        return version
    name = weights.url.rpartition("/")[2]
    downloads = settings.cache / "downloads"
    path = file or downloads / name
    if path.is_file():
        check_hash(path, name)
    else:
        download(f"{mirror.rstrip('/')}/{name}" if mirror else weights.url, downloads)
    say(f"making a model of {path}")
    with draft_folder(settings.cache) as draft:
        write_bundle(draft, path, architecture, weights)
        version = publish(draft, model, settings)
    if file is None:
        path.unlink()
    return version


def to_json(content: Any) -> str:
    """Return indented JSON."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def format_list() -> str:
    """Return a table of all weights of all classifiers."""
    lines = [f"{'classifier':20}{'weights':26}{'MB':>7}{'px':>6}{'top 1':>8}{'top 5':>8}"]
    for architecture in list_architectures():
        for weights in list_weights(architecture):
            scores = weights.meta["_metrics"]["ImageNet-1K"]
            lines.append(
                f"{architecture:20}{weights.name:26}{weights.meta['_file_size']:7.0f}"
                f"{weights.transforms().crop_size[0]:6}{scores['acc@1']:8.1f}{scores['acc@5']:8.1f}"
            )
    lines.append(
        "The first weights of a classifier are its default. top 1, top 5: accuracy on ImageNet."
    )
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(prog="scripts/get-model", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", help="a torchvision classifier, such as resnet50")
    parser.add_argument("--weights", default="", help="default: torchvision's best")
    parser.add_argument("--list", action="store_true", help="list all classifiers and weights")
    parser.add_argument("--from", type=Path, dest="file", help="torchvision's file, if it is here")
    parser.add_argument("--url", default="", help="a mirror: the folder of torchvision's files")
    parser.add_argument(
        "--pictures", type=Path, help="images; int8 and bf16 are made and measured with them"
    )
    arguments = parser.parse_args()
    if not arguments.name and not arguments.list:
        parser.error("name a classifier, or --list")
    if arguments.url and not arguments.url.startswith(("https://", "http://")):
        parser.error(f"--url is {arguments.url}; expected https://… or http://…")
    if arguments.file and not arguments.file.is_file():
        parser.error(f"--from is {arguments.file}, which is no file")
    return arguments


def main() -> None:
    """Publish a model by the arguments and the environment."""
    arguments = parse_arguments()
    if arguments.list:
        print(format_list())
        return
    log_to_terminal()
    try:
        settings = Settings.from_env(os.environ)
        weights = find_weights(arguments.name, arguments.weights)
        version = get_model(settings, arguments.name, weights, arguments.file, arguments.url)
    except DownloadError as error:
        command = f"scripts/get-model {arguments.name} --from FILE"
        hint = "" if arguments.file else f"; if you have the file from elsewhere: {command}"
        sys.exit(f"not published: {error}{hint}")
    except (BundleError, SettingsError, OSError) as error:
        sys.exit(f"not published: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command continues")
    print(version)
    say(f"license: {describe_weights(arguments.name, weights)['license']}")
    say(describe_answer(version, settings))
    if (settings.models / DEMO).exists() and not settings.model:
        say("the demo is not served beside other models (SERVING_MODEL=demo serves it alone)")
    if arguments.pictures:
        optimize_version(settings, version, arguments.pictures)


def optimize_version(settings: Settings, version: Path, pictures: Path) -> None:
    """Make and measure the reduced precisions of a published version."""
    from app.commands.optimize import optimize, print_report  # noqa: PLC0415  (needs nncf)

    try:
        report, _ = optimize(dataclasses.replace(settings, model=version.parent.name), pictures)
    except BundleError as error:
        sys.exit(f"published, but in fp32 only: {error}")
    print_report(report)


if __name__ == "__main__":
    main()
