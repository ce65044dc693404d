"""Options of a request, in the query, in form fields or in JSON: one type per route, validated in one place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sized
from typing import Annotated, Any, Literal, TypeVar

from flask import request
from msgspec import Meta, Struct, ValidationError, convert

from app.errors import InvalidOption
from app.serving.routing import Target
from app.web.input.client import routing_key
from app.web.limits import MAX_OPTION
from app.web.quoting import abbreviate


class Options(Struct, forbid_unknown_fields=True, kw_only=True):
    """Base class of the options of a route."""


class SampleOptions(Options, kw_only=True):
    """Options of ``GET /samples``.

    Attributes:
        model: Model name. Omitted: the samples that come with the server.
    """

    model: str = ""


class ModelOptions(Options, kw_only=True):
    """Options that select the model.

    Attributes:
        model: Model name. Omitted: the default model.
        version: Model version. Omitted: chosen by the traffic split of the operator.
    """

    model: str = ""
    version: Annotated[int, Meta(ge=1)] | None = None

    def target(self) -> Target:
        """Return the target of the current request."""
        return Target(self.model, self.version, sticky=routing_key())


class ImageOptions(ModelOptions, kw_only=True):
    """Options of the routes that read image files.

    Attributes:
        upright: ``true`` rotates images by their EXIF orientation, ``false`` ignores it. Omitted: as the server is
            configured.
    """

    upright: bool | None = None


class PredictOptions(ImageOptions, kw_only=True):
    """Options of ``POST /predict``.

    Attributes:
        threshold: Score threshold: labels are the classes strictly above it. Without ``threshold`` and ``top_k`` the
            model's own decision rule applies.
        top_k: Number of strongest classes to return as labels; with ``threshold`` the maximum number of labels.
        scores: ``all`` adds the scores of all classes, ``passing`` returns the labels only.
        heatmap: Classes to return heat maps for: a class name, ``strongest``, or ``all`` (all labels). Only classes in
            the response have one.
        heatmap_top_k: Number of strongest classes of each image to return heat maps for, beside those of ``heatmap``.
            Only classes in the response have one: use it with ``scores=all``.
    """

    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None
    scores: Literal["passing", "all"] = "passing"
    heatmap: str = ""
    heatmap_top_k: Annotated[int, Meta(ge=1)] | None = None


class HeatMapOptions(ImageOptions, kw_only=True):
    """Options of ``POST /predict/heatmap``.

    Attributes:
        label: Class name. Omitted: the strongest class.
        size: Resolution of ``map``: ``map`` has a value per cell, ``picture`` a value per pixel of the overlay.
        opacity: Opacity of the colors over the image.
    """

    label: str = ""
    size: Literal["map", "picture"] = "map"
    opacity: Annotated[float, Meta(ge=0, le=1)] = 0.5


O = TypeVar("O", bound=Options)  # noqa: E741


def read_options(kind: type[O], given: Iterable[tuple[str, Any]], is_json: bool = False) -> O:
    """Return the options of the current request.

    Args:
        kind: the type of the options.
        given: options of the body; those of the query are read here.
        is_json: the options of the body are JSON values. Otherwise they are form fields: numbers are text, and
            empty fields are ignored.

    Raises:
        InvalidOption: unknown option, duplicate option, or a value out of range.
    """
    query, names = [*request.args.items(multi=True)], kind.__struct_fields__
    for name, value in query:
        check_length(name, value)
    body = [pair for pair in given if is_json or pair[1] or pair[0] not in names]
    check_names([name for name, _ in [*query, *body]], names)
    members = convert_options(dict(query), kind, is_text=True)
    members |= convert_options(dict(body), kind, is_text=not is_json)
    return kind(**members)


def check_names(found: Iterable[str], names: Collection[str]) -> None:
    """Raise InvalidOption for unknown and duplicate options."""
    seen: set[str] = set()
    for name in found:
        if name not in names:
            expected = ", ".join(sorted(names))
            raise InvalidOption(f"there is no option {abbreviate(name)}; there are {expected}")
        if name in seen:
            raise InvalidOption(f"the option {name} is given twice")
        seen.add(name)


def convert_options(values: dict[str, Any], kind: type[O], is_text: bool) -> dict[str, Any]:
    """Return the converted values of those options that are given. Raises InvalidOption."""
    try:
        options = convert(values, kind, strict=not is_text)
    except ValidationError as error:
        raise InvalidOption(describe(error, values)) from error
    members = {name: getattr(options, name) for name in values}
    for name, value in values.items():
        if value and members[name] is None:  # text that msgspec reads as null
            raise InvalidOption(f"{name} is {abbreviate(value)}: leave it out instead")
    return members


def check_length(name: str | memoryview, value: Sized) -> None:
    """Raise InvalidOption for an oversized option, before it is decoded."""
    if len(name) > MAX_OPTION or len(value) > MAX_OPTION:
        shown = (
            name if isinstance(name, str) else bytes(name[:MAX_OPTION]).decode("utf-8", "replace")
        )
        raise InvalidOption(f"{abbreviate(shown)} is longer than {MAX_OPTION} bytes")


def describe(error: ValidationError, values: dict[str, Any]) -> str:
    """Return msgspec's message after the name and value, ``threshold is "2": expected `float` <= 1.0``."""
    text, _, place = str(error).partition(" - at ")
    name = re.sub(r"\W", "", place)
    return f"{name} is {abbreviate(values.get(name))}: {text[:1].lower()}{text[1:]}"
