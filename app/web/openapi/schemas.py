"""From types to JSON Schema, which OpenAPI 3.1 speaks: msgspec draws them, their docstrings describe them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from app.web.input.forms import FORM
from app.web.input.options import ModelOptions
from app.web.input.tensors import B64
from app.web.input.uploads import FIELD, JSON, JSON_FIELD, RAW, URL_ENCODED, Source
from app.web.openapi.operations import File

Schema = dict[str, Any]

REF = "#/components/schemas/"
TEXT: Schema = {"type": "string", "description": "the picture's file in base64"}
# What types cannot say: of these members there is exactly one, or at least one.
CHOICES = {
    "NamedPicture": ("oneOf", ["image_bytes", "pixels"]),
    "Source": ("oneOf", ["b64", "url"]),
}


def draw_types(types: Sequence[Any]) -> tuple[list[Schema], dict[str, Schema]]:
    """Return the schema of each type, and those that they refer to, by their names."""
    schemas, components = msgspec.json.schema_components(types, ref_template=f"{REF}{{name}}")
    given = {kind.__name__: kind for kind in types if isinstance(kind, type)}
    for name, schema in components.items():
        name_types(schema)
        kind = given.get(name)
        inherited = [base.__doc__ or "" for base in kind.__mro__[1:]] if kind else []
        describe(schema, [schema.get("description", ""), *inherited])
        if name in CHOICES:
            keyword, members = CHOICES[name]
            schema[keyword] = [{"required": [member]} for member in members]
    return list(schemas), dict(components)


def name_types(schema: Any) -> None:
    """Say of what type choices are, wherever in a schema: msgspec leaves that out, and readers of it ask."""
    if isinstance(schema, list):
        for each in schema:
            name_types(each)
    elif isinstance(schema, dict):
        if "enum" in schema:
            is_text = all(isinstance(value, str) for value in schema["enum"])
            schema["type"] = "string" if is_text else "integer"
        name_types(list(schema.values()))


def describe(schema: Schema, docstrings: Sequence[str]) -> None:
    """Describe a type and its members as its docstrings do, its own before those of its bases."""
    texts = [read_docstring(docstring) for docstring in docstrings]
    if texts[0][0]:
        schema["description"] = texts[0][0]
    for name, member in schema.get("properties", {}).items():
        found = next((members[name] for _, members in texts if name in members), "")
        if found:
            member["description"] = found


def read_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """Return what a docstring says, in Markdown, without its sections, and what it says of each attribute."""
    text = inspect.cleandoc(docstring).replace("``", "`")
    told, _, attributes = text.partition("\n\nAttributes:\n")
    told = re.split(r"\n\n(?:Args|Returns|Raises):\n", told)[0]
    pairs = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return told, {name: " ".join(words.split()) for name, words in pairs}


def draw_members(kind: type[ModelOptions]) -> dict[str, Schema]:
    """Return the schema of each of a route's options."""
    _, components = draw_types([kind])
    properties: dict[str, Schema] = components[kind.__name__]["properties"]
    return properties


def as_text(schema: Schema) -> Schema:
    """Return an option's schema for the query and for forms.

    What is null in JSON is left out there. The default is told in words: Swagger UI would send it in
    the query and in the form, and an option may be given once.
    """
    text = dict(schema)
    default = text.pop("default", None)
    if kinds := [kind for kind in text.pop("anyOf", []) if kind != {"type": "null"}]:
        text |= kinds[0]
    if default not in (None, ""):
        text["description"] += f" Default: `{default}`."
    return text


def draw_picture_bodies(
    kind: type[ModelOptions], is_many: bool
) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """Return the bodies of a route that takes one picture or many in any form.

    Args:
        kind: the options beside them.
        is_many: whether there may be several.

    Returns:
        Media type → schema, and the components that they refer to.
    """
    options = draw_members(kind)
    # Swagger UI sends every field of a form, with "string" and 0 in it unless there is an example.
    fields = {name: as_text(schema) | {"example": ""} for name, schema in options.items()}
    (file, source), components = draw_types([File, Source])

    def draw(name: str, item: Schema, options: dict[str, Schema], as_list: bool) -> Schema:
        most = {} if is_many else {"maxItems": 1}
        pictures = {"type": "array", "items": item, "minItems": 1, **most} if as_list else item
        return {
            "type": "object",
            "properties": {name: pictures, **options},
            "required": [name],
            "additionalProperties": False,
        }

    bodies = {
        FORM: draw(FIELD, file, fields, is_many),  # a text "b64" is taken too, seldom of use here
        JSON: draw(JSON_FIELD, source, options, True),
        URL_ENCODED: draw(B64, TEXT, fields, is_many),
        "image/*": file,
        RAW: file,
    }
    return bodies, components
