"""The document itself, put together from the tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask
from msgspec import json
from werkzeug.routing import Rule

from app import __version__
from app.web.access import HEADER
from app.web.answers import DialectProblem, Problem
from app.web.openapi import native, openinference, tfserving
from app.web.openapi.headers import ASKED, TOLD
from app.web.openapi.operations import Operation
from app.web.openapi.responses import describe_errors, refer
from app.web.openapi.schemas import (
    Schema,
    as_text,
    draw_members,
    draw_picture_bodies,
    draw_types,
    read_docstring,
)
from app.web.tfserving.routes import MAX_VERSION

GROUPS = [native.PICTURES, native.SERVER, tfserving.GROUP, openinference.GROUP]
UNDOCUMENTED = {"/docs/<name>", "/page/<digest>/<name>"}  # the files of the two pages
EXAMPLES = Path(__file__).with_name("examples.json")
ABOUT = """\
One picture or many in, their labels out.

Every error is `application/problem+json` (RFC 9457). Under `/v1` and `/v2` the application answers as those
protocols do, `{"error": "…"}`; what the gateway answers by itself stays a problem.
"""
NAME = {"type": "string", "pattern": "^[^/:]+$"}
# What stands in braces in a path.
PARTS: dict[str, Schema] = {
    "action": {"description": "what to do", "schema": {"enum": ["load", "unload"]}},
    "label": {"description": "a label of one of its versions", "schema": NAME},
    "file": {"description": "its name", "schema": NAME, "example": "airport.jpg"},
    "name": {"description": "a model", "schema": NAME, "example": "demo"},
    "version": {
        "description": "one of its versions",
        "schema": {"type": "integer", "minimum": 0, "maximum": MAX_VERSION},
        "example": 1,
    },
}


def build_document(app: Flask) -> Schema:
    """Return the OpenAPI 3.1 document of the application."""
    builder = Builder(app)
    paths: dict[str, Schema] = {}
    for group in GROUPS:
        for operation in group.operations:
            drawn = {"tags": [group.name], **builder.draw(operation)}
            paths.setdefault(operation.path, {})[operation.method.lower()] = drawn
    return {
        "openapi": "3.1.0",
        "info": {"title": "ResNet Serving", "version": __version__, "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": group.name, "description": group.description} for group in GROUPS],
        "paths": paths,
        "components": builder.components,
    }


def find_rule(app: Flask, operation: Operation) -> Rule:
    """Return the rule by which the application finds an operation's view.

    Raises:
        NotFound, MethodNotAllowed: there is none (Werkzeug's).
    """
    path = operation.path.replace("{version}", "1").replace("{action}", "load")
    path = re.sub(r"{\w+}", "x", path)
    rule, _ = app.url_map.bind("").match(path, operation.method, return_rule=True)
    return rule


class Builder:
    """Draws operations, and keeps what many of them share."""

    def __init__(self, app: Flask) -> None:
        """Begin with what every document has."""
        self._app = app
        self._examples: dict[str, list[dict[str, Any]]] = json.decode(EXAMPLES.read_bytes())
        in_path = {
            name: {"name": name, "in": "path", "required": True, **told}
            for name, told in PARTS.items()
        }
        asked = {name: {"name": name, "in": "header", **told} for name, told in ASKED.items()}
        self.components: dict[str, dict[str, Any]] = {
            "schemas": {},
            "responses": {},
            "parameters": in_path | asked,
            "headers": TOLD,
        }
        self._keep("schemas", draw_types([Problem, DialectProblem])[1])

    def draw(self, operation: Operation) -> Schema:
        """Return an operation."""
        drawn: Schema = {"operationId": operation.id, "summary": operation.summary}
        drawn["description"] = operation.description or self._read_view(operation)
        drawn["parameters"] = self._draw_parameters(operation)
        if bodies := self._draw_bodies(operation):
            drawn["requestBody"] = {"required": not operation.may_be_empty, "content": bodies}
        drawn["responses"] = self._draw_responses(operation)
        return drawn

    def _read_view(self, operation: Operation) -> str:
        """Return what the docstring of an operation's view says."""
        view = self._app.view_functions[find_rule(self._app, operation).endpoint]
        return read_docstring(view.__doc__ or "")[0]

    def _draw_parameters(self, operation: Operation) -> list[Schema]:
        """Return what stands in the path, the query and the headers."""
        in_path = re.findall(r"{(\w+)}", operation.path)
        query = draw_members(operation.options) if operation.options else {}
        return [
            *map(refer_parameter, in_path),
            *(as_parameter(name, schema) for name, schema in query.items()),
            *map(refer_parameter, [*operation.asks, HEADER]),
        ]

    def _draw_bodies(self, operation: Operation) -> dict[str, Schema]:
        """Return the bodies that an operation takes by their media types."""
        bodies = {
            kind: {"schema": self._draw(held)} for kind, held in (operation.takes or {}).items()
        }
        if operation.takes_pictures and operation.options:
            is_many = operation.takes_pictures == "many"
            pictures, components = draw_picture_bodies(operation.options, is_many)
            self._keep("schemas", components)
            bodies |= {kind: {"schema": schema} for kind, schema in pictures.items()}
        self._add_examples(bodies, operation, "request")
        return bodies

    def _draw_responses(self, operation: Operation) -> dict[str, Schema]:
        """Return all answers by their statuses."""
        responses: dict[str, Schema] = {}
        if operation.answers:
            content = {
                kind: {"schema": self._draw(held)} for kind, held in operation.answers.items()
            }
            self._add_examples(content, operation, "answer")
            headers = refer([HEADER, *operation.tells])
            responses["200"] = {"description": "Done.", "headers": headers, "content": content}
        if operation.may_be_known:
            told = "The client has it already: it is what `If-None-Match` names."
            responses["304"] = {"description": told, "headers": refer([HEADER])}
        for status, name, response in describe_errors(operation):
            self._keep("responses", {name: response})
            responses[status] = {"$ref": f"#/components/responses/{name}"}
        return responses

    def _draw(self, held: Any) -> Schema:
        """Return the schema of a type, or of one of several."""
        kinds = held if isinstance(held, tuple) else (held,)
        schemas, components = draw_types(kinds)
        self._keep("schemas", components)
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}

    def _add_examples(self, content: Mapping[str, Schema], operation: Operation, part: str) -> None:
        """Show what was sent, or answered, for example."""
        for example in self._examples.get(operation.examples or operation.id, []):
            kind, value = example.get(f"{part}_type", ""), example.get(part)
            if kind in content and value is not None:
                shown = content[kind].setdefault("examples", {})
                shown[example["name"]] = {"summary": example["summary"], "value": value}

    def _keep(self, kind: str, parts: Mapping[str, Any]) -> None:
        """Take parts into ``components``; two that differ may not have the same name."""
        for name, part in parts.items():
            if self.components[kind].setdefault(name, part) != part:
                raise ValueError(f"two different {kind} are called {name}")


def refer_parameter(name: str) -> Schema:
    """Return a parameter that many operations have."""
    return {"$ref": f"#/components/parameters/{name}"}


def as_parameter(name: str, schema: Schema) -> Schema:
    """Return an option as a parameter of the query."""
    text = as_text(schema)
    told = text.pop("description")
    return {"name": name, "in": "query", "description": told, "schema": text}
