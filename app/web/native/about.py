"""What is served, by which rule, and up to which limits: for programs, and for the page to draw with."""

from __future__ import annotations

from flask import current_app
from msgspec import Struct

from app.processing.decision import Decision
from app.serving.routing import Target
from app.web.context import model_server, settings


class Rule(Struct):
    """Which classes pass (``model.json`` says the same).

    Attributes:
        activation: what makes scores of logits, ``sigmoid`` or ``softmax``.
        threshold: a class passes strictly above it; a list has one for each class; null where ``top_k`` decides.
        threshold_on: what is held against it, ``logit`` or ``score``.
        top_k: so many of the best classes pass; null where a threshold decides.
    """

    activation: str
    threshold: float | tuple[float, ...] | None
    threshold_on: str
    top_k: int | None


class Seen(Struct):
    """What of a picture reaches the network.

    Attributes:
        side: px of both sides of the network's input.
        resize: px that the shorter side gets before the middle is cut out; null where nothing is cut off.
    """

    side: int
    resize: int | None


class Limits(Struct):
    """What a request may hold at most.

    Attributes:
        max_body_bytes: of the whole body.
        max_pixels: of a picture, width × height.
    """

    max_body_bytes: int
    max_pixels: int


class About(Struct):
    """What ``GET /`` answers.

    Attributes:
        service: always "resnet-serving".
        model: the name of the model that answers.
        version: its version.
        description: a sentence for people; may be empty.
        classes: their names, in the order of the network's outputs.
        device: what it runs on.
        engine: what runs it.
        precision: of its arithmetic.
        routes: every path, as patterns.
        rule: which classes pass.
        frame: what of a picture it sees.
        heatmaps: whether it can tell where in a picture a class is.
        exif_rotate: whether photographs are turned upright by their EXIF tag.
        limits: what a request may hold.
        models: the versions of each model that answer now, the newest first.
    """

    service: str
    model: str
    version: int
    description: str
    classes: tuple[str, ...]
    device: str
    engine: str
    precision: str
    routes: list[str]
    rule: Rule
    frame: Seen
    heatmaps: bool
    exif_rotate: bool
    limits: Limits
    models: dict[str, list[int]]


def describe(target: Target) -> About:
    """Return what would answer ``target``. Raises UnknownModel or NotReady."""
    model = model_server().find(target).model
    transform, given = model.config.transform, settings()
    return About(
        service="resnet-serving",
        model=model.name,
        version=model.version,
        description=model.bundle.description,
        classes=model.class_names,
        device=model.device,
        engine=model.choice.engine,
        precision=model.choice.precision,
        routes=sorted({str(rule) for rule in current_app.url_map.iter_rules()}),
        rule=describe_rule(model.config.decision),
        frame=Seen(transform.side, transform.resize),
        heatmaps=model.engine.gradients is not None,
        exif_rotate=given.exif_rotate,
        limits=Limits(given.max_body_bytes, given.max_pixels),
        models=list_models(),
    )


def list_models() -> dict[str, list[int]]:
    """Return the live versions of each model, the newest first; a model without any is left out."""
    models: dict[str, list[int]] = {}
    for status in model_server().statuses():
        if status.state == "AVAILABLE":
            models.setdefault(status.name, []).insert(0, status.version)
    return models


def describe_rule(decision: Decision) -> Rule:
    """Return a model's rule; what does not count in it is null."""
    threshold = None if decision.top_k else decision.threshold
    return Rule(decision.activation, threshold, decision.threshold_on, decision.top_k)
