"""The entries of the operation tables: one for each method of each path."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from app.errors import ServingError
from app.web.input.options import Options

Schema = dict[str, Any]
# Media type → a type, a tuple of alternative types, or a JSON Schema.
Media = Mapping[str, Any]
File = Annotated[str, Meta(description="The image file.", extra_json_schema={"format": "binary"})]


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    Attributes:
        method: the HTTP method.
        path: the path template of OpenAPI, ``/v2/models/{name}``.
        id: the operationId.
        summary: a verb and a noun.
        response_body: content of the 200 response.
        errors: errors that the application may answer beside those of every route.
        request_body: content of the request.
        body_is_optional: the request may have no body.
        image_body: the body is ``one`` image or ``many`` in any supported form, with ``options`` beside them.
        options: query parameters.
        request_headers: names of request headers (``headers.py``).
        response_headers: names of response headers of the 200 response.
        has_etag: supports conditional requests (304).
        is_private: nginx admits only the addresses in SERVING_METRICS_FROM.
        examples: id of the operation whose examples are shown; empty: its own.
        description: empty: the docstring of the view.
    """

    method: str
    path: str
    id: str
    summary: str
    response_body: Media
    errors: Collection[type[ServingError]] = ()
    request_body: Media = field(default_factory=dict)
    body_is_optional: bool = False
    image_body: Literal["", "one", "many"] = ""
    options: type[Options] | None = None
    request_headers: Sequence[str] = ()
    response_headers: Sequence[str] = ()
    has_etag: bool = False
    is_private: bool = False
    examples: str = ""
    description: str = ""


@dataclass(frozen=True)
class Group:
    """A tag of the document with its operations.

    Attributes:
        name: the name of the tag.
        description: the description of the tag.
        operations: its operations, in the order of the document.
        types: types that ``schemas`` and the operations refer to by name.
        schemas: component schemas that no type of the code describes, by name.
    """

    name: str
    description: str
    operations: Sequence[Operation]
    types: Sequence[type] = ()
    schemas: Mapping[str, Schema] = field(default_factory=dict)
