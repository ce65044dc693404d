"""The JSON answer of ``GET /``: model, decision rule and limits, for programs and for the page."""

from __future__ import annotations

from flask import current_app
from msgspec import Struct

from app import __version__
from app.processing.decision import Decision
from app.serving.routing import Target
from app.web.context import model_server, settings
from app.web.native.health import NAME


class Rule(Struct):
    """Decision rule of the model, as in its ``model.json``.

    Attributes:
        activation: Activation that maps logits to scores, ``sigmoid`` or ``softmax``.
        threshold: Labels are the classes strictly above the threshold; a list has one threshold per class; null if
            ``top_k`` is set.
        threshold_on: Value that is compared with the threshold, ``logit`` or ``score``.
        top_k: Labels are this many of the strongest classes; null if a threshold is set.
    """

    activation: str
    threshold: float | tuple[float, ...] | None
    threshold_on: str
    top_k: int | None


class Frame(Struct):
    """Resize and crop before the network.

    Attributes:
        side: Width and height of the network's input, in pixels.
        resize: Shorter side after the resize that precedes the center crop, in pixels; null without a crop.
    """

    side: int
    resize: int | None


class Limits(Struct):
    """Limits of a request.

    Attributes:
        max_body_bytes: Maximum size of the body, in bytes.
        max_pixels: Maximum size of an image, width × height.
    """

    max_body_bytes: int
    max_pixels: int


class ServiceInfo(Struct):
    """JSON response of ``GET /``.

    Attributes:
        service: Always "resnet-serving".
        server_version: Version of the server.
        model: Name of the model.
        version: Version of the model.
        description: Description of the model; may be empty.
        classes: Class names in model order (the order of the network's outputs).
        device: Device that the model runs on.
        engine: Inference engine.
        precision: Numeric precision of the engine.
        routes: URL patterns of all routes.
        rule: Decision rule.
        frame: Resize and crop.
        heatmaps: True if the model supports heat maps.
        answer_cache: True if an image sent before may be answered without computing it again.
        exif_rotate: True if images are rotated by their EXIF orientation.
        url_hosts: Hosts whose images the server fetches by URL; empty if it fetches none.
        limits: Limits of a request.
        models: Loaded versions of each model, newest first.
    """

    service: str
    server_version: str
    model: str
    version: int
    description: str
    classes: tuple[str, ...]
    device: str
    engine: str
    precision: str
    routes: list[str]
    rule: Rule
    frame: Frame
    heatmaps: bool
    answer_cache: bool
    exif_rotate: bool
    url_hosts: tuple[str, ...]
    limits: Limits
    models: dict[str, list[int]]


def describe(target: Target) -> ServiceInfo:
    """Return the response for the model that ``target`` selects. Raises UnknownModel or NotReady."""
    model = model_server().find(target).model
    transform, limits = model.config.transform, settings()
    return ServiceInfo(
        service=NAME,
        server_version=__version__,
        model=model.name,
        version=model.version,
        description=model.bundle.description,
        classes=model.class_names,
        device=model.device,
        engine=model.choice.engine,
        precision=model.choice.precision,
        routes=sorted({str(rule) for rule in current_app.url_map.iter_rules()}),
        rule=describe_rule(model.config.decision),
        frame=Frame(transform.side, transform.resize),
        heatmaps=model.engine.gradients is not None,
        answer_cache=limits.answer_cache_mb > 0,
        exif_rotate=limits.exif_rotate,
        url_hosts=limits.url_hosts,
        limits=Limits(limits.max_body_bytes, limits.max_pixels),
        models=list_models(),
    )


def list_models() -> dict[str, list[int]]:
    """Return the loaded versions of each model that has any, newest first."""
    models: dict[str, list[int]] = {}
    for status in model_server().statuses():
        if status.state == "AVAILABLE":
            models.setdefault(status.name, []).insert(0, status.version)
    return models


def describe_rule(decision: Decision) -> Rule:
    """Return the decision rule; fields that do not apply are null."""
    threshold = None if decision.top_k else decision.threshold
    return Rule(decision.activation, threshold, decision.threshold_on, decision.top_k)
