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
from app.processing.images import BILINEAR, FILTERS, NEAREST, SIDE, WHOLE, InputTransform

# ImageNet's statistics, RGB in 0..1, of torchvision's pretrained networks
# (torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms).
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

RGB, BGR = "RGB", "BGR"
UNIT, BYTE = [0, 1], [0, 255]  # input ranges
MAX_SIDE = 2048  # px; the largest that any torchvision classifier was trained at is 600
LARGEST = 3.4e38  # of float32
KEYS = {
    *("description", "source", "license", "scores", "architecture"),
    *("input_size", "crop", "interpolation", "antialias"),
    *("channels", "input_range", "mean", "deviation"),
    *("activation", "threshold", "threshold_on", "top_k"),
}


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a model; the defaults are those of ``model.json``.

    Attributes:
        architecture: a torchvision classifier's name; ``app/engines/network.py`` validates it.
        transform: turns an image into the network's input.
        mean: subtracted from each channel, in 0..1, in the order of ``channels``.
        deviation: each channel is divided by it, above 0, of the same order and unit.
        decision: turns the network's outputs into labels.
        channels: the order of the network's input channels, ``RGB`` or ``BGR``.
    """

    architecture: str = "resnet50"
    transform: InputTransform = WHOLE
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = DEVIATION
    decision: Decision = Decision()
    channels: str = RGB

    def digest(self) -> str:
        """Return a digest of the whole config; a field that came later counts once it is set.

        So reports that an earlier release has measured stay valid.
        """
        content = asdict(self)
        for part, whole, later in (
            (content, DEFAULT, ("channels",)),
            (content["transform"], WHOLE, ("interpolation", "antialias")),
        ):
            for name in later:
                if part[name] == getattr(whole, name):
                    del part[name]
        return hash_json(content)

    def network_digest(self, weights_digest: str) -> str:
        """Return a digest of the network that these weights make; what happens before and after does not change it."""
        parts = [self.architecture, self.transform.side, self.mean, self.deviation]
        if self.channels != RGB:
            parts.append(self.channels)
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
    channels = read_choice(fields, "channels", RGB, (RGB, BGR))
    mean, deviation = read_normalization(fields, channels)
    return ModelConfig(
        architecture,
        read_transform(fields),
        mean,
        deviation,
        read_decision(fields, classes),
        channels,
    )


def read_description(fields: Fields) -> str:
    """Return the model's description; may be empty. Validates the texts beside it, which are not used."""
    expected = f"a printable text of at most {MAX_DESCRIPTION} characters"
    description, *_ = (
        str(fields.read(key, "", is_description, expected))
        for key in ("description", "source", "license")
    )
    return description


def read_transform(fields: Fields) -> InputTransform:
    """Return the transform of ``input_size``, ``crop``, ``interpolation`` and ``antialias``."""
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
    interpolation = read_choice(fields, "interpolation", BILINEAR, tuple(FILTERS))
    can_sample = interpolation in {BILINEAR, *NEAREST}
    antialias = fields.read(
        "antialias",
        True,
        lambda value: value is True or (value is False and can_sample),
        "true or false" if can_sample else f"true with the interpolation {interpolation}",
    )
    return InputTransform(side, crop["resize"] if crop else None, interpolation, antialias)


def read_normalization(
    fields: Fields, channels: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation in 0..1, whatever the ``input_range`` in which they are written."""
    expected = f"{UNIT} or {BYTE}"
    input_range = fields.read("input_range", UNIT, lambda value: value in (UNIT, BYTE), expected)
    high = input_range[1]
    names = "red, green and blue" if channels == RGB else "blue, green and red"

    def read(key: str, default: tuple[float, ...], none: float, low: str) -> tuple[float, ...]:
        """Return a value for each channel; ``none`` stands for null."""

        def is_valid(value: Any) -> bool:
            if not isinstance(value, list):
                return value is None
            is_allowed = all(is_number(each, 0, high) and (each or not none) for each in value)
            return len(value) == 3 and is_allowed

        bounds = f"{low} {high} (input_range is {input_range})"
        expected = f"three numbers {bounds}, for {names}, or null for none"
        ours = [value * high for value in (default if channels == RGB else default[::-1])]
        values = fields.read(key, ours, is_valid, expected)
        return tuple(value / high for value in values or [none] * 3)

    return read("mean", MEAN, 0, "from 0 to"), read("deviation", DEVIATION, 1, "above 0, up to")


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


def read_choice(fields: Fields, key: str, default: str | None, options: tuple[str, ...]) -> Any:
    """Return one of some words, or the default."""
    *first, last = (f'"{option}"' for option in options)
    expected = f"{', '.join(first)} or {last}"
    return fields.read(
        key, default, lambda value: isinstance(value, str) and value in options, expected
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


def is_whole(value: object, low: int, high: int) -> bool:
    """Return whether a JSON value is an integer from ``low`` to ``high``."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: object, low: float, high: float) -> bool:
    """Return whether a JSON value is a number from ``low`` to ``high``; NaN and Infinity are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
