"""The operations of the other servers' protocols, read from ``tfserving.json`` and ``openinference.json``.

The files hold the requests, which the routes parse by hand to word errors as those servers do, and the responses
that are written as text. Responses that the code builds as typed dictionaries are drawn from these types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct, json

from app.web.openapi.errors import DETAILS
from app.web.openapi.operations import Group, Operation, Schema
from app.web.openinference.schema import (
    IndexEntry,
    ModelNames,
    ModelReady,
    ModelTensors,
    OutputTensor,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from app.web.tfserving.schema import ModelList, ModelMetadata, ModelStatus

FOLDER = Path(__file__).parent
TARGET = "{target}"  # in a path: replaced by each of the file's targets
ERRORS = {error.code: error for error in DETAILS}


class TargetRow(Struct, forbid_unknown_fields=True):
    """A way to address a model: suffixes of an operation's path, id and summary."""

    id: str
    path: str
    summary: str


class OperationRow(Struct, forbid_unknown_fields=True):
    """An ``Operation`` with error codes in place of classes."""

    method: str
    path: str
    id: str
    summary: str
    description: str
    response_body: dict[str, Schema]
    errors: list[str]
    request_body: dict[str, Schema] = {}
    body_is_optional: bool = False
    request_headers: list[str] = []
    response_headers: list[str] = []
    has_etag: bool = False


class DialectFile(Struct, forbid_unknown_fields=True):
    """The content of a file."""

    name: str
    description: str
    targets: list[TargetRow]
    operations: list[OperationRow]
    schemas: dict[str, Schema]


def read_group(name: str, types: Sequence[type]) -> Group:
    """Read a file; ``types`` are those that it refers to."""
    dialect = json.decode((FOLDER / name).read_bytes(), type=DialectFile)
    operations = [*expand_targets(dialect)]
    return Group(dialect.name, dialect.description, operations, types, dialect.schemas)


def expand_targets(dialect: DialectFile) -> Iterator[Operation]:
    """Yield the operations of the server, then those of each target."""
    of_server = [row for row in dialect.operations if TARGET not in row.path]
    of_model = [row for row in dialect.operations if TARGET in row.path]
    for row in of_server:
        yield build_operation(row, TargetRow("", "", ""))
    for target in dialect.targets:
        for row in of_model:
            yield build_operation(row, target)


def build_operation(row: OperationRow, target: TargetRow) -> Operation:
    """Return the operation of a row for a target; all targets share the examples."""
    return Operation(
        row.method,
        row.path.replace(TARGET, target.path),
        f"{row.id}{target.id}",
        f"{row.summary}{target.summary}",
        row.response_body,
        {ERRORS[code] for code in row.errors},
        request_body=row.request_body,
        body_is_optional=row.body_is_optional,
        request_headers=row.request_headers,
        response_headers=row.response_headers,
        has_etag=row.has_etag,
        examples=row.id,
        description=row.description,
    )


TFSERVING = read_group("tfserving.json", [ModelList, ModelMetadata, ModelStatus])
OPENINFERENCE = read_group(
    "openinference.json",
    [
        IndexEntry,
        ModelNames,
        ModelReady,
        ModelTensors,
        OutputTensor,
        ServerLive,
        ServerMetadata,
        ServerReady,
    ],
)
