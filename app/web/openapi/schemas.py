"""JSON Schema (the dialect of OpenAPI 3.1) from types: msgspec draws them, docstrings describe them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from app.web.input.forms import FORM
from app.web.input.options import Options
from app.web.input.tensors import B64
from app.web.input.uploads import FIELD, JSON, JSON_FIELD, RAW, URL_ENCODED, Source
from app.web.openapi.operations import File, Schema

REF = "#/components/schemas/"
BASE64_FILE: Schema = {"type": "string", "description": "The image file in base64."}
# Constraints between members that types cannot express.
CHOICES = {"Source": ("oneOf", ["b64", "url"])}


def draw_types(types: Sequence[Any]) -> tuple[list[Schema], dict[str, Schema]]:
    """Return the schema of each type, and the components that they refer to by name."""
    schemas, components = msgspec.json.schema_components(types, ref_template=f"{REF}{{name}}")
    classes = {kind.__name__: kind for kind in types if isinstance(kind, type)}
    for name, schema in components.items():
        add_enum_types(schema)
        kind = classes.get(name)
        inherited = [base.__doc__ or "" for base in kind.__mro__[1:]] if kind else []
        add_descriptions(schema, [schema.get("description", ""), *inherited])
        if name in CHOICES:
            keyword, members = CHOICES[name]
            schema[keyword] = [{"required": [member]} for member in members]
    return list(schemas), dict(components)


def add_enum_types(schema: Any) -> None:
    """Add ``type`` to each enum of a schema: msgspec omits it, but some generators need it."""
    if isinstance(schema, list):
        for item in schema:
            add_enum_types(item)
    elif isinstance(schema, dict):
        if "enum" in schema:
            is_text = all(isinstance(value, str) for value in schema["enum"])
            schema["type"] = "string" if is_text else "integer"
        add_enum_types(list(schema.values()))


def add_descriptions(schema: Schema, docstrings: Sequence[str]) -> None:
    """Add the descriptions of a type and of its members; the first docstring that has a member wins."""
    parsed = [read_docstring(docstring) for docstring in docstrings]
    if description := parsed[0][0]:
        schema["description"] = description
    for name, member in schema.get("properties", {}).items():
        text = next((members[name] for _, members in parsed if name in members), "")
        if text:
            member["description"] = text


def read_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring in Markdown, without its sections, and the text of each attribute."""
    text = inspect.cleandoc(docstring).replace("``", "`")
    text, _, attributes = text.partition("\n\nAttributes:\n")
    text = re.split(r"\n\n(?:Args|Returns|Raises):\n", text)[0]
    pairs = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return text, {name: " ".join(words.split()) for name, words in pairs}


def draw_members(kind: type[Options]) -> dict[str, Schema]:
    """Return the schema of each option."""
    _, components = draw_types([kind])
    properties: dict[str, Schema] = components[kind.__name__]["properties"]
    return properties


def to_text_schema(schema: Schema) -> Schema:
    """Return the schema of an option for the query and for forms.

    There a null is expressed by leaving the option out. The default moves into the description: Swagger
    UI would send it in the query and in the form, and the server rejects duplicates.
    """
    text = dict(schema)
    default = text.pop("default", None)
    if kinds := [kind for kind in text.pop("anyOf", []) if kind != {"type": "null"}]:
        text |= kinds[0]
    if default not in (None, ""):
        text["description"] += f" Default: `{default}`."
    return text


def draw_image_bodies(
    kind: type[Options], is_many: bool
) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """Return the request bodies of a route that takes images in any supported form.

    Args:
        kind: the options beside the images.
        is_many: there may be more than one image.

    Returns:
        Media type → schema, and the components that they refer to.
    """
    options = draw_members(kind)
    # Swagger UI fills every form field with "string" or 0 unless there is an example.
    fields = {name: to_text_schema(schema) | {"example": ""} for name, schema in options.items()}
    (file, source), components = draw_types([File, Source])

    def draw(name: str, item: Schema, options: dict[str, Schema], as_list: bool) -> Schema:
        limit = {} if is_many else {"maxItems": 1}
        images = {"type": "array", "items": item, "minItems": 1, **limit} if as_list else item
        return {
            "type": "object",
            "properties": {name: images, **options},
            "required": [name],
            "additionalProperties": False,
        }

    bodies = {
        FORM: draw(FIELD, file, fields, is_many),  # a text field "b64" works too, but rarely helps
        JSON: draw(JSON_FIELD, source, options, True),
        URL_ENCODED: draw(B64, BASE64_FILE, fields, is_many),
        "image/*": file,
        RAW: file,
    }
    return bodies, components
