"""What ``model.json`` says of a model: which network it is, how pictures come to it, what its outputs mean.

Every key is optional, and without any the model is a ResNet-50 with many labels at once. A value
that cannot be meant is refused, with the key, what was found and what was expected.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from app.errors import BundleError
from app.names import LINE_BREAKS, MAX_DESCRIPTION, SHOWN, shorten, text_problem
from app.processing.decision import LOGIT, SCORE, SIGMOID, SOFTMAX, Decision
from app.processing.images import SIDE, WHOLE, InputTransform

# ImageNet's statistics, RGB in 0..1: what torchvision's pretrained networks were trained with
# (torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms).
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

MAX_SIDE = 2048  # px; the largest that any torchvision classifier was trained at is 600
LARGEST = 3.4e38  # what still is a number in float32
KEYS = {
    *("description", "scores", "architecture", "input_size", "crop", "mean", "deviation"),
    *("activation", "threshold", "threshold_on", "top_k"),
}


@dataclass(frozen=True)
class ModelConfig:
    """How a model's weights are to be used; the defaults are those of ``model.json``.

    Attributes:
        architecture: a torchvision classifier's name; ``app/engines/network.py`` knows which there are.
        transform: how a picture becomes the network's input.
        mean: of the pictures that it was trained with, RGB in 0..1.
        deviation: of the same, RGB, above 0.
        decision: what its outputs mean.
    """

    architecture: str = "resnet50"
    transform: InputTransform = WHOLE
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = DEVIATION
    decision: Decision = Decision()

    def digest(self) -> str:
        """Return a digest of the whole config."""
        return hash_json(asdict(self))

    def network_digest(self, weights_digest: str) -> str:
        """Return a digest of the network that these weights make; crop and decision do not change it."""
        parts = [self.architecture, self.transform.side, self.mean, self.deviation]
        return hash_json([weights_digest, *parts])


DEFAULT = ModelConfig()


def hash_json(content: object) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Fields:
    """The keys and values of a card's file."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        """Take what the file holds; ``path`` is for errors. Raises BundleError where a key is unknown."""
        if unknown := sorted(set(content) - KEYS):
            raise BundleError(
                f"{path}: unknown keys {shorten(unknown[:5])}; known are {sorted(KEYS)}"
            )
        self._path = path
        self._content = content

    def read(self, key: str, default: Any, is_meant: Callable[[Any], bool], expected: str) -> Any:
        """Return a key's value, or the default where there is no such key.

        Raises:
            BundleError: the value cannot be meant; the text says what was ``expected``.
        """
        value = self._content.get(key, default)
        if key in self._content and not is_meant(value):
            self.refuse(key, expected)
        return value

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise BundleError with the file, the key, what was found and what was expected."""
        found = json.dumps(self._content[key])
        found = found if len(found) <= SHOWN else found[:SHOWN] + "…"
        raise BundleError(f"{self._path}: {key} is {found}; expected {expected}")


def read_config(fields: Fields, classes: int) -> ModelConfig:
    """Return how the weights are to be used; whether torchvision has the architecture is not asked here.

    Raises:
        BundleError: a value cannot be meant for a model of so many ``classes``.
    """
    return ModelConfig(
        fields.read(
            "architecture",
            DEFAULT.architecture,
            lambda value: isinstance(value, str) and not text_problem(value),
            'the name of a torchvision classifier, such as "resnet18"',
        ),
        read_frame(fields),
        read_levels(fields, "mean", MEAN, lambda level: is_number(level, 0, 1), "from 0 to 1"),
        read_levels(
            fields,
            "deviation",
            DEVIATION,
            lambda level: is_number(level, 0, 1) and level > 0,
            "above 0, up to 1",
        ),
        read_decision(fields, classes),
    )


def read_description(fields: Fields) -> str:
    """Return what the model knows, in a sentence; empty where nothing is said."""
    description: str = fields.read(
        "description",
        "",
        lambda value: (
            isinstance(value, str)
            and not (value and text_problem(value, MAX_DESCRIPTION, LINE_BREAKS))
        ),
        f"a printable text of at most {MAX_DESCRIPTION} characters",
    )
    return description


def read_frame(fields: Fields) -> InputTransform:
    """Return how a picture becomes the network's input."""
    side = fields.read(
        "input_size",
        SIDE,
        lambda value: is_whole(value, 1, MAX_SIDE),
        f"a whole number of px from 1 to {MAX_SIDE}",
    )
    crop = fields.read(
        "crop",
        None,
        lambda value: (
            value is None
            or (
                isinstance(value, dict)
                and set(value) == {"resize"}
                and is_whole(value["resize"], side, MAX_SIDE)
            )
        ),
        f'null, or {{"resize": px of the shorter side, from {side} (input_size) to {MAX_SIDE}}}',
    )
    return InputTransform(side, crop["resize"] if crop else None)


def read_levels(
    fields: Fields,
    key: str,
    default: tuple[float, ...],
    is_meant: Callable[[Any], bool],
    bounds: str,
) -> tuple[float, ...]:
    """Return three numbers, one for each of red, green and blue."""
    levels = fields.read(
        key,
        default,
        lambda value: isinstance(value, list) and len(value) == 3 and all(map(is_meant, value)),
        f"three numbers {bounds}, for red, green and blue",
    )
    return tuple(map(float, levels))


def read_decision(fields: Fields, classes: int) -> Decision:
    """Return the rule by which classes pass."""
    default = DEFAULT.decision
    activation = fields.read(
        "activation",
        default.activation,
        lambda value: value in (SIGMOID, SOFTMAX),
        f'"{SIGMOID}" or "{SOFTMAX}"',
    )
    threshold_on = fields.read(
        "threshold_on",
        None,
        lambda value: value in (LOGIT, SCORE),
        f'"{LOGIT}" or "{SCORE}"',
    )
    threshold = read_threshold(fields, threshold_on == SCORE, classes)
    top_k = fields.read(
        "top_k",
        None,
        lambda value: is_whole(value, 1, classes),
        f"a whole number from 1 to {classes}, the number of classes",
    )
    if threshold_on and threshold is None:
        fields.refuse("threshold_on", "a threshold beside it")
    if threshold is not None and top_k is not None:
        fields.refuse("top_k", "no top_k beside a threshold: one of the two decides")
    if threshold is not None:
        return Decision(activation, threshold, threshold_on or default.threshold_on)
    return Decision(activation, top_k=top_k or (1 if activation == SOFTMAX else None))


def read_threshold(
    fields: Fields, is_score: bool, classes: int
) -> float | tuple[float, ...] | None:
    """Return one threshold, or one for each class; None where there is none."""
    low, high = (0.0, 1.0) if is_score else (-LARGEST, LARGEST)
    bounds = " from 0 to 1" if is_score else ""
    threshold = fields.read(
        "threshold",
        None,
        lambda value: (
            is_number(value, low, high)
            or (
                isinstance(value, list)
                and len(value) == classes
                and all(is_number(one, low, high) for one in value)
            )
        ),
        f"a number{bounds}, or a list of {classes} such numbers, one for each class",
    )
    if isinstance(threshold, list):
        return tuple(map(float, threshold))
    return None if threshold is None else float(threshold)


def is_whole(value: object, low: int, high: int) -> bool:
    """Tell whether JSON's value is a whole number between two others."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: object, low: float, high: float) -> bool:
    """Tell whether JSON's value is a number between two others, which NaN and Infinity are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
