"""The OpenAPI 3.1 document, assembled from the operation tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flask import Flask
from msgspec import json
from werkzeug.routing import Rule

from app import __version__
from app.web.access import HEADER
from app.web.answers import DialectProblem, Problem
from app.web.openapi import dialects, native
from app.web.openapi.errors import KEY_ERRORS
from app.web.openapi.headers import REQUEST_HEADERS, RESPONSE_HEADERS
from app.web.openapi.operations import Media, Operation, Schema
from app.web.openapi.responses import describe_errors, refer_headers
from app.web.openapi.schemas import (
    draw_image_bodies,
    draw_members,
    draw_types,
    read_docstring,
    to_text_schema,
)
from app.web.scopes import JSON_SCOPES, ROUTES, STATUS, is_public
from app.web.tfserving.routes import MAX_VERSION

GROUPS = [native.IMAGES, native.SERVER, dialects.TFSERVING, dialects.OPENINFERENCE]
UNDOCUMENTED = {"/docs/<name>", "/page/<digest>/<name>"}  # the files of the two pages
EXAMPLES = Path(__file__).with_name("examples.json")
BODY_OPTIONS = (
    "The options of the query may instead be fields of a form, or stand beside `images` in JSON."
)
DESCRIPTION = """\
Multi-label image classification: send one or more images, get their labels. Start with `POST /predict`: *Try it out*,
choose an image, *Execute*.

Errors are `application/problem+json` (RFC 9457). Under `/v1` and `/v2` errors of the application are
`{"error": "…"}`, as clients of these protocols expect; errors of the gateway are `application/problem+json` there too.
"""
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key, if `Authorization` is needed for something else.",
    },
}
NAME = {"type": "string", "pattern": "^[^/:]+$"}
PATH_PARAMETERS: dict[str, Schema] = {
    "action": {"description": "Requested change.", "schema": {"enum": ["load", "unload"]}},
    "label": {"description": "Version label of the model.", "schema": NAME},
    "file": {"description": "File name of the sample.", "schema": NAME, "example": "airport.jpg"},
    "name": {"description": "Model name.", "schema": NAME, "example": "demo"},
    "version": {
        "description": "Model version.",
        "schema": {"type": "integer", "minimum": 0, "maximum": MAX_VERSION},
        "example": 1,
    },
}


def build_document(app: Flask) -> Schema:
    """Return the OpenAPI 3.1 document of the application."""
    builder = DocumentBuilder(app)
    paths: dict[str, Schema] = {}
    for group in GROUPS:
        builder.add_types(group.types)
        builder.add_components("schemas", group.schemas)
        for operation in group.operations:
            drawn = {"tags": [group.name], **builder.draw(operation)}
            paths.setdefault(operation.path, {})[operation.method.lower()] = drawn
    return {
        "openapi": "3.1.0",
        "info": {"title": "ResNet Serving", "version": __version__, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": group.name, "description": group.description} for group in GROUPS],
        "paths": paths,
        "components": {kind: parts for kind, parts in builder.components.items() if parts},
    }


def find_rule(app: Flask, operation: Operation) -> Rule:
    """Return the URL rule that routes an operation to its view.

    Raises:
        NotFound, MethodNotAllowed: no route matches (Werkzeug's).
    """
    path = operation.path.replace("{version}", "1").replace("{action}", "load")
    path = re.sub(r"{\w+}", "x", path)
    rule, _ = app.url_map.bind("").match(path, operation.method, return_rule=True)
    return rule


class DocumentBuilder:
    """Draws operations and collects the components that they share.

    Attributes:
        components: the ``components`` object of the document.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._examples: dict[str, list[dict[str, Any]]] = json.decode(EXAMPLES.read_bytes())
        in_path = {
            name: {"name": name, "in": "path", "required": True, **parameter}
            for name, parameter in PATH_PARAMETERS.items()
        }
        in_header = {
            name: {"name": name, "in": "header", **parameter}
            for name, parameter in REQUEST_HEADERS.items()
        }
        self.components: dict[str, dict[str, Any]] = {
            "schemas": {},
            "responses": {},
            "parameters": in_path | in_header,
            "headers": RESPONSE_HEADERS,
            "securitySchemes": {},
        }
        self.add_types([Problem, DialectProblem])

    def draw(self, operation: Operation) -> Schema:
        """Return the Operation object of OpenAPI; its components are added."""
        drawn: Schema = {"operationId": operation.id, "summary": operation.summary}
        if security := self._draw_security(operation):
            drawn["security"] = security
            operation = replace(operation, errors={*operation.errors, *KEY_ERRORS})
        drawn["description"] = operation.description or self._read_view(operation)
        drawn["parameters"] = self._draw_parameters(operation)
        if bodies := self._draw_request(operation):
            drawn["requestBody"] = {"required": not operation.body_is_optional, "content": bodies}
            if operation.options:
                drawn["requestBody"]["description"] = BODY_OPTIONS
        drawn["responses"] = self._draw_responses(operation)
        return drawn

    def add_types(self, types: Any) -> list[Schema]:
        """Add the components of types; return the schema of each type."""
        schemas, components = draw_types(types)
        self.add_components("schemas", components)
        return schemas

    def add_components(self, kind: str, parts: Mapping[str, Any]) -> None:
        """Add components by name.

        Raises:
            ValueError: two different components have the same name.
        """
        for name, part in parts.items():
            if self.components[kind].setdefault(name, part) != part:
                raise ValueError(f"two different {kind} are called {name}")

    def _read_view(self, operation: Operation) -> str:
        view = self._app.view_functions[find_rule(self._app, operation).endpoint]
        return read_docstring(view.__doc__ or "")[0]

    def _draw_security(self, operation: Operation) -> list[dict[str, list[str]]]:
        """Return the ways to send an API key, if the operation needs one; a page with JSON may be open itself."""
        endpoint = find_rule(self._app, operation).endpoint
        scopes = [ROUTES[endpoint], JSON_SCOPES.get(endpoint, STATUS)]
        closed = [each for each in scopes if not is_public(each, self._app.extensions["settings"])]
        if not closed:
            return []
        self.add_components("securitySchemes", SECURITY_SCHEMES)
        return [{name: closed} for name in SECURITY_SCHEMES]

    def _draw_parameters(self, operation: Operation) -> list[Schema]:
        in_path = re.findall(r"{(\w+)}", operation.path)
        query = draw_members(operation.options) if operation.options else {}
        return [
            *map(refer_parameter, in_path),
            *(as_parameter(name, schema) for name, schema in query.items()),
            *map(refer_parameter, [*operation.request_headers, HEADER]),
        ]

    def _draw_request(self, operation: Operation) -> dict[str, Schema]:
        content = self._draw_media(operation.request_body)
        if operation.image_body and operation.options:
            is_many = operation.image_body == "many"
            bodies, components = draw_image_bodies(operation.options, is_many)
            self.add_components("schemas", components)
            content |= {kind: {"schema": schema} for kind, schema in bodies.items()}
        self._add_examples(content, operation, "request")
        return content

    def _draw_responses(self, operation: Operation) -> dict[str, Schema]:
        responses: dict[str, Schema] = {}
        if operation.response_body:
            content = self._draw_media(operation.response_body)
            self._add_examples(content, operation, "answer")
            headers = refer_headers([HEADER, *operation.response_headers])
            responses["200"] = {"description": "Success.", "headers": headers, "content": content}
        if operation.has_etag:
            responses["304"] = {
                "description": "Not modified: `If-None-Match` matches the current ETag.",
                "headers": refer_headers([HEADER]),
            }
        for status, name, response in describe_errors(operation):
            self.add_components("responses", {name: response})
            responses[status] = {"$ref": f"#/components/responses/{name}"}
        return responses

    def _draw_media(self, media: Media) -> dict[str, Schema]:
        return {kind: {"schema": self._draw_schema(content)} for kind, content in media.items()}

    def _draw_schema(self, content: Any) -> Schema:
        """Return the schema of a type, or of alternative types; a schema stays as it is."""
        if isinstance(content, dict):
            return content
        schemas = self.add_types(content if isinstance(content, tuple) else (content,))
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}

    def _add_examples(self, content: Mapping[str, Schema], operation: Operation, part: str) -> None:
        """Add the recorded requests or answers."""
        for example in self._examples.get(operation.examples or operation.id, []):
            kind, value = example.get(f"{part}_type", ""), example.get(part)
            if kind in content and value is not None:
                shown = content[kind].setdefault("examples", {})
                shown[example["name"]] = {"summary": example["summary"], "value": value}


def refer_parameter(name: str) -> Schema:
    """Return a reference to a shared parameter."""
    return {"$ref": f"#/components/parameters/{name}"}


def as_parameter(name: str, schema: Schema) -> Schema:
    """Return an option as a query parameter."""
    schema = to_text_schema(schema)
    description = schema.pop("description")
    return {"name": name, "in": "query", "description": description, "schema": schema}
