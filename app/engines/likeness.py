"""The network that weights look like, if they do not fit the configured one: the remedy in the error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from app.engines.weight_errors import describe_misfit, fits, is_optional
from app.engines.weight_names import class_layer, match_head
from app.engines.weights import Shape
from app.errors import BundleError
from app.models.bundle import CONFIG_FILE, Bundle
from app.models.config import DEFAULT

# First part of tensor names → the architectures with such names. RegNets are left out: building them
# allocates their weights.
FAMILIES = {"layer1": ("resnet", "resnext", "wide_resnet"), "encoder": ("vit_",)}
OTHERS = (
    "alex",
    "convnext",
    "dense",
    "efficient",
    "mnas",
    "mobile",
    "shuffle",
    "squeeze",
    "swin",
    "vgg",
)
POSITIONS, PATCHES = "encoder.pos_embedding", "conv_proj.weight"  # of a vision transformer
MIN_LIKENESS = 0.8  # share of equal tensors

Shapes = Mapping[str, Shape]


def find_remedy(
    bundle: Bundle,
    shapes: Shapes,
    architectures: Sequence[str],
    find_shapes: Callable[[Bundle, int], Shapes],
) -> str:
    """Return what the weights look like, and the remedy.

    Args:
        bundle: the bundle that they do not fit.
        shapes: of the file's tensors.
        architectures: those of torchvision.
        find_shapes: returns the shapes of a bundle's architecture for a number of outputs; takes some 50 ms.
    """
    best, best_misfit, most = "", "", MIN_LIKENESS
    side = find_side(shapes) or bundle.config.transform.side
    transform = replace(bundle.config.transform, side=side)
    for architecture in list_similar(shapes, architectures):
        config = replace(bundle.config, architecture=architecture, transform=transform)
        other = replace(bundle, config=config)
        with suppress(BundleError):  # it cannot take this input size
            expected = find_shapes(other, len(bundle.class_names))
            renamed = match_head(shapes, expected)
            actual = {renamed.get(name, name): shape for name, shape in shapes.items()}
            if not (misfit := compare_bodies(actual, expected)):
                keys: dict[str, str | int] = {"architecture": architecture}
                if side != bundle.config.transform.side:
                    keys["input_size"] = side
                return (
                    f"these look like {architecture}: write {json.dumps(keys)} into {CONFIG_FILE}"
                )
            if (likeness := compare_shapes(actual, expected)) >= most:
                best, best_misfit, most = architecture, misfit, likeness
    if best:
        return f"these look most like {best}, but {best_misfit}; only torchvision's own networks can be served"
    if not (bundle.folder / CONFIG_FILE).exists():
        cure = (
            f"without {CONFIG_FILE} a model is a {DEFAULT.architecture}; for another network write "
            f'{{"architecture": "NAME"}} there, with its name in torchvision'
        )
    else:
        cure = f"{CONFIG_FILE} and the network that was saved must be of one architecture"
    return f"{cure} ({describe_misfit(shapes, find_shapes(bundle, len(bundle.class_names)))})"


def list_similar(names: Iterable[str], architectures: Sequence[str]) -> list[str]:
    """Return the architectures that may have such tensor names."""
    firsts = {name.partition(".")[0] for name in names}
    if len(firsts) < 2:
        return []  # no network's
    families = next((families for first, families in FAMILIES.items() if first in firsts), OTHERS)
    return [name for name in architectures if name.startswith(families)]


def find_side(shapes: Shapes) -> int:
    """Return the input size in px that a vision transformer was trained at; 0 for another network."""
    positions, patches = (shapes.get(name, ()) for name in (POSITIONS, PATCHES))
    if len(positions) != 3 or len(patches) != 4:
        return 0
    return math.isqrt(max(0, positions[1] - 1)) * patches[3]  # one position is the class token's


def compare_bodies(actual: Shapes, expected: Shapes) -> str:
    """Return the differences of two networks for any number of classes, or ""."""
    last = class_layer(list(expected))
    sized = {name: shape for name, shape in expected.items() if name.startswith(f"{last}.")}
    outputs = {name: actual[name] for name in sized if name in actual}
    counts = {shape[:1] for shape in outputs.values()}
    if len(counts) == 1 and all(shape[1:] == sized[name][1:] for name, shape in outputs.items()):
        expected = {**expected, **outputs}
    return describe_misfit(actual, expected)


def compare_shapes(actual: Shapes, expected: Shapes) -> float:
    """Return the share of equal tensors."""
    ours, theirs = (
        [name for name in shapes if not is_optional(name)] for shapes in (actual, expected)
    )
    equal = [name for name in theirs if name in actual and fits(actual[name], expected[name])]
    return len(equal) / max(len(ours), len(theirs), 1)
