"""What a client may choose, in the query, as form fields or in JSON: one type for each route, checked in one place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sized
from typing import Annotated, Any, Literal, TypeVar

from flask import request
from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import replace

from app.errors import InvalidOption
from app.serving.routing import Target
from app.web.echoes import abbreviate
from app.web.input.client import routing_key
from app.web.limits import MAX_OPTION


class ModelOptions(Struct, forbid_unknown_fields=True, kw_only=True):
    """Who shall answer.

    Attributes:
        model: a model's name; by default the server's default.
        version: one of its versions; by default as the operator has shared the traffic.
    """

    model: str = ""
    version: Annotated[int, Meta(ge=1)] | None = None

    def target(self) -> Target:
        """Return who shall answer the current request."""
        return Target(self.model, self.version, sticky=routing_key())


class PredictOptions(ModelOptions, kw_only=True):
    """What the answer shall hold.

    Attributes:
        threshold: of the score; a class passes strictly above it. Without it and ``top_k`` the model's
            own rule decides.
        top_k: so many of the strongest classes; with ``threshold`` at most so many of those that pass.
        scores: ``all`` adds every class to the answer, passing or not.
        heatmap: a class's name, ``strongest``, or ``all`` those that pass: which classes come with a heat
            map, where they are in the answer.
    """

    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None
    scores: Literal["passing", "all"] = "passing"
    heatmap: str = ""


class HeatMapOptions(ModelOptions, kw_only=True):
    """Which heat map, and how it is drawn.

    Attributes:
        label: a class's name; by default the strongest.
        size: ``map`` writes a number for each of the map's cells, ``picture`` for each pixel of the drawing.
        opacity: of the colours over the picture.
    """

    label: str = ""
    size: Literal["map", "picture"] = "map"
    opacity: Annotated[float, Meta(ge=0, le=1)] = 0.5


O = TypeVar("O", bound=ModelOptions)  # noqa: E741


def read_options(kind: type[O], given: Iterable[tuple[str, Any]], is_json: bool = False) -> O:
    """Return the current request's options.

    Args:
        kind: which options there are.
        given: those of the body; those of the query are read here.
        is_json: they come from JSON, where a number is a number. Else from a form, where a number is text
            and an empty field was left out.

    Raises:
        InvalidOption: one is unknown, given twice, or of a value that it cannot have.
    """
    query, known = [*request.args.items(multi=True)], kind.__struct_fields__
    for name, value in query:
        check_length(name, value)
    body = [pair for pair in given if is_json or pair[1] or pair[0] not in known]
    values: dict[str, Any] = {}
    for name, value in [*query, *body]:
        if name not in known:
            names = ", ".join(sorted(known))
            raise InvalidOption(f"there is no option {abbreviate(name)}; there are {names}")
        if name in values:
            raise InvalidOption(f"the option {name} is given twice")
        values[name] = value
    try:
        options = convert(dict(query), kind, strict=False)
        of_body = convert(dict(body), kind, strict=is_json)
    except ValidationError as error:
        raise InvalidOption(describe(error, values)) from error
    for name, value in values.items():
        if value and getattr(options, name) is getattr(of_body, name) is None:
            raise InvalidOption(f"{name} is {abbreviate(value)}: leave it out instead")
    return replace(options, **{name: getattr(of_body, name) for name, _ in body})


def check_length(name: str | memoryview, value: Sized) -> None:
    """Refuse with InvalidOption one that is too long to be meant, before anything is made of it."""
    if len(name) > MAX_OPTION or len(value) > MAX_OPTION:
        shown = (
            name if isinstance(name, str) else bytes(name[:MAX_OPTION]).decode("utf-8", "replace")
        )
        raise InvalidOption(f"{abbreviate(shown)} is longer than {MAX_OPTION} bytes")


def describe(error: ValidationError, values: dict[str, Any]) -> str:
    """Return msgspec's words with the value before them: "threshold is "2": Expected `float` <= 1.0"."""
    text, _, place = str(error).partition(" - at ")
    name = re.sub(r"\W", "", place)
    return f"{name} is {abbreviate(values.get(name))}: {text[:1].lower()}{text[1:]}"
