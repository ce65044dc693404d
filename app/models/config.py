"""The model config, ``model.json``: the architecture, the input transform, the normalization and the decision.

Every key is optional; the default is a multi-label ResNet-50. An invalid value is refused with its key, the
value and the expected form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from app.errors import BundleError
from app.names import LINE_BREAKS, MAX_DESCRIPTION, SHOWN, shorten, text_problem
from app.processing.decision import LOGIT, SCORE, SIGMOID, SOFTMAX, Decision
from app.processing.images import SIDE, WHOLE, InputTransform

# ImageNet's statistics, RGB in 0..1, of torchvision's pretrained networks
# (torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms).
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

MAX_SIDE = 2048  # px; the largest that any torchvision classifier was trained at is 600
LARGEST = 3.4e38  # of float32
KEYS = {
    *("description", "scores", "architecture", "input_size", "crop", "mean", "deviation"),
    *("activation", "threshold", "threshold_on", "top_k"),
}


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a model; the defaults are those of ``model.json``.

    Attributes:
        architecture: a torchvision classifier's name; ``app/engines/network.py`` validates it.
        transform: turns an image into the network's input.
        mean: of the training images, RGB in 0..1.
        deviation: standard deviation of the same, RGB, above 0.
        decision: turns the network's outputs into labels.
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
    """The keys and values of a ``model.json``."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        """Validate the keys of a parsed file; ``path`` is for errors. Raises BundleError on an unknown key."""
        if unknown := sorted(set(content) - KEYS):
            raise BundleError(
                f"{path}: unknown keys {shorten(unknown[:5])}; known are {sorted(KEYS)}"
            )
        self._path = path
        self._content = content

    def read(self, key: str, default: Any, is_valid: Callable[[Any], bool], expected: str) -> Any:
        """Return a key's value, or the default if the key is absent.

        Raises:
            BundleError: the value is invalid; the message says what was ``expected``.
        """
        value = self._content.get(key, default)
        if key in self._content and not is_valid(value):
            self.refuse(key, expected)
        return value

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise BundleError with the file, the key, its value and the expected form."""
        value = json.dumps(self._content[key])
        value = value if len(value) <= SHOWN else value[:SHOWN] + "…"
        raise BundleError(f"{self._path}: {key} is {value}; expected {expected}")


def read_config(fields: Fields, classes: int) -> ModelConfig:
    """Return the validated config of a model with so many classes; the architecture is not looked up.

    Raises:
        BundleError: a value is invalid.
    """
    architecture = fields.read(
        "architecture",
        DEFAULT.architecture,
        is_text,
        'the name of a torchvision classifier, such as "resnet18"',
    )
    return ModelConfig(
        architecture,
        read_transform(fields),
        read_channels(fields, "mean", MEAN, is_mean, "from 0 to 1"),
        read_channels(fields, "deviation", DEVIATION, is_deviation, "above 0, up to 1"),
        read_decision(fields, classes),
    )


def read_description(fields: Fields) -> str:
    """Return the model's description; may be empty."""
    expected = f"a printable text of at most {MAX_DESCRIPTION} characters"
    description: str = fields.read("description", "", is_description, expected)
    return description


def read_transform(fields: Fields) -> InputTransform:
    """Return the transform of ``input_size`` and ``crop``."""
    side = fields.read(
        "input_size",
        SIDE,
        partial(is_whole, low=1, high=MAX_SIDE),
        f"a whole number of px from 1 to {MAX_SIDE}",
    )
    crop = fields.read(
        "crop",
        None,
        partial(is_crop, side=side),
        f'null, or {{"resize": px of the shorter side, from {side} (input_size) to {MAX_SIDE}}}',
    )
    return InputTransform(side, crop["resize"] if crop else None)


def read_channels(
    fields: Fields,
    key: str,
    default: tuple[float, ...],
    is_valid: Callable[[Any], bool],
    bounds: str,
) -> tuple[float, ...]:
    """Return three numbers, for red, green and blue; ``is_valid`` validates each."""

    def are_valid(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(map(is_valid, value))

    expected = f"three numbers {bounds}, for red, green and blue"
    return tuple(map(float, fields.read(key, default, are_valid, expected)))


def read_decision(fields: Fields, classes: int) -> Decision:
    """Return the decision: a threshold, or the ``top_k`` best classes."""
    default = DEFAULT.decision
    activation = read_choice(fields, "activation", default.activation, (SIGMOID, SOFTMAX))
    threshold_on = read_choice(fields, "threshold_on", None, (LOGIT, SCORE))
    threshold = read_threshold(fields, threshold_on == SCORE, classes)
    top_k = fields.read(
        "top_k",
        None,
        partial(is_whole, low=1, high=classes),
        f"a whole number from 1 to {classes}, the number of classes",
    )
    if threshold is None:
        if threshold_on:
            fields.refuse("threshold_on", "a threshold beside it")
        return Decision(activation, top_k=top_k or (1 if activation == SOFTMAX else None))
    if top_k is not None:
        fields.refuse("top_k", "no top_k beside a threshold: one of the two decides")
    return Decision(activation, threshold, threshold_on or default.threshold_on)


def read_choice(fields: Fields, key: str, default: str | None, options: tuple[str, str]) -> Any:
    """Return one of two words, or the default."""
    return fields.read(
        key, default, lambda value: value in options, f'"{options[0]}" or "{options[1]}"'
    )


def read_threshold(
    fields: Fields, is_score: bool, classes: int
) -> float | tuple[float, ...] | None:
    """Return one threshold, one for each class, or None."""
    low, high = (0.0, 1.0) if is_score else (-LARGEST, LARGEST)
    bounds = " from 0 to 1" if is_score else ""
    is_limit = partial(is_number, low=low, high=high)

    def is_threshold(value: Any) -> bool:
        if isinstance(value, list):
            return len(value) == classes and all(map(is_limit, value))
        return is_limit(value)

    threshold = fields.read(
        "threshold",
        None,
        is_threshold,
        f"a number{bounds}, or a list of {classes} such numbers, one for each class",
    )
    if isinstance(threshold, list):
        return tuple(map(float, threshold))
    return None if threshold is None else float(threshold)


def is_text(value: object) -> bool:
    """Return whether a JSON value is a printable name."""
    return isinstance(value, str) and not text_problem(value)


def is_description(value: object) -> bool:
    """Return whether a JSON value is a printable text of several lines; may be empty."""
    return isinstance(value, str) and not (
        value and text_problem(value, MAX_DESCRIPTION, LINE_BREAKS)
    )


def is_crop(value: object, side: int) -> bool:
    """Return whether a JSON value is a crop for this input size."""
    if not isinstance(value, dict):
        return value is None
    return set(value) == {"resize"} and is_whole(value["resize"], side, MAX_SIDE)


def is_mean(value: object) -> bool:
    """Return whether a JSON value is a channel's mean."""
    return is_number(value, 0, 1)


def is_deviation(value: object) -> bool:
    """Return whether a JSON value is a channel's standard deviation."""
    return is_number(value, 0, 1) and value != 0


def is_whole(value: object, low: int, high: int) -> bool:
    """Return whether a JSON value is an integer from ``low`` to ``high``."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: object, low: float, high: float) -> bool:
    """Return whether a JSON value is a number from ``low`` to ``high``; NaN and Infinity are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
