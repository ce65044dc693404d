"""From types to JSON Schema, which OpenAPI 3.1 speaks: msgspec draws them, their docstrings describe them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from app.web.forms import FORM
from app.web.openapi.operations import File
from app.web.options import ModelOptions
from app.web.pictures import FIELD, JSON, JSON_FIELD, RAW, URL_ENCODED, Source
from app.web.tensors import B64, Base64

Schema = dict[str, Any]

REF = "#/components/schemas/"
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
        kind = given.get(name)
        inherited = [base.__doc__ or "" for base in kind.__mro__[1:]] if kind else []
        describe(schema, [schema.get("description", ""), *inherited])
        if name in CHOICES:
            keyword, members = CHOICES[name]
            schema[keyword] = [{"required": [member]} for member in members]
    return list(schemas), dict(components)


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
    """Return an option's schema where it comes as text: what is null in JSON is left out there."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**kinds[0], "description": schema["description"]}


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
    texts = {name: as_text(schema) for name, schema in options.items()}
    (file, base64, source), components = draw_types([File, Base64, Source])

    def field(item: Schema, description: str) -> Schema:
        several = {"type": "array", "items": item, "minItems": 1} if is_many else item
        return {**several, "description": description}

    files, encoded = field(file, "as files"), field(base64, "in base64")
    sources = {"type": "array", "items": source, "minItems": 1}
    bodies = {
        FORM: draw_form({FIELD: files, B64: encoded}, texts, "anyOf" if is_many else "oneOf"),
        JSON: draw_form({JSON_FIELD: sources if is_many else {**sources, "maxItems": 1}}, options),
        URL_ENCODED: draw_form({B64: encoded}, texts),
        "image/*": file,
        RAW: file,
    }
    return bodies, components


def draw_form(
    pictures: dict[str, Schema], options: dict[str, Schema], choice: str = "allOf"
) -> Schema:
    """Return an object with options, and pictures in one member or another."""
    return {
        "type": "object",
        "properties": pictures | options,
        "additionalProperties": False,
        choice: [{"required": [name]} for name in pictures],
    }
